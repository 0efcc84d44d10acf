//! Weights on a device, tensor by tensor.

use std::sync::Arc;

use candle_core::{DType, Device, Error, Result, Tensor};

use crate::model::{self, Layout, Lora, LoraLayout};
use crate::ops::Precision;

use super::lora::Adapters;
use super::{download, dtype};

/// Counterpart of [`model::Params`]. A clone shares the numbers, which no operation changes in
/// place: an update makes new ones.
#[derive(Clone, Debug)]
pub struct Params {
    /// Where each tensor stands.
    pub layout: Arc<Layout>,
    /// Weights in the precision of the matrix products, one tensor an entry of the layout; all that
    /// computes anything reads these. Where there are adapters, merged with them.
    pub(super) rounded: Vec<Tensor>,
    /// Master weights in f32, which updates change; none where weights are frozen. Where there are
    /// adapters, these are trained, and the master weights stay.
    master: Option<Vec<Tensor>>,
    pub(super) adapters: Option<Adapters>,
}

/// Rounded weights of a block, each `[out, in]`, and gains of its norms `[1, D]`.
pub struct BlockWeights<'a> {
    pub qkv: &'a Tensor,
    pub out: &'a Tensor,
    /// `up`, or gate and up.
    pub up: &'a Tensor,
    pub down: &'a Tensor,
    pub attention_norm: Option<&'a Tensor>,
    pub mlp_norm: Option<&'a Tensor>,
}

impl Params {
    /// Copies weights to a device.
    ///
    /// # Errors
    /// When the device has no memory for them.
    pub fn upload(params: &model::Params, precision: Precision, device: &Device) -> Result<Self> {
        let master = params.tensors();
        let master = master.map(|(_, shape, numbers)| Tensor::from_slice(numbers, &shape, device));
        let master = master.collect::<Result<Vec<_>>>()?;
        let rounded = master.iter().map(|x| x.to_dtype(dtype(precision)));
        Ok(Self {
            layout: params.layout.clone(),
            rounded: rounded.collect::<Result<_>>()?,
            master: Some(master),
            adapters: None,
        })
    }

    /// Puts adapters on the weights, which have been merged with those already there.
    ///
    /// # Errors
    /// When the device has no memory for them, or the weights are frozen.
    pub fn adapt(self, lora: &Lora) -> Result<Self> {
        let Some(master) = self.merged()? else {
            candle_core::bail!("frozen weights take no adapters");
        };
        let dtype = self.dtype();
        let rounded = master.iter().map(|x| x.to_dtype(dtype));
        let adapters = Adapters::upload(lora, dtype, self.embed_in().device())?;
        let mut adapted = Self {
            rounded: rounded.collect::<Result<_>>()?,
            master: Some(master),
            adapters: Some(adapters),
            ..self
        };
        adapted.round_merged()?;
        Ok(adapted)
    }

    /// Layout of the adapters, if there are some.
    pub fn lora(&self) -> Option<&Arc<LoraLayout>> {
        self.adapters.as_ref().map(|adapters| &adapters.layout)
    }

    /// Copies the adapters to the host, if there are some.
    ///
    /// # Errors
    /// When the device fails.
    pub fn download_adapters(&self) -> Result<Option<Lora>> {
        let adapters = self.adapters.as_ref();
        adapters.map(|adapters| adapters.download()).transpose()
    }

    /// Master weights with what adapters add to them; none where weights are frozen.
    fn merged(&self) -> Result<Option<Vec<Tensor>>> {
        let (Some(master), Some(adapters)) = (&self.master, &self.adapters) else {
            return Ok(self.master.clone());
        };
        let mut merged = master.clone();
        for (i, place) in self.linears().enumerate() {
            merged[place] = adapters.merge(i, &master[place])?;
        }
        Ok(Some(merged))
    }

    /// Makes the rounded weights anew from the master weights and the adapters, one at a time.
    pub(super) fn round_merged(&mut self) -> Result<()> {
        let (Some(master), Some(adapters)) = (&self.master, &self.adapters) else {
            return Ok(());
        };
        let (dtype, linears) = (self.dtype(), self.linears().collect::<Vec<_>>());
        for (i, place) in linears.into_iter().enumerate() {
            self.rounded[place] = adapters.merge(i, &master[place])?.to_dtype(dtype)?;
        }
        Ok(())
    }

    /// Numbers of the blocks' linear layers among the entries of the layout.
    fn linears(&self) -> impl Iterator<Item = usize> + use<> {
        let layout = self.layout.clone();
        let first = move |l| layout.first_of_block(l);
        (0..self.layout.config.n_layers).flat_map(move |l| first(l)..first(l) + 4)
    }

    /// Weights that will not be updated: what they compute with is all that is kept of them.
    pub fn frozen(self) -> Self {
        Self {
            master: None,
            adapters: None,
            ..self
        }
    }

    /// Copies the weights to the host; of frozen ones, what they compute with.
    ///
    /// # Errors
    /// When the device fails.
    pub fn download(&self) -> Result<model::Params> {
        let mut data = Vec::with_capacity(self.layout.len);
        for tensor in self.merged()?.as_ref().unwrap_or(&self.rounded) {
            data.extend(download(&tensor.to_dtype(DType::F32)?)?);
        }
        Ok(model::Params {
            layout: self.layout.clone(),
            data,
        })
    }

    /// Master weights and rounded ones of what is trained, for an update.
    pub(super) fn for_update(&mut self) -> Result<(&mut [Tensor], &mut [Tensor])> {
        match (&mut self.adapters, &mut self.master) {
            (Some(adapters), _) => Ok((&mut adapters.master, &mut adapters.rounded)),
            (None, Some(master)) => Ok((master, &mut self.rounded)),
            (None, None) => Err(Error::msg("frozen weights are not trained")),
        }
    }

    /// Of the rounded weights.
    pub(super) fn dtype(&self) -> DType {
        self.rounded[0].dtype()
    }

    /// `embed_in [V, D]`.
    pub(super) fn embed_in(&self) -> &Tensor {
        &self.rounded[0]
    }

    /// `embed_out [V, D]`.
    pub(super) fn embed_out(&self) -> &Tensor {
        &self.rounded[embed_out(&self.layout)]
    }

    /// Gains of the final norm `[1, D]`, if norms have gains.
    pub(super) fn final_norm(&self) -> Option<&Tensor> {
        let gains = self.layout.config.norm_gains;
        self.rounded.last().filter(|_| gains)
    }

    /// Weights of block `l`.
    pub(super) fn block(&self, l: usize) -> BlockWeights<'_> {
        let [qkv, out, up, down, gains @ ..] = &self.rounded[self.layout.first_of_block(l)..]
        else {
            unreachable!("every block has four matrices");
        };
        let gains = self.layout.config.norm_gains.then_some(gains);
        BlockWeights {
            qkv,
            out,
            up,
            down,
            attention_norm: gains.map(|gains| &gains[0]),
            mlp_norm: gains.map(|gains| &gains[1]),
        }
    }
}

/// Number of the output embedding among the entries.
pub(super) fn embed_out(layout: &Layout) -> usize {
    layout.first_of_block(0) - 1
}
