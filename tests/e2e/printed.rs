//! What names, files, models and plugins say reaches a terminal as text, never as a command to it.

use std::fs;
use std::path::Path;

use forgetlab_study::printed::{harmless, is_harmless};
use forgetlab_tests::{Done, Lab, SMOKE, compile_c, library, root};
use serde_json::{Value, json};

/// Sets a window's title, clears the screen (in one byte, too), turns writing around, overwrites the line, and forges
/// lines of its own.
const EVIL: &str = "ev\u{1b}]0;owned\u{7}\u{1b}[2J\u{9b}2J\u{202e}\u{2066}\u{2028}\u{200b}\rx\u{8}\nerror: forged\nil";

/// What must be seen of it.
const SEEN: &str = "ev\\u{1b}]0;owned";
/// The same as a word for a shell, to be pasted, and in JSON.
const SEEN_QUOTED: [&str; 2] = ["ev\\x1b]0;owned", "ev\\u001b]0;owned"];

/// Demands that nothing printed obeys [`EVIL`], that its text was seen, and that it began no line.
#[track_caller]
fn is_tame(what: &str, done: &Done) {
    for text in [&done.out, &done.err] {
        let forged = text.lines().find(|line| line.starts_with("error: forged"));
        assert_eq!(forged, None, "{what}:\n{done}");
    }
    is_shown(what, done);
}

/// The same of a text of several lines, which are its own.
#[track_caller]
fn is_shown(what: &str, done: &Done) {
    for text in [&done.out, &done.err] {
        assert!(is_harmless(text), "{what}: {}", harmless(text));
    }
    let seen = [&done.out, &done.err]
        .iter()
        .any(|text| text.contains(SEEN) || SEEN_QUOTED.iter().any(|seen| text.contains(seen)));
    assert!(seen, "{what}: {SEEN} is not in:\n{done}");
    assert!(!done.err.contains("bug in forgetlab"), "{what}: {done}");
}

/// A run as an older version left it, in which every text is [`EVIL`].
pub fn evil_run(run: &Path) {
    fs::create_dir_all(run).expect("folder");
    let arm = json!({
        "name": EVIL, "slug": "none-seed0", "strategy": EVIL, "objective": EVIL, "coeff": 1.0, "lr": 1e-3,
        "seed": 0, "steps": [2, 2],
    });
    let mut waits = arm.clone();
    waits["slug"] = json!("none-seed1");
    waits["seed"] = json!(1);
    let phases =
        json!([{"dataset": EVIL, "steps": 2}, {"dataset": format!("{EVIL}2"), "steps": 2}]);
    let scores = json!([
        {"dataset": EVIL, "role": "new", "ntp": 1.5, "accuracy": 0.5},
        {"dataset": format!("{EVIL}2"), "role": "future", "ntp": 1.5, "accuracy": 0.25},
    ]);
    let cost = json!({"tokens_trained": 1, "tokens_generated": 0, "seconds_new": 1.0, "seconds_replay": 0.0,
        "seconds_generate": 0.0, "seconds_eval": 0.0});
    let events = [
        json!({"event": "run_started", "experiment": EVIL, "preset": EVIL, "arms": [arm, waits], "phases": phases}),
        json!({"event": "worker_started", "pid": 1, "version": EVIL, "device": EVIL, "resumed": false}),
        json!({"event": "phase_started", "arm": 0, "phase": 0, "step": 0}),
        json!({"event": "evaluated", "arm": 0, "phase": 0, "step": 2, "cost": cost, "scores": scores}),
        json!({"event": "log", "level": "warn", "arm": 0, "message": EVIL}),
        json!({"event": "plugin_metric", "arm": 0, "step": 2, "name": EVIL, "value": 1.0}),
        json!({"event": "rewound", "arm": 0, "step": 2, "reason": EVIL}),
        json!({"event": "arm_failed", "arm": 0, "step": 2, "reason": EVIL}),
        json!({"event": "arm_waits", "arm": 1, "reason": EVIL}),
        json!({"event": "run_finished"}),
    ];
    let lines = events.into_iter().enumerate().map(|(seq, event)| {
        let mut line = json!({"v": 1, "seq": seq, "time": 1.7e9});
        let fields = line.as_object_mut().expect("fields");
        fields.extend(event.as_object().cloned().expect("fields"));
        format!("{line}\n")
    });
    fs::write(run.join("events.jsonl"), lines.collect::<String>()).expect("write");
}

