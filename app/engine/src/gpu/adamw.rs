//! AdamW with its moments on the device.

use candle_core::{DType, Device, Result, Tensor};

use crate::train::{self, AdamWConfig};

use super::kernels::launch;
use super::{Params, download};

/// Numbers that a block updates, and whose gradients' squares it adds up.
const STRETCH: usize = 4096;

/// Counterpart of [`train::AdamW`].
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
        let factors = [
            f.beta1,
            f.rest1,
            f.beta2,
            f.rest2,
            f.correct1,
            f.correct2,
            f.eps,
            f.lr,
            f.weight_decay,
        ];
        let len = grads.elem_count();
        let (blocks, sizes) = (len.div_ceil(STRETCH), [len, STRETCH]);
        let (work, same) = ((blocks, STRETCH), (len, DType::F32));
        let outputs = [same, same, same, (blocks, DType::F32)];
        let [w, m, v, g] = [&params.master, &self.m, &self.v, grads].map(Some);
        let (master, squares);
        match params.dtype() {
            DType::BF16 => {
                let [w_out, m_out, v_out, partial] = outputs;
                let outputs = [w_out, m_out, v_out, partial, (len, DType::BF16)];
                let inputs = [w, m, v, g];
                [master, self.m, self.v, squares, params.rounded] =
                    launch("adamw", work, outputs, &inputs, &sizes, &factors)?;
            }
            _ => {
                let inputs = [None, w, m, v, g];
                [master, self.m, self.v, squares] =
                    launch("adamw", work, outputs, &inputs, &sizes, &factors)?;
                params.rounded = master.clone();
            }
        }
        params.master = master;
        self.updates += 1;
        let squares = download(&squares)?;
        Ok(squares.iter().map(|&x| f64::from(x)).sum::<f64>().sqrt())
    }
}
