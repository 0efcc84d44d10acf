//! From the settings of a run to the numbers the engine works with: every conversion stands here.
//! (Which of two settings holds for an arm, its own or the run's, `RunConfig::of_arm` says.)

use std::sync::Arc;

use forgetlab_engine::model::{LoraConfig, ModelConfig};
use forgetlab_engine::ops::Precision;
use forgetlab_engine::{AdamWConfig, Batching, Demand, Hardware, PromptLen};
use forgetlab_plugin_host::{Capabilities, Plugin};
use forgetlab_study::experiment::{
    self, Arm, ArmSpec, ModelSpec, Objective, RunConfig, Schedule, expand,
};

use forgetlab_study::report::figures_memory;

use crate::data::Suite;
use crate::eval::{Choices, Prompts, largest_pass};

use super::objective::replay_rows;

/// Bytes of the program itself in a run, with events, strategies and the figures of a few arms (measured; a build that
/// is not optimised has 11 MiB more of code in memory).
const PROGRAM: f64 = if cfg!(debug_assertions) { 41.0 } else { 30.0 } * 1024.0 * 1024.0;
/// The built-in strategy whose prompts are the markers of tasks, unless it is given others.
const MARKED: &str = "self-generated";
/// Arms whose figures are among them.
const FEW: usize = 6;

/// Device, threads and precision.
pub fn hardware(config: &RunConfig) -> Hardware {
    Hardware {
        device: config.device.clone(),
        threads: config.threads,
        precision: precision(config.precision),
    }
}

/// Format of the matrix products' inputs.
pub fn precision(precision: experiment::Precision) -> Precision {
    match precision {
        experiment::Precision::F32 => Precision::F32,
        experiment::Precision::Bf16 => Precision::Bf16,
        // Its matrices are no engine's.
        experiment::Precision::F64 => Precision::F32,
    }
}

/// How batches are cut into micro-batches, and what is generated into chunks.
pub fn batching(config: &RunConfig) -> Batching {
    Batching {
        micro_batch: config.training.micro_batch,
        recompute: config.training.recompute,
        generation_bytes: config.training.generation_bytes,
    }
}

/// AdamW of a phase without its learning rate, which follows [`learning_rate`].
pub fn adamw(config: &RunConfig, phase: usize) -> AdamWConfig {
    let o = config.in_phase(phase).optimizer;
    AdamWConfig {
        beta1: o.beta1,
        beta2: o.beta2,
        eps: o.eps,
        weight_decay: o.weight_decay,
    }
}

/// The low-rank adapters that are trained in place of the weights, if there are some.
pub fn lora(config: &RunConfig) -> Option<LoraConfig> {
    let lora = match &config.model {
        ModelSpec::Mini(model) => model.lora,
        ModelSpec::Pretrained(model) => model.lora,
        ModelSpec::Bayesian(_) => return None,
    };
    (lora.rank > 0).then_some(LoraConfig {
        rank: lora.rank,
        alpha: lora.alpha,
    })
}

/// Sizes of the student: those of the pretrained model, or as set, with the vocabulary of the data.
pub fn model(config: &RunConfig, suite: &Suite) -> ModelConfig {
    match (suite.pretrained(), &config.model) {
        (Some(pretrained), _) => pretrained.config,
        (None, ModelSpec::Mini(model)) => ModelConfig::mini(
            model.d_model,
            model.n_layers,
            model.head_dim,
            suite.vocab_size(),
        ),
        // Digits have no other model; configurations are checked.
        (None, ModelSpec::Pretrained(_) | ModelSpec::Bayesian(_)) => {
            ModelConfig::mini(2, 1, 2, suite.vocab_size())
        }
    }
}

/// Learning rate of `step` (from 0) of a phase of `steps`: linear from 0 over `warmup` steps, then
/// constant or half a cosine down to 0. The first step of a warm-up has learning rate 0.
pub fn learning_rate(peak: f64, step: u64, warmup: u64, steps: u64, schedule: Schedule) -> f64 {
    if step < warmup {
        return peak * step as f64 / warmup as f64;
    }
    match schedule {
        Schedule::Constant => peak,
        Schedule::Cosine => {
            let progress = (step - warmup) as f64 / (steps.saturating_sub(warmup)).max(1) as f64;
            peak * 0.5 * (1.0 + (std::f64::consts::PI * progress.min(1.0)).cos())
        }
    }
}

