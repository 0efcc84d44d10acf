//! The tables of a comparison: what was learned and forgotten, final scores, cost.

use crate::run::{ArmStatus, Cost, RunState};
use crate::stats::mean;

use super::arms::{ArmSeeds, Seed, arms};
use super::measures::Metric;
use super::numbers::{human_count, human_seconds, in_metric, interval_of, nats, percent, spread};
use super::rows::status;
use super::sheet::{Format, Glyphs, Sheet};
use super::verdict::{Judgement, Margins, Over, judge, learning, margins};

/// What is put side by side, judged once.
pub struct Comparison<'a> {
    /// Runs by name.
    pub runs: Vec<(&'a str, &'a RunState)>,
    /// Arms over their seeds.
    pub arms: Vec<ArmSeeds<'a>>,
    /// Margins of the verdicts.
    pub margins: Margins,
    /// The verdict on each arm.
    pub judgements: Vec<Judgement>,
}

impl<'a> Comparison<'a> {
    /// Compares the arms of runs, those `wanted` by name or all, with the first run's margins or others.
    pub fn new(
        runs: &[(&'a str, &'a RunState)],
        margins_given: Option<Margins>,
        wanted: impl Fn(&str) -> bool,
    ) -> Self {
        let default = runs.first().map(|(_, state)| margins(state));
        let margins = margins_given.or(default).unwrap_or_default();
        let mut arms = arms(runs);
        arms.retain(|arm| wanted(&arm.name));
        Self {
            runs: runs.to_vec(),
            judgements: arms.iter().map(|arm| judge(arm, margins)).collect(),
            margins,
            arms,
        }
    }

    /// The most seeds that an arm has.
    pub fn most_seeds(&self) -> usize {
        self.arms
            .iter()
            .map(|arm| arm.counted().len())
            .max()
            .unwrap_or(0)
    }

    /// The tables shown at the end of a run, with the arms that failed.
    pub fn sheets(&self) -> Vec<Sheet> {
        vec![self.verdicts(), self.final_scores(), self.costs()]
    }

    /// Learning, forgetting with its interval, the worst loss and the verdict.
    fn verdicts(&self) -> Sheet {
        let mut head = vec![
            "arm",
            "learned",
            "forgot",
            "95 % interval",
            "worst @step",
            "verdict",
        ];
        let seeds = self.most_seeds();
        let alike = self.arms.iter().all(|arm| arm.counted().len() == seeds);
        if !alike {
            head.insert(1, "seeds");
        }
        let mut sheet = Sheet::new("learned and forgot", &head);
        let decided = || {
            self.judgements
                .iter()
                .filter_map(|j| Some(j.by.as_ref()?.dataset.as_str()))
        };
        let one_dataset = decided().all(|name| Some(name) == decided().next());
        if !one_dataset {
            sheet.head.push("by".to_owned());
        }
        let metrics: Vec<Metric> = self
            .judgements
            .iter()
            .filter_map(|j| Some(j.by.as_ref()?.metric))
            .collect();
        let one = metrics.windows(2).all(|two| two[0] == two[1]);
        let shown = metrics.first().copied().filter(|_| one);
        for (arm, judgement) in self.arms.iter().zip(&self.judgements) {
            let mut row = vec![arm.name.clone()];
            if !alike {
                row.push(arm.counted().len().to_string());
            }
            row.push(learned(arm, shown));
            row.extend(forgot(judgement, shown));
            if !one_dataset {
                let by = judgement.by.as_ref();
                row.push(by.map_or_else(String::new, |by| by.dataset.clone()));
            }
            sheet.rows.push(row);
        }
        if alike && seeds > 1 {
            sheet.notes.push(format!(
                "{seeds} seeds: means with 95 % intervals (t) over them."
            ));
        }
        sheet.notes.extend(self.notes(shown));
        sheet
    }

