//! Why a computation did not happen.

use crate::device::DeviceError;

/// Why a computation did not happen.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The device cannot be used.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The system refused the threads.
    #[error("cannot start the engine's threads: {0}")]
    Threads(#[from] rayon::ThreadPoolBuildError),
    /// The GPU has no room left.
    #[error(
        "the GPU's memory is full; set training.micro_batch or training.recompute=true, take fewer arms or \
         seeds, or end what else uses it (`nvidia-smi` tells)"
    )]
    OutOfMemory,
    /// The GPU or its libraries failed.
    #[error("the GPU failed: {0}")]
    Gpu(String),
    /// Weights or moments that are on another device than the engine.
    #[error("weights of one device were given to the engine of another")]
    Elsewhere,
    /// A reference that is still in training.
    #[error("a reference with adapters was given to the engine, which takes frozen ones")]
    Adapted,
}

#[cfg(gpu)]
impl From<candle_core::Error> for EngineError {
    fn from(error: candle_core::Error) -> Self {
        let text = error.to_string();
        if text.contains("OUT_OF_MEMORY") || text.contains("ALLOC_FAILED") {
            return Self::OutOfMemory;
        }
        // The first line is the cause; a backtrace may follow.
        Self::Gpu(text.lines().next().unwrap_or_default().into())
    }
}
