//! Records of JSON: an object a line, a list of objects, or objects one after the other.

use std::fmt;
use std::io::BufRead;
use std::path::Path;
use std::str;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::record::Raw;
use super::text::{Text, failed, lines, not_utf8};
use super::{Meter, Place, Record, SourceError, kinds};

/// What is done with every record.
type Each<'a> = &'a mut dyn FnMut(Record) -> Result<(), SourceError>;

/// Calls `each` with every record.
pub(super) fn records(path: &Path, meter: &Meter, each: Each) -> Result<(), SourceError> {
    let mut text = Text::open(path, &Meter::default())?;
    let first = text.first().map_err(failed(path))?;
    let text = Text::open(path, meter)?;
    // A list is one, whatever the file is called.
    match first == Some(b'[') || kinds::kind(path) == Some("json") {
        true => objects(path, text, each),
        false => by_lines(path, text, each),
    }
}

/// An object a line.
fn by_lines(path: &Path, mut text: Text, each: Each) -> Result<(), SourceError> {
    lines(path, &mut text, |line, place| {
        if line.trim().is_empty() {
            return Ok(());
        }
        let fields = object(line);
        let fields =
            fields.map_err(|error| SourceError::record(&place, no_object(&error, true)))?;
        let raw = Raw::Json(line.into());
        each(Record { place, fields, raw })
    })
}

/// Objects over any number of lines, in a list or one after the other.
fn objects(path: &Path, mut text: Text, each: Each) -> Result<(), SourceError> {
    let file: Arc<Path> = path.into();
    let line_ends = text.line_ends();
    let place = |number| Place {
        file: file.clone(),
        number,
        unit: "line",
    };
    let bad = |problem: &str| SourceError::record(&place(line_ends.get() + 1), problem);
    let next = |text: &mut Text| text.first().map_err(failed(path));
    let list = next(&mut text)? == Some(b'[');
    if list {
        text.consume(1);
    }
    let mut comma = false;
    loop {
        match next(&mut text)? {
            None if !list => return Ok(()),
            None => return Err(bad("the list ends without its `]`")),
            Some(b']') if comma => return Err(bad("a comma before `]`; remove it")),
            Some(b']') if list => {
                text.consume(1);
                return match next(&mut text)? {
                    None => Ok(()),
                    Some(_) => Err(bad("something stands after the list")),
                };
            }
            Some(_) => {}
        }
        let start = place(line_ends.get() + 1);
        text.keep();
        let mut json = serde_json::Deserializer::from_reader(&mut text);
        let whole = IgnoredAny::deserialize(&mut json);
        let bytes = text.kept();
        match whole {
            Ok(_) => {}
            Err(error) if error.is_io() => return Err(failed(path)(error.into())),
            Err(error) => return Err(bad(&no_object(&error, false))),
        }
        let wrong = |problem: String| SourceError::record(&start, problem);
        let json =
            str::from_utf8(&bytes).map_err(|error| wrong(not_utf8(&bytes, error.valid_up_to())))?;
        let fields = object(json).map_err(|error| wrong(no_object(&error, false)))?;
        each(Record {
            place: start,
            fields,
            raw: Raw::Json(json.into()),
        })?;
        comma = list && next(&mut text)? == Some(b',');
        if comma {
            text.consume(1);
        } else if list && next(&mut text)?.is_some_and(|byte| byte != b']') {
            return Err(bad("neither `,` nor `]` after an entry of the list"));
        }
    }
}

/// The fields of an object.
fn object(json: &str) -> serde_json::Result<Map<String, Value>> {
    let mut json = serde_json::Deserializer::from_str(json);
    let fields = Object.deserialize(&mut json)?;
    json.end()?;
    Ok(fields)
}

/// An object whose fields all have names of their own: of two equal ones nobody could say which is meant.
struct Object;

impl<'de> DeserializeSeed<'de> for Object {
    type Value = Map<String, Value>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Object {
    type Value = Map<String, Value>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            if fields.contains_key(&name) {
                return Err(A::Error::custom(format_args!(
                    "{TWO} `{name}`; leave one out"
                )));
            }
            fields.insert(name, map.next_value()?);
        }
        Ok(fields)
    }
}

/// What is wrong with a record, and what to do. Of objects over several lines the column is not known.
fn no_object(error: &serde_json::Error, column: bool) -> String {
    let said = error.to_string();
    let told = said
        .rsplit_once(" at line ")
        .map_or(&*said, |(told, _)| told);
    if told.starts_with(TWO) {
        return told.into();
    }
    let at = match error.column() {
        column_number if column && column_number > 0 => format!(", column {column_number}"),
        _ => String::new(),
    };
    let advice = ADVICE.iter().find(|(of, _)| told.contains(of));
    let advice = advice.map_or(String::new(), |(_, advice)| format!("; {advice}"));
    format!("not a JSON object: {told}{at}{advice}")
}

/// How the error of two fields of one name begins.
const TWO: &str = "two fields are named";

