//! What the engines take and give: batches with the weights of their losses, losses, queries.

use crate::model::Keep;
use crate::ops::head::PositionLoss;

/// Rows whose losses enter the total.
#[derive(Clone, Copy)]
pub struct LossBatch<'a> {
    /// `[B, T]`.
    pub tokens: &'a [u32],
    /// T.
    pub seq_len: usize,
    /// Weight in the total of each position's cross entropy against the next token, `[B, T]`.
    pub ntp_weights: &'a [f32],
    /// Weight in the total of each position's KL(reference || student), `[B, T]`.
    pub kl_weights: &'a [f32],
}

/// Losses of one row, summed over its positions with a weight.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RowLoss {
    /// Cross entropy, nats.
    pub ntp: f64,
    /// KL(reference || student), nats; 0 where no weight asked for it.
    pub kl: f64,
}

/// What a batch cost.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LossReport {
    /// Losses of each row of each batch.
    pub rows: Vec<Vec<RowLoss>>,
    /// The weighted sum whose gradient was taken.
    pub total: f64,
    /// Thread-seconds spent on each batch, divided by the threads.
    pub seconds: Vec<f64>,
}

/// Asks how likely some tokens are behind a position; a position outside the tokens is answered with none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Position in the tokens `[B, T]`: `row · T + t`.
    pub position: usize,
    /// Tokens that might come next, below the vocabulary's size.
    pub candidates: Vec<u32>,
}

/// How a batch is worked through: memory for time, the losses the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Batching {
    /// Rows of a micro-batch; 0: as many as suit the caches.
    pub micro_batch: usize,
    /// Keeps only the blocks' inputs for the backward, which computes each block again.
    pub recompute: bool,
}

impl Batching {
    /// What forwards of training keep.
    pub(crate) fn keep(self) -> Keep {
        match self.recompute {
            true => Keep::Inputs,
            false => Keep::Blocks,
        }
    }
}

impl<'a> LossBatch<'a> {
    /// Rows `first..first + rows` of it.
    pub(crate) fn rows(&self, first: usize, rows: usize) -> LossBatch<'a> {
        let t = self.seq_len;
        let range = first * t..(first + rows) * t;
        LossBatch {
            tokens: &self.tokens[range.clone()],
            seq_len: t,
            ntp_weights: &self.ntp_weights[range.clone()],
            kl_weights: &self.kl_weights[range],
        }
    }

    /// Whether each position counts, `[B, T]`.
    pub(crate) fn weighs(&self) -> impl Iterator<Item = bool> + Clone {
        let weights = self.ntp_weights.iter().zip(self.kl_weights);
        weights.map(|(&ntp, &kl)| ntp != 0.0 || kl != 0.0)
    }

    /// The weighted sum of the losses of its positions, `[B, T]`, and the losses of each row.
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
