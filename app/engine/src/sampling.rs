//! What the samplers take and give: prompts with how tokens are chosen, rows.

use crate::random::Stream;

/// Rows to generate.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// One prompt a row, each of 1 to `length` tokens.
    pub prompts: &'a [Vec<u32>],
    /// Tokens of a full row, prompt included.
    pub length: usize,
    /// How tokens are chosen.
    pub sampling: &'a Sampling,
    /// Where the randomness comes from: row `i` uses sequence `first_row + i`.
    pub stream: &'a Stream,
    /// Number of the first row in the stream.
    pub first_row: u64,
}

/// Generated rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Generated {
    /// `[B, length]`; after a stop token, zeros.
    pub tokens: Vec<u32>,
    /// True length of each row: up to and with the stop token.
    pub lengths: Vec<u32>,
}

/// How the next token is chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// Logits are divided by it; 0: always the most likely token (the lowest id among equals).
    pub temperature: f32,
    /// Choose among this many most likely tokens only.
    pub top_k: Option<u32>,
    /// Choose among the fewest most likely tokens whose probabilities reach this sum.
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
    /// Always the most likely token.
    pub fn greedy() -> Self {
        Self {
            temperature: 0.0,
            ..Self::default()
        }
    }
}
