//! The Llama family, and mixtures of it, the small model and other families: against PyTorch, finite differences, and
//! the engine on the CPU.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use crate::adamw::{self, AdamWConfig};
use crate::batch::{Batching, LossBatch, Query};
use crate::device::Hardware;
use crate::engine::Engine;
use crate::gpu::{self, AdamW, Params, Sampler};
use crate::model::{self, Blocks, Keep, Layout, Mlp, ModelConfig, Norms, Parts, QkGains, Window};
use crate::ops::Precision;
use crate::ops::rope::{Rope, RopeScaling};
use crate::pretrained::from_hugging_face;
use crate::random::Stream;
use crate::sampling::{Request, Sampling};

use super::super::heads::Heads;
use super::super::memory::{Widths, generated_row};
use super::super::model::{Rows, forward};
use super::super::tensor::upload_ids;
use super::{devices, error};

/// The sizes and parts of the fixtures `llama-tiny-tied` and `llama-tiny-untied`, as in their `config.json`.
fn tiny(tied_embeddings: bool) -> ModelConfig {
    let scaling = RopeScaling {
        factor: 32.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_positions: 64.0,
    };
    ModelConfig {
        tied_embeddings,
        rope: Rope {
            base: if tied_embeddings { 500_000.0 } else { 10_000.0 },
            scaling: tied_embeddings.then_some(scaling),
        },
        ..ModelConfig::llama(64, 3, [4, 2, 16], 160, 320)
    }
}

/// A checkpoint, and what PyTorch computed with it.
pub(super) struct Fixture {
    tensors: BTreeMap<String, Tensor>,
    json: serde_json::Value,
    layout: Arc<Layout>,
}

/// Rows of the fixtures have this length.
pub(super) const FIXTURE_SEQ_LEN: usize = 48;

/// A fixture's rows of new and of replayed tokens, with the weights of mean losses.
pub(super) struct FixtureBatches {
    tokens: Vec<u32>,
    replay: Vec<u32>,
    ntp_weights: Vec<f32>,
    kl_weights: Vec<f32>,
    zeros: Vec<f32>,
}

impl FixtureBatches {
    /// NTP of the new rows, and KL of the replayed ones.
    pub(super) fn losses(&self) -> [LossBatch<'_>; 2] {
        let new = LossBatch {
            tokens: &self.tokens,
            seq_len: FIXTURE_SEQ_LEN,
            ntp_weights: &self.ntp_weights,
            kl_weights: &self.zeros[..self.tokens.len()],
        };
        let replay = LossBatch {
            tokens: &self.replay,
            seq_len: FIXTURE_SEQ_LEN,
            ntp_weights: &self.zeros[..self.replay.len()],
            kl_weights: &self.kl_weights,
        };
        [new, replay]
    }
}

impl Fixture {
    pub(super) fn read(tied: bool) -> Self {
        let name = if tied { "tied" } else { "untied" };
        let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join(format!("../../tests/fixtures/llama-tiny-{name}"));
        let load = |file: &str| candle_core::safetensors::load(dir.join(file), &Device::Cpu);
        let mut tensors: BTreeMap<_, _> = load("parity.safetensors").unwrap().into_iter().collect();
        let checkpoint = load("model.safetensors").unwrap().into_iter();
        tensors.extend(checkpoint.map(|(name, tensor)| (format!("pi.{name}"), tensor)));
        let json = std::fs::read(dir.join("parity.json")).unwrap();
        Self {
            tensors,
            json: serde_json::from_slice(&json).unwrap(),
            layout: Layout::new(tiny(tied)),
        }
    }

    pub(super) fn params(&self, prefix: &str) -> model::Params {
        let tensor = |name: &str, shape: &[usize]| -> Result<Vec<f32>, Infallible> {
            let tensor = &self.tensors[&format!("{prefix}.{name}")];
            assert_eq!(tensor.dims(), shape, "{name}");
            Ok(self.numbers(&format!("{prefix}.{name}")))
        };
        let Ok(params) = from_hugging_face(&self.layout, tensor);
        params
    }

