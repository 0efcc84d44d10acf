//! Checks of a configuration before anything is written or trained.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use forgetlab_engine::memory::{available_memory, resident_memory};
use forgetlab_engine::ops::matmul::instruction_set;
use forgetlab_engine::pretrained::{self, DownloadProgress, Hub, builtin};
use forgetlab_engine::{Demand, Memory, check_device, human_bytes};
use forgetlab_plugin_host::{Capabilities, Plugin, Registry, SettingsError, UnknownStrategy};
use forgetlab_study::experiment::{ArmSpec, DataSpec, ModelSpec, RunConfig};
use forgetlab_study::run::{Environment, PluginRecord};

use crate::data::{self, DataError, Suite};
use crate::eval::{Choices, QuestionsError, questions};

use super::settings;

/// Version of the engine's numerics: goes up when the same settings give other bits.
pub const NUMERICS: &str = "2";

/// Why a configuration cannot be run here.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// No such strategy.
    #[error(transparent)]
    Strategy(#[from] UnknownStrategy),
    /// Settings its schema refuses.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// It needs what the experiment does not offer.
    #[error("strategy `{strategy}` needs {missing}, which this experiment does not offer")]
    Capability {
        /// Strategy.
        strategy: String,
        /// What is missing, in words.
        missing: String,
    },
    /// A setting that JSON or TOML cannot hold.
    #[error("settings of strategy `{strategy}`: {what}")]
    Value {
        /// Strategy.
        strategy: String,
        /// What is wrong.
        what: String,
    },
    /// More memory than the device has free.
    #[error(
        "this run needs about {} of memory, {} are free. It needs: {memory}. {}",
        human_bytes(memory.total()),
        human_bytes(*free),
        advice(fits)
    )]
    Memory {
        /// What the run needs.
        memory: Memory,
        /// Bytes the system can give.
        free: f64,
        /// Changes that would make it fit.
        fits: Vec<(String, Memory)>,
    },
    /// No such dataset.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Questions that cannot be asked.
    #[error(transparent)]
    Questions(#[from] QuestionsError),
}

impl PrepareError {
    /// Whether the command line asks for something senseless; else a file or a machine is at fault.
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Data(error) => matches!(error, DataError::Unknown(_) | DataError::Empty { .. }),
            Self::Questions(_) => false,
            _ => true,
        }
    }
}

/// Capabilities that experiments offer to strategies.
pub(super) fn offered() -> Capabilities {
    Capabilities::OLD_DATA
        .and(Capabilities::GENERATION)
        .and(Capabilities::TOKENIZER)
        .and(Capabilities::SCORES)
}

/// A run that was found good: everything its training needs, read once.
pub struct Prepared {
    /// Every setting, those of the strategies and the hashes of the files included.
    pub config: RunConfig,
    /// Its datasets.
    pub suite: Suite,
    /// Its questions, ready to be asked.
    pub questions: Vec<Choices>,
    /// The strategy of each arm of the configuration.
    pub plugins: Vec<Arc<Plugin>>,
    /// Sizes of its work, with as many arms at a time as there is memory for.
    pub demand: Demand,
    /// Everything outside the configuration that may decide its numbers.
    pub environment: Environment,
}

/// Reads the data of a configuration, finds the strategy of every arm and fills the defaults into its settings,
/// and checks all of it.
///
/// # Errors
/// [`PrepareError`] names the first arm that cannot be run, and a near miss where there is one.
pub fn prepare(mut config: RunConfig, registry: &Registry) -> Result<Prepared, PrepareError> {
    let suite = Suite::new(&config)?;
    let questions = questions(&suite)?;
    let arms = config.arms.iter_mut();
    let plugins = arms.map(|arm| strategy(arm, registry));
    let plugins: Vec<_> = plugins.collect::<Result<_, _>>()?;
    let demand = demand_here(&config, &suite, &plugins);
    check_memory(&config, &demand)?;
    fill_in(&mut config, &suite)?;
    Ok(Prepared {
        environment: environment(&config, &plugins),
        config,
        suite,
        questions,
        plugins,
        demand,
    })
}

/// Finds the strategy of an arm, fills the defaults into its settings, and checks what it needs.
fn strategy(arm: &mut ArmSpec, registry: &Registry) -> Result<Arc<Plugin>, PrepareError> {
    let plugin = registry.get(&arm.strategy)?;
    let bad = |what: String| PrepareError::Value {
        strategy: arm.strategy.clone(),
        what,
    };
    let given = serde_json::to_value(&arm.settings).map_err(|e| bad(e.to_string()))?;
    let given = given.as_object().cloned().unwrap_or_default();
    let mut settings = plugin.resolve_settings(&given)?;
    // TOML has no null: a setting that may be absent stays absent.
    settings.retain(|_, value| !value.is_null());
    let settings = toml::Table::try_from(&settings).map_err(|e| bad(e.to_string()))?;
    if let Some(missing) = plugin.capabilities.missing_from(offered()) {
        return Err(PrepareError::Capability {
            strategy: arm.strategy.clone(),
            missing,
        });
    }
    arm.settings = settings;
    Ok(plugin.clone())
}

