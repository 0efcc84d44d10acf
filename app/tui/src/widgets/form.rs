//! Fields of forms, and the fields of a strategy's settings made from its JSON Schema.

use ratatui::text::{Line, Span};
use serde_json::Value;

use crate::keymap::Action;
use crate::theme::Theme;

use super::text::clip;

/// One field of a form.
#[derive(Clone, Debug)]
pub struct Field {
    /// Name of the field.
    pub label: String,
    /// Description, and the values it takes.
    pub help: String,
    /// The input so far.
    pub input: Input,
    /// Why the input is invalid, if it is.
    pub error: Option<String>,
}

/// Input of a field.
#[derive(Clone, Debug)]
pub enum Input {
    /// One of several options.
    Choice {
        /// The options.
        options: Vec<String>,
        /// Index of the chosen one.
        at: usize,
    },
    /// Typed text; empty means `default`.
    Text {
        /// What was typed.
        value: String,
        /// Shown while nothing is typed.
        default: String,
    },
}

impl Field {
    /// Applies a key's action; returns whether it changes the input.
    pub fn act(&mut self, action: Action) -> bool {
        match (&mut self.input, action) {
            (Input::Choice { options, at }, Action::Right) if !options.is_empty() => {
                *at = (*at + 1) % options.len();
            }
            (Input::Choice { options, at }, Action::Left) if !options.is_empty() => {
                *at = (*at + options.len() - 1) % options.len();
            }
            (Input::Text { value, .. }, Action::Erase) => drop(value.pop()),
            (Input::Text { value, .. }, Action::EraseAll) => value.clear(),
            _ => return false,
        }
        true
    }

    /// Applies a typed character; returns whether it changes the input.
    pub fn typed(&mut self, c: char) -> bool {
        match &mut self.input {
            Input::Text { value, .. } if !c.is_control() => value.push(c),
            _ => return false,
        }
        true
    }

    /// The field as a line of at most `width` columns.
    pub fn line(&self, theme: Theme, focused: bool, label_width: usize, width: usize) -> Line<'_> {
        let room = width.saturating_sub(label_width + 4);
        let label = clip(&self.label, label_width);
        let mut spans = vec![
            Span::raw(if focused { "▸ " } else { "  " }),
            Span::styled(format!("{label:<label_width$} "), theme.heading()),
        ];
        let style = if focused {
            theme.selected()
        } else {
            Default::default()
        };
        match &self.input {
            Input::Choice { options, at } => {
                let chosen = options.get(*at).map_or("none", String::as_str);
                if focused && options.len() > 1 {
                    let chosen = clip(chosen, room.saturating_sub(4));
                    spans.push(Span::styled(format!("◂ {chosen} ▸"), style));
                } else {
                    spans.push(Span::styled(clip(chosen, room), style));
                }
            }
            Input::Text { value, default } if value.is_empty() => {
                if focused {
                    spans.push(Span::styled(" ", style));
                }
                spans.push(Span::styled(clip(default, room), theme.dim()));
            }
            Input::Text { value, .. } => {
                // The end of a long text is what is being typed.
                let skip = value.chars().count().saturating_sub(room.saturating_sub(1));
                spans.push(Span::raw(value.chars().skip(skip).collect::<String>()));
                if focused {
                    spans.push(Span::styled(" ", style));
                }
            }
        }
        if self.error.is_some() {
            spans.push(Span::styled(" ! wrong", theme.bad()));
        }
        Line::from(spans)
    }
}

/// One setting of a strategy, by its schema.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Name in the settings.
    pub name: String,
    kind: Kind,
    default: Option<Value>,
    description: String,
}

#[derive(Clone, Debug)]
enum Kind {
    OneOf(Vec<Value>),
    Number {
        integer: bool,
        limits: Limits,
    },
    Text,
    /// A text, or token ids, typed as JSON.
    Prompt,
    /// Lists and tables are typed as JSON.
    Json,
}

#[derive(Clone, Copy, Debug, Default)]
struct Limits {
    least: Option<f64>,
    most: Option<f64>,
    above: Option<f64>,
    below: Option<f64>,
}

