//! What generated texts begin with, in models with BOS and without.

use std::fs;
use std::path::Path;

use forgetlab_tests::{Lab, root};
use serde_json::{Value, json};

/// Names of special tokens 0, 1 and 2 of a tokenizer of one token a character, with 64 tokens in all.
type Special = [&'static str; 3];

const CHATML: Special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];
const TEMPLATE: &str = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}\
                        {% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

/// The tiny checkpoint of a family with a tokenizer beside it.
fn model(lab: &Lab, family: &str, special: Special, bos: Option<&str>) -> String {
    let folder = lab.path(family);
    fs::create_dir_all(&folder).expect("folder");
    let from = root().join("tests/fixtures/families").join(family);
    for name in ["config.json", "generation_config.json", "model.safetensors"] {
        fs::copy(from.join(name), folder.join(name)).expect("copy");
    }
    let added = |(id, name)| json!({"id": id, "content": name, "special": true, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false});
    let letters = "Ġ Ċ a b c d e f g h i j k l m n o p q r s t u v w x y z 0 1 2 3 4 5 6 7 8 9 . , ; : ( ) [ ] { } < > = + - * / ' \" _ ! ?";
    let tokens = special
        .into_iter()
        .chain(["<unk>"])
        .chain(letters.split(' '));
    let vocab: serde_json::Map<_, _> = tokens
        .enumerate()
        .map(|(id, token)| (token.to_owned(), json!(id)))
        .collect();
    assert_eq!(vocab.len(), 64);
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": true});
    let tokenizer = json!({
        "version": "1.0",
        "added_tokens": special.into_iter().enumerate().map(added).collect::<Vec<_>>(),
        "pre_tokenizer": bytes, "decoder": bytes,
        "model": {"type": "BPE", "vocab": vocab, "merges": [], "unk_token": "<unk>", "fuse_unk": false, "byte_fallback": false},
    });
    let config = json!({"bos_token": bos, "eos_token": "<|im_end|>", "pad_token": special[0], "chat_template": TEMPLATE});
    fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).expect("write");
    fs::write(folder.join("tokenizer_config.json"), config.to_string()).expect("write");
    folder.display().to_string()
}

/// A few steps of a model that learns Verilog, with more arguments.
fn run(lab: &Lab, model: &str, out: &str, arm: &str) -> forgetlab_tests::Done {
    let model = format!("model.pretrained={model}");
    let command = "run instruct --preset smoke --threads 1 --set phases.verilog.steps=4";
    let command: Vec<&str> = command.split(' ').collect();
    let more = ["--set", &model, "--arms", arm, "--out", out];
    lab.forgetlab(&[&command[..], &more].concat())
}

/// The first rows that a run looked at among those it replayed.
fn replayed(run: &Path) -> Vec<String> {
    let text = fs::read_to_string(run.join("events.jsonl")).expect("events");
    let events = text.lines().map(serde_json::from_str);
    let events = events.map(|event: Result<Value, _>| event.expect("JSON"));
    let looks = events.filter(|event| event["event"] == "replay_seen");
    looks
        .flat_map(|event| event["rows"].as_array().cloned().unwrap_or_default())
        .map(|row| row.as_str().expect("a text").to_owned())
        .collect()
}

/// Else a model of a family without BOS could not be studied, or would replay what it says after another token than
/// the one its pretraining separated documents with.
#[test]
fn each_family_is_prompted_with_bos_or_what_separates_its_documents() {
    let lab = Lab::new();
    let end_of_text = ["<|end_of_text|>", "<|im_start|>", "<|im_end|>"];
    for (family, special, bos, prompt) in [
        ("qwen2", CHATML, None, "<|endoftext|>"),
        ("qwen3", CHATML, None, "<|endoftext|>"),
        ("smollm3", end_of_text, None, "<|end_of_text|>"),
        (
            "granite",
            end_of_text,
            Some("<|end_of_text|>"),
            "<|end_of_text|>",
        ),
        ("olmo2", CHATML, Some("<|endoftext|>"), "<|endoftext|>"),
        (
            "mistral",
            ["<s>", "<|im_start|>", "<|im_end|>"],
            Some("<s>"),
            "<s>",
        ),
        (
            "gemma3",
            ["<bos>", "<|im_start|>", "<|im_end|>"],
            Some("<bos>"),
            "<bos>",
        ),
    ] {
        let model = model(&lab, family, special, bos);
        let out = format!("run-{family}");
        run(&lab, &model, &out, "bos-prompted:kl").exits(0);
        let rows = replayed(&lab.path(&out));
        assert!(!rows.is_empty(), "{family}");
        assert!(
            rows.iter().all(|row| row.starts_with(prompt)),
            "{family}: {rows:?}"
        );
    }
}

