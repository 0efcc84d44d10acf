//! Forward and backward of a transformer's operations on tensors, except attention.
//!
//! The counterparts of [`crate::ops`], with the same formulas, in the kernels of `kernels.cu`. Inputs of
//! matrix products are rounded to the engine's precision where they are computed; everything else is f32.

use candle_core::{DType, Result, Tensor};

use crate::model::Mlp;

use super::arguments::{
    EmbedBackward, GainBackward, GainForward, GeluBackward, GeluForward, NormBackward, NormForward,
    SwigluBackward, SwigluForward,
};
use super::kernels::{Grid, launch};
use super::matmul::add_product;
use super::pointers::{Fresh, f32s, ids, in_place, optional, rounded};
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
    let ((m, d), device) = (x.dims2()?, x.device());
    let y = Fresh::rounded((m, d), dtype, device)?;
    let inv_rms = Fresh::f32s(m, device)?;
    let args = NormForward {
        y: y.out(),
        inv_rms: inv_rms.out(),
        x: f32s(x)?,
        d,
        bf16: is_bf16(dtype),
        eps,
    };
    launch(device, rows(m, d), &args)?;
    Ok(Normed {
        y: y.written(),
        inv_rms: inv_rms.written(),
    })
}

impl Normed {
    /// The norm's output `[M, D]`, rounded: multiplied by its gain `[1, D]`, if there is one.
    pub fn gained(&self, gain: Option<&Tensor>) -> Result<Tensor> {
        let Some(gain) = gain else {
            return Ok(self.y.clone());
        };
        let ((m, d), dtype, device) = (self.y.dims2()?, self.y.dtype(), gain.device());
        let gained = Fresh::rounded((m, d), dtype, device)?;
        let args = GainForward {
            gained: gained.out(),
            y: rounded(&self.y, dtype)?,
            gain: rounded(gain, dtype)?,
            d,
            bf16: is_bf16(dtype),
        };
        launch(device, rows(m, d), &args)?;
        Ok(gained.written())
    }

    /// Gradient of the norm's input from that of its output after the gain, `dy [M, D]`; added to `dh [M, D]` if
    /// it is given.
    pub fn backward(
        &self,
        dh: Option<&Tensor>,
        dy: &Tensor,
        gain: Option<&Tensor>,
    ) -> Result<Tensor> {
        let ((m, d), dtype, device) = (dy.dims2()?, self.y.dtype(), dy.device());
        let dx = Fresh::f32s((m, d), device)?;
        let args = NormBackward {
            dx: dx.out(),
            dh: optional(dh, f32s)?,
            dy: f32s(dy)?,
            y: rounded(&self.y, dtype)?,
            inv_rms: f32s(&self.inv_rms)?,
            gain: optional(gain, |gain| rounded(gain, dtype))?,
            d,
            bf16: is_bf16(dtype),
        };
        launch(device, rows(m, d), &args)?;
        Ok(dx.written())
    }

    /// Adds to `sum` the gradient of the gain `[1, D]`, from that of the output after it, `dy [M, D]`.
    pub fn gain_backward(&self, sum: &mut Option<Tensor>, dy: &Tensor) -> Result<()> {
        let ((m, d), dtype, device) = (dy.dims2()?, self.y.dtype(), dy.device());
        let parts = m.div_ceil(GAIN_ROWS);
        let sums = Fresh::f32s((parts, d), device)?;
        let args = GainBackward {
            sums: sums.out(),
            dy: f32s(dy)?,
            y: rounded(&self.y, dtype)?,
            d,
            bf16: is_bf16(dtype),
            rows: m,
            rows_of_block: GAIN_ROWS,
        };
        launch(device, rows(parts, d), &args)?;
        let ones = Tensor::ones((1, parts), DType::F32, device)?;
        add_product(sum, &ones, &sums.written())
    }
}

/// Activation of the MLP: from `x [M, F]`, or gate and up `[M, 2 F]`, to `[M, F]`, rounded.
pub fn mlp(kind: Mlp, x: &Tensor, dtype: DType) -> Result<Tensor> {
    let ((m, width), device, bf16) = (x.dims2()?, x.device(), is_bf16(dtype));
    let f = match kind {
        Mlp::Gelu => width,
        Mlp::SwiGlu | Mlp::GeGlu => width / 2,
    };
    let fresh = Fresh::rounded((m, f), dtype, device)?;
    let (y, x) = (fresh.out(), f32s(x)?);
    match kind {
        Mlp::Gelu => launch(device, rows(m, f), &GeluForward { y, x, bf16, f })?,
        Mlp::SwiGlu => launch(device, rows(m, f), &SwigluForward { y, x, bf16, f })?,
        Mlp::GeGlu => unreachable!("an engine on a GPU refuses it"),
    }
    Ok(fresh.written())
}

/// Backward of [`mlp`]: the gradient of its input from that of its output, and the output again; both rounded.
pub fn mlp_backward(kind: Mlp, dy: &Tensor, x: &Tensor, dtype: DType) -> Result<(Tensor, Tensor)> {
    let ((m, f), (_, width), device) = (dy.dims2()?, x.dims2()?, x.device());
    let new = |width: usize| Fresh::rounded((m, width), dtype, device);
    let (new_dx, new_y) = (new(width)?, new(f)?);
    let (dx, y, bf16) = (new_dx.out(), new_y.out(), is_bf16(dtype));
    let (dy, x) = (f32s(dy)?, f32s(x)?);
    let grid = rows(m, f);
    match kind {
        Mlp::Gelu => launch(
            device,
            grid,
            &GeluBackward {
                dx,
                y,
                dy,
                x,
                bf16,
                f,
            },
        )?,
        Mlp::SwiGlu => launch(
            device,
            grid,
            &SwigluBackward {
                dx,
                y,
                dy,
                x,
                bf16,
                f,
            },
        )?,
        Mlp::GeGlu => unreachable!("an engine on a GPU refuses it"),
    }
    Ok((new_dx.written(), new_y.written()))
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
    let args = EmbedBackward {
        grad: in_place(grad)?,
        tokens: ids(&distinct)?,
        starts: ids(&starts)?,
        order: ids(&order)?,
        dh: f32s(dh)?,
        d,
    };
    launch(device, grid, &args)
}
