//! Filters, tests and functions that minijinja has not, or has otherwise than Jinja2.

use minijinja::value::{Kwargs, Rest, ValueKind};
use minijinja::{Environment, Error, State, Value};

use super::json::spaces;
use super::methods::{bind, padded};
use super::{python, wrong};

/// Adds them to an environment.
pub(super) fn add(environment: &mut Environment<'static>) {
    environment.add_filter("string", python::text);
    environment.add_filter("center", |value: &Value, width: Option<i64>| {
        padded(&python::text(value)?, "center", width.unwrap_or(80), " ")
    });
    environment.add_filter("wordcount", |value: &Value| -> Result<usize, Error> {
        let text = python::text(value)?;
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        Ok(text
            .split(|c| !is_word(c))
            .filter(|word| !word.is_empty())
            .count())
    });
    environment.add_filter("truncate", truncate);
    environment.add_filter("forceescape", escaped);
    environment.add_filter("escape", escaped);
    environment.add_filter("e", escaped);
    environment.add_filter("length", length);
    environment.add_filter("count", length);
    environment.add_test("sequence", |value: &Value| {
        matches!(
            python::kind(value),
            ValueKind::Seq | ValueKind::String | ValueKind::Map
        )
    });
    environment.add_test("iterable", |value: &Value| {
        let kinds = [
            ValueKind::Seq,
            ValueKind::String,
            ValueKind::Map,
            ValueKind::Iterable,
        ];
        kinds.contains(&value.kind()) || value.is_undefined()
    });
    environment.add_test("number", |value: &Value| {
        matches!(value.kind(), ValueKind::Number | ValueKind::Bool)
    });
    environment.add_test("integer", |value: &Value| {
        value.kind() == ValueKind::Number && value.is_integer()
    });
    environment.add_test("callable", |value: &Value| value.kind() == ValueKind::Plain);
    environment.add_filter("indent", indent);
    environment.add_filter("default", default);
    environment.add_filter("d", default);
    environment.add_filter("int", int);
    environment.add_filter("float", float);
    for name in ["startingwith", "endingwith", "int", "safe"] {
        environment.remove_test(name);
    }
    for name in ["bool", "chain", "zip", "lines", "split"] {
        environment.remove_filter(name);
    }
}

/// `len(value)`, which a number has not.
fn length(value: &Value) -> Result<usize, Error> {
    let len = match value.kind() {
        ValueKind::Undefined => Some(0),
        _ => value.len(),
    };
    len.ok_or_else(|| {
        wrong(format!(
            "object of type '{}' has no len()",
            python::type_name(value)
        ))
    })
}

/// A text safe to stand in HTML, as MarkupSafe writes it.
fn escaped(value: &Value) -> Result<String, Error> {
    let text = python::text(value)?;
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\'' => out.push_str("&#39;"),
            '"' => out.push_str("&#34;"),
            c => out.push(c),
        }
    }
    Ok(out)
}

/// `truncate(s, length=255, killwords=False, end='...', leeway=5)`.
fn truncate(value: &Value, rest: Rest<Value>, named: Kwargs) -> Result<String, Error> {
    let names = ["length", "killwords", "end", "leeway"];
    let [length, kill, end, leeway] = bind("truncate", &rest, &named, names)?;
    let number = |value: Option<Value>, usual| value.map_or(Ok(usual), usize::try_from);
    let (length, leeway) = (number(length, 255)?, number(leeway, 5)?);
    let end = end.map_or_else(|| Ok("...".into()), |end| python::text(&end))?;
    let text = python::text(value)?;
    if text.chars().count() <= length.saturating_add(leeway) {
        return Ok(text);
    }
    let keep = length
        .checked_sub(end.chars().count())
        .ok_or_else(|| wrong("truncate: the end is longer than the length"))?;
    let mut cut: String = text.chars().take(keep).collect();
    if !kill.is_some_and(|kill| kill.is_true()) {
        cut.truncate(cut.rfind(' ').unwrap_or(cut.len()));
    }
    Ok(cut + &end)
}

