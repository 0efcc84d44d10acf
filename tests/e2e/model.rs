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
    let says = [
        "model.safetensors.index.json",
        "model-00001-of-00002.safetensors missing",
    ];
    inspect(&lab, "model").exits(1).says(&says);

    let config = fs::read_to_string(lab.path("model/config.json")).expect("config");
    let phi = config.replace("\"llama\"", "\"phi3\"");
    fs::write(lab.path("model/config.json"), phi).expect("write");
    let says = [
        "architecture `phi3`",
        "can be loaded: llama, mistral, qwen2",
    ];
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

/// Else somebody with a good model of another kind would look for what is wrong with it.
#[test]
fn weights_in_formats_that_are_not_read_are_named() {
    let lab = lab_with_model();
    let weights = |name: &str| lab.path("model").join(name);
    fs::rename(weights("model.safetensors"), weights("pytorch_model.bin")).expect("rename");
    let says = [
        "model is without model.safetensors",
        "pytorch_model.bin",
        "save_pretrained",
    ];
    inspect(&lab, "model").exits(1).says(&says);
    fs::rename(weights("pytorch_model.bin"), weights("tiny.gguf")).expect("rename");
    fs::remove_file(weights("config.json")).expect("remove");
    let says = [
        "model is without config.json",
        "tiny.gguf",
        "name the file itself",
    ];
    inspect(&lab, "model").exits(1).says(&says);
}

/// Ten million blocks take gigabytes to list.
#[test]
fn sizes_and_settings_that_cannot_be_are_refused() {
    let lab = lab_with_model();
    let path = lab.path("model/config.json");
    let whole = fs::read_to_string(&path).expect("config");
    let mut config: serde_json::Value = serde_json::from_str(&whole).expect("JSON");
    for (key, value, says) in [
        (
            "num_hidden_layers",
            1e7 as i64,
            "`num_hidden_layers` is 10000000",
        ),
        ("rms_norm_eps", -1, "`rms_norm_eps` is -1"),
        (
            "intermediate_size",
            1 << 40,
            "`intermediate_size` is 1099511627776",
        ),
    ] {
        let before = std::mem::replace(&mut config[key], value.into());
        fs::write(&path, config.to_string()).expect("write");
        inspect(&lab, "model").exits(1).says(&[says]);
        config[key] = before;
    }
}

/// Else the head that the file holds would be lost without a word.
#[test]
fn a_head_of_its_own_is_told_of_and_exported() {
    let lab = lab_with_model();
    let file = lab.path("model/model.safetensors");
    let whole = fs::read(&file).expect("weights");
    let tensors = safetensors::SafeTensors::deserialize(&whole).expect("safetensors");
    let embedding = tensors
        .tensor("model.embed_tokens.weight")
        .expect("embedding");
    let mut head = embedding.data().to_vec();
    *head.last_mut().expect("bytes") ^= 0x40;
    let shape = embedding.shape().to_vec();
    let head = safetensors::tensor::TensorView::new(embedding.dtype(), shape, &head).expect("view");
    let own = ("lm_head.weight", head);
    let all = tensors.iter().chain([own]);
    safetensors::serialize_to_file(all, None, &file).expect("write");
    inspect(&lab, "model").exits(0).says(&[
        "warning: model/config.json",
        "`tie_word_embeddings`",
        "lm_head.weight",
        "output embedding of its own",
    ]);
    let export = ["model", "export", "model", "--to", "out/"];
    lab.forgetlab(&export)
        .exits(0)
        .says(&["lm_head.weight", "wrote out"]);
    let done = inspect(&lab, "out").exits(0);
    done.says(&["output embedding of its own", "30 tensors F32"]);
}

