//! The fully resolved description of a run, as it stands in a run's `config.toml`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::regression::{FinetuningSettings, MapSettings, SghmcSettings};
use super::{BayesianSpec, OptimizerSpec, PhaseSpec, RegressionSpec, TokenSetSettings};

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
    /// Optimizer and schedule, of phases that have none of their own.
    pub optimizer: OptimizerSpec,
    /// Batches and intervals.
    pub training: TrainingSpec,
    /// Replay settings that all arms share.
    pub replay: ReplaySpec,
    /// What counts as forgetting in verdicts; decides no numbers.
    #[serde(default)]
    pub verdict: VerdictSpec,
    /// Phases in order. The first is trained once and shared by the arms of a seed.
    pub phases: Vec<PhaseSpec>,
    /// Arms to compare, without the seeds.
    pub arms: Vec<ArmSpec>,
}

impl RunConfig {
    /// Model and data of the study on a line, where it is one.
    pub fn regression(&self) -> Option<(&BayesianSpec, &RegressionSpec)> {
        match (&self.model, &self.data) {
            (ModelSpec::Bayesian(model), DataSpec::Regression(data)) => Some((model, data)),
            _ => None,
        }
    }
}

/// Forgetting above which a verdict counts old data as lost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerdictSpec {
    /// As a share of accuracy.
    pub margin_accuracy: f64,
    /// Nats per token.
    pub margin_ntp: f64,
    /// Error of a regression; other experiments have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub margin_error: Option<f64>,
}

/// Forgetting of a regression above which it counts as lost, where no other margin is set.
pub const MARGIN_ERROR: f64 = 0.05;

impl Default for VerdictSpec {
    fn default() -> Self {
        Self {
            margin_accuracy: 0.05,
            margin_ntp: 0.05,
            margin_error: None,
        }
    }
}

/// Format of the matrix products' inputs. Sums, weights, moments and losses are f32, in a regression f64.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// IEEE single precision.
    #[default]
    F32,
    /// Inputs rounded to bfloat16.
    Bf16,
    /// IEEE double precision, of the regression alone.
    F64,
}

impl Precision {
    /// Name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F64 => "f64",
        }
    }
}

/// The student: a small transformer trained from random weights, a pretrained model, or a Bayesian network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "ModelTable", into = "ModelTable")]
pub enum ModelSpec {
    /// The small transformer of arXiv 2605.26097.
    Mini(MiniSpec),
    /// A model of the Llama family.
    Pretrained(PretrainedSpec),
    /// A Bayesian network of numbers, not tokens.
    Bayesian(BayesianSpec),
}

impl ModelSpec {
    /// Rank of the adapters that are trained in place of the weights; 0 where there are none.
    pub fn lora_rank(&self) -> usize {
        match self {
            Self::Mini(model) => model.lora.rank,
            Self::Pretrained(model) => model.lora.rank,
            Self::Bayesian(_) => 0,
        }
    }
}

/// Sizes of the small transformer of arXiv 2605.26097.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MiniSpec {
    /// Width D of the residual stream.
    pub d_model: usize,
    /// Number of blocks L.
    pub n_layers: usize,
    /// Head size H; there are `d_model / head_dim` heads.
    pub head_dim: usize,
    /// Adapters that an arm trains instead of the weights, in the phases after the first.
    pub lora: LoraSpec,
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

impl LoraSpec {
    fn new(rank: Option<usize>, alpha: Option<f64>) -> Self {
        Self {
            rank: rank.unwrap_or(0),
            alpha: alpha.unwrap_or(LORA_ALPHA),
        }
    }
}

/// Default of `lora_alpha`: twice the usual rank of 16.
const LORA_ALPHA: f64 = 32.0;

/// The table `[model]` of a file, before its keys are checked against each other.
#[derive(Clone, Default, Serialize, Deserialize)]
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hidden: Option<Vec<usize>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    prior_std: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    map: Option<MapSettings>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sghmc: Option<SghmcSettings>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    finetuning: Option<FinetuningSettings>,
}

