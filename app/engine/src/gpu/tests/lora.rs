//! Adapters in training, on the hand-written CPU engine and on devices: against peft, finite differences,
//! and themselves.

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
use crate::random::Stream;
use crate::sampling::{Request, Sampling};
use crate::weights::Weights;

use super::engine::{on_cpu, on_device};
use super::llama::{Fixture, SEQ_LEN, mean_weights, mixtures, rows, weights};
use super::{devices, error};

/// What computes, by name.
fn computes(config: ModelConfig) -> Vec<(&'static str, Engine)> {
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

fn optimizer(engine: &Engine, student: &Weights, config: AdamWConfig) -> crate::weights::Optimizer {
    let adamw = AdamW::new(config, student.trained_len());
    engine.optimizer_of(student, adamw).unwrap()
}

/// `NTP + 2 KL` of some positions, a step's work.
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

/// The same without gradient.
fn loss(engine: &mut Engine, student: &Weights, reference: &Weights) -> f64 {
    let (tokens, ntp) = rows();
    let losses = engine
        .evaluate(student, Some(reference), &tokens, SEQ_LEN)
        .unwrap();
    let terms = losses.iter().zip(&ntp);
    let terms = terms.map(|(loss, &w)| f64::from(w) * f64::from(loss.ntp + 2.0 * loss.kl));
    terms.sum()
}

/// Adapters as a fixture holds them under peft's names.
fn read(tensors: &HashMap<String, Tensor>, prefix: &str, layout: &Arc<LoraLayout>) -> Lora {
    let mut lora = Lora::zeros(layout);
    let names: Vec<_> = lora.peft_tensors().map(|(name, ..)| name).collect();
    let places: Vec<_> = lora.places().collect();
    for (name, (_, shape, range)) in names.iter().zip(places) {
        let tensor = &tensors[&format!("{prefix}.{name}")];
        assert_eq!(tensor.dims(), shape, "{name}");
        let numbers: Vec<f32> = tensor.flatten_all().unwrap().to_vec1().unwrap();
        lora.data[range].copy_from_slice(&numbers);
    }
    let held = tensors
        .keys()
        .filter(|name| name.starts_with(prefix))
        .count();
    assert_eq!(
        names.len(),
        held,
        "tensors of the fixture that are not read"
    );
    lora
}

/// Else LoRA here would be another thing than in the literature, and its exports would not load.
#[test]
fn adapters_train_as_in_peft() {
    const T: usize = 48;
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/lora");
    let tensors =
        candle_core::safetensors::load(dir.join("lora.safetensors"), &Device::Cpu).unwrap();
    let settings = std::fs::read(dir.join("lora.json")).unwrap();
    let settings: serde_json::Value = serde_json::from_slice(&settings).unwrap();
    let number = |name: &str| settings[name].as_f64().unwrap();
    let config = LoraConfig {
        rank: number("rank") as usize,
        alpha: number("alpha"),
    };
    let adamw = AdamWConfig {
        beta1: number("b1"),
        beta2: number("b2"),
        eps: number("eps"),
        weight_decay: number("weight_decay"),
    };

    let tiny = Fixture::read(true);
    let (tokens, replay) = (tiny.ids("tokens"), tiny.ids("replay_tokens"));
    let mask: Vec<bool> = tiny.ids("loss_mask").iter().map(|&x| x != 0).collect();
    let ntp = mean_weights(&mask, T);
    let kl = mean_weights(&vec![true; replay.len()], T);
    let zeros = vec![0.0; tokens.len()];
    let batch = |tokens, ntp_weights, kl_weights| LossBatch {
        tokens,
        seq_len: T,
        ntp_weights,
        kl_weights,
    };
    let batches = [batch(&tokens, &ntp, &zeros), batch(&replay, &zeros, &kl)];
    let theta = tiny.params("theta");
    let layout = LoraLayout::new(config, &theta.layout);
    let [before, grad, after] = ["before", "grad", "after"].map(|p| read(&tensors, p, &layout));

    for (name, mut engine) in computes(theta.layout.config) {
        let student = engine.weights(theta.clone()).unwrap();
        let mut student = engine.adapt(student, before.clone()).unwrap();
        let reference = engine.weights(tiny.params("pi")).unwrap().frozen();
        let mut optimizer = optimizer(&engine, &student, adamw);
        for (step, expected) in settings["losses"].as_array().unwrap().iter().enumerate() {
            let report = engine
                .forward_backward(&student, Some(&reference), &batches)
                .unwrap();
            let expected = expected.as_f64().unwrap();
            let error_of_loss = (report.total - expected).abs() / expected;
            assert!(
                error_of_loss < 1e-5,
                "{name}, step {step}: {} {expected}",
                report.total
            );
            if step == 0 {
                let found = engine.adapter_gradients(&student).unwrap();
                for ((tensor, _, found), (_, _, expected)) in found.tensors().zip(grad.tensors()) {
                    let error = error(found, expected, 1e-9);
                    assert!(error < 1e-4, "{name}, gradient of {tensor}: {error:e}");
                }
            }
            if step < 2 {
                engine
                    .update(&mut student, &mut optimizer, number("lr"))
                    .unwrap();
            }
        }
        let found = student.download_adapters().unwrap().unwrap();
        // Adam's first steps carry but the sign of a tiny gradient.
        let numbers = found.data.iter().zip(&after.data).zip(&grad.data);
        let numbers = numbers.filter(|(_, gradient)| gradient.abs() > 1e-6);
        let differences: Vec<f32> = numbers.map(|((a, b), _)| (a - b).abs()).collect();
        assert!(differences.len() > after.data.len() * 9 / 10);
        let worst = differences.into_iter().fold(0f32, f32::max);
        assert!(worst < 1e-4, "{name}, adapters after two steps: {worst:e}");
        let merged = student.download().unwrap();
        let mut seen = 0;
        for (tensor, _, found) in crate::pretrained::to_hugging_face(&merged) {
            if let Some(expected) = tensors.get(&format!("merged.{tensor}")) {
                let expected: Vec<f32> = expected.flatten_all().unwrap().to_vec1().unwrap();
                let error = error(&found, &expected, 1.0);
                assert!(error < 1e-4, "{name}, merged {tensor}: {error:e}");
                seen += 1;
            }
        }
        assert_eq!(seen, 3);
    }
}

/// A gradient that is a little wrong learns a little wrong, and no loss curve would tell.
#[test]
fn gradients_of_every_adapter_are_derivatives() {
    const STEP: f32 = 1e-2;
    for config in mixtures() {
        for (name, mut engine) in computes(config) {
            let base = engine.weights(weights(config, "student")).unwrap();
            let reference = engine
                .weights(weights(config, "reference"))
                .unwrap()
                .frozen();
            let lora = adapters(config);
            let student = engine.adapt(base.clone(), lora.clone()).unwrap();
            let total = forward_backward(&mut engine, &student, &reference);
            let found = engine.adapter_gradients(&student).unwrap();
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
                    let moved = engine.adapt(base.clone(), moved).unwrap();
                    loss(&mut engine, &moved, &reference)
                };
                let mut slope =
                    |step: f32| (along_by(step) - along_by(-step)) / f64::from(2.0 * step);
                let expected = (4.0 * slope(STEP) - slope(2.0 * STEP)) / 3.0;
                let along = found.data[range.clone()].iter().zip(&direction);
                let along: f64 = along.map(|(g, d)| f64::from(g * d / norm)).sum();
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
        for (name, mut engine) in computes(config) {
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
            let kl = engine.evaluate(&student, Some(&base.clone().frozen()), &tokens, SEQ_LEN);
            assert!(
                kl.unwrap().iter().all(|loss| loss.kl.abs() < 1e-6),
                "{name}"
            );
        }
    }
}

/// Three steps; the student, its base, and the norms of the gradients.
fn train(engine: &mut Engine, config: ModelConfig) -> (Weights, Weights, Vec<f64>) {
    let base = engine.weights(weights(config, "student")).unwrap();
    let reference = base.clone().frozen();
    let mut student = engine.adapt(base.clone(), adapters(config)).unwrap();
    let mut optimizer = optimizer(engine, &student, ADAMW);
    let norms = (0..3).map(|_| {
        forward_backward(engine, &student, &reference);
        engine.update(&mut student, &mut optimizer, 1e-2).unwrap()
    });
    let norms = norms.collect();
    (student, base, norms)
}

/// The base is the reference, and other arms': a step that touched it would move what all are held against.
#[test]
fn the_base_stays_and_what_is_exported_is_what_was_trained() {
    for config in mixtures() {
        for (name, mut engine) in computes(config) {
            let (student, base, norms) = train(&mut engine, config);
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
                let found = engine.logits(weights, &tokens, SEQ_LEN).unwrap();
                assert_eq!(found, expected, "{name}");
            }
            // The next phase begins where this one ended.
            let fresh = Lora::init(&layout(config), &Stream::new(2, "adapters"));
            let again = engine.adapt(student, fresh).unwrap();
            let found = engine.logits(&again, &tokens, SEQ_LEN).unwrap();
            assert_eq!(found, expected, "{name}");
        }
    }
}

/// Else a resumed run would not be the run that was cut off.
#[test]
fn adapters_and_moments_come_back_from_the_host_as_they_were() {
    for config in mixtures() {
        let mut all = computes(config);
        for (name, device) in devices() {
            all.push((name, on_device(config, Precision::Bf16, &device)));
        }
        for (name, mut engine) in all {
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
            let bits =
                |weights: &Weights| weights.download_adapters().unwrap().unwrap().into_owned();
            assert_eq!(bits(&student), bits(&again), "{name}");
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
            train(&mut engine, config)
                .0
                .download()
                .unwrap()
                .into_owned()
        };
        let batching = |micro_batch, recompute| Batching {
            micro_batch,
            recompute,
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