    fn numbers(&self, name: &str) -> Vec<f32> {
        self.tensors[name].flatten_all().unwrap().to_vec1().unwrap()
    }

    fn ids(&self, name: &str) -> Vec<u32> {
        self.tensors[name]
            .flatten_all()
            .unwrap()
            .to_dtype(DType::U32)
            .unwrap()
            .to_vec1()
            .unwrap()
    }

    /// A number of the fixture's JSON.
    fn number(&self, key: &str) -> f64 {
        self.json[key].as_f64().unwrap()
    }

    pub(super) fn batches(&self) -> FixtureBatches {
        let (tokens, replay) = (self.ids("tokens"), self.ids("replay_tokens"));
        let mask: Vec<bool> = self.ids("loss_mask").iter().map(|&x| x != 0).collect();
        FixtureBatches {
            ntp_weights: mean_weights(&mask, FIXTURE_SEQ_LEN),
            kl_weights: mean_weights(&vec![true; replay.len()], FIXTURE_SEQ_LEN),
            zeros: vec![0.0; tokens.len().max(replay.len())],
            tokens,
            replay,
        }
    }
}

/// Weights of a mean over the targets that the mask leaves in.
fn mean_weights(mask: &[bool], seq_len: usize) -> Vec<f32> {
    let is_scored = |i: usize| !(i + 1).is_multiple_of(seq_len) && mask[i + 1];
    let scored: Vec<bool> = (0..mask.len()).map(is_scored).collect();
    let weight = 1.0 / scored.iter().filter(|&&scored| scored).count() as f32;
    scored
        .iter()
        .map(|&scored| if scored { weight } else { 0.0 })
        .collect()
}

/// A fixture's student and reference on a device.
struct Finetuning<'a> {
    fixture: &'a Fixture,
    device: &'a Device,
    engine: gpu::Engine,
    student: Params,
    reference: Params,
    batches: FixtureBatches,
    /// What the tests' messages begin with.
    case: String,
}

impl Finetuning<'_> {
    /// Compares logits of both models, losses and gradients with PyTorch's.
    fn check_step(&mut self, tolerance: f64, loss_tolerance: f64) {
        let (fixture, case, engine) = (self.fixture, &self.case, &mut self.engine);
        for (prefix, params) in [("theta", &self.student), ("pi", &self.reference)] {
            let logits = engine.logits(params, &self.batches.tokens, FIXTURE_SEQ_LEN);
            let expected = fixture.numbers(&format!("logits.{prefix}"));
            let error = error(&logits.unwrap(), &expected, 1e-6);
            assert!(error < tolerance, "{case}, logits of {prefix}: {error:e}");
        }
        let report = engine
            .forward_backward(&self.student, Some(&self.reference), &self.batches.losses())
            .unwrap();
        let [new, replay] = [&report.rows[0], &report.rows[1]];
        let largest = |weights: &[f32]| f64::from(weights.iter().copied().fold(0.0, f32::max));
        let ntp = new.iter().map(|row| row.ntp).sum::<f64>() * largest(&self.batches.ntp_weights);
        let kl = replay.iter().map(|row| row.kl).sum::<f64>() * largest(&self.batches.kl_weights);
        for (loss, key) in [(ntp, "ntp"), (kl, "kl_replay")] {
            let expected = fixture.number(key);
            let error = (loss - expected).abs();
            assert!(
                error < loss_tolerance * expected.max(1.0),
                "{case}, {key}: {loss} {expected}"
            );
        }
        let gradients = engine.gradients().unwrap();
        let (expected, mut worst) = (fixture.params("grad"), 0f64);
        for ((tensor, _, gradient), (_, _, expected)) in gradients.tensors().zip(expected.tensors())
        {
            let error = error(gradient, expected, 1e-6);
            assert!(error < tolerance, "{case}, gradient of {tensor}: {error:e}");
            worst = worst.max(error);
        }
        println!("{case}: gradients within {worst:.1e} of a tensor's largest entry");
    }

    /// Compares the losses of some steps, and the weights after them, with PyTorch's.
    fn check_training(&mut self) {
        let (fixture, case, engine) = (self.fixture, &self.case, &mut self.engine);
        let config = AdamWConfig {
            beta1: 0.9,
            beta2: 0.997,
            eps: 1e-8,
            weight_decay: 0.0,
        };
        let adamw = adamw::AdamW::new(config, fixture.layout.len);
        let mut optimizer = AdamW::upload(&adamw, &fixture.layout, self.device).unwrap();
        for expected in fixture.json["total_loss_each_step"].as_array().unwrap() {
            let report = engine
                .forward_backward(&self.student, Some(&self.reference), &self.batches.losses())
                .unwrap();
            let error = (report.total - expected.as_f64().unwrap()).abs();
            assert!(error < 1e-4, "{case}, loss: {} {expected}", report.total);
            engine
                .update(&mut self.student, &mut optimizer, 1e-3)
                .unwrap();
        }
        // For a tiny gradient, Adam's first steps depend on its sign alone.
        let after = self.student.download().unwrap();
        let (expected, gradients) = (fixture.params("after"), fixture.params("grad"));
        let pairs = after.data.iter().zip(&expected.data);
        let worst = pairs
            .zip(&gradients.data)
            .filter(|(_, gradient)| **gradient == 0.0 || gradient.abs() > 1e-6)
            .fold(0f32, |worst, ((a, b), _)| worst.max((a - b).abs()));
        assert!(worst < 1e-4, "{case}, updated weights: {worst:e}");
    }
}

