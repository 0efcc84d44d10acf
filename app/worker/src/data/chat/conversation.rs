//! A conversation as transformers gives it to a template.
//!
//! Fields keep the order of the record, since `tojson` writes it. As in transformers, a message's fields that are
//! `null` are left out, and its reasoning is there under every name that templates read it by.

use minijinja::Value;
use minijinja::value::ValueKind;
use serde::Deserialize;

use super::given::{Dict, pairs};
use super::labels::says_nothing;

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "Value")]
pub struct Message {
    /// Who speaks: `system`, `user`, `assistant` or another role that the template knows.
    pub role: String,
    /// Whether it is learned where it is the assistant's.
    pub(super) learned: bool,
    fields: Vec<(String, Value)>,
}

/// Names of a message's reasoning; the first is the one that templates read by custom.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// Names by which a record says whether a turn is learned.
const LEARNED: [&str; 3] = ["weight", "train", "loss"];

impl Message {
    /// A message of a role.
    pub fn new(role: &str, content: impl Into<String>) -> Self {
        let fields = [("role", role.to_owned()), ("content", content.into())];
        Self {
            role: role.into(),
            learned: true,
            fields: fields
                .map(|(name, text)| (name.into(), Value::from(text)))
                .into(),
        }
    }

    /// A message with more fields than a role and a text.
    #[cfg(test)]
    pub(super) fn with(mut self, name: &str, value: Value) -> Self {
        self.set(name, super::given(&value));
        self
    }

    /// The same message, which is not learned.
    pub(in crate::data) fn unlearned(mut self) -> Self {
        self.learned = false;
        self
    }

    /// Its content: a text as it is, parts as JSON, nothing as an empty text.
    pub fn content(&self) -> String {
        match self.get("content") {
            None => String::new(),
            Some(content) => match content.as_str() {
                Some(text) => text.into(),
                None => serde_json::to_string(content).unwrap_or_default(),
            },
        }
    }

    pub(in crate::data) fn get(&self, name: &str) -> Option<&Value> {
        let found = self.fields.iter().find(|(field, _)| field == name);
        found.map(|(_, value)| value)
    }

    /// Whether it is learned where it is the assistant's.
    pub(in crate::data) fn learned(&self) -> bool {
        self.learned
    }

    /// Whether it says nothing: it has no word, call or reasoning.
    pub(in crate::data) fn is_empty(&self) -> bool {
        let blank = |text: &str| text.trim().is_empty();
        let no_word = |value: &Value| match value.as_str() {
            Some(text) => blank(text),
            None => value.len() == Some(0),
        };
        let says_none = |(name, value)| match REASONING.contains(&name) {
            true => no_word(value),
            false => no_word(value) || says_nothing(name, value),
        };
        let content = match self.parts() {
            Some(parts) => parts.iter().all(|part| {
                let text = part
                    .get_attr("text")
                    .ok()
                    .filter(|text| !text.is_undefined());
                no_word(&text.unwrap_or_else(|| part.clone()))
            }),
            None => blank(&self.content()),
        };
        content && self.more().all(says_none)
    }

    /// The fields beside role and content.
    pub(super) fn more(&self) -> impl Iterator<Item = (&str, &Value)> {
        let fields = self
            .fields
            .iter()
            .map(|(name, value)| (name.as_str(), value));
        fields.filter(|(name, _)| !["role", "content"].contains(name) && !LEARNED.contains(name))
    }

    pub(super) fn set(&mut self, name: &str, value: Value) {
        match self.fields.iter_mut().find(|(field, _)| field == name) {
            Some((_, old)) => *old = value,
            None => self.fields.push((name.into(), value)),
        }
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.fields.retain(|(field, _)| field != name);
    }

    /// What a template is given.
    pub(super) fn value(&self) -> Value {
        let mut fields = self.fields.clone();
        let reasoning = REASONING.iter().find_map(|name| self.get(name)).cloned();
        if let Some(reasoning) = reasoning {
            if self.get("thinking").is_none() {
                fields.insert(0, ("thinking".into(), reasoning.clone()));
            }
            match fields.iter_mut().find(|(name, _)| name == REASONING[0]) {
                Some((_, value)) => *value = reasoning,
                None => fields.push((REASONING[0].into(), reasoning)),
            }
        }
        Value::from_object(Dict(Value::from_pairs(fields)))
    }