/// The settings of a schema, in its order.
pub fn settings(schema: &Value) -> Vec<Setting> {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
        return Vec::new();
    };
    let setting = |(name, property): (&String, &Value)| Setting {
        name: name.clone(),
        kind: kind(property),
        default: property.get("default").cloned(),
        description: property
            .get("description")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_string(),
    };
    properties.iter().map(setting).collect()
}

fn kind(property: &Value) -> Kind {
    if let Some(values) = property.get("enum").and_then(Value::as_array) {
        return Kind::OneOf(values.clone());
    }
    if property
        .get("format")
        .is_some_and(|format| format == "prompt")
    {
        return Kind::Prompt;
    }
    let name = match property.get("type") {
        Some(Value::String(name)) => name.as_str(),
        Some(Value::Array(names)) => {
            let mut names = names.iter().filter_map(Value::as_str);
            names.find(|name| *name != "null").unwrap_or_default()
        }
        _ => "",
    };
    let limit = |key: &str| property.get(key).and_then(Value::as_f64);
    match name {
        "boolean" => Kind::OneOf(vec![Value::Bool(false), Value::Bool(true)]),
        "integer" | "number" => Kind::Number {
            integer: name == "integer",
            limits: Limits {
                least: limit("minimum"),
                most: limit("maximum"),
                above: limit("exclusiveMinimum"),
                below: limit("exclusiveMaximum"),
            },
        },
        "string" => Kind::Text,
        _ => Kind::Json,
    }
}

/// A JSON value as it is typed into a field: strings without quotes.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A value as it is typed into a field of its kind: a prompt that would be read as ids has quotes.
fn written(kind: &Kind, value: &Value) -> String {
    let is_text = |text: &str| prompt(text) == *value;
    match (kind, value) {
        (Kind::Prompt, Value::String(text)) if !is_text(text) => value.to_string(),
        _ => plain(value),
    }
}

/// A typed prompt: token ids or a quoted text where it is JSON, else the text itself.
fn prompt(text: &str) -> Value {
    match serde_json::from_str(text) {
        Ok(value @ (Value::Number(_) | Value::Array(_) | Value::String(_))) => value,
        _ => Value::String(text.into()),
    }
}

impl Setting {
    /// The values it takes, in words, e.g. `whole number, at least 1; default 16`.
    pub fn takes(&self) -> String {
        let mut words = match &self.kind {
            Kind::OneOf(values) => {
                let values: Vec<String> = values.iter().map(plain).collect();
                values.join(" or ")
            }
            Kind::Number { integer, limits } => {
                let mut words = String::from(if *integer { "whole number" } else { "number" });
                let limits = [
                    ("at least", limits.least),
                    ("above", limits.above),
                    ("at most", limits.most),
                    ("below", limits.below),
                ];
                for (word, limit) in limits {
                    if let Some(limit) = limit {
                        words.push_str(&format!(", {word} {limit}"));
                    }
                }
                words
            }
            Kind::Text => "text".into(),
            Kind::Prompt => "a special token's name, a text, or token ids: 0, [0, 5]".into(),
            Kind::Json => "JSON".into(),
        };
        if let Some(default) = &self.default {
            words.push_str(&format!("; default {}", plain(default)));
        }
        words
    }

    /// Its description in the schema.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// Its field, filled in from `settings`.
    pub fn field(&self, settings: &toml::Table) -> Field {
        let current = settings.get(&self.name);
        let current = current.and_then(|value| serde_json::to_value(value).ok());
        let current = current.as_ref();
        let input = match &self.kind {
            Kind::OneOf(values) => {
                let wanted = current.or(self.default.as_ref());
                let at = values.iter().position(|value| Some(value) == wanted);
                Input::Choice {
                    options: values.iter().map(plain).collect(),
                    at: at.unwrap_or(0),
                }
            }
            kind => Input::Text {
                value: current
                    .map(|value| written(kind, value))
                    .unwrap_or_default(),
                default: self.default.as_ref().map(plain).unwrap_or_default(),
            },
        };
        let mut help = self.takes();
        if !self.description.is_empty() {
            help = format!("{} ({help})", self.description);
        }
        Field {
            label: self.name.clone(),
            help,
            input,
            error: None,
        }
    }

