//! Forward and backward over rows of equal length.

use candle_core::{DType, Result, Tensor};

use crate::model::{BlockLinear, Keep};

use super::heads::{Heads, Qkv};
use super::matmul::{add_matmul_tn, matmul_nn, matmul_nt};
use super::ops::{self, Normed, norm};
use super::params::Params;

/// Final hidden states of a forward, and the activations it keeps for its backward.
pub struct Activations {
    /// Final hidden states `[M, D]`, rounded.
    pub hidden: Tensor,
    normed: Normed,
    /// One for each block; empty if no backward follows.
    kept: Vec<Kept>,
}

/// What a forward keeps of a block.
enum Kept {
    /// Input `[M, D]`, f32; the backward computes the block again.
    Input(Tensor),
    Block(Block),
}

/// Activations that a block's backward needs; inputs of matrix products are rounded, the others are f32.
struct Block {
    /// Normalised input of attention.
    normed: Normed,
    qkv: Qkv,
    /// Log-sum-exp of attention's scores `[B, K, T G]`.
    lse: Tensor,
    /// Output of attention `[M, N H]`.
    attended: Tensor,
    /// Normalised input of the MLP.
    mlp_normed: Normed,
    /// Input of the MLP's activation: `[M, F]`, or gate and up `[M, 2 F]`.
    up: Tensor,
}

/// Rows of equal length, and attention within them.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    /// Tokens of a row.
    pub seq_len: usize,
    pub heads: &'a Heads,
}

