//! Writing a model as a Hugging Face folder.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use safetensors::tensor::{SafeTensorError, View};
use serde_json::{Value, json};

use crate::model::Params;
use crate::pretrained::{hugging_face_views, is_llama};

use super::checkpoint::{INDEX, SINGLE};
use super::config::{Description, to_json};
use super::{CONFIG, Pretrained, PretrainedError, Source, SpecialIds, builtin, read_json};

/// What is exported, beside the weights.
#[derive(Clone, Copy, Debug)]
pub struct Export<'a> {
    /// The model that the weights were trained from: its tokenizer and `config.json` are given on.
    pub source: Option<&'a Pretrained>,
    /// A `tokenizer.json`, for a source that has no such file.
    pub tokenizer_json: Option<&'a str>,
    /// How numbers are stored.
    pub dtype: Dtype,
    /// Most bytes of tensors in one file.
    pub shard_bytes: usize,
}

impl<'a> Export<'a> {
    /// In f32, in files of 5 GB, as Hugging Face has them.
    pub fn of(source: Option<&'a Pretrained>) -> Self {
        Self {
            source,
            tokenizer_json: None,
            dtype: Dtype::F32,
            shard_bytes: 5_000_000_000,
        }
    }
}

/// How numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    /// As they are.
    F32,
    /// Rounded to the nearest bf16.
    Bf16,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported {
    /// Names of files.
    pub files: Vec<String>,
    /// Bytes in all.
    pub bytes: u64,
}

/// Writes a folder that transformers loads; it appears once it is whole.
///
/// # Errors
/// A model that is not of the Llama family; a folder that holds something or cannot be written.
pub fn export(params: &Params, what: &Export, dir: &Path) -> Result<Exported, PretrainedError> {
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

    write_weights(params, what, folder)?;
    let source_folder = what.source.and_then(Pretrained::folder);
    let kept = source_folder.map(|folder| read_json(&folder.join(CONFIG)));
    let description = Description {
        model,
        ids: what.source.map_or(SpecialIds::default(), |s| s.ids.clone()),
        max_positions: what.source.and_then(|s| s.max_positions),
    };
    let config = to_json(&description, kept.transpose()?, what.dtype.name());
    write_json(&folder.join(CONFIG), &Value::Object(config))?;
    for file in what
        .source
        .map(Pretrained::tokenizer_files)
        .unwrap_or_default()
    {
        let Some(name) = file.file_name() else {
            continue;
        };
        let bytes = builtin::read(&file).map_err(|source| PretrainedError::Read {
            path: file.clone(),
            source,
        })?;
        fs::write(folder.join(name), bytes).map_err(write_error)?;
    }
    if let Some(Source::Gguf(gguf)) = what.source.map(|source| &source.source) {
        write_json(
            &folder.join("tokenizer_config.json"),
            &gguf.tokenizer_config(),
        )?;
    }
    if let Some(text) = what.tokenizer_json {
        fs::write(folder.join("tokenizer.json"), text).map_err(write_error)?;
    }
    let exported = contents(folder).map_err(write_error)?;
    partial.finish(dir).map_err(write_error)?;
    Ok(exported)
}

/// Writes one file of weights, or shards with their index.
fn write_weights(params: &Params, what: &Export, folder: &Path) -> Result<(), PretrainedError> {
    let tensors = hugging_face_views(params).map(|(name, shape, numbers)| {
        let dtype = what.dtype;
        (
            name,
            Tensor {
                shape,
                numbers,
                dtype,
            },
        )
    });
    let mut shards: Vec<Vec<(String, Tensor)>> = vec![Vec::new()];
    let mut filled = 0;
    for (name, tensor) in tensors {
        let bytes = tensor.data_len();
        if filled > 0 && filled + bytes > what.shard_bytes {
            shards.push(Vec::new());
            filled = 0;
        }
        filled += bytes;
        shards
            .last_mut()
            .into_iter()
            .for_each(|shard| shard.push((name.clone(), tensor.clone())));
    }
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
        // Without this key transformers refuses a file.
        let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        let written = safetensors::serialize_to_file(shard, Some(metadata), &path);
        written.map_err(|error| PretrainedError::Write {
            path,
            source: match error {
                SafeTensorError::IoError(error) => error,
                other => io::Error::other(other.to_string()),
            },
        })?;
    }
    if n == 1 {
        return Ok(());
    }
    let total = params.data.len() * what.dtype.size();
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

/// A tensor that becomes bytes when it is written.
#[derive(Clone)]
struct Tensor<'a> {
    shape: Vec<usize>,
    numbers: &'a [f32],
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
        let numbers = self.numbers.iter();
        match self.dtype {
            Dtype::F32 => numbers.flat_map(|x| x.to_le_bytes()).collect(),
            Dtype::Bf16 => numbers
                .flat_map(|&x| half::bf16::from_f32(x).to_le_bytes())
                .collect(),
        }
    }
    fn data_len(&self) -> usize {
        self.numbers.len() * self.dtype.size()
    }
}

/// A folder that goes away unless it is finished.
struct Partial(PathBuf);

impl Partial {
    fn new(dir: &Path) -> io::Result<Self> {
        let mut name = dir.as_os_str().to_owned();
        name.push(format!(".partial-{}", std::process::id()));
        fs::create_dir(&name)?;
        Ok(Self(name.into()))
    }

    fn finish(self, dir: &Path) -> io::Result<()> {
        // Onto an empty folder, or nothing.
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
