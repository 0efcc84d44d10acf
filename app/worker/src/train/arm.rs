//! One arm at work: a learner and its strategy.

use std::sync::Arc;
use std::time::Instant;

use forgetlab_engine::{Engine, EngineError};
use forgetlab_plugin_host::{
    InstanceOptions, PhaseContext, Plugin, StepMetrics, StrategyError, StrategyInstance,
};
use forgetlab_study::experiment::{Arm, Objective, RunConfig};
use forgetlab_study::run::{Checkpoint, CheckpointStore, Cost, NamedTensor, Progress, RunError};
use serde::{Deserialize, Serialize};

use crate::data::Suite;
use crate::eval::Choices;

use super::TrainError;
use super::journal::Journal;
use super::learner::{Learner, NotFinite, PhaseStart, StepError, TrainingPoint};
use super::look::look;
use super::objective::{self, WeightedBatch};
use super::services::{ArmServices, Counters, Streams};

/// Rows a strategy may replay in a step, at most, in batches of the usual size.
const MAX_REPLAY: usize = 4;

/// What everything in a run shares.
pub(super) struct Shared<'a> {
    pub config: &'a RunConfig,
    pub suite: &'a Suite,
    pub questions: &'a [Choices],
    pub engine: Engine,
    pub journal: Journal,
    pub stop: &'a dyn Fn() -> bool,
}

/// An arm past the first phase.
pub(super) struct ArmRun {
    /// Index in the events.
    pub index: usize,
    arm: Arm,
    pub learner: Learner,
    strategy: StrategyInstance,
    streams: Streams,
    counters: Counters,
    /// Figures reported by the strategy, not yet in the events.
    pub metrics: Vec<(String, f64)>,
}

