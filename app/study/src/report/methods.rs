//! Ways of finetuning side by side: what each has kept of the old data and learned of the new when its phase is over.

use crate::experiment::shortest;
use crate::run::RunState;

use super::arms::arms;
use super::equal_terms::{course, is_told_by_losses, old_names};
use super::measures::Metric;
use super::numbers::spread;
use super::sheet::Sheet;

/// More arms than these are no comparison of methods that a figure could tell apart.
const MOST: usize = 12;
/// Nor are more arms than these of each method on average: those are rates, shares or coefficients.
const MOST_EACH: usize = 2;

/// The arms of a run at their ends.
pub(super) struct Methods {
    /// The experiment.
    pub(super) title: String,
    /// The old data.
    pub(super) old: String,
    /// The new data.
    pub(super) new: String,
    /// Losses of the new and the old data before the phase, of each seed.
    pub(super) before: [Vec<f64>; 2],
    /// The arms.
    pub(super) arms: Vec<Method>,
    /// Arms that have not come to their end.
    pub(super) unfinished: Vec<String>,
}

/// An arm at its end.
pub(super) struct Method {
    /// Its name.
    pub(super) name: String,
    /// Its finetuning rate.
    pub(super) lr: f64,
    /// Losses of the new data, of each seed.
    pub(super) new: Vec<f64>,
    /// Losses of the old data, of each seed.
    pub(super) old: Vec<f64>,
}

impl Methods {
    /// Of a run that is told by losses; `None` unless it has 2 to 12 arms of more than one method.
    pub(super) fn of(state: &RunState) -> Option<Self> {
        if !is_told_by_losses(state) {
            return None;
        }
        let (mut methods, mut unfinished) = (Vec::new(), Vec::new());
        let mut before: Vec<(u64, f64, f64)> = Vec::new();
        let mut kinds: Vec<(&str, &str)> = Vec::new();
        for arm in arms(&[("", state)]) {
            let (mut new, mut old) = (Vec::new(), Vec::new());
            let counted = arm.counted();
            for (_, own) in &counted {
                let course = course(state, own);
                let [start, .., end] = &course[..] else {
                    continue;
                };
                new.push(end.new);
                old.push(end.old);
                if before.iter().all(|&(seed, ..)| seed != own.info.seed) {
                    before.push((own.info.seed, start.new, start.old));
                }
            }
            let over = counted
                .iter()
                .all(|(_, own)| own.status.word() == "finished");
            if !over || new.len() < arm.seeds.len() {
                unfinished.push(arm.name.clone());
            }
            let Some((_, own)) = counted.first().filter(|_| !new.is_empty()) else {
                continue;
            };
            let kind = (own.info.strategy.as_str(), own.info.objective.as_str());
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
            let (name, lr) = (arm.name, own.info.lr);
            methods.push(Method { name, lr, new, old });
        }
        let apart = kinds.len() > 1 && methods.len() <= MOST_EACH * kinds.len();
        let fits = (2..=MOST).contains(&methods.len()) && apart;
        fits.then(|| Self {
            title: state.experiment.clone(),
            old: old_names(state),
            new: state
                .phases
                .last()
                .map(|phase| phase.dataset.clone())
                .unwrap_or_default(),
            before: [
                before.iter().map(|&(_, new, _)| new).collect(),
                before.iter().map(|&(.., old)| old).collect(),
            ],
            arms: methods,
            unfinished,
        })
    }

    /// Its table.
    pub(super) fn sheet(&self) -> Sheet {
        let mut sheet = Sheet::new(
            format!(
                "old ({}) and new ({}) loss by method, at the end",
                self.old, self.new
            ),
            &["arm", "old loss", "new loss", "lr"],
        );
        let row = |name: &str, old: &[f64], new: &[f64], lr: String| {
            vec![
                name.to_owned(),
                spread(Metric::Ntp, old),
                spread(Metric::Ntp, new),
                lr,
            ]
        };
        let [new, old] = &self.before;
        sheet.rows.push(row("before", old, new, String::new()));
        let methods = self.arms.iter();
        sheet
            .rows
            .extend(methods.map(|arm| row(&arm.name, &arm.old, &arm.new, shortest(arm.lr))));
        sheet.notes.push(
            "Nats, mean and 95 % interval over seeds; a log-likelihood is a loss with the sign turned. Small models \
             divide by all positions of a row."
                .into(),
        );
        if !self.unfinished.is_empty() {
            let unfinished = self.unfinished.join(", ");
            sheet
                .notes
                .push(format!("Not finished with every seed: {unfinished}."));
        }
        sheet
    }
}

#[cfg(test)]
mod tests {
    use super::super::sweep::made_up::{Made, state};
    use super::*;

    fn made(name: &str, seed: u64, (new, old): (f64, f64)) -> Made {
        Made {
            name: name.into(),
            seed,
            before: 3.0 + seed as f64,
            course: vec![(0, 8.0, 0.0, 0.0), (10, 5.0, 9.0, 0.1), (20, new, old, 0.2)],
            ..Made::default()
        }
    }

    /// Else losses on the way would stand for those at the end, or rates for methods.
    #[test]
    fn methods_are_told_by_their_ends() {
        let mut run = state(&[
            made("none", 0, (4.0, 6.0)),
            made("none", 1, (4.0, 6.0)),
            made("true-data:kl:10+lr=1e-3", 0, (4.5, 3.5)),
            made("true-data:kl:10+lr=1e-3", 1, (4.5, 3.5)),
        ]);
        let sheet = Methods::of(&run).expect("two methods").sheet();
        // t of one degree of freedom is 12.706, times 0.5 for 3 and 4.
        let expected = [
            ["before", "3.500 ±6.353", "8.000 ±0.000", ""],
            ["none", "6.000 ±0.000", "4.000 ±0.000", "3e-3"],
            [
                "true-data:kl:10+lr=1e-3",
                "3.500 ±0.000",
                "4.500 ±0.000",
                "1e-3",
            ],
        ];
        assert_eq!(sheet.rows, expected);
        assert_eq!(sheet.notes.len(), 1);
        run.arms[1].status = crate::run::ArmStatus::Running;
        let notes = Methods::of(&run).expect("two methods").sheet().notes;
        assert_eq!(notes[1], "Not finished with every seed: none.");
        let rates = ["none", "none+lr=1e-3"].map(|name| made(name, 0, (4.0, 6.0)));
        assert!(Methods::of(&state(&rates)).is_none(), "one method");
        assert!(
            Methods::of(&crate::run::fixture::state()).is_none(),
            "digits"
        );
        assert!(Methods::of(&RunState::default()).is_none());
    }
}
