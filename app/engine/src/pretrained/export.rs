//! Exporting a model as a Hugging Face folder.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use safetensors::tensor::{SafeTensorError, View};
use serde_json::{Value, json};

use crate::model::Params;

use super::builtin;
use super::checkpoint::{INDEX, SINGLE};
use super::config::{Description, SpecialIds, to_json};
use super::error::PretrainedError;
use super::hugging_face::{hugging_face_views, is_llama};
use super::json::read_json;
use super::model::{CONFIG, Pretrained, Source};

/// Settings of an export.
#[derive(Clone, Copy, Debug)]
pub struct Export<'a> {
    /// The model that the weights were trained from, whose tokenizer and `config.json` are exported too.
    pub source: Option<&'a Pretrained>,
    /// A `tokenizer.json`, for a source that has no such file.
    pub tokenizer_json: Option<&'a str>,
    /// Number format of the stored weights.
    pub dtype: Dtype,
    /// Most bytes of tensors in one file.
    pub shard_bytes: usize,
}

impl<'a> Export<'a> {
    /// Weights in f32, in files of up to 5 GB, as is usual on the hub.
    pub fn of(source: Option<&'a Pretrained>) -> Self {
        Self {
            source,
            tokenizer_json: None,
            dtype: Dtype::F32,
            shard_bytes: 5_000_000_000,
        }
    }
}

/// Number format of stored weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    /// f32, without change.
    F32,
    /// Rounded to the nearest bf16.
    Bf16,
}

/// The files of an export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported {
    /// Names of the files.
    pub files: Vec<String>,
    /// Bytes of all files.
    pub bytes: u64,
}

/// Writes a folder that transformers loads; it appears only when it is complete.
///
/// # Errors
/// A model that is not of the Llama family; a folder that is not empty or cannot be written.
pub fn export(params: &Params, options: &Export, dir: &Path) -> Result<Exported, PretrainedError> {
    let model = params.layout.config;
    if !is_llama(&model) {
        return Err(PretrainedError::NotLlama);
    }
    let write_error = |source| PretrainedError::Write {
        path: dir.into(),
        source,
    };
    if fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(PretrainedError::Occupied { path: dir.into() });
    }
    let parent = match dir.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(parent).map_err(write_error)?;
    let partial = Partial::new(dir).map_err(write_error)?;
    let folder = &partial.0;

    write_weights(params, options, folder)?;
    let description = Description {
        model,
        ids: options
            .source
            .map_or(SpecialIds::default(), |source| source.ids.clone()),
        max_positions: options.source.and_then(|source| source.max_positions),
    };
    let source_config = options
        .source
        .and_then(Pretrained::folder)
        .map(|folder| read_json(&folder.join(CONFIG)))
        .transpose()?;
    let config = to_json(&description, source_config, options.dtype.name());
    write_json(&folder.join(CONFIG), &Value::Object(config))?;
    let tokenizer_files = options.source.map(Pretrained::tokenizer_files);
    for file in tokenizer_files.unwrap_or_default() {
        let Some(name) = file.file_name() else {
            continue;
        };
        let bytes = builtin::read(&file).map_err(|source| PretrainedError::Read {
            path: file.clone(),
            source,
        })?;
        fs::write(folder.join(name), bytes).map_err(write_error)?;
    }
    if let Some(Source::Gguf(gguf)) = options.source.map(|source| &source.source) {
        write_json(
            &folder.join("tokenizer_config.json"),
            &gguf.tokenizer_config(),
        )?;
    }
    if let Some(text) = options.tokenizer_json {
        fs::write(folder.join("tokenizer.json"), text).map_err(write_error)?;
    }
    let exported = contents(folder).map_err(write_error)?;
    partial.finish(dir).map_err(write_error)?;
    Ok(exported)
}

/// Writes one file of weights, or shards with their index.
fn write_weights(params: &Params, options: &Export, folder: &Path) -> Result<(), PretrainedError> {
    let mut shards: Vec<Vec<(String, Tensor)>> = Vec::new();
    let mut shard: Vec<(String, Tensor)> = Vec::new();
    let mut filled = 0;
    for (name, shape, elements) in hugging_face_views(params) {
        let tensor = Tensor {
            shape,
            elements,
            dtype: options.dtype,
        };
        let bytes = tensor.data_len();
        if filled > 0 && filled + bytes > options.shard_bytes {
            shards.push(std::mem::take(&mut shard));
            filled = 0;
        }
        filled += bytes;
        shard.push((name, tensor));
    }
    shards.push(shard);
    let n = shards.len();
    let mut weight_map = BTreeMap::new();
    for (i, shard) in shards.into_iter().enumerate() {
        let file = match n {
            1 => SINGLE.to_owned(),
            _ => format!("model-{:05}-of-{n:05}.safetensors", i + 1),
        };
        let names = shard.iter().map(|(name, _)| (name.clone(), file.clone()));
        weight_map.extend(names);
        let path = folder.join(&file);
        // transformers refuses files without this key.
        let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        safetensors::serialize_to_file(shard, Some(metadata), &path).map_err(|error| {
            PretrainedError::Write {
                path,
                source: match error {
                    SafeTensorError::IoError(error) => error,
                    other => io::Error::other(other.to_string()),
                },
            }
        })?;
    }
    if n == 1 {
        return Ok(());
    }
    let total = params.data.len() * options.dtype.size();
    let index = json!({ "metadata": { "total_size": total }, "weight_map": weight_map });
    write_json(&folder.join(INDEX), &index)
}

impl Dtype {
    fn name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::Bf16 => "bfloat16",
        }
    }

    fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }
}

/// A tensor that is converted to bytes when it is written.
struct Tensor<'a> {
    shape: Vec<usize>,
    elements: &'a [f32],
    dtype: Dtype,
}

impl View for Tensor<'_> {
    fn dtype(&self) -> safetensors::Dtype {
        match self.dtype {
            Dtype::F32 => safetensors::Dtype::F32,
            Dtype::Bf16 => safetensors::Dtype::BF16,
        }
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let elements = self.elements.iter();
        match self.dtype {
            Dtype::F32 => elements.flat_map(|x| x.to_le_bytes()).collect(),
            Dtype::Bf16 => elements
                .flat_map(|&x| half::bf16::from_f32(x).to_le_bytes())
                .collect(),
        }
    }

    fn data_len(&self) -> usize {
        self.elements.len() * self.dtype.size()
    }
}

/// A folder under a temporary name, removed unless it is finished.
struct Partial(PathBuf);

impl Partial {
    /// Makes a folder beside `dir`.
    fn new(dir: &Path) -> io::Result<Self> {
        let mut name = dir.as_os_str().to_owned();
        name.push(format!(".partial-{}", std::process::id()));
        fs::create_dir(&name)?;
        Ok(Self(name.into()))
    }

    /// Renames the folder to `dir`, which is empty or does not exist.
    fn finish(self, dir: &Path) -> io::Result<()> {
        fs::rename(&self.0, dir)
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn write_json(path: &Path, value: &Value) -> Result<(), PretrainedError> {
    fs::write(path, format!("{value:#}\n")).map_err(|source| PretrainedError::Write {
        path: path.into(),
        source,
    })
}

/// The files of a folder.
fn contents(folder: &Path) -> io::Result<Exported> {
    let mut exported = Exported {
        files: Vec::new(),
        bytes: 0,
    };
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        exported.bytes += entry.metadata()?.len();
        exported
            .files
            .push(entry.file_name().to_string_lossy().into_owned());
    }
    exported.files.sort();
    Ok(exported)
}
