//! From an experiment's name and the command line to a fully resolved configuration.

use std::path::Path;
use std::thread;

use serde::Deserialize;
use toml::Value;

use super::arm::{insert, parse_value};
use super::phase::{LENGTHS, PHASE_KEYS};
use super::{
    ArmSpec, AxisSpec, GridSpec, MARGIN_ERROR, PHASE_SETTINGS, Precision, Preset, RunConfig,
    SpecError, VerdictSpec, experiment, nearest, validate,
};

/// Changes to an experiment from the command line or the lab's form.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overrides {
    /// Preset; `None` for the experiment's default.
    pub preset: Option<String>,
    /// Arms as `STRATEGY[:OBJECTIVE[:COEFF]][+KEY=VALUE]…`; empty for the preset's.
    pub arms: Vec<String>,
    /// Settings as (dotted key, TOML value), in order.
    pub set: Vec<(String, String)>,
    /// Seeds; empty for the default (of an earlier run, its own).
    pub seeds: Vec<u64>,
    /// `cpu`, `cuda` or `cuda:N`.
    pub device: Option<String>,
    /// CPU threads of the engine.
    pub threads: Option<usize>,
    /// Axes of a sweep, in place of the preset's of the same key, or beside them.
    pub axes: Vec<AxisSpec>,
}

/// Resolves an experiment by name, or the configuration of an earlier run by the path of its
/// `config.toml` or its folder, with overrides.
///
/// Strategy names and settings are not checked here: that is the plugin host's part.
pub fn resolve(experiment: &str, overrides: &Overrides) -> Result<RunConfig, SpecError> {
    let (config, arm_texts, _) = from_anywhere(experiment, overrides)?;
    resolve_from(config, arm_texts, overrides)
}

/// The configuration of a file, or a preset without its arms, with the arms as text and its grids.
pub(super) fn from_anywhere(
    experiment: &str,
    overrides: &Overrides,
) -> Result<(RunConfig, Vec<String>, Vec<GridSpec>), SpecError> {
    match looks_like_path(experiment) {
        true => Ok((from_file(experiment, overrides)?, Vec::new(), Vec::new())),
        false => {
            let (mut config, arms, grids) = from_preset(experiment, overrides)?;
            let mut set = overrides.set.iter().rev();
            let set = set.find(|(key, _)| key == "device");
            let device = set.map(|(_, value)| value).or(overrides.device.as_ref());
            let device = device.unwrap_or(&config.device).clone();
            config.precision = default_precision(&config, &device);
            Ok((config, arms, grids))
        }
    }
}

/// Applies overrides, but the preset, to a configuration whose arms may still be texts.
pub(super) fn resolve_from(
    mut config: RunConfig,
    arm_texts: Vec<String>,
    overrides: &Overrides,
) -> Result<RunConfig, SpecError> {
    if !overrides.seeds.is_empty() {
        config.seeds.clone_from(&overrides.seeds);
    }
    if let Some(device) = &overrides.device {
        config.device.clone_from(device);
    }
    if let Some(threads) = overrides.threads {
        config.threads = threads;
    }
    // The arms come before the settings that name them, and after the coefficient they default to.
    let (of_arms, of_config): (Vec<_>, Vec<_>) = overrides
        .set
        .iter()
        .partition(|(key, _)| is_about_arms(key));
    for (key, value) in of_config {
        config = set(config, key, value)?;
    }
    let arm_texts = if overrides.arms.is_empty() {
        arm_texts
    } else {
        overrides.arms.clone()
    };
    if !arm_texts.is_empty() {
        config.arms = arms(&arm_texts, config.replay.coeff)?;
    }
    for (key, value) in of_arms {
        set_of_arms(&mut config, key, value)?;
    }
    settle_arms(&mut config)?;
    Ok(config)
}

/// Gives every arm its one name, and checks the configuration.
///
/// # Errors
/// Where an arm has a setting that it cannot have, two are the same, or a value is none.
pub fn settle_arms(config: &mut RunConfig) -> Result<(), SpecError> {
    config
        .normalise_arms()
        .map_err(|(arm, problem)| SpecError::Arm { arm, problem })?;
    validate(config)
}

/// bf16 on GPUs, which multiply it an order of magnitude faster than f32; f32 on CPUs, which mostly
/// do not; f64 for a regression.
fn default_precision(config: &RunConfig, device: &str) -> Precision {
    match device {
        _ if config.regression().is_some() => Precision::F64,
        "cpu" => Precision::F32,
        _ => Precision::Bf16,
    }
}

