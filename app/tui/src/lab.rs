//! The interface of the terminal lab to the rest of the program: two traits and the data they carry.
//!
//! The calls may block; they run on a thread of their own (module `backend`). Nothing here touches a
//! tensor: a run is a worker process, seen through its directory.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use forgetlab_study::experiment::{ArmSpec, RunConfig};
use forgetlab_study::report::Digest;
use forgetlab_study::run::{
    Labels, PointStatus, Record, ReplayLook, RunState, RunStatus, SampleLook, SweepCounts,
};
use serde::Serialize;

/// What runs are composed of. It takes a while to load, so it is on a thread of its own.
pub trait Catalog: Send {
    /// Experiments with their presets, in the order to offer them.
    fn experiments(&self) -> anyhow::Result<Vec<Experiment>>;
    /// Strategy plugins found, those that failed to load included.
    fn plugins(&self) -> anyhow::Result<Vec<Plugin>>;
    /// Devices a run can be started on, the default first.
    fn devices(&self) -> anyhow::Result<Vec<Device>>;
}

/// Everything the screens need of the program. Error texts are shown to the user as they are.
pub trait Lab: Send {
    /// What runs are composed of.
    fn catalog(&self) -> Box<dyn Catalog>;
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
    /// Writes the tables of runs, together where there are several, to a file in the folder of the results: as
    /// `markdown`, `latex` or `csv`. Returns its path.
    fn write_table(&mut self, runs: &[String], format: &str) -> anyhow::Result<PathBuf>;
    /// Writes a table that is in such a format to a file there; returns its path.
    fn write_text(&mut self, table: &str, format: &str) -> anyhow::Result<PathBuf>;
    /// What the list shows of a run beside itself.
    fn preview(&mut self, run: &str) -> anyhow::Result<Preview>;
    /// The settings in which runs differ, as a text.
    fn differences(&mut self, runs: &[String]) -> anyhow::Result<String>;
    /// The configuration with which a run was started.
    fn config(&mut self, run: &str) -> anyhow::Result<RunConfig>;
    /// A replay batch of an arm with its texts, by the index of the arm and the steps before the batch.
    fn look(&mut self, run: &str, arm: usize, step: u64) -> anyhow::Result<ReplayLook>;
    /// What the student of an arm wrote at an evaluation, by the index of the arm and its steps.
    fn samples(&mut self, run: &str, arm: usize, step: u64) -> anyhow::Result<SampleLook>;
    /// Asks for one more arm, written as on the command line; returns what became of it.
    fn add_arm(&mut self, run: &str, arm: &str) -> anyhow::Result<String>;
    /// Asks to stop arms of a live run, by their slugs; returns what became of it.
    fn stop_arms(&mut self, run: &str, slugs: &[String]) -> anyhow::Result<String>;
    /// Changes the display name, the note or the tags of a run or sweep.
    fn label(&mut self, run: &str, change: &LabelChange) -> anyhow::Result<()>;
    /// Bytes that a run takes on disk.
    fn disk_use(&mut self, run: &str) -> anyhow::Result<u64>;
    /// Deletes a run that is not live.
    fn delete(&mut self, run: &str) -> anyhow::Result<()>;
    /// What a check of a strategy's library says, and whether it passed.
    fn check(&mut self, library: &Path) -> anyhow::Result<(bool, String)>;
    /// What a run to come will take.
    fn predict(&mut self, request: &StartRequest) -> anyhow::Result<Prediction>;
    /// Writes the configuration of a run to come to a file; returns its path.
    fn write_config(&mut self, request: &StartRequest, file: &str) -> anyhow::Result<PathBuf>;
    /// How experiments were looked at, and the user's keys, as the texts of their files; empty where there are none.
    fn kept(&mut self) -> anyhow::Result<Kept>;
    /// Keeps how experiments are looked at.
    fn keep_views(&mut self, views: &str) -> anyhow::Result<()>;
    /// What this machine has, and what uses it now; what is counted over time is counted since the last call.
    fn machine(&mut self) -> anyhow::Result<Machine>;
}

/// What the lab keeps for the user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// How experiments are looked at.
    pub views: String,
    /// The file of keys.
    pub keys: String,
    /// Where the file of keys is, or would be.
    pub keys_path: String,
}

/// What a run to come will take, all of its arms and seeds, or all points of a sweep.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Prediction {
    /// Tokens trained on.
    pub tokens: u64,
    /// Tokens generated.
    pub generated: u64,
    /// FLOPs.
    pub flops: f64,
    /// Whether these are upper ends.
    pub at_most: bool,
    /// Bytes of memory, of the point that takes most; `None` where that is not known.
    pub memory: Option<u64>,
    /// Seconds; `None` where nothing is known of this machine's speed.
    pub seconds: Option<f64>,
    /// What the time is from, or why there is none.
    pub seconds_from: String,
    /// What else is to be known, and why it cannot be run here.
    pub notes: Vec<String>,
}

