//! The forward over rows of equal length.

use crate::ops::attention;
use crate::ops::matmul::Out;
use crate::ops::rope::{Positions, RopeTable};

use super::activations::Block;
use super::{Activations, Keep, Layer, PackedModel, Params, final_norm};

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
    let shape = shape(acts, m, seq_len);
    let h = &mut acts.residual[..m * d];
    embed(params, tokens, h);
    for l in 0..config.n_layers {
        if keep == Keep::Inputs {
            acts.inputs[l][..m * d].copy_from_slice(h);
        }
        let layer = Layer::new(model, l);
        let block = &mut acts.blocks[if keep == Keep::Blocks { l } else { 0 }];
        let scratch = BlockScratch {
            rope: &acts.rope,
            scaled: &mut acts.scaled,
            attention: &mut acts.attention,
        };
        block.forward(h, &layer, shape, keep, scratch);
        let activated = &block.activated[..m * config.d_ff];
        layer.down.forward(h, activated, Out::Add);
    }
    let (hidden, inv_rms) = (&mut acts.hidden[..m * d], &mut acts.hidden_inv_rms[..m]);
    let norm = final_norm(params);
    if config.norm_gains {
        let normed = &mut acts.hidden_normed[..m * d];
        norm.forward(h, normed, inv_rms, hidden, d);
    } else {
        norm.forward(h, hidden, inv_rms, &mut [], d);
    }
}

/// The input embedding: `residual [M, D] = embed_in[tokens]`.
pub(crate) fn embed(params: &Params, tokens: &[u32], residual: &mut [f32]) {
    let d = params.layout.config.d_model;
    let table = &params.data[params.layout.embed_in()];
    for (out, &token) in residual.chunks_exact_mut(d).zip(tokens) {
        out.copy_from_slice(&table[token as usize * d..][..d]);
    }
}

/// Sizes of attention over `m` positions in sequences of `seq_len`.
pub(super) fn shape(acts: &Activations, m: usize, seq_len: usize) -> attention::Shape {
    assert!(m.is_multiple_of(seq_len), "rows of equal length");
    acts.config.attention(m / seq_len, seq_len)
}

/// What the forwards of all blocks share.
pub(super) struct BlockScratch<'a> {
    pub rope: &'a RopeTable,
    /// Output of a norm with gains `[M, D]`, if norms have them.
    pub scaled: &'a mut [f32],
    pub attention: &'a mut attention::Scratch,
}

impl Block {
    /// The block's forward except for the last step, `h += W_down · activated`: adds attention's output to the
    /// residual stream `h [M, D]`, and keeps the activations.
    pub(super) fn forward(
        &mut self,
        h: &mut [f32],
        layer: &Layer,
        shape: attention::Shape,
        keep: Keep,
        scratch: BlockScratch,
    ) {
        let BlockScratch {
            rope,
            scaled,
            attention,
        } = scratch;
        let m = shape.rows * shape.seq_len;
        let d = h.len() / m;
        let normed = &mut self.normed[..m * d];
        let inv_rms = &mut self.inv_rms[..m];
        let x = layer.attention_norm.forward(h, normed, inv_rms, scaled, d);
        let qkv = &mut self.qkv[..m * layer.qkv.shape()[0]];
        layer.qkv.forward(qkv, x, Out::Set);
        let positions = Positions::Sequence(shape.seq_len);
        layer.rotate(qkv, &mut self.qk_inv_rms, rope, positions);
        let attended = &mut self.attended[..m * layer.out.shape()[1]];
        let lse = &mut self.lse[..m * shape.n_heads];
        attention::forward(qkv, attended, lse, shape, attention);
        layer.out.forward(h, attended, Out::Add);

        let normed = &mut self.mlp_normed[..m * d];
        let inv_rms = &mut self.mlp_inv_rms[..m];
        let x = layer.mlp_norm.forward(h, normed, inv_rms, scaled, d);
        let activated = &mut self.activated[..m * layer.down.shape()[1]];
        layer.activate(x, activated, &mut self.slope, keep != Keep::Nothing);
    }
}
