//! Weights and metadata of GGUF files of architecture `llama`, as llama.cpp's converter writes them.
//!
//! The converter reorders the rows of `q` and `k` from half-split to interleaved RoPE pairs
//! (`LlamaModel.permute`); reading undoes it. Llama 3's RoPE scaling is stored as a tensor of factors.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::Device;
use candle_core::quantized::gguf_file::{Content, Value};
use serde_json::json;

use crate::model::{Mlp, ModelConfig};
use crate::ops::rope::{Rope, RopeScaling};

use super::config::{Description, SpecialIds, check};
use super::error::{Mismatch, PretrainedError};
use super::hugging_face::hugging_face_tensors;

pub use candle_core::quantized::gguf_file::Value as GgufValue;

/// Metadata of a GGUF file, by key.
pub type GgufMetadata = HashMap<String, GgufValue>;

/// The tensor of factors by which RoPE's frequencies are divided.
const ROPE_FACTORS: &str = "rope_freqs.weight";

/// A GGUF file: its path, and what its header says.
#[derive(Clone, Debug)]
pub struct Gguf {
    path: PathBuf,
    bytes: u64,
    /// Metadata and descriptions of the tensors, as candle reads them.
    pub content: Arc<Content>,
}

impl Gguf {
    /// Reads the header of a file.
    ///
    /// # Errors
    /// A file that is missing, truncated, or not GGUF.
    pub fn open(path: &Path) -> Result<Self, PretrainedError> {
        let unreadable = |source| PretrainedError::Read {
            path: path.into(),
            source,
        };
        let file = File::open(path).map_err(unreadable)?;
        let bytes = file.metadata().map_err(unreadable)?.len();
        let content = read_header(path, file)?;
        for (name, info) in &content.tensor_infos {
            let blocks = info.shape.elem_count() / info.ggml_dtype.block_size();
            let size = (blocks * info.ggml_dtype.type_size()) as u64;
            let end = content.tensor_data_offset.saturating_add(info.offset);
            if end.saturating_add(size) > bytes {
                let why = format!("`{name}` ends beyond its {bytes} bytes; fetch it again");
                return Err(broken(path, why));
            }
        }
        Ok(Self {
            path: path.into(),
            bytes,
            content: Arc::new(content),
        })
    }

