//! What the lab tells a strategy: the phase, the step, and metrics of the last step.

use crate::{
    abi,
    raw::{slice, text},
};

/// A dataset with the marker its sequences begin with.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Task {
    /// Name of the dataset.
    pub name: String,
    /// Tokens every sequence of the task begins with, e.g. `<bos> <task>`.
    pub markers: Vec<u32>,
    /// Number of sequences that can be drawn; 0 where the data is not available.
    pub sequences: u64,
}

/// The current phase.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Phase {
    /// Index of the phase, from 0.
    pub index: u64,
    /// Number of phases in the experiment.
    pub count: u64,
    /// Steps of the arm at the start of the phase.
    pub first_step: u64,
    /// Optimizer steps of the phase.
    pub steps: u64,
    /// Rows wanted in a replay batch.
    pub replay_rows: usize,
    /// Rows accepted in a replay batch, at most.
    pub max_rows: usize,
    /// Usual length of a sequence; a generated one is this long.
    pub seq_len: usize,
    /// Longest sequence accepted.
    pub max_seq_len: usize,
    /// Token ids are smaller than this.
    pub vocab_size: u32,
    /// Objective of the arm.
    pub objective: ArmObjective,
    /// Coefficient of the arm; 0 where there is none.
    pub coeff: f64,
    /// Tasks trained on before; empty in the first phase.
    pub old_tasks: Vec<Task>,
    /// Task being trained on.
    pub new_task: Task,
}

/// Objective of an arm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ArmObjective {
    /// None, or one that needs no replay.
    #[default]
    None,
    /// KL(reference || student).
    Kl,
    /// Next-token prediction.
    Ntp,
    /// Old rows replace rows of the new batch.
    Replace,
}

impl Phase {
    /// Markers of the old tasks as `rows` prompts. The tasks alternate, so that any range of rows has equal
    /// shares of them.
    pub fn prompts_in_equal_shares(&self, rows: usize) -> Vec<Vec<u32>> {
        let markers = self.old_tasks.iter().map(|task| task.markers.clone());
        markers.cycle().take(rows).collect()
    }

    /// Copies a phase from the ABI's struct; `None` for null.
    ///
    /// # Safety
    /// `raw` must be null or valid as the ABI says.
    pub(crate) unsafe fn read(raw: *const abi::Phase) -> Option<Self> {
        // SAFETY: the caller vouches for the pointer.
        let raw = unsafe { raw.as_ref() }?;
        let old_tasks = (0..raw.old_tasks_len)
            .map(|i| {
                let offset = (i * raw.task_stride) as usize;
                // SAFETY: the host's tasks stand `task_stride` bytes apart.
                unsafe { Task::read(raw.old_tasks.byte_add(offset)) }
            })
            .collect();
        Some(Self {
            index: raw.index,
            count: raw.count,
            first_step: raw.first_step,
            steps: raw.steps,
            replay_rows: raw.replay_rows as usize,
            max_rows: raw.max_rows as usize,
            seq_len: raw.seq_len as usize,
            max_seq_len: raw.max_seq_len as usize,
            vocab_size: raw.vocab_size,
            objective: match raw.objective {
                abi::OBJECTIVE_KL => ArmObjective::Kl,
                abi::OBJECTIVE_NTP => ArmObjective::Ntp,
                abi::OBJECTIVE_REPLACE => ArmObjective::Replace,
                _ => ArmObjective::None,
            },
            coeff: raw.coeff,
            old_tasks,
            // SAFETY: the host's pointer is null or valid.
            new_task: unsafe { Task::read(raw.new_task) },
        })
    }
}

impl Task {
    /// Copies a task from the ABI's struct; an empty one for null.
    ///
    /// # Safety
    /// `raw` must be null or valid as the ABI says.
    unsafe fn read(raw: *const abi::Task) -> Self {
        // SAFETY: the caller vouches for the pointer.
        let Some(raw) = (unsafe { raw.as_ref() }) else {
            return Self::default();
        };
        // SAFETY: pointers and lengths of a valid task belong together.
        let (name, markers) = unsafe {
            (
                text(raw.name, raw.name_len),
                slice(raw.markers, raw.markers_len).to_vec(),
            )
        };
        Self {
            name,
            markers,
            sequences: raw.sequences,
        }
    }
}

/// The step a batch is asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Step {
    /// Steps of the arm so far.
    pub step: u64,
    /// Steps of the phase so far.
    pub phase_step: u64,
    /// Rows wanted.
    pub rows: usize,
    /// The current phase.
    pub phase: Phase,
}

impl Step {
    /// Steps of the phase that are left, this one included.
    pub fn steps_left(&self) -> u64 {
        self.phase.steps.saturating_sub(self.phase_step)
    }

    /// Number of rows for the batches of the next `batches` steps, up to the end of the phase.
    pub fn rows_ahead(&self, batches: u64) -> usize {
        self.rows * batches.min(self.steps_left()).max(1) as usize
    }

    /// Copies a step from the ABI's struct; `None` for null.
    ///
    /// # Safety
    /// `raw` must be null or valid as the ABI says.
    pub(crate) unsafe fn read(raw: *const abi::Step) -> Option<Self> {
        // SAFETY: the caller vouches for the pointer.
        let raw = unsafe { raw.as_ref() }?;
        Some(Self {
            step: raw.step,
            phase_step: raw.phase_step,
            rows: raw.rows as usize,
            // SAFETY: the phase of a valid step is valid.
            phase: unsafe { Phase::read(raw.phase) }?,
        })
    }
}

/// Losses and gradient norm of the last step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observation {
    /// Steps of the arm before this one: the `step` of its batch.
    pub step: u64,
    /// Steps of the phase before this one.
    pub phase_step: u64,
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
    /// The current phase.
    pub phase: Phase,
}

impl Observation {
    /// Copies an observation from the ABI's struct; `None` for null.
    ///
    /// # Safety
    /// `raw` must be null or valid as the ABI says.
    pub(crate) unsafe fn read(raw: *const abi::Observation) -> Option<Self> {
        // SAFETY: the caller vouches for the pointer.
        let raw = unsafe { raw.as_ref() }?;
        // SAFETY: pointers and lengths of a valid observation belong together.
        let (phase, new_row_losses, replay_row_losses) = unsafe {
            (
                Phase::read(raw.phase)?,
                slice(raw.new_row_losses, raw.new_row_losses_len).to_vec(),
                slice(raw.replay_row_losses, raw.replay_row_losses_len).to_vec(),
            )
        };
        Some(Self {
            step: raw.step,
            phase_step: raw.phase_step,
            new_loss: raw.new_loss,
            replay_loss: (raw.has_replay != 0).then_some(raw.replay_loss),
            grad_norm: raw.grad_norm,
            learning_rate: raw.learning_rate,
            new_row_losses,
            replay_row_losses,
            phase,
        })
    }
}
