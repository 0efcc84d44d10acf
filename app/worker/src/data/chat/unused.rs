//! What a template does not read must not be lost without a word.
//!
//! Tools, documents, variables and fields of messages that carry meaning (calls, reasoning, anything in words) are
//! refused by name where the template cannot read them. What only labels a message (numbers, single words, ids) is
//! left out. A content in parts is given as it is to a template that reads parts, else as one text.

use std::borrow::Cow;

use minijinja::Value;
use minijinja::value::ValueKind;

use super::given::given;
use super::labels::says_nothing;
use super::turns::MARK;
use super::{ChatError, Conversation, Template};

/// Refuses what the template does not read. `text` is the conversation rendered.
pub(super) fn check(
    template: &Template,
    conversation: &Conversation,
    text: &str,
) -> Result<(), ChatError> {
    let unused = |what: String, advice| Err(ChatError::Unused { what, advice });
    let lists = [
        ("tools", &conversation.tools),
        ("documents", &conversation.documents),
    ];
    for (name, list) in lists {
        let any = list.as_ref().is_some_and(|list| list.len() != Some(0));
        if any && !template.reads(name) {
            let advice = "remove the field, or choose a model whose template reads it";
            return unused(format!("`{name}`"), advice);
        }
    }
    for (name, _) in &conversation.variables {
        if !template.reads(name) {
            let advice = "remove it from the record";
            return unused(format!("`{name}` of `chat_template_kwargs`"), advice);
        }
    }
    for (i, message) in conversation.messages.iter().enumerate() {
        for (name, value) in message.more() {
            if mentioned(template, name) || says_nothing(name, value) {
                continue;
            }
            let mut without = conversation.clone();
            without.messages[i].remove(name);
            if template
                .text(&without, false)
                .is_ok_and(|without| without == text)
            {
                let advice = "write what it says into `content`, remove it, or choose a model whose \
                              template reads it";
                return unused(format!("message {}: `{name}`", i + 1), advice);
            }
        }
    }
    Ok(())
}

/// Whether a field's name, or another that transformers gives it by, stands in the template.
fn mentioned(template: &Template, name: &str) -> bool {
    let reasoning = ["reasoning_content", "thinking", "reasoning"];
    template.mentions(name)
        || (reasoning.contains(&name) && reasoning.iter().any(|name| template.mentions(name)))
}

/// The conversation with contents as the template reads them: in parts, or as one text.
pub(super) fn flattened<'a>(
    template: &Template,
    conversation: &'a Conversation,
) -> Result<Cow<'a, Conversation>, ChatError> {
    let messages = &conversation.messages;
    if messages.iter().all(|message| message.parts().is_none()) {
        return Ok(Cow::Borrowed(conversation));
    }
    let in_parts = reads_parts(template, conversation);
    let mut changed = conversation.clone();
    for (i, message) in changed.messages.iter_mut().enumerate() {
        let Some(parts) = message.parts() else {
            continue;
        };
        let mut whole = String::new();
        for part in parts {
            let kind = kind(&part);
            match text_of(&part) {
                Some(text) => whole.push_str(&text),
                None if in_parts && !is_media(&kind) && template.mentions(&kind) => {}
                None => {
                    return Err(ChatError::Part {
                        message: i + 1,
                        kind,
                    });
                }
            }
        }
        if !in_parts {
            message.set("content", Value::from(whole));
        }
    }
    Ok(Cow::Owned(changed))
}

/// Whether a template writes the texts of parts, and not the list itself.
fn reads_parts(template: &Template, conversation: &Conversation) -> bool {
    let key = format!("{MARK}{MARK}");
    let probe = Value::from_pairs([("type", "text"), ("text", MARK), (&key, "")]);
    let mut probed = conversation.clone();
    for message in &mut probed.messages {
        if message.parts().is_some() {
            message.set("content", given(&Value::from(vec![probe.clone()])));
        }
    }
    let text = template.text(&probed, false);
    text.is_ok_and(|text| text.contains(MARK) && !text.contains(&key))
}

fn kind(part: &Value) -> String {
    let kind = part.get_attr("type").unwrap_or_default();
    kind.as_str().unwrap_or("unknown").to_owned()
}

/// The text of a part that is one.
fn text_of(part: &Value) -> Option<String> {
    if let Some(text) = part.as_str() {
        return Some(text.into());
    }
    let text = part
        .get_attr("text")
        .ok()
        .filter(|text| text.kind() == ValueKind::String)?;
    (kind(part) == "text").then(|| text.to_string())
}

fn is_media(kind: &str) -> bool {
    ["image", "audio", "video", "file"]
        .iter()
        .any(|media| kind.contains(media))
}
