//! What the arms of a run take turns to use: threads, caches, buffers.

use std::sync::Arc;

use crate::model::{Layout, ModelConfig};
use crate::ops::Precision;
use crate::sample::Sampler;

use super::Engine;

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
    pub fn new(
        config: ModelConfig,
        threads: usize,
        precision: Precision,
    ) -> Result<Self, rayon::ThreadPoolBuildError> {
        let layout = Layout::new(config);
        let engine = Engine::new(&layout, threads, precision)?;
        let sampler = Sampler::new(&layout, engine.pool(), precision);
        Ok(Self {
            layout,
            engine,
            sampler,
        })
    }

    /// Layout of the weights.
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }
}
