//! A run on disk: events, checkpoints, resume.

mod event;
mod state;

pub use event::*;
pub use state::*;