/// Else finetuning a checkpoint here would be another thing than finetuning it in PyTorch.
#[test]
fn a_llama_computes_and_trains_as_in_pytorch() {
    for ((name, device), tied) in devices()
        .into_iter()
        .flat_map(|d| [(d.clone(), true), (d, false)])
    {
        let fixture = Fixture::read(tied);
        for (precision, loss_tolerance, tolerance) in
            [(Precision::F32, 1e-5, 1e-4), (Precision::Bf16, 1e-2, 8e-2)]
        {
            let upload =
                |prefix| Params::upload(&fixture.params(prefix), precision, &device).unwrap();
            let mut finetuning = Finetuning {
                fixture: &fixture,
                device: &device,
                engine: gpu::Engine::new(&fixture.layout, &device),
                student: upload("theta"),
                reference: upload("pi").frozen(),
                batches: fixture.batches(),
                case: format!("tied {tied}, {precision:?} on {name}"),
            };
            finetuning.check_step(tolerance, loss_tolerance);
            if precision == Precision::F32 {
                finetuning.check_training();
            }
        }
        // The checkpoint's own continuation.
        let pi = Params::upload(&fixture.params("pi"), Precision::F32, &device).unwrap();
        let json = fixture.json["greedy_from_bos"].as_array().unwrap();
        let greedy: Vec<u32> = json.iter().map(|x| x.as_u64().unwrap() as u32).collect();
        let request = Request {
            prompts: &[vec![greedy[0]]],
            length: greedy.len(),
            sampling: &Sampling::greedy(),
            stream: &Stream::new(0, "greedy"),
            first_row: 0,
        };
        let generated = Sampler::new(&device).generate(&pi, request).unwrap();
        assert_eq!(generated.tokens, greedy);
    }
}

/// Small models with all parts in some combination.
pub(super) fn mixtures() -> [ModelConfig; 8] {
    let mini = ModelConfig::mini(24, 2, 6, 23);
    let llama = ModelConfig::llama(24, 2, [4, 2, 6], 20, 23);
    let odd = ModelConfig {
        n_heads: 6,
        n_kv_heads: 1,
        norm_gains: true,
        ..mini
    };
    [
        mini,
        llama,
        odd,
        biased_and_scaled(llama),
        normed_around(llama),
        normed_after(llama),
        unrotated(odd),
        bare(mini),
    ]
}