    /// The value in its field; `None` for the default.
    ///
    /// # Errors
    /// Why the text is invalid, as a message for the user.
    pub fn value(&self, field: &Field) -> Result<Option<toml::Value>, String> {
        let value = match (&self.kind, &field.input) {
            (Kind::OneOf(values), Input::Choice { at, .. }) => values.get(*at).cloned(),
            (_, Input::Text { value, .. }) if value.trim().is_empty() => None,
            (kind, Input::Text { value, .. }) => Some(self.parse(kind, value.trim())?),
            (_, Input::Choice { .. }) => None,
        };
        let own = value.filter(|value| Some(value) != self.default.as_ref());
        let written = own.map(toml::Value::try_from).transpose();
        written.map_err(|error| format!("{}: {error}", self.name))
    }

    fn parse(&self, kind: &Kind, text: &str) -> Result<Value, String> {
        match kind {
            Kind::Text => Ok(Value::String(text.into())),
            Kind::Prompt => Ok(prompt(text)),
            Kind::Json | Kind::OneOf(_) => serde_json::from_str(text)
                .map_err(|error| format!("{}: `{text}` is no JSON: {error}", self.name)),
            Kind::Number { integer, limits } => {
                let wrong = || format!("{}: `{text}` is no {}", self.name, self.takes());
                let number: f64 = text.parse().map_err(|_| wrong())?;
                let inside = number.is_finite()
                    && limits.least.is_none_or(|limit| number >= limit)
                    && limits.most.is_none_or(|limit| number <= limit)
                    && limits.above.is_none_or(|limit| number > limit)
                    && limits.below.is_none_or(|limit| number < limit);
                if !inside {
                    return Err(wrong());
                }
                if *integer {
                    return Ok(Value::from(text.parse::<i64>().map_err(|_| wrong())?));
                }
                Ok(Value::from(number))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn one(property: Value) -> Setting {
        settings(&json!({ "properties": { "x": property } })).remove(0)
    }

    fn typed(setting: &Setting, text: &str) -> Result<Option<toml::Value>, String> {
        let mut field = setting.field(&toml::Table::new());
        field.act(Action::EraseAll);
        for c in text.chars() {
            assert!(field.typed(c));
        }
        setting.value(&field)
    }

    #[test]
    fn a_setting_out_of_range_is_refused_with_what_it_takes() {
        let rows = one(json!({"type": "integer", "minimum": 1, "default": 16}));
        assert_eq!(typed(&rows, "4"), Ok(Some(4.into())));
        assert_eq!(
            typed(&rows, "16"),
            Ok(None),
            "the default is not written down"
        );
        assert_eq!(typed(&rows, ""), Ok(None));
        let wrong = "x: `0` is no whole number, at least 1; default 16";
        assert_eq!(typed(&rows, "0"), Err(wrong.into()));
        assert!(typed(&rows, "4.5").is_err());
        let temperature = one(json!({"type": "number", "exclusiveMinimum": 0}));
        assert!(typed(&temperature, "0").is_err());
        assert!(typed(&temperature, "NaN").is_err());
        assert_eq!(typed(&temperature, "0.7"), Ok(Some(0.7.into())));
    }

    #[test]
    fn choices_come_from_the_schema() {
        let begin = one(json!({"type": ["string", "array"], "format": "prompt", "default": ""}));
        for (text, value) in [
            ("<|endoftext|>", toml::Value::from("<|endoftext|>")),
            ("[0, 5]", vec![0, 5].into()),
            ("7", 7.into()),
            ("\"7\"", "7".into()),
        ] {
            assert_eq!(typed(&begin, text), Ok(Some(value.clone())));
            // And it is shown as it was typed.
            let settings = toml::Table::from_iter([("x".to_owned(), value)]);
            let Input::Text { value, .. } = begin.field(&settings).input else {
                panic!("no text");
            };
            assert_eq!(value.replace(',', ", ").replace(",  ", ", "), text);
        }

        let drop_last = one(json!({"type": "boolean", "default": true}));
        let mut field = drop_last.field(&toml::Table::new());
        assert_eq!(drop_last.value(&field), Ok(None));
        assert!(field.act(Action::Right));
        assert_eq!(drop_last.value(&field), Ok(Some(false.into())));
        let prompt = one(json!({"enum": ["bos", "task"], "default": "bos"}));
        assert_eq!(prompt.takes(), "bos or task; default bos");
    }
}
