//! One model being trained through the phases of an experiment.

#[cfg(test)]
mod on_gpu;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use forgetlab_engine::model::{Layout, Lora, LoraConfig, LoraLayout, Params};
use forgetlab_engine::{
    AdamW, Engine, EngineError, LossBatch, LossReport, Optimizer, Stream, Weights,
};
use forgetlab_study::experiment::RunConfig;
use forgetlab_study::run::{
    Checkpoint, Cost, NamedTensor, OpenStretch, PhaseEnd, RunError, Score, TrainingStretch,
};
use serde::{Deserialize, Serialize};

use crate::data::{Batch, NewRows, Suite};
use crate::eval::{self, Choices, Subject};
use crate::train::NotFinite;
use crate::train::error::ArmError;

use super::{TrainError, settings};

/// Student, reference and optimizer of an arm (or of the first phase, which arms share).
pub struct Learner {
    /// Weights in training θ.
    pub student: Weights,
    /// Frozen copy at the start of the phase π; arms share that of the phase after the first.
    pub reference: Arc<Weights>,
    /// Whether the reference is that of the next phase already.
    ready: bool,
    optimizer: Optimizer,
    /// Decides the order of new data and the adapters each phase begins with.
    seed: u64,
    /// Phase and steps so far.
    pub point: TrainingPoint,
    /// Cost so far: tokens, seconds and FLOPs.
    pub cost: Cost,
}

/// Steps at the start of a phase whose time does not count, until everything runs at its pace.
const UNTIMED_STEPS: u64 = 5;

/// Phase and steps of a learner, and what decides whether the phase goes on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainingPoint {
    /// Phase, from 0.
    pub phase: usize,
    /// Steps at the start of the phase.
    pub phase_start: u64,
    /// Steps since the start of the run, shared phases included.
    pub step: u64,
    /// Updates of the optimizer since its last reset.
    pub updates: u64,
    /// The criterion that ended the phase before its steps did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<PhaseEnd>,
    /// The lowest held-out loss of the phase's dataset at an evaluation of the phase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best: Option<f64>,
    /// Evaluations since then.
    #[serde(default)]
    pub stale: u64,
    /// Seconds of training in the phase, its first steps left out.
    #[serde(default)]
    pub timed: f64,
    /// New rows of the phase that replayed ones stood in the place of.
    #[serde(default)]
    pub replaced: u64,
    /// Figures of the steps that the events do not tell of as yet.
    #[serde(default, skip_serializing_if = "OpenStretch::is_empty")]
    pub stretch: OpenStretch,
}

impl TrainingPoint {
    /// The start of a phase.
    fn at_start(phase: usize, step: u64) -> Self {
        Self {
            phase,
            phase_start: step,
            step,
            updates: 0,
            ended: None,
            best: None,
            stale: 0,
            timed: 0.0,
            replaced: 0,
            stretch: OpenStretch::default(),
        }
    }

    /// Whether the phase is over.
    fn is_over(&self, config: &RunConfig) -> bool {
        self.ended.is_some() || self.step == self.phase_start + config.in_phase(self.phase).steps
    }
}

/// A learner's weights and moments in the machine's memory, for a checkpoint.
pub struct CheckpointTensors<'a> {
    student: Cow<'a, Params>,
    adapters: Option<Cow<'a, Lora>>,
    optimizer: Cow<'a, AdamW>,
}

impl CheckpointTensors<'_> {
    /// Tensors of a checkpoint: student, adapters and moments; the reference is kept apart.
    pub fn tensors(&self) -> Vec<NamedTensor<'_>> {
        let mut tensors = named("student", &self.student);
        for (name, shape, data) in self.adapters.iter().flat_map(|lora| lora.tensors()) {
            tensors.push(NamedTensor::f32(format!("lora.{name}"), &shape, data));
        }
        let AdamW { m, v, .. } = &*self.optimizer;
        tensors.push(NamedTensor::f32("optimizer.m", &[m.len()], m));
        tensors.push(NamedTensor::f32("optimizer.v", &[v.len()], v));
        tensors
    }
}

