//! Takes a run directory to its end: arms take turns, one evaluation interval each.

use std::collections::HashMap;
use std::fmt::{Display, Write};
use std::sync::{Arc, OnceLock, Weak};

use forgetlab_engine::{Engine, Weights, human_bytes};
use forgetlab_plugin_host::Plugin;
use forgetlab_plugin_host::breadcrumb::Breadcrumbs;
use forgetlab_study::experiment::{
    Arm, ArmInfo, ArmSpec, Difference, RunConfig, differences, expand,
};
use forgetlab_study::run::{
    ArmStatus, Event, Level, Opened, PhaseCache, PhaseInfo, RunDir, RunError, RunLock, RunState,
};
use serde_json::Value;

use super::arm::ArmRun;
use super::context::RunContext;
use super::error::{ArmError, TrainError};
use super::hang::{EndProcess, Hang, Stop};
use super::journal::{Journal, Listener};
use super::prepare::{Prepared, device_in_words, numerics_in_words};
use super::settings;
use super::turn::{Turn, turn};
use super::waiting::Waiting;

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
    /// Asked before every step, and while a strategy is late.
    pub stop: Stop,
    /// Called where the run is to stop and a strategy does not return.
    pub end_process: EndProcess,
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
    /// Arms in memory, but for the one at its turn.
    pub waiting: Waiting,
    /// What late calls of strategies lead to.
    pub hang: Arc<Hang>,
    /// Where calls of strategies are noted, if they can be.
    pub breadcrumbs: Option<Breadcrumbs>,
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
        ..
    } = options.prepared;
    let mut engine = Engine::new(settings::model(config, suite), &settings::hardware(config))?;
    engine.set_batching(settings::batching(config));
    let mut arms = expand(config);
    options.dir.remove_leftovers(options.lock);
    let Opened { writer, state, .. } = options.dir.writer(options.lock)?;
    let resumed = !state.arms.is_empty();
    let mut warnings = options.warnings;
    if resumed {
        warnings.extend(unchanged(&state, config, &mut arms)?);
    }
    let breadcrumbs = breadcrumbs(options.dir, &mut warnings)?;
    let stop = || (options.stop)().is_some();
    let journal = Journal::new(options.dir.path(), writer, state, options.listener);
    let waiting = Waiting::default();
    let hang = Hang {
        journal: journal.clone(),
        waiting: waiting.elsewhere(),
        stop: options.stop.clone(),
        end_process: options.end_process,
        held_up: OnceLock::new(),
        given_up_for: OnceLock::new(),
    };
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
            journal,
            stop: &stop,
        },
        cache: options.cache,
        numerics: numerics_in_words(environment),
        most_active: demand.learners,
        waiting,
        hang: Arc::new(hang),
        breadcrumbs,
        references: HashMap::new(),
    };
    // Before anything is written.
    let skipped = runner.named(options.skip_arms)?;
    runner.announce(resumed, device, warnings)?;
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
    for losses in runner.context.suite.losses() {
        runner.context.journal.log(Level::Info, None, losses)?;
    }
    runner.skip(&skipped)?;
    runner.load_strategies();
    match runner.take_turns()? {
        true => runner.finished(),
        false => runner.interrupted((options.stop)()),
    }
}

/// The file that notes calls of strategies; where there can be none, that is worth a warning, unless it is a sign that
/// other files will not open either.
fn breadcrumbs(dir: &RunDir, warnings: &mut Vec<String>) -> Result<Option<Breadcrumbs>, RunError> {
    let path = dir.join(BREADCRUMB);
    match Breadcrumbs::open(&path).map_err(RunError::io("write", &path)) {
        Ok(breadcrumbs) => Ok(Some(breadcrumbs)),
        Err(error) if error.lacks_descriptors() => Err(error),
        Err(error) => {
            warnings.push(format!(
                "a strategy that ends the process will not be named: {error}"
            ));
            Ok(None)
        }
    }
}

