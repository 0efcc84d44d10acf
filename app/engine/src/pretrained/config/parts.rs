//! What a family's `config.json` says of the parts that are unlike Llama's.

use serde_json::Value;

use crate::model::{Blocks, Parts, Window};
use crate::ops::rope::Rope;

use super::super::error::PretrainedError;
use super::super::family::Family;
use super::super::keys::Keys;
use super::rope;

/// The kind of blocks that attend to the last positions alone.
pub(super) const SLIDING: &str = "sliding_attention";
/// The kind of blocks that attend to all positions.
pub(super) const FULL: &str = "full_attention";

/// Reads the parts of a family's model.
pub(super) fn read(
    keys: &Keys,
    family: Family,
    n_layers: usize,
    d_model: usize,
    max_positions: Option<usize>,
) -> Result<Parts, PretrainedError> {
    let factor = |key: &str| -> Result<f32, PretrainedError> {
        let factor = keys.number(key)?.unwrap_or(1.0);
        match factor > 0.0 && factor.is_finite() {
            true => Ok(factor as f32),
            false => Err(keys.wrong(key, &format!("is {factor}, not a positive number"))),
        }
    };
    let parts = Parts {
        window: window(keys, family, n_layers, max_positions)?,
        ..family.parts(d_model)
    };
    Ok(match family {
        Family::SmolLm3 => Parts {
            unrotated: unrotated(keys, n_layers)?,
            ..parts
        },
        Family::Granite => Parts {
            attention_scale: Some(factor("attention_multiplier")?),
            embedding_scale: factor("embedding_multiplier")?,
            residual_scale: factor("residual_multiplier")?,
            logits_scale: 1.0 / factor("logits_scaling")?,
            ..parts
        },
        Family::Gemma3 => {
            let scalar = match keys.get("query_pre_attn_scalar") {
                None => 256.0,
                Some(_) => f64::from(factor("query_pre_attn_scalar")?),
            };
            Parts {
                attention_scale: Some(scalar.powf(-0.5) as f32),
                ..parts
            }
        }
        _ => parts,
    })
}

/// The blocks without RoPE: those whose entry in `no_rope_layers` is 0, by default every fourth.
fn unrotated(keys: &Keys, n_layers: usize) -> Result<Blocks, PretrainedError> {
    let key = "no_rope_layers";
    let Some(value) = keys.get(key) else {
        let interval = keys.size("no_rope_layer_interval")?.unwrap_or(4);
        return Ok((0..n_layers).filter(|l| (l + 1) % interval == 0).collect());
    };
    let flags = value.as_array().map(|list| list.iter().map(Value::as_u64));
    let flags: Option<Vec<u64>> = flags.and_then(Iterator::collect);
    match flags {
        Some(flags) if flags.is_empty() || flags.len() == n_layers => {
            Ok((0..flags.len()).filter(|&l| flags[l] == 0).collect())
        }
        _ => Err(keys.wrong(key, &format!("is no list of {n_layers} zeros and ones"))),
    }
}

/// The blocks that attend to the last positions alone.
fn window(
    keys: &Keys,
    family: Family,
    n_layers: usize,
    max_positions: Option<usize>,
) -> Result<Option<Window>, PretrainedError> {
    let is_used = match family {
        Family::Mistral | Family::Gemma3 => true,
        Family::Qwen2 | Family::Qwen3 | Family::SmolLm3 => {
            keys.flag("use_sliding_window")?.unwrap_or(false)
        }
        Family::Llama | Family::Granite | Family::Olmo2 => false,
    };
    let given = keys.size("sliding_window")?;
    let usual = match family {
        Family::Mistral | Family::Qwen2 | Family::Qwen3 | Family::Gemma3
            if !keys.is_null("sliding_window") =>
        {
            Some(4096)
        }
        _ => None,
    };
    let kinds = match family {
        // It has the window in all blocks, whatever is said of their kinds.
        Family::Mistral => None,
        _ => kinds(keys, n_layers)?,
    };
    let (true, Some(len)) = (is_used, given.or(usual)) else {
        // Kinds of blocks may still be named: all of them must then be the usual one.
        if kinds.is_some_and(|blocks| blocks != Blocks::NONE) {
            let why = "names `sliding_attention`, for which no window is set";
            return Err(keys.wrong("layer_types", why));
        }
        return Ok(None);
    };
    let blocks = match kinds {
        Some(blocks) => blocks,
        None => usual_blocks(keys, family, n_layers)?,
    };
    if blocks == Blocks::NONE {
        return Ok(None);
    }
    let rope = match family {
        Family::Gemma3 => Some(local_rope(keys, max_positions)?),
        _ => None,
    };
    Ok(Some(Window { blocks, len, rope }))
}

/// The blocks that `layer_types` names as sliding; `None` without the key.
fn kinds(keys: &Keys, n_layers: usize) -> Result<Option<Blocks>, PretrainedError> {
    let key = "layer_types";
    if keys.get(key).is_none() {
        return Ok(None);
    }
    let kinds = keys.texts(key)?;
    if kinds.len() != n_layers {
        let why = format!("has {} entries for {n_layers} blocks", kinds.len());
        return Err(keys.wrong(key, &why));
    }
    if let Some(other) = kinds.iter().find(|kind| ![SLIDING, FULL].contains(kind)) {
        let why = format!("names `{other}`; only `{FULL}` and `{SLIDING}` are built here");
        return Err(keys.wrong(key, &why));
    }
    Ok(Some(
        (0..n_layers).filter(|&l| kinds[l] == SLIDING).collect(),
    ))
}

/// The blocks with a window where `layer_types` does not say.
fn usual_blocks(keys: &Keys, family: Family, n_layers: usize) -> Result<Blocks, PretrainedError> {
    Ok(match family {
        Family::Gemma3 => {
            let pattern = match keys.size("sliding_window_pattern")? {
                None => keys.size("_sliding_window_pattern")?,
                pattern => pattern,
            };
            let pattern = pattern.unwrap_or(6);
            (0..n_layers).filter(|l| (l + 1) % pattern != 0).collect()
        }
        Family::Qwen2 | Family::Qwen3 => {
            let first = keys.number("max_window_layers")?.unwrap_or(28.0);
            (0..n_layers).filter(|&l| l as f64 >= first).collect()
        }
        Family::SmolLm3 => unrotated(keys, n_layers)?,
        _ => (0..n_layers).collect(),
    })
}

/// RoPE of Gemma 3's blocks with a window.
fn local_rope(keys: &Keys, max_positions: Option<usize>) -> Result<Rope, PretrainedError> {
    let base = keys.number("rope_local_base_freq")?.unwrap_or(10_000.0);
    let parameters = keys.inner("rope_parameters")?;
    if parameters.is_some_and(|parameters| parameters.get(SLIDING).is_some()) {
        return rope::read(keys, Family::Gemma3, (SLIDING, base), max_positions);
    }
    Ok(Rope {
        base,
        scaling: None,
    })
}
