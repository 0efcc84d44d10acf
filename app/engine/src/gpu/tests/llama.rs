//! The Llama family, and models between it and the small one: against PyTorch, finite differences, and
//! themselves.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::Path;

use candle_core::{Device, Tensor};

use crate::adamw::{self, AdamWConfig};
use crate::batch::{Batching, LossBatch, Query};
use crate::device::Hardware;
use crate::engine::Engine;
use crate::gpu::{self, AdamW, Params, Sampler};
use crate::model::{self, Layout, ModelConfig};
use crate::ops::Precision;
use crate::ops::rope::{Rope, RopeScaling};
use crate::pretrained::from_hugging_face;
use crate::random::Stream;
use crate::sampling::{Request, Sampling};

use super::super::heads::Heads;
use super::super::memory::Widths;
use super::super::model::{Keep, forward};
use super::super::ops::upload_ids;
use super::{devices, error};

/// Of the fixtures `llama-tiny-tied` and `llama-tiny-untied`, as their `config.json` have it.
fn tiny(tied_embeddings: bool) -> ModelConfig {
    let scaling = RopeScaling {
        factor: 32.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_positions: 64.0,
    };
    ModelConfig {
        tied_embeddings,
        rope: match tied_embeddings {
            true => Rope {
                base: 500_000.0,
                scaling: Some(scaling),
            },
            false => Rope {
                base: 10_000.0,
                scaling: None,
            },
        },
        ..ModelConfig::llama(64, 3, [4, 2, 16], 160, 320)
    }
}

pub(super) struct Fixture {
    tensors: BTreeMap<String, Tensor>,
    json: serde_json::Value,
    layout: std::sync::Arc<Layout>,
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

    pub(super) fn ids(&self, name: &str) -> Vec<u32> {
        let ids = self.tensors[name].flatten_all().unwrap();
        let ids = ids.to_dtype(candle_core::DType::U32).unwrap();
        ids.to_vec1().unwrap()
    }
}

/// Weights of a mean over targets that the mask, shifted with them, leaves in.
pub(super) fn mean_weights(mask: &[bool], seq_len: usize) -> Vec<f32> {
    let is_scored = |i: usize| !(i + 1).is_multiple_of(seq_len) && mask[i + 1];
    let scored: Vec<bool> = (0..mask.len()).map(is_scored).collect();
    let weight = 1.0 / scored.iter().filter(|&&scored| scored).count() as f32;
    let weights = scored
        .iter()
        .map(|&scored| if scored { weight } else { 0.0 });
    weights.collect()
}

