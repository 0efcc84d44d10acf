//! Vocabulary projection fused with cross entropy and KL, forward and backward, in chunks of positions: all
//! `[B, T, V]` logits never exist at once.

use candle_core::{Result, Tensor};

use super::arguments::Score;
use super::kernels::{Grid, launch};
use super::matmul::{add_matmul_tn, matmul_nn, matmul_nt};
use super::pointers::{Fresh, In, Out, f32s, ids, optional};
use super::tensor::is_bf16;

/// Positions to compute losses of.
pub struct Positions<'a> {
    /// The student.
    pub student: Projection<'a>,
    /// The reference, if KL is computed.
    pub reference: Option<Projection<'a>>,
    /// Target token of each position, u32 `[M]`.
    pub targets: &'a Tensor,
}

/// A model's final hidden states and output embedding, whose product is its logits; in the engine's precision.
#[derive(Clone, Copy)]
pub struct Projection<'a> {
    /// Final hidden states `[M, D]`.
    pub hidden: &'a Tensor,
    /// Output embedding `[V, D]`.
    pub embed: &'a Tensor,
}

/// Weights of the losses in the total, and the sum for the gradient of the output embedding.
pub struct Backward<'a> {
    /// Weight of each position's cross entropy, f32 `[M]`.
    pub ntp_weights: &'a Tensor,
    /// Weight of each position's KL, f32 `[M]`.
    pub kl_weights: &'a Tensor,
    /// Gradient of the student's output embedding, f32 `[V, D]`, added to; `None` where it is not trained.
    pub d_embed: Option<&'a mut Option<Tensor>>,
}

/// Computes the losses of every position, `[M, 3]`: cross entropy, KL (0 without a reference), and whether
/// greedy decoding chooses the target (1 or 0); with `backward`, also the gradient of the student's hidden
/// states, f32 `[M, D]`.
///
/// At most `chunk_logits` logits exist at a time, or those of one position.
pub fn run(
    positions: &Positions,
    mut backward: Option<Backward>,
    chunk_logits: usize,
) -> Result<(Tensor, Option<Tensor>)> {
    let Projection { hidden, embed } = positions.student;
    let (m, v) = (hidden.dim(0)?, embed.dim(0)?);
    let (dtype, device) = (hidden.dtype(), hidden.device());
    let chunk = (chunk_logits / v).clamp(1, m);
    let (mut losses, mut d_hidden) = (Vec::new(), Vec::new());
    for first in (0..m).step_by(chunk) {
        let n = chunk.min(m - first);
        let rows = |x: &Tensor| x.narrow(0, first, n);
        let hidden = rows(hidden)?;
        let logits = matmul_nt(&hidden, embed)?;
        let reference = match positions.reference {
            Some(Projection { hidden, embed }) => Some(matmul_nt(&rows(hidden)?, embed)?),
            None => None,
        };
        let targets = rows(positions.targets)?;
        let grid = Grid {
            blocks: n,
            width: v,
        };
        let scores = Fresh::f32s((n, 3), device)?;
        let mut args = Score {
            losses: scores.out(),
            d_logits: Out::NULL,
            logits: f32s(&logits)?,
            reference: optional(reference.as_ref(), f32s)?,
            targets: ids(&targets)?,
            ntp_weights: In::NULL,
            kl_weights: In::NULL,
            bf16: is_bf16(dtype),
            v,
        };
        let Some(backward) = &mut backward else {
            launch(device, grid, &args)?;
            losses.push(scores.written());
            continue;
        };
        let (ntp, kl) = (rows(backward.ntp_weights)?, rows(backward.kl_weights)?);
        let d_logits = Fresh::rounded((n, v), dtype, device)?;
        args.d_logits = d_logits.out();
        (args.ntp_weights, args.kl_weights) = (f32s(&ntp)?, f32s(&kl)?);
        launch(device, grid, &args)?;
        let d_logits = d_logits.written();
        losses.push(scores.written());
        d_hidden.push(matmul_nn(&d_logits, embed)?);
        if let Some(d_embed) = &mut backward.d_embed {
            add_matmul_tn(d_embed, &d_logits, &hidden)?;
        }
    }
    let d_hidden = if d_hidden.is_empty() {
        None
    } else {
        Some(Tensor::cat(&d_hidden, 0)?)
    };
    Ok((Tensor::cat(&losses, 0)?, d_hidden))
}
