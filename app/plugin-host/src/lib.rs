//! The plugin host: finds strategy libraries, checks them, calls them, and protects the lab from their
//! faults.
//!
//! A [`Registry`] lists the libraries of a search path. A [`Plugin`] that passed the handshake makes
//! [`StrategyInstance`]s, one an arm, with settings valid by its schema. Whatever an instance returns
//! is checked before the training loop sees it; what it may ask for is the trait [`Services`].
//!
//! An error of a plugin ends its arm only. A plugin that crashes the process, or never returns, is
//! named by its [`breadcrumb`].

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
