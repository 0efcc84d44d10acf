//! Weights as Hugging Face keeps them: one safetensors file, or shards with an index.
//!
//! Headers are read when a checkpoint is opened; numbers tensor by tensor, when they are asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use safetensors::tensor::Metadata;
use serde::Deserialize;

use crate::model::ModelConfig;
use crate::pretrained::hugging_face_tensors;

use super::{Mismatch, PretrainedError, read_json};

/// The file of weights that are not sharded.
pub(super) const SINGLE: &str = "model.safetensors";
/// The file that says which shard holds what.
pub(super) const INDEX: &str = "model.safetensors.index.json";

/// Weights on disk.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    folder: PathBuf,
    tensors: BTreeMap<String, Stored>,
    bytes: u64,
}

/// Where a tensor is.
#[derive(Clone, Debug)]
struct Stored {
    file: PathBuf,
    dtype: Dtype,
    shape: Vec<usize>,
    start: u64,
}

/// Names of the files of a folder's weights, as far as they are known from `config.json`'s neighbours.
pub(super) fn weight_files(folder: &Path) -> Result<Vec<String>, PretrainedError> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let index = folder.join(INDEX);
    if folder.join(SINGLE).exists() || !index.exists() {
        return Ok(vec![SINGLE.into()]);
    }
    let map = read_json::<Index>(&index)?.weight_map;
    let files: BTreeSet<String> = map.into_values().collect();
    let elsewhere = files.iter().find(|file| file.contains(['/', '\\']));
    match elsewhere {
        Some(file) => Err(PretrainedError::Format {
            path: index,
            expected: "an index of shards",
            why: format!("it names `{file}`, which is not beside it"),
        }),
        None => Ok(files.into_iter().collect()),
    }
}

impl Checkpoint {
    /// Reads the headers of a folder's weights.
    ///
    /// # Errors
    /// A file that is missing, cut off, or no safetensors.
    pub fn open(folder: &Path) -> Result<Self, PretrainedError> {
        let mut checkpoint = Self {
            folder: folder.into(),
            tensors: BTreeMap::new(),
            bytes: 0,
        };
        for file in weight_files(folder)? {
            checkpoint.add(&folder.join(file))?;
        }
        Ok(checkpoint)
    }

