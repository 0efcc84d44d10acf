//! Memory: what some work will take, what the machine has, and what this process uses.
//!
//! A prediction sums the buffers that the engine will allocate, with functions that stand beside the code
//! that allocates them. Of the memory of strategies it knows only the rows that built-in ones buffer.

use std::iter::{once, successors};

use crate::batch::Batching;
use crate::cpu;
use crate::demand::{Demand, Memory};
#[cfg(gpu)]
use crate::gpu;

impl Demand {
    /// Predicts the memory that the work takes, by purpose.
    pub fn memory(&self) -> Memory {
        #[cfg(gpu)]
        if let Some(precision) = self.gpu {
            return gpu::memory::predict(self, precision);
        }
        cpu::memory::predict(self)
    }

    /// Number of micro-batches that `rows` are divided into.
    fn micro_batches(&self, rows: usize) -> usize {
        #[cfg(gpu)]
        if let Some(precision) = self.gpu {
            return gpu::memory::micro_batches(self, precision, rows);
        }
        cpu::memory::micro_batches(self, rows)
    }

    /// Changes of settings with which the work fits into `bytes`, each with the memory it then takes; several together
    /// only where no one alone is enough.
    pub fn that_fits(&self, bytes: f64) -> Vec<(String, Memory)> {
        let now = self.batching;
        let largest = self.batches.iter().max().copied().unwrap_or(1);
        let rows = largest.div_ceil(self.micro_batches(largest).max(1));
        let smaller = || halves(rows);
        let recomputing = (!now.recompute).then_some(Batching {
            recompute: true,
            ..now
        });
        // The CPU has no such limit.
        let budget = self.gpu.map_or(0, |_| now.generation_bytes);
        let generating = |generation_bytes| Batching {
            generation_bytes,
            ..now
        };
        let alone = [
            self.first_that_fits(
                bytes,
                smaller().map(|micro_batch| Batching { micro_batch, ..now }),
            ),
            self.first_that_fits(bytes, recomputing),
            self.first_that_fits(bytes, halves(budget).map(generating)),
        ];
        let alone: Vec<_> = alone.into_iter().flatten().collect();
        if !alone.is_empty() {
            return alone;
        }
        let budgets = once(now.generation_bytes).chain(halves(budget));
        let together = budgets.flat_map(|generation_bytes| {
            smaller().map(move |micro_batch| Batching {
                micro_batch,
                recompute: true,
                generation_bytes,
            })
        });
        self.first_that_fits(bytes, together).into_iter().collect()
    }

    /// The first of these with which the work fits into `bytes`, by the settings that change, with the memory it takes.
    fn first_that_fits(
        &self,
        bytes: f64,
        all: impl IntoIterator<Item = Batching>,
    ) -> Option<(String, Memory)> {
        all.into_iter().find_map(|batching| {
            let memory = Self {
                batching,
                ..self.clone()
            }
            .memory();
            (memory.total() <= bytes).then(|| (changes(self.batching, batching), memory))
        })
    }
}

/// Half of a number, a quarter, and so on down to 1.
fn halves(of: usize) -> impl Iterator<Item = usize> {
    successors(Some(of / 2), |n| Some(n / 2)).take_while(|&n| n > 0)
}

/// The settings in which the second differs from the first, as `--set` takes them.
fn changes(before: Batching, now: Batching) -> String {
    let Batching {
        micro_batch,
        recompute,
        generation_bytes,
    } = now;
    let all = [
        (
            recompute != before.recompute,
            format!("training.recompute={recompute}"),
        ),
        (
            micro_batch != before.micro_batch,
            format!("training.micro_batch={micro_batch}"),
        ),
        (
            generation_bytes != before.generation_bytes,
            format!("training.generation_bytes={generation_bytes}"),
        ),
    ];
    let changed = all.into_iter().filter(|(changed, _)| *changed);
    let changed: Vec<String> = changed.map(|(_, text)| text).collect();
    changed.join(" with ")
}

/// Bytes that the system can still give without swapping; `None` where it does not tell.
pub fn available_memory() -> Option<f64> {
    entry("/proc/meminfo", "MemAvailable:")
}

/// Bytes of memory that this process uses; `None` where the system does not tell.
pub fn resident_memory() -> Option<f64> {
    entry("/proc/self/status", "VmRSS:")
}

/// Most bytes of memory that this process has used at a time; `None` where the system does not tell.
pub fn peak_memory() -> Option<f64> {
    entry("/proc/self/status", "VmHWM:")
}

