//! Memory: what the machine has, what this process took, what a run will take.
//!
//! A prediction adds up the buffers the engine will make, by the functions beside the code that makes
//! them; what a strategy keeps for itself it cannot know, beyond the samples that built-in ones buffer.

use std::fmt;

use crate::model::{Activations, Keep, Layout, LoraConfig, LoraLayout, ModelConfig, Packed};
use crate::ops::{Precision, head};
use crate::sample::Sampler;

use super::{Batching, Engine};

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

/// The program of a bench.
pub(crate) const BENCH: f64 = 7.0 * MIB;
const MIB: f64 = 1024.0 * 1024.0;

impl Demand {
    /// Adds up what it takes.
    pub fn memory(&self) -> Memory {
        #[cfg(any(feature = "cuda", test))]
        if let Some(precision) = self.gpu {
            return crate::gpu::memory::predict(self, precision);
        }
        let (model, t) = (&self.model, self.seq_len);
        let layout = Layout::new(*model);
        let weights = layout.len;
        let lora = self.lora.map(|lora| LoraLayout::new(lora, &layout));
        // A student and its reference share the weights below the adapters.
        let (students, trained, gradients, adapters) = match &lora {
            Some(lora) => (lora.len, lora.len, lora.gradient_len(), lora.packed_len()),
            None => (weights, weights, weights, 0),
        };
        let training = !self.batches.is_empty();
        let lanes = |rows: &[usize]| {
            let micros: usize = rows.iter().map(|&rows| self.micro_batches(rows)).sum();
            Engine::lanes(self.threads).min(micros)
        };
        let positions = |rows: &usize| rows.div_ceil(self.micro_batches(*rows).max(1)) * t;
        let m = self.batches.iter().chain([&self.scored]).map(positions);
        let m = m.max().unwrap_or(0);
        let busy = lanes(&self.batches).max(lanes(&[self.scored]));
        let keep = match training {
            true => self.batching.keep(),
            false => Keep::Nothing,
        };
        let hidden = usize::from(self.reference) * m * model.d_model;
        let logits = [model.vocab_size, model.d_model];
        let rows: usize = self.batches.iter().sum();
        let samples = self.generated * t;

        let numbers = [
            (
                "weights and references",
                self.learners * students + self.references() * weights,
            ),
            (
                "moments of the optimizer",
                2 * self.learners * trained * usize::from(training),
            ),
            ("gradients", lanes(&self.batches) * gradients),
            (
                "activations",
                busy * (Activations::len(model, m, t, keep) + hidden),
            ),
            (
                "chunks of logits",
                busy * head::Scratch::len(logits, m, self.reference, training),
            ),
            (
                "packed weights",
                (Packed::len(&layout, training) + adapters) * usize::from(busy > 0)
                    + Packed::len(&layout, false) * usize::from(self.reference)
                    + Packed::len(&layout, false) * usize::from(self.generated > 0),
            ),
            (
                "cache and buffers of generation",
                Sampler::len(model, self.threads, self.generated, t),
            ),
            // Tokens and two weights a position; prompts and copies of samples on their way.
            (
                "batches and samples",
                3 * rows * t + (self.buffers + 2) * samples + 16 * self.generated,
            ),
            // Three numbers a position, twice.
            (
                "held-out rows and their losses",
                self.held_out + 6 * self.scored * t,
            ),
        ];
        let mut items: Vec<_> = numbers.map(|(what, n)| (what, 4.0 * n as f64)).into();
        items.retain(|(_, bytes)| *bytes > 0.0);
        items.push(("the program itself", self.program));
        Memory(items)
    }

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

    fn micro_batches(&self, rows: usize) -> usize {
        #[cfg(any(feature = "cuda", test))]
        if let Some(precision) = self.gpu {
            return crate::gpu::memory::micro_batches(self, precision, rows);
        }
        let lanes = Engine::lanes(self.threads);
        let layout = Layout::new(self.model);
        self.batching.count(&layout, rows, self.seq_len, lanes)
    }

    /// Changes that make it fit into so many bytes, each with what it takes then.
    pub fn that_fits(&self, bytes: f64) -> Vec<(String, Memory)> {
        let with = |batching: Batching| Self {
            batching,
            ..self.clone()
        };
        let largest = self.batches.iter().max().copied().unwrap_or(1);
        let rows = largest.div_ceil(self.micro_batches(largest).max(1));
        let halves = || std::iter::successors(Some(rows / 2), |rows| Some(rows / 2));
        let smaller = || halves().take_while(|&rows| rows > 0);
        let micro = |micro_batch, recompute| Batching {
            micro_batch,
            recompute,
        };
        let mut found = Vec::new();
        let mut offer = |change: String, demand: Self| {
            let memory = demand.memory();
            let fits = memory.total() <= bytes;
            if fits {
                found.push((change, memory));
            }
            fits
        };
        let recompute = "training.recompute=true";
        let size = |rows| format!("training.micro_batch={rows}");
        let any = smaller().any(|rows| {
            let batching = micro(rows, self.batching.recompute);
            offer(size(rows), with(batching))
        });
        if !self.batching.recompute {
            let same = micro(self.batching.micro_batch, true);
            let alone = offer(recompute.into(), with(same));
            if !any && !alone {
                smaller().any(|rows| {
                    let both = format!("{recompute} with {}", size(rows));
                    offer(both, with(micro(rows, true)))
                });
            }
        }
        found
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

/// Bytes the system can give without swapping.
pub fn available_memory() -> Option<f64> {
    entry("/proc/meminfo", "MemAvailable:")
}

/// Bytes this process holds.
pub fn resident_memory() -> Option<f64> {
    entry("/proc/self/status", "VmRSS:")
}

/// Most bytes this process has held at a time.
pub fn peak_memory() -> Option<f64> {
    entry("/proc/self/status", "VmHWM:")
}

/// Lets [`peak_memory`] begin anew, where the system can.
pub fn reset_peak_memory() {
    // "5" asks for just that (proc(5)).
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// An entry in KiB of one of the kernel's tables, in bytes.
fn entry(table: &str, name: &str) -> Option<f64> {
    let text = std::fs::read_to_string(table).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(1024.0 * kib)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demand() -> Demand {
        Demand {
            model: ModelConfig::mini(1024, 16, 64, 4096),
            threads: 2,
            gpu: None,
            batching: Batching {
                micro_batch: 8,
                recompute: false,
            },
            seq_len: 512,
            learners: 4,
            shared_references: None,
            lora: None,
            batches: vec![64, 64],
            scored: 64,
            reference: true,
            generated: 64,
            buffers: 1,
            held_out: 1000,
            program: 30.0 * MIB,
        }
    }

    /// Advice that does not help would cost its reader a second refusal.
    #[test]
    fn what_is_said_to_fit_does_and_is_the_most_that_does() {
        let all = demand().memory().total();
        assert!(demand().that_fits(0.0).is_empty());
        for share in [0.95, 0.7, 0.45] {
            for (change, memory) in demand().that_fits(share * all) {
                assert!(memory.total() <= share * all, "{change}");
            }
        }
        let names = |share: f64| -> Vec<String> {
            let fits = demand().that_fits(share * all);
            fits.into_iter().map(|(change, _)| change).collect()
        };
        let [micro, recompute] = &names(0.9)[..] else {
            panic!("{:?}", names(0.9))
        };
        assert_eq!(micro, "training.micro_batch=4");
        assert_eq!(recompute, "training.recompute=true");
    }

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
