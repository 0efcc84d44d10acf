//! Datasets: what is trained on, drawn for replay and held out.
//!
//! The digit tasks are made here; text and conversations come from files: [`read`] makes documents
//! of them, [`TokenSet`] makes rows of tokens of those, with a [`Tokenizer`] and its [`Chat`]
//! template. A corpus that is too large for that is a [`TokenFile`], which [`fn@tokenize`] writes and [`TokenRows`] makes
//! batches of.

mod chat;
mod corpora;
mod digits;
mod error;
mod held_out;
mod new_rows;
mod questions;
mod reduction;
mod source;
mod suite;
#[cfg(test)]
mod tests;
mod texts;
mod token_file;
mod token_set;
mod tokenize;
mod tokenizer;
mod train_tokenizer;

pub use chat::{Chat, ChatError, Conversation, Example, Message, Template};
pub use digits::{Digits, token};
pub use error::DataError;
pub use held_out::{Accuracy, HeldOut};
pub use new_rows::NewRows;
pub use questions::{Form, Question, letter, read_questions};
pub use reduction::Reduction;
pub use source::{
    Content, Document, Fields, Meter, Part, Place, SourceError, fetch, is_remote,
    panics_are_caught, read, stream,
};
pub use suite::Suite;
pub use texts::QuestionSet;
pub use token_file::{
    About, Reserved, RowSettings, Scan, Sidecar, TokenFile, TokenFileError, TokenRows, TokenType,
    TokenWriter, sidecar_path, write,
};
pub(crate) use token_set::hash;
pub use token_set::{Batch, Counts, Provenance, Rows, Shuffle, Source, TokenSet, TokenSetError};
pub use tokenize::{
    EOS, Progress, TokenizeError, TokenizeSettings, Tokenized, marker, reserved, tokenize,
};
pub use tokenizer::{Tokenizer, TokenizerError};
pub use train_tokenizer::{TrainTokenizer, TrainedTokenizer, train_tokenizer};
