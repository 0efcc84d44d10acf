//! Pretrained models of the Llama family: a Hugging Face folder, a GGUF file, a model on the hub, or the
//! tiny random one that is built in.
//!
//! [`open`] reads what describes a model; [`Pretrained::load`] reads its weights, tensor by tensor, so
//! that the peak is the weights and one tensor. [`export`] writes a folder that transformers loads.

pub mod builtin;
mod checkpoint;
mod config;
mod error;
mod export;
mod gguf;
mod hub;
mod hugging_face;
mod reference_layout;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use crate::model::{Layout, ModelConfig, Params};
use crate::random::Stream;

pub use checkpoint::Checkpoint;
pub use config::{Description, SpecialIds};
pub use error::{Mismatch, PretrainedError};
pub use export::{Dtype, Export, Exported, export};
pub use gguf::{Gguf, GgufMetadata, GgufValue};
pub use hub::{DownloadProgress, Hub, HubError, RemoteFile, Snapshot};
pub use hugging_face::{
    from_hugging_face, hugging_face_tensors, hugging_face_views, is_llama, to_hugging_face,
};
pub use reference_layout::{LayoutError, from_reference_layout, to_reference_layout};

use checkpoint::{INDEX, weight_files};

/// Files beside the weights: fetched with a model, and those of the tokenizer given on by [`export`].
const CONFIG: &str = "config.json";
const TOKENIZER_FILES: [&str; 7] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "generation_config.json",
    "tokenizer.model",
];

/// A pretrained model: what it is, and where its weights are.
#[derive(Clone, Debug)]
pub struct Pretrained {
    /// The name it was opened by.
    pub name: String,
    /// Sizes and parts.
    pub config: ModelConfig,
    /// Ids of special tokens.
    pub ids: SpecialIds,
    /// Longest sequence it was made for.
    pub max_positions: Option<usize>,
    /// Where it is.
    pub source: Source,
}

/// Where a pretrained model is.
#[derive(Clone, Debug)]
pub enum Source {
    /// A folder as Hugging Face lays it out.
    Folder(PathBuf),
    /// A GGUF file.
    Gguf(Gguf),
    /// A model on the hub, at the commit that its revision stood for.
    Hub(Snapshot),
    /// The tiny random one: its weights are drawn when they are loaded, the same every time.
    Builtin,
}

/// Weights on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storage {
    /// Bytes of their files; of weights that are in none, 0.
    pub bytes: u64,
    /// Kinds of numbers, with how many tensors are stored as each; none while no file is there.
    pub dtypes: BTreeMap<String, usize>,
}

/// Opens a model named by a folder, a `.gguf` file, or a hub id, `ORG/NAME` or `ORG/NAME@REVISION`; or
/// the built-in one, `builtin:tiny-llama`.
///
/// Of a model on the hub the small files are fetched, the weights only by [`Pretrained::load`].
///
/// # Errors
/// [`PretrainedError`]
pub fn open(
    name: &str,
    hub: &Hub,
    progress: &dyn DownloadProgress,
) -> Result<Pretrained, PretrainedError> {
    let path = Path::new(name);
    if name == builtin::MODEL {
        return describe(name, path, Source::Builtin);
    }
    let is_gguf = path
        .extension()
        .is_some_and(|e| e.eq_ignore_ascii_case("gguf"));
    if path.is_dir() {
        return describe(name, path, Source::Folder(path.into()));
    }
    if is_gguf {
        let gguf = Gguf::open(path)?;
        let description = gguf.describe()?;
        return Ok(Pretrained::new(name, description, Source::Gguf(gguf)));
    }
    let wrong = |why| PretrainedError::Name {
        name: name.into(),
        why,
    };
    if builtin::is_builtin(path) {
        return Err(wrong("is not a model that is built in"));
    }
    if path.is_file() {
        return Err(wrong("is a file, but no .gguf"));
    }
    let (id, revision) = match name.split_once('@') {
        Some((id, revision)) => (id, Some(revision)),
        None => (name, None),
    };
    if !is_hub_id(id) || revision == Some("") {
        return Err(wrong("is not there, and no hub id either"));
    }
    let complete = |snapshot: &Snapshot| {
        let has = |name: &str| snapshot.file(name).is_some();
        let weights = weight_files(&snapshot.folder()).unwrap_or_default();
        [CONFIG, TOKENIZER_FILES[0], TOKENIZER_FILES[1]]
            .into_iter()
            .all(has)
            && !weights.is_empty()
            && weights.iter().all(|file| has(file))
    };
    let snapshot = match hub.cached_model(id, revision).filter(complete) {
        Some(snapshot) => snapshot,
        None => hub.model(id, revision)?,
    };
    if snapshot.file(CONFIG).is_none() {
        return Err(wrong("is a repository without config.json"));
    }
    let small = [CONFIG, INDEX].into_iter().chain(TOKENIZER_FILES);
    for file in small.filter(|file| snapshot.file(file).is_some()) {
        snapshot.fetch(file, progress)?;
    }
    describe(name, &snapshot.folder(), Source::Hub(snapshot))
}

