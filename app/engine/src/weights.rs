//! Weights and optimizer state where an engine works with them: in the machine's memory or in a GPU's.

use std::borrow::Cow;
use std::sync::Arc;

use crate::adamw::AdamW;
use crate::error::EngineError;
#[cfg(gpu)]
use crate::gpu;
use crate::model::{Lora, ModelRef, Params};

/// Weights on the engine's device, with adapters or without; clones share them until one is changed.
///
/// With adapters, an update trains the adapters alone; the weights below them never change.
#[derive(Clone, Debug)]
pub enum Weights {
    /// Weights in the machine's memory, and adapters on top of them.
    Cpu(Arc<Params>, Option<Lora>),
    /// Weights in a GPU's memory, with adapters or without.
    #[cfg(gpu)]
    Gpu(gpu::Params),
}

/// AdamW with its moments on the device of the weights.
#[derive(Clone, Debug)]
pub enum Optimizer {
    /// Moments in the machine's memory.
    Cpu(AdamW),
    /// Moments in a GPU's memory.
    #[cfg(gpu)]
    Gpu(gpu::AdamW),
}

impl Weights {
    /// Copies the weights, merged with their adapters, to the machine's memory.
    ///
    /// # Errors
    /// When the GPU fails.
    pub fn download(&self) -> Result<Cow<'_, Params>, EngineError> {
        Ok(match self {
            Self::Cpu(params, None) => Cow::Borrowed(params),
            Self::Cpu(params, Some(lora)) => Cow::Owned(lora.merge(params)),
            #[cfg(gpu)]
            Self::Gpu(params) => Cow::Owned(params.download()?),
        })
    }

    /// Copies the adapters, if there are any, to the machine's memory.
    ///
    /// # Errors
    /// When the GPU fails.
    pub fn download_adapters(&self) -> Result<Option<Cow<'_, Lora>>, EngineError> {
        Ok(match self {
            Self::Cpu(_, lora) => lora.as_ref().map(Cow::Borrowed),
            #[cfg(gpu)]
            Self::Gpu(params) => params.download_adapters()?.map(Cow::Owned),
        })
    }

    /// Number of trainable parameters: those of the adapters, or all weights where there are none.
    pub fn trained_len(&self) -> usize {
        match self {
            Self::Cpu(_, Some(lora)) => lora.layout.len,
            Self::Cpu(params, None) => params.layout.len,
            #[cfg(gpu)]
            Self::Gpu(params) => params.lora().map_or(params.layout.len, |lora| lora.len),
        }
    }

    /// Merges the adapters into the weights, which are never updated again; a GPU keeps only those in the
    /// precision it computes with.
    #[must_use]
    pub fn frozen(self) -> Self {
        match self {
            Self::Cpu(params, None) => Self::Cpu(params, None),
            Self::Cpu(params, Some(lora)) => Self::Cpu(Arc::new(lora.merge(&params)), None),
            #[cfg(gpu)]
            Self::Gpu(params) => Self::Gpu(params.frozen()),
        }
    }

    /// Replaces the weights by a frozen copy of `other`.
    pub fn copy_from(&mut self, other: &Self) {
        *self = other.clone().frozen();
    }

    /// The weights for the engine on the CPU.
    pub(super) fn cpu(&self) -> Result<ModelRef<'_>, EngineError> {
        match self {
            Self::Cpu(params, lora) => Ok(ModelRef {
                params,
                lora: lora.as_ref(),
            }),
            #[cfg(gpu)]
            Self::Gpu(_) => Err(EngineError::Elsewhere),
        }
    }

    /// The weights of a reference, which must have no adapters, for the engine on the CPU.
    pub(super) fn frozen_cpu(&self) -> Result<&Params, EngineError> {
        match self.cpu()? {
            ModelRef { params, lora: None } => Ok(params),
            _ => Err(EngineError::Adapted),
        }
    }

    /// The weights for the engine on a GPU.
    #[cfg(gpu)]
    pub(super) fn gpu(&self) -> Result<&gpu::Params, EngineError> {
        match self {
            Self::Gpu(params) => Ok(params),
            Self::Cpu(..) => Err(EngineError::Elsewhere),
        }
    }
}

impl Optimizer {
    /// Number of updates since the optimizer was made or reset.
    pub fn updates(&self) -> u64 {
        match self {
            Self::Cpu(adamw) => adamw.updates,
            #[cfg(gpu)]
            Self::Gpu(adamw) => adamw.updates,
        }
    }

    /// Copies the optimizer's state to the machine's memory.
    ///
    /// # Errors
    /// When the GPU fails.
    pub fn download(&self) -> Result<Cow<'_, AdamW>, EngineError> {
        Ok(match self {
            Self::Cpu(adamw) => Cow::Borrowed(adamw),
            #[cfg(gpu)]
            Self::Gpu(adamw) => Cow::Owned(adamw.download()?),
        })
    }
}
