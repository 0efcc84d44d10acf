//! Multiple-choice questions from JSON, CSV or Parquet.
//!
//! Besides `question, choices, answer` these are read as they lie on the Hugging Face hub:
//!
//! | set | fields | form |
//! |---|---|---|
//! | MMLU | `question`, `choices`, `answer` an index | asked |
//! | MMLU-Pro | `question`, `options`, `answer` a letter, `answer_index` | asked |
//! | ARC, CommonsenseQA | `question`, `choices` of `text` and `label`, `answerKey` a label | asked |
//! | OpenBookQA | `question_stem`, `choices` and `answerKey` as ARC | continued |
//! | TruthfulQA (MC1) | `question`, `mc1_targets` of `choices` and `labels` | asked |
//! | PIQA | `goal`, `sol1`, `sol2`, `label` an index | asked |
//! | BoolQ | `passage`, `question`, `answer` or `label` | asked |
//! | HellaSwag | `ctx` (and its parts), `endings`, `label` an index | continued |
//! | WinoGrande | `sentence` with `_`, `option1`, `option2`, `answer` 1 or 2 | filled in |
//!
//! The forms are those of lm-evaluation-harness; [`Form`] says what they are.

mod answer;
mod layout;
#[cfg(test)]
mod tests;

use std::path::Path;

use super::source::{Meter, Place, SourceError, files, records};

/// A question with one right answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Text of the question; where its form is [`Form::Filled`], the sentence with its blank, `_`.
    pub question: String,
    /// Possible answers.
    pub choices: Vec<String>,
    /// Number of the right one, from 0.
    pub answer: usize,
    /// What is asked of it in plain text.
    pub form: Form,
    /// File and line it was read from.
    pub place: Place,
}

/// What is asked of a question in plain text, and what is scored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// `Question: …\nAnswer:`, and each choice after it, which is scored.
    Asked {
        /// A text that the question is about, which stands before it.
        passage: Option<String>,
    },
    /// The text alone, and each choice after it, which is scored.
    Continued,
    /// The sentence up to its blank with each choice in its place, and the rest of the sentence, which is scored.
    Filled,
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
        records(&file, &Meter::default(), |record| {
            let question = layout::question(&record.fields, record.place.clone());
            questions
                .push(question.map_err(|problem| SourceError::record(&record.place, problem))?);
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
