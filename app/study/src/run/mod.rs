//! A run on disk: directory, lock, events, checkpoints, and the state derived from the events.
//!
//! One worker writes, holding the [`RunLock`]; everybody else reads. `events.jsonl` records what was
//! measured, and CSVs and figures derive from it alone; checkpoints record where training can be
//! resumed. Going back to a checkpoint appends [`Event::Rewound`], which invalidates what the arm
//! reported after it.

mod added;
mod cache;
mod checkpoint;
mod choices;
mod commander;
mod csv_table;
mod delete;
mod directory;
mod dropped;
mod environment;
mod error;
mod event;
mod event_log;
mod file;
#[cfg(test)]
pub(crate) mod fixture;
mod forgetting;
mod from_csv;
mod labels;
mod lock;
mod nan;
mod outcomes;
mod outcomes_file;
mod prune;
mod quality;
mod queue;
mod requests;
mod results;
mod shell;
mod state;
mod stop;
mod sweep;
mod thin;
mod training;
mod whole;

pub use cache::{CacheEntry, CacheKind, Cached, PhaseCache};
pub use checkpoint::{
    Checkpoint, CheckpointInfo, CheckpointStore, Latest, NamedTensor, TensorData,
};
pub use choices::{ChoiceScores, Estimate};
pub use commander::{Command, Commander};
pub use delete::delete;
pub use directory::{OutFolder, RunDir, RunStatus};
pub use dropped::Dropped;
pub use environment::{Environment, PluginRecord};
pub use error::RunError;
pub use event::{
    Continuation, Cost, Curve, EVENT_SCHEMA, Event, Fit, Level, PhaseEnd, PhaseInfo, Record,
    ReplayLook, Role, RowLook, SampleLook, Score,
};
pub use event_log::{EventReader, EventWriter, Follow, Mark, Opened, cut_damage};
pub(crate) use file::{create_folder, remove_if_there};
pub use file::{mark_used, sync_folder, user_cache, write_atomically};
pub use forgetting::Change;
pub use from_csv::{CsvRun, holds_csvs, read_csvs};
pub use labels::Labels;
pub use lock::RunLock;
pub use outcomes::{Outcomes, OutcomesLine};
pub use quality::Quality;
pub use queue::{Queue, Ticket, Turn, Waiting, is_worked_on};
pub use requests::{Ask, Request, Requests};
pub use results::{Found, Results, RunFound, RunSummary, readable_utc};
pub use shell::{shell_path, shell_word};
pub use state::{AddedArm, Answer, ArmState, ArmStatus, Evaluation, LogLine, Progress, RunState};
pub use stop::StopRequest;
pub use sweep::{
    FirstArm, Holder, Lease, PointSpec, PointStatus, SweepCounts, SweepDir, SweepSpec, Taken,
};
pub use training::{OpenStretch, TrainingStep, TrainingStretch};
