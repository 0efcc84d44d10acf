//! Vocabulary projection fused with cross entropy and KL, forward and backward, in chunks of
//! positions: `[B, T, V]` logits never exist whole.

use candle_core::{DType, Result, Tensor};

use super::kernels::launch;
use super::matmul::{matmul_nn, matmul_nt, matmul_tn};
use super::ops::flag;

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
/// target has the largest logit (1 or 0). With weights, also the gradients.
///
/// At most `chunk_logits` logits exist at a time, those of one position at least.
pub fn run(
    positions: &Positions,
    weights: Option<Weights>,
    chunk_logits: usize,
) -> Result<(Tensor, Option<Gradients>)> {
    let (hidden, embed) = positions.student;
    let (m, v) = (hidden.dim(0)?, embed.dim(0)?);
    let dtype = hidden.dtype();
    let chunk = (chunk_logits / v).clamp(1, m);
    let (mut losses, mut d_hidden, mut d_embed) = (Vec::new(), Vec::new(), None);
    for first in (0..m).step_by(chunk) {
        let n = chunk.min(m - first);
        let rows = |x: &Tensor| x.narrow(0, first, n);
        let hidden = rows(hidden)?;
        let logits = matmul_nt(&hidden, embed)?;
        let reference = match positions.reference {
            Some((hidden, embed)) => Some(matmul_nt(&rows(hidden)?, embed)?),
            None => None,
        };
        let targets = rows(positions.targets)?;
        let (work, sizes) = ((n, v), [flag(dtype), v]);
        let scores = (vec![n, 3], DType::F32);
        let Some(weights) = &weights else {
            let inputs = [None, Some(&logits), reference.as_ref(), Some(&targets)];
            let [scores] = launch("score", work, [scores], &inputs, &sizes, &[])?;
            losses.push(scores);
            continue;
        };
        let (ntp, kl) = (rows(weights.ntp)?, rows(weights.kl)?);
        let (logits, targets) = (Some(&logits), Some(&targets));
        let inputs = [logits, reference.as_ref(), targets, Some(&ntp), Some(&kl)];
        let outputs = [scores, (vec![n, v], dtype)];
        let [scores, d_logits] = launch("score", work, outputs, &inputs, &sizes, &[])?;
        losses.push(scores);
        d_hidden.push(matmul_nn(&d_logits, embed)?);
        add_to(&mut d_embed, matmul_tn(&d_logits, &hidden)?)?;
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
