//! The few numbers a researcher reads first: what an arm forgot, what it learned, the verdict.

use forgetlab_engine::run::{ArmState, Change, Evaluation, PhaseInfo, Role, RunState, Score};

/// Up to this much lost accuracy (a share) or NTP (nats) on average, an arm keeps what it knew.
pub const KEEPS: f64 = 0.05;
/// Beyond this much, it forgets.
pub const FORGETS: f64 = 0.20;

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

/// How an arm deals with what it knew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing old to forget yet.
    TooEarly,
    /// Lost at most [`KEEPS`].
    Keeps,
    /// In between.
    Slips,
    /// Lost more than [`FORGETS`].
    Forgets,
}

impl Verdict {
    /// The word shown; told apart without colour.
    pub fn word(self) -> &'static str {
        match self {
            Self::TooEarly => "·",
            Self::Keeps => "keeps",
            Self::Slips => "slips",
            Self::Forgets => "FORGETS",
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

/// Judged by accuracy where there is one, by NTP otherwise.
pub fn verdict(arm: &ArmState, phases: &[PhaseInfo]) -> Verdict {
    let lost =
        forgetting(arm, phases, Metric::Accuracy).or_else(|| forgetting(arm, phases, Metric::Ntp));
    match lost {
        None => Verdict::TooEarly,
        Some(lost) if lost <= KEEPS => Verdict::Keeps,
        Some(lost) if lost <= FORGETS => Verdict::Slips,
        Some(_) => Verdict::Forgets,
    }
}

/// Dataset names in the order of their curves: phases first, then what is only evaluated.
pub fn dataset_names(run: &RunState) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let phases = run.phases.iter().map(|phase| &phase.dataset);
    let firsts = run.arms.iter().filter_map(|arm| arm.evaluations.first());
    let scored = firsts.flat_map(|e| e.scores.iter().map(|score| &score.dataset));
    for name in phases.chain(scored) {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

/// Optimizer steps of one arm, all phases together.
pub fn total_steps(phases: &[PhaseInfo]) -> u64 {
    phases.iter().map(|phase| phase.steps).sum()
}
