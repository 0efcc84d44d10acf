//! What an evaluation measures.

use std::f64::consts::TAU;

use forgetlab_study::experiment::SamplesSettings;
use serde::{Deserialize, Serialize};

use super::config::Config;
use super::data::{evenly, new_target, old_target};
use super::ensemble::{Moments, predict};
use super::mlp::Mlp;
use super::stage::Stage;

/// Error on the held-out grid of one interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Errors {
    /// Root mean square of predictive mean minus target.
    pub rmse: f64,
    /// The same for single functions, over all of them: never below `rmse`, and not lowered by errors that cancel.
    pub function_rmse: f64,
    /// Expected negative log-likelihood of a noisy held-out point, in nats: the prediction is a Gaussian with the
    /// functions' mean, their variance plus that of the noise; the expectation over the noise is exact.
    pub nll: f64,
}

/// The figures of one evaluation. Distances are root mean squares over the held-out grid of the *old* interval.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Which part of the study.
    pub stage: Stage,
    /// Steps taken in this stage.
    pub step: usize,
    /// Functions evaluated.
    pub functions: usize,
    /// What the stage minimises: the negative log posterior while pretraining (in sampling the chains' mean); the
    /// squared standardised error on the new points, halved, plus the weighted penalty, while finetuning.
    pub loss: f64,
    /// On the old interval.
    pub old: Errors,
    /// On the new interval.
    pub new: Errors,
    /// Between the mean function and the most probable one; nothing before that is known.
    pub distance_to_map: Option<f64>,
    /// Between the mean function and the posterior's; nothing while pretraining.
    pub distance_to_posterior: Option<f64>,
    /// Between each function and itself before finetuning, over all of them; nothing while pretraining.
    pub function_distance: Option<f64>,
    /// KL of the predictive distribution now to that before, at the old training inputs; measured in either arm.
    pub kl: Option<f64>,
}

/// Held-out inputs of both intervals.
pub(super) struct Grids {
    old: Grid,
    new: Grid,
}

pub(super) struct Grid {
    pub(super) x: Vec<f64>,
    target: Vec<f64>,
    noise: f64,
}

/// The functions' values on both grids.
pub(super) struct Predictions {
    pub(super) old: Vec<Vec<f64>>,
    pub(super) new: Vec<Vec<f64>>,
}

impl Grids {
    pub(super) fn new(config: &Config) -> Self {
        let grid = |s: &SamplesSettings, target: fn(f64) -> f64| {
            let x = evenly(s.from, s.to, config.evaluation.grid);
            Grid {
                target: x.iter().copied().map(target).collect(),
                x,
                noise: s.noise,
            }
        };
        Self {
            old: grid(&config.old, old_target),
            new: grid(&config.new, new_target),
        }
    }

    pub(super) fn predict(&self, mlp: &Mlp, functions: &[Vec<f64>]) -> Predictions {
        Predictions {
            old: predict(mlp, functions, &self.old.x),
            new: predict(mlp, functions, &self.new.x),
        }
    }

    /// Old and new errors.
    pub(super) fn errors(&self, predictions: &Predictions) -> (Errors, Errors) {
        (
            self.old.errors(&predictions.old),
            self.new.errors(&predictions.new),
        )
    }
}

impl Grid {
    fn errors(&self, values: &[Vec<f64>]) -> Errors {
        let points = self.x.len();
        let Moments { mean, std } = Moments::of(values.iter().map(Vec::as_slice), points);
        let noise = self.noise * self.noise;
        let (mut squares, mut function_squares, mut nll) = (0.0, 0.0, 0.0);
        for i in 0..points {
            let square = (mean[i] - self.target[i]).powi(2);
            let variance = std[i] * std[i] + noise;
            squares += square;
            function_squares += square + std[i] * std[i];
            nll += 0.5 * ((TAU * variance).ln() + (noise + square) / variance);
        }
        Errors {
            rmse: (squares / points as f64).sqrt(),
            function_rmse: (function_squares / points as f64).sqrt(),
            nll: nll / points as f64,
        }
    }
}

/// The mean function of rows of values.
pub(super) fn mean(values: &[Vec<f64>]) -> Vec<f64> {
    let points = values.first().map_or(0, Vec::len);
    Moments::of(values.iter().map(Vec::as_slice), points).mean
}

/// Root mean square of a difference.
pub(super) fn distance<'a>(
    a: impl IntoIterator<Item = &'a f64>,
    b: impl IntoIterator<Item = &'a f64>,
) -> f64 {
    let (sum, count) = a.into_iter().zip(b).fold((0.0, 0), |(sum, count), (a, b)| {
        (sum + (a - b).powi(2), count + 1)
    });
    (sum / f64::from(count.max(1))).sqrt()
}

/// Whether an evaluation is due after `step` of `steps`: at the end, at multiples of `every`, and at powers of two
/// before the first of these.
pub(super) fn due(step: usize, steps: usize, every: usize) -> bool {
    step == steps || step.is_multiple_of(every) || (step < every && step.is_power_of_two())
}
