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

use super::{ChatError, Place, SourceError, TokenizerError};
pub(crate) use build::hash;
pub(super) use build::{hash_of, hash_while, is_empty};
use forgetlab_study::experiment::TokenSetSettings;
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
    /// Counts of documents read, held out, dropped and cut.
    pub counts: Counts,
    /// Tokenizer and files the rows were made from.
    pub provenance: Provenance,
}

/// Counts of documents read, held out, dropped and cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Documents read.
    pub documents: u64,
    /// Of these, held out.
    pub held_out: u64,
    /// Of these, left out because they say nothing: texts without a character, answers without one.
    #[serde(default)]
    pub empty: u64,
    /// Of these, equal to an earlier one; they are kept.
    pub duplicates: u64,
    /// Conversations left out because they were too long.
    pub dropped: u64,
    /// Conversations cut because they were too long.
    pub truncated: u64,
}

impl Counts {
    /// What was left out or cut, in words; nothing where nothing was.
    pub fn losses(&self) -> Option<String> {
        let of = [
            (self.empty, "left out because they say nothing"),
            (self.dropped, "left out because they are too long"),
            (self.truncated, "cut because they are too long"),
        ];
        let told = of.iter().filter(|(count, _)| *count > 0);
        let told: Vec<String> = told
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        let all = self.documents;
        (!told.is_empty()).then(|| format!("of {all} documents {}", told.join(", ")))
    }
}

/// Tokenizer and files that rows were made from.
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

impl Provenance {
    /// Hash of all its sources together.
    pub fn hash(&self) -> String {
        match &self.sources[..] {
            [one] => one.blake3.clone(),
            several => {
                let hashes: String = several.iter().map(|source| &*source.blake3).collect();
                blake3::hash(hashes.as_bytes()).to_hex().to_string()
            }
        }
    }
}

/// A file that documents were read from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The file or folder as it was named.
    pub path: PathBuf,
    /// BLAKE3 of its contents.
    pub blake3: String,
}

/// Documents or settings that rows cannot be made of.
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
    /// A text that cannot be encoded.
    #[error("{place}: {source}")]
    Text {
        /// Where it stands.
        place: Place,
        /// What is wrong with it.
        #[source]
        source: TokenizerError,
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
        "nothing to {what}: of {} documents {} were held out, {} said nothing and {} were too long for \
         seq_len = {seq_len}; {advice}",
        counts.documents, counts.held_out, counts.empty, counts.dropped
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
