//! Training of adapters on the CPU's engine and on devices: against peft, finite differences, and themselves.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use candle_core::{Device, Tensor};

use crate::adamw::{AdamW, AdamWConfig};
use crate::batch::{Batching, LossBatch};
use crate::device::Hardware;
use crate::engine::Engine;
use crate::model::{Layout, Lora, LoraConfig, LoraLayout, ModelConfig, Params};
use crate::ops::Precision;
use crate::pretrained::to_hugging_face;
use crate::random::Stream;
use crate::sampling::{Request, Sampling};
use crate::weights::{Optimizer, Weights};

use super::engine::{on_cpu, on_device};
use super::llama::{Fixture, SEQ_LEN, mixtures, rows, weights};
use super::{devices, error};

/// The CPU's engine, and the GPU's on every device, by name.
fn engines(config: ModelConfig) -> Vec<(&'static str, Engine)> {
    let on = |(name, device)| (name, on_device(config, Precision::F32, &device));
    let devices = devices().into_iter().map(on);
    [("engine", on_cpu(config))]
        .into_iter()
        .chain(devices)
        .collect()
}

const CONFIG: LoraConfig = LoraConfig {
    rank: 3,
    alpha: 5.0,
};

const ADAMW: AdamWConfig = AdamWConfig {
    beta1: 0.9,
    beta2: 0.95,
    eps: 1e-8,
    weight_decay: 0.1,
};

fn layout(config: ModelConfig) -> Arc<LoraLayout> {
    LoraLayout::new(CONFIG, &Layout::new(config))
}

/// Adapters whose B are not zero.
fn adapters(config: ModelConfig) -> Lora {
    let mut lora = Lora::init(&layout(config), &Stream::new(4, "adapters"));
    let mut random = Stream::new(5, "adapters").at(0);
    lora.data
        .iter_mut()
        .for_each(|x| *x += 0.1 * random.normal());
    lora
}

fn optimizer(engine: &Engine, student: &Weights, config: AdamWConfig) -> Optimizer {
    let adamw = AdamW::new(config, student.trained_len());
    engine.optimizer_of(student, adamw).unwrap()
}

/// `NTP + 2 KL` of some positions, with its gradient.
fn forward_backward(engine: &mut Engine, student: &Weights, reference: &Weights) -> f64 {
    let (tokens, ntp) = rows();
    let kl: Vec<f32> = ntp.iter().map(|w| 2.0 * w).collect();
    let batch = LossBatch {
        tokens: &tokens,
        seq_len: SEQ_LEN,
        ntp_weights: &ntp,
        kl_weights: &kl,
    };
    let report = engine.forward_backward(student, Some(reference), &[batch]);
    report.unwrap().total
}

/// The same loss without its gradient.
fn loss(engine: &mut Engine, student: &Weights, reference: &Weights) -> f64 {
    let (tokens, ntp) = rows();
    let losses = engine
        .evaluate(student, Some(reference), &tokens, SEQ_LEN)
        .unwrap();
    losses
        .iter()
        .zip(&ntp)
        .map(|(loss, &w)| f64::from(w) * f64::from(loss.ntp + 2.0 * loss.kl))
        .sum()
}

/// Adapters of a checkpoint before and after two of peft's steps, and what peft computed.
struct PeftFixture {
    tensors: HashMap<String, Tensor>,
    json: serde_json::Value,
}

impl PeftFixture {
    fn read() -> Self {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/lora");
        let tensors = candle_core::safetensors::load(dir.join("lora.safetensors"), &Device::Cpu);
        let json = std::fs::read(dir.join("lora.json")).unwrap();
        Self {
            tensors: tensors.unwrap(),
            json: serde_json::from_slice(&json).unwrap(),
        }
    }

    fn number(&self, key: &str) -> f64 {
        self.json[key].as_f64().unwrap()
    }

    fn elements(&self, name: &str) -> Option<Vec<f32>> {
        let tensor = self.tensors.get(name)?;
        Some(tensor.flatten_all().unwrap().to_vec1().unwrap())
    }

    /// The loss before each step, and after the last.
    fn losses(&self) -> Vec<f64> {
        let losses = self.json["losses"].as_array().unwrap();
        losses.iter().map(|loss| loss.as_f64().unwrap()).collect()
    }

