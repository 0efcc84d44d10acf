//! Forward and backward of the transformer's parts on tensors.
//!
//! The counterparts of [`crate::ops`], with the same formulas, in the kernels of `kernels.cu`. What
//! goes into a matrix product comes out rounded to the engine's precision, all else is f32.

use candle_core::{DType, Device, Result, Tensor};

use crate::model::ModelConfig;
use crate::ops::norm::EPS;

use super::kernels::launch;
use super::matmul::product;

/// 1 for tensors that are bf16, as kernels take it.
pub(super) fn flag(dtype: DType) -> usize {
    usize::from(dtype == DType::BF16)
}

/// RMSNorm without gain of `x [M, D]`: rounded `y`, and `1/rms [M]`.
pub fn norm(x: &Tensor, dtype: DType) -> Result<(Tensor, Tensor)> {
    let (m, d) = x.dims2()?;
    let [y, inv_rms] = launch(
        "norm_forward",
        (m, d),
        [(vec![m, d], dtype), (vec![m], DType::F32)],
        &[Some(x)],
        &[d, flag(dtype)],
        &[EPS],
    )?;
    Ok((y, inv_rms))
}

/// `dh [M, D]`, or zero, with the gradient through the norm added.
pub fn norm_backward(
    dh: Option<&Tensor>,
    dy: &Tensor,
    y: &Tensor,
    inv_rms: &Tensor,
) -> Result<Tensor> {
    let (m, d) = dy.dims2()?;
    let [dx] = launch(
        "norm_backward",
        (m, d),
        [((m, d), DType::F32)],
        &[dh, Some(dy), Some(y), Some(inv_rms)],
        &[d, flag(y.dtype())],
        &[],
    )?;
    Ok(dx)
}

/// Cosines and sines of every position: `[T, H/2]` each.
#[derive(Clone, Debug)]
pub struct RopeTable {
    cos: Tensor,
    sin: Tensor,
}

impl RopeTable {
    /// A table for positions `0..seq_len`.
    pub fn new(config: ModelConfig, seq_len: usize, device: &Device) -> Result<Self> {
        let (h, base) = (config.head_dim, ModelConfig::ROPE_BASE);
        let angle = |t: usize, i: usize| t as f64 * base.powf(-(2.0 * i as f64) / h as f64);
        let each = |f: fn(f64) -> f64| {
            let table: Vec<f32> = (0..seq_len)
                .flat_map(|t| (0..h / 2).map(move |i| f(angle(t, i)) as f32))
                .collect();
            Tensor::from_vec(table, (seq_len, h / 2), device)
        };
        Ok(Self {
            cos: each(f64::cos)?,
            sin: each(f64::sin)?,
        })
    }
}

/// How heads stand in rows.
#[derive(Clone, Copy)]
pub struct Heads {
    /// Heads N.
    pub n_heads: usize,
    /// Head size H.
    pub head_dim: usize,
    /// Positions T of a sequence.
    pub seq_len: usize,
}

impl Heads {
    /// Those of a model.
    pub fn new(config: ModelConfig, seq_len: usize) -> Self {
        Self {
            n_heads: config.n_heads(),
            head_dim: config.head_dim,
            seq_len,
        }
    }

    fn sizes(self, dtype: DType, first: usize, m: usize) -> [usize; 6] {
        let Self {
            n_heads,
            head_dim,
            seq_len,
        } = self;
        [flag(dtype), n_heads, seq_len, head_dim, first, m]
    }

    /// `[B, N, T, H]` of `m` rows.
    fn shape(self, m: usize) -> (usize, usize, usize, usize) {
        (m / self.seq_len, self.n_heads, self.seq_len, self.head_dim)
    }
}

/// `qkv [M, 3 N H]` to rounded `[3, B, N, T, H]` with q and k normalised and rotated, and their
/// `1/rms [M, 2 N]`. Sequences begin at position `first`.
pub fn split_qkv(
    qkv: &Tensor,
    table: &RopeTable,
    heads: Heads,
    first: usize,
    dtype: DType,
) -> Result<(Tensor, Tensor)> {
    let m = qkv.dim(0)?;
    let (b, n, t, h) = heads.shape(m);
    let shapes = [(vec![3, b, n, t, h], dtype), (vec![m, 2 * n], DType::F32)];
    let [split, inv_rms] = launch(
        "qkv_forward",
        (m * 3 * heads.n_heads, heads.head_dim),
        shapes,
        &[Some(qkv), Some(&table.cos), Some(&table.sin)],
        &heads.sizes(dtype, first, m),
        &[EPS],
    )?;
    Ok((split, inv_rms))
}

/// Gradient of the raw `qkv [M, 3 N H]`, rounded, from those of q, k and v and what the forward gave.
pub fn split_qkv_backward(
    [dq, dk, dv]: [&Tensor; 3],
    split: &Tensor,
    inv_rms: &Tensor,
    table: &RopeTable,
    heads: Heads,
) -> Result<Tensor> {
    let (m, dtype) = (inv_rms.dim(0)?, split.dtype());
    let inputs = [dq, dk, dv, split, inv_rms, &table.cos, &table.sin];
    let shape = (m, 3 * heads.n_heads * heads.head_dim);
    let [d_qkv] = launch(
        "qkv_backward",
        (m * 3 * heads.n_heads, heads.head_dim),
        [(shape, dtype)],
        &inputs.map(Some),
        &heads.sizes(dtype, 0, m),
        &[],
    )?;
    Ok(d_qkv)
}

