//! The layouts in which questions lie.

use serde_json::{Map, Value};

use crate::data::source::{Place, short};

use super::answer::{Labels, right};
use super::{Form, MOST_CHOICES, Question};

type Fields = Map<String, Value>;

/// The question of a record, or what is wrong with it.
pub(super) fn question(fields: &Fields, place: Place) -> Result<Question, String> {
    let has = |names: &[&str]| names.iter().all(|name| fields.contains_key(*name));
    let (question, choices, answer, form) = if has(&["mc1_targets"]) {
        truthful(fields)?
    } else if has(&["endings"]) {
        hellaswag(fields)?
    } else if has(&["goal", "sol1", "sol2"]) {
        let choices = Choices::of("sol1", texts_of(fields, &["sol1", "sol2"])?)?;
        let answer = choices.answer(fields, &["label"])?;
        (text(fields, "goal")?, choices.texts, answer, ASKED)
    } else if has(&["sentence", "option1", "option2"]) {
        winogrande(fields)?
    } else if has(&["passage", "question"]) && !has(&["choices"]) {
        boolq(fields)?
    } else {
        general(fields)?
    };
    Ok(Question {
        question,
        choices,
        answer,
        form,
        place,
    })
}

const ASKED: Form = Form::Asked { passage: None };

/// Text, choices, number of the right one, form.
type Parts = (String, Vec<String>, usize, Form);

/// Possible answers with their labels.
struct Choices {
    texts: Vec<String>,
    labels: Labels,
}

impl Choices {
    fn of(name: &str, texts: Vec<String>) -> Result<Self, String> {
        if !(2..=MOST_CHOICES).contains(&texts.len()) {
            return Err(format!(
                "`{name}` has {} entries; 2 to {MOST_CHOICES} make a question",
                texts.len()
            ));
        }
        if let Some(i) = texts.iter().position(|choice| choice.trim().is_empty()) {
            return Err(format!("`{name}` entry {i} is empty"));
        }
        Ok(Self {
            texts,
            labels: Labels::Letters,
        })
    }

    /// Number of the right one, as the first of these fields tells that is there.
    fn answer(&self, fields: &Fields, names: &[&str]) -> Result<usize, String> {
        let given = names
            .iter()
            .find_map(|name| Some((*name, fields.get(*name)?)));
        let given = given.ok_or_else(|| format!("no field `{}`", names.join("` (or `")))?;
        // Beside an answer, MMLU-Pro has its index.
        let index = fields
            .get("answer_index")
            .filter(|_| given.0 != "answer_index");
        let index = index.and_then(Value::as_u64).map(|index| index as usize);
        right(given, &self.texts, &self.labels, index)
    }
}

/// `question` (or `question_stem`) with `choices` (or `options`) and an answer.
fn general(fields: &Fields) -> Result<Parts, String> {
    let stem = fields.contains_key("question_stem") && !fields.contains_key("question");
    let (question, form) = match stem {
        true => (filled_text(fields, "question_stem")?, Form::Continued),
        false => (text(fields, "question")?, ASKED),
    };
    let name = match ["choices", "options"].map(|name| fields.contains_key(name)) {
        [true, true] => return Err("both `choices` and `options`; leave one out".into()),
        [false, true] => "options",
        _ => "choices",
    };
    let given = fields
        .get(name)
        .ok_or_else(|| format!("no field `{name}`"))?;
    let choices = choices(name, given)?;
    let answer = choices.answer(fields, &["answer", "gold", "answerKey", "answer_index"])?;
    Ok((question, choices.texts, answer, form))
}

/// A list of texts; a list of each, `text` and `label`; a list of objects with both; texts by their labels.
fn choices(name: &str, given: &Value) -> Result<Choices, String> {
    let parsed;
    let value = match given {
        // A cell of CSV.
        Value::String(json) => {
            parsed = serde_json::from_str(json).unwrap_or(Value::Null);
            &parsed
        }
        value => value,
    };
    let bad = || {
        format!(
            "`{name}` is not a list of texts: {}; in CSV it is written as JSON, e.g. [\"yes\", \"no\"]",
            short(given)
        )
    };
    let labelled = |texts: Option<Vec<String>>, labels: Option<Vec<String>>| {
        let mut choices = Choices::of(name, texts.ok_or_else(bad)?)?;
        let labels = labels.filter(|labels| labels.len() == choices.texts.len());
        let labels = labels.ok_or_else(|| format!("`{name}` needs a label for every text"))?;
        if (1..labels.len()).any(|i| labels[..i].contains(&labels[i])) {
            return Err(format!("`{name}` has two labels that are equal"));
        }
        choices.labels = Labels::Given(labels);
        Ok(choices)
    };
    match value {
        Value::Object(lists) if lists.contains_key("text") => match lists.get("label") {
            Some(labels) => labelled(texts(&lists["text"]), texts(labels)),
            None => Choices::of(name, texts(&lists["text"]).ok_or_else(bad)?),
        },
        Value::Object(by_label) => {
            let all = by_label.values().cloned().collect();
            labelled(texts(&all), Some(by_label.keys().cloned().collect()))
        }
        Value::Array(list) if list.iter().any(Value::is_object) => {
            let of = |key: &str| texts(&list.iter().map(|entry| entry[key].clone()).collect());
            labelled(of("text"), of("label"))
        }
        list => Choices::of(name, texts(list).ok_or_else(bad)?),
    }
}

