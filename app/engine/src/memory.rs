//! Memory: what some work will take, what the machine has, and what this process uses.
//!
//! A prediction sums the buffers that the engine will allocate, with functions that stand beside the code
//! that allocates them. Of the memory of strategies it knows only the rows that built-in ones buffer.

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

    /// Changes of settings with which the work fits into `bytes`, each with the memory it then takes.
    pub fn that_fits(&self, bytes: f64) -> Vec<(String, Memory)> {
        let with = |batching: Batching| Self {
            batching,
            ..self.clone()
        };
        let largest = self.batches.iter().max().copied().unwrap_or(1);
        let rows = largest.div_ceil(self.micro_batches(largest).max(1));
        let halves = || std::iter::successors(Some(rows / 2), |rows| Some(rows / 2));
        let smaller = || halves().take_while(|&rows| rows > 0);
        let batching = |micro_batch, recompute| Batching {
            micro_batch,
            recompute,
        };
        let mut changes = Vec::new();
        let mut offer = |change: String, demand: Self| {
            let memory = demand.memory();
            let fits = memory.total() <= bytes;
            if fits {
                changes.push((change, memory));
            }
            fits
        };
        let recompute = "training.recompute=true";
        let micro_batch = |rows| format!("training.micro_batch={rows}");
        let smaller_fits = smaller().any(|rows| {
            let smaller = batching(rows, self.batching.recompute);
            offer(micro_batch(rows), with(smaller))
        });
        if !self.batching.recompute {
            let recomputing = batching(self.batching.micro_batch, true);
            let recompute_fits = offer(recompute.into(), with(recomputing));
            if !smaller_fits && !recompute_fits {
                smaller().any(|rows| {
                    let both = format!("{recompute} with {}", micro_batch(rows));
                    offer(both, with(batching(rows, true)))
                });
            }
        }
        changes
    }
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
    use crate::model::{LoraConfig, ModelConfig};
    use crate::ops::Precision;

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
}
