//! candle-transformers' implementations of the families, behind one function.

use std::collections::HashMap;

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::{
    gemma3, granite, llama, mistral, olmo2, qwen2, qwen3, smol::smollm3,
};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::model::Params;
use crate::pretrained::{Family, Pretrained, to_hugging_face};

use super::PeerError;

const EMBED: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";

/// From tokens `[B, T]` to the logits after the last.
pub(super) type Forward = Box<dyn FnMut(&Tensor) -> Result<Tensor>>;

/// The tensors of a checkpoint, by Hugging Face's names.
pub(super) struct Weights {
    tensors: HashMap<String, Tensor>,
    /// Whether candle read them by itself.
    is_own: bool,
}

/// Reads the tensors of a checkpoint: candle does from safetensors; others are those read here.
pub(super) fn weights(
    model: &Pretrained,
    params: &Params,
) -> std::result::Result<Weights, PeerError> {
    let mut tensors = HashMap::new();
    for file in model.safetensors()? {
        tensors.extend(candle_core::safetensors::load(file, &Device::Cpu)?);
    }
    let is_own = tensors.contains_key(EMBED);
    if !is_own {
        tensors.clear();
        for (name, shape, elements) in to_hugging_face(params) {
            tensors.insert(name, Tensor::from_vec(elements, shape, &Device::Cpu)?);
        }
    }
    Ok(Weights { tensors, is_own })
}

impl Weights {
    /// Multiplies what candle's implementation leaves out into the weights, and says so.
    pub fn fold(
        &mut self,
        model: &Pretrained,
        family: Family,
        json: &Map<String, Value>,
    ) -> Result<Vec<String>> {
        let mut notes = Vec::new();
        if !self.is_own {
            notes
                .push("the weights as they were read here: candle does not read their file".into());
        }
        if model.config.tied_embeddings
            && let Some(embed) = self.tensors.get(EMBED).cloned()
        {
            self.tensors.insert(HEAD.into(), embed);
        }
        let head_dim = model.config.head_dim as f64;
        match family {
            Family::Granite => {
                self.fold_factors(json, head_dim)?;
                notes.push("factors multiplied into the weights: candle's granite has none".into());
            }
            Family::Gemma3 => {
                let scalar = json.get("query_pre_attn_scalar").and_then(Value::as_f64);
                let factor = (head_dim / scalar.unwrap_or(256.0)).sqrt();
                if factor != 1.0 {
                    self.fold_scale(factor)?;
                    let note = "query_pre_attn_scalar multiplied into norms: candle's gemma3 does not read it";
                    notes.push(note.into());
                }
            }
            _ => {}
        }
        Ok(notes)
    }

    /// Granite 3's factors; candle's Granite is that of before.
    fn fold_factors(&mut self, json: &Map<String, Value>, head_dim: f64) -> Result<()> {
        let factor = |key: &str| json.get(key).and_then(Value::as_f64).unwrap_or(1.0);
        let attention = factor("attention_multiplier") * head_dim.sqrt();
        let residual = factor("residual_multiplier");
        for (name, tensor) in &mut self.tensors {
            let factor = match name.as_str() {
                EMBED => factor("embedding_multiplier"),
                HEAD => 1.0 / factor("logits_scaling"),
                name if name.ends_with("q_proj.weight") => attention,
                name if name.ends_with("o_proj.weight") => residual,
                name if name.ends_with("down_proj.weight") => residual,
                _ => continue,
            };
            *tensor = (tensor.to_dtype(DType::F32)? * factor)?;
        }
        Ok(())
    }

    /// A factor of attention's scores, into the gains of the norms of queries.
    fn fold_scale(&mut self, factor: f64) -> Result<()> {
        let mut tensors = self.tensors.iter_mut();
        let norms = tensors
            .by_ref()
            .filter(|(name, _)| name.ends_with("q_norm.weight"));
        for (_, tensor) in norms {
            // Gains are stored less 1.
            *tensor = tensor.to_dtype(DType::F32)?.affine(factor, factor - 1.0)?;
        }
        Ok(())
    }
}

fn parse<T: DeserializeOwned>(json: Value) -> std::result::Result<T, PeerError> {
    Ok(serde_json::from_value(json)?)
}

/// The forward of a family's model, from the first token every time.
pub(super) fn forward(
    family: Family,
    json: Map<String, Value>,
    weights: Weights,
    device: &Device,
) -> std::result::Result<Forward, PeerError> {
    let json = Value::Object(json);
    let weights = VarBuilder::from_tensors(weights.tensors, DType::F32, device);
    macro_rules! anew {
        ($model:expr) => {{
            let mut model = $model?;
            Box::new(move |tokens: &Tensor| {
                model.clear_kv_cache();
                model.forward(tokens, 0)
            })
        }};
    }
    macro_rules! uncached {
        ($kind:ident, $config:ident, $model:ident) => {{
            let config = parse::<$kind::$config>(json)?.into_config(false);
            let model = $kind::$model::load(weights, &config)?;
            let mut cache = $kind::Cache::new(false, DType::F32, &config, device)?;
            Box::new(move |tokens: &Tensor| model.forward(tokens, 0, &mut cache))
        }};
    }
    Ok(match family {
        Family::Llama => uncached!(llama, LlamaConfig, Llama),
        Family::Granite => uncached!(granite, GraniteConfig, Granite),
        Family::Mistral => anew!(mistral::Model::new(&parse(json)?, weights)),
        Family::Qwen2 => anew!(qwen2::ModelForCausalLM::new(&parse(json)?, weights)),
        Family::Qwen3 => anew!(qwen3::ModelForCausalLM::new(&parse(json)?, weights)),
        Family::SmolLm3 => anew!(smollm3::ModelForCausalLM::new(&parse(json)?, weights)),
        Family::Olmo2 => anew!(olmo2::Model::new(&parse(json)?, weights)),
        Family::Gemma3 => {
            let mut model = gemma3::Model::new(false, &parse(json)?, weights)?;
            // Token by token: with several at once its cache takes one head of keys at most.
            Box::new(move |tokens: &Tensor| {
                model.clear_kv_cache();
                let steps = tokens.dim(1)?;
                (0..steps - 1).try_for_each(|t| {
                    let logits = model.forward(&tokens.narrow(1, t, 1)?, t);
                    logits.map(drop)
                })?;
                model.forward(&tokens.narrow(1, steps - 1, 1)?, steps - 1)
            })
        }
    })
}
