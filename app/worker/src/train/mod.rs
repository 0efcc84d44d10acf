//! Training: streams of random numbers, threads, objectives, optimizer, schedule, the loop.
//!
//! [`run`] takes a run directory to its end: it trains the first phase once a seed ([`Learner`]),
//! then lets the arms take turns, one evaluation interval each.

mod arm;
mod error;
mod first_phase;
mod journal;
mod learner;
mod look;
mod objective;
mod pace;
mod prepare;
mod runner;
mod services;
pub mod settings;

pub use error::TrainError;
pub use journal::Listener;
pub use learner::{Learner, NotFinite, PhaseStart, StepError, TrainingPoint, read_student};
pub use prepare::{
    NUMERICS, PrepareError, device_in_words, environment, fetch, fetch_weights, prepare,
};
pub use runner::{BREADCRUMB, Outcome, RunOptions, run};
