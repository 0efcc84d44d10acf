//! The plugin host: finds strategy libraries, checks them, calls them, and protects the lab from their
//! faults.
//!
//! A [`Registry`] lists the libraries of a search path. A [`Plugin`] that passed the handshake makes
//! [`StrategyInstance`]s, one an arm, with settings valid by its schema. Whatever an instance returns
//! is checked before the training loop sees it; what it may ask for is the trait [`Services`].
//!
//! An error of a plugin ends its arm only. A plugin that crashes the process, or never returns, is
//! named by its [`breadcrumb`].
//!
//! In reading order:
//! - `error`: what can go wrong with a plugin;
//! - `capabilities`, `schema`: what a strategy needs, and its settings;
//! - `elf`, `library`: one file, looked at, loaded, its descriptor checked before any call;
//! - `registry`: where strategies are looked for, and which were found;
//! - `batch`, `services`: what a strategy is given and gives back, and what it may ask for, in Rust types;
//! - `raw`, `phase`, `state`: the same as the ABI has it: memory of a plugin, the phase, a saved state;
//! - [`breadcrumb`], `watchdog`: which call is under way, and which takes too long;
//! - `host_context`, `requests`, `host_services`: the table of services that a plugin calls;
//! - `check`: a batch, checked before the training loop sees it;
//! - `instance`: one strategy serving one arm;
//! - `dry_run`: a short life against a made-up lab, for `plugins check`.

mod batch;
pub mod breadcrumb;
mod capabilities;
mod check;
mod dry_run;
mod elf;
mod error;
mod host_context;
mod host_services;
mod instance;
mod library;
mod phase;
mod raw;
mod registry;
mod requests;
mod schema;
mod services;
mod state;
#[cfg(test)]
mod tests;
mod watchdog;

pub use batch::{PhaseContext, ReplayBatch, StepMetrics, Task, Teacher};
pub use capabilities::Capabilities;
pub use dry_run::{DryRunError, Report, dry_run};
pub use error::{LoadError, SettingsError, StrategyError};
pub use instance::{InstanceOptions, StrategyInstance};
pub use registry::{
    Origin, Plugin, Registry, Rejected, SEARCH_VARIABLE, SearchDir, UnknownStrategy, search_path,
};
pub use schema::{Schema, Setting, SettingType};
pub use services::{
    DrawRequest, GenerateRequest, LogLevel, ScoreRequest, Scores, Sequences, ServiceError,
    Services, SpecialTokens, WhichModel,
};
pub use watchdog::{LateCall, OnLate};

/// The known name most similar to `name`, if one is similar enough to suggest.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let scored = known.map(|other| (strsim::jaro_winkler(name, other), other));
    let (score, other) = scored.max_by(|a, b| a.0.total_cmp(&b.0))?;
    (score > 0.8).then_some(other)
}
