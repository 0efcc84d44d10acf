//! What decides the memory of a piece of work, and the memory it takes.

use std::fmt;

use crate::batch::Batching;
use crate::model::{LoraConfig, ModelConfig};
use crate::ops::Precision;

/// What decides the memory of a piece of work.
#[derive(Clone, Debug)]
pub struct Demand {
    /// Sizes of the model.
    pub model: ModelConfig,
    /// Threads of the engine.
    pub threads: usize,
    /// Precision on a GPU, whose memory it then is; none on the CPU.
    pub gpu: Option<Precision>,
    /// Adapters that are trained in place of the weights.
    pub lora: Option<LoraConfig>,
    /// How batches are worked through.
    pub batching: Batching,
    /// Tokens of a row.
    pub seq_len: usize,
    /// Students in memory at a time.
    pub learners: usize,
    /// References in memory at a time, where every student shares one with others; else each has its own.
    pub shared_references: Option<usize>,
    /// Rows of each batch of a step; none where nothing is trained.
    pub batches: Vec<usize>,
    /// Rows scored at a time without gradients.
    pub scored: usize,
    /// Whether a reference is scored, too.
    pub reference: bool,
    /// Rows generated at a time.
    pub generated: usize,
    /// Strategies that hold such a number of rows to use them up.
    pub buffers: usize,
    /// Tokens of held-out rows.
    pub held_out: usize,
    /// Bytes of the program itself: code, libraries, threads, and what the heap holds unused (measured).
    pub program: f64,
}

/// Bytes of a piece of work, item by item.
#[derive(Clone, Debug, PartialEq)]
pub struct Memory(pub Vec<(&'static str, f64)>);

impl Demand {
    /// References in memory at a time.
    pub fn references(&self) -> usize {
        self.shared_references
            .map_or(self.learners, |shared| shared.min(self.learners))
    }

    /// The same with another number of students at a time.
    pub fn with_learners(&self, learners: usize) -> Self {
        Self {
            learners,
            ..self.clone()
        }
    }
}

impl Memory {
    /// Bytes in all.
    pub fn total(&self) -> f64 {
        self.0.iter().map(|(_, bytes)| bytes).sum()
    }
}

/// Item by item, the largest first.
impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut items: Vec<_> = self.0.iter().collect();
        items.sort_by(|a, b| b.1.total_cmp(&a.1));
        let items = items
            .iter()
            .map(|(what, bytes)| (*what, human_bytes(*bytes)));
        let items: Vec<String> = items
            .map(|(what, bytes)| format!("{what} {bytes}"))
            .collect();
        f.write_str(&items.join(", "))
    }
}

/// Bytes to three figures, e.g. `118 MiB`, `1.52 GiB`.
pub fn human_bytes(bytes: f64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let (mut bytes, mut unit) = (bytes, 0);
    while bytes >= 999.5 && unit + 1 < units.len() {
        (bytes, unit) = (bytes / 1024.0, unit + 1);
    }
    let decimals = match bytes {
        _ if unit == 0 => 0,
        ..9.995 => 2,
        ..99.95 => 1,
        _ => 0,
    };
    format!("{bytes:.decimals$} {}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: f64 = 1024.0 * 1024.0;

    #[test]
    fn bytes_are_written_to_three_figures() {
        for (bytes, text) in [
            (512.0, "512 B"),
            (1024.0, "1.00 KiB"),
            (118.4 * MIB, "118 MiB"),
            (999.6 * MIB, "0.98 GiB"),
            (1.5 * 1024.0 * MIB, "1.50 GiB"),
            (21.34 * 1024.0 * MIB, "21.3 GiB"),
        ] {
            assert_eq!(human_bytes(bytes), text);
        }
    }
}
