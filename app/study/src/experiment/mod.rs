//! Descriptions of what to run: experiments, presets, arms.
//!
//! [`resolve`] turns an experiment's name and the command line into a [`RunConfig`] that decides
//! every number, [`expand`] turns that into arms.

mod arm;
mod catalog;
mod error;
mod hash;
mod resolve;
mod spec;
mod text;
mod validate;

pub use arm::{Arm, ArmInfo, expand};
pub use catalog::{Experiment, Preset, experiment, experiments};
pub(crate) use error::position;
pub use error::{SpecError, nearest};
pub use hash::first_phase_hash;
pub use resolve::{Overrides, resolve};
pub use spec::{
    ArmSpec, DIGIT_TASKS, DataSpec, DatasetSpec, LoraSpec, MiniSpec, ModelSpec, Objective,
    OptimizerSpec, PhaseSpec, Precision, PretrainedSpec, QuestionStyle, QuestionsSpec, ReplaySpec,
    RunConfig, Schedule, TextSpec, TrainingSpec, When,
};
pub use text::{ChatSettings, NaiveDate, Separator, TextRows, TokenSetSettings, TooLong};
pub use validate::validate;
