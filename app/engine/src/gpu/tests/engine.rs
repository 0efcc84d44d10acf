//! The engine against the hand-written CPU one, and against the independent implementation.

use candle_core::Device;

use super::{devices, error, normals};
use crate::adamw::{AdamW, AdamWConfig};
use crate::batch::{LossBatch, LossReport};
use crate::data::Suite;
use crate::device::Hardware;
use crate::engine::Compute;
use crate::eval::verify_mini;
use crate::gpu;
use crate::model::{Layout, ModelConfig, Params};
use crate::ops::Precision;
use crate::random::Stream;
use crate::sampling::{Generated, Request, Sampling};
use crate::train::{Learner, PhaseStart, settings};
use crate::weights::Weights;
use forgetlab_study::experiment::{Overrides, RunConfig, resolve};
use forgetlab_study::run::{CheckpointStore, Cost};

const FIXTURE: &[u8] = include_bytes!("../../../../../tests/fixtures/mini-parity.safetensors");

pub(super) fn on_cpu(config: ModelConfig) -> Compute {
    Compute::new(config, &Hardware::cpu(2)).unwrap()
}

pub(super) fn on_device(config: ModelConfig, precision: Precision, device: &Device) -> Compute {
    Compute::on(&Layout::new(config), precision, device.clone())
}

#[test]
fn engine_agrees_with_the_independent_implementation() {
    for (name, device) in devices() {
        for precision in [Precision::F32, Precision::Bf16] {
            let compute = |config| Ok(on_device(config, precision, &device));
            let checks = verify_mini(FIXTURE, compute).unwrap();
            assert_eq!(checks.len(), 3 + 3 * 9 + 6 + 6);
            let worst = |unit: &str| {
                let of_unit = checks.iter().filter(|check| check.unit == unit);
                of_unit.fold(0f64, |worst, check| worst.max(check.error))
            };
            println!(
                "{name}, {precision:?}: {:.1e} of a tensor's largest entry, {:.1e} of a loss, {:.1e} in a weight",
                worst("of the largest entry"),
                worst("of the value"),
                worst("absolute"),
            );
            for check in checks {
                assert!(check.passed(), "{name}, {precision:?}: {check:?}");
            }
        }
    }
}

const CONFIG: ModelConfig = ModelConfig::mini(24, 2, 6, 23);

fn weights(config: ModelConfig, purpose: &str) -> Params {
    let mut params = Params::init(&Layout::new(config), &Stream::new(7, purpose));
    // Far enough from uniform that a wrong token or a wrong cache shows.
    params.data.iter_mut().for_each(|x| *x *= 2.0);
    params
}

/// Rows of random tokens, and weights of their losses.
struct Batch {
    tokens: Vec<u32>,
    seq_len: usize,
    ntp: Vec<f32>,
    kl: Vec<f32>,
}

impl Batch {
    fn new(rows: usize, seq_len: usize, ntp: f32, kl: f32) -> Self {
        let mut random = Stream::new(rows as u64, "tokens").at(seq_len as u64);
        let len = rows * seq_len;
        let weights = |scale: f32| -> Vec<f32> {
            let weights = normals("loss weights", len);
            let last = |i: usize| (i + 1).is_multiple_of(seq_len);
            let weight = |(i, w): (usize, &f32)| if last(i) { 0.0 } else { scale * w.abs() };
            weights.iter().enumerate().map(weight).collect()
        };
        Self {
            tokens: (0..len).map(|_| random.below(23) as u32).collect(),
            seq_len,
            ntp: weights(ntp),
            kl: weights(kl),
        }
    }

    fn as_loss(&self) -> LossBatch<'_> {
        LossBatch {
            tokens: &self.tokens,
            seq_len: self.seq_len,
            ntp_weights: &self.ntp,
            kl_weights: &self.kl,
        }
    }
}

