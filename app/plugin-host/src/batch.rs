//! The Rust types of what strategies receive (phase, step metrics) and return (replay batches).

use forgetlab_plugin_api::abi;
use forgetlab_study::experiment::Objective;

/// A task as strategies see it.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// Name of the dataset.
    pub name: String,
    /// Tokens every sequence of the task begins with.
    pub markers: Vec<u32>,
    /// Number of sequences that can be drawn; 0 where the data is not available.
    pub sequences: u64,
}

/// The current phase, as strategies see it.
#[derive(Clone, Debug, PartialEq)]
pub struct PhaseContext {
    /// Index of the phase, from 0.
    pub phase: usize,
    /// Number of phases in the experiment.
    pub phases: usize,
    /// Steps of the arm at the start of the phase.
    pub first_step: u64,
    /// Optimizer steps of the phase.
    pub steps: u64,
    /// Tasks trained on before; empty in the first phase.
    pub old_tasks: Vec<Task>,
    /// Task being trained on.
    pub new_task: Task,
    /// Rows wanted in a replay batch (for `replace`: the rows to be replaced).
    pub replay_rows: usize,
    /// Rows accepted in a replay batch, at most.
    pub max_rows: usize,
    /// Usual length of a sequence; a generated one is this long.
    pub seq_len: usize,
    /// Longest sequence accepted.
    pub max_seq_len: usize,
    /// Token ids are smaller than this.
    pub vocab_size: u32,
    /// Objective of the arm; `None` for plain finetuning.
    pub objective: Option<Objective>,
    /// Coefficient of the arm.
    pub coeff: Option<f64>,
}

impl PhaseContext {
    /// Rows of one request to the lab, at most.
    pub(super) fn most_rows(&self) -> u64 {
        abi::MAX_BATCHES.saturating_mul(self.max_rows as u64)
    }
}

/// Losses and gradient norm of the last optimizer step, for [`super::StrategyInstance::observe`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepMetrics {
    /// Steps of the arm before this one: the `step` given to `next_batch`.
    pub step: u64,
    /// NTP loss of the new batch, nats per token.
    pub new_loss: f64,
    /// Replay loss before the coefficient; `None` where nothing was replayed.
    pub replay_loss: Option<f64>,
    /// Norm of the gradient.
    pub grad_norm: f64,
    /// Learning rate of the step.
    pub learning_rate: f64,
    /// Mean loss of each row of the new batch.
    pub new_row_losses: Vec<f32>,
    /// Mean loss of each row of the replay batch, by its own objective.
    pub replay_row_losses: Vec<f32>,
}

/// A replay batch that passed every check: ids below the vocabulary, 1 ≤ length ≤ `seq_len`, finite
/// weights ≥ 0, `rows` and `seq_len` within the caps of the phase.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplayBatch {
    /// Rows B, at least 1.
    pub rows: usize,
    /// Padded length T, at least 1.
    pub seq_len: usize,
    /// Token ids `[B, T]`, padding included.
    pub tokens: Vec<u32>,
    /// True length of each row `[B]`.
    pub lengths: Vec<u32>,
    /// Loss weights on targets `[B, T]`: `[r, t]` belongs to predicting token `t` of row `r`; 0 for
    /// token 0 and for padding.
    pub weights: Vec<f32>,
    /// Objective of each row where the strategy chose one (`Kl` or `Ntp`); `None` in a row or
    /// altogether: the arm's.
    pub row_objectives: Option<Vec<Option<Objective>>>,
    /// Teacher of the KL rows.
    pub teacher: Teacher,
    /// Coefficient of this step, in place of the arm's; finite and ≥ 0.
    pub coeff: Option<f64>,
}

/// Teacher of the KL rows of a replay batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Teacher {
    /// The phase's reference.
    #[default]
    Reference,
    /// A snapshot kept by [`super::Services::keep_snapshot`].
    Snapshot(u64),
    /// The k most likely tokens of each target with their log-probabilities, `[B, T, k]`.
    Supplied {
        /// Number of entries per target.
        k: usize,
        /// Token ids.
        ids: Vec<u32>,
        /// Log-probabilities, nats, ≤ 0.
        log_probs: Vec<f32>,
    },
}
