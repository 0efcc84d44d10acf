//! GeGLU: `gelu(gate) ⊙ up` with GELU in its tanh form; gate and up lie beside one another. The backward is that of
//! [SwiGLU](super::swiglu::backward).

use super::gelu::gelu;
use super::simd::multiversion;

multiversion! {
    /// Computes `y [M, F]` from `gate_up [M, 2 F]`, which is replaced by the derivatives for the backward.
    pub fn forward(gate_up: &mut [f32], y: &mut [f32], f: usize) {
        for (row, y) in gate_up.chunks_exact_mut(2 * f).zip(y.chunks_exact_mut(f)) {
            let (gate, up) = row.split_at_mut(f);
            for i in 0..f {
                let (value, slope) = gelu(gate[i]);
                y[i] = value * up[i];
                gate[i] = slope * up[i];
                up[i] = value;
            }
        }
    }
}

multiversion! {
    /// Computes `y [M, F]` from `gate_up [M, 2 F]`, for no backward.
    pub fn inference(gate_up: &[f32], y: &mut [f32], f: usize) {
        for (row, y) in gate_up.chunks_exact(2 * f).zip(y.chunks_exact_mut(f)) {
            let (gate, up) = row.split_at(f);
            for i in 0..f {
                y[i] = gelu(gate[i]).0 * up[i];
            }
        }
    }
}
