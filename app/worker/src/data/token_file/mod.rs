//! Token files: a corpus as one flat array of token ids, and beside it what is known of it.
//!
//! `FILE` holds nothing but ids, little-endian: `u16` where the vocabulary has at most 65 536 tokens, else `u32`.
//! Its sidecar `FILE.json` ([`Sidecar`]) says how many there are, of which tokenizer, made from what. [`write()`]
//! makes the two, [`TokenFile`] reads them, [`TokenRows`] makes batches of them. A file of `u16` without a sidecar, as
//! the paper's reference implementation has them, is opened with the size of its vocabulary.
//!
//! Tokens are read at their offsets, never through a memory map: a file that was cut off under a run is an error.

mod open;
mod permutation;
mod rows;
mod sidecar;
#[cfg(test)]
mod tests;
mod verified;
mod write;

use std::io;
use std::path::{Path, PathBuf};

use forgetlab_study::run::RunError;

pub use open::{Scan, TokenFile};
pub use rows::{RowSettings, TokenRows};
pub use sidecar::{About, Reserved, Sidecar, TokenType, sidecar_path};
pub use write::{TokenWriter, write};

/// A token file that cannot be written or used.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It cannot be written.
    #[error(transparent)]
    Write(#[from] RunError),
    /// Nothing says what its tokens are.
    #[error(
        "{0} has no {0}.json beside it, which says what its tokens are: make it with `forgetlab data tokenize`, or \
         name the size of its vocabulary, where it is a flat file of 16-bit tokens", path.display()
    )]
    NoSidecar {
        /// The token file.
        path: PathBuf,
    },
    /// A sidecar that cannot be understood, or that does not fit the file.
    #[error("{}: {problem}", path.display())]
    Sidecar {
        /// The sidecar.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A file whose bytes are no whole number of tokens, or none.
    #[error("{}: {problem}", path.display())]
    Malformed {
        /// The token file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A token that the vocabulary has not.
    #[error(
        "{}: token number {index} is {token}, and its vocabulary has {vocab_size}: it was made by another tokenizer, \
         or damaged", path.display()
    )]
    Vocabulary {
        /// The token file.
        path: PathBuf,
        /// Place of the token in the file, counted from 0.
        index: u64,
        /// The token.
        token: u32,
        /// Ids are below this.
        vocab_size: usize,
    },
    /// The file ends before what it held when it was opened.
    #[error(
        "{}: it was cut off while it was in use: token number {index} is no longer there, of the {tokens} it had when \
         it was opened; restore the file", path.display()
    )]
    CutOff {
        /// The token file.
        path: PathBuf,
        /// Place of the first token that was asked for.
        index: u64,
        /// Tokens it had.
        tokens: u64,
    },
    /// The content is not what the sidecar says.
    #[error(
        "{}: its content is not what its sidecar says (blake3 {found}, there {expected}): it was changed or damaged \
         since it was made; make it again", path.display()
    )]
    Hash {
        /// The token file.
        path: PathBuf,
        /// Hash in the sidecar.
        expected: String,
        /// Hash of the content.
        found: String,
    },
    /// Too few rows for what is asked.
    #[error("{}: {problem}", path.display())]
    TooFew {
        /// The token file.
        path: PathBuf,
        /// What is asked, what is there, and what to do.
        problem: String,
    },
    /// A senseless setting.
    #[error("{name} = {value} makes no sense; {what}")]
    Setting {
        /// Which.
        name: &'static str,
        /// Its value.
        value: String,
        /// What would.
        what: &'static str,
    },
}

impl TokenFileError {
    fn io(path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| Self::Io {
            path: path.into(),
            source,
        }
    }
}