/// As Qwen 2, and as Granite.
fn biased_and_scaled(model: ModelConfig) -> ModelConfig {
    let parts = Parts {
        qkv_bias: true,
        attention_scale: Some(0.3),
        embedding_scale: 1.5,
        residual_scale: 0.4,
        logits_scale: 0.5,
        ..Parts::LLAMA
    };
    ModelConfig { parts, ..model }
}

/// As Gemma 3.
fn normed_around(model: ModelConfig) -> ModelConfig {
    let rope = Rope {
        base: 100.0,
        scaling: None,
    };
    let parts = Parts {
        qk_gains: QkGains::Head,
        norms: Norms::Around,
        gain_offset: 1.0,
        embedding_scale: 2.0,
        window: Some(Window {
            blocks: Blocks::from_bits(0b01),
            len: 3,
            rope: Some(rope),
        }),
        ..Parts::LLAMA
    };
    ModelConfig {
        mlp: Mlp::GeGlu,
        parts,
        ..model
    }
}

/// As OLMo 2.
fn normed_after(model: ModelConfig) -> ModelConfig {
    let parts = Parts {
        qk_gains: QkGains::Projection,
        norms: Norms::After,
        ..Parts::LLAMA
    };
    ModelConfig { parts, ..model }
}

/// As SmolLM 3, Qwen 3 and Mistral, and as no family yet.
fn unrotated(model: ModelConfig) -> ModelConfig {
    let parts = Parts {
        qkv_bias: true,
        qk_gains: QkGains::Head,
        norms: Norms::After,
        residual_scale: 0.7,
        unrotated: Blocks::from_bits(0b10),
        window: Some(Window {
            blocks: Blocks::from_bits(0b11),
            len: 4,
            rope: None,
        }),
        ..Parts::LLAMA
    };
    ModelConfig {
        tied_embeddings: true,
        qk_norm: false,
        parts,
        ..model
    }
}

/// Norms without gains, everywhere.
fn bare(model: ModelConfig) -> ModelConfig {
    let parts = Parts {
        norms: Norms::Around,
        residual_scale: 1.3,
        ..Parts::LLAMA
    };
    ModelConfig { parts, ..model }
}

/// Weights whose gains differ from 1.
pub(super) fn weights(config: ModelConfig, purpose: &str) -> model::Params {
    let mut params = model::Params::init(&Layout::new(config), &Stream::new(7, purpose));
    let mut random = Stream::new(8, purpose).at(0);
    params
        .data
        .iter_mut()
        .for_each(|x| *x += 0.1 * random.normal());
    params
}

pub(super) const SEQ_LEN: usize = 7;

/// Rows, and weights of some of their positions.
pub(super) fn rows() -> (Vec<u32>, Vec<f32>) {
    let mut random = Stream::new(9, "tokens").at(0);
    let tokens: Vec<u32> = (0..5 * SEQ_LEN).map(|_| random.below(23) as u32).collect();
    let mask = (0..tokens.len()).map(|i| i % 3 != 0 && i > SEQ_LEN);
    (tokens, mean_weights(&mask.collect::<Vec<_>>(), SEQ_LEN))
}

fn student_and_reference(student: &model::Params, device: &Device) -> (Params, Params) {
    let reference = weights(student.layout.config, "reference");
    let upload = |params| Params::upload(params, Precision::F32, device).unwrap();
    (upload(student), upload(&reference).frozen())
}

/// A loss and its gradient.
#[derive(Debug, PartialEq)]
struct Step {
    loss: f64,
    gradient: model::Params,
}

/// `NTP + 2 KL` of some positions, with its gradient.
fn step(config: ModelConfig, device: &Device, batching: Batching) -> Step {
    let (tokens, ntp) = rows();
    let kl: Vec<f32> = ntp.iter().map(|w| 2.0 * w).collect();
    let batch = LossBatch {
        tokens: &tokens,
        seq_len: SEQ_LEN,
        ntp_weights: &ntp,
        kl_weights: &kl,
    };
    let (student, reference) = student_and_reference(&weights(config, "student"), device);
    let mut engine = gpu::Engine::new(&student.layout, device);
    engine.set_batching(batching);
    let report = engine.forward_backward(&student, Some(&reference), &[batch]);
    Step {
        loss: report.unwrap().total,
        gradient: engine.gradients().unwrap(),
    }
}

