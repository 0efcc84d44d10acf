//! Pretrained models: opened by their names, their weights loaded.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::model::{Layout, ModelConfig, Params};
use crate::random::Stream;

use super::builtin;
use super::checkpoint::{Checkpoint, names_in, weight_files};
use super::config::{self, Description, SpecialIds};
use super::error::PretrainedError;
use super::family::Family;
use super::gguf::Gguf;
use super::hub::{DownloadProgress, Hub, Snapshot, is_hub_id};
use super::hugging_face::{INDEX, from_hugging_face};
use super::json::read_json;
use super::other_formats;
use super::reference_folder::ReferenceFolder;

/// The file that describes a model.
pub(super) const CONFIG: &str = "config.json";
/// The file that describes how texts are written with a model.
const GENERATION: &str = "generation_config.json";
/// The files of a tokenizer, and others that belong to a model but not to its weights.
const TOKENIZER_FILES: [&str; 7] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    GENERATION,
    "tokenizer.model",
];
/// Those of them that are given on, but not read.
const NOT_READ: [&str; 2] = ["added_tokens.json", "tokenizer.model"];
/// Files of a tokenizer that says the same in `tokenizer.json`, and the folder of its further templates.
const GIVEN_ON: [&str; 2] = ["vocab.json", "merges.txt"];
const TEMPLATES: &str = "additional_chat_templates";

/// A pretrained model: its description, and where its weights are.
#[derive(Clone, Debug)]
pub struct Pretrained {
    /// The name it was opened by.
    pub name: String,
    /// The family that it says it is of; `None` for the paper's small model.
    pub family: Option<Family>,
    /// Sizes and parts.
    pub config: ModelConfig,
    /// Ids of special tokens.
    pub ids: SpecialIds,
    /// Length of the longest sequence that the model was made for.
    pub max_positions: Option<usize>,
    /// Where the model's files are.
    pub source: Source,
    /// What is odd about it, in words, and what is made of it.
    pub warnings: Vec<String>,
}

/// Where the files of a pretrained model are.
#[derive(Clone, Debug)]
pub enum Source {
    /// A folder in Hugging Face's layout.
    Folder(PathBuf),
    /// A GGUF file.
    Gguf(Gguf),
    /// A folder of the paper's reference implementation, of a small model.
    Reference(Box<ReferenceFolder>),
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
    if path.is_dir() && !path.join(CONFIG).exists() && ReferenceFolder::is_one(path) {
        let reference = ReferenceFolder::open(path)?;
        return Ok(Pretrained::of_reference(name, reference));
    }
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
    let snapshot = match hub.cached_model(id, revision).filter(is_complete) {
        Some(snapshot) => snapshot,
        None => hub.model(id, revision)?,
    };
    if snapshot.file(CONFIG).is_none() {
        let names = snapshot.files.iter().map(|file| &*file.name);
        return Err(PretrainedError::Incomplete {
            path: name.into(),
            lacks: CONFIG,
            found: other_formats::found(names),
        });
    }
    for file in small_files(&snapshot) {
        // Who fetched the model may have left out what is not needed.
        if !(NOT_READ.contains(&file) && hub.offline && !snapshot.has(file)) {
            snapshot.fetch(file, progress)?;
        }
    }
    describe(name, &snapshot.folder(), Source::Hub(snapshot))
}

/// The files of a repository that are fetched when it is looked at.
fn small_files(snapshot: &Snapshot) -> impl Iterator<Item = &'static str> {
    let small = [CONFIG, INDEX].into_iter().chain(TOKENIZER_FILES);
    small.filter(|file| snapshot.file(file).is_some())
}

