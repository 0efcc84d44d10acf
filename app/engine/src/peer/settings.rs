//! What a `config.json` says, in the keys and forms that candle-transformers reads.

use serde_json::{Map, Value, json};

use crate::pretrained::{Family, Pretrained};

use super::PeerError;

/// A model as candle's implementation of its family is told of it.
pub(super) struct Settings {
    pub json: Map<String, Value>,
    /// Tokens of the rows that can be compared.
    pub length: usize,
    /// What is not compared, or how it is, in words.
    pub notes: Vec<String>,
}

/// Reads the file anew, so that what was made of it here is compared, too; only what the file leaves out is filled in with
/// what is taken for it here.
pub(super) fn of(model: &Pretrained, family: Family, length: usize) -> Result<Settings, PeerError> {
    let mut settings = Settings {
        json: model.config_json()?,
        length,
        notes: Vec::new(),
    };
    let part = |part: String| PeerError::Part {
        name: model.name.clone(),
        family: family.model_type(),
        part,
    };
    settings.rope(family).map_err(part)?;
    settings.heads(model, family).map_err(part)?;
    settings.windows(family).map_err(part)?;
    let (json, config) = (&mut settings.json, &model.config);
    if family == Family::Gemma3 && !config.tied_embeddings {
        return Err(part("output embedding of its own".into()));
    }
    // These say nothing of what is computed, and candle reads fewer forms of them.
    for key in ["bos_token_id", "eos_token_id", "pad_token_id"] {
        json.remove(key);
    }
    let eps: f64 = config.norm_eps.to_string().parse().unwrap_or(1e-6);
    for (key, value) in [
        ("num_key_value_heads", json!(config.n_kv_heads)),
        ("head_dim", json!(config.head_dim)),
        ("rms_norm_eps", json!(eps)),
        ("rope_theta", json!(config.rope.base)),
        ("hidden_act", json!("silu")),
        ("hidden_activation", json!("gelu_pytorch_tanh")),
        ("attention_bias", json!(false)),
        ("query_pre_attn_scalar", json!(256)),
    ] {
        if json.get(key).is_none_or(Value::is_null) {
            json.insert(key.into(), value);
        }
    }
    // Whether there is an own output embedding is known by the weights.
    let tied = json!(config.tied_embeddings);
    json.insert("tie_word_embeddings".into(), tied);
    json.insert("max_window_layers".into(), json!(config.n_layers));
    // Rows stay within the windows of those that say so.
    json.insert("use_sliding_window".into(), json!(false));
    // Of the table of rotations no more is needed.
    json.insert("max_position_embeddings".into(), json!(settings.length));
    Ok(settings)
}

impl Settings {
    /// Settings of RoPE in one object, as transformers 5 writes them, become keys of their own.
    fn rope(&mut self, family: Family) -> Result<(), String> {
        let json = &mut self.json;
        if let Some(parameters) = json.remove("rope_parameters") {
            let own = parameters.get("full_attention").unwrap_or(&parameters);
            let theta = own.get("rope_theta").cloned();
            let local = parameters.get("sliding_attention");
            let local = local.and_then(|local| local.get("rope_theta")).cloned();
            let scaling = own.clone();
            for (key, value) in [
                ("rope_theta", theta),
                ("rope_local_base_freq", local),
                ("rope_scaling", Some(scaling)),
            ] {
                json.extend(value.map(|value| (key.to_owned(), value)));
            }
        }
        if family == Family::Gemma3 && json.get("rope_local_base_freq").is_none() {
            json.insert("rope_local_base_freq".into(), json!(10_000.0));
        }
        let scaling = json.get("rope_scaling").unwrap_or(&Value::Null);
        let kind = scaling.get("rope_type").or_else(|| scaling.get("type"));
        match kind.and_then(Value::as_str) {
            None | Some("default") => drop(json.remove("rope_scaling")),
            Some("llama3") if family == Family::Llama => {}
            Some(kind) => return Err(format!("RoPE of type `{kind}`")),
        }
        Ok(())
    }

    /// Where heads together must be as wide as the model.
    fn heads(&self, model: &Pretrained, family: Family) -> Result<(), String> {
        let own = matches!(family, Family::Mistral | Family::Qwen3 | Family::Gemma3);
        let config = &model.config;
        match own || config.n_heads * config.head_dim == config.d_model {
            true => Ok(()),
            false => Err("heads of a size of their own".into()),
        }
    }

    /// Windows in candle's form, whose masks count the positions before alone; what it has no form for is not compared.
    fn windows(&mut self, family: Family) -> Result<(), String> {
        let window = self.json.get("sliding_window").and_then(Value::as_u64);
        let uses = self.json.get("use_sliding_window").and_then(Value::as_bool);
        let used = match family {
            Family::Mistral | Family::Gemma3 => window,
            _ => window.filter(|_| uses == Some(true)),
        };
        match (family, used) {
            (Family::Mistral, Some(window)) => {
                self.json
                    .insert("sliding_window".into(), json!(window.max(1) - 1));
            }
            (Family::Gemma3, _) => {
                // Token by token candle's cache is the window, the position's own key included.
                let window = window.unwrap_or(4096);
                self.json.insert("sliding_window".into(), json!(window));
                let pattern = self
                    .pattern()
                    .ok_or("windows in such a pattern of blocks")?;
                self.json
                    .insert("sliding_window_pattern".into(), json!(pattern));
            }
            (Family::Mistral, None) => {}
            (_, used) => {
                if let Some(window) = used.filter(|&window| window < self.length as u64) {
                    self.length = window.max(1) as usize;
                    self.notes.push(format!(
                        "rows no longer than the window of {window} positions: candle has none there"
                    ));
                }
                // Qwen 2's has one in any case.
                self.json
                    .insert("sliding_window".into(), json!(self.length));
            }
        }
        Ok(())
    }

    /// Of how many blocks the last has no window, where that is so from the first block on.
    fn pattern(&self) -> Option<usize> {
        let stated = ["sliding_window_pattern", "_sliding_window_pattern"];
        let stated = stated.iter().find_map(|key| self.json.get(*key)?.as_u64());
        let stated = stated.map_or(6, |n| n as usize);
        let Some(types) = self.json.get("layer_types").and_then(Value::as_array) else {
            return Some(stated);
        };
        let full = |i: usize| types[i] == "full_attention";
        let fits = |n: usize| (0..types.len()).all(|i| full(i) == (i + 1).is_multiple_of(n));
        (1..=types.len() + 1).find(|n| fits(*n))
    }
}
