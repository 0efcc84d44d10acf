//! An arm on the new points: its steps, its evaluations, its checkpoints.

use std::time::Instant;

use forgetlab_study::experiment::Objective;
use forgetlab_study::run::{
    Checkpoint, CheckpointStore, Cost, Event, Level, NamedTensor, OpenStretch, RunError,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::super::error::TrainError;
use super::curves::curves;
use super::first_phase::First;
use super::scores::evaluation;
use super::tensors::{rows, to_bytes};
use super::{Context, Pace, phase_ended, record};
use crate::regression::{Config, Error, Finetuning, FinetuningState};

/// How a turn ended.
pub(super) enum Turn {
    /// At an evaluation; there are more.
    Paused,
    /// At the last step, or before its time.
    Over,
    /// The run is to stop.
    Stopped,
}

/// An arm at work.
pub(super) struct ArmRun {
    arm: usize,
    seed: u64,
    config: Config,
    training: Finetuning,
    cost: Cost,
    /// Figures of the steps that the events do not tell of as yet.
    open: OpenStretch,
    /// Steps of the first phase.
    before: u64,
    store: CheckpointStore,
    saved_at: Instant,
    /// Step of the last checkpoint.
    saved_step: Option<u64>,
}

/// The JSON of its checkpoint; the functions' weights are a tensor beside it.
#[derive(Serialize, Deserialize)]
struct Saved {
    step: usize,
    cost: Cost,
    #[serde(default)]
    open: OpenStretch,
}

impl ArmRun {
    /// An arm at its last checkpoint that can be used, or at the end of the first phase.
    pub(super) fn begin(context: &Context, arm: usize, first: &First) -> Result<Self, TrainError> {
        let own = &context.roll.arms[arm];
        let (seed, penalised) = (own.info.seed, own.spec.objective == Some(Objective::Kl));
        let config = Config::of(&own.config, own.spec.coeff)
            .ok_or_else(|| Error::State("the run is of another kind".into()))?;
        let store = context.dir.checkpoints(&own.info.slug);
        let journal = &context.roll.journal;
        let mut found = None;
        while found.is_none() {
            let latest = store.latest_valid()?;
            for problem in latest.problems {
                journal.log(Level::Warn, Some(arm), problem)?;
            }
            let Some(checkpoint) = latest.checkpoint else {
                break;
            };
            let restored = read(context, &checkpoint).and_then(|(saved, state)| {
                let posterior = &first.posterior;
                let training = Finetuning::resume(&config, seed, posterior, penalised, state)?;
                Ok((training, saved.cost, saved.open))
            });
            let step = checkpoint.info.step;
            match restored {
                Ok(restored) => found = Some(restored),
                Err(error) if error.is_unreadable() => return Err(error),
                Err(error) => {
                    let message = format!("{error}; using the checkpoint before step {step}");
                    journal.log(Level::Warn, Some(arm), message)?;
                    store.set_aside(step)?;
                }
            }
        }
        let is_saved = found.is_some();
        let (training, cost, open) = match found {
            Some(found) => found,
            None => {
                let training = Finetuning::new(&config, seed, &first.posterior, penalised)?;
                (training, first.cost, OpenStretch::default())
            }
        };
        let mut run = Self {
            arm,
            seed,
            config,
            training,
            cost,
            open,
            before: first.steps,
            store,
            saved_at: Instant::now(),
            saved_step: None,
        };
        run.saved_step = is_saved.then(|| run.step());
        run.tell_place(context, is_saved)?;
        Ok(run)
    }

    /// Index in the events.
    pub(super) fn arm(&self) -> usize {
        self.arm
    }

    /// Brings the events to where the arm stands.
    fn tell_place(&self, context: &Context, is_saved: bool) -> Result<(), RunError> {
        let (journal, arm, step) = (&context.roll.journal, self.arm, self.step());
        if journal.state(|state| state.arms[arm].step) != step {
            let reason = match is_saved {
                true => format!("resumed from the checkpoint at step {step}"),
                false => "resumed from the end of the first phase".to_owned(),
            };
            journal.emit(Event::Rewound { arm, step, reason })?;
        }
        if journal.state(|state| state.arms[arm].phase) == 0 {
            let phase = 1;
            journal.emit(Event::PhaseStarted { arm, phase, step })?;
        }
        Ok(())
    }

    /// Steps so far, those of the first phase included.
    fn step(&self) -> u64 {
        self.before + self.training.step_number() as u64
    }

    /// Trains to the next evaluation.
    pub(super) fn turn(&mut self, context: &Context, first: &First) -> Result<Turn, TrainError> {
        let mut pace = Pace::new();
        while !self.training.is_done() {
            if (context.stop)() {
                return Ok(Turn::Stopped);
            }
            let begun = Instant::now();
            let advanced = self.training.advance();
            self.cost.seconds_new += begun.elapsed().as_secs_f64();
            self.record(context, advanced.is_err())?;
            match advanced {
                Ok(false) => pace.tell(context, &[self.arm], (1, self.step()))?,
                Ok(true) => {
                    self.evaluate(context)?;
                    if !self.training.is_done() {
                        let age = self.saved_at.elapsed().as_secs_f64();
                        if age >= context.config.training.checkpoint_seconds {
                            self.save(context)?;
                        }
                        return Ok(Turn::Paused);
                    }
                    self.draw(context, first)?;
                }
                Err(error) => {
                    context.roll.fail(self.arm, self.step(), &error)?;
                    return Ok(Turn::Over);
                }
            }
        }
        self.save(context)?;
        let (arm, step) = (self.arm, self.step());
        context
            .roll
            .journal
            .emit(Event::ArmFinished { arm, step })?;
        self.store.prune(1)?;
        Ok(Turn::Over)
    }

    /// Takes the figures of a step, or of none where it `failed`, and puts them into the events where that is due.
    fn record(&mut self, context: &Context, failed: bool) -> Result<(), RunError> {
        if !failed {
            self.open.add(self.training.last());
        }
        let done = self.training.step_number() as u64;
        let steps = (done, self.training.steps() as u64);
        match self.open.end((1, self.step()), steps, failed) {
            Some(stretch) => record(context, &[self.arm], stretch),
            None => Ok(()),
        }
    }

    fn evaluate(&mut self, context: &Context) -> Result<(), TrainError> {
        let begun = Instant::now();
        let found = self.training.evaluate();
        self.cost.seconds_eval += begun.elapsed().as_secs_f64();
        let evaluation = evaluation(1, self.step(), self.cost, &found);
        Ok(context.roll.journal.emit(evaluation.event(self.arm))?)
    }

    /// Puts what the functions have become into the events, and the end of the phase.
    fn draw(&self, context: &Context, first: &First) -> Result<(), RunError> {
        let (arm, step, journal) = (self.arm, self.step(), &context.roll.journal);
        let curves = curves(&self.config, self.seed, &first.posterior, &self.training);
        journal.emit(Event::Drawn { arm, step, curves })?;
        journal.emit(phase_ended(arm, 1, step))
    }

    /// Writes a checkpoint, unless the last one is of this very step, or the first phase's will do.
    pub(super) fn save(&mut self, context: &Context) -> Result<(), TrainError> {
        let step = self.step();
        if step == self.before || self.saved_step == Some(step) {
            return Ok(());
        }
        let journal = &context.roll.journal;
        let mark = journal.sync()?;
        let state = self.training.state();
        let functions = to_bytes(&state.functions);
        let tensors = [NamedTensor::bytes("functions", &functions)];
        let saved = json!(Saved {
            step: state.step,
            cost: self.cost,
            open: self.open,
        });
        let path = self.store.save(step, 1, &tensors, saved, Some(mark))?;
        self.store.prune(2)?;
        (self.saved_at, self.saved_step) = (Instant::now(), Some(step));
        let (arm, path) = (self.arm, journal.path_in_run(&path));
        journal.emit(Event::CheckpointSaved { arm, step, path })?;
        Ok(())
    }
}

fn read(
    context: &Context,
    checkpoint: &Checkpoint,
) -> Result<(Saved, FinetuningState), TrainError> {
    let saved: Saved = checkpoint.state()?;
    let width = context.config.regression().map_or(1, |(m, _)| m.weights());
    let state = FinetuningState {
        step: saved.step,
        functions: rows(checkpoint, "functions", width)?,
    };
    Ok((saved, state))
}
