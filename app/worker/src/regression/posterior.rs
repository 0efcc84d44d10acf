//! The log posterior of the old points, and what pretraining leaves behind.

use serde::{Deserialize, Serialize};

use super::config::Config;
use super::data::Points;
use super::ensemble::Band;
use super::mlp::{Mlp, Trace};

/// What the old points taught: the most probable function, and functions sampled from the posterior.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Posterior {
    /// Weights of the most probable function.
    pub map: Vec<f64>,
    /// Weights of each sampled function, chain after chain.
    pub particles: Vec<Vec<f64>>,
}

impl Posterior {
    /// The predictive distribution along `xs`.
    pub fn band(&self, config: &Config, xs: &[f64]) -> Band {
        Band::new(&Mlp::new(&config.hidden), &self.particles, xs)
    }

    /// The most probable function along `xs`.
    pub fn map_curve(&self, config: &Config, xs: &[f64]) -> Vec<f64> {
        let mut trace = Trace::default();
        let mlp = Mlp::new(&config.hidden);
        mlp.forward(&self.map, xs, &mut trace).to_vec()
    }
}

/// `−log p(θ | points)` up to a constant: a Gaussian likelihood summed over the points, and a Gaussian prior.
pub(super) struct Potential<'a> {
    pub(super) mlp: &'a Mlp,
    pub(super) points: &'a Points,
    pub(super) noise: f64,
    pub(super) prior_std: f64,
}

impl Potential<'_> {
    /// The value, `Σ ((y − f)/σ)²/2 + N ln(σ √2π) + |θ|²/(2 s²)`; writes its gradient.
    pub(super) fn value_and_gradient(
        &self,
        weights: &[f64],
        trace: &mut Trace,
        gradient: &mut [f64],
    ) -> f64 {
        let precision = 1.0 / (self.noise * self.noise);
        let outputs = self.mlp.forward(weights, &self.points.x, trace);
        let slopes: Vec<f64> = outputs
            .iter()
            .zip(&self.points.y)
            .map(|(f, y)| (f - y) * precision)
            .collect();
        let misfit = slopes.iter().map(|s| s * s).sum::<f64>() / precision;
        self.mlp.backward(weights, &slopes, trace, gradient);
        let prior_precision = 1.0 / (self.prior_std * self.prior_std);
        let mut squares = 0.0;
        for (gradient, weight) in gradient.iter_mut().zip(weights) {
            *gradient += weight * prior_precision;
            squares += weight * weight;
        }
        let normaliser = (self.noise * std::f64::consts::TAU.sqrt()).ln();
        0.5 * misfit + slopes.len() as f64 * normaliser + 0.5 * squares * prior_precision
    }
}
