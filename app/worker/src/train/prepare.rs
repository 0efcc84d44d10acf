//! Checks of a configuration before anything is written or trained.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use forgetlab_engine::memory::{available_memory, cpu_model, resident_memory};
use forgetlab_engine::ops::matmul::instruction_set;
use forgetlab_engine::pretrained::{self, DownloadProgress, Hub, Pretrained, builtin};
use forgetlab_engine::{Demand, DeviceError, Memory, check_device, human_bytes};
use forgetlab_plugin_host::{
    Capabilities, LoadError, Plugin, Registry, Rejected, SettingsError, UnknownStrategy,
};
use forgetlab_study::experiment::{
    ArmSpec, DataSpec, ModelSpec, PHASE_SETTINGS, RunConfig, SpecError, nearest, settle_arms,
};
use forgetlab_study::run::{Environment, PluginRecord};
use serde_json::{Map, Value};

use crate::data::{self, DataError, Suite};
use crate::eval::{Choices, Prompts, QuestionsError, questions};

use super::settings;

/// Version of the engine's numerics: goes up when the same settings give other bits.
pub const NUMERICS: &str = "3";

/// Why a configuration cannot be run here.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// No such strategy.
    #[error(transparent)]
    Strategy(#[from] UnknownStrategy),
    /// Settings its schema refuses.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The device does not compute such a model.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// It needs what the experiment does not offer.
    #[error("strategy `{strategy}` needs {missing}, which this experiment does not offer")]
    Capability {
        /// Strategy.
        strategy: String,
        /// What is missing, in words.
        missing: String,
    },
    /// A key that names a setting of the phases and one of the strategy.
    #[error(
        "arm `{arm}`: `{key}` could be {of_phases} or {of_strategy}; write +{of_phases}=… or \
         +{of_strategy}=…"
    )]
    Ambiguous {
        /// Arm.
        arm: String,
        /// Key given.
        key: String,
        /// Its full key as a setting of the phases.
        of_phases: &'static str,
        /// Its full key as a setting of the strategy.
        of_strategy: String,
    },
    /// A key that is no setting of the strategy, and nearly one of the phases.
    #[error("arm `{arm}`: `{key}` is no setting of its strategy; did you mean `{near}`?")]
    NoSetting {
        /// Arm.
        arm: String,
        /// Key given.
        key: String,
        /// Short name of a setting of the phases.
        near: String,
    },
    /// An arm's settings.
    #[error(transparent)]
    Arms(#[from] SpecError),
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
        "this run needs about {} of memory, {} are free for it. It needs: {memory}. {}",
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
    /// More memory of the machine, beside a GPU, than is free.
    #[error(
        "this run on a GPU needs about {} of the machine's memory while it saves a checkpoint, {} are free for it: \
         take a smaller model, or train adapters (model.lora_rank)",
        human_bytes(*needed),
        human_bytes(*free)
    )]
    HostMemory {
        /// Bytes it needs.
        needed: f64,
        /// Bytes the system can give.
        free: f64,
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
    /// What it trains on, and with what.
    pub work: Work,
    /// Everything outside the configuration that may decide its numbers.
    pub environment: Environment,
    /// What its user should hear of that concerns none of its arms.
    pub warnings: Vec<String>,
}

/// What a run trains on, and with what.
pub enum Work {
    /// Language models, on tokens.
    Tokens(Box<TokenWork>),
    /// Small functions, on points of a line: all is in the configuration.
    Regression,
}

/// What a run of language models needs.
pub struct TokenWork {
    /// Its datasets.
    pub suite: Suite,
    /// Its questions, ready to be asked.
    pub questions: Vec<Choices>,
    /// Prompts that its students continue.
    pub prompts: Prompts,
    /// The strategy of each arm of the configuration.
    pub plugins: Vec<Arc<Plugin>>,
    /// Sizes of its work, with as many arms at a time as there is memory for.
    pub demand: Demand,
}

impl Prepared {
    /// Sizes of its work, where it is one of language models.
    pub fn demand(&self) -> Option<&Demand> {
        match &self.work {
            Work::Tokens(tokens) => Some(&tokens.demand),
            Work::Regression => None,
        }
    }

    /// Bytes of memory it is thought to take.
    pub fn memory(&self) -> f64 {
        match (&self.work, self.config.regression()) {
            (Work::Tokens(tokens), _) => tokens.demand.memory().total(),
            // Weights before, now and at two checkpoints, and gradients, of the arms of a seed.
            (Work::Regression, Some((model, _))) => {
                let numbers = model.functions() * model.weights() * self.config.arms.len();
                8.0 * 6.0 * numbers as f64
            }
            (Work::Regression, None) => 0.0,
        }
    }

