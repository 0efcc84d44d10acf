//! A linear layer on one CPU thread.

use super::Precision;
use super::matmul::{Out, Panels, product, product_transposed};

/// Weights `[N, K]` of a linear layer, packed for its forward and, in training, its backward.
pub struct Linear {
    forward: Panels,
    backward: Panels,
    precision: Precision,
}

impl Linear {
    /// A layer whose products compute in this precision; room is taken when weights are packed.
    pub fn new(precision: Precision) -> Self {
        Self {
            forward: Panels::new(precision),
            backward: Panels::new(precision),
            precision,
        }
    }

    /// Packs `w [N, K]`; for the backward only where it is wanted.
    pub fn pack(&mut self, w: &[f32], [n, k]: [usize; 2], backward: bool) {
        self.forward.pack_transposed(w, n, k);
        if backward {
            self.backward.pack(w, n, k);
        }
    }

    /// Numbers that weights `[N, K]` take.
    pub fn len([n, k]: [usize; 2], backward: bool) -> usize {
        let backward = if backward { Panels::len(n, k) } else { 0 };
        Panels::len(k, n) + backward
    }

    /// `[N, K]`.
    pub fn shape(&self) -> [usize; 2] {
        self.forward.shape_transposed()
    }

    /// `y [M, N] (+)= x [M, K] · wᵀ`.
    pub fn forward(&self, y: &mut [f32], x: &[f32], out: Out) {
        product(y, x, &self.forward, out);
    }

    /// `dx [M, K] = dy [M, N] · w`: the gradient of the input.
    pub fn backward(&self, dx: &mut [f32], dy: &[f32]) {
        product(dx, dy, &self.backward, Out::Set);
    }

    /// `dw [N, K] += dy [M, N]ᵀ · x [M, K]`: the gradient of the weights.
    pub fn backward_weights(&self, dw: &mut [f32], dy: &[f32], x: &[f32]) {
        let [n, k] = self.shape();
        let m = x.len() / k;
        product_transposed(dw, dy, x, (m, n, k), Out::Add, self.precision);
    }
}
