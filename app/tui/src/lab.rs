//! The interface of the terminal lab to the rest of the program: two traits and the data they carry.
//!
//! The calls may block; they run on a thread of their own (module `backend`). Nothing here touches a
//! tensor: a run is a worker process, seen through its directory.

use std::path::PathBuf;

use forgetlab_study::experiment::{ArmSpec, RunConfig};
use forgetlab_study::run::{PointStatus, Record, RunState, RunStatus, SweepCounts};

/// Everything the screens need of the program. Error texts are shown to the user as they are.
pub trait Lab: Send {
    /// Experiments with their presets, in the order to offer them.
    fn experiments(&mut self) -> anyhow::Result<Vec<Experiment>>;
    /// Strategy plugins found, those that failed to load included.
    fn plugins(&mut self) -> anyhow::Result<Vec<Plugin>>;
    /// Devices a run can be started on, the default first.
    fn devices(&mut self) -> anyhow::Result<Vec<Device>>;
    /// All runs and sweeps on disk, newest first.
    fn runs(&mut self) -> anyhow::Result<Vec<RunSummary>>;
    /// A sweep with its points in order.
    fn sweep(&mut self, sweep: &str) -> anyhow::Result<Sweep>;
    /// Opens a run for reading; the feed begins with its first event.
    fn open(&mut self, run: &str) -> anyhow::Result<Box<dyn Feed>>;
    /// Starts a run, or a sweep where the preset is one, in a session of its own.
    fn start(&mut self, request: &StartRequest) -> anyhow::Result<Started>;
    /// Starts a worker that goes on with an interrupted or crashed run, or with a sweep.
    fn resume(&mut self, run: &str) -> anyhow::Result<()>;
    /// Asks whoever works on a run or sweep to stop at the next step with a checkpoint; does not wait for it.
    fn stop(&mut self, run: &str) -> anyhow::Result<()>;
    /// Writes the CSVs and figures of one run, or the comparison of several; returns the paths.
    fn export(&mut self, runs: &[String]) -> anyhow::Result<Vec<PathBuf>>;
}

/// A reader of one run, polled a few times a second.
pub trait Feed: Send {
    /// The records since the last poll, and the run's status now.
    fn poll(&mut self) -> anyhow::Result<FeedUpdate>;
}

/// Result of [`Feed::poll`].
#[derive(Clone, Debug, PartialEq)]
pub struct FeedUpdate {
    /// What the records before these tell; with the first update alone, empty where `records` are all there are.
    pub before: Option<Box<RunState>>,
    /// New records in order; empty when nothing happened.
    pub records: Vec<Record>,
    /// Status of the run.
    pub status: RunStatus,
    /// Why the worker of a crashed run ended, where that is known.
    pub why: Option<String>,
}

/// An experiment that can be run.
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
    /// Everything that a run of it does, its arms and seeds included; of a sweep, what its points share.
    pub config: RunConfig,
    /// Its points, where it is a sweep.
    pub points: Option<Points>,
}

/// The points that a preset comes to.
#[derive(Clone, Debug, PartialEq)]
pub struct Points {
    /// How many there are.
    pub count: usize,
    /// What each of its grids has, a line each.
    pub grids: Vec<String>,
}

/// A strategy plugin, loaded or rejected.
#[derive(Clone, Debug, PartialEq)]
pub struct Plugin {
    /// Strategy name; the file name where it could not be loaded.
    pub name: String,
    /// Version of the plugin.
    pub version: String,
    /// One line on what it replays.
    pub summary: String,
    /// File it was loaded from.
    pub path: PathBuf,
    /// Whether it replays anything; if not, its objectives are plain finetuning and `kl-new`.
    pub replays: bool,
    /// JSON Schema of its settings.
    pub schema: serde_json::Value,
    /// Capabilities it declares, in words.
    pub capabilities: Vec<String>,
    /// Why it could not be loaded, if it could not.
    pub error: Option<String>,
}

/// A device to run on.
#[derive(Clone, Debug, PartialEq)]
pub struct Device {
    /// Name on the command line: `cpu`, `cuda`, `cuda:1`.
    pub spec: String,
    /// Description: threads, memory, instruction set.
    pub summary: String,
    /// Why it cannot be used here, if it cannot.
    pub error: Option<String>,
}

/// One line of the list of runs: a run, or a sweep as one thing.
#[derive(Clone, Debug, PartialEq)]
pub struct RunSummary {
    /// Name of its directory, which every other call takes.
    pub name: String,
    /// Experiment.
    pub experiment: String,
    /// Preset.
    pub preset: String,
    /// Status of the run.
    pub status: RunStatus,
    /// Number of arms, one for each seed.
    pub arms: usize,
    /// Time of the start, seconds since the Unix epoch.
    pub started: Option<f64>,
    /// Share of the steps done, 0 to 1.
    pub progress: f64,
    /// Why it cannot be read, if it cannot.
    pub problem: Option<String>,
    /// How its points stand, where it is a sweep.
    pub points: Option<SweepCounts>,
}

/// A sweep, and how each of its points stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Sweep {
    /// The sweep as a whole.
    pub summary: RunSummary,
    /// Its points, in the order in which they are worked on.
    pub points: Vec<SweepPoint>,
}

/// A point of a sweep.
#[derive(Clone, Debug, PartialEq)]
pub struct SweepPoint {
    /// Name within the sweep.
    pub name: String,
    /// Name of its run, which every other call takes; `None` until somebody has begun with it.
    pub run: Option<String>,
    /// What has become of it.
    pub status: PointStatus,
    /// Share of its steps done, 0 to 1.
    pub progress: f64,
    /// What its first arm forgot, in words, once it is finished.
    pub told: String,
}

/// The name of the run of a sweep's point.
pub fn point_run(sweep: &str, point: &str) -> String {
    format!("{sweep}/{point}")
}

/// What was started.
#[derive(Clone, Debug, PartialEq)]
pub enum Started {
    /// A run of this name.
    Run(String),
    /// A sweep of this name.
    Sweep(String),
}

/// A run or a sweep to start.
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
    /// Arms in order, at least one; no two have the same name. Of a sweep they replace those of its grids only where
    /// they are not the preset's.
    pub arms: Vec<ArmSpec>,
}
