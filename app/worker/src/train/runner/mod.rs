//! Takes a run directory to its end.

mod begin;

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::{Arc, Weak};
use std::time::Instant;

use forgetlab_engine::{Engine, Weights, human_bytes};
use forgetlab_plugin_host::Plugin;
use forgetlab_study::experiment::{Arm, RunConfig, expand};
use forgetlab_study::run::{
    ArmStatus, CheckpointStore, Event, Level as LogLevel, PhaseCache, PhaseInfo, Progress, RunDir,
    RunError, RunLock,
};

use crate::data::Suite;
use crate::eval::questions;

use super::arm::{ArmError, ArmRun, Shared};
use super::journal::{Journal, Listener};
use super::pace::Pace;
use super::prepare::{NUMERICS, demand_here};
use super::{TrainError, learner, settings};

/// What a worker is to do.
pub struct RunOptions<'a> {
    /// The run's directory, its `config.toml` written.
    pub dir: &'a RunDir,
    /// The lock of that directory.
    pub lock: &'a RunLock,
    /// The run's configuration, checked by [`super::prepare`].
    pub config: &'a RunConfig,
    /// The strategy of each arm of the configuration, from [`super::prepare`].
    pub plugins: &'a [Arc<Plugin>],
    /// Cache of first phases, where it is to be used.
    pub cache: Option<&'a PhaseCache>,
    /// Arms, by name or slug, that are left out from now on.
    pub skip_arms: &'a [String],
    /// Worth telling before anything is trained.
    pub warnings: Vec<String>,
    /// Device in words.
    pub device: String,
    /// Asked before every step; gives the reason when the run is to stop.
    pub stop: &'a dyn Fn() -> Option<String>,
    /// Shown every event.
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

/// How one arm's turn ended.
enum Turn {
    /// At an evaluation; there are more.
    Paused,
    /// At its last step.
    Finished,
    /// The run is to stop. The arm can be saved as it is, or went back to its last checkpoint.
    Stopped { savable: bool },
    /// The arm is over before its time.
    Failed(ArmError),
}

/// An arm at work, and when it was last saved.
struct Active {
    run: ArmRun,
    store: CheckpointStore,
    saved_at: Instant,
    /// Step of the last checkpoint.
    saved_step: Option<u64>,
}

struct Runner<'a> {
    dir: &'a RunDir,
    arms: Vec<Arm>,
    /// Strategy of each arm.
    plugins: Vec<Arc<Plugin>>,
    shared: Shared<'a>,
    journal: Journal,
    /// Arms in memory at a time, at most.
    most_active: usize,
    /// References of the phase after the first, by who shares them.
    references: HashMap<u64, Weak<Weights>>,
}