/// Losses, gradients and weights after an update.
fn step(compute: &mut Compute, batches: &[Batch]) -> (LossReport, Params, Params) {
    let config = AdamWConfig {
        beta1: 0.9,
        beta2: 0.99,
        // Large: the direction of a tiny gradient is noise otherwise.
        eps: 0.1,
        weight_decay: 0.1,
    };
    let mut student = compute.weights(weights(CONFIG, "student")).unwrap();
    let reference = compute.weights(weights(CONFIG, "reference")).unwrap();
    let adamw = AdamW::new(config, compute.layout().len);
    let mut adamw = compute.optimizer(adamw).unwrap();
    let batches: Vec<LossBatch> = batches.iter().map(Batch::as_loss).collect();
    let report = compute
        .forward_backward(&student, Some(&reference), &batches)
        .unwrap();
    let gradients = compute.gradients().unwrap();
    let norm = compute.update(&mut student, &mut adamw, 0.1).unwrap();
    let squares = gradients.data.iter().map(|g| f64::from(*g).powi(2));
    let expected = squares.sum::<f64>().sqrt();
    assert!((norm - expected).abs() <= 1e-5 * expected);
    (report, gradients, student.on_host().unwrap().into_owned())
}

fn assert_close(what: &str, found: &LossReport, expected: &LossReport, tolerance: f64) {
    let close = |a: f64, b: f64| (a - b).abs() <= tolerance * b.abs().max(1.0);
    assert!(close(found.total, expected.total), "{what}: {found:?}");
    for (found, expected) in found.rows.iter().zip(&expected.rows) {
        assert_eq!(found.len(), expected.len(), "{what}");
        for (a, b) in found.iter().zip(expected) {
            assert!(
                close(a.ntp, b.ntp) && close(a.kl, b.kl),
                "{what}: {a:?} {b:?}"
            );
        }
    }
}

/// Awkward batches: one row, one position, none at all, another length in replay, KL on both.
fn batches() -> Vec<Vec<Batch>> {
    vec![
        vec![Batch::new(1, 1, 1.0, 0.0)],
        vec![Batch::new(1, 5, 1.0, 0.0)],
        vec![Batch::new(13, 9, 1.0, 0.0), Batch::new(5, 11, 0.0, 3.0)],
        vec![Batch::new(0, 9, 1.0, 0.0), Batch::new(3, 7, 1.0, 1.0)],
        vec![Batch::new(6, 3, 0.5, 2.0)],
    ]
}

#[test]
fn losses_gradients_and_updates_are_the_cpu_engines() {
    for (name, device) in devices() {
        for (precision, loss_tolerance, tolerance) in
            [(Precision::F32, 1e-5, 1e-4), (Precision::Bf16, 0.05, 0.1)]
        {
            for (i, batches) in batches().iter().enumerate() {
                let what = format!("batch {i} in {precision:?} on {name}");
                let (losses, gradients, after) = step(&mut on_cpu(CONFIG), batches);
                let mut compute = on_device(CONFIG, precision, &device);
                let found = step(&mut compute, batches);
                assert_close(&what, &found.0, &losses, loss_tolerance);
                let pairs = found.1.tensors().zip(gradients.tensors());
                for ((tensor, _, found), (_, _, expected)) in pairs {
                    let error = error(found, expected, 1e-6);
                    assert!(error < tolerance, "{what}, gradient of {tensor}: {error:e}");
                }
                let error = error(&found.2.data, &after.data, 1e-6);
                assert!(error < tolerance, "{what}, updated weights: {error:e}");
            }
        }
    }
}

/// A batch that does not fit at once must train as if it did.
#[test]
fn micro_batches_and_chunks_change_rounding_alone() {
    for (name, device) in devices() {
        for batches in batches() {
            let whole = step(&mut on_device(CONFIG, Precision::F32, &device), &batches);
            let mut compute = on_device(CONFIG, Precision::F32, &device);
            let engine = compute.gpu_engine();
            engine.batching.micro_batch = 2;
            engine.chunk_logits = 50;
            let cut = step(&mut compute, &batches);
            assert_close(name, &cut.0, &whole.0, 1e-6);
            let error = error(&cut.1.data, &whole.1.data, 1e-6);
            assert!(error < 1e-5, "{name}: {error:e}");
        }
    }
}

