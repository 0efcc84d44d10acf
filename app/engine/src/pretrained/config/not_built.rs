//! What is refused of a `config.json`, by name.

use serde_json::Value;

use super::super::error::PretrainedError;
use super::super::family::Family;
use super::super::keys::Keys;

/// Keys of parts that are not built here, in configurations of the Llama family and of those near it, and the
/// values, besides null and false, with which each changes nothing.
const NOT_BUILT: &[(&str, &[f64], &str)] = &[
    (
        "attention_bias",
        &[],
        "asks for biases that are not built here",
    ),
    ("mlp_bias", &[], "asks for biases that are not built here"),
    (
        "partial_rotary_factor",
        &[1.0],
        "is not 1: rotating a part of each head is not built here",
    ),
    (
        "layer_types",
        &[],
        "is set: blocks of several kinds are not built for this family",
    ),
    (
        "no_rope_layers",
        &[],
        "is set: blocks without RoPE are not built for this family",
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
        "is set: norms of queries and keys are not built for this family",
    ),
    (
        "use_qk_norm",
        &[],
        "is set: norms of queries and keys are not built for this family",
    ),
    (
        "qk_layernorm",
        &[],
        "is set: norms of queries and keys are not built for this family",
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
        "use_bidirectional_attention",
        &[],
        "is set: attention to what follows is not built here",
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
        "is not 1: scaled embeddings are not built for this family",
    ),
    (
        "scale_emb",
        &[1.0],
        "is not 1: scaled embeddings are not built for this family",
    ),
    (
        "residual_multiplier",
        &[1.0],
        "is not 1: scaled residuals are not built for this family",
    ),
    (
        "scale_depth",
        &[],
        "is set: scaled residuals are not built here",
    ),
    (
        "attention_multiplier",
        &[],
        "is set: another scale of attention is not built for this family",
    ),
    (
        "query_pre_attn_scalar",
        &[],
        "is set: another scale of attention is not built for this family",
    ),
    (
        "logits_scaling",
        &[1.0],
        "is not 1: scaled logits are not built for this family",
    ),
    (
        "logit_scale",
        &[1.0],
        "is not 1: scaled logits are not built for this family",
    ),
];

/// What is said of a mixture of experts.
const EXPERTS: &str = ", a mixture of experts: take a dense model";

/// The family of a model; another than those built here is refused, in words.
pub(super) fn family(keys: &Keys) -> Result<Family, PretrainedError> {
    let architectures = keys.texts("architectures")?;
    let model_type = keys.text("model_type")?;
    let Some(named) = model_type.or(architectures.first().copied()) else {
        return Err(keys.wrong("model_type", "is missing"));
    };
    let refuse = |found: &str| {
        Err(PretrainedError::Architecture {
            path: keys.path().into(),
            found: found.into(),
            hint: hint(keys, found),
        })
    };
    let Some(family) = Family::named(named) else {
        return refuse(named);
    };
    let mut all = architectures.into_iter();
    match all.find(|&name| name != family.architecture()) {
        Some(other) => refuse(other),
        None => Ok(family),
    }
}

/// What is special about an architecture that is not built here, and what would do.
fn hint(keys: &Keys, found: &str) -> &'static str {
    let has = |list: &[&str]| list.iter().any(|key| keys.get(key).is_some());
    if has(&["vision_config", "audio_config", "text_config"]) {
        return ", a wrapper for images or sound: take a checkpoint of its text model alone";
    }
    let experts = ["num_experts", "num_local_experts", "n_routed_experts"];
    match has(&experts) {
        true => EXPERTS,
        false => hint_by_name(found),
    }
}

/// What would do in place of an architecture that is not built here, as far as its name tells.
pub(in super::super) fn hint_by_name(found: &str) -> &'static str {
    let found = found.to_lowercase();
    if found.contains("moe") || found.contains("mixtral") {
        EXPERTS
    } else if found.starts_with("gemma2") {
        ", which caps its logits (soft-capping): take Gemma 3"
    } else {
        ""
    }
}

/// Refuses parts that are not built here.
pub(super) fn check(keys: &Keys, family: Family) -> Result<(), PretrainedError> {
    if let Some(quantised) = keys.inner("quantization_config")? {
        let method = quantised.text("quant_method")?.unwrap_or("of some kind");
        let why =
            format!("is set ({method}): take the checkpoint that is not quantised, or a GGUF file");
        return Err(keys.wrong("quantization_config", &why));
    }
    if keys.get("quantization_config").is_some() {
        let why = "is set: take the checkpoint that is not quantised, or a GGUF file";
        return Err(keys.wrong("quantization_config", why));
    }
    let (key, names): (_, &[&str]) = match family {
        Family::Gemma3 => ("hidden_activation", &["gelu_pytorch_tanh"]),
        _ => ("hidden_act", &["silu", "swish"]),
    };
    if !names.contains(&keys.text(key)?.unwrap_or(names[0])) {
        let why = format!("is not `{}`, as this family has it", names[0]);
        return Err(keys.wrong(key, &why));
    }
    for (key, neutral, why) in NOT_BUILT {
        let is_neutral = match keys.get(key) {
            None | Some(Value::Bool(false)) => true,
            Some(value) => value.as_f64().is_some_and(|x| neutral.contains(&x)),
        };
        if !is_neutral && !family.reads(key) {
            return Err(keys.wrong(key, why));
        }
    }
    // Some write the width of a window that is not used.
    let is_used = keys.flag("use_sliding_window")?.unwrap_or(true);
    if is_used && keys.get("sliding_window").is_some() && !family.reads("sliding_window") {
        let why = "is set: attention within a window is not built for this family";
        return Err(keys.wrong("sliding_window", why));
    }
    Ok(())
}
