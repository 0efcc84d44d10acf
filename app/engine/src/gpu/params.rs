//! Weights on a device, one tensor for each entry of the layout.

use std::sync::Arc;

use candle_core::{DType, Device, Error, Result, Tensor};

use crate::model::{self, BlockLinear, Layout, Lora, LoraLayout, Norms, Vector};
use crate::ops::Precision;

use super::half::Half;
use super::heads::QkvWeights;
use super::lora::Adapters;
use super::ops::{Norm, round};
use super::tensor::{download, dtype};

/// Weights of a model on a device, as [`model::Params`] in the machine's memory.
///
/// Clones share the tensors, which no operation changes in place: an update makes new ones.
#[derive(Clone, Debug)]
pub struct Params {
    /// The model's tensors.
    pub layout: Arc<Layout>,
    /// Weights in the precision of matrix products, merged with adapters if there are any; all computations
    /// read these.
    pub(super) rounded: Vec<Tensor>,
    /// Master weights, f32; updates change them if there are no adapters. `None` if the weights are frozen.
    master: Option<Vec<Tensor>>,
    pub(super) adapters: Option<Adapters>,
}

/// Rounded weights of a block: linear layers `[out, in]`, and vectors.
pub struct BlockWeights<'a> {
    /// Attention, which ends with `out`.
    pub attention: Half<'a>,
    pub qkv: &'a Tensor,
    pub qkv_weights: QkvWeights<'a>,
    /// The MLP, which ends with `down`.
    pub mlp: Half<'a>,
    /// `up`, or gate and up.
    pub up: &'a Tensor,
}

impl Params {
    /// Copies weights to a device.
    ///
    /// # Errors
    /// When the device has no memory for them.
    pub fn upload(params: &model::Params, precision: Precision, device: &Device) -> Result<Self> {
        let master = params
            .tensors()
            .map(|(_, shape, data)| Tensor::from_slice(data, &shape, device))
            .collect::<Result<Vec<_>>>()?;
        let rounded = master.iter().map(|x| x.to_dtype(dtype(precision)));
        Ok(Self {
            layout: params.layout.clone(),
            rounded: rounded.collect::<Result<_>>()?,
            master: Some(master),
            adapters: None,
        })
    }

    /// Puts adapters on the weights, after merging adapters that are already there.
    ///
    /// # Errors
    /// When the device has no memory for them, or the weights are frozen.
    pub fn adapt(mut self, lora: &Lora) -> Result<Self> {
        let (dtype, device) = (self.dtype(), self.embed_in().device().clone());
        let Some(mut master) = self.master.take() else {
            candle_core::bail!("frozen weights take no adapters");
        };
        // One tensor after another: there may be no memory for two models.
        if let Some(old) = self.adapters.take() {
            for (i, entry) in self.linear_entries().enumerate() {
                master[entry] = old.merge(i, &master[entry])?;
            }
        }
        for (rounded, master) in self.rounded.iter_mut().zip(&master) {
            *rounded = master.to_dtype(dtype)?;
        }
        self.adapters = Some(Adapters::upload(lora, dtype, &device)?);
        self.master = Some(master);
        self.round_merged()?;
        Ok(self)
    }

    /// Layout of the adapters, if there are any.
    pub fn lora(&self) -> Option<&Arc<LoraLayout>> {
        self.adapters.as_ref().map(|adapters| &adapters.layout)
    }

    /// Copies the adapters to the host, if there are any.
    ///
    /// # Errors
    /// When the device fails.
    pub fn download_adapters(&self) -> Result<Option<Lora>> {
        let adapters = self.adapters.as_ref();
        adapters.map(|adapters| adapters.download()).transpose()
    }

    /// Weights of an entry of the layout, merged with its adapters if there are any; of frozen ones, the rounded weights.
    fn merged(&self, entry: usize) -> Result<Tensor> {
        let weights = &self.master.as_ref().unwrap_or(&self.rounded)[entry];
        let linear = self.linear_entries().position(|linear| linear == entry);
        match self.adapters.as_ref().zip(linear) {
            Some((adapters, i)) => adapters.merge(i, weights),
            None => Ok(weights.clone()),
        }
    }

