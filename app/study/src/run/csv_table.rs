//! Reading of CSV files whose columns are found by the names in their first line, in any order.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use csv::StringRecord;

use super::RunError;

/// A CSV file in memory.
pub(super) struct CsvTable {
    path: PathBuf,
    columns: HashMap<String, usize>,
    records: Vec<StringRecord>,
}

/// A row of a [`CsvTable`].
#[derive(Clone, Copy)]
pub(super) struct Row<'a> {
    table: &'a CsvTable,
    record: &'a StringRecord,
}

impl CsvTable {
    /// Reads a file that must have the given columns, and may have others.
    pub(super) fn read(path: PathBuf, required: &[&str]) -> Result<Self, RunError> {
        let file = File::open(&path).map_err(RunError::io("read", &path))?;
        let mut reader = csv::Reader::from_reader(file);
        let mut columns = HashMap::new();
        let header = reader.headers().map_err(|error| refused(&path, &error))?;
        for (i, name) in header.iter().enumerate() {
            if columns.insert(name.to_owned(), i).is_some() {
                return Err(malformed(
                    &path,
                    format!("line 1: two columns are called `{name}`"),
                ));
            }
        }
        if let Some(missing) = required.iter().find(|&&name| !columns.contains_key(name)) {
            return Err(malformed(
                &path,
                format!("line 1: there is no column `{missing}`"),
            ));
        }
        let records = reader.records().collect::<Result<_, _>>();
        let records = records.map_err(|error| refused(&path, &error))?;
        Ok(Self {
            path,
            columns,
            records,
        })
    }

    /// The same, `None` where the file does not exist.
    pub(super) fn read_if_there(
        path: PathBuf,
        required: &[&str],
    ) -> Result<Option<Self>, RunError> {
        if path.exists() {
            Self::read(path, required).map(Some)
        } else {
            Ok(None)
        }
    }

    /// Every row below the first line.
    pub(super) fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        let row = |record| Row {
            table: self,
            record,
        };
        self.records.iter().map(row)
    }

    /// The file does not hold what it should.
    pub(super) fn error(&self, problem: impl Into<String>) -> RunError {
        malformed(&self.path, problem.into())
    }
}

impl<'a> Row<'a> {
    /// A field as it stands; empty where the file has no such column.
    pub(super) fn text(self, column: &str) -> &'a str {
        let field = self.table.columns.get(column);
        field.and_then(|&i| self.record.get(i)).unwrap_or_default()
    }

    /// A field that must hold something.
    pub(super) fn required<T: FromStr>(self, column: &str) -> Result<T, RunError> {
        self.optional(column)?
            .ok_or_else(|| self.error(column, "is empty"))
    }

    /// A field that may be empty, or have no column.
    pub(super) fn optional<T: FromStr>(self, column: &str) -> Result<Option<T>, RunError> {
        let text = self.text(column);
        if text.is_empty() {
            return Ok(None);
        }
        let parsed = text.parse().map(Some);
        parsed.map_err(|_| self.error(column, &format!("holds `{text}`, which cannot be read")))
    }

    /// A finite number, or an empty field.
    pub(super) fn number(self, column: &str) -> Result<Option<f64>, RunError> {
        match self.optional::<f64>(column)? {
            Some(value) if !value.is_finite() => {
                Err(self.error(column, &format!("holds {value}, not a finite number")))
            }
            value => Ok(value),
        }
    }

    /// Line of the file, from 1.
    pub(super) fn line(self) -> u64 {
        self.record.position().map_or(0, csv::Position::line)
    }

    /// What is wrong with a field of this row.
    pub(super) fn error(self, column: &str, problem: &str) -> RunError {
        let line = self.line();
        self.table
            .error(format!("line {line}, column `{column}`: {problem}"))
    }
}

fn malformed(path: &Path, problem: String) -> RunError {
    RunError::Malformed {
        path: path.to_owned(),
        problem,
    }
}

/// An error of the CSV reader, with the line it is at.
fn refused(path: &Path, error: &csv::Error) -> RunError {
    let line = error.position().map_or(1, csv::Position::line);
    let problem = match error.kind() {
        csv::ErrorKind::UnequalLengths {
            expected_len, len, ..
        } => format!("line {line}: {len} fields, but {expected_len} columns"),
        csv::ErrorKind::Utf8 { err, .. } => {
            format!("line {line}, column {}: not UTF-8", err.field() + 1)
        }
        _ => format!("line {line}: {error}"),
    };
    malformed(path, problem)
}
