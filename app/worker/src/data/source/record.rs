//! Records of a file: named fields of a JSON line, a row of CSV or a row of Parquet.

use std::fs::File;
use std::io::BufRead;
use std::path::Path;
use std::sync::Arc;

use forgetlab_engine::pretrained::builtin;
use parquet::basic::Compression;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use serde_json::{Map, Value};

use super::{Place, SourceError};

/// Endings of the files that are read.
pub(in crate::data) const KINDS: [&str; 5] = ["txt", "jsonl", "ndjson", "csv", "parquet"];

/// One record of a file.
pub(in crate::data) struct Record {
    /// File and line it was read from.
    pub place: Place,
    /// Its fields.
    pub fields: Map<String, Value>,
}

/// The known ending of a file's name.
pub(super) fn kind(path: &Path) -> Option<&'static str> {
    let ending = path.extension()?.to_str()?.to_ascii_lowercase();
    KINDS.into_iter().find(|kind| *kind == ending)
}

/// Calls `each` with every record of a JSON lines, CSV or Parquet file.
pub(in crate::data) fn records(
    path: &Path,
    each: impl FnMut(Record) -> Result<(), SourceError>,
) -> Result<(), SourceError> {
    match kind(path) {
        Some("jsonl" | "ndjson") => json_lines(path, each),
        Some("csv") => csv_rows(path, each),
        Some("parquet") => parquet_rows(path, each),
        _ => Err(SourceError::Kind { path: path.into() }),
    }
}

/// Calls `each` with every line of a UTF-8 file, its end cut off.
pub(super) fn lines(
    path: &Path,
    mut each: impl FnMut(&str, Place) -> Result<(), SourceError>,
) -> Result<(), SourceError> {
    let failed = |source| SourceError::Io {
        path: path.into(),
        source,
    };
    let file: Arc<Path> = path.into();
    let mut reader = builtin::open(path).map_err(failed)?;
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        if reader.read_until(b'\n', &mut line).map_err(failed)? == 0 {
            break;
        }
        let place = Place {
            file: file.clone(),
            number,
            unit: "line",
        };
        let text = std::str::from_utf8(&line)
            .map_err(|_| SourceError::record(&place, "not UTF-8; convert the file first"))?;
        let text = if number == 1 {
            text.trim_start_matches('\u{feff}')
        } else {
            text
        };
        each(text.trim_end_matches(['\n', '\r']), place)?;
    }
    Ok(())
}

fn json_lines(
    path: &Path,
    mut each: impl FnMut(Record) -> Result<(), SourceError>,
) -> Result<(), SourceError> {
    lines(path, |line, place| {
        if line.trim().is_empty() {
            return Ok(());
        }
        let fields = serde_json::from_str(line)
            .map_err(|e| SourceError::record(&place, format!("not a JSON object: {e}")))?;
        each(Record { place, fields })
    })
}

fn csv_rows(
    path: &Path,
    mut each: impl FnMut(Record) -> Result<(), SourceError>,
) -> Result<(), SourceError> {
    let malformed = |e: csv::Error| match e.into_kind() {
        csv::ErrorKind::Io(source) => SourceError::Io {
            path: path.into(),
            source,
        },
        kind => SourceError::Malformed {
            path: path.into(),
            problem: format!("not CSV: {}", csv_problem(&kind)),
        },
    };
    let file: Arc<Path> = path.into();
    let mut reader = csv::Reader::from_path(path).map_err(malformed)?;
    let names = reader.headers().map_err(malformed)?.clone();
    for row in reader.records() {
        let row = row.map_err(malformed)?;
        let fields = names.iter().zip(&row);
        each(Record {
            place: Place {
                file: file.clone(),
                number: row.position().map_or(0, csv::Position::line),
                unit: "line",
            },
            fields: fields
                .map(|(name, text)| (name.trim().into(), text.into()))
                .collect(),
        })?;
    }
    Ok(())
}

fn csv_problem(kind: &csv::ErrorKind) -> String {
    let line = |pos: &Option<csv::Position>| pos.as_ref().map_or(0, csv::Position::line);
    match kind {
        csv::ErrorKind::Utf8 { pos, err } => format!("line {}: {err}", line(pos)),
        csv::ErrorKind::UnequalLengths {
            pos,
            expected_len,
            len,
        } => format!(
            "line {} has {len} fields, the first line names {expected_len}",
            line(pos)
        ),
        other => format!("{other:?}"),
    }
}

fn parquet_rows(
    path: &Path,
    mut each: impl FnMut(Record) -> Result<(), SourceError>,
) -> Result<(), SourceError> {
    let malformed = |e: parquet::errors::ParquetError| SourceError::Malformed {
        path: path.into(),
        problem: format!("not Parquet that can be read: {e}"),
    };
    let opened = File::open(path).map_err(|source| SourceError::Io {
        path: path.into(),
        source,
    })?;
    let file: Arc<Path> = path.into();
    let reader = SerializedFileReader::new(opened).map_err(malformed)?;
    if let Some(other) = unread_compression(reader.metadata()) {
        return Err(SourceError::Malformed {
            path: path.into(),
            problem: format!(
                "its columns are compressed as {other}; read are SNAPPY, as most of the hub's sets have \
                 it, and UNCOMPRESSED: write it anew with one of these"
            ),
        });
    }
    let rows = reader.get_row_iter(None).map_err(malformed)?;
    for (row, number) in rows.zip(1..) {
        let row = row.map_err(malformed)?;
        each(Record {
            place: Place {
                file: file.clone(),
                number,
                unit: "row",
            },
            fields: object(row.get_column_iter()),
        })?;
    }
    Ok(())
}

/// A compression among a file's columns that is not read here.
fn unread_compression(file: &ParquetMetaData) -> Option<String> {
    let columns = file.row_groups().iter().flat_map(|group| group.columns());
    let read = [Compression::SNAPPY, Compression::UNCOMPRESSED];
    columns
        .map(|column| column.compression())
        .find(|compression| !read.contains(compression))
        // Without its level: `ZSTD(ZstdLevel(1))`.
        .map(|c| c.to_string().split('(').next().unwrap_or_default().into())
}

fn object<'a>(columns: impl Iterator<Item = (&'a String, &'a Field)>) -> Map<String, Value> {
    columns
        .map(|(name, field)| (name.clone(), value(field)))
        .collect()
}

/// Texts, numbers, lists and groups; what no dataset here is made of becomes the text it shows.
fn value(field: &Field) -> Value {
    match field {
        Field::Null => Value::Null,
        Field::Bool(v) => (*v).into(),
        Field::Byte(v) => (*v).into(),
        Field::Short(v) => (*v).into(),
        Field::Int(v) => (*v).into(),
        Field::Long(v) => (*v).into(),
        Field::UByte(v) => (*v).into(),
        Field::UShort(v) => (*v).into(),
        Field::UInt(v) => (*v).into(),
        Field::ULong(v) => (*v).into(),
        Field::Float(v) => (*v).into(),
        Field::Double(v) => (*v).into(),
        Field::Str(v) => v.as_str().into(),
        Field::Bytes(v) => match v.as_utf8() {
            Ok(text) => text.into(),
            Err(_) => field.to_string().into(),
        },
        Field::ListInternal(list) => list.elements().iter().map(value).collect(),
        Field::Group(row) => object(row.get_column_iter()).into(),
        other => other.to_string().into(),
    }
}
