//! What one arm (with one seed) kept and learned, besides forgetting against the end of a phase
//! ([`crate::run::Change`]). Formulas and sources stand in `results/README.md`, too.

use crate::run::{ArmState, Evaluation, PhaseInfo, Role, RunState, Score};
use crate::stats::{Flips, Transitions, mean};

/// A measure of a dataset: accuracy (a share, more is better), next-token loss (nats per token, less is better), or of
/// a regression the error (in units of the target, less is better).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// Accuracy, 0 to 1.
    Accuracy,
    /// Next-token loss, nats per token.
    Ntp,
    /// Root mean square error of a regression.
    Error,
}

impl Metric {
    /// All, the one that verdicts prefer first.
    pub const ALL: [Self; 3] = [Self::Accuracy, Self::Ntp, Self::Error];

    /// Name in the CSVs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Accuracy => "accuracy",
            Self::Ntp => "ntp",
            Self::Error => "error",
        }
    }

    /// The value of a score.
    pub fn of(self, score: &Score) -> Option<f64> {
        let value = match self {
            Self::Accuracy => score.accuracy,
            Self::Ntp => score.ntp,
            Self::Error => score.fit.map(|fit| fit.error),
        };
        value.filter(|value| value.is_finite())
    }

    /// What is lost from one value to another: positive where the second is worse.
    pub fn loss(self, then: f64, now: f64) -> f64 {
        match self {
            Self::Accuracy => then - now,
            Self::Ntp | Self::Error => now - then,
        }
    }
}

/// The worst score of old data since it was last trained, for the stability gap (arXiv 2205.13452).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Worst {
    /// The score.
    pub score: f64,
    /// Steps of the arm there; of several as bad, the first.
    pub step: u64,
    /// Evaluations since the data was last trained, of which it is the worst.
    pub evaluations: usize,
}

/// What an arm kept of an old dataset at its last evaluation, in one metric.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Kept {
    /// Worst score since it was last trained.
    pub worst: Option<Worst>,
    /// The same without the last evaluation.
    pub worst_before_last: Option<Worst>,
    /// Forgetting against the best score so far at the end of a phase (arXiv 1801.10112), where ours is against the
    /// end of the last phase that trained it.
    pub forgetting_from_best: Option<f64>,
    /// Mean over the steps since it was last trained of the share that is kept: accuracy over accuracy at the end of
    /// its phase, or the likelihood of a token over that then, `exp(NTP then − NTP now)`. The mean is over steps:
    /// evaluations are joined by straight lines. An error has no share.
    pub retention: Option<f64>,
}

/// What an arm kept of a dataset; nothing where it is not old.
pub fn kept(state: &RunState, arm: &ArmState, dataset: &str, metric: Metric) -> Kept {
    let Some((start, now)) = since_trained(arm, &state.phases, dataset) else {
        return Kept::default();
    };
    let value = |e: &Evaluation| metric.of(e.score(dataset)?);
    let (Some(then), Some(last)) = (value(start), value(now)) else {
        return Kept::default();
    };
    let later = arm.evaluations.iter().filter(|e| e.step > start.step);
    let later: Vec<(u64, f64)> = later.filter_map(|e| Some((e.step, value(e)?))).collect();
    // Of a state that is kept thin, those that were dropped were no worse.
    let from = trained_by(&state.phases[..now.phase.min(state.phases.len())], dataset);
    let dropped = arm
        .dropped
        .since(from.map_or(0, |phase| phase + 1), dataset, metric as usize);
    let worst_of = |later: &[(u64, f64)]| {
        let worse = |worst: (u64, f64), next: (u64, f64)| match metric.loss(worst.1, next.1) > 0.0 {
            true => next,
            false => worst,
        };
        let worst = later.iter().copied().reduce(worse);
        worst.map(|(step, score)| Worst {
            score,
            step,
            evaluations: later.len() + dropped,
        })
    };
    let ends = phase_ends(arm, &state.phases);
    let before = ends
        .iter()
        .filter(|e| e.phase < now.phase)
        .filter_map(|&e| value(e));
    let first = trained_by(&state.phases, dataset).is_none().then_some(then);
    let best = before
        .chain(first)
        .reduce(|best, next| match metric.loss(best, next) < 0.0 {
            true => next,
            false => best,
        });
    Kept {
        worst: worst_of(&later),
        worst_before_last: later.split_last().and_then(|(_, before)| worst_of(before)),
        forgetting_from_best: best.map(|best| metric.loss(best, last)),
        retention: retention(metric, (start.step, then), &later),
    }
}

