//! A [`PhaseContext`] as the C struct of the ABI, lent to a plugin for one call.

use std::ptr::NonNull;

use forgetlab_plugin_api::abi;
use forgetlab_study::experiment::Objective;

use super::{PhaseContext, Task};

/// What a lent phase is overwritten with: no valid token, length or address.
const GONE: u8 = 0xdd;

/// A phase that a plugin may read as long as this lives; then it is overwritten, for nobody may count on it.
pub(super) struct LentPhase {
    /// Behind a pointer because the plugin has one to it, too; freed on drop.
    parts: NonNull<Parts>,
    /// Whether the overwritten memory stays, so that whoever kept an address of it meets nothing else there.
    stays: bool,
}

struct Parts {
    /// Owns the names and markers that the tasks lead to.
    phase: PhaseContext,
    old_tasks: Vec<abi::Task>,
    new_task: abi::Task,
    raw: abi::Phase,
}

impl LentPhase {
    /// A phase to lend. With `stays` its memory is never used again, which a short check can afford.
    pub(super) fn new(phase: PhaseContext, stays: bool) -> Self {
        let old_tasks: Vec<abi::Task> = phase.old_tasks.iter().map(task).collect();
        let new_task = task(&phase.new_task);
        let raw = raw(&phase, &old_tasks);
        let parts = Box::leak(Box::new(Parts {
            phase,
            old_tasks,
            new_task,
            raw,
        }));
        parts.raw.new_task = &raw const parts.new_task;
        let parts = NonNull::from(parts);
        Self { parts, stays }
    }

    /// The C struct; null for no phase.
    pub(super) fn pointer(lent: Option<&Self>) -> *const abi::Phase {
        lent.map_or(std::ptr::null(), |lent| {
            // SAFETY: the parts are there until the drop.
            unsafe { &raw const (*lent.parts.as_ptr()).raw }
        })
    }
}

impl Drop for LentPhase {
    fn drop(&mut self) {
        // SAFETY: made by `Box::leak`, and only here taken back.
        let mut parts = unsafe { Box::from_raw(self.parts.as_ptr()) };
        parts.overwrite();
        if self.stays {
            Box::leak(parts);
        }
    }
}

impl Parts {
    fn overwrite(&mut self) {
        let new = std::iter::once(&mut self.phase.new_task);
        for task in self.phase.old_tasks.iter_mut().chain(new) {
            task.markers.fill(u32::from_ne_bytes([GONE; 4]));
            let mut name = std::mem::take(&mut task.name).into_bytes();
            name.fill(b'?');
            // The same memory: `?` is one byte of UTF-8.
            task.name = String::from_utf8(name).unwrap_or_default();
        }
        let tasks = self.old_tasks.iter_mut();
        for task in tasks.chain(std::iter::once(&mut self.new_task)) {
            // SAFETY: integers and raw pointers may have any bytes.
            unsafe { std::ptr::from_mut(task).write_bytes(GONE, 1) };
        }
        // SAFETY: integers, floats and raw pointers may have any bytes.
        unsafe { std::ptr::from_mut(&mut self.raw).write_bytes(GONE, 1) };
    }
}

/// The C struct, but for its new task.
fn raw(phase: &PhaseContext, old_tasks: &[abi::Task]) -> abi::Phase {
    abi::Phase {
        struct_size: size_of::<abi::Phase>() as u64,
        index: phase.phase as u64,
        count: phase.phases as u64,
        first_step: phase.first_step,
        steps: phase.steps,
        replay_rows: phase.replay_rows as u64,
        max_rows: phase.max_rows as u64,
        seq_len: phase.seq_len as u64,
        max_seq_len: phase.max_seq_len as u64,
        vocab_size: phase.vocab_size,
        pad: 0,
        objective: match phase.objective {
            Some(Objective::Kl) => abi::OBJECTIVE_KL,
            Some(Objective::Ntp) => abi::OBJECTIVE_NTP,
            Some(Objective::Replace) => abi::OBJECTIVE_REPLACE,
            Some(Objective::KlNew) | None => abi::OBJECTIVE_DEFAULT,
        },
        pad8: [0; 7],
        coeff: phase.coeff.unwrap_or_default(),
        old_tasks: old_tasks.as_ptr(),
        old_tasks_len: old_tasks.len() as u64,
        task_stride: size_of::<abi::Task>() as u64,
        new_task: std::ptr::null(),
        reserved: [0; 8],
    }
}

fn task(task: &Task) -> abi::Task {
    abi::Task {
        struct_size: size_of::<abi::Task>() as u64,
        name: task.name.as_ptr(),
        name_len: task.name.len() as u64,
        markers: task.markers.as_ptr(),
        markers_len: task.markers.len() as u64,
        sequences: task.sequences,
        reserved: [0; 4],
    }
}
