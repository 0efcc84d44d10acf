//! Forgetting and learning of an arm in the metric on the screen.

use forgetlab_study::run::{ArmState, Change, Evaluation, PhaseInfo, Role, Score};

/// The metric of curves and tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Metric {
    /// Share of held-out rows answered exactly.
    #[default]
    Accuracy,
    /// Next-token loss, nats per token.
    Ntp,
    /// KL against the phase's reference, nats per token.
    Kl,
}

impl Metric {
    /// Name on the screen.
    pub fn name(self) -> &'static str {
        match self {
            Self::Accuracy => "accuracy",
            Self::Ntp => "NTP, nats/token",
            Self::Kl => "KL to reference, nats/token",
        }
    }

    /// The next metric in turn.
    pub fn next(self) -> Self {
        match self {
            Self::Accuracy => Self::Ntp,
            Self::Ntp => Self::Kl,
            Self::Kl => Self::Accuracy,
        }
    }

    /// The metric's value in a score, if it applies and is finite.
    pub fn of(self, score: &Score) -> Option<f64> {
        let value = match self {
            Self::Accuracy => score.accuracy,
            Self::Ntp => score.ntp,
            Self::Kl => score.kl,
        };
        value.filter(|value| value.is_finite())
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
