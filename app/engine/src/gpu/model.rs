//! Forward and backward over rows of equal length.

use candle_core::{Result, Tensor};

use crate::model::{BlockLinear, Keep};

use super::heads::{Heads, Qkv};
use super::matmul::{add_matmul_tn, add_product, matmul_nn, product};
use super::ops::{self, Norm, Normed, Passing, Residual};
use super::params::Params;
use super::tensor::upload_ids;

/// Final hidden states of a forward, and the activations it keeps for its backward.
pub struct Activations {
    /// Final hidden states `[P, D]` of the positions that were asked for, rounded.
    pub hidden: Tensor,
    /// `None` if no backward follows.
    normed: Option<Normed>,
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

/// Runs the model over `tokens [M]`, keeping activations if a backward follows; the final hidden states are those of
/// the positions `wanted [P]`, or of all.
pub fn forward(
    params: &Params,
    tokens: &Tensor,
    rows: Rows,
    keep: Keep,
    wanted: Option<&Tensor>,
) -> Result<Activations> {
    let mut kept = Vec::new();
    let h = ops::embed(params.embed_in(), tokens)?;
    for l in 0..params.layout.config.n_layers {
        if keep == Keep::Inputs {
            kept.push(Kept::Input(h.copy()?));
        }
        let block = block_forward(params, l, &h, rows, None, keep == Keep::Blocks)?;
        kept.extend(block.map(Kept::Block));
    }
    let norm = final_norm(params, &h, wanted);
    let (hidden, normed) = norm.run(keep != Keep::Nothing)?;
    Ok(Activations {
        hidden,
        normed,
        kept,
    })
}

/// The final norm of rows of the residual stream `h [M, D]`.
fn final_norm<'a>(params: &'a Params, h: &'a Tensor, rows: Option<&'a Tensor>) -> Norm<'a> {
    Norm {
        x: h,
        rows,
        gain: params.final_norm(),
        eps: params.layout.config.norm_eps,
        dtype: params.dtype(),
    }
}

/// The gradient of the final hidden states.
pub struct Hidden<'a> {
    /// Of the positions that the forward was asked for, `[P, D]`, f32.
    pub d_hidden: Tensor,
    /// For each of the M positions its row there, or [`ops::NO_ROW`].
    pub row_of: &'a Tensor,
}

/// Adds to `grads`, one for each entry of the layout, the gradient of every weight except the output embedding,
/// whose gradient the head computes, from that of the final hidden states; with adapters, the gradients of the
/// adapters alone, two for each linear layer.
pub fn backward(
    params: &Params,
    tokens: &[u32],
    rows: Rows,
    mut acts: Activations,
    hidden: Hidden,
    grads: &mut [Option<Tensor>],
) -> Result<()> {
    let layout = &params.layout;
    let Some(normed) = acts.normed else {
        candle_core::bail!("the forward kept nothing for a backward");
    };
    let trains_weights = params.adapters.is_none();
    let last = layout.first_of_block(layout.config.n_layers);
    let gain = params.final_norm();
    let passing = Passing {
        dy: &hidden.d_hidden,
        gain,
        d_gain: gain.filter(|_| trains_weights).map(|_| &mut grads[last]),
    };
    let mut residual = normed.backward_to_all(hidden.row_of, passing)?;
    drop((normed, hidden.d_hidden));
    while let Some(kept) = acts.kept.pop() {
        let l = acts.kept.len();
        let block = match kept {
            Kept::Block(block) => Some(block),
            Kept::Input(h) => block_forward(params, l, &h, rows, None, true)?,
        };
        let Some(block) = block else {
            candle_core::bail!("block {l} kept nothing for its backward");
        };
        let tensors = if trains_weights {
            layout.first_of_block(l)..layout.first_of_block(l + 1)
        } else {
            let per_block = 2 * BlockLinear::COUNT;
            per_block * l..per_block * (l + 1)
        };
        residual = block_backward(params, l, &block, residual, rows.heads, &mut grads[tensors])?;
    }
    if !trains_weights {
        return Ok(());
    }
    ops::embed_backward(
        &mut grads[0],
        layout.config.vocab_size,
        tokens,
        &residual.dh,
    )
}

