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

    /// Has an arm that found no memory at its turn wait until another one is over. Where there is no other, it is tried
    /// once more, and fails at `step` where it comes no further.
    fn wait_for_room(&mut self, arm: usize, step: u64, error: &TrainError) -> Result<(), RunError> {
        self.context.engine.trim();
        if self.lower() {
            return self.waits(arm);
        }
        match self.comes_further(arm, step) {
            true => self.tell(arm, "it goes on alone"),
            false => self.roll.fail(arm, step, error),
        }
    }

    /// Has arms wait for which there was no memory to begin, or to go on from a checkpoint, until others are over.
    ///
    /// # Errors
    /// Where there are no others, and none came further than before: the run cannot go on here now. No arm is to blame
    /// for what somebody else may have taken.
    pub(super) fn start_later(
        &mut self,
        arms: &[usize],
        error: TrainError,
    ) -> Result<(), TrainError> {
        self.context.engine.trim();
        if self.lower() {
            let later = arms.iter().filter(|arm| !self.waiting.has(**arm));
            return Ok(later.copied().try_for_each(|arm| self.waits(arm))?);
        }
        let mut further = false;
        for &arm in arms {
            let step = self.roll.journal.state(|state| state.arms[arm].step);
            further |= self.comes_further(arm, step);
        }
        if !further {
            return Err(error);
        }
        for &arm in arms {
            self.tell(arm, "it is tried once more, alone")?;
        }
        Ok(())
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

    /// Tells that an arm waits, where others are in memory.
    fn waits(&self, arm: usize) -> Result<(), RunError> {
        let most = self.most_active;
        let what = format!(
            "it waits until another arm is over; from now on the run has {most} at a time, as \
             training.concurrent_arms={most} has it from the start"
        );
        self.tell(arm, &what)?;
        let reason = "GPU memory full".into();
        self.context.journal.emit(Event::ArmWaits { arm, reason })
    }

    /// Tells what becomes of an arm.
    fn tell(&self, arm: usize, what: &str) -> Result<(), RunError> {
        let message = format!("the GPU's memory is full: {what}");
        self.context.journal.log(Level::Warn, Some(arm), message)
    }
}
