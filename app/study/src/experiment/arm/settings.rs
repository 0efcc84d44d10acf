//! Settings of the finetuning phases that an arm may have for itself, and the configuration they make.

use serde::Deserialize;
use toml::Value;

use super::super::RunConfig;
use super::super::phase::{LENGTHS, WARM_UPS};
use super::ArmSpec;

/// A setting of the finetuning phases that may differ by arm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PhaseSetting {
    /// Name in an arm, e.g. `lr`.
    pub short: &'static str,
    /// Key in the configuration, e.g. `optimizer.lr`.
    pub key: &'static str,
}

const fn setting(short: &'static str, key: &'static str) -> PhaseSetting {
    PhaseSetting { short, key }
}

/// The settings of the finetuning phases that may differ by arm, in the order of an arm's name. `phases.steps` are
/// the steps of each phase after the first; `phases.DATASET.steps` are those of one, and so with all of a phase's.
pub const PHASE_SETTINGS: [PhaseSetting; 18] = [
    setting("lr", "optimizer.lr"),
    setting("warmup", "optimizer.warmup_steps"),
    setting("schedule", "optimizer.schedule"),
    setting("beta1", "optimizer.beta1"),
    setting("beta2", "optimizer.beta2"),
    setting("eps", "optimizer.eps"),
    setting("weight_decay", "optimizer.weight_decay"),
    setting("batch", "training.batch_size"),
    setting("replay_batch", "replay.batch_size"),
    setting("lora_rank", "model.lora_rank"),
    setting("lora_alpha", "model.lora_alpha"),
    setting("steps", "phases.steps"),
    setting("target_loss", "phases.target_loss"),
    setting("patience", "phases.patience"),
    setting("seconds", "phases.seconds"),
    setting("tokens", "phases.tokens"),
    setting("epochs", "phases.epochs"),
    setting("joint", "phases.joint"),
];

/// The last parts of the keys that are of the phases themselves.
fn of_phases() -> impl Iterator<Item = &'static str> {
    let keys = PHASE_SETTINGS.iter().map(|setting| setting.key);
    keys.filter_map(|key| key.strip_prefix("phases."))
}

/// Dataset and setting of a key for one phase, `phases.DATASET.SETTING`.
pub(super) fn of_one_phase(key: &str) -> Option<(&str, &str)> {
    let (dataset, name) = key.strip_prefix("phases.")?.rsplit_once('.')?;
    of_phases()
        .any(|known| known == name)
        .then_some((dataset, name))
}

impl RunConfig {
    /// The configuration of an arm: the run's, with the arm's own settings in the phases after the first.
    ///
    /// # Errors
    /// In words, where a setting does not exist here or takes no such value.
    pub fn of_arm(&self, arm: &ArmSpec) -> Result<Self, String> {
        if arm.phases.is_empty() {
            return Ok(self.clone());
        }
        let mut root = Value::try_from(self).map_err(|error| error.to_string())?;
        // One phase's settings hold against those of all.
        let of_one = |key: &str| of_one_phase(key).is_some();
        let (one, all): (Vec<_>, Vec<_>) = arm.phases.iter().partition(|(key, _)| of_one(key));
        for (key, value) in all.into_iter().chain(one) {
            place(&mut root, key, value, self)?;
            // Each alone, so that an error has its key.
            Self::deserialize(root.clone())
                .map_err(|error| format!("{key} = {value}: {}", error.message().trim_end()))?;
        }
        Self::deserialize(root).map_err(|error| error.message().trim_end().to_owned())
    }

    /// Writes the settings of each arm as the configuration reads them, and leaves out those that are the run's own.
    ///
    /// # Errors
    /// The arm's name with what is wrong, in words.
    pub(in super::super) fn normalise_arms(&mut self) -> Result<(), (String, String)> {
        let mut arms = std::mem::take(&mut self.arms);
        let base = Value::try_from(&*self).map_err(|error| (String::new(), error.to_string()))?;
        for arm in &mut arms {
            let of_arm = self
                .of_arm(arm)
                .and_then(|config| Value::try_from(config).map_err(|error| error.to_string()));
            let of_arm = of_arm.map_err(|problem| (arm.name(), problem))?;
            let keys: Vec<String> = arm.phases.keys().cloned().collect();
            for key in keys.iter().filter(|key| !key.starts_with("phases.")) {
                let same = |key: &str| in_phases(&of_arm, key) == in_phases(&base, key);
                let is_warm_up = key == "optimizer.warmup_steps";
                if same(key) && (!is_warm_up || same("optimizer.warmup_tokens")) {
                    arm.phases.remove(key);
                } else if let Some(value) = read(&of_arm, key) {
                    arm.phases.insert(key.clone(), value.clone());
                }
            }
            arm.phases.retain(|key, _| !key.starts_with("phases."));
            let own = of_phases().flat_map(|name| own_of_phases(&base, &of_arm, name));
            arm.phases.extend(own);
            arm.coeff = arm.coeff.map(|coeff| coeff + 0.0);
        }
        self.arms = arms;
        Ok(())
    }
}