/// `indent(s, width=4, first=False, blank=False)`; the width may be a text.
fn indent(
    state: &mut State,
    value: &Value,
    rest: Rest<Value>,
    named: Kwargs,
) -> Result<String, Error> {
    let [width, first, blank] = bind("indent", &rest, &named, ["width", "first", "blank"])?;
    let holds = |value: Option<Value>| value.is_some_and(|value| value.is_true());
    let (first, blank) = (holds(first), holds(blank));
    let pad = width.map_or_else(|| Ok("    ".into()), |width| spaces("indent", &width))?;
    let text = python::text(value)?;
    let mut out = String::new();
    for (i, line) in text.split('\n').enumerate() {
        state.consume_fuel(((pad.len() + line.len()) / 64) as u64)?;
        out.push_str(if i > 0 { "\n" } else { "" });
        let padded = if i == 0 {
            first
        } else {
            blank || !line.is_empty()
        };
        if padded {
            out.push_str(&pad);
        }
        out.push_str(line);
    }
    Ok(out)
}

/// `default(value, default_value='', boolean=False)`.
fn default(value: &Value, rest: Rest<Value>, named: Kwargs) -> Result<Value, Error> {
    let [other, boolean] = bind("default", &rest, &named, ["default_value", "boolean"])?;
    let by_truth = boolean.is_some_and(|boolean| boolean.is_true());
    Ok(
        match value.is_undefined() || (by_truth && !value.is_true()) {
            true => other.unwrap_or_else(|| Value::from("")),
            false => value.clone(),
        },
    )
}

/// `int(value, default=0, base=10)`.
fn int(value: &Value, rest: Rest<Value>, named: Kwargs) -> Result<Value, Error> {
    let [other, base] = bind("int", &rest, &named, ["default", "base"])?;
    let base = base.map_or(Ok(10), u32::try_from)?;
    let number = match (value.kind(), value.as_str()) {
        (_, Some(text)) => integer(text.trim_matches(python::is_space), base),
        (ValueKind::Bool, _) => Some(i64::from(value.is_true())),
        (ValueKind::Number, _) if value.is_integer() => return Ok(value.clone()),
        (ValueKind::Number, _) => f64::try_from(value.clone()).ok().map(|f| f as i64),
        _ => None,
    };
    Ok(number
        .map(Value::from)
        .or(other)
        .unwrap_or_else(|| Value::from(0)))
}

fn integer(text: &str, base: u32) -> Option<i64> {
    let prefix = match base {
        2 => "0b",
        8 => "0o",
        16 => "0x",
        _ => "",
    };
    let digits = text.to_lowercase().replace('_', "");
    let digits = digits.strip_prefix(prefix).unwrap_or(&digits);
    let whole = (2..=36)
        .contains(&base)
        .then(|| i64::from_str_radix(digits, base).ok())
        .flatten();
    // Jinja2 reads a float where there is no integer.
    whole.or_else(|| {
        text.parse::<f64>()
            .ok()
            .filter(|f| f.is_finite())
            .map(|f| f as i64)
    })
}

/// `float(value, default=0.0)`.
fn float(value: &Value, rest: Rest<Value>, named: Kwargs) -> Result<Value, Error> {
    let [other] = bind("float", &rest, &named, ["default"])?;
    let number = match (value.kind(), value.as_str()) {
        (_, Some(text)) => text.trim_matches(python::is_space).parse::<f64>().ok(),
        (ValueKind::Bool, _) => Some(f64::from(u8::from(value.is_true()))),
        (ValueKind::Number, _) => f64::try_from(value.clone()).ok(),
        _ => None,
    };
    Ok(number
        .map(Value::from)
        .or(other)
        .unwrap_or_else(|| Value::from(0.0)))
}
