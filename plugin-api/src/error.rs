//! Errors of a strategy, and of the host in answer to it.

use crate::abi;

/// Failure of a strategy or of a service of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The call failed; from a strategy this ends the arm with this text.
    Failed(String),
    /// The run is being stopped.
    Cancelled,
    /// This host does not offer the service; a strategy may go on without it.
    Unsupported(String),
    /// From a strategy: ask again for the same step (a few times at most).
    Retry(String),
}

impl Error {
    /// The status that crosses the boundary.
    pub(crate) fn status(&self) -> i32 {
        match self {
            Error::Failed(_) => abi::FAILED,
            Error::Cancelled => abi::CANCELLED,
            Error::Unsupported(_) => abi::UNSUPPORTED,
            Error::Retry(_) => abi::RETRY,
        }
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Error::Failed(text) | Error::Unsupported(text) | Error::Retry(text) => {
                f.write_str(text)
            }
            Error::Cancelled => f.write_str("the run is being stopped"),
        }
    }
}

impl std::error::Error for Error {}

impl From<String> for Error {
    fn from(text: String) -> Self {
        Error::Failed(text)
    }
}

impl From<&str> for Error {
    fn from(text: &str) -> Self {
        Error::Failed(text.into())
    }
}