/// The same loss without its gradient.
fn loss(student: &model::Params, device: &Device) -> f64 {
    let (tokens, ntp) = rows();
    let wanted: Vec<bool> = ntp.iter().map(|&w| w != 0.0).collect();
    let (student, reference) = student_and_reference(student, device);
    let mut engine = gpu::Engine::new(&student.layout, device);
    let losses = engine
        .evaluate(&student, Some(&reference), &tokens, SEQ_LEN, Some(&wanted))
        .unwrap();
    losses
        .iter()
        .zip(&ntp)
        .map(|(loss, &w)| f64::from(w) * f64::from(loss.ntp + 2.0 * loss.kl))
        .sum()
}

/// Every tensor's gradient along a random direction.
#[test]
fn gradients_of_every_mixture_are_derivatives() {
    const STEP: f32 = 1e-3;
    for (name, device) in devices() {
        for config in mixtures() {
            let student = weights(config, "student");
            let gradient = step(config, &device, Batching::default()).gradient;
            for (i, entry) in student.layout.entries.iter().enumerate() {
                let mut random = Stream::new(11, "direction").at(i as u64);
                let direction: Vec<f32> = entry.range.clone().map(|_| random.normal()).collect();
                let shifted = |by: f32| {
                    let mut params = student.clone();
                    let numbers = params.data[entry.range.clone()].iter_mut();
                    numbers.zip(&direction).for_each(|(x, d)| *x += by * d);
                    loss(&params, &device)
                };
                // Of the fourth order: norms of small outputs bend the loss.
                let rise = |by: f32| shifted(by) - shifted(-by);
                let expected = (8.0 * rise(STEP) - rise(2.0 * STEP)) / f64::from(12.0 * STEP);
                let along: f64 = gradient.data[entry.range.clone()]
                    .iter()
                    .zip(&direction)
                    .map(|(g, d)| f64::from(*g) * f64::from(*d))
                    .sum();
                let error = (along - expected).abs() / expected.abs().max(0.1);
                let case = format!("{name}, {} of {:?}", entry.name, config.parts);
                assert!(error < 1e-2, "{case}: {along} {expected}");
            }
        }
    }
}

/// Memory saved must not change what is learned.
#[test]
fn recomputation_gives_the_same_bits_and_micro_batches_the_same_gradients() {
    for (name, device) in devices() {
        for config in mixtures() {
            let with = |micro_batch, recompute| {
                let batching = Batching {
                    micro_batch,
                    recompute,
                    ..Batching::default()
                };
                step(config, &device, batching)
            };
            let (whole, cut) = (with(0, false), with(2, false));
            assert_eq!(with(0, true), whole, "{name}");
            assert_eq!(with(2, true), cut, "{name}");
            assert!((whole.loss - cut.loss).abs() < 1e-6 * whole.loss);
            let error = error(&cut.gradient.data, &whole.gradient.data, 1e-6);
            assert!(error < 1e-5, "{name}: {error:e}");
        }
    }
}

/// A prediction that forgets a tensor ends in a run without memory, hours after its start.
#[test]
fn what_is_kept_for_the_backward_is_what_is_predicted() {
    for config in mixtures() {
        let params = weights(config, "student");
        let rows_of_batch = Rows {
            seq_len: SEQ_LEN,
            heads: &Heads::new(config, SEQ_LEN, &Device::Cpu).unwrap(),
        };
        let (tokens, _) = rows();
        let ids = upload_ids(&tokens, &Device::Cpu).unwrap();
        for precision in [Precision::F32, Precision::Bf16] {
            let params = Params::upload(&params, precision, &Device::Cpu).unwrap();
            for (keep, recompute) in [(Keep::Blocks, false), (Keep::Inputs, true)] {
                let acts = forward(&params, &ids, rows_of_batch, keep, None).unwrap();
                let widths = Widths::new(&config, params.dtype());
                let predicted = widths.kept(tokens.len(), recompute);
                // Without QK-norm, a block keeps one element in place of its `1/rms`.
                let kept = acts.kept_bytes();
                assert!(
                    kept.abs_diff(predicted) <= 4 * config.n_layers,
                    "{kept} {predicted}"
                );
            }
        }
    }
}

