//! Vocabulary projection fused with cross entropy and KL, forward and backward, in chunks.
//!
//! All `[B, T, V]` logits never exist at once: the logits of a chunk of positions are computed, scored,
//! replaced by their gradient and multiplied back before the next chunk begins.

use super::linear::Linear;
use super::matmul::{self, Out};
use super::simd::{LANES, exp, fold, maximum, multiversion};

/// Logits of a chunk, at most (1 MiB).
const CHUNK_LOGITS: usize = 1 << 18;
/// Positions of a chunk with a large embedding, which every chunk must read from memory.
const CHUNK_LARGE: usize = 256;
/// Elements of an embedding that is too large for the caches.
const LARGE: usize = 1 << 23;

/// Losses of one position.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PositionLoss {
    /// Cross entropy against the target token, nats.
    pub ntp: f32,
    /// KL(reference || student), nats; 0 without a reference.
    pub kl: f32,
    /// Whether the target has the largest logit (the lowest id among equals).
    pub correct: bool,
}

/// Positions to compute losses of.
pub struct Positions<'a> {
    /// The student.
    pub student: Projection<'a>,
    /// The reference, if KL is computed.
    pub reference: Option<Projection<'a>>,
    /// Target token of each position, `[M]`.
    pub targets: &'a [u32],
}

/// A model's final hidden states and output embedding, whose product is its logits.
#[derive(Clone, Copy)]
pub struct Projection<'a> {
    /// Final hidden states `[M, D]`.
    pub hidden: &'a [f32],
    /// Output embedding `[V, D]`.
    pub embed: &'a Linear,
}

/// Weights of the losses in the total, and buffers for its gradient.
pub struct Backward<'a> {
    /// Weight of each position's cross entropy, `[M]`.
    pub ntp_weights: &'a [f32],
    /// Weight of each position's KL, `[M]`.
    pub kl_weights: &'a [f32],
    /// Gradient of the student's hidden states `[M, D]`, overwritten.
    pub d_hidden: &'a mut [f32],
    /// Gradient of the student's output embedding `[V, D]`, added to; `None` where it is not trained.
    pub d_embed: Option<&'a mut [f32]>,
}

/// Working memory of one thread: the logits of a chunk.
#[derive(Default)]
pub struct Scratch {
    logits: Vec<f32>,
    reference: Vec<f32>,
}

impl Scratch {
    /// Number of floats in the buffers for `m` positions and an embedding `[V, D]`.
    pub fn len([v, d]: [usize; 2], m: usize, reference: bool, backward: bool) -> usize {
        let chunk = chunk([v, d], m);
        let gradient = if backward {
            matmul::scratch_len(chunk, v, d)
        } else {
            0
        };
        chunk * v * (1 + usize::from(reference)) + gradient
    }
}

/// Number of positions in a chunk.
fn chunk([v, d]: [usize; 2], m: usize) -> usize {
    let positions = match v * d {
        ..LARGE => CHUNK_LOGITS / v,
        _ => CHUNK_LARGE,
    };
    positions.clamp(1, m.max(1))
}

/// Computes the losses of every position, `[M]`; with `backward`, also the gradient of their weighted sum.
pub fn run(
    positions: &Positions,
    mut backward: Option<Backward>,
    losses: &mut [PositionLoss],
    scratch: &mut Scratch,
) {
    let Projection { hidden, embed } = positions.student;
    let [v, d] = embed.shape();
    let m = positions.targets.len();
    let chunk = chunk([v, d], m);
    let Scratch { logits, reference } = scratch;
    logits.resize(logits.len().max(chunk * v), 0.0);
    if positions.reference.is_some() {
        reference.resize(reference.len().max(chunk * v), 0.0);
    }
    for first in (0..m).step_by(chunk) {
        let n = chunk.min(m - first);
        let hidden = &hidden[first * d..][..n * d];
        let logits = &mut logits[..n * v];
        embed.forward(logits, hidden, Out::Set);
        let reference = match positions.reference {
            Some(Projection { hidden, embed }) => {
                let logits = &mut reference[..n * v];
                embed.forward(logits, &hidden[first * d..][..n * d], Out::Set);
                logits
            }
            None => &mut [],
        };
        let targets = &positions.targets[first..][..n];
        let (ntp_weights, kl_weights) = match &backward {
            Some(b) => (&b.ntp_weights[first..][..n], &b.kl_weights[first..][..n]),
            None => (&[][..], &[][..]),
        };
        score(
            logits,
            reference,
            targets,
            ntp_weights,
            kl_weights,
            &mut losses[first..][..n],
            v,
        );
        if let Some(b) = &mut backward {
            let d_hidden = &mut b.d_hidden[first * d..][..n * d];
            embed.backward(d_hidden, logits);
            if let Some(d_embed) = &mut b.d_embed {
                embed.backward_weights(d_embed, logits, hidden);
            }
        }
    }
}

