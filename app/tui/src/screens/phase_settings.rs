//! Settings of the finetuning phases that an arm has for itself: their fields, and what may be typed there.

use forgetlab_study::experiment::{
    ArmSpec, PHASE_SETTINGS, RunConfig, SpecError, settle_arms, shortest,
};

use crate::widgets::form::{Field, Input};

use super::setting_help::about;

/// Values of a key in the phases of a run after the first, as text; several where phases differ.
pub fn of_run(run: &RunConfig, key: &str) -> Vec<String> {
    let Ok(root) = toml::Value::try_from(run) else {
        return Vec::new();
    };
    let later = run.phases.iter().skip(1);
    if let Some(of_phase) = key.strip_prefix("phases.") {
        let (dataset, name) = match of_phase.rsplit_once('.') {
            Some((dataset, name)) => (Some(dataset), name),
            None => (None, of_phase),
        };
        let phases = root.get("phases").and_then(toml::Value::as_array);
        let named = later.zip(phases.into_iter().flatten().skip(1));
        let named = named.filter(|(phase, _)| dataset.is_none_or(|name| phase.dataset == name));
        let mut values: Vec<String> = named.filter_map(|(_, v)| v.get(name).map(plain)).collect();
        values.dedup();
        return values;
    }
    let value = key
        .split_once('.')
        .and_then(|(section, name)| root.get(section)?.get(name));
    let value = value.filter(|_| later.count() > 0);
    value.map(plain).into_iter().collect()
}

/// A value as it is typed: strings without quotes, numbers in their shortest form.
fn plain(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Float(number) => shortest(*number),
        other => other.to_string(),
    }
}

/// The field of a setting of the phases; empty, it is the run's.
pub fn phase_field(run: &RunConfig, key: &str, arm: &ArmSpec) -> Field {
    let default = of_run(run, key).join(", ");
    let short = PHASE_SETTINGS.iter().find(|setting| setting.key == key);
    let of_all = key.strip_prefix("phases.").and_then(|key| {
        let (dataset, name) = key.rsplit_once('.')?;
        Some((format!("phases.{name}"), format!("the phase of {dataset}")))
    });
    let (setting, phases) =
        of_all.unwrap_or_else(|| (key.into(), "the phases after the first".into()));
    let of_run = match default.as_str() {
        "" => "none",
        some => some,
    };
    Field {
        label: short.map_or(key, |setting| setting.short).to_owned(),
        help: format!(
            "{} For this arm alone, in {phases} ({key}). Empty: the run's, {of_run}.",
            about(&setting)
        ),
        input: Input::Text {
            value: arm.phases.get(key).map(plain).unwrap_or_default(),
            default,
        },
        error: None,
    }
}

/// The value typed for a setting of the phases; `None` where it is the run's own.
///
/// # Errors
/// Why the run would not take it.
pub fn phase_value(run: &RunConfig, key: &str, text: &str) -> Result<Option<toml::Value>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let wrong = |problem: String| format!("{key}: `{text}` is not taken: {problem}");
    let parsed = ArmSpec::parse(&format!("none+{key}={text}"), run.replay.coeff);
    let mut parsed = parsed.map_err(|error| wrong(problem(&error)))?;
    let value = parsed.phases.remove(key);
    let value = value.filter(|_| parsed.phases.is_empty() && parsed.settings.is_empty());
    let mut arm = ArmSpec::plain();
    arm.phases
        .extend(value.map(|value| (key.to_owned(), value)));
    match arm.phases.is_empty() {
        true => Err(wrong("it is more than one value".into())),
        false => Ok(settled(run, &arm).map_err(wrong)?.phases.remove(key)),
    }
}

/// An arm as the run takes it, without settings that are the run's own.
///
/// # Errors
/// Why the run would not take it.
pub fn settled(run: &RunConfig, arm: &ArmSpec) -> Result<ArmSpec, String> {
    let mut config = RunConfig {
        arms: vec![arm.clone()],
        ..run.clone()
    };
    settle_arms(&mut config).map_err(|error| problem(&error))?;
    Ok(config.arms.remove(0))
}

/// What is wrong with an arm, without its name.
fn problem(error: &SpecError) -> String {
    match error {
        SpecError::Arm { problem, .. } => problem.clone(),
        other => other.to_string(),
    }
}
