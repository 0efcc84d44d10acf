//! What a process asked of the card.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

use serde::Serialize;

/// Copies of one kind.
#[derive(Default, Serialize)]
pub struct Copies {
    calls: u64,
    bytes: u64,
}

impl Copies {
    /// Counts a copy.
    pub fn add(&mut self, bytes: usize) {
        self.calls += 1;
        self.bytes += bytes as u64;
    }
}

/// Products of matrices.
#[derive(Default, Serialize)]
pub struct Products {
    /// Calls, each of which may be of many matrices.
    pub calls: u64,
    /// Multiplications and additions.
    pub operations: u64,
    /// Bytes of all factors and products, each once.
    pub bytes: u64,
}

/// All that was asked.
#[derive(Default, Serialize)]
pub struct Report {
    /// Launches of the engine's kernels, by name.
    pub kernels: BTreeMap<&'static str, u64>,
    /// Launches of candle's, by name.
    pub candle: BTreeMap<&'static str, u64>,
    /// Products of matrices.
    pub products: Products,
    /// Copies to the card.
    pub to_card: Copies,
    /// Copies from the card.
    pub from_card: Copies,
    /// Copies within the card.
    pub within: Copies,
    /// Memory set to a byte.
    pub sets: Copies,
    /// Allocations.
    pub allocations: Copies,
    /// The most that was allocated, bytes.
    pub peak: u64,
    /// Times that the pool was to give back what nobody uses.
    pub trims: u64,
    /// Waits for the card, copies from it among them.
    pub waits: u64,
    /// Functions looked up by name.
    pub lookups: u64,
    /// Events made.
    pub events: u64,
    /// Calls that failed.
    pub failures: u64,
}

impl Report {
    /// Writes it over what the file had: counts grow, so that nothing is left of it.
    pub fn write(&self, file: &File) {
        let text = serde_json::to_string(self).unwrap_or_default();
        // Whoever asked for the report will miss it.
        let _ = file.write_all_at(text.as_bytes(), 0);
    }
}
