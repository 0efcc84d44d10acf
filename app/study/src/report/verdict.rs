//! Whether an arm keeps what it knew, in a word.

use crate::run::{ArmState, PhaseInfo};

/// Up to this much lost accuracy (a share) or NTP (nats) on average, an arm keeps what it knew.
pub const KEEPS: f64 = 0.05;
/// Beyond this much, it forgets.
pub const FORGETS: f64 = 0.20;

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

/// Judged by the mean forgetting over the old datasets at the last evaluation: in accuracy where there is
/// one, in NTP otherwise.
pub fn verdict(arm: &ArmState, phases: &[PhaseInfo]) -> Verdict {
    let last = arm.evaluations.last();
    let lost = last.map(|now| arm.mean_forgetting(phases, now));
    let lost = lost.unwrap_or_default();
    let finite = |lost: &f64| lost.is_finite();
    match lost.accuracy.filter(finite).or(lost.ntp.filter(finite)) {
        None => Verdict::TooEarly,
        Some(lost) if lost <= KEEPS => Verdict::Keeps,
        Some(lost) if lost <= FORGETS => Verdict::Slips,
        Some(_) => Verdict::Forgets,
    }
}
