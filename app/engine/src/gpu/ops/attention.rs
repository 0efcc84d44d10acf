//! Causal multi-head attention by batched matrix products, scores scaled by `1/√H`.
//!
//! The backward computes the probabilities again from the kept log-sum-exp, so that `[B, N, T, T]`
//! exists in one layer at a time.

use candle_core::{D, Device, Result, Tensor};

use super::product;

/// What is added to the scores, `[T, T]`: −∞ where a query may not look.
pub fn causal_mask(seq_len: usize, device: &Device) -> Result<Tensor> {
    let mask: Vec<f32> = (0..seq_len * seq_len)
        .map(|i| match i % seq_len > i / seq_len {
            true => f32::NEG_INFINITY,
            false => 0.0,
        })
        .collect();
    Tensor::from_vec(mask, (seq_len, seq_len), device)
}

/// Attends: `q, k, v [B, N, T, H]` to `out [B, N, T, H]` and the scores' log-sum-exp `[B, N, T, 1]`.
pub fn forward(q: &Tensor, k: &Tensor, v: &Tensor, mask: &Tensor) -> Result<(Tensor, Tensor)> {
    let (p, lse) = softmax(&scores(q, k)?.broadcast_add(mask)?)?;
    Ok((product(&p.to_dtype(v.dtype())?, v)?, lse))
}

/// Attention of one new query `[B, N, 1, H]` to keys and values `[B, N, S, H]`.
pub fn decode(q: &Tensor, keys: &Tensor, values: &Tensor) -> Result<Tensor> {
    let (p, _) = softmax(&scores(q, keys)?)?;
    product(&p.to_dtype(values.dtype())?, values)
}

/// Gradients of `q, k, v`, all `[B, N, T, H]`, from `d_out` and what the forward saw and gave.
pub fn backward(
    d_out: &Tensor,
    [q, k, v]: [&Tensor; 3],
    out: &Tensor,
    lse: &Tensor,
    mask: &Tensor,
) -> Result<[Tensor; 3]> {
    let dtype = q.dtype();
    let delta = (d_out * out.to_dtype(d_out.dtype())?)?.sum_keepdim(D::Minus1)?;
    let d_out = d_out.to_dtype(dtype)?;
    let log_p = scores(q, k)?.broadcast_add(mask)?.broadcast_sub(lse)?;
    let p = log_p.exp()?;
    let dp = product(&d_out, &v.t()?)?;
    let d_scores = ((&p * dp.broadcast_sub(&delta)?)? * scale(q)?)?.to_dtype(dtype)?;
    let dv = product(&p.to_dtype(dtype)?.t()?, &d_out)?;
    Ok([product(&d_scores, k)?, product(&d_scores.t()?, q)?, dv])
}

/// Scaled scores `[B, N, T, S]`.
fn scores(q: &Tensor, k: &Tensor) -> Result<Tensor> {
    product(q, &k.t()?)? * scale(q)?
}

fn scale(q: &Tensor) -> Result<f64> {
    Ok(1.0 / (q.dim(D::Minus1)? as f64).sqrt())
}

/// Probabilities over the last dimension, and the log-sum-exp.
pub fn softmax(x: &Tensor) -> Result<(Tensor, Tensor)> {
    let max = x.max_keepdim(D::Minus1)?;
    let e = x.broadcast_sub(&max)?.exp()?;
    let sum = e.sum_keepdim(D::Minus1)?;
    Ok((e.broadcast_div(&sum)?, (max + sum.log()?)?))
}
