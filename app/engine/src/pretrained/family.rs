//! Families of models that are built here, as transformers names them.

use crate::model::{Mlp, ModelConfig, Norms, Parts, QkGains};

/// A family of models: what one of transformers' classes computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Llama, and what shares its block (SmolLM2).
    Llama,
    /// Mistral: Llama's block, within a window in some models.
    Mistral,
    /// Qwen 2 and 2.5: biases of queries, keys and values.
    Qwen2,
    /// Qwen 3: norms of queries and keys, a head size of its own.
    Qwen3,
    /// SmolLM3: blocks without RoPE.
    SmolLm3,
    /// Granite 3: factors of embeddings, attention, residuals and logits.
    Granite,
    /// OLMo 2: norms after attention and MLP, and of all queries and all keys together.
    Olmo2,
    /// Gemma 3, of text alone: norms around attention and MLP, GeGLU, windows.
    Gemma3,
}

impl Family {
    /// All families; of those that compute the same, the plainest comes first.
    pub const ALL: [Self; 8] = [
        Self::Llama,
        Self::Mistral,
        Self::Qwen2,
        Self::Qwen3,
        Self::SmolLm3,
        Self::Granite,
        Self::Olmo2,
        Self::Gemma3,
    ];

    /// The family of this `model_type` or architecture.
    pub(super) fn named(name: &str) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|family| [family.model_type(), family.architecture()].contains(&name))
    }

    /// Its `model_type` in a `config.json`.
    pub const fn model_type(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Mistral => "mistral",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::SmolLm3 => "smollm3",
            Self::Granite => "granite",
            Self::Olmo2 => "olmo2",
            Self::Gemma3 => "gemma3_text",
        }
    }

    /// The class of transformers that computes it.
    pub const fn architecture(self) -> &'static str {
        match self {
            Self::Llama => "LlamaForCausalLM",
            Self::Mistral => "MistralForCausalLM",
            Self::Qwen2 => "Qwen2ForCausalLM",
            Self::Qwen3 => "Qwen3ForCausalLM",
            Self::SmolLm3 => "SmolLM3ForCausalLM",
            Self::Granite => "GraniteForCausalLM",
            Self::Olmo2 => "Olmo2ForCausalLM",
            Self::Gemma3 => "Gemma3ForCausalLM",
        }
    }

    /// The plainest family that computes a model of these parts; `None` for the lab's small model.
    pub fn of(config: &ModelConfig) -> Option<Self> {
        Self::ALL.into_iter().find(|family| family.computes(config))
    }

    /// Whether the family's class computes a model of these parts.
    pub fn computes(self, config: &ModelConfig) -> bool {
        let parts = &config.parts;
        let mlp = match self {
            Self::Gemma3 => Mlp::GeGlu,
            _ => Mlp::SwiGlu,
        };
        // With what the family leaves open set to Llama's.
        let mut rest = *parts;
        let window = parts.window;
        match self {
            Self::Llama | Self::Olmo2 => {}
            Self::Mistral if window.is_some_and(|w| w.blocks.count() < config.n_layers) => {}
            Self::Gemma3 => (rest.window, rest.attention_scale) = (None, None),
            _ if window.is_some_and(|w| w.rope.is_some()) => {}
            Self::Granite => {
                rest.attention_scale = None;
                rest.embedding_scale = 1.0;
                rest.residual_scale = 1.0;
                rest.logits_scale = 1.0;
            }
            Self::SmolLm3 => (rest.window, rest.unrotated) = (None, Parts::LLAMA.unrotated),
            Self::Mistral | Self::Qwen2 | Self::Qwen3 => rest.window = None,
        }
        config.norm_gains
            && !config.qk_norm
            && config.mlp == mlp
            && rest == self.parts(config.d_model)
    }

    /// The parts that all models of the family have; what it leaves open is as in Llama.
    pub(super) fn parts(self, d_model: usize) -> Parts {
        match self {
            Self::Qwen2 => Parts {
                qkv_bias: true,
                ..Parts::LLAMA
            },
            Self::Qwen3 => Parts {
                qk_gains: QkGains::Head,
                ..Parts::LLAMA
            },
            Self::Olmo2 => Parts {
                norms: Norms::After,
                qk_gains: QkGains::Projection,
                ..Parts::LLAMA
            },
            Self::Gemma3 => Parts {
                norms: Norms::Around,
                qk_gains: QkGains::Head,
                gain_offset: 1.0,
                embedding_scale: (d_model as f64).sqrt() as f32,
                ..Parts::LLAMA
            },
            Self::Llama | Self::Mistral | Self::SmolLm3 | Self::Granite => Parts::LLAMA,
        }
    }

    /// Whether it reads a key of a `config.json` that others must not have.
    pub(super) fn reads(self, key: &str) -> bool {
        let keys: &[&str] = match self {
            Self::Llama => &[],
            // What it says of kinds of blocks is not looked at, there as here.
            Self::Mistral => &["sliding_window", "layer_types"],
            // It has biases of queries, keys and values whatever the key says.
            Self::Qwen2 => &["sliding_window", "layer_types", "attention_bias"],
            Self::Qwen3 => &["sliding_window", "layer_types"],
            Self::SmolLm3 => &["sliding_window", "layer_types", "no_rope_layers"],
            Self::Granite => &[
                "attention_multiplier",
                "embedding_multiplier",
                "residual_multiplier",
                "logits_scaling",
            ],
            Self::Olmo2 => &[],
            Self::Gemma3 => &["sliding_window", "layer_types", "query_pre_attn_scalar"],
        };
        keys.contains(&key)
    }

    /// The head size where a `config.json` names none; `None` for the width divided by the heads.
    pub(super) const fn head_dim(self) -> Option<usize> {
        match self {
            Self::Qwen3 => Some(128),
            Self::Gemma3 => Some(256),
            _ => None,
        }
    }

    /// Whether the heads of queries need not make up the width together.
    pub(super) const fn has_own_heads(self) -> bool {
        matches!(self, Self::Mistral | Self::Qwen3 | Self::Gemma3)
    }

    /// Whether there are fewer heads of keys than of queries where a `config.json` does not say.
    pub(super) const fn shares_keys(self) -> bool {
        !matches!(self, Self::Llama | Self::Granite | Self::Olmo2)
    }

    /// The epsilon of norms where a `config.json` names none.
    pub(super) const fn eps(self) -> f64 {
        match self {
            Self::Olmo2 => 1e-5,
            _ => 1e-6,
        }
    }

    /// The base of RoPE where a `config.json` names none.
    pub(super) const fn theta(self) -> f64 {
        match self {
            Self::SmolLm3 => 2_000_000.0,
            Self::Gemma3 => 1_000_000.0,
            _ => 10_000.0,
        }
    }
}