/// Refuses a configuration that is not the one the run was started with; what decides no numbers may differ, and is
/// told in words. Gives the arms the names that the events have.
fn unchanged(
    state: &RunState,
    config: &RunConfig,
    arms: &mut [Arm],
) -> Result<Option<String>, TrainError> {
    let changes = match &state.config {
        Some(before) => differences(before, &as_json(config)),
        None => Vec::new(),
    };
    let (refused, told): (Vec<_>, Vec<_>) =
        changes.iter().partition(|change| change.decides_numbers);
    let words = |changes: &[&Difference]| {
        let words = changes.iter().map(|change| {
            let value = |value: &str| {
                if value.is_empty() {
                    "not set".into()
                } else {
                    value.to_owned()
                }
            };
            format!(
                "{} was {}, is {}",
                change.key,
                value(&change.first),
                value(&change.second)
            )
        });
        words.collect::<Vec<_>>().join("; ")
    };
    if !refused.is_empty() {
        return Err(TrainError::Changed {
            what: words(&refused),
        });
    }
    let same = |arm: &Arm, before: &ArmInfo| {
        let now = &arm.info;
        (&now.strategy, &now.objective, now.coeff, now.lr, now.seed)
            == (
                &before.strategy,
                &before.objective,
                before.coeff,
                before.lr,
                before.seed,
            )
    };
    let before = || state.arms.iter().map(|arm| &arm.info);
    if arms.len() != state.arms.len()
        || !arms.iter().zip(before()).all(|(arm, info)| same(arm, info))
    {
        return Err(TrainError::Changed {
            what: "its arms".into(),
        });
    }
    for (arm, before) in arms.iter_mut().zip(before()) {
        arm.info.clone_from(before);
    }
    if phases(config) != state.phases {
        return Err(TrainError::Changed {
            what: "its phases".into(),
        });
    }
    let told = (!told.is_empty()).then(|| format!("changed since the start: {}", words(&told)));
    Ok(told)
}

/// The configuration as the events have it.
fn as_json(config: &RunConfig) -> Value {
    serde_json::to_value(config).unwrap_or_default()
}

