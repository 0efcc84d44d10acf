//! Several functions as one predictive distribution.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::mlp::{Mlp, Trace};

/// Values of each of the functions at `xs`.
pub(super) fn predict(mlp: &Mlp, functions: &[Vec<f64>], xs: &[f64]) -> Vec<Vec<f64>> {
    functions
        .par_iter()
        .map_init(Trace::default, |trace, weights| {
            mlp.forward(weights, xs, trace).to_vec()
        })
        .collect()
}

/// Mean and standard deviation (of the functions there are, not an estimate for more) at each point.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Moments {
    pub(super) mean: Vec<f64>,
    pub(super) std: Vec<f64>,
}

impl Moments {
    /// Of `values`, one row a function; the sums run in the order of the functions.
    pub(super) fn of<'v>(values: impl Iterator<Item = &'v [f64]> + Clone, points: usize) -> Self {
        let mut mean = vec![0.0; points];
        let mut std = vec![0.0; points];
        let count = values.clone().count() as f64;
        for row in values.clone() {
            for (sum, value) in mean.iter_mut().zip(row) {
                *sum += value;
            }
        }
        mean.iter_mut().for_each(|m| *m /= count);
        for row in values {
            for ((sum, value), mean) in std.iter_mut().zip(row).zip(&mean) {
                *sum += (value - mean).powi(2);
            }
        }
        std.iter_mut().for_each(|s| *s = (*s / count).sqrt());
        Self { mean, std }
    }
}

/// The penalty: how far the predictive distribution of now has gone from the one before, at the old inputs.
///
/// At each input both are Gaussians with the functions' mean, and their standard deviation plus `extra_std`. The
/// divergence is the source's, KL(now ‖ before): `ln(σ₀/σ) + (σ² + (μ − μ₀)²) / (2 σ₀²) − ½`, averaged over inputs.
#[derive(Clone, Debug)]
pub(super) struct Penalty {
    pub(super) before: Moments,
    pub(super) extra_std: f64,
}

impl Penalty {
    /// Mean over the inputs.
    pub(super) fn value(&self, now: &Moments) -> f64 {
        let mut sum = 0.0;
        for i in 0..now.mean.len() {
            let (std, std_before) = self.stds(now, i);
            let moved = now.mean[i] - self.before.mean[i];
            sum += (std_before / std).ln()
                + (std * std + moved * moved) / (2.0 * std_before * std_before)
                - 0.5;
        }
        sum / now.mean.len() as f64
    }

    /// Adds `weight` times the derivative of the value with respect to one function's outputs, times the number of
    /// functions, to `slopes`. Where all functions agree, the derivative of their deviation is taken as 0.
    pub(super) fn add_slopes(
        &self,
        now: &Moments,
        values: &[f64],
        weight: f64,
        slopes: &mut [f64],
    ) {
        let weight = weight / values.len() as f64;
        for i in 0..values.len() {
            let (std, std_before) = self.stds(now, i);
            let precision = 1.0 / (std_before * std_before);
            let by_mean = (now.mean[i] - self.before.mean[i]) * precision;
            let by_std = std * precision - 1.0 / std;
            let std_by_value = if now.std[i] > 0.0 {
                (values[i] - now.mean[i]) / now.std[i]
            } else {
                0.0
            };
            slopes[i] += weight * (by_mean + by_std * std_by_value);
        }
    }

    fn stds(&self, now: &Moments, i: usize) -> (f64, f64) {
        (
            now.std[i] + self.extra_std,
            self.before.std[i] + self.extra_std,
        )
    }
}

/// A predictive distribution along a grid, for a picture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Band {
    /// Mean of the functions.
    pub mean: Vec<f64>,
    /// Standard deviation of the functions, without noise.
    pub std: Vec<f64>,
    /// Median of the functions: the paper's curve.
    pub median: Vec<f64>,
    /// Lower quartile, linear between functions.
    pub lower_quartile: Vec<f64>,
    /// Upper quartile.
    pub upper_quartile: Vec<f64>,
}

impl Band {
    pub(super) fn new(mlp: &Mlp, functions: &[Vec<f64>], xs: &[f64]) -> Self {
        let values = predict(mlp, functions, xs);
        let Moments { mean, std } = Moments::of(values.iter().map(Vec::as_slice), xs.len());
        let mut quartiles = [const { Vec::new() }; 3];
        let mut column = Vec::with_capacity(values.len());
        for i in 0..xs.len() {
            column.clear();
            column.extend(values.iter().map(|row| row[i]));
            column.sort_by(f64::total_cmp);
            for (k, quartile) in quartiles.iter_mut().enumerate() {
                let at = (k + 1) as f64 / 4.0 * (column.len() - 1) as f64;
                let (low, high) = (column[at as usize], column[at.ceil() as usize]);
                quartile.push(low + (high - low) * at.fract());
            }
        }
        let [lower_quartile, median, upper_quartile] = quartiles;
        Self {
            mean,
            std,
            median,
            lower_quartile,
            upper_quartile,
        }
    }
}
