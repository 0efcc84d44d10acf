//! Forward and backward of a transformer's operations on one CPU thread.
//!
//! Plain functions over `f32` slices: no autograd tape, no allocation. Every forward keeps just what its
//! hand-written backward needs. Callers spread the work over threads, each with rows of its own.
//! Element-wise loops are compiled for AVX-512, AVX2 and the baseline (see [`simd`]).

pub mod attention;
pub mod gelu;
pub mod glu;
pub mod head;
pub mod linear;
pub mod matmul;
pub mod norm;
mod precision;
pub mod qk_norm;
pub mod rope;
pub mod scale;
pub mod simd;
#[cfg(test)]
pub(crate) mod tests;

pub use precision::Precision;