/// Trains every arm of a run from where it stands to its end, or until it is to stop.
///
/// # Errors
/// [`TrainError`] where the run as a whole cannot go on, such as a full disk; what was saved stays
/// and the run can be resumed.
pub fn run(options: RunOptions) -> Result<Outcome, TrainError> {
    let RunOptions {
        dir,
        lock,
        config,
        stop,
        ..
    } = options;
    let suite = Suite::new(config)?;
    let questions = questions(&suite)?;
    let mut engine = Engine::new(settings::model(config, &suite), &settings::hardware(config))?;
    engine.set_batching(settings::batching(config));
    let arms = expand(config);
    let plugins = arms
        .iter()
        .enumerate()
        .map(|(i, _)| options.plugins[i % options.plugins.len()].clone());
    let plugins = plugins.collect();
    let phases: Vec<PhaseInfo> = config
        .phases
        .iter()
        .map(|p| PhaseInfo {
            dataset: p.dataset.clone(),
            steps: p.steps,
        })
        .collect();
    // The writer first: it may complete a last line that lacks only its end.
    let writer = dir.writer(lock)?;
    let state = dir.load_state()?;
    let resumed = !state.arms.is_empty();
    if resumed {
        let before = state.arms.iter().map(|arm| &arm.info);
        if !arms.iter().map(|arm| &arm.info).eq(before) {
            return Err(TrainError::Changed { what: "its arms" });
        }
        if phases != state.phases {
            return Err(TrainError::Changed { what: "its phases" });
        }
    }
    let journal = Journal::new(writer, state, options.listener);
    let stop_now = || stop().is_some();
    let demand = demand_here(config, &suite, options.plugins);
    let shared = Shared {
        config,
        suite: &suite,
        questions: &questions,
        engine,
        journal: journal.clone(),
        stop: &stop_now,
    };
    let mut runner = Runner {
        dir,
        arms,
        plugins,
        shared,
        journal,
        most_active: demand.learners,
        references: HashMap::new(),
    };
    // Other bits come from other versions, instruction sets and GPUs.
    let numerics = format!("{NUMERICS}, {}", options.device);
    runner.announce(resumed, phases, options.device, options.warnings)?;
    let mut memory = format!("memory: about {}", human_bytes(demand.memory().total()));
    if demand.learners < runner.arms.len() {
        let _ = write!(
            memory,
            "; {} of the {} arms at a time",
            demand.learners,
            runner.arms.len()
        );
    }
    runner.journal.log(LogLevel::Info, None, memory)?;
    runner.skip(options.skip_arms)?;

    let mut active = Vec::new();
    loop {
        if !runner.gather(&mut active, options.cache, &numerics)? {
            return runner.interrupted(stop);
        }
        if active.is_empty() {
            break;
        }
        let mut i = 0;
        while i < active.len() {
            match runner.turn(&mut active[i])? {
                Turn::Paused => i += 1,
                Turn::Finished => {
                    let Active { run, store, .. } = active.remove(i);
                    let (arm, step) = (run.index, run.learner.point.step);
                    runner.journal.emit(Event::ArmFinished { arm, step })?;
                    store.prune(1)?;
                }
                Turn::Failed(error) => {
                    let run = active.remove(i).run;
                    runner.fail(run.index, run.learner.point.step, &error)?;
                }
                Turn::Stopped { savable } => {
                    if !savable {
                        let from = active[i].saved_step.map_or_else(
                            || "the end of the first phase".into(),
                            |step| format!("its checkpoint at step {step}"),
                        );
                        let message =
                            format!("its strategy gave up the call under way; resumes from {from}");
                        let arm = Some(active[i].run.index);
                        runner.journal.log(LogLevel::Info, arm, message)?;
                    }
                    for (j, active) in active.iter_mut().enumerate() {
                        if (j != i || savable)
                            && let Err(error) = runner.save(active)?
                        {
                            let message =
                                format!("not saved, resumes from its last checkpoint: {error}");
                            runner
                                .journal
                                .log(LogLevel::Warn, Some(active.run.index), message)?;
                        }
                    }
                    return runner.interrupted(stop);
                }
            }
        }
    }
    runner.journal.emit(Event::RunFinished {})?;
    runner.journal.sync()?;
    let failed = runner.journal.state(|state| {
        state
            .arms
            .iter()
            .filter(|arm| arm.status != ArmStatus::Finished)
            .count()
    });
    Ok(Outcome::Finished { failed })
}

