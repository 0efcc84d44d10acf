//! The sizes that decide how much memory some work takes, and the memory it takes.

use std::fmt;

use crate::batch::Batching;
use crate::model::{Layout, LoraConfig, LoraLayout, ModelConfig};
use crate::ops::Precision;

/// Prompts of rows that are generated, by their tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PromptLen {
    /// All have so many, and so many rows are asked for each time.
    Of(usize),
    /// None has more, and fewer rows may be asked for.
    UpTo(usize),
}

/// Rows of which log-probabilities are asked at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Number of rows.
    pub rows: usize,
    /// Tokens of a row.
    pub seq_len: usize,
    /// Candidates for the tokens that follow their positions, all together.
    pub candidates: usize,
}

/// The sizes that decide how much memory some work takes.
#[derive(Clone, Debug)]
pub struct Demand {
    /// Sizes of the model.
    pub model: ModelConfig,
    /// Threads of the engine.
    pub threads: usize,
    /// Precision of the engine on a GPU, whose memory is then meant; `None` for the CPU.
    pub gpu: Option<Precision>,
    /// Adapters that are trained in place of the weights.
    pub lora: Option<LoraConfig>,
    /// How batches are divided.
    pub batching: Batching,
    /// Tokens of a row.
    pub seq_len: usize,
    /// Students in memory at a time.
    pub learners: usize,
    /// References in memory at a time where students share them; `None` where each student has its own.
    pub shared_references: Option<usize>,
    /// Rows of each batch of a step; empty where nothing is trained.
    pub batches: Vec<usize>,
    /// Rows of the first of these in whose place replayed ones come, as a batch of their own.
    pub replaced: usize,
    /// Batches whose losses have KL, by their places.
    pub kl: Vec<usize>,
    /// Rows evaluated at a time without gradients.
    pub scored: usize,
    /// The most that is asked of a model at a time; a CPU has room for it.
    pub asked: Asked,
    /// Whether there is a reference, against which rows are evaluated.
    pub reference: bool,
    /// Rows generated at a time.
    pub generated: usize,
    /// Their prompts.
    pub prompt: PromptLen,
    /// Strategies that keep a buffer of that many generated rows.
    pub buffers: usize,
    /// Tokens of all held-out rows.
    pub held_out: usize,
    /// Bytes of the program itself: code, libraries, threads, unused parts of the heap (measured).
    pub program: f64,
}

/// Bytes of the machine's memory that work on a GPU takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OnHost {
    /// While a checkpoint is saved.
    pub to_save: f64,
    /// While a run goes on from a checkpoint.
    pub to_resume: f64,
}

/// Bytes that some work takes, by purpose.
#[derive(Clone, Debug, PartialEq)]
pub struct Memory(pub Vec<(&'static str, f64)>);

impl Demand {
    /// References in memory at a time.
    pub fn references(&self) -> usize {
        self.shared_references
            .map_or(self.learners, |shared| shared.min(self.learners))
    }

    /// Bytes of a student's weights in the machine's memory, and on disk.
    pub fn weights(&self) -> f64 {
        4.0 * Layout::new(self.model).len as f64
    }

    /// Bytes of a student's checkpoint: its weights, its adapters, and the optimizer's two moments.
    pub fn checkpoint(&self) -> f64 {
        self.weights() + 4.0 * self.adapters() + 8.0 * self.trained()
    }

    /// Bytes of the machine's memory that work on a GPU takes at most: while a checkpoint is saved, and while a run goes
    /// on from one; `None` for work on the CPU, where they are part of all memory.
    pub fn on_host(&self) -> Option<OnHost> {
        self.gpu?;
        // The tensors of each moment, while they are put together.
        let pieces = 4.0 * self.trained();
        Some(OnHost {
            to_save: self.program + self.checkpoint() + pieces,
            // The file, and what is read from it.
            to_resume: self.program + 2.0 * self.checkpoint(),
        })
    }

    /// Numbers of a student's adapters.
    fn adapters(&self) -> f64 {
        let lora = self
            .lora
            .map(|lora| LoraLayout::new(lora, &Layout::new(self.model)));
        lora.map_or(0, |lora| lora.len) as f64
    }

    /// Numbers of a student that are trained.
    fn trained(&self) -> f64 {
        match self.lora {
            Some(_) => self.adapters(),
            None => Layout::new(self.model).len as f64,
        }
    }

    /// The same demand with another number of students in memory at a time.
    pub fn with_learners(&self, learners: usize) -> Self {
        Self {
            learners,
            ..self.clone()
        }
    }
}

impl Memory {
    /// Sum of all bytes.
    pub fn total(&self) -> f64 {
        self.0.iter().map(|(_, bytes)| bytes).sum()
    }
}

/// The largest purpose first.
impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut items: Vec<_> = self.0.iter().collect();
        items.sort_by(|a, b| b.1.total_cmp(&a.1));
        let texts: Vec<String> = items
            .into_iter()
            .map(|(purpose, bytes)| format!("{purpose} {}", human_bytes(*bytes)))
            .collect();
        f.write_str(&texts.join(", "))
    }
}

/// Writes bytes with three significant digits, e.g. `118 MiB`, `1.52 GiB`.
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
