//! All that decides the numbers of an arm, in one place: the settings of a run as this study takes them.

use forgetlab_study::experiment::{
    MapSettings, RunConfig, SamplesSettings, SghmcSettings, Student,
};

/// The settings of an arm; a run's configuration was checked before.
#[derive(Clone, Debug, PartialEq)]
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
    pub finetuning: FinetuningConfig,
    /// When and where is measured.
    pub evaluation: EvaluationConfig,
}

/// Gradient descent on the new points, every function from its own start.
#[derive(Clone, Debug, PartialEq)]
pub struct FinetuningConfig {
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
#[derive(Clone, Debug, PartialEq)]
pub struct EvaluationConfig {
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

impl Config {
    /// The settings of an arm by its configuration and its coefficient; `None` where that is no regression.
    pub fn of(run: &RunConfig, coeff: Option<f64>) -> Option<Self> {
        let (model, data) = run.regression()?;
        let [first, second] = [0, 1].map(|phase| run.in_phase(phase));
        Some(Self {
            old: data.old.clone(),
            new: data.new.clone(),
            hidden: model.hidden.clone(),
            prior_std: model.prior_std,
            map: model.map.clone(),
            sghmc: model.sghmc.clone(),
            finetuning: FinetuningConfig {
                student: model.finetuning.student,
                steps: second.steps as usize,
                lr: second.optimizer.lr,
                clip: model.finetuning.clip,
                kl_std: model.finetuning.kl_std,
                kl_weight: coeff.unwrap_or(0.0),
            },
            evaluation: EvaluationConfig {
                pretraining_every: first.eval_every as usize,
                finetuning_every: second.eval_every as usize,
                grid: data.grid,
                picture: data.picture,
                picture_points: data.picture_points,
            },
        })
    }

    /// Steps on the old points.
    pub fn pretraining_steps(&self) -> usize {
        self.map.steps + self.sghmc.steps()
    }
}
