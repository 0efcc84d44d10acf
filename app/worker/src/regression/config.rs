//! The settings, with the paper's values.

use serde::{Deserialize, Serialize};

use super::error::{Error, Result};

/// Functions in the paper's ensemble: 80 of each of 4 chains.
const PAPER_FUNCTIONS: f64 = 320.0;

/// All settings of the regression study; the default is the paper's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Points that the network learns first.
    pub old: SamplesSettings,
    /// Points it is finetuned on.
    pub new: SamplesSettings,
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
    /// When and where is measured.
    pub evaluation: EvaluationSettings,
}

/// Noisy points of a target function. Their x are uniform draws on the interval, as in the source.
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

/// Gradient descent on the negative log posterior of the old points, a sum over them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
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
#[serde(default, deny_unknown_fields)]
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

/// Gradient descent on the new points, every function from its own start.
///
/// The source takes the mean of the loss over its 320 functions, lr 3.5e-3, and clips the norm of the gradient of them
/// all at 40. Here both are said for one function, so that each moves as it does there whatever their number: the
/// gradient is that of its own loss, `lr` is 3.5e-3 / 320, and `clip`, 40 · √320, bounds the root mean square of the
/// functions' norms.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FinetuningSettings {
    /// Which functions are trained.
    pub student: Student,
    /// Number of steps.
    pub steps: usize,
    /// Learning rate of one function.
    pub lr: f64,
    /// Largest root mean square of the functions' gradient norms.
    pub clip: f64,
    /// Added to the functions' standard deviation to make the predictive one.
    pub kl_std: f64,
    /// Weight of the penalty, where there is one.
    pub kl_weight: f64,
}

/// When and where is measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EvaluationSettings {
    /// Steps of MAP training and of sampling between evaluations.
    pub pretraining_every: usize,
    /// Steps of finetuning between evaluations; before the first of them at every power of two.
    pub finetuning_every: usize,
    /// Evenly spaced held-out points on each interval, ends included; targets without noise.
    pub grid: usize,
    /// Ends of the picture's curves.
    pub picture: [f64; 2],
    /// Points of the picture's curves.
    pub picture_points: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            old: SamplesSettings {
                points: 82,
                from: -3.2,
                to: -0.08,
                noise: 0.02,
            },
            new: SamplesSettings {
                points: 44,
                from: 0.28,
                to: 3.2,
                noise: 0.045,
            },
            hidden: vec![48, 48, 24],
            prior_std: 1.0,
            map: MapSettings::default(),
            sghmc: SghmcSettings::default(),
            finetuning: FinetuningSettings::default(),
            evaluation: EvaluationSettings::default(),
        }
    }
}

impl Default for MapSettings {
    fn default() -> Self {
        Self {
            steps: 12_000,
            lr_start: 7e-3,
            lr_end: 2e-4,
            clip: 25.0,
            init_std: 0.08,
        }
    }
}

impl Default for SghmcSettings {
    fn default() -> Self {
        Self {
            chains: 4,
            particles: 80,
            burn_in: 5_000,
            thinning: 12,
            step_size: 2e-5,
            friction: 0.08,
            temperature: 0.12,
            clip: 40.0,
        }
    }
}

impl Default for FinetuningSettings {
    fn default() -> Self {
        Self {
            student: Student::Ensemble,
            steps: 8_000,
            lr: 3.5e-3 / PAPER_FUNCTIONS,
            clip: 40.0 * PAPER_FUNCTIONS.sqrt(),
            kl_std: 0.08,
            kl_weight: 1.0,
        }
    }
}

impl Default for EvaluationSettings {
    fn default() -> Self {
        Self {
            pretraining_every: 1_000,
            finetuning_every: 250,
            grid: 200,
            picture: [-3.4, 3.4],
            picture_points: 500,
        }
    }
}

impl Config {
    /// The paper's settings.
    pub fn paper() -> Self {
        Self::default()
    }

