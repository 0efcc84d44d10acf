//! What a run will pay, told before it starts: tokens and FLOPs, counted as its steps count them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use forgetlab_engine::Stream;
use forgetlab_engine::model::{Layout, LoraLayout, ModelConfig};
use forgetlab_plugin_host::{Capabilities, Plugin, ReplayBatch, Teacher};
use forgetlab_study::experiment::{ArmInfo, ArmSpec, RunConfig, expand};
use forgetlab_study::run::Cost;

use crate::data::{Batch, DataError, Suite};
use crate::eval;

use super::learner::new_rows;
use super::look;
use super::objective::{self, replay_rows};
use super::prepare::{Prepared, TokenWork, Work, prompts_of};
use super::settings;

/// Rows of text that are looked at one by one for a phase; of more, as many tell for the rest.
const MOST_ROWS: u64 = 1 << 15;
/// Strategies that replay as many whole rows as they are asked for.
const KNOWN: [&str; 4] = ["none", "true-data", "self-generated", "bos-prompted"];

/// What the arms of a run will pay.
#[derive(Clone, Debug)]
pub struct Prediction {
    /// Arms, seeds expanded, in the run's order.
    pub arms: Vec<ArmPrediction>,
    /// Cost of the first phase, a seed; it is part of the cost of each of the seed's arms.
    pub first_phases: Vec<Cost>,
    /// Whether a phase may end before its last step.
    pub at_most: bool,
}

/// What an arm will pay, without seconds.
#[derive(Clone, Debug)]
pub struct ArmPrediction {
    /// The arm.
    pub info: ArmInfo,
    /// Steps of all phases.
    pub steps: u64,
    /// Tokens and FLOPs of all phases.
    pub cost: Cost,
    /// Whether its tokens are those that will be counted, and not about as many.
    pub exact_tokens: bool,
    /// The same of its FLOPs: those of generation depend on how the strategy prompts.
    pub exact_flops: bool,
}

impl Prediction {
    /// Cost of the whole run: the first phase counts once a seed.
    pub fn total(&self) -> Cost {
        let mut all = Cost::default();
        let seeds = self.first_phases.len().max(1);
        let of_seed = self.arms.len() / seeds;
        for arm in &self.arms {
            add(&mut all, &arm.cost, 1.0);
        }
        for first in &self.first_phases {
            add(&mut all, first, 1.0 - of_seed as f64);
        }
        all
    }
}

/// Predicts what a run will pay; `None` where it trains on no tokens.
///
/// # Errors
/// Where its data cannot be read any more.
pub fn predict(prepared: &Prepared) -> Result<Option<Prediction>, DataError> {
    let Work::Tokens(work) = &prepared.work else {
        return Ok(None);
    };
    let config = &prepared.config;
    let model = settings::model(config, &work.suite);
    let mut first_phases = Vec::new();
    for &seed in &config.seeds {
        let mut first = Sum::new(model);
        // The untouched model is its own reference.
        first.evaluate(work, work.suite.pretrained().is_none(), true);
        let plain = ArmSpec::plain();
        first.phase(
            work,
            Run {
                config,
                spec: &plain,
                plugin: None,
                seed,
            },
            0,
        )?;
        first_phases.push(first);
    }
    let mut arms = Vec::new();
    for (i, arm) in expand(config).into_iter().enumerate() {
        let seed = arm.info.seed;
        let at = config.seeds.iter().position(|own| *own == seed);
        let mut sum = first_phases[at.unwrap_or(0)].clone();
        let plugin = &work.plugins[i % work.plugins.len().max(1)];
        let run = Run {
            config: &arm.config,
            spec: &arm.spec,
            plugin: Some(plugin),
            seed,
        };
        for phase in 1..arm.config.phases.len() {
            sum.phase(work, run, phase)?;
        }
        arms.push(ArmPrediction {
            info: arm.info,
            steps: sum.steps,
            cost: sum.cost,
            exact_tokens: sum.exact_tokens,
            exact_flops: sum.exact_tokens && sum.exact_flops,
        });
    }
    let ends = |phase: &forgetlab_study::experiment::PhaseSpec| {
        phase.target_loss.is_some() || phase.patience.is_some() || phase.seconds.is_some()
    };
    Ok(Some(Prediction {
        at_most: config.phases.iter().any(ends),
        first_phases: first_phases.into_iter().map(|first| first.cost).collect(),
        arms,
    }))
}

