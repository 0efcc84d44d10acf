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
