//! Training, replay and evaluation of forgetlab; no terminal code.

pub mod adamw;
pub mod batch;
pub mod bench;
pub mod cpu;
pub mod data;
pub mod demand;
pub mod device;
pub mod engine;
pub mod error;
pub mod eval;
#[cfg(gpu)]
pub mod gpu;
pub mod memory;
pub mod model;
pub mod ops;
pub mod pretrained;
pub mod random;
pub mod sampling;
pub mod train;
pub mod weights;
