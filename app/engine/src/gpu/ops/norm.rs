//! RMSNorm without gain over the last dimension: `y = x / sqrt(mean(x²) + eps)`.

use candle_core::{D, Result, Tensor};

use crate::ops::norm::EPS;

/// `y [.., D]` and `1/rms [.., 1]` of `x [.., D]`.
pub fn forward(x: &Tensor) -> Result<(Tensor, Tensor)> {
    let mean_square = x.sqr()?.mean_keepdim(D::Minus1)?;
    let inv_rms = mean_square.affine(1.0, f64::from(EPS))?.sqrt()?.recip()?;
    Ok((x.broadcast_mul(&inv_rms)?, inv_rms))
}

/// Gradient through the norm, given the forward's `y` (rounded or not) and `1/rms`:
/// `dx = inv_rms · (dy − y · mean(dy · y))`.
pub fn backward(dy: &Tensor, y: &Tensor, inv_rms: &Tensor) -> Result<Tensor> {
    let y = y.to_dtype(dy.dtype())?;
    let mean = (dy * &y)?.mean_keepdim(D::Minus1)?;
    (dy - y.broadcast_mul(&mean)?)?.broadcast_mul(inv_rms)
}