impl Learner {
    /// A pretrained or freshly initialised model at the start of the first phase.
    ///
    /// # Errors
    /// When the pretrained weights cannot be read, or the device has no room for them.
    pub fn new(
        config: &RunConfig,
        suite: &Suite,
        engine: &Engine,
        seed: u64,
    ) -> Result<Self, TrainError> {
        let student = starting_weights(suite, engine, seed)?;
        let reference = Arc::new(student.clone().frozen());
        let student = adapted(config, engine, student, seed, 0)?;
        let fresh = AdamW::new(settings::adamw(config, 0), student.trained_len());
        Ok(Self {
            reference,
            ready: false,
            optimizer: engine.optimizer_of(&student, fresh)?,
            student,
            seed,
            point: TrainingPoint::at_start(0, 0),
            cost: Cost::default(),
        })
    }

    /// A copy at the end of a phase, for an arm to go on with; the weights are shared until one changes.
    pub(super) fn copy(&self) -> Self {
        Self {
            student: self.student.clone(),
            reference: self.reference.clone(),
            ready: self.ready,
            optimizer: self.optimizer.clone(),
            seed: self.seed,
            point: self.point,
            cost: self.cost,
        }
    }

    /// Sets the reference of the next phase, at the end of one; copies made after it share it.
    pub(super) fn take_next_reference(&mut self, shared: Option<Arc<Weights>>) {
        match (shared, Arc::get_mut(&mut self.reference)) {
            (Some(shared), _) => self.reference = shared,
            // In place, since an arm may fill the memory that is left.
            (None, Some(own)) => own.copy_from(&self.student),
            (None, None) => self.reference = Arc::new(self.student.clone().frozen()),
        }
        self.ready = true;
    }

    /// Whether the phase is over.
    pub fn phase_is_over(&self, config: &RunConfig) -> bool {
        self.point.is_over(config)
    }

    /// The criterion that ended the phase, if it is over.
    pub fn phase_end(&self, config: &RunConfig) -> Option<PhaseEnd> {
        let steps = self.phase_is_over(config).then_some(PhaseEnd::Steps);
        self.point.ended.or(steps)
    }

    /// Ends the phase where it has had its training time; says whether that is so.
    pub fn end_at_time(&mut self, config: &RunConfig) -> bool {
        let most = config.phases[self.point.phase].seconds;
        let over = !self.phase_is_over(config) && most.is_some_and(|most| self.point.timed >= most);
        if over {
            self.point.ended = Some(PhaseEnd::Seconds);
        }
        over
    }

    /// Ends the phase where the held-out loss of its dataset says so; says whether that is so.
    pub fn end_at_loss(&mut self, config: &RunConfig, suite: &Suite, scores: &[Score]) -> bool {
        let point = &mut self.point;
        let phase = &config.phases[point.phase];
        let dataset = &suite.held_out()[suite.new_dataset(point.phase)].dataset;
        let score = scores.iter().find(|score| score.dataset == *dataset);
        let Some(loss) = score.and_then(|score| score.ntp) else {
            return false;
        };
        match point.best {
            Some(best) if loss >= best => point.stale += 1,
            _ => (point.best, point.stale) = (Some(loss), 0),
        }
        // Joint training is as long as what it is compared with.
        if point.is_over(config) || phase.joint {
            return false;
        }
        if phase.target_loss.is_some_and(|target| loss <= target) {
            point.ended = Some(PhaseEnd::TargetLoss);
        } else if phase.patience.is_some_and(|most| point.stale > most) {
            point.ended = Some(PhaseEnd::EarlyStop);
        }
        point.ended.is_some()
    }

    /// Whether the last phase is over.
    pub fn is_finished(&self, config: &RunConfig) -> bool {
        self.point.phase + 1 == config.phases.len() && self.phase_is_over(config)
    }

