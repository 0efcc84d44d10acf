//! The first phase: trained once a seed, shared by its arms, kept in the cache.

use std::sync::Arc;

use forgetlab_study::experiment::first_phase_hash;
use forgetlab_study::run::{Cached, Checkpoint, CheckpointStore, Evaluation, Level, PhaseCache};

use super::arm::{ArmRun, SavedPhase, Start};
use super::context::RunContext;
use super::error::{ArmError, TrainError};
use super::journal::Recorded;
use super::learner::{Learner, PhaseStart, Resumed, starting_weights};
use super::turn::{evaluate, tell_phase_end};

/// The first phase that is wanted, for whom, and where it is looked for.
pub(super) struct Wanted<'a> {
    pub seed: u64,
    /// Arms that share it, by their index in the events.
    pub members: &'a [usize],
    /// Cache of first phases, where it is to be used.
    pub cache: Option<&'a PhaseCache>,
    /// Version of the numerics and device in words: others give other bits.
    pub numerics: &'a str,
}

/// The first phase of a seed as far as it is found, or at its start; reported for its arms, which take it to its end.
///
/// # Errors
/// Where the run as a whole cannot go on.
pub(super) fn start(context: &mut RunContext, wanted: &Wanted) -> Result<ArmRun, TrainError> {
    let hash = first_phase_hash(context.config, wanted.seed, wanted.numerics);
    let folder = format!("first-phase-seed-{}", wanted.seed);
    let store = context.dir.checkpoints(&folder);
    let start = match find(context, wanted, &store, &hash)? {
        Some(start) => start,
        None => begin(context, wanted.seed)?,
    };
    let mut run = ArmRun::first_phase(context.config, wanted.members, start, store);
    know_rows(context, &mut run)?;
    catch_up(context, &run)?;
    if run.evaluations.is_empty() {
        evaluate(context, &mut run)?;
    }
    Ok(run)
}

/// Keeps a first phase that is whole in the run, and in the cache where it was `trained` just now.
///
/// # Errors
/// Where the run as a whole cannot go on.
pub(super) fn keep(
    context: &RunContext,
    wanted: &Wanted,
    run: &mut ArmRun,
    trained: bool,
) -> Result<(), TrainError> {
    let hash = first_phase_hash(context.config, wanted.seed, wanted.numerics);
    let steps = run.learner.point.step;
    // A model that stays what it was is kept where it came from.
    if steps > 0 && run.store().steps()?.last() != Some(&steps) {
        save(context, run)?;
    }
    if let Some(cache) = wanted.cache.filter(|_| trained) {
        let tensors = run.learner.checkpoint_tensors()?;
        if let Err(error) = cache.put(&hash, steps, 0, &tensors.tensors(), run.saved()) {
            let message = format!("the first phase is not cached for later runs: {error}");
            context.journal.log(Level::Warn, None, message)?;
        }
    }
    Ok(())
}

/// Scores the rows of the last evaluation where a phase of an older version comes without them: forgetting is
/// measured against it.
fn know_rows(context: &mut RunContext, run: &mut ArmRun) -> Result<(), TrainError> {
    let lacks = |e: &Evaluation| e.scores.iter().any(|score| score.outcomes.is_none());
    if !run.is_over() || !run.evaluations.last().is_some_and(lacks) {
        return Ok(());
    }
    let cost = run.learner.cost;
    let scores = run.learner.evaluate(
        &run.config,
        context.suite,
        context.questions,
        &mut context.engine,
    )?;
    run.learner.cost = cost;
    let Some(last) = run.evaluations.last_mut() else {
        return Ok(());
    };
    for (known, score) in last.scores.iter_mut().zip(scores) {
        if known.dataset == score.dataset && known.accuracy == score.accuracy {
            known.outcomes = score.outcomes;
        }
    }
    Ok(())
}

/// Writes a checkpoint: without a strategy, only the disk or the device can fail.
pub(super) fn save(context: &RunContext, run: &mut ArmRun) -> Result<(), TrainError> {
    match run.save(&context.journal) {
        Err(ArmError::Run(error)) => Err(error),
        _ => Ok(()),
    }
}

