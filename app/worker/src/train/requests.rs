//! What is asked of a live run, between the turns of its arms: to add an arm, to stop one.

use std::sync::Arc;

use forgetlab_engine::{Demand, check_device, human_bytes};
use forgetlab_plugin_host::Plugin;
use forgetlab_study::experiment::{ArmSpec, RunConfig, first_phase_hash};
use forgetlab_study::run::{Ask, Level, RunError};

use super::context::RunContext;
use super::error::{ArmError, TrainError};
use super::prepare::{
    PrepareError, check_batches, check_prompts_of, free_memory, record_of, with_arm,
};
use super::run::Runner;
use super::{settings, turn};

/// Why an arm is not added.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    /// It could not be in any run of this configuration.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// The run has the arms of its sweep.
    #[error(transparent)]
    OfSweep(RunError),
    /// There is no room for it beside the others.
    #[error(
        "it does not fit beside the other arms: with it the run would take about {} of memory, and {} can be had; ask \
         again once others are over",
        human_bytes(*needed),
        human_bytes(*room)
    )]
    Room {
        /// Bytes that the run would take.
        needed: f64,
        /// Bytes it can have.
        room: f64,
    },
    /// What it would start from is gone.
    #[error(
        "the weights at the end of the first phase (seed {seed}) are gone, neither the run's folder nor the cache has \
         them; start a new run with this arm"
    )]
    Gone {
        /// The seed.
        seed: u64,
    },
}

/// What a run is once an arm was added.
struct Plan {
    config: RunConfig,
    plugin: Arc<Plugin>,
    demand: Demand,
}

