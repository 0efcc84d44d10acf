//! AdamW with its moments on the device.

use candle_core::{Device, Result, Tensor};

use crate::train::{self, AdamWConfig};

use super::{Params, download};

/// Counterpart of [`train::AdamW`].
#[derive(Clone, Debug)]
pub struct AdamW {
    config: AdamWConfig,
    /// Updates so far.
    pub updates: u64,
    m: Tensor,
    v: Tensor,
}

impl AdamW {
    /// Copies an optimizer to a device.
    ///
    /// # Errors
    /// When the device has no memory for it.
    pub fn upload(adamw: &train::AdamW, device: &Device) -> Result<Self> {
        Ok(Self {
            config: adamw.config,
            updates: adamw.updates,
            m: Tensor::from_slice(&adamw.m, adamw.m.len(), device)?,
            v: Tensor::from_slice(&adamw.v, adamw.v.len(), device)?,
        })
    }

    /// Copies the optimizer to the host.
    ///
    /// # Errors
    /// When the device fails.
    pub fn download(&self) -> Result<train::AdamW> {
        Ok(train::AdamW {
            config: self.config,
            updates: self.updates,
            m: download(&self.m)?,
            v: download(&self.v)?,
        })
    }

    /// One update of `params` with the gradient `grads [len]`; returns the gradient's norm.
    pub(super) fn update(&mut self, params: &mut Params, grads: &Tensor, lr: f64) -> Result<f64> {
        let f = self.config.factors(self.updates + 1, lr);
        let squares = grads.sqr()?;
        let norm = f64::from(squares.sum_all()?.to_scalar::<f32>()?).sqrt();
        let m = (times(&self.m, f.beta1)? + times(grads, f.rest1)?)?;
        let v = (times(&self.v, f.beta2)? + times(&squares, f.rest2)?)?;
        let root = v.sqrt()?.affine(f.correct2.into(), f.eps.into())?;
        let direction = (times(&m, f.correct1)? / root)?;
        let decay = times(&params.master, f.weight_decay)?;
        let step = times(&(direction + decay)?, f.lr)?;
        *params = params.with((&params.master - step)?)?;
        (self.updates, self.m, self.v) = (self.updates + 1, m, v);
        Ok(norm)
    }
}

fn times(x: &Tensor, factor: f32) -> Result<Tensor> {
    x.affine(factor.into(), 0.0)
}
