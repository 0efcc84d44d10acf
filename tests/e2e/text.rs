//! Small models that learn language from nothing: every study on the built-in texts, from pretraining to its figures.

use std::collections::BTreeMap;
use std::fs;

use forgetlab_tests::{Figures, Lab, Table, events, wait_for};
use rustix::process::Signal;

const SMOKE: [&str; 6] = ["--preset", "smoke", "--threads", "1", "--out", "run"];

/// Else a study that is told of could not be run.
#[test]
fn every_study_of_text_runs_on_the_built_in_texts() {
    let lab = Lab::new();
    for study in ["method-comparison", "lr-vs-replay"] {
        let out = [
            "run",
            study,
            "--preset",
            "smoke",
            "--threads",
            "1",
            "--out",
            study,
        ];
        lab.forgetlab(&out).exits(0);
        let run = lab.path(study);
        for file in [
            "summary.csv",
            "verdicts.csv",
            "figures/ntp.png",
            "figures/forgetting.svg",
        ] {
            assert!(
                run.join(file).metadata().is_ok_and(|m| m.len() > 0),
                "{study}: {file}"
            );
        }
        let config = fs::read_to_string(run.join("config.toml")).expect("config");
        for known in [
            "tokenizer_hash",
            "vocab_size = 1024",
            "rows = 2480",
            "rows = 2195",
        ] {
            assert!(config.contains(known), "{known}: {config}");
        }
    }
    let rows = Table::read(&lab.path("method-comparison/metrics.csv")).rows;
    // 10 000 tokens are 20 steps of 512, and evaluations become rarer.
    let steps: Vec<u64> = rows
        .iter()
        .filter(|row| row["arm"] == "none" && row["dataset"] == "en" && row["phase"] == "0")
        .map(|row| row["step"].parse().expect("step"))
        .collect();
    assert_eq!(steps, [0, 4, 8, 12, 16, 20]);
    let loss = |step: &str, dataset: &str| -> f64 {
        let row = rows
            .iter()
            .find(|r| r["arm"] == "none" && r["step"] == step && r["dataset"] == dataset);
        row.expect("a row")["ntp"].parse().expect("a number")
    };
    let events = fs::read_to_string(lab.path("method-comparison/events.jsonl")).expect("events");
    // D 16, one block, V 1024: 2 x 1024 x 16 in the embeddings and 12 x 16 x 16 in the block.
    let told = "trains adapters of rank 2: 576 numbers beside 35840 weights (1.6 %)";
    assert!(events.contains(told), "{events}");
    assert!(
        loss("20", "en") < loss("0", "en") - 0.2,
        "it learns English"
    );
    assert!(
        loss("40", "es") < loss("20", "es") - 0.1,
        "it learns Spanish"
    );
}

/// Else the control that says how much could be kept would be of other length, or not begin anew.
#[test]
fn joint_training_begins_anew_and_is_as_long_as_both_phases() {
    let lab = Lab::new();
    for (arm, says) in [
        (
            "true-data:kl+joint=true",
            "joint training is plain training of all weights",
        ),
        (
            "none+lora_rank=2+joint=true",
            "joint training is plain training of all weights",
        ),
    ] {
        lab.forgetlab(&[&["run", "method-comparison", "--arms", arm], &SMOKE[..]].concat())
            .exits(2)
            .says(&[says]);
    }
    let of_first = ["--set", "phases.en.joint=true"];
    lab.forgetlab(&[&["run", "method-comparison"], &SMOKE[..], &of_first].concat())
        .exits(2)
        .says(&["is for the second phase"]);
    let arms = ["--arms", "none,none+joint=true"];
    lab.forgetlab(&[&["run", "method-comparison"], &SMOKE[..], &arms].concat())
        .exits(0);
    let rows = Table::read(&lab.path("run/metrics.csv")).rows;
    let course = |arm: &str, dataset: &str| -> Vec<(u64, f64)> {
        let own = |row: &&BTreeMap<String, String>| {
            row["arm"] == arm && row["dataset"] == dataset && row["phase"] == "1"
        };
        let point = |row: &BTreeMap<String, String>| {
            let number = |column: &str| row[column].parse::<f64>().expect("a number");
            (number("step") as u64, number("ntp"))
        };
        rows.iter().filter(own).map(point).collect()
    };
    let of = |arm: &str, dataset: &str| -> [(u64, f64); 2] {
        let course = course(arm, dataset);
        [course[0], *course.last().expect("rows")]
    };
    let ([_, plain], [first, last]) = (of("none", "en"), of("none+joint=true", "en"));
    assert_eq!(
        (plain.0, last.0),
        (40, 60),
        "20 steps of pretraining, then 20 or 40"
    );
    assert!(first.1 > plain.1, "what was pretrained is not there");
    assert!(last.1 < plain.1 - 0.1, "it still sees English at the end");
    let [before, after] = of("none+joint=true", "es");
    assert!(after.1 < before.1 - 0.5, "it learns Spanish");
}

