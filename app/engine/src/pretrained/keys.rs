//! Keys of JSON objects, each named where it is not what it should be.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::error::PretrainedError;
use super::json::read_json;

/// A JSON object of a file. A key that is null is as good as missing.
pub(super) struct Keys {
    path: PathBuf,
    /// What stands before its keys in messages.
    inside: String,
    json: Map<String, Value>,
}

impl Keys {
    /// Reads a file, built in or on disk.
    pub fn read(path: &Path) -> Result<Self, PretrainedError> {
        Ok(Self {
            path: path.into(),
            inside: String::new(),
            json: read_json(path)?,
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The object of a key; `None` where it holds nothing.
    pub fn inner(&self, key: &str) -> Result<Option<Self>, PretrainedError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Object(json)) if json.is_empty() => Ok(None),
            Some(Value::Object(json)) => Ok(Some(Self {
                path: self.path.clone(),
                inside: format!("{}{key}.", self.inside),
                json: json.clone(),
            })),
            Some(other) => Err(self.is_no(key, other, "an object")),
        }
    }

    /// Whether a key is there, and null.
    pub fn is_null(&self, key: &str) -> bool {
        self.json.get(key).is_some_and(Value::is_null)
    }

    pub fn get(&self, key: &str) -> Option<&Value> {
        self.json.get(key).filter(|value| !value.is_null())
    }

    pub fn text(&self, key: &str) -> Result<Option<&str>, PretrainedError> {
        let text = |value: &Value| self.is_no(key, value, "a text");
        let value = self.get(key);
        value
            .map(|value| value.as_str().ok_or_else(|| text(value)))
            .transpose()
    }

    /// A list of texts; empty where the key is missing.
    pub fn texts(&self, key: &str) -> Result<Vec<&str>, PretrainedError> {
        let Some(value) = self.get(key) else {
            return Ok(Vec::new());
        };
        let list = value.as_array().map(|list| list.iter().map(Value::as_str));
        let texts: Option<Vec<&str>> = list.and_then(Iterator::collect);
        texts.ok_or_else(|| self.is_no(key, value, "a list of texts"))
    }

    pub fn flag(&self, key: &str) -> Result<Option<bool>, PretrainedError> {
        let flag = |value: &Value| {
            value
                .as_bool()
                .ok_or_else(|| self.is_no(key, value, "true or false"))
        };
        self.get(key).map(flag).transpose()
    }

    pub fn number(&self, key: &str) -> Result<Option<f64>, PretrainedError> {
        let number = |value: &Value| {
            value
                .as_f64()
                .ok_or_else(|| self.is_no(key, value, "a number"))
        };
        self.get(key).map(number).transpose()
    }

    /// A whole number of at least 1.
    pub fn size(&self, key: &str) -> Result<Option<usize>, PretrainedError> {
        let size = |value: &Value| match value.as_u64().map(usize::try_from) {
            Some(Ok(0)) => Err(self.wrong(key, "is 0")),
            Some(Ok(size)) => Ok(size),
            _ => Err(self.is_no(key, value, "a whole number above 0")),
        };
        self.get(key).map(size).transpose()
    }

    /// The id of a token; one that the vocabulary does not have stands for none, with a warning.
    pub fn id(
        &self,
        key: &str,
        vocab_size: usize,
        warnings: &mut Vec<String>,
    ) -> Result<Option<u32>, PretrainedError> {
        let id = |value: &Value| self.token(key, value, vocab_size, warnings);
        Ok(self.get(key).map(id).transpose()?.flatten())
    }

    /// The id of a token, or a list of them.
    pub fn ids(
        &self,
        key: &str,
        vocab_size: usize,
        warnings: &mut Vec<String>,
    ) -> Result<Vec<u32>, PretrainedError> {
        let values = match self.get(key) {
            None => &[],
            Some(Value::Array(values)) => &values[..],
            Some(value) => std::slice::from_ref(value),
        };
        let mut ids = Vec::new();
        for value in values {
            ids.extend(self.token(key, value, vocab_size, warnings)?);
        }
        Ok(ids)
    }

    fn token(
        &self,
        key: &str,
        value: &Value,
        vocab_size: usize,
        warnings: &mut Vec<String>,
    ) -> Result<Option<u32>, PretrainedError> {
        if !value.is_i64() && !value.is_u64() {
            return Err(self.is_no(key, value, "the id of a token"));
        }
        let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
        let id = id.filter(|&id| (id as usize) < vocab_size);
        if id.is_none() {
            warnings.push(format!(
                "{}: `{}{key}` is {value}, which none of the {vocab_size} tokens is; taken for none",
                self.path.display(),
                self.inside
            ));
        }
        Ok(id)
    }

    /// The error of a key.
    pub fn wrong(&self, key: &str, why: &str) -> PretrainedError {
        PretrainedError::Setting {
            path: self.path.clone(),
            key: format!("{}{key}", self.inside),
            why: why.into(),
        }
    }

    fn is_no(&self, key: &str, value: &Value, expected: &str) -> PretrainedError {
        let text = value.to_string();
        let text = match text.char_indices().nth(40) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text,
        };
        self.wrong(key, &format!("is {text}, not {expected}"))
    }
}