/// A change of what a user has written to a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LabelChange {
    /// The display name; empty for none.
    Name(String),
    /// The note; empty for none.
    Note(String),
    /// Tags to add, or with `-` before them to take away.
    Tags(Vec<String>),
}

/// What the list shows of a run beside itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Preview {
    /// Its state.
    pub state: RunState,
    /// Its status.
    pub status: RunStatus,
    /// The run of the same experiment before it, and the settings that differ from that one.
    pub differs: Option<(String, Vec<String>)>,
}

/// A reader of one run, polled a few times a second.
pub trait Feed: Send {
    /// The records since the last poll, and the run's status now.
    fn poll(&mut self) -> anyhow::Result<FeedUpdate>;
}

/// Result of [`Feed::poll`].
#[derive(Clone, Debug, PartialEq)]
pub struct FeedUpdate {
    /// What the records before these tell, kept thin ([`RunState::thin`]); with the first update, empty where `records`
    /// are all there are, and where the run has gone back to a checkpoint.
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
    /// Its place in the line for its device, from 1, where its worker waits in it: its status is `Live` then.
    pub queued: Option<usize>,
    /// What somebody wrote to it.
    pub labels: Labels,
    /// What its arms come to.
    pub digest: Arc<Digest>,
    /// Its configuration; empty where it cannot be read.
    pub config: Arc<toml::Table>,
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
    /// Settings beside the preset's, as `--set` takes them: key and TOML value.
    pub set: Vec<(String, String)>,
    /// Whether it waits until its device is free.
    pub queue: bool,
    /// Arms in order, at least one; no two have the same name. Of a sweep they replace those of its grids only where
    /// they are not the preset's.
    pub arms: Vec<ArmSpec>,
}

/// What this machine has, and what uses it now.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Machine {
    /// GPUs in the driver's order.
    pub gpus: Vec<Gpu>,
    /// Why there are none to be seen, in one line; `None` where there are.
    pub gpu_problem: Option<String>,
    /// The processor.
    pub cpu: Cpu,
    /// Memory: of a container or a batch job that may use a part of the machine's alone, that part.
    pub memory: Room,
    /// The disk of the results folder; `None` where the system does not tell.
    pub disk: Option<Room>,
    /// Live runs of the results folder, by name.
    pub workers: Vec<WorkerUse>,
}

/// How much there is of something, and how much is used, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Room {
    /// In use, at most `total`.
    pub used: u64,
    /// All there is.
    pub total: u64,
}

impl Room {
    /// What is left, bytes.
    pub fn free(self) -> u64 {
        self.total.saturating_sub(self.used)
    }

    /// The share in use, 0 to 1.
    pub fn share(self) -> f64 {
        self.used as f64 / self.total.max(1) as f64
    }
}

/// The processor.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Cpu {
    /// Share of all cores in use since the last reading, 0 to 1; `None` at the first.
    pub used: Option<f64>,
    /// The same of each core; empty at the first reading.
    pub cores: Vec<f64>,
    /// Cores there are.
    pub count: usize,
    /// Processes that run or wait to, averaged over 1, 5 and 15 minutes.
    pub load: [f64; 3],
}

/// A GPU. `None` is what it does not tell.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Gpu {
    /// Its number, as in `cuda:N`.
    pub index: u32,
    /// Name of the model; why it cannot be read, where it cannot.
    pub name: String,
    /// Share of the time in which something ran on it, 0 to 1.
    pub used: Option<f64>,
    /// Its memory.
    pub memory: Option<Room>,
    /// Power it draws, watts.
    pub power: Option<f64>,
    /// Power it may draw, watts.
    pub power_limit: Option<f64>,
    /// Temperature, degrees Celsius.
    pub temperature: Option<u32>,
    /// Clock of its processors, MHz.
    pub clock: Option<u32>,
    /// Clock of its memory, MHz.
    pub memory_clock: Option<u32>,
    /// Processes on it, as the driver numbers them: in a container those are not always its own numbers.
    pub processes: Vec<GpuProcess>,
}

/// A process on a GPU.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct GpuProcess {
    /// Process id.
    pub pid: u32,
    /// Name of the program, where there is such a process here.
    pub name: Option<String>,
    /// The run whose worker it is, if it is one.
    pub run: Option<String>,
    /// Memory of the GPU that it has, bytes.
    pub memory: Option<u64>,
}

/// What the worker of a live run uses.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct WorkerUse {
    /// Name of the run, which every other call takes.
    pub run: String,
    /// The arm it works on now; `None` before the first.
    pub arm: Option<String>,
    /// Whether it only waits in the line for its device.
    pub queued: bool,
    /// Device as on the command line.
    pub device: String,
    /// Its process id; `None` where that is not known.
    pub pid: Option<u32>,
    /// Cores that it kept busy since the last reading, e.g. 1.9; `None` at its first, and where it runs on another
    /// machine.
    pub cores: Option<f64>,
    /// Memory it has, bytes; `None` where it runs on another machine.
    pub memory: Option<u64>,
    /// Memory of GPUs that it has, bytes; `None` where it has none, or the driver does not tell.
    pub gpu_memory: Option<u64>,
}