/// What an arm that replays nothing will pay, and how often it will be evaluated.
///
/// # Errors
/// Where its data cannot be read any more.
pub(super) fn plain_arm(config: &RunConfig, work: &TokenWork) -> Result<(Cost, u64), DataError> {
    let mut sum = Sum::new(settings::model(config, &work.suite));
    sum.evaluate(work, work.suite.pretrained().is_none(), true);
    let run = Run {
        config,
        spec: &ArmSpec::plain(),
        plugin: None,
        seed: config.seeds.first().copied().unwrap_or(0),
    };
    for phase in 0..config.phases.len() {
        sum.phase(work, run, phase)?;
    }
    Ok((sum.cost, sum.evaluations))
}

/// An arm, or the first phase without a strategy.
#[derive(Clone, Copy)]
struct Run<'a> {
    config: &'a RunConfig,
    spec: &'a ArmSpec,
    plugin: Option<&'a Plugin>,
    seed: u64,
}

/// What was paid so far.
#[derive(Clone)]
struct Sum {
    model: ModelConfig,
    steps: u64,
    evaluations: u64,
    cost: Cost,
    exact_tokens: bool,
    exact_flops: bool,
}

impl Sum {
    fn new(model: ModelConfig) -> Self {
        Self {
            model,
            steps: 0,
            evaluations: 0,
            cost: Cost::default(),
            exact_tokens: true,
            exact_flops: true,
        }
    }

    fn evaluate(&mut self, work: &TokenWork, reference: bool, at_end: bool) {
        let flops = eval::flops(&self.model, &work.suite, &work.questions, reference, at_end);
        self.cost.flops_eval += flops + work.prompts.flops(&self.model);
        self.evaluations += 1;
    }

    /// Adds the steps of a phase and its evaluations.
    fn phase(&mut self, work: &TokenWork, run: Run, phase: usize) -> Result<(), DataError> {
        let settings = run.config.in_phase(phase);
        let mut done = 0;
        while done < settings.steps {
            done = settings.next_evaluation(done);
            self.evaluate(work, true, done == settings.steps);
        }
        self.steps += settings.steps;
        let suite = &work.suite;
        let alike = suite.rows_are_alike();
        let looked_at = match alike {
            true => 1,
            false => {
                (MOST_ROWS / settings.batch_size.max(1) as u64).clamp(1, settings.steps.max(1))
            }
        };
        let replays = phase > 0 && !suite.old(phase).is_empty();
        let rows = |step: u64| match replays {
            true => replay_rows(run.spec, &run.config.replay, settings.batch_size, step).now,
            false => 0,
        };
        self.look(work, run, phase, &rows)?;
        // Of steps that replay as many rows each batch costs the same, or about the same.
        let mut counts: Vec<(usize, u64)> = Vec::new();
        for step in 0..settings.steps {
            let rows = rows(step);
            match counts.iter_mut().find(|(known, _)| *known == rows) {
                Some((_, count)) => *count += 1,
                None => counts.push((rows, 1)),
            }
        }
        for &(rows, count) in &counts {
            let looked_at = looked_at.min(count);
            for step in 0..looked_at {
                let new = suite.batch(phase, new_rows(run.config, run.seed, phase, step))?;
                let replay = match rows {
                    0 => None,
                    rows => Some(replayed(suite, run.plugin, phase, rows)?),
                };
                let weight = count as f64 / looked_at as f64;
                let cost = self.step(suite, run, new, replay.as_ref());
                add(&mut self.cost, &cost, weight);
            }
            let sampled = !alike && (looked_at < count || rows > 0);
            let unknown = rows > 0 && !KNOWN.contains(&run.spec.strategy.as_str());
            self.exact_tokens &= !sampled && !unknown;
            if rows > 0 && generates(run.plugin) {
                self.generate(suite, run, phase, rows as u64 * count);
            }
        }
        Ok(())
    }