/// Log-probabilities of candidates for the token that follows each position, from final hidden states `[S, D]`.
pub fn log_probs(
    hidden: &[f32],
    embed: &Linear,
    candidates: &[&[u32]],
    scratch: &mut Scratch,
) -> Vec<Vec<f32>> {
    let [v, d] = embed.shape();
    let chunk = chunk([v, d], candidates.len());
    let logits = &mut scratch.logits;
    logits.resize(logits.len().max(chunk * v), 0.0);
    let mut log_probs = Vec::with_capacity(candidates.len());
    for (hidden, candidates) in hidden.chunks(chunk * d).zip(candidates.chunks(chunk)) {
        let logits = &mut logits[..candidates.len() * v];
        embed.forward(logits, hidden, Out::Set);
        let rows = logits.chunks_exact(v).zip(candidates);
        log_probs.extend(rows.map(|(row, candidates)| log_probs_of(row, candidates)));
    }
    log_probs
}

multiversion! {
    /// Log-probabilities of candidates, from the logits of all tokens.
    fn log_probs_of(logits: &[f32], candidates: &[u32]) -> Vec<f32> {
        let lse = log_sum_exp(logits);
        candidates.iter().map(|&token| logits[token as usize] - lse).collect()
    }
}

multiversion! {
    /// Losses of a chunk; with weights, `logits` are replaced by the gradient of the weighted sum.
    fn score(logits: &mut [f32], reference: &mut [f32], targets: &[u32], ntp_weights: &[f32], kl_weights: &[f32], losses: &mut [PositionLoss], v: usize) {
        for (i, (row, loss)) in logits.chunks_exact_mut(v).zip(losses).enumerate() {
            let target = targets[i] as usize;
            let lse = log_sum_exp(row);
            let score = row[target];
            *loss = PositionLoss { ntp: lse - score, kl: 0.0, correct: is_first_max(row, target) };
            let reference = if reference.is_empty() { &mut [] } else { &mut reference[i * v..][..v] };
            if !reference.is_empty() {
                let reference_lse = log_sum_exp(reference);
                let mut kl = [0f32; LANES];
                let (student_body, student_tail) = row.as_chunks::<LANES>();
                let (reference_body, reference_tail) = reference.as_chunks_mut::<LANES>();
                for (s, r) in student_body.iter().zip(reference_body) {
                    for l in 0..LANES {
                        let log_p = r[l] - reference_lse;
                        let p = exp(log_p);
                        kl[l] = p.mul_add(log_p - (s[l] - lse), kl[l]);
                        r[l] = p;
                    }
                }
                for (l, (s, r)) in student_tail.iter().zip(reference_tail).enumerate() {
                    let log_p = *r - reference_lse;
                    let p = exp(log_p);
                    kl[l] = p.mul_add(log_p - (s - lse), kl[l]);
                    *r = p;
                }
                loss.kl = fold(kl);
            }
            if ntp_weights.is_empty() {
                continue;
            }
            let (ntp_weight, kl_weight) = (ntp_weights[i], kl_weights[i]);
            if reference.is_empty() {
                for x in row.iter_mut() {
                    *x = ntp_weight * exp(*x - lse);
                }
            } else {
                let both = ntp_weight + kl_weight;
                for (x, p) in row.iter_mut().zip(reference) {
                    *x = both.mul_add(exp(*x - lse), -kl_weight * *p);
                }
            }
            row[target] -= ntp_weight;
        }
    }
}

/// `log Σ e^x`.
#[inline(always)]
pub fn log_sum_exp(row: &[f32]) -> f32 {
    let (body, tail) = row.as_chunks::<LANES>();
    let max = maximum(row);
    let mut sum = [0f32; LANES];
    for x in body {
        for l in 0..LANES {
            sum[l] += exp(x[l] - max);
        }
    }
    for (l, x) in tail.iter().enumerate() {
        sum[l] += exp(x - max);
    }
    max + fold(sum).ln()
}

/// Whether greedy decoding chooses `target`: its logit is larger than all before and not smaller than any after.
#[inline(always)]
fn is_first_max(row: &[f32], target: usize) -> bool {
    let score = row[target];
    let (before, rest) = row.split_at(target);
    let beaten = before.iter().fold(false, |any, &x| any | (x >= score));
    let beaten = rest.iter().fold(beaten, |any, &x| any | (x > score));
    !beaten && !score.is_nan()
}
