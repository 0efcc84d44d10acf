//! In which settings two configurations differ, and which of these decide a run's numbers.

use std::collections::BTreeMap;

use serde_json::Value;

/// A setting that two configurations give different values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Key, as `--set` takes it.
    pub key: String,
    /// Value in the first, empty where it has none.
    pub first: String,
    /// Value in the second, empty where it has none.
    pub second: String,
    /// Whether it decides the numbers of a run, beyond their last bits.
    pub decides_numbers: bool,
}

/// Every setting in which two configurations, as JSON, differ, sorted by key.
pub fn differences(first: &Value, second: &Value) -> Vec<Difference> {
    let (first, second) = (flat(first), flat(second));
    let mut keys: Vec<&String> = first.keys().chain(second.keys()).collect();
    keys.sort();
    keys.dedup();
    let value =
        |of: &BTreeMap<String, String>, key: &String| of.get(key).cloned().unwrap_or_default();
    let hashed = |of: &BTreeMap<String, String>| of.contains_key("model.hash");
    let all = keys.into_iter().map(|key| Difference {
        key: key.clone(),
        first: value(&first, key),
        second: value(&second, key),
        // Of a model in files the hash tells what it is, of any other its name.
        decides_numbers: match key.as_str() {
            "model.pretrained" => !(hashed(&first) && hashed(&second)),
            key => decides_numbers(key),
        },
    });
    all.filter(|difference| difference.first != difference.second)
        .collect()
}

/// Whether a setting decides the numbers of a run beyond their last bits. Those that do not are where and how it is
/// computed, how often it is saved, what is looked at, and where files lie whose content is hashed.
fn decides_numbers(key: &str) -> bool {
    let how = [
        "device",
        "threads",
        "training.checkpoint_seconds",
        "training.concurrent_arms",
        "training.generation_bytes",
        "training.micro_batch",
        "training.recompute",
        "training.samples",
        "replay.call_deadline_seconds",
    ];
    let files = key.starts_with("data.") && (key.contains(".files") || key.ends_with(".file"));
    !how.contains(&key) && !key.starts_with("verdict.") && !files
}

/// Every value by its dotted key; an item of a list goes by its name where it has one.
fn flat(root: &Value) -> BTreeMap<String, String> {
    fn walk(key: &str, value: &Value, into: &mut BTreeMap<String, String>) {
        let below = |name: &str| match key.is_empty() {
            true => name.to_owned(),
            false => format!("{key}.{name}"),
        };
        match value {
            Value::Object(map) => map
                .iter()
                .for_each(|(name, value)| walk(&below(name), value, into)),
            Value::Array(items) if items.iter().any(Value::is_object) => {
                for (i, item) in items.iter().enumerate() {
                    let name = item.get("name").and_then(Value::as_str);
                    walk(&below(name.unwrap_or(&i.to_string())), item, into);
                }
            }
            Value::Null => {}
            Value::String(text) => drop(into.insert(key.to_owned(), text.clone())),
            // 1 and 1.0 are one number.
            Value::Number(number) => {
                let text = number
                    .as_f64()
                    .map_or_else(|| number.to_string(), |n| n.to_string());
                into.insert(key.to_owned(), text);
            }
            other => drop(into.insert(key.to_owned(), other.to_string())),
        }
    }
    let mut all = BTreeMap::new();
    walk("", root, &mut all);
    all
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::{Overrides, resolve};
    use super::*;

    /// A run that goes on under other settings would be neither the one nor the other.
    #[test]
    fn a_changed_setting_is_named_with_both_values() {
        let config = |set: &[(&str, &str)]| {
            let set = set.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
            let overrides = Overrides {
                set: set.collect(),
                ..Overrides::default()
            };
            serde_json::to_value(resolve("toy-continual", &overrides).unwrap()).unwrap()
        };
        let before = config(&[]);
        let after = config(&[
            ("optimizer.lr", "1e-4"),
            ("phases.sort.steps", "7"),
            ("bos-prompted.prompt", "x"),
            ("precision", "bf16"),
            ("threads", "1000"),
        ]);
        let all = differences(&before, &after);
        let keys: Vec<&str> = all.iter().map(|d| d.key.as_str()).collect();
        assert_eq!(
            keys,
            [
                "arms.3.settings.prompt",
                "optimizer.lr",
                "phases.1.steps",
                "precision",
                "threads"
            ]
        );
        assert_eq!((&*all[1].first, &*all[1].second), ("0.003", "0.0001"));
        assert_eq!((&*all[0].first, &*all[0].second), ("", "x"));
        let decide: Vec<bool> = all.iter().map(|d| d.decides_numbers).collect();
        assert_eq!(decide, [true, true, true, true, false]);
        assert!(decides_numbers("data.datasets.english.hash"));
        assert!(!decides_numbers("data.datasets.english.files"));
        assert!(!decides_numbers("verdict.margin"));
        assert!(differences(&before, &before).is_empty());
    }

    #[test]
    fn a_model_is_told_by_the_hash_of_its_files_or_else_by_its_name() {
        let decides = |first: Value, second: Value| {
            let all = differences(&json!({ "model": first }), &json!({ "model": second }));
            all.iter().any(|difference| difference.decides_numbers)
        };
        let file = |path: &str, hash: &str| json!({ "pretrained": path, "hash": hash });
        let named = |name: &str| json!({ "pretrained": name });
        assert!(!decides(file("/a.gguf", "1"), file("/b.gguf", "1")));
        assert!(decides(file("/a.gguf", "1"), file("/b.gguf", "2")));
        assert!(decides(named("a/b@1"), named("a/c@1")));
        assert!(decides(named("a/b@1"), file("/a.gguf", "1")));
    }
}
