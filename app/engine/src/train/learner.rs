//! One model being trained through the phases of an experiment.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::data::Suite;
use crate::eval;
use crate::experiment::RunConfig;
use crate::model::Params;
use crate::run::{Checkpoint, Cost, NamedTensor, RunError, Score};

use super::{AdamW, AdamWConfig, Compute, LossBatch, LossReport, Stream, learning_rate};

/// Student, reference and optimizer of an arm (or of the first phase, which arms share).
pub struct Learner {
    /// Weights in training θ.
    pub student: Params,
    /// Frozen copy at the start of the phase π.
    pub reference: Params,
    optimizer: AdamW,
    /// Where it stands.
    pub place: Place,
    /// What it has paid.
    pub cost: Cost,
}

/// Where a learner stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Phase, from 0.
    pub phase: usize,
    /// Steps at the start of the phase.
    pub phase_start: u64,
    /// Steps in all.
    pub step: u64,
    /// Updates of the optimizer since its last reset.
    pub updates: u64,
}

/// Figures of one optimizer step.
pub struct Step {
    /// Losses by batch and row.
    pub report: LossReport,
    /// Norm of the gradient.
    pub grad_norm: f64,
    /// Learning rate.
    pub lr: f64,
}

/// A loss or gradient that is no number, with the step it was met at.
#[derive(Debug, thiserror::Error)]
#[error(
    "{what} became {value} at step {step}; the weights of the last checkpoint are kept. A lower \
     learning rate or coefficient, or a longer warm-up, may help"
)]
pub struct NotFinite {
    what: &'static str,
    value: f64,
    step: u64,
}

impl Learner {
    /// A freshly initialised model at the start of the first phase.
    pub fn new(config: &RunConfig, compute: &Compute, seed: u64) -> Self {
        let student = Params::init(compute.layout(), &Stream::new(seed, "initial weights"));
        Self {
            reference: student.clone(),
            optimizer: optimizer(config, student.data.len()),
            student,
            place: Place {
                phase: 0,
                phase_start: 0,
                step: 0,
                updates: 0,
            },
            cost: Cost::default(),
        }
    }

    /// The same at the end of a phase, for an arm to go on with.
    pub(super) fn copy(&self) -> Self {
        Self {
            student: self.student.clone(),
            reference: self.reference.clone(),
            optimizer: self.optimizer.clone(),
            place: self.place,
            cost: self.cost,
        }
    }

    /// Whether the phase has had all its steps.
    pub fn phase_is_over(&self, config: &RunConfig) -> bool {
        self.place.step == self.place.phase_start + config.phases[self.place.phase].steps
    }

    /// Whether the last phase has had all its steps.
    pub fn is_finished(&self, config: &RunConfig) -> bool {
        self.place.phase + 1 == config.phases.len() && self.phase_is_over(config)
    }

    /// Begins the next phase: the student becomes the reference, the optimizer forgets.
    pub fn start_next_phase(&mut self) {
        // In place: an arm may fill the memory that is left.
        self.reference.data.copy_from_slice(&self.student.data);
        self.optimizer.reset();
        self.place.phase += 1;
        self.place.phase_start = self.place.step;
        self.place.updates = 0;
    }

    /// Steps until the next evaluation.
    pub fn steps_to_evaluation(&self, config: &RunConfig) -> u64 {
        let done = self.place.step - self.place.phase_start;
        let every = config.training.eval_every;
        (every - done % every).min(config.phases[self.place.phase].steps - done)
    }

    /// The batch of new data of the coming step, `[B, T]`: the same for all arms of a seed.
    pub fn new_batch(&self, config: &RunConfig, suite: &Suite, seed: u64) -> Vec<u32> {
        let phase = self.place.phase;
        let stream = Stream::new(seed, &format!("new data, phase {phase}"));
        let mut random = stream.at(self.place.step - self.place.phase_start);
        let mut tokens = Vec::with_capacity(config.training.batch_size * suite.seq_len());
        let rows = config.training.batch_size;
        suite.draw(suite.new_dataset(phase), &mut random, rows, &mut tokens);
        tokens
    }

    /// One optimizer step on the weighted sum of the batches' losses; the first batch is the new data.
    ///
    /// # Errors
    /// [`NotFinite`] before the weights are touched where the loss is no number, after where the gradient is none.
    pub fn step(
        &mut self,
        config: &RunConfig,
        compute: &mut Compute,
        batches: &[LossBatch],
        peak_lr: f64,
    ) -> Result<Step, NotFinite> {
        let start = Instant::now();
        let optimizer = &config.optimizer;
        let steps = config.phases[self.place.phase].steps;
        let done = self.place.step - self.place.phase_start;
        let lr = learning_rate(
            peak_lr,
            done,
            optimizer.warmup_steps,
            steps,
            optimizer.schedule,
        );
        let not_finite = |what, value| NotFinite {
            what,
            value,
            step: self.place.step,
        };
        let engine = &mut compute.engine;
        let report = engine.forward_backward(&self.student, Some(&self.reference), batches);
        if !report.total.is_finite() {
            return Err(not_finite("the loss", report.total));
        }
        let grad_norm = engine.update(&mut self.student, &mut self.optimizer, lr);
        if !grad_norm.is_finite() {
            return Err(not_finite("the norm of the gradient", grad_norm));
        }
        self.place.step += 1;
        self.place.updates = self.optimizer.updates;
        self.cost.tokens_trained += batches.iter().map(|b| b.tokens.len() as u64).sum::<u64>();
        // Wall-clock time is divided as the threads' time was.
        let elapsed = start.elapsed().as_secs_f64();
        let all: f64 = report.seconds.iter().sum();
        let new = if all > 0.0 {
            report.seconds[0] / all
        } else {
            1.0
        };
        self.cost.seconds_new += elapsed * new;
        self.cost.seconds_replay += elapsed * (1.0 - new);
        Ok(Step {
            report,
            grad_norm,
            lr,
        })
    }

