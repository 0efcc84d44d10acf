//! Settings of a configuration by their paths.

use super::test::{NumberTest, Operator, TextTest, number};

/// A configuration, as it is at hand.
#[derive(Clone, Copy, Debug)]
pub enum Config<'a> {
    /// Of `config.toml`.
    Toml(&'a toml::Table),
    /// Of a run's first event.
    Json(&'a serde_json::Value),
}

/// What a setting is compared as.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Number(f64),
    Text(String),
}

/// A part of a configuration.
#[derive(Clone, Copy)]
enum Node<'a> {
    Table(&'a toml::Table),
    Toml(&'a toml::Value),
    Json(&'a serde_json::Value),
}

impl<'a> Node<'a> {
    fn get(self, key: &str) -> Option<Node<'a>> {
        match self {
            Self::Table(table) => table.get(key).map(Node::Toml),
            Self::Toml(value) => value.get(key).map(Node::Toml),
            Self::Json(value) => value.get(key).map(Node::Json),
        }
    }

    /// The items of a list.
    fn items(self) -> Option<Vec<Node<'a>>> {
        match self {
            Self::Table(_) => None,
            Self::Toml(value) => Some(value.as_array()?.iter().map(Node::Toml).collect()),
            Self::Json(value) => Some(value.as_array()?.iter().map(Node::Json).collect()),
        }
    }

    /// The entries of a table.
    fn entries(self) -> Vec<(&'a str, Node<'a>)> {
        let toml = |table: &'a toml::Table| -> Vec<(&'a str, Node<'a>)> {
            let entries = table.iter();
            entries
                .map(|(key, value)| (key.as_str(), Node::Toml(value)))
                .collect()
        };
        match self {
            Self::Table(table) => toml(table),
            Self::Toml(value) => value.as_table().map(toml).unwrap_or_default(),
            Self::Json(value) => {
                let entries = value.as_object().into_iter().flatten();
                entries
                    .map(|(key, value)| (key.as_str(), Node::Json(value)))
                    .collect()
            }
        }
    }

    /// What stands there, where it is neither list nor table.
    fn value(self) -> Option<Value> {
        let number = |x: f64| Some(Value::Number(x));
        match self {
            Self::Table(_) => None,
            Self::Toml(value) => match value {
                toml::Value::String(text) => Some(Value::Text(text.clone())),
                toml::Value::Integer(n) => number(*n as f64),
                toml::Value::Float(x) => number(*x),
                toml::Value::Boolean(yes) => Some(Value::Text(yes.to_string())),
                toml::Value::Datetime(time) => Some(Value::Text(time.to_string())),
                toml::Value::Array(_) | toml::Value::Table(_) => None,
            },
            Self::Json(value) => match value {
                serde_json::Value::String(text) => Some(Value::Text(text.clone())),
                serde_json::Value::Number(n) => number(n.as_f64()?),
                serde_json::Value::Bool(yes) => Some(Value::Text(yes.to_string())),
                _ => None,
            },
        }
    }

    /// What an item of a list goes by.
    fn name(self) -> Option<String> {
        let of = |key: &str| match self.get(key)?.value()? {
            Value::Text(name) => Some(name),
            Value::Number(_) => None,
        };
        of("dataset").or_else(|| of("name"))
    }

    /// Whether any value at a path holds. An item of a list goes by its place from 0, or by its `dataset` or `name`;
    /// a path that names none of these means every item.
    fn any(self, path: &[String], holds: &mut dyn FnMut(&Value) -> bool) -> bool {
        if let Some(items) = self.items() {
            let named = |(i, item): &(usize, &Node<'a>)| {
                let key = path.first();
                key.is_some_and(|key| *key == i.to_string() || Some(key) == item.name().as_ref())
            };
            let mut named = items.iter().enumerate().filter(named).peekable();
            return match named.peek() {
                Some(_) => named.any(|(_, item)| item.any(&path[1..], holds)),
                None => items.iter().any(|item| item.any(path, holds)),
            };
        }
        match path.split_first() {
            None => self.value().is_some_and(|value| holds(&value)),
            Some((key, rest)) => self.get(key).is_some_and(|below| below.any(rest, holds)),
        }
    }

    fn add_paths(self, path: &str, into: &mut Vec<String>) {
        let below = |name: &str| match path.is_empty() {
            true => name.to_owned(),
            false => format!("{path}.{name}"),
        };
        match self.items() {
            Some(items) if items.iter().any(|item| item.value().is_none()) => {
                for (i, item) in items.iter().enumerate() {
                    let name = item.name().unwrap_or_else(|| i.to_string());
                    item.add_paths(&below(&name), into);
                }
            }
            Some(_) => into.push(path.to_owned()),
            None if self.value().is_some() => into.push(path.to_owned()),
            None => {
                for (name, entry) in self.entries() {
                    entry.add_paths(&below(name), into);
                }
            }
        }
    }
}

impl<'a> Config<'a> {
    fn root(self) -> Node<'a> {
        match self {
            Self::Toml(table) => Node::Table(table),
            Self::Json(value) => Node::Json(value),
        }
    }

    pub(super) fn any(self, path: &[String], mut holds: impl FnMut(&Value) -> bool) -> bool {
        self.root().any(path, &mut holds)
    }

    /// The path of every setting, as a filter names it: `cfg.optimizer.lr`.
    pub fn fields(self) -> Vec<String> {
        let mut paths = Vec::new();
        self.root().add_paths("", &mut paths);
        let fields = paths.into_iter();
        fields
            .map(|path| format!("{}{path}", super::fields::SETTING))
            .collect()
    }
}

/// A condition on a setting.
#[derive(Clone, Debug)]
pub(super) struct Test {
    operator: Operator,
    text: TextTest,
    number: Option<NumberTest>,
}

impl Test {
    pub fn new(operator: Operator, value: &str) -> Result<Self, String> {
        let as_number = number(value);
        if operator.is_order() && as_number.is_none() {
            return Err(no_number(value, operator));
        }
        Ok(Self {
            operator,
            text: TextTest::new(operator, value)?,
            number: as_number.map(|value| NumberTest::new(operator, value)),
        })
    }

    pub fn holds(&self, value: &Value) -> bool {
        let as_text = matches!(self.operator, Operator::Has | Operator::Like);
        match (value, self.number) {
            (Value::Number(number), Some(test)) if !as_text => test.holds(*number),
            (Value::Number(number), _) => {
                !self.operator.is_order() && self.text.holds(&number.to_string())
            }
            (Value::Text(text), _) => !self.operator.is_order() && self.text.holds(text),
        }
    }
}

pub(super) fn no_number(value: &str, operator: Operator) -> String {
    let sign = operator.sign();
    format!("`{value}` is no number, which `{sign}` wants; write it like 0.1, 1e-3, 10% or 3k")
}
