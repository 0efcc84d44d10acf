//! RMSNorm: `y = x / sqrt(mean(x²) + eps)`, then `y ⊙ gains` where a model has learned ones.

use super::simd::{dot, multiversion};

multiversion! {
    /// Normalises each row of `x [M, D]` into `y [M, D]`; keeps `1/rms` in `inv_rms [M]`.
    pub fn forward(x: &[f32], y: &mut [f32], inv_rms: &mut [f32], d: usize, eps: f32) {
        for ((x, y), r) in x.chunks_exact(d).zip(y.chunks_exact_mut(d)).zip(inv_rms) {
            *r = 1.0 / (dot(x, x) / d as f32 + eps).sqrt();
            for (y, x) in y.iter_mut().zip(x) {
                *y = *x * *r;
            }
        }
    }
}

multiversion! {
    /// Adds to `dx [M, D]` the gradient of the norm's input, from that of its output, `dy [M, D]`, and the
    /// forward's `y` and `inv_rms`.
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

multiversion! {
    /// Turns the gradient `dy [M, D]` of the norm's output into that of its input, in place, as [`backward_add`].
    pub fn backward_in_place(dy: &mut [f32], y: &[f32], inv_rms: &[f32], d: usize) {
        for ((dy, y), &r) in dy.chunks_exact_mut(d).zip(y.chunks_exact(d)).zip(inv_rms) {
            let mean = dot(dy, y) / d as f32;
            for (dy, y) in dy.iter_mut().zip(y) {
                *dy = r * (*dy - *y * mean);
            }
        }
    }
}

/// An RMSNorm: its epsilon, and its gains `[D]` where it has them.
#[derive(Clone, Copy)]
pub struct Norm<'a> {
    /// Epsilon, added to the mean square.
    pub eps: f32,
    /// Gains, by which the normalised elements are multiplied.
    pub gains: Option<&'a [f32]>,
}

impl Norm<'_> {
    /// Normalises `x [M, D]` into `y`, which [`backward_add`] needs; returns the norm's output: `y` itself, or
    /// `y ⊙ gains` in `scaled`.
    pub fn forward<'a>(
        self,
        x: &[f32],
        y: &'a mut [f32],
        inv_rms: &mut [f32],
        scaled: &'a mut [f32],
        d: usize,
    ) -> &'a [f32] {
        forward(x, y, inv_rms, d, self.eps);
        self.output(y, scaled)
    }

    /// The norm's output again, from the `y` of a forward: `y` itself, or `y ⊙ gains` in `scaled`.
    pub fn output<'a>(self, y: &'a [f32], scaled: &'a mut [f32]) -> &'a [f32] {
        let Some(gains) = self.gains else { return y };
        scale(y, gains, &mut scaled[..y.len()]);
        &scaled[..y.len()]
    }

    /// Turns the gradient `dy [M, D]` of [`Self::output`] into that of `y`, in place; adds the gradient of the
    /// gains to `d_gains` where they are trained.
    pub fn backward(self, dy: &mut [f32], y: &[f32], d_gains: Option<&mut [f32]>) {
        match (self.gains, d_gains) {
            (Some(gains), Some(d_gains)) => scale_backward(dy, y, gains, d_gains),
            (Some(gains), None) => scale_in_place(dy, gains),
            (None, _) => {}
        }
    }
}

multiversion! {
    /// `scaled [M, D] = y ⊙ gains`.
    fn scale(y: &[f32], gains: &[f32], scaled: &mut [f32]) {
        let d = gains.len();
        for (y, scaled) in y.chunks_exact(d).zip(scaled.chunks_exact_mut(d)) {
            for i in 0..d {
                scaled[i] = y[i] * gains[i];
            }
        }
    }
}

multiversion! {
    /// `y [M, D] = y ⊙ gains`.
    fn scale_in_place(y: &mut [f32], gains: &[f32]) {
        let d = gains.len();
        for y in y.chunks_exact_mut(d) {
            for i in 0..d {
                y[i] *= gains[i];
            }
        }
    }
}

multiversion! {
    /// `d_gains += Σ dy ⊙ y` over the rows, then `dy = dy ⊙ gains`.
    fn scale_backward(dy: &mut [f32], y: &[f32], gains: &[f32], d_gains: &mut [f32]) {
        let d = gains.len();
        let d_gains = &mut d_gains[..d];
        for (dy, y) in dy.chunks_exact_mut(d).zip(y.chunks_exact(d)) {
            for i in 0..d {
                d_gains[i] += dy[i] * y[i];
                dy[i] *= gains[i];
            }
        }
    }
}
