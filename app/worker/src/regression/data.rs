//! The two target functions, and noisy points of them.

use forgetlab_engine::Stream;
use forgetlab_study::experiment::SamplesSettings;
use serde::{Deserialize, Serialize};

use super::config::Config;

/// What the network learns first: a line with a ripple, a bump near −1.2 and a valley near −2.
pub fn old_target(x: f64) -> f64 {
    let bump = 0.52 * (-((x + 1.18) / 0.22).powi(2)).exp();
    let valley = 0.44 * (-((x + 2.02) / 0.31).powi(2)).exp();
    -0.82 + 0.05 * (x + 2.0) + bump - valley + 0.12 * (2.6 * (x + 1.6)).sin()
}

/// What it is finetuned on: three waves, larger than all of the old function.
pub fn new_target(x: f64) -> f64 {
    let z = x - 0.45;
    1.25 * (5.8 * z).sin() + 0.85 * (10.8 * z).sin() + 0.45 * (2.4 * z).cos()
}

/// Points of a function, with noise.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Points {
    /// Inputs.
    pub x: Vec<f64>,
    /// Outputs, with the noise.
    pub y: Vec<f64>,
}

/// The points of a run: old and new.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Data {
    /// Trained on first.
    pub old: Points,
    /// Finetuned on.
    pub new: Points,
}

impl Data {
    /// The points of this seed. Inputs and noise each come from a random stream of their own.
    pub fn new(config: &Config, seed: u64) -> Self {
        Self {
            old: sample(&config.old, seed, "old", old_target),
            new: sample(&config.new, seed, "new", new_target),
        }
    }
}

fn sample(settings: &SamplesSettings, seed: u64, name: &str, target: fn(f64) -> f64) -> Points {
    let mut inputs = Stream::new(seed, &format!("regression {name} inputs")).at(0);
    let mut noise = Stream::new(seed, &format!("regression {name} noise")).at(0);
    let width = settings.to - settings.from;
    let x: Vec<f64> = (0..settings.points)
        .map(|_| settings.from + width * f64::from(inputs.uniform()))
        .collect();
    let y = x
        .iter()
        .map(|&x| target(x) + settings.noise * f64::from(noise.normal()))
        .collect();
    Points { x, y }
}

/// Evenly spaced numbers from one end to the other, both included.
pub(super) fn evenly(from: f64, to: f64, points: usize) -> Vec<f64> {
    (0..points)
        .map(|i| from + (to - from) * i as f64 / (points - 1) as f64)
        .collect()
}