impl TryFrom<ModelTable> for ModelSpec {
    type Error = String;

    fn try_from(table: ModelTable) -> Result<Self, String> {
        if table.hidden.is_some() {
            return table.bayesian().map(Self::Bayesian);
        }
        if let Some(key) = table.first_of_bayesian() {
            return Err(format!("model.{key} goes with model.hidden"));
        }
        let ModelTable {
            pretrained,
            hash,
            lora_rank,
            lora_alpha,
            d_model,
            n_layers,
            head_dim,
            ..
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
                    lora: LoraSpec::new(lora_rank, lora_alpha),
                })),
            };
        }
        if hash.is_some() {
            return Err("model.hash goes with model.pretrained".into());
        }
        let required = |key: &str, size: Option<usize>| {
            size.ok_or_else(|| format!("missing field `{key}` (or `pretrained` alone)"))
        };
        Ok(Self::Mini(MiniSpec {
            d_model: required("d_model", d_model)?,
            n_layers: required("n_layers", n_layers)?,
            head_dim: required("head_dim", head_dim)?,
            lora: LoraSpec::new(lora_rank, lora_alpha),
        }))
    }
}

impl From<ModelSpec> for ModelTable {
    fn from(model: ModelSpec) -> Self {
        let mut table = Self::default();
        match model {
            ModelSpec::Mini(MiniSpec {
                d_model,
                n_layers,
                head_dim,
                lora,
            }) => {
                // Only an arm has some.
                let own = Some(lora).filter(|lora| *lora != LoraSpec::new(None, None));
                table.lora_rank = own.map(|lora| lora.rank);
                table.lora_alpha = own.map(|lora| lora.alpha);
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
            ModelSpec::Bayesian(BayesianSpec {
                hidden,
                prior_std,
                map,
                sghmc,
                finetuning,
            }) => {
                table.hidden = Some(hidden);
                table.prior_std = Some(prior_std);
                table.map = Some(map);
                table.sghmc = Some(sghmc);
                table.finetuning = Some(finetuning);
            }
        }
        table
    }
}

impl ModelTable {
    /// The first key it has of those that a Bayesian network has beside `hidden`.
    fn first_of_bayesian(&self) -> Option<&'static str> {
        let keys = [
            ("prior_std", self.prior_std.is_some()),
            ("map", self.map.is_some()),
            ("sghmc", self.sghmc.is_some()),
            ("finetuning", self.finetuning.is_some()),
        ];
        keys.iter().find(|(_, is)| *is).map(|(key, _)| *key)
    }

    fn bayesian(self) -> Result<BayesianSpec, String> {
        fn required<T>(key: &str, value: Option<T>) -> Result<T, String> {
            value.ok_or_else(|| format!("missing field `{key}` of model"))
        }
        let others = [
            ("pretrained", self.pretrained.is_some()),
            ("hash", self.hash.is_some()),
            ("lora_rank", self.lora_rank.is_some()),
            ("lora_alpha", self.lora_alpha.is_some()),
            ("d_model", self.d_model.is_some()),
            ("n_layers", self.n_layers.is_some()),
            ("head_dim", self.head_dim.is_some()),
        ];
        if let Some((key, _)) = others.iter().find(|(_, is)| *is) {
            return Err(format!(
                "model.{key} is no setting of a network of model.hidden"
            ));
        }
        Ok(BayesianSpec {
            hidden: required("hidden", self.hidden)?,
            prior_std: required("prior_std", self.prior_std)?,
            map: required("map", self.map)?,
            sghmc: required("sghmc", self.sghmc)?,
            finetuning: required("finetuning", self.finetuning)?,
        })
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
    /// Corpora as tokens of a tokenizer of one's own, for a small model that learns language from nothing.
    Tokens(TokensSpec),
    /// Noisy points of two functions of a line, for a Bayesian network.
    Regression(RegressionSpec),
}

/// Corpora for a small model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokensSpec {
    /// Tokens of a row, T.
    pub seq_len: usize,
    /// Rows of each corpus that are held out.
    pub held_out_rows: u64,
    /// Decides which rows are held out, and in which order the others are trained on.
    #[serde(default)]
    pub split_seed: u64,
    /// Tokenizer: a `tokenizer.json` or a folder with one. Without it, files of tokens alone are read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<String>,
    /// Content hash of the tokenizer, set when the run is created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer_hash: Option<String>,
    /// Size of the vocabulary V; set when the run is created, unless files of tokens alone do not tell it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vocab_size: Option<usize>,
    /// The corpora.
    pub datasets: Vec<CorpusSpec>,
}

