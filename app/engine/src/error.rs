//! Errors of the engines and samplers.

use crate::device::DeviceError;
#[cfg(gpu)]
use crate::device::is_full;

/// Why an engine or a sampler failed.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The device cannot be used.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The system refused to start threads.
    #[error("cannot start the engine's threads: {0}")]
    Threads(#[from] rayon::ThreadPoolBuildError),
    /// The GPU has no memory left.
    #[error(
        "the GPU's memory is full; end what else uses it (`nvidia-smi` tells), or set training.micro_batch, \
         training.recompute=true, a smaller training.generation_bytes, fewer training.concurrent_arms or \
         precision=bf16"
    )]
    OutOfMemory,
    /// The GPU or its libraries failed.
    #[error("the GPU failed: {0}")]
    Gpu(String),
    /// The weights or moments are on another device than the engine.
    #[error("weights of one device were given to the engine of another")]
    Elsewhere,
    /// The reference has adapters, which are in training; engines take only frozen references.
    #[error("a reference with adapters was given to the engine, which takes frozen ones")]
    Adapted,
}

#[cfg(gpu)]
impl From<candle_core::Error> for EngineError {
    fn from(error: candle_core::Error) -> Self {
        if is_full(&error) {
            return Self::OutOfMemory;
        }
        let text = error.to_string();
        // The first line is the cause; a backtrace may follow.
        let mut line: String = text.lines().next().unwrap_or_default().into();
        // Those after which a GPU refuses all other work, and which may be of any work before.
        let sticky = [
            "ILLEGAL_",
            "MISALIGNED_ADDRESS",
            "LAUNCH_FAILED",
            "EXECUTION_FAILED",
        ];
        if sticky.iter().any(|code| line.contains(code)) && !line.contains('`') {
            line += "; with FORGETLAB_CUDA_SYNC=1 in the environment, the kernel is named";
        }
        Self::Gpu(line)
    }
}