/// A pretraining of days that is killed must go on where it was, with the rows it would have had.
#[test]
fn a_killed_pretraining_goes_on_with_the_same_rows() {
    let lab = Lab::new();
    let long = [
        "--set",
        "phases.en.epochs=0.4",
        "--set",
        "phases.es.mix={dataset = \"en\", share = 0.1}",
    ];
    let begin = |out: &str, more: &[&str]| {
        let args = [
            "run",
            "method-comparison",
            "--preset",
            "smoke",
            "--threads",
            "1",
            "--out",
            out,
            "--arms",
            "none,true-data:kl",
        ];
        [&args[..], &long, more]
            .concat()
            .into_iter()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let strs = |args: &[String]| {
        args.iter()
            .map(String::as_str)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let whole = strs(&begin("whole", &[]));
    lab.forgetlab(&whole.iter().map(String::as_str).collect::<Vec<_>>())
        .exits(0);
    let killed = lab.path("killed");
    let args = begin("killed", &["--no-cache"]);
    for at in [8, 30] {
        let args: Vec<&str> = match killed.exists() {
            true => vec!["resume", "killed", "--no-cache"],
            false => args.iter().map(String::as_str).collect(),
        };
        let mut live = lab.start(&args);
        wait_for("events of a run", || events(&killed) >= at || !live.runs());
        live.signal(Signal::KILL);
        live.end();
    }
    lab.forgetlab(&["resume", "killed", "--no-cache"]).exits(0);
    Figures::of(&killed).must_equal(&Figures::of(&lab.path("whole")), "killed twice");
}

/// Tokens of another tokenizer, or text that was not fetched, would be another study or an error nobody understands.
#[test]
fn corpora_that_cannot_be_used_are_told_in_words() {
    let lab = Lab::new();
    let smoke = |set: &[&str]| {
        let set: Vec<&str> = set.iter().flat_map(|set| ["--set", *set]).collect();
        lab.forgetlab(&[&["run", "method-comparison"], &SMOKE[..], &set].concat())
    };
    smoke(&["data.datasets.es.files=[\"text-data/es.txt\"]"])
        .exits(1)
        .says(&["text-data/es.txt is not here; fetch it with"]);
    smoke(&["data.datasets.es.marker=4"])
        .exits(1)
        .says(&["dataset `es`: marker = 4, but the tokenizer has 4 markers"]);
    smoke(&["data.held_out_rows=100000"])
        .exits(1)
        .says(&["dataset `en`: ", "no whole batch is left to train on"]);
    // Before anything is trained, not when the arm begins.
    lab.forgetlab(
        &[
            &["run", "method-comparison", "--arms", "none,none+batch=9000"],
            &SMOKE[..],
        ]
        .concat(),
    )
    .exits(2)
    .says(&[
        "arm `none+batch=9000`: dataset `es`: ",
        "a batch is 9000 rows",
    ]);
    assert!(!lab.path("run").exists());
    smoke(&["phases.en.tokens=0"])
        .exits(2)
        .says(&["phases.0.tokens"]);
    smoke(&["optimizer.warmup_steps=5"])
        .exits(2)
        .says(&["a warm-up has one length"]);
    smoke(&["phases.es.mix={dataset = \"es\", share = 0.5}"])
        .exits(2)
        .says(&["phases.1.mix.dataset"]);
    smoke(&["phases.es.mix={dataset = \"it\", share = 0.5}"])
        .exits(2)
        .says(&["unknown dataset `it`"]);
    let digits = [
        "run",
        "toy-continual",
        "--preset",
        "smoke",
        "--set",
        "phases.sort.epochs=1",
    ];
    lab.forgetlab(&digits)
        .exits(2)
        .says(&["goes with data.kind = tokens"]);

    fs::write(lab.path("one.txt"), "one two three\n\n".repeat(400)).expect("write");
    lab.forgetlab(&[
        "data",
        "train-tokenizer",
        "one.txt",
        "--vocab",
        "300",
        "--out",
        "t.json",
    ])
    .exits(0);
    lab.forgetlab(&[
        "data",
        "tokenize",
        "one.txt",
        "--tokenizer",
        "t.json",
        "--out",
        "one.bin",
    ])
    .exits(0);
    smoke(&["data.datasets.es.files=[\"one.bin\"]"])
        .exits(1)
        .says(&["one.bin: its tokens are not those of"]);
}
