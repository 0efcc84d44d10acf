//! Training on the new points, without or with the penalty.

use forgetlab_study::experiment::Student;
use forgetlab_study::run::TrainingStep;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::config::Config;
use super::data::Data;
use super::ensemble::{Band, Moments, Penalty, predict};
use super::error::{Error, Result};
use super::measure::{Evaluation, Grids, Predictions, distance, due, mean};
use super::mlp::{Mlp, Trace};
use super::posterior::Posterior;
use super::stage::Stage;

/// The training of one arm on the new points, step by step.
pub struct Finetuning {
    config: Config,
    mlp: Mlp,
    grids: Grids,
    /// New inputs, then, where the penalty is on, old ones.
    xs: Vec<f64>,
    /// New outputs.
    ys: Vec<f64>,
    old_inputs: Vec<f64>,
    penalty: Penalty,
    penalised: bool,
    before: Before,
    functions: Vec<Function>,
    step: usize,
    last: TrainingStep,
}

/// Values on the grids before finetuning.
struct Before {
    map: Vec<f64>,
    posterior_mean: Vec<f64>,
    students: Predictions,
}

/// All that changes in the course of it. Kept and given to [`Finetuning::resume`], training goes on to the same bits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FinetuningState {
    /// Steps taken.
    pub step: usize,
    /// Weights of each function.
    pub functions: Vec<Vec<f64>>,
}

/// One function in training.
struct Function {
    weights: Vec<f64>,
    gradient: Vec<f64>,
    slopes: Vec<f64>,
    trace: Trace,
    /// Halved mean of the squared standardised errors on the new points.
    loss: f64,
    /// Of the gradient.
    squared_norm: f64,
}

impl Function {
    /// Loss and slopes on the new points, which are the first of `xs`.
    fn forward(&mut self, mlp: &Mlp, xs: &[f64], ys: &[f64], precision: f64) {
        let outputs = mlp.forward(&self.weights, xs, &mut self.trace);
        self.loss = 0.0;
        for ((slope, output), y) in self.slopes.iter_mut().zip(outputs).zip(ys) {
            let error = output - y;
            *slope = error * precision / ys.len() as f64;
            self.loss += 0.5 * error * *slope;
        }
    }

    /// The gradient from the slopes, and its norm.
    fn backward(&mut self, mlp: &Mlp) {
        mlp.backward(
            &self.weights,
            &self.slopes,
            &mut self.trace,
            &mut self.gradient,
        );
        self.squared_norm = self.gradient.iter().map(|g| g * g).sum();
    }
}

impl Finetuning {
    /// From the functions that pretraining left; `penalised` says whether the penalty is on.
    pub fn new(config: &Config, seed: u64, posterior: &Posterior, penalised: bool) -> Result<Self> {
        let state = FinetuningState {
            step: 0,
            functions: students(config, posterior).to_vec(),
        };
        Self::resume(config, seed, posterior, penalised, state)
    }

    /// From a state that was kept, of the same configuration, seed, posterior and arm.
    pub fn resume(
        config: &Config,
        seed: u64,
        posterior: &Posterior,
        penalised: bool,
        state: FinetuningState,
    ) -> Result<Self> {
        Self::on(Data::new(config, seed), config, posterior, penalised, state)
    }

    /// On points that are given.
    pub(super) fn on(
        data: Data,
        config: &Config,
        posterior: &Posterior,
        penalised: bool,
        state: FinetuningState,
    ) -> Result<Self> {
        let mlp = Mlp::new(&config.hidden);
        state.check(config, mlp.len(), posterior)?;
        let grids = Grids::new(config);
        let at_old = predict(&mlp, &posterior.particles, &data.old.x);
        let moments = Moments::of(at_old.iter().map(Vec::as_slice), data.old.x.len());
        let mut xs = data.new.x;
        if penalised {
            xs.extend(&data.old.x);
        }
        let functions = state.functions.into_iter().map(|weights| Function {
            gradient: vec![0.0; weights.len()],
            weights,
            slopes: vec![0.0; xs.len()],
            trace: Trace::default(),
            loss: 0.0,
            squared_norm: 0.0,
        });
        Ok(Self {
            functions: functions.collect(),
            before: Before {
                map: grids
                    .predict(&mlp, std::slice::from_ref(&posterior.map))
                    .old
                    .remove(0),
                posterior_mean: mean(&grids.predict(&mlp, &posterior.particles).old),
                students: grids.predict(&mlp, students(config, posterior)),
            },
            xs,
            ys: data.new.y,
            old_inputs: data.old.x,
            penalty: Penalty {
                before: moments,
                extra_std: config.finetuning.kl_std,
            },
            penalised,
            step: state.step,
            last: TrainingStep::default(),
            config: config.clone(),
            mlp,
            grids,
        })
    }

    /// What to keep in order to go on from here.
    pub fn state(&self) -> FinetuningState {
        FinetuningState {
            step: self.step,
            functions: self.weights(),
        }
    }

    /// Steps taken.
    pub fn step_number(&self) -> usize {
        self.step
    }

    /// Steps there are.
    pub fn steps(&self) -> usize {
        self.config.finetuning.steps
    }

    /// Whether all steps are taken.
    pub fn is_done(&self) -> bool {
        self.step == self.steps()
    }

