//! The arms of a run with their seeds, and what is drawn of several seeds.

use crate::run::{ArmState, Evaluation, RunState, Score};

use super::super::arms as in_tables;
pub(super) use super::super::mean::Mean;

/// An arm with its seeds.
pub(super) struct Arm<'a> {
    /// The arm, as tables have it.
    pub(super) of: in_tables::ArmSeeds<'a>,
    /// The seeds that are drawn: those that count.
    pub(super) seeds: Vec<&'a ArmState>,
}

/// The arms of a run, in its order.
pub(super) fn arms(state: &RunState) -> Vec<Arm<'_>> {
    let arms = in_tables::arms(&[("", state)]).into_iter();
    arms.map(|of| {
        let seeds = of.counted().into_iter().map(|(_, own)| own).collect();
        Arm { of, seeds }
    })
    .collect()
}

impl Arm<'_> {
    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.of.name
    }

    /// How many seeds it has, where the run has several, and how it stands, where it is not finished.
    pub(super) fn remarks(&self, state: &RunState) -> String {
        let mut remarks = Vec::new();
        if state.has_several_seeds() {
            remarks.push(match self.seeds.len() {
                1 => "1 seed".to_owned(),
                n => format!("{n} seeds"),
            });
        }
        for word in ["failed", "skipped"] {
            let all = &self.of.seeds;
            let count = all.iter().filter(|(_, a)| a.status.word() == word).count();
            if count > 0 && all.len() == 1 {
                remarks.push(word.to_owned());
            } else if count > 0 {
                remarks.push(format!("{count} {word}"));
            }
        }
        let under_way = self.seeds.iter().filter(|arm| !arm.status.is_over());
        if let Some(step) = under_way.map(|arm| arm.step).min() {
            remarks.push(format!("step {step} of {}", state.total_steps()));
        }
        remarks.join(", ")
    }

    /// Name and remarks.
    pub(super) fn title(&self, state: &RunState) -> String {
        match self.remarks(state) {
            remarks if remarks.is_empty() => self.name().to_owned(),
            remarks => format!("{}, {remarks}", self.name()),
        }
    }

    /// A score of a dataset over the steps that all seeds have reached: mean over seeds.
    pub(super) fn curve(
        &self,
        dataset: &str,
        of: impl Fn(&Score) -> Option<f64>,
    ) -> Vec<(u64, Mean)> {
        let Some((first, others)) = self.seeds.split_first() else {
            return Vec::new();
        };
        let value = |evaluation: &Evaluation| of(evaluation.score(dataset)?);
        let at = |evaluation: &Evaluation| {
            let step = evaluation.step;
            let mut values = vec![value(evaluation)?];
            for seed in others {
                values.push(value(seed.evaluations.iter().find(|e| e.step == step)?)?);
            }
            Some((step, Mean::of(&values)?))
        };
        first.evaluations.iter().filter_map(at).collect()
    }
}
