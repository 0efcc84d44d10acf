//! The disk that the checkpoints of a run take, told before it starts.

use forgetlab_engine::Memory;

use super::prepare::{Prepared, Work};

/// Checkpoints that an arm keeps while it is at work, and once it is over.
const AT_WORK: usize = 2;
const OVER: usize = 1;
/// References that an arm keeps: its checkpoints may be of two phases.
const REFERENCES: usize = 2;

impl Prepared {
    /// Most bytes that checkpoints in its folder will take at a time, by purpose: without those that later runs begin
    /// with, which are in the cache. Nothing for a regression, whose checkpoints are small.
    pub fn disk(&self) -> Memory {
        let Work::Tokens(work) = &self.work else {
            return Memory(Vec::new());
        };
        let (config, demand) = (&self.config, &work.demand);
        let (seeds, arms) = (config.seeds.len(), config.arms.len() * config.seeds.len());
        let trains_first = config.in_phase(0).steps > 0;
        let untouched = work.suite.pretrained().is_some() && !trains_first;
        // That of the second phase is kept where an untouched model came from.
        let phases = (config.phases.len() - 1).saturating_sub(usize::from(untouched));
        let mut items = vec![
            (
                "checkpoints of arms",
                // One is written before another one goes.
                (arms * OVER + demand.learners * (AT_WORK - OVER) + 1) as f64 * demand.checkpoint(),
            ),
            (
                "references of arms",
                (arms * phases.min(REFERENCES)) as f64 * demand.weights(),
            ),
            (
                "first phases",
                (seeds * AT_WORK * usize::from(trains_first)) as f64 * demand.checkpoint(),
            ),
        ];
        items.retain(|(_, bytes)| *bytes > 0.0);
        Memory(items)
    }
}
