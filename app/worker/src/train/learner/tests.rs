use forgetlab_study::experiment::{Overrides, resolve};
use forgetlab_study::run::CheckpointStore;

use crate::train::objective::plain;

use super::*;

/// The built-in Llama on chats, at the start of its second phase.
fn started(set: &[(&str, &str)]) -> (RunConfig, Suite, Engine, Learner) {
    let set = [("optimizer.lr", "1e-2")].iter().chain(set);
    let set = set.map(|(k, v)| ((*k).into(), (*v).into()));
    let overrides = Overrides {
        preset: Some("smoke".into()),
        set: set.collect(),
        threads: Some(2),
        ..Overrides::default()
    };
    let config = resolve("instruct", &overrides).unwrap();
    let suite = Suite::new(&config).unwrap();
    let mut engine = Engine::new(
        settings::model(&config, &suite),
        &settings::hardware(&config),
    )
    .unwrap();
    engine.set_batching(settings::batching(&config));
    let mut learner = Learner::new(&config, &suite, &engine, 7).unwrap();
    learner.take_next_reference(None);
    learner.start_next_phase(&config, &suite, &engine).unwrap();
    (config, suite, engine, learner)
}

fn train(
    learner: &mut Learner,
    config: &RunConfig,
    suite: &Suite,
    engine: &mut Engine,
    steps: usize,
) {
    for _ in 0..steps {
        let new = learner.new_batch(config, suite).unwrap();
        let new = plain(new, suite.reduction());
        let learning_rate = learner.learning_rate(config);
        learner.forward_backward(engine, &[new.as_batch()]).unwrap();
        learner.update(engine, learning_rate).unwrap();
    }
}

/// A resumed run must equal an uninterrupted one bit for bit, also where adapters are trained.
#[test]
fn a_learner_comes_back_as_it_was_with_adapters_and_without() {
    for set in [&[][..], &[("model.lora_rank", "4")]] {
        let (config, suite, mut engine, mut learner) = started(set);
        let start = learner.student.download().unwrap().data.clone();
        train(&mut learner, &config, &suite, &mut engine, 3);
        let dir = tempfile::tempdir().unwrap();
        let store = CheckpointStore::new(dir.path().to_owned());
        let point = learner.point;
        let tensors = learner.checkpoint_tensors().unwrap();
        let null = serde_json::Value::Null;
        store
            .save(point.step, 1, &tensors.tensors(), null, None)
            .unwrap();
        drop(tensors);
        let checkpoint = store.latest_valid().unwrap().checkpoint.unwrap();
        let phase = PhaseStart {
            weights: Some((*learner.reference).clone()),
            reference: learner.reference.clone(),
        };
        let resumed = Resumed {
            checkpoint: &checkpoint,
            seed: 7,
            start: Some(phase),
            point,
            cost: Cost::default(),
        };
        let again = Learner::restore(&config, &engine, resumed);
        let mut again = again.unwrap();
        for learner in [&mut learner, &mut again] {
            train(learner, &config, &suite, &mut engine, 2);
        }
        let bits = |learner: &Learner| learner.student.download().unwrap().data.clone();
        assert!(bits(&learner) == bits(&again), "{set:?}");
        assert!(bits(&learner) != start, "{set:?}");
        assert!(
            learner.reference.download().unwrap().data == start,
            "{set:?}"
        );
    }
}

/// Adapters must leave what they do not adapt, and hold fewer moments than there are weights.
#[test]
fn adapters_train_the_blocks_alone() {
    let (config, suite, mut engine, mut learner) = started(&[("model.lora_rank", "2")]);
    train(&mut learner, &config, &suite, &mut engine, 2);
    let before = learner.reference.download().unwrap();
    let after = learner.student.download().unwrap();
    let names = |changed: bool| -> Vec<&str> {
        let entries = before.layout.entries.iter();
        let of = |range: &std::ops::Range<usize>| {
            (before.data[range.clone()] != after.data[range.clone()]) == changed
        };
        let found = entries.filter(|entry| of(&entry.range));
        found.map(|entry| entry.name.as_str()).collect()
    };
    assert!(names(true).iter().all(|name| name.starts_with("blocks.")));
    assert!(names(false).iter().any(|name| !name.starts_with("blocks.")));
    assert_eq!(names(true).len(), 4 * 2);
    let trained = learner.student.trained_len();
    assert!(trained * 5 < before.data.len(), "{trained}");
}
