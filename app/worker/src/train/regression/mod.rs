//! The run of the study on a line: seed by seed, first the old points, then every arm on the new ones.
//!
//! Its numbers are [`crate::regression`]'s. A run on disk is like any other: the same events, checkpoints and cache;
//! strategies are not called, since the one way of replay is the penalty itself.

mod arm;
mod curves;
mod first_phase;
mod scores;
mod tensors;

use std::time::{Duration, Instant};

use forgetlab_engine::{EngineError, human_bytes};
use forgetlab_plugin_host::Registry;
use forgetlab_study::experiment::ArmSpec;
use forgetlab_study::experiment::RunConfig;
use forgetlab_study::run::{
    Ask, Event, Level, PhaseCache, Progress, RunDir, RunError, TrainingStretch,
};

use super::error::TrainError;
use super::options::{Outcome, RunOptions};
use super::prepare::{NUMERICS, device_in_words, with_arm};
use super::roll::Roll;
use arm::{ArmRun, Turn};
use first_phase::FirstPhase;

/// Least time between two progress events.
const INTERVAL: Duration = Duration::from_millis(500);

/// What the parts of a run share.
struct Context<'a> {
    dir: &'a RunDir,
    config: &'a RunConfig,
    roll: Roll,
    cache: Option<&'a PhaseCache>,
    /// Looks for strategies.
    strategies: &'a (dyn Fn() -> Registry + Sync),
    /// Version of the numerics and instruction set: others give other bits.
    numerics: String,
    stop: &'a (dyn Fn() -> bool + Sync),
}

/// Takes a run to its end, or until it is to stop.
///
/// # Errors
/// [`TrainError`] where the run as a whole cannot go on.
pub(super) fn run(options: RunOptions) -> Result<Outcome, TrainError> {
    let prepared = options.prepared;
    let (config, environment) = (&prepared.config, &prepared.environment);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(config.threads);
    let pool = pool.build().map_err(EngineError::from)?;
    let mut warnings = options.warnings;
    let place = (options.dir, options.lock);
    let roll = Roll::open(place, config, options.listener, &mut warnings)?;
    // Before anything is written.
    let skipped = roll.named(options.skip_arms)?;
    roll.announce(device_in_words(environment), warnings)?;
    let memory = format!("memory: about {}", human_bytes(prepared.memory()));
    roll.journal.log(Level::Info, None, memory)?;
    roll.skip(&skipped)?;
    let stop = || (options.stop)().is_some();
    let mut context = Context {
        dir: options.dir,
        config,
        roll,
        cache: options.cache,
        strategies: options.strategies,
        // Threads change no bit.
        numerics: format!("{NUMERICS}, {}", environment.instruction_set),
        stop: &stop,
    };
    match pool.install(|| context.all_seeds())? {
        true => context.roll.finished(),
        false => context.roll.interrupted((options.stop)()),
    }
}

