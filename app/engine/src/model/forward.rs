//! Forward over rows of equal length.

use crate::ops::matmul::Out;
use crate::ops::rope::Positions;
use crate::ops::{attention, gelu, norm, rope};

use super::{Activations, Packed, Params};

/// Runs the model over `tokens [B, T]` and keeps in `acts` what [`super::backward`] needs.
///
/// The final hidden states stand in [`Activations::hidden`]; the vocabulary projection belongs to
/// [`crate::ops::head`].
pub fn forward(
    params: &Params,
    packed: &Packed,
    tokens: &[u32],
    seq_len: usize,
    acts: &mut Activations,
) {
    run(params, packed, tokens, seq_len, acts, true);
}

/// The same without keeping anything: one block's buffers serve all blocks.
pub fn forward_inference(
    params: &Params,
    packed: &Packed,
    tokens: &[u32],
    seq_len: usize,
    acts: &mut Activations,
) {
    run(params, packed, tokens, seq_len, acts, false);
}

/// `residual [M, D] = embed_in[tokens]`.
pub(crate) fn embed(params: &Params, tokens: &[u32], residual: &mut [f32]) {
    let d = params.layout.config.d_model;
    let table = &params.data[params.layout.embed_in()];
    for (out, &token) in residual.chunks_exact_mut(d).zip(tokens) {
        out.copy_from_slice(&table[token as usize * d..][..d]);
    }
}

fn run(
    params: &Params,
    packed: &Packed,
    tokens: &[u32],
    seq_len: usize,
    acts: &mut Activations,
    keep: bool,
) {
    let config = acts.config;
    let (d, f, n) = (config.d_model, config.d_ff(), config.n_heads());
    let m = tokens.len();
    let rows = m / seq_len;
    assert_eq!(m, rows * seq_len, "rows of equal length");
    acts.reserve(rows, seq_len);
    let shape = attention::Shape {
        rows,
        seq_len,
        n_heads: n,
        head_dim: config.head_dim,
    };
    let h = &mut acts.residual[..m * d];
    embed(params, tokens, h);
    for (l, [w_qkv, w_out, w_up, w_down]) in packed.blocks.iter().enumerate() {
        let block = &mut acts.blocks[if keep { l } else { 0 }];

        let normed = &mut block.normed[..m * d];
        norm::forward(h, normed, &mut block.inv_rms[..m], d);
        let qkv = &mut block.qkv[..m * 3 * d];
        w_qkv.forward(qkv, normed, Out::Set);
        let qk_inv_rms = &mut block.qk_inv_rms[..m * 2 * n];
        rope::forward(qkv, qk_inv_rms, &acts.rope, n, Positions::Sequence(seq_len));
        let attended = &mut block.attended[..m * d];
        attention::forward(
            qkv,
            attended,
            &mut block.lse[..m * n],
            shape,
            &mut acts.attention,
        );
        w_out.forward(h, attended, Out::Add);

        let normed = &mut block.mlp_normed[..m * d];
        norm::forward(h, normed, &mut block.mlp_inv_rms[..m], d);
        let mlp = &mut block.gelu[..m * f];
        w_up.forward(mlp, normed, Out::Set);
        if keep {
            gelu::forward(mlp, &mut block.slope[..m * f]);
        } else {
            gelu::inference(mlp);
        }
        w_down.forward(h, mlp, Out::Add);
    }
    norm::forward(
        h,
        &mut acts.hidden[..m * d],
        &mut acts.hidden_inv_rms[..m],
        d,
    );
}