/// A lab with a run as [`evil_run`], the settings of a real one, in a folder of an evil name.
pub fn evil_lab() -> Lab {
    let lab = Lab::new();
    lab.smoke(&["--arms", "none", "--set", "phases.steps=2", "--out", "real"])
        .exits(0);
    let run = lab.path("results/runs").join(EVIL);
    evil_run(&run);
    let config = fs::read_to_string(lab.path("real/config.toml")).expect("read");
    let preset = format!("preset = {}\n", json!(EVIL));
    let config = config.replacen("preset = \"smoke\"\n", &preset, 1);
    fs::write(run.join("config.toml"), config).expect("write");
    lab
}

/// Somebody's results, unpacked and looked at, must not be able to type or hide anything.
#[test]
fn a_run_with_evil_names_is_listed_attached_to_and_compared() {
    let lab = evil_lab();
    let run = lab.path("results/runs").join(EVIL);
    let run = run.to_str().expect("a path");
    for args in [
        &["list"][..],
        &["list", "--json"],
        &["attach", run],
        &["resume", run],
        &["stop", run],
        &["compare", run],
        &["compare", run, "--csv", "-"],
        &["compare", run, "--json"],
        &["export", run, "--tensorboard", EVIL],
        &["compare", run, "--format", "markdown"],
        &["compare", run, "--format", "latex"],
        &["compare", run, "--csv", "/dev/stderr"],
        &["figure", run, "--out", EVIL],
        &["runs", "prune", run],
    ] {
        let done = lab.forgetlab(args);
        match args.last() {
            // Fields of a CSV have their lines, in quotes.
            Some(&"-") => is_shown("CSV", &done),
            // A pipe by its name is a file like any other.
            Some(&"/dev/stderr") => assert!(done.err.contains(EVIL), "{done}"),
            _ => is_tame(&args.join(" "), &done),
        }
        assert!(done.code.is_some(), "{args:?}: {done}");
    }
    // A file has what was asked for, byte for byte.
    lab.forgetlab(&["compare", run, "--csv", "joined.csv"])
        .exits(0);
    let joined = fs::read_to_string(lab.path("joined.csv")).expect("read");
    assert!(joined.contains(EVIL), "{joined}");
}

/// Whatever somebody pasted into a command comes back in its message.
#[test]
fn what_was_typed_is_quoted_and_not_obeyed() {
    let lab = Lab::new();
    let set = format!("{EVIL}=1");
    let arm = format!("none+{EVIL}=1");
    for args in [
        &["run", EVIL][..],
        &[EVIL],
        &["run", "toy-continual", "--preset", EVIL],
        &["run", "toy-continual", "--arms", EVIL],
        &["run", "toy-continual", "--arms", &arm],
        &["run", "toy-continual", "--set", &set],
        &["run", "toy-continual", "--device", EVIL],
        &["run", "toy-continual", "--seed", EVIL],
        &["run", "toy-continual", "--plugin-dir", EVIL],
        &["list", EVIL],
        &["list", "--filter", &set],
        &["label", EVIL],
        &["runs", "delete", EVIL],
        &["resume", EVIL],
        &["experiments", EVIL],
        &["plugins", "new", EVIL],
        &["plugins", "check", EVIL],
        &["verify", "--fixture", EVIL],
        &["model", "inspect", EVIL],
        &["sample", EVIL],
        &["sample", "builtin:tiny-llama", "--token", EVIL],
        &["sample", "builtin:tiny-llama", "--temperature", EVIL],
        &["data", "preview", EVIL, "--tokenizer", "builtin:tiny-llama"],
        &["data", "preview", "x", "--tokenizer", EVIL],
    ] {
        let done = lab.forgetlab(args);
        assert!(matches!(done.code, Some(1 | 2)), "{args:?}: {done}");
        is_tame(&args.join(" "), &done);
    }
}

/// A model may say anything, and repeats what it is asked.
#[test]
fn samples_are_shown_and_not_obeyed() {
    let lab = Lab::new();
    let sample = [
        "sample",
        "builtin:tiny-llama",
        "--rows",
        "1",
        "--length",
        "256",
        "--prompt",
        EVIL,
    ];
    let done = lab.forgetlab(&sample).exits(0);
    is_shown("a prompt", &done);
    let done = lab.forgetlab(&[&sample[..], &["--json"]].concat()).exits(0);
    is_harmless(&done.out).then_some(()).expect("harmless JSON");
    let first: Value =
        serde_json::from_str(done.out.lines().next().expect("a line")).expect("JSON");
    let prompt = first["prompt"].as_str().expect("a text");
    assert!(
        prompt.ends_with(EVIL),
        "JSON says what was meant: {prompt:?}"
    );
}

