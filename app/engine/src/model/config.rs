//! The sizes and parts of a decoder-only transformer.

use crate::ops::attention;
use crate::ops::rope::{Heads, Rope, RopeScaling};

use super::parts::{Norms, Parts, QkGains, Vector};

/// The sizes and parts of a decoder-only transformer.
///
/// [`ModelConfig::mini`] is the paper's small model, [`ModelConfig::llama`] Llama; what other families add to
/// them, or change, is in [`Parts`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ModelConfig {
    /// Width D of the residual stream.
    pub d_model: usize,
    /// Number of blocks L.
    pub n_layers: usize,
    /// Number of query heads N.
    pub n_heads: usize,
    /// Number of heads of keys and of values K (a divisor of N): each serves `N / K` query heads.
    pub n_kv_heads: usize,
    /// Head size H (even).
    pub head_dim: usize,
    /// Width F of the MLP.
    pub d_ff: usize,
    /// Size V of the vocabulary.
    pub vocab_size: usize,
    /// Kind of MLP.
    pub mlp: Mlp,
    /// Whether the queries and keys of each head are RMS-normalised, without gains, before they are rotated;
    /// norms with gains are [`Parts::qk_gains`].
    pub qk_norm: bool,
    /// Whether the RMSNorms of the residual stream have learned gains `[D]`.
    pub norm_gains: bool,
    /// Epsilon of every RMSNorm, added to the mean square.
    pub norm_eps: f32,
    /// Whether the output embedding is the input embedding.
    pub tied_embeddings: bool,
    /// Settings of RoPE.
    pub rope: Rope,
    /// What is unlike Llama.
    pub parts: Parts,
}

/// Kind of MLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mlp {
    /// `W_down · gelu(W_up · x)`, the tanh form.
    Gelu,
    /// `W_down · (silu(W_gate · x) ⊙ W_up · x)`.
    SwiGlu,
    /// `W_down · (gelu(W_gate · x) ⊙ W_up · x)`, the tanh form.
    GeGlu,
}

impl ModelConfig {
    /// SmolLM2-135M, a model of the Llama family.
    pub const SMOLLM2_135M: Self = ModelConfig {
        rope: Rope {
            base: 100_000.0,
            scaling: None,
        },
        ..Self::llama(576, 30, [9, 3, 64], 1536, 49_152)
    };

    /// Llama-3.2-1B.
    pub const LLAMA_1B: Self = ModelConfig {
        rope: Rope {
            base: 500_000.0,
            scaling: Some(RopeScaling {
                factor: 32.0,
                low_freq_factor: 1.0,
                high_freq_factor: 4.0,
                original_max_positions: 8192.0,
            }),
        },
        ..Self::llama(2048, 16, [32, 8, 64], 8192, 128_256)
    };

    /// Width of the queries, `N H`.
    pub const fn q_width(&self) -> usize {
        self.n_heads * self.head_dim
    }

    /// Width of queries, keys and values together, `(N + 2 K) H`.
    pub const fn qkv_width(&self) -> usize {
        (self.n_heads + 2 * self.n_kv_heads) * self.head_dim
    }

    /// Width of the output of the MLP's up projection: F, or `2 F` for gate and up together.
    pub const fn up_width(&self) -> usize {
        match self.mlp {
            Mlp::Gelu => self.d_ff,
            Mlp::SwiGlu | Mlp::GeGlu => 2 * self.d_ff,
        }
    }

    /// Width of the keys, and of the values, `K H`.
    pub const fn kv_width(&self) -> usize {
        self.n_kv_heads * self.head_dim
    }

