//! Decoder-only transformers: weights, forward, hand-written backward.
//!
//! One implementation serves the paper's small model (no norm gains, untied embeddings, QK-norm before
//! RoPE, tanh GELU; arXiv 2605.26097) and the Llama family (gains, grouped queries, SwiGLU, embeddings
//! that may be tied): it follows the parts of a [`ModelConfig`]. One call handles rows of equal length
//! on one thread; see [`crate::cpu::Engine`] for how a batch is spread over threads.

mod activations;
mod backward;
mod config;
mod forward;
mod layer;
mod lora;
mod packed;
mod params;
#[cfg(test)]
mod tests;

pub use activations::{Activations, Keep};
pub use backward::backward;
pub use config::{Mlp, ModelConfig};
pub(crate) use forward::embed;
pub use forward::forward;
pub(crate) use layer::{Layer, final_norm};
pub use lora::{Lora, LoraConfig, LoraLayout, ModelRef};
pub use packed::Packed;
pub use params::{Entry, Layout, Params};
