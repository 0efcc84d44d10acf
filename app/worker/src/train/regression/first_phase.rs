//! The first phase: the old points are learned once a seed, shared by its arms, kept in the cache.

use std::time::Instant;

use forgetlab_study::experiment::first_phase_hash;
use forgetlab_study::run::{
    Cached, Checkpoint, CheckpointStore, Cost, Evaluation, Level, NamedTensor, OpenStretch,
    RunError, TrainingStretch,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::super::error::TrainError;
use super::super::journal;
use super::scores::{evaluation, nothing_paid};
use super::tensors::{rows, to_bytes};
use super::{Context, Pace, phase_ended, record};
use crate::regression::{
    Chain, Config, Error, Finetuning, Posterior, Pretraining, PretrainingState,
};

/// How the first phase of a seed ended.
pub(super) enum FirstPhase {
    /// Whole: what every arm starts from.
    Done(Box<First>),
    /// Stopped on the way; a checkpoint is written.
    Stopped,
    /// Broke down at a step.
    Failed(Error, u64),
}

/// What every arm of a seed starts from.
pub(super) struct First {
    pub posterior: Posterior,
    /// Steps it took.
    pub steps: u64,
    pub cost: Cost,
}

/// The first phase of a seed under way.
struct Phase {
    config: Config,
    seed: u64,
    training: Pretraining,
    cost: Cost,
    evaluations: Vec<Evaluation>,
    recorded: Recorded,
    /// Arms that share it and have not begun the second.
    members: Vec<usize>,
    store: CheckpointStore,
    saved_at: Instant,
}

/// The JSON of its checkpoint; numbers are tensors beside it.
#[derive(Serialize, Deserialize)]
struct Saved {
    step: usize,
    chains: usize,
    cost: Cost,
    evaluations: Vec<Evaluation>,
    #[serde(default)]
    recorded: Recorded,
}

/// Figures of its training: those in the events, and those of the steps since.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Recorded {
    training: Vec<TrainingStretch>,
    open: OpenStretch,
}

/// Learns (or finds) the old points of a seed and reports it for its arms.
///
/// # Errors
/// Where the run as a whole cannot go on.
pub(super) fn run(context: &Context, seed: u64, open: &[usize]) -> Result<FirstPhase, TrainError> {
    let journal = &context.roll.journal;
    let mut phase = Phase::find(context, seed, open)?;
    let told = journal::Recorded {
        evaluations: &phase.evaluations,
        training: &phase.recorded.training,
        samples: &[],
    };
    journal.catch_up(&phase.members, phase.step(), told)?;
    if phase.evaluations.is_empty() {
        phase.evaluate(context)?;
    }
    let trained = !phase.training.is_done();
    let mut pace = Pace::new();
    while !phase.training.is_done() {
        if (context.stop)() {
            phase.save()?;
            return Ok(FirstPhase::Stopped);
        }
        let begun = Instant::now();
        let advanced = phase.training.advance();
        phase.cost.seconds_new += begun.elapsed().as_secs_f64();
        phase.record(context, advanced.is_err())?;
        match advanced {
            Ok(true) => {
                phase.evaluate(context)?;
                let age = phase.saved_at.elapsed().as_secs_f64();
                if age >= context.config.training.checkpoint_seconds {
                    phase.save()?;
                }
            }
            Ok(false) => pace.tell(context, &phase.members, (0, phase.step()))?,
            Err(error) => return Ok(FirstPhase::Failed(error, phase.step())),
        }
    }
    if !journal.told_of_first_end(&phase.members) {
        for &arm in &phase.members {
            journal.emit(phase_ended(arm, 0, phase.step()))?;
        }
    }
    phase.keep(context, trained)?;
    let Some(posterior) = phase.training.posterior() else {
        return Ok(FirstPhase::Stopped);
    };
    Ok(FirstPhase::Done(Box::new(First {
        posterior,
        steps: phase.step(),
        cost: phase.cost,
    })))
}

impl Phase {
    /// As far as the run's own checkpoint has it, or whole from the cache, or at its very start.
    fn find(context: &Context, seed: u64, open: &[usize]) -> Result<Self, TrainError> {
        let journal = &context.roll.journal;
        let store = context.dir.checkpoints(&format!("first-phase-seed-{seed}"));
        let latest = store.latest_valid()?;
        for problem in latest.problems {
            journal.log(Level::Warn, None, problem)?;
        }
        let mut found = None;
        if let Some(checkpoint) = &latest.checkpoint {
            found = restore(context, seed, checkpoint)?;
        }
        let is_whole = |found: &Found| found.0.is_done();
        if !found.as_ref().is_some_and(is_whole) {
            match context.cache.map(|cache| cache.get(&hash(context, seed))) {
                Some(Cached::Hit(checkpoint)) => {
                    let cached = restore(context, seed, &checkpoint)?;
                    if let Some(cached) = cached.filter(is_whole) {
                        let message =
                            format!("the first phase (old, seed {seed}) comes from the cache");
                        journal.log(Level::Info, None, message)?;
                        found = Some(cached);
                    }
                }
                Some(Cached::Corrupt(problem)) => journal.log(Level::Warn, None, problem)?,
                Some(Cached::Miss) | None => {}
            }
        }
        let config = config(context)?;
        let (training, cost, evaluations, recorded) = match found {
            Some(found) => found,
            None => {
                let training = Pretraining::new(&config, seed)?;
                (training, nothing_paid(), Vec::new(), Recorded::default())
            }
        };
        let mut members = Vec::new();
        for &arm in open {
            let slug = &context.roll.arms[arm].info.slug;
            if context.dir.checkpoints(slug).steps()?.is_empty() {
                members.push(arm);
            }
        }
        Ok(Self {
            config,
            seed,
            training,
            cost,
            evaluations,
            recorded,
            members,
            store,
            saved_at: Instant::now(),
        })
    }

