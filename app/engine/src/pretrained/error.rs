//! Errors of pretrained models.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::family::Family;
use super::hub::HubError;

/// Why a pretrained model cannot be opened, read or exported.
#[derive(Debug, thiserror::Error)]
pub enum PretrainedError {
    /// There is no model of this name.
    #[error(
        "`{name}` {why}; a model is a folder, a .gguf file, a hub id (ORG/NAME or ORG/NAME@REVISION) or \
         builtin:tiny-llama"
    )]
    Name {
        /// Name.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// File.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file or folder cannot be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// File or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is not in the format it should be: JSON, safetensors, GGUF.
    #[error("{path} is not {expected}: {why}")]
    Format {
        /// File.
        path: PathBuf,
        /// Format that was expected.
        expected: &'static str,
        /// What is wrong.
        why: String,
    },
    /// A folder or repository without the files of a model.
    #[error("{path} is without {lacks}{found}")]
    Incomplete {
        /// Folder or repository.
        path: PathBuf,
        /// The file that should be there.
        lacks: &'static str,
        /// What is there instead, and what to do.
        found: String,
    },
    /// An output embedding that was not known of before the weights were fetched.
    #[error(
        "the weights of {name}, which were fetched just now, have an output embedding of their own, though \
         config.json ties it to the input's; give the command again"
    )]
    Untied {
        /// Name of the model.
        name: String,
    },
    /// The model is of no family that is built here.
    #[error(
        "{path} describes a model of architecture `{found}`{hint}; these can be loaded: {}",
        Family::ALL.map(Family::model_type).join(", ")
    )]
    Architecture {
        /// File.
        path: PathBuf,
        /// Architecture it names.
        found: String,
        /// What is special about it, and what would do; or nothing.
        hint: &'static str,
    },
    /// A setting of the model is missing, invalid or not supported.
    #[error("{path}: `{key}` {why}")]
    Setting {
        /// File.
        path: PathBuf,
        /// Key of the setting.
        key: String,
        /// What is wrong.
        why: String,
    },
    /// The weights are not those of the model described.
    #[error("the weights in {path} are not those of the model described: {mismatch}")]
    Tensors {
        /// File or folder.
        path: PathBuf,
        /// Differences.
        mismatch: Mismatch,
    },
    /// None of Hugging Face's classes can compute the model.
    #[error(
        "this is a model of the lab's small kind (QK-norm, GELU, no norm gains); no Hugging Face architecture computes that, so it cannot be exported"
    )]
    NoFamily,
    /// The folder to export to is not empty.
    #[error("{path} is there and not empty; name a new folder")]
    Occupied {
        /// Folder.
        path: PathBuf,
    },
    /// Something could not be fetched from the hub.
    #[error(transparent)]
    Hub(#[from] HubError),
}

/// Differences between the tensors of a checkpoint and those of a model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mismatch {
    /// Names of tensors that the checkpoint lacks.
    pub missing: Vec<String>,
    /// Names of tensors that the model does not have.
    pub unexpected: Vec<String>,
    /// Tensors of another shape: name, shape in the checkpoint, shape in the model.
    pub shapes: Vec<(String, Vec<usize>, Vec<usize>)>,
}

impl Mismatch {
    /// Whether there are no differences.
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.unexpected.is_empty() && self.shapes.is_empty()
    }

    /// An error of the checkpoint at `path` if there are differences.
    pub(super) fn check(self, path: &Path) -> Result<(), PretrainedError> {
        if self.is_empty() {
            return Ok(());
        }
        Err(PretrainedError::Tensors {
            path: path.into(),
            mismatch: self,
        })
    }
}

/// The number of tensors of each kind, and the names of the first.
impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shapes: Vec<String> = self
            .shapes
            .iter()
            .map(|(name, stored, model)| format!("{name} {stored:?} for {model:?}"))
            .collect();
        let mut separator = "";
        for (kind, names) in [
            ("missing", &self.missing),
            ("unexpected", &self.unexpected),
            ("of another shape", &shapes),
        ] {
            if names.is_empty() {
                continue;
            }
            let first = names[..names.len().min(3)].join(", ");
            let more = if names.len() > 3 { ", …" } else { "" };
            write!(f, "{separator}{} {kind} ({first}{more})", names.len())?;
            separator = "; ";
        }
        Ok(())
    }
}
