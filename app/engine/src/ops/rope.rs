//! Rotary position embeddings (RoPE), with or without QK-norm, applied to `q` and `k` in place.
//!
//! Each head's `q` and `k` are RMS-normalised if the model has QK-norm, then rotated: dimension `i`
//! of the first half is paired with dimension `i` of the second half and turned by
//! `position · base^(-2i/H)`.

use super::simd::{dot, multiversion};

/// Settings of RoPE in its half-split form: dimension `i` of a head is paired with dimension `i + H/2`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rope {
    /// Base of the frequencies: pair `i` turns by `position · base^(-2i/H)`.
    pub base: f64,
    /// Change of the frequencies for long contexts, if any.
    pub scaling: Option<RopeScaling>,
}

/// Llama 3's scaling of the frequencies: long wavelengths are stretched, short ones kept, those between
/// interpolated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RopeScaling {
    /// Factor by which long wavelengths are stretched.
    pub factor: f64,
    /// Wavelengths above `original_max_positions / low_freq_factor` are stretched in full.
    pub low_freq_factor: f64,
    /// Wavelengths below `original_max_positions / high_freq_factor` are kept.
    pub high_freq_factor: f64,
    /// Context length before the change.
    pub original_max_positions: f64,
}

impl Rope {
    /// Frequency of each pair of dimensions, `[H / 2]`, in radians per position.
    ///
    /// Scaled as in Hugging Face's `_compute_llama3_parameters`.
    pub fn frequencies(&self, head_dim: usize) -> Vec<f64> {
        let plain = |i: usize| self.base.powf(-(2.0 * i as f64) / head_dim as f64);
        let scaled = |frequency: f64| match self.scaling {
            Some(scaling) => scaling.scale(frequency),
            None => frequency,
        };
        (0..head_dim / 2).map(|i| scaled(plain(i))).collect()
    }
}

impl RopeScaling {
    fn scale(&self, frequency: f64) -> f64 {
        let turns = self.original_max_positions * frequency / std::f64::consts::TAU;
        let blend = (turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor);
        // 1 where frequencies are kept, 0 where they are stretched in full.
        let kept = blend.clamp(0.0, 1.0);
        kept * frequency + (1.0 - kept) * frequency / self.factor
    }
}