    /// Figures of the last step since this was made: the mean loss on the new points, the penalty before its weight,
    /// and the root mean square of the gradients' norms.
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
        let loss = self.gradients();
        if !loss.is_finite() {
            return Err(Error::Diverged {
                stage: Stage::Finetuning,
                step: self.step,
            });
        }
        let settings = &self.config.finetuning;
        let squares: f64 = self.functions.iter().map(|f| f.squared_norm).sum();
        let norm = (squares / self.functions.len() as f64 + 1e-12).sqrt();
        (self.last.grad_norm, self.last.lr) = (norm, settings.lr);
        let lr = settings.lr * (settings.clip / norm).min(1.0);
        self.functions.par_iter_mut().for_each(|f| {
            for (weight, gradient) in f.weights.iter_mut().zip(&f.gradient) {
                *weight -= lr * gradient;
            }
        });
        self.step += 1;
        let every = self.config.evaluation.finetuning_every;
        Ok(due(self.step, self.steps(), every))
    }

    /// Leaves in each function the gradient of its own loss, times the number of functions where they share one;
    /// returns the loss.
    pub(super) fn gradients(&mut self) -> f64 {
        let (mlp, xs, ys) = (&self.mlp, &self.xs, &self.ys);
        let (penalised, new) = (self.penalised, ys.len());
        let precision = 1.0 / (self.config.new.noise * self.config.new.noise);
        self.functions.par_iter_mut().for_each(|f| {
            f.forward(mlp, xs, ys, precision);
            if !penalised {
                f.backward(mlp);
            }
        });
        let loss = self.functions.iter().map(|f| f.loss).sum::<f64>() / self.functions.len() as f64;
        (self.last.loss, self.last.replay) = (loss, None);
        if !penalised {
            return loss;
        }
        let weight = self.config.finetuning.kl_weight;
        let penalty = &self.penalty;
        let old = self.functions.iter().map(|f| &f.trace.outputs()[new..]);
        let now = Moments::of(old, xs.len() - new);
        self.functions.par_iter_mut().for_each(|f| {
            let slopes = &mut f.slopes[new..];
            slopes.fill(0.0);
            penalty.add_slopes(&now, &f.trace.outputs()[new..], weight, slopes);
            f.backward(mlp);
        });
        let value = penalty.value(&now);
        self.last.replay = Some(value);
        loss + weight * value
    }

    /// The figures of now.
    pub fn evaluate(&self) -> Evaluation {
        let weights = self.weights();
        let values = self.grids.predict(&self.mlp, &weights);
        let (old, new) = self.grids.errors(&values);
        let at_old = predict(&self.mlp, &weights, &self.old_inputs);
        let at_old = Moments::of(at_old.iter().map(Vec::as_slice), self.old_inputs.len());
        let kl = self.penalty.value(&at_old);
        let mean = mean(&values.old);
        Evaluation {
            stage: Stage::Finetuning,
            step: self.step,
            functions: weights.len(),
            loss: self.loss(&weights, kl),
            old,
            new,
            distance_to_map: Some(distance(&mean, &self.before.map)),
            distance_to_posterior: Some(distance(&mean, &self.before.posterior_mean)),
            function_distance: Some(distance(
                values.old.iter().flatten(),
                self.before.students.old.iter().flatten(),
            )),
            kl: Some(kl),
        }
    }

    fn loss(&self, weights: &[Vec<f64>], kl: f64) -> f64 {
        let at_new = predict(&self.mlp, weights, &self.xs[..self.ys.len()]);
        let ys = std::iter::repeat_n(&self.ys, weights.len()).flatten();
        let standardised = distance(at_new.iter().flatten(), ys) / self.config.new.noise;
        let penalty = match self.penalised {
            true => self.config.finetuning.kl_weight * kl,
            false => 0.0,
        };
        0.5 * standardised * standardised + penalty
    }

    /// The predictive distribution of now along `xs`.
    pub fn band(&self, xs: &[f64]) -> Band {
        Band::new(&self.mlp, &self.weights(), xs)
    }

    /// Each function's gradient as [`gradients`](Self::gradients) left it.
    #[cfg(test)]
    pub(super) fn last_gradients(&self) -> Vec<&[f64]> {
        self.functions.iter().map(|f| &f.gradient[..]).collect()
    }

    fn weights(&self) -> Vec<Vec<f64>> {
        self.functions.iter().map(|f| f.weights.clone()).collect()
    }
}

/// The functions that are finetuned, as they begin.
fn students<'p>(config: &Config, posterior: &'p Posterior) -> &'p [Vec<f64>] {
    match config.finetuning.student {
        Student::Ensemble => &posterior.particles,
        Student::Map => std::slice::from_ref(&posterior.map),
    }
}

impl FinetuningState {
    /// Refuses a state of another configuration or posterior.
    fn check(&self, config: &Config, weights: usize, posterior: &Posterior) -> Result<()> {
        let refuse = |what: String| Err(Error::State(what));
        let steps = config.finetuning.steps;
        if self.step > steps {
            return refuse(format!("it is at step {} of {steps}", self.step));
        }
        let count = students(config, posterior).len();
        if count == 0 || posterior.particles.is_empty() || self.functions.len() != count {
            return refuse(format!(
                "it has {} functions for {count}",
                self.functions.len()
            ));
        }
        let start = posterior.particles.iter().chain([&posterior.map]);
        match self
            .functions
            .iter()
            .chain(start)
            .find(|f| f.len() != weights)
        {
            Some(f) => refuse(format!("it has {} weights for {weights}", f.len())),
            None => Ok(()),
        }
    }
}
