//! Forward and backward over rows of equal length.

use candle_core::{DType, Device, Result, Tensor};

use crate::model::ModelConfig;

use super::Params;
use super::ops::attention::{self, causal_mask};
use super::ops::head::add_to;
use super::ops::rope::{self, RopeTable};
use super::ops::{gelu, matmul_nn, matmul_nt, matmul_tn, norm};

/// What is the same for all rows of one length.
pub struct Tables {
    rope: RopeTable,
    /// `[T, T]`
    mask: Tensor,
}

impl Tables {
    pub fn new(config: ModelConfig, seq_len: usize, device: &Device) -> Result<Self> {
        Ok(Self {
            rope: RopeTable::new(seq_len, config.head_dim, ModelConfig::ROPE_BASE, device)?,
            mask: causal_mask(seq_len, device)?,
        })
    }
}

/// What a forward leaves: the final hidden states, and what its backward needs.
pub struct Activations {
    /// `[M, D]`, rounded.
    pub hidden: Tensor,
    inv_rms: Tensor,
    /// Empty after an inference.
    blocks: Vec<Block>,
}

/// What one block keeps. Inputs of matrix products are rounded, the rest is f32.
struct Block {
    /// Input of attention `[M, D]`, normalised; `1/rms [M, 1]`.
    normed: Tensor,
    inv_rms: Tensor,
    /// `q` and `k [2, B, N, T, H]`, normalised and rotated; their `1/rms [2, B, N, T, 1]`.
    qk: Tensor,
    qk_inv_rms: Tensor,
    /// `[B, N, T, H]`
    v: Tensor,
    /// Output `[B, N, T, H]` and log-sum-exp `[B, N, T, 1]` of attention; the output as `[M, D]`.
    out: Tensor,
    lse: Tensor,
    attended: Tensor,
    /// Input of the MLP `[M, D]`, normalised; `1/rms [M, 1]`.
    mlp_normed: Tensor,
    mlp_inv_rms: Tensor,
    /// `gelu` and its derivative `[M, F]`.
    gelu: Tensor,
    slope: Tensor,
}

/// Runs the model over `tokens [M]`, rows of `seq_len`; with `keep`, a backward may follow.
pub fn forward(
    params: &Params,
    tokens: &Tensor,
    seq_len: usize,
    tables: &Tables,
    keep: bool,
) -> Result<Activations> {
    let config = params.layout.config;
    let mut blocks = Vec::new();
    let mut h = params.embed_in()?.index_select(tokens, 0)?;
    for l in 0..config.n_layers {
        let [w_qkv, w_out, w_up, w_down] = params.block(l)?;
        let dtype = w_qkv.dtype();

        let (normed, inv_rms) = norm::forward(&h)?;
        let normed = normed.to_dtype(dtype)?;
        let qkv = split_heads(&matmul_nt(&normed, &w_qkv)?, 3, seq_len, config)?;
        let (qk, qk_inv_rms) = rope::forward(&qkv.narrow(0, 0, 2)?, &tables.rope)?;
        let qk = qk.to_dtype(dtype)?;
        let v = qkv.get(2)?.to_dtype(dtype)?;
        let (out, lse) = attention::forward(&qk.get(0)?, &qk.get(1)?, &v, &tables.mask)?;
        let out = out.to_dtype(dtype)?;
        let attended = merge_heads(&out.unsqueeze(0)?)?;
        h = (h + matmul_nt(&attended, &w_out)?)?;

        let (mlp_normed, mlp_inv_rms) = norm::forward(&h)?;
        let mlp_normed = mlp_normed.to_dtype(dtype)?;
        let (gelu, slope) = gelu::forward(&matmul_nt(&mlp_normed, &w_up)?, keep)?;
        let gelu = gelu.to_dtype(dtype)?;
        h = (h + matmul_nt(&gelu, &w_down)?)?;
        if let Some(slope) = slope {
            blocks.push(Block {
                normed,
                inv_rms,
                qk,
                qk_inv_rms,
                v,
                out,
                lse,
                attended,
                mlp_normed,
                mlp_inv_rms,
                gelu,
                slope,
            });
        }
    }
    let (hidden, inv_rms) = norm::forward(&h)?;
    Ok(Activations {
        hidden: hidden.to_dtype(params.embed_out()?.dtype())?,
        inv_rms,
        blocks,
    })
}

