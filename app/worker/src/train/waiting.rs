//! The arms of a run between their turns.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::arm::ArmRun;

/// Arms between their turns, by their index in the events. An arm at its turn is not among them: it belongs to
/// whoever took it.
#[derive(Default)]
pub(super) struct Waiting {
    arms: Arc<Mutex<BTreeMap<usize, ArmRun>>>,
}

/// The same arms, seen from elsewhere; there are none once the run is over.
#[derive(Clone)]
pub(super) struct WaitingElsewhere {
    arms: Weak<Mutex<BTreeMap<usize, ArmRun>>>,
}

fn lock(arms: &Mutex<BTreeMap<usize, ArmRun>>) -> MutexGuard<'_, BTreeMap<usize, ArmRun>> {
    // Nothing panics while it is locked.
    arms.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Waiting {
    /// Indices of the arms, ascending.
    pub(super) fn indices(&self) -> Vec<usize> {
        lock(&self.arms).keys().copied().collect()
    }

    /// Whether an arm is among them.
    pub(super) fn has(&self, arm: usize) -> bool {
        lock(&self.arms).contains_key(&arm)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        lock(&self.arms).len()
    }

    /// Takes an arm out.
    pub(super) fn take(&self, arm: usize) -> Option<ArmRun> {
        lock(&self.arms).remove(&arm)
    }

    /// Puts an arm in.
    pub(super) fn put(&self, run: ArmRun) {
        lock(&self.arms).insert(run.index(), run);
    }

    /// Lets another thread take arms out.
    pub(super) fn elsewhere(&self) -> WaitingElsewhere {
        WaitingElsewhere {
            arms: Arc::downgrade(&self.arms),
        }
    }
}

impl WaitingElsewhere {
    /// Takes the first arm out, if there is one.
    pub(super) fn take_first(&self) -> Option<ArmRun> {
        let arms = self.arms.upgrade()?;
        let (_, run) = lock(&arms).pop_first()?;
        Some(run)
    }
}