/// Opens a model whose small files are in a folder.
fn describe(name: &str, folder: &Path, source: Source) -> Result<Pretrained, PretrainedError> {
    let mut description = config::read(&folder.join(CONFIG))?;
    // Where a model ends its turns is often said here alone.
    let generation = folder.join("generation_config.json");
    if builtin::exists(&generation) {
        #[derive(serde::Deserialize)]
        struct Generation {
            eos_token_id: Option<config::Ids>,
        }
        let generation: Generation = read_json(&generation)?;
        for id in config::Ids::all(generation.eos_token_id) {
            if !description.ids.eos.contains(&id) {
                description.ids.eos.push(id);
            }
        }
    }
    Ok(Pretrained::new(name, description, source))
}

impl Pretrained {
    fn new(name: &str, description: Description, source: Source) -> Self {
        Self {
            name: name.into(),
            config: description.model,
            ids: description.ids,
            max_positions: description.max_positions,
            source,
        }
    }

    /// The folder of its files; none for a GGUF file, which holds all. Read them with [`builtin::read`].
    pub fn folder(&self) -> Option<PathBuf> {
        match &self.source {
            Source::Folder(folder) => Some(folder.clone()),
            Source::Gguf(_) => None,
            Source::Hub(snapshot) => Some(snapshot.folder()),
            Source::Builtin => Some(builtin::MODEL.into()),
        }
    }

    /// Files of its tokenizer: `tokenizer.json` and what stands beside it.
    pub fn tokenizer_files(&self) -> Vec<PathBuf> {
        let folder = self.folder();
        let files = TOKENIZER_FILES
            .iter()
            .filter_map(|file| Some(folder.as_ref()?.join(file)));
        files.filter(|file| builtin::exists(file)).collect()
    }

    /// The name by which it is the same model ever after: of one on the hub with the commit.
    pub fn pinned_name(&self) -> String {
        match &self.source {
            Source::Hub(snapshot) => format!("{}@{}", snapshot.id, snapshot.commit),
            _ => self.name.clone(),
        }
    }