/// Sizes of the work of a run, by which its memory is predicted; `plugins` are the strategies of its arms, `questions`
/// what they are asked, `prompts` what its students continue.
pub fn demand(
    config: &RunConfig,
    suite: &Suite,
    plugins: &[Arc<Plugin>],
    questions: &[Choices],
    prompts: &Prompts,
) -> Demand {
    // The sizes of the most demanding arm; the first phase has the run's own.
    let arms: Vec<Arm> = expand(config);
    let largest = |of: fn(&RunConfig) -> usize| {
        let own = arms.iter().map(|arm| of(&arm.config));
        own.chain([of(config)]).max().unwrap_or(0)
    };
    let replay = largest(|config| config.replay.batch_size);
    // Nobody buffers beyond the end of a phase.
    let longest = largest(|config| {
        let steps = config.all_steps().into_iter().max();
        steps.unwrap_or(0) as usize
    });
    let generating = config.arms.iter().zip(plugins);
    let generating =
        generating.filter(|(_, plugin)| plugin.capabilities.contains(Capabilities::GENERATION));
    let prompt = generating
        .clone()
        .map(|(arm, plugin)| longest_prompt(arm, plugin, suite))
        .max()
        .unwrap_or(suite.seq_len());
    let samples = generating.map(|(arm, _)| {
        let settings = arm.strategy_settings();
        let batches = settings
            .get("buffer_batches")
            .and_then(toml::Value::as_integer)
            .unwrap_or(1);
        replay * (batches.max(1) as usize).min(longest)
    });
    let samples: Vec<usize> = samples.collect();
    let batches = Batches::of(config, largest(RunConfig::largest_batch), replay);
    let all = config.arms.len() * config.seeds.len();
    let learners = match config.training.concurrent_arms {
        0 => all,
        most => most.min(all),
    };
    let held_out = suite.held_out().iter().map(|data| data.batch.tokens.len());
    Demand {
        model: model(config, suite),
        threads: config.threads,
        gpu: (config.device != "cpu").then_some(precision(config.precision)),
        lora: lightest(config, &arms),
        batching: batching(config),
        seq_len: suite.seq_len(),
        learners,
        // Only the phase after the first begins with the same weights for several.
        shared_references: (config.phases.len() <= 2).then(|| match suite.pretrained() {
            Some(_) if config.in_phase(0).steps == 0 => 1,
            _ => config.seeds.len().min(learners),
        }),
        scored: held_out.clone().max().unwrap_or(0) / suite.seq_len().max(1),
        batches: batches.rows,
        replaced: batches.replaced,
        kl: batches.kl,
        asked: largest_pass(questions),
        reference: true,
        generated: samples
            .iter()
            .copied()
            .chain([prompts.row_tokens().div_ceil(suite.seq_len().max(1))])
            .max()
            .unwrap_or(0),
        prompt: PromptLen::UpTo(prompt),
        buffers: samples.len() * config.seeds.len(),
        held_out: held_out.sum(),
        program: PROGRAM
            + (figures_memory(config.arms.len()) - figures_memory(FEW.min(config.arms.len())))
                as f64,
    }
}

/// Tokens of the longest prompt that an arm's strategy gives: what its settings say, or markers of tasks where it is known
/// to take these; else a whole row.
fn longest_prompt(arm: &ArmSpec, plugin: &Plugin, suite: &Suite) -> usize {
    let settings = arm.strategy_settings();
    let json = serde_json::to_value(&settings).unwrap_or_default();
    let encode = &mut |text: &str| suite.encode(text).map_err(|error| error.to_string());
    let bos = suite.special_tokens().bos;
    let said = plugin.prompts(&json.as_object().cloned().unwrap_or_default(), bos, encode);
    let said = said.unwrap_or_default();
    let longest = said.iter().map(|(_, tokens)| tokens.len()).max();
    let is_set = settings
        .get("prompts")
        .is_some_and(|file| file.as_str() != Some(""));
    if arm.strategy != MARKED || is_set {
        return longest.unwrap_or(suite.seq_len());
    }
    let tasks = (0..suite.held_out().len()).map(|i| suite.task(i).markers.len());
    tasks.max().unwrap_or(1)
}

/// Batches of a step, of the arms that have the most.
struct Batches {
    /// Rows of new data, and of replay.
    rows: Vec<usize>,
    /// Rows of new data in whose place others come.
    replaced: usize,
    /// Which of the batches have KL losses.
    kl: Vec<usize>,
}

impl Batches {
    fn of(config: &RunConfig, new: usize, replay: usize) -> Self {
        let replayed = |arm: &ArmSpec| replay_rows(arm, &config.replay, new, 0).most;
        let all = |wanted: &[Objective]| {
            let arms = config.arms.iter();
            let having = |arm: &&ArmSpec| arm.objective.is_some_and(|of| wanted.contains(&of));
            arms.filter(having).map(replayed).max()
        };
        let beside = all(&[Objective::Kl, Objective::Ntp]).map(|_| replay);
        let replaced = all(&[Objective::Replace]).unwrap_or(0);
        let of_new = all(&[Objective::KlNew]).map(|_| 0);
        // A strategy may ask for it for any of its rows.
        let of_replay = (beside.is_some() || replaced > 0).then_some(1);
        Self {
            rows: [Some(new), beside].into_iter().flatten().collect(),
            replaced,
            kl: [of_new, of_replay].into_iter().flatten().collect(),
        }
    }
}

/// The adapters of the arm that trains most; `None` where one trains all weights, if only in the first phase.
fn lightest(config: &RunConfig, arms: &[Arm]) -> Option<LoraConfig> {
    let first = Some(config).filter(|config| config.in_phase(0).steps > 0);
    let configs = arms.iter().map(|arm| &arm.config).chain(first);
    let adapters: Option<Vec<LoraConfig>> = configs.map(lora).collect();
    adapters?.into_iter().max_by_key(|lora| lora.rank)
}

#[cfg(test)]
mod tests {
    use forgetlab_study::experiment::{Overrides, resolve};

    use super::*;

    /// Else one and the same default would be two, and a run recorded with the wrong one.
    #[test]
    fn what_a_run_does_not_set_is_as_the_engine_chooses() {
        let config = resolve("toy-continual", &Overrides::default()).unwrap();
        assert_eq!(batching(&config), Batching::default());
    }

    #[test]
    fn warms_up_from_zero_then_stays_or_falls_to_zero() {
        let at = |step, schedule| learning_rate(2.0, step, 4, 12, schedule);
        assert_eq!(at(0, Schedule::Constant), 0.0);
        assert_eq!(at(2, Schedule::Constant), 1.0);
        assert_eq!(at(11, Schedule::Constant), 2.0);
        assert_eq!(at(4, Schedule::Cosine), 2.0);
        assert!((at(8, Schedule::Cosine) - 1.0).abs() < 1e-12);
        assert!(at(12, Schedule::Cosine).abs() < 1e-12);
        assert_eq!(learning_rate(1.0, 0, 0, 5, Schedule::Constant), 1.0);
    }
}
