//! Conversations in the fields of a record: which are used, and how.
//!
//! `messages` or `conversations` are a list of turns; `prompt` and `completion`, or other usual names, are texts or
//! lists of turns. What data sets by custom put beside them is used, too: a system prompt becomes the first turn,
//! Alpaca's `input` and Dolly's `context` stand below the instruction, `history` before it, `tools`, `documents` and
//! `chat_template_kwargs` go to the chat template. Any other field that may carry meaning is refused by name;
//! [`says_nothing`] tells which may not.

use minijinja::Value;
use minijinja::value::ValueKind;

use crate::data::chat::{given, pairs, says_nothing};

use super::{Content, Conversation, Message, Record, SourceError, short};

/// Fields that hold what the system says, by the customs of Alpaca, OpenOrca and ShareGPT.
const SYSTEM: [&str; 4] = ["system", "system_prompt", "system_message", "sys_prompt"];

/// The conversation of a record that has a list of messages.
pub(super) fn of_messages(
    record: &Record,
    list: &str,
    ignore: &[String],
) -> Result<Content, SourceError> {
    let parts = Parts::new(record);
    let mut conversation: Conversation = parts.messages(list)?.into();
    parts.rest(&mut conversation, &[list], ignore)?;
    Ok(Content::Chat(conversation))
}

/// The conversation of a record that has a prompt and what completes it.
pub(super) fn of_pair(
    record: &Record,
    prompt: &str,
    completion: &str,
    ignore: &[String],
) -> Result<Content, SourceError> {
    let parts = Parts::new(record);
    let mut used = vec![prompt, completion];
    let out = |name: &str| completion == name || ignore.iter().any(|out| out == name);
    let mut messages = match parts.get(prompt).kind() {
        ValueKind::Seq => parts
            .messages(prompt)?
            .into_iter()
            .map(Message::unlearned)
            .collect(),
        _ => {
            let mut asked = parts.text(prompt)?;
            // Alpaca's third field, and Dolly's.
            for name in ["input", "context"] {
                let below = parts.get(name);
                let given = below.as_str().filter(|text| !text.is_empty());
                if let Some(given) = given.filter(|_| prompt == "instruction" && !out(name)) {
                    asked = format!("{asked}\n\n{given}");
                    used.push(name);
                }
            }
            vec![Message::new("user", asked)]
        }
    };
    let history = parts.get("history");
    if !history.is_none() && !history.is_undefined() && !out("history") {
        messages.splice(0..0, parts.history()?);
        used.push("history");
    }
    match parts.get(completion).kind() {
        ValueKind::Seq => messages.extend(parts.messages(completion)?),
        _ => messages.push(Message::new("assistant", parts.text(completion)?)),
    }
    let mut conversation: Conversation = messages.into();
    parts.rest(&mut conversation, &used, ignore)?;
    Ok(Content::Chat(conversation))
}

/// A record, its fields in their order.
struct Parts<'a> {
    record: &'a Record,
    value: Value,
}

impl<'a> Parts<'a> {
    fn new(record: &'a Record) -> Self {
        let value = record.value();
        Self { record, value }
    }

    fn get(&self, name: &str) -> Value {
        self.value.get_attr(name).unwrap_or_default()
    }

    fn bad(&self, problem: String) -> SourceError {
        SourceError::record(&self.record.place, problem)
    }

    fn text(&self, name: &str) -> Result<String, SourceError> {
        Ok(super::text(self.record, name)?.to_owned())
    }

    /// A list of messages: `{role, content}`, or ShareGPT's `{from, value}`.
    fn messages(&self, name: &str) -> Result<Vec<Message>, SourceError> {
        let list = self.get(name);
        if list.kind() != ValueKind::Seq {
            let shown = short(&self.record.fields[name]);
            return Err(self.bad(format!("`{name}` is not a list of messages: {shown}")));
        }
        let messages = list
            .try_iter()
            .into_iter()
            .flatten()
            .zip(1..)
            .map(|(entry, i)| {
                let sharegpt = !entry.get_attr("from").unwrap_or_default().is_undefined();
                let message = match sharegpt {
                    true => share_gpt(&entry),
                    false => Message::try_from(entry),
                };
                message.map_err(|problem| {
                    let example = "a message is {\"role\": …, \"content\": …}";
                    self.bad(format!("`{name}` message {i}: {problem}; {example}"))
                })
            });
        messages.collect()
    }

    /// Alpaca's earlier turns: pairs of what was asked and answered.
    fn history(&self) -> Result<Vec<Message>, SourceError> {
        let mut messages = Vec::new();
        for pair in self.get("history").try_iter().into_iter().flatten() {
            let texts: Vec<Value> = pair.try_iter().into_iter().flatten().collect();
            match texts.iter().map(Value::as_str).collect::<Vec<_>>()[..] {
                [Some(asked), Some(answered)] if pair.kind() == ValueKind::Seq => {
                    messages.push(Message::new("user", asked));
                    messages.push(Message::new("assistant", answered));
                }
                _ => {
                    return Err(self.bad(format!(
                        "`history` is not a list of pairs [asked, answered]: {}",
                        short(&self.record.fields["history"])
                    )));
                }
            }
        }
        Ok(messages)
    }

