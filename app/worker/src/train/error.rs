//! Why training stops before its end.

use forgetlab_engine::EngineError;
use forgetlab_engine::pretrained::PretrainedError;
use forgetlab_plugin_host::StrategyError;
use forgetlab_study::run::RunError;

use crate::data::DataError;
use crate::eval::QuestionsError;

/// Why a worker could not go on. The run stays resumable.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// Something about the run directory.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A dataset there is not.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Questions that cannot be asked.
    #[error(transparent)]
    Questions(#[from] QuestionsError),
    /// The device or the threads cannot be had, or failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The pretrained weights cannot be read.
    #[error(transparent)]
    Pretrained(#[from] Box<PretrainedError>),
    /// The study on a line cannot go on.
    #[error(transparent)]
    Regression(#[from] crate::regression::Error),
    /// The configuration is not the one the run was started with.
    #[error(
        "config.toml was changed since the run was started ({what}); take the change back, or start \
         a new run with it"
    )]
    Changed {
        /// What differs.
        what: String,
    },
    /// An arm's strategy does not take its saved state back. Nothing of the arm is lost.
    #[error(
        "arm {arm} cannot go on from its checkpoint: {reason}; mend that, or leave the arm out with \
         --skip-arm {arm}"
    )]
    CannotGoOn {
        /// Slug of the arm.
        arm: String,
        /// What its strategy said.
        reason: String,
    },
    /// `--skip-arm` names none of the run's.
    #[error("the run has no arm `{name}`; its arms are {arms}")]
    NoSuchArm {
        /// Name given.
        name: String,
        /// Names there are.
        arms: String,
    },
}

impl TrainError {
    /// Whether the run was refused before anything was done.
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Changed { .. } | Self::NoSuchArm { .. })
    }

    /// Whether the GPU has no memory left.
    pub(super) fn is_out_of_memory(&self) -> bool {
        matches!(self, Self::Engine(EngineError::OutOfMemory))
    }

    /// Whether what was to be read is there, and perhaps good, but could not be read or used now.
    pub(super) fn is_unreadable(&self) -> bool {
        match self {
            Self::Run(error) => error.is_unreadable(),
            Self::Engine(_) | Self::Pretrained(_) => true,
            _ => false,
        }
    }
}

/// Why an arm's turn ends early.
#[derive(Debug, thiserror::Error)]
pub(super) enum ArmError {
    /// Its strategy failed: the arm ends, the others go on.
    #[error(transparent)]
    Strategy(#[from] StrategyError),
    /// Its loss or gradient is NaN or infinite: the arm ends, the others go on.
    #[error(transparent)]
    NotFinite(#[from] NotFinite),
    /// Its strategy asks for what this version does not offer: the arm ends, the others go on.
    #[error("strategy `{strategy}`: {what}")]
    Unsupported {
        /// Strategy.
        strategy: String,
        /// What it asks for.
        what: String,
    },
    /// The run is being stopped and the strategy gave up; the arm stays what it was.
    #[error("the run is being stopped")]
    Cancelled,
    /// Not the arm's fault, such as a full disk or a device that failed: the run ends, and can be resumed.
    #[error(transparent)]
    Run(#[from] TrainError),
}

/// A loss or gradient norm that is NaN or infinite, with the step at which it was met.
#[derive(Debug, thiserror::Error)]
#[error(
    "{what} became {value} at step {step}; the weights of the last checkpoint are kept. A lower \
     learning rate or coefficient, or a longer warm-up, may help"
)]
pub struct NotFinite {
    pub(super) what: &'static str,
    pub(super) value: f64,
    pub(super) step: u64,
}

impl ArmError {
    /// Why a call of the strategy failed; where the device or a file failed in it, that is why.
    pub(super) fn from_strategy(error: StrategyError, other: Option<TrainError>) -> Self {
        match (error, other) {
            (_, Some(error)) => Self::Run(error),
            (StrategyError::Cancelled { .. }, _) => Self::Cancelled,
            (error, _) => Self::Strategy(error),
        }
    }
}

impl From<EngineError> for ArmError {
    fn from(error: EngineError) -> Self {
        Self::Run(error.into())
    }
}

impl From<RunError> for ArmError {
    fn from(error: RunError) -> Self {
        Self::Run(error.into())
    }
}
