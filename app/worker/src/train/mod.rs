//! Training, in reading order: [`prepare()`] reads and checks what a configuration asks for, [`run()`] takes the
//! run's folder to its end. Arms begin in `begin` and take turns in `turn`, where every step happens; the first
//! phase (`first_phase`) is an arm without a strategy. `hang` ends a run whose strategy does not. [`settings`] turns
//! settings into the engine's numbers.

mod error;
mod journal;
mod pace;
pub mod settings;

mod prepare;

mod learner;
mod objective;

mod context;
mod look;
mod services;
mod strategy;

mod arm;

mod turn;

mod waiting;

mod hang;

mod begin;
mod first_phase;
mod run;

pub use error::{NotFinite, TrainError};
pub use hang::{EndProcess, Stop};
pub use journal::Listener;
pub use learner::read_student;
pub use prepare::{
    NUMERICS, PrepareError, Prepared, device_in_words, fetch, fetch_weights, numerics_in_words,
    prepare,
};
pub use run::{BREADCRUMB, Outcome, RunOptions, run};
