//! Causal multi-head attention, forward and backward, one sequence and head at a time.
//!
//! Query heads may share heads of keys and values (grouped queries): there are N heads of queries and K of
//! keys and of values, each of which serves N / K query heads. A position attends to itself and to those before
//! it, or, within a window, to the last of them alone. Queries are processed in tiles of `TILE`, so that `[T, T]` scores never exist; the backward recomputes the
//! probabilities from the log-sum-exp that the forward keeps. A head's vectors are gathered into scratch
//! that is padded with zeros to whole registers, which works for every head size.

use super::matmul::{Out, Sizes, Strided, product_strided};
use super::simd::{LANES, dot, exp, fold, fold_maximum, multiversion};

/// Queries of a tile: few, since all of them are multiplied by every key that the last one sees.
const TILE: usize = 28;

type Vector = [f32; LANES];

/// Working memory of one thread; it grows to the largest sequence seen.
#[derive(Default)]
pub struct Scratch {
    /// `[T, H]`, padded.
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    d_out: Vec<f32>,
    dk: Vec<f32>,
    dv: Vec<f32>,
    /// `[H, T]`, padded.
    k_t: Vec<f32>,
    v_t: Vec<f32>,
    /// `[TILE, T]`, padded.
    p: Vec<f32>,
    dp: Vec<f32>,
}

impl Scratch {
    /// Number of floats in the buffers for sequences of `seq_len`, after a backward or forwards alone.
    pub fn len(seq_len: usize, head_dim: usize, backward: bool) -> usize {
        let (tp, hp) = (
            seq_len.next_multiple_of(LANES),
            head_dim.next_multiple_of(LANES),
        );
        let (heads, tiles) = if backward { (8, 2) } else { (5, 1) };
        heads * tp * hp + tiles * TILE * tp
    }
}

/// Sizes of one attention call.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Sequences B.
    pub rows: usize,
    /// Positions T.
    pub seq_len: usize,
    /// Query heads N.
    pub n_heads: usize,
    /// Heads of keys and of values K, a divisor of N.
    pub n_kv_heads: usize,
    /// Head size H.
    pub head_dim: usize,
    /// Factor of the scores, usually `1/√H`.
    pub scale: f32,
    /// Positions, its own and those before, that a position attends to; more than there are for all.
    pub window: usize,
}

impl Shape {
    /// The first position that the one at `t` attends to.
    #[inline(always)]
    fn first_key(self, t: usize) -> usize {
        (t + 1).saturating_sub(self.window)
    }

    /// The first position that is multiplied with queries at `t` and after: a multiple of the lanes.
    #[inline(always)]
    fn first_block(self, t: usize) -> usize {
        self.first_key(t) / LANES * LANES
    }

    /// Columns of a row of `qkv`: the first of the keys, the first of the values, and how many there are.
    #[inline(always)]
    fn columns(self) -> [usize; 3] {
        let (q, kv) = (
            self.n_heads * self.head_dim,
            self.n_kv_heads * self.head_dim,
        );
        [q, q + kv, q + 2 * kv]
    }

    /// Query heads that share a head of keys.
    #[inline(always)]
    fn group(self) -> usize {
        self.n_heads / self.n_kv_heads
    }

    fn padded_t(self) -> usize {
        self.seq_len.next_multiple_of(LANES)
    }

    fn padded_h(self) -> usize {
        self.head_dim.next_multiple_of(LANES)
    }
}

