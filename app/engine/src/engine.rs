//! What the arms of a run take turns to use: an engine and a sampler, on the CPU or on a GPU.
//!
//! The training loop sees [`Engine`], [`Weights`] and [`Optimizer`] alone and reads the same for
//! both. Weights, moments and gradients live where the engine works; they come to the host for
//! checkpoints and checks.

use std::sync::Arc;

use crate::adamw::AdamW;
use crate::batch::{Batching, LossBatch, LossReport, Query};
use crate::cpu;
use crate::device::{Hardware, check_device};
use crate::error::EngineError;
#[cfg(gpu)]
use crate::gpu;
use crate::model::{Layout, Lora, ModelConfig, Params};
use crate::ops::Precision;
use crate::ops::head::PositionLoss;
use crate::sampling::{Generated, Request};
use crate::weights::{Optimizer, Weights};

/// Engine and sampler for models of one layout.
pub struct Engine {
    layout: Arc<Layout>,
    precision: Precision,
    on: On,
}

// A run has one of it: its size does not matter.
#[allow(clippy::large_enum_variant)]
enum On {
    Cpu {
        engine: cpu::Engine,
        sampler: cpu::Sampler,
    },
    #[cfg(gpu)]
    Gpu {
        device: candle_core::Device,
        engine: gpu::Engine,
        sampler: gpu::Sampler,
    },
}

impl Engine {
    /// For models of these sizes, on what was asked for.
    ///
    /// # Errors
    /// When the device cannot be used, or the system refuses the threads.
    pub fn new(config: ModelConfig, hardware: &Hardware) -> Result<Self, EngineError> {
        let (layout, precision) = (Layout::new(config), hardware.precision);
        #[cfg(feature = "cuda")]
        if let Some(device) = hardware.open_gpu()? {
            return Ok(Self::on(&layout, precision, device));
        }
        check_device(&hardware.device)?;
        let engine = cpu::Engine::new(&layout, hardware.threads, precision)?;
        let sampler = cpu::Sampler::new(&layout, engine.pool(), precision);
        Ok(Self {
            layout,
            precision,
            on: On::Cpu { engine, sampler },
        })
    }

    /// On a device of candle's: a GPU, or the CPU where tests stand in for one.
    #[cfg(gpu)]
    pub fn on(layout: &Arc<Layout>, precision: Precision, device: candle_core::Device) -> Self {
        Self {
            layout: layout.clone(),
            precision,
            on: On::Gpu {
                engine: gpu::Engine::new(layout, &device),
                sampler: gpu::Sampler::new(&device),
                device,
            },
        }
    }

    /// The engine on a device, for tests to set its limits.
    #[cfg(test)]
    pub(crate) fn gpu_engine(&mut self) -> &mut gpu::Engine {
        match &mut self.on {
            On::Gpu { engine, .. } => engine,
            On::Cpu { .. } => panic!("the engine is on the CPU"),
        }
    }

    /// Chooses how batches are worked through from now on.
    pub fn set_batching(&mut self, batching: Batching) {
        match &mut self.on {
            On::Cpu { engine, .. } => engine.set_batching(batching),
            #[cfg(gpu)]
            On::Gpu { engine, .. } => engine.set_batching(batching),
        }
    }

    /// Layout of the weights.
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// Format of the matrix products' inputs.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Brings weights to where the engine works.
    ///
    /// # Errors
    /// When there is no room for them.
    pub fn weights(&self, params: Params) -> Result<Weights, EngineError> {
        Ok(match &self.on {
            On::Cpu { .. } => Weights::Cpu(Arc::new(params), None),
            #[cfg(gpu)]
            On::Gpu { device, .. } => {
                Weights::Gpu(gpu::Params::upload(&params, self.precision, device)?)
            }
        })
    }

    /// Puts adapters on weights, which stay as they are from now on; adapters already there are merged
    /// into them before. Other clones of the weights share them.
    ///
    /// # Errors
    /// When there is no room for them, the weights are of another device, or, on a GPU,
    /// [frozen](Weights::frozen).
    pub fn adapt(&self, weights: Weights, lora: Lora) -> Result<Weights, EngineError> {
        match (&self.on, weights) {
            (On::Cpu { .. }, weights @ Weights::Cpu(..)) => match weights.frozen() {
                Weights::Cpu(params, _) => Ok(Weights::Cpu(params, Some(lora))),
                #[cfg(gpu)]
                Weights::Gpu(_) => Err(EngineError::Elsewhere),
            },
            #[cfg(gpu)]
            (On::Gpu { .. }, Weights::Gpu(params)) => Ok(Weights::Gpu(params.adapt(&lora)?)),
            #[cfg(gpu)]
            _ => Err(EngineError::Elsewhere),
        }
    }

