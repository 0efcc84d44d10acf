//! Linear layers.

use super::Precision;
use super::matmul::{Out, Panels, Sizes, product, product_transposed};

/// A linear layer: weights `[N, K]`, packed for the forward and, in training, for the backward.
pub struct Linear {
    forward: Panels,
    backward: Panels,
    precision: Precision,
}

impl Linear {
    /// A layer without weights, whose products compute in this precision; [`Self::pack`] allocates.
    pub fn new(precision: Precision) -> Self {
        Self {
            forward: Panels::new(precision),
            backward: Panels::new(precision),
            precision,
        }
    }

    /// Packs weights `w [N, K]`, for the backward too if one follows.
    pub fn pack(&mut self, w: &[f32], [n, k]: [usize; 2], backward: bool) {
        self.forward.pack_transposed(w, n, k);
        if backward {
            self.backward.pack(w, n, k);
        }
    }

    /// Number of floats that packed weights `[N, K]` take.
    pub fn len([n, k]: [usize; 2], backward: bool) -> usize {
        let backward = if backward { Panels::len(n, k) } else { 0 };
        Panels::len(k, n) + backward
    }

    /// Shape `[N, K]` of the weights: outputs, inputs.
    pub fn shape(&self) -> [usize; 2] {
        self.forward.shape_transposed()
    }

    /// `y [M, N] (+)= x [M, K] · wᵀ`, set or added as `out` says.
    pub fn forward(&self, y: &mut [f32], x: &[f32], out: Out) {
        product(y, x, &self.forward, out);
    }

    /// Gradient with respect to the input: `dx [M, K] = dy [M, N] · w`.
    pub fn backward(&self, dx: &mut [f32], dy: &[f32]) {
        product(dx, dy, &self.backward, Out::Set);
    }

    /// Adds the gradient with respect to the weights: `dw [N, K] += dy [M, N]ᵀ · x [M, K]`.
    pub fn backward_weights(&self, dw: &mut [f32], dy: &[f32], x: &[f32]) {
        let [n, k] = self.shape();
        let sizes = Sizes {
            m: n,
            n: k,
            k: x.len() / k,
        };
        product_transposed(dw, dy, x, sizes, Out::Add, self.precision);
    }
}