    /// Begins the next phase: the reference becomes a copy of the student, the optimizer is reset, and for joint
    /// training the student is what it was at the start of the run. From then on `config` may be an arm's own.
    ///
    /// # Errors
    /// When the device fails.
    pub fn start_next_phase(
        &mut self,
        config: &RunConfig,
        suite: &Suite,
        engine: &Engine,
    ) -> Result<(), TrainError> {
        if !self.ready {
            self.take_next_reference(None);
        }
        self.ready = false;
        let step = self.point.step;
        self.point = TrainingPoint::at_start(self.point.phase + 1, step);
        if config.phases[self.point.phase].joint {
            let params = starting_params(suite, engine, self.seed)?;
            self.take_student();
            self.student = engine.weights(params)?;
        }
        if settings::lora(config).is_some() {
            // Those of the phase before become part of the weights.
            let (weights, phase) = (self.take_student(), self.point.phase);
            self.student = adapted(config, engine, weights, self.seed, phase)?;
        } else if self.student.download_adapters()?.is_some() {
            let merged = self.student.download()?.into_owned();
            self.take_student();
            self.student = engine.weights(merged)?;
        }
        let adamw = settings::adamw(config, self.point.phase);
        engine.reset(&mut self.optimizer, &self.student, adamw)?;
        Ok(())
    }

    /// Takes the student, which is to be replaced, away: there may be no memory for two. Until then the reference stands
    /// in its place.
    fn take_student(&mut self) -> Weights {
        std::mem::replace(&mut self.student, (*self.reference).clone())
    }

    /// Steps until the next evaluation.
    pub fn steps_to_evaluation(&self, config: &RunConfig) -> u64 {
        let done = self.point.step - self.point.phase_start;
        config.in_phase(self.point.phase).next_evaluation(done) - done
    }

    /// The batch of new data of the coming step: the same for all arms of a seed.
    ///
    /// # Errors
    /// Where a file of tokens cannot be read any more.
    pub fn new_batch(&self, config: &RunConfig, suite: &Suite) -> Result<Batch, TrainError> {
        let phase = self.point.phase;
        let step = self.point.step - self.point.phase_start;
        let new = new_rows(config, self.seed, phase, step);
        Ok(suite.batch(phase, new)?)
    }

    /// The figures of training since the last ones, where a stretch of steps ends here: where one is due, the phase is
    /// over, or `now`.
    pub fn end_stretch(&mut self, config: &RunConfig, now: bool) -> Option<TrainingStretch> {
        let now = now || self.phase_is_over(config);
        let point = &mut self.point;
        let most = config.in_phase(point.phase).steps;
        let done = point.step - point.phase_start;
        let place = (point.phase, point.step);
        point.stretch.end(place, (done, most), now)
    }

    /// Learning rate of the coming step.
    pub fn learning_rate(&self, config: &RunConfig) -> f64 {
        let done = self.point.step - self.point.phase_start;
        let phase = config.in_phase(self.point.phase);
        let optimizer = phase.optimizer;
        settings::learning_rate(
            optimizer.lr,
            done,
            optimizer.warmup_steps,
            phase.steps,
            optimizer.schedule,
        )
    }

    /// Losses of a step, and in the engine the gradient of their weighted sum; the first batch is the new data.
    ///
    /// # Errors
    /// [`ArmError::NotFinite`] where the loss is NaN or infinite, [`ArmError::Run`] where the device fails.
    pub fn forward_backward(
        &mut self,
        engine: &mut Engine,
        batches: &[LossBatch],
    ) -> Result<LossReport, ArmError> {
        let report = engine.forward_backward(&self.student, Some(&self.reference), batches)?;
        self.finite("the loss", report.total)?;
        Ok(report)
    }

    /// Updates the student with the gradient of the last [`Self::forward_backward`]; returns its norm.
    ///
    /// # Errors
    /// [`ArmError::NotFinite`], the weights already touched, where the norm is NaN or infinite;
    /// [`ArmError::Run`] where the device fails.
    pub fn update(&mut self, engine: &mut Engine, learning_rate: f64) -> Result<f64, ArmError> {
        let grad_norm = engine.update(&mut self.student, &mut self.optimizer, learning_rate)?;
        self.finite("the norm of the gradient", grad_norm)?;
        self.point.step += 1;
        self.point.updates = self.optimizer.updates();
        Ok(grad_norm)
    }

