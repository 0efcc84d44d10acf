//! Stochastic-gradient Hamiltonian Monte Carlo (Chen, Fox and Guestrin, arXiv 1402.4102, eq. 15).

use forgetlab_engine::Random;
use serde::{Deserialize, Serialize};

use forgetlab_study::experiment::SghmcSettings;

/// One chain: where it is, and where it is going.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Chain {
    /// Weights.
    pub position: Vec<f64>,
    /// The last step.
    pub momentum: Vec<f64>,
}

impl Chain {
    /// A chain at rest.
    pub fn at(position: Vec<f64>) -> Self {
        let momentum = vec![0.0; position.len()];
        Self { position, momentum }
    }

    /// One step down the (clipped) gradient of the potential, with friction and the noise that makes up for it.
    pub(super) fn step(&mut self, gradient: &[f64], settings: &SghmcSettings, noise: &mut Random) {
        let keep = 1.0 - settings.friction;
        let scale = (2.0 * settings.friction * settings.step_size * settings.temperature).sqrt();
        for ((position, momentum), gradient) in self
            .position
            .iter_mut()
            .zip(&mut self.momentum)
            .zip(gradient)
        {
            *momentum = keep * *momentum - settings.step_size * gradient
                + scale * f64::from(noise.normal());
            *position += *momentum;
        }
    }
}

/// Scales `gradient` down to the norm `largest` where it is longer; returns the norm it had.
pub(super) fn clip(gradient: &mut [f64], largest: f64) -> f64 {
    let norm = (gradient.iter().map(|g| g * g).sum::<f64>() + 1e-12).sqrt();
    if norm > largest {
        let scale = largest / norm;
        gradient.iter_mut().for_each(|g| *g *= scale);
    }
    norm
}
