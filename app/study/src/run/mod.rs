//! A run on disk: directory, lock, events, checkpoints, and the state derived from the events.
//!
//! One worker writes, holding the [`RunLock`]; everybody else reads. `events.jsonl` records what was
//! measured, and CSVs and figures derive from it alone; checkpoints record where training can be
//! resumed. Going back to a checkpoint appends [`Event::Rewound`], which invalidates what the arm
//! reported after it.

mod cache;
mod checkpoint;
mod choices;
mod directory;
mod environment;
mod error;
mod event;
mod event_log;
mod file;
#[cfg(test)]
pub(crate) mod fixture;
mod forgetting;
mod lock;
mod quality;
mod results;
mod state;
mod stop;

pub use cache::{Cached, PhaseCache};
pub use checkpoint::{
    Checkpoint, CheckpointInfo, CheckpointStore, Latest, NamedTensor, TensorData,
};
pub use choices::{ChoiceScores, Estimate};
pub use directory::{OutFolder, RunDir, RunStatus};
pub use environment::{Environment, PluginRecord};
pub use error::RunError;
pub use event::{Cost, EVENT_SCHEMA, Event, Level, PhaseInfo, Record, ReplayLook, Role, Score};
pub use event_log::{EventReader, EventWriter, Follow};
pub use file::{sync_folder, write_atomically};
pub use forgetting::Change;
pub use lock::RunLock;
pub use quality::Quality;
pub use results::{Results, RunSummary, readable_utc};
pub use state::{ArmState, ArmStatus, Evaluation, LogLine, Progress, RunState};
pub use stop::StopRequest;