    /// Brings an optimizer of all weights to where the engine works.
    ///
    /// # Errors
    /// When there is no room for its moments.
    pub fn optimizer(&self, optimizer: AdamW) -> Result<Optimizer, EngineError> {
        Ok(match &self.on {
            On::Cpu { .. } => Optimizer::Cpu(optimizer),
            #[cfg(gpu)]
            On::Gpu { device, .. } => {
                Optimizer::Gpu(gpu::AdamW::upload(&optimizer, &self.layout, device)?)
            }
        })
    }

    /// Brings an optimizer of what is trained of the `student`, [`Weights::trained_len`] numbers, to where
    /// the engine works: of its adapters, or of all weights where it has none.
    ///
    /// # Errors
    /// When there is no room for its moments.
    pub fn optimizer_of(
        &self,
        student: &Weights,
        optimizer: AdamW,
    ) -> Result<Optimizer, EngineError> {
        match (&self.on, student) {
            #[cfg(gpu)]
            (On::Gpu { device, .. }, Weights::Gpu(params)) if params.lora().is_some() => {
                let adamw = gpu::AdamW::upload_adapters(&optimizer, params, device)?;
                Ok(Optimizer::Gpu(adamw))
            }
            _ => self.optimizer(optimizer),
        }
    }

    /// Brings an optimizer back to a fresh state: in place, since an arm may fill the memory that is left.
    ///
    /// # Errors
    /// When there is no room for its moments.
    pub fn reset(&self, optimizer: &mut Optimizer) -> Result<(), EngineError> {
        match optimizer {
            Optimizer::Cpu(adamw) => adamw.reset(),
            #[cfg(gpu)]
            Optimizer::Gpu(adamw) => adamw.reset()?,
        }
        Ok(())
    }

    /// Computes losses and, kept in the engine, the gradient of their weighted sum with respect to
    /// `student`, or to its adapters where it has some.
    ///
    /// `reference` is needed where a batch has KL weights.
    ///
    /// # Errors
    /// When the GPU fails, most likely for want of memory.
    pub fn forward_backward(
        &mut self,
        student: &Weights,
        reference: Option<&Weights>,
        batches: &[LossBatch],
    ) -> Result<LossReport, EngineError> {
        match &mut self.on {
            On::Cpu { engine, .. } => {
                let reference = reference.map(Weights::frozen_cpu).transpose()?;
                Ok(engine.forward_backward(student.cpu()?, reference, batches))
            }
            #[cfg(gpu)]
            On::Gpu { engine, .. } => {
                let reference = reference.map(Weights::gpu).transpose()?;
                Ok(engine.forward_backward(student.gpu()?, reference, batches)?)
            }
        }
    }

    /// Updates `student`, or its adapters where it has some, with the gradient of the last
    /// [`Self::forward_backward`]; returns its norm. The optimizer is [`Self::optimizer_of`] the student.
    ///
    /// # Errors
    /// When the GPU fails.
    pub fn update(
        &mut self,
        student: &mut Weights,
        optimizer: &mut Optimizer,
        lr: f64,
    ) -> Result<f64, EngineError> {
        match (&mut self.on, student, optimizer) {
            (On::Cpu { engine, .. }, Weights::Cpu(student, lora), Optimizer::Cpu(optimizer)) => {
                Ok(match lora {
                    Some(lora) => engine.update_adapters(lora, optimizer, lr),
                    None => engine.update(Arc::make_mut(student), optimizer, lr),
                })
            }
            #[cfg(gpu)]
            (On::Gpu { engine, .. }, Weights::Gpu(student), Optimizer::Gpu(optimizer)) => {
                Ok(engine.update(student, optimizer, lr)?)
            }
            #[cfg(gpu)]
            _ => Err(EngineError::Elsewhere),
        }
    }

    /// The gradient of the last [`Self::forward_backward`], in the layout of the weights.
    ///
    /// # Errors
    /// When the GPU fails.
    pub fn gradients(&self) -> Result<Params, EngineError> {
        match &self.on {
            On::Cpu { engine, .. } => Ok(engine.gradients()),
            #[cfg(gpu)]
            On::Gpu { engine, .. } => Ok(engine.gradients()?),
        }
    }