    /// The pretrained model it begins with, if there is one.
    pub fn pretrained(&self) -> Option<&Pretrained> {
        match &self.work {
            Work::Tokens(tokens) => tokens.suite.pretrained(),
            Work::Regression => None,
        }
    }
}

/// Reads the data of a configuration, finds the strategy of every arm and fills the defaults into its settings,
/// and checks all of it.
///
/// # Errors
/// [`PrepareError`] names the first arm that cannot be run, and a near miss where there is one.
pub fn prepare(mut config: RunConfig, registry: &Registry) -> Result<Prepared, PrepareError> {
    if config.regression().is_some() {
        return Ok(Prepared {
            environment: environment(&config, &[]),
            config,
            work: Work::Regression,
            warnings: Vec::new(),
        });
    }
    let suite = Suite::new(&config)?;
    sizes(&mut config, &suite);
    let questions = questions(&suite)?;
    let arms = config.arms.iter_mut();
    let plugins = arms.map(|arm| strategy(arm, registry));
    let plugins: Vec<_> = plugins.collect::<Result<_, _>>()?;
    // Only now it is known which settings of a strategy are its defaults.
    settle_arms(&mut config)?;
    check_batches(&config, &suite)?;
    // Where it is not decided, there are none: so a run goes on as it began.
    let prompts = Prompts::of(&suite, config.training.samples.unwrap_or(0));
    check_prompts(&config, &suite, &plugins)?;
    let demand = demand_here(&config, &suite, &plugins, &questions, &prompts);
    check_memory(&config, &demand)?;
    fill_in(&mut config, &suite)?;
    let mut warnings = warnings(registry, &plugins);
    warnings.extend(check_host(&demand)?);
    Ok(Prepared {
        environment: environment(&config, &plugins),
        config,
        work: Work::Tokens(Box::new(TokenWork {
            suite,
            questions,
            prompts,
            plugins,
            demand,
        })),
        warnings,
    })
}

/// A configuration with one more arm, checked as at the start of a run, and its strategy, which a regression has not.
/// Its memory, and whether there are data for its batches, is not checked.
///
/// # Errors
/// [`PrepareError`] says why no run could have it.
pub fn with_arm(
    config: &RunConfig,
    arm: &ArmSpec,
    registry: &Registry,
) -> Result<(RunConfig, Option<Arc<Plugin>>), PrepareError> {
    let mut config = config.clone();
    config.arms.push(arm.clone());
    settle_arms(&mut config)?;
    if config.regression().is_some() {
        return Ok((config, None));
    }
    let plugin = config.arms.last_mut().map(|arm| strategy(arm, registry));
    let plugin = plugin.transpose()?;
    settle_arms(&mut config)?;
    Ok((config, plugin))
}

/// Libraries in the search path that harm who loads them or that somebody else may have put there, those of arms that
/// print, and those that would be an arm's strategy if another one of that name did not come first.
fn warnings(registry: &Registry, plugins: &[Arc<Plugin>]) -> Vec<String> {
    let rejected = registry.rejected().iter();
    let alarming = rejected.filter(|rejected| rejected.reason.is_alarming());
    let mut lines: Vec<String> = alarming
        .map(|Rejected { path, reason }| format!("{} {reason}; no arm uses it", path.display()))
        .collect();
    let hidden = registry.rejected().iter().filter(|rejected| {
        let of = |name: &String| plugins.iter().any(|plugin| plugin.name == *name);
        use LoadError::{Hidden, NameTaken};
        matches!(&rejected.reason, Hidden { name, .. } | NameTaken { name, .. } if of(name))
    });
    lines.extend(hidden.map(|Rejected { path, reason }| format!("{} {reason}", path.display())));
    let printing = plugins.iter().filter(|plugin| !plugin.printed.is_empty());
    lines.extend(printing.map(|plugin| {
        let path = plugin.path.display();
        format!("{path} prints when it is loaded: {}", plugin.printed)
    }));
    lines.sort();
    lines.dedup();
    lines
}

