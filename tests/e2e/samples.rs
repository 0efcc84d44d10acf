//! What students write at evaluations, to be read beside the curves.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use forgetlab_tests::{Lab, SMOKE, Table, events, wait_for};
use serde_json::Value;

/// Two arms over three phases.
const ARMS: &[&str] = &["--arms", "none,self-generated:kl"];

/// What was written, by arm and step; of several, as after going back to a checkpoint, the last.
fn written(run: &Path) -> BTreeMap<(u64, u64), Value> {
    let text = fs::read_to_string(run.join("events.jsonl")).expect("events");
    let lines = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("an event"));
    let looks = lines.filter(|event| event["event"] == "sampled");
    let place = |event: &Value, key: &str| event[key].as_u64().expect("a number");
    looks
        .map(|event| {
            let at = (place(&event, "arm"), place(&event, "step"));
            (at, event["samples"].clone())
        })
        .collect()
}

fn metrics(run: &Path) -> Table {
    Table::read(&run.join("metrics.csv")).timeless()
}

/// Else looking at a student would change it, or a run would tell less because another one was there before.
#[test]
fn what_students_write_changes_no_score_and_is_the_same_with_a_warm_cache() {
    let lab = Lab::new();
    let run = |out: &str, samples: &str| {
        let samples = format!("training.samples={samples}");
        let more = ["--set", &samples, "--out", out];
        lab.smoke(&[ARMS, &more].concat()).exits(0);
        lab.path(out)
    };
    let (without, cold, warm) = (run("without", "0"), run("cold", "2"), run("warm", "2"));
    assert_eq!(metrics(&without), metrics(&cold));
    assert_eq!(metrics(&cold), metrics(&warm));
    assert!(written(&without).is_empty());
    let looks = written(&cold);
    assert_eq!(looks, written(&warm));
    // At every evaluation of every arm, the first phase that they share included.
    let evaluations = metrics(&cold).rows.into_iter();
    let mut evaluations: Vec<_> = evaluations
        .map(|row| (row["arm"].clone(), row["step"].clone()))
        .collect();
    evaluations.dedup();
    assert_eq!(looks.len(), evaluations.len());
    assert_eq!(looks.keys().next(), Some(&(0, 0)));
    // A bare BOS, and of each dataset its marker and a question.
    let samples = looks[&(1, 8)].as_array().expect("samples");
    assert_eq!(samples.len(), 1 + 2 * 3, "{samples:?}");
    assert_eq!(samples[0]["dataset"], Value::Null);
    assert_eq!(samples[0]["prompt"], "<bos>");
    let of_sort = samples.iter().filter(|sample| sample["dataset"] == "sort");
    let prompts: Vec<&str> = of_sort
        .filter_map(|sample| sample["prompt"].as_str())
        .collect();
    assert_eq!(prompts[0], "<bos> sort");
    assert!(prompts[1].starts_with("<bos> sort ") && prompts[1].ends_with("<eq>"));
    for sample in samples {
        assert!(!sample["text"].as_str().expect("a text").is_empty());
    }
    // What the arms share is written once, and told for both.
    assert_eq!(looks[&(0, 8)], looks[&(1, 8)]);
}

/// Else what is read beside the curves of a resumed run would have holes, or be of another student.
#[test]
fn a_run_that_was_killed_writes_what_one_in_a_piece_writes() {
    let whole = Lab::new();
    let command = |more: &'static [&'static str]| {
        let samples = ["--set", "training.samples=2", "--out", "run"];
        [SMOKE, ARMS, &samples, more].concat()
    };
    whole.forgetlab(&command(&[])).exits(0);
    let (whole, all) = (whole.path("run"), events(&whole.path("run")));
    for part in 1..5 {
        let lab = Lab::new();
        let run = lab.path("run");
        let mut live = lab.start(&command(&["--no-cache"]));
        wait_for("events", || events(&run) >= all * part / 5 || !live.runs());
        std::thread::sleep(Duration::from_millis(part as u64));
        live.kill();
        lab.forgetlab(&["resume", "run"]).exits(0);
        assert_eq!(written(&run), written(&whole), "part {part}");
        assert_eq!(metrics(&run), metrics(&whole), "part {part}");
    }
}

/// A run decides it once, by what it costs; else it would end otherwise than it began, or take longer for what nobody asked
/// for.
#[test]
fn it_is_decided_before_the_start_by_what_it_costs_and_written_down() {
    let lab = Lab::new();
    let decided = |out: &str, more: &[&str]| {
        lab.smoke(&[&["--arms", "none", "--out", out], more].concat())
            .exits(0);
        let config = fs::read_to_string(lab.path(out).join("config.toml")).expect("config");
        let line = config.lines().find(|line| line.starts_with("samples = "));
        line.expect("it is written").to_owned()
    };
    let large = ["--set", "training.batch_size=256"];
    assert_eq!(decided("large", &large), "samples = 3");
    let small = ["--set", "training.batch_size=1"];
    assert_eq!(decided("small", &small), "samples = 0");
    assert!(written(&lab.path("small")).is_empty());
    assert!(!written(&lab.path("large")).is_empty());
    // As it was decided, also where another number of steps would decide otherwise.
    let mut again = vec!["run", "small/config.toml", "--out", "again"];
    again.extend(["--set", "training.batch_size=256"]);
    lab.forgetlab(&again).exits(0);
    assert!(written(&lab.path("again")).is_empty());
    lab.smoke(&["--set", "training.samples=99"])
        .exits(2)
        .says(&["training.samples", "at most 32"]);

    // A run of an older version goes on without.
    let config = lab.path("old");
    let mut live = lab.start(
        &[
            SMOKE,
            ARMS,
            &["--out", "old", "--set", "training.samples=0"],
        ]
        .concat(),
    );
    wait_for("events", || events(&config) >= 20 || !live.runs());
    live.kill();
    let path = config.join("config.toml");
    let text = fs::read_to_string(&path).expect("config");
    assert!(text.contains("samples = 0\n"));
    fs::write(&path, text.replace("samples = 0\n", "")).expect("write");
    lab.forgetlab(&["resume", "old"]).exits(0);
    assert!(written(&config).is_empty());
}

/// Else the FLOPs of a run would be planned without a part of what it does.
#[test]
fn what_it_costs_is_predicted_and_counted() {
    let lab = Lab::new();
    let told = |samples: &str| {
        let samples = format!("training.samples={samples}");
        let args = [SMOKE, ARMS, &["--set", &samples, "--dry-run", "--json"]].concat();
        let done = lab.forgetlab(&args).exits(0);
        serde_json::from_str::<Value>(&done.out).expect("JSON")
    };
    let (with, without) = (told("4"), told("0"));
    assert_eq!(
        (&with["samples"], &without["samples"]),
        (&4.into(), &0.into())
    );
    let eval = |told: &Value, arm: usize| told["arms"][arm]["flops_eval"].as_f64().expect("FLOPs");
    assert!(eval(&with, 0) > eval(&without, 0));
    let more = ["--set", "training.samples=4", "--out", "run"];
    lab.smoke(&[ARMS, &more].concat()).exits(0);
    let summary = Table::read(&lab.path("run/summary.csv"));
    let counted = |arm: &str| summary.arm(arm)[0]["flops_eval"].parse::<f64>().ok();
    assert_eq!(counted("none"), Some(eval(&with, 0)));
    let (own, predicted) = (
        counted("self-generated:kl:10").expect("FLOPs"),
        eval(&with, 1),
    );
    assert!((own - predicted).abs() < 0.05 * own, "{own}, {predicted}");
}
