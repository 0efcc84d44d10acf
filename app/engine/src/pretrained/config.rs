//! Reading and writing the `config.json` of Hugging Face's Llama checkpoints.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::model::{Mlp, ModelConfig};
use crate::ops::rope::{Rope, RopeScaling};

use super::error::PretrainedError;
use super::json::read_json;

/// The description of a model, without its weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Description {
    /// Sizes and parts.
    pub model: ModelConfig,
    /// Ids of special tokens.
    pub ids: SpecialIds,
    /// Length of the longest sequence that the model was made for.
    pub max_positions: Option<usize>,
}

/// Ids of the special tokens that a model's description names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecialIds {
    /// Token that begins a text.
    pub bos: Option<u32>,
    /// Tokens that end a text or a turn.
    pub eos: Vec<u32>,
    /// Token that pads rows.
    pub pad: Option<u32>,
}

/// A setting that is missing, invalid or not supported.
pub(super) struct BadSetting {
    pub key: &'static str,
    pub why: String,
}

/// The keys of a `config.json` that are read.
#[derive(Deserialize)]
struct Raw {
    model_type: Option<String>,
    architectures: Option<Vec<String>>,
    hidden_size: Option<usize>,
    num_hidden_layers: Option<usize>,
    num_attention_heads: Option<usize>,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    intermediate_size: Option<usize>,
    vocab_size: Option<usize>,
    hidden_act: Option<String>,
    rms_norm_eps: Option<f32>,
    tie_word_embeddings: Option<bool>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    partial_rotary_factor: Option<f64>,
    quantization_config: Option<Value>,
    max_position_embeddings: Option<usize>,
    rope_theta: Option<f64>,
    rope_scaling: Option<RawRope>,
    rope_parameters: Option<RawRope>,
    bos_token_id: Option<Ids>,
    eos_token_id: Option<Ids>,
    pad_token_id: Option<Ids>,
}

/// The keys of `rope_scaling` or `rope_parameters` that are read.
#[derive(Default, Deserialize)]
struct RawRope {
    rope_type: Option<String>,
    /// Former name of `rope_type`.
    r#type: Option<String>,
    rope_theta: Option<f64>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<f64>,
}

/// A token id, or several.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Ids {
    One(u32),
    Many(Vec<u32>),
}

impl Ids {
    /// All ids; none if the key is missing.
    pub(super) fn all(ids: Option<Self>) -> Vec<u32> {
        match ids {
            None => Vec::new(),
            Some(Self::One(id)) => vec![id],
            Some(Self::Many(ids)) => ids,
        }
    }
}

/// Reads a `config.json`, with the keys of transformers 4 or 5.
///
/// # Errors
/// The first setting that is missing, invalid or not supported; a model that is not of the Llama family.
pub fn read(path: &Path) -> Result<Description, PretrainedError> {
    let raw: Raw = read_json(path)?;
    let wrong = |key: &str, why: String| PretrainedError::Setting {
        path: path.into(),
        key: key.into(),
        why,
    };
    raw.check_architecture(path)?;
    let refuse = |key: &str, unsupported: bool, why: &str| {
        if unsupported {
            return Err(wrong(key, why.into()));
        }
        Ok(())
    };
    let biases = "asks for biases, which this engine's Llama does not have";
    refuse("attention_bias", raw.attention_bias == Some(true), biases)?;
    refuse("mlp_bias", raw.mlp_bias == Some(true), biases)?;
    let act = raw.hidden_act.as_deref().unwrap_or("silu");
    refuse(
        "hidden_act",
        act != "silu",
        "is not `silu`, as Llama has it",
    )?;
    let partial = raw.partial_rotary_factor.is_some_and(|share| share != 1.0);
    let why = "is not 1: rotating a part of each head is not built here";
    refuse("partial_rotary_factor", partial, why)?;
    let why = "is set: take the checkpoint that is not quantised, or a GGUF file";
    refuse(
        "quantization_config",
        raw.quantization_config.is_some(),
        why,
    )?;

    let size = |key: &str, value: Option<usize>| match value {
        Some(0) => Err(wrong(key, "is 0".into())),
        Some(value) => Ok(value),
        None => Err(wrong(key, "is missing".into())),
    };
    let d_model = size("hidden_size", raw.hidden_size)?;
    let n_heads = size("num_attention_heads", raw.num_attention_heads)?;
    let n_kv_heads = raw.num_key_value_heads.or(Some(n_heads));
    let head_dim = raw.head_dim.or(Some(d_model / n_heads));
    let theta = raw.rope_theta;
    let rope = raw.rope_parameters.or(raw.rope_scaling).unwrap_or_default();
    let model = ModelConfig {
        d_model,
        n_layers: size("num_hidden_layers", raw.num_hidden_layers)?,
        n_heads,
        n_kv_heads: size("num_key_value_heads", n_kv_heads)?,
        head_dim: size("head_dim", head_dim)?,
        d_ff: size("intermediate_size", raw.intermediate_size)?,
        vocab_size: size("vocab_size", raw.vocab_size)?,
        mlp: Mlp::SwiGlu,
        qk_norm: false,
        norm_gains: true,
        norm_eps: raw.rms_norm_eps.unwrap_or(1e-6),
        tied_embeddings: raw.tie_word_embeddings.unwrap_or(false),
        rope: Rope {
            base: rope.rope_theta.or(theta).unwrap_or(10_000.0),
            scaling: rope.scaling().map_err(|bad| wrong(bad.key, bad.why))?,
        },
    };
    check(&model).map_err(|bad| wrong(bad.key, bad.why))?;
    Ok(Description {
        model,
        ids: SpecialIds {
            bos: Ids::all(raw.bos_token_id).first().copied(),
            eos: Ids::all(raw.eos_token_id),
            pad: Ids::all(raw.pad_token_id).first().copied(),
        },
        max_positions: raw.max_position_embeddings,
    })
}

