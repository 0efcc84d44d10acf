//! What the terminal lab asks of the rest of the program: two traits and the data they carry.
//!
//! The calls may block; they run on a thread of their own ([`super::backend`]). Nothing here
//! touches a tensor: a run is a worker process, seen through its directory.

use std::path::PathBuf;

use forgetlab_study::experiment::Objective;
use forgetlab_study::run::{PhaseInfo, Record, RunStatus};

/// Everything the screens can ask for. Error texts are shown as they are.
pub trait Lab: Send {
    /// Experiments with their presets, in the order to offer them.
    fn experiments(&mut self) -> anyhow::Result<Vec<Experiment>>;
    /// Strategy plugins found, those that failed to load included.
    fn plugins(&mut self) -> anyhow::Result<Vec<Plugin>>;
    /// Devices a run can be started on, the default first.
    fn devices(&mut self) -> anyhow::Result<Vec<Device>>;
    /// Runs on disk, newest first.
    fn runs(&mut self) -> anyhow::Result<Vec<RunSummary>>;
    /// Opens a run for reading; the feed begins with its first event.
    fn open(&mut self, run: &str) -> anyhow::Result<Box<dyn Feed>>;
    /// Starts a worker in a session of its own and returns the name of its run.
    fn start(&mut self, request: &StartRequest) -> anyhow::Result<String>;
    /// Starts a worker that goes on with an interrupted or crashed run.
    fn resume(&mut self, run: &str) -> anyhow::Result<()>;
    /// Asks the worker of a run to stop at the next step with a checkpoint; does not wait for it.
    fn stop(&mut self, run: &str) -> anyhow::Result<()>;
    /// Writes the CSVs and figures of one run, or the comparison of several; returns the paths.
    fn export(&mut self, runs: &[String]) -> anyhow::Result<Vec<PathBuf>>;
}

/// One run being read; polled a few times a second.
pub trait Feed: Send {
    /// What happened since the last poll, and where the run stands now.
    fn poll(&mut self) -> anyhow::Result<FeedUpdate>;
}

/// Answer of [`Feed::poll`].
#[derive(Clone, Debug, PartialEq)]
pub struct FeedUpdate {
    /// New records in order; empty when nothing happened.
    pub records: Vec<Record>,
    /// Where the run stands.
    pub status: RunStatus,
}

/// An experiment to choose.
#[derive(Clone, Debug, PartialEq)]
pub struct Experiment {
    /// Name on the command line.
    pub name: String,
    /// What it studies, a sentence or two.
    pub summary: String,
    /// Presets, the default first.
    pub presets: Vec<Preset>,
}

/// A preset of an experiment.
#[derive(Clone, Debug, PartialEq)]
pub struct Preset {
    /// Name on the command line.
    pub name: String,
    /// What it is and what it costs.
    pub summary: String,
    /// What the run should show.
    pub expectation: String,
    /// Phases in order; their steps are those of one arm.
    pub phases: Vec<PhaseInfo>,
    /// Arms it starts with.
    pub arms: Vec<ArmChoice>,
    /// Coefficient of an arm that names none.
    pub coeff: f64,
    /// Seeds it starts with.
    pub seeds: Vec<u64>,
}

/// An arm as chosen on the screen.
#[derive(Clone, Debug, PartialEq)]
pub struct ArmChoice {
    /// Strategy plugin.
    pub strategy: String,
    /// Objective; `None` for plain finetuning.
    pub objective: Option<Objective>,
    /// Coefficient; `None` for the preset's.
    pub coeff: Option<f64>,
    /// Settings that differ from the defaults of the strategy's schema.
    pub settings: serde_json::Map<String, serde_json::Value>,
}

/// A strategy plugin, loaded or refused.
#[derive(Clone, Debug, PartialEq)]
pub struct Plugin {
    /// Strategy name; the file name where it could not be loaded.
    pub name: String,
    /// Version of the plugin.
    pub version: String,
    /// What it does, one line.
    pub summary: String,
    /// File it was loaded from.
    pub path: PathBuf,
    /// Whether it replays anything; without, plain finetuning and `kl-new` are its objectives.
    pub replays: bool,
    /// JSON Schema of its settings.
    pub schema: serde_json::Value,
    /// What it needs and promises, in words.
    pub capabilities: Vec<String>,
    /// Why it could not be loaded.
    pub error: Option<String>,
}

/// A device to run on.
#[derive(Clone, Debug, PartialEq)]
pub struct Device {
    /// As on the command line: `cpu`, `cuda`, `cuda:1`.
    pub spec: String,
    /// In words: threads, memory, instruction set.
    pub summary: String,
    /// Why it cannot be used here.
    pub error: Option<String>,
}

/// One line of the list of runs.
#[derive(Clone, Debug, PartialEq)]
pub struct RunSummary {
    /// Name of its directory, which every other call takes.
    pub name: String,
    /// Experiment.
    pub experiment: String,
    /// Preset.
    pub preset: String,
    /// Where it stands.
    pub status: RunStatus,
    /// Arms it compares, seeds expanded.
    pub arms: usize,
    /// When it was started, seconds since the Unix epoch.
    pub started: Option<f64>,
    /// Share done, 0 to 1.
    pub progress: f64,
    /// Why it cannot be read, where it cannot.
    pub problem: Option<String>,
}

/// What to start.
#[derive(Clone, Debug, PartialEq)]
pub struct StartRequest {
    /// Experiment.
    pub experiment: String,
    /// Preset.
    pub preset: String,
    /// Device as on the command line.
    pub device: String,
    /// Seeds, at least one.
    pub seeds: Vec<u64>,
    /// Arms in order, at least one. Two arms of one strategy may differ in their settings alone.
    pub arms: Vec<ArmChoice>,
}