/// Whether a text names a file or folder: by its looks, or because no experiment bears the name and the
/// folder of a run does.
fn looks_like_path(text: &str) -> bool {
    text.ends_with(".toml")
        || text.contains(['/', '\\'])
        || (experiment(text).is_err() && Path::new(text).join("config.toml").is_file())
}

fn from_file(path: &str, overrides: &Overrides) -> Result<RunConfig, SpecError> {
    if let Some(preset) = &overrides.preset {
        return Err(SpecError::value(
            "--preset",
            format!("`{preset}` goes with an experiment's name, not with the file {path}"),
        ));
    }
    // A run's folder stands for the configuration in it.
    let path = match Path::new(path) {
        folder if folder.is_dir() => folder.join("config.toml"),
        file => file.to_owned(),
    };
    let text = std::fs::read_to_string(&path).map_err(|source| SpecError::Read {
        path: path.clone(),
        source,
    })?;
    read(&text).map_err(|error| match error {
        ReadError::Toml(error) => SpecError::toml(path, &text, &error),
        ReadError::Arm(error) => error,
    })
}

enum ReadError {
    Toml(toml::de::Error),
    Arm(SpecError),
}

/// Reads a configuration; its arms may be written as on the command line.
fn read(text: &str) -> Result<RunConfig, ReadError> {
    let mut table: toml::Table = toml::from_str(text).map_err(ReadError::Toml)?;
    let coeff = table
        .get("replay")
        .and_then(|replay| number(replay.get("coeff")?));
    let Some(Value::Array(arms)) = table.get_mut("arms") else {
        return toml::from_str(text).map_err(ReadError::Toml);
    };
    if !arms.iter().any(Value::is_str) {
        // From the text, so that an error has its line.
        return toml::from_str(text).map_err(ReadError::Toml);
    }
    for arm in arms {
        if let Value::String(name) = arm {
            let spec = ArmSpec::parse(name, coeff.unwrap_or(1.0)).map_err(ReadError::Arm)?;
            *arm = Value::try_from(spec).map_err(|error| {
                let (arm, problem) = (name.clone(), error.to_string());
                ReadError::Arm(SpecError::Arm { arm, problem })
            })?;
        }
    }
    RunConfig::deserialize(Value::Table(table)).map_err(ReadError::Toml)
}

/// A number written with or without a decimal point.
fn number(value: &Value) -> Option<f64> {
    value.as_float().or(value.as_integer().map(|i| i as f64))
}

/// The preset without its arms, and the arms as text, since their default coefficient may still change.
fn from_preset(
    name: &str,
    overrides: &Overrides,
) -> Result<(RunConfig, Vec<String>, Vec<GridSpec>), SpecError> {
    let experiment = experiment(name)?;
    let preset_name = overrides
        .preset
        .as_deref()
        .unwrap_or(experiment.default_preset);
    let preset = experiment.preset(preset_name)?;
    let Preset {
        arms,
        model,
        data,
        optimizer,
        training,
        replay,
        phases,
        grids,
        ..
    } = preset;
    let mut config = RunConfig {
        experiment: experiment.name.to_owned(),
        preset: preset_name.to_owned(),
        seeds: vec![0],
        device: "cpu".to_owned(),
        threads: thread::available_parallelism().map_or(1, usize::from),
        precision: Precision::default(),
        model,
        data,
        optimizer,
        training,
        replay,
        verdict: VerdictSpec::default(),
        phases,
        arms: Vec::new(),
    };
    if config.regression().is_some() {
        config.verdict.margin_error = Some(MARGIN_ERROR);
    }
    Ok((config, arms, grids))
}

fn arms(texts: &[String], coeff: f64) -> Result<Vec<ArmSpec>, SpecError> {
    texts
        .iter()
        .map(|text| ArmSpec::parse(text, coeff))
        .collect()
}

/// Sections of a configuration; other first parts of a `--set` key are strategy names.
const SECTIONS: [&str; 7] = [
    "model",
    "data",
    "optimizer",
    "training",
    "replay",
    "verdict",
    "phases",
];

fn is_about_arms(key: &str) -> bool {
    let first = key.split('.').next().unwrap_or_default();
    key.contains('.') && !SECTIONS.contains(&first)
}

