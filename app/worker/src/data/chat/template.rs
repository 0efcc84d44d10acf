//! Chat templates, rendered as transformers renders them.
//!
//! transformers compiles a template with Jinja2: blocks trimmed, the functions `raise_exception`
//! and `strftime_now`, a `tojson` that writes as Python's `json.dumps` does, Python's methods on
//! texts and lists, and the names of the special tokens as variables. `strftime_now` tells a date
//! that is a setting, so that a dataset does not change overnight.

use std::fmt::{self, Write as _};
use std::io;

use chrono::NaiveDate;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Value, context};
use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

use super::{ChatError, Message};

/// Name of the one template of an environment.
const NAME: &str = "chat_template";

/// A compiled chat template.
pub struct Template {
    environment: Environment<'static>,
    special: Vec<(&'static str, String)>,
}

impl Template {
    /// Compiles a template. `special` names the tokens it may use, e.g. `bos_token`.
    ///
    /// # Errors
    /// [`ChatError::Template`] where it is no Jinja.
    pub fn new(
        source: &str,
        special: Vec<(&'static str, String)>,
        date: NaiveDate,
    ) -> Result<Self, ChatError> {
        let mut environment = Environment::new();
        environment.set_syntax(
            SyntaxConfig::builder()
                .trim_blocks(true)
                .lstrip_blocks(true)
                .build()
                .map_err(told)?,
        );
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.set_formatter(|out, state, value| match python_name(value) {
            Some(name) => Ok(out.write_str(name)?),
            None => minijinja::escape_formatter(out, state, value),
        });
        environment.add_filter("tojson", tojson);
        environment.add_function("raise_exception", |text: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, "raised").with_source(Raised(text)))
        });
        environment.add_function("strftime_now", move |format: &str| {
            let mut text = String::new();
            match write!(
                text,
                "{}",
                date.and_time(chrono::NaiveTime::MIN).format(format)
            ) {
                Ok(()) => Ok(text),
                Err(fmt::Error) => Err(Error::new(
                    ErrorKind::InvalidOperation,
                    format!("strftime_now: {format:?} is no date format"),
                )),
            }
        });
        environment
            .add_template_owned(NAME, without_generation_tags(source))
            .map_err(told)?;
        Ok(Self {
            environment,
            special,
        })
    }

    /// The text of a conversation, with the beginning of the assistant's answer if asked for.
    ///
    /// # Errors
    /// [`ChatError::Raised`] where the template refuses the conversation.
    pub fn render(&self, messages: &[Message], generation: bool) -> Result<String, ChatError> {
        let special = Value::from_pairs(self.special.iter().map(|(k, v)| (*k, v.as_str())));
        let values = context! {
            messages => Serde(messages),
            tools => (),
            documents => (),
            add_generation_prompt => generation,
            ..special
        };
        let template = self.environment.get_template(NAME).map_err(told)?;
        template.render(values).map_err(told)
    }
}

/// What a template gave to `raise_exception`.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Raised(String);

fn told(error: Error) -> ChatError {
    let raised = std::error::Error::source(&error).and_then(|e| e.downcast_ref::<Raised>());
    match raised {
        Some(Raised(text)) => ChatError::Raised { text: text.clone() },
        None => ChatError::Template {
            problem: error.to_string(),
        },
    }
}

/// How Python writes what other languages write otherwise.
fn python_name(value: &Value) -> Option<&'static str> {
    if value.is_none() {
        return Some("None");
    }
    let is_bool = value.kind() == ValueKind::Bool;
    is_bool.then(|| if value.is_true() { "True" } else { "False" })
}

/// `json.dumps(value, ensure_ascii=False, indent=indent)`.
fn tojson(value: Value, options: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    options.assert_all_used()?;
    let mut json = Vec::new();
    let written = match indent {
        None => value.serialize(&mut Serializer::with_formatter(&mut json, Dumps)),
        Some(n) => {
            let spaces = " ".repeat(n);
            let formatter = PrettyFormatter::with_indent(spaces.as_bytes());
            value.serialize(&mut Serializer::with_formatter(&mut json, formatter))
        }
    };
    let bad = |text: String| Error::new(ErrorKind::BadSerialization, text);
    written.map_err(|e| bad(e.to_string()))?;
    String::from_utf8(json)
        .map(Value::from_safe_string)
        .map_err(|e| bad(e.to_string()))
}

/// The separators of `json.dumps`.
struct Dumps;

impl Formatter for Dumps {
    fn begin_array_value<W: ?Sized + io::Write>(
        &mut self,
        w: &mut W,
        first: bool,
    ) -> io::Result<()> {
        w.write_all(if first { b"" } else { b", " })
    }
    fn begin_object_key<W: ?Sized + io::Write>(
        &mut self,
        w: &mut W,
        first: bool,
    ) -> io::Result<()> {
        w.write_all(if first { b"" } else { b", " })
    }
    fn begin_object_value<W: ?Sized + io::Write>(&mut self, w: &mut W) -> io::Result<()> {
        w.write_all(b": ")
    }
}

/// `{% generation %}` is a tag of transformers' own that marks the assistant's part and writes
/// nothing: here a condition that always holds.
fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at);
        out.push_str(before);
        let Some(end) = tag.find("%}") else {
            rest = tag;
            break;
        };
        let (tag, after) = tag.split_at(end + 2);
        let name = tag[2..end].trim_matches(['-', '+']).trim();
        out.push_str(&match name {
            "generation" => tag.replace(name, "if true"),
            "endgeneration" => tag.replace(name, "endif"),
            _ => tag.to_owned(),
        });
        rest = after;
    }
    out + rest
}