    /// The vectors of a block and their lengths, in the order of the layout.
    pub fn vectors(&self) -> impl Iterator<Item = (Vector, usize)> {
        let (d, parts) = (self.d_model, &self.parts);
        let gains = |place: bool| if self.norm_gains && place { d } else { 0 };
        let (before, after) = (parts.norms != Norms::After, parts.norms != Norms::Before);
        let [q, k] = match parts.qk_gains {
            QkGains::None => [0, 0],
            QkGains::Head => [self.head_dim; 2],
            QkGains::Projection => [self.q_width(), self.kv_width()],
        };
        let bias = if parts.qkv_bias { self.qkv_width() } else { 0 };
        [
            (Vector::AttentionNorm, gains(before)),
            (Vector::MlpNorm, gains(before)),
            (Vector::AttentionPostNorm, gains(after)),
            (Vector::MlpPostNorm, gains(after)),
            (Vector::QNorm, q),
            (Vector::KNorm, k),
            (Vector::QkvBias, bias),
        ]
        .into_iter()
        .filter(|(_, len)| *len > 0)
    }

    /// Groups of a position's queries and keys that are normalised together, and keep a `1/rms` each.
    pub(crate) const fn qk_norms(&self) -> usize {
        match self.parts.qk_gains {
            QkGains::Projection => 2,
            QkGains::None if !self.qk_norm => 0,
            QkGains::None | QkGains::Head => self.n_heads + self.n_kv_heads,
        }
    }

    /// Numbers of heads in a row of queries, keys and values.
    pub(crate) const fn heads(&self) -> Heads {
        let turned = self.n_heads + self.n_kv_heads;
        Heads {
            turned,
            all: turned + self.n_kv_heads,
        }
    }

    /// Sizes of block `l`'s attention over `rows` sequences of `seq_len` positions.
    pub(crate) fn attention(&self, l: usize, rows: usize, seq_len: usize) -> attention::Shape {
        attention::Shape {
            rows,
            seq_len,
            n_heads: self.n_heads,
            n_kv_heads: self.n_kv_heads,
            head_dim: self.head_dim,
            scale: self.attention_scale(),
            window: self.window(l).unwrap_or(usize::MAX),
        }
    }

    /// Factor of the scores of attention: `1/√H`, unless the model has its own.
    pub fn attention_scale(&self) -> f32 {
        let usual = || 1.0 / (self.head_dim as f32).sqrt();
        self.parts.attention_scale.unwrap_or_else(usual)
    }

    /// The positions, its own and those before, that each position of block `l` attends to; `None` where it
    /// attends to all.
    pub fn window(&self, l: usize) -> Option<usize> {
        let window = self.parts.window.as_ref();
        window.filter(|w| w.blocks.contains(l)).map(|w| w.len)
    }

    /// The paper's small model (arXiv 2605.26097): `N = D / H` heads, `F = 4 D`, QK-norm, GELU, no gains,
    /// untied embeddings.
    pub const fn mini(d_model: usize, n_layers: usize, head_dim: usize, vocab_size: usize) -> Self {
        let n_heads = d_model / head_dim;
        Self {
            d_model,
            n_layers,
            n_heads,
            n_kv_heads: n_heads,
            head_dim,
            d_ff: 4 * d_model,
            vocab_size,
            mlp: Mlp::Gelu,
            qk_norm: true,
            norm_gains: false,
            norm_eps: 1e-6,
            tied_embeddings: false,
            rope: Rope {
                base: 10_000.0,
                scaling: None,
            },
            parts: Parts::LLAMA,
        }
    }

    /// A model of the Llama family: SwiGLU, gains, tied embeddings, RoPE of base 10 000 without scaling,
    /// epsilon 1e-5. `heads` are N, K and H.
    pub const fn llama(
        d_model: usize,
        n_layers: usize,
        heads: [usize; 3],
        d_ff: usize,
        vocab_size: usize,
    ) -> Self {
        let [n_heads, n_kv_heads, head_dim] = heads;
        Self {
            n_heads,
            n_kv_heads,
            d_ff,
            mlp: Mlp::SwiGlu,
            qk_norm: false,
            norm_gains: true,
            norm_eps: 1e-5,
            tied_embeddings: true,
            ..Self::mini(d_model, n_layers, head_dim, vocab_size)
        }
    }
}
