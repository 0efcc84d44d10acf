//! Records of CSV: RFC 4180, with a first line of names.

use std::io::{self, Read};
use std::path::Path;
use std::str;
use std::sync::Arc;

use csv::{ByteRecord, ErrorKind, Position};

use super::record::Raw;
use super::text::{Text, failed, not_utf8};
use super::{Meter, Place, Record, SourceError, files};

/// Calls `each` with every row.
pub(super) fn records(
    path: &Path,
    meter: &Meter,
    each: &mut dyn FnMut(Record) -> Result<(), SourceError>,
) -> Result<(), SourceError> {
    let file: Arc<Path> = path.into();
    let place = |number| Place {
        file: file.clone(),
        number,
        unit: "line",
    };
    let mut reader = csv::Reader::from_reader(Text::open(path, meter)?);
    let header = reader.byte_headers();
    let header = header.map_err(|error| refused(path, error))?;
    let names = names(header).map_err(|problem| SourceError::record(&place(1), problem))?;
    let (mut row, mut last) = (ByteRecord::new(), Position::new());
    while reader
        .read_byte_record(&mut row)
        .map_err(|error| refused(path, error))?
    {
        last = row.position().cloned().unwrap_or_else(Position::new);
        let place = place(last.line());
        let mut fields = serde_json::Map::new();
        for (name, value) in names.iter().zip(&row) {
            let text = str::from_utf8(value).map_err(|error| {
                let problem = not_utf8(value, error.valid_up_to());
                SourceError::record(&place, format!("`{name}`: {problem}"))
            })?;
            fields.insert(name.clone(), text.into());
        }
        let raw = Raw::Texts;
        each(Record { place, fields, raw })?;
    }
    match quote_is_open(path, &last) {
        Ok(false) => Ok(()),
        Ok(true) => Err(SourceError::record(&place(last.line()), OPEN_QUOTE)),
        Err(error) => Err(error),
    }
}

const OPEN_QUOTE: &str = "a quote is opened and not closed before the file ends";

/// The names of the columns, every one another.
fn names(header: &ByteRecord) -> Result<Vec<String>, String> {
    let mut names = Vec::<String>::new();
    for name in header {
        let text = str::from_utf8(name).map_err(|error| not_utf8(name, error.valid_up_to()))?;
        let name = text.trim();
        // Several without a name are what spreadsheets leave at the right.
        if !name.is_empty() && names.iter().any(|known| known == name) {
            return Err(format!("two columns are named `{name}`; rename one"));
        }
        names.push(name.into());
    }
    let other = |name: &String| name.chars().find(|c| [';', '\t', '|'].contains(c));
    match &names[..] {
        [one] if let Some(separator) = other(one) => Err(format!(
            "its columns are separated by {separator:?}, not by commas; write the file anew, e.g. in pandas \
             with `pd.read_csv(OLD, sep={separator:?}).to_csv(NEW, index=False)`"
        )),
        _ => Ok(names),
    }
}

/// An error of the parser as one of the file.
fn refused(path: &Path, error: csv::Error) -> SourceError {
    let problem = match error.into_kind() {
        ErrorKind::Io(source) => return failed(path)(source),
        ErrorKind::UnequalLengths { pos: Some(at), .. }
            if quote_is_open(path, &at).unwrap_or(false) =>
        {
            format!("line {}: {OPEN_QUOTE}", at.line())
        }
        ErrorKind::UnequalLengths {
            pos,
            expected_len,
            len,
        } => format!(
            "line {} has {len} fields, the first line names {expected_len}; a text with commas or line ends \
             stands in double quotes",
            pos.map_or(0, |at| at.line())
        ),
        other => format!("{other:?}"),
    };
    SourceError::Malformed {
        path: path.into(),
        problem: format!("not CSV: {problem}"),
    }
}

/// Whether the file ends inside a quoted field of the row that begins there.
fn quote_is_open(path: &Path, row: &Position) -> Result<bool, SourceError> {
    let mut file = files::open_unpacked(path, &Meter::default())?;
    let mut bytes = Vec::new();
    let before = io::copy(&mut file.by_ref().take(row.byte()), &mut io::sink());
    let rest = before.and_then(|_| file.read_to_end(&mut bytes));
    rest.map_err(failed(path))?;
    let (mut quoted, mut starts) = (false, true);
    let mut bytes = bytes.into_iter().peekable();
    while let Some(byte) = bytes.next() {
        match (quoted, byte) {
            (true, b'"') => quoted = bytes.next_if_eq(&b'"').is_some(),
            (false, b'"') => quoted = starts,
            _ => {}
        }
        starts = !quoted && [b',', b'\n', b'\r'].contains(&byte);
    }
    Ok(quoted)
}

#[cfg(test)]
mod tests {
    use super::super::{Content, Fields, read};

    /// A column that another one hides, or a file read as one column, would be trained on as it is.
    #[test]
    fn tables_that_could_be_misread_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let read = |text: &str| {
            let path = dir.path().join("x.csv");
            std::fs::write(&path, text).unwrap();
            let documents = read(&path, &Fields::default()).map_err(|error| error.to_string())?;
            Ok::<Vec<_>, String>(
                documents
                    .into_iter()
                    .map(|document| document.content)
                    .collect(),
            )
        };
        let text = |text: &str| Content::Text(text.into());
        for (good, all) in [
            ("text,,\na,,\n", vec![text("a")]),
            ("\u{feff}text\n\"a;\"\"b\"\"\n\"\n", vec![text("a;\"b\"\n")]),
            ("text\n5\" pipe\n", vec![text("5\" pipe")]),
        ] {
            assert_eq!(read(good).unwrap(), all, "{good}");
        }
        for (bad, said) in [
            ("text,text\na,b\n", "line 1: two columns are named `text`"),
            ("text, text \na,b\n", "line 1: two columns are named `text`"),
            ("id;text\n1;a\n", "separated by ';', not by commas"),
            ("id\ttext\n1\ta\n", "separated by '\\t', not by commas"),
            (
                "id,text\n1,a\n2,a, b\n",
                "line 3 has 3 fields, the first line names 2",
            ),
            (
                "text\na\n\"b\nc\nd\n",
                "line 3: a quote is opened and not closed",
            ),
            (
                "id,text\n1,a\n2,\"b\n3,c\n",
                "line 3: a quote is opened and not closed",
            ),
            (
                "id,text\n1,a\n\"2,b\n3,c\n",
                "line 3: a quote is opened and not closed",
            ),
        ] {
            let error = read(bad).unwrap_err();
            assert!(
                error.contains("x.csv") && error.contains(said),
                "{said} in {error}"
            );
        }
    }
}
