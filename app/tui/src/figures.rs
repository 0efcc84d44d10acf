//! The figures of an arm over its seeds, in the metric on the screen.

use forgetlab_study::report::{self, ArmSeeds, Transfer};
use forgetlab_study::run::{ArmState, Change, Evaluation, PhaseInfo, Role, RunState, Score};
use forgetlab_study::stats::{self, Flips};

/// The metric of curves and tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Metric {
    /// Share of held-out rows answered exactly, of targets predicted, or of questions answered rightly.
    #[default]
    Accuracy,
    /// Next-token loss, nats per token.
    Ntp,
    /// KL against the phase's reference, nats per token.
    Kl,
    /// Root mean square error of a regression.
    Error,
}

impl Metric {
    /// Every metric.
    pub const ALL: [Self; 4] = [Self::Accuracy, Self::Ntp, Self::Kl, Self::Error];

    /// Name in one word, as on the command line.
    pub fn word(self) -> &'static str {
        match self {
            Self::Accuracy => "accuracy",
            Self::Ntp => "ntp",
            Self::Kl => "kl",
            Self::Error => "error",
        }
    }

    /// Whether less of it is better.
    pub fn less_is_better(self) -> bool {
        self != Self::Accuracy
    }

    /// Name on the screen.
    pub fn name(self) -> &'static str {
        match self {
            Self::Accuracy => "accuracy",
            Self::Ntp => "NTP, nats/token",
            Self::Kl => "KL to reference, nats/token",
            Self::Error => "error (RMSE)",
        }
    }

    /// The metric that a run is shown in first.
    pub fn first_of(run: &RunState) -> Self {
        match run.has_errors() {
            true => Self::Error,
            false => Self::Accuracy,
        }
    }

    /// The metrics that a run has.
    pub fn of_run(run: &RunState) -> &'static [Self] {
        match run.has_errors() {
            true => &[Self::Error, Self::Kl],
            false => &[Self::Accuracy, Self::Ntp, Self::Kl],
        }
    }

    /// The metric's value in a score, if it applies and is finite.
    pub fn of(self, score: &Score) -> Option<f64> {
        let value = match self {
            Self::Accuracy => score.accuracy,
            Self::Ntp => score.ntp,
            Self::Kl => score.kl,
            Self::Error => score.fit.map(|fit| fit.error),
        };
        value.filter(|value| value.is_finite())
    }

    /// The metric in reports; that of forgetting beside curves of KL is NTP.
    pub fn reported(self) -> report::Metric {
        match self {
            Self::Accuracy => report::Metric::Accuracy,
            Self::Ntp | Self::Kl => report::Metric::Ntp,
            Self::Error => report::Metric::Error,
        }
    }

    /// The metric of forgetting and learning beside curves of this one; KL measures neither, so NTP is
    /// shown.
    pub fn of_change(self) -> Self {
        match self {
            Self::Kl => Self::Ntp,
            other => other,
        }
    }
}

/// The metric's value in a change, if it applies and is finite.
fn value_of(change: Change, metric: Metric) -> Option<f64> {
    let value = match metric {
        Metric::Accuracy => change.accuracy,
        Metric::Ntp => change.ntp,
        Metric::Kl => None,
        Metric::Error => change.error,
    };
    value.filter(|value| value.is_finite())
}

/// Mean forgetting of old data at the last evaluation; `None` while there is no old data.
pub fn forgetting(arm: &ArmState, phases: &[PhaseInfo], metric: Metric) -> Option<f64> {
    value_of(arm.mean_forgetting(phases, arm.evaluations.last()?), metric)
}

/// Learning of the new data at the last evaluation.
pub fn learning(arm: &ArmState, phases: &[PhaseInfo], metric: Metric) -> Option<f64> {
    value_of(arm.new_learning(phases, arm.evaluations.last()?), metric)
}

/// The mean of some datasets' scores; `None` where one is missing.
pub fn mean_over(evaluation: &Evaluation, datasets: &[String], metric: Metric) -> Option<f64> {
    let values = datasets
        .iter()
        .map(|name| metric.of(evaluation.score(name)?));
    stats::mean(&values.collect::<Option<Vec<f64>>>()?)
}

/// The last evaluation that has a dataset: questions are not asked at every one.
pub fn last_of<'a>(arm: &'a ArmState, dataset: &str) -> Option<(&'a Evaluation, &'a Score)> {
    let mut latest = arm.evaluations.iter().rev();
    latest.find_map(|e| Some((e, e.score(dataset)?)))
}

/// Forgetting of an old or learning of the new dataset at the evaluation `now`.
pub fn change(
    arm: &ArmState,
    phases: &[PhaseInfo],
    now: &Evaluation,
    dataset: &str,
    metric: Metric,
) -> Option<f64> {
    let change = match now.score(dataset)?.role {
        Role::Old => arm.forgetting(phases, dataset, now),
        Role::New => arm.learning(phases, dataset, now),
        Role::Future => return None,
    };
    value_of(change, metric)
}

/// Mean over the seeds that count of a figure that all of them must have.
fn over_seeds(arm: &ArmSeeds, figure: impl Fn(&RunState, &ArmState) -> Option<f64>) -> Option<f64> {
    let seeds = arm.counted().into_iter();
    let values = seeds.map(|(run, own)| figure(run, own));
    stats::mean(&values.collect::<Option<Vec<f64>>>()?)
}

