//! What may be typed next.

use super::fields::{FIELDS, FieldKind};

/// Texts that may stand in place of what is `before` the cursor, likely ones first: its last word is completed to a
/// field, or behind an operator to a value.
///
/// `settings` are paths as [`super::Config::fields`] has them; `values` are those a field is known to have, asked by its
/// name as it was typed.
pub fn complete(
    before: &str,
    settings: &[String],
    values: impl Fn(&str) -> Vec<String>,
) -> Vec<String> {
    let start = last_word(before);
    let (done, last) = before.split_at(start);
    let (minus, last) = match last.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", last),
    };
    let sign = last.find([':', '=', '!', '<', '>', '~']);
    let endings: Vec<String> = match sign {
        Some(sign) => {
            let rest = last[sign..].trim_start_matches([':', '=', '!', '<', '>', '~']);
            let (head, begun) = last.split_at(last.len() - rest.len());
            let begun = begun.trim_start_matches('"');
            let known = likely(begun, values(&last[..sign]));
            known
                .map(|value| format!("{head}{}", in_quotes(&value)))
                .collect()
        }
        None => {
            let fields = FIELDS.iter().map(|field| match field.kind {
                FieldKind::Text => format!("{}:", field.name),
                FieldKind::Figure => field.name.to_owned(),
            });
            // The many settings only once somebody asks for one.
            let settings = settings.iter().cloned();
            let asked = last.to_lowercase().starts_with("cfg.");
            let more: Vec<String> = match asked {
                true => settings.collect(),
                false => vec!["cfg.".to_owned()],
            };
            likely(last, fields.chain(more).collect()).collect()
        }
    };
    let whole = endings
        .into_iter()
        .map(|ending| format!("{done}{minus}{ending}"));
    whole.filter(|text| text != before).collect()
}

/// Where the last word begins, in bytes.
fn last_word(before: &str) -> usize {
    let (mut start, mut quoted, mut escaped) = (0, false, false);
    for (i, c) in before.char_indices() {
        match c {
            '"' if !escaped => quoted = !quoted,
            c if !quoted && (c.is_whitespace() || c == '(') => start = i + c.len_utf8(),
            _ => {}
        }
        escaped = c == '\\' && !escaped;
    }
    start
}

/// Those that begin with what was typed, then those that contain it; each once.
fn likely(begun: &str, all: Vec<String>) -> impl Iterator<Item = String> {
    let begun = begun.to_lowercase();
    let mut found: Vec<(bool, String)> = Vec::new();
    for text in all {
        let lower = text.to_lowercase();
        let begins = lower.starts_with(&begun);
        let known = found.iter().any(|(_, other)| *other == text);
        if !known && (begins || lower.contains(&begun)) {
            found.push((!begins, text));
        }
    }
    found.sort_by_key(|(later, _)| *later);
    found.into_iter().map(|(_, text)| text)
}

/// A value as it can be typed.
fn in_quotes(value: &str) -> String {
    let plain = |c: char| !c.is_whitespace() && !matches!(c, '(' | ')' | '"' | '\\');
    match !value.is_empty() && value.chars().all(plain) {
        true => value.to_owned(),
        false => format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"")),
    }
}
