//! Queries, keys and values: what their norms, biases and rotations make of their product.
//!
//! The queries of the `G = N / K` query heads that share a head of keys are contiguous for each position:
//! queries are `[B, K, T G, H]`, keys and values `[B, K, T, H]`. A group's queries are therefore the rows
//! of one matrix product with the group's keys, which are not copied.

use candle_core::{Device, Result, Tensor};

use crate::model::{ModelConfig, QkGains};
use crate::ops::rope::Rope;

use super::arguments::{QkvBackward, QkvForward, SwapRows};
use super::kernels::{Grid, WARP, launch};
use super::memory::MAX_SCORES;
use super::ops::{self, GAIN_ROWS, Summed, add_rows};
use super::pointers::{Fresh, Out, Rounded, change_rounded, f32s, optional, rounded};
use super::tensor::is_bf16;

/// Attention of a model: the sizes of its heads, and the tables of its rotations.
#[derive(Clone, Debug)]
pub struct Heads {
    config: ModelConfig,
    rope: Table,
    /// Of blocks with a window, where they have another.
    window_rope: Option<Table>,
    pub(super) max_scores: usize,
}

/// Cosines and sines of the angles of every position, `[T, H/2]` each.
#[derive(Clone, Debug)]
struct Table {
    cos: Tensor,
    sin: Tensor,
}

/// What a block adds to the product that gives queries, keys and values, and multiplies it by; all rounded.
#[derive(Clone, Copy, Default)]
pub struct QkvWeights<'a> {
    /// Biases `[1, (N + 2 K) H]`.
    pub bias: Option<&'a Tensor>,
    /// Gains of the norm of queries, `[1, H]` or `[1, N H]`, as they are stored.
    pub q_gain: Option<&'a Tensor>,
    /// Gains of the norm of keys, `[1, H]` or `[1, K H]`, as they are stored.
    pub k_gain: Option<&'a Tensor>,
}

/// Attention of a block.
#[derive(Clone, Copy)]
pub struct BlockHeads<'a> {
    pub(super) config: &'a ModelConfig,
    pub(super) max_scores: usize,
    /// `None` where queries and keys are not rotated.
    rope: Option<&'a Table>,
    /// The last positions, all of those that a position attends to; `None` where it attends to every one.
    pub(super) window: Option<usize>,
    weights: QkvWeights<'a>,
}

/// Queries, keys and values, rounded; queries and keys rotated, after their norms if the model has them.
pub struct Qkv {
    /// `[B, K, T G, H]`.
    pub q: Tensor,
    /// `[B, K, T, H]`.
    pub k: Tensor,
    /// `[B, K, T, H]`.
    pub v: Tensor,
    /// `1/rms` of the norms of queries and keys, `[M, N + K]`, or `[M, 2]` where all heads are normalised together;
    /// unused without them.
    pub(super) inv_rms: Tensor,
    /// What they were made of, `[M, (N + 2 K) H]`, where norms have gains.
    pub(super) fused: Option<Tensor>,
}

/// Sums of stretches of positions for the gradients of [`QkvWeights::q_gain`] and [`QkvWeights::k_gain`]:
/// `[stretches (N + K) H]`.
pub struct GainSums(Tensor);

/// Queries or keys.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Queries,
    Keys,
}

impl Heads {
    /// Attention of a model at positions `0..seq_len`.
    pub fn new(config: ModelConfig, seq_len: usize, device: &Device) -> Result<Self> {
        let table = |rope: &Rope| Table::new(rope, config.head_dim, seq_len, device);
        let window = config.parts.window.as_ref();
        Ok(Self {
            config,
            rope: table(&config.rope)?,
            window_rope: window
                .and_then(|w| w.rope.as_ref())
                .map(table)
                .transpose()?,
            max_scores: MAX_SCORES,
        })
    }

    /// Number of positions in the tables.
    pub fn seq_len(&self) -> usize {
        self.rope.cos.dims()[0]
    }

    /// Attention of block `l`, with its weights.
    pub fn of<'a>(&'a self, l: usize, weights: QkvWeights<'a>) -> BlockHeads<'a> {
        let window = self.config.window(l);
        let rope = match &self.window_rope {
            _ if self.config.parts.unrotated.contains(l) => None,
            Some(table) if window.is_some() => Some(table),
            _ => Some(&self.rope),
        };
        BlockHeads {
            config: &self.config,
            max_scores: self.max_scores,
            rope,
            window,
            weights,
        }
    }
}

impl Table {
    fn new(rope: &Rope, head_dim: usize, seq_len: usize, device: &Device) -> Result<Self> {
        let frequencies = rope.frequencies(head_dim);
        let table = |f: fn(f64) -> f64| {
            let angles = (0..seq_len).flat_map(|t| frequencies.iter().map(move |w| t as f64 * w));
            let table: Vec<f32> = angles.map(|angle| f(angle) as f32).collect();
            Tensor::from_vec(table, (seq_len, head_dim / 2), device)
        };
        Ok(Self {
            cos: table(f64::cos)?,
            sin: table(f64::sin)?,
        })
    }
}