    /// Adds what a step cost: its tokens and FLOPs, and the time of forward, backward and update, which is
    /// divided between new and replayed data as the threads' time was.
    pub fn pay(&mut self, step: &Cost, report: &LossReport, elapsed: Duration) {
        self.cost.tokens_trained += step.tokens_trained;
        self.cost.flops_train += step.flops_train;
        self.cost.flops_reference += step.flops_reference;
        let (elapsed, all) = (elapsed.as_secs_f64(), report.seconds.iter().sum::<f64>());
        let new = if all > 0.0 {
            report.seconds[0] / all
        } else {
            1.0
        };
        self.cost.seconds_new += elapsed * new;
        self.cost.seconds_replay += elapsed * (1.0 - new);
        self.train_for(self.point.step - 1, elapsed);
    }

    /// Counts seconds of a step, counted from the start of the run, towards the time of the phase.
    pub fn train_for(&mut self, step: u64, seconds: f64) {
        if step >= self.point.phase_start + UNTIMED_STEPS {
            self.point.timed += seconds;
        }
    }

    fn finite(&self, what: &'static str, value: f64) -> Result<(), NotFinite> {
        let step = self.point.step;
        if value.is_finite() {
            Ok(())
        } else {
            Err(NotFinite { what, value, step })
        }
    }

    /// Held-out figures of every dataset and answers to the questions that are due.
    ///
    /// # Errors
    /// When the device fails.
    pub fn evaluate(
        &mut self,
        config: &RunConfig,
        suite: &Suite,
        questions: &[Choices],
        engine: &mut Engine,
    ) -> Result<Vec<Score>, EngineError> {
        let start = Instant::now();
        // The untouched model is its own reference.
        let untouched = self.point.step == 0 && suite.pretrained().is_some();
        let subject = Subject {
            student: &self.student,
            reference: (!untouched).then_some(&*self.reference),
            phase: self.point.phase,
            at_end: self.point.step == 0 || self.phase_is_over(config),
        };
        let scores = eval::scores(engine, suite, questions, subject)?;
        let (reference, at_end) = (subject.reference.is_some(), subject.at_end);
        let model = &engine.layout().config;
        self.cost.flops_eval += eval::flops(model, suite, questions, reference, at_end);
        self.cost.seconds_eval += start.elapsed().as_secs_f64();
        Ok(scores)
    }

    /// Weights and moments in the machine's memory, for a checkpoint.
    ///
    /// # Errors
    /// When the device fails.
    pub fn checkpoint_tensors(&self) -> Result<CheckpointTensors<'_>, EngineError> {
        Ok(CheckpointTensors {
            student: self.student.download()?,
            adapters: self.student.download_adapters()?,
            optimizer: self.optimizer.download()?,
        })
    }

    /// A learner as a checkpoint has it.
    ///
    /// # Errors
    /// Where a tensor is missing or of another size, or the device has no room for it.
    pub fn restore(
        config: &RunConfig,
        engine: &Engine,
        resumed: Resumed,
    ) -> Result<Self, TrainError> {
        let Resumed {
            checkpoint,
            seed,
            start,
            point,
            cost,
        } = resumed;
        let over = point.is_over(config);
        let lora = settings::lora(config);
        let (student, reference) = match start {
            Some(PhaseStart { weights, reference }) => {
                let student = match (lora, weights) {
                    (Some(lora), Some(weights)) if !over => {
                        engine.adapt(weights, read_adapters(lora, engine, checkpoint)?)?
                    }
                    _ => read_weights("student", engine, checkpoint)?,
                };
                (student, reference)
            }
            // At the end of a phase the next one replaces the reference.
            None if over => {
                let student = read_weights("student", engine, checkpoint)?;
                let reference = Arc::new(student.clone().frozen());
                (student, reference)
            }
            None => {
                return Err(TrainError::Run(RunError::BadCheckpoint {
                    path: checkpoint.path.clone(),
                    problem: format!("the reference of phase {} is gone", point.phase),
                }));
            }
        };
        // The next phase begins with adapters of its own.
        let student = match over {
            true => adapted(config, engine, student, seed, point.phase)?,
            false => student,
        };
        let len = student.trained_len();
        let optimizer = AdamW {
            config: settings::adamw(config, point.phase),
            updates: point.updates,
            m: read_tensor("optimizer.m", len, checkpoint)?,
            v: read_tensor("optimizer.v", len, checkpoint)?,
        };
        Ok(Self {
            optimizer: engine.optimizer_of(&student, optimizer)?,
            student,
            reference,
            ready: false,
            seed,
            point,
            cost,
        })
    }
}

