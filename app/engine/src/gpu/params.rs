//! Weights on a device: one flat tensor, views of it.

use std::ops::Range;
use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor};

use crate::model::{self, Layout};
use crate::ops::Precision;

use super::{download, dtype};

/// Counterpart of [`model::Params`]. A clone shares the numbers, which no operation changes in
/// place: an update makes new ones.
#[derive(Clone, Debug)]
pub struct Params {
    /// Where each tensor stands.
    pub layout: Arc<Layout>,
    /// Master weights, f32 `[len]`.
    pub(super) master: Tensor,
    /// The same in the precision of the matrix products.
    pub(super) rounded: Tensor,
}

impl Params {
    /// Copies weights to a device.
    ///
    /// # Errors
    /// When the device has no memory for them.
    pub fn upload(params: &model::Params, precision: Precision, device: &Device) -> Result<Self> {
        let master = Tensor::from_slice(&params.data, params.data.len(), device)?;
        Ok(Self {
            layout: params.layout.clone(),
            rounded: master.to_dtype(dtype(precision))?,
            master,
        })
    }

    /// Copies the weights to the host.
    ///
    /// # Errors
    /// When the device fails.
    pub fn download(&self) -> Result<model::Params> {
        Ok(model::Params {
            layout: self.layout.clone(),
            data: download(&self.master)?,
        })
    }

    /// `embed_in [V, D]`, f32.
    pub(super) fn embed_in(&self) -> Result<Tensor> {
        self.embedding(&self.master, self.layout.embed_in())
    }

    /// `embed_out [V, D]`, rounded.
    pub(super) fn embed_out(&self) -> Result<Tensor> {
        self.embedding(&self.rounded, self.layout.embed_out())
    }

    /// Of the rounded weights.
    pub(super) fn dtype(&self) -> DType {
        self.rounded.dtype()
    }

    fn embedding(&self, data: &Tensor, range: Range<usize>) -> Result<Tensor> {
        let config = self.layout.config;
        data.narrow(0, range.start, range.len())?
            .reshape((config.vocab_size, config.d_model))
    }

    /// Block `l`'s `qkv`, `out`, `up`, `down`, each `[out, in]`, rounded.
    pub(super) fn block(&self, l: usize) -> Result<[Tensor; 4]> {
        let entry = |i: usize| {
            let entry = &self.layout.entries[2 + 4 * l + i];
            self.rounded
                .narrow(0, entry.range.start, entry.range.len())?
                .reshape(&entry.shape)
        };
        Ok([entry(0)?, entry(1)?, entry(2)?, entry(3)?])
    }
}
