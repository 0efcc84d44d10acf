//! The first phase: trained once a seed, shared by its arms, kept in the cache.

use std::sync::Arc;
use std::time::Instant;

use forgetlab_study::experiment::first_phase_hash;
use forgetlab_study::run::{
    Cached, Checkpoint, CheckpointStore, Cost, Evaluation, Event, Level, PhaseCache, Progress,
};
use serde::{Deserialize, Serialize};

use super::arm::Shared;
use super::journal::Journal;
use super::learner::{Learner, NotFinite, PhaseStart, StepError, TrainingPoint, starting_weights};
use super::pace::Pace;
use super::{TrainError, objective};

/// How the first phase of a seed ended.
pub(super) enum FirstPhase {
    /// Whole: the model every arm starts from.
    Done(Box<Learner>),
    /// Stopped on the way; a checkpoint is written.
    Stopped,
    /// Broke down.
    Failed(NotFinite, u64),
}

/// The JSON of its checkpoint: unlike an arm's it holds the evaluations, which arms yet to start will report.
#[derive(Serialize, Deserialize)]
struct Saved {
    #[serde(rename = "place")]
    point: TrainingPoint,
    cost: Cost,
    evaluations: Vec<Evaluation>,
}

/// Trains (or finds) the first phase of `seed` and reports it for the arms `members`.
pub(super) fn run(
    shared: &mut Shared,
    journal: &Journal,
    store: &CheckpointStore,
    cache: Option<&PhaseCache>,
    numerics: &str,
    (seed, members): (u64, &[usize]),
) -> Result<FirstPhase, TrainError> {
    let config = shared.config;
    let steps = config.phases[0].steps;
    let hash = first_phase_hash(config, seed, numerics);
    let mut found = None;
    let latest = store.latest_valid()?;
    for problem in latest.problems {
        journal.log(Level::Warn, None, problem)?;
    }
    if let Some(checkpoint) = latest.checkpoint {
        found = restore(shared, journal, &checkpoint, seed)?;
    }
    let is_whole = |f: &Option<(Learner, Vec<Evaluation>)>| {
        f.as_ref()
            .is_some_and(|(learner, _)| learner.point.step == steps)
    };
    if !is_whole(&found) {
        match cache.map(|cache| cache.get(&hash)) {
            Some(Cached::Hit(checkpoint)) => {
                let cached = restore(shared, journal, &checkpoint, seed)?;
                if is_whole(&cached) {
                    found = cached;
                    let message = format!(
                        "the first phase ({}, seed {seed}) comes from the cache",
                        config.phases[0].dataset
                    );
                    journal.log(Level::Info, None, message)?;
                }
            }
            Some(Cached::Corrupt(problem)) => journal.log(Level::Warn, None, problem)?,
            Some(Cached::Miss) | None => {}
        }
    }
    let (mut learner, mut evaluations) = match found {
        Some(found) => found,
        None => start(shared, journal, seed)?,
    };
    for &arm in members {
        catch_up(journal, arm, &learner, &evaluations)?;
    }

    let save = |learner: &Learner, evaluations: &[Evaluation]| -> Result<(), TrainError> {
        journal.sync()?;
        let json = to_json(learner, evaluations);
        let TrainingPoint { step, phase, .. } = learner.point;
        store.save(step, phase, &learner.checkpoint_tensors()?.tensors(), json)?;
        Ok(store.prune(2)?)
    };
    if evaluations.is_empty() {
        evaluate(shared, journal, &mut learner, &mut evaluations, members)?;
    }
    let mut saved = Instant::now();
    let mut pace = Pace::new();
    let trained = learner.point.step < steps;
    while learner.point.step < steps {
        for _ in 0..learner.steps_to_evaluation(config) {
            if (shared.stop)() {
                save(&learner, &evaluations)?;
                return Ok(FirstPhase::Stopped);
            }
            let progress = match step(shared, &mut learner, seed) {
                Ok(progress) => progress,
                Err(StepError::NotFinite(error)) => {
                    return Ok(FirstPhase::Failed(error, learner.point.step));
                }
                Err(StepError::Engine(error)) => return Err(error.into()),
            };
            if let Some(tokens_per_second) = pace.due(learner.cost.tokens_trained) {
                let progress = Progress {
                    tokens_per_second,
                    ..progress
                };
                for &arm in members {
                    journal.emit(progress.event(arm, 0, learner.point.step))?;
                }
            }
        }
        evaluate(shared, journal, &mut learner, &mut evaluations, members)?;
        if saved.elapsed().as_secs_f64() >= config.training.checkpoint_seconds {
            save(&learner, &evaluations)?;
            saved = Instant::now();
        }
    }
    // A model that stays what it was is kept where it came from.
    if trained || (steps > 0 && store.steps()?.last() != Some(&steps)) {
        save(&learner, &evaluations)?;
    }
    if trained && let Some(cache) = cache {
        let json = to_json(&learner, &evaluations);
        let tensors = learner.checkpoint_tensors()?;
        if let Err(error) = cache.put(&hash, steps, 0, &tensors.tensors(), json) {
            let message = format!("the first phase is not cached for later runs: {error}");
            journal.log(Level::Warn, None, message)?;
        }
    }
    Ok(FirstPhase::Done(Box::new(learner)))
}