    /// Adds the looks at what a phase replays: one at the first replay batch of each evaluation interval, of which it
    /// has so many `rows`.
    fn look(
        &mut self,
        work: &TokenWork,
        run: Run,
        phase: usize,
        rows: &impl Fn(u64) -> usize,
    ) -> Result<(), DataError> {
        let settings = run.config.in_phase(phase);
        let (mut start, mut known) = (0, HashMap::new());
        while start < settings.steps {
            let end = settings.next_evaluation(start);
            let replayed_rows = (start..end).map(rows).find(|rows| *rows > 0);
            if let Some(rows) = replayed_rows.map(|rows| rows.min(look::ROWS)) {
                if let Entry::Vacant(new) = known.entry(rows) {
                    let batch = replayed(&work.suite, run.plugin, phase, rows)?;
                    let lens = batch.lengths.iter().map(|&len| len as usize);
                    new.insert(look::flops(&self.model, lens));
                }
                self.cost.flops_eval += known[&rows];
            }
            start = end;
        }
        Ok(())
    }

    /// The cost of a step, counted as training counts it.
    fn step(&self, suite: &Suite, run: Run, new: Batch, replay: Option<&ReplayBatch>) -> Cost {
        let batches = objective::batches(run.spec, new, replay, suite.reduction());
        let adapters = settings::lora(run.config)
            .map(|lora| LoraLayout::new(lora, &Layout::new(self.model)).len);
        objective::cost(&batches.unwrap_or_default(), &self.model, adapters)
    }

    /// Adds the generation of rows that begin as the strategy's prompts mostly do: as its settings say, or with the
    /// markers of the old data.
    fn generate(&mut self, suite: &Suite, run: Run, phase: usize, rows: u64) {
        let tasks = suite.old(phase).into_iter().map(|old| suite.task(old));
        let markers = tasks.map(|task| task.markers.len()).min().unwrap_or(0);
        let set = run
            .plugin
            .and_then(|plugin| prompts_of(run.spec, plugin, suite).ok())
            .and_then(|prompts| prompts.into_iter().map(|(_, tokens)| tokens.len()).min());
        let prompt = set.unwrap_or(markers.max(1));
        let length = suite.seq_len();
        self.cost.tokens_generated += rows * length.saturating_sub(prompt) as u64;
        self.cost.flops_generate += rows as f64 * self.model.generation_flops(prompt, length);
        self.exact_flops = false;
    }
}

fn generates(plugin: Option<&Plugin>) -> bool {
    plugin.is_some_and(|plugin| plugin.capabilities.contains(Capabilities::GENERATION))
}

/// A replay batch of so many rows: of old data, or full rows as a model writes them.
fn replayed(
    suite: &Suite,
    plugin: Option<&Plugin>,
    phase: usize,
    rows: usize,
) -> Result<ReplayBatch, DataError> {
    let t = suite.seq_len();
    let (seq_len, tokens, lengths, weights) = match generates(plugin) {
        true => {
            let row: Vec<f32> = (0..t).map(|i| f32::from(i > 0)).collect();
            (t, vec![0; rows * t], vec![t as u32; rows], row.repeat(rows))
        }
        false => {
            let old = suite.old(phase);
            let datasets: Vec<usize> = (0..rows).map(|row| old[row % old.len()]).collect();
            let stream = Stream::new(0, "rows of a prediction");
            let batch = suite.draw(&datasets, &mut stream.at(0))?;
            let lengths = batch.lens.iter().map(|&len| len as u32).collect();
            let weights = batch.mask.iter().map(|&target| f32::from(target)).collect();
            (batch.seq_len, batch.tokens, lengths, weights)
        }
    };
    Ok(ReplayBatch {
        rows,
        seq_len,
        tokens,
        lengths,
        weights,
        row_objectives: None,
        teacher: Teacher::Reference,
        coeff: None,
    })
}

/// Adds a cost so many times.
fn add(sum: &mut Cost, cost: &Cost, times: f64) {
    let count = |sum: u64, own: u64| (sum as f64 + own as f64 * times).round().max(0.0) as u64;
    sum.tokens_trained = count(sum.tokens_trained, cost.tokens_trained);
    sum.tokens_generated = count(sum.tokens_generated, cost.tokens_generated);
    sum.flops_train += times * cost.flops_train;
    sum.flops_reference += times * cost.flops_reference;
    sum.flops_generate += times * cost.flops_generate;
    sum.flops_eval += times * cost.flops_eval;
}
