//! Sources to a token file: read, encoded and written at once, in memory that does not grow with them.
//!
//! One thread reads documents, several encode them, and whoever called writes their tokens in the order of the
//! documents, so that the file is the same with any number of threads. Every document ends with EOS.

mod encode;
mod pipeline;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use super::{ChatError, Fields, Place, SourceError, TokenFileError, Tokenizer, TokenizerError};
use crate::data::token_file::{About, Reserved, Sidecar, write};
pub use pipeline::Progress;

/// What is tokenized, and how.
#[derive(Clone, Debug, Default)]
pub struct TokenizeSettings {
    /// Files, folders and data sets.
    pub sources: Vec<PathBuf>,
    /// Which fields of records hold a document.
    pub fields: Fields,
    /// Name of the token that ends a document; without it the tokenizer's EOS.
    pub eos: Option<String>,
    /// Threads that encode.
    pub threads: usize,
    /// Leaves out documents that say what an earlier one says, word for word. Takes 32 bytes a document.
    pub drop_duplicates: bool,
    /// What the licences of the sources ask for.
    pub licence: String,
}

/// What became of the documents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tokenized {
    /// Left out: they say nothing.
    pub empty: u64,
    /// Left out: they say what an earlier one says.
    pub duplicates: u64,
    /// Tokens that stand for no text, and were written out in one.
    pub reserved: u64,
    /// Bytes of text that were encoded.
    pub bytes: u64,
}

/// Why no token file was written.
#[derive(Debug, thiserror::Error)]
pub enum TokenizeError {
    /// A source cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The tokenizer cannot do what is asked.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// A text that cannot be encoded.
    #[error("{place}: {source}")]
    Text {
        /// Where it stands.
        place: Place,
        /// What is wrong with it.
        #[source]
        source: TokenizerError,
    },
    /// A conversation that cannot be encoded.
    #[error("{place}: {source}; for a single field as plain text, name it with --text")]
    Chat {
        /// Where it stands.
        place: Place,
        /// What is wrong with it.
        #[source]
        source: ChatError,
    },
    /// The file cannot be written.
    #[error(transparent)]
    File(#[from] TokenFileError),
    /// No token to end documents with.
    #[error(
        "the tokenizer of {name} names no EOS token, which is to end every document, and has no {EOS}; name one of \
         its tokens with --eos"
    )]
    NoEos {
        /// Where the tokenizer came from.
        name: String,
    },
    /// The file to write is one of those that are read.
    #[error("{} is both read and to be written; choose another file to write", path.display())]
    ReadAndWritten {
        /// The file.
        path: PathBuf,
    },
    /// A thread that does not start.
    #[error("no thread to encode on: {0}")]
    Thread(#[from] std::io::Error),
    /// Whoever asked for it wants it no more.
    #[error("stopped before the end: nothing was written")]
    Stopped,
}

/// Name of EOS in tokenizers that say nothing of it, as those that `data train-tokenizer` makes.
pub const EOS: &str = "<|endoftext|>";

/// Name of the marker of dataset number `index`.
pub fn marker(index: usize) -> String {
    format!("<|data{index}|>")
}

/// The tokens that stand for no text: dataset markers by their names, and EOS.
///
/// # Errors
/// Where there is no EOS, or no token of the name that is wanted.
pub fn reserved(tokenizer: &Tokenizer, eos: Option<&str>) -> Result<Reserved, TokenizeError> {
    let known = |name: &str| tokenizer.token_id(name).ok();
    let eos = match (eos, tokenizer.special_tokens().eos) {
        (Some(name), _) => tokenizer.token_id(name)?,
        (None, Some(eos)) => tokenizer.known(eos)?,
        (None, None) => known(EOS).ok_or_else(|| TokenizeError::NoEos {
            name: tokenizer.name().into(),
        })?,
    };
    let markers = (0..).map_while(|index| known(&marker(index)));
    Ok(Reserved {
        markers: markers.collect(),
        eos: Some(eos),
    })
}

/// Writes the documents of sources as a token file with its sidecar. `progress` is told now and then how far it is, and
/// ends it by answering `false`.
///
/// # Errors
/// [`TokenizeError`] names the file and the line. Whatever it is, nothing half-written is left.
pub fn tokenize(
    settings: &TokenizeSettings,
    tokenizer: &Tokenizer,
    out: &Path,
    progress: &mut dyn FnMut(&Progress) -> bool,
) -> Result<(Sidecar, Tokenized), TokenizeError> {
    let same = |source: &&PathBuf| match (source.canonicalize(), out.canonicalize()) {
        (Ok(source), Ok(out)) => source == out,
        _ => false,
    };
    if let Some(path) = settings.sources.iter().find(same) {
        return Err(TokenizeError::ReadAndWritten { path: path.clone() });
    }
    let about = About {
        vocab_size: tokenizer.vocab_size(),
        tokenizer: tokenizer.name().into(),
        tokenizer_hash: tokenizer.hash().into(),
        reserved: reserved(tokenizer, settings.eos.as_deref())?,
        licence: settings.licence.clone(),
    };
    let reserved = about.reserved.clone();
    let mut counts = Tokenized::default();
    let sidecar = write(out, about, |writer| {
        let (sources, found) = pipeline::run(settings, tokenizer, &reserved, writer, progress)?;
        counts = found;
        Ok::<_, TokenizeError>(sources)
    })?;
    Ok((sidecar, counts))
}
