//! A learner and the parity check on the GPU's engine: with a stand-in for a GPU always, and on a GPU where
//! one is built in and opens.

#![cfg(debug_assertions)]

use forgetlab_engine::gpu::Device;
use forgetlab_engine::model::{Layout, ModelConfig};
use forgetlab_engine::ops::Precision;
use forgetlab_engine::{Engine, Hardware, LossBatch, Weights};
use forgetlab_study::experiment::{Overrides, RunConfig, resolve};
use forgetlab_study::run::{CheckpointStore, Cost};

use crate::data::Suite;
use crate::train::settings;
use crate::verify::verify_mini;

use super::{Learner, PhaseStart, Resumed};

const FIXTURE: &[u8] = include_bytes!("../../../../../tests/fixtures/mini-parity.safetensors");

/// Devices to test on, by name.
fn devices() -> Vec<(&'static str, Device)> {
    forgetlab_gpu_stand_in::install();
    let gpu = match cfg!(feature = "cuda") {
        true => std::panic::catch_unwind(|| Device::new_cuda(0).ok())
            .ok()
            .flatten(),
        false => None,
    };
    let cpu = ("cpu", Device::Cpu);
    [cpu]
        .into_iter()
        .chain(gpu.map(|gpu| ("cuda", gpu)))
        .collect()
}

fn on_device(config: ModelConfig, precision: Precision, device: &Device) -> Engine {
    Engine::on(&Layout::new(config), precision, device.clone())
}

#[test]
fn engine_agrees_with_the_independent_implementation() {
    for (name, device) in devices() {
        for precision in [Precision::F32, Precision::Bf16] {
            let engine = |config| Ok(on_device(config, precision, &device));
            let checks = verify_mini(FIXTURE, engine).unwrap();
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

fn smoke() -> RunConfig {
    let overrides = Overrides {
        preset: Some("smoke".into()),
        set: vec![("optimizer.lr".into(), "1e-2".into())],
        threads: Some(2),
        ..Overrides::default()
    };
    resolve("toy-continual", &overrides).unwrap()
}

/// The loop of a run, on a learner of either device, to the end of `steps` of the first phase.
fn train(config: &RunConfig, engine: &mut Engine, learner: &mut Learner, steps: u64) {
    let suite = Suite::new(config).unwrap();
    for _ in 0..steps {
        let new = learner.new_batch(config, &suite).unwrap();
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
        let learning_rate = learner.learning_rate(config);
        learner.forward_backward(engine, &[batch]).unwrap();
        learner.update(engine, learning_rate).unwrap();
    }
}

/// Else a run would learn another thing on a GPU.
#[test]
fn a_learner_trains_and_scores_as_on_the_cpu() {
    let config = smoke();
    let suite = Suite::new(&config).unwrap();
    let model = settings::model(&config, &suite);
    let run = |mut engine: Engine| {
        let mut learner = Learner::new(&config, &suite, &engine, 0).unwrap();
        train(&config, &mut engine, &mut learner, 4);
        learner.evaluate(&config, &suite, &[], &mut engine).unwrap()
    };
    let expected = run(Engine::new(model, &Hardware::cpu(2)).unwrap());
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
            let mut engine = on_device(model, precision, &device);
            let mut learner = Learner::new(&config, &suite, &engine, 0).unwrap();
            train(&config, &mut engine, &mut learner, 3);

            let dir = tempfile::tempdir().unwrap();
            let store = CheckpointStore::new(dir.path().to_owned());
            let point = learner.point;
            let tensors = learner.checkpoint_tensors().unwrap();
            let state = serde_json::Value::Null;
            store
                .save(point.step, 0, &tensors.tensors(), state, None)
                .unwrap();
            let checkpoint = store.latest_valid().unwrap().checkpoint.unwrap();
            let start = PhaseStart {
                weights: None,
                reference: learner.reference.clone(),
            };
            let resumed = Resumed {
                checkpoint: &checkpoint,
                seed: 0,
                start: Some(start),
                point,
                cost: Cost::default(),
            };
            let again = Learner::restore(&config, &engine, resumed);
            let mut again = again.unwrap();

            for learner in [&mut learner, &mut again] {
                train(&config, &mut engine, learner, 2);
            }
            let bits = |weights: &Weights| weights.download().unwrap().data.clone();
            assert_eq!(bits(&learner.student), bits(&again.student));
        }
    }
}
