//! The engine and the sampler on the CPU: threads with rows of their own.

mod engine;
mod lane;
pub(crate) mod memory;
mod micro;
mod sampler;

pub use engine::Engine;
pub use sampler::Sampler;
