//! Sums, and products with one number.

use super::simd::multiversion;

multiversion! {
    /// `x = scale · x`.
    pub fn scale(x: &mut [f32], scale: f32) {
        for x in x {
            *x *= scale;
        }
    }
}

multiversion! {
    /// `y = scale · x`.
    pub fn scaled(y: &mut [f32], x: &[f32], scale: f32) {
        for (y, x) in y.iter_mut().zip(x) {
            *y = scale * x;
        }
    }
}

multiversion! {
    /// `y += scale · x`.
    pub fn add_scaled(y: &mut [f32], x: &[f32], scale: f32) {
        for (y, x) in y.iter_mut().zip(x) {
            *y = x.mul_add(scale, *y);
        }
    }
}

multiversion! {
    /// Adds `bias [N]` to each row of `y [M, N]`.
    pub fn add_bias(y: &mut [f32], bias: &[f32]) {
        for row in y.chunks_exact_mut(bias.len()) {
            for (y, b) in row.iter_mut().zip(bias) {
                *y += b;
            }
        }
    }
}

multiversion! {
    /// Adds the rows of `dy [M, N]` to `d_bias [N]`.
    pub fn bias_backward(d_bias: &mut [f32], dy: &[f32]) {
        for row in dy.chunks_exact(d_bias.len()) {
            for (g, dy) in d_bias.iter_mut().zip(row) {
                *g += dy;
            }
        }
    }
}
