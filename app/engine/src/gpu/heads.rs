//! Attention, forward and backward: RoPE and QK-norm of queries and keys, and the causal softmax.
//!
//! The queries of the `G = N / K` query heads that share a head of keys are contiguous for each position:
//! queries are `[B, K, T G, H]`, keys and values `[B, K, T, H]`. A group's queries are therefore the rows
//! of one matrix product with the group's keys, which are not copied.

use std::ops::Range;

use candle_core::{DType, Device, Result, Tensor};

use crate::model::ModelConfig;

use super::arguments::{QkvBackward, QkvForward, SoftmaxBackward, SoftmaxForward};
use super::kernels::{Grid, launch};
use super::matmul::{add_product, product};
use super::memory::MAX_SCORES;
use super::pointers::{Fresh, f32s, rounded};
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

    /// Blocks of the kernels on `m` positions of `qkv`, one for each head.
    fn qkv_grid(&self, m: usize) -> Grid {
        Grid {
            blocks: m * (self.config.n_heads + 2 * self.config.n_kv_heads),
            width: self.config.head_dim,
        }
    }

    /// Splits `qkv [M, (N + 2 K) H]` into heads, with QK-norm and RoPE; rows of `seq_len` begin at position `first`.
    pub fn split(&self, qkv: &Tensor, seq_len: usize, first: usize, dtype: DType) -> Result<Qkv> {
        let (m, config, device) = (qkv.dim(0)?, self.config, qkv.device());
        let (k, h) = (config.n_kv_heads, config.head_dim);
        let heads = |rows: usize| Fresh::rounded((m / seq_len, k, rows, h), dtype, device);
        let normed = usize::from(config.qk_norm) * m * (config.n_heads + k);
        let (q, k) = (heads(seq_len * self.group())?, heads(seq_len)?);
        let (v, inv_rms) = (heads(seq_len)?, Fresh::f32s(normed.max(1), device)?);
        let args = QkvForward {
            q: q.out(),
            k: k.out(),
            v: v.out(),
            inv_rms: inv_rms.out(),
            qkv: f32s(qkv)?,
            cos: f32s(&self.cos)?,
            sin: f32s(&self.sin)?,
            n_heads: config.n_heads,
            kv_heads: config.n_kv_heads,
            seq_len,
            head_dim: h,
            bf16: is_bf16(dtype),
            first,
            qk_norm: usize::from(config.qk_norm),
            eps: config.norm_eps,
        };
        launch(device, self.qkv_grid(m), &args)?;
        Ok(Qkv {
            q: q.written(),
            k: k.written(),
            v: v.written(),
            inv_rms: inv_rms.written(),
        })
    }

    /// Backward of [`Self::split`]: the gradient of its input, rounded, from those of queries, keys and values.
    pub fn split_backward(&self, [dq, dk, dv]: &[Tensor; 3], qkv: &Qkv) -> Result<Tensor> {
        let ((b, _, seq_len, _), dtype) = (dk.dims4()?, qkv.q.dtype());
        let (m, config, device) = (b * seq_len, self.config, dq.device());
        let d_qkv = Fresh::rounded((m, config.qkv_width()), dtype, device)?;
        let args = QkvBackward {
            d_qkv: d_qkv.out(),
            dq: f32s(dq)?,
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

    /// Merges the heads' outputs `x [B, K, T G, H]` to `[M, N H]`, rounded.
    pub fn merge(&self, x: &Tensor, dtype: DType) -> Result<Tensor> {
        let (b, k, rows, h) = x.dims4()?;
        let (t, width) = (rows / self.group(), self.group() * h);
        let merged = x.reshape((b, k, t, width))?.transpose(1, 2)?;
        merged.reshape((b * t, k * width))?.to_dtype(dtype)
    }

    /// Splits the outputs' gradient `x [M, N H]` into heads `[B, K, T G, H]`, rounded.
    pub fn split_heads(&self, x: &Tensor, seq_len: usize, dtype: DType) -> Result<Tensor> {
        let (k, h, group) = (self.config.n_kv_heads, self.config.head_dim, self.group());
        let b = x.dim(0)? / seq_len;
        let split = x.reshape((b, seq_len, k, group * h))?.transpose(1, 2)?;
        split.reshape((b, k, seq_len * group, h))?.to_dtype(dtype)
    }

    /// Causal attention of queries at positions `first..first + T` to `k, v [B, K, S, H]`: the outputs
    /// `[B, K, T G, H]`, and the log-sum-exp of the scaled scores `[B, K, T G]`.
    pub fn attention(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        first: usize,
    ) -> Result<(Tensor, Tensor)> {
        let (mut outs, mut lses) = (Vec::new(), Vec::new());
        for rows in self.chunks(q, k)? {
            let q = q.narrow(2, rows.start, rows.len())?;
            let (scores, dtype) = (product(&q, &k.t()?)?, q.dtype());
            let ((b, n, m, s), device) = (scores.dims4()?, q.device());
            let p = Fresh::rounded((b, n, m, s), dtype, device)?;
            let lse = Fresh::f32s((b, n, m), device)?;
            let args = SoftmaxForward {
                p: p.out(),
                lse: lse.out(),
                scores: f32s(&scores)?,
                bf16: is_bf16(dtype),
                keys: s,
                queries: m,
                group: self.group(),
                first: first + rows.start / self.group(),
                scale: self.scale(),
            };
            launch(device, softmax_grid(&scores)?, &args)?;
            outs.push(product(&p.written(), v)?);
            lses.push(lse.written());
        }
        Ok((Tensor::cat(&outs, 2)?, Tensor::cat(&lses, 2)?))
    }

    /// Backward of [`Self::attention`] of whole rows: the gradients of queries, keys and values from that of the
    /// outputs, which is rounded.
    ///
    /// Computes the probabilities again, so that only one block's scores exist at a time.
    pub fn attention_backward(
        &self,
        d_out: &Tensor,
        Qkv { q, k, v, .. }: &Qkv,
        lse: &Tensor,
    ) -> Result<[Tensor; 3]> {
        let (mut dqs, mut dk, mut dv) = (Vec::new(), None, None);
        for rows in self.chunks(q, k)? {
            let part = |x: &Tensor| x.narrow(2, rows.start, rows.len());
            let (q, d_out, lse) = (part(q)?, part(d_out)?, part(lse)?.contiguous()?);
            let (scores, dtype) = (product(&q, &k.t()?)?, q.dtype());
            let dp = product(&d_out, &v.t()?)?;
            let ((b, n, m, s), device) = (scores.dims4()?, q.device());
            let p = Fresh::rounded((b, n, m, s), dtype, device)?;
            let d_scores = Fresh::rounded((b, n, m, s), dtype, device)?;
            let args = SoftmaxBackward {
                p: p.out(),
                d_scores: d_scores.out(),
                scores: f32s(&scores)?,
                lse: f32s(&lse)?,
                dp: f32s(&dp)?,
                bf16: is_bf16(dtype),
                keys: s,
                queries: m,
                group: self.group(),
                first: rows.start / self.group(),
                scale: self.scale(),
            };
            launch(device, softmax_grid(&scores)?, &args)?;
            let (p, d_scores) = (p.written(), d_scores.written());
            dqs.push(product(&d_scores, k)?);
            add_product(&mut dk, &d_scores.t()?, &q)?;
            add_product(&mut dv, &p.t()?, &d_out)?;
        }
        match (dk, dv) {
            (Some(dk), Some(dv)) => Ok([Tensor::cat(&dqs, 2)?, dk, dv]),
            _ => candle_core::bail!("attention of no positions"),
        }
    }

    /// Divides the rows of queries into chunks of whole positions, which bound the number of scores.
    fn chunks(&self, q: &Tensor, k: &Tensor) -> Result<Vec<Range<usize>>> {
        let (b, heads, rows, _) = q.dims4()?;
        let group = self.group();
        let scores_of_position = b * heads * group * k.dim(2)?;
        let max_rows = group * (self.max_scores / scores_of_position.max(1)).max(1);
        let chunk = |first: usize| first..rows.min(first + max_rows);
        Ok((0..rows).step_by(max_rows).map(chunk).collect())
    }

    /// Scale of the scores, `1/√H`.
    fn scale(&self) -> f32 {
        1.0 / (self.config.head_dim as f32).sqrt()
    }
}

/// Blocks of the softmax kernels: one for each row of scores.
fn softmax_grid(scores: &Tensor) -> Result<Grid> {
    let (b, n, rows, s) = scores.dims4()?;
    Ok(Grid {
        blocks: b * n * rows,
        width: s,
    })
}
