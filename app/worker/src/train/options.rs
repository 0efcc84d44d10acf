//! What is wanted of a run, and how it ends.

use forgetlab_study::run::{PhaseCache, RunDir, RunLock};

use super::hang::{EndProcess, Stop};
use super::journal::Listener;
use super::prepare::Prepared;
use forgetlab_plugin_host::Registry;

/// A run to be taken to its end, and how.
pub struct RunOptions<'a> {
    /// The run's directory, its `config.toml` written.
    pub dir: &'a RunDir,
    /// The lock of that directory.
    pub lock: &'a RunLock,
    /// The run's configuration, data and strategies, checked.
    pub prepared: &'a Prepared,
    /// Cache of first phases, where it is to be used.
    pub cache: Option<&'a PhaseCache>,
    /// Arms, by name or slug, that are left out from now on.
    pub skip_arms: &'a [String],
    /// Warnings to log before anything is trained.
    pub warnings: Vec<String>,
    /// Looks for strategies, where an arm is to be added.
    pub strategies: &'a (dyn Fn() -> Registry + Sync),
    /// Asked before every step, and while a strategy is late.
    pub stop: Stop,
    /// Called where the run is to stop and a strategy does not return.
    pub end_process: EndProcess,
    /// Called with every event.
    pub listener: Listener,
}

/// How a worker ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every arm is over; that many of them failed or were skipped.
    Finished {
        /// Arms that did not reach their end.
        failed: usize,
    },
    /// Stopped in good order, with checkpoints.
    Interrupted(String),
}
