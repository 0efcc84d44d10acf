//! RMSNorm without gain: `y = x / sqrt(mean(x²) + eps)`.

use super::simd::{dot, multiversion};

/// Added to the mean square (the paper's small model).
pub const EPS: f32 = 1e-6;

multiversion! {
    /// Normalises each row of `x [M, D]` into `y [M, D]`; keeps `1/rms` in `inv_rms [M]`.
    pub fn forward(x: &[f32], y: &mut [f32], inv_rms: &mut [f32], d: usize) {
        for ((x, y), r) in x.chunks_exact(d).zip(y.chunks_exact_mut(d)).zip(inv_rms) {
            *r = 1.0 / (dot(x, x) / d as f32 + EPS).sqrt();
            for (y, x) in y.iter_mut().zip(x) {
                *y = *x * *r;
            }
        }
    }
}

multiversion! {
    /// Adds to `dx [M, D]` the gradient through the norm of `dy [M, D]`, given the forward's `y` and `inv_rms`.
    ///
    /// `dx += inv_rms · (dy − y · mean(dy · y))`; exact with `eps`, since `y` carries it.
    pub fn backward_add(dx: &mut [f32], dy: &[f32], y: &[f32], inv_rms: &[f32], d: usize) {
        let rows = dx.chunks_exact_mut(d).zip(dy.chunks_exact(d));
        for (((dx, dy), y), &r) in rows.zip(y.chunks_exact(d)).zip(inv_rms) {
            let mean = dot(dy, y) / d as f32;
            for ((dx, dy), y) in dx.iter_mut().zip(dy).zip(y) {
                *dx += r * (*dy - *y * mean);
            }
        }
    }
}
