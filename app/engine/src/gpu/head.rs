//! Vocabulary projection fused with cross entropy and KL, forward and backward, in chunks of positions: all
//! `[B, T, V]` logits never exist at once.

use candle_core::{DType, Result, Tensor};

use super::arguments::Score;
use super::kernels::launch;
use super::matmul::{add_matmul_tn, product, put_product};
use super::ops;
use super::pointers::{Fresh, change_rounded, f32s, ids, optional, rounded};
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
/// At most `chunk_logits` logits exist at a time, or those of one position; with `backward` they are rounded, and
/// their gradient takes their place. Without, they are f32, so that what is measured is of the weights alone.
pub fn run(
    positions: &Positions,
    mut backward: Option<Backward>,
    chunk_logits: usize,
) -> Result<(Tensor, Option<Tensor>)> {
    let Projection { hidden, embed } = positions.student;
    let ((m, d), v, device) = (hidden.dims2()?, embed.dim(0)?, hidden.device());
    let dtype = match backward {
        Some(_) => hidden.dtype(),
        None => DType::F32,
    };
    let chunk = (chunk_logits / v).clamp(1, m.max(1));
    let losses = Fresh::f32s((m, 3), device)?;
    let d_hidden = match backward {
        // SAFETY: the products write every element.
        Some(_) => Some(unsafe { Tensor::empty((m, d), DType::F32, device)? }),
        None => None,
    };
    for first in (0..m).step_by(chunk) {
        let n = chunk.min(m - first);
        let rows = |x: &Tensor| x.narrow(0, first, n);
        let logits_of = |x: Projection| product(&rows(x.hidden)?, &x.embed.t()?, dtype);
        let logits = logits_of(positions.student)?;
        let reference = positions.reference.map(logits_of).transpose()?;
        let targets = rows(positions.targets)?;
        let weights = match &backward {
            Some(backward) => Some((rows(backward.ntp_weights)?, rows(backward.kl_weights)?)),
            None => None,
        };
        let weight = weights.as_ref();
        let args = Score {
            losses: losses.out_from(first),
            logits: change_rounded(&logits, dtype)?,
            reference: optional(reference.as_ref(), |x| rounded(x, dtype))?,
            targets: ids(&targets)?,
            ntp_weights: optional(weight.map(|(ntp, _)| ntp), f32s)?,
            kl_weights: optional(weight.map(|(_, kl)| kl), f32s)?,
            bf16: is_bf16(dtype),
            v,
        };
        launch(device, ops::rows(n, v), &args)?;
        if let (Some(backward), Some(d_hidden)) = (&mut backward, &d_hidden) {
            let d_logits = logits;
            put_product(&rows(d_hidden)?, &d_logits, embed)?;
            if let Some(d_embed) = &mut backward.d_embed {
                add_matmul_tn(d_embed, &d_logits, &rows(hidden)?, 1.0)?;
            }
        }
    }
    Ok((losses.written(), d_hidden))
}
