//! Forgetting and learning, defined once for CSVs, tables, figures and screens.
//!
//! - **Forgetting** of an old dataset compares its score now with its score at the end of the last
//!   phase that trained it; if no phase trains it, with its first score, that of the untouched model.
//!   In nats: NTP now − NTP then. In accuracy: then − now. In error: now − then. It is positive when something was lost, and
//!   exists only while the dataset's role is `old`.
//! - **Learning** of the new dataset compares its score now with the last evaluation before its
//!   phase (the end of the phase before, or step 0), with the signs turned: positive when
//!   something was gained. It exists only while the role is `new`.
//! - The **start** of a dataset at an evaluation is the evaluation it is compared with: for an old
//!   one, the end of the last phase that trained it (or its first score); for a new or a future one,
//!   the last evaluation before the current phase.
//! - **Best** is the best score from the start (inclusive) to the last evaluation.
//!
//! A value is `None` where one of its two scores is missing.

use super::{ArmState, Evaluation, PhaseInfo, Role, Score};

/// Difference between two evaluations of a dataset, in NTP, in accuracy and in error, which are never mixed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Change {
    /// Nats per token.
    pub ntp: Option<f64>,
    /// Share of rows, −1 to 1.
    pub accuracy: Option<f64>,
    /// Error of a regression.
    pub error: Option<f64>,
}

impl Change {
    fn loss(then: &Score, now: &Score) -> Self {
        Self {
            ntp: now.ntp.zip(then.ntp).map(|(now, then)| now - then),
            accuracy: now
                .accuracy
                .zip(then.accuracy)
                .map(|(now, then)| then - now),
            error: now
                .fit
                .zip(then.fit)
                .map(|(now, then)| now.error - then.error),
        }
    }

    fn gain(then: &Score, now: &Score) -> Self {
        Self {
            ntp: now.ntp.zip(then.ntp).map(|(now, then)| then - now),
            accuracy: now
                .accuracy
                .zip(then.accuracy)
                .map(|(now, then)| now - then),
            error: now
                .fit
                .zip(then.fit)
                .map(|(now, then)| then.error - now.error),
        }
    }
}

impl Evaluation {
    /// The score of a dataset.
    pub fn score(&self, dataset: &str) -> Option<&Score> {
        self.scores.iter().find(|score| score.dataset == dataset)
    }
}

impl ArmState {
    /// The evaluation that a dataset's score at `now` is compared with (see the module's definitions).
    pub fn start(
        &self,
        phases: &[PhaseInfo],
        dataset: &str,
        now: &Evaluation,
    ) -> Option<&Evaluation> {
        let before = |phase| self.evaluations.iter().rfind(move |e| e.phase < phase);
        if now.score(dataset)?.role == Role::Old {
            let mut trained = phases.iter().take(now.phase);
            return match trained.rposition(|p| p.dataset == dataset) {
                Some(trained) => self.evaluations.iter().rfind(|e| e.phase == trained),
                None => self.evaluations.iter().find(|e| e.score(dataset).is_some()),
            };
        }
        before(now.phase).or_else(|| self.evaluations.first())
    }

    /// Forgetting of an old dataset at `now`; no values for other roles.
    pub fn forgetting(&self, phases: &[PhaseInfo], dataset: &str, now: &Evaluation) -> Change {
        self.change(phases, dataset, now, Role::Old, Change::loss)
    }

    /// Learning of the new dataset at `now`; no values for other roles.
    pub fn learning(&self, phases: &[PhaseInfo], dataset: &str, now: &Evaluation) -> Change {
        self.change(phases, dataset, now, Role::New, Change::gain)
    }

    /// Mean forgetting over the old datasets at `now`; `None` where no old dataset has the value.
    pub fn mean_forgetting(&self, phases: &[PhaseInfo], now: &Evaluation) -> Change {
        let changes: Vec<Change> = now
            .scores
            .iter()
            .map(|s| self.forgetting(phases, &s.dataset, now))
            .collect();
        Change {
            ntp: mean(changes.iter().filter_map(|c| c.ntp)),
            accuracy: mean(changes.iter().filter_map(|c| c.accuracy)),
            error: mean(changes.iter().filter_map(|c| c.error)),
        }
    }

    /// Learning of the dataset that is new at `now`.
    pub fn new_learning(&self, phases: &[PhaseInfo], now: &Evaluation) -> Change {
        let new = now.scores.iter().find(|s| s.role == Role::New);
        new.map_or_else(Change::default, |s| self.learning(phases, &s.dataset, now))
    }

    fn change(
        &self,
        phases: &[PhaseInfo],
        dataset: &str,
        now: &Evaluation,
        role: Role,
        compare: fn(&Score, &Score) -> Change,
    ) -> Change {
        let scores = now
            .score(dataset)
            .filter(|s| s.role == role)
            .and_then(|score| Some((self.start(phases, dataset, now)?.score(dataset)?, score)));
        scores.map_or_else(Change::default, |(then, now)| compare(then, now))
    }
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0_u32), |(sum, count), v| (sum + v, count + 1));
    (count > 0).then(|| sum / f64::from(count))
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    /// The two figures every comparison rests on, by hand.
    #[test]
    fn forgetting_and_learning_are_against_the_right_evaluations() {
        let state = fixture::state();
        let arm = &state.arms[0];
        let now = arm.evaluations.last().unwrap();
        assert_eq!((now.phase, now.step), (1, 40));
        let close = |a: Option<f64>, b: f64| assert!((a.unwrap() - b).abs() < 1e-12, "{a:?} {b}");
        // `reversal` at the end of its own phase: 0.5 nats, 100 %; now 3.0 nats, 10 %.
        let lost = arm.forgetting(&state.phases, "reversal", now);
        close(lost.ntp, 2.5);
        close(lost.accuracy, 0.9);
        // `sort` at the end of the phase before its own: 2.4 nats, 0 %; now 0.7 nats, 95 %.
        let gained = arm.learning(&state.phases, "sort", now);
        close(gained.ntp, 1.7);
        close(gained.accuracy, 0.95);
        assert_eq!(
            arm.forgetting(&state.phases, "sort", now),
            Change::default()
        );
        assert_eq!(
            arm.learning(&state.phases, "reversal", now),
            Change::default()
        );
        assert_eq!(arm.mean_forgetting(&state.phases, now), lost);
        assert_eq!(arm.new_learning(&state.phases, now), gained);
        // In the first phase the start is step 0.
        let early = &arm.evaluations[1];
        close(arm.learning(&state.phases, "reversal", early).ntp, 2.0);
    }
}
