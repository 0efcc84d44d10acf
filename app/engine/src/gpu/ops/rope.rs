//! QK-norm and rotary positions of queries and keys, as [`crate::ops::rope`] has them.

use candle_core::{D, Device, Result, Tensor};

use super::norm;

/// Cosines, sines and negated sines of every position: `[T, H/2]` each.
#[derive(Clone, Debug)]
pub struct RopeTable {
    cos: Tensor,
    sin: Tensor,
    minus_sin: Tensor,
}

impl RopeTable {
    /// A table for positions `0..seq_len` of heads of size `head_dim` (even).
    pub fn new(seq_len: usize, head_dim: usize, base: f64, device: &Device) -> Result<Self> {
        let half = head_dim / 2;
        let angle = |t: usize, i: usize| t as f64 * base.powf(-(2.0 * i as f64) / head_dim as f64);
        let each = |f: fn(f64) -> f64| {
            let table: Vec<f32> = (0..seq_len)
                .flat_map(|t| (0..half).map(move |i| f(angle(t, i)) as f32))
                .collect();
            Tensor::from_vec(table, (seq_len, half), device)
        };
        Ok(Self {
            cos: each(f64::cos)?,
            sin: each(f64::sin)?,
            minus_sin: each(|angle| -angle.sin())?,
        })
    }

    /// The table of position `t` alone.
    pub fn position(&self, t: usize) -> Result<Self> {
        Ok(Self {
            cos: self.cos.narrow(0, t, 1)?,
            sin: self.sin.narrow(0, t, 1)?,
            minus_sin: self.minus_sin.narrow(0, t, 1)?,
        })
    }

    /// Turns `x [.., T, H]`, or back again.
    fn rotate(&self, x: &Tensor, back: bool) -> Result<Tensor> {
        let half = x.dim(D::Minus1)? / 2;
        let a = x.narrow(D::Minus1, 0, half)?;
        let b = x.narrow(D::Minus1, half, half)?;
        let (sin, minus_sin) = match back {
            false => (&self.sin, &self.minus_sin),
            true => (&self.minus_sin, &self.sin),
        };
        let turned = [
            (a.broadcast_mul(&self.cos)? + b.broadcast_mul(minus_sin)?)?,
            (b.broadcast_mul(&self.cos)? + a.broadcast_mul(sin)?)?,
        ];
        Tensor::cat(&turned, D::Minus1)
    }
}

/// Normalises and rotates `qk [.., T, H]`; also gives the `1/rms [.., T, 1]` of every head.
pub fn forward(qk: &Tensor, table: &RopeTable) -> Result<(Tensor, Tensor)> {
    let (y, inv_rms) = norm::forward(qk)?;
    Ok((table.rotate(&y, false)?, inv_rms))
}

/// Gradient of the raw queries and keys from that of the rotated ones and the forward's output.
///
/// A rotation commutes with the norm's Jacobian, which is applied first, to the rotated vectors.
pub fn backward(dy: &Tensor, y: &Tensor, inv_rms: &Tensor, table: &RopeTable) -> Result<Tensor> {
    table.rotate(&norm::backward(dy, y, inv_rms)?, true)
}
