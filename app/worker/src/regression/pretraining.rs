//! Learning the old points: the most probable weights, then samples of the posterior.

use forgetlab_engine::Stream;
use forgetlab_study::run::TrainingStep;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::config::Config;
use super::data::{Data, Points};
use super::error::{Error, Result};
use super::measure::{Evaluation, Grids, distance, due, mean};
use super::mlp::{Mlp, Trace};
use super::posterior::{Posterior, Potential};
use super::sghmc::{Chain, clip};
use super::stage::Stage;

/// The training on the old points, step by step.
pub struct Pretraining {
    config: Config,
    mlp: Mlp,
    points: Points,
    grids: Grids,
    /// One for each chain.
    noise: Vec<Stream>,
    workspaces: Vec<Workspace>,
    state: PretrainingState,
    last: TrainingStep,
}

/// All that changes in the course of it. Kept and given to [`Pretraining::resume`], training goes on to the same bits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PretrainingState {
    /// Steps taken, of both stages.
    pub step: usize,
    /// Weights so far, and from the end of the first stage on the most probable ones.
    pub map: Vec<f64>,
    /// The chains; none before the first stage has ended.
    pub chains: Vec<Chain>,
    /// The weights each chain has kept.
    pub kept: Vec<Vec<Vec<f64>>>,
}

#[derive(Clone)]
struct Workspace {
    trace: Trace,
    gradient: Vec<f64>,
    /// Of the last step: value of the potential and norm of its gradient.
    value: f64,
    norm: f64,
}

impl Pretraining {
    /// From initial weights.
    pub fn new(config: &Config, seed: u64) -> Result<Self> {
        let mut normal = Stream::new(seed, "regression initial weights").at(0);
        let map = Mlp::new(&config.hidden)
            .in_matrix()
            .into_iter()
            .map(|matrix| {
                if matrix {
                    config.map.init_std * f64::from(normal.normal())
                } else {
                    0.0
                }
            })
            .collect();
        let state = PretrainingState {
            step: 0,
            map,
            chains: Vec::new(),
            kept: vec![Vec::new(); config.sghmc.chains],
        };
        Self::resume(config, seed, state)
    }

    /// From a state that was kept, of the same configuration and seed.
    pub fn resume(config: &Config, seed: u64, state: PretrainingState) -> Result<Self> {
        Self::on(Data::new(config, seed).old, config, seed, state)
    }

    /// On points that are given.
    pub(super) fn on(
        points: Points,
        config: &Config,
        seed: u64,
        state: PretrainingState,
    ) -> Result<Self> {
        let mlp = Mlp::new(&config.hidden);
        state.check(config, mlp.len())?;
        let chains = config.sghmc.chains;
        let noise = (0..chains)
            .map(|chain| Stream::new(seed, &format!("regression chain {chain}")))
            .collect();
        let workspace = Workspace {
            trace: Trace::default(),
            gradient: vec![0.0; mlp.len()],
            value: 0.0,
            norm: 0.0,
        };
        Ok(Self {
            points,
            grids: Grids::new(config),
            noise,
            workspaces: vec![workspace; chains],
            config: config.clone(),
            mlp,
            state,
            last: TrainingStep::default(),
        })
    }

    /// What to keep in order to go on from here.
    pub fn state(&self) -> &PretrainingState {
        &self.state
    }

    /// Steps taken, of both stages.
    pub fn step_number(&self) -> usize {
        self.state.step
    }

    /// Steps there are, of both stages.
    pub fn steps(&self) -> usize {
        self.config.pretraining_steps()
    }

    /// Whether all steps are taken.
    pub fn is_done(&self) -> bool {
        self.state.step == self.steps()
    }

    /// Figures of the last step since this was made: the negative log posterior, in sampling the chains' mean, and the
    /// root mean square of their gradients' norms.
    pub fn last(&self) -> TrainingStep {
        self.last
    }

    /// Takes one step; returns an evaluation where one is due after it.
    pub fn step(&mut self) -> Result<Option<Evaluation>> {
        Ok(self.advance()?.then(|| self.evaluate()))
    }

    /// Takes one step; returns whether an evaluation is due after it. Does nothing after the last.
    pub fn advance(&mut self) -> Result<bool> {
        if self.is_done() {
            return Ok(false);
        }
        let map_steps = self.config.map.steps;
        let finite = if self.state.step < map_steps {
            self.map_step()
        } else {
            self.sampling_step()
        };
        self.state.step += 1;
        let (stage, step) = self.place();
        if !finite {
            return Err(Error::Diverged { stage, step });
        }
        if self.state.step == map_steps {
            let chain = Chain::at(self.state.map.clone());
            self.state.chains = vec![chain; self.config.sghmc.chains];
        }
        let stage_steps = match stage {
            Stage::Map => map_steps,
            _ => self.steps() - map_steps,
        };
        let every = self.config.evaluation.pretraining_every;
        Ok(due(step, stage_steps, every))
    }

    /// The stage, and the steps taken in it; the last step of a stage belongs to it.
    fn place(&self) -> (Stage, usize) {
        match self.state.step.checked_sub(self.config.map.steps) {
            None | Some(0) => (Stage::Map, self.state.step),
            Some(step) => (Stage::Sampling, step),
        }
    }

