//! An arm at work: its learner, its strategy, its checkpoints (`turn.rs` takes its steps). The first phase is one
//! without a strategy.

use std::sync::Arc;
use std::time::Instant;

use forgetlab_plugin_host::{Capabilities, PhaseContext};
use forgetlab_study::experiment::{ArmSpec, Objective, RunConfig};
use forgetlab_study::run::{
    Checkpoint, CheckpointStore, Cost, Evaluation, Event, Level, NamedTensor, OutcomesLine,
    RunError, SampleLook, TrainingStretch,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::context::RunContext;
use super::error::ArmError;
use super::journal::Journal;
use super::learner::{Learner, PhaseStart, Resumed, TrainingPoint, named};
use super::objective::{self, ReplayRows};
use super::services::Counters;
use super::settings;
use super::strategy::{ArmSetup, ArmStrategy};

/// The most rows a strategy may replay in a step, in batches of the usual size.
const MAX_REPLAY: usize = 4;

/// An arm at work, or the first phase that several arms share.
pub(super) struct ArmRun {
    /// Indices in the events: of the arm, or of all that share the first phase.
    pub members: Vec<usize>,
    pub spec: ArmSpec,
    /// The run's configuration, with the arm's own settings.
    pub config: RunConfig,
    pub learner: Learner,
    /// None in the first phase.
    pub strategy: Option<ArmStrategy>,
    /// Evaluations of the first phase, which arms yet to start will report.
    pub evaluations: Vec<Evaluation>,
    /// Figures of its training, likewise.
    pub training: Vec<TrainingStretch>,
    /// What its student wrote, likewise.
    pub samples: Vec<SampleLook>,
    store: CheckpointStore,
    saved_at: Instant,
    /// Step of the last checkpoint.
    pub saved_step: Option<u64>,
}

/// Where the first phase stands.
pub(super) struct Start {
    pub learner: Learner,
    pub evaluations: Vec<Evaluation>,
    pub training: Vec<TrainingStretch>,
    pub samples: Vec<SampleLook>,
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
    evaluations: Vec<Evaluation>,
    /// Scores of single rows at these evaluations; entries of older versions have none.
    #[serde(default)]
    outcomes: Vec<OutcomesLine>,
    /// Figures of its training; checkpoints of older versions have none.
    #[serde(default)]
    pub training: Vec<TrainingStretch>,
    /// What its student wrote; without prompts nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub samples: Vec<SampleLook>,
}

impl SavedPhase {
    fn new(run: &ArmRun) -> Self {
        let evaluations = &run.evaluations;
        let scores = evaluations
            .iter()
            .flat_map(|e| e.scores.iter().map(|score| (e.step, score)));
        let lines = scores.filter_map(|(step, score)| {
            Some(score.outcomes.as_ref()?.line(0, step, &score.dataset))
        });
        Self {
            point: run.learner.point,
            cost: run.learner.cost,
            outcomes: lines.collect(),
            evaluations: evaluations.clone(),
            training: run.training.clone(),
            samples: run.samples.clone(),
        }
    }

    /// Its evaluations, with the scores of single rows.
    pub fn evaluations(self) -> Vec<Evaluation> {
        let mut evaluations = self.evaluations;
        for line in &self.outcomes {
            let evaluation = evaluations.iter_mut().find(|e| e.step == line.step);
            let mut scores = evaluation.into_iter().flat_map(|e| &mut e.scores);
            if let Some(score) = scores.find(|score| score.dataset == line.dataset) {
                score.outcomes = line.outcomes().map(Arc::new);
            }
        }
        evaluations
    }
}

impl ArmRun {
    /// The first phase, shared by the arms `members`.
    pub(super) fn first_phase(
        config: &RunConfig,
        members: &[usize],
        Start {
            learner,
            evaluations,
            training,
            samples,
        }: Start,
        store: CheckpointStore,
    ) -> Self {
        Self {
            members: members.to_vec(),
            spec: ArmSpec::plain(),
            config: config.clone(),
            learner,
            strategy: None,
            evaluations,
            training,
            samples,
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
            config: arm.config.clone(),
            learner,
            strategy: Some(strategy),
            evaluations: Vec::new(),
            training: Vec::new(),
            samples: Vec::new(),
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
        // What an arm has for itself begins with the second phase.
        let config = match saved.point.phase {
            0 => context.config,
            _ => &setup.arm.config,
        };
        let learner = Learner::restore(config, &context.engine, resumed)?;
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
    pub(super) fn is_over(&self) -> bool {
        match self.strategy {
            Some(_) => self.learner.is_finished(&self.config),
            None => self.learner.phase_is_over(&self.config),
        }
    }

    /// Begins the next phase: keeps its reference, tells the strategy and the events.
    ///
    /// # Errors
    /// Where the strategy, the device or the disk fails.
    pub(super) fn start_next_phase(&mut self, context: &mut RunContext) -> Result<(), ArmError> {
        self.learner
            .start_next_phase(&self.config, context.suite, &context.engine)?;
        self.tell_adapters(context)?;
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

    /// Tells how much of the model is trained where adapters are.
    fn tell_adapters(&self, context: &RunContext) -> Result<(), RunError> {
        let Some(lora) = settings::lora(&self.config) else {
            return Ok(());
        };
        let (trained, all) = (
            self.learner.student.trained_len(),
            context.engine.layout().len,
        );
        let share = 100.0 * trained as f64 / all as f64;
        let rank = lora.rank;
        let message = format!(
            "trains adapters of rank {rank}: {trained} numbers beside {all} weights ({share:.1} %)"
        );
        for &arm in &self.members {
            context
                .journal
                .log(Level::Info, Some(arm), message.clone())?;
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
    pub(super) fn save(&mut self, journal: &Journal) -> Result<(), ArmError> {
        let TrainingPoint { step, phase, .. } = self.learner.point;
        let nothing = step == 0 && self.strategy.is_some();
        if nothing || self.saved_step == Some(step) {
            return Ok(());
        }
        let mark = journal.sync()?;
        let state = self.strategy.as_mut().map(ArmStrategy::save).transpose()?;
        let json = self.saved();
        let tensors = self.learner.checkpoint_tensors()?;
        let mut tensors = tensors.tensors();
        tensors.extend(
            state
                .iter()
                .map(|state| NamedTensor::bytes("strategy", state)),
        );
        // The first phase brings its evaluations itself, whatever events there are.
        let mark = self.strategy.is_some().then_some(mark);
        let path = self.store.save(step, phase, &tensors, json, mark)?;
        self.store.prune(2)?;
        (self.saved_at, self.saved_step) = (Instant::now(), Some(step));
        if self.strategy.is_some() {
            let arm = self.index();
            let path = journal.path_in_run(&path);
            journal.emit(Event::CheckpointSaved { arm, step, path })?;
        }
        Ok(())
    }

    /// Writes a checkpoint where the phase is over or the last checkpoint is old enough.
    pub(super) fn save_if_due(&mut self, context: &RunContext) -> Result<(), ArmError> {
        let age = self.saved_at.elapsed().as_secs_f64();
        let every = context.config.training.checkpoint_seconds;
        if age >= every || self.learner.phase_is_over(&self.config) {
            self.save(&context.journal)?;
        }
        Ok(())
    }

    /// The JSON of its checkpoint.
    pub(super) fn saved(&self) -> Value {
        match &self.strategy {
            Some(strategy) => json!(SavedArm {
                point: self.learner.point,
                cost: self.learner.cost,
                counters: strategy.counters(),
            }),
            None => json!(SavedPhase::new(self)),
        }
    }

    /// Its checkpoints.
    pub(super) fn store(&self) -> &CheckpointStore {
        &self.store
    }

    /// Rows its strategy is asked for in the coming step; `None` where it is not asked: `replace` may have no room
    /// for a row in a step, and with a share of 0, where sweeps begin, in none.
    pub(super) fn rows_to_ask(&self) -> Option<usize> {
        let rows = self.replay_rows().now;
        (rows > 0 || !self.replaces()).then_some(rows)
    }

    /// Whether replayed rows stand in the place of new ones.
    pub(super) fn replaces(&self) -> bool {
        self.spec.objective == Some(Objective::Replace)
    }

    /// Share of the new rows of the phase that were replaced so far, where some are to be.
    pub(super) fn realised_share(&self) -> Option<f64> {
        let point = self.learner.point;
        let rows = self.config.in_phase(point.phase).batch_size as u64;
        let all = (point.step - point.phase_start) * rows;
        let counts = self.replaces() && self.strategy.is_some() && all > 0;
        counts.then(|| point.replaced as f64 / all as f64)
    }

    /// Whether a model writes what its strategy replays; `None` where that is not known: the strategy needs both old data
    /// and generation, or neither.
    pub(super) fn generates(&self) -> Option<bool> {
        let needs = self.strategy.as_ref()?.capabilities;
        let generation = needs.contains(Capabilities::GENERATION);
        (generation != needs.contains(Capabilities::OLD_DATA)).then_some(generation)
    }

    fn replay_rows(&self) -> ReplayRows {
        let TrainingPoint {
            phase,
            phase_start,
            step,
            ..
        } = self.learner.point;
        let new = self.config.in_phase(phase).batch_size;
        objective::replay_rows(&self.spec, &self.config.replay, new, step - phase_start)
    }

    fn phase_context(&self, context: &RunContext) -> PhaseContext {
        let (config, suite) = (&self.config, context.suite);
        let TrainingPoint {
            phase, phase_start, ..
        } = self.learner.point;
        let replay_rows = self.replay_rows().most;
        let old = suite.old(phase).into_iter();
        PhaseContext {
            phase,
            phases: config.phases.len(),
            first_step: phase_start,
            steps: config.in_phase(phase).steps,
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
