//! The settings of RoPE in a `config.json`.

use crate::ops::rope::{Rope, RopeScaling};

use super::super::error::PretrainedError;
use super::super::family::Family;
use super::super::keys::Keys;

/// The settings of RoPE, by the keys of transformers 4 (`rope_scaling`) or 5 (`rope_parameters`), of the blocks of
/// a kind where there are several, with the base where none is given.
pub(super) fn read(
    keys: &Keys,
    family: Family,
    (kind, theta): (&str, f64),
    max_positions: Option<usize>,
) -> Result<Rope, PretrainedError> {
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
    let rope = match family {
        Family::Gemma3 => rope.inner(kind)?.unwrap_or(rope),
        _ => rope,
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
        let why = "is set: bases of RoPE by kind of block are not built for this family";
        return Err(rope.wrong(key, why));
    }
    let base = rope.number("rope_theta")?.unwrap_or(theta);
    let scaling = match rope.text("rope_type")? {
        None => rope.text("type")?,
        scaling => scaling,
    };
    match scaling {
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
