//! Which of the choices an answer is.
//!
//! It may be a label, an index from 0 or the text of a choice. What could be two of these, of different choices, is
//! refused: a guess would score a model against the wrong answers.

use serde_json::Value;

use crate::data::source::short;

use super::letter;

/// What the choices are called.
pub(super) enum Labels {
    /// A, B, C, …; an integer is an index.
    Letters,
    /// As the record says; an integer may be one of them, or an index.
    Given(Vec<String>),
    /// These alone: an integer is one of them.
    Only(Vec<String>),
    /// False and true.
    Truth,
}

/// A way to read an answer: the choice, and why it is that one.
type Reading = (usize, String);

/// Number of the right choice.
///
/// # Errors
/// Where it is none of the choices, or could be several; `index` is what another field says of it.
pub(super) fn right(
    (name, value): (&str, &Value),
    texts: &[String],
    labels: &Labels,
    index: Option<usize>,
) -> Result<usize, String> {
    let readings = readings(name, value, texts, labels);
    let all = texts.len();
    match (&readings[..], index) {
        ([], _) => Err(format!(
            "`{name}` is {}, which is none of the {all} choices; write {} (test sets on the hub come \
             without answers: take their validation set)",
            short(value),
            wanted(all, labels)
        )),
        (_, Some(index)) => match readings.iter().any(|(choice, _)| *choice == index) {
            true => Ok(index),
            false => Err(format!(
                "`{name}` is {}, but `answer_index` says choice {index}, counted from 0; correct one of them",
                short(value)
            )),
        },
        ([(choice, _), others @ ..], None) => {
            match others.iter().find(|(other, _)| other != choice) {
                None => Ok(*choice),
                Some((_, why)) => Err(format!(
                    "`{name}` is {}, which could be {} or {why}; write {}",
                    short(value),
                    readings[0].1,
                    match labels {
                        Labels::Letters => "the letter as a text",
                        _ => "the label as a text",
                    }
                )),
            }
        }
    }
}

/// What an answer can be.
fn wanted(all: usize, labels: &Labels) -> String {
    let letters = || (0..all).map(|i| letter(i).to_string()).collect::<Vec<_>>();
    match labels {
        Labels::Letters => format!("0 to {} or {}", all - 1, letters().join(", ")),
        Labels::Given(labels) | Labels::Only(labels) => labels.join(", "),
        Labels::Truth => "true or false".into(),
    }
}

fn readings(name: &str, value: &Value, texts: &[String], labels: &Labels) -> Vec<Reading> {
    let letters = (0..texts.len()).map(|i| letter(i).to_string()).collect();
    let (labels, given, by_index) = match labels {
        Labels::Truth => return truth(value).into_iter().collect(),
        Labels::Letters => (&letters, false, true),
        // By its name it is a label, so where labels are numbers it is no index.
        Labels::Given(labels) => {
            let numbers = labels.iter().all(|label| label.parse::<i64>().is_ok());
            (labels, true, !(name == "answerKey" && numbers))
        }
        Labels::Only(labels) => (labels, true, false),
    };
    let labelled = |label: &str| {
        let choice = labels.iter().position(|known| known == label)?;
        Some((choice, format!("the choice labelled {label}")))
    };
    let numbered = |index: usize| {
        let choice = (index < texts.len()).then_some(index)?;
        Some((choice, format!("choice {index}, counted from 0")))
    };
    match value {
        Value::String(text) => {
            let text = text.trim();
            let label = labelled(text).or_else(|| labelled(bare(text)));
            if given && label.is_some() {
                return label.into_iter().collect();
            }
            let index = text.parse().ok().filter(|_| !given).and_then(numbered);
            let mut same = (0..texts.len()).filter(|&i| texts[i].trim() == text);
            let only = same.next().filter(|_| same.next().is_none());
            let said = only.map(|choice| (choice, format!("the choice that says {text}")));
            [label, index, said].into_iter().flatten().collect()
        }
        number => {
            let Some(number) = integer(number) else {
                return Vec::new();
            };
            let label = labelled(&number.to_string()).filter(|_| given);
            let index = usize::try_from(number).ok().filter(|_| by_index);
            [label, index.and_then(numbered)]
                .into_iter()
                .flatten()
                .collect()
        }
    }
}

/// `(C)`, `C)` or `C.` as C.
fn bare(text: &str) -> &str {
    let inner = text
        .strip_prefix('(')
        .and_then(|text| text.strip_suffix(')'));
    inner
        .unwrap_or_else(|| text.strip_suffix([')', '.']).unwrap_or(text))
        .trim()
}

/// An integer, also as a table tool writes it that has seen an empty cell: `2.0`.
fn integer(value: &Value) -> Option<i64> {
    let whole = |number: &f64| number.fract() == 0.0 && number.abs() < 1e9;
    let number = value.as_f64().filter(whole)?;
    Some(number as i64)
}

/// The answer of a question of yes and no, after which the choices are no and yes.
fn truth(value: &Value) -> Option<Reading> {
    let said = match value {
        Value::Bool(said) => *said,
        Value::String(text) => match &*text.trim().to_ascii_lowercase() {
            "true" | "yes" | "1" => true,
            "false" | "no" | "0" => false,
            _ => return None,
        },
        number => match integer(number)? {
            0 => false,
            1 => true,
            _ => return None,
        },
    };
    Some((usize::from(said), said.to_string()))
}
