//! How many micro-batches batches are divided into, for lanes.

use crate::batch::Batching;
use crate::model::Layout;

/// Target number of positions of a micro-batch: enough for efficient matrix products, few enough for the caches.
const MICRO_POSITIONS: usize = 192;
/// The target for large models, whose weights every micro-batch must read from memory.
const MICRO_POSITIONS_LARGE: usize = 512;
/// Weights of a model that is too large for the caches.
const LARGE: usize = 1 << 25;

/// Number of micro-batches that `rows` of `seq_len` tokens are divided into.
pub(super) fn count(
    batching: Batching,
    layout: &Layout,
    rows: usize,
    seq_len: usize,
    lanes: usize,
) -> usize {
    let positions = match layout.len {
        ..LARGE => MICRO_POSITIONS,
        _ => MICRO_POSITIONS_LARGE,
    };
    let max_rows = match batching.micro_batch {
        0 => (positions / seq_len.max(1)).max(1),
        rows => rows,
    };
    // The same number for each lane, if there are enough rows.
    rows.div_ceil(max_rows).next_multiple_of(lanes).min(rows)
}
