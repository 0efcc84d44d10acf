//! The one closed set of things that can happen to the lab, and of things it can ask for.

use std::path::PathBuf;

use crossterm::event::KeyEvent;
use forgetlab_study::run::RunState;

use super::lab::{Device, Experiment, FeedUpdate, Plugin, RunSummary, StartRequest};

/// Everything that reaches [`super::app::App::update`].
#[derive(Debug)]
pub enum Event {
    /// A key was pressed.
    Key(KeyEvent),
    /// The terminal has a new size: columns, rows.
    Resize(u16, u16),
    /// The clock, seconds since the Unix epoch; at most once a second, only while a run is live.
    Clock(f64),
    /// The lab answered.
    Reply(Reply),
    /// SIGINT, SIGTERM or SIGHUP: leave at once, the run goes on.
    Signal,
    /// The terminal is gone: leave at once, say nothing.
    TerminalGone,
}

/// What the screens ask of the lab; answered by a [`Reply`] of the same name.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Experiments, plugins and devices, each as it is known.
    LoadCatalog,
    /// The list of runs.
    LoadRuns,
    /// Keep the list of runs fresh (or stop doing so).
    FollowRuns(bool),
    /// Follow this run instead of the one followed so far.
    Watch(String),
    /// Start a worker.
    Start(StartRequest),
    /// Go on with a run.
    Resume(String),
    /// Ask a run to stop.
    Stop(String),
    /// Read whole runs to compare them.
    Compare(Vec<String>),
    /// Write CSVs and figures.
    Export(Vec<String>),
}

/// An answer of the lab; errors are ready to be read.
#[derive(Clone, Debug)]
pub enum Reply {
    /// Experiments with presets.
    Experiments(Result<Vec<Experiment>, String>),
    /// Strategy plugins.
    Plugins(Result<Vec<Plugin>, String>),
    /// Devices.
    Devices(Result<Vec<Device>, String>),
    /// Runs on disk.
    Runs(Result<Vec<RunSummary>, String>),
    /// News of the run being watched; the first one of a run replaces what was shown.
    Feed {
        /// Run.
        run: String,
        /// Whether these records begin with the run's first.
        first: bool,
        /// The news.
        update: Result<FeedUpdate, String>,
    },
    /// A worker was started: the name of its run.
    Started(Result<String, String>),
    /// A worker goes on with this run.
    Resumed(String, Result<(), String>),
    /// A run was asked to stop.
    Stopping(String, Result<(), String>),
    /// Runs to compare, each whole.
    Compared(Vec<(String, Result<RunState, String>)>),
    /// Files written.
    Exported(Result<Vec<PathBuf>, String>),
    /// The lab's own thread is gone.
    Fault(String),
}
