//! Reading JSON files.

use std::path::Path;

use serde::de::DeserializeOwned;

use super::builtin;
use super::error::PretrainedError;

/// Reads a JSON file, built in or on disk.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, PretrainedError> {
    let bytes = builtin::read(path).map_err(|source| PretrainedError::Read {
        path: path.into(),
        source,
    })?;
    serde_json::from_slice(&bytes).map_err(|error| PretrainedError::Format {
        path: path.into(),
        expected: "the JSON it should be",
        why: error.to_string(),
    })
}