/// Else finetuning a checkpoint here would be another thing than finetuning it in PyTorch.
#[test]
fn a_llama_computes_and_trains_as_in_pytorch() {
    const T: usize = 48;
    for ((name, device), tied) in devices()
        .into_iter()
        .flat_map(|d| [(d.clone(), true), (d, false)])
    {
        let fixture = Fixture::read(tied);
        let (tokens, replay) = (fixture.ids("tokens"), fixture.ids("replay_tokens"));
        let mask: Vec<bool> = fixture.ids("loss_mask").iter().map(|&x| x != 0).collect();
        let (ntp, all) = (mean_weights(&mask, T), vec![true; replay.len()]);
        let kl = mean_weights(&all, T);
        let zeros = vec![0.0; tokens.len()];
        let batch = |tokens, ntp_weights, kl_weights| LossBatch {
            tokens,
            seq_len: T,
            ntp_weights,
            kl_weights,
        };
        let batches = [batch(&tokens, &ntp, &zeros), batch(&replay, &zeros, &kl)];
        for (precision, loss_tolerance, tolerance) in
            [(Precision::F32, 1e-5, 1e-4), (Precision::Bf16, 1e-2, 8e-2)]
        {
            let what = format!("tied {tied}, {precision:?} on {name}");
            let upload = |prefix| Params::upload(&fixture.params(prefix), precision, &device);
            let (mut theta, pi) = (upload("theta").unwrap(), upload("pi").unwrap().frozen());
            let mut engine = gpu::Engine::new(&fixture.layout, &device);
            for (prefix, params) in [("theta", &theta), ("pi", &pi)] {
                let logits = engine.logits(params, &tokens, T).unwrap();
                let error = error(&logits, &fixture.numbers(&format!("logits.{prefix}")), 1e-6);
                assert!(error < tolerance, "{what}, logits of {prefix}: {error:e}");
            }
            let report = engine
                .forward_backward(&theta, Some(&pi), &batches)
                .unwrap();
            let of_rows = |i: usize| -> [f64; 2] {
                let rows = &report.rows[i];
                [
                    rows.iter().map(|r| r.ntp).sum(),
                    rows.iter().map(|r| r.kl).sum(),
                ]
            };
            let (ntp_loss, kl_loss) = (
                of_rows(0)[0] * f64::from(ntp.iter().copied().fold(0.0, f32::max)),
                of_rows(1)[1] * f64::from(kl[0]),
            );
            for (found, key) in [(ntp_loss, "ntp"), (kl_loss, "kl_replay")] {
                let expected = fixture.json[key].as_f64().unwrap();
                let error = (found - expected).abs();
                assert!(
                    error < loss_tolerance * expected.max(1.0),
                    "{what}, {key}: {found} {expected}"
                );
            }
            let gradients = engine.gradients().unwrap();
            let (expected, mut worst) = (fixture.params("grad"), 0f64);
            for ((tensor, _, found), (_, _, expected)) in
                gradients.tensors().zip(expected.tensors())
            {
                let error = error(found, expected, 1e-6);
                assert!(error < tolerance, "{what}, gradient of {tensor}: {error:e}");
                worst = worst.max(error);
            }
            println!("{what}: gradients within {worst:.1e} of a tensor's largest entry");
            if precision == Precision::Bf16 {
                continue;
            }
            let config = AdamWConfig {
                beta1: 0.9,
                beta2: 0.997,
                eps: 1e-8,
                weight_decay: 0.0,
            };
            let adamw = adamw::AdamW::new(config, fixture.layout.len);
            let mut adamw = AdamW::upload(&adamw, &fixture.layout, &device).unwrap();
            let totals = fixture.json["total_loss_each_step"].as_array().unwrap();
            for expected in totals {
                let report = engine
                    .forward_backward(&theta, Some(&pi), &batches)
                    .unwrap();
                let error = (report.total - expected.as_f64().unwrap()).abs();
                assert!(error < 1e-4, "{what}, loss: {} {expected}", report.total);
                engine.update(&mut theta, &mut adamw, 1e-3).unwrap();
            }
            // Adam's first steps carry but the sign of a tiny gradient.
            let after = theta.download().unwrap();
            let expected_after = fixture.params("after");
            let triples = after.data.iter().zip(&expected_after.data);
            let worst = triples
                .zip(&expected.data)
                .filter(|(_, gradient)| **gradient == 0.0 || gradient.abs() > 1e-6)
                .fold(0f32, |worst, ((a, b), _)| worst.max((a - b).abs()));
            assert!(worst < 1e-4, "{what}, updated weights: {worst:e}");
        }
        // The checkpoint's own continuation.
        let pi = Params::upload(&fixture.params("pi"), Precision::F32, &device).unwrap();
        let greedy = fixture.json["greedy_from_bos"].as_array().unwrap();
        let greedy: Vec<u32> = greedy.iter().map(|x| x.as_u64().unwrap() as u32).collect();
        let request = Request {
            prompts: &[vec![greedy[0]]],
            length: greedy.len(),
            sampling: &Sampling::greedy(),
            stream: &Stream::new(0, "greedy"),
            first_row: 0,
        };
        assert_eq!(
            Sampler::new(&device).generate(&pi, request).unwrap().tokens,
            greedy
        );
    }
}