/// Resets [`peak_memory`] to the present use, where the system can.
pub fn reset_peak_memory() {
    // 5 resets the peak resident set size (proc(5)).
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// Name of the CPU's model; `None` where the system does not tell, as on ARM.
pub fn cpu_model() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// Reads an entry in KiB of one of the kernel's tables, in bytes.
fn entry(table: &str, name: &str) -> Option<f64> {
    let text = std::fs::read_to_string(table).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(1024.0 * kib)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demand::{Asked, PromptLen};
    use crate::model::{LoraConfig, ModelConfig};
    use crate::ops::Precision;

    fn demand() -> Demand {
        Demand {
            model: ModelConfig::mini(1024, 16, 64, 4096),
            threads: 2,
            gpu: None,
            batching: Batching {
                micro_batch: 8,
                ..Batching::default()
            },
            seq_len: 512,
            learners: 4,
            shared_references: None,
            lora: None,
            batches: vec![64, 64],
            replaced: 0,
            kl: vec![1],
            scored: 64,
            asked: Asked::default(),
            reference: true,
            generated: 64,
            prompt: PromptLen::UpTo(512),
            buffers: 1,
            held_out: 1000,
            program: 30.0 * 1024.0 * 1024.0,
        }
    }

    /// Else a machine whose GPU has room for a model would be out of memory, or of disk, at the first checkpoint.
    #[test]
    fn a_checkpoint_of_a_llama_takes_what_its_weights_and_moments_do() {
        let close = |bytes: f64, expected: f64| (bytes / expected - 1.0).abs() < 1e-3;
        let llama = Demand {
            model: ModelConfig::LLAMA_1B,
            program: 0.0,
            ..demand()
        };
        assert!(close(llama.weights(), 4.943e9) && close(llama.checkpoint(), 14.83e9));
        assert_eq!(llama.on_host(), None);
        let on_gpu = Demand {
            gpu: Some(Precision::Bf16),
            ..llama
        };
        let host = on_gpu.on_host().unwrap();
        assert!(close(host.to_save, 19.77e9) && close(host.to_resume, 29.66e9));
        let adapters = Demand {
            lora: Some(LoraConfig {
                rank: 8,
                alpha: 16.0,
            }),
            ..on_gpu
        };
        let more = adapters.checkpoint() / adapters.weights();
        assert!((1.0..1.05).contains(&more), "{more}");
    }

    /// Advice that does not help would cost its reader a second refusal.
    #[test]
    fn what_is_said_to_fit_does_and_is_the_most_that_does() {
        let total = demand().memory().total();
        assert!(demand().that_fits(0.0).is_empty());
        for share in [0.95, 0.7, 0.45] {
            for (change, memory) in demand().that_fits(share * total) {
                assert!(memory.total() <= share * total, "{change}");
            }
        }
        let changes: Vec<String> = demand()
            .that_fits(0.9 * total)
            .into_iter()
            .map(|(change, _)| change)
            .collect();
        assert_eq!(
            changes,
            ["training.micro_batch=4", "training.recompute=true"]
        );
    }

    /// Else who has too little memory for what is generated would be told to change what does not help.
    #[test]
    fn where_generation_takes_the_most_on_a_gpu_less_of_it_at_a_time_is_said_to_fit() {
        let demand = Demand {
            model: ModelConfig::LLAMA_1B,
            gpu: Some(Precision::Bf16),
            learners: 1,
            batches: vec![8],
            replaced: 0,
            kl: vec![1],
            scored: 1,
            asked: Asked::default(),
            generated: 1024,
            prompt: PromptLen::UpTo(512),
            ..demand()
        };
        let total = demand.memory().total();
        let fits = |bytes: f64| {
            let all = demand.that_fits(bytes).into_iter();
            all.map(|(change, memory)| {
                assert!(memory.total() <= bytes, "{change}");
                change
            })
            .collect::<Vec<String>>()
        };
        // Rows take 4 GiB, and their scores come on top.
        assert_eq!(
            fits(total - 0.5e9),
            ["training.generation_bytes=2147483648"]
        );
        // Then the update of the embedding takes the most, which nothing here makes smaller.
        assert!(fits(total - 2e9).is_empty());
        // What the CPU does not ask is not said to it.
        let on_cpu = Demand {
            gpu: None,
            ..demand
        };
        let total = on_cpu.memory().total();
        for share in [0.9, 0.5, 0.2] {
            for (change, _) in on_cpu.that_fits(share * total) {
                assert!(!change.contains("generation"), "{change}");
            }
        }
    }
}