/// The first phase as far as the run's own checkpoint has it, or whole from the cache.
fn find(
    context: &RunContext,
    wanted: &Wanted,
    store: &CheckpointStore,
    hash: &str,
) -> Result<Option<Start>, TrainError> {
    let (config, journal) = (context.config, &context.journal);
    let is_whole = |start: &Start| start.learner.phase_is_over(config);
    let latest = store.latest_valid()?;
    for problem in latest.problems {
        journal.log(Level::Warn, None, problem)?;
    }
    let own = match latest.checkpoint {
        Some(checkpoint) => restore(context, &checkpoint, wanted.seed)?,
        None => None,
    };
    if own.as_ref().is_some_and(is_whole) {
        return Ok(own);
    }
    match wanted.cache.map(|cache| cache.get(hash)) {
        Some(Cached::Hit(checkpoint)) => {
            let cached = restore(context, &checkpoint, wanted.seed)?;
            if cached.as_ref().is_some_and(is_whole) {
                let message = format!(
                    "the first phase ({}, seed {}) comes from the cache",
                    config.phases[0].dataset, wanted.seed
                );
                journal.log(Level::Info, None, message)?;
                return Ok(cached);
            }
        }
        Some(Cached::Corrupt(problem)) => journal.log(Level::Warn, None, problem)?,
        Some(Cached::Miss) | None => {}
    }
    Ok(own)
}

/// The very start. What an untouched pretrained model knows is asked once a run.
fn begin(context: &RunContext, seed: u64) -> Result<Start, TrainError> {
    let config = context.config;
    let mut learner = Learner::new(config, context.suite, &context.engine, seed)?;
    let asked = context.journal.state(|state| {
        let mut arms = state.arms.iter();
        arms.find_map(|arm| arm.evaluations.first().filter(|e| e.step == 0).cloned())
    });
    let known = asked.filter(|_| context.is_untouched());
    let wrote = context.journal.state(|state| {
        let mut arms = state.arms.iter();
        arms.find_map(|arm| arm.samples.first().filter(|look| look.step == 0).cloned())
    });
    // Both, or neither.
    let known = known.filter(|_| context.prompts.is_empty() || wrote.is_some());
    let wrote = wrote.filter(|_| known.is_some());
    if let Some(evaluation) = &known {
        learner.cost = evaluation.cost;
    }
    Ok(Start {
        learner,
        evaluations: known.into_iter().collect(),
        training: Vec::new(),
        samples: wrote.into_iter().collect(),
    })
}

/// A checkpoint of the first phase; `None`, with a warning, where it is none of this configuration.
fn restore(
    context: &RunContext,
    checkpoint: &Checkpoint,
    seed: u64,
) -> Result<Option<Start>, TrainError> {
    match read(context, checkpoint, seed) {
        Ok(start) => Ok(Some(start)),
        Err(error @ (TrainError::Engine(_) | TrainError::Pretrained(_))) => Err(error),
        Err(error) => {
            let message = format!("{error}; training the first phase again");
            context.journal.log(Level::Warn, None, message)?;
            Ok(None)
        }
    }
}

fn read(context: &RunContext, checkpoint: &Checkpoint, seed: u64) -> Result<Start, TrainError> {
    let saved: SavedPhase = checkpoint.state()?;
    let weights = starting_weights(context.suite, &context.engine, seed)?;
    let start = PhaseStart {
        reference: Arc::new(weights.clone().frozen()),
        weights: Some(weights),
    };
    let resumed = Resumed {
        checkpoint,
        seed,
        start: Some(start),
        point: saved.point,
        cost: saved.cost,
    };
    let learner = Learner::restore(context.config, &context.engine, resumed)?;
    Ok(Start {
        learner,
        training: saved.training.clone(),
        samples: saved.samples.clone(),
        evaluations: saved.evaluations(),
    })
}

/// Brings the events of the arms to where the first phase stands: nothing beyond, nothing missing.
fn catch_up(context: &RunContext, run: &ArmRun) -> Result<(), TrainError> {
    let (journal, step) = (&context.journal, run.learner.point.step);
    let recorded = Recorded {
        evaluations: &run.evaluations,
        training: &run.training,
        samples: &run.samples,
    };
    journal.catch_up(&run.members, step, recorded)?;
    match journal.told_of_first_end(&run.members) {
        true => Ok(()),
        false => Ok(tell_phase_end(context, run)?),
    }
}
