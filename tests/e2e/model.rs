//! `forgetlab model`: what is said of right and of wrong models, and folders for transformers.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use forgetlab_engine::pretrained::{self, Hub};
use forgetlab_study::run::RunDir;
use forgetlab_tests::{Done, Lab, SMOKE, root};
use forgetlab_worker::train::read_student;

fn fixture(kind: &str) -> PathBuf {
    root().join(format!("tests/fixtures/llama-tiny-{kind}"))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// A lab with a model to spoil in the folder `model`.
fn lab_with_model() -> Lab {
    let lab = Lab::new();
    fs::create_dir(lab.path("model")).expect("folder");
    for file in ["config.json", "model.safetensors"] {
        let to = lab.path("model").join(file);
        fs::copy(fixture("tied").join(file), to).expect("copy");
    }
    lab
}

fn inspect(lab: &Lab, model: &str) -> Done {
    lab.forgetlab(&["model", "inspect", model])
}

/// The first thing to do with a model: does it fit, and is it the right one?
#[test]
fn a_model_is_described() {
    let lab = Lab::new();
    inspect(&lab, text(&fixture("tied"))).exits(0).says(&[
        "Hugging Face folder",
        "589 KiB on disk, 29 tensors F32",
        "llama",
        "width 64, 3 blocks, 4 query heads on 2 key/value heads of 16, MLP 160",
        "149 952, output embedding tied",
        "base 500000, llama3 scaling by 32 beyond 64, up to 4096 positions",
        "320 tokens",
        "bos 1, eos 2, pad 0",
        "chat template  no",
        "to train against a frozen reference",
        "to sample",
        "available now",
    ]);
}

/// What a first look without network begins with.
#[test]
fn the_built_in_model_is_described_sampled_and_exported() {
    let (lab, model) = (Lab::new(), "builtin:tiny-llama");
    inspect(&lab, model).exits(0).says(&[
        "source         built in",
        "random, drawn when loaded",
        "bos 1 <|im_start|>, eos 2 <|im_end|>, pad 2 <|im_end|>",
        "chat template  yes",
    ]);
    inspect(&lab, "builtin:llama")
        .exits(1)
        .says(&["`builtin:llama` is not a model that is built in"]);
    lab.forgetlab(&["sample", model, "--rows", "1", "--length", "16"])
        .exits(0)
        .says(&["<|im_start|>▸", "1 text, 15 tokens"]);
    let verilog = [
        "data",
        "preview",
        "builtin:verilog.jsonl",
        "--tokenizer",
        model,
    ];
    lab.forgetlab(&verilog)
        .exits(0)
        .says(&["two-input and gate", "[endmodule]"]);
    lab.forgetlab(&["model", "export", model, "--to", "out"])
        .exits(0)
        .says(&["tokenizer.json, tokenizer_config.json"]);
    let storage = "419 KiB on disk, 20 tensors F32";
    inspect(&lab, "out").exits(0).says(&[storage]);
}

#[test]
fn what_is_wrong_with_a_model_is_said() {
    let lab = lab_with_model();
    let weights = lab.path("model/model.safetensors");
    let whole = fs::read(&weights).expect("weights");
    for (bytes, says) in [
        (&whole[..whole.len() / 2], "fetch it again"),
        (&b"GGUF, by mistake"[..], "announce a header"),
    ] {
        fs::write(&weights, bytes).expect("write");
        let says = ["model.safetensors is not a whole safetensors file", says];
        inspect(&lab, "model").exits(1).says(&says);
    }
    fs::remove_file(&weights).expect("remove");
    let index = r#"{"weight_map": {"a": "model-00001-of-00002.safetensors"}}"#;
    fs::write(lab.path("model/model.safetensors.index.json"), index).expect("write");
    let says = ["cannot read model/model-00001-of-00002.safetensors"];
    inspect(&lab, "model").exits(1).says(&says);

    let config = fs::read_to_string(lab.path("model/config.json")).expect("config");
    let qwen = config.replace("\"llama\"", "\"qwen2\"");
    fs::write(lab.path("model/config.json"), qwen).expect("write");
    let says = ["architecture `qwen2`", "only `llama`"];
    inspect(&lab, "model").exits(1).says(&says);

    fs::remove_file(lab.path("model/config.json")).expect("remove");
    let says = ["cannot read model/config.json"];
    inspect(&lab, "model").exits(1).says(&says);

    for bytes in [
        &b"GGUF"[..],
        b"GGUF\x03\0\0\0\x09\0\0\0\0\0\0\0",
        b"PK\x03\x04",
    ] {
        fs::write(lab.path("model.gguf"), bytes).expect("write");
        let says = ["model.gguf is not a whole GGUF file"];
        inspect(&lab, "model.gguf").exits(1).says(&says);
    }
    inspect(&lab, "nowhere.gguf")
        .exits(1)
        .says(&["cannot read nowhere.gguf"]);
    inspect(&lab, "nowhere")
        .exits(1)
        .says(&["`nowhere` is not there", "hub id"]);
}

/// The lab's own small model is nothing that transformers knows.
#[test]
fn an_arm_of_the_small_model_is_not_exported_and_it_says_why() {
    let lab = Lab::new();
    lab.forgetlab(&[SMOKE, &["--arms", "none", "--out", "run"]].concat())
        .exits(0);
    let export = |name: &str| lab.forgetlab(&["model", "export", name, "--to", "out"]);
    let says = [
        "cannot export run/none",
        "QK-norm",
        "no Hugging Face architecture",
    ];
    export("run/none").exits(1).says(&says);
    export("run/other")
        .exits(1)
        .says(&["has no arm `other`; it has none"]);
    assert!(!lab.path("out").exists());
}

/// Else a run would end with figures and no model to use.
#[test]
fn a_trained_arm_is_exported_as_it_was_last_saved() {
    let lab = Lab::new();
    let run = "run instruct --preset smoke --arms none --set phases.verilog.steps=4 --out run";
    let run: Vec<&str> = run.split(' ').collect();
    lab.forgetlab(&run).exits(0);
    lab.forgetlab(&["model", "export", "run/none", "--to", "out"])
        .exits(0)
        .says(&["wrote out", "model.safetensors", "tokenizer.json"]);
    let load = |name: &str| {
        let model = pretrained::open(name, &Hub::from_env(), &()).expect("open");
        model.load(&()).expect("load")
    };
    let exported = load(text(&lab.path("out")));
    let started = load("builtin:tiny-llama");
    let dir = RunDir::open(&lab.path("run")).expect("run");
    let slug = &dir.load_state().expect("state").arms[0].info.slug;
    let latest = dir.checkpoints(slug).latest_valid().expect("checkpoint");
    let checkpoint = latest.checkpoint.expect("checkpoint");
    let student = read_student(&started.layout, &checkpoint).expect("student");
    assert_eq!(checkpoint.info.step, 4);
    assert!(exported.data == student.data && exported.data != started.data);
}

/// A python with torch and transformers, if one is named.
fn transformers() -> Option<String> {
    let python = std::env::var("FORGETLAB_TRANSFORMERS").ok();
    if python.is_none() {
        eprintln!("skipped: FORGETLAB_TRANSFORMERS names no python with torch and transformers");
    }
    python
}

/// Exports, and has transformers compare the logits of the folder with those of another model.
fn exported_logits_agree(python: &str, model: &Path, dtype: &str, other: &Path, tolerance: f64) {
    let lab = Lab::new();
    let to = lab.path("out");
    lab.forgetlab(&[
        "model",
        "export",
        text(model),
        "--to",
        "out",
        "--dtype",
        dtype,
    ])
    .exits(0)
    .says(&["wrote out", "config.json", "model.safetensors"]);
    let mut command = Command::new(python);
    command.env("HF_HUB_OFFLINE", "1");
    let script = root().join("tests/fixtures/logits.py");
    let output = command.arg(script).args([&to, other]).output();
    let done = Done::from(output.expect("start python")).exits(0);
    let line = done.out.lines().last().expect("a line");
    let mut numbers = line.split(' ').map(|x| x.parse::<f64>().expect("number"));
    let (error, largest) = (
        numbers.next().expect("error"),
        numbers.next().expect("largest"),
    );
    println!("{} {dtype}: {error:.1e} of {largest:.1}", model.display());
    assert!(error <= tolerance && largest > 1e-2, "{done}");
}

/// Else what was trained here could be used nowhere else.
#[test]
fn transformers_computes_the_same_logits_from_an_exported_folder() {
    let Some(python) = transformers() else { return };
    for kind in ["tied", "untied"] {
        let fixture = fixture(kind);
        exported_logits_agree(&python, &fixture, "f32", &fixture, 1e-4);
        // Eight bits of each weight are left.
        exported_logits_agree(&python, &fixture, "bf16", &fixture, 4e-2);
    }
}

/// Dequantised here and by transformers' own reader (PyPI's `gguf`).
#[test]
fn transformers_computes_the_same_logits_from_smollm2() {
    let Some(python) = transformers() else { return };
    let Ok(smollm2) = std::env::var("FORGETLAB_SMOLLM2") else {
        eprintln!("skipped: FORGETLAB_SMOLLM2 names no .gguf of SmolLM2-135M-Instruct");
        return;
    };
    let smollm2 = PathBuf::from(smollm2);
    exported_logits_agree(&python, &smollm2, "f32", &smollm2, 1e-4);
}

/// A model exported from a GGUF must be whole: transformers reads chats with its tokenizer.
#[test]
fn a_gguf_is_exported_with_its_tokenizer() {
    let Ok(smollm2) = std::env::var("FORGETLAB_SMOLLM2") else {
        eprintln!("skipped: FORGETLAB_SMOLLM2 names no .gguf of SmolLM2-135M-Instruct");
        return;
    };
    let lab = Lab::new();
    lab.forgetlab(&[
        "model", "export", &smollm2, "--to", "out", "--dtype", "bf16",
    ])
    .exits(0)
    .says(&["tokenizer.json", "tokenizer_config.json"]);
    let answer = [
        "--chat",
        "Name the capital of France.",
        "--temperature",
        "0",
    ];
    lab.forgetlab(&[&["sample", "out", "--rows", "1"], &answer[..]].concat())
        .exits(0)
        .says(&["▸The capital of France is Paris.<|im_end|>"]);
    let Some(python) = transformers() else { return };
    let script = "import json, sys\n\
        from transformers import AutoTokenizer\n\
        case = json.load(open(sys.argv[2]))['chat']\n\
        tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])\n\
        text = tokenizer.apply_chat_template(\n\
            case['messages'], add_generation_prompt=True, tokenize=False)\n\
        assert text == case['rendered'], text\n\
        ids = tokenizer(text, add_special_tokens=False)['input_ids']\n\
        assert ids == case['token_ids'], ids\n";
    let fixture = root().join("tests/fixtures/smollm2-135m-instruct-q4_1.json");
    let mut command = Command::new(python);
    command.env("HF_HUB_OFFLINE", "1").args(["-c", script]);
    let output = command.args([lab.path("out"), fixture]).output();
    Done::from(output.expect("start python")).exits(0);
}
