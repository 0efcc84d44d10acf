//! candle-transformers' implementations of the families, behind one function.

use std::collections::HashMap;

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::{
    gemma3, granite, llama, mistral, olmo2, qwen2, qwen3, smol::smollm3,
};
use forgetlab_engine::model::Params;
use forgetlab_engine::pretrained::{Family, Pretrained, to_hugging_face};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::OpinionError;

const EMBED: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";

type Forward = Box<dyn FnMut(&Tensor) -> Result<Tensor>>;
type Weights = HashMap<String, Tensor>;

/// A model of candle's.
pub(super) struct Model {
    device: Device,
    /// From tokens `[B, T]` to the logits after the last.
    forward: Forward,
}

impl Model {
    /// Reads a model again; `params` are its weights where candle does not read their files.
    pub fn new(
        model: &Pretrained,
        family: Family,
        json: Map<String, Value>,
        params: &Params,
        device: &str,
    ) -> std::result::Result<Self, OpinionError> {
        let device = match device.strip_prefix("cuda") {
            None => Device::Cpu,
            Some(number) => {
                let number = number.trim_start_matches(':').parse().unwrap_or(0);
                Device::new_cuda(number)?
            }
        };
        let mut weights = weights(model, params)?;
        if model.config.tied_embeddings
            && let Some(embed) = weights.get(EMBED)
        {
            weights.insert(HEAD.into(), embed.clone());
        }
        match family {
            Family::Granite => fold_factors(&mut weights, &json, model.config.head_dim)?,
            Family::Gemma3 => fold_scale(&mut weights, &json, model.config.head_dim)?,
            _ => {}
        }
        let weights = VarBuilder::from_tensors(weights, DType::F32, &device);
        let forward = forward(family, Value::Object(json), weights, &device)?;
        Ok(Self { device, forward })
    }

    /// Logits `[B, V]` after the last of the tokens `[B, T]`.
    pub fn last_logits(&mut self, tokens: &[u32], rows: usize) -> Result<Vec<f32>> {
        let tokens = Tensor::new(tokens, &self.device)?.reshape((rows, ()))?;
        (self.forward)(&tokens)?.flatten_all()?.to_vec1()
    }
}

/// The tensors of a checkpoint, by Hugging Face's names: read by candle from safetensors, else as they were read here.
fn weights(model: &Pretrained, params: &Params) -> std::result::Result<Weights, OpinionError> {
    let mut weights = Weights::new();
    for file in model.safetensors()? {
        weights.extend(candle_core::safetensors::load(file, &Device::Cpu)?);
    }
    if !weights.contains_key(EMBED) {
        weights.clear();
        for (name, shape, elements) in to_hugging_face(params) {
            weights.insert(name, Tensor::from_vec(elements, shape, &Device::Cpu)?);
        }
    }
    Ok(weights)
}

/// Multiplies Granite 3's factors into its weights: candle's Granite is that of before, without them.
fn fold_factors(weights: &mut Weights, json: &Map<String, Value>, head_dim: usize) -> Result<()> {
    let factor = |key: &str, usual: f64| json.get(key).and_then(Value::as_f64).unwrap_or(usual);
    let usual = 1.0 / (head_dim as f64).sqrt();
    let attention = factor("attention_multiplier", 1.0) / usual;
    let residual = factor("residual_multiplier", 1.0);
    let embed = factor("embedding_multiplier", 1.0);
    let logits = 1.0 / factor("logits_scaling", 1.0);
    for (name, tensor) in weights.iter_mut() {
        let factor = match name.as_str() {
            EMBED => embed,
            HEAD => logits,
            name if name.ends_with("q_proj.weight") => attention,
            name if name.ends_with("o_proj.weight") => residual,
            name if name.ends_with("down_proj.weight") => residual,
            _ => continue,
        };
        *tensor = (tensor.to_dtype(DType::F32)? * factor)?;
    }
    Ok(())
}

/// Multiplies Gemma 3's scale of attention into the gains of its queries' norms, where it is not the usual one: candle's
/// Gemma 3 does not read `query_pre_attn_scalar`.
fn fold_scale(weights: &mut Weights, json: &Map<String, Value>, head_dim: usize) -> Result<()> {
    let scalar = json.get("query_pre_attn_scalar").and_then(Value::as_f64);
    let factor = (head_dim as f64 / scalar.unwrap_or(256.0)).sqrt();
    let norms = weights
        .iter_mut()
        .filter(|(name, _)| name.ends_with("q_norm.weight"));
    for (_, tensor) in norms.filter(|_| factor != 1.0) {
        // Gains are stored less 1.
        *tensor = tensor.to_dtype(DType::F32)?.affine(factor, factor - 1.0)?;
    }
    Ok(())
}

fn parse<T: DeserializeOwned>(json: Value) -> std::result::Result<T, OpinionError> {
    Ok(serde_json::from_value(json)?)
}

/// The forward of a family's model, from the first token every time.
fn forward(
    family: Family,
    json: Value,
    weights: VarBuilder,
    device: &Device,
) -> std::result::Result<Forward, OpinionError> {
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