/// A graph that nobody asked for would keep every activation of a run alive.
#[test]
fn no_graph_is_recorded() {
    let params = weights(CONFIG, "student");
    let device = Device::Cpu;
    let student = gpu::Params::upload(&params, Precision::F32, &device).unwrap();
    let mut engine = gpu::Engine::new(&params.layout, &device);
    let batch = Batch::new(3, 5, 1.0, 1.0);
    engine
        .forward_backward(&student, Some(&student), &[batch.as_loss()])
        .unwrap();
    let gradients = engine.gradient().unwrap().iter().flatten();
    assert!(gradients.clone().count() > 0);
    assert!(gradients.into_iter().all(|gradient| !gradient.track_op()));
}

#[test]
fn evaluation_is_the_cpu_engines() {
    for (name, device) in devices() {
        let batch = Batch::new(17, 9, 0.0, 0.0);
        let score = |mut compute: Compute| {
            let student = compute.weights(weights(CONFIG, "student")).unwrap();
            let reference = compute.weights(weights(CONFIG, "reference")).unwrap();
            let found = compute.evaluate(&student, Some(&reference), &batch.tokens, batch.seq_len);
            found.unwrap()
        };
        let expected = score(on_cpu(CONFIG));
        let found = score(on_device(CONFIG, Precision::F32, &device));
        assert_eq!(found.len(), expected.len());
        for (a, b) in found.iter().zip(&expected) {
            let close = (a.ntp - b.ntp).abs() < 1e-4 && (a.kl - b.kl).abs() < 1e-4;
            assert!(close && a.correct == b.correct, "{name}: {a:?} {b:?}");
        }
    }
}

fn generate(compute: &mut Compute, sampling: &Sampling, prompts: &[Vec<u32>]) -> Generated {
    let model = compute.weights(weights(compute.layout().config, "student"));
    let request = Request {
        prompts,
        length: 19,
        sampling,
        stream: &Stream::new(3, "sample"),
        first_row: 5,
    };
    compute.generate(&model.unwrap(), request).unwrap()
}

/// Sampling draws a row's tokens with its own random numbers, the same on every device; only where
/// one falls within rounding of a boundary may a row go another way.
#[test]
fn generated_rows_are_the_cpu_samplers() {
    let prompts: Vec<Vec<u32>> = (0..100)
        .map(|i| (0..1 + i % 5).map(|j| (i * 7 + j * 3) % 23).collect())
        .collect();
    // More tokens than a group of the sampler holds.
    let large = ModelConfig {
        vocab_size: 300,
        ..CONFIG
    };
    let samplings = [
        Sampling::greedy(),
        Sampling::default(),
        Sampling {
            temperature: 0.7,
            stop_tokens: vec![2, 5],
            ..Sampling::default()
        },
        Sampling {
            top_k: Some(4),
            top_p: Some(0.9),
            ..Sampling::default()
        },
    ];
    for (name, device) in devices() {
        for config in [CONFIG, large] {
            for sampling in &samplings {
                let expected = generate(&mut on_cpu(config), sampling, &prompts);
                let mut compute = on_device(config, Precision::F32, &device);
                let found = generate(&mut compute, sampling, &prompts);
                let rows = |g: &Generated| -> Vec<(Vec<u32>, u32)> {
                    let rows = g.tokens.chunks(19).map(<[u32]>::to_vec);
                    rows.zip(g.lengths.iter().copied()).collect()
                };
                let pairs = rows(&found).into_iter().zip(rows(&expected));
                let same = pairs.filter(|(a, b)| a == b).count();
                assert!(same >= 99, "{name}, {sampling:?}: {same} of 100 rows");
            }
        }
    }
}

/// Rows that all stop early must come out as if the rest had been generated.
#[test]
fn generation_ends_when_every_row_has_stopped() {
    let stop_all = Sampling {
        stop_tokens: (0..23).collect(),
        ..Sampling::default()
    };
    let mut compute = on_device(CONFIG, Precision::F32, &Device::Cpu);
    let model = compute.weights(weights(CONFIG, "student")).unwrap();
    let request = Request {
        prompts: &[vec![1], vec![2, 3]],
        length: 70,
        sampling: &stop_all,
        stream: &Stream::new(3, "sample"),
        first_row: 0,
    };
    let found = compute.generate(&model, request).unwrap();
    assert_eq!(found.lengths, [2, 3]);
    assert_eq!(found.tokens.len(), 140);
    assert!(found.tokens[3..70].iter().all(|&token| token == 0));
}