fn phases(config: &RunConfig) -> Vec<PhaseInfo> {
    let phases = config.phases.iter().zip(config.all_steps());
    let phases = phases.map(|(phase, steps)| PhaseInfo {
        dataset: phase.dataset.clone(),
        steps,
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
                config: Some(as_json(config)),
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

    /// Loads the libraries of the arms that are not over: what becomes of the files meanwhile is nothing to those
    /// that begin late.
    fn load_strategies(&self) {
        for arm in (0..self.arms.len()).filter(|arm| !self.is_over(*arm)) {
            self.plugins[arm].load_ahead(self.options(arm));
        }
    }

    /// Lets the arms take turns until all are over; `false`: the run is to stop, its arms are saved.
    fn take_turns(&mut self) -> Result<bool, TrainError> {
        loop {
            if !self.gather()? {
                return Ok(false);
            }
            let arms = self.waiting.indices();
            if arms.is_empty() {
                return Ok(true);
            }
            for arm in arms {
                let Some(mut run) = self.waiting.take(arm) else {
                    continue;
                };
                match turn(&mut self.context, &mut run)? {
                    Turn::Paused => self.waiting.put(run),
                    Turn::Finished => {
                        let step = run.learner.point.step;
                        self.context
                            .journal
                            .emit(Event::ArmFinished { arm, step })?;
                        run.store().prune(1)?;
                    }
                    Turn::Failed(error) => self.fail(arm, run.learner.point.step, &error)?,
                    Turn::Stopped { savable: true } => {
                        self.waiting.put(run);
                        self.save_all()?;
                        return Ok(false);
                    }
                    Turn::Stopped { savable: false } => {
                        self.tell_gave_up(&run)?;
                        self.save_all()?;
                        return Ok(false);
                    }
                }
            }
        }
    }

    /// Tells of an arm whose strategy gave up the call under way, so that it cannot be saved as it is.
    fn tell_gave_up(&self, run: &ArmRun) -> Result<(), RunError> {
        let from = run.saved_step.map_or_else(
            || "the end of the first phase".into(),
            |step| format!("its checkpoint at step {step}"),
        );
        let message = format!("its strategy gave up the call under way; resumes from {from}");
        let journal = &self.context.journal;
        journal.log(Level::Info, Some(run.index()), message)
    }

    /// Writes a checkpoint of every arm that waits.
    fn save_all(&self) -> Result<(), TrainError> {
        let journal = &self.context.journal;
        for arm in self.waiting.indices() {
            let Some(mut run) = self.waiting.take(arm) else {
                continue;
            };
            match run.save(journal) {
                Ok(()) => {}
                Err(ArmError::Run(error)) => return Err(error),
                Err(error) => {
                    let message = format!("not saved, resumes from its last checkpoint: {error}");
                    journal.log(Level::Warn, Some(arm), message)?;
                }
            }
            self.waiting.put(run);
        }
        Ok(())
    }

    fn interrupted(&self, reason: Option<String>) -> Result<Outcome, TrainError> {
        let reason = reason.unwrap_or_else(|| "asked to stop".into());
        let journal = &self.context.journal;
        journal.emit(Event::Interrupted {
            reason: reason.clone(),
        })?;
        journal.close()?;
        Ok(Outcome::Interrupted(reason))
    }

    fn finished(&self) -> Result<Outcome, TrainError> {
        let journal = &self.context.journal;
        journal.emit(Event::RunFinished {})?;
        journal.close()?;
        let failed = journal.state(|state| {
            let mut arms = state.arms.iter().map(|arm| &arm.status);
            arms.by_ref()
                .filter(|status| **status != ArmStatus::Finished)
                .count()
        });
        Ok(Outcome::Finished { failed })
    }

    /// Arms that each of the names to skip stands for.
    fn named(&self, names: &[String]) -> Result<Vec<usize>, TrainError> {
        let mut all = Vec::new();
        for name in names {
            let spelt = ArmSpec::parse(name, self.context.config.replay.coeff);
            let spelt = spelt.map_or_else(|_| name.clone(), |spec| spec.name());
            let is_named = |arm: &Arm| {
                let ArmInfo {
                    name: own,
                    slug,
                    seed,
                    ..
                } = &arm.info;
                own == name || slug == name || *own == spelt || format!("#{seed} {own}") == *name
            };
            let mut named: Vec<usize> = (0..self.arms.len())
                .filter(|&arm| is_named(&self.arms[arm]))
                .collect();
            if named.is_empty() {
                named = self.named_without_settings(&spelt);
            }
            let before = all.len();
            all.extend(named);
            if all.len() == before {
                let arms: Vec<&str> = self.arms.iter().map(|a| a.info.name.as_str()).collect();
                return Err(TrainError::NoSuchArm {
                    name: name.clone(),
                    arms: arms.join(", "),
                });
            }
        }
        Ok(all)
    }

    /// The arm, with every seed, whose name goes on with settings after this; none where several do.
    fn named_without_settings(&self, head: &str) -> Vec<usize> {
        let name = |arm: usize| self.arms[arm].info.name.as_str();
        let rest = |arm: usize| name(arm).strip_prefix(head).unwrap_or_default();
        let all: Vec<usize> = (0..self.arms.len())
            .filter(|&arm| rest(arm).starts_with('+'))
            .collect();
        match all.iter().all(|&arm| name(arm) == name(all[0])) {
            true => all,
            false => Vec::new(),
        }
    }

    /// Leaves out arms that are not over yet.
    fn skip(&self, arms: &[usize]) -> Result<(), TrainError> {
        for &arm in arms {
            if !self.is_over(arm) {
                let journal = &self.context.journal;
                let step = journal.state(|s| s.arms[arm].step);
                let reason = "left out with --skip-arm".into();
                journal.emit(Event::ArmSkipped { arm, step, reason })?;
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