    /// Computes the rounded weights again from the master weights and the adapters, one tensor at a time.
    pub(super) fn round_merged(&mut self) -> Result<()> {
        let (Some(master), Some(adapters)) = (&self.master, &self.adapters) else {
            return Ok(());
        };
        let dtype = self.dtype();
        for (i, entry) in self.linear_entries().enumerate() {
            self.rounded[entry] = round(&adapters.merge(i, &master[entry])?, dtype)?;
        }
        Ok(())
    }

    /// Indices of the blocks' linear layers in the entries of the layout.
    fn linear_entries(&self) -> impl Iterator<Item = usize> + use<> {
        let layout = self.layout.clone();
        let first = move |l| layout.first_of_block(l);
        (0..self.layout.config.n_layers).flat_map(move |l| first(l)..first(l) + BlockLinear::COUNT)
    }

    /// Merges the adapters into the weights, which are never updated again: keeps the rounded weights alone.
    pub fn frozen(self) -> Self {
        Self {
            master: None,
            adapters: None,
            ..self
        }
    }

    /// Copies the weights, merged with their adapters, to the host; of frozen ones, the rounded weights.
    ///
    /// # Errors
    /// When the device fails.
    pub fn download(&self) -> Result<model::Params> {
        let mut data = Vec::with_capacity(self.layout.len);
        // One tensor after another: there may be no memory for two models.
        for entry in 0..self.layout.entries.len() {
            data.extend(download(&self.merged(entry)?.to_dtype(DType::F32)?)?);
        }
        Ok(model::Params {
            layout: self.layout.clone(),
            data,
        })
    }

    /// Master weights and rounded weights of the trained tensors, for an update.
    pub(super) fn for_update(&mut self) -> Result<(&mut [Tensor], &mut [Tensor])> {
        match (&mut self.adapters, &mut self.master) {
            (Some(adapters), _) => Ok((&mut adapters.master, &mut adapters.rounded)),
            (None, Some(master)) => Ok((master, &mut self.rounded)),
            (None, None) => Err(Error::msg("frozen weights are not trained")),
        }
    }

    /// Number format of the rounded weights.
    pub(super) fn dtype(&self) -> DType {
        self.rounded[0].dtype()
    }

    /// Input embedding `[V, D]`.
    pub(super) fn embed_in(&self) -> &Tensor {
        &self.rounded[0]
    }

    /// Output embedding `[V, D]`.
    pub(super) fn embed_out(&self) -> &Tensor {
        &self.rounded[self.layout.embed_out_entry()]
    }

    /// The final norm, times the factor of the logits.
    pub(super) fn final_norm(&self) -> Norm<'_> {
        let config = &self.layout.config;
        let gain = self.rounded.last().filter(|_| config.norm_gains);
        Norm {
            scale: config.parts.logits_scale,
            ..self.norm(gain)
        }
    }

    /// A norm of these gains.
    fn norm<'a>(&self, gain: Option<&'a Tensor>) -> Norm<'a> {
        let config = &self.layout.config;
        Norm {
            gain,
            offset: config.parts.gain_offset,
            scale: 1.0,
            eps: config.norm_eps,
            dtype: self.dtype(),
        }
    }

    /// Weights of block `l`.
    pub(super) fn block(&self, l: usize) -> BlockWeights<'_> {
        let [qkv, out, up, down, ..] = &self.rounded[self.layout.first_of_block(l)..] else {
            unreachable!("every block has four matrices");
        };
        let parts = &self.layout.config.parts;
        let (before, after) = (parts.norms != Norms::After, parts.norms != Norms::Before);
        let vector = |vector| Some(&self.rounded[self.layout.vector_entry(l, vector)?]);
        let half = |first, second, last| Half {
            before: before.then(|| self.norm(vector(first))),
            after: after.then(|| Norm {
                scale: parts.residual_scale,
                ..self.norm(vector(second))
            }),
            scale: parts.residual_scale,
            last,
        };
        BlockWeights {
            attention: half(Vector::AttentionNorm, Vector::AttentionPostNorm, out),
            qkv,
            qkv_weights: QkvWeights {
                bias: vector(Vector::QkvBias),
                q_gain: vector(Vector::QNorm),
                k_gain: vector(Vector::KNorm),
            },
            mlp: half(Vector::MlpNorm, Vector::MlpPostNorm, down),
            up,
        }
    }
}
