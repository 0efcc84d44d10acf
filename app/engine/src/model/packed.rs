//! Weights as the matrix products read them.

use rayon::prelude::*;

use crate::ops::Precision;
use crate::ops::linear::Linear;

use super::lora::PackedLora;
use super::{Layout, ModelRef};

/// A model's linear layers, packed: once a step in training, once a request in generation.
pub struct Packed {
    /// Each block's `qkv`, `out`, `up` (or `gate_up`), `down`.
    pub(crate) blocks: Vec<[Linear; 4]>,
    /// The vocabulary projection.
    pub(crate) embed_out: Linear,
    /// Where adapters are trained, they; the layers are then merged with them.
    adapters: Option<PackedLora>,
    precision: Precision,
}

impl Packed {
    /// Room for a model's weights; it is taken when they are packed.
    pub fn new(layout: &Layout, precision: Precision) -> Self {
        let linear = |_| Linear::new(precision);
        Self {
            blocks: (0..layout.config.n_layers)
                .map(|_| [0; 4].map(linear))
                .collect(),
            embed_out: linear(0),
            adapters: None,
            precision,
        }
    }

    /// Numbers that the packed weights of a layout take.
    pub fn len(layout: &Layout, backward: bool) -> usize {
        let layers = layout.linears();
        layers.map(|entry| Linear::len(entry.shape, backward)).sum()
    }

    /// Packs a model's weights, for the backward too where it is wanted. Call it inside the pool that
    /// shall do the work.
    pub fn pack(&mut self, ModelRef { params, lora }: ModelRef, backward: bool) {
        let layers = self.blocks.iter_mut().flatten();
        // The embedding, which has no adapters, first: it is the largest.
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
        self.adapters = lora
            .filter(|_| backward)
            .map(|lora| PackedLora::new(lora, self.precision));
    }

    /// Whether a backward is of adapters alone.
    pub(crate) fn trains_adapters(&self) -> bool {
        self.adapters.is_some()
    }

    /// Adds to `grads` the gradient of layer `i` of block `l`, or of its adapters, from its input
    /// `x [M, in]` and the gradient `dy [M, out]` of its output.
    pub(super) fn backward_weights(
        &self,
        layout: &Layout,
        (l, i): (usize, usize),
        grads: &mut [f32],
        dy: &[f32],
        x: &[f32],
    ) {
        match &self.adapters {
            Some(adapters) => adapters.backward(grads, 4 * l + i, dy, x),
            None => {
                let place = layout.block(l)[i].clone();
                self.blocks[l][i].backward_weights(&mut grads[place], dy, x);
            }
        }
    }
}
