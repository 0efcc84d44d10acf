//! Weights and moments where the engine works with them.

use std::borrow::Cow;
use std::sync::Arc;

use crate::adamw::AdamW;
use crate::error::EngineError;
#[cfg(gpu)]
use crate::gpu;
use crate::model::{Lora, ModelRef, Params};

/// Weights where the engine works with them; a clone shares the numbers until one of the two changes.
///
/// With adapters, the weights below them never change, and an update trains the adapters alone.
#[derive(Clone, Debug)]
pub enum Weights {
    /// In the machine's memory, with the adapters on top.
    Cpu(Arc<Params>, Option<Lora>),
    /// In a GPU's.
    #[cfg(gpu)]
    Gpu(gpu::Params),
}

/// AdamW with its moments where the weights are.
#[derive(Clone, Debug)]
pub enum Optimizer {
    /// In the machine's memory.
    Cpu(AdamW),
    /// In a GPU's.
    #[cfg(gpu)]
    Gpu(gpu::AdamW),
}

impl Weights {
    /// The weights in the machine's memory, merged with their adapters.
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

    /// The adapters in the machine's memory, if there are some.
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

    /// Numbers that an update trains: those of the adapters, or all where there are none.
    pub fn trained_len(&self) -> usize {
        match self {
            Self::Cpu(_, Some(lora)) => lora.layout.len,
            Self::Cpu(params, None) => params.layout.len,
            #[cfg(gpu)]
            Self::Gpu(params) => params.lora().map_or(params.layout.len, |lora| lora.len),
        }
    }

    /// Weights that will not be updated, merged with their adapters; on a GPU, only what they compute with.
    #[must_use]
    pub fn frozen(self) -> Self {
        match self {
            Self::Cpu(params, None) => Self::Cpu(params, None),
            Self::Cpu(params, Some(lora)) => Self::Cpu(Arc::new(lora.merge(&params)), None),
            #[cfg(gpu)]
            Self::Gpu(params) => Self::Gpu(params.frozen()),
        }
    }

    /// Takes the values of `other`, frozen.
    pub fn copy_from(&mut self, other: &Self) {
        *self = other.clone().frozen();
    }

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

    /// The weights of a reference.
    pub(super) fn frozen_cpu(&self) -> Result<&Params, EngineError> {
        match self.cpu()? {
            ModelRef { params, lora: None } => Ok(params),
            _ => Err(EngineError::Adapted),
        }
    }

    #[cfg(gpu)]
    pub(super) fn gpu(&self) -> Result<&gpu::Params, EngineError> {
        match self {
            Self::Gpu(params) => Ok(params),
            Self::Cpu(..) => Err(EngineError::Elsewhere),
        }
    }
}

impl Optimizer {
    /// Updates since it was made or reset.
    pub fn updates(&self) -> u64 {
        match self {
            Self::Cpu(adamw) => adamw.updates,
            #[cfg(gpu)]
            Self::Gpu(adamw) => adamw.updates,
        }
    }

    /// The optimizer in the machine's memory.
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
