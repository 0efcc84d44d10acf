//! Descriptions of what to run: experiments, presets, arms.
//!
//! [`resolve`] turns an experiment's name and the command line into a [`RunConfig`] that decides
//! every number, [`expand`] turns that into arms.

mod arm;
mod catalog;
mod difference;
mod error;
mod grid;
mod hash;
mod in_phase;
mod phase;
mod points;
mod regression;
mod regression_checks;
mod resolve;
mod spec;
mod text;
mod validate;

pub use arm::{
    Arm, ArmInfo, PHASE_SETTINGS, PhaseSetting, arms_named, expand, expand_added, shortest,
    split_outside_quotes,
};
pub use catalog::{Experiment, Preset, experiment, experiments};
pub use difference::{Difference, differences};
pub(crate) use error::position;
pub use error::{SpecError, nearest};
pub use grid::{AxisSpec, AxisValue, GridSpec, said};
pub use hash::first_phase_hash;
pub use in_phase::PhaseSettings;
pub use phase::{MixSpec, OptimizerSpec, PhaseOptimizer, PhaseSpec, Schedule};
pub use points::{Point, points};
pub use regression::{
    BayesianSpec, FinetuningSettings, MapSettings, REGRESSION_DATASETS, RegressionSpec,
    SamplesSettings, SghmcSettings, Student,
};
pub use resolve::{Overrides, resolve, settings, settle_arms};
pub use spec::{
    ArmSpec, CorpusSpec, DIGIT_TASKS, DataSpec, DatasetSpec, Fractions, GENERATION_BYTES, LoraSpec,
    MARGIN_ERROR, MOST_SAMPLES, MiniSpec, ModelSpec, Objective, Precision, PretrainedSpec,
    QuestionStyle, QuestionsSpec, ReplaySpec, RunConfig, SAMPLES, TextSpec, TokensSpec,
    TrainingSpec, VerdictSpec, When,
};
pub use text::{ChatSettings, NaiveDate, Separator, TextRows, TokenSetSettings, TooLong};
pub use validate::validate;
