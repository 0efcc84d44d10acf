//! The forward over rows of equal length.

use crate::ops::rope::Positions;
use crate::ops::{attention, scale};

use super::activations::Block;
use super::{Activations, Added, Keep, Layer, PackedModel, Params, QkKept, Ropes, final_norm};

/// Runs the model over `tokens [B, T]`, keeping activations if a backward follows.
///
/// The final hidden states are in [`Activations::hidden`] afterwards; the vocabulary projection is part of
/// [`crate::ops::head`].
pub fn forward(
    model: PackedModel,
    tokens: &[u32],
    seq_len: usize,
    keep: Keep,
    acts: &mut Activations,
) {
    let params = model.params;
    let config = acts.config;
    let (d, m) = (config.d_model, tokens.len());
    acts.reserve(m, seq_len, keep);
    let rows = rows(m, seq_len);
    let h = &mut acts.residual[..m * d];
    embed(params, tokens, h);
    for l in 0..config.n_layers {
        if keep == Keep::Inputs {
            acts.inputs[l][..m * d].copy_from_slice(h);
        }
        let layer = Layer::new(model, l);
        let block = &mut acts.blocks[if keep == Keep::Blocks { l } else { 0 }];
        let mut scratch = BlockScratch {
            ropes: &acts.ropes,
            scaled: &mut acts.scaled,
            output: &mut acts.hidden,
            attention: &mut acts.attention,
        };
        block.forward(h, &layer, layer.shape(rows, seq_len), keep, &mut scratch);
        block.finish(h, &layer, &mut scratch);
    }
    let (hidden, inv_rms) = (&mut acts.hidden[..m * d], &mut acts.hidden_inv_rms[..m]);
    let norm = final_norm(model);
    if config.norm_gains {
        let normed = &mut acts.hidden_normed[..m * d];
        norm.forward(h, normed, inv_rms, hidden, d);
    } else {
        norm.forward(h, hidden, inv_rms, &mut [], d);
    }
    if config.parts.logits_scale != 1.0 {
        scale::scale(hidden, config.parts.logits_scale);
    }
}

/// The input embedding: `residual [M, D] = embed_in[tokens]`, times its factor.
pub(crate) fn embed(params: &Params, tokens: &[u32], residual: &mut [f32]) {
    let d = params.layout.config.d_model;
    let table = &params.data[params.layout.embed_in()];
    for (out, &token) in residual.chunks_exact_mut(d).zip(tokens) {
        out.copy_from_slice(&table[token as usize * d..][..d]);
    }
    let factor = params.layout.config.parts.embedding_scale;
    if factor != 1.0 {
        scale::scale(residual, factor);
    }
}

/// Number of sequences of `seq_len` in `m` positions.
pub(super) fn rows(m: usize, seq_len: usize) -> usize {
    assert!(m.is_multiple_of(seq_len), "rows of equal length");
    m / seq_len
}

/// What the forwards of all blocks share.
pub(super) struct BlockScratch<'a> {
    pub ropes: &'a Ropes,
    /// Output of a norm with gains `[M, D]`, if norms have them.
    pub scaled: &'a mut [f32],
    /// What a half of the block adds to the residual stream `[M, D]`, where it is no product alone.
    pub output: &'a mut [f32],
    pub attention: &'a mut attention::Scratch,
}

impl Block {
    /// The block's forward except for the last step, [`Self::finish`]: adds attention's output to the residual
    /// stream `h [M, D]`, and keeps the activations.
    pub(super) fn forward(
        &mut self,
        h: &mut [f32],
        layer: &Layer,
        shape: attention::Shape,
        keep: Keep,
        scratch: &mut BlockScratch,
    ) {
        let BlockScratch {
            ropes,
            scaled,
            output,
            attention,
        } = scratch;
        let m = shape.rows * shape.seq_len;
        let d = h.len() / m;
        let normed = &mut self.normed[..m * d];
        let inv_rms = &mut self.inv_rms[..m];
        let x = layer.attention.input(h, normed, inv_rms, scaled, d);
        let qkv = &mut self.qkv[..m * layer.qkv.shape()[0]];
        layer.project(qkv, x);
        let positions = Positions::Sequence(shape.seq_len);
        let kept = QkKept {
            normed: &mut self.qk_normed,
            inv_rms: &mut self.qk_inv_rms,
        };
        layer.rotate(qkv, kept, ropes, positions);
        let attended = &mut self.attended[..m * layer.attention.last.shape()[1]];
        let lse = &mut self.lse[..m * shape.n_heads];
        attention::forward(qkv, attended, lse, shape, attention);
        let mut added = Added {
            output,
            normed: &mut self.post_normed,
            inv_rms: &mut self.post_inv_rms,
            scaled,
        };
        layer.attention.add(h, attended, &mut added);

        let normed = &mut self.mlp_normed[..m * d];
        let inv_rms = &mut self.mlp_inv_rms[..m];
        let x = layer.mlp.input(h, normed, inv_rms, scaled, d);
        let activated = &mut self.activated[..m * layer.mlp.last.shape()[1]];
        layer.activate(x, activated, &mut self.slope, keep != Keep::Nothing);
    }

    /// The last step of the block's forward: adds the MLP's output to the residual stream `h [M, D]`.
    pub(super) fn finish(&mut self, h: &mut [f32], layer: &Layer, scratch: &mut BlockScratch) {
        let [d, f] = layer.mlp.last.shape();
        let mut added = Added {
            output: scratch.output,
            normed: &mut self.mlp_post_normed,
            inv_rms: &mut self.mlp_post_inv_rms,
            scaled: scratch.scaled,
        };
        layer
            .mlp
            .add(h, &self.activated[..h.len() / d * f], &mut added);
    }
}