    /// What is to be known to read the verdicts.
    fn notes(&self, metric: Option<Metric>) -> Vec<String> {
        let unit = match metric {
            Some(Metric::Accuracy) => "in points of accuracy (%)",
            Some(Metric::Ntp) => "in nats a token",
            Some(Metric::Error) => "in units of the target (RMSE)",
            None => "in points of accuracy (%) or nats a token",
        };
        let by: Vec<_> = self
            .judgements
            .iter()
            .filter_map(|j| j.by.as_ref())
            .collect();
        if by.is_empty() {
            return Vec::new();
        }
        let mut names: Vec<&str> = Vec::new();
        for dataset in by.iter().map(|by| by.dataset.as_str()) {
            if !names.contains(&dataset) {
                names.push(dataset);
            }
        }
        let margin = match metric {
            Some(metric) => in_metric(metric, self.margins.of(metric)),
            None => format!(
                "{} % or {} nats",
                percent(self.margins.accuracy),
                nats(self.margins.ntp)
            ),
        };
        let mut notes = vec![format!(
            "forgot: of the old dataset with the worst verdict, of equal ones the most forgotten ({}), {unit}; margin {margin}.",
            names.join(", ")
        )];
        if by.iter().any(|by| by.seeds == 1 && by.interval.is_some()) {
            notes.push(
                "1 seed: the interval is over the held-out rows; it says nothing about other seeds."
                    .to_owned(),
            );
        }
        if by
            .iter()
            .any(|by| by.seeds > 1 && by.interval.is_some_and(|(_, over)| over != Over::Seeds))
        {
            notes.push(
                "No spread over seeds: the interval is over seeds and held-out rows together."
                    .to_owned(),
            );
        }
        if by.iter().any(|by| by.interval.is_none()) {
            notes.push(
                "none: without the scores of single rows there is no interval within a seed, and no verdict."
                    .to_owned(),
            );
        }
        if let Some(floors) = range(by.iter().filter_map(|by| Some((by.metric, by.floor?)))) {
            let most = by
                .iter()
                .filter_map(|by| Some(by.worst?.evaluations))
                .max()
                .unwrap_or(0);
            notes.push(format!(
                "Noise floor of the held-out rows: ±{floors}; worst is the lowest of K = {most} evaluations."
            ));
        }
        let pairs = self.arms.iter().zip(&self.judgements);
        notes.extend(pairs.filter_map(|(arm, judgement)| lost_on_the_way(&arm.name, judgement)));
        notes
    }

    /// The final score of every dataset: accuracy, or loss where nothing has one.
    fn final_scores(&self) -> Sheet {
        let mut names: Vec<&str> = Vec::new();
        for (_, state) in &self.runs {
            for dataset in state.datasets() {
                if !names.contains(&dataset) {
                    names.push(dataset);
                }
            }
        }
        let scores = |metric: Metric, arm: &ArmSeeds, dataset: &str| -> Vec<f64> {
            let last = |(_, own): Seed<'_>| {
                let mut evaluations = own.evaluations.iter().rev();
                evaluations.find_map(|e| metric.of(e.score(dataset)?))
            };
            arm.counted().into_iter().filter_map(last).collect()
        };
        let has = |metric: Metric| {
            let any = |arm| {
                names
                    .iter()
                    .any(|name| !scores(metric, arm, name).is_empty())
            };
            self.arms.iter().any(any)
        };
        let (metric, title) = match (has(Metric::Accuracy), has(Metric::Error)) {
            (true, _) => (Metric::Accuracy, "final accuracy, %"),
            (false, true) => (Metric::Error, "final error (RMSE)"),
            (false, false) => (Metric::Ntp, "final loss, nats per token"),
        };
        let mut sheet = Sheet::new(title, &["arm"]);
        sheet.head.extend(names.iter().map(|&name| name.to_owned()));
        for arm in &self.arms {
            let mut row = vec![arm.name.clone()];
            row.extend(
                names
                    .iter()
                    .map(|name| spread(metric, &scores(metric, arm, name))),
            );
            sheet.rows.push(row);
        }
        sheet
    }

    /// What each arm paid, a seed.
    fn costs(&self) -> Sheet {
        let title = match self.most_seeds() {
            0 | 1 => "cost",
            _ => "cost, mean of the seeds",
        };
        let mut sheet = Sheet::new(
            title,
            &[
                "arm",
                "tokens",
                "generated",
                "FLOPs",
                "of it eval",
                "time",
                "status",
            ],
        );
        for arm in &self.arms {
            let of = |value: &dyn Fn(Cost) -> Option<f64>| {
                let seeds = arm.counted().into_iter();
                let values: Option<Vec<f64>> = seeds.map(|(_, own)| value(own.cost())).collect();
                values.and_then(|values| mean(&values))
            };
            let count =
                |value: Option<f64>| value.map_or_else(String::new, |v| human_count(v as u64));
            let flops =
                |flops: Option<f64>| flops.map_or_else(String::new, |flops| format!("{flops:.2e}"));
            let mut statuses: Vec<&str> = Vec::new();
            for (state, own) in &arm.seeds {
                let word = status(state, own);
                if !statuses.contains(&word) {
                    statuses.push(word);
                }
            }
            sheet.rows.push(vec![
                arm.name.clone(),
                count(of(&|cost| Some(cost.tokens_trained as f64))),
                count(of(&|cost| Some(cost.tokens_generated as f64))),
                flops(of(&|cost| cost.flops())),
                flops(of(&|cost| {
                    Some(cost.flops_eval).filter(|eval| eval.is_finite())
                })),
                of(&|cost| Some(cost.seconds())).map_or_else(String::new, human_seconds),
                statuses.join(", "),
            ]);
        }
        for (state, arm) in self.arms.iter().flat_map(|arm| &arm.seeds) {
            if let ArmStatus::Failed(reason) | ArmStatus::Skipped(reason) = &arm.status {
                let (name, word) = (state.arm_label(arm), arm.status.word());
                sheet
                    .messages
                    .push(format!("{name} {word} at step {}: {reason}", arm.step));
            }
        }
        sheet
    }
}