    /// Held-out figures of every dataset.
    pub fn evaluate(&mut self, suite: &Suite, compute: &mut Compute) -> Vec<Score> {
        let start = Instant::now();
        let finite = |x: f64| x.is_finite().then_some(x);
        let scores = suite
            .held_out()
            .iter()
            .enumerate()
            .map(|(i, data)| {
                let figures =
                    eval::evaluate(&mut compute.engine, &self.student, &self.reference, data);
                Score {
                    dataset: data.dataset.clone(),
                    role: suite.role(i, self.place.phase),
                    ntp: finite(figures.ntp),
                    kl: finite(figures.kl),
                    accuracy: figures.accuracy,
                }
            })
            .collect();
        self.cost.seconds_eval += start.elapsed().as_secs_f64();
        scores
    }

    /// What a checkpoint must hold, the reference excepted.
    pub fn tensors(&self) -> Vec<NamedTensor<'_>> {
        let mut tensors = weights("student", &self.student);
        let n = self.optimizer.m.len();
        tensors.push(NamedTensor::f32("optimizer.m", &[n], &self.optimizer.m));
        tensors.push(NamedTensor::f32("optimizer.v", &[n], &self.optimizer.v));
        tensors
    }

    /// What the reference's file holds.
    pub fn reference_tensors(&self) -> Vec<NamedTensor<'_>> {
        weights("reference", &self.reference)
    }

    /// Takes a learner back from a checkpoint; `reference` where the phase is not over.
    ///
    /// # Errors
    /// [`RunError`] where a tensor is missing or of another size.
    pub fn restore(
        config: &RunConfig,
        compute: &Compute,
        checkpoint: &Checkpoint,
        reference: Option<&Checkpoint>,
        place: Place,
        cost: Cost,
    ) -> Result<Self, RunError> {
        let student = read_weights("student", compute, checkpoint)?;
        let over = place.step == place.phase_start + config.phases[place.phase].steps;
        let reference = match reference {
            Some(checkpoint) => read_weights("reference", compute, checkpoint)?,
            // The first phase makes its own; at the end of a phase the next one replaces it.
            None if over || place.phase == 0 => student.clone(),
            None => {
                return Err(RunError::BadCheckpoint {
                    path: checkpoint.path.clone(),
                    problem: format!("the reference of phase {} is gone", place.phase),
                });
            }
        };
        let mut optimizer = optimizer(config, student.data.len());
        optimizer.updates = place.updates;
        optimizer.m = read_tensor("optimizer.m", optimizer.m.len(), checkpoint)?;
        optimizer.v = read_tensor("optimizer.v", optimizer.v.len(), checkpoint)?;
        Ok(Self {
            student,
            reference,
            optimizer,
            place,
            cost,
        })
    }
}

fn optimizer(config: &RunConfig, len: usize) -> AdamW {
    let o = &config.optimizer;
    let config = AdamWConfig {
        beta1: o.beta1,
        beta2: o.beta2,
        eps: o.eps,
        weight_decay: o.weight_decay,
    };
    AdamW::new(config, len)
}

fn weights<'a>(prefix: &str, params: &'a Params) -> Vec<NamedTensor<'a>> {
    params
        .tensors()
        .map(|(name, shape, data)| NamedTensor::f32(format!("{prefix}.{name}"), &shape, data))
        .collect()
}

fn read_weights(
    prefix: &str,
    compute: &Compute,
    checkpoint: &Checkpoint,
) -> Result<Params, RunError> {
    let mut params = Params::zeros(compute.layout());
    let layout = params.layout.clone();
    for entry in &layout.entries {
        let name = format!("{prefix}.{}", entry.name);
        let data = read_tensor(&name, entry.range.len(), checkpoint)?;
        params.data[entry.range.clone()].copy_from_slice(&data);
    }
    Ok(params)
}

fn read_tensor(name: &str, len: usize, checkpoint: &Checkpoint) -> Result<Vec<f32>, RunError> {
    let (_, data) = checkpoint.f32(name)?;
    if data.len() == len {
        return Ok(data);
    }
    Err(RunError::BadCheckpoint {
        path: checkpoint.path.clone(),
        problem: format!(
            "tensor `{name}` holds {} numbers, the model {len}",
            data.len()
        ),
    })
}