/// Runs block `l` over the residual stream `h [M, D]`, in place; returns its activations if it `keeps` them.
///
/// With a cache, the rows continue those in it, and their keys and values are added to it.
fn block_forward(
    params: &Params,
    l: usize,
    h: &Tensor,
    rows: Rows,
    cache: Option<&Cache>,
    keeps: bool,
) -> Result<Option<Block>> {
    let Rows { seq_len, heads } = rows;
    let (config, dtype, w) = (params.layout.config, params.dtype(), params.block(l));
    let norm = |gain| Norm {
        x: h,
        rows: None,
        gain,
        eps: config.norm_eps,
        dtype,
    };

    let (x, normed) = norm(w.attention_norm).run(keeps)?;
    let fused_qkv = product(&x, &w.qkv.t()?, dtype)?;
    let (qkv, out, lse) = match cache {
        None => {
            let qkv = heads.split(&fused_qkv, seq_len, 0)?;
            let (out, lse) = heads.attention(&qkv.q, &qkv.k, &qkv.v, 0)?;
            (Some(qkv), out, lse)
        }
        Some(cache) => {
            let q = heads.split_to_cache(&fused_qkv, seq_len, &cache.blocks[l], cache.len)?;
            let [k, v] = &cache.blocks[l];
            let so_far = |x: &Tensor| x.narrow(2, 0, cache.len + seq_len);
            let (out, lse) = heads.attention(&q, &so_far(k)?, &so_far(v)?, cache.len)?;
            (None, out, lse)
        }
    };
    let attended = heads.merge(&out)?;
    add_product(h, &attended, &w.out.t()?, 1.0)?;

    let (x, mlp_normed) = norm(w.mlp_norm).run(keeps)?;
    let up = product(&x, &w.up.t()?, dtype)?;
    add_product(h, &ops::mlp(config.mlp, &up)?, &w.down.t()?, 1.0)?;
    Ok(match (normed, qkv, mlp_normed) {
        (Some(normed), Some(qkv), Some(mlp_normed)) => Some(Block {
            normed,
            qkv,
            lse,
            attended,
            mlp_normed,
            up,
        }),
        _ => None,
    })
}

/// Backward of block `l`: the gradient of its input from that of its output; adds the gradients of its weights, or of
/// its adapters, to `grads`.
fn block_backward(
    params: &Params,
    l: usize,
    block: &Block,
    residual: Residual,
    heads: &Heads,
    grads: &mut [Option<Tensor>],
) -> Result<Residual> {
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

    let d_activated = product(&residual.rounded, w.down, dtype)?;
    let (d_up, activated) = ops::mlp_backward(mlp, &d_activated, &block.up)?;
    add(BlockLinear::Down, grads, &residual.rounded, &activated)?;
    drop((d_activated, activated));
    let passing = Passing {
        dy: &matmul_nn(&d_up, w.up)?,
        gain: w.mlp_norm,
        d_gain: trains_gains.then(|| &mut grads[5]),
    };
    let (residual, x) = block.mlp_normed.backward(residual, passing)?;
    add(BlockLinear::Up, grads, &d_up, &x)?;
    drop((d_up, x));

    add(BlockLinear::Out, grads, &residual.rounded, &block.attended)?;
    let d_attended = product(&residual.rounded, w.out, dtype)?;
    let d_out = heads.split_heads(&d_attended, block.qkv.k.dim(2)?)?;
    let d_heads = heads.attention_backward(&d_out, &block.qkv, &block.lse)?;
    let d_qkv = heads.split_backward(&d_heads, &block.qkv)?;
    drop((d_attended, d_out, d_heads));
    let passing = Passing {
        dy: &matmul_nn(&d_qkv, w.qkv)?,
        gain: w.attention_norm,
        d_gain: trains_gains.then(|| &mut grads[4]),
    };
    let (residual, x) = block.normed.backward(residual, passing)?;
    add(BlockLinear::Qkv, grads, &d_qkv, &x)?;
    Ok(residual)
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
        let rows = Rows {
            seq_len: n,
            heads: &self.heads,
        };
        let h = ops::embed(params.embed_in(), tokens)?;
        for l in 0..params.layout.config.n_layers {
            block_forward(params, l, &h, rows, Some(self), false)?;
        }
        self.len += n;
        let last = match n {
            1 => None,
            _ => {
                let rows = (h.dim(0)? / n) as u32;
                let last: Vec<u32> = (1..=rows).map(|row| row * n as u32 - 1).collect();
                Some(upload_ids(&last, h.device())?)
            }
        };
        let (hidden, _) = final_norm(params, &h, last.as_ref()).run(false)?;
        Ok(hidden)
    }
}