/// A corpus.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CorpusSpec {
    /// Name in the CSVs.
    pub name: String,
    /// A file of tokens, or files, folders or data sets of text, which are tokenized once.
    pub files: Vec<PathBuf>,
    /// Number of the tokenizer's marker token that begins its rows.
    pub marker: usize,
    /// Content hash of its tokens, set when the run is created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// Its rows, those held out included, set when the run is created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
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

/// Batches and intervals of training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingSpec {
    /// Rows of a batch of new data; a regression trains on all points and has none.
    #[serde(default, skip_serializing_if = "is_none")]
    pub batch_size: usize,
    /// Optimizer steps between evaluations; arms take turns at the same interval.
    pub eval_every: u64,
    /// The interval is at least this share of the phase's steps so far: evaluations become rarer as less happens.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub eval_growth: f64,
    /// Held-out rows per dataset and evaluation, at most; a regression has none.
    #[serde(default, skip_serializing_if = "is_none")]
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
    /// Most bytes of rows that a GPU generates at a time, but at least one row; runs of older versions have the default.
    #[serde(default = "generation_bytes")]
    pub generation_bytes: usize,
    /// Maximum number of arms in memory at a time; 0 for as many as fit. The others wait.
    #[serde(default)]
    pub concurrent_arms: usize,
    /// Prompts of each dataset that the student continues at every evaluation; decided when a run is created where it is
    /// not set: [`SAMPLES`], or 0. A run of an older version has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples: Option<usize>,
}

/// Prompts of each dataset that a student continues, where no other number is set and they cost little.
pub const SAMPLES: usize = 3;
/// The most of them: they are to be read.
pub const MOST_SAMPLES: usize = 32;

/// Bytes of rows that a GPU generates at a time, where no other number is set.
pub const GENERATION_BYTES: usize = 4 << 30;

fn generation_bytes() -> usize {
    GENERATION_BYTES
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
fn is_none(count: &usize) -> bool {
    *count == 0
}

/// Replay settings that all arms share.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplaySpec {
    /// Rows of a replay batch; a regression replays all old inputs and has none.
    #[serde(default, skip_serializing_if = "is_none")]
    pub batch_size: usize,
    /// Coefficient of arms that do not give one.
    pub coeff: f64,
    /// Seconds after which a plugin call is reported as late; a regression calls none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub call_deadline_seconds: f64,
    /// What becomes of the fraction of a row that a share of a batch comes to.
    #[serde(default, skip_serializing_if = "Fractions::is_carried")]
    pub fractions: Fractions,
}

/// What becomes of the fraction of a row, where a share of a batch is no whole number of rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fractions {
    /// Carried over to the next steps, until they are a row.
    #[default]
    Carry,
    /// Left out at every step, as in the reference implementation of arXiv 2605.26097.
    Drop,
}

impl Fractions {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
    fn is_carried(&self) -> bool {
        *self == Self::Carry
    }

    /// Rows that a share of batches of so many rows comes to in a step, counted from 0 from where the share began.
    pub fn rows(self, share: f64, batch: usize, step: u64) -> usize {
        // A share such as 0.29 of 100 rows is a little less than 29.
        const ROUNDING: f64 = 1e-9;
        let until = |steps: u64| (share * batch as f64 * steps as f64 + ROUNDING).floor();
        match self {
            Self::Carry => (until(step + 1) - until(step)) as usize,
            Self::Drop => until(1) as usize,
        }
    }

