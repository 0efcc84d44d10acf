//! Multiple-choice questions from JSON lines, CSV or Parquet.
//!
//! Besides `question, choices, answer` these are read as they lie on the Hugging Face hub: MMLU
//! (`choices` a list, `answer` an index), ARC and CommonsenseQA (`choices` with `text` and `label`,
//! `answerKey` a label).

use std::path::Path;

use serde_json::Value;

use super::source::{Place, Record, SourceError, files, records, short};

/// A question with one right answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Text of the question.
    pub question: String,
    /// Possible answers.
    pub choices: Vec<String>,
    /// Number of the right one, from 0.
    pub answer: usize,
    /// File and line it was read from.
    pub place: Place,
}

/// The letter of a choice.
pub fn letter(choice: usize) -> char {
    (b'A' + choice as u8) as char
}

/// More choices than there are letters make no sense.
const MOST_CHOICES: usize = 26;

/// The questions of a file, built in or on disk, or of every file in a folder.
///
/// # Errors
/// [`SourceError`] names file, line and field, e.g. where an answer is none of the choices.
pub fn read_questions(path: &Path) -> Result<Vec<Question>, SourceError> {
    let mut questions = Vec::new();
    for file in files(path)? {
        records(&file, |record| {
            questions.push(question(record)?);
            Ok(())
        })?;
    }
    match questions.is_empty() {
        true => Err(SourceError::Empty {
            path: path.into(),
            what: "questions",
        }),
        false => Ok(questions),
    }
}

fn question(record: Record) -> Result<Question, SourceError> {
    let Record { place, fields } = record;
    let bad = |problem: String| SourceError::record(&place, problem);
    let missing = |name: &str| bad(format!("no field `{name}`"));
    let question = match fields.get("question") {
        Some(Value::String(text)) => text.clone(),
        Some(other) => return Err(bad(format!("`question` is not a text: {}", short(other)))),
        None => return Err(missing("question")),
    };
    let given = fields.get("choices").ok_or_else(|| missing("choices"))?;
    let choices = texts(given.get("text").unwrap_or(given)).ok_or_else(|| {
        bad(format!(
            "`choices` is not a list of texts: {}",
            short(given)
        ))
    })?;
    if !(2..=MOST_CHOICES).contains(&choices.len()) {
        return Err(bad(format!(
            "`choices` has {} entries; 2 to {MOST_CHOICES} make a question",
            choices.len()
        )));
    }
    if let Some(i) = choices.iter().position(|choice| choice.trim().is_empty()) {
        return Err(bad(format!("`choices` entry {i} is empty")));
    }
    let labels = match given.get("label") {
        Some(labels) => texts(labels)
            .filter(|labels| labels.len() == choices.len())
            .ok_or_else(|| bad("`choices` needs a label for every text".into()))?,
        None => (0..choices.len()).map(|i| letter(i).to_string()).collect(),
    };
    let name = ["answer", "gold", "answerKey"]
        .into_iter()
        .find(|name| fields.contains_key(*name))
        .ok_or_else(|| bad("no field `answer` (or `gold`, or `answerKey`)".into()))?;
    let answer = match &fields[name] {
        Value::String(label) => labels
            .iter()
            .position(|l| l == label.trim())
            // A file in CSV has nothing but texts.
            .or_else(|| {
                label
                    .trim()
                    .parse()
                    .ok()
                    .filter(|_| given.get("label").is_none())
            }),
        number => number.as_u64().map(|n| n as usize),
    };
    match answer.filter(|&answer| answer < choices.len()) {
        Some(answer) => Ok(Question {
            question,
            choices,
            answer,
            place,
        }),
        None => Err(bad(format!(
            "`{name}` is {}, which is none of the {} choices; write 0 to {} or {}",
            short(&fields[name]),
            choices.len(),
            choices.len() - 1,
            labels.join(", "),
        ))),
    }
}