/// Data sets come from anywhere.
#[test]
fn data_are_previewed_and_not_obeyed() {
    let lab = Lab::new();
    let write = |name: &str, record: Value| {
        fs::write(lab.path(name), format!("{record}\n")).expect("write")
    };
    write("text.jsonl", json!({"text": EVIL}));
    write(
        "q.jsonl",
        json!({"question": EVIL, "choices": [EVIL, "b"], "answer": "A"}),
    );
    write("field.jsonl", json!({EVIL: 1}));
    write(
        "answer.jsonl",
        json!({"question": "a", "choices": ["b", "c"], "answer": EVIL}),
    );
    let preview = |file: &str, more: &[&str]| {
        let args = ["data", "preview", file, "--tokenizer", "builtin:tiny-llama"];
        lab.forgetlab(&[&args[..], more].concat())
    };
    let done = preview("text.jsonl", &[]).exits(0);
    // Every token stands in brackets.
    let text = done.out.replace(['[', ']'], "");
    assert!(
        is_harmless(&done.out) && text.contains(&SEEN.replace(']', "")),
        "{done}"
    );
    let done = preview("q.jsonl", &["--questions"]).exits(0);
    is_shown("a question", &done);
    let answer = done.out.lines().last().expect("a line");
    assert!(
        answer.contains(SEEN) && answer.ends_with("\\nerror: forged\\nil"),
        "{answer}"
    );
    is_tame("a field", &preview("field.jsonl", &[]));
    is_tame("a wrong answer", &preview("answer.jsonl", &["--questions"]));
    let name = format!("{EVIL}.jsonl");
    fs::copy(lab.path("text.jsonl"), lab.path(&name)).expect("copy");
    let out = format!("{EVIL}.safetensors");
    let prepare = [
        "data",
        "prepare",
        &name,
        "--tokenizer",
        "builtin:tiny-llama",
        "--held-out",
        "0",
        "--out",
        &out,
    ];
    is_tame("prepare", &lab.forgetlab(&prepare).exits(0));
}

/// A checkpoint's texts are its author's.
#[test]
fn models_are_inspected_and_not_obeyed() {
    let lab = Lab::new();
    let folder = lab.path(EVIL);
    fs::create_dir(&folder).expect("folder");
    let tiny = root().join("tests/fixtures/llama-tiny-tied");
    let read = |name: &str| fs::read_to_string(tiny.join(name)).expect("read");
    let mut config: Value = serde_json::from_str(&read("config.json")).expect("JSON");
    fs::copy(
        tiny.join("model.safetensors"),
        folder.join("model.safetensors"),
    )
    .expect("copy");
    let tokenizer = root().join("tests/fixtures/chat/tokenizer.json");
    fs::copy(tokenizer, folder.join("tokenizer.json")).expect("copy");
    let special = json!({"bos_token": EVIL, "eos_token": EVIL, "chat_template": format!("{{{{ raise_exception({}) }}}}", json!("X"))});
    fs::write(folder.join("tokenizer_config.json"), special.to_string()).expect("write");
    let save =
        |config: &Value| fs::write(folder.join("config.json"), config.to_string()).expect("write");
    save(&config);
    is_tame(
        "a model's name",
        &lab.forgetlab(&["model", "inspect", EVIL]).exits(0),
    );
    config["model_type"] = json!(EVIL);
    save(&config);
    is_tame(
        "a kind of model",
        &lab.forgetlab(&["model", "inspect", EVIL]).exits(1),
    );
}

/// A strategy is looked at before it is trusted.
#[test]
fn strategies_are_listed_and_checked_and_not_obeyed() {
    let mut lab = Lab::new();
    fs::create_dir(lab.path("plug")).expect("folder");
    let source = root().join("tests/hostile/evil_words.c");
    let file = lab.path("plug").join(library("evil"));
    compile_c(&source, &file, None);
    let plug = lab.path("plug").display().to_string();
    lab.set("FORGETLAB_PLUGINS", &plug);
    is_tame("list", &lab.forgetlab(&["plugins", "list"]).exits(0));
    let check = |more: &[&str]| {
        let file = file.display().to_string();
        lab.forgetlab(&[&["plugins", "check", &file], more].concat())
    };
    is_tame("check", &check(&[]));
    is_tame("a setting", &check(&["--set", &format!("{EVIL}=1")]));
    let run = [SMOKE, &["--arms", "none,evil:kl", "--out", "run"]].concat();
    is_tame("run", &lab.forgetlab(&run).exits(3));
    is_tame("resume", &lab.forgetlab(&["resume", "run"]).exits(3));
    // A library of an evil name that is none.
    fs::write(lab.path("plug").join(format!("lib{EVIL}.so")), "nothing").expect("write");
    is_tame("refused", &lab.forgetlab(&["plugins", "list"]).exits(0));
}
