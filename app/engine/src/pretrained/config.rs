//! Reading and writing the `config.json` of Hugging Face's Llama checkpoints.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::model::{Mlp, ModelConfig};
use crate::ops::rope::{Rope, RopeScaling};

use super::error::PretrainedError;
use super::keys::Keys;

/// The description of a model, without its weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Description {
    /// Sizes and parts.
    pub model: ModelConfig,
    /// Ids of special tokens.
    pub ids: SpecialIds,
    /// Length of the longest sequence that the model was made for.
    pub max_positions: Option<usize>,
    /// What is odd about it, in words, and what is made of it.
    pub warnings: Vec<String>,
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

/// The most blocks of a model: more than any has, few enough to list.
pub(super) const MOST_LAYERS: usize = 1024;
/// The most of any other size.
pub(super) const MOST_WIDTH: usize = 1 << 24;
/// The most parameters.
const MOST_PARAMETERS: u128 = 1 << 44;

/// Keys of parts that are not built here, in configurations of the Llama family and of those near it, and the
/// values, besides null and false, with which each changes nothing.
const NOT_BUILT: &[(&str, &[f64], &str)] = &[
    (
        "attention_bias",
        &[],
        "asks for biases, which this engine's Llama does not have",
    ),
    (
        "mlp_bias",
        &[],
        "asks for biases, which this engine's Llama does not have",
    ),
    (
        "partial_rotary_factor",
        &[1.0],
        "is not 1: rotating a part of each head is not built here",
    ),
    (
        "quantization_config",
        &[],
        "is set: take the checkpoint that is not quantised, or a GGUF file",
    ),
    (
        "layer_types",
        &[],
        "is set: blocks of several kinds are not built here",
    ),
    (
        "no_rope_layers",
        &[],
        "is set: blocks without RoPE are not built here",
    ),
    (
        "per_layer_config",
        &[],
        "is set: blocks of several kinds are not built here",
    ),
    (
        "attention_chunk_size",
        &[],
        "is set: attention in chunks is not built here",
    ),
    (
        "num_experts",
        &[0.0],
        "is set: mixtures of experts are not built here",
    ),
    (
        "num_local_experts",
        &[0.0],
        "is set: mixtures of experts are not built here",
    ),
    (
        "n_routed_experts",
        &[0.0],
        "is set: mixtures of experts are not built here",
    ),
    (
        "qk_norm",
        &[],
        "is set: norms of queries and keys are not built for Llamas",
    ),
    (
        "use_qk_norm",
        &[],
        "is set: norms of queries and keys are not built for Llamas",
    ),
    (
        "qk_layernorm",
        &[],
        "is set: norms of queries and keys are not built for Llamas",
    ),
    ("alibi", &[], "is set: ALiBi is not built here"),
    ("clip_qkv", &[], "is set: clipping is not built here"),
    (
        "parallel_attn",
        &[],
        "is set: attention beside the MLP is not built here",
    ),
    (
        "use_parallel_residual",
        &[],
        "is set: attention beside the MLP is not built here",
    ),
    (
        "attn_logit_softcapping",
        &[],
        "is set: capped logits are not built here",
    ),
    (
        "final_logit_softcapping",
        &[],
        "is set: capped logits are not built here",
    ),
    (
        "embedding_multiplier",
        &[1.0],
        "is not 1: scaled embeddings are not built here",
    ),
    (
        "scale_emb",
        &[1.0],
        "is not 1: scaled embeddings are not built here",
    ),
    (
        "residual_multiplier",
        &[1.0],
        "is not 1: scaled residuals are not built here",
    ),
    (
        "scale_depth",
        &[],
        "is set: scaled residuals are not built here",
    ),
    (
        "attention_multiplier",
        &[],
        "is set: another scale of attention is not built here",
    ),
    (
        "query_pre_attn_scalar",
        &[],
        "is set: another scale of attention is not built here",
    ),
    (
        "logits_scaling",
        &[1.0],
        "is not 1: scaled logits are not built here",
    ),
    (
        "logit_scale",
        &[1.0],
        "is not 1: scaled logits are not built here",
    ),
];