/// A learner at the very start. What an untouched pretrained model knows is asked once a run.
fn start(
    shared: &Shared,
    journal: &Journal,
    seed: u64,
) -> Result<(Learner, Vec<Evaluation>), TrainError> {
    let config = shared.config;
    let mut learner = Learner::new(config, shared.suite, &shared.engine, seed)?;
    let asked = journal.state(|state| {
        let mut arms = state.arms.iter();
        arms.find_map(|arm| arm.evaluations.first().filter(|e| e.step == 0).cloned())
    });
    let known = asked.filter(|_| config.phases[0].steps == 0);
    if let Some(evaluation) = &known {
        learner.cost = evaluation.cost;
    }
    Ok((learner, known.into_iter().collect()))
}

/// A checkpoint of the first phase; `None`, with a warning, where it is none of this configuration.
fn restore(
    shared: &Shared,
    journal: &Journal,
    checkpoint: &Checkpoint,
    seed: u64,
) -> Result<Option<(Learner, Vec<Evaluation>)>, TrainError> {
    let config = shared.config;
    let read = || {
        let saved: Saved = checkpoint.state()?;
        let (point, cost) = (saved.point, saved.cost);
        let engine = &shared.engine;
        let weights = starting_weights(shared.suite, engine, seed)?;
        let start = PhaseStart {
            reference: Arc::new(weights.clone().frozen()),
            weights: Some(weights),
        };
        let learner = Learner::restore(config, engine, checkpoint, seed, Some(start), point, cost)?;
        Ok::<_, TrainError>((learner, saved.evaluations))
    };
    match read() {
        Ok(found) => Ok(Some(found)),
        Err(error @ (TrainError::Engine(_) | TrainError::Pretrained(_))) => Err(error),
        Err(error) => {
            journal.log(
                Level::Warn,
                None,
                format!("{error}; training the first phase again"),
            )?;
            Ok(None)
        }
    }
}

fn to_json(learner: &Learner, evaluations: &[Evaluation]) -> serde_json::Value {
    let saved = Saved {
        point: learner.point,
        cost: learner.cost,
        evaluations: evaluations.to_vec(),
    };
    serde_json::json!(saved)
}

/// Brings an arm's events to where the first phase stands: nothing beyond, nothing missing.
fn catch_up(
    journal: &Journal,
    arm: usize,
    learner: &Learner,
    evaluations: &[Evaluation],
) -> Result<(), TrainError> {
    let step = learner.point.step;
    let (reached, known) = journal.state(|state| {
        let arm = &state.arms[arm];
        let known: Vec<u64> = arm.evaluations.iter().map(|e| e.step).collect();
        (arm.step, known)
    });
    if reached > step {
        let reason = format!("resumed from step {step} of the first phase");
        journal.emit(Event::Rewound { arm, step, reason })?;
    }
    if known.is_empty() {
        journal.emit(Event::PhaseStarted {
            arm,
            phase: 0,
            step: 0,
        })?;
    }
    for evaluation in evaluations.iter().filter(|e| !known.contains(&e.step)) {
        journal.emit(evaluation.event(arm))?;
    }
    Ok(())
}

fn evaluate(
    shared: &mut Shared,
    journal: &Journal,
    learner: &mut Learner,
    evaluations: &mut Vec<Evaluation>,
    members: &[usize],
) -> Result<(), TrainError> {
    let scores = learner.evaluate(
        shared.config,
        shared.suite,
        shared.questions,
        &mut shared.engine,
    )?;
    let TrainingPoint { step, phase, .. } = learner.point;
    let evaluation = Evaluation {
        phase,
        step,
        cost: learner.cost,
        scores,
    };
    for &arm in members {
        journal.emit(evaluation.event(arm))?;
    }
    evaluations.push(evaluation);
    Ok(())
}

fn step(shared: &mut Shared, learner: &mut Learner, seed: u64) -> Result<Progress, StepError> {
    let (config, suite) = (shared.config, shared.suite);
    let start = Instant::now();
    let new = learner.new_batch(config, suite, seed);
    learner.cost.seconds_new += start.elapsed().as_secs_f64();
    let weighted = objective::plain(new, suite.reduction());
    let (batches, tokens) = ([weighted.as_batch()], weighted.own_tokens);
    let lr = config.optimizer.lr;
    let step = learner.step(config, &mut shared.engine, &batches, tokens, lr)?;
    let (_, ntp) = weighted.means(&step.report.rows[0], false);
    Ok(Progress {
        ntp,
        replay: None,
        grad_norm: step.grad_norm,
        tokens_per_second: 0.0,
    })
}
