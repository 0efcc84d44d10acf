//! The curves of the picture.

use serde::{Deserialize, Serialize};

use super::config::Config;
use super::data::{Data, evenly, new_target, old_target};
use super::ensemble::Band;
use super::posterior::Posterior;

/// The curves of a seed: targets, points, and the predictive distribution before and after finetuning.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Picture {
    /// Evenly spaced.
    pub x: Vec<f64>,
    /// The old target, also outside its interval.
    pub old_target: Vec<f64>,
    /// The new target, also outside its interval.
    pub new_target: Vec<f64>,
    /// The most probable function of the old points.
    pub map: Vec<f64>,
    /// Before finetuning.
    pub before: Band,
    /// The training points.
    pub data: Data,
}

impl Picture {
    /// All that is known before finetuning; an arm adds its [`band`](super::Finetuning::band) along `x`.
    pub fn new(config: &Config, seed: u64, posterior: &Posterior) -> Self {
        let [from, to] = config.evaluation.picture;
        let x = evenly(from, to, config.evaluation.picture_points);
        Self {
            old_target: x.iter().copied().map(old_target).collect(),
            new_target: x.iter().copied().map(new_target).collect(),
            map: posterior.map_curve(config, &x),
            before: posterior.band(config, &x),
            data: Data::new(config, seed),
            x,
        }
    }
}
