//! Backward over rows of equal length.

use std::ops::Range;

use crate::ops::{attention, norm};

use super::forward::shape;
use super::{Activations, Keep, Layer, Packed, Params, final_norm};

/// Adds to `grads` the gradient of every weight but `embed_out`, whose gradient the head computes; where
/// adapters were packed, that of the adapters instead, in the layout of a lane.
///
/// Takes the gradient of the final hidden states from [`Activations::hidden_and_gradient`] and what
/// [`super::forward`] kept for the same `tokens [B, T]`, which is gone afterwards.
pub fn backward(
    params: &Params,
    packed: &Packed,
    tokens: &[u32],
    seq_len: usize,
    acts: &mut Activations,
    grads: &mut [f32],
) {
    assert_ne!(acts.kept, Keep::Nothing, "a forward that is for a backward");
    let (config, layout) = (acts.config, &params.layout);
    let (d, f) = (config.d_model, config.d_ff);
    let m = tokens.len();
    let all = !packed.trains_adapters();
    let shape = shape(acts, m, seq_len);

    let dh = &mut acts.residual[..m * d];
    let d_qkv = &mut acts.d_qkv[..m * config.qkv_width()];
    let d_mlp = &mut acts.d_mlp[..m * f];
    dh.fill(0.0);
    let d_hidden = &mut acts.d_hidden[..m * d];
    let normed = match config.norm_gains {
        true => &acts.hidden_normed[..m * d],
        false => &acts.hidden[..m * d],
    };
    let gains = of(grads, layout.final_gains().filter(|_| all));
    final_norm(params).backward(d_hidden, normed, gains);
    norm::backward_add(dh, d_hidden, normed, &acts.hidden_inv_rms[..m], d);
    for l in (0..config.n_layers).rev() {
        let layer = Layer::new(params, packed, l);
        let block = match acts.kept {
            Keep::Blocks => &mut acts.blocks[l],
            _ => {
                // The input is spent with it.
                let (block, h) = (&mut acts.blocks[0], &mut acts.inputs[l][..m * d]);
                let scratch = (&mut acts.scaled[..], &mut acts.attention);
                block.forward(h, &layer, shape, acts.kept, &acts.rope, scratch);
                block
            }
        };
        let add = |i: usize, grads: &mut [f32], dy: &[f32], x: &[f32]| {
            packed.backward_weights(layout, (l, i), grads, dy, x);
        };
        let [g_attention_norm, g_mlp_norm] = match layout.gains(l).filter(|_| all) {
            Some(gains) => gains.map(Some),
            None => [None, None],
        };

        let activated = &block.activated[..m * f];
        add(3, grads, dh, activated);
        layer.down.backward(d_mlp, dh);
        let d_up = layer.activate_back(d_mlp, &mut block.slope);
        let (normed, inv_rms) = (&block.mlp_normed[..m * d], &block.mlp_inv_rms[..m]);
        let x = layer.mlp_norm.output(normed, &mut acts.scaled);
        add(2, grads, d_up, x);
        let d_normed = &mut acts.d_normed[..m * d];
        layer.up.backward(d_normed, d_up);
        layer
            .mlp_norm
            .backward(d_normed, normed, of(grads, g_mlp_norm));
        norm::backward_add(dh, d_normed, normed, inv_rms, d);

        let attended = &block.attended[..m * config.q_width()];
        add(1, grads, dh, attended);
        let d_attended = &mut acts.d_normed[..m * config.q_width()];
        layer.out.backward(d_attended, dh);
        let qkv = &block.qkv[..m * config.qkv_width()];
        let lse = &block.lse[..m * config.n_heads];
        let scratch = &mut acts.attention;
        attention::backward(d_qkv, d_attended, qkv, attended, lse, shape, scratch);
        layer.rotate_back(d_qkv, qkv, &block.qk_inv_rms, &acts.rope, seq_len);
        let (normed, inv_rms) = (&block.normed[..m * d], &block.inv_rms[..m]);
        let x = layer.attention_norm.output(normed, &mut acts.scaled);
        add(0, grads, d_qkv, x);
        let d_normed = &mut acts.d_normed[..m * d];
        layer.qkv.backward(d_normed, d_qkv);
        let gains = of(grads, g_attention_norm);
        layer.attention_norm.backward(d_normed, normed, gains);
        norm::backward_add(dh, d_normed, normed, inv_rms, d);
    }
    if !all {
        return;
    }
    let d_embed = &mut grads[layout.embed_in()];
    for (dh, &token) in dh.chunks_exact(d).zip(tokens) {
        for (g, dh) in d_embed[token as usize * d..][..d].iter_mut().zip(dh) {
            *g += dh;
        }
    }
}

/// The gradient of a tensor that there may be.
fn of(grads: &mut [f32], place: Option<Range<usize>>) -> Option<&mut [f32]> {
    place.map(|place| &mut grads[place])
}
