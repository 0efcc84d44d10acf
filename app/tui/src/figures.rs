//! The few numbers a researcher reads first: what an arm forgot, what it learned.

use forgetlab_study::run::{ArmState, Change, Evaluation, PhaseInfo, Role, Score};

/// What the curves show.
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
    /// As the screen writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Accuracy => "accuracy",
            Self::Ntp => "NTP, nats/token",
            Self::Kl => "KL to reference, nats/token",
        }
    }

    /// The one after it.
    pub fn next(self) -> Self {
        match self {
            Self::Accuracy => Self::Ntp,
            Self::Ntp => Self::Kl,
            Self::Kl => Self::Accuracy,
        }
    }

    /// This figure of a score, if it applies and is finite.
    pub fn of(self, score: &Score) -> Option<f64> {
        let value = match self {
            Self::Accuracy => score.accuracy,
            Self::Ntp => score.ntp,
            Self::Kl => score.kl,
        };
        value.filter(|value| value.is_finite())
    }

    /// The metric in which forgetting and learning are told beside these curves: drift (KL) is no
    /// measure of either.
    pub fn of_change(self) -> Self {
        match self {
            Self::Kl => Self::Ntp,
            other => other,
        }
    }
}

fn part(change: Change, metric: Metric) -> Option<f64> {
    let value = match metric {
        Metric::Accuracy => change.accuracy,
        Metric::Ntp => change.ntp,
        Metric::Kl => None,
    };
    value.filter(|value| value.is_finite())
}

/// Mean loss over old data at the last evaluation; `None` while there is none.
pub fn forgetting(arm: &ArmState, phases: &[PhaseInfo], metric: Metric) -> Option<f64> {
    part(arm.mean_forgetting(phases, arm.evaluations.last()?), metric)
}

/// Gain on the data being trained on at the last evaluation.
pub fn learning(arm: &ArmState, phases: &[PhaseInfo], metric: Metric) -> Option<f64> {
    part(arm.new_learning(phases, arm.evaluations.last()?), metric)
}

/// What a dataset lost (old) or gained (new) by the evaluation `now`.
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
    part(change, metric)
}
