//! Training: streams of random numbers, threads, objectives, optimizer, schedule, the loop.
//!
//! [`run`] takes a run directory to its end: it trains the first phase once a seed ([`Learner`]),
//! then lets the arms take turns, one evaluation interval each.

mod adamw;
mod arm;
mod compute;
mod cpu_memory;
mod device;
mod engine;
mod error;
mod first_phase;
mod journal;
mod lane;
mod learner;
mod look;
pub(crate) mod memory;
mod micro;
mod objective;
mod pace;
mod prepare;
mod random;
mod runner;
mod services;
pub mod settings;
mod weights;

pub use adamw::{AdamW, AdamWConfig};
pub use compute::Compute;
pub use device::{DeviceError, Gpu, Hardware, check_device, probe_cuda};
pub use engine::Engine;
pub use error::TrainError;
pub use journal::Listener;
pub use learner::{Learner, NotFinite, PhaseStart, Place, StepError, read_student};
pub use memory::{available_memory, peak_memory, reset_peak_memory};
pub use objective::Reduction;
pub use prepare::{
    NUMERICS, PrepareError, device_in_words, environment, fetch, fetch_weights, prepare,
};
pub use random::{Random, Stream};
pub use runner::{BREADCRUMB, Outcome, RunOptions, run};
pub use weights::{Optimizer, Weights};
