//! Memory: what the machine has, what this process took, what a run will take.
//!
//! A prediction adds up the buffers the engine will make, by the functions beside the code that makes
//! them; what a strategy keeps for itself it cannot know, beyond the samples that built-in ones buffer.

use crate::batch::Batching;
use crate::demand::{Demand, Memory};

impl Demand {
    /// Adds up what it takes.
    pub fn memory(&self) -> Memory {
        #[cfg(gpu)]
        if let Some(precision) = self.gpu {
            return crate::gpu::memory::predict(self, precision);
        }
        crate::cpu::memory::predict(self)
    }

    fn micro_batches(&self, rows: usize) -> usize {
        #[cfg(gpu)]
        if let Some(precision) = self.gpu {
            return crate::gpu::memory::micro_batches(self, precision, rows);
        }
        crate::cpu::memory::micro_batches(self, rows)
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
    use crate::model::ModelConfig;

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
}
