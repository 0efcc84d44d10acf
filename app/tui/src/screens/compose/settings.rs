//! Every setting of a run, with the preset's value and the user's.

use std::collections::BTreeMap;

use forgetlab_study::experiment::{Overrides, RunConfig, resolve, settings};

/// A setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Key, as `--set` takes it.
    pub key: String,
    /// Value as TOML.
    pub value: String,
    /// Whether that is not the preset's.
    pub changed: bool,
}

/// The settings of the form.
#[derive(Debug, Default)]
pub struct Settings {
    /// Words that are searched for.
    pub search: String,
    /// What the run would do, but for device, seeds and arms.
    config: Option<RunConfig>,
    /// Values that are not the preset's.
    changes: BTreeMap<String, String>,
    all: Vec<Setting>,
}

/// Settings that the form has rows of its own for, or that no user sets.
const ELSEWHERE: [&str; 3] = ["seeds", "device", "model.hash"];

impl Settings {
    /// Those of a preset.
    pub fn new(preset: &RunConfig) -> Self {
        let mut new = Self::default();
        new.read(preset.clone());
        new
    }

    fn read(&mut self, config: RunConfig) {
        let all = settings(&config).into_iter();
        let all = all.filter(|(key, _)| !ELSEWHERE.contains(&key.as_str()));
        let setting = |(key, value): (String, String)| Setting {
            changed: self.changes.contains_key(&key),
            value: self.changes.get(&key).cloned().unwrap_or(value),
            key,
        };
        self.all = all.map(setting).collect();
        self.config = Some(config);
    }

    /// Takes over the values of a configuration that are not the preset's.
    pub fn take(&mut self, preset: &RunConfig, config: &RunConfig) {
        let own: BTreeMap<String, String> = settings(preset).into_iter().collect();
        for (key, value) in settings(config) {
            let elsewhere = ELSEWHERE.contains(&key.as_str());
            if !elsewhere && !value.is_empty() && own.get(&key) != Some(&value) {
                self.changes.insert(key, value);
            }
        }
        self.read(config.clone());
    }

    /// Gives a setting another value; an empty one is the preset's.
    ///
    /// # Errors
    /// Why it cannot have this value.
    pub fn set(
        &mut self,
        experiment: &str,
        preset: &str,
        key: &str,
        value: &str,
    ) -> Result<(), String> {
        let mut changes = self.changes.clone();
        match value.trim() {
            "" => drop(changes.remove(key)),
            value => drop(changes.insert(key.to_owned(), value.to_owned())),
        }
        let overrides = Overrides {
            preset: Some(preset.to_owned()),
            set: changes.clone().into_iter().collect(),
            ..Overrides::default()
        };
        let config = resolve(experiment, &overrides).map_err(|error| error.to_string())?;
        self.changes = changes;
        self.read(config);
        Ok(())
    }

    /// The settings that hold every word searched for: changed ones first, those without a value of their own last.
    pub fn shown(&self) -> Vec<&Setting> {
        let words = self.search.to_lowercase();
        let words: Vec<&str> = words.split_whitespace().collect();
        let holds = |setting: &&Setting| {
            let key = setting.key.to_lowercase();
            words.iter().all(|word| key.contains(word))
        };
        let mut shown: Vec<&Setting> = self.all.iter().filter(holds).collect();
        shown.sort_by_key(|setting| (!setting.changed, setting.value.is_empty()));
        shown
    }

    /// What the run would do, but for device, seeds and arms; `None` before a preset is chosen.
    pub fn config(&self) -> Option<&RunConfig> {
        self.config.as_ref()
    }

    /// Key and value of every setting that is not the preset's.
    pub fn changed(&self) -> Vec<(String, String)> {
        self.changes.clone().into_iter().collect()
    }
}
