//! The backward over rows of equal length.

use std::ops::Range;

use crate::ops::{attention, norm};

use super::forward::{BlockScratch, shape};
use super::{Activations, BlockLinear, Keep, Layer, PackedModel, final_norm};

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
    let PackedModel { params, packed } = model;
    let (config, layout) = (acts.config, &params.layout);
    let (d, f) = (config.d_model, config.d_ff);
    let m = tokens.len();
    let trains_weights = !packed.trains_adapters();
    let shape = shape(acts, m, seq_len);

    let dh = &mut acts.residual[..m * d];
    let d_qkv = &mut acts.d_qkv[..m * config.qkv_width()];
    let d_mlp = &mut acts.d_mlp[..m * f];
    dh.fill(0.0);
    let d_hidden = &mut acts.d_hidden[..m * d];
    let normed = if config.norm_gains {
        &acts.hidden_normed[..m * d]
    } else {
        &acts.hidden[..m * d]
    };
    let d_gains = slice_of(grads, layout.final_gains().filter(|_| trains_weights));
    final_norm(params).backward(d_hidden, normed, d_gains);
    norm::backward_add(dh, d_hidden, normed, &acts.hidden_inv_rms[..m], d);
    for l in (0..config.n_layers).rev() {
        let layer = Layer::new(model, l);
        let block = match acts.kept {
            Keep::Blocks => &mut acts.blocks[l],
            _ => {
                // Overwrites the block's input, which is not needed again.
                let (block, h) = (&mut acts.blocks[0], &mut acts.inputs[l][..m * d]);
                let scratch = BlockScratch {
                    rope: &acts.rope,
                    scaled: &mut acts.scaled,
                    attention: &mut acts.attention,
                };
                block.forward(h, &layer, shape, acts.kept, scratch);
                block
            }
        };
        let add = |linear: BlockLinear, grads: &mut [f32], dy: &[f32], x: &[f32]| {
            packed.backward_weights(layout, linear.number(l), grads, dy, x);
        };
        let [attention_gains, mlp_gains] = match layout.gains(l).filter(|_| trains_weights) {
            Some(gains) => gains.map(Some),
            None => [None, None],
        };

        let activated = &block.activated[..m * f];
        add(BlockLinear::Down, grads, dh, activated);
        layer.down.backward(d_mlp, dh);
        let d_up = layer.activate_back(d_mlp, &mut block.slope);
        let (normed, inv_rms) = (&block.mlp_normed[..m * d], &block.mlp_inv_rms[..m]);
        let x = layer.mlp_norm.output(normed, &mut acts.scaled);
        add(BlockLinear::Up, grads, d_up, x);
        let d_normed = &mut acts.d_normed[..m * d];
        layer.up.backward(d_normed, d_up);
        let d_gains = slice_of(grads, mlp_gains);
        layer.mlp_norm.backward(d_normed, normed, d_gains);
        norm::backward_add(dh, d_normed, normed, inv_rms, d);

        let attended = &block.attended[..m * config.q_width()];
        add(BlockLinear::Out, grads, dh, attended);
        let d_attended = &mut acts.d_normed[..m * config.q_width()];
        layer.out.backward(d_attended, dh);
        let qkv = &block.qkv[..m * config.qkv_width()];
        let lse = &block.lse[..m * config.n_heads];
        let scratch = &mut acts.attention;
        attention::backward(d_qkv, d_attended, qkv, attended, lse, shape, scratch);
        layer.rotate_back(d_qkv, qkv, &block.qk_inv_rms, &acts.rope, seq_len);
        let (normed, inv_rms) = (&block.normed[..m * d], &block.inv_rms[..m]);
        let x = layer.attention_norm.output(normed, &mut acts.scaled);
        add(BlockLinear::Qkv, grads, d_qkv, x);
        let d_normed = &mut acts.d_normed[..m * d];
        layer.qkv.backward(d_normed, d_qkv);
        let d_gains = slice_of(grads, attention_gains);
        layer.attention_norm.backward(d_normed, normed, d_gains);
        norm::backward_add(dh, d_normed, normed, inv_rms, d);
    }
    if trains_weights {
        embed_backward(&mut grads[layout.embed_in()], tokens, dh, d);
    }
}

/// Backward of the input embedding: adds each row of `dh [M, D]` to the row of its token in `d_embed [V, D]`.
fn embed_backward(d_embed: &mut [f32], tokens: &[u32], dh: &[f32], d: usize) {
    for (dh, &token) in dh.chunks_exact(d).zip(tokens) {
        for (g, dh) in d_embed[token as usize * d..][..d].iter_mut().zip(dh) {
            *g += dh;
        }
    }
}

/// The elements in a range, if there is one.
fn slice_of(grads: &mut [f32], range: Option<Range<usize>>) -> Option<&mut [f32]> {
    range.map(|range| &mut grads[range])
}
