//! Writing a `config.json`.

use serde_json::{Map, Value, json};

use crate::model::ModelConfig;
use crate::ops::rope::Rope;

use super::super::family::Family;
use super::Description;
use super::parts::{FULL, SLIDING};

/// Makes a `config.json` that transformers loads; keys of `source` that do not describe the weights are kept.
pub(in super::super) fn to_json(
    described: &Description,
    source: Option<Map<String, Value>>,
    dtype: &str,
) -> Map<String, Value> {
    let mut json = source.unwrap_or_default();
    for key in ["rope_parameters", "dtype", "quantization_config"] {
        json.remove(key);
    }
    let (family, model) = (described.family, &described.model);
    let ids = &described.ids;
    let eos = match &ids.eos[..] {
        [] => Value::Null,
        [one] => json!(one),
        many => json!(many),
    };
    // The shortest decimal of the f32, not of the f64 that it is widened to.
    let eps: f64 = model.norm_eps.to_string().parse().unwrap_or(1e-6);
    for (key, value) in [
        ("architectures", json!([family.architecture()])),
        ("model_type", json!(family.model_type())),
        ("hidden_size", json!(model.d_model)),
        ("num_hidden_layers", json!(model.n_layers)),
        ("num_attention_heads", json!(model.n_heads)),
        ("num_key_value_heads", json!(model.n_kv_heads)),
        ("head_dim", json!(model.head_dim)),
        ("intermediate_size", json!(model.d_ff)),
        ("vocab_size", json!(model.vocab_size)),
        ("rms_norm_eps", json!(eps)),
        ("tie_word_embeddings", json!(model.tied_embeddings)),
        ("rope_theta", json!(model.rope.base)),
        ("rope_scaling", scaling(&model.rope)),
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
    for (key, value) in of_family(family, model) {
        json.insert(key.into(), value);
    }
    json
}

/// The scaling of RoPE, as transformers 4 has it.
fn scaling(rope: &Rope) -> Value {
    let Some(scaling) = rope.scaling else {
        return Value::Null;
    };
    json!({
        "rope_type": "llama3",
        "factor": scaling.factor,
        "low_freq_factor": scaling.low_freq_factor,
        "high_freq_factor": scaling.high_freq_factor,
        "original_max_position_embeddings": scaling.original_max_positions as u64,
    })
}

/// Keys whose values a family's parts decide.
fn of_family(family: Family, model: &ModelConfig) -> Vec<(&'static str, Value)> {
    let parts = &model.parts;
    let blocks = 0..model.n_layers;
    let kinds = || -> Value {
        let kind = |l| {
            if model.window(l).is_some() {
                SLIDING
            } else {
                FULL
            }
        };
        blocks.clone().map(kind).collect()
    };
    let len = parts.window.map(|window| window.len);
    // The shortest decimals of the f32.
    let decimal = |x: f32| x.to_string().parse::<f64>().unwrap_or(1.0);
    let no_biases = [("attention_bias", json!(false)), ("mlp_bias", json!(false))];
    let mut keys = match family {
        Family::Gemma3 => vec![("hidden_activation", json!("gelu_pytorch_tanh"))],
        _ => vec![("hidden_act", json!("silu"))],
    };
    match family {
        Family::Llama => keys.extend(no_biases),
        Family::Mistral => keys.push(("sliding_window", json!(len))),
        Family::Qwen2 | Family::Qwen3 => keys.extend([
            ("use_sliding_window", json!(len.is_some())),
            ("sliding_window", json!(len)),
            ("layer_types", kinds()),
        ]),
        Family::SmolLm3 => {
            let rotated = |l| u8::from(!parts.unrotated.contains(l));
            keys.extend(no_biases);
            keys.extend([
                ("no_rope_layers", blocks.clone().map(rotated).collect()),
                ("use_sliding_window", json!(len.is_some())),
                ("sliding_window", json!(len)),
                ("layer_types", kinds()),
            ]);
        }
        Family::Granite => {
            keys.extend(no_biases);
            keys.extend([
                (
                    "attention_multiplier",
                    json!(decimal(model.attention_scale())),
                ),
                (
                    "embedding_multiplier",
                    json!(decimal(parts.embedding_scale)),
                ),
                ("residual_multiplier", json!(decimal(parts.residual_scale))),
                ("logits_scaling", json!(decimal(1.0 / parts.logits_scale))),
            ]);
        }
        Family::Olmo2 => keys.push(("attention_bias", json!(false))),
        Family::Gemma3 => {
            let scale = f64::from(model.attention_scale());
            let local = parts.window.and_then(|window| window.rope);
            keys.extend([
                ("attention_bias", json!(false)),
                ("query_pre_attn_scalar", json!(rounded(scale.powi(-2)))),
                ("layer_types", kinds()),
                // transformers wants a number, even where no block has a window.
                ("sliding_window", json!(len.unwrap_or(4096))),
                (
                    "rope_local_base_freq",
                    json!(local.map_or(10_000.0, |rope| rope.base)),
                ),
            ]);
        }
    }
    keys
}

/// The whole number that is meant, where rounding has moved it a little; transformers takes no other for some keys.
fn rounded(x: f64) -> Value {
    let whole = x.round();
    match (x / whole - 1.0).abs() < 1e-6 {
        true => json!(whole as u64),
        false => json!(x),
    }
}
