//! What the samplers take and return, and how one token is chosen from its logits.

mod choose;

use crate::random::Stream;

/// Rows to generate.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// One prompt for each row, of 1 to `length` tokens.
    pub prompts: &'a [Vec<u32>],
    /// Tokens of a full row, prompt included.
    pub length: usize,
    /// How tokens are chosen.
    pub sampling: &'a Sampling,
    /// Source of randomness: row `i` uses sequence `first_row + i`.
    pub stream: &'a Stream,
    /// Number of the first row in the stream.
    pub first_row: u64,
}

/// Generated rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Generated {
    /// Token ids `[B, length]`; zeros after a stop token.
    pub tokens: Vec<u32>,
    /// Length of each row: up to and including its stop token.
    pub lengths: Vec<u32>,
}

/// How the next token is chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// Logits are divided by it; 0: always the most likely token (the lowest id among equals).
    pub temperature: f32,
    /// Chooses among this many most likely tokens only.
    pub top_k: Option<u32>,
    /// Chooses among the fewest most likely tokens whose probabilities reach this sum.
    pub top_p: Option<f32>,
    /// Tokens that end a row.
    pub stop_tokens: Vec<u32>,
}

impl Default for Sampling {
    /// Plain ancestral sampling: temperature 1, no truncation, no stop.
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: None,
            top_p: None,
            stop_tokens: Vec::new(),
        }
    }
}

impl Sampling {
    /// Greedy decoding: always the most likely token.
    pub fn greedy() -> Self {
        Self {
            temperature: 0.0,
            ..Self::default()
        }
    }
}
