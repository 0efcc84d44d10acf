//! Fields that may be left out of a conversation without a loss.

use minijinja::Value;
use minijinja::value::ValueKind;

use super::given::pairs;

/// Fields that belong to a conversation by custom, and so are never taken for a label.
const MEANING: [&str; 12] = [
    "system",
    "system_prompt",
    "system_message",
    "sys_prompt",
    "history",
    "context",
    "input",
    "tools",
    "functions",
    "documents",
    "tool_calls",
    "function_call",
];

/// Names that say where a record is from or what it is like, whatever stands in them.
const LABELS: [&str; 36] = [
    "id",
    "idx",
    "index",
    "uuid",
    "guid",
    "hash",
    "key",
    "name",
    "title",
    "source",
    "sources",
    "dataset",
    "origin",
    "subset",
    "split",
    "url",
    "link",
    "author",
    "license",
    "lang",
    "language",
    "category",
    "categories",
    "topic",
    "topics",
    "tag",
    "tags",
    "label",
    "labels",
    "task",
    "type",
    "model",
    "date",
    "timestamp",
    "metadata",
    "meta",
];

/// Endings of such names.
const LABEL_ENDS: [&str; 12] = [
    "id", "ids", "idx", "uuid", "hash", "url", "name", "source", "type", "category", "model",
    "date",
];

/// Whether a field that is not used may be left out: it is empty, a number, one word, or by its name a label.
pub(in crate::data) fn says_nothing(name: &str, value: &Value) -> bool {
    let name = name.to_lowercase();
    let empty = value.len() == Some(0) || value.is_none() || value.is_undefined();
    if empty || MEANING.contains(&name.as_str()) {
        return empty;
    }
    let ends = name
        .rsplit_once('_')
        .is_some_and(|(_, end)| LABEL_ENDS.contains(&end));
    if ends || LABELS.contains(&name.as_str()) {
        return true;
    }
    match value.kind() {
        ValueKind::Bool | ValueKind::Number => true,
        ValueKind::String => value
            .as_str()
            .is_some_and(|text| !text.trim().contains(char::is_whitespace)),
        ValueKind::Seq => value
            .try_iter()
            .is_ok_and(|mut items| items.all(|item| says_nothing(&name, &item))),
        ValueKind::Map => pairs(value).all(|(name, item)| says_nothing(&name, &item)),
        _ => false,
    }
}
