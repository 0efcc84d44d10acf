//! Documents from files: plain text, JSON, CSV and Parquet.
//!
//! A document is a text or a conversation. Which fields of a record hold it is guessed from the
//! names that are usual, and can be set. Every error names the file, the line and the field.

mod conversation;
mod csv;
mod files;
mod json;
mod kinds;
mod parquet;
mod record;
mod remote;
mod row;
#[cfg(test)]
mod tests;
mod text;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use forgetlab_engine::pretrained::{DownloadProgress, Hub, HubError};
use serde_json::Value;

use super::{Conversation, Message};
pub use files::Meter;
pub(super) use files::{files, open, regular};
use kinds::KINDS;
pub use parquet::panics_are_caught;
pub(super) use record::Record;
pub use remote::is_remote;
pub(super) use text::cut;

/// Content of a document.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// Plain text: every token is a target.
    Text(String),
    /// A conversation: what the assistant wrote is the target.
    Chat(Conversation),
}

/// A document and the file and line it was read from.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// Its text or conversation.
    pub content: Content,
    /// File and line of its beginning.
    pub place: Place,
}

/// A document, or a part of a long one.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// What it says; the place is that of the part's beginning.
    pub document: Document,
    /// Whether the document ends here; what follows in its parts is the same document.
    pub is_last: bool,
}

/// A line of a file, or a row of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: Arc<Path>,
    /// Line or row, counted from 1.
    pub number: u64,
    /// `line` or `row`.
    pub unit: &'static str,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {} {}", self.file.display(), self.unit, self.number)
    }
}

/// Names of the fields to use, where the usual ones are not meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields {
    /// Plain text.
    pub text: Option<String>,
    /// A list of messages.
    pub messages: Option<String>,
    /// The user's turn.
    pub prompt: Option<String>,
    /// The assistant's turn.
    pub completion: Option<String>,
    /// Fields that are not to be used.
    pub ignore: Vec<String>,
}

/// Usual names, the first that a record has is used.
const MESSAGES: &[&str] = &["messages", "conversations"];
const PROMPTS: &[&str] = &["prompt", "instruction", "question"];
const COMPLETIONS: &[&str] = &["completion", "response", "output", "answer"];
const TEXTS: &[&str] = &["text", "content"];

/// A file that cannot be read as documents.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A file or folder cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A kind of file that is not read.
    #[error("{}: not a kind of file that is read here; there are {}", path.display(), KINDS.join(", "))]
    Kind {
        /// The file.
        path: PathBuf,
    },
    /// No documents at all.
    #[error("{} is empty: it holds no {what}", path.display())]
    Empty {
        /// The file or folder.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
    /// A file that is not what its name says.
    #[error("{}: {problem}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A data set that cannot be had from the hub.
    #[error("{}: {source}", path.display())]
    Hub {
        /// Its name as a source.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<HubError>,
    },
    /// Whoever wanted the documents wants no more.
    #[error("reading was stopped")]
    Stopped,
    /// A record that cannot be used.
    #[error("{place}: {problem}")]
    Record {
        /// Where it stands.
        place: Place,
        /// What is wrong with it.
        problem: String,
    },
}

impl SourceError {
    pub(super) fn record(place: &Place, problem: impl Into<String>) -> Self {
        Self::Record {
            place: place.clone(),
            problem: problem.into(),
        }
    }
}

/// Fetches data sets on the hub, and names them by the commit that their revision stands for now.
///
/// # Errors
/// [`SourceError`]; a data set without files of a kind that is read is one.
pub fn fetch<'a>(
    sources: impl IntoIterator<Item = &'a mut PathBuf>,
    hub: &Hub,
    progress: &dyn DownloadProgress,
) -> Result<(), SourceError> {
    for source in sources {
        if is_remote(source) {
            *source = remote::fetch(source, hub, progress)?;
        }
    }
    Ok(())
}

/// The documents of a file, built in or on disk, of every file of a known kind in a folder and those below
/// it, or of a data set on the hub (`hub:OWNER/NAME[@REVISION][:PATH]`).
///
/// # Errors
/// [`SourceError`] names the file, the line and the field. An empty source is an error.
pub fn read(path: &Path, fields: &Fields) -> Result<Vec<Document>, SourceError> {
    let mut documents: Vec<Document> = Vec::new();
    let mut is_whole = true;
    stream(path, fields, &Meter::default(), |part| {
        let Part { document, is_last } = part;
        match (
            documents.last_mut().map(|d| &mut d.content),
            document.content,
        ) {
            (Some(Content::Text(begun)), Content::Text(more)) if !is_whole => begun.push_str(&more),
            (_, content) => documents.push(Document {
                content,
                place: document.place,
            }),
        }
        is_whole = is_last;
        Ok(())
    })?;
    Ok(documents)
}

