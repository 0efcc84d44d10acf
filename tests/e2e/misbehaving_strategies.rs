//! A strategy that misbehaves, or numbers that run away, cost their own arm and nothing else.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use forgetlab_tests::{Done, Figures, Lab, SMOKE, Table, built, events_say, library, wait_for};
use rustix::process::Signal;

/// A lab with the hostile strategy in `plugins`, which is all the more arguments it needs.
fn hostile_lab() -> Lab {
    let lab = Lab::new();
    fs::create_dir(lab.path("plugins")).expect("folder");
    let name = library("forgetlab_hostile");
    fs::copy(built().join(&name), lab.path("plugins").join(&name)).expect("copy");
    lab
}

const HOSTILE: &[&str] = &[
    "--plugin-dir",
    "plugins",
    "--out",
    "run",
    "--arms",
    "none,hostile:kl,true-data:kl",
];

fn smoke(lab: &Lab, more: &[&str]) -> Done {
    lab.smoke(&[HOSTILE, more].concat())
}

/// Demands that the other arms are what they are without the hostile one.
#[track_caller]
fn others_are_whole(run: &Path) {
    let lab = Lab::new();
    lab.smoke(&["--out", "good", "--arms", "none,true-data:kl"])
        .exits(0);
    for file in ["metrics.csv", "summary.csv"] {
        let mut with = Table::read(&run.join(file)).timeless();
        with.rows.retain(|row| row["strategy"] != "hostile");
        let without = Table::read(&lab.path("good").join(file)).timeless();
        assert_eq!(with, without, "{file}");
    }
}

fn status_of_hostile(run: &Path) -> String {
    let summary = Table::read(&run.join("summary.csv"));
    let rows = summary.arm("hostile:kl:10");
    assert_eq!(rows.len(), 3, "its rows stay");
    rows[0]["status"].clone()
}

