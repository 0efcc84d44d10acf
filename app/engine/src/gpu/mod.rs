//! The engine and the sampler on a GPU: the models of [`crate::model`] on candle tensors.
//!
//! Forward and backward are written by hand here too: no tensor is a candle variable, so that candle records
//! no graph. candle provides memory and cuBLAS; all between the matrix products is done by the kernels of
//! `kernels.cu`, none of candle's. Weights, moments and gradients are tensors that stay on the device between
//! steps. Matrix products take their inputs in the engine's [`Precision`](crate::ops::Precision), and so is what a
//! product gives for the next kernel alone: queries, keys and values, the input of the MLP's activation, their
//! gradients, and in training the logits. Everything else is f32: sums within products, master weights, moments,
//! the residual stream and its gradient, norms, softmax and losses.
//!
//! A GPU works behind the program's back, so that an error is met by a later call than the one that is to blame. With
//! `FORGETLAB_CUDA_SYNC=1` in the environment every kernel and product is waited for, and named where it failed; that
//! is slow.
//!
//! Tests compile the kernels for the CPU and compare the results with those of the engine on the CPU.

mod adamw;
mod arguments;
mod attention;
mod engine;
mod half;
mod head;
mod heads;
mod kernels;
mod lora;
mod matmul;
pub(crate) mod memory;
mod model;
mod ops;
mod params;
mod pointers;
mod sampler;
mod tensor;
#[cfg(test)]
mod tests;

pub use candle_core::Device;

pub use adamw::AdamW;
pub use arguments::{EmbedForward, Kernel};
pub use engine::Engine;
pub use kernels::{Grid, Run, launch, set_stand_in};
pub use params::Params;
pub use pointers::{Fresh, In, Out, Rounded};
pub use sampler::Sampler;
