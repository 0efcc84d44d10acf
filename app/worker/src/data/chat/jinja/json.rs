//! `tojson` as transformers overrides it: Python's `json.dumps`.

use minijinja::value::{Kwargs, Rest, ValueKind};
use minijinja::{Error, State, Value};

use super::methods::bind;
use super::{limits, python, wrong};

/// `json.dumps(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False)`.
pub(super) fn tojson(
    state: &mut State,
    value: &Value,
    rest: Rest<Value>,
    named: Kwargs,
) -> Result<Value, Error> {
    let names = ["ensure_ascii", "indent", "separators", "sort_keys"];
    let [ascii, indent, separators, sort_keys] = bind("tojson", &rest, &named, names)?;
    let indent = indent.filter(|indent| !indent.is_none());
    let indent = indent.map(|indent| spaces("tojson", &indent)).transpose()?;
    let (item, key) = match separators.filter(|given| !given.is_none()) {
        None => (
            if indent.is_some() { "," } else { ", " }.into(),
            ": ".into(),
        ),
        Some(given) => pair(&given)?,
    };
    let mut dumps = Dumps {
        state,
        out: String::new(),
        paid: 0,
        ascii: ascii.is_some_and(|v| v.is_true()),
        sort_keys: sort_keys.is_some_and(|v| v.is_true()),
        indent,
        item,
        key,
    };
    dumps.write(value, 0)?;
    Ok(Value::from(dumps.out))
}

/// The text of one level of indentation: as many spaces, or a text itself.
pub(super) fn spaces(of: &str, indent: &Value) -> Result<String, Error> {
    if let Some(text) = indent.as_str() {
        return Ok(text.into());
    }
    let spaces = i64::try_from(indent.clone())
        .map_err(|_| wrong(format!("{of}: `indent` is no number: {indent}")))?;
    let spaces = usize::try_from(spaces.max(0)).unwrap_or(usize::MAX);
    match spaces <= limits::WIDTH {
        true => Ok(" ".repeat(spaces)),
        false => Err(wrong(format!(
            "{of}: an indentation of {indent}; at most {} is read",
            limits::WIDTH
        ))),
    }
}

fn pair(separators: &Value) -> Result<(String, String), Error> {
    let texts: Vec<Value> = separators.try_iter()?.collect();
    match &texts[..] {
        [item, key] => match (item.as_str(), key.as_str()) {
            (Some(item), Some(key)) => Ok((item.into(), key.into())),
            _ => Err(wrong("tojson: `separators` are not two texts")),
        },
        _ => Err(wrong("tojson: `separators` are not two texts")),
    }
}

/// What `json.dumps` writes, and how.
struct Dumps<'s, 't, 'e> {
    state: &'s mut State<'t, 'e>,
    out: String,
    /// Bytes of `out` that are paid for.
    paid: usize,
    ascii: bool,
    sort_keys: bool,
    indent: Option<String>,
    item: String,
    key: String,
}

impl Dumps<'_, '_, '_> {
    fn write(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > limits::DEPTH {
            return Err(wrong(format!(
                "tojson: nested deeper than {}",
                limits::DEPTH
            )));
        }
        match python::kind(value) {
            ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool => self
                .out
                .push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number if value.is_integer() => self.out.push_str(&value.to_string()),
            ValueKind::Number => self.out.push_str(&float(value)),
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Seq => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.block('[', ']', depth, items, |dumps, item, depth| {
                    dumps.write(&item, depth)
                })?;
            }
            ValueKind::Map => {
                let mut pairs = Vec::new();
                for key in value.try_iter()? {
                    let item = value.get_item(&key)?;
                    pairs.push((key, item));
                }
                if self.sort_keys {
                    pairs.sort_by(|(a, _), (b, _)| a.cmp(b));
                }
                self.block('{', '}', depth, pairs, |dumps, (key, item), depth| {
                    dumps.name(&key)?;
                    dumps.out.push_str(&dumps.key.clone());
                    dumps.write(&item, depth)
                })?;
            }
            _ => {
                let kind = python::type_name(value);
                return Err(wrong(format!(
                    "tojson: Object of type {kind} is not JSON serializable"
                )));
            }
        }
        self.pay()
    }

    /// The items of a list or dict between brackets.
    fn block<T>(
        &mut self,
        open: char,
        close: char,
        depth: usize,
        items: Vec<T>,
        write: impl Fn(&mut Self, T, usize) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.out.push(open);
        let empty = items.is_empty();
        for (i, item) in items.into_iter().enumerate() {
            if i > 0 {
                self.out.push_str(&self.item.clone());
            }
            self.new_line(depth + 1)?;
            write(self, item, depth + 1)?;
        }
        if !empty {
            self.new_line(depth)?;
        }
        self.out.push(close);
        Ok(())
    }

    fn new_line(&mut self, depth: usize) -> Result<(), Error> {
        if let Some(indent) = &self.indent {
            self.out.push('\n');
            self.out.extend(std::iter::repeat_n(indent.as_str(), depth));
        }
        self.pay()
    }

    /// Pays for what was written since the last time.
    fn pay(&mut self) -> Result<(), Error> {
        let new = self.out.len() - self.paid;
        if new >= 64 {
            self.state.consume_fuel(new as u64 / 64)?;
            self.paid = self.out.len();
        }
        Ok(())
    }

    /// A key: numbers, truth and nothing become texts.
    fn name(&mut self, key: &Value) -> Result<(), Error> {
        let text = match key.kind() {
            ValueKind::String => key.as_str().unwrap_or_default().to_owned(),
            ValueKind::None => "null".into(),
            ValueKind::Bool => if key.is_true() { "true" } else { "false" }.into(),
            ValueKind::Number if key.is_integer() => key.to_string(),
            ValueKind::Number => float(key),
            _ => {
                let kind = python::type_name(key);
                return Err(wrong(format!(
                    "tojson: keys must be texts or numbers, not {kind}"
                )));
            }
        };
        self.string(&text);
        Ok(())
    }

    fn string(&mut self, text: &str) {
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\x08' => self.out.push_str("\\b"),
                '\x0c' => self.out.push_str("\\f"),
                c if c < ' ' || (self.ascii && !(' '..='~').contains(&c)) => {
                    let mut units = [0; 2];
                    for unit in c.encode_utf16(&mut units) {
                        self.out.push_str(&format!("\\u{unit:04x}"));
                    }
                }
                c => self.out.push(c),
            }
        }
        self.out.push('"');
    }
}

fn float(value: &Value) -> String {
    match python::float(value).as_str() {
        "nan" => "NaN".into(),
        "inf" => "Infinity".into(),
        "-inf" => "-Infinity".into(),
        text => text.into(),
    }
}