/// The largest loss of an old dataset since it was last trained, mean over the seeds, and the step of it in the seed
/// that lost most.
pub fn worst_of(arm: &ArmSeeds, dataset: &str, metric: Metric) -> Option<(f64, u64)> {
    let metric = metric.reported();
    let of_seed = |(run, own): &(&RunState, &ArmState)| {
        let worst = report::kept(run, own, dataset, metric).worst?;
        let start = own.start(&run.phases, dataset, last_of(own, dataset)?.0)?;
        let then = metric.of(start.score(dataset)?)?;
        Some((metric.loss(then, worst.score), worst.step))
    };
    let seeds = arm.counted();
    let all: Vec<(f64, u64)> = seeds.iter().map(of_seed).collect::<Option<_>>()?;
    let losses: Vec<f64> = all.iter().map(|(loss, _)| *loss).collect();
    let most = all.iter().max_by(|a, b| a.0.total_cmp(&b.0))?;
    Some((stats::mean(&losses)?, most.1))
}

/// The largest of these losses over all old datasets.
pub fn worst(arm: &ArmSeeds, metric: Metric) -> Option<(f64, u64)> {
    let old = report::old_datasets(arm).into_iter();
    let losses = old.filter_map(|dataset| worst_of(arm, dataset, metric));
    losses.max_by(|a, b| a.0.total_cmp(&b.0))
}

/// Forgetting of an old dataset against its best score so far at the end of a phase.
pub fn from_best(arm: &ArmSeeds, dataset: &str, metric: Metric) -> Option<f64> {
    let metric = metric.reported();
    over_seeds(arm, |run, own| {
        report::kept(run, own, dataset, metric).forgetting_from_best
    })
}

/// Mean share of an old dataset's score that is kept over the steps since it was last trained.
pub fn retention(arm: &ArmSeeds, dataset: &str, metric: Metric) -> Option<f64> {
    let metric = metric.reported();
    over_seeds(arm, |run, own| {
        report::kept(run, own, dataset, metric).retention
    })
}

/// Accuracies over the tasks of a run, each the mean over the seeds.
pub fn transfer(arm: &ArmSeeds) -> Transfer {
    let of = |figure: fn(&Transfer) -> Option<f64>| {
        over_seeds(arm, |run, own| figure(&report::transfer(run, own)))
    };
    Transfer {
        average_accuracy: of(|all| all.average_accuracy),
        backward: of(|all| all.backward),
        forward: of(|all| all.forward),
        min_accuracy: of(|all| all.min_accuracy),
        worst_case_accuracy: of(|all| all.worst_case_accuracy),
    }
}

/// Questions that are answered otherwise than at the start, as counted and corrected for guessing.
pub fn flips(arm: &ArmSeeds, dataset: &str) -> Option<(Flips, Option<Flips>)> {
    let of = |flips: fn(&report::Answers) -> Option<Flips>| {
        let share = |side: fn(&Flips) -> f64| {
            over_seeds(arm, |run, own| {
                let answers = report::answers(run, own, dataset);
                flips(&answers).as_ref().map(side)
            })
        };
        Some(Flips {
            right_to_wrong: share(|flips| flips.right_to_wrong)?,
            wrong_to_right: share(|flips| flips.wrong_to_right)?,
        })
    };
    Some((of(|all| all.flips)?, of(|all| all.corrected)))
}

/// Mean KL at the last evaluation of the datasets with a role.
pub fn kl(arm: &ArmState, role: Role) -> Option<f64> {
    let scores = arm.evaluations.last()?.scores.iter();
    let kls = scores.filter(|score| score.role == role);
    let kls: Vec<f64> = kls.filter_map(|score| Metric::Kl.of(score)).collect();
    stats::mean(&kls)
}

/// The figures of an arm over its seeds in one metric, as the table shows them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Figures {
    /// Mean score of the old data now, and half the width of its interval over seeds.
    pub kept: Option<(f64, f64)>,
    /// Mean forgetting of old data; of KL, in nats of the loss.
    pub forgot: Option<f64>,
    /// Learning of the new data.
    pub learned: Option<f64>,
    /// The largest loss of an old dataset since it was last trained, and its step.
    pub worst: Option<(f64, u64)>,
}

impl Figures {
    /// The figures of an arm in a metric: of its mean, which keeps these old data, with half the width of that interval.
    pub fn of(
        mean: &ArmState,
        kept: &[String],
        half: f64,
        seeds: &ArmSeeds,
        metric: Metric,
    ) -> Self {
        let phases = seeds.seeds.first().map(|(run, _)| run.phases.as_slice());
        let phases = phases.unwrap_or_default();
        let change = metric.of_change();
        let last = mean.evaluations.last();
        let kept = last.and_then(|last| Some((mean_over(last, kept, metric)?, half)));
        Self {
            kept,
            forgot: forgetting(mean, phases, change),
            learned: learning(mean, phases, change),
            worst: worst(seeds, change),
        }
    }
}

#[cfg(test)]
mod tests {
    use forgetlab_study::run::RunState;

    use super::*;

    /// Else a regression would be a screen of empty panels, or digits have a metric that nothing is measured in.
    #[test]
    fn a_regression_is_shown_by_its_errors_from_its_first_event_on() {
        let run = |kind: &str| RunState {
            config: Some(serde_json::json!({ "data": { "kind": kind } })),
            ..RunState::default()
        };
        use Metric::{Accuracy, Error, Kl, Ntp};
        assert_eq!(Metric::of_run(&run("regression")), [Error, Kl]);
        assert_eq!(Metric::first_of(&run("regression")), Error);
        assert_eq!(Metric::of_run(&run("digits")), [Accuracy, Ntp, Kl]);
    }
}