/// Why an arm ends early, or a call of its strategy did.
#[derive(Debug, thiserror::Error)]
pub(super) enum ArmError {
    #[error(transparent)]
    Strategy(#[from] StrategyError),
    #[error(transparent)]
    NotFinite(#[from] NotFinite),
    #[error("strategy `{strategy}`: {what}")]
    Unsupported { strategy: String, what: String },
    /// The device failed, which is not the arm's fault: the run ends, and can be resumed.
    #[error(transparent)]
    Device(#[from] EngineError),
    /// The run is being stopped and the strategy gave up; the arm stays what it was.
    #[error("the run is being stopped")]
    Cancelled,
}

impl ArmError {
    /// Why a call of the strategy failed; where the device failed in it, that is why.
    fn from_strategy(error: StrategyError, device: Option<EngineError>) -> Self {
        match (error, device) {
            (_, Some(error)) => Self::Device(error),
            (StrategyError::Cancelled { .. }, _) => Self::Cancelled,
            (error, _) => Self::Strategy(error),
        }
    }
}

impl From<StepError> for ArmError {
    fn from(error: StepError) -> Self {
        match error {
            StepError::NotFinite(error) => Self::NotFinite(error),
            StepError::Engine(error) => Self::Device(error),
        }
    }
}

/// The arm's part of a checkpoint's JSON.
#[derive(Serialize, Deserialize)]
struct Saved {
    #[serde(rename = "place")]
    point: TrainingPoint,
    cost: Cost,
    counters: Counters,
}

/// Calls a method of the strategy with services borrowed from the arm's other fields.
macro_rules! with_services {
    ($self:ident, $shared:ident, $new_batch:expr, |$strategy:ident, $services:ident| $call:expr) => {{
        let phase = $self.learner.point.phase;
        let log = $shared.journal.log_of($self.index);
        let mut services = ArmServices {
            engine: &mut $shared.engine,
            suite: $shared.suite,
            student: &$self.learner.student,
            reference: &$self.learner.reference,
            phase,
            new_batch: $new_batch,
            streams: &$self.streams,
            counters: &mut $self.counters,
            tokens_generated: &mut $self.learner.cost.tokens_generated,
            metrics: &mut $self.metrics,
            log: &log,
            lines: 0,
            stop: $shared.stop,
            failed: None,
        };
        let ($strategy, $services) = (&mut $self.strategy, &mut services);
        let done = $call;
        done.map_err(|error| ArmError::from_strategy(error, services.failed))
    }};
}

impl ArmRun {
    /// An arm at the end of a phase, its strategy fresh.
    pub(super) fn new(
        index: usize,
        arm: &Arm,
        plugin: &Arc<Plugin>,
        options: InstanceOptions,
        mut learner: Learner,
        shared: &mut Shared,
    ) -> Result<Self, ArmError> {
        let settings = settings_json(arm);
        let streams = Streams::new(arm.info.seed, &arm.info.slug);
        let mut counters = Counters::default();
        let mut metrics = Vec::new();
        let log = shared.journal.log_of(index);
        let mut services = ArmServices {
            engine: &mut shared.engine,
            suite: shared.suite,
            student: &learner.student,
            reference: &learner.reference,
            phase: learner.point.phase,
            new_batch: None,
            streams: &streams,
            counters: &mut counters,
            tokens_generated: &mut learner.cost.tokens_generated,
            metrics: &mut metrics,
            log: &log,
            lines: 0,
            stop: shared.stop,
            failed: None,
        };
        let strategy = plugin
            .instantiate(&settings, options, &mut services)
            .map_err(|error| ArmError::from_strategy(error, services.failed))?;
        Ok(Self {
            index,
            arm: arm.clone(),
            learner,
            strategy,
            streams,
            counters,
            metrics,
        })
    }

    /// Takes the arm back to a checkpoint of its own.
    pub(super) fn restore(
        index: usize,
        arm: &Arm,
        plugin: &Arc<Plugin>,
        options: InstanceOptions,
        (checkpoint, start): (&Checkpoint, Option<PhaseStart>),
        shared: &mut Shared,
    ) -> Result<Result<Self, ArmError>, TrainError> {
        let saved: Saved = checkpoint.state()?;
        let (config, point) = (shared.config, saved.point);
        let learner = Learner::restore(
            config,
            &shared.engine,
            checkpoint,
            arm.info.seed,
            start,
            point,
            saved.cost,
        )?;
        let state = checkpoint.bytes("strategy")?;
        let restored =
            Self::new(index, arm, plugin, options, learner, shared).and_then(|mut run| {
                let phase = run.phase_context(shared);
                with_services!(run, shared, None, |strategy, services| strategy.load(
                    &state,
                    Some(&phase),
                    services
                ))?;
                // An uninterrupted arm does not load: what that may have drawn does not count.
                run.counters = saved.counters;
                run.learner.cost = saved.cost;
                run.metrics.clear();
                Ok(run)
            });
        Ok(restored)
    }

    /// Begins the next phase.
    pub(super) fn start_next_phase(&mut self, shared: &mut Shared) -> Result<(), ArmError> {
        self.learner
            .start_next_phase(shared.config, &shared.engine)?;
        let phase = self.phase_context(shared);
        let start = Instant::now();
        let done = with_services!(self, shared, None, |strategy, services| strategy
            .phase_started(&phase, services));
        self.learner.cost.seconds_generate += start.elapsed().as_secs_f64();
        done
    }

    /// One optimizer step.
    pub(super) fn step(&mut self, shared: &mut Shared) -> Result<Progress, ArmError> {
        let (config, suite) = (shared.config, shared.suite);
        let before = self.learner.point.step;
        let start = Instant::now();
        let new = self.learner.new_batch(config, suite, self.arm.info.seed);
        let drawn = start.elapsed().as_secs_f64();
        let replay = if self.replaces_nothing(shared) {
            None
        } else {
            with_services!(self, shared, Some(&new), |strategy, services| strategy
                .next_batch(before, services))?
        };
        self.learner.cost.seconds_new += drawn;
        self.learner.cost.seconds_generate += start.elapsed().as_secs_f64() - drawn;

        if let Some(replay) = &replay {
            look(shared, self.index, &mut self.learner, replay)?;
        }
        let weighted = objective::batches(&self.arm.spec, new, replay.as_ref(), suite.reduction());
        let weighted = weighted.map_err(|what| ArmError::Unsupported {
            strategy: self.arm.info.strategy.clone(),
            what,
        })?;
        let batches: Vec<_> = weighted.iter().map(WeightedBatch::as_batch).collect();
        let tokens = weighted.iter().map(|batch| batch.own_tokens).sum();
        let lr = self.arm.info.lr;
        let step = self
            .learner
            .step(config, &mut shared.engine, &batches, tokens, lr)?;

        let rows = &step.report.rows;
        let (new_row_losses, new_loss) = weighted[0].means(&rows[0], false);
        let replayed = weighted.get(1).map(|replay| replay.means(&rows[1], true));
        let (replay_row_losses, replay_loss) = replayed.unzip();
        let metrics = StepMetrics {
            step: before,
            new_loss,
            replay_loss,
            grad_norm: step.grad_norm,
            learning_rate: step.lr,
            new_row_losses,
            replay_row_losses: replay_row_losses.unwrap_or_default(),
        };
        let progress = Progress {
            ntp: metrics.new_loss,
            replay: metrics.replay_loss,
            grad_norm: step.grad_norm,
            tokens_per_second: 0.0,
        };
        with_services!(self, shared, None, |strategy, services| strategy
            .observe(&metrics, services))?;
        Ok(progress)
    }

    /// `replace` with a share of 0, where sweeps begin: there is no room for a batch.
    fn replaces_nothing(&self, shared: &Shared) -> bool {
        let (spec, config) = (&self.arm.spec, shared.config);
        let (new, replay) = (config.training.batch_size, config.replay.batch_size);
        spec.objective == Some(Objective::Replace) && objective::replay_rows(spec, new, replay) == 0
    }

    /// Writes a checkpoint; the path of its JSON inside the store.
    pub(super) fn save(
        &mut self,
        store: &CheckpointStore,
    ) -> Result<Result<std::path::PathBuf, RunError>, ArmError> {
        let state = self.strategy.save();
        let state = state.map_err(|error| ArmError::from_strategy(error, None))?;
        let saved = Saved {
            point: self.learner.point,
            cost: self.learner.cost,
            counters: self.counters,
        };
        let TrainingPoint { step, phase, .. } = self.learner.point;
        let json = serde_json::json!(saved);
        let tensors = self.learner.checkpoint_tensors()?;
        let mut tensors = tensors.tensors();
        tensors.push(NamedTensor::bytes("strategy", &state));
        Ok(store.save(step, phase, &tensors, json))
    }

    fn phase_context(&self, shared: &Shared) -> PhaseContext {
        let (config, suite) = (shared.config, shared.suite);
        let TrainingPoint {
            phase, phase_start, ..
        } = self.learner.point;
        let batch_size = config.training.batch_size;
        let replay_rows =
            objective::replay_rows(&self.arm.spec, batch_size, config.replay.batch_size);
        PhaseContext {
            phase,
            phases: config.phases.len(),
            first_step: phase_start,
            steps: config.phases[phase].steps,
            old_tasks: suite
                .old(phase)
                .into_iter()
                .map(|i| suite.task(i))
                .collect(),
            new_task: suite.task(suite.new_dataset(phase)),
            replay_rows,
            max_rows: match self.arm.spec.objective {
                Some(Objective::Replace) => replay_rows,
                _ => MAX_REPLAY * config.replay.batch_size,
            },
            seq_len: suite.seq_len(),
            max_seq_len: suite.seq_len(),
            vocab_size: suite.vocab_size() as u32,
            objective: self.arm.spec.objective,
            coeff: self.arm.spec.coeff,
        }
    }
}

/// The arm's settings as the plugin host takes them.
fn settings_json(arm: &Arm) -> serde_json::Map<String, serde_json::Value> {
    match serde_json::to_value(&arm.spec.settings) {
        Ok(serde_json::Value::Object(map)) => map,
        _ => serde_json::Map::new(),
    }
}
