//! Forward and backward over rows of equal length.

use candle_core::{Result, Tensor};

use crate::model::{BlockLinear, Keep, Vector};

use super::half::{Input, Linear};
use super::heads::{Heads, Part, Qkv};
use super::matmul::{add_matmul_tn, product, scaled_product};
use super::ops::{self, Normed, Passing, Residual, Summed, add_rows};
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
    /// Input of attention.
    input: Input,
    qkv: Qkv,
    /// Log-sum-exp of attention's scores `[B, K, T G]`.
    lse: Tensor,
    /// Output of attention `[M, N H]`.
    attended: Tensor,
    /// What attention adds to the residual stream, if it has a norm.
    normed: Option<Normed>,
    /// Input of the MLP.
    mlp_input: Input,
    /// Input of the MLP's activation: `[M, F]`, or gate and up `[M, 2 F]`.
    up: Tensor,
    /// What the MLP adds to the residual stream, if it has a norm.
    mlp_normed: Option<Normed>,
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
    let h = embed(params, tokens)?;
    for l in 0..params.layout.config.n_layers {
        if keep == Keep::Inputs {
            kept.push(Kept::Input(h.copy()?));
        }
        let block = block_forward(params, l, &h, rows, None, keep == Keep::Blocks)?;
        kept.extend(block.map(Kept::Block));
    }
    let norm = params.final_norm();
    let (hidden, normed) = norm.run(&h, wanted, keep != Keep::Nothing)?;
    Ok(Activations {
        hidden,
        normed,
        kept,
    })
}

/// The residual stream `[M, D]` before the first block.
fn embed(params: &Params, tokens: &Tensor) -> Result<Tensor> {
    let scale = params.layout.config.parts.embedding_scale;
    ops::embed(params.embed_in(), tokens, scale)
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
    drop(acts.hidden);
    let trains_weights = params.adapters.is_none();
    let last = layout.first_of_block(layout.config.n_layers);
    let norm = params.final_norm();
    let trained = norm.gain.filter(|_| trains_weights);
    let passing = Passing {
        dy: &hidden.d_hidden,
        norm,
        d_gain: trained.map(|_| &mut grads[last]),
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
        layout.config.parts.embedding_scale,
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
    let (dtype, w) = (params.dtype(), params.block(l));
    let heads = heads.of(l, w.qkv_weights);

    let (x, input) = w.attention.input(h, keeps)?;
    let fused_qkv = product(&x, &w.qkv.t()?, dtype)?;
    drop(x);
    let (qkv, out, lse) = match cache {
        None => {
            let qkv = heads.split(&fused_qkv, seq_len, 0)?;
            drop(fused_qkv);
            let (out, lse) = heads.attention(&qkv.q, &qkv.k, &qkv.v, 0)?;
            (Some(qkv), out, lse)
        }
        Some(cache) => {
            let q = heads.split_to_cache(&fused_qkv, seq_len, &cache.blocks[l], cache.len)?;
            drop(fused_qkv);
            let [k, v] = &cache.blocks[l];
            let so_far = |x: &Tensor| x.narrow(2, 0, cache.len + seq_len);
            let (out, lse) = heads.attention(&q, &so_far(k)?, &so_far(v)?, cache.len)?;
            (None, out, lse)
        }
    };
    let attended = heads.merge(&out)?;
    drop(out);
    let normed = w.attention.add(h, &attended, keeps)?;
    let attention = qkv.filter(|_| keeps).map(|qkv| (qkv, lse, attended));

    let (x, mlp_input) = w.mlp.input(h, keeps)?;
    let up = product(&x, &w.up.t()?, dtype)?;
    drop(x);
    let activated = ops::mlp(params.layout.config.mlp, &up)?;
    let mlp_normed = w.mlp.add(h, &activated, keeps)?;
    Ok(match (input, attention, mlp_input) {
        (Some(input), Some((qkv, lse, attended)), Some(mlp_input)) => Some(Block {
            input,
            qkv,
            lse,
            attended,
            normed,
            mlp_input,
            up,
            mlp_normed,
        }),
        _ => None,
    })
}

/// Gradients of a block's tensors, or of its adapters.
struct Gradients<'a> {
    params: &'a Params,
    /// Number of the block.
    l: usize,
    sums: &'a mut [Option<Tensor>],
}

impl Gradients<'_> {
    /// Adds that of a linear layer, or of its adapters, from its input `x` and the gradient of its output.
    fn add(&mut self, linear: BlockLinear, dy: (&Tensor, f32), x: &Tensor) -> Result<()> {
        let i = linear as usize;
        match &self.params.adapters {
            Some(adapters) => {
                let sums = &mut self.sums[2 * i..2 * i + 2];
                adapters.backward(sums, linear.number(self.l), dy, x)
            }
            None => add_matmul_tn(&mut self.sums[i], dy.0, x, dy.1),
        }
    }

    /// Where that of a vector is added, if the model has it and trains it.
    fn vector(&mut self, vector: Vector) -> Option<&mut Option<Tensor>> {
        let layout = &self.params.layout;
        let entry = layout.vector_entry(self.l, vector)? - layout.first_of_block(self.l);
        let trains_weights = self.params.adapters.is_none();
        trains_weights.then(|| &mut self.sums[entry])
    }
}

