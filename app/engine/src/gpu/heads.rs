//! Attention, forward and backward: RoPE and QK-norm of queries and keys, and the causal softmax.
//!
//! The queries of the `G = N / K` query heads that share a head of keys are contiguous for each position:
//! queries are `[B, K, T G, H]`, keys and values `[B, K, T, H]`. A group's queries are therefore the rows
//! of one matrix product with the group's keys, which are not copied.

use std::ops::Range;

use candle_core::{DType, Device, Result, Tensor};

use crate::model::ModelConfig;

use super::arguments::{QkvBackward, QkvForward, SoftmaxBackward, SoftmaxForward, SwapRows};
use super::kernels::{Grid, WARP, launch};
use super::matmul::{add_product, product, put_product};
use super::memory::{MAX_SCORES, attention_chunk};
use super::ops;
use super::pointers::{Fresh, Out, Rounded, change_rounded, f32s, rounded};
use super::tensor::is_bf16;

/// Attention of a model: the sizes of its heads, and the RoPE table, `[T, H/2]` cosines and sines.
#[derive(Clone, Debug)]
pub struct Heads {
    config: ModelConfig,
    cos: Tensor,
    sin: Tensor,
    pub(super) max_scores: usize,
}

/// Queries, keys and values, rounded; queries and keys rotated, after QK-norm if the model has it.
pub struct Qkv {
    /// `[B, K, T G, H]`.
    pub q: Tensor,
    /// `[B, K, T, H]`.
    pub k: Tensor,
    /// `[B, K, T, H]`.
    pub v: Tensor,
    /// `1/rms [M, N + K]` of QK-norm; unused without it.
    pub(super) inv_rms: Tensor,
}

impl Heads {
    /// Attention of a model at positions `0..seq_len`.
    pub fn new(config: ModelConfig, seq_len: usize, device: &Device) -> Result<Self> {
        let h = config.head_dim;
        let frequencies = config.rope.frequencies(h);
        let table = |f: fn(f64) -> f64| {
            let angles = (0..seq_len).flat_map(|t| frequencies.iter().map(move |w| t as f64 * w));
            let table: Vec<f32> = angles.map(|angle| f(angle) as f32).collect();
            Tensor::from_vec(table, (seq_len, h / 2), device)
        };
        Ok(Self {
            config,
            cos: table(f64::cos)?,
            sin: table(f64::sin)?,
            max_scores: MAX_SCORES,
        })
    }

    /// Number of positions in the RoPE table.
    pub fn seq_len(&self) -> usize {
        self.cos.dims()[0]
    }

    /// Query heads that share a head of keys, G.
    fn group(&self) -> usize {
        self.config.n_heads / self.config.n_kv_heads
    }

    /// Blocks of the kernels on `m` positions of `qkv`, with a warp for each head.
    fn qkv_grid(&self, m: usize) -> Grid {
        Grid {
            blocks: m,
            width: WARP * (self.config.n_heads + 2 * self.config.n_kv_heads),
        }
    }

    /// Splits `qkv [M, (N + 2 K) H]`, rounded, into heads, with QK-norm and RoPE; rows of `seq_len` begin at position
    /// `first`.
    pub fn split(&self, qkv: &Tensor, seq_len: usize, first: usize) -> Result<Qkv> {
        let (m, config, dtype, device) = (qkv.dim(0)?, self.config, qkv.dtype(), qkv.device());
        let shape = (m / seq_len, config.n_kv_heads, seq_len, config.head_dim);
        let (k, v) = (
            Fresh::rounded(shape, dtype, device)?,
            Fresh::rounded(shape, dtype, device)?,
        );
        let keys = Keys {
            k: k.out(),
            v: v.out(),
            len: seq_len,
            first: 0,
        };
        let (q, inv_rms) = self.split_to(qkv, seq_len, first, keys)?;
        Ok(Qkv {
            q,
            k: k.written(),
            v: v.written(),
            inv_rms,
        })
    }

    /// As [`Self::split`], but adds keys and values to a cache, `[B, K, C, H]` each, whose rows have `first` positions
    /// so far; returns the queries.
    pub fn split_to_cache(
        &self,
        qkv: &Tensor,
        seq_len: usize,
        [k, v]: &[Tensor; 2],
        first: usize,
    ) -> Result<Tensor> {
        let keys = Keys {
            k: change_rounded(k, qkv.dtype())?,
            v: change_rounded(v, qkv.dtype())?,
            len: k.dim(2)?,
            first,
        };
        if first + seq_len > keys.len {
            candle_core::bail!("a cache of {} positions is full", keys.len);
        }
        Ok(self.split_to(qkv, seq_len, first, keys)?.0)
    }

