//! Numbers: models with their backward pass, AdamW, samplers, on the CPU and on a GPU. It knows no run, arm,
//! strategy or setting.
//!
//! In reading order, each part over those before it: [`Stream`] of random numbers and [`ops`]; [`model`];
//! [`pretrained`] checkpoints; batches, sampling, [`AdamW`] and [`Demand`]; two wings that mirror each other,
//! `cpu` and `gpu`; [`Weights`] and the [`Engine`] in front of both; [`memory`].

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