/// Applies `--set section.key=value`.
fn set(config: RunConfig, key: &str, text: &str) -> Result<RunConfig, SpecError> {
    let bad = |problem: String| SpecError::Set {
        key: key.to_owned(),
        value: text.to_owned(),
        problem,
    };
    if matches!(key, "experiment" | "preset" | "arms") {
        return Err(bad(format!(
            "{key} is chosen on the command line, not with --set"
        )));
    }
    let value = parse_value(text).map_err(bad)?;
    let mut root = Value::try_from(&config).map_err(|error| bad(error.to_string()))?;
    let path: Vec<&str> = key.split('.').collect();
    let unknown = || {
        let known = known_keys(&config);
        SpecError::unknown("setting", key, known.iter().map(String::as_str))
    };
    if !add_to_phases(&mut root, key, &value) && !add_not_written(&mut root, key, &value) {
        for target in targets(&mut root, &path).ok_or_else(unknown)? {
            *target = value.clone();
        }
    }
    RunConfig::deserialize(root).map_err(|error| bad(error.message().trim_end().to_owned()))
}

/// Applies a key of the phases that they need not have; `false` where it is none, or names no phase.
fn add_to_phases(root: &mut Value, key: &str, value: &Value) -> bool {
    let Some(rest) = key.strip_prefix("phases.") else {
        return false;
    };
    let ends = |name: &&&str| rest == **name || rest.ends_with(&format!(".{name}"));
    // The longest: `optimizer.lr` and not `lr`.
    let Some(name) = PHASE_KEYS.iter().find(ends) else {
        return false;
    };
    let of = rest[..rest.len() - name.len()].trim_end_matches('.');
    let phases = root.get_mut("phases").and_then(Value::as_array_mut);
    let mut any = false;
    for (i, phase) in phases.into_iter().flatten().enumerate() {
        let named = of.is_empty() || of.parse() == Ok(i) || name_of(phase) == Some(of);
        if let Some(table) = phase.as_table_mut().filter(|_| named) {
            let path: Vec<&str> = name.split('.').collect();
            if LENGTHS.contains(name) {
                // A phase has one length.
                LENGTHS
                    .iter()
                    .for_each(|length| drop(table.remove(*length)));
            }
            any |= insert(table, &path, value.clone()).is_ok();
        }
    }
    any
}

/// Keys that are not written where they have their default.
const NOT_WRITTEN: [&str; 4] = [
    "training.eval_growth",
    "training.samples",
    "replay.fractions",
    "optimizer.warmup_tokens",
];

/// Applies one of them; `false` where it is another.
fn add_not_written(root: &mut Value, key: &str, value: &Value) -> bool {
    let known = NOT_WRITTEN.contains(&key).then(|| key.split_once('.'));
    let Some((section, name)) = known.flatten() else {
        return false;
    };
    let table = root.get_mut(section).and_then(Value::as_table_mut);
    table.is_some_and(|table| {
        table.insert(name.into(), value.clone());
        true
    })
}

/// The values that a dotted key refers to. In an array of tables, the next part is an index or a
/// dataset's name, or is left out to mean every table.
fn targets<'a>(value: &'a mut Value, path: &[&str]) -> Option<Vec<&'a mut Value>> {
    let Some((first, rest)) = path.split_first() else {
        return (!value.is_table()).then(|| vec![value]);
    };
    match value {
        Value::Table(table) => targets(table.get_mut(*first)?, rest),
        Value::Array(items) => {
            if let Ok(index) = first.parse::<usize>() {
                return targets(items.get_mut(index)?, rest);
            }
            let named = items.iter().any(|item| name_of(item) == Some(*first));
            let mut values = Vec::new();
            for item in items {
                if !named {
                    values.extend(targets(item, path)?);
                } else if name_of(item) == Some(*first) {
                    values.extend(targets(item, rest)?);
                }
            }
            Some(values)
        }
        _ => None,
    }
}

/// Name of an item of an array: a phase's dataset, or a dataset's name.
fn name_of(item: &Value) -> Option<&str> {
    let names = ["dataset", "name"].into_iter();
    names.filter_map(|key| item.get(key)?.as_str()).next()
}

