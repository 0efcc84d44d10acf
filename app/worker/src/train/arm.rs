//! An arm at work: its learner, its strategy, its checkpoints (`turn.rs` takes its steps). The first phase is one
//! without a strategy.

use std::time::Instant;

use forgetlab_plugin_host::PhaseContext;
use forgetlab_study::experiment::{ArmSpec, Objective};
use forgetlab_study::run::{
    Checkpoint, CheckpointStore, Cost, Evaluation, Event, NamedTensor, RunError,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::context::RunContext;
use super::error::ArmError;
use super::learner::{Learner, PhaseStart, Resumed, TrainingPoint, named};
use super::objective;
use super::services::Counters;
use super::strategy::{ArmSetup, ArmStrategy};

/// The most rows a strategy may replay in a step, in batches of the usual size.
const MAX_REPLAY: usize = 4;

/// An arm at work, or the first phase that several arms share.
pub(super) struct ArmRun {
    /// Indices in the events: of the arm, or of all that share the first phase.
    pub members: Vec<usize>,
    pub spec: ArmSpec,
    pub learner: Learner,
    /// None in the first phase.
    pub strategy: Option<ArmStrategy>,
    /// Evaluations of the first phase, which arms yet to start will report.
    pub evaluations: Vec<Evaluation>,
    store: CheckpointStore,
    saved_at: Instant,
    /// Step of the last checkpoint.
    pub saved_step: Option<u64>,
}

/// The JSON of an arm's checkpoint.
#[derive(Serialize, Deserialize)]
struct SavedArm {
    #[serde(rename = "place")]
    point: TrainingPoint,
    cost: Cost,
    counters: Counters,
}

/// The JSON of a checkpoint of the first phase.
#[derive(Serialize, Deserialize)]
pub(super) struct SavedPhase {
    #[serde(rename = "place")]
    pub point: TrainingPoint,
    pub cost: Cost,
    pub evaluations: Vec<Evaluation>,
}

impl ArmRun {
    /// The first phase, shared by the arms `members`.
    pub(super) fn first_phase(
        members: &[usize],
        learner: Learner,
        evaluations: Vec<Evaluation>,
        store: CheckpointStore,
    ) -> Self {
        Self {
            members: members.to_vec(),
            spec: ArmSpec::plain(),
            learner,
            strategy: None,
            evaluations,
            store,
            saved_at: Instant::now(),
            saved_step: None,
        }
    }

    /// An arm at the end of a phase, its strategy fresh.
    ///
    /// # Errors
    /// Where its strategy refuses to start.
    pub(super) fn new(
        context: &mut RunContext,
        setup: ArmSetup,
        mut learner: Learner,
        store: CheckpointStore,
    ) -> Result<Self, ArmError> {
        let (members, arm) = (vec![setup.index], setup.arm);
        let strategy = ArmStrategy::new(context, &mut learner, setup)?;
        Ok(Self {
            members,
            spec: arm.spec.clone(),
            learner,
            strategy: Some(strategy),
            evaluations: Vec::new(),
            store,
            saved_at: Instant::now(),
            saved_step: None,
        })
    }

    /// Takes an arm back from a checkpoint of its own, with what its phase started from.
    ///
    /// # Errors
    /// [`ArmError::Run`] where the checkpoint cannot be used, another where its strategy does not take its
    /// state.
    pub(super) fn restore(
        context: &mut RunContext,
        setup: ArmSetup,
        checkpoint: &Checkpoint,
        start: Option<PhaseStart>,
        store: CheckpointStore,
    ) -> Result<Self, ArmError> {
        let saved: SavedArm = checkpoint.state()?;
        let resumed = Resumed {
            checkpoint,
            seed: setup.arm.info.seed,
            start,
            point: saved.point,
            cost: saved.cost,
        };
        let learner = Learner::restore(context.config, &context.engine, resumed)?;
        let state = checkpoint.bytes("strategy")?;
        let mut run = Self::new(context, setup, learner, store)?;
        let phase = run.phase_context(context);
        if let Some(strategy) = &mut run.strategy {
            strategy.load(context, &mut run.learner, &phase, &state, saved.counters)?;
        }
        // An uninterrupted arm does not load: what that cost does not count.
        run.learner.cost = saved.cost;
        run.saved_step = Some(checkpoint.info.step);
        Ok(run)
    }

    /// Index in the events of the arm, or of the first that shares the phase.
    pub(super) fn index(&self) -> usize {
        self.members[0]
    }

    /// Whether it has had all its steps: those of the last phase, or of the first where it is that alone.
    pub(super) fn is_over(&self, context: &RunContext) -> bool {
        match self.strategy {
            Some(_) => self.learner.is_finished(context.config),
            None => self.learner.phase_is_over(context.config),
        }
    }

    /// Begins the next phase: keeps its reference, tells the strategy and the events.
    ///
    /// # Errors
    /// Where the strategy, the device or the disk fails.
    pub(super) fn start_next_phase(&mut self, context: &mut RunContext) -> Result<(), ArmError> {
        self.learner
            .start_next_phase(context.config, &context.engine)?;
        let phase = self.phase_context(context);
        if let Some(strategy) = &mut self.strategy {
            let start = Instant::now();
            let started = strategy.phase_started(context, &mut self.learner, &phase);
            self.learner.cost.seconds_generate += start.elapsed().as_secs_f64();
            self.report_metrics(context)?;
            started?;
        }
        let TrainingPoint { phase, step, .. } = self.learner.point;
        // A pretrained model is kept where it came from.
        if phase > 1 || !context.is_untouched() {
            let reference = self.learner.reference.download()?;
            let tensors = named("reference", &reference);
            self.store.save_reference(phase, step, &tensors)?;
        }
        // The two checkpoints kept are of the phase before, or the end of the one before that.
        if let Some(spent) = phase.checked_sub(2) {
            self.store.remove_reference(spent)?;
        }
        for &arm in &self.members {
            context
                .journal
                .emit(Event::PhaseStarted { arm, phase, step })?;
        }
        Ok(())
    }

    /// Puts the metrics that the strategy reported into the events.
    pub(super) fn report_metrics(&mut self, context: &RunContext) -> Result<(), RunError> {
        let (arm, step) = (self.index(), self.learner.point.step);
        let reported = self
            .strategy
            .iter_mut()
            .flat_map(ArmStrategy::take_reported);
        for (name, value) in reported {
            context.journal.emit(Event::PluginMetric {
                arm,
                step,
                name,
                value,
            })?;
        }
        Ok(())
    }

    /// Writes a checkpoint, unless the last one is of this very step.
    ///
    /// # Errors
    /// Where the strategy does not save its state, or the disk fails.
    pub(super) fn save(&mut self, context: &RunContext) -> Result<(), ArmError> {
        let TrainingPoint { step, phase, .. } = self.learner.point;
        let nothing = step == 0 && self.strategy.is_some();
        if nothing || self.saved_step == Some(step) {
            return Ok(());
        }
        context.journal.sync()?;
        let state = self.strategy.as_mut().map(ArmStrategy::save).transpose()?;
        let json = self.saved();
        let tensors = self.learner.checkpoint_tensors()?;
        let mut tensors = tensors.tensors();
        tensors.extend(
            state
                .iter()
                .map(|state| NamedTensor::bytes("strategy", state)),
        );
        let path = self.store.save(step, phase, &tensors, json)?;
        self.store.prune(2)?;
        (self.saved_at, self.saved_step) = (Instant::now(), Some(step));
        if self.strategy.is_some() {
            let arm = self.index();
            let path = context.path_in_run(&path);
            context
                .journal
                .emit(Event::CheckpointSaved { arm, step, path })?;
        }
        Ok(())
    }

    /// Writes a checkpoint where the phase is over or the last checkpoint is old enough.
    pub(super) fn save_if_due(&mut self, context: &RunContext) -> Result<(), ArmError> {
        let config = context.config;
        let age = self.saved_at.elapsed().as_secs_f64();
        if age >= config.training.checkpoint_seconds || self.learner.phase_is_over(config) {
            self.save(context)?;
        }
        Ok(())
    }

    /// The JSON of its checkpoint.
    pub(super) fn saved(&self) -> Value {
        let (point, cost) = (self.learner.point, self.learner.cost);
        match &self.strategy {
            Some(strategy) => json!(SavedArm {
                point,
                cost,
                counters: strategy.counters(),
            }),
            None => json!(SavedPhase {
                point,
                cost,
                evaluations: self.evaluations.clone(),
            }),
        }
    }

    /// Its checkpoints.
    pub(super) fn store(&self) -> &CheckpointStore {
        &self.store
    }

    /// Whether its strategy is not asked at all: `replace` with a share of 0, where sweeps begin, has no
    /// room for a batch.
    pub(super) fn replaces_nothing(&self, context: &RunContext) -> bool {
        self.spec.objective == Some(Objective::Replace) && self.replay_rows(context) == 0
    }

    fn replay_rows(&self, context: &RunContext) -> usize {
        let config = context.config;
        let (new, replay) = (config.training.batch_size, config.replay.batch_size);
        objective::replay_rows(&self.spec, new, replay)
    }

    fn phase_context(&self, context: &RunContext) -> PhaseContext {
        let (config, suite) = (context.config, context.suite);
        let TrainingPoint {
            phase, phase_start, ..
        } = self.learner.point;
        let replay_rows = self.replay_rows(context);
        let old = suite.old(phase).into_iter();
        PhaseContext {
            phase,
            phases: config.phases.len(),
            first_step: phase_start,
            steps: config.phases[phase].steps,
            old_tasks: old.map(|i| suite.task(i)).collect(),
            new_task: suite.task(suite.new_dataset(phase)),
            replay_rows,
            max_rows: match self.spec.objective {
                Some(Objective::Replace) => replay_rows,
                _ => MAX_REPLAY * config.replay.batch_size,
            },
            seq_len: suite.seq_len(),
            max_seq_len: suite.seq_len(),
            vocab_size: suite.vocab_size() as u32,
            objective: self.spec.objective,
            coeff: self.spec.coeff,
        }
    }
}
