//! What is predicted of a GPU's memory, held against all that is allocated: nothing is computed, all is counted.

use std::fs;
use std::path::{Path, PathBuf};

use forgetlab_tests::{Lab, root};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};
use serde_json::Value;

use super::{Asked, FAMILIES, lab};

/// How many times as wide as a family's fixture a model is made.
const WIDER: usize = 8;
/// Vocabulary of the built-in tokenizer.
const VOCAB: usize = 1024;
/// Bytes that are allowed for what CUDA takes for itself, which no library here does.
const ALLOWANCE: f64 = (1_u64 << 30) as f64;

/// A lab in which nothing is computed.
fn counting() -> Lab {
    let mut lab = lab();
    lab.set("STAND_IN_COUNT_ONLY", "1");
    lab.set("STAND_IN_MEMORY", "80000000000");
    lab
}

/// Demands that a prediction is not below what was taken, and not `more` than it by a larger share.
#[track_caller]
fn covers(what: &str, lab: &Lab, predicted: f64, more: f64) {
    let (predicted, taken) = (
        predicted - ALLOWANCE,
        Asked::of(lab).largest("/peak") as f64,
    );
    let ratio = predicted / taken;
    assert!(
        (1.0..=1.0 + more).contains(&ratio),
        "{what}: {predicted} bytes predicted, {taken} taken, ratio {ratio:.4}"
    );
}

fn bench(args: &str, more: f64) {
    let lab = counting();
    let all = ["bench", "--device", "cuda", "--json", "--seconds", "0.01"];
    let all: Vec<&str> = all.into_iter().chain(args.split_whitespace()).collect();
    let done = lab.forgetlab(&all).exits(0);
    let found: Value = serde_json::from_str(&done.out).expect("JSON");
    let predicted = found["predicted_bytes"].as_f64().expect("bytes");
    covers(args, &lab, predicted, more);
}

fn run(lab: &Lab, args: &str, more: f64) {
    let all = ["run", "--device", "cuda", "--no-cache"];
    let all: Vec<&str> = all.into_iter().chain(args.split_whitespace()).collect();
    let done = lab.forgetlab(&[&all[..], &["--dry-run", "--json"]].concat());
    let found: Value = serde_json::from_str(&done.exits(0).out).expect("JSON");
    lab.forgetlab(&[&all[..], &["--out", "run"]].concat())
        .exits(0);
    let predicted = found["memory_bytes"].as_f64().expect("bytes");
    covers(args, lab, predicted, more);
}

/// A model of a family, wider than its fixture, with weights of zero and the built-in tokenizer.
fn wide(family: &str, folder: PathBuf) -> PathBuf {
    let fixture = root().join("tests/fixtures/families").join(family);
    let tokenizer = root().join("app/engine/src/pretrained/builtin/tiny-llama");
    fs::create_dir(&folder).expect("folder");
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        fs::copy(tokenizer.join(file), folder.join(file)).expect("copy");
    }
    let read = |path: &Path| fs::read(path).expect("a file");
    let config = read(&fixture.join("config.json"));
    let mut config: Value = serde_json::from_slice(&config).expect("JSON");
    let vocab = config["vocab_size"].as_u64().expect("a number") as usize;
    for (name, number) in config.as_object_mut().expect("an object") {
        let widened = ["hidden_size", "intermediate_size", "head_dim"].contains(&name.as_str());
        if let Some(n) = number.as_u64().filter(|_| widened) {
            *number = (WIDER as u64 * n).into();
        }
    }
    config["vocab_size"] = VOCAB.into();
    fs::write(folder.join("config.json"), config.to_string()).expect("write");
    let weights = read(&fixture.join("model.safetensors"));
    let weights = SafeTensors::deserialize(&weights).expect("weights");
    let zeros = vec![
        0;
        4 * WIDER
            * WIDER
            * weights
                .iter()
                .map(|(_, x)| x.data().len())
                .max()
                .unwrap_or(0)
    ];
    let tensors = weights.iter().map(|(name, tensor)| {
        let embeds = name.contains("embed") || name.contains("lm_head");
        let width = |&n: &usize| {
            if embeds && n == vocab {
                VOCAB
            } else {
                WIDER * n
            }
        };
        let shape: Vec<usize> = tensor.shape().iter().map(width).collect();
        let bytes = 4 * shape.iter().product::<usize>();
        let view = TensorView::new(Dtype::F32, shape, &zeros[..bytes]).expect("a tensor");
        (name.to_owned(), view)
    });
    serialize_to_file(tensors, None, &folder.join("model.safetensors")).expect("write");
    folder
}

/// Else whoever plans with a prediction would run out of memory at night, or take a larger GPU than the work needs.
#[test]
fn what_a_bench_takes_is_what_was_predicted() {
    for args in [
        "--config toy --work train --dtype bf16",
        "--config toy --work train --replay kl --micro-batch 5 --dtype bf16",
        "--config toy --work train --recompute --dtype bf16",
        "--config toy --work generate --dtype bf16",
        "--config text --work train --dtype f32",
        "--config text --work eval --dtype bf16",
        "--config text-256 --work generate --dtype bf16",
        "--config llama-135m --work train --dtype bf16",
        "--config llama-135m --work train --recompute --batch 64 --dtype bf16",
        "--config llama-135m --work generate --dtype bf16",
    ] {
        bench(args, 0.02);
    }
}

/// The same of a run, whose arms are in memory together, or one after another.
#[test]
fn what_a_run_takes_is_what_was_predicted() {
    for args in [
        "toy-continual --preset smoke --set training.batch_size=2048 --arms none,self-generated:kl",
        "toy-continual --preset smoke --set training.batch_size=2048 --arms none,self-generated:kl \
         --set training.concurrent_arms=1",
        "toy-continual --preset smoke --set training.batch_size=2048 --set model.n_layers=6 \
         --set training.recompute=true",
        "toy-continual --preset smoke --set training.batch_size=2048 \
         --arms true-data:replace:0.6,none:kl-new:1",
        "toy-continual --preset smoke --set model.d_model=256 --set training.batch_size=8",
        "instruct --preset smoke",
        "instruct --preset smoke --set training.batch_size=64",
        "instruct --preset smoke --set training.batch_size=64 --set precision=f32 --arms none,true-data:kl",
        "instruct --preset smoke --set training.batch_size=64 --set model.lora_rank=8 --arms none",
        "instruct --preset smoke --set training.batch_size=64 --set model.lora_rank=8 --arms none \
         --set precision=f32",
    ] {
        run(&counting(), args, 0.03);
    }
    // A student that begins anew, where its weights are most of what there is.
    let joint = "method-comparison --preset smoke --arms none+joint=true --set model.d_model=256";
    run(&counting(), joint, 0.05);
}

/// The same of blocks unlike Llama's: other norms, gains, biases, windows.
#[test]
fn what_a_family_takes_is_what_was_predicted() {
    for family in FAMILIES {
        for set in ["", "--set training.recompute=true", "--set precision=f32"] {
            let lab = counting();
            let folder = wide(family, lab.path("model"));
            let args = format!(
                "instruct --preset smoke --arms none,true-data:kl --set training.batch_size=256 \
                 --set model.pretrained={} {set}",
                folder.display()
            );
            run(&lab, &args, 0.03);
        }
    }
}
