//! Vocabulary projection fused with cross entropy and KL, forward and backward, in chunks of
//! positions: `[B, T, V]` logits never exist whole.

use candle_core::{D, DType, Result, Tensor};

use super::attention::softmax;
use super::{matmul_nn, matmul_nt, matmul_tn};

/// Positions to score. Hidden states `[M, D]` and embeddings `[V, D]` come in the engine's precision.
pub struct Positions<'a> {
    /// The student's final hidden states and output embedding.
    pub student: (&'a Tensor, &'a Tensor),
    /// The reference's.
    pub reference: Option<(&'a Tensor, &'a Tensor)>,
    /// Target of each position, u32 `[M]`.
    pub targets: &'a Tensor,
}

/// Weights of the two losses in the total, f32 `[M]` each.
pub struct Weights<'a> {
    /// Of the cross entropies.
    pub ntp: &'a Tensor,
    /// Of the KLs.
    pub kl: &'a Tensor,
}

/// Gradients of the weighted sum, f32.
pub struct Gradients {
    /// Of the hidden states, `[M, D]`.
    pub hidden: Tensor,
    /// Of the output embedding, `[V, D]`.
    pub embed: Tensor,
}

/// Losses of all positions, `[M, 3]`: cross entropy, KL (0 without a reference), and whether the
/// target has the largest logit (1 or 0; left at 0 where gradients are wanted).
///
/// At most `chunk_logits` logits exist at a time, those of one position at least.
pub fn run(
    positions: &Positions,
    weights: Option<Weights>,
    chunk_logits: usize,
) -> Result<(Tensor, Option<Gradients>)> {
    let (hidden, embed) = positions.student;
    let (m, v) = (hidden.dim(0)?, embed.dim(0)?);
    let chunk = (chunk_logits / v).clamp(1, m);
    let ids = Tensor::arange(0, v as u32, hidden.device())?.unsqueeze(0)?;
    let (mut losses, mut d_hidden, mut d_embed) = (Vec::new(), Vec::new(), None);
    for first in (0..m).step_by(chunk) {
        let n = chunk.min(m - first);
        let rows = |x: &Tensor| x.narrow(0, first, n);
        let hidden = rows(hidden)?;
        let logits = matmul_nt(&hidden, embed)?;
        let targets = rows(positions.targets)?.unsqueeze(1)?;
        let (p, lse) = softmax(&logits)?;
        let score = logits.gather(&targets, 1)?;
        let ntp = (&lse - &score)?;
        let reference = match positions.reference {
            Some((hidden, embed)) => {
                let logits = matmul_nt(&rows(hidden)?, embed)?;
                let (p, lse) = softmax(&logits)?;
                Some((p, logits.broadcast_sub(&lse)?))
            }
            None => None,
        };
        let kl = match &reference {
            Some((p, log_p)) => {
                let log_ratio = (log_p - logits.broadcast_sub(&lse)?)?;
                (p * log_ratio)?.sum_keepdim(D::Minus1)?
            }
            None => ntp.zeros_like()?,
        };
        let correct = match &weights {
            None => is_first_max(&logits, &score, &ids, &targets)?,
            Some(weights) => {
                let (ntp, kl) = (rows(weights.ntp)?, rows(weights.kl)?);
                let (ntp, kl) = (ntp.unsqueeze(1)?, kl.unsqueeze(1)?);
                // (ntp + kl) · student − kl · reference − ntp · one-hot(target)
                let hot = ids.broadcast_eq(&targets)?.to_dtype(DType::F32)?;
                let mut d_logits = (p.broadcast_mul(&(&ntp + &kl)?)? - hot.broadcast_mul(&ntp)?)?;
                if let Some((p, _)) = &reference {
                    d_logits = (d_logits - p.broadcast_mul(&kl)?)?;
                }
                let d_logits = d_logits.to_dtype(hidden.dtype())?;
                d_hidden.push(matmul_nn(&d_logits, embed)?);
                add_to(&mut d_embed, matmul_tn(&d_logits, &hidden)?)?;
                ntp.zeros_like()?
            }
        };
        losses.push(Tensor::cat(&[ntp, kl, correct], 1)?);
    }
    let gradients = match d_embed {
        Some(embed) => Some(Gradients {
            hidden: Tensor::cat(&d_hidden, 0)?,
            embed,
        }),
        None => None,
    };
    Ok((Tensor::cat(&losses, 0)?, gradients))
}

/// Adds to a sum that may not have begun.
pub fn add_to(sum: &mut Option<Tensor>, x: Tensor) -> Result<()> {
    *sum = Some(match sum.take() {
        Some(sum) => (sum + x)?,
        None => x,
    });
    Ok(())
}

/// 1 where the target is what greedy decoding picks: larger than all before it, no smaller than all
/// after, and a number. `[n, 1]`.
fn is_first_max(logits: &Tensor, score: &Tensor, ids: &Tensor, targets: &Tensor) -> Result<Tensor> {
    let larger = logits.broadcast_gt(score)?.to_dtype(DType::F32)?;
    let as_large = logits.broadcast_ge(score)?.to_dtype(DType::F32)?;
    let before = ids.broadcast_lt(targets)?.to_dtype(DType::F32)?;
    let beaten = (larger + (as_large * before)?)?.sum_keepdim(D::Minus1)?;
    let number = score.eq(score)?.to_dtype(DType::F32)?;
    beaten.eq(0f32)?.to_dtype(DType::F32)? * number
}
