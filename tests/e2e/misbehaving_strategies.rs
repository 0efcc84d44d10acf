//! A strategy that misbehaves, or numbers that run away, cost their own arm and nothing else.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use forgetlab_tests::{
    Done, Figures, Lab, SMOKE, Table, built, compile_c, events_say, library, root, wait_for,
};
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

/// Else a run with room for one arm would be finished, for good, with arms that never began.
#[test]
fn where_an_arm_that_cannot_begin_was_the_only_one_in_memory_the_next_one_begins() {
    let lab = hostile_lab();
    let one = "training.concurrent_arms=1";
    let more = ["--set", "hostile.mode=fail-create", "--set", one];
    smoke(&lab, &more).exits(3);
    let run = lab.path("run");
    assert!(status_of_hostile(&run).starts_with("failed"));
    others_are_whole(&run);
}

fn status_of_hostile(run: &Path) -> String {
    let summary = Table::read(&run.join("summary.csv"));
    // Its name tells its settings, too.
    let of = |row: &&BTreeMap<String, String>| row["arm"].starts_with("hostile:kl:10");
    let rows: Vec<_> = summary.rows.iter().filter(of).collect();
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
    let inside = [
        "ended (signal: 6 (SIGABRT))",
        "inside strategy `hostile`",
        "hostile-kl-10+from_step=12+mode=abort-seed0",
        "call next_batch",
        "--skip-arm",
    ];
    smoke(&lab, &abort).exits(1).says(&inside);
    assert!(
        events_say(&run, "about to abort"),
        "its last words are kept"
    );
    let resume = ["resume", "run", "--plugin-dir", "plugins"];
    let again = lab.forgetlab(&resume).exits(1).says(&inside);
    assert!(
        again.out.contains("ended inside strategy `hostile`"),
        "{again}"
    );
    lab.forgetlab(&["list"]).exits(0);
    lab.forgetlab(&["attach", "run"]).exits(1).says(&[
        "its worker ended inside strategy `hostile`",
        "forgetlab resume",
        "--skip-arm",
    ]);
    lab.forgetlab(&[&resume[..], &["--skip-arm", "hostil"]].concat())
        .exits(1)
        .says(&["no arm `hostil`", "hostile:kl:10"]);
    lab.forgetlab(&[&resume[..], &["--skip-arm", "hostile:kl:10"]].concat())
        .exits(3)
        .says(&["--skip-arm"]);
    assert!(status_of_hostile(&run).starts_with("skipped"));
    others_are_whole(&run);
}

