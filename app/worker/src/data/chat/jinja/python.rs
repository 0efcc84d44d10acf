//! Values as Python writes them: `str` and `repr`.

use std::fmt::Write as _;

use minijinja::value::ValueKind;
use minijinja::{Error, Value};

use super::{limits, wrong};

/// What a value is; a sum of lists, which minijinja takes for an iterator, is a list.
pub(super) fn kind(value: &Value) -> ValueKind {
    let sum = value
        .as_object()
        .is_some_and(|object| object.type_name().ends_with("MergeSeq"));
    if sum { ValueKind::Seq } else { value.kind() }
}

/// Python's `str(value)`, which a template's `{{ value }}` writes.
///
/// # Errors
/// Where lists nest deeper than Python would follow.
pub(crate) fn text(value: &Value) -> Result<String, Error> {
    match kind(value) {
        ValueKind::Number if !value.is_integer() => Ok(float(value)),
        ValueKind::Seq | ValueKind::Map => {
            let mut out = String::new();
            repr(value, &mut out, 0)?;
            Ok(out)
        }
        _ => Ok(value.to_string()),
    }
}

/// Python's `repr(value)`.
fn repr(value: &Value, out: &mut String, depth: usize) -> Result<(), Error> {
    if depth > limits::DEPTH {
        return Err(wrong(format!(
            "a value is nested deeper than {}",
            limits::DEPTH
        )));
    }
    let items = value.try_iter().into_iter().flatten();
    match kind(value) {
        ValueKind::Number if !value.is_integer() => out.push_str(&float(value)),
        ValueKind::Seq => {
            let tuple = value.is_tuple();
            out.push(if tuple { '(' } else { '[' });
            for (i, item) in items.enumerate() {
                out.push_str(if i > 0 { ", " } else { "" });
                repr(&item, out, depth + 1)?;
            }
            if tuple && value.len() == Some(1) {
                out.push(',');
            }
            out.push(if tuple { ')' } else { ']' });
        }
        ValueKind::Map => {
            out.push('{');
            for (i, key) in items.enumerate() {
                out.push_str(if i > 0 { ", " } else { "" });
                repr(&key, out, depth + 1)?;
                out.push_str(": ");
                repr(&value.get_item(&key).unwrap_or_default(), out, depth + 1)?;
            }
            out.push('}');
        }
        _ => {
            // What is written to a text cannot fail.
            let _ = write!(out, "{value:?}");
        }
    }
    Ok(())
}

/// Python's `repr` of a float: the shortest digits that give it back, in powers of ten where it is small or large.
pub(super) fn float(value: &Value) -> String {
    let number = f64::try_from(value.clone()).unwrap_or(f64::NAN);
    if number.is_nan() {
        return "nan".into();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf" } else { "-inf" }.into();
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if number != 0.0 && !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", exponent.abs());
    }
    let plain = number.to_string();
    if plain.contains('.') {
        plain
    } else {
        plain + ".0"
    }
}

/// Whether Python counts a character as white space.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

/// The kind of a value by Python's name.
pub(super) fn type_name(value: &Value) -> &'static str {
    match kind(value) {
        ValueKind::Undefined => "Undefined",
        ValueKind::None => "NoneType",
        ValueKind::Bool => "bool",
        ValueKind::Number if value.is_integer() => "int",
        ValueKind::Number => "float",
        ValueKind::String => "str",
        ValueKind::Bytes => "bytes",
        ValueKind::Seq if value.is_tuple() => "tuple",
        ValueKind::Seq => "list",
        ValueKind::Map => "dict",
        _ => "object",
    }
}