/// Sets a key of a configuration in the phases after the first.
fn place(root: &mut Value, key: &str, value: &Value, config: &RunConfig) -> Result<(), String> {
    let unknown = || format!("`{key}` is no setting of this run's finetuning phases");
    if let Some(of_phase) = key.strip_prefix("phases.") {
        let (dataset, name) = match of_one_phase(key) {
            Some((dataset, name)) => (Some(dataset), name),
            None => (None, of_phase),
        };
        let named = |phase: &&mut Value| {
            dataset.is_none_or(|name| phase.get("dataset").and_then(Value::as_str) == Some(name))
        };
        let mut any = false;
        for phase in later_mut(root)
            .filter(named)
            .filter_map(Value::as_table_mut)
        {
            if LENGTHS.contains(&name) {
                // A phase has one length.
                LENGTHS
                    .iter()
                    .for_each(|length| drop(phase.remove(*length)));
            }
            phase.insert(name.into(), value.clone());
            any = true;
        }
        let first = config.phases.first().map(|phase| phase.dataset.as_str());
        return match any {
            true => Ok(()),
            false if dataset.is_some() && dataset == first => Err(format!(
                "`{key}`: the first phase is shared by all arms; arms may differ in the others"
            )),
            false => Err(unknown()),
        };
    }
    if config.phases.len() < 2 {
        return Err(format!(
            "`{key}`: the only phase is shared by all arms; arms differ in the phases after the first"
        ));
    }
    let (section, name) = key.split_once('.').ok_or_else(unknown)?;
    let table = root.get_mut(section).and_then(Value::as_table_mut);
    let table = table.ok_or_else(unknown)?;
    // A warm-up has one length.
    let all = match WARM_UPS.contains(&name) {
        true => &WARM_UPS[..],
        false => &[name][..],
    };
    let of_run = all
        .iter()
        .filter_map(|name| Some((*name, table.remove(*name)?)))
        .collect();
    table.insert(name.to_owned(), value.clone());
    keep_in_first(root, section, of_run);
    // The arm's own holds against what the phases have for themselves.
    for phase in later_mut(root).filter_map(Value::as_table_mut) {
        let own = match section {
            "training" => Some(phase),
            section => phase.get_mut(section).and_then(Value::as_table_mut),
        };
        if let Some(own) = own {
            all.iter().for_each(|name| drop(own.remove(*name)));
        }
    }
    Ok(())
}

/// Gives the first phase for itself what the run has, where phases can have it and it has none of its own: its length
/// may depend on it.
fn keep_in_first(root: &mut Value, section: &str, of_run: Vec<(&str, Value)>) {
    let phases = root.get_mut("phases").and_then(Value::as_array_mut);
    let first = phases.and_then(|phases| phases.first_mut()?.as_table_mut());
    let Some(first) = first else {
        return;
    };
    let own = match section {
        "training" if of_run.iter().all(|(name, _)| *name == "batch_size") => Some(first),
        "optimizer" => first
            .entry(section)
            .or_insert_with(|| toml::Table::new().into())
            .as_table_mut(),
        _ => None,
    };
    if let Some(own) = own
        && !of_run.iter().any(|(name, _)| own.contains_key(*name))
    {
        own.extend(of_run.into_iter().map(|(name, value)| (name.into(), value)));
    }
}

/// The phases after the first.
fn later_mut(root: &mut Value) -> impl Iterator<Item = &mut Value> {
    let phases = root.get_mut("phases").and_then(Value::as_array_mut);
    phases.into_iter().flatten().skip(1)
}

fn later(root: &Value) -> impl Iterator<Item = &Value> {
    let phases = root.get("phases").and_then(Value::as_array);
    phases.into_iter().flatten().skip(1)
}

/// A setting of the phases after the first that is not the run's, in one way: a key for all of them where they are
/// all the same, else one for each phase that differs.
fn own_of_phases(run: &Value, own: &Value, name: &str) -> Vec<(String, Value)> {
    let of = |root: &Value| -> Vec<(String, Option<Value>)> {
        let phase = |phase: &Value| {
            let dataset = phase.get("dataset")?.as_str()?;
            let key = format!("phases.{dataset}.{name}");
            Some((key, phase.get(name).cloned()))
        };
        later(root).filter_map(phase).collect()
    };
    let (run, own) = (of(run), of(own));
    if own == run {
        return Vec::new();
    }
    match own.split_first() {
        Some(((_, Some(first)), rest)) if rest.iter().all(|(_, v)| v.as_ref() == Some(first)) => {
            vec![(format!("phases.{name}"), first.clone())]
        }
        _ => own
            .into_iter()
            .zip(run)
            .filter(|(own, run)| own != run)
            .filter_map(|((key, value), _)| Some((key, value?)))
            .collect(),
    }
}

/// The value of a key in each of the phases after the first.
fn in_phases<'a>(root: &'a Value, key: &str) -> Vec<Option<&'a Value>> {
    let of_run = read(root, key);
    let own = |phase: &'a Value| match key.strip_prefix("training.") {
        Some(name) => phase.get(name),
        None => read(phase, key),
    };
    later(root).map(|phase| own(phase).or(of_run)).collect()
}

/// The value of a key.
fn read<'a>(root: &'a Value, key: &str) -> Option<&'a Value> {
    let (section, name) = key.split_once('.')?;
    root.get(section)?.get(name)
}
