//! What is known of a token file: the JSON beside it.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::TokenFileError;
use crate::data::token_set::Source;

/// Version of the layout.
pub(super) const FORMAT: u32 = 1;
/// The most bytes of a sidecar; sources are listed by their names.
const MOST_BYTES: u64 = 1 << 24;

/// How a token is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenType {
    /// Two bytes, little-endian.
    U16,
    /// Four bytes, little-endian.
    U32,
}

impl TokenType {
    /// The smallest that holds every id of a vocabulary.
    pub fn of(vocab_size: usize) -> Self {
        match vocab_size <= 1 << 16 {
            true => Self::U16,
            false => Self::U32,
        }
    }

    /// Bytes of a token.
    pub fn width(self) -> usize {
        match self {
            Self::U16 => 2,
            Self::U32 => 4,
        }
    }

    /// `u16` or `u32`.
    pub fn name(self) -> &'static str {
        match self {
            Self::U16 => "u16",
            Self::U32 => "u32",
        }
    }
}

/// Tokens that stand for no text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reserved {
    /// Markers that name datasets, in their order; a row of dataset number i begins with marker number i.
    pub markers: Vec<u32>,
    /// The token that ends a document.
    pub eos: Option<u32>,
}

/// Tokenizer and licence of a token file, known before it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// Ids are below this.
    pub vocab_size: usize,
    /// Where the tokenizer lies.
    pub tokenizer: String,
    /// Hash of the tokenizer: `Tokenizer::hash`.
    pub tokenizer_hash: String,
    /// Tokens that stand for no text.
    pub reserved: Reserved,
    /// What the licences of the sources ask for.
    #[serde(default)]
    pub licence: String,
}

/// What is known of a token file: `FILE.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sidecar {
    /// Version of the layout.
    pub format: u32,
    /// How a token is stored.
    pub dtype: TokenType,
    /// Tokens of the file.
    pub tokens: u64,
    /// Documents they were made from.
    pub documents: u64,
    /// BLAKE3 of the token file.
    pub blake3: String,
    /// Tokenizer and licence.
    #[serde(flatten)]
    pub about: About,
    /// The files the documents were read from.
    pub sources: Vec<Source>,
}

/// The sidecar of a token file: its name and `.json`.
pub fn sidecar_path(tokens: &Path) -> PathBuf {
    let mut name = OsString::from(tokens);
    name.push(".json");
    name.into()
}

impl Sidecar {
    /// Reads the sidecar of a token file of so many bytes, and holds the one against the other.
    pub(super) fn read(tokens: &Path, bytes: u64) -> Result<Self, TokenFileError> {
        let path = sidecar_path(tokens);
        let problem = |problem: String| TokenFileError::Sidecar {
            path: path.clone(),
            problem,
        };
        let found = match fs::metadata(&path) {
            Ok(found) => found,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(TokenFileError::NoSidecar {
                    path: tokens.into(),
                });
            }
            Err(error) => return Err(TokenFileError::io(&path)(error)),
        };
        let foreign = "not what `forgetlab data tokenize` writes beside a file of tokens";
        if !found.is_file() || found.len() > MOST_BYTES {
            return Err(problem(foreign.into()));
        }
        let json = fs::read(&path).map_err(TokenFileError::io(&path))?;
        let value: serde_json::Value =
            serde_json::from_slice(&json).map_err(|e| problem(format!("{foreign}: {e}")))?;
        match value.get("format").and_then(serde_json::Value::as_u64) {
            Some(format) if format == u64::from(FORMAT) => {}
            Some(format) => {
                return Err(problem(format!(
                    "layout {format}, this program reads {FORMAT}; tokenize the sources again"
                )));
            }
            None => return Err(problem(foreign.into())),
        }
        let sidecar: Self =
            serde_json::from_value(value).map_err(|e| problem(format!("{foreign}: {e}")))?;
        sidecar.fits(tokens, bytes).map_err(problem)?;
        Ok(sidecar)
    }

    /// What of it cannot be, given the size of the token file.
    fn fits(&self, tokens: &Path, bytes: u64) -> Result<(), String> {
        let vocab_size = self.about.vocab_size;
        let stored = TokenType::of(vocab_size);
        if vocab_size == 0 || stored != self.dtype && self.dtype == TokenType::U16 {
            return Err(format!(
                "a vocabulary of {vocab_size} does not go into tokens of {}",
                self.dtype.name()
            ));
        }
        let width = self.dtype.width() as u64;
        if self.tokens.checked_mul(width) != Some(bytes) {
            return Err(format!(
                "it says {} tokens of {width} bytes, but {} has {bytes} bytes: one of the two is of another file, or \
                 was not written to its end; tokenize the sources again",
                self.tokens,
                tokens.display()
            ));
        }
        let Reserved { markers, eos } = &self.about.reserved;
        match markers
            .iter()
            .chain(eos)
            .find(|id| **id as usize >= vocab_size)
        {
            Some(id) => Err(format!(
                "the reserved token {id} is not below {vocab_size}, the size of the vocabulary"
            )),
            None => Ok(()),
        }
    }
}