/// The cache, filled in one pass or token by token, must hold what the whole row would compute.
#[test]
fn rows_go_on_as_the_whole_model_says() {
    const LENGTH: usize = 12;
    for (name, device) in devices() {
        for config in mixtures() {
            let weights = weights(config, "student");
            let params = Params::upload(&weights, Precision::F32, &device).unwrap();
            for prompts in [
                vec![vec![1, 2, 3, 4, 5], vec![7, 6, 5]],
                vec![vec![3], vec![4]],
            ] {
                let request = Request {
                    prompts: &prompts,
                    length: LENGTH,
                    sampling: &Sampling::greedy(),
                    stream: &Stream::new(0, "greedy"),
                    first_row: 0,
                };
                let generated = Sampler::new(&device).generate(&params, request).unwrap();
                let mut engine = gpu::Engine::new(&params.layout, &device);
                let logits = engine.logits(&params, &generated.tokens, LENGTH).unwrap();
                let v = config.vocab_size;
                for (row, prompt) in prompts.iter().enumerate() {
                    let tokens = &generated.tokens[row * LENGTH..][..LENGTH];
                    assert_eq!(&tokens[..prompt.len()], prompt);
                    for t in prompt.len()..LENGTH {
                        let logits = &logits[(row * LENGTH + t - 1) * v..][..v];
                        let best = logits.iter().fold(f32::MIN, |a, &b| a.max(b));
                        let chosen = logits[tokens[t] as usize];
                        assert!(
                            best - chosen < 1e-4,
                            "{name}, row {row} at {t}: {chosen} {best}"
                        );
                    }
                }
            }
        }
    }
}

/// Else less memory for what is generated would mean other texts.
#[test]
fn rows_generated_a_few_at_a_time_are_the_same() {
    const LENGTH: usize = 9;
    for (name, device) in devices() {
        for config in mixtures() {
            let weights = weights(config, "student");
            let params = Params::upload(&weights, Precision::F32, &device).unwrap();
            let prompts: Vec<Vec<u32>> =
                (0..7).map(|row| vec![row; 1 + row as usize % 3]).collect();
            let request = Request {
                prompts: &prompts,
                length: LENGTH,
                sampling: &Sampling::default(),
                stream: &Stream::new(3, "rows"),
                first_row: 5,
            };
            let row = generated_row(&config, params.dtype(), LENGTH, 1);
            let at_most = |rows: usize| {
                let mut sampler = Sampler::new(&device);
                sampler.set_batching(Batching {
                    generation_bytes: rows * row,
                    ..Batching::default()
                });
                sampler.generate(&params, request).unwrap()
            };
            let whole = Sampler::new(&device).generate(&params, request).unwrap();
            for rows in [0, 1, 3, 7] {
                let cut = at_most(rows);
                assert_eq!(cut.tokens, whole.tokens, "{name}, {rows} at a time");
                assert_eq!(cut.lengths, whole.lengths);
            }
        }
    }
}

