//! Sizes and parts of a decoder-only transformer.

use crate::ops::attention;
use crate::ops::rope::{Heads, Rope, RopeScaling};

/// A decoder-only transformer without biases: the paper's small one, or one of the Llama family.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ModelConfig {
    /// Width D of the residual stream.
    pub d_model: usize,
    /// Blocks L.
    pub n_layers: usize,
    /// Query heads N.
    pub n_heads: usize,
    /// Heads of keys and values K (divides N): each serves `N / K` query heads.
    pub n_kv_heads: usize,
    /// Head size H (even).
    pub head_dim: usize,
    /// Width F of the MLP.
    pub d_ff: usize,
    /// Vocabulary V.
    pub vocab_size: usize,
    /// What happens in the MLP.
    pub mlp: Mlp,
    /// Whether queries and keys are RMS-normalised before they are rotated.
    pub qk_norm: bool,
    /// Whether the RMSNorms of the residual stream have learned gains `[D]`.
    pub norm_gains: bool,
    /// Added to mean squares by every RMSNorm.
    pub norm_eps: f32,
    /// Whether the output embedding is the input embedding.
    pub tied_embeddings: bool,
    /// Rotary positions.
    pub rope: Rope,
}

/// What happens in the MLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mlp {
    /// `W_down · gelu(W_up · x)`, the tanh form.
    Gelu,
    /// `W_down · (silu(W_gate · x) ⊙ W_up · x)`.
    SwiGlu,
}

impl ModelConfig {
    /// The sizes of SmolLM2-135M, a model of the Llama family.
    pub const SMOLLM2_135M: Self = ModelConfig {
        rope: Rope {
            base: 100_000.0,
            scaling: None,
        },
        ..Self::llama(576, 30, [9, 3, 64], 1536, 49_152)
    };

    /// The sizes of Llama-3.2-1B.
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

    /// Width of queries, keys and values beside one another, `(N + 2 K) H`.
    pub const fn qkv_width(&self) -> usize {
        (self.n_heads + 2 * self.n_kv_heads) * self.head_dim
    }

    /// Width of what the MLP activates: F, or gate and up beside one another, `2 F`.
    pub const fn up_width(&self) -> usize {
        match self.mlp {
            Mlp::Gelu => self.d_ff,
            Mlp::SwiGlu => 2 * self.d_ff,
        }
    }

    /// Heads of a row of queries, keys and values.
    pub(crate) const fn heads(&self) -> Heads {
        let turned = self.n_heads + self.n_kv_heads;
        Heads {
            turned,
            all: turned + self.n_kv_heads,
        }
    }

    /// Sizes of attention over `rows` of `seq_len`.
    pub(crate) const fn attention(&self, rows: usize, seq_len: usize) -> attention::Shape {
        attention::Shape {
            rows,
            seq_len,
            n_heads: self.n_heads,
            n_kv_heads: self.n_kv_heads,
            head_dim: self.head_dim,
        }
    }

    /// The small transformer of arXiv 2605.26097: `N = D / H` heads, `F = 4 D`, QK-norm, GELU, no gains,
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
        }
    }

    /// One of the Llama family, `heads` being N, K and H: SwiGLU, gains, tied embeddings, plain RoPE of
    /// base 10 000, eps 1e-5.
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
