//! What everything in a run shares.

use forgetlab_engine::Engine;
use forgetlab_study::experiment::RunConfig;
use forgetlab_study::run::RunDir;

use crate::data::Suite;
use crate::eval::{Choices, Prompts};

use super::journal::Journal;

/// What the arms of a run share, and take turns to use.
pub(super) struct RunContext<'a> {
    pub dir: &'a RunDir,
    pub config: &'a RunConfig,
    pub suite: &'a Suite,
    pub questions: &'a [Choices],
    /// Prompts that students continue at every evaluation.
    pub prompts: &'a Prompts,
    pub engine: Engine,
    pub journal: Journal,
    /// Whether the run is to stop at the next step.
    pub stop: &'a dyn Fn() -> bool,
}

impl RunContext<'_> {
    /// Whether the second phase starts from a pretrained model as it was.
    pub(super) fn is_untouched(&self) -> bool {
        self.suite.pretrained().is_some() && self.config.in_phase(0).steps == 0
    }
}