multiversion! {
    /// Attention of whole sequences: from `qkv [M, (N + 2 K) H]`, M = B T, to the output `out [M, N H]` and the
    /// log-sum-exp of the scaled scores, `lse [M, N]`.
    pub fn forward(qkv: &[f32], out: &mut [f32], lse: &mut [f32], shape: Shape, scratch: &mut Scratch) {
        let Shape { rows: batch, seq_len, n_heads, head_dim: h, .. } = shape;
        let (tp, hp, d) = (shape.padded_t(), shape.padded_h(), n_heads * h);
        let [at_k, at_v, width] = shape.columns();
        let scale = shape.scale;
        let Scratch { q, k, v, k_t, p, d_out: o, .. } = scratch;
        for buffer in [&mut *q, &mut *k, &mut *v, &mut *o, &mut *k_t] {
            buffer.resize(buffer.len().max(tp * hp), 0.0);
            // Only elements that are no padding are written from here on.
            buffer[..tp * hp].fill(0.0);
        }
        p.resize(p.len().max(TILE * tp), 0.0);
        for b in 0..batch {
            let qkv = &qkv[b * seq_len * width..][..seq_len * width];
            let out = &mut out[b * seq_len * d..][..seq_len * d];
            let lse = &mut lse[b * seq_len * n_heads..][..seq_len * n_heads];
            for n in 0..n_heads {
                gather(qkv, q, width, n * h, h, hp);
                if n.is_multiple_of(shape.group()) {
                    let kv = n / shape.group();
                    gather(qkv, v, width, at_v + kv * h, h, hp);
                    gather_transposed(qkv, k_t, width, at_k + kv * h, h, tp);
                }
                for first in (0..seq_len).step_by(TILE) {
                    let tile = TILE.min(seq_len - first);
                    let from = shape.first_block(first);
                    let n_keys = first + tile - from;
                    let padded = n_keys.next_multiple_of(LANES);
                    let keys = columns(k_t, tp, from);
                    let sizes = Sizes { m: tile, n: padded, k: h };
                    product_strided(p, tp, rows(q, hp, first), keys, sizes, Out::Set);
                    let mut norm = [0f32; TILE];
                    for i in 0..tile {
                        let row = &mut p[i * tp..][..padded];
                        let unseen = shape.first_key(first + i) - from;
                        let (max, sum) = softmax_row(row, unseen, first + i - from, scale);
                        norm[i] = 1.0 / sum;
                        lse[(first + i) * n_heads + n] = max + sum.ln();
                    }
                    let o_tile = &mut o[first * hp..];
                    let sizes = Sizes { m: tile, n: hp, k: n_keys };
                    product_strided(o_tile, hp, rows(p, tp, 0), rows(v, hp, from), sizes, Out::Set);
                    for i in 0..tile {
                        let o = &o[(first + i) * hp..][..h];
                        for (out, o) in out[(first + i) * d + n * h..][..h].iter_mut().zip(o) {
                            *out = *o * norm[i];
                        }
                    }
                }
            }
        }
    }
}

