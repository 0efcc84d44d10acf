//! Weights and metadata of GGUF files, as llama.cpp's converter writes them.
//!
//! For some families the converter reorders the rows of `q` and `k` from half-split to interleaved RoPE pairs
//! (`LlamaModel.permute`), or adds 1 to the weights of norms; reading undoes it. Llama 3's RoPE scaling is stored as a tensor of factors.

mod families;
mod header;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::Device;
use candle_core::quantized::gguf_file::Value;
use serde_json::json;

use crate::model::{Mlp, ModelConfig, Parts};
use crate::ops::rope::{Rope, RopeScaling};

use super::config::{Description, MOST_WIDTH, SpecialIds, check, hint_by_name};
use super::error::{Mismatch, PretrainedError};
use super::family::Family;
use super::hugging_face::hugging_face_tensors;

use families::{gain_offset, named, permutes, reads};
use header::{Header, HeaderError};

pub(super) use families::gguf_name;

pub use candle_core::quantized::gguf_file::Value as GgufValue;

/// Metadata of a GGUF file, by key.
pub type GgufMetadata = HashMap<String, GgufValue>;

/// The tensor of factors by which RoPE's frequencies are divided.
const ROPE_FACTORS: &str = "rope_freqs.weight";

/// Keys, without the architecture, of parts that are not built for every family, and the value with which each changes nothing.
const NOT_BUILT: [(&str, f64, &str); 12] = [
    (
        "expert_count",
        0.0,
        "is not 0: mixtures of experts are not built here",
    ),
    (
        "rope.scale_linear",
        1.0,
        "is not 1: only the factors of Llama 3 are built here",
    ),
    (
        "rope.scaling.attn_factor",
        1.0,
        "is not 1: only the factors of Llama 3 are built here",
    ),
    (
        "attention.sliding_window",
        0.0,
        "is not 0: attention within a window is not built here",
    ),
    (
        "attention.scale",
        0.0,
        "is set: another scale of attention is not built here",
    ),
    (
        "attention.clamp_kqv",
        0.0,
        "is set: clipping is not built here",
    ),
    (
        "attention.max_alibi_bias",
        0.0,
        "is set: ALiBi is not built here",
    ),
    (
        "logit_scale",
        1.0,
        "is not 1: scaled logits are not built here",
    ),
    (
        "residual_scale",
        1.0,
        "is not 1: scaled residuals are not built here",
    ),
    (
        "embedding_scale",
        1.0,
        "is not 1: scaled embeddings are not built here",
    ),
    (
        "attn_logit_softcapping",
        0.0,
        "is set: capped logits are not built here",
    ),
    (
        "final_logit_softcapping",
        0.0,
        "is set: capped logits are not built here",
    ),
];

/// A GGUF file: its path, and what its header says.
#[derive(Clone)]
pub struct Gguf {
    path: PathBuf,
    bytes: u64,
    header: Arc<Header>,
}