/// Reads a `config.json`, with the keys of transformers 4 or 5.
///
/// # Errors
/// The first setting that is missing, invalid or not supported; a model that is not of the Llama family.
pub fn read(path: &Path) -> Result<Description, PretrainedError> {
    let keys = Keys::read(path)?;
    check_architecture(&keys)?;
    check_parts(&keys)?;
    let size = |key: &str| keys.size(key)?.ok_or_else(|| keys.wrong(key, "is missing"));
    let d_model = size("hidden_size")?;
    let n_heads = size("num_attention_heads")?;
    let max_positions = keys.size("max_position_embeddings")?;
    let vocab_size = size("vocab_size")?;
    let model = ModelConfig {
        d_model,
        n_layers: size("num_hidden_layers")?,
        n_heads,
        n_kv_heads: keys.size("num_key_value_heads")?.unwrap_or(n_heads),
        head_dim: keys.size("head_dim")?.unwrap_or(d_model / n_heads),
        d_ff: size("intermediate_size")?,
        vocab_size,
        mlp: Mlp::SwiGlu,
        qk_norm: false,
        norm_gains: true,
        norm_eps: keys.number("rms_norm_eps")?.unwrap_or(1e-6) as f32,
        tied_embeddings: keys.flag("tie_word_embeddings")?.unwrap_or(false),
        rope: rope(&keys, max_positions)?,
    };
    check(&model).map_err(|bad| keys.wrong(bad.key, &bad.why))?;
    let mut warnings = Vec::new();
    let dropout = keys.number("attention_dropout")?.unwrap_or(0.0);
    if dropout != 0.0 {
        warnings.push(format!(
            "{}: `attention_dropout` is {dropout}; models are trained without dropout here",
            path.display()
        ));
    }
    Ok(Description {
        model,
        ids: SpecialIds {
            bos: keys.id("bos_token_id", vocab_size, &mut warnings)?,
            eos: keys.ids("eos_token_id", vocab_size, &mut warnings)?,
            pad: keys.id("pad_token_id", vocab_size, &mut warnings)?,
        },
        max_positions,
        warnings,
    })
}

/// Adds the tokens that end a text by `generation_config.json`, where they are often listed alone.
pub(super) fn add_generation(
    path: &Path,
    description: &mut Description,
) -> Result<(), PretrainedError> {
    let (vocab, warnings) = (description.model.vocab_size, &mut description.warnings);
    for id in Keys::read(path)?.ids("eos_token_id", vocab, warnings)? {
        if !description.ids.eos.contains(&id) {
            description.ids.eos.push(id);
        }
    }
    Ok(())
}

/// Refuses architectures other than Llama's.
fn check_architecture(keys: &Keys) -> Result<(), PretrainedError> {
    let architectures = keys.texts("architectures")?;
    let model_type = keys.text("model_type")?;
    let Some(named) = model_type.or(architectures.first().copied()) else {
        return Err(keys.wrong("model_type", "is missing"));
    };
    let unsupported = match named {
        "llama" | "LlamaForCausalLM" => {
            let mut all = architectures.into_iter();
            all.find(|&name| name != "LlamaForCausalLM")
        }
        _ => Some(named),
    };
    match unsupported {
        None => Ok(()),
        Some(architecture) => Err(PretrainedError::Architecture {
            path: keys.path().into(),
            found: architecture.into(),
        }),
    }
}

/// Refuses parts that are not built here.
fn check_parts(keys: &Keys) -> Result<(), PretrainedError> {
    let act = keys.text("hidden_act")?.unwrap_or("silu");
    if !["silu", "swish"].contains(&act) {
        return Err(keys.wrong("hidden_act", "is not `silu`, as Llama has it"));
    }
    for (key, neutral, why) in NOT_BUILT {
        let is_neutral = match keys.get(key) {
            None | Some(Value::Bool(false)) => true,
            Some(value) => value.as_f64().is_some_and(|x| neutral.contains(&x)),
        };
        if !is_neutral {
            return Err(keys.wrong(key, why));
        }
    }
    // Some write the width of a window that is not used.
    let is_used = keys.flag("use_sliding_window")?.unwrap_or(true);
    if is_used && keys.get("sliding_window").is_some() {
        let why = "is set: attention within a window is not built here";
        return Err(keys.wrong("sliding_window", why));
    }
    Ok(())
}

