//! The parts of the study.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A part of the study.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Gradient descent to the most probable weights of the old points.
    Map,
    /// Sampling of their posterior.
    Sampling,
    /// Training on the new points.
    Finetuning,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Map => "MAP training",
            Self::Sampling => "sampling",
            Self::Finetuning => "finetuning",
        })
    }
}
