//! Numbers that JSON does not have.

use serde::{Deserialize, Deserializer};

/// JSON has no NaN or infinity; both are written as null and read back as NaN.
pub(super) fn null_is_nan<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
}
