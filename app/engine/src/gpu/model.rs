//! Forward and backward over rows of equal length.

use candle_core::{DType, Result, Tensor};

use super::Params;
use super::heads::{Heads, Qkv};
use super::matmul::{add_matmul_tn, matmul_nn, matmul_nt};
use super::ops::{self, Normed, norm};

/// What a forward leaves.
pub struct Activations {
    /// `[M, D]`, rounded: what the output embedding takes.
    pub hidden: Tensor,
    normed: Normed,
    /// What its backward needs of each block; empty if there is none to come.
    kept: Vec<Kept>,
}

/// What a forward keeps of its blocks for a backward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Nothing: there is no backward.
    Nothing,
    /// Their inputs; the backward runs each block again.
    Inputs,
    /// All that the backward needs.
    Blocks,
}

enum Kept {
    /// Input `[M, D]`, f32.
    Input(Tensor),
    Block(Block),
}

/// What a block's backward needs. Inputs of matrix products are rounded, the rest is f32.
struct Block {
    /// Input of attention.
    normed: Normed,
    qkv: Qkv,
    /// Log-sum-exp `[B, K, T G]` and output `[M, N H]` of attention.
    lse: Tensor,
    attended: Tensor,
    /// Input of the MLP.
    mlp_normed: Normed,
    /// Input of its non-linearity `[M, F]`, or gate and up `[M, 2 F]`.
    up: Tensor,
}

/// Runs the model over `tokens [M]`, rows of `seq_len`.
pub fn forward(
    params: &Params,
    tokens: &Tensor,
    seq_len: usize,
    heads: &Heads,
    keep: Keep,
) -> Result<Activations> {
    let mut kept = Vec::new();
    let mut h = embed(params, tokens)?;
    for l in 0..params.layout.config.n_layers {
        let (out, block) = block_forward(params, l, &h, seq_len, heads, None)?;
        match keep {
            Keep::Nothing => {}
            Keep::Inputs => kept.push(Kept::Input(h)),
            Keep::Blocks => kept.push(Kept::Block(block)),
        }
        h = out;
    }
    let normed = norm(&h, params.layout.config.norm_eps, params.dtype())?;
    Ok(Activations {
        hidden: normed.gained(params.final_norm())?,
        normed,
        kept,
    })
}

/// Adds to `grads`, one a tensor of the layout, the gradients of all but what the head computes, from
/// that of the final hidden states; where there are adapters, those of these alone, two a linear layer.
pub fn backward(
    params: &Params,
    tokens: &[u32],
    seq_len: usize,
    heads: &Heads,
    mut acts: Activations,
    d_hidden: &Tensor,
    grads: &mut [Option<Tensor>],
) -> Result<()> {
    let layout = &params.layout;
    let mut dh = acts.normed.backward(None, d_hidden, params.final_norm())?;
    let all = params.adapters.is_none();
    if all && params.final_norm().is_some() {
        let last = layout.first_of_block(layout.config.n_layers);
        acts.normed.gain_backward(&mut grads[last], d_hidden)?;
    }
    while let Some(kept) = acts.kept.pop() {
        let l = acts.kept.len();
        let block = match kept {
            Kept::Block(block) => block,
            Kept::Input(h) => block_forward(params, l, &h, seq_len, heads, None)?.1,
        };
        let grads = match all {
            true => &mut grads[layout.first_of_block(l)..layout.first_of_block(l + 1)],
            false => &mut grads[8 * l..8 * (l + 1)],
        };
        dh = block_backward(params, l, &block, dh, heads, grads)?;
    }
    if !all {
        return Ok(());
    }
    ops::embed_backward(&mut grads[0], layout.config.vocab_size, tokens, &dh)
}

/// Rows of the input embedding, `[M, D]`, f32.
fn embed(params: &Params, tokens: &Tensor) -> Result<Tensor> {
    params
        .embed_in()
        .index_select(tokens, 0)?
        .to_dtype(DType::F32)
}

/// Block `l` of `h [M, D]`, rows of `seq_len`: its output, and what its backward needs.
///
/// Positions before those are in the cache, if there is one, and these are added to it.
fn block_forward(
    params: &Params,
    l: usize,
    h: &Tensor,
    seq_len: usize,
    heads: &Heads,
    cache: Option<&Cache>,
) -> Result<(Tensor, Block)> {
    let (config, dtype, w) = (params.layout.config, params.dtype(), params.block(l));
    let first = cache.map_or(0, |cache| cache.len);

    let normed = norm(h, config.norm_eps, dtype)?;
    let qkv = matmul_nt(&normed.gained(w.attention_norm)?, w.qkv)?;
    let qkv = heads.split(&qkv, seq_len, first, dtype)?;
    let (out, lse) = match cache {
        None => heads.attention(&qkv.q, &qkv.k, &qkv.v, 0)?,
        Some(cache) => {
            let (k, v) = cache.extend(l, &qkv)?;
            heads.attention(&qkv.q, &k, &v, first)?
        }
    };
    let attended = heads.merge(&out, dtype)?;
    let h = (h + matmul_nt(&attended, w.out)?)?;

    let mlp_normed = norm(&h, config.norm_eps, dtype)?;
    let up = matmul_nt(&mlp_normed.gained(w.mlp_norm)?, w.up)?;
    let h = (h + matmul_nt(&ops::mlp(config.mlp, &up, dtype)?, w.down)?)?;
    let block = Block {
        normed,
        qkv,
        lse,
        attended,
        mlp_normed,
        up,
    };
    Ok((h, block))
}

