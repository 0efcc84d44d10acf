//! Training, replay and evaluation of forgetlab; no terminal code.

pub mod batch;
pub mod bench;
pub mod data;
pub mod demand;
pub mod error;
pub mod eval;
#[cfg(any(feature = "cuda", test))]
pub mod gpu;
pub mod model;
pub mod ops;
pub mod pretrained;
pub mod sample;
pub mod sampling;
pub mod train;