/// Every setting that `--set` takes in a configuration, with its value as TOML; empty where phases differ or it is not
/// written.
pub fn settings(config: &RunConfig) -> Vec<(String, String)> {
    let Ok(mut root) = Value::try_from(config) else {
        return Vec::new();
    };
    let keys = known_keys(config).into_iter();
    let with_value = keys.map(|key| {
        let path: Vec<&str> = key.split('.').collect();
        let values = targets(&mut root, &path).unwrap_or_default();
        let mut values = values.into_iter().map(|value| value.to_string());
        let first = values.next().unwrap_or_default();
        let value = match values.all(|value| value == first) {
            true => first,
            false => String::new(),
        };
        (key, value)
    });
    with_value.collect()
}

/// Every key `--set` takes; those of phases without a name (for all) and with each dataset's name.
fn known_keys(config: &RunConfig) -> Vec<String> {
    fn walk(prefix: &str, value: &Value, keys: &mut Vec<String>) {
        match value {
            Value::Table(table) => {
                for (key, value) in table {
                    let dot = if prefix.is_empty() { "" } else { "." };
                    walk(&format!("{prefix}{dot}{key}"), value, keys);
                }
            }
            Value::Array(items) if items.first().is_some_and(Value::is_table) => {
                walk(prefix, &items[0], keys);
                for item in items {
                    if let Some(name) = name_of(item) {
                        walk(&format!("{prefix}.{name}"), item, keys);
                    }
                }
            }
            _ => keys.push(prefix.to_owned()),
        }
    }
    let mut keys = Vec::new();
    if let Ok(root) = Value::try_from(config) {
        walk("", &root, &mut keys);
    }
    keys.retain(|k| !k.starts_with("arms") && k != "experiment" && k != "preset");
    keys.extend(NOT_WRITTEN.map(String::from));
    for name in PHASE_KEYS {
        let names = config
            .phases
            .iter()
            .map(|phase| format!(".{}", phase.dataset));
        keys.extend(
            names
                .chain([String::new()])
                .map(|of| format!("phases{of}.{name}")),
        );
    }
    keys.sort();
    keys.dedup();
    keys
}

/// Applies `--set STRATEGY.key=value` to the settings of every arm of that strategy, or
/// `arms[.STRATEGY].KEY=value` to a setting of the phases after the first, `lr` or another short name.
fn set_of_arms(config: &mut RunConfig, key: &str, text: &str) -> Result<(), SpecError> {
    let bad = |problem: String| SpecError::Set {
        key: key.to_owned(),
        value: text.to_owned(),
        problem,
    };
    let value = parse_value(text).map_err(bad)?;
    let path: Vec<&str> = key.split('.').collect();
    if path[0] == "arms" {
        let (strategy, name) = match path[..] {
            [_, name] => (None, name),
            [_, strategy, name] => (Some(strategy), name),
            _ => (None, ""),
        };
        let Some(setting) = PHASE_SETTINGS.iter().find(|setting| setting.short == name) else {
            let known = PHASE_SETTINGS.iter().flat_map(|setting| {
                ["arms", "arms.STRATEGY"].map(|of| format!("{of}.{}", setting.short))
            });
            let known: Vec<String> = known.collect();
            let known = known.iter().map(String::as_str);
            return Err(SpecError::unknown("setting", key, known));
        };
        let mut any_set = false;
        for arm in &mut config.arms {
            if strategy.is_none_or(|s| s == arm.strategy) {
                arm.phases.insert(setting.key.to_owned(), value.clone());
                any_set = true;
            }
        }
        return if any_set {
            Ok(())
        } else {
            Err(unknown_strategy(config, path[1]))
        };
    }
    if !config.arms.iter().any(|arm| arm.strategy == path[0]) {
        // A slip in a section's name is likelier than a strategy that is not among the arms.
        let known = known_keys(config);
        return Err(match nearest(key, known.iter().map(String::as_str)) {
            Some(_) => SpecError::unknown("setting", key, known.iter().map(String::as_str)),
            None => unknown_strategy(config, path[0]),
        });
    }
    for arm in config.arms.iter_mut().filter(|arm| arm.strategy == path[0]) {
        insert(&mut arm.settings, &path[1..], value.clone()).map_err(bad)?;
    }
    Ok(())
}

fn unknown_strategy(config: &RunConfig, name: &str) -> SpecError {
    let arms = config.arms.iter().map(|arm| arm.strategy.as_str());
    SpecError::unknown(
        "section or strategy of this run's arms",
        name,
        arms.chain(SECTIONS),
    )
}

#[cfg(test)]
mod tests {
    use super::super::{Objective, experiments};
    use super::*;