/// Whether all that a model needs is in the cache. Where its listing is not, a tokenizer must be there, too.
fn is_complete(snapshot: &Snapshot) -> bool {
    let tokenizer = [CONFIG, TOKENIZER_FILES[0], TOKENIZER_FILES[1]];
    let needed = |file: &str| snapshot.is_listed || snapshot.file(file).is_some();
    tokenizer.iter().all(|file| needed(file))
        && snapshot.file(CONFIG).is_some()
        && small_files(snapshot).all(|file| NOT_READ.contains(&file) || snapshot.has(file))
        && weights_of(snapshot).is_ok_and(|files| files.iter().all(|file| snapshot.has(file)))
}

/// Names of the files of a repository's weights; its index is in the cache.
fn weights_of(snapshot: &Snapshot) -> Result<Vec<String>, PretrainedError> {
    let names: Vec<String> = snapshot
        .files
        .iter()
        .map(|file| file.name.clone())
        .collect();
    weight_files(&snapshot.folder(), &names)
}

/// Opens a model whose files other than the weights are in a folder.
fn describe(name: &str, folder: &Path, source: Source) -> Result<Pretrained, PretrainedError> {
    let path = folder.join(CONFIG);
    if !builtin::exists(&path) {
        let names = names_in(folder);
        let found = other_formats::found(names.iter().map(String::as_str));
        if !found.is_empty() {
            return Err(PretrainedError::Incomplete {
                path: folder.into(),
                lacks: CONFIG,
                found,
            });
        }
    }
    let mut description = config::read(&path)?;
    let generation = folder.join(GENERATION);
    if builtin::exists(&generation) {
        config::add_generation(&generation, &mut description)?;
    }
    let mut model = Pretrained::new(name, description, source);
    model.look_at_head();
    Ok(model)
}

impl Pretrained {
    fn new(name: &str, description: Description, source: Source) -> Self {
        Self {
            name: name.into(),
            family: Some(description.family),
            config: description.model,
            ids: description.ids,
            max_positions: description.max_positions,
            source,
            warnings: description.warnings,
        }
    }

    /// A small model of the paper, which says nothing of special tokens.
    fn of_reference(name: &str, reference: ReferenceFolder) -> Self {
        Self {
            name: name.into(),
            family: None,
            config: reference.config,
            ids: SpecialIds::default(),
            max_positions: None,
            source: Source::Reference(Box::new(reference)),
            warnings: Vec::new(),
        }
    }

    /// Unties the output embedding where the weights, as far as they are at hand, have one of their own that the
    /// description does not know of. What is wrong with weights is said when they are read.
    fn look_at_head(&mut self) {
        let folder = match &self.source {
            Source::Folder(folder) => folder.clone(),
            Source::Hub(snapshot) => snapshot.folder(),
            Source::Gguf(_) | Source::Builtin | Source::Reference(_) => return,
        };
        let has_own_head = || Checkpoint::open(&folder)?.has_own_head();
        if self.config.tied_embeddings && matches!(has_own_head(), Ok(true)) {
            self.config.tied_embeddings = false;
            self.warnings.push(format!(
                "{}: `tie_word_embeddings` is true, but the weights have an lm_head.weight that differs from the \
                 input's embedding; it is used, and exported, as transformers does",
                folder.join(CONFIG).display()
            ));
        }
    }

    /// The folder of the model's files, to be read with [`builtin::read`]; `None` for a GGUF file.
    pub fn folder(&self) -> Option<PathBuf> {
        match &self.source {
            Source::Folder(folder) => Some(folder.clone()),
            Source::Reference(reference) => Some(reference.folder().into()),
            Source::Gguf(_) => None,
            Source::Hub(snapshot) => Some(snapshot.folder()),
            Source::Builtin => Some(builtin::MODEL.into()),
        }
    }

