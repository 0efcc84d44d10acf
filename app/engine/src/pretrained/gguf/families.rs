//! What llama.cpp's converter writes of each family, and how its tensors differ from Hugging Face's.

use crate::model::{Blocks, Parts, Window};
use crate::ops::rope::Rope;

use super::super::error::PretrainedError;
use super::super::family::Family;
use super::Gguf;

/// The family of a GGUF architecture; `llama` is Mistral's, too.
pub(super) fn named(architecture: &str) -> Option<Family> {
    match architecture {
        "llama" => Some(Family::Llama),
        "gemma3" => Some(Family::Gemma3),
        // Files of Mistral's family say `llama`.
        "mistral" | "gemma3_text" => None,
        other => Family::named(other),
    }
}

/// Whether the converter reorders rows of `q` and `k`: where its class for the family is derived from Llama's.
pub(super) const fn permutes(family: Family) -> bool {
    matches!(family, Family::Llama | Family::SmolLm3 | Family::Granite)
}

/// What the converter adds to the weights of norms.
pub(super) const fn gain_offset(family: Family) -> f32 {
    match family {
        Family::Gemma3 => 1.0,
        _ => 0.0,
    }
}

/// Keys, without the architecture, that a family has and others must not.
pub(super) const fn reads(family: Family) -> &'static [&'static str] {
    match family {
        Family::Granite => &[
            "attention.scale",
            "embedding_scale",
            "residual_scale",
            "logit_scale",
        ],
        Family::Gemma3 => &["attention.sliding_window"],
        _ => &[],
    }
}

impl Gguf {
    /// The parts that are unlike Llama's.
    pub(super) fn parts(
        &self,
        family: Family,
        [d_model, n_layers, n_heads, head_dim]: [usize; 4],
    ) -> Result<Parts, PretrainedError> {
        let factor = |name: &str| -> Result<f32, PretrainedError> {
            let key = self.key(name);
            let factor = self.number(&key)?.unwrap_or(1.0);
            match factor > 0.0 && factor.is_finite() {
                true => Ok(factor as f32),
                false => Err(self.wrong(&key, format!("is {factor}, not a positive number"))),
            }
        };
        let every = |n: usize| (0..n_layers).filter(move |l| (l + 1) % n == 0);
        let parts = family.parts(d_model);
        Ok(match family {
            // llama.cpp knows no other pattern.
            Family::SmolLm3 => Parts {
                unrotated: every(4).collect(),
                ..parts
            },
            Family::Granite => Parts {
                attention_scale: Some(factor("attention.scale")?),
                embedding_scale: factor("embedding_scale")?,
                residual_scale: factor("residual_scale")?,
                logits_scale: 1.0 / factor("logit_scale")?,
                ..parts
            },
            Family::Gemma3 => {
                // llama.cpp tells the largest model, whose scale is its own, by its blocks.
                let scalar = match n_layers {
                    62 => d_model / n_heads,
                    _ => head_dim,
                };
                let window = self.count(&self.key("attention.sliding_window"))?;
                let full: Blocks = every(6).collect();
                let base = self.number(&self.key("rope.freq_base_swa"))?;
                let rope = Rope {
                    base: base.unwrap_or(10_000.0),
                    scaling: None,
                };
                Parts {
                    attention_scale: Some((scalar as f64).powf(-0.5) as f32),
                    window: window.filter(|&len| len > 0).map(|len| Window {
                        blocks: (0..n_layers).filter(|&l| !full.contains(l)).collect(),
                        len,
                        rope: Some(rope),
                    }),
                    ..parts
                }
            }
            _ => parts,
        })
    }
}

/// llama.cpp's name of a tensor, from its Hugging Face name.
pub(in super::super) fn gguf_name(name: &str, family: Family) -> String {
    // The names that are parts of others come last.
    let norms: &[(&str, &str)] = match family {
        Family::Olmo2 | Family::Gemma3 => &[
            ("pre_feedforward_layernorm", "ffn_norm"),
            ("post_feedforward_layernorm", "post_ffw_norm"),
            ("post_attention_layernorm", "post_attention_norm"),
        ],
        _ => &[("post_attention_layernorm", "ffn_norm")],
    };
    let mut name = name.replace("model.layers.", "blk.");
    let others = [
        ("model.embed_tokens", "token_embd"),
        ("lm_head", "output"),
        ("model.norm", "output_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("self_attn.q_norm", "attn_q_norm"),
        ("self_attn.k_norm", "attn_k_norm"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
        ("input_layernorm", "attn_norm"),
    ];
    for (hugging_face, llama_cpp) in others.iter().chain(norms) {
        name = name.replace(hugging_face, llama_cpp);
    }
    name
}
