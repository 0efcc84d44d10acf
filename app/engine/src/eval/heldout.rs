//! Held-out loss, KL and exact-match accuracy of a dataset, in one pass.

use crate::train::{Compute, ComputeError, Weights};

/// Held-out rows of one dataset.
#[derive(Clone, Debug, PartialEq)]
pub struct HeldOut {
    /// Dataset.
    pub dataset: String,
    /// `[B, T]`.
    pub tokens: Vec<u32>,
    /// T.
    pub seq_len: usize,
    /// Tokens of a row given as the prompt; the rest is the answer. `None` without exact answers.
    pub prompt_len: Option<usize>,
}

/// Figures of one dataset.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figures {
    /// Cross entropy, nats per token: the sum over positions with a next token, divided by B·T as the paper does.
    pub ntp: f64,
    /// KL(reference || student), nats per token, reduced the same way.
    pub kl: f64,
    /// Share of rows answered exactly by greedy decoding.
    pub accuracy: Option<f64>,
}

/// Evaluates `student` on held-out rows against `reference`.
///
/// A greedy decoder that starts at the prompt writes the right answer exactly when, given the
/// right answer so far, the right token has the largest logit at every position; so one pass over
/// the true rows tells what decoding token by token would.
///
/// # Errors
/// When the device fails.
pub fn evaluate(
    compute: &mut Compute,
    student: &Weights,
    reference: &Weights,
    data: &HeldOut,
) -> Result<Figures, ComputeError> {
    let losses = compute.evaluate(student, Some(reference), &data.tokens, data.seq_len)?;
    let n = losses.len().max(1) as f64;
    let accuracy = data.prompt_len.map(|prompt_len| {
        let rows = losses.chunks_exact(data.seq_len);
        let count = rows.len().max(1) as f64;
        // Position t predicts token t + 1.
        let exact = rows.filter(|row| {
            row[prompt_len - 1..data.seq_len - 1]
                .iter()
                .all(|l| l.correct)
        });
        exact.count() as f64 / count
    });
    Ok(Figures {
        ntp: losses.iter().map(|l| f64::from(l.ntp)).sum::<f64>() / n,
        kl: losses.iter().map(|l| f64::from(l.kl)).sum::<f64>() / n,
        accuracy,
    })
}
