//! Micro-batches: how batches are divided among lanes.

use std::ops::Range;

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

/// One micro-batch: rows `first..first + rows` of batch number `batch`.
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

/// The size of a batch.
#[derive(Clone, Copy)]
pub(super) struct BatchSize {
    /// Number of tokens.
    pub tokens: usize,
    /// Tokens of a row.
    pub seq_len: usize,
}

/// Divides batches into micro-batches.
pub(super) fn micro_batches(
    batching: Batching,
    layout: &Layout,
    batches: impl IntoIterator<Item = BatchSize>,
    lanes: usize,
) -> Vec<Micro> {
    let mut micros = Vec::new();
    for (batch, BatchSize { tokens, seq_len }) in batches.into_iter().enumerate() {
        let rows = tokens / seq_len.max(1);
        // As even as possible, so that the last one is not much smaller.
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
