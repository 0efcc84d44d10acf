//! The few numbers a researcher reads first: what an arm forgot, what it learned, the verdict.

use forgetlab_engine::run::{ArmState, Evaluation, PhaseInfo, Role, RunState, Score};

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

/// A dataset now and where it stood at its start: when it was last trained on (old data), or at
/// the beginning of the phase (new and future data).
#[derive(Clone, Copy, Debug)]
pub struct DatasetFigures<'a> {
    /// Score of the last evaluation.
    pub now: &'a Score,
    /// Score to compare it with.
    pub start: Option<&'a Score>,
}

impl DatasetFigures<'_> {
    /// What was lost (old data) or gained (new data), so that more is more in every metric.
    pub fn change(&self, metric: Metric) -> Option<f64> {
        let (now, start) = (metric.of(self.now)?, metric.of(self.start?)?);
        let gain = match metric {
            Metric::Accuracy => now - start,
            Metric::Ntp | Metric::Kl => start - now,
        };
        match self.now.role {
            Role::Old => Some(-gain),
            Role::New => Some(gain),
            Role::Future => None,
        }
    }
}

/// Every dataset at the last evaluation of an arm.
pub fn datasets<'a>(arm: &'a ArmState, phases: &[PhaseInfo]) -> Vec<DatasetFigures<'a>> {
    let Some(last) = arm.evaluations.last() else {
        return Vec::new();
    };
    let score_in = |evaluation: &'a Evaluation, dataset: &str| {
        evaluation.scores.iter().find(|s| s.dataset == dataset)
    };
    let figures = |now: &'a Score| {
        let start = match now.role {
            Role::Old => {
                let trained = phases.iter().take(last.phase);
                let trained = trained.rposition(|phase| phase.dataset == now.dataset);
                trained.and_then(|phase| arm.evaluations.iter().rfind(|e| e.phase == phase))
            }
            Role::New | Role::Future => {
                let before = arm.evaluations.iter().rfind(|e| e.phase < last.phase);
                before.or_else(|| arm.evaluations.first())
            }
        };
        DatasetFigures {
            now,
            start: start.and_then(|evaluation| score_in(evaluation, &now.dataset)),
        }
    };
    last.scores.iter().map(figures).collect()
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0u32), |(sum, n), value| (sum + value, n + 1));
    (count > 0).then(|| sum / f64::from(count))
}

/// Mean loss over old data; `None` while there is none.
pub fn forgetting(arm: &ArmState, phases: &[PhaseInfo], metric: Metric) -> Option<f64> {
    let datasets = datasets(arm, phases);
    let old = datasets.iter().filter(|d| d.now.role == Role::Old);
    mean(old.filter_map(|d| d.change(metric)))
}

/// Mean gain on the data being trained on.
pub fn learning(arm: &ArmState, phases: &[PhaseInfo], metric: Metric) -> Option<f64> {
    let datasets = datasets(arm, phases);
    let new = datasets.iter().filter(|d| d.now.role == Role::New);
    mean(new.filter_map(|d| d.change(metric)))
}

/// Judged by accuracy where there is one, by NTP otherwise.
pub fn verdict(arm: &ArmState, phases: &[PhaseInfo]) -> Verdict {
    let lost = forgetting(arm, phases, Metric::Accuracy)
        .or_else(|| forgetting(arm, phases, Metric::Ntp));
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
