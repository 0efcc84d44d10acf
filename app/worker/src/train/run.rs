//! Takes a run directory to its end: arms take turns, one evaluation interval each.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::{Arc, OnceLock, Weak};

use forgetlab_engine::{Demand, Engine, Weights, human_bytes};
use forgetlab_plugin_host::breadcrumb::Breadcrumbs;
use forgetlab_plugin_host::{Plugin, Registry};
use forgetlab_study::run::{Event, Level, PhaseCache, RunDir, RunError};

use super::arm::ArmRun;
use super::context::RunContext;
use super::error::{ArmError, TrainError};
use super::hang::Hang;
use super::options::{Outcome, RunOptions};
use super::prepare::{Prepared, TokenWork, Work, device_in_words, free_memory, numerics_in_words};
use super::regression;
use super::roll::Roll;
use super::settings;
use super::turn::{Turn, turn};
use super::waiting::Waiting;

/// Name of the file that tells which plugin call was under way.
pub const BREADCRUMB: &str = "plugin-call.json";

/// A run at work.
pub(super) struct Runner<'a> {
    pub roll: Roll,
    /// Strategy of each arm.
    pub plugins: Vec<Arc<Plugin>>,
    pub context: RunContext<'a>,
    /// Cache of first phases, where it is to be used.
    pub cache: Option<&'a PhaseCache>,
    /// Version of the numerics and device in words: others give other bits.
    pub numerics: String,
    /// The most arms in memory at a time.
    pub most_active: usize,
    /// Sizes of the work, by which its memory was predicted.
    pub demand: Demand,
    /// Bytes that were free before any was taken.
    pub free_at_start: Option<f64>,
    /// Looks for strategies.
    pub strategies: &'a (dyn Fn() -> Registry + Sync),
    /// Arms in memory, but for the one at its turn.
    pub waiting: Waiting,
    /// What late calls of strategies lead to.
    pub hang: Arc<Hang>,
    /// Where calls of strategies are noted, if they can be.
    pub breadcrumbs: Option<Breadcrumbs>,
    /// References of the phase after the first, by [`Runner::reference_key`].
    pub references: HashMap<u64, Weak<Weights>>,
    /// Steps at which the GPU's memory was full for an arm that was alone.
    pub full_at: HashMap<usize, u64>,
}

/// Trains every arm of a run from where it stands to its end, or until it is to stop.
///
/// # Errors
/// [`TrainError`] where the run as a whole cannot go on, such as a full disk; what was saved stays
/// and the run can be resumed.
pub fn run(options: RunOptions) -> Result<Outcome, TrainError> {
    let dir = options.dir;
    let done = match &options.prepared.work {
        Work::Tokens(tokens) => run_on_tokens(tokens, options),
        Work::Regression => regression::run(options),
    };
    // Whatever met first that the folder is gone, that is what went wrong.
    done.map_err(|error| dir.place().err().map_or(error, TrainError::from))
}

fn run_on_tokens(work: &TokenWork, options: RunOptions) -> Result<Outcome, TrainError> {
    let TokenWork {
        suite,
        questions,
        prompts,
        plugins,
        demand,
    } = work;
    let Prepared {
        config,
        environment,
        ..
    } = options.prepared;
    let free_at_start = free_memory(config);
    let mut engine = Engine::new(settings::model(config, suite), &settings::hardware(config))?;
    engine.set_batching(settings::batching(config));
    let mut warnings = options.warnings;
    let place = (options.dir, options.lock);
    let roll = Roll::open(place, config, options.listener, &mut warnings)?;
    let breadcrumbs = breadcrumbs(options.dir, &mut warnings)?;
    let stop = || (options.stop)().is_some();
    let journal = roll.journal.clone();
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
        plugins: roll.places.iter().map(|at| plugins[*at].clone()).collect(),
        roll,
        context: RunContext {
            dir: options.dir,
            config,
            suite,
            questions,
            prompts,
            engine,
            journal,
            stop: &stop,
        },
        cache: options.cache,
        numerics: numerics_in_words(environment),
        most_active: demand.learners,
        demand: demand.clone(),
        free_at_start,
        strategies: options.strategies,
        waiting,
        hang: Arc::new(hang),
        breadcrumbs,
        references: HashMap::new(),
        full_at: HashMap::new(),
    };
    // Before anything is written.
    let skipped = runner.roll.named(options.skip_arms)?;
    runner.roll.announce(device, warnings)?;
    let mut memory = format!("memory: about {}", human_bytes(demand.memory().total()));
    if demand.learners < runner.roll.arms.len() {
        let _ = write!(
            memory,
            "; {} of the {} arms at a time",
            demand.learners,
            runner.roll.arms.len()
        );
    }
    runner.context.journal.log(Level::Info, None, memory)?;
    let disk = options.prepared.disk().total();
    let disk = format!("disk: checkpoints take up to {}", human_bytes(disk));
    runner.context.journal.log(Level::Info, None, disk)?;
    for losses in runner.context.suite.losses() {
        runner.context.journal.log(Level::Info, None, losses)?;
    }
    runner.roll.skip(&skipped)?;
    runner.load_strategies();
    match runner.take_turns()? {
        true => runner.roll.finished(),
        false => runner.roll.interrupted((options.stop)()),
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

impl Runner<'_> {
    /// Loads the libraries of the arms that are not over: what becomes of the files meanwhile is nothing to those
    /// that begin late.
    fn load_strategies(&self) {
        for arm in (0..self.roll.arms.len()).filter(|arm| !self.roll.is_over(*arm)) {
            self.plugins[arm].load_ahead(self.options(arm));
        }
    }

    /// Lets the arms take turns until all are over; `false`: the run is to stop, its arms are saved.
    fn take_turns(&mut self) -> Result<bool, TrainError> {
        loop {
            self.take_requests()?;
            if !self.gather()? {
                return Ok(false);
            }
            let arms = self.waiting.indices();
            // Those that were to begin may have come to their end at once, with others still to come.
            if arms.is_empty() && (0..self.roll.arms.len()).all(|arm| self.roll.is_over(arm)) {
                return Ok(true);
            }
            for arm in arms {
                let Some(mut run) = self.waiting.take(arm) else {
                    continue;
                };
                let turned = match turn(&mut self.context, &mut run) {
                    Err(error) if error.is_out_of_memory() => {
                        self.go_back_and_wait(run, &error)?;
                        continue;
                    }
                    turned => turned?,
                };
                match turned {
                    Turn::Paused => {
                        self.waiting.put(run);
                        self.take_requests()?;
                    }
                    Turn::Finished => {
                        let step = run.learner.point.step;
                        self.context
                            .journal
                            .emit(Event::ArmFinished { arm, step })?;
                        run.store().prune(1)?;
                    }
                    Turn::Failed(error) => self.roll.fail(arm, run.learner.point.step, &error)?,
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
}
