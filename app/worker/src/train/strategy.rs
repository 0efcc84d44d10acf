//! The strategy of an arm at work: every call of it goes through here, with the services it may ask for.

use std::sync::Arc;

use forgetlab_plugin_host::{
    Capabilities, InstanceOptions, PhaseContext, Plugin, ReplayBatch, StepMetrics, StrategyError,
    StrategyInstance,
};
use forgetlab_study::experiment::Arm;

use crate::data::Batch;

use super::context::RunContext;
use super::error::ArmError;
use super::learner::Learner;
use super::services::{ArmServices, Counters, Streams};

/// An arm and the strategy it is to be run with.
pub(super) struct ArmSetup<'a> {
    /// Index of the arm in the events.
    pub index: usize,
    pub arm: &'a Arm,
    pub plugin: &'a Arc<Plugin>,
    pub options: InstanceOptions,
}

/// An instance of a strategy and what the host keeps for it.
pub(super) struct ArmStrategy {
    instance: StrategyInstance,
    /// What it says it needs.
    pub capabilities: Capabilities,
    state: HostState,
}

/// What the host keeps for a strategy between its calls.
struct HostState {
    /// Index of the arm in the events.
    arm: usize,
    streams: Streams,
    counters: Counters,
    /// Metrics that the strategy reported, not yet in the events.
    reported: Vec<(String, f64)>,
}

impl HostState {
    /// Calls the strategy with services that borrow from the arm and the run.
    fn serve<T>(
        &mut self,
        context: &mut RunContext,
        learner: &mut Learner,
        new_batch: Option<&Batch>,
        call: impl FnOnce(&mut ArmServices) -> Result<T, StrategyError>,
    ) -> Result<T, ArmError> {
        let log = context.journal.log_of(self.arm);
        let mut services = ArmServices {
            engine: &mut context.engine,
            suite: context.suite,
            student: &learner.student,
            reference: &learner.reference,
            phase: learner.point.phase,
            new_batch,
            streams: &self.streams,
            counters: &mut self.counters,
            cost: &mut learner.cost,
            metrics: &mut self.reported,
            log: &log,
            lines: 0,
            stop: context.stop,
            failed: None,
            unwritten: None,
        };
        let answer = call(&mut services);
        if let Some(error) = services.unwritten {
            return Err(error.into());
        }
        answer.map_err(|error| ArmError::from_strategy(error, services.failed))
    }
}

impl ArmStrategy {
    /// A fresh instance for an arm.
    ///
    /// # Errors
    /// Where the strategy refuses its settings or fails.
    pub(super) fn new(
        context: &mut RunContext,
        learner: &mut Learner,
        setup: ArmSetup,
    ) -> Result<Self, ArmError> {
        let ArmSetup {
            index,
            arm,
            plugin,
            options,
        } = setup;
        let settings = settings_json(arm);
        let mut state = HostState {
            arm: index,
            streams: Streams::new(arm.info.seed, &arm.info.slug),
            counters: Counters::default(),
            reported: Vec::new(),
        };
        let instance = state.serve(context, learner, None, |services| {
            plugin.instantiate(&settings, options, services)
        })?;
        Ok(Self {
            instance,
            capabilities: plugin.capabilities,
            state,
        })
    }

    /// Gives the instance the state that a checkpoint holds.
    ///
    /// # Errors
    /// Where the strategy does not take it.
    pub(super) fn load(
        &mut self,
        context: &mut RunContext,
        learner: &mut Learner,
        phase: &PhaseContext,
        state: &[u8],
        counters: Counters,
    ) -> Result<(), ArmError> {
        let instance = &mut self.instance;
        self.state.serve(context, learner, None, |services| {
            instance.load(state, Some(phase), services)
        })?;
        // An uninterrupted arm does not load: what that drew or reported does not count.
        self.state.counters = counters;
        self.state.reported.clear();
        Ok(())
    }

    /// Tells the strategy that a phase begins.
    pub(super) fn phase_started(
        &mut self,
        context: &mut RunContext,
        learner: &mut Learner,
        phase: &PhaseContext,
    ) -> Result<(), ArmError> {
        let instance = &mut self.instance;
        self.state.serve(context, learner, None, |services| {
            instance.phase_started(phase, services)
        })
    }

    /// Asks the strategy for rows to replay in the coming step.
    pub(super) fn next_batch(
        &mut self,
        context: &mut RunContext,
        learner: &mut Learner,
        new: &Batch,
        rows: usize,
    ) -> Result<Option<ReplayBatch>, ArmError> {
        let (instance, step) = (&mut self.instance, learner.point.step);
        self.state.serve(context, learner, Some(new), |services| {
            instance.next_batch_of(step, rows, services)
        })
    }

    /// Shows the strategy the losses of the step that was done.
    pub(super) fn observe(
        &mut self,
        context: &mut RunContext,
        learner: &mut Learner,
        metrics: &StepMetrics,
    ) -> Result<(), ArmError> {
        let instance = &mut self.instance;
        self.state.serve(context, learner, None, |services| {
            instance.observe(metrics, services)
        })
    }

    /// The state of the instance, for a checkpoint.
    pub(super) fn save(&mut self) -> Result<Vec<u8>, ArmError> {
        let saved = self.instance.save();
        saved.map_err(|error| ArmError::from_strategy(error, None))
    }

    /// Places of its random streams, for a checkpoint.
    pub(super) fn counters(&self) -> Counters {
        self.state.counters
    }

    /// Takes the metrics reported since the last call.
    pub(super) fn take_reported(&mut self) -> impl Iterator<Item = (String, f64)> {
        self.state.reported.drain(..)
    }
}

/// The arm's settings as the plugin host takes them.
fn settings_json(arm: &Arm) -> serde_json::Map<String, serde_json::Value> {
    match serde_json::to_value(arm.spec.strategy_settings()) {
        Ok(serde_json::Value::Object(map)) => map,
        _ => serde_json::Map::new(),
    }
}
