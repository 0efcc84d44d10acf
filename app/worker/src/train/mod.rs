//! Training, in reading order: [`prepare()`] reads and checks what a configuration asks for, [`run()`] takes the
//! run's folder to its end, and [`predict()`] tells before what it will pay; [`decide_samples()`] is what a
//! new run decides by that. Arms begin in `begin` and take turns in
//! `turn`, where every step happens; the first phase (`first_phase`) is an arm without a strategy. Between turns `requests`
//! has arms added or stopped; `no_room` has them wait where a GPU has no memory for all. `roll` has what all runs have in common, and `regression` the run of
//! the study on a line, which has no tokens. `hang` ends a run whose strategy does not. [`settings`] turns
//! settings into the engine's numbers.

mod error;
mod journal;
mod pace;
pub mod settings;

mod prepare;

mod learner;
mod objective;

mod context;
mod services;
mod strategy;

mod arm;
mod look;

mod predict;

mod disk;

mod decide;

mod turn;

mod waiting;

mod no_room;

mod hang;

mod options;

mod roll;

mod begin;
mod first_phase;
mod regression;
mod requests;
mod run;

pub use decide::decide_samples;
pub use error::{NotFinite, TrainError};
pub use hang::{EndProcess, Stop};
pub use journal::Listener;
pub use learner::read_student;
pub use options::{Outcome, RunOptions};
pub use predict::{ArmPrediction, Prediction, predict};
pub use prepare::{
    NUMERICS, PrepareError, Prepared, Work, device_in_words, fetch, fetch_weights,
    numerics_in_words, prepare, with_arm,
};
pub use run::{BREADCRUMB, run};
