//! AdamW with its moments on the device.

use candle_core::{Device, Result, Tensor};

use crate::train::AdamWConfig;

use super::{Params, download};

/// Counterpart of [`crate::train::AdamW`].
#[derive(Clone, Debug)]
pub struct AdamW {
    /// Settings.
    pub config: AdamWConfig,
    /// Updates so far.
    pub updates: u64,
    m: Tensor,
    v: Tensor,
}

impl AdamW {
    /// State with these moments, each as long as the weights.
    ///
    /// # Errors
    /// When the device has no memory for them.
    pub fn upload(
        config: AdamWConfig,
        updates: u64,
        [m, v]: [&[f32]; 2],
        device: &Device,
    ) -> Result<Self> {
        Ok(Self {
            config,
            updates,
            m: Tensor::from_slice(m, m.len(), device)?,
            v: Tensor::from_slice(v, v.len(), device)?,
        })
    }

    /// Copies first and second moments to the host.
    ///
    /// # Errors
    /// When the device fails.
    pub fn moments(&self) -> Result<[Vec<f32>; 2]> {
        Ok([download(&self.m)?, download(&self.v)?])
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