/// Checks sizes that depend on one another.
pub(super) fn check(model: &ModelConfig) -> Result<(), BadSetting> {
    let (n, k) = (model.n_heads, model.n_kv_heads);
    if !n.is_multiple_of(k) {
        return Err(BadSetting {
            key: "num_key_value_heads",
            why: format!("is {k}, which does not divide the {n} query heads"),
        });
    }
    if !model.head_dim.is_multiple_of(2) {
        return Err(BadSetting {
            key: "head_dim",
            why: format!("is {}, which is odd", model.head_dim),
        });
    }
    Ok(())
}

impl Raw {
    /// Refuses architectures other than Llama's.
    fn check_architecture(&self, path: &Path) -> Result<(), PretrainedError> {
        let architectures = self.architectures.as_deref().unwrap_or_default();
        let Some(named) = self.model_type.as_ref().or(architectures.first()) else {
            return Err(PretrainedError::Setting {
                path: path.into(),
                key: "model_type".into(),
                why: "is missing".into(),
            });
        };
        let unsupported = match &**named {
            "llama" | "LlamaForCausalLM" => architectures.iter().find(|a| *a != "LlamaForCausalLM"),
            _ => Some(named),
        };
        match unsupported {
            None => Ok(()),
            Some(architecture) => Err(PretrainedError::Architecture {
                path: path.into(),
                found: architecture.clone(),
            }),
        }
    }
}

impl RawRope {
    /// The scaling of frequencies, if any.
    fn scaling(&self) -> Result<Option<RopeScaling>, BadSetting> {
        let kind = self.rope_type.as_deref().or(self.r#type.as_deref());
        match kind.unwrap_or("default") {
            "default" => return Ok(None),
            "llama3" => {}
            other => {
                return Err(BadSetting {
                    key: "rope_type",
                    why: format!("is `{other}`; only `default` and `llama3` are built here"),
                });
            }
        }
        let number = |key, value: Option<f64>| {
            let why = match value {
                Some(value) if value > 0.0 => return Ok(value),
                Some(value) => format!("is {value}, not positive"),
                None => "is missing, which rope of type `llama3` needs".into(),
            };
            Err(BadSetting { key, why })
        };
        let original = self.original_max_position_embeddings;
        Ok(Some(RopeScaling {
            factor: number("factor", self.factor)?,
            low_freq_factor: number("low_freq_factor", self.low_freq_factor)?,
            high_freq_factor: number("high_freq_factor", self.high_freq_factor)?,
            original_max_positions: number("original_max_position_embeddings", original)?,
        }))
    }
}

/// Makes a `config.json` that transformers loads; keys of `source` that do not describe the weights are kept.
pub(super) fn to_json(
    described: &Description,
    source: Option<Map<String, Value>>,
    dtype: &str,
) -> Map<String, Value> {
    let mut json = source.unwrap_or_default();
    for key in ["rope_parameters", "dtype", "quantization_config"] {
        json.remove(key);
    }
    let model = &described.model;
    let scaling = model.rope.scaling.map(|scaling| {
        json!({
            "rope_type": "llama3",
            "factor": scaling.factor,
            "low_freq_factor": scaling.low_freq_factor,
            "high_freq_factor": scaling.high_freq_factor,
            "original_max_position_embeddings": scaling.original_max_positions as u64,
        })
    });
    let ids = &described.ids;
    let eos = match &ids.eos[..] {
        [] => Value::Null,
        [one] => json!(one),
        many => json!(many),
    };
    // The shortest decimal of the f32, not of the f64 that it is widened to.
    let eps: f64 = model.norm_eps.to_string().parse().unwrap_or(1e-6);
    for (key, value) in [
        ("architectures", json!(["LlamaForCausalLM"])),
        ("model_type", json!("llama")),
        ("hidden_size", json!(model.d_model)),
        ("num_hidden_layers", json!(model.n_layers)),
        ("num_attention_heads", json!(model.n_heads)),
        ("num_key_value_heads", json!(model.n_kv_heads)),
        ("head_dim", json!(model.head_dim)),
        ("intermediate_size", json!(model.d_ff)),
        ("vocab_size", json!(model.vocab_size)),
        ("hidden_act", json!("silu")),
        ("rms_norm_eps", json!(eps)),
        ("tie_word_embeddings", json!(model.tied_embeddings)),
        ("attention_bias", json!(false)),
        ("mlp_bias", json!(false)),
        ("rope_theta", json!(model.rope.base)),
        ("rope_scaling", scaling.unwrap_or(Value::Null)),
        (
            "max_position_embeddings",
            json!(described.max_positions.unwrap_or(2048)),
        ),
        ("bos_token_id", json!(ids.bos)),
        ("eos_token_id", eos),
        ("pad_token_id", json!(ids.pad)),
        ("torch_dtype", json!(dtype)),
    ] {
        json.insert(key.into(), value);
    }
    json
}
