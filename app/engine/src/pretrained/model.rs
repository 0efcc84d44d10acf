//! Pretrained models: opened by their names, their weights loaded.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use crate::model::{Layout, ModelConfig, Params};
use crate::random::Stream;

use super::builtin;
use super::checkpoint::{Checkpoint, INDEX, weight_files};
use super::config::{self, Description, SpecialIds};
use super::error::PretrainedError;
use super::gguf::Gguf;
use super::hub::{DownloadProgress, Hub, Snapshot, is_hub_id};
use super::hugging_face::from_hugging_face;
use super::json::read_json;

/// The file that describes a model.
pub(super) const CONFIG: &str = "config.json";
/// The files of a tokenizer, and others that belong to a model but not to its weights.
const TOKENIZER_FILES: [&str; 7] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "generation_config.json",
    "tokenizer.model",
];

/// A pretrained model: its description, and where its weights are.
#[derive(Clone, Debug)]
pub struct Pretrained {
    /// The name it was opened by.
    pub name: String,
    /// Sizes and parts.
    pub config: ModelConfig,
    /// Ids of special tokens.
    pub ids: SpecialIds,
    /// Length of the longest sequence that the model was made for.
    pub max_positions: Option<usize>,
    /// Where the model's files are.
    pub source: Source,
}

/// Where the files of a pretrained model are.
#[derive(Clone, Debug)]
pub enum Source {
    /// A folder in Hugging Face's layout.
    Folder(PathBuf),
    /// A GGUF file.
    Gguf(Gguf),
    /// A repository on the hub, at the commit that the revision asked for named.
    Hub(Snapshot),
    /// The program itself: the weights are random, drawn when they are loaded, the same every time.
    Builtin,
}

/// How weights are stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storage {
    /// Bytes of the files; 0 for weights that are in no file.
    pub bytes: u64,
    /// Number of tensors in each number format; empty if the files have not been fetched, or there are none.
    pub dtypes: BTreeMap<String, usize>,
}

/// Opens a model by the name of a folder, of a `.gguf` file or of a hub repository (`ORG/NAME` or
/// `ORG/NAME@REVISION`), or the built-in one (`builtin:tiny-llama`).
///
/// From the hub it fetches the small files; [`Pretrained::load`] fetches the weights.
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

/// Opens a model whose files other than the weights are in a folder.
fn describe(name: &str, folder: &Path, source: Source) -> Result<Pretrained, PretrainedError> {
    let mut description = config::read(&folder.join(CONFIG))?;
    // The tokens that end a turn are often listed in this file alone.
    let path = folder.join("generation_config.json");
    if builtin::exists(&path) {
        #[derive(serde::Deserialize)]
        struct Generation {
            eos_token_id: Option<config::Ids>,
        }
        let generation: Generation = read_json(&path)?;
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

    /// The folder of the model's files, to be read with [`builtin::read`]; `None` for a GGUF file.
    pub fn folder(&self) -> Option<PathBuf> {
        match &self.source {
            Source::Folder(folder) => Some(folder.clone()),
            Source::Gguf(_) => None,
            Source::Hub(snapshot) => Some(snapshot.folder()),
            Source::Builtin => Some(builtin::MODEL.into()),
        }
    }

    /// The files of the model's tokenizer: `tokenizer.json` and the files that belong to it.
    pub fn tokenizer_files(&self) -> Vec<PathBuf> {
        let Some(folder) = self.folder() else {
            return Vec::new();
        };
        TOKENIZER_FILES
            .iter()
            .map(|file| folder.join(file))
            .filter(|file| builtin::exists(file))
            .collect()
    }

    /// The name that always names the same model: on the hub, with the commit.
    pub fn pinned_name(&self) -> String {
        match &self.source {
            Source::Hub(snapshot) => format!("{}@{}", snapshot.id, snapshot.commit),
            _ => self.name.clone(),
        }
    }

    /// Hash of the files that decide what the model computes; `None` for a model on the hub, which its commit
    /// identifies, and for the built-in one.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn hash(&self) -> Result<Option<String>, PretrainedError> {
        let files = match &self.source {
            Source::Builtin | Source::Hub(_) => return Ok(None),
            Source::Gguf(_) => vec![PathBuf::from(&self.name)],
            Source::Folder(folder) => {
                let mut files = vec![folder.join(CONFIG)];
                files.extend(weight_files(folder)?.iter().map(|file| folder.join(file)));
                files.extend(self.tokenizer_files());
                files
            }
        };
        let mut hasher = blake3::Hasher::new();
        for path in files {
            File::open(&path)
                .and_then(|file| {
                    hasher.update(&file.metadata()?.len().to_le_bytes());
                    hasher.update_reader(file)
                })
                .map_err(|source| PretrainedError::Read { path, source })?;
        }
        Ok(Some(hasher.finalize().to_hex().to_string()))
    }

    /// Fetches the weights of a model on the hub that are not in the cache.
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

    /// How the weights are stored; for a model on the hub, what is known without fetching them.
    ///
    /// # Errors
    /// Weights that are incomplete, or not those of the model.
    pub fn storage(&self) -> Result<Storage, PretrainedError> {
        let in_folder = |folder: &Path| -> Result<Storage, PretrainedError> {
            let checkpoint = Checkpoint::open(folder)?;
            checkpoint.check(&self.config)?;
            Ok(Storage {
                bytes: checkpoint.bytes(),
                dtypes: checkpoint.dtypes(),
            })
        };
        match &self.source {
            Source::Folder(folder) => in_folder(folder),
            Source::Gguf(gguf) => {
                gguf.check(&self.config)?;
                Ok(Storage {
                    bytes: gguf.bytes(),
                    dtypes: gguf.dtypes(),
                })
            }
            Source::Hub(snapshot) => {
                let folder = snapshot.folder();
                let files = weight_files(&folder)?;
                if files.iter().all(|file| folder.join(file).exists()) {
                    return in_folder(&folder);
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

    /// Reads the weights; those of a model on the hub are fetched first.
    ///
    /// # Errors
    /// [`PretrainedError`]; names and shapes of all tensors are checked before any is read.
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
