//! How arms begin and go on: from their last checkpoint, the end of the first phase, or a pretrained model.

use std::sync::Arc;
use std::time::Duration;

use forgetlab_engine::Weights;
use forgetlab_plugin_host::InstanceOptions;
use forgetlab_study::run::{CheckpointStore, Event, Level, RunState};

use super::arm::ArmRun;
use super::error::{ArmError, TrainError};
use super::first_phase::{self, Wanted};
use super::learner::{Learner, PhaseStart, read_weights, starting_weights};
use super::prepare::offered;
use super::run::Runner;
use super::settings;
use super::strategy::ArmSetup;
use super::turn::{Turn, turn};

/// How the first phase of a seed ended.
enum FirstPhase {
    /// Whole: the model every arm starts from.
    Done(Box<Learner>),
    /// Stopped on the way; a checkpoint is written.
    Stopped,
    /// No arm waits for it any more: it broke down, or all were stopped.
    Unwanted,
}

impl Runner<'_> {
    /// Brings arms that are not over to a point from which they can take turns, as many as there is
    /// room for: an arm's own last checkpoint, or the end of the first phase. `false`: the run is to stop.
    pub(super) fn gather(&mut self) -> Result<bool, TrainError> {
        let mut fresh = Vec::new();
        for arm in 0..self.roll.arms.len() {
            if self.waiting.len() + fresh.len() >= self.most_active {
                break;
            }
            if self.roll.is_over(arm) || self.waiting.has(arm) {
                continue;
            }
            match self.restore(arm) {
                Ok(Some(restored)) => self.waiting.put(restored),
                Ok(None) => fresh.push(arm),
                Err(ArmError::Cancelled) => return Ok(false),
                Err(ArmError::Run(error)) if error.is_out_of_memory() => {
                    self.start_later(&[arm], error)?;
                    return self.gather();
                }
                Err(ArmError::Run(error)) => return Err(error),
                Err(error) => {
                    return Err(TrainError::CannotGoOn {
                        arm: self.roll.arms[arm].info.slug.clone(),
                        reason: error.to_string(),
                    });
                }
            }
        }
        for &seed in &self.context.config.seeds {
            let of_seed = |arm: &usize| self.roll.arms[*arm].info.seed == seed;
            let fresh: Vec<usize> = fresh.iter().copied().filter(of_seed).collect();
            if fresh.is_empty() {
                continue;
            }
            match self.start_arms(seed, &fresh) {
                Ok(true) => {}
                Err(error) if error.is_out_of_memory() => {
                    self.start_later(&fresh, error)?;
                    return self.gather();
                }
                stopped => return stopped,
            }
        }
        Ok(true)
    }

    /// Takes arms of a seed to the end of the first phase. `false`: the run is to stop.
    fn start_arms(&mut self, seed: u64, fresh: &[usize]) -> Result<bool, TrainError> {
        // Arms that wait for room are told of the phase, too.
        let mut members = Vec::new();
        for (arm, info) in self.roll.arms.iter().map(|arm| &arm.info).enumerate() {
            if info.seed == seed
                && !self.roll.is_over(arm)
                && !self.waiting.has(arm)
                && self.store(arm).steps()?.is_empty()
            {
                members.push(arm);
            }
        }
        let mut learner = match self.first_phase(seed, &members)? {
            FirstPhase::Stopped => return Ok(false),
            FirstPhase::Unwanted => return Ok(true),
            FirstPhase::Done(learner) => *learner,
        };
        // Some may have been stopped meanwhile.
        let fresh = fresh.iter().filter(|arm| !self.roll.is_over(**arm));
        let fresh: Vec<usize> = fresh.copied().collect();
        learner.take_next_reference(self.shared_reference(seed));
        self.share_reference(seed, &learner.reference);
        let mut learner = Some(learner);
        for (i, &arm) in fresh.iter().enumerate() {
            // The last takes the learner itself: no model is in memory for nothing.
            let own = if i + 1 < fresh.len() {
                learner.as_ref().map(Learner::copy)
            } else {
                learner.take()
            };
            let Some(learner) = own else { break };
            let step = learner.point.step;
            match self.start(arm, learner) {
                Ok(run) => self.waiting.put(run),
                Err(ArmError::Cancelled) => return Ok(false),
                Err(ArmError::Run(error)) => return Err(error),
                Err(error) => self.roll.fail(arm, step, &error)?,
            }
        }
        Ok(true)
    }

    /// Takes the first phase of a seed to its end, for arms that share it.
    fn first_phase(&mut self, seed: u64, members: &[usize]) -> Result<FirstPhase, TrainError> {
        let numerics = self.numerics.clone();
        let wanted = Wanted {
            seed,
            members,
            cache: self.cache,
            numerics: &numerics,
        };
        let mut run = first_phase::start(&mut self.context, &wanted)?;
        let trained = !run.is_over();
        while !run.is_over() {
            self.take_requests()?;
            run.members.retain(|arm| !self.roll.is_over(*arm));
            if run.members.is_empty() {
                first_phase::save(&self.context, &mut run)?;
                return Ok(FirstPhase::Unwanted);
            }
            match turn(&mut self.context, &mut run)? {
                Turn::Paused | Turn::Finished => {}
                Turn::Stopped { .. } => {
                    first_phase::save(&self.context, &mut run)?;
                    return Ok(FirstPhase::Stopped);
                }
                Turn::Failed(error) => {
                    for &arm in &run.members {
                        self.roll.fail(arm, run.learner.point.step, &error)?;
                    }
                    return Ok(FirstPhase::Unwanted);
                }
            }
        }
        first_phase::keep(&self.context, &wanted, &mut run, trained)?;
        Ok(FirstPhase::Done(Box::new(run.learner)))
    }

    /// An arm at the end of the first phase.
    fn start(&mut self, arm: usize, learner: Learner) -> Result<ArmRun, ArmError> {
        let store = self.store(arm);
        let options = self.options(arm);
        let setup = ArmSetup {
            index: arm,
            arm: &self.roll.arms[arm],
            plugin: &self.plugins[arm],
            options,
        };
        ArmRun::new(&mut self.context, setup, learner, store)
    }

    /// An arm at its last checkpoint that can be used, if there is one.
    ///
    /// # Errors
    /// Where its strategy does not take its state, or a file is there that cannot be read now.
    fn restore(&mut self, arm: usize) -> Result<Option<ArmRun>, ArmError> {
        let store = self.store(arm);
        loop {
            let latest = store.latest_valid()?;
            for problem in latest.problems {
                self.context.journal.log(Level::Warn, Some(arm), problem)?;
            }
            let Some(checkpoint) = latest.checkpoint else {
                return Ok(None);
            };
            let step = checkpoint.info.step;
            let start = self.phase_start(arm, checkpoint.info.phase, &store);
            let restored = start.map_err(ArmError::Run).and_then(|start| {
                let options = self.options(arm);
                let setup = ArmSetup {
                    index: arm,
                    arm: &self.roll.arms[arm],
                    plugin: &self.plugins[arm],
                    options,
                };
                ArmRun::restore(&mut self.context, setup, &checkpoint, start, store.clone())
            });
            let journal = &self.context.journal;
            if let Err(ArmError::Run(error)) = restored {
                if error.is_unreadable() {
                    return Err(error.into());
                }
                let message = format!("{error}; using the checkpoint before step {step}");
                journal.log(Level::Warn, Some(arm), message)?;
                store.set_aside(step)?;
                continue;
            }
            let elsewhere = |state: &RunState| {
                let arm = &state.arms[arm];
                arm.step != step || arm.is_beyond(step)
            };
            if journal.state(elsewhere) {
                let reason = format!("resumed from the checkpoint at step {step}");
                journal.emit(Event::Rewound { arm, step, reason })?;
            }
            return restored.map(Some);
        }
    }

    /// What a phase of an arm started from: from memory, the arm's folder, or the pretrained model.
    fn phase_start(
        &mut self,
        arm: usize,
        phase: usize,
        store: &CheckpointStore,
    ) -> Result<Option<PhaseStart>, TrainError> {
        let seed = self.roll.arms[arm].info.seed;
        let shared = self.shared_reference(seed).filter(|_| phase == 1);
        let below_adapters = settings::lora(&self.roll.arms[arm].config).is_some();
        if let Some(reference) = shared.clone()
            && !below_adapters
        {
            let weights = None;
            return Ok(Some(PhaseStart { weights, reference }));
        }
        let (suite, engine) = (self.context.suite, &self.context.engine);
        let weights = match store.reference(phase)? {
            Some(checkpoint) => read_weights("reference", engine, &checkpoint)?,
            None if phase == 1 && self.context.is_untouched() => {
                starting_weights(suite, engine, seed)?
            }
            None => return Ok(None),
        };
        let reference = shared.unwrap_or_else(|| Arc::new(weights.clone().frozen()));
        if phase == 1 {
            self.share_reference(seed, &reference);
        }
        Ok(Some(PhaseStart {
            weights: below_adapters.then_some(weights),
            reference,
        }))
    }

    /// Arms with the same key share the second phase's reference: those of a seed, or, of a pretrained model
    /// that nothing was trained before, all.
    fn reference_key(&self, seed: u64) -> u64 {
        if self.context.is_untouched() { 0 } else { seed }
    }

    fn shared_reference(&self, seed: u64) -> Option<Arc<Weights>> {
        self.references.get(&self.reference_key(seed))?.upgrade()
    }

    fn share_reference(&mut self, seed: u64, reference: &Arc<Weights>) {
        let key = self.reference_key(seed);
        self.references.insert(key, Arc::downgrade(reference));
    }

    /// Checkpoints of an arm.
    fn store(&self, arm: usize) -> CheckpointStore {
        self.context.dir.checkpoints(&self.roll.arms[arm].info.slug)
    }

    pub(super) fn options(&self, arm: usize) -> InstanceOptions {
        let seconds = self.context.config.replay.call_deadline_seconds;
        InstanceOptions {
            arm: self.roll.arms[arm].info.slug.clone(),
            offered: offered(),
            breadcrumb: self.breadcrumbs.clone(),
            // Longer than a duration can be is never.
            deadline: Duration::try_from_secs_f64(seconds)
                .ok()
                .map(|deadline| (deadline, self.hang.on_late(arm, deadline))),
        }
    }
}
