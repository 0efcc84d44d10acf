//! Vocabulary projection fused with cross entropy and KL, forward and backward, in chunks of
//! positions: `[B, T, V]` logits never exist whole.

use candle_core::{DType, Result, Tensor};

use super::kernels::launch;
use super::matmul::{add_matmul_tn, matmul_nn, matmul_nt};
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

/// What a backward takes, and adds to.
pub struct Backward<'a> {
    /// Weights of the cross entropies in the total, f32 `[M]`.
    pub ntp_weights: &'a Tensor,
    /// Weights of the KLs.
    pub kl_weights: &'a Tensor,
    /// Gradient of the output embedding, f32 `[V, D]`, where it is trained.
    pub d_embed: Option<&'a mut Option<Tensor>>,
}

/// Losses of all positions, `[M, 3]`: cross entropy, KL (0 without a reference), and whether the
/// target has the largest logit (1 or 0). With a backward, also the gradient of the hidden states
/// `[M, D]`, f32.
///
/// At most `chunk_logits` logits exist at a time, those of one position at least.
pub fn run(
    positions: &Positions,
    mut backward: Option<Backward>,
    chunk_logits: usize,
) -> Result<(Tensor, Option<Tensor>)> {
    let (hidden, embed) = positions.student;
    let (m, v) = (hidden.dim(0)?, embed.dim(0)?);
    let dtype = hidden.dtype();
    let chunk = (chunk_logits / v).clamp(1, m);
    let (mut losses, mut d_hidden) = (Vec::new(), Vec::new());
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
        let Some(backward) = &mut backward else {
            let inputs = [None, Some(&logits), reference.as_ref(), Some(&targets)];
            let [scores] = launch("score", work, [scores], &inputs, &sizes, &[])?;
            losses.push(scores);
            continue;
        };
        let (ntp, kl) = (rows(backward.ntp_weights)?, rows(backward.kl_weights)?);
        let (logits, targets) = (Some(&logits), Some(&targets));
        let inputs = [logits, reference.as_ref(), targets, Some(&ntp), Some(&kl)];
        let outputs = [scores, (vec![n, v], dtype)];
        let [scores, d_logits] = launch("score", work, outputs, &inputs, &sizes, &[])?;
        losses.push(scores);
        d_hidden.push(matmul_nn(&d_logits, embed)?);
        if let Some(d_embed) = &mut backward.d_embed {
            add_matmul_tn(d_embed, &d_logits, &hidden)?;
        }
    }
    let d_hidden = match d_hidden.is_empty() {
        true => None,
        false => Some(Tensor::cat(&d_hidden, 0)?),
    };
    Ok((Tensor::cat(&losses, 0)?, d_hidden))
}