/// Else what is prompted with would be another thing than what was asked for.
#[test]
fn a_prompt_is_a_special_tokens_name_a_text_or_ids() {
    let lab = Lab::new();
    let model = model(&lab, "qwen3", CHATML, None);
    for (i, (prompt, begins)) in [
        ("<|im_start|>", "<|im_start|>"),
        ("\"it is\"", "it is"),
        ("2", "<|im_end|>"),
        ("[0, 1, 6]", "<|endoftext|><|im_start|>a"),
    ]
    .into_iter()
    .enumerate()
    {
        let arm = format!("bos-prompted:kl+prompt={prompt}");
        let out = format!("run-{i}");
        run(&lab, &model, &out, &arm).exits(0);
        let rows = replayed(&lab.path(&out));
        assert!(
            rows.iter().all(|row| row.starts_with(begins)),
            "{prompt}: {rows:?}"
        );
    }
}

/// Else a night would end in an arm that failed at its first replay.
#[test]
fn what_a_model_cannot_begin_with_is_refused_before_the_run() {
    let lab = Lab::new();
    // Nothing separates documents, and rows of text begin with a token that is named.
    let nothing = model(&lab, "qwen2", ["<a>", "<|im_start|>", "<|im_end|>"], None);
    run(&lab, &nothing, "out", "bos-prompted:kl")
        .exits(1)
        .says(&["english", "no BOS token", "<|endoftext|>", "`bos`"]);
    let chats = lab.path("qwen2");
    let text = fs::read_to_string(root().join("app/engine/src/pretrained/builtin/verilog.jsonl"));
    fs::write(chats.join("chats.jsonl"), text.expect("read")).expect("write");
    let chats = format!(
        "data.datasets.english.files=[\"{}\"]",
        chats.join("chats.jsonl").display()
    );
    let refused = |model: &str, more: &[&str], arm: &str, texts: &[&str]| {
        let model = format!("model.pretrained={model}");
        let command = [
            "run", "instruct", "--preset", "smoke", "--set", &model, "--arms", arm, "--out", "out",
        ];
        lab.forgetlab(&[&command, more].concat())
            .exits(2)
            .says(texts);
        assert!(!lab.path("out").exists(), "nothing is begun");
    };
    let none = &[
        "bos-prompted",
        "`prompt`",
        "no BOS token",
        "a special token's name",
    ];
    refused(&nothing, &["--set", &chats], "none,bos-prompted:kl", none);
    let model = model(&lab, "qwen3", CHATML, None);
    let long = format!("bos-prompted:kl+prompt=\"{}\"", "it is ".repeat(11));
    for (arm, texts) in [
        (
            "bos-prompted:kl+prompt=<|end_of_txt|>",
            &["`<|end_of_txt|>`", "none of this name"][..],
        ),
        (
            "bos-prompted:kl+prompt=64",
            &["prompt", "token 64", "64 tokens"],
        ),
        (
            "bos-prompted:kl+prompt=[]",
            &["prompt", "[] is not allowed", "a list of ids"],
        ),
        (&long, &["prompt", "66 tokens", "a row of 64"]),
    ] {
        refused(&model, &[], arm, texts);
    }
}

/// Else a researcher would choose a prompt without seeing what it calls up.
#[test]
fn several_prompts_are_compared_in_one_table() {
    let lab = Lab::new();
    let model = model(&lab, "qwen3", CHATML, None);
    let sample = ["sample", &model, "--rows", "8", "--length", "40"];
    let prompts = [
        "--begin",
        "",
        "--begin",
        "<|im_start|>",
        "--begin",
        "[6, 7]",
    ];
    let table = lab.forgetlab(&[&sample[..], &prompts].concat()).exits(0);
    for text in [
        "8 texts of 40 tokens",
        "<|endoftext|>",
        "<|im_start|>",
        "ab ",
        "nats/token",
        "2-grams",
        "duplicates",
        "chats",
    ] {
        assert!(table.out.contains(text), "{text}: {table}");
    }
    let lines = lab
        .forgetlab(&[&sample[..], &prompts, &["--json"]].concat())
        .exits(0);
    let looks: Vec<Value> = lines
        .out
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(looks.len(), 3);
    for (look, prompt) in looks.iter().zip(["<|endoftext|>", "<|im_start|>", "ab"]) {
        assert_eq!(look["prompt"], prompt);
        let number = |value: &Value| value.as_f64().expect("a number");
        // A random model of 64 tokens knows next to nothing: ln 64 = 4.2.
        assert!((2.0..6.0).contains(&number(&look["nll"])), "{look}");
        // Of 39 tokens drawn from 64, half the rows have the one that begins turns.
        let chats = number(&look["chat"]);
        assert!(
            chats > 0.0 && chats * 8.0 == (chats * 8.0).round(),
            "{look}"
        );
        assert_eq!(look["quality"]["rows"], 8);
    }
    // Each as it is alone.
    let alone = lab.forgetlab(&[&sample[..], &["--begin", "<|im_start|>", "--json"]].concat());
    let last: Value =
        serde_json::from_str(alone.out.lines().last().expect("a line")).expect("JSON");
    assert_eq!(
        (&last["nll"], &last["chat"]),
        (&looks[1]["nll"], &looks[1]["chat"])
    );
    lab.forgetlab(&[&sample[..], &["--token", "<|none|>"]].concat())
        .exits(1)
        .says(&["has no token `<|none|>`", "<|im_end|>"]);
}