    fn split_to(
        &self,
        qkv: &Tensor,
        seq_len: usize,
        first: usize,
        keys: Keys,
    ) -> Result<(Tensor, Tensor)> {
        let (m, config, dtype, device) = (qkv.dim(0)?, self.config, qkv.dtype(), qkv.device());
        let (k, h) = (config.n_kv_heads, config.head_dim);
        let q = Fresh::rounded((m / seq_len, k, seq_len * self.group(), h), dtype, device)?;
        let normed = usize::from(config.qk_norm) * m * (config.n_heads + k);
        let inv_rms = Fresh::f32s(normed.max(1), device)?;
        let args = QkvForward {
            q: q.out(),
            k: keys.k,
            v: keys.v,
            inv_rms: inv_rms.out(),
            qkv: rounded(qkv, dtype)?,
            cos: f32s(&self.cos)?,
            sin: f32s(&self.sin)?,
            n_heads: config.n_heads,
            kv_heads: k,
            seq_len,
            head_dim: h,
            bf16: is_bf16(dtype),
            first,
            keys: keys.len,
            first_key: keys.first,
            qk_norm: usize::from(config.qk_norm),
            eps: config.norm_eps,
        };
        launch(device, self.qkv_grid(m), &args)?;
        Ok((q.written(), inv_rms.written()))
    }

    /// Backward of [`Self::split`]: the gradient of its input, rounded, from those of queries, rounded, keys and
    /// values.
    pub fn split_backward(&self, [dq, dk, dv]: &[Tensor; 3], qkv: &Qkv) -> Result<Tensor> {
        let ((b, _, seq_len, _), dtype) = (dk.dims4()?, qkv.q.dtype());
        let (m, config, device) = (b * seq_len, self.config, dq.device());
        let d_qkv = Fresh::rounded((m, config.qkv_width()), dtype, device)?;
        let args = QkvBackward {
            d_qkv: d_qkv.out(),
            dq: rounded(dq, dtype)?,
            dk: f32s(dk)?,
            dv: f32s(dv)?,
            q: rounded(&qkv.q, dtype)?,
            k: rounded(&qkv.k, dtype)?,
            inv_rms: f32s(&qkv.inv_rms)?,
            cos: f32s(&self.cos)?,
            sin: f32s(&self.sin)?,
            n_heads: config.n_heads,
            kv_heads: config.n_kv_heads,
            seq_len,
            head_dim: config.head_dim,
            bf16: is_bf16(dtype),
            qk_norm: usize::from(config.qk_norm),
        };
        launch(device, self.qkv_grid(m), &args)?;
        Ok(d_qkv.written())
    }

    /// Merges the heads' outputs `x [B, K, T G, H]` to `[M, N H]`; both rounded.
    pub fn merge(&self, x: &Tensor) -> Result<Tensor> {
        let (b, k, rows, h) = x.dims4()?;
        let (t, width) = (rows / self.group(), self.group() * h);
        let merged = swap_rows(x, [b, k, t, width])?;
        merged.reshape((b * t, k * width))
    }

    /// Splits the outputs' gradient `x [M, N H]` into heads `[B, K, T G, H]`; both rounded.
    pub fn split_heads(&self, x: &Tensor, seq_len: usize) -> Result<Tensor> {
        let (k, h, group) = (self.config.n_kv_heads, self.config.head_dim, self.group());
        let b = x.dim(0)? / seq_len;
        let split = swap_rows(x, [b, seq_len, k, group * h])?;
        split.reshape((b, k, seq_len * group, h))
    }

    /// Causal attention of queries at positions `first..first + T` to `k, v [B, K, S, H]`: the outputs
    /// `[B, K, T G, H]`, rounded, and the log-sum-exp of the scaled scores `[B, K, T G]`.
    ///
    /// In chunks of positions, each with the keys that it sees.
    pub fn attention(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        first: usize,
    ) -> Result<(Tensor, Tensor)> {
        let ((b, heads, queries, h), device, dtype) = (q.dims4()?, q.device(), q.dtype());
        // SAFETY: the products write every element.
        let out = unsafe { Tensor::empty((b, heads, queries, h), dtype, device)? };
        let lse = Fresh::f32s((b, heads, queries), device)?;
        for rows in self.chunks(q, k)? {
            let keys = first + rows.end / self.group();
            let seen = |x: &Tensor| x.narrow(2, 0, keys);
            let q = q.narrow(2, rows.start, rows.len())?;
            let scores = product(&q, &seen(k)?.t()?, DType::F32)?;
            let p = Fresh::rounded(scores.shape(), dtype, device)?;
            let args = SoftmaxForward {
                p: p.out(),
                lse: lse.out(),
                scores: f32s(&scores)?,
                bf16: is_bf16(dtype),
                keys,
                queries: rows.len(),
                group: self.group(),
                first: first + rows.start / self.group(),
                all_queries: queries,
                first_query: rows.start,
                scale: self.scale(),
            };
            launch(device, softmax_grid(&scores)?, &args)?;
            let out = out.narrow(2, rows.start, rows.len())?;
            put_product(&out, &p.written(), &seen(v)?)?;
        }
        Ok((out, lse.written()))
    }