/// Mean over steps of the share kept of a score.
fn retention(metric: Metric, start: (u64, f64), later: &[(u64, f64)]) -> Option<f64> {
    let then = start.1;
    let share = |value: f64| match metric {
        Metric::Accuracy => value / then,
        Metric::Ntp => (then - value).exp(),
        Metric::Error => f64::NAN,
    };
    let (mut area, mut last) = (0.0, (start.0, 1.0));
    for &(step, value) in later {
        let now = (step, share(value));
        area += (now.1 + last.1) / 2.0 * (now.0 - last.0) as f64;
        last = now;
    }
    let steps = (last.0 - start.0) as f64;
    let mean = area / steps;
    (steps > 0.0 && mean.is_finite()).then_some(mean)
}

/// Start and last evaluation of a dataset that is old at the last one.
pub fn since_trained<'a>(
    arm: &'a ArmState,
    phases: &[PhaseInfo],
    dataset: &str,
) -> Option<(&'a Evaluation, &'a Evaluation)> {
    // Questions are not asked at every evaluation.
    let now = arm
        .evaluations
        .iter()
        .rfind(|e| e.score(dataset).is_some())?;
    let start = arm.start(phases, dataset, now)?;
    let old = now.score(dataset)?.role == Role::Old;
    (old && now.step > start.step).then_some((start, now))
}

/// The last phase that trains a dataset.
fn trained_by(phases: &[PhaseInfo], dataset: &str) -> Option<usize> {
    phases.iter().rposition(|phase| phase.dataset == dataset)
}

/// The evaluation at the end of every phase that the arm has finished.
fn phase_ends<'a>(arm: &'a ArmState, phases: &[PhaseInfo]) -> Vec<&'a Evaluation> {
    let ends = (0..phases.len()).filter(|&phase| {
        arm.evaluations.iter().any(|e| e.phase > phase)
            || phase + 1 == phases.len() && arm.status.is_over()
    });
    ends.filter_map(|phase| arm.evaluations.iter().rfind(|e| e.phase == phase))
        .collect()
}

/// Questions that an arm answered otherwise at its last evaluation than at the start, as shares of all.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Answers {
    /// As counted.
    pub flips: Option<Flips>,
    /// Corrected for guessing.
    pub corrected: Option<Flips>,
}

/// How the answers to questions changed; nothing where outcomes were not kept, or the dataset is none of questions.
pub fn answers(state: &RunState, arm: &ArmState, dataset: &str) -> Answers {
    let count = || {
        let (start, now) = since_trained(arm, &state.phases, dataset)?;
        let (then, now) = (start.score(dataset)?, now.score(dataset)?);
        let chance = now.choices.as_ref()?.chance;
        let right = |score: &Score| -> Option<Vec<bool>> {
            let outcomes = score.outcomes.as_ref()?;
            Some(outcomes.right.iter().map(|&right| right > 0).collect())
        };
        Some((Transitions::of(&right(then)?, &right(now)?)?, chance))
    };
    count().map_or_else(Answers::default, |(counts, chance)| Answers {
        flips: counts.flips(),
        corrected: counts.flips_corrected_for_guessing(chance),
    })
}