/// Else a study that a strategy has cut short would be told as one that is done, in whichever way it does that.
#[test]
fn a_strategy_that_ends_the_process_is_named_and_never_taken_for_success() {
    for (place, by, code) in [
        ("constructor", "_exit", "0"),
        ("constructor", "exit", "0"),
        ("create", "exit", "130"),
        ("phase_started", "_exit", "0"),
        ("next_batch", "exit", "0"),
        ("next_batch", "_exit", "3"),
        ("observe", "exit", "1"),
        ("save", "exit", "2"),
        ("destroy", "exit", "0"),
    ] {
        let mut lab = Lab::new();
        fs::create_dir(lab.path("plugins")).expect("folder");
        let source = root().join("tests/hostile/ends.c");
        compile_c(&source, &lab.path("plugins").join(library("ends")), None);
        lab.set("ENDS_IN", place);
        lab.set("ENDS_BY", by);
        lab.set("ENDS_WITH", code);
        let why = format!("{place} {by} {code}");
        let done = smoke(&lab, &[]);
        if place == "constructor" {
            // A process of its own looked at it: there is no such strategy, and why.
            assert!(!lab.path("run").exists(), "{why}: {done}");
            done.exits(2)
                .says(&[&library("ends"), "ends the process that loads it"]);
            continue;
        }
        assert_eq!(done.code, Some(1), "{why}: {done}");
        done.says(&[
            &format!("error: the worker ended (exit status: {code}) before the run was over"),
            "inside strategy `hostile`, arm hostile-kl-10-seed0",
            &format!("call {place}"),
            "forgetlab resume run --plugin-dir plugins --skip-arm",
        ]);
        let run = lab.path("run");
        let resume = ["resume", "run", "--plugin-dir", "plugins"];
        if place == "destroy" {
            // Its arm is over, and another time goes well.
            lab.set("ENDS_IN", "nothing");
            lab.forgetlab(&resume).exits(0);
        } else {
            let skip = ["--skip-arm", "hostile:kl:10"];
            lab.forgetlab(&[&resume[..], &skip].concat()).exits(3);
        }
        others_are_whole(&run);
    }
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

/// Settings of a strategy that hangs from step 21 on, in the second turn of the third phase, where no checkpoint is
/// due; and a short deadline.
const HANGS: &[&str] = &[
    "--set",
    "hostile.mode=loop",
    "--set",
    "hostile.from_step=21",
    "--set",
    "training.checkpoint_seconds=1e300",
    "--set",
    "replay.call_deadline_seconds=0.2",
];

fn has_not_returned(run: &Path) {
    wait_for("the report of a late call", || {
        events_say(run, "has not returned")
    });
}

/// Goes on without the arm whose strategy hung.
fn others_go_on(lab: &Lab) {
    let run = lab.path("run");
    let resume = ["resume", "run", "--plugin-dir", "plugins"];
    let done = lab.forgetlab(&resume).exits(3);
    assert!(!done.err.contains("ended inside"), "it was told: {done}");
    assert!(!events_say(&run, r#""event":"rewound""#), "no step is lost");
    assert!(status_of_hostile(&run).starts_with("failed"));
    others_are_whole(&run);
}

/// Else a run that hangs would not say why, could only be killed, and the steps of its other arms be lost.
#[test]
fn one_request_to_stop_ends_a_run_whose_strategy_never_returns() {
    for how in ["SIGTERM", "SIGINT", "forgetlab stop"] {
        let lab = hostile_lab();
        let run = lab.path("run");
        let mut live = lab.start(&[SMOKE, HOSTILE, HANGS].concat());
        has_not_returned(&run);
        assert!(live.runs(), "nobody asked it to stop");
        match how {
            "SIGTERM" => live.signal(Signal::TERM),
            "SIGINT" => live.signal(Signal::INT),
            _ => drop(lab.forgetlab(&["stop", "run"]).exits(0).says(&["stopped"])),
        }
        live.end().exits(130).says(&[
            "strategy `hostile` of arm",
            "has been in next_batch",
            &format!("interrupted ({how}"),
            "forgetlab resume",
        ]);
        assert!(events_say(
            &run,
            "did not return from next_batch within 0.2 s"
        ));
        assert!(events_say(&run, r#""event":"interrupted""#));
        // Written at its end: the arm's rows, and the last step of the one that waited for its turn.
        assert!(status_of_hostile(&run).starts_with("failed"));
        assert!(events_say(
            &run,
            r#""event":"checkpoint_saved","arm":2,"step":20"#
        ));
        others_go_on(&lab);
    }
}

/// Else the end of one hanging strategy would hang in another.
#[test]
fn strategies_that_hang_when_they_are_to_be_saved_do_not_hold_up_the_end() {
    let lab = hostile_lab();
    let run = lab.path("run");
    let more = [
        "--arms",
        "hostile:kl,hostile:ntp,true-data:kl",
        "--set",
        "hostile.mode=loop-save",
        "--set",
        "training.checkpoint_seconds=1e300",
        "--set",
        "replay.call_deadline_seconds=0.2",
        "--set",
        "phases.steps=2000",
        "--set",
        "training.eval_every=10",
    ];
    let out = ["--plugin-dir", "plugins", "--out", "run"];
    let mut live = lab.start(&[SMOKE, &out, &more].concat());
    wait_for("a turn of each arm", || {
        events_say(&run, r#""event":"evaluated","arm":2,"phase":1,"step":2010"#)
    });
    live.signal(Signal::TERM);
    live.end().exits(130);
    let says = |what: &str| events_say(&run, what);
    assert!(says(
        "did not return from save within 0.2 s (replay.call_deadline_seconds)\","
    ));
    assert!(says("seconds); the arm resumes from its last checkpoint"));
    assert!(says(r#""event":"checkpoint_saved","arm":2"#));
    assert!(says(r#""event":"interrupted""#));
}

/// Else a strategy that takes its time but gives up when told to would lose its arm.
#[test]
fn a_late_strategy_that_heeds_the_stop_keeps_its_arm() {
    let lab = hostile_lab();
    let run = lab.path("run");
    let waits = ["--set", "hostile.mode=waits"];
    let mut live = lab.start(&[SMOKE, HOSTILE, HANGS, &waits].concat());
    has_not_returned(&run);
    live.signal(Signal::TERM);
    live.end().exits(130).says(&["gave up the call under way"]);
    assert!(!events_say(&run, "arm_failed"));
    assert!(status_of_hostile(&run).starts_with("interrupted"));
}

/// Else nobody could end a run at once whose strategy takes long.
#[test]
fn a_second_ctrl_c_ends_a_run_at_once() {
    let lab = hostile_lab();
    let run = lab.path("run");
    let mut live = lab.start(&[SMOKE, HOSTILE, &HANGS[..6]].concat());
    let in_call = || {
        thread::sleep(Duration::from_millis(20));
        let crumb = fs::read_to_string(run.join("plugin-call.json")).unwrap_or_default();
        crumb.contains("\"next_batch\"")
    };
    // The calls before it take no time.
    wait_for("the hanging call", || {
        events_say(&run, r#""arm":0,"step":24"#) && (0..5).all(|_| in_call())
    });
    // The first asks it to stop at the next step, which never comes, nor is the call late yet.
    live.signal(Signal::INT);
    thread::sleep(Duration::from_millis(200));
    assert!(live.runs(), "the first signal waits for the step");
    live.signal(Signal::INT);
    live.end().exits(130);
    let skip = ["--skip-arm", "hostile:kl:10"];
    let resume = ["resume", "run", "--plugin-dir", "plugins"];
    lab.forgetlab(&[&resume[..], &skip].concat())
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
        status("self-generated:kl:10+lr=1e30").starts_with("failed"),
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
