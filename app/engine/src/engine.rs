//! One interface to the engines and samplers on the CPU and on a GPU.
//!
//! Callers use [`Engine`], [`Weights`] and [`Optimizer`] alone, whatever the device. Weights, moments and
//! gradients stay on the device; they are copied to the machine's memory for checkpoints and checks.

use std::sync::Arc;

use crate::adamw::{AdamW, AdamWConfig};
use crate::batch::{Batching, LossBatch, LossReport, Query};
use crate::cpu;
use crate::device::{Hardware, check_device};
#[cfg(gpu)]
use crate::device::{trim, twice};
use crate::error::EngineError;
#[cfg(gpu)]
use crate::gpu;
use crate::model::{Layout, Lora, ModelConfig, Params};
use crate::ops::Precision;
use crate::ops::head::PositionLoss;
use crate::sampling::{Generated, Request};
use crate::weights::{Optimizer, Weights};

/// Losses, gradients, updates and generation for models of one layout, on one device.
pub struct Engine {
    layout: Arc<Layout>,
    precision: Precision,
    backend: Backend,
}

/// The engine and the sampler of a device.
#[allow(
    clippy::large_enum_variant,
    reason = "a run has one of it, so that its size does not matter"
)]
enum Backend {
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
    /// An engine for models of these sizes on the device asked for.
    ///
    /// # Errors
    /// When the device cannot be used, or the system refuses to start threads.
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
            backend: Backend::Cpu { engine, sampler },
        })
    }

    /// An engine on a candle device: a GPU, or in tests the CPU, which then runs the GPU's kernels.
    #[cfg(gpu)]
    pub fn on(layout: &Arc<Layout>, precision: Precision, device: candle_core::Device) -> Self {
        Self {
            layout: layout.clone(),
            precision,
            backend: Backend::Gpu {
                engine: gpu::Engine::new(layout, &device),
                sampler: gpu::Sampler::new(&device),
                device,
            },
        }
    }

    /// The GPU's engine, whose limits tests change.
    #[cfg(test)]
    pub(crate) fn gpu_engine(&mut self) -> &mut gpu::Engine {
        match &mut self.backend {
            Backend::Gpu { engine, .. } => engine,
            Backend::Cpu { .. } => panic!("the engine is on the CPU"),
        }
    }

    /// Sets how work is divided from now on.
    pub fn set_batching(&mut self, batching: Batching) {
        match &mut self.backend {
            Backend::Cpu { engine, .. } => engine.set_batching(batching),
            #[cfg(gpu)]
            Backend::Gpu {
                engine, sampler, ..
            } => {
                engine.set_batching(batching);
                sampler.set_batching(batching);
            }
        }
    }

    /// The layout of the weights.
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// The number format of the inputs of matrix products.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Moves weights to the engine's device.
    ///
    /// # Errors
    /// When its memory is full.
    pub fn weights(&self, params: Params) -> Result<Weights, EngineError> {
        Ok(match &self.backend {
            Backend::Cpu { .. } => Weights::Cpu(Arc::new(params), None),
            #[cfg(gpu)]
            Backend::Gpu { device, .. } => {
                let upload = || gpu::Params::upload(&params, self.precision, device);
                Weights::Gpu(twice(device, upload)?)
            }
        })
    }

    /// Puts adapters on weights, merging adapters that are already there; from then on only the adapters are
    /// trained. Clones share the weights.
    ///
    /// # Errors
    /// When the device's memory is full, the weights are on another device, or, on a GPU, they are
    /// [frozen](Weights::frozen).
    pub fn adapt(&self, weights: Weights, lora: Lora) -> Result<Weights, EngineError> {
        match (&self.backend, weights) {
            (Backend::Cpu { .. }, weights @ Weights::Cpu(..)) => match weights.frozen() {
                Weights::Cpu(params, _) => Ok(Weights::Cpu(params, Some(lora))),
                #[cfg(gpu)]
                Weights::Gpu(_) => Err(EngineError::Elsewhere),
            },
            #[cfg(gpu)]
            (Backend::Gpu { .. }, Weights::Gpu(params)) => Ok(Weights::Gpu(params.adapt(&lora)?)),
            #[cfg(gpu)]
            _ => Err(EngineError::Elsewhere),
        }
    }

    /// Moves an optimizer of all weights to the engine's device.
    ///
    /// # Errors
    /// When its memory is full.
    pub fn optimizer(&self, optimizer: AdamW) -> Result<Optimizer, EngineError> {
        Ok(match &self.backend {
            Backend::Cpu { .. } => Optimizer::Cpu(optimizer),
            #[cfg(gpu)]
            Backend::Gpu { device, .. } => {
                let upload = || gpu::AdamW::upload(&optimizer, &self.layout, device);
                Optimizer::Gpu(twice(device, upload)?)
            }
        })
    }

    /// Moves an optimizer of the [`Weights::trained_len`] trainable parameters of `student` to the engine's
    /// device.
    ///
    /// # Errors
    /// When its memory is full.
    pub fn optimizer_of(
        &self,
        student: &Weights,
        optimizer: AdamW,
    ) -> Result<Optimizer, EngineError> {
        match (&self.backend, student) {
            #[cfg(gpu)]
            (Backend::Gpu { device, .. }, Weights::Gpu(params)) if params.lora().is_some() => {
                let upload = || gpu::AdamW::upload_adapters(&optimizer, params, device);
                Ok(Optimizer::Gpu(twice(device, upload)?))
            }
            _ => self.optimizer(optimizer),
        }
    }

    /// Returns an optimizer of `student` to its initial state with the given settings; in place where it was one of
    /// as many parameters, since there may be no memory for a second one.
    ///
    /// # Errors
    /// When the device's memory is full.
    pub fn reset(
        &self,
        optimizer: &mut Optimizer,
        student: &Weights,
        config: AdamWConfig,
    ) -> Result<(), EngineError> {
        let len = student.trained_len();
        match (&self.backend, &mut *optimizer) {
            (_, Optimizer::Cpu(adamw)) if adamw.m.len() == len => {
                adamw.config = config;
                adamw.reset();
            }
            #[cfg(gpu)]
            (Backend::Gpu { device, .. }, Optimizer::Gpu(adamw))
                if adamw.trains_like(student.gpu()?) =>
            {
                adamw.config = config;
                twice(device, || adamw.reset())?;
            }
            _ => {
                // The old one goes first.
                *optimizer = Optimizer::Cpu(AdamW::new(config, 0));
                *optimizer = self.optimizer_of(student, AdamW::new(config, len))?;
            }
        }
        Ok(())
    }

    /// Computes losses and the gradient of their weighted sum with respect to the trainable parameters of
    /// `student`; the engine keeps the gradient for [`Self::update`].
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
        match &mut self.backend {
            Backend::Cpu { engine, .. } => {
                let reference = reference.map(Weights::frozen_cpu).transpose()?;
                Ok(engine.forward_backward(student.cpu()?, reference, batches))
            }
            #[cfg(gpu)]
            Backend::Gpu { device, engine, .. } => {
                let reference = reference.map(Weights::gpu).transpose()?;
                let student = student.gpu()?;
                Ok(twice(device, || {
                    engine.forward_backward(student, reference, batches)
                })?)
            }
        }
    }

    /// Updates the trainable parameters of `student` with the gradient of the last
    /// [`Self::forward_backward`]; returns the gradient's norm. The optimizer is one of
    /// [`Self::optimizer_of`] the student.
    ///
    /// # Errors
    /// When the GPU fails.
    pub fn update(
        &mut self,
        student: &mut Weights,
        optimizer: &mut Optimizer,
        lr: f64,
    ) -> Result<f64, EngineError> {
        match (&mut self.backend, student, optimizer) {
            (
                Backend::Cpu { engine, .. },
                Weights::Cpu(student, lora),
                Optimizer::Cpu(optimizer),
            ) => Ok(match lora {
                Some(lora) => engine.update_adapters(lora, optimizer, lr),
                None => engine.update(Arc::make_mut(student), optimizer, lr),
            }),
            #[cfg(gpu)]
            (Backend::Gpu { engine, .. }, Weights::Gpu(student), Optimizer::Gpu(optimizer)) => {
                Ok(engine.update(student, optimizer, lr)?)
            }
            #[cfg(gpu)]
            _ => Err(EngineError::Elsewhere),
        }
    }

    /// Copies the gradient of the last [`Self::forward_backward`] of a student without adapters.
    ///
    /// # Errors
    /// When the GPU fails.
    pub fn gradients(&self) -> Result<Params, EngineError> {
        match &self.backend {
            Backend::Cpu { engine, .. } => Ok(engine.gradients()),
            #[cfg(gpu)]
            Backend::Gpu { engine, .. } => Ok(engine.gradients()?),
        }
    }

    /// Copies the gradient of the last [`Self::forward_backward`] of a `student` with adapters.
    ///
    /// # Errors
    /// When the GPU fails, or the student has no adapters.
    pub fn adapter_gradients(&self, student: &Weights) -> Result<Lora, EngineError> {
        match (&self.backend, student) {
            (Backend::Cpu { engine, .. }, Weights::Cpu(_, Some(lora))) => {
                Ok(engine.adapter_gradients(&lora.layout))
            }
            #[cfg(gpu)]
            (Backend::Gpu { engine, .. }, Weights::Gpu(params)) => {
                Ok(engine.adapter_gradients(params)?)
            }
            _ => Err(EngineError::Elsewhere),
        }
    }

    /// Computes the losses `[B, T]` of every position of `tokens [B, T]` without gradients; those of each row's
    /// last position are zero.
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

    /// [`Self::evaluate`] for the positions that are `wanted`, `[B, T]`; the losses of the others are zero.
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
        match &mut self.backend {
            Backend::Cpu { engine, .. } => {
                let reference = reference.map(Weights::frozen_cpu).transpose()?;
                Ok(engine.evaluate(student.cpu()?, reference, tokens, seq_len, wanted))
            }
            #[cfg(gpu)]
            Backend::Gpu { device, engine, .. } => {
                let reference = reference.map(Weights::gpu).transpose()?;
                let student = student.gpu()?;
                Ok(twice(device, || {
                    engine.evaluate(student, reference, tokens, seq_len, wanted)
                })?)
            }
        }
    }

    /// Log-probabilities of each query's candidates for the token that follows its position in
    /// `tokens [B, T]`, in their order.
    ///
    /// For multiple choice: no other position passes through the vocabulary projection.
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
        match &mut self.backend {
            Backend::Cpu { engine, .. } => {
                Ok(engine.log_probs(weights.cpu()?, tokens, seq_len, queries))
            }
            #[cfg(gpu)]
            Backend::Gpu { device, engine, .. } => {
                let weights = weights.gpu()?;
                Ok(twice(device, || {
                    engine.log_probs(weights, tokens, seq_len, queries)
                })?)
            }
        }
    }

    /// All logits `[B, T, V]` of `tokens [B, T]`. For checks: training never holds them all.
    ///
    /// # Errors
    /// When the GPU fails, most likely for want of memory.
    pub fn logits(
        &mut self,
        student: &Weights,
        tokens: &[u32],
        seq_len: usize,
    ) -> Result<Vec<f32>, EngineError> {
        match &mut self.backend {
            Backend::Cpu { engine, .. } => Ok(engine.logits(student.cpu()?, tokens, seq_len)),
            #[cfg(gpu)]
            Backend::Gpu { device, engine, .. } => {
                let student = student.gpu()?;
                Ok(twice(device, || engine.logits(student, tokens, seq_len))?)
            }
        }
    }

    /// Has the GPU's driver give back the memory that it keeps for later and nobody uses.
    pub fn trim(&self) {
        match &self.backend {
            Backend::Cpu { .. } => {}
            #[cfg(gpu)]
            Backend::Gpu { device, .. } => trim(device),
        }
    }

    /// Generates every row of the request by ancestral sampling from `weights`.
    ///
    /// Prompts must not be empty nor longer than `length`, their ids below the vocabulary's size.
    ///
    /// # Errors
    /// When the GPU fails, most likely for want of memory.
    pub fn generate(
        &mut self,
        weights: &Weights,
        request: Request,
    ) -> Result<Generated, EngineError> {
        match &mut self.backend {
            Backend::Cpu { sampler, .. } => Ok(sampler.generate(weights.cpu()?, request)),
            #[cfg(gpu)]
            Backend::Gpu {
                device, sampler, ..
            } => {
                let weights = weights.gpu()?;
                Ok(twice(device, || sampler.generate(weights, request))?)
            }
        }
    }
}