    /// Adds the tensors of a file.
    fn add(&mut self, path: &Path) -> Result<(), PretrainedError> {
        let unreadable = |source| PretrainedError::Read {
            path: path.into(),
            source,
        };
        let broken = |why: String| PretrainedError::Format {
            path: path.into(),
            expected: "a whole safetensors file",
            why,
        };
        let mut file = File::open(path).map_err(unreadable)?;
        let len = file.metadata().map_err(unreadable)?.len();
        let mut first = [0; 8];
        file.read_exact(&mut first)
            .map_err(|_| broken(format!("it has {len} bytes")))?;
        if &first == b"version " {
            let why =
                "it looks like a Git LFS pointer; fetch the weights themselves (git lfs pull)";
            return Err(broken(why.into()));
        }
        let header_len = u64::from_le_bytes(first);
        if header_len > len - 8 {
            let why = format!(
                "its first 8 bytes announce a header of {header_len} bytes, {len} are there in all"
            );
            return Err(broken(why));
        }
        let mut header = vec![0; header_len as usize];
        file.read_exact(&mut header).map_err(unreadable)?;
        let header: Metadata = serde_json::from_slice(&header)
            .map_err(|error| broken(format!("its header cannot be read ({error})")))?;
        let (there, needed) = (len - 8 - header_len, header.data_len() as u64);
        if there != needed {
            let why = format!("its tensors take {needed} bytes, {there} are there; fetch it again");
            return Err(broken(why));
        }
        for (name, info) in header.tensors() {
            let stored = Stored {
                file: path.into(),
                dtype: info.dtype,
                shape: info.shape.clone(),
                start: 8 + header_len + info.data_offsets.0 as u64,
            };
            self.tensors.insert(name, stored);
        }
        self.bytes += len;
        Ok(())
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Kinds of numbers, with how many tensors are stored as each.
    pub fn dtypes(&self) -> BTreeMap<String, usize> {
        let mut dtypes = BTreeMap::new();
        for stored in self.tensors.values() {
            *dtypes.entry(stored.dtype.to_string()).or_default() += 1;
        }
        dtypes
    }

    /// Compares names, shapes and kinds of numbers with those of a model.
    ///
    /// # Errors
    /// [`PretrainedError::Tensors`] with all that differ; a kind of number that cannot be read.
    pub fn check(&self, model: &ModelConfig) -> Result<(), PretrainedError> {
        let model_has: BTreeMap<_, _> = hugging_face_tensors(model).into_iter().collect();
        let mut mismatch = Mismatch::default();
        for (name, shape) in &model_has {
            match self.tensors.get(name) {
                None => mismatch.missing.push(name.clone()),
                Some(stored) if stored.shape != *shape => {
                    let (found, model) = (stored.shape.clone(), shape.clone());
                    mismatch.shapes.push((name.clone(), found, model));
                }
                Some(stored) => drop(converter(stored, name)?),
            }
        }
        // Buffers that older versions stored, and the copy of a tied embedding.
        let known = |name: &str| {
            name.ends_with("rotary_emb.inv_freq")
                || (model.tied_embeddings && name == "lm_head.weight")
                || model_has.contains_key(name)
        };
        let unexpected = self.tensors.keys().filter(|name| !known(name)).cloned();
        mismatch.unexpected = unexpected.collect();
        match mismatch.is_empty() {
            true => Ok(()),
            false => Err(PretrainedError::Tensors {
                path: self.folder.clone(),
                mismatch,
            }),
        }
    }

    /// Reads a tensor's numbers.
    ///
    /// # Errors
    /// A tensor that is not there, of another shape, or that cannot be read.
    pub fn read(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, PretrainedError> {
        let Some(stored) = self.tensors.get(name).filter(|s| s.shape == shape) else {
            let mismatch = Mismatch {
                missing: vec![name.into()],
                ..Mismatch::default()
            };
            let path = self.folder.clone();
            return Err(PretrainedError::Tensors { path, mismatch });
        };
        let convert = converter(stored, name)?;
        let mut numbers = Vec::with_capacity(shape.iter().product());
        let mut read = || -> io::Result<()> {
            let mut file = File::open(&stored.file)?;
            file.seek(SeekFrom::Start(stored.start))?;
            let size = stored.dtype.bitsize() / 8;
            let mut bytes = vec![0; size << 18];
            while numbers.len() < numbers.capacity() {
                let n = (numbers.capacity() - numbers.len()).min(1 << 18);
                file.read_exact(&mut bytes[..n * size])?;
                convert(&bytes[..n * size], &mut numbers);
            }
            Ok(())
        };
        let result = read();
        result.map_err(|source| PretrainedError::Read {
            path: stored.file.clone(),
            source,
        })?;
        Ok(numbers)
    }
}

/// Appends numbers read from bytes.
type Convert = fn(&[u8], &mut Vec<f32>);

fn converter(stored: &Stored, name: &str) -> Result<Convert, PretrainedError> {
    match stored.dtype {
        Dtype::F32 => Ok(|bytes, to| {
            to.extend(bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)));
        }),
        Dtype::F16 => Ok(|bytes, to| {
            let halves = bytes.as_chunks().0.iter();
            to.extend(halves.map(|&b| half::f16::from_le_bytes(b).to_f32()));
        }),
        Dtype::BF16 => Ok(|bytes, to| {
            let halves = bytes.as_chunks().0.iter();
            to.extend(halves.map(|&b| half::bf16::from_le_bytes(b).to_f32()));
        }),
        other => Err(PretrainedError::Format {
            path: stored.file.clone(),
            expected: "a checkpoint in F32, F16 or BF16",
            why: format!("`{name}` is stored as {other}"),
        }),
    }
}
