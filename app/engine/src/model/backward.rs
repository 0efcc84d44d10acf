//! Backward over rows of equal length.

use crate::ops::matmul::{Out, matmul_nn, matmul_tn};
use crate::ops::{attention, gelu, norm, rope};

use super::{Activations, Params};

/// Adds to `grads` the gradient of every weight but `embed_out`, whose gradient the head computes.
///
/// Takes the gradient of the final hidden states from [`Activations::d_hidden`] and what
/// [`super::forward`] kept for the same `tokens [B, T]`.
pub fn backward(
    params: &Params,
    tokens: &[u32],
    seq_len: usize,
    acts: &mut Activations,
    grads: &mut [f32],
) {
    let config = acts.config;
    let layout = &params.layout;
    let (d, f, n) = (config.d_model, config.d_ff(), config.n_heads());
    let m = tokens.len();
    let shape = attention::Shape {
        rows: m / seq_len,
        seq_len,
        n_heads: n,
        head_dim: config.head_dim,
    };

    let dh = &mut acts.residual[..m * d];
    let d_normed = &mut acts.d_normed[..m * d];
    let d_qkv = &mut acts.d_qkv[..m * 3 * d];
    let d_mlp = &mut acts.d_mlp[..m * f];
    dh.fill(0.0);
    norm::backward_add(
        dh,
        &acts.d_hidden[..m * d],
        &acts.hidden[..m * d],
        &acts.hidden_inv_rms[..m],
        d,
    );
    for l in (0..config.n_layers).rev() {
        let block = &acts.blocks[l];
        let [w_qkv, w_out, w_up, w_down] = layout.block(l).map(|r| &params.data[r]);
        let [g_qkv, g_out, g_up, g_down] = layout.block(l);

        matmul_tn(
            &mut grads[g_down],
            dh,
            &block.gelu[..m * f],
            m,
            d,
            f,
            Out::Add,
        );
        matmul_nn(d_mlp, dh, w_down, m, d, f, Out::Set);
        gelu::backward(d_mlp, &block.slope[..m * f]);
        let normed = &block.mlp_normed[..m * d];
        matmul_tn(&mut grads[g_up], d_mlp, normed, m, f, d, Out::Add);
        matmul_nn(d_normed, d_mlp, w_up, m, f, d, Out::Set);
        norm::backward_add(dh, d_normed, normed, &block.mlp_inv_rms[..m], d);

        let (qkv, attended) = (&block.qkv[..m * 3 * d], &block.attended[..m * d]);
        matmul_tn(&mut grads[g_out], dh, attended, m, d, d, Out::Add);
        matmul_nn(d_normed, dh, w_out, m, d, d, Out::Set);
        let lse = &block.lse[..m * n];
        attention::backward(
            d_qkv,
            d_normed,
            qkv,
            attended,
            lse,
            shape,
            &mut acts.attention,
        );
        rope::backward(
            d_qkv,
            qkv,
            &block.qk_inv_rms[..m * 2 * n],
            &acts.rope,
            n,
            seq_len,
        );
        let normed = &block.normed[..m * d];
        matmul_tn(&mut grads[g_qkv], d_qkv, normed, m, 3 * d, d, Out::Add);
        matmul_nn(d_normed, d_qkv, w_qkv, m, 3 * d, d, Out::Set);
        norm::backward_add(dh, d_normed, normed, &block.inv_rms[..m], d);
    }
    let d_embed = &mut grads[layout.embed_in()];
    for (dh, &token) in dh.chunks_exact(d).zip(tokens) {
        for (g, dh) in d_embed[token as usize * d..][..d].iter_mut().zip(dh) {
            *g += dh;
        }
    }
}
