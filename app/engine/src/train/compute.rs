//! What the arms of a run take turns to use: threads, caches, buffers.

use std::sync::Arc;

use crate::model::{Layout, ModelConfig};
use crate::sample::Sampler;

use super::{Batching, Engine};

/// Engine and sampler on the same threads.
pub struct Compute {
    layout: Arc<Layout>,
    /// Losses, gradients, updates.
    pub engine: Engine,
    /// Generation.
    pub sampler: Sampler,
}

impl Compute {
    /// For models of these sizes, on `threads` threads.
    ///
    /// # Errors
    /// When the system refuses the threads.
    pub fn new(config: ModelConfig, threads: usize) -> Result<Self, rayon::ThreadPoolBuildError> {
        let layout = Layout::new(config);
        let engine = Engine::new(&layout, threads)?;
        let sampler = Sampler::new(&layout, engine.pool());
        Ok(Self {
            layout,
            engine,
            sampler,
        })
    }

    /// Chooses how batches are worked through from now on.
    pub fn set_batching(&mut self, batching: Batching) {
        self.engine.set_batching(batching);
    }

    /// Layout of the weights.
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }
}