/// Compares the arms of runs in tables for a terminal of 80 columns.
pub fn table(runs: &[(&str, &RunState)], glyphs: Glyphs) -> String {
    let comparison = Comparison::new(runs, None, |_| true);
    let sheets = comparison.sheets().into_iter();
    sheets
        .map(|sheet| sheet.write(Format::Text(glyphs)))
        .collect::<Vec<_>>()
        .join("\n")
}

/// The smallest and the largest of values, in words; of each metric apart.
fn range(values: impl Iterator<Item = (Metric, f64)>) -> Option<String> {
    let all: Vec<(Metric, f64)> = values.collect();
    let of = |metric: Metric| {
        let values = || all.iter().filter(|(of, _)| *of == metric).map(|(_, v)| *v);
        let [least, most] = [values().reduce(f64::min)?, values().reduce(f64::max)?]
            .map(|value| in_metric(metric, value));
        Some(if least == most {
            least
        } else {
            format!("{least} to {most}")
        })
    };
    let words: Vec<String> = Metric::ALL.into_iter().filter_map(of).collect();
    match &words[..] {
        [] => None,
        [only] => Some(only.clone()),
        [points, nats, ..] => Some(format!("{points} % or {nats} nats")),
    }
}

/// What was learned of the new dataset, with its unit where that is not the one of the table.
fn learned(arm: &ArmSeeds, of_table: Option<Metric>) -> String {
    let (metric, values) = learning(arm);
    with_unit(spread(metric, &values), metric, of_table)
}

/// Forgetting, its interval, the worst loss and the verdict.
fn forgot(judgement: &Judgement, of_table: Option<Metric>) -> [String; 4] {
    let word = judgement.verdict.word().to_owned();
    let Some(by) = &judgement.by else {
        return [String::new(), String::new(), String::new(), word];
    };
    let interval = by
        .interval
        .map(|(interval, _)| interval_of(by.metric, interval));
    let worst = by.worst.map(|worst| {
        let loss = in_metric(by.metric, worst.loss);
        match worst.loss > 0.0 {
            true => format!("{loss} @{}", worst.step),
            false => loss,
        }
    });
    [
        with_unit(in_metric(by.metric, by.mean), by.metric, of_table),
        interval.unwrap_or_else(|| "none".to_owned()),
        worst.unwrap_or_default(),
        word,
    ]
}

/// A value, with its unit where that is not the one of the table.
fn with_unit(value: String, metric: Metric, of_table: Option<Metric>) -> String {
    match metric {
        _ if of_table == Some(metric) || value.is_empty() => value,
        Metric::Accuracy => format!("{value} %"),
        Metric::Ntp => format!("{value} nats"),
        Metric::Error => format!("{value} RMSE"),
    }
}

