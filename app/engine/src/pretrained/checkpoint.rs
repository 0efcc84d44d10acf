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
use super::hugging_face::{INDEX, SINGLE, hugging_face_tensors};
use super::json::read_json;
use super::other_formats;

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

/// The most bytes of a header, as the safetensors library has it.
const MOST_HEADER: u64 = 100_000_000;
/// Names in Hugging Face's layout of the input's and the output's embedding.
const EMBED: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";

/// Names of the files in a folder; empty where it cannot be read.
pub(super) fn names_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.collect()
}

/// Names of the files of weights among those of a model: the one file, or the shards of the index in `folder`.
pub(super) fn weight_files(
    folder: &Path,
    names: &[String],
) -> Result<Vec<String>, PretrainedError> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let has = |file: &str| names.iter().any(|name| name == file);
    if has(SINGLE) {
        return Ok(vec![SINGLE.into()]);
    }
    if !has(INDEX) {
        return Err(PretrainedError::Incomplete {
            path: folder.into(),
            lacks: SINGLE,
            found: other_formats::found(names.iter().map(String::as_str)),
        });
    }
    let index = folder.join(INDEX);
    let weight_map = read_json::<Index>(&index)?.weight_map;
    let files: BTreeSet<String> = weight_map.into_values().collect();
    let wrong = |why: String| {
        Err(PretrainedError::Format {
            path: index.clone(),
            expected: "an index of the shards beside it",
            why,
        })
    };
    if let Some(file) = files.iter().find(|file| file.contains(['/', '\\'])) {
        return wrong(format!("it names `{file}`, which is not beside it"));
    }
    let missing: Vec<&str> = files
        .iter()
        .map(String::as_str)
        .filter(|f| !has(f))
        .collect();
    match missing[..] {
        [] if files.is_empty() => wrong("it names no files".into()),
        [] => Ok(files.into_iter().collect()),
        _ => wrong(format!(
            "not all of its {} files are there: {} missing; fetch what is missing",
            files.len(),
            missing.join(", ")
        )),
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
        for file in weight_files(folder, &names_in(folder))? {
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
        if header_len > len.saturating_sub(8) {
            let why = format!(
                "its first 8 bytes announce a header of {header_len} bytes, {len} are there in all"
            );
            return Err(broken(why));
        }
        if header_len > MOST_HEADER {
            return Err(broken(format!("its header has {header_len} bytes")));
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
        let tied = model.tied_embeddings;
        for (name, shape) in &expected {
            match self.stored(name, tied) {
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
                || (tied && name == HEAD)
                || expected.contains_key(name)
        };
        let unexpected = self.tensors.keys().filter(|name| !known(name)).cloned();
        mismatch.unexpected = unexpected.collect();
        mismatch.check(&self.folder)
    }

    /// The tensor of a name; of tied embeddings the one that is there.
    fn stored(&self, name: &str, tied: bool) -> Option<&Stored> {
        let twin = || self.tensors.get(HEAD).filter(|_| tied && name == EMBED);
        self.tensors.get(name).or_else(twin)
    }

    /// Whether there is an output embedding that is not the input's.
    ///
    /// # Errors
    /// A tensor that cannot be read.
    pub fn has_own_head(&self) -> Result<bool, PretrainedError> {
        let (Some(embed), Some(head)) = (self.tensors.get(EMBED), self.tensors.get(HEAD)) else {
            return Ok(false);
        };
        if embed.shape != head.shape {
            return Ok(true);
        }
        let mut embeds = Pieces::of(embed, EMBED)?;
        let mut heads = Pieces::of(head, HEAD)?;
        loop {
            match (embeds.next()?, heads.next()?) {
                (None, _) | (_, None) => return Ok(false),
                (Some(a), Some(b)) if a != b => return Ok(true),
                _ => {}
            }
        }
    }

    /// Reads a tensor's elements; of tied embeddings those of the tensor that is there.
    ///
    /// # Errors
    /// A tensor that is not there, of another shape, or that cannot be read.
    pub fn read(
        &self,
        name: &str,
        shape: &[usize],
        tied: bool,
    ) -> Result<Vec<f32>, PretrainedError> {
        let Some(stored) = self.stored(name, tied).filter(|s| s.shape == shape) else {
            let mismatch = Mismatch {
                missing: vec![name.into()],
                ..Mismatch::default()
            };
            let path = self.folder.clone();
            return Err(PretrainedError::Tensors { path, mismatch });
        };
        let mut pieces = Pieces::of(stored, name)?;
        let mut elements = Vec::with_capacity(pieces.left);
        while let Some(piece) = pieces.next()? {
            elements.extend_from_slice(piece);
        }
        Ok(elements)
    }
}

/// Elements of a piece.
const PIECE: usize = 1 << 18;

/// A tensor's elements, read piece by piece.
struct Pieces<'a> {
    stored: &'a Stored,
    file: File,
    left: usize,
    convert: Convert,
    bytes: Vec<u8>,
    elements: Vec<f32>,
}

impl<'a> Pieces<'a> {
    fn of(stored: &'a Stored, name: &str) -> Result<Self, PretrainedError> {
        let convert = converter(stored, name)?;
        let open = || {
            let mut file = File::open(&stored.file)?;
            file.seek(SeekFrom::Start(stored.start))?;
            Ok(file)
        };
        Ok(Self {
            stored,
            file: open().map_err(|error| stored.unreadable(error))?,
            left: stored.shape.iter().product(),
            convert,
            bytes: vec![0; stored.dtype.bitsize() / 8 * PIECE],
            elements: Vec::with_capacity(PIECE),
        })
    }

    /// The next piece; `None` after the last.
    fn next(&mut self) -> Result<Option<&[f32]>, PretrainedError> {
        let n = self.left.min(PIECE);
        if n == 0 {
            return Ok(None);
        }
        let bytes = &mut self.bytes[..self.stored.dtype.bitsize() / 8 * n];
        let read = self.file.read_exact(bytes);
        read.map_err(|error| self.stored.unreadable(error))?;
        self.elements.clear();
        (self.convert)(bytes, &mut self.elements);
        self.left -= n;
        Ok(Some(&self.elements))
    }
}

impl Stored {
    fn unreadable(&self, source: io::Error) -> PretrainedError {
        PretrainedError::Read {
            path: self.file.clone(),
            source,
        }
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