    /// Puts what stands beside the turns where it belongs, and refuses what has no place.
    fn rest(
        &self,
        conversation: &mut Conversation,
        used: &[&str],
        ignore: &[String],
    ) -> Result<(), SourceError> {
        for (name, value) in pairs(&self.value) {
            if used.contains(&name.as_str()) || ignore.contains(&name) || value.is_none() {
                continue;
            }
            match name.as_str() {
                "tools" => conversation.tools = self.list(&name, &value)?,
                "documents" => conversation.documents = self.list(&name, &value)?,
                "chat_template_kwargs" => {
                    conversation.variables = pairs(&value).filter(|(_, v)| !v.is_none()).collect();
                }
                system if SYSTEM.contains(&system) => self.system(conversation, &name, &value)?,
                _ if says_nothing(&name, &value) || self.repeats(&value, conversation, used) => {}
                _ => return Err(self.unused(&name, used)),
            }
        }
        Ok(())
    }

    /// Whether a value's words stand in the conversation, or all of the conversation's, or of its fields, in them.
    fn repeats(&self, value: &Value, conversation: &Conversation, used: &[&str]) -> bool {
        let Some(text) = value.as_str().map(str::trim) else {
            return false;
        };
        let contents: Vec<String> = conversation.messages.iter().map(Message::content).collect();
        let of_field = |name: &&str| {
            let field = self.get(name);
            field
                .as_str()
                .is_some_and(|field| text.contains(field.trim()))
        };
        contents.iter().any(|content| content.contains(text))
            || contents.iter().all(|content| text.contains(content.trim()))
            || used.iter().all(of_field)
    }

    fn unused(&self, name: &str, used: &[&str]) -> SourceError {
        let used: Vec<String> = used.iter().map(|name| format!("`{name}`")).collect();
        self.bad(format!(
            "`{name}` is not used, and it may carry meaning: {} are the conversation. Put what it says into a \
             turn, remove it, or name it in `ignore` (--ignore {name})",
            used.join(" and ")
        ))
    }

    /// A list of objects, or the JSON of one.
    fn list(&self, name: &str, value: &Value) -> Result<Option<Value>, SourceError> {
        let parsed = value.as_str().filter(|text| !text.trim().is_empty());
        let parsed = parsed.map(serde_json::from_str::<Value>).transpose();
        let wrong = || {
            let shown = short(&self.record.fields[name]);
            self.bad(format!(
                "`{name}` is not a list of objects, nor the JSON of one: {shown}"
            ))
        };
        let value = match parsed.map_err(|_| wrong())? {
            Some(parsed) => given(&parsed),
            None if value.as_str().is_some() => return Ok(None),
            None => value.clone(),
        };
        let mut items = value.try_iter().into_iter().flatten();
        if value.kind() != ValueKind::Seq || !items.all(|item| item.kind() == ValueKind::Map) {
            return Err(wrong());
        }
        Ok(Some(value))
    }

    fn system(
        &self,
        conversation: &mut Conversation,
        name: &str,
        value: &Value,
    ) -> Result<(), SourceError> {
        let Some(text) = value.as_str() else {
            return Err(self.bad(format!(
                "`{name}` is not a text: {}",
                short(&self.record.fields[name])
            )));
        };
        let first = conversation.messages.first();
        match first
            .filter(|first| first.role == "system")
            .map(Message::content)
        {
            _ if text.is_empty() => {}
            Some(said) if said == text => {}
            Some(_) => {
                return Err(self.bad(format!(
                    "`{name}` says another thing than the system's turn that the conversation begins with; \
                     keep one of them"
                )));
            }
            None => conversation
                .messages
                .insert(0, Message::new("system", text)),
        }
        Ok(())
    }
}

/// A turn of ShareGPT's: who says it, and what. A call of a tool is JSON.
fn share_gpt(entry: &Value) -> Result<Message, String> {
    let field = |name: &str| entry.get_attr(name).unwrap_or_default();
    let (from, value) = (field("from"), field("value"));
    let from = from.as_str().ok_or("`from` is not a text")?;
    let said = value.as_str().ok_or("`value` is not a text")?;
    let role = match from {
        "human" | "user" => "user",
        "gpt" | "chatgpt" | "assistant" | "bot" | "model" | "bing" | "bard" => "assistant",
        "function_call" | "tool_call" => "assistant",
        "system" => "system",
        "tool" | "observation" | "function_response" | "tool_response" => "tool",
        other => {
            return Err(format!(
                "`from` is `{other}`; understood are human, user, gpt, chatgpt, assistant, system, \
                 function_call and observation"
            ));
        }
    };
    let said = match from.ends_with("_call") {
        true => ("tool_calls".to_owned(), Value::from(calls(said)?)),
        false => ("content".to_owned(), value),
    };
    let more = pairs(entry).filter(|(name, _)| !["from", "value"].contains(&name.as_str()));
    let fields = [("role".to_owned(), Value::from(role)), said]
        .into_iter()
        .chain(more);
    Message::try_from(Value::from_pairs(fields))
}

/// The calls of a `function_call`: `{"name": …, "arguments": …}`, or a list of them.
fn calls(json: &str) -> Result<Vec<Value>, String> {
    let bad = |e: &dyn std::fmt::Display| format!("`value` is no call of a tool in JSON: {e}");
    let value: Value = serde_json::from_str(json).map_err(|e| bad(&e))?;
    let calls: Vec<Value> = match value.kind() {
        ValueKind::Seq => value.try_iter().into_iter().flatten().collect(),
        _ => vec![value],
    };
    let calls = calls.into_iter().map(|call| {
        let name = call.get_attr("name").unwrap_or_default();
        name.as_str().ok_or_else(|| bad(&"it has no `name`"))?;
        let kind = ("type", Value::from("function"));
        Ok(Value::from_pairs([kind, ("function", call)]))
    });
    calls.collect()
}

#[cfg(test)]
mod tests;
