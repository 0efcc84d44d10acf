//! The backward over rows of equal length.

use crate::ops::{attention, norm, scale};

use super::activations::Block;
use super::forward::{BlockScratch, rows};
use super::{Activations, BlockLinear, Keep, Layer, PackedModel, Ropes, Vector, final_norm};

/// Adds to `grads` the gradient of every weight except `embed_out`, whose gradient the head computes; with
/// adapters, the gradient of the adapters alone, of
/// [`gradient_len`](super::LoraLayout::gradient_len) elements.
///
/// Reads the gradient of the final hidden states in [`Activations::hidden_and_gradient`] and the activations
/// that [`forward`](fn@super::forward) kept for the same `tokens [B, T]`, which it overwrites.
pub fn backward(
    model: PackedModel,
    tokens: &[u32],
    seq_len: usize,
    acts: &mut Activations,
    grads: &mut [f32],
) {
    assert_ne!(acts.kept, Keep::Nothing, "a forward that is for a backward");
    let params = model.params;
    let (config, layout) = (acts.config, &params.layout);
    let (d, m) = (config.d_model, tokens.len());
    let rows = rows(m, seq_len);

    let dh = &mut acts.residual[..m * d];
    dh.fill(0.0);
    let d_hidden = &mut acts.d_hidden[..m * d];
    if config.parts.logits_scale != 1.0 {
        scale::scale(d_hidden, config.parts.logits_scale);
    }
    let normed = if config.norm_gains {
        &acts.hidden_normed[..m * d]
    } else {
        &acts.hidden[..m * d]
    };
    let trains_weights = !model.packed.trains_adapters();
    let d_gains = layout.final_gains().filter(|_| trains_weights);
    let d_gains = d_gains.map(|range| &mut grads[range]);
    final_norm(model).backward(d_hidden, normed, d_gains);
    norm::backward_add(dh, d_hidden, normed, &acts.hidden_inv_rms[..m], d);
    let mut shared = Shared {
        model,
        ropes: &acts.ropes,
        dh,
        d_output: &mut acts.d_hidden,
        d_normed: &mut acts.d_normed,
        d_qkv: &mut acts.d_qkv[..m * config.qkv_width()],
        d_mlp: &mut acts.d_mlp[..m * config.d_ff],
        scaled: &mut acts.scaled,
        attention: &mut acts.attention,
    };
    for l in (0..config.n_layers).rev() {
        let layer = Layer::new(model, l);
        let shape = layer.shape(rows, seq_len);
        let block = match acts.kept {
            Keep::Blocks => &mut acts.blocks[l],
            _ => {
                // Overwrites the block's input, which is not needed again.
                let (block, h) = (&mut acts.blocks[0], &mut acts.inputs[l][..m * d]);
                let mut scratch = BlockScratch {
                    ropes: shared.ropes,
                    scaled: shared.scaled,
                    output: &mut acts.hidden,
                    attention: shared.attention,
                };
                block.forward(h, &layer, shape, acts.kept, &mut scratch);
                if layer.mlp.after.is_some() {
                    block.finish(h, &layer, &mut scratch);
                }
                block
            }
        };
        shared.mlp(l, &layer, block, grads);
        shared.attention(l, &layer, block, shape, grads);
    }
    if trains_weights {
        if config.parts.embedding_scale != 1.0 {
            scale::scale(dh, config.parts.embedding_scale);
        }
        embed_backward(&mut grads[layout.embed_in()], tokens, dh, d);
    }
}

/// What the backwards of all blocks share.
struct Shared<'a> {
    model: PackedModel<'a>,
    ropes: &'a Ropes,
    /// Gradient of the residual stream `[M, D]`.
    dh: &'a mut [f32],
    /// Gradient of what a half of a block adds to it `[M, D]`.
    d_output: &'a mut [f32],
    /// Gradient of the input of a half `[M, D]`, or of attention's output `[M, N H]`.
    d_normed: &'a mut [f32],
    d_qkv: &'a mut [f32],
    d_mlp: &'a mut [f32],
    scaled: &'a mut [f32],
    attention: &'a mut attention::Scratch,
}

