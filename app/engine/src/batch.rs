//! Batches and queries as the engines take them, and losses as they return them.

use crate::model::Keep;
use crate::ops::head::PositionLoss;

/// Rows of tokens, with the weights that their losses have in a weighted sum.
#[derive(Clone, Copy)]
pub struct LossBatch<'a> {
    /// Token ids `[B, T]`.
    pub tokens: &'a [u32],
    /// Length T of a row.
    pub seq_len: usize,
    /// Weight of each position's cross entropy against the next token, `[B, T]`.
    pub ntp_weights: &'a [f32],
    /// Weight of each position's KL(reference || student), `[B, T]`.
    pub kl_weights: &'a [f32],
}

/// Losses of one row, summed without weights over the positions that have a weight.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RowLoss {
    /// Cross entropy, nats.
    pub ntp: f64,
    /// KL(reference || student), nats; 0 where no weight asked for it.
    pub kl: f64,
}

/// Losses of some batches and the time they took.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LossReport {
    /// Losses of each row of each batch.
    pub rows: Vec<Vec<RowLoss>>,
    /// The weighted sum of all losses, whose gradient was computed.
    pub total: f64,
    /// Seconds each batch took; on the CPU, thread-seconds divided by the number of threads.
    pub seconds: Vec<f64>,
}

/// Asks for the log-probabilities of candidates for the token that follows a position.
///
/// The answer to a position outside the tokens is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Position in the tokens `[B, T]`: `row · T + t`.
    pub position: usize,
    /// Token ids, below the vocabulary's size.
    pub candidates: Vec<u32>,
}

/// How work is divided, and what is kept for a backward: less memory for more time, with the same losses and tokens
/// up to rounding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batching {
    /// Rows of a micro-batch; 0 leaves the choice to the engine (by caches on the CPU, by memory on a GPU).
    pub micro_batch: usize,
    /// Keeps only the blocks' inputs for the backward, which computes each block again.
    pub recompute: bool,
    /// Most bytes of rows that a GPU generates together, but at least one row; the CPU does not ask.
    pub generation_bytes: usize,
}

impl Default for Batching {
    /// As the engine chooses, nothing computed again, 4 GiB of generated rows.
    fn default() -> Self {
        Self {
            micro_batch: 0,
            recompute: false,
            generation_bytes: 4 << 30,
        }
    }
}

impl Batching {
    /// What a forward in training keeps for its backward.
    pub(crate) fn keep(self) -> Keep {
        if self.recompute {
            Keep::Inputs
        } else {
            Keep::Blocks
        }
    }
}

impl<'a> LossBatch<'a> {
    /// Whether a position has a weight.
    pub(crate) fn counts(&self) -> impl Fn(usize) -> bool {
        |i| self.ntp_weights[i] != 0.0 || self.kl_weights[i] != 0.0
    }

    /// Whether any position has a weight for its KL.
    pub(crate) fn has_kl(&self) -> bool {
        self.kl_weights.iter().any(|&weight| weight != 0.0)
    }

    /// The weighted sum of the losses of all positions `[B, T]`, and the losses of each row.
    pub(crate) fn weigh(&self, losses: &[PositionLoss]) -> (f64, Vec<RowLoss>) {
        let mut total = 0.0;
        let mut rows = vec![RowLoss::default(); losses.len() / self.seq_len];
        let weights = self.ntp_weights.iter().zip(self.kl_weights);
        for (i, (loss, (&ntp, &kl))) in losses.iter().zip(weights).enumerate() {
            let (ntp_loss, kl_loss) = (f64::from(loss.ntp), f64::from(loss.kl));
            total += f64::from(ntp) * ntp_loss + f64::from(kl) * kl_loss;
            if ntp != 0.0 || kl != 0.0 {
                rows[i / self.seq_len].ntp += ntp_loss;
                rows[i / self.seq_len].kl += kl_loss;
            }
        }
        (total, rows)
    }
}
