//! What losses are divided by.

use super::Batch;

/// Divisor of the sum of a batch's losses over its targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduction {
    /// Tokens of its rows, the first one included: the paper's small models.
    Positions,
    /// Targets: the masked mean of chat models.
    Targets,
}

impl Reduction {
    /// The divisor of a batch.
    pub fn count(self, batch: &Batch) -> f64 {
        let count = match self {
            Self::Positions => batch.own_tokens(),
            Self::Targets => batch.targets(),
        };
        count.max(1) as f64
    }
}
