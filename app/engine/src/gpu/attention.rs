//! The causal softmax between queries and keys, forward and backward, in chunks of positions.

use std::ops::Range;

use candle_core::{DType, Result, Tensor};

use super::arguments::{SoftmaxBackward, SoftmaxForward};
use super::heads::{BlockHeads, Qkv};
use super::kernels::{Grid, launch};
use super::matmul::{add_product, product, put_product};
use super::memory::attention_chunk;
use super::ops;
use super::pointers::{Fresh, f32s};
use super::tensor::is_bf16;

/// Keys to whose multiples products are cut: rows of as many scores are 16 bytes of bf16, which tensor cores take.
const ALIGNED: usize = 8;

impl BlockHeads<'_> {
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
            let keys = self.keys(&rows, first);
            let seen = |x: &Tensor| x.narrow(2, keys.start, keys.len());
            let q = q.narrow(2, rows.start, rows.len())?;
            let scores = product(&q, &seen(k)?.t()?, DType::F32)?;
            let p = Fresh::rounded(scores.shape(), dtype, device)?;
            let args = SoftmaxForward {
                p: p.out(),
                lse: lse.out(),
                scores: f32s(&scores)?,
                bf16: is_bf16(dtype),
                keys: keys.len(),
                queries: rows.len(),
                group: self.group(),
                first: first + rows.start / self.group() - keys.start,
                window: self.window.unwrap_or(keys.end),
                all_queries: queries,
                first_query: rows.start,
                scale: self.config.attention_scale(),
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
        let chunks = self.chunks(q, k)?;
        let last = chunks.last().map(|rows| self.keys(rows, 0));
        // SAFETY: the products write every element.
        let dq = unsafe { Tensor::empty(q.shape(), dtype, device)? };
        let sum = || match &last {
            Some(keys) if keys.start > 0 => Tensor::zeros(k.shape(), DType::F32, device),
            // SAFETY: the products write every element: the last chunk sees all keys, and is the first.
            _ => unsafe { Tensor::empty(k.shape(), DType::F32, device) },
        };
        let (dk, dv) = (sum()?, sum()?);
        for rows in chunks.into_iter().rev() {
            let keys = self.keys(&rows, 0);
            let seen = |x: &Tensor| x.narrow(2, keys.start, keys.len());
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
                keys: keys.len(),
                queries: rows.len(),
                group: self.group(),
                first: rows.start / self.group() - keys.start,
                window: self.window.unwrap_or(keys.end),
                all_queries: queries,
                first_query: rows.start,
                scale: self.config.attention_scale(),
            };
            launch(device, softmax_grid(&scores)?, &args)?;
            let (p, d_scores) = (p.written(), d_scores.written());
            put_product(&part(&dq)?, &d_scores, &seen(k)?)?;
            for (sum, weights, x) in [(&dk, &d_scores, &q), (&dv, &p, &d_out)] {
                if rows.end == queries && keys.start == 0 {
                    put_product(sum, &weights.t()?, x)?;
                } else {
                    add_product(&seen(sum)?, &weights.t()?, x, 1.0)?;
                }
            }
        }
        Ok([dq, dk, dv])
    }

    /// Keys that are seen by some of the queries at positions `first..`; within a window, from a number on at which
    /// memory is aligned.
    fn keys(&self, rows: &Range<usize>, first: usize) -> Range<usize> {
        let position = first + rows.start / self.group();
        let unseen = self
            .window
            .map_or(0, |len| (position + 1).saturating_sub(len));
        unseen / ALIGNED * ALIGNED..first + rows.end / self.group()
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
}

/// Blocks of the softmax kernels: one for each row of scores.
fn softmax_grid(scores: &Tensor) -> Result<Grid> {
    let (b, n, rows, s) = scores.dims4()?;
    Ok(ops::rows(b * n * rows, s))
}
