//! In which settings runs of one experiment differ, in few words.

use std::collections::{BTreeMap, BTreeSet};

use toml::{Table, Value};

/// Settings that have a column of their own, or follow from others.
const ELSEWHERE: [&str; 4] = ["experiment", "preset", "seeds", "arms"];

/// A run's settings and the names of its arms.
pub struct Settings<'a> {
    /// Its `config.toml`.
    pub config: &'a Table,
    /// Names of its arms, each once.
    pub arms: BTreeSet<&'a str>,
}

/// For each run what tells it from the others of the same experiment and preset: settings in which these differ
/// (`lr=1e-4`), and arms that not all of them have (`+none:kl-new:1`).
pub fn differing(runs: &[Settings]) -> Vec<Vec<String>> {
    let kind = |run: &Settings| {
        ["experiment", "preset"].map(|key| run.config.get(key).map(Value::to_string))
    };
    let mut told = vec![Vec::new(); runs.len()];
    let kinds: BTreeSet<_> = runs.iter().map(kind).collect();
    for of_kind in kinds {
        let members = (0..runs.len()).filter(|&i| kind(&runs[i]) == of_kind);
        let members: Vec<usize> = members.collect();
        let flat: Vec<_> = members.iter().map(|&i| flatten(runs[i].config)).collect();
        let keys: BTreeSet<&String> = flat.iter().flat_map(BTreeMap::keys).collect();
        let differing =
            |key: &&&String| flat.iter().any(|run| run.get(**key) != flat[0].get(**key));
        let keys: Vec<&String> = keys.iter().filter(differing).copied().collect();
        for (&member, flat) in members.iter().zip(&flat) {
            let all_have = |arm: &&&str| members.iter().all(|&i| runs[i].arms.contains(**arm));
            told[member] = in_words(&keys, flat);
            let extra = runs[member].arms.iter().filter(|arm| !all_have(arm));
            told[member].extend(extra.map(|arm| format!("+{arm}")));
        }
    }
    told
}

/// The values of some settings. One that is the same in all of its places is told once, by its last word.
fn in_words(keys: &[&String], run: &BTreeMap<String, String>) -> Vec<String> {
    let last = |key: &str| key.rsplit('.').next().unwrap_or(key).to_owned();
    let mut told: Vec<String> = Vec::new();
    for key in keys {
        let Some(value) = run.get(*key) else { continue };
        let namesakes = keys.iter().filter(|other| last(other) == last(key));
        let same = namesakes
            .into_iter()
            .all(|other| run.get(*other) == Some(value));
        let name = if same {
            last(key)
        } else {
            // The section is told by what stands in it.
            key.split_once('.')
                .map_or(key.as_str(), |(_, rest)| rest)
                .to_owned()
        };
        let text = format!("{name}={value}");
        if !told.contains(&text) {
            told.push(text);
        }
    }
    told
}

/// Every setting by its dotted key.
fn flatten(config: &Table) -> BTreeMap<String, String> {
    let mut flat = BTreeMap::new();
    for (key, value) in config {
        if !ELSEWHERE.contains(&key.as_str()) {
            add(key, value, &mut flat);
        }
    }
    flat
}

fn add(key: &str, value: &Value, flat: &mut BTreeMap<String, String>) {
    match value {
        Value::Table(table) => {
            // Hashes follow from the files.
            for (name, value) in table.iter().filter(|(name, _)| *name != "hash") {
                add(&format!("{key}.{name}"), value, flat);
            }
        }
        Value::Array(items) if items.iter().any(Value::is_table) => {
            for (i, item) in items.iter().enumerate() {
                let name = ["dataset", "name"]
                    .iter()
                    .find_map(|name| item.get(name)?.as_str());
                let name = name.map_or_else(|| i.to_string(), str::to_owned);
                add(&format!("{key}.{name}"), item, flat);
            }
        }
        Value::String(text) => {
            flat.insert(key.to_owned(), text.clone());
        }
        Value::Float(x) => {
            flat.insert(key.to_owned(), short(*x));
        }
        value => {
            flat.insert(key.to_owned(), value.to_string());
        }
    }
}

/// A number as it is mostly written: `0.003`, `1e-4`.
fn short(x: f64) -> String {
    let (plain, scientific) = (format!("{x}"), format!("{x:e}"));
    if scientific.len() + 1 < plain.len() {
        scientific
    } else {
        plain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Table {
        let common = "experiment = 'e'\npreset = 'p'\nseeds = [0]\n";
        toml::from_str(&format!("{common}{text}")).unwrap()
    }

    fn told(configs: &[Table], arms: &[&[&'static str]]) -> Vec<String> {
        let runs = configs.iter().zip(arms).map(|(config, arms)| Settings {
            config,
            arms: arms.iter().copied().collect(),
        });
        let runs: Vec<Settings> = runs.collect();
        differing(&runs)
            .iter()
            .map(|words| words.join(", "))
            .collect()
    }

    /// Else ten runs of one experiment would be ten lines that look the same.
    #[test]
    fn runs_are_told_apart_by_what_differs_between_them() {
        let phases = |a: u64, b: u64| {
            format!(
                "[optimizer]\nlr = 0.003\nbeta = 0.9\n\
                 [[phases]]\ndataset = 'x'\nsteps = {a}\n[[phases]]\ndataset = 'y'\nsteps = {b}\n"
            )
        };
        let plain = config(&phases(10, 10));
        let low = config(&phases(10, 10).replace("0.003", "0.0001"));
        let long = config(&phases(400, 400));
        let one_long = config(&phases(10, 400));
        let arms: &[&[&str]] = &[&["none"], &["none", "true-data:kl:10"]];
        assert_eq!(
            told(&[plain.clone(), plain.clone()], &[&["none"], &["none"]]),
            ["", ""]
        );
        assert_eq!(
            told(&[plain.clone(), low], arms),
            ["lr=0.003", "lr=1e-4, +true-data:kl:10"]
        );
        assert_eq!(
            told(&[plain.clone(), long], &[&["none"], &["none"]]),
            ["steps=10", "steps=400"]
        );
        assert_eq!(
            told(&[plain.clone(), one_long], &[&["none"], &["none"]]),
            ["steps=10", "steps=400"]
        );
        let mut other = plain.clone();
        other.insert("preset".into(), "q".into());
        other.insert("threads".into(), 7.into());
        assert_eq!(
            told(&[plain, other], arms),
            ["", ""],
            "another preset is another thing"
        );
    }
}