    /// The adapters, or gradients, of a prefix.
    fn adapters(&self, prefix: &str, layout: &Arc<LoraLayout>) -> Lora {
        let mut lora = Lora::zeros(layout);
        let names: Vec<_> = lora.peft_tensors().map(|(name, ..)| name).collect();
        let places: Vec<_> = lora.places().collect();
        for (name, (_, shape, range)) in names.iter().zip(places) {
            let name = format!("{prefix}.{name}");
            assert_eq!(self.tensors[&name].dims(), shape, "{name}");
            lora.data[range].copy_from_slice(&self.elements(&name).unwrap());
        }
        let of_prefix = self.tensors.keys().filter(|name| name.starts_with(prefix));
        assert_eq!(of_prefix.count(), names.len(), "tensors that are not read");
        lora
    }
}

/// Else LoRA here would be another thing than in the literature, and its exports would not load.
#[test]
fn adapters_train_as_in_peft() {
    let peft = PeftFixture::read();
    let config = LoraConfig {
        rank: peft.number("rank") as usize,
        alpha: peft.number("alpha"),
    };
    let adamw = AdamWConfig {
        beta1: peft.number("b1"),
        beta2: peft.number("b2"),
        eps: peft.number("eps"),
        weight_decay: peft.number("weight_decay"),
    };
    let tiny = Fixture::read(true);
    let batches = tiny.batches();
    let theta = tiny.params("theta");
    let layout = LoraLayout::new(config, &theta.layout);
    let [before, gradient, after] =
        ["before", "grad", "after"].map(|prefix| peft.adapters(prefix, &layout));

    for (name, mut engine) in engines(theta.layout.config) {
        let base = engine.weights(theta.clone()).unwrap();
        let mut student = engine.adapt(base, before.clone()).unwrap();
        let reference = engine.weights(tiny.params("pi")).unwrap().frozen();
        let mut optimizer = optimizer(&engine, &student, adamw);
        for (step, expected) in peft.losses().into_iter().enumerate() {
            let total = engine
                .forward_backward(&student, Some(&reference), &batches.losses())
                .unwrap()
                .total;
            let error_of_loss = (total - expected).abs() / expected;
            assert!(
                error_of_loss < 1e-5,
                "{name}, step {step}: {total} {expected}"
            );
            if step == 0 {
                let gradients = engine.adapter_gradients(&student).unwrap();
                let pairs = gradients.tensors().zip(gradient.tensors());
                for ((tensor, _, gradient), (_, _, expected)) in pairs {
                    let error = error(gradient, expected, 1e-9);
                    assert!(error < 1e-4, "{name}, gradient of {tensor}: {error:e}");
                }
            }
            if step < 2 {
                engine
                    .update(&mut student, &mut optimizer, peft.number("lr"))
                    .unwrap();
            }
        }
        let adapters = student.download_adapters().unwrap().unwrap();
        let pairs = adapters.data.iter().zip(&after.data);
        // For a tiny gradient, Adam's first steps depend on its sign alone.
        let differences: Vec<f32> = pairs
            .zip(&gradient.data)
            .filter(|(_, gradient)| gradient.abs() > 1e-6)
            .map(|((a, b), _)| (a - b).abs())
            .collect();
        assert!(differences.len() > after.data.len() * 9 / 10);
        let worst = differences.into_iter().fold(0f32, f32::max);
        assert!(worst < 1e-4, "{name}, adapters after two steps: {worst:e}");
        let mut compared = 0;
        for (tensor, _, merged) in to_hugging_face(&student.download().unwrap()) {
            if let Some(expected) = peft.elements(&format!("merged.{tensor}")) {
                let error = error(&merged, &expected, 1.0);
                assert!(error < 1e-4, "{name}, merged {tensor}: {error:e}");
                compared += 1;
            }
        }
        assert_eq!(compared, 3);
    }
}

