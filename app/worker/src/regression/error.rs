//! What can go wrong.

use super::stage::Stage;

/// A result of the regression study.
pub type Result<T> = std::result::Result<T, Error>;

/// Why the regression study can't go on.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum Error {
    /// Weights or losses that are no longer numbers.
    #[error(
        "{stage} diverged at step {step}: its loss is no longer a number; try a lower learning rate or step size"
    )]
    Diverged {
        /// Which part of the study.
        stage: Stage,
        /// Steps taken in it.
        step: usize,
    },
    /// A saved state of other settings.
    #[error("the saved state of the regression study does not fit its settings: {0}")]
    State(String),
}
