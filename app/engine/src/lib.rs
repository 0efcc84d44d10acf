//! Numbers: models with their backward pass, AdamW, samplers, on the CPU and on a GPU. It knows no run, arm,
//! strategy or setting.
//!
//! In reading order, each module over those before it:
//! - `random`: named, counter-based [`Stream`]s of random numbers;
//! - [`ops`]: forward and backward of a transformer's parts, on one CPU thread;
//! - [`model`]: decoder-only transformers made of them, and low-rank adapters;
//! - [`pretrained`]: checkpoints of others: folders, GGUF files, the hub; export;
//! - `device`, `error`: what is computed on, and why a computation did not happen;
//! - `batch`, `sampling`: what engines and samplers take and give;
//! - `adamw`: [`AdamW`] with moments that can be saved;
//! - `demand`: what decides the memory of a piece of work ([`Demand`]);
//! - `cpu`, `gpu`: two wings that mirror each other: losses and gradients, samplers, memory;
//! - `weights`, `engine`: [`Weights`], and the [`Engine`] in front of both wings;
//! - [`memory`]: what the machine has, what this process took, what work will take.

mod random;

pub mod ops;

pub mod model;

pub mod pretrained;

mod adamw;
mod batch;
mod demand;
mod device;
mod error;
mod sampling;

mod cpu;
#[cfg(gpu)]
pub mod gpu;

mod engine;
mod weights;

pub mod memory;

pub use adamw::{AdamW, AdamWConfig};
pub use batch::{Batching, LossBatch, LossReport, Query, RowLoss};
pub use demand::{Demand, Memory, human_bytes};
pub use device::{DeviceError, Gpu, Hardware, check_device, probe_cuda};
pub use engine::Engine;
pub use error::EngineError;
pub use random::{Random, Stream};
pub use sampling::{Generated, Request, Sampling};
pub use weights::{Optimizer, Weights};
