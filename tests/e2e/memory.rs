//! A run's memory is bounded, and known before it begins.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use forgetlab_tests::{Done, Figures, Lab, SMOKE};

const MIB: f64 = 1024.0 * 1024.0;

/// Runs the binary to its end; also the most bytes that it, or the worker it waits for, held at a time.
fn watch(lab: &Lab, args: &[&str]) -> (Done, f64) {
    let mut live = lab.start(args);
    let pid = live.pid().as_raw_nonzero().to_string();
    let children = format!("/proc/{pid}/task/{pid}/children");
    let mut peak: f64 = 0.0;
    while live.runs() {
        let children = fs::read_to_string(&children).unwrap_or_default();
        for pid in children.split_whitespace().chain([pid.as_str()]) {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let kib = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
            peak = kib.map_or(peak, |kib: f64| peak.max(1024.0 * kib));
        }
        sleep(Duration::from_millis(2));
    }
    (live.end(), peak)
}

/// Bytes in a text such as `memory: about 1.52 GiB`.
fn announced(done: &Done) -> f64 {
    let (_, rest) = done
        .out
        .split_once("memory: about ")
        .unwrap_or_else(|| panic!("{done}"));
    let mut words = rest.split_whitespace();
    let number: f64 = words.next().and_then(|n| n.parse().ok()).expect("number");
    match words.next() {
        Some("MiB") => number * MIB,
        Some("GiB") => number * 1024.0 * MIB,
        unit => panic!("{unit:?}"),
    }
}

#[track_caller]
fn must_agree(what: &str, predicted: f64, peak: f64) {
    let ratio = predicted / peak;
    let (predicted, peak) = (predicted / MIB, peak / MIB);
    println!("{what}: {predicted:.1} MiB predicted, {peak:.1} MiB taken, ratio {ratio:.3}");
    assert!(
        (0.85..=1.15).contains(&ratio),
        "{what}: {predicted:.1} MiB predicted, {peak:.1} MiB taken"
    );
}

/// Else a run would be refused that fits, or be killed in its third hour by the system.
#[test]
fn predicted_memory_is_within_15_percent_of_what_is_taken() {
    let lab = Lab::new();
    let runs = [
        (
            "cpu preset",
            "run toy-continual --preset cpu --set phases.steps=4",
        ),
        (
            "wide model, two arms",
            "run toy-continual --preset smoke --arms none,self-generated:kl --set phases.steps=2 \
             --set model.d_model=256 --set model.n_layers=6 --set model.head_dim=64",
        ),
        (
            "deep model, large micro-batches, computed again",
            "run toy-continual --preset smoke --arms none --set phases.steps=2 \
             --set model.d_model=128 --set model.n_layers=12 --set training.batch_size=256 \
             --set training.micro_batch=128 --set training.recompute=true",
        ),
    ];
    for (what, args) in runs {
        let args: Vec<&str> = args.split_whitespace().chain(["--threads", "2"]).collect();
        let (done, peak) = watch(&lab, &args);
        must_agree(what, announced(&done.exits(0)), peak);
    }
    let bench = "bench --config text-256 --batch 4 --work train --seconds 0.1 --json";
    let args: Vec<&str> = bench.split_whitespace().collect();
    let done = lab.forgetlab(&args).exits(0);
    let found: serde_json::Value = serde_json::from_str(&done.out).expect("JSON");
    let bytes = |key: &str| found[key].as_f64().expect("a number of bytes");
    must_agree(bench, bytes("predicted_bytes"), bytes("peak_rss_bytes"));
}

/// Else the way out of a refusal would have to be found by trial.
#[test]
fn a_run_that_cannot_fit_is_refused_with_its_items_and_what_would_fit() {
    let lab = Lab::new();
    let refused = |set: &[&str], texts: &[&str]| {
        let done = lab.forgetlab(&[SMOKE, set].concat());
        done.exits(2).says(texts);
        assert!(lab.runs().is_empty());
    };
    // A terabyte of activations at a time, which need not be.
    let sizes = "--set model.d_model=256 --set model.n_layers=16 --set training.batch_size=1048576 \
                 --set training.micro_batch=524288";
    let sizes: Vec<&str> = sizes.split_whitespace().collect();
    refused(
        &sizes,
        &[
            "this run needs about",
            "TiB",
            "activations",
            "gradients",
            "would fit: training.micro_batch=",
        ],
    );
    let sizes: Vec<&str> = "--set model.d_model=8192 --set model.n_layers=9"
        .split_whitespace()
        .collect();
    refused(&sizes, &["weights and references", "smaller model"]);
}

/// Else a run that was made to fit would be another experiment.
#[test]
fn a_run_that_computes_activations_again_has_the_same_figures() {
    let lab = Lab::new();
    lab.smoke(&["--out", "kept"]).exits(0);
    let again = ["--set", "training.recompute=true", "--no-cache"];
    lab.smoke(&[&again[..], &["--out", "again"]].concat())
        .exits(0);
    Figures::of(&lab.path("again")).must_equal(&Figures::of(&lab.path("kept")), "recompute");
}
