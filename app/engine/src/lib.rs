//! Numerics of the lab: language models with hand-written backward passes, AdamW and samplers, on the CPU and
//! on a GPU. The crate knows nothing of runs, arms, strategies or settings.
//!
//! The modules in reading order; each imports only modules listed before it.
//!
//! - `random`: counter-based random numbers, from a [`Stream`] for each purpose.
//! - [`ops`]: forward and backward of a transformer's operations on one CPU thread.
//! - [`model`]: weights and adapters of decoder-only transformers, forward and backward on one CPU thread.
//! - [`pretrained`]: checkpoints of Llama's family and those near it, opened, loaded and exported.
//! - `peer`: candle-transformers' implementation of a checkpoint, with the feature `second-opinion`.
//! - `adamw`: [`AdamW`], the optimizer.
//! - `batch`: what engines take ([`LossBatch`], [`Query`]) and return ([`LossReport`]).
//! - `micro`: how batches are cut into rows that are processed together, and what is scored of them.
//! - `demand`: [`Demand`], the sizes that decide how much memory some work takes.
//! - `device`: names of devices, and whether they can be used.
//! - `error`: [`EngineError`].
//! - `sampling`: what samplers take ([`Request`]) and return ([`Generated`]), and the choice of a token.
//! - `cpu`: an engine and a sampler on the threads of the CPU.
//! - `gpu`: the same on a GPU; built in with the `cuda` feature and in debug builds.
//! - `weights`: [`Weights`] and [`Optimizer`], which live where the engine works.
//! - `engine`: [`Engine`], one interface to the engines and samplers of `cpu` and `gpu`.
//! - [`memory`]: predictions for a [`Demand`], and what the machine and the process use.

mod random;

pub mod ops;

pub mod model;

pub mod pretrained;

#[cfg(feature = "second-opinion")]
pub mod peer;

mod adamw;
mod batch;
mod demand;
mod device;
mod error;
mod micro;
mod sampling;

mod cpu;
#[cfg(gpu)]
pub mod gpu;

mod weights;

mod engine;

pub mod memory;

pub use adamw::{AdamW, AdamWConfig};
pub use batch::{Batching, LossBatch, LossReport, Query, RowLoss};
pub use demand::{Asked, Demand, Memory, OnHost, PromptLen, human_bytes};
pub use device::{DeviceError, Gpu, Hardware, check_device, probe_cuda};
pub use engine::Engine;
pub use error::EngineError;
pub use random::{Random, Stream};
pub use sampling::{Generated, Request, Sampling};
pub use weights::{Optimizer, Weights};
