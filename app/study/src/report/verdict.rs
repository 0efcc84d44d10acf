//! The verdict on an arm's forgetting, in one word.

use crate::run::{ArmState, PhaseInfo};

/// Largest mean forgetting, in accuracy (a share) or NTP (nats), at which an arm keeps its old data.
pub const KEEPS: f64 = 0.05;
/// Mean forgetting above which an arm forgets.
pub const FORGETS: f64 = 0.20;

/// Verdict on the mean forgetting of an arm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No old dataset has been measured yet.
    TooEarly,
    /// Forgetting is at most [`KEEPS`].
    Keeps,
    /// Forgetting is above [`KEEPS`], at most [`FORGETS`].
    Slips,
    /// Forgetting is above [`FORGETS`].
    Forgets,
}

impl Verdict {
    /// The word shown, which is clear without colour.
    pub fn word(self) -> &'static str {
        match self {
            Self::TooEarly => "·",
            Self::Keeps => "keeps",
            Self::Slips => "slips",
            Self::Forgets => "FORGETS",
        }
    }
}

/// The verdict on an arm by its mean forgetting over the old datasets at the last evaluation: in accuracy
/// where there is one, in NTP otherwise.
pub fn verdict(arm: &ArmState, phases: &[PhaseInfo]) -> Verdict {
    let Some(last) = arm.evaluations.last() else {
        return Verdict::TooEarly;
    };
    let lost = arm.mean_forgetting(phases, last);
    let finite = |lost: &f64| lost.is_finite();
    match lost.accuracy.filter(finite).or(lost.ntp.filter(finite)) {
        None => Verdict::TooEarly,
        Some(lost) if lost <= KEEPS => Verdict::Keeps,
        Some(lost) if lost <= FORGETS => Verdict::Slips,
        Some(_) => Verdict::Forgets,
    }
}
