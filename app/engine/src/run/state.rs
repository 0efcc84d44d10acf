//! A run as its events tell it: what screens, CSVs and figures read.

use super::event::{ArmInfo, Cost, Level, PhaseInfo, Record, Score};

/// Fold of all events of a run so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunState {
    /// Experiment; empty before the first event.
    pub experiment: String,
    /// Preset.
    pub preset: String,
    /// Phases in order.
    pub phases: Vec<PhaseInfo>,
    /// Arms in order.
    pub arms: Vec<ArmState>,
    /// Device of the last worker, in words.
    pub device: String,
    /// Process id of the last worker.
    pub pid: Option<u32>,
    /// Log lines: time (seconds since the epoch), level, arm, text.
    pub log: Vec<(f64, Level, Option<usize>, String)>,
    /// Time of the first and the last event.
    pub times: Option<(f64, f64)>,
    /// Whether the last thing that happened was an orderly stop.
    pub interrupted: Option<String>,
    /// Whether every arm has ended.
    pub finished: bool,
}

/// One arm so far.
#[derive(Clone, Debug, PartialEq)]
pub struct ArmState {
    /// Who it is.
    pub info: ArmInfo,
    /// Where it stands.
    pub status: ArmStatus,
    /// Phase it is in.
    pub phase: usize,
    /// Steps so far (live progress included).
    pub step: u64,
    /// Last live figures.
    pub progress: Option<Progress>,
    /// Evaluations in order of steps, the first at step 0.
    pub evaluations: Vec<Evaluation>,
    /// Figures reported by the plugin: step, name, value.
    pub plugin_metrics: Vec<(u64, String, f64)>,
}

/// Where an arm stands.
#[derive(Clone, Debug, PartialEq)]
pub enum ArmStatus {
    /// Nothing of it has happened yet.
    Waiting,
    /// Between its first and last step.
    Running,
    /// Reached its end.
    Finished,
    /// Ended early: the reason.
    Failed(String),
    /// Left out on resume: the reason.
    Skipped(String),
}

/// Figures of [`super::Event::Progress`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// NTP loss of the last new batch.
    pub ntp: f64,
    /// Replay loss before the coefficient.
    pub replay: Option<f64>,
    /// Norm of the last gradient.
    pub grad_norm: f64,
    /// Trained tokens per second.
    pub tokens_per_second: f64,
}

/// One [`super::Event::Evaluated`] of an arm.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// Phase, from 0.
    pub phase: usize,
    /// Steps so far.
    pub step: u64,
    /// Paid so far.
    pub cost: Cost,
    /// One entry a dataset.
    pub scores: Vec<Score>,
}

impl RunState {
    /// Takes one more event into account.
    pub fn apply(&mut self, record: &Record) {
        let _ = record;
    }
}