impl Runner<'_> {
    /// Takes up what was asked for since the last time.
    ///
    /// # Errors
    /// Where the run as a whole cannot go on.
    pub(super) fn take_requests(&mut self) -> Result<(), TrainError> {
        for request in self.roll.requests()? {
            let id = &request.id;
            let refused = match &request.ask {
                Err(problem) => Some(format!("the request cannot be read: {problem}")),
                Ok(Ask::StopArm(slug)) => self.stop_arm(slug)?,
                Ok(Ask::AddArm(_)) if self.roll.has_added(id) => None,
                Ok(Ask::AddArm(spec)) => match self.plan(spec) {
                    Ok(plan) => {
                        self.add_arm(id, plan)?;
                        None
                    }
                    Err(refusal) => Some(refusal.to_string()),
                },
            };
            self.roll.answer(&request, refused)?;
        }
        Ok(())
    }

    /// Stops an arm where it stands, with a checkpoint; why not, where it cannot be.
    fn stop_arm(&mut self, slug: &str) -> Result<Option<String>, TrainError> {
        let arm = match self.roll.to_stop(slug) {
            Ok(Some(arm)) => arm,
            Ok(None) => return Ok(None),
            Err(refused) => return Ok(Some(refused)),
        };
        if let Some(mut run) = self.waiting.take(arm) {
            turn::record(&self.context, &mut run, true)?;
            match run.save(&self.context.journal) {
                Ok(()) => run.store().prune(1)?,
                Err(ArmError::Run(error)) => return Err(error),
                Err(error) => {
                    let message = format!("its last steps are not saved: {error}");
                    let journal = &self.context.journal;
                    journal.log(Level::Warn, Some(arm), message)?;
                }
            }
        }
        self.roll.stopped(arm)?;
        Ok(None)
    }

    /// What the run would be with one more arm.
    fn plan(&self, spec: &ArmSpec) -> Result<Plan, Refusal> {
        self.context
            .dir
            .requests()
            .may_add()
            .map_err(Refusal::OfSweep)?;
        // As they are now: a library may have come since the run began.
        let registry = (self.strategies)();
        let (config, plugin) = with_arm(&self.roll.config, spec, &registry)?;
        let plugin = match plugin {
            Some(plugin) => plugin,
            // Only a regression has arms without one.
            None => registry
                .get(&spec.strategy)
                .cloned()
                .map_err(PrepareError::from)?,
        };
        check_batches(&config, self.context.suite).map_err(PrepareError::from)?;
        if let Some(arm) = config.arms.last() {
            check_prompts_of(arm, &plugin, self.context.suite)?;
        }
        for &seed in &config.seeds {
            if !self.is_kept(seed) {
                return Err(Refusal::Gone { seed });
            }
        }
        let demand = self.demand_with(&config, &plugin);
        let needed = demand.memory().total();
        match self.room() {
            Some(room) if needed > room => Err(Refusal::Room { needed, room }),
            _ => Ok(Plan {
                config,
                plugin,
                demand,
            }),
        }
    }

    /// Adds an arm: it begins where the first phase ends, at the next turn that there is room for it.
    fn add_arm(&mut self, id: &str, plan: Plan) -> Result<(), TrainError> {
        let Plan {
            config,
            plugin,
            demand,
        } = plan;
        let dir = self.context.dir;
        if let Some(mut environment) = dir.read_environment()? {
            let record = record_of(&plugin);
            if !environment.plugins.contains(&record) {
                environment.plugins.push(record);
                environment.plugins.sort_by(|a, b| a.name.cmp(&b.name));
                dir.write_environment(&environment)?;
            }
        }
        for arm in self.roll.add(id, config)? {
            self.plugins.push(Arc::clone(&plugin));
            plugin.load_ahead(self.options(arm));
        }
        let memory = format!("memory: about {}", human_bytes(demand.memory().total()));
        self.context.journal.log(Level::Info, None, memory)?;
        self.most_active = self.most_active.max(demand.learners);
        self.demand = demand;
        Ok(())
    }

    /// Whether what an arm of a seed starts from is there, or is yet to be trained.
    fn is_kept(&self, seed: u64) -> bool {
        let end = self.roll.journal.state(|state| {
            let own = state.arms.iter().filter(|arm| arm.info.seed == seed);
            let mut ends = own.filter_map(|arm| arm.ends.iter().find(|end| end.0 == 0));
            ends.next().map(|&(_, step, _)| step)
        });
        let Some(end) = end.filter(|end| *end > 0) else {
            return true;
        };
        let own = self
            .context
            .dir
            .checkpoints(&format!("first-phase-seed-{seed}"));
        let own = own.steps().is_ok_and(|steps| steps.last() == Some(&end));
        let hash = || first_phase_hash(self.context.config, seed, &self.numerics);
        own || self.cache.is_some_and(|cache| cache.has(&hash()))
    }

    /// Sizes of the work with one more arm: beside all others where those are all at work, else in their turn.
    fn demand_with(&self, config: &RunConfig, plugin: &Arc<Plugin>) -> Demand {
        let all = 0..self.roll.arms.len();
        let open = all.filter(|&arm| !self.roll.is_over(arm)).count();
        let most = match config.training.concurrent_arms {
            0 => usize::MAX,
            most => most,
        };
        let learners = match self.most_active >= open {
            true => (open + config.seeds.len()).min(most),
            false => self.most_active,
        };
        let places = 0..config.arms.len() - 1;
        let known = places.filter_map(|place| {
            let arm = self.roll.places.iter().position(|known| *known == place)?;
            Some(Arc::clone(&self.plugins[arm]))
        });
        let plugins: Vec<_> = known.chain([Arc::clone(plugin)]).collect();
        let RunContext {
            suite,
            questions,
            prompts,
            ..
        } = &self.context;
        settings::demand(config, suite, &plugins, questions, prompts).with_learners(learners.max(1))
    }

    /// Bytes that the run can have in all; `None` where the system does not tell.
    fn room(&self) -> Option<f64> {
        let config = self.context.config;
        let gpu = check_device(&config.device).ok().flatten();
        match (gpu, self.free_at_start) {
            // What this process holds of a GPU is not free, and is what it was predicted to take, or less.
            (Some(gpu), Some(at_start)) => {
                let own = self.demand.memory().total();
                Some(at_start.min(gpu.plannable() + own))
            }
            _ => free_memory(config),
        }
    }
}