/// MC1: one of the choices is right. It stands first in every record, and here by a hash of the texts instead, since
/// who always says A would be right.
fn truthful(fields: &Fields) -> Result<Parts, String> {
    let question = text(fields, "question")?;
    let targets = object(&fields["mc1_targets"]).ok_or("`mc1_targets` is not an object")?;
    let list = |name: &str| targets.get(name).and_then(Value::as_array);
    let (Some(choices), Some(labels)) = (targets.get("choices").and_then(texts), list("labels"))
    else {
        return Err("`mc1_targets` needs lists `choices` and `labels`".into());
    };
    let right: Vec<usize> = (0..labels.len()).filter(|&i| labels[i] == 1).collect();
    let wrong = labels.iter().filter(|label| **label == 0).count();
    let [right] = right[..] else {
        return Err(format!(
            "`mc1_targets` has {} right choices; one is right",
            right.len()
        ));
    };
    if wrong + 1 != choices.len() || labels.len() != choices.len() {
        return Err("`mc1_targets` needs a label, 0 or 1, for every choice".into());
    }
    let mut order: Vec<usize> = (0..choices.len()).collect();
    let hash =
        |i: &usize| *blake3::hash(format!("{question}\n{}", choices[*i]).as_bytes()).as_bytes();
    order.sort_by_cached_key(hash);
    let answer = order.iter().position(|&i| i == right).unwrap_or_default();
    let choices = order.into_iter().map(|i| choices[i].clone()).collect();
    Ok((
        question,
        Choices::of("choices", choices)?.texts,
        answer,
        ASKED,
    ))
}

/// As lm-evaluation-harness words it: the activity, the context with its last words begun anew, endings; without
/// what wikiHow's pages leave in brackets.
fn hellaswag(fields: &Fields) -> Result<Parts, String> {
    let has = |name: &str| fields.get(name).is_some_and(|value| !value.is_null());
    let context = match ["activity_label", "ctx_a", "ctx_b"]
        .iter()
        .all(|name| has(name))
    {
        true => {
            let [activity, first, last] =
                ["activity_label", "ctx_a", "ctx_b"].map(|name| text(fields, name));
            format!("{}: {} {}", activity?, first?, capitalised(&last?))
        }
        false => filled_text(fields, "ctx")?,
    };
    let endings = json_texts("endings", &fields["endings"])?;
    let endings = endings.iter().map(|text| without_brackets(text));
    let choices = Choices::of("endings", endings.collect())?;
    let answer = choices.answer(fields, &["label"])?;
    Ok((
        without_brackets(&context),
        choices.texts,
        answer,
        Form::Continued,
    ))
}

/// Python's `str.capitalize`.
fn capitalised(text: &str) -> String {
    let mut rest = text.chars();
    let first = rest.next().map(|c| c.to_uppercase().to_string());
    first.unwrap_or_default() + &rest.as_str().to_lowercase()
}

/// lm-evaluation-harness's `preprocess`.
fn without_brackets(text: &str) -> String {
    let text = text.trim().replace(" [title]", ". ");
    let mut out = String::new();
    let mut rest = &*text;
    while let Some((before, after)) = rest.split_once('[') {
        out.push_str(before);
        rest = match after
            .split_once(']')
            .filter(|(inside, _)| !inside.contains('\n'))
        {
            Some((_, after)) => after,
            None => {
                out.push('[');
                after
            }
        };
    }
    (out + rest).replace("  ", " ")
}

fn winogrande(fields: &Fields) -> Result<Parts, String> {
    let sentence = text(fields, "sentence")?;
    let rest = sentence.split_once('_').map(|(_, rest)| rest.trim());
    if rest.is_none_or(str::is_empty) {
        return Err("`sentence` needs a blank, `_`, and words after it, which are scored".into());
    }
    let mut choices = Choices::of("option1", texts_of(fields, &["option1", "option2"])?)?;
    choices.labels = Labels::Only(vec!["1".into(), "2".into()]);
    let answer = choices.answer(fields, &["answer"])?;
    Ok((sentence, choices.texts, answer, Form::Filled))
}

fn boolq(fields: &Fields) -> Result<Parts, String> {
    let passage = Some(text(fields, "passage")?);
    let question = text(fields, "question")?;
    let question = format!("{}?", question.trim_end_matches('?'));
    let choices = Choices {
        texts: vec!["no".into(), "yes".into()],
        labels: Labels::Truth,
    };
    let answer = choices.answer(fields, &["answer", "label"])?;
    Ok((question, choices.texts, answer, Form::Asked { passage }))
}

/// The text of a field.
fn text(fields: &Fields, name: &str) -> Result<String, String> {
    match fields.get(name) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(other) => Err(format!("`{name}` is not a text: {}", short(other))),
        None => Err(format!("no field `{name}`")),
    }
}

/// The text of a field, which must say something.
fn filled_text(fields: &Fields, name: &str) -> Result<String, String> {
    let text = text(fields, name)?;
    match text.trim().is_empty() {
        true => Err(format!("`{name}` is empty")),
        false => Ok(text),
    }
}

fn texts_of(fields: &Fields, names: &[&str]) -> Result<Vec<String>, String> {
    names.iter().map(|name| text(fields, name)).collect()
}

/// A list of texts, or in CSV the JSON of one.
fn json_texts(name: &str, value: &Value) -> Result<Vec<String>, String> {
    let parsed = value
        .as_str()
        .and_then(|json| serde_json::from_str(json).ok());
    let list = texts(parsed.as_ref().unwrap_or(value));
    list.ok_or_else(|| format!("`{name}` is not a list of texts: {}", short(value)))
}

/// An object, or in CSV the JSON of one.
fn object(value: &Value) -> Option<Fields> {
    match value {
        Value::Object(fields) => Some(fields.clone()),
        Value::String(json) => serde_json::from_str(json).ok(),
        _ => None,
    }
}

/// A list of texts, or of integers, which table tools make of texts.
fn texts(value: &Value) -> Option<Vec<String>> {
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) if !number.is_f64() => Some(number.to_string()),
        _ => None,
    };
    value.as_array()?.iter().map(text).collect()
}
