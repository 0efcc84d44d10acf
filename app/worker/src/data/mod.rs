//! Datasets: what is trained on, drawn for replay and held out.
//!
//! The digit tasks are made here; text and conversations come from files: [`read`] makes documents
//! of them, [`TokenSet`] makes rows of tokens of those, with a [`Tokenizer`] and its [`Chat`]
//! template.

mod chat;
mod digits;
mod error;
mod held_out;
mod questions;
mod reduction;
mod source;
mod suite;
#[cfg(test)]
mod tests;
mod texts;
mod token_set;
mod tokenizer;

pub use chat::{Chat, ChatError, Example, Message, Template};
pub use digits::{Digits, token};
pub use error::DataError;
pub use held_out::{Accuracy, HeldOut};
pub use questions::{Question, letter, read_questions};
pub use reduction::Reduction;
pub use source::{Content, Document, Fields, Place, SourceError, fetch, is_remote, read};
pub use suite::Suite;
pub use texts::QuestionSet;
pub(crate) use token_set::hash_files;
pub use token_set::{Batch, Counts, Provenance, Rows, Shuffle, Source, TokenSet, TokenSetError};
pub use tokenizer::{Tokenizer, TokenizerError};