    fn with(set: &[(&str, &str)]) -> Result<RunConfig, String> {
        let set = set
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        let overrides = Overrides {
            set,
            ..Overrides::default()
        };
        resolve("toy-continual", &overrides).map_err(|error| error.to_string())
    }

    /// A preset that does not resolve is an experiment nobody can run.
    #[test]
    fn every_preset_resolves_and_comes_back_from_its_file() {
        for experiment in experiments() {
            for preset in experiment.presets() {
                let overrides = Overrides {
                    preset: Some(preset.to_owned()),
                    ..Overrides::default()
                };
                let mut config = resolve(experiment.name, &overrides).unwrap();
                // How a setting was written is no setting.
                config.arms.iter_mut().for_each(|arm| arm.bare.clear());
                assert!(!config.arms.is_empty());
                let dir = tempfile::tempdir().unwrap();
                let path = dir.path().join("config.toml");
                std::fs::write(&path, toml::to_string(&config).unwrap()).unwrap();
                for path in [path.as_path(), dir.path()] {
                    let again = resolve(path.to_str().unwrap(), &Overrides::default()).unwrap();
                    assert_eq!(again, config);
                }
            }
        }
    }

    /// A setting that is taken but not applied would be a wrong result.
    #[test]
    fn settings_reach_their_place() {
        let config = with(&[
            ("optimizer.lr", "1"),
            ("optimizer.schedule", "cosine"),
            ("phases.steps", "7"),
            ("phases.sort.steps", "8"),
            ("phases.3.dataset", "add"),
            ("seeds", "[3, 4]"),
            ("replay.coeff", "0.5"),
            ("bos-prompted.prompt", "hello world"),
            ("bos-prompted.sampling.top_k", "40"),
            ("arms.true-data.lr", "1e-5"),
        ])
        .unwrap();
        assert_eq!(config.optimizer.lr, 1.0);
        assert_eq!(config.optimizer.schedule, super::super::Schedule::Cosine);
        assert_eq!(
            config.phases.iter().map(|p| p.steps).collect::<Vec<_>>(),
            [7, 8, 7, 7]
        );
        assert_eq!(config.phases[3].dataset, "add");
        assert_eq!(config.seeds, [3, 4]);
        let arm = |name: &str| config.arms.iter().find(|a| a.strategy == name).unwrap();
        assert_eq!(arm("true-data").coeff, Some(0.5));
        assert_eq!(
            arm("true-data").phases["optimizer.lr"].as_float(),
            Some(1e-5)
        );
        assert!(arm("none").phases.is_empty());
        let settings = &arm("bos-prompted").settings;
        assert_eq!(settings["prompt"].as_str(), Some("hello world"));
        assert_eq!(settings["sampling"]["top_k"].as_integer(), Some(40));
        assert!(arm("self-generated").settings.is_empty());
    }

    /// The order of options must not decide what a run does.
    #[test]
    fn given_arms_take_the_coefficient_and_the_settings() {
        let overrides = Overrides {
            arms: vec!["none".into(), "mine:ntp".into(), "mine:kl:2".into()],
            set: vec![
                ("mine.x".into(), "true".into()),
                ("replay.coeff".into(), "3".into()),
            ],
            seeds: vec![5],
            device: Some("cuda:1".into()),
            threads: Some(3),
            preset: Some("smoke".into()),
            axes: Vec::new(),
        };
        let config = resolve("toy-continual", &overrides).unwrap();
        assert_eq!(
            (config.seeds, config.device, config.threads),
            (vec![5], "cuda:1".into(), 3)
        );
        assert_eq!(config.precision, Precision::Bf16);
        assert_eq!(config.arms[1].objective, Some(Objective::Ntp));
        assert_eq!(config.arms[1].coeff, Some(3.0));
        assert_eq!(config.arms[2].coeff, Some(2.0));
        assert_eq!(config.arms[2].settings["x"].as_bool(), Some(true));
    }

