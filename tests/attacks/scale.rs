//! Runs with more events than anybody has waited for yet.

use std::fmt::Write;
use std::fs;
use std::time::Instant;

use forgetlab_tests::Lab;
use serde_json::json;

use crate::campaign::{Tally, bounded, whole};

/// A run of weeks must be listed, compared and resumed like any other, and `list` must not take longer for it than
/// somebody waits.
#[test]
fn a_run_of_very_many_events_is_read_like_any_other() {
    let lab = Lab::new();
    let mut tally = Tally::default();
    let evaluations = if whole() { 330_000 } else { 3_000 };
    lab.smoke(&["--arms", "none,true-data:kl", "--out", "results/runs/huge"])
        .exits(0);
    let run = lab.path("results/runs/huge");
    fs::write(run.join("events.jsonl"), events(evaluations)).expect("write");
    // Its checkpoints know other events.
    fs::remove_dir_all(run.join("arms")).expect("remove");
    let megabytes = fs::metadata(run.join("events.jsonl"))
        .expect("a file")
        .len()
        >> 20;
    println!("scale: {} events, {megabytes} MiB", 3 * evaluations);
    for args in [
        &["list"][..],
        &["list"],
        &["compare", "huge"],
        &["attach", "huge"],
        &["resume", "huge"],
    ] {
        let start = Instant::now();
        let ended = bounded(&lab, args);
        println!("scale: {} {:.2} s", args[0], start.elapsed().as_secs_f64());
        let wrong = ended.failure();
        let lost = args[0] == "list" && !ended.said.contains("100%");
        tally.note(args[0], "right", wrong.or(lost.then(|| ended.last_words())));
    }
    tally.finish("scale");
}

/// Events of a finished run, as versions without checksums wrote them.
fn events(evaluations: u64) -> String {
    let names = ["none", "true-data:kl:10"];
    let arms = names.map(|name| {
        json!({"name": name, "slug": format!("{}-seed0", name.replace(':', "-")), "strategy": name, "objective": "kl",
            "coeff": 10.0, "lr": 1e-3, "seed": 0, "steps": [evaluations]})
    });
    let phases = json!([{"dataset": "reversal", "steps": evaluations}]);
    let cost = json!({"tokens_trained": 1, "tokens_generated": 0, "seconds_new": 1.0, "seconds_replay": 0.0,
        "seconds_generate": 0.0, "seconds_eval": 0.0});
    let mut text = String::new();
    let mut seq = 0;
    let mut tell = |event: serde_json::Value| {
        let mut line = json!({"v": 1, "seq": seq, "time": 1e9 + seq as f64});
        line.as_object_mut()
            .expect("fields")
            .extend(event.as_object().cloned().expect("fields"));
        let _ = writeln!(text, "{line}");
        seq += 1;
    };
    tell(
        json!({"event": "run_started", "experiment": "toy-continual", "preset": "smoke", "arms": arms, "phases": phases}),
    );
    tell(
        json!({"event": "worker_started", "pid": 1, "version": "0.1.0", "device": "cpu", "resumed": false}),
    );
    for step in 1..=evaluations / 2 {
        for arm in 0..2 {
            let scores = json!([{"dataset": "reversal", "role": "new", "ntp": 1.0 / step as f64, "accuracy": 0.5}]);
            let step = 2 * step;
            tell(
                json!({"event": "evaluated", "arm": arm, "phase": 0, "step": step, "cost": cost, "scores": scores}),
            );
            tell(
                json!({"event": "progress", "arm": arm, "phase": 0, "step": step, "ntp": 1.0, "replay": 0.1,
                "grad_norm": 1.0, "tokens_per_second": 1e4}),
            );
            tell(
                json!({"event": "plugin_metric", "arm": arm, "step": step, "name": "drawn", "value": step}),
            );
        }
    }
    for arm in 0..2 {
        tell(json!({"event": "arm_finished", "arm": arm, "step": evaluations}));
    }
    tell(json!({"event": "run_finished"}));
    text
}