impl BlockHeads<'_> {
    /// Query heads that share a head of keys, G.
    pub(super) fn group(&self) -> usize {
        self.config.n_heads / self.config.n_kv_heads
    }

    /// Blocks of the kernels, with a warp for each head of a position.
    fn qkv_grid(&self, blocks: usize) -> Grid {
        Grid {
            blocks,
            width: WARP * (self.config.n_heads + 2 * self.config.n_kv_heads),
        }
    }

    /// What is normalised together, as kernels take it.
    fn qk_norm(&self) -> usize {
        match self.config.parts.qk_gains {
            QkGains::Projection => 2,
            QkGains::Head => 1,
            QkGains::None => usize::from(self.config.qk_norm),
        }
    }

    /// Splits `qkv [M, (N + 2 K) H]`, rounded, into heads, with biases, norms and RoPE; rows of `seq_len` begin at
    /// position `first`.
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
            fused: self.weights.q_gain.map(|_| qkv.clone()),
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
        let inv_rms = Fresh::f32s((m * config.qk_norms()).max(1), device)?;
        let vector = |x| optional(x, |x| rounded(x, dtype));
        let args = QkvForward {
            q: q.out(),
            k: keys.k,
            v: keys.v,
            inv_rms: inv_rms.out(),
            qkv: rounded(qkv, dtype)?,
            bias: vector(self.weights.bias)?,
            q_gain: vector(self.weights.q_gain)?,
            k_gain: vector(self.weights.k_gain)?,
            cos: optional(self.rope.map(|rope| &rope.cos), f32s)?,
            sin: optional(self.rope.map(|rope| &rope.sin), f32s)?,
            n_heads: config.n_heads,
            kv_heads: k,
            seq_len,
            head_dim: h,
            bf16: is_bf16(dtype),
            first,
            keys: keys.len,
            first_key: keys.first,
            qk_norm: self.qk_norm(),
            eps: config.norm_eps,
            offset: config.parts.gain_offset,
        };
        launch(device, self.qkv_grid(m), &args)?;
        Ok((q.written(), inv_rms.written()))
    }

    /// Backward of [`Self::split`]: the gradient of its input, rounded, from those of queries, rounded, keys and
    /// values; it is that of the biases of each position, too. If the gains are trained, also what
    /// [`Self::add_gains`] takes.
    pub fn split_backward(
        &self,
        [dq, dk, dv]: &[Tensor; 3],
        qkv: &Qkv,
        trains_gains: bool,
    ) -> Result<(Tensor, Option<GainSums>)> {
        let ((b, _, seq_len, _), dtype) = (dk.dims4()?, qkv.q.dtype());
        let (m, config, device) = (b * seq_len, self.config, dq.device());
        let d_qkv = Fresh::rounded((m, config.qkv_width()), dtype, device)?;
        let trained = self.weights.q_gain.filter(|_| trains_gains);
        let len_of_block = if trained.is_some() { GAIN_ROWS } else { 1 };
        let blocks = m.div_ceil(len_of_block);
        let len = blocks * (config.q_width() + config.kv_width());
        let sums = trained.map(|_| Fresh::f32s(len, device)).transpose()?;
        let vector = |x| optional(x, |x| rounded(x, dtype));
        let args = QkvBackward {
            d_qkv: d_qkv.out(),
            gain_sums: sums.as_ref().map_or(Out::NULL, Fresh::out),
            dq: rounded(dq, dtype)?,
            dk: f32s(dk)?,
            dv: f32s(dv)?,
            q: rounded(&qkv.q, dtype)?,
            k: rounded(&qkv.k, dtype)?,
            qkv: vector(qkv.fused.as_ref())?,
            bias: vector(self.weights.bias)?,
            q_gain: vector(self.weights.q_gain)?,
            k_gain: vector(self.weights.k_gain)?,
            inv_rms: f32s(&qkv.inv_rms)?,
            cos: optional(self.rope.map(|rope| &rope.cos), f32s)?,
            sin: optional(self.rope.map(|rope| &rope.sin), f32s)?,
            n_heads: config.n_heads,
            kv_heads: config.n_kv_heads,
            seq_len,
            head_dim: config.head_dim,
            bf16: is_bf16(dtype),
            qk_norm: self.qk_norm(),
            len: m,
            len_of_block,
            offset: config.parts.gain_offset,
        };
        launch(device, self.qkv_grid(blocks), &args)?;
        Ok((d_qkv.written(), sums.map(Fresh::written).map(GainSums)))
    }

    /// Adds the gradient of the gains of queries or of keys.
    pub fn add_gains(
        &self,
        d_gain: &mut Option<Tensor>,
        GainSums(sums): &GainSums,
        part: Part,
    ) -> Result<()> {
        let (q, k) = (self.config.q_width(), self.config.kv_width());
        let (first, width) = match part {
            Part::Queries => (0, q),
            Part::Keys => (q, k),
        };
        let d = match self.config.parts.qk_gains {
            QkGains::Projection => width,
            QkGains::Head | QkGains::None => self.config.head_dim,
        };
        let (stretches, together) = (sums.elem_count() / (q + k), width / d);
        let sums = sums.narrow(0, first, sums.elem_count() - first)?;
        let summed = Summed {
            x: &sums,
            d,
            len: stretches * together,
            together,
            distance: q + k,
        };
        add_rows(d_gain, summed)
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