    fn map_step(&mut self) -> bool {
        let settings = &self.config.map;
        let Workspace {
            trace, gradient, ..
        } = &mut self.workspaces[0];
        let potential = potential(&self.config, &self.mlp, &self.points);
        let value = potential.value_and_gradient(&self.state.map, trace, gradient);
        let grad_norm = clip(gradient, settings.clip);
        let part = self.state.step as f64 / (settings.steps - 1).max(1) as f64;
        let lr = settings.lr_start + (settings.lr_end - settings.lr_start) * part;
        for (weight, gradient) in self.state.map.iter_mut().zip(gradient) {
            *weight -= lr * *gradient;
        }
        self.last = TrainingStep {
            loss: value,
            replay: None,
            grad_norm,
            lr,
        };
        value.is_finite()
    }

    /// One step of every chain; keeps their weights where it is time.
    fn sampling_step(&mut self) -> bool {
        let settings = &self.config.sghmc;
        let step = self.state.step - self.config.map.steps;
        let potential = potential(&self.config, &self.mlp, &self.points);
        let finite = self
            .state
            .chains
            .par_iter_mut()
            .zip(&mut self.workspaces)
            .zip(&self.noise)
            .map(|((chain, space), noise)| {
                let (trace, gradient) = (&mut space.trace, &mut space.gradient);
                space.value = potential.value_and_gradient(&chain.position, trace, gradient);
                space.norm = clip(gradient, settings.clip);
                chain.step(gradient, settings, &mut noise.at(step as u64));
                space.value.is_finite()
            })
            .reduce(|| true, |a, b| a && b);
        let chains = self.workspaces.len() as f64;
        let sum = |of: fn(&Workspace) -> f64| self.workspaces.iter().map(of).sum::<f64>();
        self.last = TrainingStep {
            loss: sum(|space| space.value) / chains,
            replay: None,
            grad_norm: (sum(|space| space.norm * space.norm) / chains).sqrt(),
            lr: settings.step_size,
        };
        if step >= settings.burn_in && (step - settings.burn_in).is_multiple_of(settings.thinning) {
            for (kept, chain) in self.state.kept.iter_mut().zip(&self.state.chains) {
                kept.push(chain.position.clone());
            }
        }
        finite
    }

    /// The figures of now: of the most probable weights so far; in sampling of the functions kept, or of the chains'
    /// own until the first is.
    pub fn evaluate(&self) -> Evaluation {
        let (stage, step) = self.place();
        let map = std::slice::from_ref(&self.state.map);
        let positions: Vec<_> = match stage {
            Stage::Map => map.to_vec(),
            _ => self
                .state
                .chains
                .iter()
                .map(|c| c.position.clone())
                .collect(),
        };
        let potential = potential(&self.config, &self.mlp, &self.points);
        let mut space = self.workspaces[0].clone();
        let losses = positions.iter().map(|weights| {
            potential.value_and_gradient(weights, &mut space.trace, &mut space.gradient)
        });
        let loss = losses.sum::<f64>() / positions.len() as f64;
        let kept: Vec<_> = self.state.kept.iter().flatten().cloned().collect();
        let functions = if kept.is_empty() { positions } else { kept };
        let values = self.grids.predict(&self.mlp, &functions);
        let (old, new) = self.grids.errors(&values);
        let distance_to_map = (stage == Stage::Sampling).then(|| {
            let map = self.grids.predict(&self.mlp, map);
            distance(&mean(&values.old), &map.old[0])
        });
        Evaluation {
            stage,
            step,
            functions: functions.len(),
            loss,
            old,
            new,
            distance_to_map,
            distance_to_posterior: None,
            function_distance: None,
            kl: None,
        }
    }

    /// What the old points taught; nothing before the last step.
    pub fn posterior(&self) -> Option<Posterior> {
        self.is_done().then(|| Posterior {
            map: self.state.map.clone(),
            particles: self.state.kept.concat(),
        })
    }
}

/// Functions a chain has kept after `step` steps of both stages.
fn kept_after(config: &Config, step: usize) -> usize {
    let before = config.map.steps + config.sghmc.burn_in;
    step.saturating_sub(before).div_ceil(config.sghmc.thinning)
}

fn potential<'a>(config: &Config, mlp: &'a Mlp, points: &'a Points) -> Potential<'a> {
    Potential {
        mlp,
        points,
        noise: config.old.noise,
        prior_std: config.prior_std,
    }
}

impl PretrainingState {
    /// Refuses a state of another configuration.
    fn check(&self, config: &Config, weights: usize) -> Result<()> {
        let refuse = |what: String| Err(Error::State(what));
        let steps = config.pretraining_steps();
        if self.step > steps {
            return refuse(format!("it is at step {} of {steps}", self.step));
        }
        let chains = match self.step < config.map.steps {
            true => 0,
            false => config.sghmc.chains,
        };
        if self.chains.len() != chains || self.kept.len() != config.sghmc.chains {
            return refuse(format!("it has {} chains", self.chains.len()));
        }
        let kept = kept_after(config, self.step);
        if self.kept.iter().any(|k| k.len() != kept) {
            return refuse(format!("its chains have not kept {kept} functions"));
        }
        let chains = self.chains.iter().flat_map(|c| [&c.position, &c.momentum]);
        let mut vectors = chains.chain(self.kept.iter().flatten()).chain([&self.map]);
        match vectors.find(|v| v.len() != weights) {
            Some(v) => refuse(format!("it has {} weights for {weights}", v.len())),
            None => Ok(()),
        }
    }
}
