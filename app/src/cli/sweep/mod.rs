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
mod work;

use forgetlab_study::run::PointStatus;

use super::exit;

pub use attach::attach;
pub use begin::{begin, only, resume, threads, workers};
pub use dry_run::dry_run;
pub use point::{body, run as run_point};
pub use report::report;
pub use table::{percent_done, table};
pub use work::{Work, start_detached};

/// How many points stand how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Points in all.
    pub all: usize,
    /// Whole.
    pub finished: usize,
    /// Failed or refused.
    pub bad: usize,
    /// Being worked on.
    pub live: usize,
}

impl Counts {
    /// Counts the points of a sweep.
    pub fn of<'a>(statuses: impl IntoIterator<Item = &'a PointStatus>) -> Self {
        let mut counts = Self::default();
        for status in statuses {
            counts.all += 1;
            match status {
                PointStatus::Finished => counts.finished += 1,
                PointStatus::Failed | PointStatus::Refused(_) => counts.bad += 1,
                PointStatus::Live => counts.live += 1,
                PointStatus::Waiting | PointStatus::Unfinished => {}
            }
        }
        counts
    }

    /// How the sweep stands, in one word.
    pub fn word(self) -> &'static str {
        match self {
            Self { live: 1.., .. } => "live",
            Self { all, finished, .. } if finished == all => "finished",
            Self {
                all, finished, bad, ..
            } if finished + bad == all => "failed",
            _ => "interrupted",
        }
    }

    /// The exit code that it calls for, where nobody works on it any more.
    pub fn code(self) -> u8 {
        match self.word() {
            "finished" => exit::DONE,
            "failed" => exit::ARM_FAILED,
            _ => exit::INTERRUPTED,
        }
    }
}
