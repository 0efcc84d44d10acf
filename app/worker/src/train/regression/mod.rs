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
use forgetlab_study::experiment::RunConfig;
use forgetlab_study::run::{Event, Level, PhaseCache, Progress, RunDir, RunError, TrainingStretch};

use super::error::TrainError;
use super::options::{Outcome, RunOptions};
use super::prepare::{NUMERICS, device_in_words};
use super::roll::Roll;
use arm::{ArmRun, Turn};
use first_phase::FirstPhase;

/// Least time between two progress events.
const INTERVAL: Duration = Duration::from_millis(500);

/// What the parts of a run share.
struct Context<'a> {
    dir: &'a RunDir,
    config: &'a RunConfig,
    roll: Roll<'a>,
    cache: Option<&'a PhaseCache>,
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
    let context = Context {
        dir: options.dir,
        config,
        roll,
        cache: options.cache,
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
    fn all_seeds(&self) -> Result<bool, TrainError> {
        for &seed in &self.config.seeds {
            let arms = self.roll.arms.iter().enumerate();
            let of_seed = arms.filter(|(_, arm)| arm.info.seed == seed);
            let open = of_seed.filter(|(i, _)| !self.roll.is_over(*i));
            let open: Vec<usize> = open.map(|(i, _)| i).collect();
            if !open.is_empty() && !self.one_seed(seed, &open)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn one_seed(&self, seed: u64, open: &[usize]) -> Result<bool, TrainError> {
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
        let mut arms = Vec::new();
        for &arm in open {
            arms.push(ArmRun::begin(self, arm, &first)?);
        }
        // Arms take turns, one evaluation interval each, so that their curves grow together.
        while !arms.is_empty() {
            let mut going = Vec::new();
            let mut rest = arms.into_iter();
            while let Some(mut arm) = rest.next() {
                match arm.turn(self, &first)? {
                    Turn::Paused => going.push(arm),
                    Turn::Over => {}
                    Turn::Stopped => {
                        for mut arm in going.into_iter().chain([arm]).chain(rest) {
                            arm.save(self)?;
                        }
                        return Ok(false);
                    }
                }
            }
            arms = going;
        }
        Ok(true)
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
