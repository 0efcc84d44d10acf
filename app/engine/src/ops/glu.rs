//! Gated linear units, `activation(gate) ⊙ up`; gate and up lie beside one another.

use super::gelu::gelu;
use super::simd::{exp, multiversion};

/// What a gate goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// `silu(x) = x / (1 + e^-x)`: SwiGLU.
    Silu,
    /// GELU in its tanh form: GeGLU.
    Gelu,
}

/// `silu(x)` and its derivative.
#[inline(always)]
fn silu(x: f32) -> (f32, f32) {
    let s = 1.0 / (1.0 + exp(-x));
    (x * s, (x * (1.0 - s)).mul_add(s, s))
}

multiversion! {
    /// Computes `y [M, F]` from `gate_up [M, 2 F]`, which is replaced by the derivatives for [`backward`].
    pub fn forward(gate_up: &mut [f32], y: &mut [f32], f: usize, gate: Gate) {
        match gate {
            Gate::Silu => forward_with(gate_up, y, f, silu),
            Gate::Gelu => forward_with(gate_up, y, f, gelu),
        }
    }
}

multiversion! {
    /// Computes `y [M, F]` from `gate_up [M, 2 F]`, for no backward.
    pub fn inference(gate_up: &[f32], y: &mut [f32], f: usize, gate: Gate) {
        match gate {
            Gate::Silu => inference_with(gate_up, y, f, silu),
            Gate::Gelu => inference_with(gate_up, y, f, gelu),
        }
    }
}

multiversion! {
    /// Turns the derivatives `slopes [M, 2 F]` of [`forward`] into the gradient of `gate_up`, given that of the
    /// output, `dy [M, F]`.
    pub fn backward(slopes: &mut [f32], dy: &[f32], f: usize) {
        for (row, dy) in slopes.chunks_exact_mut(2 * f).zip(dy.chunks_exact(f)) {
            let (gate, up) = row.split_at_mut(f);
            for i in 0..f {
                gate[i] *= dy[i];
                up[i] *= dy[i];
            }
        }
    }
}

#[inline(always)]
fn forward_with(
    gate_up: &mut [f32],
    y: &mut [f32],
    f: usize,
    activation: impl Fn(f32) -> (f32, f32),
) {
    for (row, y) in gate_up.chunks_exact_mut(2 * f).zip(y.chunks_exact_mut(f)) {
        let (gate, up) = row.split_at_mut(f);
        for i in 0..f {
            let (value, slope) = activation(gate[i]);
            y[i] = value * up[i];
            gate[i] = slope * up[i];
            up[i] = value;
        }
    }
}

#[inline(always)]
fn inference_with(
    gate_up: &[f32],
    y: &mut [f32],
    f: usize,
    activation: impl Fn(f32) -> (f32, f32),
) {
    for (row, y) in gate_up.chunks_exact(2 * f).zip(y.chunks_exact_mut(f)) {
        let (gate, up) = row.split_at(f);
        for i in 0..f {
            y[i] = activation(gate[i]).0 * up[i];
        }
    }
}
