//! Micro-batches: how a batch is cut for the lanes.

use std::ops::Range;

use crate::batch::Batching;
use crate::model::Layout;

/// Positions a micro-batch aims at: enough for the matrix products, few enough for the cache.
const MICRO_POSITIONS: usize = 192;
/// The same where each micro-batch must read the weights from memory: more of them share the way.
const MICRO_POSITIONS_LARGE: usize = 512;
/// Numbers of a model's weights that no cache keeps.
const LARGE: usize = 1 << 25;

/// Number of micro-batches that `rows` of `seq_len` are cut into.
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
    let most = match batching.micro_batch {
        0 => (positions / seq_len.max(1)).max(1),
        rows => rows,
    };
    // As many for each lane, where the rows suffice.
    rows.div_ceil(most).next_multiple_of(lanes).min(rows)
}

/// One micro-batch: rows `first..first + rows` of a batch.
#[derive(Clone, Copy)]
pub(super) struct Micro {
    pub batch: usize,
    pub first: usize,
    pub rows: usize,
}

impl Micro {
    /// Its positions in its batch `[B, T]`.
    pub fn positions(&self, seq_len: usize) -> Range<usize> {
        self.first * seq_len..(self.first + self.rows) * seq_len
    }
}

/// Cuts batches of `(tokens, seq_len)` into micro-batches.
pub(super) fn micro_batches(
    batching: Batching,
    layout: &Layout,
    batches: impl Iterator<Item = (usize, usize)>,
    lanes: usize,
) -> Vec<Micro> {
    let mut micros = Vec::new();
    for (batch, (tokens, seq_len)) in batches.enumerate() {
        let rows = tokens / seq_len.max(1);
        // As even as can be: the last one should not be a stump.
        let number = count(batching, layout, rows, seq_len, lanes);
        for i in 0..number {
            let (first, end) = (i * rows / number, (i + 1) * rows / number);
            micros.push(Micro {
                batch,
                first,
                rows: end - first,
            });
        }
    }
    micros
}
