//! The engine on a GPU: the model of [`crate::model`] on candle tensors, the small one and the Llama
//! family alike.
//!
//! Forward and backward are written by hand here too: no tensor is a variable, so candle records no
//! graph. candle lends memory and cuBLAS; what lies between the matrix products is done by the few
//! kernels of `kernels.cu`. Weights, moments and gradients stay on the device between steps. Matrix
//! products take their inputs in the engine's [`Precision`]; all else is f32, the sums in the
//! products, the master weights, moments, norms, softmax and losses included.
//!
//! Tests compile the kernels for the CPU and hold this engine against the hand-written CPU one.

mod adamw;
mod engine;
mod head;
mod heads;
mod kernels;
mod lora;
mod matmul;
pub(crate) mod memory;
mod model;
mod ops;
mod params;
mod sampler;
#[cfg(test)]
mod tests;

pub use adamw::AdamW;
pub use engine::Engine;
pub use kernels::{Args, set_stand_in};
pub use params::Params;
pub use sampler::Sampler;

use candle_core::{DType, Result, Tensor};

pub use candle_core::Device;

use crate::ops::Precision;

fn dtype(precision: Precision) -> DType {
    match precision {
        Precision::F32 => DType::F32,
        Precision::Bf16 => DType::BF16,
    }
}

/// Copies a tensor's numbers to the host.
fn download(x: &Tensor) -> Result<Vec<f32>> {
    x.flatten_all()?.to_vec1()
}