/// Else one bad plugin would cost a study of days, or its nonsense be taken for a result.
#[test]
fn a_misbehaving_strategy_ends_its_arm_alone() {
    for (mode, reason) in [
        ("panic-create", "told to panic in create"),
        ("fail-create", "told to fail in create"),
        ("panic-phase", "told to panic in phase_started"),
        ("panic", "told to panic in next_batch"),
        ("panic-observe", "told to panic in observe"),
        ("panic-save", "told to panic in save"),
        ("fail", "told to fail"),
        ("ids", "vocabulary"),
        ("lengths-differ", "240 tokens, not 225"),
        ("long-length", "padded length"),
        ("nan-weight", "NaN"),
        ("nan-coeff", "NaN"),
        ("many-rows", "rows"),
        ("huge-text", "long long"),
    ] {
        let lab = hostile_lab();
        let mode_is = format!("hostile.mode={mode}");
        let more = ["--set", &mode_is, "--set", "hostile.from_step=10"];
        let done = smoke(&lab, &more)
            .exits(3)
            .says(&["hostile:kl:10", "failed", reason]);
        assert!(!done.out.contains('\u{1b}'), "{mode}: escapes of a plugin");
        let run = lab.path("run");
        assert!(status_of_hostile(&run).starts_with("failed"), "{mode}");
        assert!(events_say(&run, r#""event":"arm_failed""#), "{mode}");
        others_are_whole(&run);
        // It is over, and stays so; the exit code does too.
        lab.forgetlab(&["resume", "run"])
            .exits(3)
            .says(&["run is finished", reason]);
    }
}

/// Else a strategy that takes the process down would make the run unusable for good.
#[test]
fn a_strategy_that_aborts_is_named_and_can_be_left_out() {
    let lab = hostile_lab();
    let abort = [
        "--set",
        "hostile.mode=abort",
        "--set",
        "hostile.from_step=12",
    ];
    let run = lab.path("run");
    let done = smoke(&lab, &abort);
    assert_eq!(done.code, None, "it takes the process with it: {done}");
    assert!(
        events_say(&run, "about to abort"),
        "its last words are kept"
    );
    let resume = ["resume", "run", "--plugin-dir", "plugins"];
    let again = lab.forgetlab(&resume);
    assert_eq!(again.code, None, "and again: {again}");
    again.says(&[
        "ended inside strategy `hostile`",
        "hostile-kl-10-seed0",
        "call next_batch",
        "--skip-arm",
    ]);
    lab.forgetlab(&["list"]).exits(0);
    lab.forgetlab(&["attach", "run"])
        .exits(1)
        .says(&["forgetlab resume"]);
    lab.forgetlab(&[&resume[..], &["--skip-arm", "hostil"]].concat())
        .exits(1)
        .says(&["no arm `hostil`", "hostile:kl:10"]);
    lab.forgetlab(&[&resume[..], &["--skip-arm", "hostile:kl:10"]].concat())
        .exits(3)
        .says(&["--skip-arm"]);
    assert!(status_of_hostile(&run).starts_with("skipped"));
    others_are_whole(&run);
}

/// Else a strategy that logs in a loop would fill the disk and drown what others say.
#[test]
fn a_strategy_that_raves_is_cut_short_and_goes_on() {
    let lab = hostile_lab();
    let done = smoke(&lab, &["--set", "hostile.mode=raves"]);
    done.exits(0)
        .says(&["line 99", "more log lines of this call"]);
    let run = lab.path("run");
    assert!(events_say(&run, "line 99") && !events_say(&run, "line 100"));
    assert!(events_say(&run, "wandering"));
}

/// Else a run that hangs would not say why, and could only be thrown away.
#[test]
fn a_strategy_that_never_returns_is_reported_and_can_be_left_out() {
    let lab = hostile_lab();
    let endless = [
        "--set",
        "hostile.mode=loop",
        "--set",
        "replay.call_deadline_seconds=0.2",
    ];
    let run = lab.path("run");
    let mut live = lab.start(&[SMOKE, HOSTILE, &endless].concat());
    wait_for("the report of a late call", || {
        events_say(&run, "has not returned")
    });
    // The first signal asks it to stop at the next step, which never comes; the second insists.
    live.signal(Signal::INT);
    thread::sleep(Duration::from_millis(200));
    assert!(live.runs(), "the first signal waits for the step");
    live.signal(Signal::INT);
    live.end()
        .exits(130)
        .says(&["strategy `hostile` of arm", "has been in next_batch"]);
    lab.forgetlab(&[
        "resume",
        "run",
        "--plugin-dir",
        "plugins",
        "--skip-arm",
        "hostile:kl:10",
    ])
    .exits(3)
    .says(&["ended inside strategy `hostile`", "call next_batch"]);
    assert!(status_of_hostile(&run).starts_with("skipped"));
    others_are_whole(&run);
}

/// Else a learning rate too high for one arm would end, or quietly spoil, the whole study.
#[test]
fn an_arm_whose_loss_runs_away_stops_and_keeps_its_last_checkpoint() {
    let lab = Lab::new();
    let arms = "none,self-generated:kl,true-data:kl";
    let hot = "arms.self-generated.lr=1e30";
    let done = lab
        .smoke(&["--arms", arms, "--set", hot, "--out", "run"])
        .exits(3)
        .says(&["self-generated:kl:10", "became", "at step 1", "lower"]);
    let run = lab.path("run");
    let summary = Table::read(&run.join("summary.csv"));
    let status = |arm: &str| summary.arm(arm)[0]["status"].clone();
    assert!(
        status("self-generated:kl:10").starts_with("failed"),
        "{done}"
    );
    assert_eq!(status("none"), "finished");
    let arms = fs::read_dir(run.join("arms")).expect("arms");
    let kept = arms
        .map(|arm| arm.expect("entry").path())
        .filter(|arm| arm.to_string_lossy().contains("self-generated"))
        .flat_map(|arm| fs::read_dir(arm.join("checkpoints")).expect("checkpoints"))
        .count();
    assert!(kept > 0, "its reference, at least, is kept");
    lab.smoke(&["--arms", "none,true-data:kl", "--out", "good"])
        .exits(0);
    let mut with = Table::read(&run.join("metrics.csv")).timeless();
    with.rows.retain(|row| row["strategy"] != "self-generated");
    let without = Table::read(&lab.path("good/metrics.csv")).timeless();
    assert_eq!(with, without);

    // In the shared phase it ends every arm of its seed.
    lab.smoke(&["--set", "optimizer.lr=1e30", "--out", "all"])
        .exits(3)
        .says(&["became", "lower"]);
}

/// Else a resumed run could quietly go on with another strategy, or lose its arms.
#[test]
fn a_strategy_that_is_gone_or_changed_is_told_on_resume() {
    let lab = hostile_lab();
    let slow = [
        "--set",
        "hostile.mode=loop",
        "--set",
        "hostile.from_step=14",
    ];
    let run = lab.path("run");
    let live = lab.start(&[SMOKE, HOSTILE, &slow].concat());
    wait_for("the third phase", || {
        let crumb = fs::read_to_string(run.join("plugin-call.json")).unwrap_or_default();
        crumb.contains("next_batch") && events_say(&run, r#""step":12"#)
    });
    live.kill();
    let before = fs::read(run.join("events.jsonl")).expect("events");
    lab.forgetlab(&["resume", "run"])
        .exits(2)
        .says(&["`hostile`", "--plugin-dir"]);
    let after = fs::read(run.join("events.jsonl")).expect("events");
    assert!(before == after, "nothing may be lost");
    let plugin = lab.path("plugins").join(library("forgetlab_hostile"));
    let mut bytes = fs::read(&plugin).expect("read");
    // Behind the last section nobody looks; the hash does.
    bytes.extend([0; 64]);
    fs::write(&plugin, bytes).expect("write");
    lab.forgetlab(&[
        "resume",
        "run",
        "--plugin-dir",
        "plugins",
        "--skip-arm",
        "hostile:kl:10",
    ])
    .exits(3)
    .says(&["not where the run was started", "hostile"]);
    others_are_whole(&run);
}

/// Else settings of a run would be lost between its command line and its `config.toml`.
#[test]
fn settings_of_a_strategy_reach_it_and_its_arms_stay_apart() {
    let lab = hostile_lab();
    smoke(&lab, &["--set", "hostile.mode=own-objectives"]).exits(0);
    let config = fs::read_to_string(lab.path("run/config.toml")).expect("config.toml");
    assert!(config.contains("mode = \"own-objectives\""), "{config}");
    assert!(config.contains("from_step = 0"), "defaults are filled in");
    others_are_whole(&lab.path("run"));
    let figures = Figures::of(&lab.path("run"));
    lab.forgetlab(&[
        "run",
        "run/config.toml",
        "--plugin-dir",
        "plugins",
        "--out",
        "again",
    ])
    .exits(0);
    Figures::of(&lab.path("again")).must_equal(&figures, "its config.toml again");
}