/// `x [B, N, T, H]` as rounded `[M, N H]`.
pub fn merge_heads(x: &Tensor, dtype: DType) -> Result<Tensor> {
    let (rows, n_heads, seq_len, head_dim) = x.dims4()?;
    let heads = Heads {
        n_heads,
        head_dim,
        seq_len,
    };
    let shape = vec![rows * seq_len, n_heads * head_dim];
    move_heads(x, shape, heads, true, dtype)
}

/// `x [M, N H]` as rounded `[B, N, T, H]`.
pub fn split_heads(x: &Tensor, heads: Heads, dtype: DType) -> Result<Tensor> {
    let (b, n, t, h) = heads.shape(x.dim(0)?);
    move_heads(x, vec![b, n, t, h], heads, false, dtype)
}

fn move_heads(
    x: &Tensor,
    shape: Vec<usize>,
    heads: Heads,
    merge: bool,
    dtype: DType,
) -> Result<Tensor> {
    let width = heads.n_heads * heads.head_dim;
    let m = x.elem_count() / width;
    let sizes = heads.sizes(dtype, usize::from(merge), m);
    let [moved] = launch(
        "move_heads",
        (m, width),
        [(shape, dtype)],
        &[Some(x)],
        &sizes,
        &[],
    )?;
    Ok(moved)
}

/// Causal attention of `q [B, N, T, H]`, which stand at positions `first..first + T`, to `k, v
/// [B, N, S, H]`: the output `[B, N, T, H]` and the scaled scores' log-sum-exp `[B, N, T]`.
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, first: usize) -> Result<(Tensor, Tensor)> {
    let (scores, dtype) = (product(q, &k.t()?)?, q.dtype());
    let (b, n, t, s) = scores.dims4()?;
    let outputs = [(vec![b, n, t, s], dtype), (vec![b, n, t], DType::F32)];
    let sizes = [flag(dtype), s, t, first];
    let work = (b * n * t, s);
    let inputs = [Some(&scores)];
    let [p, lse] = launch(
        "softmax_forward",
        work,
        outputs,
        &inputs,
        &sizes,
        &[scale(q)?],
    )?;
    Ok((product(&p, v)?, lse))
}

/// Gradients of `q, k, v`, all `[B, N, T, H]`, from that of the output, rounded.
///
/// Computes the probabilities again, so that `[B, N, T, T]` exists in one layer at a time.
pub fn attention_backward(
    d_out: &Tensor,
    [q, k, v]: [&Tensor; 3],
    lse: &Tensor,
) -> Result<[Tensor; 3]> {
    let (scores, dtype) = (product(q, &k.t()?)?, q.dtype());
    let dp = product(d_out, &v.t()?)?;
    let (b, n, t, s) = scores.dims4()?;
    let [p, d_scores] = launch(
        "softmax_backward",
        (b * n * t, s),
        [((b, n, t, s), dtype); 2],
        &[Some(&scores), Some(lse), Some(&dp)],
        &[flag(dtype), s, t, 0],
        &[scale(q)?],
    )?;
    let dv = product(&p.t()?, d_out)?;
    Ok([product(&d_scores, k)?, product(&d_scores.t()?, q)?, dv])
}

/// Of the scores: `1/√H`.
fn scale(q: &Tensor) -> Result<f32> {
    Ok(1.0 / (q.dim(3)? as f32).sqrt())
}

/// GELU, in its tanh form, of `x [M, F]`, rounded.
pub fn gelu(x: &Tensor, dtype: DType) -> Result<Tensor> {
    let (m, f) = x.dims2()?;
    let [y] = launch(
        "gelu_forward",
        (m, f),
        [((m, f), dtype)],
        &[Some(x)],
        &[flag(dtype), f],
        &[],
    )?;
    Ok(y)
}

/// Gradient of GELU's input `x [M, F]`, rounded.
pub fn gelu_backward(dy: &Tensor, x: &Tensor, dtype: DType) -> Result<Tensor> {
    let (m, f) = x.dims2()?;
    let [dx] = launch(
        "gelu_backward",
        (m, f),
        [((m, f), dtype)],
        &[Some(dy), Some(x)],
        &[flag(dtype), f],
        &[],
    )?;
    Ok(dx)
}

/// Rows of a micro-batch by their token.
pub struct ByToken {
    /// Rows of token v are `order[starts[v]..starts[v + 1]]`.
    starts: Tensor,
    order: Tensor,
}

impl ByToken {
    /// Sorts the rows of `tokens`, whose ids are below `vocab_size`.
    pub fn new(tokens: &[u32], vocab_size: usize, device: &Device) -> Result<Self> {
        let mut starts = vec![0u32; vocab_size + 1];
        for &token in tokens {
            starts[token as usize + 1] += 1;
        }
        for v in 0..vocab_size {
            starts[v + 1] += starts[v];
        }
        let mut order: Vec<u32> = (0..tokens.len() as u32).collect();
        order.sort_by_key(|&row| tokens[row as usize]);
        Ok(Self {
            starts: Tensor::from_vec(starts, vocab_size + 1, device)?,
            order: Tensor::from_vec(order, tokens.len(), device)?,
        })
    }
}

/// Gradient of an embedding `[V, D]`: what it was `before`, and the rows of `dh [M, D]` by token.
pub fn embed_backward(before: Option<&Tensor>, rows: &ByToken, dh: &Tensor) -> Result<Tensor> {
    let (v, d) = (rows.starts.dim(0)? - 1, dh.dim(1)?);
    let [grad] = launch(
        "embed_backward",
        (v, d),
        [((v, d), DType::F32)],
        &[before, Some(&rows.starts), Some(&rows.order), Some(dh)],
        &[d],
        &[],
    )?;
    Ok(grad)
}