/// A gradient that is a little wrong learns a little wrong, and no loss curve would tell.
#[test]
fn gradients_of_every_adapter_are_derivatives() {
    const STEP: f32 = 1e-2;
    for config in mixtures() {
        for (name, mut engine) in engines(config) {
            let base = engine.weights(weights(config, "student")).unwrap();
            let reference = engine
                .weights(weights(config, "reference"))
                .unwrap()
                .frozen();
            let lora = adapters(config);
            let student = engine.adapt(base.clone(), lora.clone()).unwrap();
            let total = forward_backward(&mut engine, &student, &reference);
            let gradients = engine.adapter_gradients(&student).unwrap();
            assert!((total - loss(&mut engine, &student, &reference)).abs() < 1e-5 * total);
            for (i, (tensor, _, range)) in lora.places().enumerate() {
                let mut random = Stream::new(11, "direction").at(i as u64);
                let direction: Vec<f32> = range.clone().map(|_| random.normal()).collect();
                let norm = direction.iter().map(|x| x * x).sum::<f32>().sqrt();
                let mut along_by = |by: f32| {
                    let mut moved = lora.clone();
                    let numbers = moved.data[range.clone()].iter_mut();
                    numbers
                        .zip(&direction)
                        .for_each(|(x, d)| *x += by * d / norm);
                    let student = engine.adapt(base.clone(), moved).unwrap();
                    loss(&mut engine, &student, &reference)
                };
                let mut slope =
                    |step: f32| (along_by(step) - along_by(-step)) / f64::from(2.0 * step);
                let expected = (4.0 * slope(STEP) - slope(2.0 * STEP)) / 3.0;
                let along: f64 = gradients.data[range.clone()]
                    .iter()
                    .zip(&direction)
                    .map(|(g, d)| f64::from(g * d / norm))
                    .sum();
                // Rounding of the loss, about 3, at this step.
                let error = (along - expected).abs();
                assert!(
                    error < 3e-4 + 3e-3 * expected.abs(),
                    "{name}, {tensor}: {along} {expected}"
                );
            }
        }
    }
}

/// A run with LoRA begins at the model it is about, to the bit: its first KL is zero.
#[test]
fn fresh_adapters_change_no_bit() {
    for config in mixtures() {
        for (name, mut engine) in engines(config) {
            let base = engine.weights(weights(config, "student")).unwrap();
            let lora = Lora::init(&layout(config), &Stream::new(1, "adapters"));
            let student = engine.adapt(base.clone(), lora).unwrap();
            let (tokens, _) = rows();
            let mut run = |weights: &Weights| {
                let request = Request {
                    prompts: &[vec![1, 2, 3], vec![4]],
                    length: 9,
                    sampling: &Sampling::default(),
                    stream: &Stream::new(0, "sample"),
                    first_row: 0,
                };
                (
                    engine.logits(weights, &tokens, SEQ_LEN).unwrap(),
                    engine.generate(weights, request).unwrap(),
                )
            };
            assert_eq!(run(&student), run(&base), "{name}");
            let reference = base.clone().frozen();
            let losses = engine.evaluate(&student, Some(&reference), &tokens, SEQ_LEN);
            let is_zero = losses.unwrap().iter().all(|loss| loss.kl.abs() < 1e-6);
            assert!(is_zero, "{name}");
        }
    }
}

/// Results of three steps.
struct Trained {
    student: Weights,
    /// The weights below the student's adapters.
    base: Weights,
    /// Norm of each step's gradient.
    norms: Vec<f64>,
}

fn train(engine: &mut Engine, config: ModelConfig) -> Trained {
    let base = engine.weights(weights(config, "student")).unwrap();
    let reference = base.clone().frozen();
    let mut student = engine.adapt(base.clone(), adapters(config)).unwrap();
    let mut optimizer = optimizer(engine, &student, ADAMW);
    let mut norms = Vec::new();
    for _ in 0..3 {
        forward_backward(engine, &student, &reference);
        norms.push(engine.update(&mut student, &mut optimizer, 1e-2).unwrap());
    }
    Trained {
        student,
        base,
        norms,
    }
}

