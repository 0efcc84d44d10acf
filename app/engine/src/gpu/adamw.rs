//! AdamW with its moments on the device.

use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor};

use crate::adamw::{self, AdamWConfig};
use crate::device::twice;
use crate::model::{Layout, Lora, LoraLayout};

use super::arguments;
use super::kernels::{Grid, launch};
use super::lora;
use super::ops::STRETCH;
use super::params::Params;
use super::pointers::{Fresh, Out, f32s};
use super::tensor::download;

/// State of AdamW on a device, as [`adamw::AdamW`] in the machine's memory.
#[derive(Clone, Debug)]
pub struct AdamW {
    /// Settings.
    pub config: AdamWConfig,
    /// Number of updates so far.
    pub updates: u64,
    /// First and second moment of each trained tensor.
    moments: Vec<[Tensor; 2]>,
    /// Layout of the adapters, if they are trained.
    lora: Option<Arc<LoraLayout>>,
}

impl AdamW {
    /// Copies an optimizer of all weights to a device.
    ///
    /// # Errors
    /// When the device has no memory for it.
    pub fn upload(adamw: &adamw::AdamW, layout: &Layout, device: &Device) -> Result<Self> {
        let moments = layout.entries.iter().map(|entry| {
            let range = entry.range.clone();
            let upload =
                |data: &[f32]| Tensor::from_slice(&data[range.clone()], &entry.shape, device);
            Ok([upload(&adamw.m)?, upload(&adamw.v)?])
        });
        Ok(Self {
            config: adamw.config,
            updates: adamw.updates,
            moments: moments.collect::<Result<_>>()?,
            lora: None,
        })
    }

    /// Copies an optimizer of the adapters of `params` to a device.
    ///
    /// # Errors
    /// When the device has no memory for it, or there are no adapters.
    pub fn upload_adapters(adamw: &adamw::AdamW, params: &Params, device: &Device) -> Result<Self> {
        let Some(layout) = params.lora() else {
            candle_core::bail!("these weights have no adapters");
        };
        let tensors = |data: &[f32]| {
            let (layout, data) = (layout.clone(), data.to_vec());
            lora::upload(&Lora { layout, data }, device)
        };
        let pairs = tensors(&adamw.m)?.into_iter().zip(tensors(&adamw.v)?);
        Ok(Self {
            config: adamw.config,
            updates: adamw.updates,
            moments: pairs.map(|(m, v)| [m, v]).collect(),
            lora: Some(layout.clone()),
        })
    }

    /// Returns to the initial state, one tensor at a time.
    ///
    /// # Errors
    /// When the device fails.
    pub fn reset(&mut self) -> Result<()> {
        self.updates = 0;
        for moment in self.moments.iter_mut().flatten() {
            *moment = moment.zeros_like()?;
        }
        Ok(())
    }

    /// Whether it trains what these weights train: all of them, or adapters of the same sizes.
    pub fn trains_like(&self, params: &super::Params) -> bool {
        match (&self.lora, params.lora()) {
            (None, None) => true,
            (Some(own), Some(lora)) => own.len == lora.len,
            _ => false,
        }
    }

    /// Copies the optimizer to the host.
    ///
    /// # Errors
    /// When the device fails.
    pub fn download(&self) -> Result<adamw::AdamW> {
        let moments = |i: usize| -> Result<Vec<f32>> {
            let tensors = self.moments.iter().map(|moments| &moments[i]);
            if let Some(layout) = &self.lora {
                return Ok(lora::gather(layout, tensors)?.data);
            }
            Ok(tensors.map(download).collect::<Result<Vec<_>>>()?.concat())
        };
        Ok(adamw::AdamW {
            config: self.config,
            updates: self.updates,
            m: moments(0)?,
            v: moments(1)?,
        })
    }

    /// Updates `params`, or its adapters, with a gradient for each trained tensor; returns the gradient's norm.
    ///
    /// Updates one tensor at a time, so that old and new elements of one tensor exist together, not of all. It cannot
    /// be done over from the beginning: memory is asked for [`twice`] within.
    pub(super) fn update(
        &mut self,
        params: &mut Params,
        grads: &[Option<Tensor>],
        lr: f64,
    ) -> Result<f64> {
        let f = self.config.factors(self.updates + 1, lr);
        let dtype = params.dtype();
        let (master, rounded) = params.for_update()?;
        let blocks = |x: &Tensor| x.elem_count().div_ceil(STRETCH);
        let all = master.iter().map(blocks).sum::<usize>();
        let device = &master[0].device().clone();
        let squares = twice(device, || Fresh::f32s(all, device))?;
        let mut first = 0;
        for (i, [m, v]) in self.moments.iter_mut().enumerate() {
            let zeros;
            let grad = match &grads[i] {
                Some(grad) => grad,
                None => {
                    zeros = twice(device, || master[i].zeros_like())?;
                    &zeros
                }
            };
            let (len, shape) = (grad.elem_count(), grad.shape());
            let grid = Grid {
                blocks: blocks(grad),
                width: STRETCH,
            };
            let new = || Fresh::f32s(shape, device);
            let [new_w, new_m, new_v] = twice(device, || Ok([new()?, new()?, new()?]))?;
            let new_rounded = match dtype {
                DType::BF16 => Some(twice(device, || Fresh::bf16s(shape, device))?),
                _ => None,
            };
            let args = arguments::AdamW {
                w: new_w.out(),
                m: new_m.out(),
                v: new_v.out(),
                squares: squares.out_from(first),
                rounded: new_rounded.as_ref().map_or(Out::NULL, Fresh::out),
                old_w: f32s(&master[i])?,
                old_m: f32s(m)?,
                old_v: f32s(v)?,
                grad: f32s(grad)?,
                len,
                stretch: STRETCH,
                beta1: f.beta1,
                rest1: f.rest1,
                beta2: f.beta2,
                rest2: f.rest2,
                correct1: f.correct1,
                correct2: f.correct2,
                eps: f.eps,
                lr: f.lr,
                weight_decay: f.weight_decay,
            };
            launch(device, grid, &args)?;
            master[i] = new_w.written();
            rounded[i] = new_rounded.map_or_else(|| master[i].clone(), Fresh::written);
            [*m, *v] = [new_m, new_v].map(Fresh::written);
            first += grid.blocks;
        }
        self.updates += 1;
        twice(device, || params.round_merged())?;
        let squares = download(&squares.written())?;
        Ok(squares.iter().map(|&x| f64::from(x)).sum::<f64>().sqrt())
    }
}
