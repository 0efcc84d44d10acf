//! Documents from files: plain text, JSON lines, CSV and Parquet.
//!
//! A document is a text or a conversation. Which fields of a record hold it is guessed from the
//! names that are usual, and can be set. Every error names the file, the line and the field.

mod record;
mod remote;
#[cfg(test)]
mod tests;

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use forgetlab_engine::pretrained::{DownloadProgress, Hub, HubError, builtin};
use serde_json::Value;

use super::Message;
pub(super) use record::{KINDS, Record, records};
pub use remote::is_remote;

/// Content of a document.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// Plain text: every token is a target.
    Text(String),
    /// A conversation: what the assistant wrote is the target.
    Chat(Vec<Message>),
}

/// A document and the file and line it was read from.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// Its text or conversation.
    pub content: Content,
    /// File and line of its beginning.
    pub place: Place,
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
    let mut documents = Vec::new();
    for file in files(path)? {
        match record::kind(&file) {
            Some("txt") => blocks(&file, &mut documents)?,
            _ => records(&file, |record| {
                documents.push(Document {
                    content: content(&record, fields)?,
                    place: record.place,
                });
                Ok(())
            })?,
        }
    }
    match documents.is_empty() {
        true => Err(SourceError::Empty {
            path: path.into(),
            what: "documents",
        }),
        false => Ok(documents),
    }
}

/// The file itself, or the known files of a folder or data set, in order of their names.
pub(super) fn files(path: &Path) -> Result<Vec<PathBuf>, SourceError> {
    let failed = |source| SourceError::Io {
        path: path.into(),
        source,
    };
    if builtin::is_builtin(path) {
        builtin::read(path).map_err(failed)?;
        return Ok(vec![path.into()]);
    }
    if is_remote(path) {
        return remote::files(path, &Hub::from_env());
    }
    if !fs::metadata(path).map_err(failed)?.is_dir() {
        return match record::kind(path) {
            Some(_) => Ok(vec![path.into()]),
            None => Err(SourceError::Kind { path: path.into() }),
        };
    }
    let mut entries = fs::read_dir(path)
        .and_then(|entries| {
            entries
                .map(|e| Ok(e?.path()))
                .collect::<io::Result<Vec<_>>>()
        })
        .map_err(failed)?;
    entries.sort();
    let mut found = Vec::new();
    for entry in entries {
        if entry.is_dir() {
            found.extend(files(&entry)?);
        } else if record::kind(&entry).is_some() {
            found.push(entry);
        }
    }
    Ok(found)
}

/// Documents of a text file: its blocks between blank lines.
fn blocks(path: &Path, documents: &mut Vec<Document>) -> Result<(), SourceError> {
    let file: Arc<Path> = path.into();
    let mut block = String::new();
    let mut first = 0;
    let mut end = |block: &mut String, first| {
        if !block.is_empty() {
            documents.push(Document {
                content: Content::Text(std::mem::take(block)),
                place: Place {
                    file: file.clone(),
                    number: first,
                    unit: "line",
                },
            });
        }
    };
    record::lines(path, |line, place| {
        if line.trim().is_empty() {
            end(&mut block, first);
            return Ok(());
        }
        match block.is_empty() {
            true => first = place.number,
            false => block.push('\n'),
        }
        block.push_str(line);
        Ok(())
    })?;
    end(&mut block, first);
    Ok(())
}

/// What a record says, by the names of its fields.
fn content(record: &Record, fields: &Fields) -> Result<Content, SourceError> {
    if fields.text.is_none()
        && fields.prompt.is_none()
        && fields.completion.is_none()
        && let Some(name) = pick(record, &fields.messages, MESSAGES)?
    {
        return messages(record, name);
    }
    if fields.text.is_none()
        && let Some(prompt) = pick(record, &fields.prompt, PROMPTS)?
        && let Some(completion) = pick(record, &fields.completion, COMPLETIONS)?
    {
        let mut asked = text(record, prompt)?.to_owned();
        // Alpaca's third field.
        let input = record.fields.get("input").and_then(Value::as_str);
        if let Some(input) = input.filter(|i| prompt == "instruction" && !i.is_empty()) {
            asked = format!("{asked}\n\n{input}");
        }
        return Ok(Content::Chat(vec![
            Message::new("user", asked),
            Message::new("assistant", text(record, completion)?),
        ]));
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

/// A list of messages: `{role, content}`, or ShareGPT's `{from, value}`.
fn messages(record: &Record, name: &str) -> Result<Content, SourceError> {
    let value = &record.fields[name];
    let bad = |problem: String| SourceError::record(&record.place, format!("`{name}` {problem}"));
    let list = value
        .as_array()
        .ok_or_else(|| bad(format!("is not a list of messages: {}", short(value))))?;
    let mut messages = Vec::with_capacity(list.len());
    for (i, entry) in list.iter().enumerate() {
        let message = match (entry["from"].as_str(), entry["value"].as_str()) {
            (Some("human"), Some(text)) => Message::new("user", text),
            (Some("gpt"), Some(text)) => Message::new("assistant", text),
            (Some(role), Some(text)) => Message::new(role, text),
            _ => serde_json::from_value(entry.clone()).map_err(|e| {
                bad(format!(
                    "message {}: {e}; a message is {{\"role\": …, \"content\": …}}",
                    i + 1
                ))
            })?,
        };
        messages.push(message);
    }
    Ok(Content::Chat(messages))
}

/// A value in a message to the user.
pub(super) fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