multiversion! {
    /// Backward of [`forward`]: the gradient of its input into `dqkv [M, (N + 2 K) H]` (overwritten), from that
    /// of its output, `d_out [M, N H]`, and its inputs and outputs.
    pub fn backward(dqkv: &mut [f32], d_out: &[f32], qkv: &[f32], out: &[f32], lse: &[f32], shape: Shape, scratch: &mut Scratch) {
        let Shape { rows: batch, seq_len, n_heads, head_dim: h, .. } = shape;
        let (tp, hp, d) = (shape.padded_t(), shape.padded_h(), n_heads * h);
        let [at_k, at_v, width] = shape.columns();
        let scale = shape.scale;
        let s = scratch;
        for buffer in [&mut s.q, &mut s.k, &mut s.v, &mut s.d_out, &mut s.dk, &mut s.dv, &mut s.k_t, &mut s.v_t] {
            buffer.resize(buffer.len().max(tp * hp), 0.0);
            // Only elements that are no padding are written from here on.
            buffer[..tp * hp].fill(0.0);
        }
        for buffer in [&mut s.p, &mut s.dp] {
            buffer.resize(buffer.len().max(TILE * tp), 0.0);
        }
        for b in 0..batch {
            let qkv = &qkv[b * seq_len * width..][..seq_len * width];
            let dqkv = &mut dqkv[b * seq_len * width..][..seq_len * width];
            let out = &out[b * seq_len * d..][..seq_len * d];
            let d_out = &d_out[b * seq_len * d..][..seq_len * d];
            let lse = &lse[b * seq_len * n_heads..][..seq_len * n_heads];
            for n in 0..n_heads {
                let kv = n / shape.group();
                if n.is_multiple_of(shape.group()) {
                    gather(qkv, &mut s.k, width, at_k + kv * h, h, hp);
                    gather_transposed(qkv, &mut s.k_t, width, at_k + kv * h, h, tp);
                    gather_transposed(qkv, &mut s.v_t, width, at_v + kv * h, h, tp);
                    s.dk[..tp * hp].fill(0.0);
                    s.dv[..tp * hp].fill(0.0);
                }
                gather(qkv, &mut s.q, width, n * h, h, hp);
                gather(d_out, &mut s.d_out, d, n * h, h, hp);
                for first in (0..seq_len).step_by(TILE) {
                    let tile = TILE.min(seq_len - first);
                    let from = shape.first_block(first);
                    let n_keys = first + tile - from;
                    let padded = n_keys.next_multiple_of(LANES);
                    let sizes = Sizes { m: tile, n: padded, k: h };
                    let (q, d_out) = (rows(&s.q, hp, first), rows(&s.d_out, hp, first));
                    product_strided(&mut s.p, tp, q, columns(&s.k_t, tp, from), sizes, Out::Set);
                    product_strided(&mut s.dp, tp, d_out, columns(&s.v_t, tp, from), sizes, Out::Set);
                    for i in 0..tile {
                        let t = first + i;
                        let o = &out[t * d + n * h..][..h];
                        let delta = dot(&s.d_out[t * hp..][..h], o);
                        let p = &mut s.p[i * tp..][..padded];
                        let dp = &mut s.dp[i * tp..][..padded];
                        let lse = lse[t * n_heads + n];
                        for (j, (p, dp)) in p.iter_mut().zip(&mut *dp).enumerate() {
                            let probability = exp(p.mul_add(scale, -lse));
                            *p = if j <= t - from { probability } else { 0.0 };
                            *dp = *p * (*dp - delta) * scale;
                        }
                        let unseen = shape.first_key(t) - from;
                        if unseen > 0 {
                            p[..unseen].fill(0.0);
                            dp[..unseen].fill(0.0);
                        }
                    }
                    let sizes = Sizes { m: n_keys, n: hp, k: tile };
                    let (dk, dv) = (&mut s.dk[from * hp..], &mut s.dv[from * hp..]);
                    product_strided(dv, hp, transposed(&s.p, tp), d_out, sizes, Out::Add);
                    product_strided(dk, hp, transposed(&s.dp, tp), q, sizes, Out::Add);
                    // The tile's queries are no longer needed: their gradient takes their place.
                    let dq = &mut s.q[first * hp..];
                    let sizes = Sizes { m: tile, n: hp, k: n_keys };
                    product_strided(dq, hp, rows(&s.dp, tp, 0), rows(&s.k, hp, from), sizes, Out::Set);
                }
                scatter(dqkv, &s.q, width, n * h, h, hp);
                if (n + 1).is_multiple_of(shape.group()) {
                    scatter(dqkv, &s.dk, width, at_k + kv * h, h, hp);
                    scatter(dqkv, &s.dv, width, at_v + kv * h, h, hp);
                }
            }
        }
    }
}

/// Scales, masks and exponentiates the scores of query `t`, which does not attend to the first `unseen` keys;
/// returns their maximum and sum.
#[inline(always)]
fn softmax_row(row: &mut [f32], unseen: usize, t: usize, scale: f32) -> (f32, f32) {
    // Without a window nothing is unseen, and rows are short: a call for nothing is 2 % of a decoding step.
    if unseen > 0 {
        row[..unseen].fill(f32::MIN);
    }
    let mut max = [f32::MIN; LANES];
    let (blocks, _) = row.as_chunks_mut::<LANES>();
    for (block, x) in blocks.iter_mut().enumerate() {
        for i in 0..LANES {
            x[i] = if block * LANES + i <= t {
                x[i] * scale
            } else {
                f32::MIN
            };
            max[i] = if x[i] > max[i] { x[i] } else { max[i] };
        }
    }
    let max = fold_maximum(max);
    let mut sum = [0f32; LANES];
    for (block, x) in blocks.iter_mut().enumerate() {
        for i in 0..LANES {
            let e = exp(x[i] - max);
            x[i] = if block * LANES + i <= t { e } else { 0.0 };
            sum[i] += x[i];
        }
    }
    if unseen > 0 {
        row[..unseen].fill(0.0);
    }
    (max, fold(sum))
}

