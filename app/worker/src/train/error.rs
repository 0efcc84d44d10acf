//! Why training stops before its end.

use forgetlab_engine::EngineError;
use forgetlab_engine::pretrained::PretrainedError;
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
    /// The configuration is not the one the run was started with.
    #[error(
        "config.toml was changed since the run was started ({what}); take the change back, or start \
         a new run with it"
    )]
    Changed {
        /// What differs.
        what: &'static str,
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
    /// Whether what was to be read is there, and perhaps good, but could not be read or used now.
    pub(super) fn is_unreadable(&self) -> bool {
        match self {
            Self::Run(error) => error.is_unreadable(),
            Self::Engine(_) | Self::Pretrained(_) => true,
            _ => false,
        }
    }
}