/// Multiple choice depends on it.
#[test]
fn log_probs_are_those_of_the_logits() {
    for (name, device) in devices() {
        let config = mixtures()[1];
        let weights = weights(config, "student");
        let params = Params::upload(&weights, Precision::F32, &device).unwrap();
        let (tokens, _) = rows();
        let mut engine = gpu::Engine::new(&params.layout, &device);
        engine.batching.micro_batch = 2;
        let logits = engine.logits(&params, &tokens, SEQ_LEN).unwrap();
        // Not in order, one without candidates, last positions too.
        let queries = [
            query(34, &[3]),
            query(6, &[1, 22, 1]),
            query(9, &[]),
            query(7, &[0, 5]),
        ];
        let answers = engine
            .log_probs(&params, &tokens, SEQ_LEN, &queries)
            .unwrap();
        for (query, log_probs) in queries.iter().zip(answers) {
            let logits = &logits[query.position * 23..][..23];
            let lse = logits.iter().map(|x| x.exp()).sum::<f32>().ln();
            let candidates = query.candidates.iter();
            let expected: Vec<f32> = candidates.map(|&id| logits[id as usize] - lse).collect();
            assert_eq!(log_probs.len(), expected.len());
            let mut pairs = log_probs.iter().zip(&expected);
            let close = pairs.all(|(a, b)| (a - b).abs() < 1e-5);
            assert!(close, "{name}: {log_probs:?} {expected:?}");
        }
    }
}

fn query(position: usize, candidates: &[u32]) -> Query {
    Query {
        position,
        candidates: candidates.to_vec(),
    }
}

/// What an engine computes with one model.
struct Results {
    total: f64,
    gradient: model::Params,
    log_probs: Vec<f32>,
    generated: Vec<u32>,
}

/// Else an arm would learn another thing on a GPU.
#[test]
fn every_mixture_computes_as_on_the_cpu() {
    for (name, device) in devices() {
        for config in mixtures() {
            computes_as_on_the_cpu(name, &device, config);
        }
    }
}

/// Else the sizes that people train, whose widths and groups of heads no small model has, would be tried first by them:
/// Llama-3.2-1B but for its number of blocks and its vocabulary.
#[test]
fn two_blocks_of_a_1b_llama_compute_as_on_the_cpu() {
    for (name, device) in devices() {
        let config = ModelConfig {
            tied_embeddings: true,
            rope: tiny(true).rope,
            ..ModelConfig::llama(2048, 2, [32, 8, 64], 8192, 300)
        };
        computes_as_on_the_cpu(name, &device, config);
    }
}

fn computes_as_on_the_cpu(name: &str, device: &Device, config: ModelConfig) {
    let ((tokens, ntp), prompts) = (rows(), [vec![1, 2, 3], vec![4]]);
    let queries = [query(8, &[3, 4]), query(2, &[5])];
    let layout = Layout::new(config);
    let run = |mut engine: Engine| {
        let student = engine.weights(weights(config, "student")).unwrap();
        let reference = engine.weights(weights(config, "reference")).unwrap();
        let batch = LossBatch {
            tokens: &tokens,
            seq_len: SEQ_LEN,
            ntp_weights: &ntp,
            kl_weights: &ntp,
        };
        let report = engine.forward_backward(&student, Some(&reference.frozen()), &[batch]);
        let request = Request {
            prompts: &prompts,
            length: 9,
            sampling: &Sampling::greedy(),
            stream: &Stream::new(0, "greedy"),
            first_row: 0,
        };
        let log_probs = engine.log_probs(&student, &tokens, SEQ_LEN, &queries);
        Results {
            total: report.unwrap().total,
            gradient: engine.gradients().unwrap(),
            log_probs: log_probs.unwrap().concat(),
            generated: engine.generate(&student, request).unwrap().tokens,
        }
    };
    let expected = run(Engine::new(config, &Hardware::cpu(2)).unwrap());
    let results = run(Engine::on(&layout, Precision::F32, device.clone()));
    let error_of_total = (results.total - expected.total).abs();
    assert!(error_of_total < 1e-5 * expected.total, "{name}");
    let pairs = results.gradient.tensors().zip(expected.gradient.tensors());
    for ((tensor, _, gradient), (_, _, expected)) in pairs {
        let error = error(gradient, expected, 1e-6);
        assert!(error < 1e-4, "{name}, gradient of {tensor}: {error:e}");
    }
    let error = error(&results.log_probs, &expected.log_probs, 1.0);
    assert!(error < 1e-5, "{name}");
    assert_eq!(results.generated, expected.generated, "{name}");
}
