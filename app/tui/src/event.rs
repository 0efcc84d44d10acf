//! The closed sets of events that reach the lab, of commands it gives, and of replies to them.

use std::path::PathBuf;

use crossterm::event::KeyEvent;
use forgetlab_study::report::Judgement;
use forgetlab_study::run::RunState;
use ratatui::layout::Size;

use super::arms::{Member, Question};
use super::lab::{
    Device, Experiment, FeedUpdate, Plugin, RunSummary, StartRequest, Started, Sweep,
};

/// Everything that reaches `App::update`.
#[derive(Debug)]
pub enum Event {
    /// A key was pressed.
    Key(KeyEvent),
    /// The terminal has a new size.
    Resize(Size),
    /// The time in seconds since the Unix epoch; at most once a second, only while a run is live.
    Clock(f64),
    /// A reply to a command.
    Reply(Reply),
    /// SIGINT, SIGTERM or SIGHUP: leave at once; the run goes on.
    Signal,
    /// The terminal is gone: leave at once, without output.
    TerminalGone,
}

/// A command of the screens to the lab's thread, answered by a [`Reply`].
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Load experiments, plugins and devices; one reply for each.
    LoadCatalog,
    /// Load the list of runs.
    LoadRuns,
    /// Begin or stop sending the list of runs whenever it changes.
    FollowRuns(bool),
    /// Begin sending this sweep whenever it changes, or stop.
    FollowSweep(Option<String>),
    /// Follow this run instead of the one followed so far.
    Watch(String),
    /// Start a run.
    Start(StartRequest),
    /// Resume a run.
    Resume(String),
    /// Ask a run to stop.
    Stop(String),
    /// Read these runs to compare them.
    Compare(Vec<String>),
    /// Write CSVs and figures of these runs.
    Export(Vec<String>),
    /// Compute the verdict on an arm of the runs of these names.
    Judge(Vec<String>, Question),
}

/// A reply of the lab's thread; errors are messages for the user.
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
    /// New records of the watched run; the first update of a run replaces what was shown.
    Feed {
        /// Name of the run.
        run: String,
        /// Whether these records begin with the run's first.
        first: bool,
        /// The new records and the run's status.
        update: Result<FeedUpdate, String>,
    },
    /// A sweep by its name, and its points.
    Sweep(String, Result<Box<Sweep>, String>),
    /// A run or sweep was started.
    Started(Result<Started, String>),
    /// This run was resumed.
    Resumed(String, Result<(), String>),
    /// This run was asked to stop.
    Stopping(String, Result<(), String>),
    /// The states of the runs to compare, each with the run's name.
    Compared(Vec<(String, Result<RunState, String>)>),
    /// Paths of the files written.
    Exported(Result<Vec<PathBuf>, String>),
    /// The verdict on an arm, given by its seeds, of the runs of these names.
    Judged(Vec<String>, Vec<Member>, Box<Judgement>),
    /// A thread of the lab panicked.
    Fault(String),
}
