//! The plugin host: finds strategy libraries, checks them, calls them, and protects the lab from their
//! faults.
//!
//! A [`Registry`] lists the libraries of a search path, each looked at in a child process. A [`Plugin`] that
//! passed the handshake makes [`StrategyInstance`]s, one an arm, with settings valid by its schema; only then is
//! its code in this process. Whatever an instance returns is checked before the training loop sees it; what it
//! may ask for is the trait [`Services`].
//!
//! An error of a plugin ends its arm only. A plugin that crashes the process, or never returns, is
//! named by its [`breadcrumb`].
//!
//! In reading order:
//! - `error`: what can go wrong with a plugin;
//! - `capabilities`, `schema`: what a strategy needs, and its settings;
//! - `float`: the arithmetic of this process, which no library may change;
//! - `elf`, `library`: one file, read, loaded, its descriptor checked before any call;
//! - `trust`: who could have put a file there;
//! - `child`, `look`: a library looked at in a process of its own;
//! - `plugin`: what is known of one, and its functions once they are needed;
//! - `registry`: where strategies are looked for, and which were found;
//! - `batch`, `services`: what a strategy is given and gives back, and what it may ask for, in Rust types;
//! - `lent`, `raw`, `phase`, `state`: the same as the ABI has it: buffers, memory of a plugin, the phase, a saved
//!   state;
//! - [`breadcrumb`], `watchdog`: which call is under way, and which takes too long;
//! - `host_context`, `requests`, `host_services`: the table of services that a plugin calls;
//! - `check`: a batch, checked before the training loop sees it;
//! - `prompt`: settings that name tokens;
//! - `instance`: one strategy serving one arm;
//! - `made_up`, `dry_run`: a made-up lab, and a strategy's trials in it, for `plugins check`;
//! - `trial`: the same in a child process;
//! - `serve`: this program as that child.

mod batch;
pub mod breadcrumb;
mod capabilities;
mod check;
mod child;
#[cfg(test)]
mod contract_tests;
mod dry_run;
mod elf;
mod error;
mod float;
mod host_context;
mod host_services;
mod instance;
mod lent;
mod library;
mod look;
mod made_up;
mod phase;
mod plugin;
mod prompt;
mod raw;
mod registry;
mod requests;
mod schema;
mod serve;
mod services;
mod state;
#[cfg(test)]
mod tests;
mod trial;
mod trust;
mod watchdog;

pub use batch::{PhaseContext, ReplayBatch, StepMetrics, Task, Teacher};
pub use capabilities::Capabilities;
pub use child::{CHILD_COMMAND, Helper};
pub use dry_run::{DryRunError, Report, Told, dry_run};
pub use error::{LoadError, PromptError, SettingsError, StrategyError};
pub use instance::{InstanceOptions, StrategyInstance};
pub use plugin::Plugin;
pub use prompt::prompt_tokens;
pub use registry::{
    Origin, Registry, Rejected, SEARCH_VARIABLE, SearchDir, UnknownStrategy, search_path,
};
pub use schema::{Schema, Setting, SettingType};
pub use serve::serve;
pub use services::{
    DrawRequest, GenerateRequest, LogLevel, ScoreRequest, Scores, Sequences, ServiceError,
    Services, SpecialTokens, WhichModel,
};
pub use trial::{CheckError, CheckReport, check};
pub use trust::ALLOW_VARIABLE;
pub use watchdog::{LateCall, OnLate};

/// The known name most similar to `name`, if one is similar enough to suggest.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let scored = known.map(|other| (strsim::jaro_winkler(name, other), other));
    let (score, other) = scored.max_by(|a, b| a.0.total_cmp(&b.0))?;
    (score > 0.8).then_some(other)
}