/// Else a text would go on beyond its end, as no other program lets it.
#[test]
fn a_text_ends_at_every_end_that_the_config_lists() {
    let lab = Lab::new();
    let export = ["model", "export", "builtin:tiny-llama", "--to", "tiny"];
    lab.forgetlab(&export).exits(0);
    let path = lab.path("tiny/config.json");
    let config = fs::read_to_string(&path).expect("config");
    let mut config: serde_json::Value = serde_json::from_str(&config).expect("JSON");
    config["eos_token_id"] = (0..512).collect();
    config["pad_token_id"] = (-1).into();
    fs::write(&path, config.to_string()).expect("write");
    let sample = ["sample", "tiny", "--stop", "--rows", "1", "--length", "40"];
    let says = ["1 text, 1 tokens", "`pad_token_id` is -1"];
    lab.forgetlab(&sample).exits(0).says(&says);
    config["eos_token_id"] = serde_json::json!([2, 511]);
    fs::write(&path, config.to_string()).expect("write");
    inspect(&lab, "tiny")
        .exits(0)
        .says(&["eos 2 <|im_end|> and 511 ", "pad none"]);
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

/// Else what an arm has become could be measured, but not read, beside what it began as.
#[test]
fn an_arm_is_taken_wherever_a_model_is() {
    let lab = Lab::new();
    let run = "run instruct --preset smoke --arms none --set phases.verilog.steps=4";
    let run: Vec<&str> = run.split(' ').collect();
    lab.forgetlab(&[&run[..], &["--out", "my runs/run"]].concat())
        .exits(0);
    std::fs::write(lab.path("text.txt"), "some text\n").expect("write");
    let sample = |model: &str| {
        let args = [
            "sample",
            model,
            "--rows",
            "2",
            "--length",
            "12",
            "--temperature",
            "0",
        ];
        lab.forgetlab(&args).exits(0).out
    };
    let trained = sample("my runs/run/none");
    assert_ne!(trained, sample("builtin:tiny-llama"), "it has learned");
    let slug = RunDir::open(&lab.path("my runs/run")).expect("run");
    let slug = slug.load_state().expect("state").arms[0].info.slug.clone();
    for name in [
        "my runs/run/none/".to_owned(),
        format!("my runs/run/{slug}"),
        format!("my runs/run/{slug}/"),
        format!("my runs/run/arms/{slug}/"),
        format!("{}/none", text(&lab.path("my runs/run"))),
    ] {
        assert_eq!(sample(&name), trained, "{name}");
        inspect(&lab, &name)
            .exits(0)
            .says(&["trained as", &format!("arm {slug} of run at step 4")]);
        lab.forgetlab(&["data", "preview", "text.txt", "--tokenizer", &name])
            .exits(0)
            .says(&["row 1 of 1"]);
    }
    lab.forgetlab(&["sample", "my runs/run/other"])
        .exits(1)
        .says(&["has no arm `other`"]);
    lab.smoke(&["--arms", "none", "--out", "toy"]).exits(0);
    lab.forgetlab(&["sample", "toy/none"])
        .exits(1)
        .says(&["small kind", "no tokenizer"]);
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

/// Folders of `tests/fixtures/families`.
const FAMILIES: [&str; 8] = [
    "mistral",
    "mistral_window",
    "qwen2",
    "qwen3",
    "smollm3",
    "granite",
    "olmo2",
    "gemma3",
];

/// What a user reads of a model before it is trained: its family, and what is unlike Llama.
#[test]
fn families_are_described() {
    let lab = Lab::new();
    for (family, says) in FAMILIES.into_iter().zip([
        &["architecture   mistral"][..],
        &["unlike Llama   3 blocks attend to 7 positions"],
        &[
            "architecture   qwen2",
            "unlike Llama   biases of q, k and v",
        ],
        &[
            "architecture   qwen3",
            "unlike Llama   norms of q and k by head",
        ],
        &[
            "architecture   smollm3",
            "unlike Llama   1 blocks without RoPE",
        ],
        &[
            "architecture   granite",
            "embeddings times 3; residuals times 0.4",
        ],
        &[
            "architecture   olmo2",
            "norms of all q and all k together; norms after",
        ],
        &[
            "architecture   gemma3_text",
            "norms around attention and MLP; GeGLU",
            "2 blocks attend to 7 positions, RoPE of base 10000 there",
        ],
    ]) {
        let folder = root().join("tests/fixtures/families").join(family);
        inspect(&lab, text(&folder)).exits(0).says(says);
    }
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
    for family in FAMILIES {
        let fixture = root().join("tests/fixtures/families").join(family);
        exported_logits_agree(&python, &fixture, "f32", &fixture, 1e-4);
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

/// Names, shapes and bytes of all tensors in a file, sorted.
fn tensors(file: &Path) -> Vec<(String, Vec<usize>, Vec<u8>)> {
    let bytes = fs::read(file).expect("read");
    let read = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
    let all = read.tensors().into_iter();
    let mut all: Vec<_> = all
        .map(|(name, tensor)| (name, tensor.shape().to_vec(), tensor.data().to_vec()))
        .collect();
    all.sort();
    all
}

/// Who finetunes a file that llama.cpp wrote must begin at the weights that it was made of, also where its tokenizer is
/// of a kind that is not read.
#[test]
fn a_gguf_that_llama_cpp_wrote_is_exported_bit_for_bit() {
    let lab = Lab::new();
    let gguf = fs::read(root().join("tests/fixtures/granite.gguf")).expect("fixture");
    let at = gguf.windows(6).position(|bytes| bytes == b"refact");
    let mut unread = gguf.clone();
    unread[at.expect("its kind of tokenizer")..][..6].copy_from_slice(b"tekken");
    let made_of = tensors(&root().join("tests/fixtures/families/granite/model.safetensors"));
    for (name, bytes, says) in [
        ("read", gguf, "tokenizer.json, tokenizer_config.json"),
        (
            "unread",
            unread,
            "no tokenizer.json: unread.gguf: tokenizer.ggml.pre is `tekken`",
        ),
    ] {
        let file = format!("{name}.gguf");
        fs::write(lab.path(&file), bytes).expect("write");
        lab.forgetlab(&["model", "export", &file, "--to", name])
            .exits(0)
            .says(&[says]);
        assert!(tensors(&lab.path(name).join("model.safetensors")) == made_of);
    }
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
