//! Datasets: what is trained on, drawn for replay and held out.
//!
//! The digit tasks are made here; text and conversations come from files: [`read`] makes documents
//! of them, [`TokenSet`] makes rows of tokens of those, with a [`Tokenizer`] and its [`Chat`]
//! template.

mod chat;
mod digits;
mod quality;
mod questions;
mod source;
mod suite;
mod texts;
mod token_set;
mod tokenizer;

pub use chrono::NaiveDate;

pub use chat::{Chat, ChatError, ChatSettings, Example, Message, Template};
pub use digits::{Digits, TASKS, token};
pub use quality::Quality;
pub use questions::{Question, letter, read_questions};
pub use source::{Content, Document, Fields, Place, SourceError, fetch, is_remote, read};
pub use suite::{DataError, Suite};
pub use texts::Choices;
pub(crate) use token_set::hash_files;
pub use token_set::{
    Batch, Counts, Provenance, Rows, Separator, Shuffle, Source, TextRows, TokenSet, TokenSetError,
    TokenSetSettings, TooLong,
};
pub use tokenizer::{Tokenizer, TokenizerError};
