//! The GPU's engine against the engine on the CPU.

use candle_core::Device;

use crate::adamw::{AdamW, AdamWConfig};
use crate::batch::{LossBatch, LossReport};
use crate::device::Hardware;
use crate::engine::Engine;
use crate::gpu;
use crate::model::{Layout, ModelConfig, Params};
use crate::ops::Precision;
use crate::random::Stream;
use crate::sampling::{Generated, Request, Sampling};

use super::{devices, error, normals};

pub(super) fn on_cpu(config: ModelConfig) -> Engine {
    Engine::new(config, &Hardware::cpu(2)).unwrap()
}

pub(super) fn on_device(config: ModelConfig, precision: Precision, device: &Device) -> Engine {
    Engine::on(&Layout::new(config), precision, device.clone())
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

    /// Without a loss from position `ends[row]` of each row on.
    fn up_to(mut self, ends: &[usize]) -> Self {
        for weights in [&mut self.ntp, &mut self.kl] {
            for (row, &end) in weights.chunks_exact_mut(self.seq_len).zip(ends) {
                row[end..].fill(0.0);
            }
        }
        self
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

/// Losses and gradient of one step, and the updated weights.
struct Step {
    report: LossReport,
    gradient: Params,
    student: Params,
}

fn step(engine: &mut Engine, batches: &[Batch]) -> Step {
    let config = AdamWConfig {
        beta1: 0.9,
        beta2: 0.99,
        // Large: the direction of a tiny gradient is noise otherwise.
        eps: 0.1,
        weight_decay: 0.1,
    };
    let mut student = engine.weights(weights(CONFIG, "student")).unwrap();
    let reference = engine.weights(weights(CONFIG, "reference")).unwrap();
    let adamw = AdamW::new(config, engine.layout().len);
    let mut optimizer = engine.optimizer(adamw).unwrap();
    let batches: Vec<LossBatch> = batches.iter().map(Batch::as_loss).collect();
    let report = engine
        .forward_backward(&student, Some(&reference), &batches)
        .unwrap();
    let gradient = engine.gradients().unwrap();
    let norm = engine.update(&mut student, &mut optimizer, 0.1).unwrap();
    let squares = gradient.data.iter().map(|g| f64::from(*g).powi(2));
    let expected = squares.sum::<f64>().sqrt();
    assert!((norm - expected).abs() <= 1e-5 * expected);
    Step {
        report,
        gradient,
        student: student.download().unwrap().into_owned(),
    }
}

fn assert_close(case: &str, report: &LossReport, expected: &LossReport, tolerance: f64) {
    let close = |a: f64, b: f64| (a - b).abs() <= tolerance * b.abs().max(1.0);
    assert!(close(report.total, expected.total), "{case}: {report:?}");
    for (rows, expected) in report.rows.iter().zip(&expected.rows) {
        assert_eq!(rows.len(), expected.len(), "{case}");
        for (a, b) in rows.iter().zip(expected) {
            assert!(
                close(a.ntp, b.ntp) && close(a.kl, b.kl),
                "{case}: {a:?} {b:?}"
            );
        }
    }
}

/// Awkward batches: one row, one position, none at all, another length in replay, KL on both, ends without a loss.
fn batches() -> Vec<Vec<Batch>> {
    vec![
        vec![Batch::new(1, 1, 1.0, 0.0)],
        vec![Batch::new(1, 5, 1.0, 0.0)],
        vec![Batch::new(13, 9, 1.0, 0.0), Batch::new(5, 11, 0.0, 3.0)],
        vec![Batch::new(0, 9, 1.0, 0.0), Batch::new(3, 7, 1.0, 1.0)],
        vec![Batch::new(6, 3, 0.5, 2.0)],
        // Rows whose ends count nothing, more than are left out, and none.
        vec![
            Batch::new(5, 21, 1.0, 0.5).up_to(&[6, 19, 0, 20, 2]),
            Batch::new(3, 9, 1.0, 0.0).up_to(&[8; 3]),
        ],
    ]
}

#[test]
fn losses_gradients_and_updates_are_the_cpu_engines() {
    for (name, device) in devices() {
        for (precision, loss_tolerance, tolerance) in
            [(Precision::F32, 1e-5, 1e-4), (Precision::Bf16, 0.05, 0.1)]
        {
            for (i, batches) in batches().iter().enumerate() {
                let case = format!("batch {i} in {precision:?} on {name}");
                let expected = step(&mut on_cpu(CONFIG), batches);
                let step = step(&mut on_device(CONFIG, precision, &device), batches);
                assert_close(&case, &step.report, &expected.report, loss_tolerance);
                let pairs = step.gradient.tensors().zip(expected.gradient.tensors());
                for ((tensor, _, gradient), (_, _, expected)) in pairs {
                    let error = error(gradient, expected, 1e-6);
                    assert!(error < tolerance, "{case}, gradient of {tensor}: {error:e}");
                }
                let error = error(&step.student.data, &expected.student.data, 1e-6);
                assert!(error < tolerance, "{case}, updated weights: {error:e}");
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
            let mut engine = on_device(CONFIG, Precision::F32, &device);
            let on_gpu = engine.gpu_engine();
            on_gpu.batching.micro_batch = 2;
            on_gpu.chunk_logits = 50;
            let cut = step(&mut engine, &batches);
            assert_close(name, &cut.report, &whole.report, 1e-6);
            let error = error(&cut.gradient.data, &whole.gradient.data, 1e-6);
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
        let score = |mut engine: Engine| {
            let student = engine.weights(weights(CONFIG, "student")).unwrap();
            let reference = engine.weights(weights(CONFIG, "reference")).unwrap();
            engine
                .evaluate(&student, Some(&reference), &batch.tokens, batch.seq_len)
                .unwrap()
        };
        let expected = score(on_cpu(CONFIG));
        let losses = score(on_device(CONFIG, Precision::F32, &device));
        assert_eq!(losses.len(), expected.len());
        for (a, b) in losses.iter().zip(&expected) {
            let close = (a.ntp - b.ntp).abs() < 1e-4 && (a.kl - b.kl).abs() < 1e-4;
            assert!(close && a.correct == b.correct, "{name}: {a:?} {b:?}");
        }
    }
}

fn generate(engine: &mut Engine, sampling: &Sampling, prompts: &[Vec<u32>]) -> Generated {
    let config = engine.layout().config;
    let model = engine.weights(weights(config, "student")).unwrap();
    let request = Request {
        prompts,
        length: 19,
        sampling,
        stream: &Stream::new(3, "sample"),
        first_row: 5,
    };
    engine.generate(&model, request).unwrap()
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
                let mut engine = on_device(config, Precision::F32, &device);
                let generated = generate(&mut engine, sampling, &prompts);
                let row =
                    |g: &Generated, i: usize| (g.tokens[19 * i..][..19].to_vec(), g.lengths[i]);
                let is_same = |i: &usize| row(&generated, *i) == row(&expected, *i);
                let same = (0..prompts.len()).filter(is_same).count();
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
    let mut engine = on_device(CONFIG, Precision::F32, &Device::Cpu);
    let model = engine.weights(weights(CONFIG, "student")).unwrap();
    let request = Request {
        prompts: &[vec![1], vec![2, 3]],
        length: 70,
        sampling: &stop_all,
        stream: &Stream::new(3, "sample"),
        first_row: 0,
    };
    let generated = engine.generate(&model, request).unwrap();
    assert_eq!(generated.lengths, [2, 3]);
    assert_eq!(generated.tokens.len(), 140);
    assert!(generated.tokens[3..70].iter().all(|&token| token == 0));
}

/// Mixing devices is a mistake of ours; it must not take a run down with a panic.
#[test]
fn weights_of_another_device_are_refused() {
    let mut cpu = on_cpu(CONFIG);
    let engine = on_device(CONFIG, Precision::F32, &Device::Cpu);
    let elsewhere = engine.weights(weights(CONFIG, "student")).unwrap();
    let refused = cpu.evaluate(&elsewhere, None, &[1, 2], 2).unwrap_err();
    assert!(refused.to_string().contains("another"), "{refused}");
}
