//! Phases as they are written: what each trains on, how long, with which settings, and when it ends.

use serde::{Deserialize, Serialize};

/// One phase: training on one dataset.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PhaseSpec {
    /// Dataset trained on; its name in the CSVs.
    pub dataset: String,
    /// Optimizer steps; other criteria may end the phase before. 0 where its length is given otherwise.
    #[serde(default)]
    pub steps: u64,
    /// Its length in tokens of new data, rounded up to steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// The same a parameter of the model, of 12·L·D² + D·V: one embedding counts, although there are two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_per_parameter: Option<f64>,
    /// Its length in passes over the training rows of its dataset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epochs: Option<f64>,
    /// Another dataset, rows of which stand in the place of some of each batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mix: Option<MixSpec>,
    /// Joint training, a control: the phase begins from the initial weights, and trains on the data of the first phase
    /// mixed with its own, as long as both phases together and with the optimizer of the first.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub joint: bool,
    /// Ends the phase at the first evaluation where the held-out loss of its dataset (`ntp`) is at most this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_loss: Option<f64>,
    /// Ends the phase once more than so many evaluations in a row have not lowered the held-out loss of its dataset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patience: Option<u64>,
    /// Ends the phase after so many seconds of training; evaluations and the first five steps do not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// Rows of a batch of new data, where they are not `training.batch_size`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_size: Option<usize>,
    /// Optimizer steps between evaluations, where they are not `training.eval_every`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eval_every: Option<u64>,
    /// Settings of the optimizer that are not the run's.
    #[serde(default, skip_serializing_if = "PhaseOptimizer::is_empty")]
    pub optimizer: PhaseOptimizer,
}

impl PhaseSpec {
    /// Its length in words, e.g. `200 steps`.
    pub fn length(&self) -> String {
        match (self.tokens, self.tokens_per_parameter, self.epochs) {
            (Some(tokens), ..) => format!("{tokens} tokens"),
            (_, Some(each), _) => format!("{each} tokens a parameter"),
            (.., Some(epochs)) => format!("{epochs} epochs"),
            _ => format!("{} steps", self.steps),
        }
    }
}

/// A dataset that is mixed into the batches of another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MixSpec {
    /// Dataset.
    pub dataset: String,
    /// Share of each batch's rows.
    pub share: f64,
}

/// AdamW and its schedule, or plain gradient descent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "OptimizerTable", into = "OptimizerTable")]
pub struct OptimizerSpec {
    /// Peak learning rate; an arm may override it for the phases after the first.
    pub lr: f64,
    /// Steps of linear warm-up from 0 at the start of each phase.
    pub warmup_steps: u64,
    /// The same in tokens of new data, rounded up to steps; in place of `warmup_steps`.
    pub warmup_tokens: Option<u64>,
    /// What follows the warm-up.
    pub schedule: Schedule,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Epsilon, added to the square root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay, multiplied by the learning rate.
    pub weight_decay: f64,
}

impl OptimizerSpec {
    /// Plain gradient descent, which a file writes as `lr` alone.
    pub fn gradient_descent(lr: f64) -> Self {
        Self {
            lr,
            warmup_steps: 0,
            warmup_tokens: None,
            schedule: Schedule::Constant,
            beta1: 0.0,
            beta2: 0.0,
            eps: 0.0,
            weight_decay: 0.0,
        }
    }

    /// Whether it is plain gradient descent; AdamW has an epsilon above 0.
    pub fn is_gradient_descent(&self) -> bool {
        *self == Self::gradient_descent(self.lr)
    }
}

/// The table `[optimizer]` of a file.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OptimizerTable {
    lr: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    warmup_steps: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    warmup_tokens: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    schedule: Option<Schedule>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    beta1: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    beta2: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    eps: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    weight_decay: Option<f64>,
}

impl TryFrom<OptimizerTable> for OptimizerSpec {
    type Error = String;

    fn try_from(table: OptimizerTable) -> Result<Self, String> {
        let lr_alone = OptimizerTable::from(Self::gradient_descent(table.lr));
        if table == lr_alone {
            return Ok(Self::gradient_descent(table.lr));
        }
        fn required<T>(key: &str, value: Option<T>) -> Result<T, String> {
            value.ok_or_else(|| format!("missing field `{key}` (lr alone is gradient descent)"))
        }
        Ok(Self {
            lr: table.lr,
            warmup_steps: required("warmup_steps", table.warmup_steps)?,
            warmup_tokens: table.warmup_tokens,
            schedule: required("schedule", table.schedule)?,
            beta1: required("beta1", table.beta1)?,
            beta2: required("beta2", table.beta2)?,
            eps: required("eps", table.eps)?,
            weight_decay: required("weight_decay", table.weight_decay)?,
        })
    }
}

impl From<OptimizerSpec> for OptimizerTable {
    fn from(spec: OptimizerSpec) -> Self {
        let adamw = !spec.is_gradient_descent();
        Self {
            lr: spec.lr,
            warmup_steps: adamw.then_some(spec.warmup_steps),
            warmup_tokens: spec.warmup_tokens,
            schedule: adamw.then_some(spec.schedule),
            beta1: adamw.then_some(spec.beta1),
            beta2: adamw.then_some(spec.beta2),
            eps: adamw.then_some(spec.eps),
            weight_decay: adamw.then_some(spec.weight_decay),
        }
    }
}

/// Course of the learning rate after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// Stays at the peak.
    Constant,
    /// Half a cosine down to 0 at the end of the phase.
    Cosine,
}

/// Settings of the optimizer in one phase; what is not set is the run's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PhaseOptimizer {
    /// Peak learning rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lr: Option<f64>,
    /// Steps of linear warm-up from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warmup_steps: Option<u64>,
    /// The same in tokens of new data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warmup_tokens: Option<u64>,
    /// What follows the warm-up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// Decay of the first moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beta1: Option<f64>,
    /// Decay of the second moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beta2: Option<f64>,
    /// Epsilon, added to the square root of the second moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eps: Option<f64>,
    /// Decoupled weight decay, multiplied by the learning rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight_decay: Option<f64>,
}

impl PhaseOptimizer {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Keys that say how long a phase is, of which it has one.
pub(super) const LENGTHS: [&str; 4] = ["steps", "tokens", "tokens_per_parameter", "epochs"];

/// Keys that say how long the learning rate warms up, of which a phase has one.
pub(super) const WARM_UPS: [&str; 2] = ["warmup_steps", "warmup_tokens"];

/// Keys of a phase's table beside its dataset, which `--set phases.DATASET.KEY=…` may add.
pub(super) const PHASE_KEYS: [&str; 19] = [
    "steps",
    "target_loss",
    "patience",
    "seconds",
    "tokens",
    "tokens_per_parameter",
    "epochs",
    "mix",
    "joint",
    "batch_size",
    "eval_every",
    "optimizer.lr",
    "optimizer.warmup_steps",
    "optimizer.warmup_tokens",
    "optimizer.schedule",
    "optimizer.beta1",
    "optimizer.beta2",
    "optimizer.eps",
    "optimizer.weight_decay",
];