/// Calls `each` with the documents of a source as [`read`] has them, one after the other: no more than one is in
/// memory, and of a text file's longer block no more than a part. `meter` counts the bytes read.
///
/// # Errors
/// As [`read`], and what `each` returns.
pub fn stream(
    path: &Path,
    fields: &Fields,
    meter: &Meter,
    mut each: impl FnMut(Part) -> Result<(), SourceError>,
) -> Result<(), SourceError> {
    let mut is_empty = true;
    let mut each = |part| {
        is_empty = false;
        each(part)
    };
    for file in files(path)? {
        match kinds::kind(&file) {
            Some("txt") => text::blocks(&file, meter, &mut each)?,
            _ => records(&file, meter, |record| {
                let document = Document {
                    content: content(&record, fields)?,
                    place: record.place,
                };
                each(Part {
                    document,
                    is_last: true,
                })
            })?,
        }
    }
    match is_empty {
        true => Err(SourceError::Empty {
            path: path.into(),
            what: "documents",
        }),
        false => Ok(()),
    }
}

/// Bytes of the files of a source on disk, packed as they are.
///
/// # Errors
/// A file or folder that cannot be read.
pub fn bytes(path: &Path) -> Result<u64, SourceError> {
    let mut all = 0;
    for file in files(path)? {
        all += open(&file)?.1;
    }
    Ok(all)
}

/// Calls `each` with every record of a file of JSON, CSV or Parquet.
pub(super) fn records(
    path: &Path,
    meter: &Meter,
    mut each: impl FnMut(Record) -> Result<(), SourceError>,
) -> Result<(), SourceError> {
    match kinds::kind(path) {
        Some("jsonl" | "ndjson" | "json") => json::records(path, meter, &mut each),
        Some("csv") => csv::records(path, meter, &mut each),
        Some("parquet") => parquet::records(path, meter, &mut each),
        _ => Err(SourceError::Kind { path: path.into() }),
    }
}

/// What a record says, by the names of its fields.
fn content(record: &Record, fields: &Fields) -> Result<Content, SourceError> {
    if fields.text.is_none()
        && fields.prompt.is_none()
        && fields.completion.is_none()
        && let Some(name) = pick(record, &fields.messages, MESSAGES)?
    {
        return conversation::of_messages(record, name, &fields.ignore);
    }
    if fields.text.is_none()
        && let Some(prompt) = pick(record, &fields.prompt, PROMPTS)?
        && let Some(completion) = pick(record, &fields.completion, COMPLETIONS)?
    {
        return conversation::of_pair(record, prompt, completion, &fields.ignore);
    }
    if let Some(name) = pick(record, &fields.text, TEXTS)? {
        return Ok(Content::Text(text(record, name)?.to_owned()));
    }
    Err(SourceError::record(
        &record.place,
        format!(
            "no field that holds a document; it has {}, and looked for are {}, {} with {}, or {} \
             (name others with --messages, --prompt, --completion, --text)",
            names(record),
            MESSAGES.join(" or "),
            PROMPTS.join(" or "),
            COMPLETIONS.join(" or "),
            TEXTS.join(" or "),
        ),
    ))
}

/// The field that is set, which must be there, or the first of the usual ones that is.
fn pick<'a>(
    record: &Record,
    set: &'a Option<String>,
    usual: &[&'a str],
) -> Result<Option<&'a str>, SourceError> {
    match set {
        Some(name) if record.fields.contains_key(name) => Ok(Some(name)),
        Some(name) => Err(SourceError::record(
            &record.place,
            format!("no field `{name}`; it has {}", names(record)),
        )),
        None => Ok(usual
            .iter()
            .copied()
            .find(|name| record.fields.contains_key(*name))),
    }
}

fn names(record: &Record) -> String {
    let names: Vec<String> = record
        .fields
        .keys()
        .map(|name| format!("`{name}`"))
        .collect();
    match names.is_empty() {
        true => "no fields".into(),
        false => names.join(", "),
    }
}

fn text<'a>(record: &'a Record, name: &str) -> Result<&'a str, SourceError> {
    let value = &record.fields[name];
    value.as_str().ok_or_else(|| {
        SourceError::record(
            &record.place,
            format!("`{name}` is not a text: {}", short(value)),
        )
    })
}

/// A value in a message to the user.
pub(super) fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