/// Scratch as a matrix from row `first` on, with rows `stride` elements apart.
fn rows(x: &[f32], stride: usize, first: usize) -> Strided<'_> {
    Strided {
        data: &x[first * stride..],
        row_stride: stride,
        column_stride: 1,
    }
}

/// Scratch as a matrix from column `first` on, with rows `stride` elements apart.
fn columns(x: &[f32], stride: usize, first: usize) -> Strided<'_> {
    Strided {
        data: &x[first..],
        row_stride: stride,
        column_stride: 1,
    }
}

/// The transpose of scratch whose rows are `stride` elements apart.
fn transposed(x: &[f32], stride: usize) -> Strided<'_> {
    Strided {
        data: x,
        row_stride: 1,
        column_stride: stride,
    }
}

/// `acc += a · b`.
#[inline(always)]
fn add_scaled(acc: &mut Vector, a: f32, b: &Vector) {
    for i in 0..LANES {
        acc[i] = a.mul_add(b[i], acc[i]);
    }
}

/// The vector that begins at element `at`.
#[inline(always)]
fn vector(x: &[f32], at: usize) -> &Vector {
    match x[at..].first_chunk() {
        Some(vector) => vector,
        None => unreachable!("scratch is padded to whole vectors"),
    }
}

/// Copies one head of `x [T, stride]` into `out [T, hp]`.
#[inline(always)]
fn gather(x: &[f32], out: &mut [f32], stride: usize, offset: usize, h: usize, hp: usize) {
    for (x, out) in x.chunks_exact(stride).zip(out.chunks_exact_mut(hp)) {
        copy_head(&x[offset..][..h], &mut out[..h]);
    }
}

/// Copies one head of `x [T, stride]` into `out [h, tp]`.
#[inline(always)]
fn gather_transposed(
    x: &[f32],
    out: &mut [f32],
    stride: usize,
    offset: usize,
    h: usize,
    tp: usize,
) {
    for (t, x) in x.chunks_exact(stride).enumerate() {
        for (i, x) in x[offset..][..h].iter().enumerate() {
            out[i * tp + t] = *x;
        }
    }
}

/// Copies `x [T, hp]` to one head of `out [T, stride]`.
#[inline(always)]
fn scatter(out: &mut [f32], x: &[f32], stride: usize, offset: usize, h: usize, hp: usize) {
    for (x, out) in x.chunks_exact(hp).zip(out.chunks_exact_mut(stride)) {
        copy_head(&x[..h], &mut out[offset..][..h]);
    }
}

/// Copies a head's vector, which is too short for a call of `memcpy` to pay.
#[inline(always)]
fn copy_head(x: &[f32], out: &mut [f32]) {
    let (x, x_rest) = x.as_chunks::<LANES>();
    let (out, out_rest) = out.as_chunks_mut::<LANES>();
    for (x, out) in x.iter().zip(out) {
        *out = *x;
    }
    for (x, out) in x_rest.iter().zip(out_rest) {
        *out = *x;
    }
}