/// Gradient of a block's input from that of its output; adds those of its weights.
fn block_backward(
    params: &Params,
    l: usize,
    block: &Block,
    dh: Tensor,
    heads: &Heads,
    grads: &mut [Option<Tensor>],
) -> Result<Tensor> {
    let (mlp, dtype, w) = (params.layout.config.mlp, params.dtype(), params.block(l));
    let add =
        |i: usize, grads: &mut [Option<Tensor>], dy: &Tensor, x: &Tensor| match &params.adapters {
            Some(adapters) => adapters.backward(&mut grads[2 * i..2 * i + 2], 4 * l + i, dy, x),
            None => add_matmul_tn(&mut grads[i], dy, x),
        };
    let gains = params.adapters.is_none() && w.mlp_norm.is_some();

    let dy = dh.to_dtype(dtype)?;
    let (d_up, activated) = ops::mlp_backward(mlp, &matmul_nn(&dy, w.down)?, &block.up, dtype)?;
    add(3, grads, &dy, &activated)?;
    add(2, grads, &d_up, &block.mlp_normed.gained(w.mlp_norm)?)?;
    let d_normed = matmul_nn(&d_up, w.up)?;
    let dh = block
        .mlp_normed
        .backward(Some(&dh), &d_normed, w.mlp_norm)?;
    if gains {
        block.mlp_normed.gain_backward(&mut grads[5], &d_normed)?;
    }

    let dy = dh.to_dtype(dtype)?;
    add(1, grads, &dy, &block.attended)?;
    let seq_len = block.qkv.k.dim(2)?;
    let d_out = heads.split_heads(&matmul_nn(&dy, w.out)?, seq_len, dtype)?;
    let d = heads.attention_backward(&d_out, &block.qkv, &block.lse)?;
    let d_qkv = heads.split_backward(&d, &block.qkv)?;
    add(0, grads, &d_qkv, &block.normed.gained(w.attention_norm)?)?;
    let d_normed = matmul_nn(&d_qkv, w.qkv)?;
    let dh = block
        .normed
        .backward(Some(&dh), &d_normed, w.attention_norm)?;
    if gains {
        block.normed.gain_backward(&mut grads[4], &d_normed)?;
    }
    Ok(dh)
}

#[cfg(test)]
impl Activations {
    /// What is kept for the backward.
    pub fn kept_bytes(&self) -> usize {
        let each = self.kept.iter().flat_map(|kept| match kept {
            Kept::Input(h) => vec![h],
            Kept::Block(block) => {
                let Qkv { q, k, v, inv_rms } = &block.qkv;
                let norms = [&block.normed, &block.mlp_normed];
                let norms = norms.into_iter().flat_map(|norm| [&norm.y, &norm.inv_rms]);
                let others = [q, k, v, inv_rms, &block.lse, &block.attended, &block.up];
                norms.chain(others).collect()
            }
        });
        each.map(|x| x.elem_count() * x.dtype().size_in_bytes())
            .sum()
    }
}

/// Keys and values of the positions so far of rows that are generated together.
pub struct Cache {
    /// `[B, K, C, H]` each, a pair for each block.
    blocks: Vec<[Tensor; 2]>,
    heads: Heads,
    /// Positions so far.
    len: usize,
}

impl Cache {
    /// Room for `rows` sequences of `capacity` positions.
    pub fn new(params: &Params, rows: usize, capacity: usize) -> Result<Self> {
        let (config, device) = (params.layout.config, params.embed_in().device());
        let shape = (rows, config.n_kv_heads, capacity, config.head_dim);
        let zeros = || Tensor::zeros(shape, params.dtype(), device);
        let blocks = (0..config.n_layers).map(|_| Ok([zeros()?, zeros()?]));
        Ok(Self {
            blocks: blocks.collect::<Result<_>>()?,
            heads: Heads::new(config, capacity, device)?,
            len: 0,
        })
    }

    /// Runs the next `n` positions of every row, `tokens [B n]`; gives the final hidden states of the
    /// last one, `[B, D]`, rounded.
    pub fn run(&mut self, params: &Params, tokens: &Tensor, n: usize) -> Result<Tensor> {
        let config = params.layout.config;
        let mut h = embed(params, tokens)?;
        for l in 0..config.n_layers {
            h = block_forward(params, l, &h, n, &self.heads, Some(self))?.0;
        }
        self.len += n;
        let rows = h.dim(0)? / n;
        let last = h.reshape((rows, n, config.d_model))?.narrow(1, n - 1, 1)?;
        let last = last.contiguous()?.reshape((rows, config.d_model))?;
        norm(&last, config.norm_eps, params.dtype())?.gained(params.final_norm())
    }

    /// Writes a block's new keys and values behind the earlier ones; gives all, `[B, K, S, H]`.
    fn extend(&self, l: usize, qkv: &Qkv) -> Result<(Tensor, Tensor)> {
        let [keys, values] = &self.blocks[l];
        keys.slice_set(&qkv.k, 2, self.len)?;
        values.slice_set(&qkv.v, 2, self.len)?;
        let len = self.len + qkv.k.dim(2)?;
        Ok((keys.narrow(2, 0, len)?, values.narrow(2, 0, len)?))
    }
}
