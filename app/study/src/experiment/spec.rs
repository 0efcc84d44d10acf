//! The fully resolved description of a run, as it stands in a run's `config.toml`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::TokenSetSettings;

/// The configuration in a run's `config.toml`: everything that decides its numbers, nothing else.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// Name of the experiment, e.g. `toy-continual`.
    pub experiment: String,
    /// Name of the preset the values started from.
    pub preset: String,
    /// One set of arms is trained for each seed.
    pub seeds: Vec<u64>,
    /// `cpu`, `cuda` or `cuda:N`.
    pub device: String,
    /// CPU threads of the engine.
    pub threads: usize,
    /// Format of the matrix products' inputs; f32 in older configurations, which lack the field.
    #[serde(default)]
    pub precision: Precision,
    /// Architecture of the student.
    pub model: ModelSpec,
    /// Where the datasets come from.
    pub data: DataSpec,
    /// Optimizer and schedule, the same in every phase.
    pub optimizer: OptimizerSpec,
    /// Batches and intervals.
    pub training: TrainingSpec,
    /// Replay settings that all arms share.
    pub replay: ReplaySpec,
    /// Phases in order. The first is trained once and shared by the arms of a seed.
    pub phases: Vec<PhaseSpec>,
    /// Arms to compare, without the seeds.
    pub arms: Vec<ArmSpec>,
}

/// Format of the matrix products' inputs. Sums, weights, moments and losses are f32 in both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// IEEE single precision.
    #[default]
    F32,
    /// Inputs rounded to bfloat16.
    Bf16,
}

impl Precision {
    /// Name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }
}

/// The student: a small transformer trained from random weights, or a pretrained model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "ModelTable", into = "ModelTable")]
pub enum ModelSpec {
    /// The small transformer of arXiv 2605.26097.
    Mini(MiniSpec),
    /// A model of the Llama family.
    Pretrained(PretrainedSpec),
}

/// Sizes of the small transformer of arXiv 2605.26097.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MiniSpec {
    /// Width D of the residual stream.
    pub d_model: usize,
    /// Number of blocks L.
    pub n_layers: usize,
    /// Head size H; there are `d_model / head_dim` heads.
    pub head_dim: usize,
}

/// A pretrained model.
#[derive(Clone, Debug, PartialEq)]
pub struct PretrainedSpec {
    /// Folder, `.gguf` file or hub id, as given on the command line; in a run's own configuration, a
    /// hub id has its commit.
    pub pretrained: String,
    /// Content hash of its files, set when the run is created.
    pub hash: Option<String>,
    /// Adapters that are trained instead of the weights; a rank of 0 trains the weights.
    pub lora: LoraSpec,
}

/// Low-rank adapters (LoRA, arXiv 2106.09685).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoraSpec {
    /// Rank r of `B·A`; 0 for no adapters.
    pub rank: usize,
    /// `B·A` is multiplied by `alpha / rank`.
    pub alpha: f64,
}

/// Default of `lora_alpha`: twice the usual rank of 16.
const LORA_ALPHA: f64 = 32.0;

/// The table `[model]` of a file, before its keys are checked against each other.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelTable {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pretrained: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hash: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lora_rank: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lora_alpha: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    d_model: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    n_layers: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    head_dim: Option<usize>,
}

impl TryFrom<ModelTable> for ModelSpec {
    type Error = String;

    fn try_from(table: ModelTable) -> Result<Self, String> {
        let ModelTable {
            pretrained,
            hash,
            lora_rank,
            lora_alpha,
            d_model,
            n_layers,
            head_dim,
        } = table;
        if let Some(pretrained) = pretrained {
            let sizes = [
                ("d_model", d_model),
                ("n_layers", n_layers),
                ("head_dim", head_dim),
            ];
            return match sizes.iter().find(|(_, size)| size.is_some()) {
                Some((key, _)) => Err(format!("model.{key} is what model.pretrained says it is")),
                None => Ok(Self::Pretrained(PretrainedSpec {
                    pretrained,
                    hash,
                    lora: LoraSpec {
                        rank: lora_rank.unwrap_or(0),
                        alpha: lora_alpha.unwrap_or(LORA_ALPHA),
                    },
                })),
            };
        }
        if hash.is_some() {
            return Err("model.hash goes with model.pretrained".into());
        }
        if lora_rank.is_some() || lora_alpha.is_some() {
            return Err("adapters (lora_rank, lora_alpha) go with model.pretrained".into());
        }
        let required = |key: &str, size: Option<usize>| {
            size.ok_or_else(|| format!("missing field `{key}` (or `pretrained` alone)"))
        };
        Ok(Self::Mini(MiniSpec {
            d_model: required("d_model", d_model)?,
            n_layers: required("n_layers", n_layers)?,
            head_dim: required("head_dim", head_dim)?,
        }))
    }
}

impl From<ModelSpec> for ModelTable {
    fn from(model: ModelSpec) -> Self {
        let mut table = Self {
            pretrained: None,
            hash: None,
            lora_rank: None,
            lora_alpha: None,
            d_model: None,
            n_layers: None,
            head_dim: None,
        };
        match model {
            ModelSpec::Mini(MiniSpec {
                d_model,
                n_layers,
                head_dim,
            }) => {
                table.d_model = Some(d_model);
                table.n_layers = Some(n_layers);
                table.head_dim = Some(head_dim);
            }
            ModelSpec::Pretrained(PretrainedSpec {
                pretrained,
                hash,
                lora,
            }) => {
                table.pretrained = Some(pretrained);
                table.hash = hash;
                table.lora_rank = Some(lora.rank);
                table.lora_alpha = Some(lora.alpha);
            }
        }
        table
    }
}

