//! A record of a file: named fields of a JSON object, a row of CSV or a row of Parquet.

use ::parquet::record::Row;
use minijinja::Value as Ordered;
use minijinja::value::Serde;
use serde_json::{Map, Value};

use super::Place;
use super::row::ordered_object;

/// One record of a file.
pub(in crate::data) struct Record {
    /// File and line it was read from.
    pub place: Place,
    /// Its fields.
    pub fields: Map<String, Value>,
    /// What they were read from, which has their order.
    pub raw: Raw,
}

/// A record as its file has it.
pub(in crate::data) enum Raw {
    /// An object of JSON.
    Json(String),
    /// A row of Parquet.
    Row(Row),
    /// Texts of a table, which hold nothing in them.
    Texts,
}

impl Record {
    /// Its fields in the file's order, and in theirs.
    pub(super) fn value(&self) -> Ordered {
        let flat = || Ordered::from(Serde(&self.fields));
        match &self.raw {
            Raw::Json(object) => serde_json::from_str(object).unwrap_or_else(|_| flat()),
            Raw::Row(row) => ordered_object(row),
            Raw::Texts => flat(),
        }
    }
}
