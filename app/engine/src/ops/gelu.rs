//! GELU in its tanh form: `0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³)))`.

use super::simd::{exp, multiversion};

const C: f32 = 0.797_884_6;
const A: f32 = 0.044_715;

/// `gelu(x)` and its derivative. `0.5 (1 + tanh u)` is the logistic function of `2u`.
#[inline(always)]
pub(super) fn gelu(x: f32) -> (f32, f32) {
    let x2 = x * x;
    let u = C * x * x2.mul_add(A, 1.0);
    let s = 1.0 / (1.0 + exp(-2.0 * u));
    let du = C * x2.mul_add(3.0 * A, 1.0);
    (x * s, (2.0 * x * s * (1.0 - s)).mul_add(du, s))
}

multiversion! {
    /// Replaces `x` by `gelu(x)` and keeps the derivatives in `slope` for [`backward`].
    pub fn forward(x: &mut [f32], slope: &mut [f32]) {
        for (x, slope) in x.iter_mut().zip(slope) {
            (*x, *slope) = gelu(*x);
        }
    }
}

multiversion! {
    /// Replaces `x` by `gelu(x)`, for no backward.
    pub fn inference(x: &mut [f32]) {
        for x in x {
            *x = gelu(*x).0;
        }
    }
}

multiversion! {
    /// Turns the gradient `dy` of the output into that of the input, given the derivatives of [`forward`].
    pub fn backward(dy: &mut [f32], slope: &[f32]) {
        for (dy, slope) in dy.iter_mut().zip(slope) {
            *dy *= *slope;
        }
    }
}
