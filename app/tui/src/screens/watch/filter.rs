//! Which arms pass the filter.

use std::borrow::Cow;

use forgetlab_study::filter::{Config, Filter, Record};
use forgetlab_study::run::Role;

use crate::figures;
use crate::track::Axis;
use crate::widgets::verdict;

use super::Watch;
use super::table::{ArmRow, Column};

impl Record for ArmRow<'_> {
    fn words(&self) -> Vec<Cow<'_, str>> {
        vec![Cow::Borrowed(self.group.label.as_str())]
    }

    fn texts(&self, field: &str) -> Vec<Cow<'_, str>> {
        let info = &self.group.mean.info;
        let run = self.seeds.seeds.first().map(|(run, _)| *run);
        let of_run = |text: Option<&str>| {
            text.map(|text| vec![Cow::Owned(text.to_owned())])
                .unwrap_or_default()
        };
        match field {
            "arm" => vec![Cow::Borrowed(info.name.as_str())],
            "strategy" => vec![Cow::Borrowed(info.strategy.as_str())],
            "verdict" => vec![Cow::Borrowed(verdict::word(self.judgement))],
            "status" => {
                let statuses = self.seeds.seeds.iter().map(|(_, arm)| arm.status.word());
                statuses.map(Cow::Borrowed).collect()
            }
            "experiment" => of_run(run.map(|run| run.experiment.as_str())),
            "preset" => of_run(run.map(|run| run.preset.as_str())),
            "device" => of_run(run.map(|run| run.device.as_str())),
            _ => Vec::new(),
        }
    }

    fn numbers(&self, field: &str) -> Vec<f64> {
        let metric = self.by_metric();
        let number = |column| self.number(column, metric).0;
        let value = match field {
            "forgot" => number(Column::Forgot),
            "learned" => number(Column::Learned),
            "worst" => number(Column::Worst),
            "kept" => number(Column::Kept),
            "kl_old" => figures::kl(&self.group.mean, Role::Old),
            "kl_new" => figures::kl(&self.group.mean, Role::New),
            "tokens" => number(Column::Tokens),
            "flops" => self.group.track.end().map(|at| at.on(Axis::Flops)),
            "seconds" => number(Column::Time),
            "lr" => Some(self.group.mean.info.lr),
            "coeff" => self.group.mean.info.coeff,
            "done" => number(Column::Status),
            "seed" => {
                let seeds = self.seeds.seeds.iter();
                return seeds.map(|(_, arm)| arm.info.seed as f64).collect();
            }
            _ => None,
        };
        value
            .filter(|value| value.is_finite())
            .into_iter()
            .collect()
    }

    fn configs(&self) -> Vec<Config<'_>> {
        let configs = self
            .seeds
            .seeds
            .iter()
            .filter_map(|(run, _)| run.config.as_ref());
        configs.map(Config::Json).collect()
    }
}

impl Watch {
    /// Values that a field of a filter has among the arms.
    pub fn values_of(&self, field: &str) -> Vec<String> {
        let rows = self.rows();
        let values = rows.iter().flat_map(|row| row.texts(field));
        values.map(Cow::into_owned).collect()
    }

    /// Filters the arms by another text, or takes the filter away.
    pub(super) fn set_filter(&mut self, text: &str) {
        text.trim().clone_into(&mut self.view.filter);
        self.read_filter();
        self.go_to_shown();
    }

    /// Reads the filter of the view; one that cannot be read lets nothing pass, and says why.
    pub(super) fn read_filter(&mut self) {
        let read = Filter::parse(&self.view.filter);
        self.filter_problem = read.as_ref().err().map(ToString::to_string);
        self.filter = read.ok();
    }

    /// Whether an arm passes.
    pub(super) fn passes(&self, row: &ArmRow) -> bool {
        match (&self.filter, &self.filter_problem) {
            (Some(filter), _) => filter.matches(row),
            (None, problem) => problem.is_none(),
        }
    }

    /// Puts the cursor on an arm that is shown.
    fn go_to_shown(&mut self) {
        let shown: Vec<usize> = self.rows().iter().map(|row| row.group.index).collect();
        if !shown.contains(&self.arm) {
            self.arm = shown.first().copied().unwrap_or(self.arm);
        }
    }
}
