//! A run on disk: directory, lock, events, checkpoints, and the state told by the events.
//!
//! One worker writes, holding the [`RunLock`]; everybody else reads. `events.jsonl` is the truth
//! about what was measured, CSVs and figures derive from it alone; checkpoints are the truth about
//! where training can go on. Going back to a checkpoint appends [`Event::Rewound`], which takes
//! back what the arm reported after it.

mod cache;
mod change;
mod checkpoint;
mod choices;
mod directory;
mod environment;
mod error;
mod event;
mod file;
#[cfg(test)]
pub(crate) mod fixture;
mod journal;
mod lock;
mod quality;
mod results;
mod state;
mod stop;

pub use cache::*;
pub use change::*;
pub use checkpoint::{
    Checkpoint, CheckpointInfo, CheckpointStore, Latest, NamedTensor, TensorData,
};
pub use choices::*;
pub use directory::*;
pub use environment::*;
pub use error::*;
pub use event::*;
pub use file::{sync_folder, write_atomically};
pub use journal::*;
pub use lock::RunLock;
pub use quality::Quality;
pub use results::{Results, RunSummary, readable_utc};
pub use state::*;
pub use stop::*;

use results::random_hex;