/// Adds to `grads`, one a tensor of the layout, the gradient of every weight but `embed_out`, whose
/// gradient the head computes. Takes the gradient of the final hidden states.
pub fn backward(
    params: &Params,
    tokens: &Tensor,
    tables: &Tables,
    acts: &Activations,
    d_hidden: &Tensor,
    grads: &mut [Option<Tensor>],
) -> Result<()> {
    let config = params.layout.config;
    let seq_len = tables.mask.dim(0)?;
    let mut dh = norm::backward(d_hidden, &acts.hidden, &acts.inv_rms)?;
    for (l, block) in acts.blocks.iter().enumerate().rev() {
        let [w_qkv, w_out, w_up, w_down] = params.block(l)?;
        let dtype = w_qkv.dtype();
        let [g_qkv, g_out, g_up, g_down] = &mut grads[2 + 4 * l..][..4] else {
            unreachable!("every block has four tensors");
        };

        let dy = dh.to_dtype(dtype)?;
        add_to(g_down, matmul_tn(&dy, &block.gelu)?)?;
        let d_mlp = (matmul_nn(&dy, &w_down)? * &block.slope)?.to_dtype(dtype)?;
        add_to(g_up, matmul_tn(&d_mlp, &block.mlp_normed)?)?;
        let d_normed = matmul_nn(&d_mlp, &w_up)?;
        dh = (dh + norm::backward(&d_normed, &block.mlp_normed, &block.mlp_inv_rms)?)?;

        let dy = dh.to_dtype(dtype)?;
        add_to(g_out, matmul_tn(&dy, &block.attended)?)?;
        let d_out = split_heads(&matmul_nn(&dy, &w_out)?, 1, seq_len, config)?.get(0)?;
        let (q, k) = (block.qk.get(0)?, block.qk.get(1)?);
        let seen = [&q, &k, &block.v];
        let [dq, dk, dv] = attention::backward(&d_out, seen, &block.out, &block.lse, &tables.mask)?;
        let d_qk = Tensor::stack(&[dq, dk], 0)?;
        let d_qk = rope::backward(&d_qk, &block.qk, &block.qk_inv_rms, &tables.rope)?;
        let d_qkv = merge_heads(&Tensor::cat(&[d_qk, dv.unsqueeze(0)?], 0)?)?.to_dtype(dtype)?;
        add_to(g_qkv, matmul_tn(&d_qkv, &block.normed)?)?;
        let d_normed = matmul_nn(&d_qkv, &w_qkv)?;
        dh = (dh + norm::backward(&d_normed, &block.normed, &block.inv_rms)?)?;
    }
    let d_embed = match grads[0].take() {
        Some(sum) => sum,
        None => Tensor::zeros((config.vocab_size, config.d_model), DType::F32, dh.device())?,
    };
    grads[0] = Some(d_embed.index_add(tokens, &dh, 0)?);
    Ok(())
}

/// `x [M, P N H]` as `[P, B, N, T, H]`.
fn split_heads(x: &Tensor, parts: usize, seq_len: usize, config: ModelConfig) -> Result<Tensor> {
    let rows = x.dim(0)? / seq_len;
    x.reshape((rows, seq_len, parts, config.n_heads(), config.head_dim))?
        .permute((2, 0, 3, 1, 4))?
        .contiguous()
}

/// `x [P, B, N, T, H]` as `[M, P N H]`.
fn merge_heads(x: &Tensor) -> Result<Tensor> {
    let (parts, rows, n_heads, seq_len, head_dim) = x.dims5()?;
    x.permute((1, 3, 0, 2, 4))?
        .contiguous()?
        .reshape((rows * seq_len, parts * n_heads * head_dim))
}

/// Keys and values of the positions generated so far, `[B, N, C, H]` a block.
pub struct Cache {
    blocks: Vec<(Tensor, Tensor)>,
    rope: RopeTable,
}

impl Cache {
    /// Room for `rows` sequences of `capacity` positions.
    pub fn new(params: &Params, rows: usize, capacity: usize) -> Result<Self> {
        let config = params.layout.config;
        let embed = params.embed_out()?;
        let shape = (rows, config.n_heads(), capacity, config.head_dim);
        let zeros = || Tensor::zeros(shape, embed.dtype(), embed.device());
        let blocks = (0..config.n_layers).map(|_| Ok((zeros()?, zeros()?)));
        let base = ModelConfig::ROPE_BASE;
        Ok(Self {
            blocks: blocks.collect::<Result<_>>()?,
            rope: RopeTable::new(capacity, config.head_dim, base, embed.device())?,
        })
    }
}

/// Position `t` of every row: from `tokens [B]` to the final hidden states `[B, D]`, rounded.
pub fn step(params: &Params, tokens: &Tensor, t: usize, cache: &mut Cache) -> Result<Tensor> {
    let config = params.layout.config;
    let rope = cache.rope.position(t)?;
    let mut h = params.embed_in()?.index_select(tokens, 0)?;
    for (l, (keys, values)) in cache.blocks.iter().enumerate() {
        let [w_qkv, w_out, w_up, w_down] = params.block(l)?;
        let dtype = w_qkv.dtype();
        let normed = norm::forward(&h)?.0.to_dtype(dtype)?;
        let qkv = split_heads(&matmul_nt(&normed, &w_qkv)?, 3, 1, config)?;
        let qk = rope::forward(&qkv.narrow(0, 0, 2)?, &rope)?.0;
        let qk = qk.to_dtype(dtype)?;
        keys.slice_set(&qk.get(1)?, 2, t)?;
        values.slice_set(&qkv.get(2)?.to_dtype(dtype)?, 2, t)?;
        let seen = (keys.narrow(2, 0, t + 1)?, values.narrow(2, 0, t + 1)?);
        let out = attention::decode(&qk.get(0)?, &seen.0, &seen.1)?.to_dtype(dtype)?;
        h = (h + matmul_nt(&merge_heads(&out.unsqueeze(0)?)?, &w_out)?)?;
        let normed = norm::forward(&h)?.0.to_dtype(dtype)?;
        let gelu = gelu::forward(&matmul_nt(&normed, &w_up)?, false)?.0;
        h = (h + matmul_nt(&gelu.to_dtype(dtype)?, &w_down)?)?;
    }
    norm::forward(&h)?.0.to_dtype(params.embed_out()?.dtype())
}
