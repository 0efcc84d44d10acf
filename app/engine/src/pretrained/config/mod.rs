//! Reading and writing the `config.json` of Hugging Face's checkpoints.

mod not_built;
mod parts;
mod rope;
mod write;

use std::path::Path;

use crate::model::{Blocks, Mlp, ModelConfig};

use super::error::PretrainedError;
use super::family::Family;
use super::keys::Keys;

pub(super) use not_built::hint_by_name;
pub(super) use write::to_json;

/// The description of a model, without its weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Description {
    /// The family that it says it is of.
    pub family: Family,
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
pub(super) const MOST_LAYERS: usize = Blocks::MOST;
/// The most of any other size.
pub(super) const MOST_WIDTH: usize = 1 << 24;
/// The most parameters.
const MOST_PARAMETERS: u128 = 1 << 44;

/// Reads a `config.json`, with the keys of transformers 4 or 5.
///
/// # Errors
/// The first setting that is missing, invalid or not supported; a model of a family that is not built here.
pub fn read(path: &Path) -> Result<Description, PretrainedError> {
    let keys = Keys::read(path)?;
    let family = not_built::family(&keys)?;
    not_built::check(&keys, family)?;
    let size = |key: &str| keys.size(key)?.ok_or_else(|| keys.wrong(key, "is missing"));
    let d_model = size("hidden_size")?;
    let n_layers = size("num_hidden_layers")?;
    let n_heads = size("num_attention_heads")?;
    if n_layers > MOST_LAYERS {
        let why = format!("is {n_layers}, more than {MOST_LAYERS}");
        return Err(keys.wrong("num_hidden_layers", &why));
    }
    let n_kv_heads = match keys.size("num_key_value_heads")? {
        None if family.shares_keys() => {
            let why = "is missing, which this family must say";
            return Err(keys.wrong("num_key_value_heads", why));
        }
        n => n.unwrap_or(n_heads),
    };
    let usual = family.head_dim().unwrap_or(d_model / n_heads);
    let max_positions = keys.size("max_position_embeddings")?;
    let vocab_size = size("vocab_size")?;
    let eps = keys.number("rms_norm_eps")?;
    let (mlp, tied) = match family {
        Family::Gemma3 => (Mlp::GeGlu, true),
        family => (Mlp::SwiGlu, family == Family::SmolLm3),
    };
    let theta = keys.number("rope_theta")?.unwrap_or(family.theta());
    let model = ModelConfig {
        d_model,
        n_layers,
        n_heads,
        n_kv_heads,
        head_dim: keys.size("head_dim")?.unwrap_or(usual),
        d_ff: size("intermediate_size")?,
        vocab_size,
        mlp,
        qk_norm: false,
        norm_gains: true,
        norm_eps: eps.unwrap_or(family.eps()) as f32,
        tied_embeddings: keys.flag("tie_word_embeddings")?.unwrap_or(tied),
        rope: rope::read(&keys, family, (parts::FULL, theta), max_positions)?,
        parts: parts::read(&keys, family, n_layers, d_model, max_positions)?,
    };
    check(&model).map_err(|bad| keys.wrong(bad.key, &bad.why))?;
    if !family.has_own_heads() && !d_model.is_multiple_of(n_heads) {
        let why = format!("is {n_heads}, which does not divide the width {d_model}");
        return Err(keys.wrong("num_attention_heads", &why));
    }
    let mut warnings = Vec::new();
    let dropout = keys.number("attention_dropout")?.unwrap_or(0.0);
    if dropout != 0.0 {
        warnings.push(format!(
            "{}: `attention_dropout` is {dropout}; models are trained without dropout here",
            path.display()
        ));
    }
    Ok(Description {
        family,
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