/// The rows of new data of a step, counted from the start of its phase: the same for all arms of a seed.
pub fn new_rows(config: &RunConfig, seed: u64, phase: usize, step: u64) -> NewRows {
    let rows = config.in_phase(phase).batch_size;
    let joint = config.joint_share(phase);
    let mix = config.phases[phase].mix.as_ref();
    let share = joint.or(mix.map(|mix| mix.share));
    let mixed = share.map(|share| config.replay.fractions.rows(share, rows, step));
    NewRows {
        seed,
        step,
        rows,
        mixed: mixed.unwrap_or(0),
        joint: joint.is_some(),
    }
}

/// Tensors of a model by their names in a checkpoint, e.g. `student.embed_in`.
pub fn named<'a>(prefix: &str, params: &'a Params) -> Vec<NamedTensor<'a>> {
    params
        .tensors()
        .map(|(name, shape, data)| NamedTensor::f32(format!("{prefix}.{name}"), &shape, data))
        .collect()
}

/// A checkpoint of a learner, and what else it goes on from.
pub struct Resumed<'a> {
    /// Its weights and moments.
    pub checkpoint: &'a Checkpoint,
    /// Seed of the arm.
    pub seed: u64,
    /// Weights at the start of its phase, where that is not over.
    pub start: Option<PhaseStart>,
    /// Phase and step.
    pub point: TrainingPoint,
    /// Cost so far.
    pub cost: Cost,
}

/// Weights at the start of a phase.
pub struct PhaseStart {
    /// The weights below the adapters, where there are some.
    pub weights: Option<Weights>,
    /// The frozen reference π.
    pub reference: Arc<Weights>,
}

/// Weights with fresh adapters on top, where adapters are what is trained.
fn adapted(
    config: &RunConfig,
    engine: &Engine,
    weights: Weights,
    seed: u64,
    phase: usize,
) -> Result<Weights, EngineError> {
    let Some(lora) = settings::lora(config) else {
        return Ok(weights);
    };
    let layout = LoraLayout::new(lora, engine.layout());
    let stream = Stream::new(seed, &format!("adapters, phase {phase}"));
    engine.adapt(weights, Lora::init(&layout, &stream))
}

fn read_adapters(
    config: LoraConfig,
    engine: &Engine,
    checkpoint: &Checkpoint,
) -> Result<Lora, RunError> {
    let mut lora = Lora::zeros(&LoraLayout::new(config, engine.layout()));
    let places: Vec<_> = lora.places().collect();
    for (name, _, range) in places {
        let data = read_tensor(&format!("lora.{name}"), range.len(), checkpoint)?;
        lora.data[range].copy_from_slice(&data);
    }
    Ok(lora)
}

/// Weights at the start of the first phase: pretrained, or random.
///
/// # Errors
/// When the pretrained weights cannot be read, or the device has no room for them.
pub(super) fn starting_weights(
    suite: &Suite,
    engine: &Engine,
    seed: u64,
) -> Result<Weights, TrainError> {
    Ok(engine.weights(starting_params(suite, engine, seed)?)?)
}

/// The same in the machine's memory.
fn starting_params(suite: &Suite, engine: &Engine, seed: u64) -> Result<Params, TrainError> {
    Ok(match suite.pretrained() {
        Some(pretrained) => pretrained.load(&()).map_err(Box::new)?,
        None => Params::init(engine.layout(), &Stream::new(seed, "initial weights")),
    })
}

pub(super) fn read_weights(
    prefix: &str,
    engine: &Engine,
    checkpoint: &Checkpoint,
) -> Result<Weights, TrainError> {
    Ok(engine.weights(read_params(prefix, engine.layout(), checkpoint)?)?)
}

/// Weights of the student in a checkpoint.
///
/// # Errors
/// [`RunError`] where a tensor is missing or of another size.
pub fn read_student(layout: &Arc<Layout>, checkpoint: &Checkpoint) -> Result<Params, RunError> {
    read_params("student", layout, checkpoint)
}

fn read_params(
    prefix: &str,
    layout: &Arc<Layout>,
    checkpoint: &Checkpoint,
) -> Result<Params, RunError> {
    let mut params = Params::zeros(layout);
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
