//! Takes a run directory to its end: arms take turns, one evaluation interval each.

use std::collections::HashMap;
use std::fmt::{Display, Write};
use std::sync::{Arc, Weak};

use forgetlab_engine::{Engine, Weights, human_bytes};
use forgetlab_plugin_host::Plugin;
use forgetlab_study::experiment::{Arm, RunConfig, expand};
use forgetlab_study::run::{
    ArmStatus, Event, Level, PhaseCache, PhaseInfo, RunDir, RunError, RunLock, RunState,
};

use super::arm::ArmRun;
use super::context::RunContext;
use super::error::{ArmError, TrainError};
use super::journal::{Journal, Listener};
use super::prepare::{NUMERICS, Prepared, device_in_words};
use super::settings;
use super::turn::{Turn, turn};

/// A run to be taken to its end, and how.
pub struct RunOptions<'a> {
    /// The run's directory, its `config.toml` written.
    pub dir: &'a RunDir,
    /// The lock of that directory.
    pub lock: &'a RunLock,
    /// The run's configuration, data and strategies, checked.
    pub prepared: &'a Prepared,
    /// Cache of first phases, where it is to be used.
    pub cache: Option<&'a PhaseCache>,
    /// Arms, by name or slug, that are left out from now on.
    pub skip_arms: &'a [String],
    /// Warnings to log before anything is trained.
    pub warnings: Vec<String>,
    /// Asked before every step; gives the reason when the run is to stop.
    pub stop: &'a dyn Fn() -> Option<String>,
    /// Called with every event.
    pub listener: Listener,
}

/// How a worker ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every arm is over; that many of them failed or were skipped.
    Finished {
        /// Arms that did not reach their end.
        failed: usize,
    },
    /// Stopped in good order, with checkpoints.
    Interrupted(String),
}

/// Name of the file that tells which plugin call was under way.
pub const BREADCRUMB: &str = "plugin-call.json";

/// A run at work.
pub(super) struct Runner<'a> {
    pub arms: Vec<Arm>,
    /// Strategy of each arm.
    pub plugins: Vec<Arc<Plugin>>,
    pub context: RunContext<'a>,
    /// Cache of first phases, where it is to be used.
    pub cache: Option<&'a PhaseCache>,
    /// Version of the numerics and device in words: others give other bits.
    pub numerics: String,
    /// The most arms in memory at a time.
    pub most_active: usize,
    /// References of the phase after the first, by [`Runner::reference_key`].
    pub references: HashMap<u64, Weak<Weights>>,
}

/// Trains every arm of a run from where it stands to its end, or until it is to stop.
///
/// # Errors
/// [`TrainError`] where the run as a whole cannot go on, such as a full disk; what was saved stays
/// and the run can be resumed.
pub fn run(options: RunOptions) -> Result<Outcome, TrainError> {
    let Prepared {
        config,
        suite,
        questions,
        plugins,
        demand,
        environment,
    } = options.prepared;
    let mut engine = Engine::new(settings::model(config, suite), &settings::hardware(config))?;
    engine.set_batching(settings::batching(config));
    let arms = expand(config);
    // The writer first: it may complete a last line that lacks only its end.
    let writer = options.dir.writer(options.lock)?;
    let state = options.dir.load_state()?;
    let resumed = !state.arms.is_empty();
    if resumed {
        unchanged(&state, config, &arms)?;
    }
    let stop = || (options.stop)().is_some();
    let device = device_in_words(environment);
    let mut runner = Runner {
        plugins: (0..arms.len())
            .map(|arm| plugins[arm % plugins.len()].clone())
            .collect(),
        arms,
        context: RunContext {
            dir: options.dir,
            config,
            suite,
            questions,
            engine,
            journal: Journal::new(writer, state, options.listener),
            stop: &stop,
        },
        cache: options.cache,
        numerics: format!("{NUMERICS}, {device}"),
        most_active: demand.learners,
        references: HashMap::new(),
    };
    runner.announce(resumed, device, options.warnings)?;
    let mut memory = format!("memory: about {}", human_bytes(demand.memory().total()));
    if demand.learners < runner.arms.len() {
        let _ = write!(
            memory,
            "; {} of the {} arms at a time",
            demand.learners,
            runner.arms.len()
        );
    }
    runner.context.journal.log(Level::Info, None, memory)?;
    runner.skip(options.skip_arms)?;
    match runner.take_turns()? {
        true => runner.finished(),
        false => runner.interrupted((options.stop)()),
    }
}

/// Refuses a configuration whose arms or phases are not those of the events.
fn unchanged(state: &RunState, config: &RunConfig, arms: &[Arm]) -> Result<(), TrainError> {
    let before = state.arms.iter().map(|arm| &arm.info);
    if !arms.iter().map(|arm| &arm.info).eq(before) {
        return Err(TrainError::Changed { what: "its arms" });
    }
    if phases(config) != state.phases {
        return Err(TrainError::Changed { what: "its phases" });
    }
    Ok(())
}

fn phases(config: &RunConfig) -> Vec<PhaseInfo> {
    let phases = config.phases.iter().map(|phase| PhaseInfo {
        dataset: phase.dataset.clone(),
        steps: phase.steps,
    });
    phases.collect()
}