/// What to do about errors of the parser, by what it says of them.
const ADVICE: [(&str, &str); 8] = [
    (
        "invalid number",
        "-Infinity is none in JSON, nor is a number with a leading 0 or +",
    ),
    (
        "hex escape",
        "half of a surrogate pair (such as \\ud83d alone) is no character: write it whole, or leave it out",
    ),
    (
        "expected value",
        "NaN, Infinity and Python's None are no JSON: write null",
    ),
    ("trailing comma", "remove the comma"),
    (
        "key must be a string",
        "names and texts stand in double quotes",
    ),
    ("trailing characters", "write one object a line"),
    (
        "EOF while parsing",
        "it has no end: a line holds a whole object, and one over several lines belongs into a .json file",
    ),
    (
        "control character",
        "line ends and tabs in a text are written \\n and \\t",
    ),
];

#[cfg(test)]
mod tests {
    use super::super::{Content, Document, Fields, read};
    use super::*;

    fn documents(name: &str, text: &str) -> Result<Vec<Document>, SourceError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        read(&path, &Fields::default())
    }

    /// Alpaca and many others lie as one list; who has such a file should not have to convert it.
    #[test]
    fn a_list_of_objects_is_read_like_lines_of_them() {
        let list = "\u{feff} [\n  {\n    \"text\": \"a\",\n    \"more\": [1, {\"x\": null}]\n  },\n  {\"text\": \"b\"}]\n";
        let lines = "{\"text\":\"a\"}\n\n{\"text\":\"b\"}";
        let spread = "{\n\"text\":\n\"a\"\n}\n{\"text\": \"b\"}\n";
        for (name, text, numbers) in [
            ("x.json", list, [2, 6]),
            ("x.jsonl", list, [2, 6]),
            ("x.json", lines, [1, 3]),
            ("x.jsonl", lines, [1, 3]),
            ("x.json", spread, [1, 5]),
        ] {
            let found = documents(name, text).unwrap();
            let said = ["a", "b"].map(|text| Content::Text(text.into()));
            assert_eq!(
                found.iter().map(|d| &d.content).collect::<Vec<_>>(),
                said.iter().collect::<Vec<_>>()
            );
            let places: Vec<u64> = found.iter().map(|d| d.place.number).collect();
            assert_eq!(places, numbers, "{name}");
        }
        assert!(
            documents("x.json", "[]")
                .unwrap_err()
                .to_string()
                .contains("is empty")
        );
    }

    /// A file of a million lines is mended where it says what is wrong, not where it says `unexpected end of hex escape`.
    #[test]
    fn what_is_no_json_is_told_with_what_to_do() {
        for (bad, said) in [
            ("{\"text\":\"a\\ud83db\"}", "half of a surrogate pair"),
            ("{\"text\":\"a\\ude00\"}", "half of a surrogate pair"),
            ("{\"text\":NaN}", "NaN, Infinity and Python's None"),
            (
                "{\"text\":\"a\",\"n\":-Infinity}",
                "-Infinity is none in JSON",
            ),
            ("{\"text\":\"a\",}", "trailing comma"),
            ("{'text':'a'}", "double quotes"),
            ("{\"text\":\"a\"} {\"text\":\"b\"}", "one object a line"),
            ("{\"text\":\"a", "a line holds a whole object"),
            ("{\"text\":\"a\tb\"}", "\\n and \\t"),
            ("[1]", "expected a JSON object"),
            ("7", "expected a JSON object"),
            (
                "{\"text\":\"a\",\"text\":\"b\"}",
                "two fields are named `text`",
            ),
        ] {
            let error = documents("x.jsonl", &format!("{{\"text\":\"ok\"}}\n{bad}\n"));
            let error = error.unwrap_err().to_string();
            for said in ["x.jsonl, line 2: ", said] {
                assert!(error.contains(said), "{said} in {error}");
            }
        }
        for (bad, said) in [
            ("[\n{\"text\":\"a\"},\n]", "line 3: a comma before `]`"),
            (
                "[\n{\"text\":\"a\"}\n{\"text\":\"b\"}]",
                "line 3: neither `,` nor `]`",
            ),
            ("[\n{\"text\":\"a\"}\n", "line 3: the list ends without"),
            ("[{\"text\":\"a\"}]\n[]", "line 2: something stands after"),
            (
                "[{\"text\":\"a\"},\n{\"text\":NaN}]",
                "line 2: not a JSON object",
            ),
            ("[{\"text\":\"a\"},\n3]", "line 2: not a JSON object"),
            (
                "{\"text\":\"a\"},{\"text\":\"b\"}",
                "line 1: not a JSON object",
            ),
            (
                "[{\"text\":\"a\",\n\"text\":\"b\"}]",
                "line 1: two fields are named `text`",
            ),
            ("{\"text\":\n\"a", "line 2: not a JSON object: EOF"),
        ] {
            let error = documents("x.json", bad).unwrap_err().to_string();
            assert!(error.contains(said), "{said} in {error}");
        }
    }
}
