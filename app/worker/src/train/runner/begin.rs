//! How arms begin and go on: from their last checkpoint, the end of the first phase, or a pretrained model.

use std::sync::Arc;
use std::time::{Duration, Instant};

use forgetlab_engine::Weights;
use forgetlab_plugin_host::InstanceOptions;
use forgetlab_study::run::{CheckpointStore, Event, Level as LogLevel, PhaseCache};

use crate::train::arm::{ArmError, ArmRun, Shared};
use crate::train::first_phase::{self, FirstPhase};
use crate::train::learner::{self, Learner, PhaseStart};
use crate::train::prepare::offered;
use crate::train::{TrainError, settings};

use super::{Active, BREADCRUMB, Runner};

impl Runner<'_> {
    /// Brings arms that are not over to a point from which they can take turns, as many as there is
    /// room for: an arm's own last checkpoint, or the end of the first phase. `false`: the run is to stop.
    pub(super) fn gather(
        &mut self,
        active: &mut Vec<Active>,
        cache: Option<&PhaseCache>,
        numerics: &str,
    ) -> Result<bool, TrainError> {
        let mut chosen = Vec::new();
        for arm in 0..self.arms.len() {
            if active.len() + chosen.len() >= self.most_active {
                break;
            }
            if self.is_over(arm) || active.iter().any(|active| active.run.index == arm) {
                continue;
            }
            match self.restore(arm)? {
                Some(Ok(restored)) => active.push(restored),
                Some(Err(ArmError::Cancelled)) => return Ok(false),
                Some(Err(ArmError::Device(error))) => return Err(error.into()),
                Some(Err(error)) => {
                    return Err(TrainError::CannotGoOn {
                        arm: self.arms[arm].info.slug.clone(),
                        reason: error.to_string(),
                    });
                }
                None => chosen.push(arm),
            }
        }
        for seed in self.shared.config.seeds.clone() {
            let of_seed = |arm: &usize| self.arms[*arm].info.seed == seed;
            let chosen: Vec<usize> = chosen.iter().copied().filter(of_seed).collect();
            if !chosen.is_empty() && !self.start_arms(seed, &chosen, active, cache, numerics)? {
                return Ok(false);
            }
        }
        active.sort_by_key(|active| active.run.index);
        Ok(true)
    }

    /// Takes arms of a seed to the end of the first phase. `false`: the run is to stop.
    fn start_arms(
        &mut self,
        seed: u64,
        chosen: &[usize],
        active: &mut Vec<Active>,
        cache: Option<&PhaseCache>,
        numerics: &str,
    ) -> Result<bool, TrainError> {
        // Arms that wait for room are told of the phase, too.
        let mut members = Vec::new();
        for arm in 0..self.arms.len() {
            let slug = &self.arms[arm].info.slug;
            if self.arms[arm].info.seed == seed
                && !self.is_over(arm)
                && !active.iter().any(|active| active.run.index == arm)
                && self.dir.checkpoints(slug).steps()?.is_empty()
            {
                members.push(arm);
            }
        }
        let store = self.dir.checkpoints(&format!("first-phase-seed-{seed}"));
        let what = (seed, &members[..]);
        let shared = &mut self.shared;
        let mut learner =
            match first_phase::run(shared, &self.journal, &store, cache, numerics, what)? {
                FirstPhase::Stopped => return Ok(false),
                FirstPhase::Failed(error, step) => {
                    for arm in members {
                        self.fail(arm, step, &error)?;
                    }
                    return Ok(true);
                }
                FirstPhase::Done(learner) => *learner,
            };
        let known = self.shared_reference(seed);
        learner.take_next_reference(known);
        self.share_reference(seed, &learner.reference);
        let mut learner = Some(learner);
        for (i, &arm) in chosen.iter().enumerate() {
            // The last takes the learner itself: no model is in memory for nothing.
            let own = match i + 1 < chosen.len() {
                true => learner.as_ref().map(Learner::copy),
                false => learner.take(),
            };
            let Some(learner) = own else { break };
            let (info, options) = (self.arms[arm].clone(), self.options(arm));
            let plugin = &self.plugins[arm];
            let step = learner.point.step;
            match ArmRun::new(arm, &info, plugin, options, learner, &mut self.shared) {
                Ok(run) => active.push(self.activate(run)),
                Err(ArmError::Cancelled) => return Ok(false),
                Err(ArmError::Device(error)) => return Err(error.into()),
                Err(error) => self.fail(arm, step, &error)?,
            }
        }
        Ok(true)
    }

    /// Whose arms share the reference of the phase after the first: a seed's, or, of a pretrained model
    /// that nothing was trained before, everyone's.
    fn sharers(&self, seed: u64) -> u64 {
        match self.is_untouched() {
            true => 0,
            false => seed,
        }
    }

    /// Whether the second phase starts from a pretrained model as it was.
    pub(super) fn is_untouched(&self) -> bool {
        let Shared { config, suite, .. } = &self.shared;
        suite.pretrained().is_some() && config.phases[0].steps == 0
    }

    fn shared_reference(&self, seed: u64) -> Option<Arc<Weights>> {
        self.references.get(&self.sharers(seed))?.upgrade()
    }

    fn share_reference(&mut self, seed: u64, reference: &Arc<Weights>) {
        let sharers = self.sharers(seed);
        self.references.insert(sharers, Arc::downgrade(reference));
    }

    /// What a phase of an arm started from: from memory, the arm's folder, or the pretrained model.
    fn phase_start(
        &mut self,
        arm: usize,
        phase: usize,
        store: &CheckpointStore,
    ) -> Result<Option<PhaseStart>, TrainError> {
        let seed = self.arms[arm].info.seed;
        let shared = self.shared_reference(seed).filter(|_| phase == 1);
        let below_adapters = settings::lora(self.shared.config).is_some();
        if let Some(reference) = shared.clone()
            && !below_adapters
        {
            let weights = None;
            return Ok(Some(PhaseStart { weights, reference }));
        }
        let Shared { suite, engine, .. } = &self.shared;
        let weights = match store.reference(phase)? {
            Some(checkpoint) => learner::read_weights("reference", engine, &checkpoint)?,
            None if phase == 1 && self.is_untouched() => {
                learner::starting_weights(suite, engine, seed)?
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

    fn options(&self, arm: usize) -> InstanceOptions {
        let seconds = self.shared.config.replay.call_deadline_seconds;
        InstanceOptions {
            arm: self.arms[arm].info.slug.clone(),
            offered: offered(),
            breadcrumb: Some(self.dir.join(BREADCRUMB)),
            // Longer than a duration can be is never.
            deadline: Duration::try_from_secs_f64(seconds)
                .ok()
                .map(|deadline| (deadline, self.journal.on_late(arm))),
        }
    }

    fn activate(&self, run: ArmRun) -> Active {
        let store = self.dir.checkpoints(&self.arms[run.index].info.slug);
        Active {
            run,
            store,
            saved_at: Instant::now(),
            saved_step: None,
        }
    }

    /// An arm at its last checkpoint that can be used, if there is one.
    fn restore(&mut self, arm: usize) -> Result<Option<Result<Active, ArmError>>, TrainError> {
        let store = self.dir.checkpoints(&self.arms[arm].info.slug);
        loop {
            let latest = store.latest_valid()?;
            for problem in latest.problems {
                self.journal.log(LogLevel::Warn, Some(arm), problem)?;
            }
            let Some(checkpoint) = latest.checkpoint else {
                return Ok(None);
            };
            let step = checkpoint.info.step;
            let start = self.phase_start(arm, checkpoint.info.phase, &store);
            let restored = start.and_then(|start| {
                let options = self.options(arm);
                let (info, plugin) = (&self.arms[arm], &self.plugins[arm]);
                let found = (&checkpoint, start);
                ArmRun::restore(arm, info, plugin, options, found, &mut self.shared)
            });
            let restored = match restored {
                Ok(restored) => restored,
                Err(error) if error.is_unreadable() => return Err(error),
                Err(error) => {
                    let message = format!("{error}; using the checkpoint before step {step}");
                    self.journal.log(LogLevel::Warn, Some(arm), message)?;
                    store.set_aside(step)?;
                    continue;
                }
            };
            if self.journal.state(|state| state.arms[arm].step) != step {
                let reason = format!("resumed from the checkpoint at step {step}");
                self.journal.emit(Event::Rewound { arm, step, reason })?;
            }
            return Ok(Some(restored.map(|run| Active {
                saved_step: Some(step),
                ..self.activate(run)
            })));
        }
    }
}