    /// Backward of [`Self::attention`] of whole rows: the gradients of queries, rounded, keys and values from that of
    /// the outputs, which is rounded.
    ///
    /// Computes the probabilities again, so that only one chunk's scores exist at a time.
    pub fn attention_backward(
        &self,
        d_out: &Tensor,
        Qkv { q, k, v, .. }: &Qkv,
        lse: &Tensor,
    ) -> Result<[Tensor; 3]> {
        let (device, dtype, queries) = (q.device(), q.dtype(), q.dim(2)?);
        // SAFETY: the products write every element: the last chunk sees all keys, and is the first.
        let (dq, dk, dv) = unsafe {
            (
                Tensor::empty(q.shape(), dtype, device)?,
                Tensor::empty(k.shape(), DType::F32, device)?,
                Tensor::empty(v.shape(), DType::F32, device)?,
            )
        };
        for rows in self.chunks(q, k)?.into_iter().rev() {
            let keys = rows.end / self.group();
            let seen = |x: &Tensor| x.narrow(2, 0, keys);
            let part = |x: &Tensor| x.narrow(2, rows.start, rows.len());
            let (q, d_out) = (part(q)?, part(d_out)?);
            let scores = product(&q, &seen(k)?.t()?, DType::F32)?;
            let dp = product(&d_out, &seen(v)?.t()?, DType::F32)?;
            let p = Fresh::rounded(scores.shape(), dtype, device)?;
            let d_scores = Fresh::rounded(scores.shape(), dtype, device)?;
            let args = SoftmaxBackward {
                p: p.out(),
                d_scores: d_scores.out(),
                scores: f32s(&scores)?,
                lse: f32s(lse)?,
                dp: f32s(&dp)?,
                bf16: is_bf16(dtype),
                keys,
                queries: rows.len(),
                group: self.group(),
                first: rows.start / self.group(),
                all_queries: queries,
                first_query: rows.start,
                scale: self.scale(),
            };
            launch(device, softmax_grid(&scores)?, &args)?;
            let (p, d_scores) = (p.written(), d_scores.written());
            put_product(&part(&dq)?, &d_scores, &seen(k)?)?;
            for (sum, weights, x) in [(&dk, &d_scores, &q), (&dv, &p, &d_out)] {
                if rows.end == queries {
                    put_product(sum, &weights.t()?, x)?;
                } else {
                    add_product(&seen(sum)?, &weights.t()?, x, 1.0)?;
                }
            }
        }
        Ok([dq, dk, dv])
    }

    /// Divides the rows of queries into chunks of whole positions, which bound the number of scores.
    fn chunks(&self, q: &Tensor, k: &Tensor) -> Result<Vec<Range<usize>>> {
        let (b, heads, rows, _) = q.dims4()?;
        let group = self.group();
        let scores_of_position = b * heads * group * k.dim(2)?;
        let most = (self.max_scores / scores_of_position.max(1)).max(1);
        let max_rows = group * most.min(attention_chunk(rows / group, scores_of_position));
        let chunk = |first: usize| first..rows.min(first + max_rows);
        Ok((0..rows).step_by(max_rows).map(chunk).collect())
    }

    /// Scale of the scores, `1/√H`.
    fn scale(&self) -> f32 {
        1.0 / (self.config.head_dim as f32).sqrt()
    }
}

/// Where keys and values go, `[B, K, len, H]` each.
struct Keys<'a> {
    k: Out<'a, Rounded>,
    v: Out<'a, Rounded>,
    len: usize,
    /// Position in the row of the first one.
    first: usize,
}

/// Turns `x [B, X, Y, W]` into `[B, Y, X, W]`, both rounded.
fn swap_rows(x: &Tensor, [b, columns, rows, width]: [usize; 4]) -> Result<Tensor> {
    if columns == 1 || rows == 1 {
        return Ok(x.clone());
    }
    let (dtype, device) = (x.dtype(), x.device());
    let y = Fresh::rounded((b, rows, columns, width), dtype, device)?;
    let args = SwapRows {
        y: y.out(),
        x: rounded(x, dtype)?,
        rows,
        columns,
        width,
        bf16: is_bf16(dtype),
    };
    launch(device, ops::rows(b * rows, columns * width), &args)?;
    Ok(y.written())
}

/// Blocks of the softmax kernels: one for each row of scores.
fn softmax_grid(scores: &Tensor) -> Result<Grid> {
    let (b, n, rows, s) = scores.dims4()?;
    Ok(ops::rows(b * n * rows, s))
}