/// Finds the strategy of an arm, fills the defaults into its settings, and checks what it needs.
fn strategy(arm: &mut ArmSpec, registry: &Registry) -> Result<Arc<Plugin>, PrepareError> {
    let plugin = registry.get(&arm.strategy)?;
    let bad = |what: String| PrepareError::Value {
        strategy: arm.strategy.clone(),
        what,
    };
    let both = |short: &&String| plugin.schema.get(short).is_some();
    if let Some(short) = arm.bare.iter().find(both) {
        return Err(PrepareError::Ambiguous {
            arm: arm.name(),
            key: short.clone(),
            of_phases: PHASE_SETTINGS
                .iter()
                .find(|s| s.short == short)
                .map_or("", |s| s.key),
            of_strategy: format!("{}.{short}", arm.strategy),
        });
    }
    let unknown = |key: &&String| plugin.schema.get(key).is_none();
    if let Some(key) = arm.settings.keys().find(unknown)
        && let Some(near) = nearest(key, PHASE_SETTINGS.iter().map(|setting| setting.short))
    {
        return Err(PrepareError::NoSetting {
            arm: arm.name(),
            key: key.clone(),
            near: near.to_owned(),
        });
    }
    arm.bare.clear();
    let given = serde_json::to_value(arm.strategy_settings()).map_err(|e| bad(e.to_string()))?;
    let given = given.as_object().cloned().unwrap_or_default();
    let mut settings = plugin.resolve_settings(&given)?;
    // TOML has no null: a setting that may be absent stays absent.
    settings.retain(|_, value| !value.is_null());
    let is_default = |name: &str, value: &Value| {
        let default = plugin
            .schema
            .get(name)
            .and_then(|setting| setting.default.as_ref());
        default.is_some_and(|default| {
            default == value || default.is_number() && default.as_f64() == value.as_f64()
        })
    };
    let (defaults, settings): (Map<_, _>, Map<_, _>) = settings
        .into_iter()
        .partition(|(name, value)| is_default(name, value));
    let table = |map: Map<String, Value>| {
        toml::Table::try_from(map).map_err(|error| bad(error.to_string()))
    };
    let (defaults, settings) = (table(defaults)?, table(settings)?);
    if let Some(missing) = plugin.capabilities.missing_from(offered()) {
        return Err(PrepareError::Capability {
            strategy: arm.strategy.clone(),
            missing,
        });
    }
    (arm.settings, arm.defaults) = (settings, defaults);
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

/// Fetches the weights of a model that a configuration names on the hub. Whether they are of another model than was
/// thought before: with an output embedding of its own, though its description ties it.
///
/// # Errors
/// [`DataError`]
pub fn fetch_weights(
    config: &RunConfig,
    hub: &Hub,
    progress: &dyn DownloadProgress,
) -> Result<bool, DataError> {
    let ModelSpec::Pretrained(spec) = &config.model else {
        return Ok(false);
    };
    let mut model = pretrained::open(&spec.pretrained, hub, progress).map_err(Box::new)?;
    let before = model.config;
    model.fetch(progress).map_err(Box::new)?;
    Ok(model.config != before)
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
    match &mut config.data {
        DataSpec::Digits { .. } | DataSpec::Regression(_) => {}
        DataSpec::Text(text) => {
            for dataset in &mut text.datasets {
                dataset.files.iter_mut().for_each(absolute);
                dataset.hash = suite.hash_of(&dataset.name);
            }
            for questions in &mut text.questions {
                absolute(&mut questions.file);
                questions.hash = suite.hash_of(&questions.name);
            }
        }
        DataSpec::Tokens(tokens) => {
            for corpus in &mut tokens.datasets {
                corpus.files.iter_mut().for_each(absolute);
                corpus.hash = suite.hash_of(&corpus.name);
            }
            if let Some(tokenizer) = &mut tokens.tokenizer {
                let mut path = PathBuf::from(&*tokenizer);
                absolute(&mut path);
                *tokenizer = path.to_string_lossy().into_owned();
                tokens.tokenizer_hash = suite.tokenizer_hash();
            }
        }
    }
    Ok(())
}

/// Checks that every arm has a whole batch to train on in each of its phases.
pub(super) fn check_batches(config: &RunConfig, suite: &Suite) -> Result<(), SpecError> {
    for arm in &config.arms {
        let checked = config.of_arm(arm).and_then(|own| {
            let checked = suite.check_batches(&own);
            checked.map_err(|error| error.to_string())
        });
        checked.map_err(|problem| SpecError::Arm {
            arm: arm.name(),
            problem,
        })?;
    }
    Ok(())
}

/// Checks that what strategies let a model begin with are tokens of it, and leave room in a row.
fn check_prompts(
    config: &RunConfig,
    suite: &Suite,
    plugins: &[Arc<Plugin>],
) -> Result<(), PrepareError> {
    let mut arms = config.arms.iter().zip(plugins);
    arms.try_for_each(|(arm, plugin)| check_prompts_of(arm, plugin, suite))
}

/// The same of an arm.
pub(super) fn check_prompts_of(
    arm: &ArmSpec,
    plugin: &Plugin,
    suite: &Suite,
) -> Result<(), PrepareError> {
    for (name, tokens) in prompts_of(arm, plugin, suite)? {
        let (vocab, row) = (suite.vocab_size(), suite.seq_len());
        let what = match tokens.iter().find(|id| **id as usize >= vocab) {
            Some(id) => format!("token {id} is beyond the vocabulary of {vocab} tokens"),
            None if tokens.len() >= row => format!(
                "it has {} tokens, which leave nothing of a row of {row} to be written",
                tokens.len()
            ),
            None => continue,
        };
        return Err(PrepareError::Value {
            strategy: arm.strategy.clone(),
            what: format!("{name}: {what}"),
        });
    }
    Ok(())
}

/// What an arm's strategy lets a model begin with: settings and their tokens.
pub(super) fn prompts_of(
    arm: &ArmSpec,
    plugin: &Plugin,
    suite: &Suite,
) -> Result<Vec<(String, Vec<u32>)>, PrepareError> {
    let settings = serde_json::to_value(arm.strategy_settings());
    let settings = settings.map_err(|error| PrepareError::Value {
        strategy: arm.strategy.clone(),
        what: error.to_string(),
    })?;
    let settings = settings.as_object().cloned().unwrap_or_default();
    let bos = suite.special_tokens().bos;
    let encode = &mut |text: &str| suite.encode(text).map_err(|error| error.to_string());
    Ok(plugin.prompts(&settings, bos, encode)?)
}

/// Notes the sizes of corpora, on which the lengths of phases depend.
fn sizes(config: &mut RunConfig, suite: &Suite) {
    let DataSpec::Tokens(tokens) = &mut config.data else {
        return;
    };
    tokens.vocab_size = Some(suite.vocab_size());
    for corpus in &mut tokens.datasets {
        corpus.rows = suite.rows_of(&corpus.name);
    }
}

/// What a run demands with as many arms at a time as are wanted, and as there is room for.
pub(super) fn demand_here(
    config: &RunConfig,
    suite: &Suite,
    plugins: &[Arc<Plugin>],
    questions: &[Choices],
    prompts: &Prompts,
) -> Demand {
    let mut demand = settings::demand(config, suite, plugins, questions, prompts);
    if let Some(free) = free_memory(config) {
        while demand.learners > 1 && demand.memory().total() > free {
            demand = demand.with_learners(demand.learners - 1);
        }
    }
    demand
}

/// Bytes a run can plan with: of the GPU if it is to run on one.
pub(super) fn free_memory(config: &RunConfig) -> Option<f64> {
    let gpu = check_device(&config.device).ok().flatten();
    // This process is counted in the prediction, too.
    let tensors = || Some(available_memory()? + resident_memory().unwrap_or(0.0));
    gpu.map(|gpu| gpu.plannable()).or_else(tensors)
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

/// Refuses a run on a GPU whose checkpoints do not fit into the machine's memory; one line where there is room to save
/// them, and none to go on from them.
fn check_host(demand: &Demand) -> Result<Option<String>, PrepareError> {
    let free = available_memory().map(|free| free + resident_memory().unwrap_or(0.0));
    let (Some(host), Some(free)) = (demand.on_host(), free) else {
        return Ok(None);
    };
    if host.to_save > free {
        let needed = host.to_save;
        return Err(PrepareError::HostMemory { needed, free });
    }
    Ok((host.to_resume > free).then(|| {
        format!(
            "to go on from a checkpoint will take about {} of the machine's memory, {} are free",
            human_bytes(host.to_resume),
            human_bytes(free)
        )
    }))
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

/// A strategy as a run notes it.
pub(super) fn record_of(plugin: &Plugin) -> PluginRecord {
    PluginRecord {
        name: plugin.name.clone(),
        version: plugin.version.clone(),
        hash: plugin.hash.clone(),
        path: plugin.path.display().to_string(),
    }
}

/// Everything outside the configuration that may decide a run's numbers.
fn environment(config: &RunConfig, plugins: &[Arc<Plugin>]) -> Environment {
    let records = plugins.iter().map(|plugin| record_of(plugin));
    let mut records: Vec<PluginRecord> = records.collect();
    records.sort_by(|a, b| a.name.cmp(&b.name));
    records.dedup();
    let gpu = check_device(&config.device).ok().flatten();
    Environment {
        forgetlab: env!("CARGO_PKG_VERSION").into(),
        numerics: NUMERICS.into(),
        platform: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        device: match &gpu {
            Some(gpu) => format!("{} ({})", config.device, gpu.name),
            None => config.device.clone(),
        },
        instruction_set: instruction_set(settings::precision(config.precision)),
        threads: config.threads,
        precision: config.precision,
        plugins: records,
        cpu: cpu_model(),
        driver: gpu.as_ref().and_then(|gpu| gpu.driver.clone()),
        cuda: gpu.as_ref().map(|gpu| gpu.cuda.clone()),
        cublas: gpu.map(|gpu| gpu.cublas),
        // Known to the binary, and at the end.
        commit: None,
        peak_memory_bytes: None,
    }
}

/// Version of the numerics and device in words: others give other bits, and their first phases other names in the cache.
pub fn numerics_in_words(environment: &Environment) -> String {
    let device = device_in_words(environment);
    let products = environment.cublas.as_ref();
    let products = products.map_or(String::new(), |version| format!(", cuBLAS {version}"));
    format!("{}, {device}{products}", environment.numerics)
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