impl Runner<'_> {
    fn announce(
        &self,
        resumed: bool,
        phases: Vec<PhaseInfo>,
        device: String,
        warnings: Vec<String>,
    ) -> Result<(), RunError> {
        let config = self.shared.config;
        if !resumed {
            self.journal.emit(Event::RunStarted {
                experiment: config.experiment.clone(),
                preset: config.preset.clone(),
                arms: self.arms.iter().map(|arm| arm.info.clone()).collect(),
                phases,
            })?;
        }
        self.journal.emit(Event::WorkerStarted {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").into(),
            device,
            resumed,
        })?;
        for warning in warnings {
            self.journal.log(LogLevel::Warn, None, warning)?;
        }
        Ok(())
    }

    fn interrupted(&self, stop: &dyn Fn() -> Option<String>) -> Result<Outcome, TrainError> {
        let reason = stop().unwrap_or_else(|| "asked to stop".into());
        self.journal.emit(Event::Interrupted {
            reason: reason.clone(),
        })?;
        self.journal.sync()?;
        Ok(Outcome::Interrupted(reason))
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
                    let step = self.journal.state(|s| s.arms[arm].step);
                    let reason = "left out with --skip-arm".into();
                    self.journal.emit(Event::ArmSkipped { arm, step, reason })?;
                }
            }
        }
        Ok(())
    }

    fn is_over(&self, arm: usize) -> bool {
        self.journal.state(|state| {
            let status = &state.arms[arm].status;
            !matches!(status, ArmStatus::Waiting | ArmStatus::Running)
        })
    }

    fn fail(&self, arm: usize, step: u64, error: &dyn std::fmt::Display) -> Result<(), RunError> {
        self.journal.emit(Event::ArmFailed {
            arm,
            step,
            reason: error.to_string(),
        })
    }

    /// Trains an arm to its next evaluation.
    fn turn(&mut self, active: &mut Active) -> Result<Turn, TrainError> {
        let config = self.shared.config;
        let arm = active.run.index;
        if active.run.learner.is_finished(config) {
            return Ok(Turn::Finished);
        }
        if active.run.learner.phase_is_over(config) {
            if (self.shared.stop)() {
                return Ok(Turn::Stopped { savable: true });
            }
            if let Err(error) = self.start_phase(active)? {
                return self.ended(error);
            }
        }
        let mut pace = Pace::new();
        for _ in 0..active.run.learner.steps_to_evaluation(config) {
            if (self.shared.stop)() {
                return Ok(Turn::Stopped { savable: true });
            }
            let stepped = active.run.step(&mut self.shared);
            self.tell(&mut active.run)?;
            let progress = match stepped {
                Ok(progress) => progress,
                Err(error) => return self.ended(error),
            };
            let learner = &active.run.learner;
            if let Some(tokens_per_second) = pace.due(learner.cost.tokens_trained) {
                let progress = Progress {
                    tokens_per_second,
                    ..progress
                };
                self.journal
                    .emit(progress.event(arm, learner.point.phase, learner.point.step))?;
            }
        }
        let learner = &mut active.run.learner;
        let Shared {
            suite,
            questions,
            engine,
            ..
        } = &mut self.shared;
        let scores = learner.evaluate(config, suite, questions, engine)?;
        let (point, cost) = (active.run.learner.point, active.run.learner.cost);
        self.journal.emit(Event::Evaluated {
            arm,
            phase: point.phase,
            step: point.step,
            cost,
            scores,
        })?;
        let due = active.saved_at.elapsed().as_secs_f64() >= config.training.checkpoint_seconds;
        if (due || active.run.learner.phase_is_over(config))
            && let Err(error) = self.save(active)?
        {
            return self.ended(error);
        }
        Ok(match active.run.learner.is_finished(config) {
            true => Turn::Finished,
            false => Turn::Paused,
        })
    }

    fn ended(&self, error: ArmError) -> Result<Turn, TrainError> {
        match error {
            ArmError::Cancelled => Ok(Turn::Stopped { savable: false }),
            ArmError::Device(error) => Err(error.into()),
            error => Ok(Turn::Failed(error)),
        }
    }

    fn start_phase(&mut self, active: &mut Active) -> Result<Result<(), ArmError>, TrainError> {
        let started = active.run.start_next_phase(&mut self.shared);
        self.tell(&mut active.run)?;
        if let Err(error) = started {
            return Ok(Err(error));
        }
        let point = active.run.learner.point;
        // A pretrained model is kept where it came from.
        if point.phase > 1 || !self.is_untouched() {
            let reference = active.run.learner.reference.download()?;
            active.store.save_reference(
                point.phase,
                point.step,
                &learner::named("reference", &reference),
            )?;
        }
        // The two checkpoints kept are of the phase before, or the end of the one before that.
        if let Some(spent) = point.phase.checked_sub(2) {
            active.store.remove_reference(spent)?;
        }
        let (arm, phase, step) = (active.run.index, point.phase, point.step);
        self.journal
            .emit(Event::PhaseStarted { arm, phase, step })?;
        Ok(Ok(()))
    }

    /// Puts the figures the strategy reported into the events.
    fn tell(&self, run: &mut ArmRun) -> Result<(), RunError> {
        let (arm, step) = (run.index, run.learner.point.step);
        for (name, value) in run.metrics.drain(..) {
            self.journal.emit(Event::PluginMetric {
                arm,
                step,
                name,
                value,
            })?;
        }
        Ok(())
    }

    /// Writes a checkpoint, unless the last one is of this very step.
    fn save(&self, active: &mut Active) -> Result<Result<(), ArmError>, TrainError> {
        let (arm, point) = (active.run.index, active.run.learner.point);
        if active.saved_step == Some(point.step) || point.step == 0 {
            return Ok(Ok(()));
        }
        self.journal.sync()?;
        let path = match active.run.save(&active.store) {
            Ok(path) => path?,
            Err(error) => return Ok(Err(error)),
        };
        active.store.prune(2)?;
        (active.saved_at, active.saved_step) = (Instant::now(), Some(point.step));
        let inside = path.strip_prefix(self.dir.path()).unwrap_or(&path);
        let path = inside.display().to_string();
        self.journal.emit(Event::CheckpointSaved {
            arm,
            step: point.step,
            path,
        })?;
        Ok(Ok(()))
    }
}
