//! The engine and the sampler on the CPU: the models of [`crate::model`] on the threads of a pool.
//!
//! Forward and backward run on one thread for some rows of a batch at a time; every thread has buffers and a
//! gradient of its own. Weights, moments and gradients are flat buffers in the machine's memory. Matrix
//! products take their inputs in the engine's [`Precision`](crate::ops::Precision); everything else is f32.
//!
//! Tests compare gradients with finite differences, and the results of different numbers of threads.

mod engine;
mod lane;
pub(crate) mod memory;
mod micro;
mod sampler;
#[cfg(test)]
mod tests;

pub use engine::Engine;
pub use sampler::Sampler;
