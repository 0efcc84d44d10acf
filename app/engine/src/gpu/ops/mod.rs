//! Forward and backward of the transformer's parts on candle tensors.
//!
//! The counterparts of [`crate::ops`], with the same formulas and the same things kept for the
//! backward. All take and give f32 but the inputs of matrix products, which callers round to the
//! engine's precision.

pub mod attention;
pub mod gelu;
pub mod head;
pub mod norm;
pub mod rope;

use candle_core::{DType, Result, Tensor};

/// `y [M, N] = x [M, K] · w [N, K]ᵀ`: a linear layer with weights `[out, in]`.
pub fn matmul_nt(x: &Tensor, w: &Tensor) -> Result<Tensor> {
    product(x, &w.t()?)
}

/// `dx [M, K] = dy [M, N] · w [N, K]`: a linear layer's gradient to its input.
pub fn matmul_nn(dy: &Tensor, w: &Tensor) -> Result<Tensor> {
    product(dy, w)
}

/// `dw [N, K] = dy [M, N]ᵀ · x [M, K]`: a linear layer's gradient to its weights.
pub fn matmul_tn(dy: &Tensor, x: &Tensor) -> Result<Tensor> {
    product(&dy.t()?, x)
}

/// A (batched) matrix product, in f32.
fn product(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    a.matmul(b)?.to_dtype(DType::F32)
}
