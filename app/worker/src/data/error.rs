//! What can be wrong with the data of an experiment.

use forgetlab_engine::pretrained::PretrainedError;
use forgetlab_study::experiment::DIGIT_TASKS;

use std::path::PathBuf;

use super::{SourceError, TokenFileError, TokenSetError, TokenizeError, TokenizerError};

/// A dataset, tokenizer or pretrained model that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// Unknown name.
    #[error("there is no dataset `{0}` here; there are {list}", list = DIGIT_TASKS.join(", "))]
    Unknown(String),
    /// Nothing to train on, or nothing to evaluate on.
    #[error(
        "dataset `{name}` has {inputs} inputs, of which data.held_out = {held_out} leaves none to \
         {what}; choose another share, or more data.n_digits"
    )]
    Empty {
        /// Dataset.
        name: &'static str,
        /// Its different inputs.
        inputs: u64,
        /// Share held out.
        held_out: f64,
        /// What there is nothing for.
        what: &'static str,
    },
    /// Text that is no row of tokens.
    #[error("`{0}` is not a token; write tokens separated by spaces, e.g. `<bos> reversal 1 2 3`")]
    Text(String),
    /// The pretrained model cannot be opened.
    #[error(transparent)]
    Pretrained(#[from] Box<PretrainedError>),
    /// Its tokenizer cannot be had, or cannot do what is asked.
    #[error(transparent)]
    Tokenizer(#[from] Box<TokenizerError>),
    /// Documents that do not become rows.
    #[error("dataset `{name}`: {source}")]
    Rows {
        /// Dataset.
        name: String,
        /// What is wrong.
        #[source]
        source: Box<TokenSetError>,
    },
    /// Questions that cannot be read.
    #[error("questions `{name}`: {source}")]
    Questions {
        /// Dataset.
        name: String,
        /// What is wrong.
        #[source]
        source: Box<SourceError>,
    },
    /// A corpus that cannot be used.
    #[error("dataset `{name}`: {source}")]
    Corpus {
        /// Dataset.
        name: String,
        /// What is wrong.
        #[source]
        source: Box<DataError>,
    },
    /// Text that was not fetched yet.
    #[error(
        "{} is not here; fetch it with `app/scripts/fetch-text-data.sh text-data` (ordinary packages, a minute)",
        path.display()
    )]
    NotFetched {
        /// The file.
        path: PathBuf,
    },
    /// A file of a corpus that is not there.
    #[error(
        "dataset `{name}`: {} is not here; name your own with --set 'data.datasets.{name}.files=[\"FILE\"]'",
        path.display()
    )]
    NotHere {
        /// Dataset.
        name: String,
        /// The file.
        path: PathBuf,
    },
    /// A file of tokens that cannot be read.
    #[error(transparent)]
    TokenFile(Box<TokenFileError>),
    /// Texts that do not become tokens.
    #[error(transparent)]
    Tokenize(Box<TokenizeError>),
    /// Tokens of another tokenizer.
    #[error(
        "{}: its tokens are not those of {tokenizer}; name the tokenizer that made them as data.tokenizer, or \
         tokenize the text again", path.display()
    )]
    OtherTokenizer {
        /// The file.
        path: PathBuf,
        /// The tokenizer that was named.
        tokenizer: String,
    },
    /// A marker that the tokenizer has not.
    #[error("marker = {marker}, but the tokenizer has {markers} markers, counted from 0")]
    NoMarker {
        /// Number of the marker.
        marker: usize,
        /// How many there are.
        markers: usize,
    },
    /// A file that says something else than when the run was made.
    #[error(
        "`{name}`: its files were changed since the run was made; bring them back as they were, or \
         start a new run"
    )]
    Changed {
        /// Dataset, or the model.
        name: String,
    },
    /// Rows the model was not made for.
    #[error(
        "data.rows.seq_len = {seq_len}, but {model} was made for rows of at most {most} tokens"
    )]
    TooLong {
        /// Tokens of a row.
        seq_len: usize,
        /// The model.
        model: String,
        /// What it can read.
        most: usize,
    },
}