/// The base is the reference, and other arms': a step that touched it would move what all are held against.
#[test]
fn the_base_stays_and_what_is_exported_is_what_was_trained() {
    for config in mixtures() {
        for (name, mut engine) in engines(config) {
            let Trained {
                student,
                base,
                norms,
            } = train(&mut engine, config);
            assert!(
                norms.iter().all(|norm| norm.is_finite() && *norm > 1e-3),
                "{norms:?}"
            );
            let untouched = weights(config, "student");
            assert_eq!(base.download().unwrap().as_ref(), &untouched, "{name}");
            let merged = student.download().unwrap().into_owned();
            assert_ne!(merged, untouched);
            let first = merged.layout.block(0)[0].start;
            assert_eq!(merged.data[..first], untouched.data[..first], "embeddings");
            let (tokens, _) = rows();
            let expected = engine.logits(&student, &tokens, SEQ_LEN).unwrap();
            let exported = engine.weights(merged).unwrap();
            for weights in [&exported, &student.clone().frozen()] {
                let logits = engine.logits(weights, &tokens, SEQ_LEN).unwrap();
                assert_eq!(logits, expected, "{name}");
            }
            // The next phase begins where this one ended.
            let fresh = Lora::init(&layout(config), &Stream::new(2, "adapters"));
            let again = engine.adapt(student, fresh).unwrap();
            let logits = engine.logits(&again, &tokens, SEQ_LEN).unwrap();
            assert_eq!(logits, expected, "{name}");
        }
    }
}

/// Else a resumed run would not be the run that was cut off.
#[test]
fn adapters_and_moments_come_back_from_the_host_as_they_were() {
    for config in mixtures() {
        let mut engines = engines(config);
        for (name, device) in devices() {
            engines.push((name, on_device(config, Precision::Bf16, &device)));
        }
        for (name, mut engine) in engines {
            let base = engine.weights(weights(config, "student")).unwrap();
            let reference = base.clone().frozen();
            let mut student = engine.adapt(base.clone(), adapters(config)).unwrap();
            let mut adamw = optimizer(&engine, &student, ADAMW);
            let step = |engine: &mut Engine, student: &mut Weights, adamw: &mut _| {
                forward_backward(engine, student, &reference);
                engine.update(student, adamw, 1e-2).unwrap();
            };
            step(&mut engine, &mut student, &mut adamw);
            let lora = student.download_adapters().unwrap().unwrap().into_owned();
            let moments = adamw.download().unwrap().into_owned();
            assert_eq!(lora.data.len(), moments.m.len());
            let mut again = engine.adapt(base, lora).unwrap();
            let mut adamw_again = engine.optimizer_of(&again, moments).unwrap();
            step(&mut engine, &mut student, &mut adamw);
            step(&mut engine, &mut again, &mut adamw_again);
            let lora = student.download_adapters().unwrap();
            assert_eq!(lora, again.download_adapters().unwrap(), "{name}");
        }
    }
}

/// The same seed must train the same adapters; threads beyond two and micro-batches to rounding.
#[test]
fn one_and_two_threads_give_the_same_bits_and_memory_saved_the_same_adapters() {
    for config in mixtures() {
        let with = |threads: usize, batching: Batching| -> Params {
            let hardware = Hardware {
                device: "cpu".into(),
                threads,
                precision: Precision::F32,
            };
            let mut engine = Engine::new(config, &hardware).unwrap();
            engine.set_batching(batching);
            let student = train(&mut engine, config).student;
            student.download().unwrap().into_owned()
        };
        let batching = |micro_batch, recompute| Batching {
            micro_batch,
            recompute,
            ..Batching::default()
        };
        let expected = with(2, batching(0, false));
        assert_eq!(with(2, batching(0, false)), expected);
        assert_eq!(with(1, batching(0, false)), expected);
        assert_eq!(with(2, batching(0, true)), expected);
        let error = error(&with(3, batching(1, false)).data, &expected.data, 1.0);
        assert!(error < 1e-3, "{error:e}");
    }
}

/// Else an arm with a reference in training would be held against a moving target.
#[test]
fn a_reference_with_adapters_is_refused() {
    let config = mixtures()[0];
    let mut engine = on_cpu(config);
    let base = engine.weights(weights(config, "student")).unwrap();
    let student = engine.adapt(base, adapters(config)).unwrap();
    let refused = engine.evaluate(&student, Some(&student), &[1, 2], 2);
    assert!(refused.unwrap_err().to_string().contains("frozen"));
}