    /// The paper's, with a quarter of the functions: some five minutes of one core. Each function moves as in the paper.
    pub fn cpu() -> Self {
        let mut config = Self::paper();
        config.sghmc.particles = 20;
        config
    }

    /// A small network and a short training at a higher rate: seconds in a debug build.
    ///
    /// It shows which arm forgets more, and no more than that: it is too small to learn the new function.
    pub fn smoke() -> Self {
        let mut config = Self::paper();
        config.hidden = vec![16, 16, 8];
        config.map.steps = 600;
        config.sghmc.chains = 2;
        config.sghmc.particles = 4;
        config.sghmc.burn_in = 200;
        config.finetuning.steps = 400;
        config.finetuning.lr *= 10.0;
        config.evaluation.pretraining_every = 500;
        config.evaluation.finetuning_every = 100;
        config.evaluation.grid = 50;
        config.evaluation.picture_points = 120;
        config
    }

    /// Refuses settings that no run could use, naming the first.
    pub fn check(&self) -> Result<()> {
        let counts = [
            ("old.points", self.old.points),
            ("new.points", self.new.points),
            ("hidden", self.hidden.iter().copied().min().unwrap_or(0)),
            ("map.steps", self.map.steps),
            ("sghmc.chains", self.sghmc.chains),
            ("sghmc.particles", self.sghmc.particles),
            ("sghmc.thinning", self.sghmc.thinning),
            ("finetuning.steps", self.finetuning.steps),
            (
                "evaluation.pretraining-every",
                self.evaluation.pretraining_every,
            ),
            (
                "evaluation.finetuning-every",
                self.evaluation.finetuning_every,
            ),
        ];
        for (setting, value) in counts {
            require(value > 0, setting, &value, "at least 1")?;
        }
        for (setting, value) in [
            ("evaluation.grid", self.evaluation.grid),
            ("evaluation.picture-points", self.evaluation.picture_points),
        ] {
            require(value > 1, setting, &value, "at least 2")?;
        }
        let positive = [
            ("old.noise", self.old.noise),
            ("new.noise", self.new.noise),
            ("prior-std", self.prior_std),
            ("map.lr-start", self.map.lr_start),
            ("map.lr-end", self.map.lr_end),
            ("map.clip", self.map.clip),
            ("map.init-std", self.map.init_std),
            ("sghmc.step-size", self.sghmc.step_size),
            ("sghmc.clip", self.sghmc.clip),
            ("finetuning.lr", self.finetuning.lr),
            ("finetuning.clip", self.finetuning.clip),
            ("finetuning.kl-std", self.finetuning.kl_std),
        ];
        for (setting, value) in positive {
            require(value.is_finite() && value > 0.0, setting, &value, "above 0")?;
        }
        for (setting, value) in [
            ("sghmc.temperature", self.sghmc.temperature),
            ("finetuning.kl-weight", self.finetuning.kl_weight),
        ] {
            require(
                value.is_finite() && value >= 0.0,
                setting,
                &value,
                "0 or above",
            )?;
        }
        let friction = self.sghmc.friction;
        let fits = friction > 0.0 && friction <= 1.0;
        require(fits, "sghmc.friction", &friction, "above 0 and at most 1")?;
        for (setting, from, to) in [
            ("old.from", self.old.from, self.old.to),
            ("new.from", self.new.from, self.new.to),
            (
                "evaluation.picture",
                self.evaluation.picture[0],
                self.evaluation.picture[1],
            ),
        ] {
            let fits = from.is_finite() && to.is_finite() && from < to;
            require(fits, setting, &from, "below the interval's other end")?;
        }
        Ok(())
    }
}

fn require(
    holds: bool,
    setting: &'static str,
    value: &dyn std::fmt::Display,
    must: &'static str,
) -> Result<()> {
    if holds {
        return Ok(());
    }
    Err(Error::Setting {
        setting,
        value: value.to_string(),
        must,
    })
}