    fn step(&self) -> u64 {
        self.training.step_number() as u64
    }

    /// Measures, and puts it into the events. At the end the functions that are to be finetuned are measured.
    fn evaluate(&mut self, context: &Context) -> Result<(), TrainError> {
        let begun = Instant::now();
        let mut found = self.training.evaluate();
        if let Some(posterior) = self.training.posterior() {
            let students = Finetuning::new(&self.config, self.seed, &posterior, false)?.evaluate();
            (found.old, found.new) = (students.old, students.new);
        }
        self.cost.seconds_eval += begun.elapsed().as_secs_f64();
        let evaluation = evaluation(0, self.step(), self.cost, &found);
        for &arm in &self.members {
            context.roll.journal.emit(evaluation.event(arm))?;
        }
        self.evaluations.push(evaluation);
        Ok(())
    }

    /// Takes the figures of a step, or of none where it `failed`, and puts them into the events where that is due.
    fn record(&mut self, context: &Context, failed: bool) -> Result<(), RunError> {
        let open = &mut self.recorded.open;
        if !failed {
            open.add(self.training.last());
        }
        let step = self.training.step_number() as u64;
        let steps = (step, self.training.steps() as u64);
        let Some(stretch) = open.end((0, step), steps, failed) else {
            return Ok(());
        };
        self.recorded.training.push(stretch);
        record(context, &self.members, stretch)
    }

    fn saved(&self) -> Value {
        json!(Saved {
            step: self.training.state().step,
            chains: self.training.state().chains.len(),
            cost: self.cost,
            evaluations: self.evaluations.clone(),
            recorded: self.recorded.clone(),
        })
    }

    fn tensors(&self) -> [(&'static str, Vec<u8>); 3] {
        let state = self.training.state();
        let chains = state.chains.iter().flat_map(|c| [&c.position, &c.momentum]);
        [
            ("map", to_bytes([&state.map])),
            ("chains", to_bytes(chains)),
            ("kept", to_bytes(state.kept.iter().flatten())),
        ]
    }

    fn save(&mut self) -> Result<(), TrainError> {
        let tensors = self.tensors();
        let tensors: Vec<_> = tensors
            .iter()
            .map(|(n, b)| NamedTensor::bytes(*n, b))
            .collect();
        // The first phase brings its evaluations itself, whatever events there are.
        self.store
            .save(self.step(), 0, &tensors, self.saved(), None)?;
        self.store.prune(2)?;
        self.saved_at = Instant::now();
        Ok(())
    }

    /// Keeps the whole phase in the run, and in the cache where it was trained just now.
    fn keep(&mut self, context: &Context, trained: bool) -> Result<(), TrainError> {
        if self.store.steps()?.last() != Some(&self.step()) {
            self.save()?;
        }
        let Some(cache) = context.cache.filter(|_| trained) else {
            return Ok(());
        };
        let tensors = self.tensors();
        let tensors: Vec<_> = tensors
            .iter()
            .map(|(n, b)| NamedTensor::bytes(*n, b))
            .collect();
        let hash = hash(context, self.seed);
        if let Err(error) = cache.put(&hash, self.step(), 0, &tensors, self.saved()) {
            let message = format!("the first phase is not cached for later runs: {error}");
            context.roll.journal.log(Level::Warn, None, message)?;
        }
        Ok(())
    }
}

fn hash(context: &Context, seed: u64) -> String {
    first_phase_hash(context.config, seed, &context.numerics)
}

/// The settings of the first phase, which no arm changes.
fn config(context: &Context) -> Result<Config, Error> {
    let config = Config::of(context.config, None);
    config.ok_or_else(|| Error::State("the run is of another kind".into()))
}

/// Training as far as a checkpoint has it, its cost, evaluations and figures.
type Found = (Pretraining, Cost, Vec<Evaluation>, Recorded);

/// A checkpoint of the first phase; `None`, with a warning, where it is none of this configuration.
fn restore(
    context: &Context,
    seed: u64,
    checkpoint: &Checkpoint,
) -> Result<Option<Found>, TrainError> {
    match read(context, seed, checkpoint) {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_unreadable() => Err(error),
        Err(error) => {
            let message = format!("{error}; training the first phase again");
            context.roll.journal.log(Level::Warn, None, message)?;
            Ok(None)
        }
    }
}

fn read(context: &Context, seed: u64, checkpoint: &Checkpoint) -> Result<Found, TrainError> {
    let saved: Saved = checkpoint.state()?;
    let config = config(context)?;
    let width = context.config.regression().map_or(1, |(m, _)| m.weights());
    let map = rows(checkpoint, "map", width)?.concat();
    let chains = rows(checkpoint, "chains", width)?;
    let chains = chains.chunks(2).map(|chain| Chain {
        position: chain.first().cloned().unwrap_or_default(),
        momentum: chain.get(1).cloned().unwrap_or_default(),
    });
    let kept = rows(checkpoint, "kept", width)?;
    let of_chain = kept.len() / config.sghmc.chains;
    let mut kept = kept.into_iter();
    let kept = (0..config.sghmc.chains).map(|_| kept.by_ref().take(of_chain).collect());
    let state = PretrainingState {
        step: saved.step,
        map,
        chains: chains.take(saved.chains).collect(),
        kept: kept.collect(),
    };
    let training = Pretraining::resume(&config, seed, state)?;
    Ok((training, saved.cost, saved.evaluations, saved.recorded))
}