/// Small models with all parts in some combination.
pub(super) fn mixtures() -> [ModelConfig; 3] {
    let mini = ModelConfig::mini(24, 2, 6, 23);
    let llama = ModelConfig::llama(24, 2, [4, 2, 6], 20, 23);
    let odd = ModelConfig {
        n_heads: 6,
        n_kv_heads: 1,
        norm_gains: true,
        ..mini
    };
    [mini, llama, odd]
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

/// `NTP + 2 KL` of some positions, with its gradient.
fn gradients(config: ModelConfig, device: &Device, batching: Batching) -> (f64, model::Params) {
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
    (report.unwrap().total, engine.gradients().unwrap())
}

/// The same without gradient.
fn loss(student: &model::Params, device: &Device) -> f64 {
    let (tokens, ntp) = rows();
    let wanted: Vec<bool> = ntp.iter().map(|&w| w != 0.0).collect();
    let (student, reference) = student_and_reference(student, device);
    let mut engine = gpu::Engine::new(&student.layout, device);
    let losses = engine.evaluate(&student, Some(&reference), &tokens, SEQ_LEN, Some(&wanted));
    let losses = losses.unwrap();
    let terms = losses.iter().zip(&ntp);
    let terms = terms.map(|(loss, &w)| f64::from(w) * f64::from(loss.ntp + 2.0 * loss.kl));
    terms.sum()
}

/// Every tensor's gradient along a random direction.
#[test]
fn gradients_of_every_mixture_are_derivatives() {
    const STEP: f32 = 1e-3;
    for (name, device) in devices() {
        for config in mixtures() {
            let student = weights(config, "student");
            let (_, found) = gradients(config, &device, Batching::default());
            for (i, entry) in student.layout.entries.iter().enumerate() {
                let mut random = Stream::new(11, "direction").at(i as u64);
                let direction: Vec<f32> = entry.range.clone().map(|_| random.normal()).collect();
                let shifted = |by: f32| {
                    let mut params = student.clone();
                    let numbers = params.data[entry.range.clone()].iter_mut();
                    numbers.zip(&direction).for_each(|(x, d)| *x += by * d);
                    loss(&params, &device)
                };
                let expected = (shifted(STEP) - shifted(-STEP)) / f64::from(2.0 * STEP);
                let along = found.data[entry.range.clone()].iter().zip(&direction);
                let along: f64 = along.map(|(g, d)| f64::from(*g) * f64::from(*d)).sum();
                let error = (along - expected).abs() / expected.abs().max(0.1);
                assert!(error < 1e-2, "{name}, {}: {along} {expected}", entry.name);
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
                };
                gradients(config, &device, batching)
            };
            let (whole, cut) = (with(0, false), with(2, false));
            assert_eq!(with(0, true), whole, "{name}");
            assert_eq!(with(2, true), cut, "{name}");
            assert!((whole.0 - cut.0).abs() < 1e-6 * whole.0);
            let error = error(&cut.1.data, &whole.1.data, 1e-6);
            assert!(error < 1e-5, "{name}: {error:e}");
        }
    }
}

