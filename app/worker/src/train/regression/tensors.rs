//! Numbers of double precision in checkpoints: as bytes, little-endian.

use forgetlab_study::run::{Checkpoint, RunError};

/// Rows of numbers as bytes.
pub(super) fn to_bytes<'v>(rows: impl IntoIterator<Item = &'v Vec<f64>>) -> Vec<u8> {
    let numbers = rows.into_iter().flatten();
    numbers.flat_map(|number| number.to_le_bytes()).collect()
}

/// Rows of so many numbers each, as a checkpoint has them; what is left over makes a last, shorter row, which no state
/// takes for one of its own.
pub(super) fn rows(
    checkpoint: &Checkpoint,
    name: &str,
    width: usize,
) -> Result<Vec<Vec<f64>>, RunError> {
    let bytes = checkpoint.bytes(name)?;
    let numbers = bytes.as_chunks::<8>().0.iter();
    let numbers: Vec<f64> = numbers.map(|number| f64::from_le_bytes(*number)).collect();
    Ok(numbers.chunks(width.max(1)).map(<[f64]>::to_vec).collect())
}