/// Why an arm forgets that has its old data again at the end.
fn lost_on_the_way(arm: &str, judgement: &Judgement) -> Option<String> {
    let by = judgement.by.as_ref()?;
    let worst = by.worst.filter(|worst| worst.decides)?;
    let over = match by.seeds {
        1 => String::new(),
        seeds => format!(", on average over {seeds} seeds,"),
    };
    Some(format!(
        "{arm}: FORGETS by a loss on the way: {} of {} was lost{over} at an evaluation before the last, more than \
         the margin and the noise floor of K = {} evaluations (±{}).",
        in_metric(by.metric, worst.before_last),
        by.dataset,
        worst.evaluations,
        in_metric(by.metric, worst.floor?),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::fixture;

    /// An average is spoken of where there is one.
    #[test]
    fn a_loss_on_the_way_names_its_dataset_and_how_many_seeds_lost_it() {
        let mut state = fixture::state();
        fixture::add_outcomes(&mut state);
        let compared = Comparison::new(&[("a", &state)], None, |_| true);
        let mut judgement = compared.judgements[0].clone();
        assert_eq!(lost_on_the_way("none", &judgement), None);
        let by = judgement.by.as_mut().unwrap();
        let worst = by.worst.as_mut().unwrap();
        (worst.decides, worst.before_last, worst.floor) = (true, 0.389, Some(0.149));
        let told = lost_on_the_way("none", &judgement).unwrap();
        assert!(
            told.contains("38.9 of reversal was lost at an evaluation"),
            "{told}"
        );
        assert!(told.contains("±14.9"), "{told}");
        judgement.by.as_mut().unwrap().seeds = 5;
        let told = lost_on_the_way("none", &judgement).unwrap();
        assert!(
            told.contains("was lost, on average over 5 seeds, at"),
            "{told}"
        );
    }

    /// Else nobody would see which arm of a regression forgets, or would read its errors as nats.
    #[test]
    fn a_regression_is_judged_and_told_by_its_errors() {
        let mut state = fixture::seeds(&[0.0, 0.0, 0.0]);
        for (i, arm) in state.arms.iter_mut().enumerate() {
            let grows = if arm.info.name == "none" { 2.0 } else { 0.001 };
            for evaluation in &mut arm.evaluations {
                let phase = evaluation.phase as f64;
                for score in &mut evaluation.scores {
                    (score.ntp, score.accuracy, score.outcomes) = (None, None, None);
                    let error = 0.1 + phase * grows * (1.0 + 0.01 * i as f64);
                    let distance = None;
                    score.fit = Some(crate::run::Fit { error, distance });
                }
            }
        }
        let verdicts = |state: &RunState| {
            let compared = Comparison::new(&[("a", state)], None, |_| true);
            let words = compared.judgements.iter();
            words.map(|j| j.verdict.word()).collect::<Vec<_>>()
        };
        assert_eq!(verdicts(&state), ["FORGETS", "keeps"]);
        let text = table(&[("a", &state)], Glyphs::Ascii);
        for told in [
            "final error (RMSE)",
            "units of the target",
            "margin 0.050",
            "2.040",
        ] {
            assert!(text.contains(told), "{told}:\n{text}");
        }
        assert!(!text.contains("nats"), "{text}");
        state.config = Some(serde_json::json!({ "verdict": { "margin_error": 5.0 } }));
        assert_eq!(verdicts(&state), ["keeps", "keeps"]);
    }

    /// The last thing a run says, on the smallest terminal.
    #[test]
    fn the_tables_are_readable_and_fit() {
        let mut state = fixture::state();
        let without = table(&[("a", &state)], Glyphs::Ascii);
        assert!(
            without.contains("none: without the scores of single rows"),
            "{without}"
        );
        fixture::add_outcomes(&mut state);
        let written = table(&[("a", &state)], Glyphs::Ascii);
        let mut second = state.clone();
        for arm in &mut second.arms {
            arm.info.seed = 1;
            for score in arm.evaluations.iter_mut().flat_map(|e| &mut e.scores) {
                score.accuracy = score.accuracy.map(|accuracy| accuracy * 0.99);
            }
        }
        let mut both = state.clone();
        both.arms.extend(second.arms);
        let both = table(&[("a", &both)], Glyphs::Unicode);
        let written = format!("{written}\n{both}");
        if std::env::var_os("FORGETLAB_BLESS").is_some() {
            std::fs::write("src/report/table.txt", &written).unwrap();
        }
        assert_eq!(written, include_str!("table.txt"), "\n{written}");

        state.arms[0].info.name = "a-strategy-with-a-very-long-name:kl:10".into();
        state.arms[0].info.seed = 7;
        state.arms[0].status = ArmStatus::Failed("loss is not a number".into());
        state.arms[1].status = ArmStatus::Running;
        state.interrupted = Some("SIGINT".into());
        state.phases.extend((0..12).map(|i| crate::run::PhaseInfo {
            dataset: format!("dataset-{i}"),
            steps: 1,
        }));
        for glyphs in [Glyphs::Ascii, Glyphs::Unicode] {
            let text = table(&[("a", &state), ("b", &state)], glyphs);
            assert!(
                text.lines()
                    .filter(|l| !l.contains("failed at step"))
                    .all(|l| l.chars().count() <= 80),
                "{text}"
            );
            assert!(glyphs == Glyphs::Unicode || text.is_ascii(), "{text}");
            for expected in [
                "failed at step 40: loss is not a number",
                "interrupted",
                "#7",
            ] {
                let one_line = text.replace('\n', " ");
                assert!(one_line.contains(expected), "{expected}:\n{text}");
            }
        }
    }
}
