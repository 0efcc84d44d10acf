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
use super::config::{Description, SpecialIds, to_json};
use super::error::PretrainedError;
use super::family::Family;
use super::hugging_face::{INDEX, SINGLE, hugging_face_views};
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
/// A model of no family of Hugging Face's; a folder that is not empty or cannot be written.
pub fn export(params: &Params, options: &Export, dir: &Path) -> Result<Exported, PretrainedError> {
    let model = params.layout.config;
    let source = options.source.and_then(|source| source.family);
    let source = source.filter(|family| family.computes(&model));
    let Some(family) = source.or(Family::of(&model)) else {
        return Err(PretrainedError::NoFamily);
    };
    let write_error = |source| PretrainedError::Write {
        path: dir.into(),
        source,
    };
    let partial = Partial::new(dir).map_err(|error| match error.kind() {
        io::ErrorKind::DirectoryNotEmpty => PretrainedError::Occupied { path: dir.into() },
        _ => write_error(error),
    })?;
    let folder = &partial.folder;

    write_weights(params, options, folder)?;
    let description = Description {
        family,
        model,
        ids: options
            .source
            .map_or(SpecialIds::default(), |source| source.ids.clone()),
        max_positions: options.source.and_then(|source| source.max_positions),
        warnings: Vec::new(),
    };
    let source_config = options
        .source
        .and_then(Pretrained::folder)
        .map(|folder| read_json(&folder.join(CONFIG)))
        .transpose()?;
    let config = to_json(&description, source_config, options.dtype.name());
    write_json(&folder.join(CONFIG), &Value::Object(config))?;
    if let Some((source, from)) = options.source.and_then(|s| Some((s, s.folder()?))) {
        for name in source.companions() {
            let (from, to) = (from.join(&name), folder.join(&name));
            let bytes = builtin::read(&from)
                .map_err(|source| PretrainedError::Read { path: from, source })?;
            let parent = to.parent().unwrap_or(folder);
            fs::create_dir_all(parent).map_err(write_error)?;
            fs::write(to, bytes).map_err(write_error)?;
        }
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
    partial.finish().map_err(write_error)?;
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
struct Partial {
    folder: PathBuf,
    /// What it is to become.
    dir: PathBuf,
    /// Whether `dir` is there already, and empty.
    is_there: bool,
}

impl Partial {
    /// Makes a folder beside `dir`, or in it where it is there.
    fn new(dir: &Path) -> io::Result<Self> {
        // Without a slash at its end, as shells complete it.
        let dir: PathBuf = dir.components().collect();
        let is_there = match fs::metadata(&dir) {
            Ok(data) if data.is_dir() => true,
            Ok(_) => return Err(io::ErrorKind::NotADirectory.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(error),
        };
        if is_there && fs::read_dir(&dir)?.next().is_some() {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        let name = format!(".partial-{}", std::process::id());
        let folder = match dir.file_name() {
            Some(own) if !is_there => {
                let mut own = own.to_owned();
                own.push(name);
                dir.with_file_name(own)
            }
            _ => dir.join(name),
        };
        if let Some(parent) = folder.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::create_dir(&folder)?;
        let is_there = is_there || folder.starts_with(&dir);
        Ok(Self {
            folder,
            dir,
            is_there,
        })
    }

    /// Gives the folder its name; where that is there, its files move in, `config.json` last.
    fn finish(self) -> io::Result<()> {
        if !self.is_there {
            return fs::rename(&self.folder, &self.dir);
        }
        let entries = fs::read_dir(&self.folder)?.map(|entry| Ok(entry?.file_name()));
        let mut names = entries.collect::<io::Result<Vec<_>>>()?;
        names.sort_by_key(|name| name == CONFIG);
        for name in names {
            fs::rename(self.folder.join(&name), self.dir.join(&name))?;
        }
        Ok(())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
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