    /// Every slip gets one message that leads to the right spelling.
    #[test]
    fn slips_name_the_near_miss() {
        for (key, value, expected) in [
            ("optimizer.lrr", "1", "did you mean `optimizer.lr`"),
            ("optimiser.lr", "1", "did you mean `optimizer.lr`"),
            ("modell.d_model", "64", "did you mean `model.d_model`"),
            ("phases.rotat.steps", "5", "did you mean"),
            ("phases.9.steps", "5", "unknown setting"),
            ("bos-promted.x", "1", "did you mean `bos-prompted`"),
            ("arms.lrr", "1", "did you mean `arms.lr`"),
            ("lr", "1", "unknown setting `lr`"),
            ("optimizer", "1", "unknown setting"),
            (
                "optimizer.lr",
                "fast",
                "--set optimizer.lr=fast: invalid type",
            ),
            (
                "optimizer.schedule",
                "linear",
                "expected `constant` or `cosine`",
            ),
            ("optimizer.lr", "[1", "not TOML"),
            ("experiment", "x", "command line"),
            (
                "model.d_model",
                "65",
                "model.d_model: 65 must be a multiple",
            ),
            ("model.head_dim", "15", "must be even"),
            ("model.n_layers", "0", "model.n_layers: must be at least 1"),
            ("phases.2.steps", "0", "phases.2.steps: must be at least 1"),
            ("phases.2.dataset", "sorted", "did you mean `sort`"),
            ("optimizer.lr", "nan", "optimizer.lr: NaN must be a finite"),
            ("optimizer.beta2", "1.0", "below 1"),
            ("data.held_out", "0", "between 0 and 1"),
            ("device", "gpu", "cpu, cuda or cuda:N"),
            ("seeds", "[1, 1]", "given twice"),
            ("seeds", "[]", "at least 1"),
            ("seeds", "[-1]", "--set seeds=[-1]"),
            ("threads", "0", "threads"),
            ("precision", "f16", "expected one of `f32`, `bf16`, `f64`"),
        ] {
            let error = with(&[(key, value)]).unwrap_err();
            assert!(error.contains(expected), "{key}={value}: {error}");
        }
        let named = |experiment: &str, preset: Option<&str>, arms: &[&str]| {
            let overrides = Overrides {
                preset: preset.map(str::to_owned),
                arms: arms.iter().map(|a| (*a).to_owned()).collect(),
                ..Overrides::default()
            };
            resolve(experiment, &overrides).unwrap_err().to_string()
        };
        assert!(named("toy-continaul", None, &[]).contains("did you mean `toy-continual`"));
        assert!(named("toy-continual", Some("papre"), &[]).contains("did you mean `paper`"));
        assert!(named("toy-continual", None, &["none", "none"]).contains("given twice"));
        assert!(named("toy-continual", None, &["a", "a:kl:10"]).contains("given twice"));
        assert!(named("gone/config.toml", None, &[]).contains("gone/config.toml"));
        assert!(named("x.toml", Some("cpu"), &[]).contains("--preset"));
    }

    /// A run from before there was a choice must go on with what it began with.
    #[test]
    fn precision_follows_the_device_unless_it_is_given() {
        let precision = |set: &[(&str, &str)]| with(set).unwrap().precision;
        assert_eq!(precision(&[]), Precision::F32);
        assert_eq!(precision(&[("device", "cuda")]), Precision::Bf16);
        let f32_on_gpu = [("precision", "f32"), ("device", "cuda:0")];
        assert_eq!(precision(&f32_on_gpu), Precision::F32);

        let mut config = with(&[("device", "cuda")]).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        let text = toml::to_string(&config).unwrap();
        let old = text.replace("precision = \"bf16\"\n", "");
        assert_ne!(old, text);
        std::fs::write(&path, old).unwrap();
        config.precision = Precision::F32;
        let again = resolve(path.to_str().unwrap(), &Overrides::default()).unwrap();
        assert_eq!(again, config);
    }

    /// A typing error in a file of one's own must be found without reading the whole file.
    #[test]
    fn a_malformed_file_is_located() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mine.toml");
        let good = toml::to_string(&with(&[]).unwrap()).unwrap();
        for (from, to, expected) in [
            ("n_layers = 2", "n_layers = = 2", "line "),
            ("n_layers = 2", "n_layer = 2", "unknown field `n_layer`"),
            ("n_layers = 2", "n_layers = \"two\"", "invalid type"),
        ] {
            assert!(good.contains(from));
            std::fs::write(&path, good.replace(from, to)).unwrap();
            let error = resolve(path.to_str().unwrap(), &Overrides::default()).unwrap_err();
            let line = good.lines().position(|l| l == from).unwrap() + 1;
            let error = error.to_string();
            assert!(error.contains(expected), "{error}");
            assert!(
                error.contains(&format!("mine.toml, line {line}, column ")),
                "{error}"
            );
        }
    }
}
