//! The settings of the study on a line: a small Bayesian network, noisy points of two functions.

use serde::{Deserialize, Serialize};

/// Names of its datasets: the first phase trains the old points, the second the new ones.
pub const REGRESSION_DATASETS: [&str; 2] = ["old", "new"];

/// The two sets of points, and where is measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegressionSpec {
    /// Evenly spaced held-out points on each interval, ends included; targets without noise.
    pub grid: usize,
    /// Ends of the picture's curves.
    pub picture: [f64; 2],
    /// Points of the picture's curves.
    pub picture_points: usize,
    /// Points that the network learns first.
    pub old: SamplesSettings,
    /// Points it is finetuned on.
    pub new: SamplesSettings,
}

/// Noisy points of a target function. Their x are uniform draws on the interval.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SamplesSettings {
    /// How many.
    pub points: usize,
    /// Left end of the interval.
    pub from: f64,
    /// Right end of the interval.
    pub to: f64,
    /// Standard deviation of the noise.
    pub noise: f64,
}

/// A tanh network with a Gaussian prior, and how its posterior is found and finetuned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BayesianSpec {
    /// Widths of the hidden layers.
    pub hidden: Vec<usize>,
    /// Standard deviation of the Gaussian prior of every weight and bias.
    pub prior_std: f64,
    /// Of the most probable weights.
    pub map: MapSettings,
    /// Of the sampling of the posterior.
    pub sghmc: SghmcSettings,
    /// Of the phase on the new points.
    pub finetuning: FinetuningSettings,
}

/// Gradient descent on the negative log posterior of the old points, a sum over them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MapSettings {
    /// Number of steps.
    pub steps: usize,
    /// Learning rate of the first step.
    pub lr_start: f64,
    /// Learning rate of the last step; linear between.
    pub lr_end: f64,
    /// Largest norm of the gradient.
    pub clip: f64,
    /// Standard deviation of the initial matrices; biases begin at 0.
    pub init_std: f64,
}

/// Stochastic-gradient Hamiltonian Monte Carlo from the most probable weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SghmcSettings {
    /// Independent chains.
    pub chains: usize,
    /// Functions kept of each chain.
    pub particles: usize,
    /// Steps before the first one is kept.
    pub burn_in: usize,
    /// Steps from one kept function to the next.
    pub thinning: usize,
    /// The η of `m ← (1 − α) m − η ∇U + √(2 α η T) ξ`, `θ ← θ + m`.
    pub step_size: f64,
    /// The α there.
    pub friction: f64,
    /// The T there; 1 would be the posterior itself.
    pub temperature: f64,
    /// Largest norm of ∇U. Where it binds, what is sampled is wider than the posterior.
    pub clip: f64,
}

/// Gradient descent on the new points, every function from its own start, beside `optimizer.lr`.
///
/// The source takes the mean of the loss over its 320 functions, lr 3.5e-3, and clips the norm of the gradient of them
/// all at 40. Here both are said for one function, so that each moves as it does there whatever their number: the
/// gradient is that of its own loss, the rate is 3.5e-3 / 320, and `clip`, 40 · √320, bounds the root mean square of
/// the functions' norms.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FinetuningSettings {
    /// Which functions are trained.
    pub student: Student,
    /// Largest root mean square of the functions' gradient norms.
    pub clip: f64,
    /// Added to the functions' standard deviation to make the predictive one.
    pub kl_std: f64,
}

/// Which functions are finetuned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Student {
    /// All functions sampled from the posterior, as in the source.
    #[default]
    Ensemble,
    /// The most probable function alone; its predictive spread is `kl_std`. Its weights are smaller than the sampled
    /// ones: at the default rate it learns little, at lr 3.5e-3 with clip 40 the new function.
    Map,
}

impl SghmcSettings {
    /// Steps of sampling, which ends with the last function kept.
    pub fn steps(&self) -> usize {
        self.burn_in + self.particles.saturating_sub(1) * self.thinning + 1
    }
}

impl BayesianSpec {
    /// Steps of the phase on the old points.
    pub fn pretraining_steps(&self) -> usize {
        self.map.steps + self.sghmc.steps()
    }

    /// Functions that sampling keeps.
    pub fn functions(&self) -> usize {
        self.sghmc.chains * self.sghmc.particles
    }

    /// Weights of one function.
    pub fn weights(&self) -> usize {
        let ins = std::iter::once(1).chain(self.hidden.iter().copied());
        let outs = self.hidden.iter().copied().chain([1]);
        ins.zip(outs).map(|(i, o)| (i + 1) * o).sum()
    }
}
