//! Sweeps on the command line: a folder of runs, worked on by processes that take one point at a time.
//!
//! `begin` makes the folder, `work` keeps workers busy until no point is open, `point` is the body of one point: it
//! takes the point's lease, then does what `run` and `resume` do for a run.

mod attach;
mod begin;
mod dry_run;
mod gpus;
mod point;
mod report;
mod table;
mod view;
mod work;

use forgetlab_study::run::RunStatus;

use super::exit;

pub use attach::attach;
pub use begin::{begin, only, resume, threads, workers};
pub use dry_run::dry_run;
pub use point::{body, run as run_point};
pub use report::{complete, report};
pub use table::{json, percent, percent_done, table};
pub use work::{Work, start_detached};

/// The exit code that a sweep calls for.
pub fn code_of(status: RunStatus) -> u8 {
    match status {
        RunStatus::Finished => exit::DONE,
        RunStatus::Failed => exit::ARM_FAILED,
        RunStatus::Live | RunStatus::Interrupted | RunStatus::Crashed => exit::INTERRUPTED,
    }
}
