//! Documents as rows of tokens: what training and evaluation of language models read.
//!
//! A [`TokenSet`] holds training rows and held-out rows of at most `seq_len` tokens, each with a
//! mask of the tokens that are targets. Which side a document falls on is decided by a hash of what
//! it says, so adding others moves none, and copies never stand on both sides. A conversation is a
//! row; text is packed, or cut into windows, and each of its rows begins with BOS. Whatever does
//! not fit is dropped or cut as a setting says, and counted.

mod build;
mod file;
mod rows;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{ChatError, ChatSettings, Place, SourceError, TokenizerError};
pub(crate) use build::hash_files;
pub use rows::{Batch, Rows, Shuffle};

/// Rows of tokens to train on and to evaluate on.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenSet {
    /// Rows to train on.
    pub train: Rows,
    /// Rows to evaluate on, never trained on.
    pub held_out: Rows,
    /// How the rows were made.
    pub settings: TokenSetSettings,
    /// What became of the documents.
    pub counts: Counts,
    /// What the rows were made from.
    pub provenance: Provenance,
}

/// How documents become rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TokenSetSettings {
    /// The most tokens of a row.
    pub seq_len: usize,
    /// Share of the documents that is held out.
    pub held_out: f64,
    /// How text becomes rows.
    pub text: TextRows,
    /// What stands between packed documents.
    pub separator: Separator,
    /// What becomes of a conversation longer than a row.
    pub too_long: TooLong,
    /// Name of the token that begins rows of text; the tokenizer's BOS where there is none here.
    pub bos: Option<String>,
    /// Settings of the chat template.
    pub chat: ChatSettings,
}

impl Default for TokenSetSettings {
    fn default() -> Self {
        Self {
            seq_len: 512,
            held_out: 0.05,
            text: TextRows::Packed,
            separator: Separator::Eos,
            too_long: TooLong::Drop,
            bos: None,
            chat: ChatSettings::default(),
        }
    }
}

/// How text becomes rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TextRows {
    /// Documents follow one another; every row but the last is full.
    Packed,
    /// Every document begins a row of its own.
    Windows,
}

/// What stands between packed documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Separator {
    /// EOS after every document.
    Eos,
    /// The token that begins rows before every document.
    Bos,
    /// Nothing.
    None,
}

/// What becomes of a conversation longer than a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TooLong {
    /// It is left out.
    Drop,
    /// Its end is cut off; left out where that leaves no target.
    Truncate,
}

/// What became of the documents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Documents read.
    pub documents: u64,
    /// Of these, held out.
    pub held_out: u64,
    /// Of these, saying exactly what an earlier one says; they are kept.
    pub duplicates: u64,
    /// Conversations left out because they were too long.
    pub dropped: u64,
    /// Conversations cut because they were too long.
    pub truncated: u64,
}

/// What rows were made from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// Where the tokenizer came from.
    pub tokenizer: String,
    /// Its hash.
    pub tokenizer_hash: String,
    /// Ids are below this.
    pub vocab_size: usize,
    /// The files.
    pub sources: Vec<Source>,
}

/// A file that documents were read from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The file or folder as it was named.
    pub path: PathBuf,
    /// BLAKE3 of its contents.
    pub blake3: String,
}

/// Documents that do not make a set of rows.
#[derive(Debug, thiserror::Error)]
pub enum TokenSetError {
    /// A source cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The tokenizer cannot do what is asked.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The chat template cannot do what is asked.
    #[error(transparent)]
    Template(ChatError),
    /// A conversation that cannot be encoded.
    #[error("{place}: {source}")]
    Chat {
        /// Where it stands.
        place: Place,
        /// What is wrong with it.
        #[source]
        source: ChatError,
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
    /// No EOS to separate documents with.
    #[error(
        "the tokenizer of {name} has no EOS token, which is to separate documents; choose \
         separator = bos or none"
    )]
    NoEos {
        /// Where the tokenizer came from.
        name: String,
    },
    /// Nothing to train on, or nothing to evaluate on.
    #[error(
        "nothing to {what}: of {} documents {} were held out and {} were too long for \
         seq_len = {seq_len}; {advice}",
        counts.documents, counts.held_out, counts.dropped
    )]
    Nothing {
        /// `train on` or `evaluate on`.
        what: &'static str,
        /// What became of the documents.
        counts: Counts,
        /// Tokens of a row.
        seq_len: usize,
        /// What to do.
        advice: &'static str,
    },
    /// A file that holds no set of rows.
    #[error("{}: {problem}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}
