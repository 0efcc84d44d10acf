//! What becomes of arms that a GPU has no memory for: they wait until others are over, and none of their figures changes.

use forgetlab_study::run::{Event, Level, RunError};

use super::arm::ArmRun;
use super::error::TrainError;
use super::run::Runner;

impl Runner<'_> {
    /// Takes an arm out of memory, back to its last checkpoint, and has it wait for room.
    pub(super) fn go_back_and_wait(
        &mut self,
        run: ArmRun,
        error: &TrainError,
    ) -> Result<(), RunError> {
        let (arm, at, saved) = (run.index(), run.learner.point.step, run.saved_step);
        drop(run);
        self.wait_for_room(arm, at, error)?;
        match saved {
            // Without a checkpoint it begins anew, and says so then.
            Some(step) if !self.roll.is_over(arm) => {
                let reason = "the GPU's memory is full".into();
                let journal = &self.context.journal;
                journal.emit(Event::Rewound { arm, step, reason })
            }
            _ => Ok(()),
        }
    }

    /// Has an arm that is not in memory, and found none, wait until another one is over. Where there is no other, it
    /// is tried once more, and fails at `step` where it comes no further.
    pub(super) fn wait_for_room(
        &mut self,
        arm: usize,
        step: u64,
        error: &TrainError,
    ) -> Result<(), RunError> {
        self.context.engine.trim();
        if self.lower() {
            return self.tell(Some(arm), "it waits until another arm is over");
        }
        match self.comes_further(arm, step) {
            true => self.tell(Some(arm), "it goes on alone"),
            false => self.roll.fail(arm, step, error),
        }
    }

    /// Has arms that have not begun wait until others are over.
    ///
    /// # Errors
    /// Where there are no others, and it came no further than before: the run cannot go on here.
    pub(super) fn start_later(
        &mut self,
        arms: &[usize],
        error: TrainError,
    ) -> Result<(), TrainError> {
        self.context.engine.trim();
        if self.lower() {
            return Ok(self.tell(None, "the next arms begin when others are over")?);
        }
        let mut further = false;
        for &arm in arms {
            let step = self.roll.journal.state(|state| state.arms[arm].step);
            further |= self.comes_further(arm, step);
        }
        match further {
            true => Ok(self.tell(None, "it is tried once more")?),
            false => Err(error),
        }
    }

    /// Whether an arm that is alone has come further than when the memory was last full.
    fn comes_further(&mut self, arm: usize, step: u64) -> bool {
        let further = self.full_at.get(&arm).is_none_or(|before| step > *before);
        if further {
            self.full_at.insert(arm, step);
        }
        further
    }

    /// Lowers the number of arms in memory to those that are there now, if there are any.
    fn lower(&mut self) -> bool {
        let there = self.waiting.len();
        // An arm that is alone stays so, too.
        self.most_active = there.max(1);
        there > 0
    }

    /// Tells what becomes of an arm, and of those after it.
    fn tell(&self, arm: Option<usize>, what: &str) -> Result<(), RunError> {
        let journal = &self.context.journal;
        let most = match self.most_active {
            1 => "one arm".into(),
            most => format!("{most} arms"),
        };
        let message = format!(
            "the GPU's memory is full: {what}; {most} at a time from now on (training.concurrent_arms)"
        );
        journal.log(Level::Warn, arm, message)
    }
}
