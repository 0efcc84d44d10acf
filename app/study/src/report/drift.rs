//! Forgetting against drift on the new data: the KL to the model before, which is said to predict it
//! (arXiv 2509.04259).

use crate::run::{ArmState, RunState};
use crate::stats::{pearson, spearman};

use super::arms::arms;
use super::equal_terms::{course, is_told_by_losses};
use super::mean::Mean;
use super::measures::Metric;
use super::numbers::{fixed, spread};
use super::sheet::Sheet;

/// Drift and forgetting of arms at their ends.
pub(super) struct Drift {
    /// What they are of.
    pub(super) title: String,
    /// The new data.
    pub(super) new: String,
    /// The runs; a single one has no name.
    pub(super) runs: Vec<String>,
    /// Names of the arms.
    pub(super) arms: Vec<String>,
    /// One an arm of a run.
    pub(super) marks: Vec<Mark>,
}

/// An arm of a run at its end.
pub(super) struct Mark {
    /// Its run, as a place in [`Drift::runs`].
    pub(super) run: usize,
    /// The arm, as a place in [`Drift::arms`].
    pub(super) arm: usize,
    /// KL on the new data, of each seed.
    pub(super) kl: Vec<f64>,
    /// Forgetting of the old data, of each seed.
    pub(super) forgot: Vec<f64>,
}

impl Drift {
    /// Of runs that are told by losses; `None` unless they have two arms or more.
    pub(super) fn of(runs: &[(&str, &RunState)]) -> Option<Self> {
        let fitting = runs.iter().filter(|(_, state)| is_told_by_losses(state));
        let fitting: Vec<(&str, &RunState)> = fitting.copied().collect();
        let (_, first) = fitting.first()?;
        let mut drift = Self {
            title: first.experiment.clone(),
            new: first.phases.last()?.dataset.clone(),
            runs: fitting.iter().map(|(name, _)| (*name).to_owned()).collect(),
            arms: Vec::new(),
            marks: Vec::new(),
        };
        for (run, &(_, state)) in fitting.iter().enumerate() {
            for arm in arms(&[("", state)]) {
                let ends = arm
                    .counted()
                    .into_iter()
                    .filter_map(|(_, own)| end(state, own));
                let (kl, forgot): (Vec<f64>, Vec<f64>) = ends.unzip();
                if kl.is_empty() {
                    continue;
                }
                let known = drift.arms.iter().position(|name| *name == arm.name);
                let at = known.unwrap_or(drift.arms.len());
                if known.is_none() {
                    drift.arms.push(arm.name);
                }
                drift.marks.push(Mark {
                    run,
                    arm: at,
                    kl,
                    forgot,
                });
            }
        }
        (drift.marks.len() > 1).then_some(drift)
    }

    /// Correlation of the arms' means, in words; empty where there are too few.
    pub(super) fn correlation(&self) -> String {
        let mean = |values: &[f64]| Some(Mean::of(values)?.value);
        let pairs = self.marks.iter();
        let pairs: Vec<(f64, f64)> = pairs
            .filter_map(|mark| Some((mean(&mark.kl)?, mean(&mark.forgot)?)))
            .collect();
        let said = |name: &str, value: Option<f64>| {
            value.map(|value| format!("{name} {}", fixed(value, 2)))
        };
        let both = [
            said("Spearman", spearman(&pairs)),
            said("Pearson", pearson(&pairs)),
        ];
        let both: Vec<String> = both.into_iter().flatten().collect();
        match both.is_empty() {
            true => String::new(),
            false => format!("{} ({} arms)", both.join(", "), pairs.len()),
        }
    }

    /// Its table.
    pub(super) fn sheet(&self) -> Sheet {
        let mut sheet = Sheet::new(
            format!("forgetting against drift on {}, at the end", self.new),
            &["arm", "KL on new data", "forgot"],
        );
        for mark in &self.marks {
            let arm = &self.arms[mark.arm];
            let name = match self.runs.len() {
                1 => arm.clone(),
                _ => format!("{}: {arm}", self.runs[mark.run]),
            };
            sheet.rows.push(vec![
                name,
                spread(Metric::Ntp, &mark.kl),
                spread(Metric::Ntp, &mark.forgot),
            ]);
        }
        let correlation = self.correlation();
        if !correlation.is_empty() {
            sheet.notes.push(format!(
                "Correlation of both over the means of the arms: {correlation}."
            ));
        }
        sheet.notes.push(
            "KL(model before the phase || model now) on held-out new data, and loss of the old data after minus \
             before, both in nats; mean and 95 % interval over seeds."
                .into(),
        );
        sheet
    }
}

/// KL on the new data and forgetting of a seed at its last evaluation.
fn end(state: &RunState, arm: &ArmState) -> Option<(f64, f64)> {
    let last = arm
        .evaluations
        .last()
        .filter(|e| e.phase + 1 == state.phases.len())?;
    let kl = last
        .score(&state.phases.last()?.dataset)?
        .kl
        .filter(|kl| kl.is_finite())?;
    let course = course(state, arm);
    let (start, end) = (course.first()?, course.last()?);
    Some((kl, end.old - start.old))
}

#[cfg(test)]
mod tests {
    use super::super::sweep::made_up::{Made, state};
    use super::*;

    /// Else the predictor would be judged by other data, or arms that have not begun would count.
    #[test]
    fn drift_and_forgetting_are_those_of_the_end() {
        let made = |name: &str, kl: f64, old: f64| Made {
            name: name.into(),
            course: vec![(0, 8.0, 3.0, 0.0), (10, 5.0, 9.0, 9.0), (20, 4.0, old, kl)],
            ..Made::default()
        };
        let mut run = state(&[
            made("none", 4.0, 5.0),
            made("true-data:kl:1", 1.0, 3.25),
            made("true-data:kl:10", 2.0, 3.125),
            made("true-data:kl:100", 3.0, 3.5),
        ]);
        run.arms[3].evaluations.retain(|e| e.phase == 0);
        let sheet = Drift::of(&[("", &run)]).expect("arms").sheet();
        let expected = [
            ["none", "4.000", "2.000"],
            ["true-data:kl:1", "1.000", "0.250"],
            ["true-data:kl:10", "2.000", "0.125"],
        ];
        assert_eq!(sheet.rows, expected);
        // Ranks 3 1 2 against 3 2 1: 1 − 6·2/(3·8). Pearson: 2.958333 / √(4.666667 · 2.197917).
        let said =
            "Correlation of both over the means of the arms: Spearman 0.50, Pearson 0.92 (3 arms).";
        assert_eq!(sheet.notes[0], said);
        let sheet = Drift::of(&[("a", &run), ("b", &run)])
            .expect("arms")
            .sheet();
        assert_eq!(
            (sheet.rows.len(), sheet.rows[3][0].as_str()),
            (6, "b: none")
        );
        assert!(
            Drift::of(&[("", &crate::run::fixture::state())]).is_none(),
            "digits"
        );
    }
}