    /// Hash of the files that decide what it computes; of a model on the hub, which its commit names, and of
    /// the built-in one there is none.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn hash(&self) -> Result<Option<String>, PretrainedError> {
        let files = match &self.source {
            Source::Builtin | Source::Hub(_) => return Ok(None),
            Source::Gguf(_) => vec![PathBuf::from(&self.name)],
            Source::Folder(folder) => {
                let weights = weight_files(folder)?;
                let weights = weights.iter().map(|file| folder.join(file));
                let mut files = vec![folder.join(CONFIG)];
                files.extend(weights.chain(self.tokenizer_files()));
                files
            }
        };
        let mut hasher = blake3::Hasher::new();
        for path in files {
            let read = File::open(&path).and_then(|file| {
                hasher.update(&file.metadata()?.len().to_le_bytes());
                hasher.update_reader(file)
            });
            read.map_err(|source| PretrainedError::Read { path, source })?;
        }
        Ok(Some(hasher.finalize().to_hex().to_string()))
    }

    /// Fetches the weights of a model on the hub, where they are not there.
    ///
    /// # Errors
    /// [`PretrainedError`]
    pub fn fetch(&self, progress: &dyn DownloadProgress) -> Result<(), PretrainedError> {
        if let Source::Hub(snapshot) = &self.source {
            for file in weight_files(&snapshot.folder())? {
                snapshot.fetch(&file, progress)?;
            }
        }
        Ok(())
    }

    /// How its weights are stored; of a model on the hub, as far as it is known without fetching them.
    ///
    /// # Errors
    /// Weights that are not whole, or not those of the model.
    pub fn storage(&self) -> Result<Storage, PretrainedError> {
        let of = |checkpoint: Checkpoint| -> Result<Storage, PretrainedError> {
            checkpoint.check(&self.config)?;
            Ok(Storage {
                bytes: checkpoint.bytes(),
                dtypes: checkpoint.dtypes(),
            })
        };
        match &self.source {
            Source::Folder(folder) => of(Checkpoint::open(folder)?),
            Source::Gguf(gguf) => {
                gguf.check(&self.config)?;
                Ok(Storage {
                    bytes: gguf.bytes(),
                    dtypes: gguf.dtypes(),
                })
            }
            Source::Hub(snapshot) => {
                let files = weight_files(&snapshot.folder())?;
                if files
                    .iter()
                    .all(|file| snapshot.folder().join(file).exists())
                {
                    return of(Checkpoint::open(&snapshot.folder())?);
                }
                let sizes = files.iter().filter_map(|file| snapshot.file(file)?.size);
                Ok(Storage {
                    bytes: sizes.sum(),
                    dtypes: BTreeMap::new(),
                })
            }
            Source::Builtin => Ok(Storage {
                bytes: 0,
                dtypes: BTreeMap::new(),
            }),
        }
    }

    /// Reads its weights; of a model on the hub they are fetched first.
    ///
    /// # Errors
    /// [`PretrainedError`], all tensors checked before any is read.
    pub fn load(&self, progress: &dyn DownloadProgress) -> Result<Params, PretrainedError> {
        let layout = Layout::new(self.config);
        let folder = match &self.source {
            Source::Builtin => return Ok(Params::init(&layout, &Stream::new(0, builtin::MODEL))),
            Source::Gguf(gguf) => {
                gguf.check(&self.config)?;
                return from_hugging_face(&layout, |name, _| gguf.read(name, self.config.head_dim));
            }
            Source::Folder(folder) => folder.clone(),
            Source::Hub(snapshot) => {
                self.fetch(progress)?;
                snapshot.folder()
            }
        };
        let checkpoint = Checkpoint::open(&folder)?;
        checkpoint.check(&self.config)?;
        from_hugging_face(&layout, |name, shape| checkpoint.read(name, shape))
    }
}

/// Whether a name is built like those on the hub: `OWNER/NAME`.
pub fn is_hub_id(id: &str) -> bool {
    let word = |word: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        !word.is_empty() && !word.starts_with('.') && word.chars().all(plain)
    };
    id.split_once('/')
        .is_some_and(|(org, name)| word(org) && word(name))
}

/// Reads a JSON file.
fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, PretrainedError> {
    let bytes = builtin::read(path).map_err(|source| PretrainedError::Read {
        path: path.into(),
        source,
    })?;
    serde_json::from_slice(&bytes).map_err(|error| PretrainedError::Format {
        path: path.into(),
        expected: "the JSON it should be",
        why: error.to_string(),
    })
}