    /// What its `config.json` says, or would say where it has none: that of a GGUF file is made of its metadata.
    ///
    /// # Errors
    /// A file that cannot be read, or a model of no family of Hugging Face's.
    pub fn config_json(&self) -> Result<Map<String, Value>, PretrainedError> {
        match (&self.source, self.family) {
            (Source::Folder(_) | Source::Hub(_) | Source::Builtin, _) => {
                let folder = self.folder().unwrap_or_default();
                read_json(&folder.join(CONFIG))
            }
            (_, None) => Err(PretrainedError::NoFamily),
            (_, Some(family)) => {
                let description = Description {
                    family,
                    model: self.config,
                    ids: self.ids.clone(),
                    max_positions: self.max_positions,
                    warnings: Vec::new(),
                };
                Ok(config::to_json(&description, None, "float32"))
            }
        }
    }

    /// The safetensors files of its weights, fetched before; none where they are stored in another way.
    ///
    /// # Errors
    /// Weights that are incomplete.
    pub fn safetensors(&self) -> Result<Vec<PathBuf>, PretrainedError> {
        let (folder, files) = match &self.source {
            Source::Folder(folder) => (folder.clone(), weight_files(folder, &names_in(folder))?),
            Source::Hub(snapshot) => (snapshot.folder(), weights_of(snapshot)?),
            Source::Gguf(_) | Source::Reference(_) | Source::Builtin => return Ok(Vec::new()),
        };
        Ok(files.iter().map(|file| folder.join(file)).collect())
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

    /// Paths, relative to the folder, of the files that are given on with a model besides its weights and its
    /// `config.json`.
    pub(super) fn companions(&self) -> Vec<PathBuf> {
        let Some(folder) = self.folder() else {
            return Vec::new();
        };
        let names = TOKENIZER_FILES
            .into_iter()
            .chain(GIVEN_ON)
            .map(PathBuf::from);
        let templates = names_in(&folder.join(TEMPLATES)).into_iter();
        let templates = templates.map(|name| Path::new(TEMPLATES).join(name));
        names
            .chain(templates)
            .filter(|file| builtin::exists(&folder.join(file)))
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
            Source::Reference(reference) => reference.files().into(),
            Source::Folder(folder) => {
                let mut files = vec![folder.join(CONFIG)];
                let weights = weight_files(folder, &names_in(folder))?;
                files.extend(weights.iter().map(|file| folder.join(file)));
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

    /// Fetches the weights of a model on the hub that are not in the cache; only they tell whether its embeddings
    /// are tied.
    ///
    /// # Errors
    /// [`PretrainedError`]
    pub fn fetch(&mut self, progress: &dyn DownloadProgress) -> Result<(), PretrainedError> {
        if let Source::Hub(snapshot) = &self.source {
            fetch_weights(snapshot, progress)?;
            self.look_at_head();
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
            Source::Reference(reference) => {
                let (bytes, dtypes) = reference.storage()?;
                Ok(Storage { bytes, dtypes })
            }
            Source::Gguf(gguf) => {
                gguf.check(&self.config)?;
                Ok(Storage {
                    bytes: gguf.bytes(),
                    dtypes: gguf.dtypes(),
                })
            }
            Source::Hub(snapshot) => {
                let folder = snapshot.folder();
                let files = weights_of(snapshot)?;
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
            Source::Reference(reference) => return reference.load(),
            Source::Folder(folder) => folder.clone(),
            Source::Hub(snapshot) => {
                fetch_weights(snapshot, progress)?;
                snapshot.folder()
            }
        };
        let checkpoint = Checkpoint::open(&folder)?;
        let tied = self.config.tied_embeddings;
        checkpoint.check(&self.config)?;
        if tied && checkpoint.has_own_head()? {
            let name = self.name.clone();
            return Err(PretrainedError::Untied { name });
        }
        from_hugging_face(&layout, |name, shape| checkpoint.read(name, shape, tied))
    }
}

/// Fetches the weights of a repository that are not in the cache, and checks those that are.
fn fetch_weights(
    snapshot: &Snapshot,
    progress: &dyn DownloadProgress,
) -> Result<(), PretrainedError> {
    for file in weights_of(snapshot)? {
        snapshot.fetch(&file, progress)?;
    }
    Ok(())
}