    /// The parts of its content, where it is a list.
    pub(super) fn parts(&self) -> Option<Vec<Value>> {
        let content = self.get("content").filter(|c| c.kind() == ValueKind::Seq)?;
        content.try_iter().ok().map(Iterator::collect)
    }
}

impl TryFrom<Value> for Message {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        if value.kind() != ValueKind::Map {
            return Err("is not an object".into());
        }
        let mut message = Self {
            role: String::new(),
            learned: true,
            fields: pairs(&value)
                .filter(|(_, value)| !value.is_none())
                .collect(),
        };
        let role = message.get("role").ok_or("missing field `role`")?;
        message.role = role.as_str().ok_or("`role` is not a text")?.into();
        message.check_content()?;
        message.learned = message.learns()?;
        Ok(message)
    }
}

impl Message {
    fn check_content(&self) -> Result<(), String> {
        let Some(content) = self.get("content") else {
            let speaks = |name: &str| self.get(name).is_some();
            let others = ["tool_calls", "function_call"].into_iter().chain(REASONING);
            return match self.role == "assistant" && others.into_iter().any(speaks) {
                true => Ok(()),
                false => Err("missing field `content`".into()),
            };
        };
        match content.kind() {
            ValueKind::String | ValueKind::Seq => Ok(()),
            _ => Err("`content` is neither a text nor a list of parts".into()),
        }
    }

    /// What the record says of learning the turn.
    fn learns(&self) -> Result<bool, String> {
        let mut learned = true;
        for name in LEARNED {
            let Some(value) = self.get(name) else {
                continue;
            };
            let says = match (f64::try_from(value.clone()), value.kind()) {
                (_, ValueKind::Bool) => value.is_true(),
                (Ok(0.0), ValueKind::Number) => false,
                (Ok(1.0), ValueKind::Number) => true,
                _ => {
                    return Err(format!(
                        "`{name}` is {value}; a turn is learned (1, true) or not (0, false): nothing \
                         between is read"
                    ));
                }
            };
            if says && self.role != "assistant" && name != "loss" {
                return Err(format!(
                    "`{name}` is {value} for the turn of the role `{}`; only the assistant's are learned",
                    self.role
                ));
            }
            learned &= says;
        }
        Ok(learned)
    }
}

/// A conversation and what else its template is given.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Conversation {
    /// Its turns.
    pub messages: Vec<Message>,
    /// Tools that the assistant may call: JSON schemas.
    pub(in crate::data) tools: Option<Value>,
    /// Documents that it may read.
    pub(in crate::data) documents: Option<Value>,
    /// Further variables of the template (`chat_template_kwargs`).
    pub(in crate::data) variables: Vec<(String, Value)>,
}

impl From<Vec<Message>> for Conversation {
    fn from(messages: Vec<Message>) -> Self {
        Self {
            messages,
            ..Self::default()
        }
    }
}

impl Conversation {
    /// All it says: roles and contents, then calls, reasoning and what the template is given beside, where they
    /// are there.
    pub(in crate::data) fn parts(&self) -> Vec<String> {
        let json = |value: &Value| serde_json::to_string(value).unwrap_or_default();
        let said = self
            .messages
            .iter()
            .flat_map(|m| [m.role.clone(), m.content()]);
        let names = ["tool_calls", "function_call"].into_iter().chain(REASONING);
        let more = self.messages.iter().enumerate().flat_map(|(i, message)| {
            let fields = names
                .clone()
                .filter_map(move |name| Some((name, message.get(name)?)));
            fields.map(move |(name, value)| format!("{i} {name} {}", json(value)))
        });
        let lists = [("tools", &self.tools), ("documents", &self.documents)];
        let lists = lists
            .into_iter()
            .filter_map(|(name, list)| Some((name, list.as_ref()?)));
        let variables = self
            .variables
            .iter()
            .map(|(name, value)| (name.as_str(), value));
        let beside = lists
            .chain(variables)
            .map(|(name, value)| format!("{name} {}", json(value)));
        said.chain(more).chain(beside).collect()
    }

    /// Its first `n` turns.
    pub(super) fn first(&self, n: usize) -> Self {
        Self {
            messages: self.messages[..n].to_vec(),
            ..self.clone()
        }
    }
}