fn smoke() -> RunConfig {
    let overrides = Overrides {
        preset: Some("smoke".into()),
        threads: Some(2),
        ..Overrides::default()
    };
    resolve("toy-continual", &overrides).unwrap()
}

/// The loop of a run, on a learner of either device, to the end of `steps` of the first phase.
fn train(config: &RunConfig, compute: &mut Compute, learner: &mut Learner, steps: u64) {
    let suite = Suite::new(config).unwrap();
    for _ in 0..steps {
        let new = learner.new_batch(config, &suite, 0);
        let mut weights = vec![1.0 / new.tokens.len() as f32; new.tokens.len()];
        for row in weights.chunks_exact_mut(new.seq_len) {
            row[new.seq_len - 1] = 0.0;
        }
        let batch = LossBatch {
            tokens: &new.tokens,
            seq_len: new.seq_len,
            ntp_weights: &weights,
            kl_weights: &weights,
        };
        learner
            .step(config, compute, &[batch], new.tokens.len(), 1e-2)
            .unwrap();
    }
}

/// Else a run would learn another thing on a GPU.
#[test]
fn a_learner_trains_and_scores_as_on_the_cpu() {
    let config = smoke();
    let suite = Suite::new(&config).unwrap();
    let model = settings::model(&config, &suite);
    let run = |mut compute: Compute| {
        let mut learner = Learner::new(&config, &suite, &compute, 0).unwrap();
        train(&config, &mut compute, &mut learner, 4);
        learner
            .evaluate(&config, &suite, &[], &mut compute)
            .unwrap()
    };
    let expected = run(on_cpu(model));
    for (name, device) in devices() {
        let found = run(on_device(model, Precision::F32, &device));
        for (a, b) in found.iter().zip(&expected) {
            let (a_ntp, b_ntp) = (a.ntp.unwrap(), b.ntp.unwrap());
            assert!((a_ntp - b_ntp).abs() < 1e-3, "{name}: {a:?} {b:?}");
            assert!((a.kl.unwrap() - b.kl.unwrap()).abs() < 1e-3, "{name}");
        }
    }
}

/// A resumed run must equal an uninterrupted one bit for bit, also with weights on a device.
#[test]
fn a_learner_comes_back_from_its_checkpoint_as_it_was() {
    let config = smoke();
    let suite = Suite::new(&config).unwrap();
    let model = settings::model(&config, &suite);
    for (_, device) in devices() {
        for precision in [Precision::F32, Precision::Bf16] {
            let mut compute = on_device(model, precision, &device);
            let mut learner = Learner::new(&config, &suite, &compute, 0).unwrap();
            train(&config, &mut compute, &mut learner, 3);

            let dir = tempfile::tempdir().unwrap();
            let store = CheckpointStore::new(dir.path().to_owned());
            let place = learner.place;
            let tensors = learner.on_host().unwrap();
            let state = serde_json::Value::Null;
            store
                .save(place.step, 0, &tensors.tensors(), state)
                .unwrap();
            let checkpoint = store.latest_valid().unwrap().checkpoint.unwrap();
            let start = PhaseStart {
                weights: None,
                reference: learner.reference.clone(),
            };
            let (start, cost) = (Some(start), Cost::default());
            let again = Learner::restore(&config, &compute, &checkpoint, 0, start, place, cost);
            let mut again = again.unwrap();

            for learner in [&mut learner, &mut again] {
                train(&config, &mut compute, learner, 2);
            }
            let bits = |weights: &Weights| weights.on_host().unwrap().data.clone();
            assert_eq!(bits(&learner.student), bits(&again.student));
        }
    }
}

/// Mixing devices is a mistake of ours; it must not take a run down with a panic.
#[test]
fn weights_of_another_device_are_refused() {
    let mut cpu = on_cpu(CONFIG);
    let compute = on_device(CONFIG, Precision::F32, &Device::Cpu);
    let elsewhere = compute.weights(weights(CONFIG, "student")).unwrap();
    let refused = cpu.evaluate(&elsewhere, None, &[1, 2], 2).unwrap_err();
    assert!(refused.to_string().contains("another"), "{refused}");
}