/// The settings of RoPE, by the keys of transformers 4 (`rope_scaling`) or 5 (`rope_parameters`).
fn rope(keys: &Keys, max_positions: Option<usize>) -> Result<Rope, PretrainedError> {
    let theta = keys.number("rope_theta")?.unwrap_or(10_000.0);
    let plain = Rope {
        base: theta,
        scaling: None,
    };
    let found = ["rope_scaling", "rope_parameters"]
        .into_iter()
        .find_map(|key| keys.inner(key).transpose());
    let Some(rope) = found.transpose()? else {
        return Ok(plain);
    };
    if rope
        .get("partial_rotary_factor")
        .is_some_and(|share| share.as_f64() != Some(1.0))
    {
        let why = "is not 1: rotating a part of each head is not built here";
        return Err(rope.wrong("partial_rotary_factor", why));
    }
    if let Some(key) = ["full_attention", "sliding_attention"]
        .into_iter()
        .find(|key| rope.get(key).is_some())
    {
        return Err(rope.wrong(key, "is set: blocks of several kinds are not built here"));
    }
    let base = rope.number("rope_theta")?.unwrap_or(theta);
    let kind = match rope.text("rope_type")? {
        None => rope.text("type")?,
        kind => kind,
    };
    match kind {
        None | Some("default") if rope.get("factor").is_none() => {
            return Ok(Rope { base, ..plain });
        }
        None | Some("default") => {
            return Err(rope.wrong("factor", "is set, but `rope_type` names no scaling"));
        }
        Some("llama3") => {}
        Some(other) => {
            let why = format!("is `{other}`; only `default` and `llama3` are built here");
            return Err(rope.wrong("rope_type", &why));
        }
    }
    let number = |key: &str| {
        let missing = || rope.wrong(key, "is missing, which rope of type `llama3` needs");
        rope.number(key)?.ok_or_else(missing)
    };
    let original = "original_max_position_embeddings";
    let original = match (keys.number(original)?, rope.number(original)?) {
        (Some(positions), _) | (None, Some(positions)) => positions,
        (None, None) => max_positions.unwrap_or(2048) as f64,
    };
    Ok(Rope {
        base,
        scaling: Some(RopeScaling {
            factor: number("factor")?,
            low_freq_factor: number("low_freq_factor")?,
            high_freq_factor: number("high_freq_factor")?,
            original_max_positions: original,
        }),
    })
}

/// Checks that a model of such sizes and settings can be.
pub(super) fn check(model: &ModelConfig) -> Result<(), BadSetting> {
    let bad = |key, why: String| Err(BadSetting { key, why });
    let c = model;
    for (key, size, most) in [
        ("num_hidden_layers", c.n_layers, MOST_LAYERS),
        ("hidden_size", c.d_model, MOST_WIDTH),
        ("num_attention_heads", c.n_heads, MOST_WIDTH),
        ("num_key_value_heads", c.n_kv_heads, MOST_WIDTH),
        ("head_dim", c.head_dim, MOST_WIDTH),
        ("intermediate_size", c.d_ff, MOST_WIDTH),
        ("vocab_size", c.vocab_size, MOST_WIDTH),
    ] {
        match size {
            0 => return bad(key, "is 0".into()),
            _ if size > most => return bad(key, format!("is {size}, more than {most}")),
            _ => {}
        }
    }
    let (n, k) = (c.n_heads, c.n_kv_heads);
    if !c.d_model.is_multiple_of(n) {
        let why = format!("is {n}, which does not divide the width {}", c.d_model);
        return bad("num_attention_heads", why);
    }
    if !n.is_multiple_of(k) {
        let why = format!("is {k}, which does not divide the {n} query heads");
        return bad("num_key_value_heads", why);
    }
    if !c.head_dim.is_multiple_of(2) {
        return bad("head_dim", format!("is {}, which is odd", c.head_dim));
    }
    let [d, f, v, l] = [c.d_model, c.d_ff, c.vocab_size, c.n_layers].map(|size| size as u128);
    let attention = 2 * (n as u128 + k as u128) * c.head_dim as u128;
    let parameters = 2 * v * d + l * d * (attention + 3 * f);
    if parameters > MOST_PARAMETERS {
        let why = format!("makes, with the other sizes, a model of {parameters} parameters");
        return bad("hidden_size", why);
    }
    let positive = |key, x: f64| match x > 0.0 && x.is_finite() {
        true => Ok(()),
        false => bad(key, format!("is {x}, not a positive number")),
    };
    positive("rms_norm_eps", c.norm_eps.into())?;
    positive("rope_theta", c.rope.base)?;
    let Some(s) = c.rope.scaling else {
        return Ok(());
    };
    positive("factor", s.factor)?;
    positive("low_freq_factor", s.low_freq_factor)?;
    positive("original_max_position_embeddings", s.original_max_positions)?;
    match s.high_freq_factor > s.low_freq_factor && s.high_freq_factor.is_finite() {
        true => Ok(()),
        false => bad(
            "high_freq_factor",
            format!("is {}, not above `low_freq_factor`", s.high_freq_factor),
        ),
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