/// A list of texts; in CSV, the JSON of one.
fn texts(value: &Value) -> Option<Vec<String>> {
    if let Value::String(json) = value {
        return serde_json::from_str(json).ok();
    }
    let list = value.as_array()?.iter();
    list.map(|text| text.as_str().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, text: &str) -> Result<Vec<Question>, SourceError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        read_questions(&path)
    }

    /// A set in another layout would be scored against the wrong answers.
    #[test]
    fn every_layout_tells_the_right_answer() {
        let lines = [
            r#"{"question":"q","choices":["a","b","c"],"answer":2}"#,
            r#"{"question":"q","choices":["a","b","c"],"answer":"C"}"#,
            r#"{"id":"x","question":"q","choices":["a","b","c"],"gold":2,"prompt":"p"}"#,
            // MMLU, ARC with letters and with digits, CommonsenseQA.
            r#"{"question":"q","subject":"s","choices":["a","b","c"],"answer":2}"#,
            r#"{"id":"x","question":"q","choices":{"text":["a","b","c"],"label":["A","B","C"]},"answerKey":"C"}"#,
            r#"{"id":"x","question":"q","choices":{"text":["a","b","c"],"label":["1","2","3"]},"answerKey":"3"}"#,
            r#"{"id":"x","question":"q","question_concept":"k","choices":{"label":["A","B","C"],"text":["a","b","c"]},"answerKey":"C"}"#,
        ];
        let questions = read("q.jsonl", &lines.join("\n")).unwrap();
        assert_eq!(questions.len(), lines.len());
        for q in questions {
            assert_eq!(q.answer, 2, "{}", q.place);
            assert_eq!(q.choices, ["a", "b", "c"]);
        }
        let csv = "question,choices,answer\nq,\"[\"\"a\"\",\"\"b\"\"]\",1\nq,\"[\"\"a\"\",\"\"b\"\"]\",A\n";
        let answers: Vec<usize> = read("q.csv", csv)
            .unwrap()
            .iter()
            .map(|q| q.answer)
            .collect();
        assert_eq!(answers, [1, 0]);
    }

    /// A wrong index that went through would be counted as never answered.
    #[test]
    fn a_wrong_answer_is_told_by_file_and_line() {
        let good = r#"{"question":"q","choices":["a","b"],"answer":1}"#;
        for (bad, texts) in [
            (
                r#"{"question":"q","choices":["a","b"],"answer":2}"#,
                &["line 2", "`answer` is 2", "0 to 1 or A, B"][..],
            ),
            (
                r#"{"question":"q","choices":["a","b"],"answer":-1}"#,
                &["`answer` is -1"],
            ),
            (
                r#"{"question":"q","choices":["a","b"],"answer":"C"}"#,
                &["is \"C\""],
            ),
            (
                r#"{"question":"q","choices":{"text":["a","b"],"label":["1","2"]},"answerKey":"0"}"#,
                &["`answerKey` is \"0\"", "1, 2"],
            ),
            (
                r#"{"question":"q","choices":{"text":["a","b"],"label":["A","B"]},"answerKey":""}"#,
                &["`answerKey` is \"\""],
            ),
            (
                r#"{"question":"q","choices":["a"],"answer":0}"#,
                &["1 entries"],
            ),
            (
                r#"{"question":"q","choices":["a"," "],"answer":0}"#,
                &["entry 1 is empty"],
            ),
            (
                r#"{"question":"q","choices":["a","b"]}"#,
                &["no field `answer`"],
            ),
            (r#"{"question":"q","answer":0}"#, &["no field `choices`"]),
            ("{", &["line 2", "JSON"]),
        ] {
            let error = read("q.jsonl", &format!("{good}\n{bad}\n"))
                .unwrap_err()
                .to_string();
            for text in texts.iter().chain(&["q.jsonl, line 2"]) {
                assert!(error.contains(text), "{text} in {error}");
            }
        }
        let error = read("q.jsonl", "\n").unwrap_err().to_string();
        assert!(error.contains("is empty"), "{error}");
    }
}