impl std::fmt::Debug for Gguf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gguf")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Gguf {
    /// Reads the header of a file.
    ///
    /// # Errors
    /// A file that is missing, truncated, or not GGUF; a quantisation that is not read.
    pub fn open(path: &Path) -> Result<Self, PretrainedError> {
        let (header, bytes) = read_header(path)?;
        Ok(Self {
            path: path.into(),
            bytes,
            header: Arc::new(header),
        })
    }

    /// Reads the metadata of a file, of any architecture.
    ///
    /// # Errors
    /// As [`Gguf::open`].
    pub fn metadata(path: &Path) -> Result<GgufMetadata, PretrainedError> {
        Ok(read_header(path)?.0.metadata)
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Number of tensors in each number format.
    pub fn dtypes(&self) -> BTreeMap<String, usize> {
        let mut dtypes = BTreeMap::new();
        for info in self.header.tensors.values() {
            *dtypes.entry(format!("{:?}", info.ggml_dtype)).or_default() += 1;
        }
        dtypes
    }

    /// The metadata's string of a key; `None` if it is missing or no string.
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.header.metadata.get(key)? {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// The text of a token, if the file has it.
    pub fn token(&self, id: u32) -> Option<&str> {
        let tokens = self.header.metadata.get("tokenizer.ggml.tokens")?;
        let token = tokens.to_vec().ok()?.get(id as usize)?;
        token.to_string().ok().map(String::as_str)
    }

    /// The description of the model in the metadata.
    ///
    /// # Errors
    /// The first setting that is missing, invalid or not supported; a model of a family that is not built here.
    pub fn describe(&self) -> Result<Description, PretrainedError> {
        let family = self.family()?;
        self.check_parts(family)?;
        let size = |name: &str| self.size(&self.key(name));
        let d_model = size("embedding_length")?;
        let n_heads = size("attention.head_count")?;
        let n_layers = size("block_count")?;
        let size_or = |name: &str, default: usize| {
            let count = self.count(&self.key(name))?;
            Ok::<_, PretrainedError>(count.filter(|&n| n > 0).unwrap_or(default))
        };
        let n_kv_heads = size_or("attention.head_count_kv", n_heads)?;
        let head_dim = size_or("attention.key_length", d_model / n_heads)?;
        if head_dim == d_model / n_heads && !d_model.is_multiple_of(n_heads) {
            let why = format!("is {n_heads}, which does not divide the width {d_model}");
            return Err(self.wrong(&self.key("attention.head_count"), why));
        }
        for key in ["attention.value_length", "rope.dimension_count"] {
            if size_or(key, head_dim)? != head_dim {
                let why = format!("is not the head size {head_dim}, which is not built here");
                return Err(self.wrong(&self.key(key), why));
            }
        }
        let tokens = self.header.metadata.get("tokenizer.ggml.tokens");
        let n_tokens = tokens.and_then(|tokens| Some(tokens.to_vec().ok()?.len()));
        let vocab_size = match n_tokens {
            Some(n) => size_or("vocab_size", n)?,
            None => size("vocab_size")?,
        };
        let eps_key = self.key("attention.layer_norm_rms_epsilon");
        let eps = self.number(&eps_key)?;
        let eps = eps.ok_or_else(|| self.missing(&eps_key))?;
        let base = self.number(&self.key("rope.freq_base"))?;
        let base = base.unwrap_or(10_000.0);
        let mut model = ModelConfig {
            d_model,
            n_layers,
            n_heads,
            n_kv_heads,
            head_dim,
            d_ff: size("feed_forward_length")?,
            vocab_size,
            mlp: match family {
                Family::Gemma3 => Mlp::GeGlu,
                _ => Mlp::SwiGlu,
            },
            qk_norm: false,
            norm_gains: true,
            norm_eps: eps as f32,
            tied_embeddings: !self.header.tensors.contains_key("output.weight"),
            rope: Rope {
                base,
                scaling: None,
            },
            parts: Parts::LLAMA,
        };
        check(&model).map_err(|bad| self.wrong(bad.key, bad.why))?;
        model.parts = self.parts(family, [d_model, n_layers, n_heads, head_dim])?;
        model.rope.scaling = self.rope_scaling(base, head_dim)?;
        let mut warnings = Vec::new();
        let ids = self.ids(vocab_size, &mut warnings)?;
        Ok(Description {
            family,
            model,
            ids,
            max_positions: self.count(&self.key("context_length"))?,
            warnings,
        })
    }

    /// The family of the architecture.
    fn family(&self) -> Result<Family, PretrainedError> {
        let architecture = self.text("general.architecture").unwrap_or("(none)");
        named(architecture).ok_or_else(|| PretrainedError::Architecture {
            path: self.path.clone(),
            found: architecture.into(),
            hint: hint_by_name(architecture),
        })
    }

    /// The metadata's key of this name, after the architecture.
    fn key(&self, name: &str) -> String {
        let architecture = self.text("general.architecture").unwrap_or_default();
        format!("{architecture}.{name}")
    }

    /// Refuses files that are no whole model, and parts that are not built here.
    fn check_parts(&self, family: Family) -> Result<(), PretrainedError> {
        if let Some(kind) = self.text("general.type").filter(|&kind| kind != "model") {
            let why = format!("is `{kind}`: this file is no whole model");
            return Err(self.wrong("general.type", why));
        }
        let key = self.key("tensor_data_layout");
        if let Some(layout) = self.text(&key) {
            let why = format!("is `{layout}`, which is not read");
            return Err(self.wrong(&key, why));
        }
        let parts = self.number("split.count")?.unwrap_or(0.0);
        if parts > 1.0 {
            let why = format!(
                "is {parts}: the model is in so many files; join them with llama-gguf-split --merge"
            );
            return Err(self.wrong("split.count", why));
        }
        // llama.cpp's switch of RoPE in this architecture alone.
        let key = self.key("rope.scaling.finetuned");
        let is_rotated = self.header.metadata.get(&key).map(GgufValue::to_bool);
        if family == Family::Granite && matches!(is_rotated, Some(Ok(false))) {
            let why = "is false: a Granite without RoPE is not built here";
            return Err(self.wrong(&key, why.into()));
        }
        // Newer files of Gemma 3 name their pattern, which is one for all of them.
        let key = self.key("attention.sliding_window_pattern");
        let every = self.header.metadata.get(&key).map(GgufValue::to_u64);
        if family == Family::Gemma3 && matches!(every, Some(Ok(every)) if every != 6) {
            let why = "is not 6: other patterns of blocks are not built here";
            return Err(self.wrong(&key, why.into()));
        }
        for (name, neutral, why) in NOT_BUILT {
            let key = self.key(name);
            let is_unlike = self.number(&key)?.is_some_and(|value| value != neutral);
            if is_unlike && !reads(family).contains(&name) {
                return Err(self.wrong(&key, why.into()));
            }
        }
        Ok(())
    }

    /// Ids of the special tokens.
    fn ids(
        &self,
        vocab_size: usize,
        warnings: &mut Vec<String>,
    ) -> Result<SpecialIds, PretrainedError> {
        let mut id = |name: &str| self.id(name, vocab_size, warnings);
        let bos = id("bos")?;
        // Ends of a text, of a turn, and of a message that calls a tool.
        let ends = [id("eos")?, id("eot")?, id("eom")?];
        let eos: BTreeSet<u32> = ends.into_iter().flatten().collect();
        Ok(SpecialIds {
            bos,
            eos: eos.into_iter().collect(),
            pad: id("padding")?,
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
        let key = &self.key("rope.scaling.type");
        if let Some(kind) = self.text(key).filter(|&kind| kind != "none") {
            let why = format!("is `{kind}`; only the factors of Llama 3 are built here");
            return Err(self.wrong(key, why));
        }
        if !self.header.tensors.contains_key(ROPE_FACTORS) {
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
        let (family, infos) = (self.family()?, &self.header.tensors);
        let mut mismatch = Mismatch::default();
        let mut known: BTreeSet<String> = [ROPE_FACTORS.to_owned()].into();
        for (name, shape) in hugging_face_tensors(model) {
            let name = gguf_name(&name, family);
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
        let family = self.family()?;
        let stored = gguf_name(name, family);
        let mut elements = self.dequantise(&stored)?;
        if name.ends_with("norm.weight") {
            elements.iter_mut().for_each(|x| *x -= gain_offset(family));
        }
        let is_turned = name.ends_with(".q_proj.weight") || name.ends_with(".k_proj.weight");
        if !(is_turned && permutes(family)) {
            return Ok(elements);
        }
        let width = self.header.tensors[&stored].shape.dims()[1];
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
        let Some(info) = self.header.tensors.get(name) else {
            return Err(broken(&self.path, format!("`{name}` is missing")));
        };
        let elements = || {
            let mut file = File::open(&self.path)?;
            let quantised = info.read(&mut file, self.header.data, &Device::Cpu)?;
            let tensor = quantised.dequantize(&Device::Cpu)?;
            tensor.flatten_all()?.to_vec1()
        };
        elements().map_err(|error: candle_core::Error| {
            let why = format!("`{name}`: {}", without_backtrace(&error));
            broken(&self.path, why)
        })
    }

    /// Makes a `tokenizer_config.json` of the metadata: special tokens, the chat template, and whether BOS and EOS
    /// are added.
    pub fn tokenizer_config(&self) -> serde_json::Value {
        let mut config = json!({ "tokenizer_class": "PreTrainedTokenizerFast" });
        for (key, name) in [
            ("bos_token", "bos"),
            ("eos_token", "eos"),
            ("pad_token", "padding"),
            ("unk_token", "unknown"),
        ] {
            let id = self.id(name, MOST_WIDTH, &mut Vec::new());
            if let Some(token) = id.ok().flatten().and_then(|id| self.token(id)) {
                config[key] = json!(token);
            }
        }
        for key in ["add_bos_token", "add_eos_token"] {
            let flag = self.header.metadata.get(&format!("tokenizer.ggml.{key}"));
            if let Some(Value::Bool(adds)) = flag {
                config[key] = json!(adds);
            }
        }
        // llama.cpp adds BOS for Llama 3 unless told otherwise.
        let is_llama3 = |kind| ["llama-bpe", "llama3", "llama-v3"].contains(&kind);
        if config.get("add_bos_token").is_none()
            && self.text("tokenizer.ggml.pre").is_some_and(is_llama3)
        {
            config["add_bos_token"] = json!(true);
        }
        if let Some(template) = self.text("tokenizer.chat_template") {
            config["chat_template"] = json!(template);
        }
        config
    }

    /// The id of a special token; one that is not in the vocabulary stands for none, with a warning.
    fn id(
        &self,
        name: &str,
        vocab_size: usize,
        warnings: &mut Vec<String>,
    ) -> Result<Option<u32>, PretrainedError> {
        let key = format!("tokenizer.ggml.{name}_token_id");
        let Some(id) = self.number(&key)? else {
            return Ok(None);
        };
        if id >= 0.0 && id < vocab_size as f64 && id.fract() == 0.0 {
            return Ok(Some(id as u32));
        }
        let path = self.path.display();
        warnings.push(format!(
            "{path}: `{key}` is {id}, which none of the {vocab_size} tokens is; taken for none"
        ));
        Ok(None)
    }

    /// The metadata's number of a key, if it is there.
    fn number(&self, key: &str) -> Result<Option<f64>, PretrainedError> {
        let Some(value) = self.header.metadata.get(key) else {
            return Ok(None);
        };
        let number = match value {
            Value::F32(x) => Some(f64::from(*x)),
            Value::F64(x) => Some(*x),
            Value::I8(x) => Some(f64::from(*x)),
            Value::I16(x) => Some(f64::from(*x)),
            Value::I32(x) => Some(f64::from(*x)),
            Value::I64(x) => Some(*x as f64),
            other => other.to_u64().ok().map(|x| x as f64),
        };
        let why = || self.wrong(key, "is not one number".into());
        number.ok_or_else(why).map(Some)
    }

    /// The metadata's whole number of a key, if it is there.
    fn count(&self, key: &str) -> Result<Option<usize>, PretrainedError> {
        match self.number(key)? {
            None => Ok(None),
            Some(n) if n >= 0.0 && n.fract() == 0.0 && n <= f64::from(u32::MAX) => {
                Ok(Some(n as usize))
            }
            Some(n) => Err(self.wrong(key, format!("is {n}"))),
        }
    }

    /// The metadata's size of a key, at least 1.
    fn size(&self, key: &str) -> Result<usize, PretrainedError> {
        match self.count(key)? {
            Some(0) => Err(self.wrong(key, "is 0".into())),
            Some(n) => Ok(n),
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

/// Reads the header of a file, and its length.
fn read_header(path: &Path) -> Result<(Header, u64), PretrainedError> {
    let unreadable = |source| PretrainedError::Read {
        path: path.into(),
        source,
    };
    let file = File::open(path).map_err(unreadable)?;
    let len = file.metadata().map_err(unreadable)?.len();
    match Header::read(file, len) {
        Ok(header) => Ok((header, len)),
        Err(HeaderError::Broken(why)) => Err(broken(path, why)),
        Err(HeaderError::Unsupported(why)) => Err(PretrainedError::Format {
            path: path.into(),
            expected: "a GGUF file that can be read",
            why,
        }),
    }
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