    /// The most rows that a share comes to in any step.
    pub fn most_rows(self, share: f64, batch: usize) -> usize {
        match self {
            Self::Carry => ((share * batch as f64 - 1e-9).ceil().max(0.0) as usize).min(batch),
            Self::Drop => self.rows(share, batch, 0),
        }
    }
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

/// One arm: a strategy with its settings, objective, coefficient, and settings of the finetuning phases.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "ArmTable", into = "ArmTable")]
pub struct ArmSpec {
    /// Name of the strategy plugin.
    pub strategy: String,
    /// How replayed tokens are used; `None` only for plain finetuning (`none`).
    pub objective: Option<Objective>,
    /// Weight of the replay loss (a share for `replace`); set exactly when `objective` is.
    pub coeff: Option<f64>,
    /// Settings of the phases after the first that are not the run's, by their key in the configuration, e.g.
    /// `optimizer.lr` ([`PHASE_SETTINGS`](super::PHASE_SETTINGS)).
    pub phases: toml::Table,
    /// Settings of the strategy that are not its defaults.
    pub settings: toml::Table,
    /// The strategy's other settings at their defaults, filled in when a run is prepared.
    pub defaults: toml::Table,
    /// Settings of the phases that were given by their short names; they must not be settings of the strategy, too.
    pub bare: Vec<String>,
}

/// The table of an arm in a file.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ArmTable {
    strategy: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    objective: Option<Objective>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    coeff: Option<f64>,
    /// Files of older versions have the learning rate apart.
    #[serde(default, skip_serializing)]
    lr: Option<f64>,
    #[serde(default, skip_serializing_if = "toml::Table::is_empty")]
    phases: toml::Table,
    #[serde(default, skip_serializing_if = "toml::Table::is_empty")]
    settings: toml::Table,
    #[serde(default, skip_serializing_if = "toml::Table::is_empty")]
    defaults: toml::Table,
}

impl From<ArmTable> for ArmSpec {
    fn from(table: ArmTable) -> Self {
        let mut phases = table.phases;
        if let Some(lr) = table.lr {
            phases.insert("optimizer.lr".into(), lr.into());
        }
        Self {
            strategy: table.strategy,
            objective: table.objective,
            coeff: table.coeff,
            phases,
            settings: table.settings,
            defaults: table.defaults,
            bare: Vec::new(),
        }
    }
}

impl From<ArmSpec> for ArmTable {
    fn from(arm: ArmSpec) -> Self {
        Self {
            strategy: arm.strategy,
            objective: arm.objective,
            coeff: arm.coeff,
            lr: None,
            phases: arm.phases,
            settings: arm.settings,
            defaults: arm.defaults,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A share that is rounded at every step is another share: 1/64 of 32 rows would be one row, 1/128 none.
    #[test]
    fn fractions_of_rows_are_carried_over_or_dropped() {
        let rows = |how: Fractions, share, batch, steps: u64| -> Vec<usize> {
            (0..steps)
                .map(|step| how.rows(share, batch, step))
                .collect()
        };
        assert_eq!(
            rows(Fractions::Carry, 1.0 / 64.0, 32, 6),
            [0, 1, 0, 1, 0, 1]
        );
        assert_eq!(rows(Fractions::Carry, 0.29, 100, 4), [29; 4]);
        assert_eq!(rows(Fractions::Drop, 0.29, 100, 4), [29; 4]);
        assert_eq!(rows(Fractions::Drop, 1.0 / 64.0, 32, 3), [0; 3]);
        for (share, batch) in [(0.1, 16), (1.0 / 3.0, 7), (1e-4, 32), (0.999, 5), (1.0, 4)] {
            let all = rows(Fractions::Carry, share, batch, 100_000);
            let sum = all.iter().sum::<usize>() as f64;
            assert!(
                (sum - share * batch as f64 * 1e5).abs() < 1.0,
                "{share} of {batch}: {sum}"
            );
            let most = Fractions::Carry.most_rows(share, batch);
            assert_eq!(all.iter().max(), Some(&most), "{share} of {batch}");
        }
        assert_eq!(Fractions::Carry.most_rows(0.0, 8), 0);
    }
}