    /// The gradient of the last [`Self::forward_backward`] of a `student` with adapters, in their layout.
    ///
    /// # Errors
    /// When the GPU fails, or the student has no adapters.
    pub fn adapter_gradients(&self, student: &Weights) -> Result<Lora, EngineError> {
        match (&self.on, student) {
            (On::Cpu { engine, .. }, Weights::Cpu(_, Some(lora))) => {
                Ok(engine.adapter_gradients(&lora.layout))
            }
            #[cfg(gpu)]
            (On::Gpu { engine, .. }, Weights::Gpu(params)) => Ok(engine.adapter_gradients(params)?),
            _ => Err(EngineError::Elsewhere),
        }
    }

    /// Scores every position of `tokens [B, T]` without gradients, `[B, T]`; last positions are zero.
    ///
    /// # Errors
    /// When the GPU fails, most likely for want of memory.
    pub fn evaluate(
        &mut self,
        student: &Weights,
        reference: Option<&Weights>,
        tokens: &[u32],
        seq_len: usize,
    ) -> Result<Vec<PositionLoss>, EngineError> {
        self.evaluate_where(student, reference, tokens, seq_len, None)
    }

    /// The same for the positions that are `wanted`, `[B, T]`; all others are zero.
    ///
    /// # Errors
    /// When the GPU fails, most likely for want of memory.
    pub fn evaluate_where(
        &mut self,
        student: &Weights,
        reference: Option<&Weights>,
        tokens: &[u32],
        seq_len: usize,
        wanted: Option<&[bool]>,
    ) -> Result<Vec<PositionLoss>, EngineError> {
        match &mut self.on {
            On::Cpu { engine, .. } => {
                let reference = reference.map(Weights::frozen_cpu).transpose()?;
                Ok(engine.evaluate(student.cpu()?, reference, tokens, seq_len, wanted))
            }
            #[cfg(gpu)]
            On::Gpu { engine, .. } => {
                let reference = reference.map(Weights::gpu).transpose()?;
                Ok(engine.evaluate(student.gpu()?, reference, tokens, seq_len, wanted)?)
            }
        }
    }

    /// Log-probabilities of each query's candidates for the token behind its position of
    /// `tokens [B, T]`, in the order they are given. For multiple choice: no other position passes
    /// through the vocabulary projection.
    ///
    /// # Errors
    /// When the GPU fails, most likely for want of memory.
    pub fn log_probs(
        &mut self,
        weights: &Weights,
        tokens: &[u32],
        seq_len: usize,
        queries: &[Query],
    ) -> Result<Vec<Vec<f32>>, EngineError> {
        match &mut self.on {
            On::Cpu { engine, .. } => {
                Ok(engine.log_probs(weights.cpu()?, tokens, seq_len, queries))
            }
            #[cfg(gpu)]
            On::Gpu { engine, .. } => {
                let queries: Vec<(usize, &[u32])> = queries
                    .iter()
                    .map(|q| (q.position, &q.candidates[..]))
                    .collect();
                Ok(engine.log_probs(weights.gpu()?, tokens, seq_len, &queries)?)
            }
        }
    }

    /// Logits of every position of `tokens [B, T]`, whole: `[B, T, V]`. For checks, not for training.
    ///
    /// # Errors
    /// When the GPU fails, most likely for want of memory.
    pub fn logits(
        &mut self,
        student: &Weights,
        tokens: &[u32],
        seq_len: usize,
    ) -> Result<Vec<f32>, EngineError> {
        match &mut self.on {
            On::Cpu { engine, .. } => Ok(engine.logits(student.cpu()?, tokens, seq_len)),
            #[cfg(gpu)]
            On::Gpu { engine, .. } => Ok(engine.logits(student.gpu()?, tokens, seq_len)?),
        }
    }

    /// Generates every row of the request by ancestral sampling from `weights`.
    ///
    /// Prompts must be non-empty, no longer than `length`, their ids below the vocabulary's size.
    ///
    /// # Errors
    /// When the GPU fails, most likely for want of memory.
    pub fn generate(
        &mut self,
        weights: &Weights,
        request: Request,
    ) -> Result<Generated, EngineError> {
        match &mut self.on {
            On::Cpu { sampler, .. } => Ok(sampler.generate(weights.cpu()?, request)),
            #[cfg(gpu)]
            On::Gpu { sampler, .. } => Ok(sampler.generate(weights.gpu()?, request)?),
        }
    }
}
