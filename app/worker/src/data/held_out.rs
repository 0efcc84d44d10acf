//! Rows that are never trained on.

use super::Batch;

/// Held-out rows of one dataset.
#[derive(Clone, Debug, PartialEq)]
pub struct HeldOut {
    /// Dataset.
    pub dataset: String,
    /// Its rows.
    pub batch: Batch,
    /// How its accuracy is counted.
    pub accuracy: Accuracy,
}

/// How the accuracy of held-out rows is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accuracy {
    /// Rows whose every token after the prompt is what greedy decoding writes.
    Answers {
        /// Tokens of a row given as the prompt; the rest is the answer.
        prompt_len: usize,
    },
    /// Targets that are the most likely token, given the row before them.
    Tokens,
}