/// Names of the digit tasks. `rotate` moves the first digit to the end, `complement` turns d into 9 − d.
pub const DIGIT_TASKS: [&str; 6] = ["add", "reversal", "sort", "modadd", "rotate", "complement"];

/// Source of an experiment's datasets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum DataSpec {
    /// Digit tasks: `add`, `modadd`, `reversal`, `sort`, `rotate`, `complement`.
    Digits {
        /// Digits of an operand.
        n_digits: usize,
        /// Share of all inputs held out for evaluation, chosen by hash.
        held_out: f64,
    },
    /// Texts, conversations and multiple-choice questions from files, for a pretrained model.
    Text(TextSpec),
}

/// Texts, conversations and multiple-choice questions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextSpec {
    /// How documents become rows of tokens.
    pub rows: TokenSetSettings,
    /// Datasets that are trained on, or whose loss alone is measured.
    pub datasets: Vec<DatasetSpec>,
    /// Question sets that only accuracy is measured on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub questions: Vec<QuestionsSpec>,
}

/// A dataset of text or conversations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatasetSpec {
    /// Name in the CSVs.
    pub name: String,
    /// Files or folders of txt, jsonl, csv and parquet, or data sets on the hub, as given on the
    /// command line.
    pub files: Vec<PathBuf>,
    /// Content hash of the files, set when the run is created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
}

/// A set of multiple-choice questions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuestionsSpec {
    /// Name in the CSVs.
    pub name: String,
    /// File or folder of questions, or a data set on the hub.
    pub file: PathBuf,
    /// How they are asked.
    pub style: QuestionStyle,
    /// Maximum number of questions: the first ones of a fixed shuffled order.
    pub most: usize,
    /// At which evaluations they are asked.
    pub when: When,
    /// Content hash of the file, set when the run is created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
}

/// How multiple-choice questions are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum QuestionStyle {
    /// As a chat message, to be answered with `ANSWER: X`.
    Chat,
    /// As plain text; each choice is scored as its continuation.
    Plain,
}

/// The evaluations at which a question set is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum When {
    /// At every evaluation.
    Always,
    /// Before the first step and after the last one of each phase.
    PhaseEnds,
}

/// AdamW and its schedule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerSpec {
    /// Peak learning rate; an arm may override it for the phases after the first.
    pub lr: f64,
    /// Steps of linear warm-up from 0 at the start of each phase.
    pub warmup_steps: u64,
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

/// Course of the learning rate after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// Stays at the peak.
    Constant,
    /// Half a cosine down to 0 at the end of the phase.
    Cosine,
}

/// Batches and intervals of training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingSpec {
    /// Rows of a batch of new data.
    pub batch_size: usize,
    /// Optimizer steps between evaluations; arms take turns at the same interval.
    pub eval_every: u64,
    /// Held-out rows per dataset and evaluation, at most.
    pub eval_rows: usize,
    /// Wall-clock seconds between checkpoints, rounded up to an evaluation. Phases always end with one.
    pub checkpoint_seconds: f64,
    /// Rows of a micro-batch (gradients are accumulated over the batch); 0 lets the engine choose.
    #[serde(default)]
    pub micro_batch: usize,
    /// Activation recomputation: only the blocks' inputs are kept for the backward, which computes each
    /// block again. Less memory, more time, the same bits.
    #[serde(default)]
    pub recompute: bool,
    /// Maximum number of arms in memory at a time; 0 for as many as fit. The others wait.
    #[serde(default)]
    pub concurrent_arms: usize,
}

/// Replay settings that all arms share.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplaySpec {
    /// Rows of a replay batch.
    pub batch_size: usize,
    /// Coefficient of arms that do not give one.
    pub coeff: f64,
    /// Seconds after which a plugin call is reported as late.
    pub call_deadline_seconds: f64,
}

/// One phase: training on one dataset.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PhaseSpec {
    /// Dataset trained on; its name in the CSVs.
    pub dataset: String,
    /// Optimizer steps.
    pub steps: u64,
}

/// How the engine uses replayed tokens (arXiv 2605.26097).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Objective {
    /// KL(reference || student) on the replay batch.
    Kl,
    /// Next-token prediction on the replay batch.
    Ntp,
    /// KL(reference || student) on the new batch; replays nothing.
    KlNew,
    /// A `coeff` share of the rows of each new batch is replaced by old rows.
    Replace,
}

/// One arm: a strategy with its settings, objective, coefficient and learning rate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArmSpec {
    /// Name of the strategy plugin.
    pub strategy: String,
    /// How replayed tokens are used; `None` only for plain finetuning (`none`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objective: Option<Objective>,
    /// Weight of the replay loss (a share for `replace`); set exactly when `objective` is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coeff: Option<f64>,
    /// Peak learning rate of the phases after the first; `None` for the optimizer's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lr: Option<f64>,
    /// Settings of the strategy by its schema, defaults filled in.
    #[serde(default, skip_serializing_if = "toml::Table::is_empty")]
    pub settings: toml::Table,
}