/// Runs the model over `tokens [M]`, keeping activations if a backward follows.
pub fn forward(params: &Params, tokens: &Tensor, rows: Rows, keep: Keep) -> Result<Activations> {
    let mut kept = Vec::new();
    let mut h = embed(params, tokens)?;
    for l in 0..params.layout.config.n_layers {
        let (out, block) = block_forward(params, l, &h, rows, None)?;
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

/// Adds to `grads`, one for each entry of the layout, the gradient of every weight except the output embedding,
/// whose gradient the head computes, from that of the final hidden states; with adapters, the gradients of the
/// adapters alone, two for each linear layer.
pub fn backward(
    params: &Params,
    tokens: &[u32],
    rows: Rows,
    mut acts: Activations,
    d_hidden: &Tensor,
    grads: &mut [Option<Tensor>],
) -> Result<()> {
    let layout = &params.layout;
    let mut dh = acts.normed.backward(None, d_hidden, params.final_norm())?;
    let trains_weights = params.adapters.is_none();
    if trains_weights && params.final_norm().is_some() {
        let last = layout.first_of_block(layout.config.n_layers);
        acts.normed.gain_backward(&mut grads[last], d_hidden)?;
    }
    while let Some(kept) = acts.kept.pop() {
        let l = acts.kept.len();
        let block = match kept {
            Kept::Block(block) => block,
            Kept::Input(h) => block_forward(params, l, &h, rows, None)?.1,
        };
        let tensors = if trains_weights {
            layout.first_of_block(l)..layout.first_of_block(l + 1)
        } else {
            let per_block = 2 * BlockLinear::COUNT;
            per_block * l..per_block * (l + 1)
        };
        dh = block_backward(params, l, &block, dh, rows.heads, &mut grads[tensors])?;
    }
    if !trains_weights {
        return Ok(());
    }
    ops::embed_backward(&mut grads[0], layout.config.vocab_size, tokens, &dh)
}

/// Input embedding of tokens, `[M, D]`, f32.
fn embed(params: &Params, tokens: &Tensor) -> Result<Tensor> {
    params
        .embed_in()
        .index_select(tokens, 0)?
        .to_dtype(DType::F32)
}

/// Runs block `l` over the residual stream `h [M, D]`: its output, and its activations.
///
/// With a cache, the rows continue those in it, and their keys and values are added to it.
fn block_forward(
    params: &Params,
    l: usize,
    h: &Tensor,
    rows: Rows,
    cache: Option<&Cache>,
) -> Result<(Tensor, Block)> {
    let Rows { seq_len, heads } = rows;
    let (config, dtype, w) = (params.layout.config, params.dtype(), params.block(l));
    let first = cache.map_or(0, |cache| cache.len);

    let normed = norm(h, config.norm_eps, dtype)?;
    let fused_qkv = matmul_nt(&normed.gained(w.attention_norm)?, w.qkv)?;
    let qkv = heads.split(&fused_qkv, seq_len, first, dtype)?;
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

/// Backward of block `l`: the gradient of its input from that of its output, `dh`; adds the gradients of its
/// weights, or of its adapters, to `grads`.
fn block_backward(
    params: &Params,
    l: usize,
    block: &Block,
    dh: Tensor,
    heads: &Heads,
    grads: &mut [Option<Tensor>],
) -> Result<Tensor> {
    let (mlp, dtype, w) = (params.layout.config.mlp, params.dtype(), params.block(l));
    let add = |linear: BlockLinear, grads: &mut [Option<Tensor>], dy: &Tensor, x: &Tensor| {
        let i = linear as usize;
        match &params.adapters {
            Some(adapters) => {
                adapters.backward(&mut grads[2 * i..2 * i + 2], linear.number(l), dy, x)
            }
            None => add_matmul_tn(&mut grads[i], dy, x),
        }
    };
    let trains_gains = params.adapters.is_none() && w.mlp_norm.is_some();

    let dy = dh.to_dtype(dtype)?;
    let (d_up, activated) = ops::mlp_backward(mlp, &matmul_nn(&dy, w.down)?, &block.up, dtype)?;
    add(BlockLinear::Down, grads, &dy, &activated)?;
    let up = BlockLinear::Up;
    add(up, grads, &d_up, &block.mlp_normed.gained(w.mlp_norm)?)?;
    let d_normed = matmul_nn(&d_up, w.up)?;
    let dh = block
        .mlp_normed
        .backward(Some(&dh), &d_normed, w.mlp_norm)?;
    if trains_gains {
        block.mlp_normed.gain_backward(&mut grads[5], &d_normed)?;
    }

    let dy = dh.to_dtype(dtype)?;
    add(BlockLinear::Out, grads, &dy, &block.attended)?;
    let seq_len = block.qkv.k.dim(2)?;
    let d_out = heads.split_heads(&matmul_nn(&dy, w.out)?, seq_len, dtype)?;
    let d_heads = heads.attention_backward(&d_out, &block.qkv, &block.lse)?;
    let d_qkv = heads.split_backward(&d_heads, &block.qkv)?;
    let qkv = BlockLinear::Qkv;
    add(qkv, grads, &d_qkv, &block.normed.gained(w.attention_norm)?)?;
    let d_normed = matmul_nn(&d_qkv, w.qkv)?;
    let dh = block
        .normed
        .backward(Some(&dh), &d_normed, w.attention_norm)?;
    if trains_gains {
        block.normed.gain_backward(&mut grads[4], &d_normed)?;
    }
    Ok(dh)
}

#[cfg(test)]
impl Activations {
    /// Bytes kept for the backward.
    pub fn kept_bytes(&self) -> usize {
        let tensors = self.kept.iter().flat_map(|kept| match kept {
            Kept::Input(h) => vec![h],
            Kept::Block(block) => {
                let Qkv { q, k, v, inv_rms } = &block.qkv;
                let norms = [&block.normed, &block.mlp_normed]
                    .into_iter()
                    .flat_map(|norm| [&norm.y, &norm.inv_rms]);
                let others = [q, k, v, inv_rms, &block.lse, &block.attended, &block.up];
                norms.chain(others).collect()
            }
        });
        tensors
            .map(|x| x.elem_count() * x.dtype().size_in_bytes())
            .sum()
    }
}

/// KV cache of rows that are generated together.
pub struct Cache {
    /// Keys and values of each block, `[B, K, C, H]` each.
    blocks: Vec<[Tensor; 2]>,
    heads: Heads,
    /// Number of positions so far.
    len: usize,
}

impl Cache {
    /// An empty cache for `rows` sequences of up to `capacity` positions.
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

    /// Runs the next `n` positions of every row, `tokens [B n]`; returns the final hidden states `[B, D]` of the
    /// last one, rounded.
    pub fn run(&mut self, params: &Params, tokens: &Tensor, n: usize) -> Result<Tensor> {
        let (config, d) = (params.layout.config, params.layout.config.d_model);
        let rows = Rows {
            seq_len: n,
            heads: &self.heads,
        };
        let mut h = embed(params, tokens)?;
        for l in 0..config.n_layers {
            h = block_forward(params, l, &h, rows, Some(self))?.0;
        }
        self.len += n;
        let b = h.dim(0)? / n;
        let last = h.reshape((b, n, d))?.narrow(1, n - 1, 1)?;
        let last_h = last.contiguous()?.reshape((b, d))?;
        norm(&last_h, config.norm_eps, params.dtype())?.gained(params.final_norm())
    }

    /// Appends a block's new keys and values; returns all of them, `[B, K, S, H]` each.
    fn extend(&self, l: usize, qkv: &Qkv) -> Result<(Tensor, Tensor)> {
        let [keys, values] = &self.blocks[l];
        keys.slice_set(&qkv.k, 2, self.len)?;
        values.slice_set(&qkv.v, 2, self.len)?;
        let len = self.len + qkv.k.dim(2)?;
        Ok((keys.narrow(2, 0, len)?, values.narrow(2, 0, len)?))
    }
}