multiversion! {
    /// Attention of one new position of each row, the last of `T`: from `qkv [B, (N + 2 K) H]` to `out [B, N H]`.
    ///
    /// Appends the new keys and values to the cache: `keys [B, K, C / 16, H, 16]` and `values [B, K, C, H]` for
    /// C positions, the capacity (a multiple of 16). `p` is scratch.
    pub fn decode(qkv: &[f32], keys: &mut [f32], values: &mut [f32], out: &mut [f32], shape: Shape, capacity: usize, p: &mut Vec<f32>) {
        let Shape { seq_len, n_heads, n_kv_heads, head_dim: h, scale, .. } = shape;
        let (t, d) = (seq_len - 1, n_heads * h);
        let from = shape.first_block(t);
        let seen = Seen { unseen: shape.first_key(t) - from, last: t - from, scale };
        let [at_k, at_v, width] = shape.columns();
        p.resize(p.len().max(capacity), 0.0);
        let heads = keys.chunks_exact_mut(h * capacity).zip(values.chunks_exact_mut(h * capacity));
        for (i, (keys, values)) in heads.enumerate() {
            let (b, kv) = (i / n_kv_heads, i % n_kv_heads);
            let row = &qkv[b * width..][..width];
            let (keys, _) = keys.as_chunks_mut::<LANES>();
            for (keys, k) in keys[t / LANES * h..].iter_mut().zip(&row[at_k + kv * h..][..h]) {
                keys[t % LANES] = *k;
            }
            values[t * h..][..h].copy_from_slice(&row[at_v + kv * h..][..h]);
            for n in kv * shape.group()..(kv + 1) * shape.group() {
                let (keys, values) = (&keys[from / LANES * h..], &values[from * h..]);
                attend(&row[n * h..][..h], keys, values, &mut out[b * d + n * h..][..h], seen, &mut p[..capacity]);
            }
        }
    }
}

/// The keys that a query attends to, those from number `unseen` to the `last`, and the factor of their scores.
#[derive(Clone, Copy)]
struct Seen {
    unseen: usize,
    last: usize,
    scale: f32,
}

/// Attention of a query to the cache of one head, into `out [H]`.
#[inline(always)]
fn attend(q: &[f32], keys: &[Vector], values: &[f32], out: &mut [f32], seen: Seen, p: &mut [f32]) {
    let (h, t) = (q.len(), seen.last);
    let (blocks, _) = p.as_chunks_mut::<LANES>();
    let blocks = &mut blocks[..t / LANES + 1];
    for (p, keys) in blocks.iter_mut().zip(keys.chunks_exact(h)) {
        weighted_sum(p, q, keys);
    }
    let (_, sum) = softmax_row(blocks.as_flattened_mut(), seen.unseen, t, seen.scale);
    let norm = 1.0 / sum;
    let (whole, rest) = out.as_chunks_mut::<LANES>();
    for (c, out) in whole.iter_mut().enumerate() {
        let mut acc = [[0f32; LANES]; CHAINS];
        let (fours, last) = p[..=t].as_chunks::<CHAINS>();
        for (p, rows) in fours.iter().zip(values.chunks_exact(CHAINS * h)) {
            for j in 0..CHAINS {
                add_scaled(&mut acc[j], p[j], vector(rows, j * h + c * LANES));
            }
        }
        let rows = &values[CHAINS * fours.len() * h..];
        for (j, p) in last.iter().enumerate() {
            add_scaled(&mut acc[0], *p, vector(rows, j * h + c * LANES));
        }
        *out = join(acc);
        for out in out {
            *out *= norm;
        }
    }
    let first = h - rest.len();
    for (i, out) in rest.iter_mut().enumerate() {
        let column = values[first + i..].iter().step_by(h);
        *out = norm * p[..=t].iter().zip(column).map(|(p, v)| p * v).sum::<f32>();
    }
}

/// Partial sums that are independent of one another, so that additions need not wait for the one before.
const CHAINS: usize = 4;

/// `out = Σ_l weights[l] · rows[l]`.
#[inline(always)]
fn weighted_sum(out: &mut Vector, weights: &[f32], rows: &[Vector]) {
    let mut acc = [[0f32; LANES]; CHAINS];
    let (fours, last) = weights.as_chunks::<CHAINS>();
    let (row_fours, last_rows) = rows.as_chunks::<CHAINS>();
    for (weights, rows) in fours.iter().zip(row_fours) {
        for j in 0..CHAINS {
            add_scaled(&mut acc[j], weights[j], &rows[j]);
        }
    }
    for (weight, row) in last.iter().zip(last_rows) {
        add_scaled(&mut acc[0], *weight, row);
    }
    *out = join(acc);
}

/// The sum of the partial sums, in a fixed order.
#[inline(always)]
fn join(acc: [Vector; CHAINS]) -> Vector {
    let mut sum = acc[0];
    for i in 0..LANES {
        sum[i] = (acc[0][i] + acc[1][i]) + (acc[2][i] + acc[3][i]);
    }
    sum
}