/// Cosines and sines of the angles of every position, `[T, H/2]` each.
#[derive(Clone, Debug)]
pub struct RopeTable {
    half: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl RopeTable {
    /// The table for positions `0..seq_len` of heads of size `head_dim` (even).
    pub fn new(seq_len: usize, head_dim: usize, rope: &Rope) -> Self {
        let frequencies = rope.frequencies(head_dim);
        let table = |f: fn(f64) -> f64| {
            let angles = (0..seq_len).flat_map(|t| frequencies.iter().map(move |w| t as f64 * w));
            angles.map(|angle| f(angle) as f32).collect()
        };
        Self {
            half: head_dim / 2,
            cos: table(f64::cos),
            sin: table(f64::sin),
        }
    }

    /// Number of positions in the table.
    pub fn seq_len(&self) -> usize {
        self.cos.len() / self.half.max(1)
    }
}

/// Positions of the rows of `q` and `k` in their sequences.
#[derive(Clone, Copy)]
pub enum Positions {
    /// Rows `[B, T]` of sequences of this length T: row `m` is at position `m % T`.
    Sequence(usize),
    /// All rows are at this position.
    All(usize),
}

impl Positions {
    /// Position of row `m`.
    #[inline(always)]
    fn of(self, m: usize) -> usize {
        match self {
            Self::Sequence(seq_len) => m % seq_len,
            Self::All(t) => t,
        }
    }
}

/// Numbers of heads in a row `qkv`: N of queries, K of keys, K of values.
#[derive(Clone, Copy, Debug)]
pub struct Heads {
    /// Heads that are rotated: N + K.
    pub turned: usize,
    /// All heads: N + 2 K.
    pub all: usize,
}

multiversion! {
    /// QK-norm and rotation of `q` and `k` in each row of `qkv [M, (N + 2 K) H]`, in place.
    ///
    /// Keeps `1/rms` of every head in `inv_rms [M, N + K]`.
    pub fn forward(qkv: &mut [f32], inv_rms: &mut [f32], table: &RopeTable, heads: Heads, eps: f32, positions: Positions) {
        let half = table.half;
        let h = 2 * half;
        let rows = qkv.chunks_exact_mut(heads.all * h).zip(inv_rms.chunks_exact_mut(heads.turned));
        for (m, (row, inv_rms)) in rows.enumerate() {
            let t = positions.of(m);
            let cos = &table.cos[t * half..][..half];
            let sin = &table.sin[t * half..][..half];
            for (x, r) in row.chunks_exact(h).zip(&mut *inv_rms) {
                *r = dot(x, x);
            }
            // A loop of its own, so that several roots and quotients are computed at a time.
            for r in &mut *inv_rms {
                *r = 1.0 / (*r / h as f32 + eps).sqrt();
            }
            for (x, &mut r) in row.chunks_exact_mut(h).zip(inv_rms) {
                let (a, b) = x.split_at_mut(half);
                for i in 0..half {
                    let x = a[i] * r;
                    let y = b[i] * r;
                    a[i] = x * cos[i] - y * sin[i];
                    b[i] = y * cos[i] + x * sin[i];
                }
            }
        }
    }
}

multiversion! {
    /// Backward of [`forward`]: turns the gradient of its output in `dqkv [M, (N + 2 K) H]` into that of its
    /// input, in place.
    ///
    /// `qkv` holds the forward's output. The rotation commutes with the norm's Jacobian
    /// `r (I − ŷŷᵀ/H)`, which is therefore applied first, to the rotated vectors.
    pub fn backward(dqkv: &mut [f32], qkv: &[f32], inv_rms: &[f32], table: &RopeTable, heads: Heads, seq_len: usize) {
        let half = table.half;
        let h = 2 * half;
        let width = heads.all * h;
        let rows = dqkv.chunks_exact_mut(width).zip(qkv.chunks_exact(width));
        for (m, ((dx, y), inv_rms)) in rows.zip(inv_rms.chunks_exact(heads.turned)).enumerate() {
            let t = m % seq_len;
            let cos = &table.cos[t * half..][..half];
            let sin = &table.sin[t * half..][..half];
            for ((dx, y), &r) in dx.chunks_exact_mut(h).zip(y.chunks_exact(h)).zip(inv_rms) {
                let mean = dot(dx, y) / h as f32;
                let (da, db) = dx.split_at_mut(half);
                let (ya, yb) = y.split_at(half);
                for i in 0..half {
                    let x = r * (da[i] - ya[i] * mean);
                    let y = r * (db[i] - yb[i] * mean);
                    da[i] = x * cos[i] + y * sin[i];
                    db[i] = y * cos[i] - x * sin[i];
                }
            }
        }
    }
}

multiversion! {
    /// Rotates `q` and `k` in each row of `qkv [M, (N + 2 K) H]`; with `back`, rotates their gradients back.
    pub fn rotate(qkv: &mut [f32], table: &RopeTable, heads: Heads, positions: Positions, back: bool) {
        let half = table.half;
        let h = 2 * half;
        let sign = if back { -1.0 } else { 1.0 };
        for (m, row) in qkv.chunks_exact_mut(heads.all * h).enumerate() {
            let t = positions.of(m);
            let cos = &table.cos[t * half..][..half];
            let sin = &table.sin[t * half..][..half];
            for x in row.chunks_exact_mut(h).take(heads.turned) {
                let (a, b) = x.split_at_mut(half);
                for i in 0..half {
                    let (x, y, sin) = (a[i], b[i], sign * sin[i]);
                    a[i] = x * cos[i] - y * sin;
                    b[i] = y * cos[i] + x * sin;
                }
            }
        }
    }
}
