//! The closed sets of events that reach the lab, of commands it gives, and of replies to them.

use std::path::PathBuf;
use std::time::Duration;

use crossterm::event::KeyEvent;
use forgetlab_study::experiment::RunConfig;
use forgetlab_study::report::Judgement;
use forgetlab_study::run::{ReplayLook, SampleLook};
use ratatui::layout::{Position, Size};

use super::arms::{Member, Question};
use super::lab::{
    Device, Experiment, FeedUpdate, Kept, LabelChange, Machine, Plugin, Prediction, Preview,
    RunSummary, StartRequest, Started, Sweep,
};

/// Everything that reaches `App::update`.
#[derive(Debug)]
pub enum Event {
    /// A key was pressed.
    Key(KeyEvent),
    /// The mouse was pressed on a cell.
    Click(Position),
    /// The mouse's wheel was turned: lines down.
    Wheel(isize),
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
    /// Load what is kept for the user.
    LoadKept,
    /// Load the list of runs.
    LoadRuns,
    /// Begin or stop sending the list of runs whenever it changes.
    FollowRuns(bool),
    /// Begin sending this sweep whenever it changes, or stop.
    FollowSweep(Option<String>),
    /// Begin or stop sending what the machine is used for, so often.
    FollowMachine(Option<Duration>),
    /// Follow these runs instead of those followed so far.
    Watch(Vec<String>),
    /// Read what the list shows of this run beside itself.
    Preview(String),
    /// Start a run.
    Start(StartRequest),
    /// Resume a run.
    Resume(String),
    /// Ask a run to stop.
    Stop(String),
    /// Ask for one more arm of a run.
    AddArm(String, String),
    /// Ask to stop arms of a run.
    StopArm(String, Vec<String>),
    /// Read the configuration of a run, to compose another one from it.
    Again(String),
    /// Write CSVs and figures of these runs.
    Export(Vec<String>),
    /// Write all tables of these runs in a format.
    WriteTable(Vec<String>, String),
    /// Write a table that is in this format.
    WriteText(String, String),
    /// Read the texts of a replay batch: run, arm, step.
    Look(String, usize, u64),
    /// Read what a student wrote: run, arm, step.
    ReadSamples(String, usize, u64),
    /// Say in which settings these runs differ.
    Diff(Vec<String>),
    /// Change what a user has written to a run.
    Label(String, LabelChange),
    /// Say how much disk a run takes, to ask whether it is to be deleted.
    AskDelete(String),
    /// Delete a run.
    Delete(String),
    /// Check a strategy's library.
    Check(PathBuf),
    /// Say what a run to come will take.
    Predict(StartRequest),
    /// Write the configuration of a run to come to a file.
    WriteConfig(StartRequest, String),
    /// Keep how experiments are looked at.
    KeepViews(String),
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
    /// What is kept for the user.
    Kept(Result<Kept, String>),
    /// Runs on disk.
    Runs(Result<Vec<RunSummary>, String>),
    /// What the machine is used for.
    Machine(Result<Box<Machine>, String>),
    /// New records of a watched run; the first update of a run replaces what was shown.
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
    /// What the list shows of a run beside itself.
    Preview(String, Result<Box<Preview>, String>),
    /// A run or sweep was started.
    Started(Result<Started, String>),
    /// This run was resumed.
    Resumed(String, Result<(), String>),
    /// This run was asked to stop.
    Stopping(String, Result<(), String>),
    /// What a run to come will take.
    Predicted(Box<StartRequest>, Result<Prediction, String>),
    /// The configuration of a run.
    Config(Result<Box<RunConfig>, String>),
    /// Paths of the files written.
    Exported(Result<Vec<PathBuf>, String>),
    /// The texts of a replay batch of this run, arm and step.
    Looked(String, usize, u64, Result<ReplayLook, String>),
    /// What the student of this run and arm wrote at this step.
    Samples(String, usize, u64, Result<SampleLook, String>),
    /// A title and a text to be shown.
    Told(&'static str, Result<String, String>),
    /// What became of something, in a line.
    Done(Result<String, String>),
    /// Bytes that a run takes.
    DiskUse(String, Result<u64, String>),
    /// The verdict on an arm, given by its seeds, of the runs of these names.
    Judged(Vec<String>, Vec<Member>, Box<Judgement>),
    /// A thread of the lab panicked.
    Fault(String),
}