    /// Reads the metadata of a file, of any architecture.
    ///
    /// # Errors
    /// A file that is missing or not GGUF.
    pub fn metadata(path: &Path) -> Result<GgufMetadata, PretrainedError> {
        let file = File::open(path).map_err(|source| PretrainedError::Read {
            path: path.into(),
            source,
        })?;
        Ok(read_header(path, file)?.metadata)
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Number of tensors in each number format.
    pub fn dtypes(&self) -> BTreeMap<String, usize> {
        let mut dtypes = BTreeMap::new();
        for info in self.content.tensor_infos.values() {
            *dtypes.entry(format!("{:?}", info.ggml_dtype)).or_default() += 1;
        }
        dtypes
    }

    /// The metadata's string of a key; `None` if it is missing or no string.
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.content.metadata.get(key)? {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// The text of a token, if the file has it.
    pub fn token(&self, id: u32) -> Option<&str> {
        let tokens = self.content.metadata.get("tokenizer.ggml.tokens")?;
        let token = tokens.to_vec().ok()?.get(id as usize)?;
        token.to_string().ok().map(String::as_str)
    }

    /// The description of the model in the metadata.
    ///
    /// # Errors
    /// The first setting that is missing, invalid or not supported; a model that is not of the Llama family.
    pub fn describe(&self) -> Result<Description, PretrainedError> {
        let architecture = self.text("general.architecture").unwrap_or("(none)");
        if architecture != "llama" {
            return Err(PretrainedError::Architecture {
                path: self.path.clone(),
                found: architecture.into(),
            });
        }
        if self.number("llama.expert_count")?.unwrap_or(0.0) > 0.0 {
            let why = "is not 0: mixtures of experts are not built here";
            return Err(self.wrong("llama.expert_count", why.into()));
        }
        let d_model = self.size("llama.embedding_length")?;
        let n_heads = self.size("llama.attention.head_count")?;
        let size_or = |key: &str, default: usize| {
            let value = self.number(key)?.map(|value| value as usize);
            Ok::<_, PretrainedError>(value.filter(|&value| value > 0).unwrap_or(default))
        };
        let n_kv_heads = size_or("llama.attention.head_count_kv", n_heads)?;
        let head_dim = size_or("llama.attention.key_length", d_model / n_heads)?;
        for key in ["llama.attention.value_length", "llama.rope.dimension_count"] {
            if size_or(key, head_dim)? != head_dim {
                let why = format!("is not the head size {head_dim}, which is not built here");
                return Err(self.wrong(key, why));
            }
        }
        let tokens = self.content.metadata.get("tokenizer.ggml.tokens");
        let n_tokens = tokens.and_then(|tokens| Some(tokens.to_vec().ok()?.len()));
        let vocab_size = match n_tokens {
            Some(n) => size_or("llama.vocab_size", n)?,
            None => self.size("llama.vocab_size")?,
        };
        let eps_key = "llama.attention.layer_norm_rms_epsilon";
        let eps = self.number(eps_key)?.ok_or_else(|| self.missing(eps_key))?;
        let base = self.number("llama.rope.freq_base")?.unwrap_or(10_000.0);
        let id = |name: &str| {
            let id = self.number(&format!("tokenizer.ggml.{name}_token_id"))?;
            Ok::<_, PretrainedError>(id.map(|id| id as u32))
        };
        let eos: BTreeSet<u32> = [id("eos")?, id("eot")?].into_iter().flatten().collect();
        let model = ModelConfig {
            d_model,
            n_layers: self.size("llama.block_count")?,
            n_heads,
            n_kv_heads,
            head_dim,
            d_ff: self.size("llama.feed_forward_length")?,
            vocab_size,
            mlp: Mlp::SwiGlu,
            qk_norm: false,
            norm_gains: true,
            norm_eps: eps as f32,
            tied_embeddings: !self.content.tensor_infos.contains_key("output.weight"),
            rope: Rope {
                base,
                scaling: self.rope_scaling(base, head_dim)?,
            },
        };
        check(&model).map_err(|bad| self.wrong(bad.key, bad.why))?;
        Ok(Description {
            model,
            ids: SpecialIds {
                bos: id("bos")?,
                eos: eos.into_iter().collect(),
                pad: id("padding")?,
            },
            max_positions: self.number("llama.context_length")?.map(|n| n as usize),
        })
    }

    /// The RoPE scaling that gives the stored factors; the file does not hold its settings.
    ///
    /// Interpolated frequencies depend on the settings through two numbers alone: `low_freq_factor` is
    /// taken as 1 and `high_freq_factor` as 4, as in every Llama, and the original context is searched for.
    fn rope_scaling(
        &self,
        base: f64,
        head_dim: usize,
    ) -> Result<Option<RopeScaling>, PretrainedError> {
        let key = "llama.rope.scaling.type";
        if let Some(kind) = self.text(key).filter(|&kind| kind != "none") {
            let why = format!("is `{kind}`; only the factors of Llama 3 are built here");
            return Err(self.wrong(key, why));
        }
        if !self.content.tensor_infos.contains_key(ROPE_FACTORS) {
            return Ok(None);
        }
        let factors = self.dequantise(ROPE_FACTORS)?;
        let plain = Rope {
            base,
            scaling: None,
        };
        let frequencies = plain.frequencies(head_dim);
        let largest = factors.iter().copied().fold(1.0, f32::max);
        let fits = |scaling: &RopeScaling| {
            let rope = Rope {
                base,
                scaling: Some(*scaling),
            };
            let scaled = rope.frequencies(head_dim);
            factors.len() == scaled.len()
                && (factors.iter().zip(&frequencies).zip(&scaled))
                    .all(|((&factor, f), s)| (f / f64::from(factor) / s - 1.0).abs() < 1e-4)
        };
        let contexts = [8192.0].into_iter().chain((4..24).map(|n| 2f64.powi(n)));
        let mut candidates = contexts.map(|original_max_positions| RopeScaling {
            factor: largest.into(),
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_positions,
        });
        let Some(scaling) = candidates.find(fits) else {
            let why = "does not hold factors of Llama 3's formula, the only ones built here";
            return Err(self.wrong(ROPE_FACTORS, why.into()));
        };
        Ok(Some(scaling))
    }

    /// Compares names and shapes with those of a model.
    ///
    /// # Errors
    /// [`PretrainedError::Tensors`] with all differences.
    pub fn check(&self, model: &ModelConfig) -> Result<(), PretrainedError> {
        let infos = &self.content.tensor_infos;
        let mut mismatch = Mismatch::default();
        let mut known: BTreeSet<String> = [ROPE_FACTORS.to_owned()].into();
        for (name, shape) in hugging_face_tensors(model) {
            let name = gguf_name(&name);
            match infos.get(&name).map(|info| info.shape.dims()) {
                None => mismatch.missing.push(name.clone()),
                Some(stored) if stored != shape => {
                    let shapes = (name.clone(), stored.to_vec(), shape);
                    mismatch.shapes.push(shapes);
                }
                Some(_) => {}
            }
            known.insert(name);
        }
        let unexpected = infos.keys().filter(|name| !known.contains(*name)).cloned();
        mismatch.unexpected = unexpected.collect();
        mismatch.unexpected.sort();
        mismatch.check(&self.path)
    }

    /// Reads the elements of a tensor by its Hugging Face name, rows of `q` and `k` in Hugging Face's order.
    ///
    /// # Errors
    /// A tensor that is not there or cannot be read.
    pub fn read(&self, name: &str, head_dim: usize) -> Result<Vec<f32>, PretrainedError> {
        let elements = self.dequantise(&gguf_name(name))?;
        let interleaved = name.contains(".q_proj.") || name.contains(".k_proj.");
        if !interleaved {
            return Ok(elements);
        }
        let width = self.content.tensor_infos[&gguf_name(name)].shape.dims()[1];
        let mut halves = Vec::with_capacity(elements.len());
        for head in elements.chunks_exact(head_dim * width) {
            for half in 0..2 {
                for i in 0..head_dim / 2 {
                    halves.extend_from_slice(&head[(2 * i + half) * width..][..width]);
                }
            }
        }
        Ok(halves)
    }

    /// Reads the elements of a tensor by its name in the file.
    fn dequantise(&self, name: &str) -> Result<Vec<f32>, PretrainedError> {
        let elements = || {
            let mut file = File::open(&self.path)?;
            let quantised = self.content.tensor(&mut file, name, &Device::Cpu)?;
            let tensor = quantised.dequantize(&Device::Cpu)?;
            tensor.flatten_all()?.to_vec1()
        };
        elements().map_err(|error: candle_core::Error| {
            let why = format!("`{name}`: {}", without_backtrace(&error));
            broken(&self.path, why)
        })
    }

    /// Makes a `tokenizer_config.json` of the metadata: special tokens and the chat template.
    pub fn tokenizer_config(&self) -> serde_json::Value {
        let mut config = json!({ "tokenizer_class": "PreTrainedTokenizerFast" });
        for (key, name) in [
            ("bos_token", "bos"),
            ("eos_token", "eos"),
            ("pad_token", "padding"),
            ("unk_token", "unknown"),
        ] {
            let id = self.number(&format!("tokenizer.ggml.{name}_token_id"));
            if let Some(token) = id.ok().flatten().and_then(|id| self.token(id as u32)) {
                config[key] = json!(token);
            }
        }
        if let Some(template) = self.text("tokenizer.chat_template") {
            config["chat_template"] = json!(template);
        }
        config
    }

    /// The metadata's number of a key, if it is there.
    fn number(&self, key: &str) -> Result<Option<f64>, PretrainedError> {
        let Some(value) = self.content.metadata.get(key) else {
            return Ok(None);
        };
        let number = match value {
            Value::F32(x) => Some(f64::from(*x)),
            Value::F64(x) => Some(*x),
            Value::I32(x) => Some(f64::from(*x)),
            Value::I64(x) => Some(*x as f64),
            other => other.to_u64().ok().map(|x| x as f64),
        };
        let why = || self.wrong(key, "is not one number".into());
        number.ok_or_else(why).map(Some)
    }

    /// The metadata's size of a key, at least 1.
    fn size(&self, key: &str) -> Result<usize, PretrainedError> {
        match self.number(key)? {
            Some(n) if n >= 1.0 => Ok(n as usize),
            Some(n) => Err(self.wrong(key, format!("is {n}"))),
            None => Err(self.missing(key)),
        }
    }

    fn missing(&self, key: &str) -> PretrainedError {
        self.wrong(key, "is missing from the metadata".into())
    }

    fn wrong(&self, key: &str, why: String) -> PretrainedError {
        PretrainedError::Setting {
            path: self.path.clone(),
            key: key.into(),
            why,
        }
    }
}

/// llama.cpp's name of a tensor, from its Hugging Face name.
pub(super) fn gguf_name(name: &str) -> String {
    let mut name = name.replace("model.layers.", "blk.");
    for (hugging_face, llama_cpp) in [
        ("model.embed_tokens", "token_embd"),
        ("lm_head", "output"),
        ("model.norm", "output_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
    ] {
        name = name.replace(hugging_face, llama_cpp);
    }
    name
}

/// Reads the header of a file.
fn read_header(path: &Path, file: File) -> Result<Content, PretrainedError> {
    Content::read(&mut BufReader::new(file))
        .map_err(|error| broken(path, without_backtrace(&error)))
}

/// The error of a file that is not a complete GGUF file.
fn broken(path: &Path, why: String) -> PretrainedError {
    PretrainedError::Format {
        path: path.into(),
        expected: "a whole GGUF file",
        why,
    }
}

/// The first line of an error: candle appends a backtrace if it is enabled.
fn without_backtrace(error: &candle_core::Error) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or_default().to_owned()
}
