//! Conversion of a [`PhaseContext`] to the C struct of the ABI.

use forgetlab_plugin_api::abi;
use forgetlab_study::experiment::Objective;

use super::{PhaseContext, Task};

/// Calls `body` with the phase as a C struct, valid during the call only; null for `None`.
pub(super) fn with_phase<R>(
    phase: Option<&PhaseContext>,
    body: impl FnOnce(*const abi::Phase) -> R,
) -> R {
    let Some(phase) = phase else {
        return body(std::ptr::null());
    };
    let old_tasks: Vec<abi::Task> = phase.old_tasks.iter().map(task).collect();
    let new_task = task(&phase.new_task);
    let raw = abi::Phase {
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
        new_task: &new_task,
        reserved: [0; 8],
    };
    body(&raw)
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
