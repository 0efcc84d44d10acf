//! What can be wrong with a pretrained model.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::hub::HubError;

/// Why a pretrained model cannot be opened, read or exported.
#[derive(Debug, thiserror::Error)]
pub enum PretrainedError {
    /// A name that names nothing.
    #[error(
        "`{name}` {why}; a model is a folder, a .gguf file, a hub id (ORG/NAME or ORG/NAME@REVISION) or \
         builtin:tiny-llama"
    )]
    Name {
        /// As it was given.
        name: String,
        /// What is the matter with it.
        why: &'static str,
    },
    /// A file that cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// File.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file or folder that cannot be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// File or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file that is not what it should be: JSON, safetensors, GGUF.
    #[error("{path} is not {expected}: {why}")]
    Format {
        /// File.
        path: PathBuf,
        /// What it should be.
        expected: &'static str,
        /// What is wrong.
        why: String,
    },
    /// A model that is not of the Llama family.
    #[error("{path} describes a model of architecture `{found}`; only `llama` can be loaded")]
    Architecture {
        /// File.
        path: PathBuf,
        /// What it says.
        found: String,
    },
    /// A setting of a model that is missing, makes no sense or asks for something not built here.
    #[error("{path}: `{key}` {why}")]
    Setting {
        /// File.
        path: PathBuf,
        /// Key.
        key: String,
        /// What is wrong.
        why: String,
    },
    /// Weights that are not those of the model described.
    #[error("the weights in {path} are not those of the model described: {mismatch}")]
    Tensors {
        /// File or folder.
        path: PathBuf,
        /// Which.
        mismatch: Mismatch,
    },
    /// A model that Hugging Face's `LlamaForCausalLM` does not compute.
    #[error(
        "this is a model of the lab's small kind (QK-norm, GELU, no norm gains); no Hugging Face architecture computes that, so it cannot be exported"
    )]
    NotLlama,
    /// A folder to export to that holds something.
    #[error("{path} is there and not empty; name a new folder")]
    Occupied {
        /// Folder.
        path: PathBuf,
    },
    /// The hub.
    #[error(transparent)]
    Hub(#[from] HubError),
}

/// How tensors found differ from those a model has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mismatch {
    /// Names of tensors that are not there.
    pub missing: Vec<String>,
    /// Names of tensors that the model does not have.
    pub unexpected: Vec<String>,
    /// Tensors of another shape: name, shape found, shape the model has.
    pub shapes: Vec<(String, Vec<usize>, Vec<usize>)>,
}

impl Mismatch {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.unexpected.is_empty() && self.shapes.is_empty()
    }
}

/// The first of each kind, and how many there are.
impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shapes = self.shapes.iter();
        let shapes = shapes.map(|(name, found, model)| format!("{name} {found:?} for {model:?}"));
        let shapes: Vec<String> = shapes.collect();
        let mut separator = "";
        for (what, names) in [
            ("missing", &self.missing),
            ("unexpected", &self.unexpected),
            ("of another shape", &shapes),
        ] {
            if names.is_empty() {
                continue;
            }
            let first = names[..names.len().min(3)].join(", ");
            let more = if names.len() > 3 { ", …" } else { "" };
            write!(f, "{separator}{} {what} ({first}{more})", names.len())?;
            separator = "; ";
        }
        Ok(())
    }
}