impl Runner<'_> {
    fn announce(
        &self,
        resumed: bool,
        device: String,
        warnings: Vec<String>,
    ) -> Result<(), RunError> {
        let (config, journal) = (self.context.config, &self.context.journal);
        if !resumed {
            journal.emit(Event::RunStarted {
                experiment: config.experiment.clone(),
                preset: config.preset.clone(),
                arms: self.arms.iter().map(|arm| arm.info.clone()).collect(),
                phases: phases(config),
            })?;
        }
        journal.emit(Event::WorkerStarted {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").into(),
            device,
            resumed,
        })?;
        for warning in warnings {
            journal.log(Level::Warn, None, warning)?;
        }
        Ok(())
    }

    /// Lets the arms take turns until all are over; `false`: the run is to stop, its arms are saved.
    fn take_turns(&mut self) -> Result<bool, TrainError> {
        let mut active = Vec::new();
        loop {
            if !self.gather(&mut active)? {
                return Ok(false);
            }
            if active.is_empty() {
                return Ok(true);
            }
            let mut i = 0;
            while i < active.len() {
                match turn(&mut self.context, &mut active[i])? {
                    Turn::Paused => i += 1,
                    Turn::Finished => {
                        let run = active.remove(i);
                        let (arm, step) = (run.index(), run.learner.point.step);
                        self.context
                            .journal
                            .emit(Event::ArmFinished { arm, step })?;
                        run.store().prune(1)?;
                    }
                    Turn::Failed(error) => {
                        let run = active.remove(i);
                        self.fail(run.index(), run.learner.point.step, &error)?;
                    }
                    Turn::Stopped { savable } => {
                        let gave_up = (!savable).then_some(i);
                        self.save_all(&mut active, gave_up)?;
                        return Ok(false);
                    }
                }
            }
        }
    }

    /// Writes a checkpoint of every arm, but of one whose strategy gave up the call under way.
    fn save_all(&self, active: &mut [ArmRun], gave_up: Option<usize>) -> Result<(), TrainError> {
        let journal = &self.context.journal;
        if let Some(run) = gave_up.map(|i| &active[i]) {
            let from = run.saved_step.map_or_else(
                || "the end of the first phase".into(),
                |step| format!("its checkpoint at step {step}"),
            );
            let message = format!("its strategy gave up the call under way; resumes from {from}");
            journal.log(Level::Info, Some(run.index()), message)?;
        }
        for (i, run) in active.iter_mut().enumerate() {
            if gave_up == Some(i) {
                continue;
            }
            match run.save(&self.context) {
                Ok(()) => {}
                Err(ArmError::Run(error)) => return Err(error),
                Err(error) => {
                    let message = format!("not saved, resumes from its last checkpoint: {error}");
                    journal.log(Level::Warn, Some(run.index()), message)?;
                }
            }
        }
        Ok(())
    }

    fn interrupted(&self, reason: Option<String>) -> Result<Outcome, TrainError> {
        let reason = reason.unwrap_or_else(|| "asked to stop".into());
        let journal = &self.context.journal;
        journal.emit(Event::Interrupted {
            reason: reason.clone(),
        })?;
        journal.sync()?;
        Ok(Outcome::Interrupted(reason))
    }

    fn finished(&self) -> Result<Outcome, TrainError> {
        let journal = &self.context.journal;
        journal.emit(Event::RunFinished {})?;
        journal.sync()?;
        let failed = journal.state(|state| {
            let mut arms = state.arms.iter().map(|arm| &arm.status);
            arms.by_ref()
                .filter(|status| **status != ArmStatus::Finished)
                .count()
        });
        Ok(Outcome::Finished { failed })
    }

    /// Leaves out the named arms that are not over yet.
    fn skip(&self, names: &[String]) -> Result<(), TrainError> {
        for name in names {
            let named = |arm: &&Arm| arm.info.name == *name || arm.info.slug == *name;
            if !self.arms.iter().any(|arm| named(&arm)) {
                let arms: Vec<&str> = self.arms.iter().map(|a| a.info.name.as_str()).collect();
                return Err(TrainError::NoSuchArm {
                    name: name.clone(),
                    arms: arms.join(", "),
                });
            }
            for (arm, _) in self.arms.iter().enumerate().filter(|(_, arm)| named(arm)) {
                if !self.is_over(arm) {
                    let journal = &self.context.journal;
                    let step = journal.state(|s| s.arms[arm].step);
                    let reason = "left out with --skip-arm".into();
                    journal.emit(Event::ArmSkipped { arm, step, reason })?;
                }
            }
        }
        Ok(())
    }

    /// Whether an arm finished, failed or was skipped.
    pub(super) fn is_over(&self, arm: usize) -> bool {
        self.context
            .journal
            .state(|state| state.arms[arm].status.is_over())
    }

    /// Ends an arm before its time; the others go on.
    pub(super) fn fail(&self, arm: usize, step: u64, error: &dyn Display) -> Result<(), RunError> {
        self.context.journal.emit(Event::ArmFailed {
            arm,
            step,
            reason: error.to_string(),
        })
    }
}
