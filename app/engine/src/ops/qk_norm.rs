//! RMSNorm of queries and keys with learned gains, in place, before they are rotated.
//!
//! A position's queries are normalised in groups of as many elements as there are gains: head by head, or all
//! together; its keys likewise. Values stay as they are.

use super::simd::{dot, multiversion};

/// Gains of the norms, and widths of the parts of a row of `qkv`.
#[derive(Clone, Copy)]
pub struct QkNorm<'a> {
    /// Gains of a group of queries.
    pub q: &'a [f32],
    /// Gains of a group of keys.
    pub k: &'a [f32],
    /// Widths of the queries, of the keys, and of the whole row.
    pub widths: [usize; 3],
    /// Epsilon, added to the mean square.
    pub eps: f32,
}

impl QkNorm<'_> {
    /// Groups of queries, and groups of queries and keys together.
    #[inline(always)]
    fn groups(&self) -> [usize; 2] {
        let [q, k, _] = self.widths;
        let of_q = q / self.q.len();
        [of_q, of_q + k / self.k.len()]
    }
}

multiversion! {
    /// Normalises queries and keys of each row of `qkv [M, (N + 2 K) H]`, times the gains.
    ///
    /// Keeps what [`backward`] needs: the normalised elements before gains in `normed [M, (N + K) H]`, and each
    /// group's `1/rms` in `inv_rms`.
    pub fn forward(qkv: &mut [f32], normed: &mut [f32], inv_rms: &mut [f32], norm: QkNorm<'_>) {
        let ([q, k, all], [q_groups, groups]) = (norm.widths, norm.groups());
        let rows = qkv.chunks_exact_mut(all).zip(normed.chunks_exact_mut(q + k));
        for ((row, normed), inv_rms) in rows.zip(inv_rms.chunks_exact_mut(groups)) {
            let (of_q, of_k) = row[..q + k].split_at_mut(q);
            let (normed_q, normed_k) = normed.split_at_mut(q);
            let (inv_q, inv_k) = inv_rms.split_at_mut(q_groups);
            normalise(of_q, normed_q, inv_q, norm.q, norm.eps);
            normalise(of_k, normed_k, inv_k, norm.k, norm.eps);
        }
    }
}

multiversion! {
    /// Backward of [`forward`]: turns the gradient of its output in `dqkv [M, (N + 2 K) H]` into that of its
    /// input, in place; adds the gradients of the gains, queries' first, to `d_gains` where they are trained.
    pub fn backward(dqkv: &mut [f32], normed: &[f32], inv_rms: &[f32], norm: QkNorm<'_>, d_gains: Option<&mut [f32]>) {
        let ([q, k, all], [q_groups, groups]) = (norm.widths, norm.groups());
        let (mut d_gains_q, mut d_gains_k) = match d_gains {
            Some(d_gains) => {
                let (q, k) = d_gains.split_at_mut(norm.q.len());
                (Some(q), Some(k))
            }
            None => (None, None),
        };
        let rows = dqkv.chunks_exact_mut(all).zip(normed.chunks_exact(q + k));
        for ((row, normed), inv_rms) in rows.zip(inv_rms.chunks_exact(groups)) {
            let (of_q, of_k) = row[..q + k].split_at_mut(q);
            let (normed_q, normed_k) = normed.split_at(q);
            let (inv_q, inv_k) = inv_rms.split_at(q_groups);
            normalise_back(of_q, normed_q, inv_q, norm.q, d_gains_q.as_deref_mut());
            normalise_back(of_k, normed_k, inv_k, norm.k, d_gains_k.as_deref_mut());
        }
    }
}

/// Normalises each group of `x`.
#[inline(always)]
fn normalise(x: &mut [f32], normed: &mut [f32], inv_rms: &mut [f32], gains: &[f32], eps: f32) {
    let width = gains.len();
    let groups = x
        .chunks_exact_mut(width)
        .zip(normed.chunks_exact_mut(width));
    for ((x, normed), r) in groups.zip(inv_rms) {
        *r = 1.0 / (dot(x, x) / width as f32 + eps).sqrt();
        for i in 0..width {
            normed[i] = x[i] * *r;
            x[i] = normed[i] * gains[i];
        }
    }
}

/// Backward of [`normalise`] on the gradient `dx` of its output.
#[inline(always)]
fn normalise_back(
    dx: &mut [f32],
    normed: &[f32],
    inv_rms: &[f32],
    gains: &[f32],
    mut d_gains: Option<&mut [f32]>,
) {
    let width = gains.len();
    let groups = dx.chunks_exact_mut(width).zip(normed.chunks_exact(width));
    for ((dx, normed), r) in groups.zip(inv_rms) {
        if let Some(d_gains) = &mut d_gains {
            for i in 0..width {
                d_gains[i] += dx[i] * normed[i];
            }
        }
        for i in 0..width {
            dx[i] *= gains[i];
        }
        let mean = dot(dx, normed) / width as f32;
        for i in 0..width {
            dx[i] = r * (dx[i] - normed[i] * mean);
        }
    }
}