/// Fetches the description of the model and the data that a configuration names on the hub, and names both
/// by the commits that their revisions stand for now. What a run has named before is left as it is.
///
/// # Errors
/// [`DataError`]
pub fn fetch(
    config: &mut RunConfig,
    hub: &Hub,
    progress: &dyn DownloadProgress,
) -> Result<(), DataError> {
    if let ModelSpec::Pretrained(spec) = &mut config.model {
        let model = pretrained::open(&spec.pretrained, hub, progress).map_err(Box::new)?;
        spec.pretrained = model.pinned_name();
    }
    let DataSpec::Text(text) = &mut config.data else {
        return Ok(());
    };
    for dataset in text.datasets.iter_mut().filter(|d| d.hash.is_none()) {
        data::fetch(&mut dataset.files, hub, progress).map_err(|source| DataError::Rows {
            name: dataset.name.clone(),
            source: Box::new(source.into()),
        })?;
    }
    for questions in text.questions.iter_mut().filter(|q| q.hash.is_none()) {
        data::fetch([&mut questions.file], hub, progress).map_err(|source| {
            DataError::Questions {
                name: questions.name.clone(),
                source: Box::new(source),
            }
        })?;
    }
    Ok(())
}

/// Fetches the weights of a model that a configuration names on the hub.
///
/// # Errors
/// [`DataError`]
pub fn fetch_weights(
    config: &RunConfig,
    hub: &Hub,
    progress: &dyn DownloadProgress,
) -> Result<(), DataError> {
    if let ModelSpec::Pretrained(spec) = &config.model {
        let model = pretrained::open(&spec.pretrained, hub, progress).map_err(Box::new)?;
        model.fetch(progress).map_err(Box::new)?;
    }
    Ok(())
}

/// Makes paths absolute, so that a run can be resumed from anywhere, and notes what the files say.
fn fill_in(config: &mut RunConfig, suite: &Suite) -> Result<(), DataError> {
    let absolute = |path: &mut PathBuf| {
        let on_disk = !builtin::is_builtin(path) && !data::is_remote(path);
        if on_disk && let Ok(whole) = std::path::absolute(&*path) {
            *path = whole;
        }
    };
    if let ModelSpec::Pretrained(model) = &mut config.model {
        if Path::new(&model.pretrained).exists() {
            let mut path = PathBuf::from(&model.pretrained);
            absolute(&mut path);
            model.pretrained = path.to_string_lossy().into_owned();
        }
        if let Some(opened) = suite.pretrained() {
            model.hash = opened.hash().map_err(Box::new)?;
        }
    }
    let DataSpec::Text(text) = &mut config.data else {
        return Ok(());
    };
    for dataset in &mut text.datasets {
        dataset.files.iter_mut().for_each(absolute);
        dataset.hash = suite.hash_of(&dataset.name);
    }
    for questions in &mut text.questions {
        absolute(&mut questions.file);
        questions.hash = suite.hash_of(&questions.name);
    }
    Ok(())
}

/// What a run demands with as many arms at a time as are wanted, and as there is room for.
fn demand_here(config: &RunConfig, suite: &Suite, plugins: &[Arc<Plugin>]) -> Demand {
    let mut demand = settings::demand(config, suite, plugins);
    if let Some(free) = free_memory(config) {
        while demand.learners > 1 && demand.memory().total() > free {
            demand = demand.with_learners(demand.learners - 1);
        }
    }
    demand
}

/// Bytes a run can have: of the GPU if it is to run on one.
fn free_memory(config: &RunConfig) -> Option<f64> {
    let gpu = check_device(&config.device).ok().flatten();
    // This process is counted in the prediction, too.
    let tensors = || Some(available_memory()? + resident_memory().unwrap_or(0.0));
    gpu.map(|gpu| gpu.free as f64).or_else(tensors)
}

/// Refuses a run that does not fit into the memory that is free, not even one arm at a time.
fn check_memory(config: &RunConfig, demand: &Demand) -> Result<(), PrepareError> {
    let Some(free) = free_memory(config) else {
        return Ok(());
    };
    let memory = demand.memory();
    if memory.total() <= free {
        return Ok(());
    }
    Err(PrepareError::Memory {
        memory,
        free,
        fits: demand.that_fits(free),
    })
}

fn advice(fits: &[(String, Memory)]) -> String {
    let fits = fits.iter();
    let fits = fits.map(|(what, memory)| format!("{what} ({})", human_bytes(memory.total())));
    let fits: Vec<String> = fits.collect();
    match fits.is_empty() {
        true => "Not even one arm would fit: take a smaller model".into(),
        false => format!("Any of these would fit: {}", fits.join("; ")),
    }
}

/// Everything outside the configuration that may decide a run's numbers.
fn environment(config: &RunConfig, plugins: &[Arc<Plugin>]) -> Environment {
    let mut records: Vec<PluginRecord> = plugins
        .iter()
        .map(|plugin| PluginRecord {
            name: plugin.name.clone(),
            version: plugin.version.clone(),
            hash: plugin.hash.clone(),
            path: plugin.path.display().to_string(),
        })
        .collect();
    records.sort_by(|a, b| a.name.cmp(&b.name));
    records.dedup();
    Environment {
        forgetlab: env!("CARGO_PKG_VERSION").into(),
        numerics: NUMERICS.into(),
        platform: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        device: match check_device(&config.device) {
            Ok(Some(gpu)) => format!("{} ({})", config.device, gpu.name),
            _ => config.device.clone(),
        },
        instruction_set: instruction_set(settings::precision(config.precision)),
        threads: config.threads,
        precision: config.precision,
        plugins: records,
    }
}

/// The device of a run in words, e.g. `cpu, 2 threads, avx512` or `cuda (NVIDIA H100 80GB HBM3), bf16`.
pub fn device_in_words(environment: &Environment) -> String {
    let Environment {
        device,
        threads,
        instruction_set,
        precision,
        ..
    } = environment;
    if device != "cpu" {
        return format!("{device}, {}", precision.name());
    }
    let s = if *threads == 1 { "" } else { "s" };
    format!("{device}, {threads} thread{s}, {instruction_set}")
}
