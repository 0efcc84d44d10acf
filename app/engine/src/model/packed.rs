//! Weights packed for matrix products.

use rayon::prelude::*;

use crate::ops::Precision;
use crate::ops::linear::Linear;

use super::lora::PackedLora;
use super::{BlockLinear, Entry, Layout, ModelRef, Params, Vector};

/// A model's linear layers, packed for matrix products: once a step in training, once a request in generation.
pub struct Packed {
    /// Each block's `qkv`, `out`, `up` (or `gate_up`), `down`, merged with adapters if there are any.
    pub(super) blocks: Vec<[Linear; BlockLinear::COUNT]>,
    /// The vocabulary projection.
    pub(crate) embed_out: Linear,
    /// The gains of all norms, in the order of the layout, where they are not stored as they are.
    gains: Vec<f32>,
    /// The adapters, if they are trained.
    adapters: Option<PackedLora>,
    precision: Precision,
}

/// A model whose linear layers are packed.
#[derive(Clone, Copy)]
pub struct PackedModel<'a> {
    /// The weights, without adapters.
    pub params: &'a Params,
    /// The linear layers.
    pub packed: &'a Packed,
}

impl Packed {
    /// Buffers for a model's linear layers; [`Self::pack`] allocates.
    pub fn new(layout: &Layout, precision: Precision) -> Self {
        let linear = || Linear::new(precision);
        Self {
            blocks: (0..layout.config.n_layers)
                .map(|_| std::array::from_fn(|_| linear()))
                .collect(),
            embed_out: linear(),
            gains: Vec::new(),
            adapters: None,
            precision,
        }
    }

    /// Number of floats that the packed linear layers of a layout take.
    pub fn len(layout: &Layout, backward: bool) -> usize {
        let layers = layout.linears();
        let linears: usize = layers.map(|entry| Linear::len(entry.shape, backward)).sum();
        let gains: usize = offset_gains(layout).map(|entry| entry.range.len()).sum();
        linears + gains
    }

    /// Packs a model's linear layers, for the backward too if one follows. Runs on the rayon pool it is called in.
    pub fn pack<'a>(&'a mut self, model: ModelRef<'a>, backward: bool) -> PackedModel<'a> {
        let ModelRef { params, lora } = model;
        let layers = self.blocks.iter_mut().flatten();
        // The embedding, which has no adapters, comes first: it is the largest.
        let pairs: Vec<_> = std::iter::once(&mut self.embed_out)
            .chain(layers)
            .zip(params.layout.linears())
            .enumerate()
            .collect();
        pairs.into_par_iter().for_each(|(i, (linear, entry))| {
            let w = &params.data[entry.range.clone()];
            match lora.filter(|_| i > 0) {
                Some(lora) => linear.pack(&lora.merge_linear(i - 1, w), entry.shape, backward),
                None => linear.pack(w, entry.shape, backward),
            }
        });
        let offset = params.layout.config.parts.gain_offset;
        self.gains.clear();
        for entry in offset_gains(&params.layout) {
            let stored = params.data[entry.range.clone()].iter();
            self.gains.extend(stored.map(|x| offset + x));
        }
        self.adapters = lora
            .filter(|_| backward)
            .map(|lora| PackedLora::new(lora, self.precision));
        PackedModel {
            params,
            packed: self,
        }
    }

    /// Whether a backward computes the gradients of adapters instead of those of the weights.
    pub(crate) fn trains_adapters(&self) -> bool {
        self.adapters.is_some()
    }

    /// Adds to `grads` the gradient of linear layer `i` of the blocks, or of its adapters, from its input
    /// `x [M, in]` and the gradient `dy [M, out]` of its output.
    pub(super) fn backward_weights(
        &self,
        layout: &Layout,
        i: usize,
        grads: &mut [f32],
        dy: &[f32],
        x: &[f32],
    ) {
        match &self.adapters {
            Some(adapters) => adapters.backward(grads, i, dy, x),
            None => {
                let (l, i) = (i / BlockLinear::COUNT, i % BlockLinear::COUNT);
                let range = layout.block(l)[i].clone();
                self.blocks[l][i].backward_weights(&mut grads[range], dy, x);
            }
        }
    }
}

/// The tensors of gains that are not stored as they are.
fn offset_gains(layout: &Layout) -> impl Iterator<Item = &Entry> {
    let is_offset = layout.config.parts.gain_offset != 0.0;
    let entries = layout.entries.iter();
    entries.filter(move |entry| is_offset && entry.is_gains())
}

impl<'a> PackedModel<'a> {
    /// Gains of a norm of block `l`, if the model has them.
    pub(super) fn gains(&self, l: usize, vector: Vector) -> Option<&'a [f32]> {
        let config = &self.params.layout.config;
        if config.parts.gain_offset == 0.0 {
            return Some(&self.params.data[self.params.layout.vector(l, vector)?]);
        }
        let mut first = 0;
        let mut place = None;
        for (v, len) in config.vectors().filter(|(v, _)| *v != Vector::QkvBias) {
            if v == vector {
                place = Some(first..first + len);
            }
            first += len;
        }
        // `first` is now the number of gains of a block.
        let place = place?;
        Some(&self.packed.gains[l * first..][place])
    }

    /// Gains of the final norm, if norms have gains.
    pub(super) fn final_gains(&self) -> Option<&'a [f32]> {
        let range = self.params.layout.final_gains()?;
        let gains = &self.packed.gains;
        match gains.len() {
            0 => Some(&self.params.data[range]),
            all => Some(&gains[all - range.len()..]),
        }
    }
}
