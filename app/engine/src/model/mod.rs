//! Decoder-only transformers: weights, forward, hand-written backward.
//!
//! One implementation serves the paper's small model (no norm gains, untied embeddings, QK-norm before
//! RoPE, tanh GELU; arXiv 2605.26097), Llama (gains, grouped queries, SwiGLU, embeddings that may be tied)
//! and families near it: a [`ModelConfig`] says which parts a model has. One call handles rows of equal
//! length on one thread; callers spread a batch over threads.

mod activations;
mod backward;
mod config;
mod flops;
mod forward;
mod half;
mod layer;
mod lora;
mod packed;
mod params;
mod parts;
mod ropes;

pub use activations::{Activations, Keep};
pub use backward::backward;
pub use config::{Mlp, ModelConfig};
pub(crate) use forward::embed;
pub use forward::forward;
pub(crate) use half::Added;
pub(crate) use layer::{Layer, QkKept, final_norm};
pub use lora::{Lora, LoraConfig, LoraLayout, ModelRef};
pub use packed::{Packed, PackedModel};
pub(crate) use params::BlockLinear;
pub use params::{Entry, Layout, Params};
pub use parts::{Blocks, Norms, Parts, QkGains, Vector, Window};
pub(crate) use ropes::Ropes;
