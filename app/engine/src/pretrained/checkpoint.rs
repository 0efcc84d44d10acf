//! Weights in Hugging Face's layout: one safetensors file, or shards with an index.
//!
//! Headers are read when a checkpoint is opened; elements tensor by tensor, when they are needed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use safetensors::tensor::Metadata;
use serde::Deserialize;

use crate::model::ModelConfig;

use super::error::{Mismatch, PretrainedError};
use super::hugging_face::hugging_face_tensors;
use super::json::read_json;

/// The file of weights that are not sharded.
pub(super) const SINGLE: &str = "model.safetensors";
/// The file that lists the shard of each tensor.
pub(super) const INDEX: &str = "model.safetensors.index.json";

/// Weights on disk: what their headers say.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    folder: PathBuf,
    tensors: BTreeMap<String, Stored>,
    bytes: u64,
}

/// A tensor on disk.
#[derive(Clone, Debug)]
struct Stored {
    file: PathBuf,
    dtype: Dtype,
    shape: Vec<usize>,
    /// Offset of the first element in the file.
    start: u64,
}

/// Names of the files of a folder's weights: the shards of its index, or the one file.
pub(super) fn weight_files(folder: &Path) -> Result<Vec<String>, PretrainedError> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let index = folder.join(INDEX);
    if folder.join(SINGLE).exists() || !index.exists() {
        return Ok(vec![SINGLE.into()]);
    }
    let weight_map = read_json::<Index>(&index)?.weight_map;
    let files: BTreeSet<String> = weight_map.into_values().collect();
    match files.iter().find(|file| file.contains(['/', '\\'])) {
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
    /// A file that is missing, truncated, or not safetensors.
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
        let (stored, needed) = (len - 8 - header_len, header.data_len() as u64);
        if stored != needed {
            let why =
                format!("its tensors take {needed} bytes, {stored} are there; fetch it again");
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

    /// Number of tensors in each number format.
    pub fn dtypes(&self) -> BTreeMap<String, usize> {
        let mut dtypes = BTreeMap::new();
        for stored in self.tensors.values() {
            *dtypes.entry(stored.dtype.to_string()).or_default() += 1;
        }
        dtypes
    }

    /// Compares names, shapes and number formats with those of a model.
    ///
    /// # Errors
    /// [`PretrainedError::Tensors`] with all differences; a number format that cannot be read.
    pub fn check(&self, model: &ModelConfig) -> Result<(), PretrainedError> {
        let expected: BTreeMap<_, _> = hugging_face_tensors(model).into_iter().collect();
        let mut mismatch = Mismatch::default();
        for (name, shape) in &expected {
            match self.tensors.get(name) {
                None => mismatch.missing.push(name.clone()),
                Some(stored) if stored.shape != *shape => {
                    let shapes = (name.clone(), stored.shape.clone(), shape.clone());
                    mismatch.shapes.push(shapes);
                }
                Some(stored) => drop(converter(stored, name)?),
            }
        }
        // Buffers that older versions stored, and the copy of a tied embedding.
        let known = |name: &str| {
            name.ends_with("rotary_emb.inv_freq")
                || (model.tied_embeddings && name == "lm_head.weight")
                || expected.contains_key(name)
        };
        let unexpected = self.tensors.keys().filter(|name| !known(name)).cloned();
        mismatch.unexpected = unexpected.collect();
        mismatch.check(&self.folder)
    }

    /// Reads a tensor's elements.
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
        stored
            .read(convert)
            .map_err(|source| PretrainedError::Read {
                path: stored.file.clone(),
                source,
            })
    }
}

impl Stored {
    /// Reads all elements, in pieces.
    fn read(&self, convert: Convert) -> io::Result<Vec<f32>> {
        let mut file = File::open(&self.file)?;
        file.seek(SeekFrom::Start(self.start))?;
        let size = self.dtype.bitsize() / 8;
        let mut bytes = vec![0; size << 18];
        let len = self.shape.iter().product();
        let mut elements = Vec::with_capacity(len);
        while elements.len() < len {
            let n = (len - elements.len()).min(1 << 18);
            file.read_exact(&mut bytes[..n * size])?;
            convert(&bytes[..n * size], &mut elements);
        }
        Ok(elements)
    }
}

/// A function that appends the elements that bytes hold.
type Convert = fn(&[u8], &mut Vec<f32>);

/// The conversion from a tensor's number format.
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