/// A prediction that forgets a tensor ends in a run without memory, hours after its start.
#[test]
fn what_is_kept_for_the_backward_is_what_is_predicted() {
    for config in mixtures() {
        let params = weights(config, "student");
        let heads = Heads::new(config, SEQ_LEN, &Device::Cpu).unwrap();
        let (tokens, _) = rows();
        let ids = upload_ids(&tokens, &Device::Cpu).unwrap();
        for precision in [Precision::F32, Precision::Bf16] {
            let params = Params::upload(&params, precision, &Device::Cpu).unwrap();
            for (keep, recompute) in [(Keep::Blocks, false), (Keep::Inputs, true)] {
                let acts = forward(&params, &ids, SEQ_LEN, &heads, keep).unwrap();
                let widths = Widths::new(&config, params.dtype());
                let predicted = widths.kept(tokens.len(), recompute);
                // A number stands in for what QK-norm would keep.
                let found = acts.kept_bytes();
                assert!(
                    found.abs_diff(predicted) <= 4 * config.n_layers,
                    "{found} {predicted}"
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
            let params = weights(config, "student");
            let params = Params::upload(&params, Precision::F32, &device).unwrap();
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
                let found = Sampler::new(&device).generate(&params, request).unwrap();
                let mut engine = gpu::Engine::new(&params.layout, &device);
                let logits = engine.logits(&params, &found.tokens, LENGTH).unwrap();
                let logits: Vec<&[f32]> = logits.chunks_exact(config.vocab_size).collect();
                for (row, prompt) in prompts.iter().enumerate() {
                    let tokens = &found.tokens[row * LENGTH..][..LENGTH];
                    assert_eq!(&tokens[..prompt.len()], prompt);
                    for t in prompt.len()..LENGTH {
                        let logits = logits[row * LENGTH + t - 1];
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

/// Multiple choice rests on it.
#[test]
fn log_probs_are_those_of_the_logits() {
    for (name, device) in devices() {
        let config = mixtures()[1];
        let params = weights(config, "student");
        let params = Params::upload(&params, Precision::F32, &device).unwrap();
        let (tokens, _) = rows();
        let mut engine = gpu::Engine::new(&params.layout, &device);
        engine.batching.micro_batch = 2;
        let logits = engine.logits(&params, &tokens, SEQ_LEN).unwrap();
        // Not in order, one without candidates, last positions too.
        let queries: [(usize, &[u32]); 4] = [(34, &[3]), (6, &[1, 22, 1]), (9, &[]), (7, &[0, 5])];
        let found = engine
            .log_probs(&params, &tokens, SEQ_LEN, &queries)
            .unwrap();
        for ((at, candidates), found) in queries.iter().zip(found) {
            let logits = &logits[at * 23..][..23];
            let lse = logits.iter().map(|x| x.exp()).sum::<f32>().ln();
            let expected: Vec<f32> = candidates
                .iter()
                .map(|&id| logits[id as usize] - lse)
                .collect();
            assert_eq!(found.len(), expected.len());
            let close = found
                .iter()
                .zip(&expected)
                .all(|(a, b)| (a - b).abs() < 1e-5);
            assert!(close, "{name}: {found:?} {expected:?}");
        }
    }
}

/// Else an arm would learn another thing on a GPU.
#[test]
fn every_mixture_computes_as_on_the_cpu() {
    let ((tokens, ntp), prompts) = (rows(), [vec![1, 2, 3], vec![4]]);
    let query = |position, candidates: &[u32]| Query {
        position,
        candidates: candidates.to_vec(),
    };
    let queries = [query(8, &[3, 4]), query(2, &[5])];
    for ((name, device), config) in devices()
        .into_iter()
        .flat_map(|device| mixtures().map(|config| (device.clone(), config)))
    {
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
            (
                report.unwrap().total,
                engine.gradients().unwrap(),
                log_probs.unwrap().concat(),
                engine.generate(&student, request).unwrap().tokens,
            )
        };
        let expected = run(Engine::new(config, &Hardware::cpu(2)).unwrap());
        let found = run(Engine::on(&layout, Precision::F32, device));
        assert!((found.0 - expected.0).abs() < 1e-5 * expected.0, "{name}");
        for ((tensor, _, found), (_, _, expected)) in found.1.tensors().zip(expected.1.tensors()) {
            let error = error(found, expected, 1e-6);
            assert!(error < 1e-4, "{name}, gradient of {tensor}: {error:e}");
        }
        assert!(error(&found.2, &expected.2, 1.0) < 1e-5, "{name}");
        assert_eq!(found.3, expected.3, "{name}");
    }
}