impl Shared<'_> {
    /// Backward of block `l`'s MLP, with the norms around it.
    fn mlp(&mut self, l: usize, layer: &Layer, block: &mut Block, grads: &mut [f32]) {
        let model = self.model;
        let (dh, d_mlp) = (&mut *self.dh, &mut *self.d_mlp);
        let d = layer.mlp.last.shape()[0];
        let m = dh.len() / d;
        let activated = &block.activated[..d_mlp.len()];
        let (normed, inv_rms) = (&block.mlp_post_normed, &block.mlp_post_inv_rms);
        let d_gains = vectors(model, l, [Vector::MlpPostNorm; 2], grads);
        let dy = (layer.mlp).add_back(dh, self.d_output, normed, inv_rms, d_gains);
        add(model, BlockLinear::Down.number(l), grads, dy, activated);
        layer.mlp.last.backward(d_mlp, dy);
        let d_up = layer.activate_back(d_mlp, &mut block.slope);
        let (normed, inv_rms) = (&block.mlp_normed[..m * d], &block.mlp_inv_rms[..m]);
        let x = layer.mlp.input_again(normed, self.scaled);
        add(model, BlockLinear::Up.number(l), grads, d_up, x);
        let d_normed = &mut self.d_normed[..m * d];
        layer.up.backward(d_normed, d_up);
        let d_gains = vectors(model, l, [Vector::MlpNorm; 2], grads);
        layer.mlp.input_back(dh, d_normed, normed, inv_rms, d_gains);
    }

    /// Backward of block `l`'s attention, with the norms around it.
    fn attention(
        &mut self,
        l: usize,
        layer: &Layer,
        block: &mut Block,
        shape: attention::Shape,
        grads: &mut [f32],
    ) {
        let model = self.model;
        let (dh, d_qkv) = (&mut *self.dh, &mut *self.d_qkv);
        let [d, q_width] = layer.attention.last.shape();
        let m = dh.len() / d;
        let attended = &block.attended[..m * q_width];
        let (normed, inv_rms) = (&block.post_normed, &block.post_inv_rms);
        let d_gains = vectors(model, l, [Vector::AttentionPostNorm; 2], grads);
        let dy = (layer.attention).add_back(dh, self.d_output, normed, inv_rms, d_gains);
        add(model, BlockLinear::Out.number(l), grads, dy, attended);
        let d_attended = &mut self.d_normed[..m * q_width];
        layer.attention.last.backward(d_attended, dy);
        let qkv = &block.qkv[..d_qkv.len()];
        let lse = &block.lse[..m * shape.n_heads];
        attention::backward(d_qkv, d_attended, qkv, attended, lse, shape, self.attention);
        let qk_inv_rms = &block.qk_inv_rms;
        layer.rotate_back(d_qkv, qkv, qk_inv_rms, self.ropes, shape.seq_len);
        let d_gains = vectors(model, l, [Vector::QNorm, Vector::KNorm], grads);
        layer.qk_norm_back(d_qkv, &block.qk_normed, qk_inv_rms, d_gains);
        if let Some(d_bias) = vectors(model, l, [Vector::QkvBias; 2], grads) {
            scale::bias_backward(d_bias, d_qkv);
        }
        let (normed, inv_rms) = (&block.normed[..m * d], &block.inv_rms[..m]);
        let x = layer.attention.input_again(normed, self.scaled);
        add(model, BlockLinear::Qkv.number(l), grads, d_qkv, x);
        let d_normed = &mut self.d_normed[..m * d];
        layer.qkv.backward(d_normed, d_qkv);
        let d_gains = vectors(model, l, [Vector::AttentionNorm; 2], grads);
        (layer.attention).input_back(dh, d_normed, normed, inv_rms, d_gains);
    }
}

/// Adds the gradient of linear layer `i` of the blocks, or of its adapters.
fn add(model: PackedModel, i: usize, grads: &mut [f32], dy: &[f32], x: &[f32]) {
    let PackedModel { params, packed } = model;
    packed.backward_weights(&params.layout, i, grads, dy, x);
}

/// The gradient of block `l`'s vectors from the one to the other, where the model has them and trains them.
fn vectors<'g>(
    model: PackedModel,
    l: usize,
    [first, last]: [Vector; 2],
    grads: &'g mut [f32],
) -> Option<&'g mut [f32]> {
    let PackedModel { params, packed } = model;
    let range = |vector| params.layout.vector(l, vector);
    let (first, last) = range(first).zip(range(last))?;
    (!packed.trains_adapters()).then(|| &mut grads[first.start..last.end])
}

/// Backward of the input embedding: adds each row of `dh [M, D]` to the row of its token in `d_embed [V, D]`.
fn embed_backward(d_embed: &mut [f32], tokens: &[u32], dh: &[f32], d: usize) {
    for (dh, &token) in dh.chunks_exact(d).zip(tokens) {
        for (g, dh) in d_embed[token as usize * d..][..d].iter_mut().zip(dh) {
            *g += dh;
        }
    }
}
