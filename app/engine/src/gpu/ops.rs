//! Forward and backward of a transformer's operations on tensors, except attention.
//!
//! The counterparts of [`crate::ops`], with the same formulas, in the kernels of `kernels.cu`. Inputs of
//! matrix products are rounded to the engine's precision where they are computed; everything else is f32.

use candle_core::{DType, Result, Tensor};

use crate::model::Mlp;

use super::kernels::{Grid, launch};
use super::matmul::add_product;
use super::tensor::{is_bf16, upload_ids};

/// Rows of which one block sums the parts of a gain's gradient.
const GAIN_ROWS: usize = 32;

/// The result of RMSNorm of `x [M, D]`, before its gain.
pub struct Normed {
    /// `x / rms(x)`, rounded.
    pub(super) y: Tensor,
    /// `1/rms [M]`.
    pub(super) inv_rms: Tensor,
}

/// One block for each of `m` rows of `width` elements.
fn rows(m: usize, width: usize) -> Grid {
    Grid { blocks: m, width }
}

/// RMSNorm of `x [M, D]`, before its gain.
pub fn norm(x: &Tensor, eps: f32, dtype: DType) -> Result<Normed> {
    let (m, d) = x.dims2()?;
    let outputs = [(vec![m, d], dtype), (vec![m], DType::F32)];
    let sizes = [d, is_bf16(dtype)];
    let inputs = [Some(x)];
    let [y, inv_rms] = launch("norm_forward", rows(m, d), outputs, &inputs, &sizes, &[eps])?;
    Ok(Normed { y, inv_rms })
}

impl Normed {
    /// The norm's output `[M, D]`, rounded: multiplied by its gain `[1, D]`, if there is one.
    pub fn gained(&self, gain: Option<&Tensor>) -> Result<Tensor> {
        let Some(gain) = gain else {
            return Ok(self.y.clone());
        };
        let ((m, d), dtype) = (self.y.dims2()?, self.y.dtype());
        let (outputs, inputs) = ([((m, d), dtype)], [&self.y, gain].map(Some));
        let sizes = [d, is_bf16(dtype)];
        let [gained] = launch("gain_forward", rows(m, d), outputs, &inputs, &sizes, &[])?;
        Ok(gained)
    }

    /// Gradient of the norm's input from that of its output after the gain, `dy [M, D]`; added to `dh [M, D]` if
    /// it is given.
    pub fn backward(
        &self,
        dh: Option<&Tensor>,
        dy: &Tensor,
        gain: Option<&Tensor>,
    ) -> Result<Tensor> {
        let (m, d) = dy.dims2()?;
        let (outputs, sizes) = ([((m, d), DType::F32)], [d, is_bf16(self.y.dtype())]);
        let inputs = [dh, Some(dy), Some(&self.y), Some(&self.inv_rms), gain];
        let [dx] = launch("norm_backward", rows(m, d), outputs, &inputs, &sizes, &[])?;
        Ok(dx)
    }

    /// Adds to `sum` the gradient of the gain `[1, D]`, from that of the output after it, `dy [M, D]`.
    pub fn gain_backward(&self, sum: &mut Option<Tensor>, dy: &Tensor) -> Result<()> {
        let (m, d) = dy.dims2()?;
        let parts = m.div_ceil(GAIN_ROWS);
        let outputs = [((parts, d), DType::F32)];
        let inputs = [dy, &self.y].map(Some);
        let sizes = [d, is_bf16(self.y.dtype()), m, GAIN_ROWS];
        let grid = rows(parts, d);
        let [partial] = launch("gain_backward", grid, outputs, &inputs, &sizes, &[])?;
        let ones = Tensor::ones((1, parts), DType::F32, dy.device())?;
        add_product(sum, &ones, &partial)
    }
}

/// Activation of the MLP: from `x [M, F]`, or gate and up `[M, 2 F]`, to `[M, F]`, rounded.
pub fn mlp(kind: Mlp, x: &Tensor, dtype: DType) -> Result<Tensor> {
    let (m, width) = x.dims2()?;
    let (name, f) = match kind {
        Mlp::Gelu => ("gelu_forward", width),
        Mlp::SwiGlu => ("swiglu_forward", width / 2),
        Mlp::GeGlu => unreachable!("an engine on a GPU refuses it"),
    };
    let (outputs, sizes) = ([((m, f), dtype)], [is_bf16(dtype), f]);
    let [y] = launch(name, rows(m, f), outputs, &[Some(x)], &sizes, &[])?;
    Ok(y)
}

/// Backward of [`mlp`]: the gradient of its input from that of its output, and the output again; both rounded.
pub fn mlp_backward(kind: Mlp, dy: &Tensor, x: &Tensor, dtype: DType) -> Result<(Tensor, Tensor)> {
    let ((m, f), (_, width)) = (dy.dims2()?, x.dims2()?);
    let name = match kind {
        Mlp::Gelu => "gelu_backward",
        Mlp::SwiGlu => "swiglu_backward",
        Mlp::GeGlu => unreachable!("an engine on a GPU refuses it"),
    };
    let outputs = [((m, width), dtype), ((m, f), dtype)];
    let (inputs, sizes) = ([dy, x].map(Some), [is_bf16(dtype), f]);
    let [dx, y] = launch(name, rows(m, f), outputs, &inputs, &sizes, &[])?;
    Ok((dx, y))
}

/// Adds to an embedding's gradient `[V, D]`, in the row of each of `tokens [M]`, its row of `dh [M, D]`.
pub fn embed_backward(
    grad: &mut Option<Tensor>,
    vocab_size: usize,
    tokens: &[u32],
    dh: &Tensor,
) -> Result<()> {
    let (d, device) = (dh.dim(1)?, dh.device());
    let mut order: Vec<u32> = (0..tokens.len() as u32).collect();
    order.sort_by_key(|&row| tokens[row as usize]);
    // Each distinct token, and where its rows start in `order`.
    let (mut distinct, mut starts) = (Vec::new(), vec![0]);
    for rows in order.chunk_by(|&a, &b| tokens[a as usize] == tokens[b as usize]) {
        distinct.push(tokens[rows[0] as usize]);
        starts.push(starts[starts.len() - 1] + rows.len() as u32);
    }
    let grad = match grad {
        Some(grad) => grad,
        None => grad.insert(Tensor::zeros((vocab_size, d), DType::F32, device)?),
    };
    let grid = rows(distinct.len(), d);
    let distinct = upload_ids(&distinct, device)?;
    let starts = upload_ids(&starts, device)?;
    let order = upload_ids(&order, device)?;
    let inputs = [&*grad, &distinct, &starts, &order, dh].map(Some);
    let no_outputs: [((usize, usize), DType); 0] = [];
    let [] = launch("embed_backward", grid, no_outputs, &inputs, &[d], &[])?;
    Ok(())
}