/// Backward of block `l`: the gradient of its input from that of its output; adds the gradients of its weights, or of
/// its adapters, to `sums`.
fn block_backward(
    params: &Params,
    l: usize,
    block: &Block,
    residual: Residual,
    heads: &Heads,
    sums: &mut [Option<Tensor>],
) -> Result<Residual> {
    let mut grads = Gradients { params, l, sums };
    let residual = mlp_backward(block, residual, &mut grads)?;
    attention_backward(block, residual, heads, &mut grads)
}

/// Backward of a block's MLP, with what is around it.
fn mlp_backward(block: &Block, residual: Residual, grads: &mut Gradients) -> Result<Residual> {
    let (params, l) = (grads.params, grads.l);
    let (mlp, dtype, w) = (params.layout.config.mlp, params.dtype(), params.block(l));
    let d_gain = grads.vector(Vector::MlpPostNorm);
    let (dy, factor) = w
        .mlp
        .add_back(&residual, block.mlp_normed.as_ref(), d_gain)?;
    let d_activated = scaled_product(&dy, w.mlp.last, factor, dtype)?;
    let (d_up, activated) = ops::mlp_backward(mlp, &d_activated, &block.up)?;
    grads.add(BlockLinear::Down, (&dy, factor), &activated)?;
    drop((d_activated, activated, dy));
    let up = Linear { dy: &d_up, w: w.up };
    let d_gain = grads.vector(Vector::MlpNorm);
    let (residual, x) = w.mlp.input_back(residual, &up, &block.mlp_input, d_gain)?;
    grads.add(BlockLinear::Up, (&d_up, 1.0), &x)?;
    Ok(residual)
}

/// Backward of a block's attention, with what is around it.
fn attention_backward(
    block: &Block,
    residual: Residual,
    heads: &Heads,
    grads: &mut Gradients,
) -> Result<Residual> {
    let params = grads.params;
    let (dtype, w) = (params.dtype(), params.block(grads.l));
    let heads = heads.of(grads.l, w.qkv_weights);
    let d_gain = grads.vector(Vector::AttentionPostNorm);
    let (dy, factor) = w
        .attention
        .add_back(&residual, block.normed.as_ref(), d_gain)?;
    grads.add(BlockLinear::Out, (&dy, factor), &block.attended)?;
    let d_attended = scaled_product(&dy, w.attention.last, factor, dtype)?;
    let d_out = heads.split_heads(&d_attended, block.qkv.k.dim(2)?)?;
    let d_heads = heads.attention_backward(&d_out, &block.qkv, &block.lse)?;
    let trains_gains = params.adapters.is_none();
    let (d_qkv, sums) = heads.split_backward(&d_heads, &block.qkv, trains_gains)?;
    drop((d_attended, d_out, d_heads, dy));
    for (vector, part) in [(Vector::QNorm, Part::Queries), (Vector::KNorm, Part::Keys)] {
        if let (Some(d_gain), Some(sums)) = (grads.vector(vector), &sums) {
            heads.add_gains(d_gain, sums, part)?;
        }
    }
    if let Some(d_bias) = grads.vector(Vector::QkvBias) {
        add_rows(d_bias, Summed::all(&d_qkv)?)?;
    }
    drop(sums);
    let qkv = Linear {
        dy: &d_qkv,
        w: w.qkv,
    };
    let d_gain = grads.vector(Vector::AttentionNorm);
    let (residual, x) = (w.attention).input_back(residual, &qkv, &block.input, d_gain)?;
    grads.add(BlockLinear::Qkv, (&d_qkv, 1.0), &x)?;
    Ok(residual)
}

#[cfg(test)]
impl Activations {
    /// Bytes kept for the backward.
    pub fn kept_bytes(&self) -> usize {
        let tensors = self.kept.iter().flat_map(|kept| match kept {
            Kept::Input(h) => vec![h],
            Kept::Block(block) => {
                let Qkv {
                    q,
                    k,
                    v,
                    inv_rms,
                    fused,
                } = &block.qkv;
                let inputs = [&block.input, &block.mlp_input].into_iter();
                let inputs = inputs.flat_map(|input| match input {
                    Input::Normed(norm) => vec![&norm.y, &norm.inv_rms],
                    Input::Plain(x) => vec![x],
                });
                let norms = [&block.normed, &block.mlp_normed].into_iter().flatten();
                let norms = norms.flat_map(|norm| [&norm.y, &norm.inv_rms]);
                let others = [q, k, v, inv_rms, &block.lse, &block.attended, &block.up];
                let others = others.into_iter().chain(fused);
                inputs.chain(norms).chain(others).collect()
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
        let h = embed(params, tokens)?;
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
        let (hidden, _) = params.final_norm().run(&h, last.as_ref(), false)?;
        Ok(hidden)
    }
}
