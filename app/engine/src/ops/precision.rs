//! Number formats the matrix products may compute in.

use serde::{Deserialize, Serialize};

/// Format of the matrix products' inputs. Sums, weights, moments and losses are f32 in both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// IEEE single precision.
    #[default]
    F32,
    /// Inputs rounded to bfloat16.
    Bf16,
}

impl Precision {
    /// Its name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }
}
