//! Checks of a configuration before anything is written or trained.

use std::sync::Arc;

use crate::data::{DataError, Suite};
use crate::experiment::RunConfig;
use crate::model::Layout;
use crate::ops::simd::Level;
use crate::replay::{Capabilities, Plugin, Registry, SettingsError, UnknownStrategy};
use crate::run::{Environment, PluginRecord};

use super::check_device;
use super::memory::available_memory;

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
        "{arms} arms of {parameters} parameters need about {needed:.1} GiB, {free:.1} GiB are free; \
         take fewer arms or seeds, a smaller model, or a machine with more memory"
    )]
    Memory {
        /// Arms, seeds expanded.
        arms: usize,
        /// Parameters of the model.
        parameters: usize,
        /// GiB the run needs.
        needed: f64,
        /// GiB the system can give.
        free: f64,
    },
    /// No such dataset.
    #[error(transparent)]
    Data(#[from] DataError),
}

/// What an experiment on digit tasks offers to strategies.
pub(super) fn offered() -> Capabilities {
    Capabilities::OLD_DATA
        .and(Capabilities::GENERATION)
        .and(Capabilities::TOKENIZER)
        .and(Capabilities::SCORES)
}

/// Finds the strategy of every arm, fills the defaults into its settings, and checks what it needs.
///
/// # Errors
/// [`PrepareError`] names the first arm that cannot be run, and a near miss where there is one.
pub fn prepare(
    config: &mut RunConfig,
    registry: &Registry,
) -> Result<Vec<Arc<Plugin>>, PrepareError> {
    let suite = Suite::new(config)?;
    check_memory(config, &suite)?;
    let mut plugins = Vec::new();
    for arm in &mut config.arms {
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
        arm.settings = toml::Table::try_from(&settings).map_err(|e| bad(e.to_string()))?;
        if let Some(missing) = plugin.capabilities.missing_from(offered()) {
            return Err(PrepareError::Capability {
                strategy: arm.strategy.clone(),
                missing,
            });
        }
        plugins.push(plugin.clone());
    }
    Ok(plugins)
}

/// Refuses a run whose weights alone do not fit: student, reference and two moments of every arm, a
/// gradient of every lane (on a GPU one, and what replaces weights and moments in an update).
/// Activations are small beside them.
fn check_memory(config: &RunConfig, suite: &Suite) -> Result<(), PrepareError> {
    let parameters = Layout::new(suite.model(config)).len;
    let arms = config.arms.len() * config.seeds.len();
    let gpu = check_device(&config.device).ok().flatten();
    let (passing, free) = match gpu {
        Some(gpu) => (4, Some(gpu.free as f64)),
        None => (config.threads.max(2), available_memory()),
    };
    let copies = 4 * (arms + 1) + passing;
    let gib = |bytes: f64| bytes / (1u64 << 30) as f64;
    let needed = gib(4.0 * parameters as f64 * copies as f64);
    match free.map(gib) {
        Some(free) if needed > free => Err(PrepareError::Memory {
            arms,
            parameters,
            needed,
            free,
        }),
        _ => Ok(()),
    }
}

/// Everything outside the configuration that may decide a run's numbers.
pub fn environment(config: &RunConfig, plugins: &[Arc<Plugin>]) -> Environment {
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
        instruction_set: Level::detect().name().into(),
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