/// Accuracies over the tasks of a run, as continual learning reports them. The tasks are the datasets of the phases
/// that the arm has reached; `None` where a score is missing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Transfer {
    /// Mean accuracy over the tasks at the last evaluation (ACC, arXiv 1706.08840).
    pub average_accuracy: Option<f64>,
    /// Mean over the tasks before the last of accuracy now − accuracy at the end of its phase (BWT, arXiv 1706.08840).
    pub backward: Option<f64>,
    /// Mean over the tasks after the first of accuracy before its phase − accuracy of the untrained model (FWT, arXiv
    /// 1706.08840).
    pub forward: Option<f64>,
    /// Mean over the tasks before the last of the lowest accuracy since the end of its phase (min-ACC, arXiv
    /// 2205.13452).
    pub min_accuracy: Option<f64>,
    /// `1/k · accuracy of the last task + (1 − 1/k) · min-ACC` of k tasks (WC-ACC, arXiv 2205.13452).
    pub worst_case_accuracy: Option<f64>,
}

/// Accuracies over the tasks that an arm has reached.
pub fn transfer(state: &RunState, arm: &ArmState) -> Transfer {
    let Some(now) = arm.evaluations.last() else {
        return Transfer::default();
    };
    let reached = state.phases.get(..=now.phase).unwrap_or_default();
    // A dataset that several phases train counts as the task of the last of them.
    let tasks: Vec<(usize, &str)> = (0..reached.len())
        .filter(|&phase| trained_by(reached, &reached[phase].dataset) == Some(phase))
        .map(|phase| (phase, reached[phase].dataset.as_str()))
        .collect();
    let accuracy = |e: &Evaluation, dataset: &str| Metric::Accuracy.of(e.score(dataset)?);
    let end = |phase: usize| arm.evaluations.iter().rfind(|e| e.phase == phase);
    let all = |values: Vec<Option<f64>>| -> Option<f64> {
        mean(&values.into_iter().collect::<Option<Vec<f64>>>()?)
    };
    let Some(((_, last), earlier)) = tasks.split_last() else {
        return Transfer::default();
    };
    let average_accuracy = all(tasks.iter().map(|(_, task)| accuracy(now, task)).collect());
    let backward = all(earlier
        .iter()
        .map(|&(phase, task)| Some(accuracy(now, task)? - accuracy(end(phase)?, task)?))
        .collect());
    let untrained = arm.evaluations.first().filter(|e| e.step == 0);
    let forward = all(tasks
        .iter()
        .skip(1)
        .map(|&(phase, task)| {
            Some(accuracy(end(phase.checked_sub(1)?)?, task)? - accuracy(untrained?, task)?)
        })
        .collect());
    let lowest = |&(phase, task): &(usize, &str)| {
        let later = arm.evaluations.iter().filter(|e| e.phase > phase);
        later
            .map(|e| accuracy(e, task))
            .collect::<Option<Vec<f64>>>()?
            .into_iter()
            .reduce(f64::min)
    };
    let min_accuracy = all(earlier.iter().map(lowest).collect());
    let k = tasks.len() as f64;
    let worst_case_accuracy = match earlier.is_empty() {
        true => accuracy(now, last),
        false => accuracy(now, last)
            .zip(min_accuracy)
            .map(|(last, min)| last / k + (1.0 - 1.0 / k) * min),
    };
    Transfer {
        average_accuracy,
        backward,
        forward,
        min_accuracy,
        worst_case_accuracy,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::{ArmStatus, Cost, fixture};

    /// One arm on three tasks, accuracies by hand: at step 0, in the middle and at the end of every phase.
    fn three_tasks() -> RunState {
        let mut state = fixture::state();
        state.phases = ["a", "b", "c"]
            .map(|dataset| PhaseInfo {
                dataset: dataset.into(),
                steps: 20,
            })
            .into();
        state.arms.truncate(1);
        let rows = [
            (0, 0, [0.1, 0.1, 0.2]),
            (0, 10, [0.5, 0.1, 0.2]),
            (0, 20, [0.9, 0.2, 0.2]),
            (1, 30, [0.3, 0.6, 0.3]),
            (1, 40, [0.95, 0.8, 0.4]),
            (2, 50, [0.2, 0.1, 0.5]),
            (2, 60, [0.7, 0.6, 1.0]),
        ];
        let evaluations = rows.map(|(phase, step, accuracies)| Evaluation {
            phase,
            step,
            cost: Cost::default(),
            scores: ["a", "b", "c"]
                .iter()
                .zip(accuracies)
                .map(|(dataset, accuracy)| Score {
                    dataset: (*dataset).into(),
                    role: state.role(dataset, phase),
                    ntp: Some(2.0 - accuracy),
                    kl: None,
                    accuracy: Some(accuracy),
                    fit: None,
                    choices: None,
                    outcomes: None,
                    rows_kept: false,
                })
                .collect(),
        });
        state.arms[0].evaluations = evaluations.into();
        state.arms[0].status = ArmStatus::Finished;
        state.arms[0].phase = 2;
        state
    }

    #[track_caller]
    fn close(a: Option<f64>, b: f64) {
        assert!((a.unwrap() - b).abs() < 1e-12, "{a:?} {b}");
    }

    /// A measure under a known name that is computed otherwise than its source does is a wrong figure in a paper.
    ///
    /// With R the accuracies at the ends of the phases (rows) of the tasks (columns),
    /// `[[.9, .2, .2], [.95, .8, .4], [.7, .6, 1]]`, and b = [.1, .1, .2] of the untrained model.
    #[test]
    fn measures_on_a_small_matrix_are_those_of_their_sources() {
        let state = three_tasks();
        let arm = &state.arms[0];
        let of = transfer(&state, arm);
        // GEM and mammoth.
        close(of.average_accuracy, (0.7 + 0.6 + 1.0) / 3.0);
        close(of.backward, ((0.7 - 0.9) + (0.6 - 0.8)) / 2.0);
        close(of.forward, ((0.2 - 0.1) + (0.4 - 0.2)) / 2.0);
        // De Lange et al.: the lowest of each task after its own phase, 0.2 and 0.1.
        close(of.min_accuracy, (0.2 + 0.1) / 2.0);
        close(of.worst_case_accuracy, 1.0 / 3.0 + 2.0 / 3.0 * 0.15);
        // Avalanche: since the end of its phase. Chaudhry et al.: against the best so far, for `a` that of phase b.
        let last = arm.evaluations.last().unwrap();
        let since = |task| arm.forgetting(&state.phases, task, last).accuracy;
        let from_best = |task| kept(&state, arm, task, Metric::Accuracy).forgetting_from_best;
        close(since("a"), 0.9 - 0.7);
        close(from_best("a"), 0.95 - 0.7);
        close(since("b"), 0.8 - 0.6);
        close(from_best("b"), 0.8 - 0.6);
        assert_eq!(from_best("c"), None);
    }

    /// A transient loss must not hide behind a good end.
    #[test]
    fn the_worst_score_and_the_mean_over_steps_are_since_the_data_was_trained() {
        let state = three_tasks();
        let arm = &state.arms[0];
        let of = kept(&state, arm, "a", Metric::Accuracy);
        let worst = Worst {
            score: 0.2,
            step: 50,
            evaluations: 4,
        };
        assert_eq!(of.worst, Some(worst));
        // (0.9 + 0.3)/2, (0.3 + 0.95)/2, (0.95 + 0.2)/2, (0.2 + 0.7)/2, over 0.9.
        close(of.retention, (0.6 + 0.625 + 0.575 + 0.45) / 4.0 / 0.9);
        let nats = kept(&state, arm, "a", Metric::Ntp);
        assert_eq!(
            nats.worst.map(|worst| (worst.score, worst.step)),
            Some((1.8, 50))
        );
        close(nats.forgetting_from_best, 0.25);
        assert_eq!(kept(&state, arm, "c", Metric::Accuracy), Kept::default());
    }
}