impl Context<'_> {
    /// Takes the arms of one seed after the other to their end; `false`: the run is to stop, its arms are saved.
    fn all_seeds(&mut self) -> Result<bool, TrainError> {
        let config = self.config;
        // Again for arms that were added to seeds which had come to their end.
        loop {
            self.take_requests()?;
            let mut any = false;
            for &seed in &config.seeds {
                let open = self.open(seed);
                any |= !open.is_empty();
                if !open.is_empty() && !self.one_seed(seed, &open)? {
                    return Ok(false);
                }
            }
            if !any {
                return Ok(true);
            }
        }
    }

    /// Arms of a seed that are not over.
    fn open(&self, seed: u64) -> Vec<usize> {
        let arms = self.roll.arms.iter().enumerate();
        let of_seed = arms.filter(|(_, arm)| arm.info.seed == seed);
        let open = of_seed.filter(|(i, _)| !self.roll.is_over(*i));
        open.map(|(i, _)| i).collect()
    }

    /// Takes up what was asked for since the last time: arms are stopped where they stand, or added, which turns find.
    fn take_requests(&mut self) -> Result<(), TrainError> {
        for request in self.roll.requests()? {
            let id = &request.id;
            let refused = match &request.ask {
                Err(problem) => Some(format!("the request cannot be read: {problem}")),
                Ok(Ask::StopArm(slug)) => match self.roll.to_stop(slug) {
                    Ok(Some(arm)) => {
                        self.roll.stopped(arm)?;
                        None
                    }
                    Ok(None) => None,
                    Err(refused) => Some(refused),
                },
                Ok(Ask::AddArm(_)) if self.roll.has_added(id) => None,
                Ok(Ask::AddArm(spec)) => self.add(id, spec)?,
            };
            self.roll.answer(&request, refused)?;
        }
        Ok(())
    }

    /// Adds an arm; why not, where it cannot be. What it starts from is learned again where it is gone: that takes
    /// minutes.
    fn add(&mut self, id: &str, spec: &ArmSpec) -> Result<Option<String>, TrainError> {
        if let Err(error) = self.dir.requests().may_add() {
            return Ok(Some(error.to_string()));
        }
        match with_arm(&self.roll.config, spec, &(self.strategies)()) {
            Ok((config, _)) => {
                self.roll.add(id, config)?;
                Ok(None)
            }
            Err(error) => Ok(Some(error.to_string())),
        }
    }

    /// Saves arms, since the run is to stop.
    fn saved(&self, arms: impl IntoIterator<Item = ArmRun>) -> Result<bool, TrainError> {
        let mut arms = arms.into_iter();
        arms.try_for_each(|mut arm| arm.save(self))?;
        Ok(false)
    }

    fn one_seed(&mut self, seed: u64, open: &[usize]) -> Result<bool, TrainError> {
        let first = match first_phase::run(self, seed, open)? {
            FirstPhase::Stopped => return Ok(false),
            FirstPhase::Failed(error, step) => {
                for &arm in open {
                    self.roll.fail(arm, step, &error)?;
                }
                return Ok(true);
            }
            FirstPhase::Done(first) => first,
        };
        let mut arms: Vec<ArmRun> = Vec::new();
        // Arms take turns, one evaluation interval each, so that their curves grow together.
        loop {
            self.take_requests()?;
            let (mut on, stopped): (Vec<ArmRun>, Vec<ArmRun>) = arms
                .into_iter()
                .partition(|run| !self.roll.is_over(run.arm()));
            for mut run in stopped {
                run.save(self)?;
            }
            for arm in self.open(seed) {
                if on.iter().any(|run| run.arm() == arm) {
                    continue;
                }
                // One that was added since has yet to be told of the first phase.
                if !open.contains(&arm) {
                    match first_phase::run(self, seed, &[arm])? {
                        FirstPhase::Done(_) => {}
                        FirstPhase::Stopped => return self.saved(on),
                        FirstPhase::Failed(error, step) => {
                            self.roll.fail(arm, step, &error)?;
                            continue;
                        }
                    }
                }
                on.push(ArmRun::begin(self, arm, &first)?);
            }
            arms = on;
            if arms.is_empty() {
                return Ok(true);
            }
            let mut going = Vec::new();
            let mut rest = arms.into_iter();
            while let Some(mut arm) = rest.next() {
                match arm.turn(self, &first)? {
                    Turn::Paused => going.push(arm),
                    Turn::Over => {}
                    Turn::Stopped => {
                        return self.saved(going.into_iter().chain([arm]).chain(rest));
                    }
                }
            }
            arms = going;
        }
    }
}

/// Tells of live progress now and then. There are no tokens, so that all but the step is not a number.
struct Pace(Instant);

impl Pace {
    fn new() -> Self {
        Self(Instant::now())
    }

    fn tell(
        &mut self,
        context: &Context,
        members: &[usize],
        (phase, step): (usize, u64),
    ) -> Result<(), RunError> {
        if self.0.elapsed() < INTERVAL {
            return Ok(());
        }
        self.0 = Instant::now();
        let progress = Progress {
            ntp: f64::NAN,
            replay: None,
            grad_norm: f64::NAN,
            tokens_per_second: f64::NAN,
        };
        let journal = &context.roll.journal;
        let mut members = members.iter();
        members.try_for_each(|&arm| journal.emit(progress.event(arm, phase, step)))
    }
}

/// Puts figures of training into the events of arms.
fn record(context: &Context, members: &[usize], stretch: TrainingStretch) -> Result<(), RunError> {
    let journal = &context.roll.journal;
    let mut members = members.iter();
    members.try_for_each(|&arm| journal.emit(stretch.event(arm)))
}

/// The end of a phase, which has all its steps.
fn phase_ended(arm: usize, phase: usize, step: u64) -> Event {
    let by = forgetlab_study::run::PhaseEnd::Steps;
    Event::PhaseEnded {
        arm,
        phase,
        step,
        by,
    }
}
