//! Errors of the system that pass: a disk that is full for a moment, a process that may open no more files. They end
//! a run with the reason, never an arm in the name of its strategy, and the run goes on as if nothing had happened.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use forgetlab_tests::{Done, Figures, Lab, SMOKE, Table, events_say, root, run};

/// Two arms that replay, and what they replay.
const ARMS: &[&str] = &[
    "--arms",
    "none,true-data:kl",
    "--set",
    "training.samples=1",
    "--no-cache",
    "--out",
    "run",
];

/// A library that makes one write of a process fail.
fn fails_once(lab: &Lab) -> PathBuf {
    let library = lab.path("fails_once.so");
    let source = root().join("tests/hostile/fails_once.c");
    let mut cc = Command::new("cc");
    cc.args(["-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o"]);
    run(cc.arg(&library).arg(source).arg("-ldl"));
    library
}

fn replay(run: &Path) -> Table {
    Table::read(&run.join("replay.csv")).timeless()
}

/// Else a row would be missing, or another stand in its place, after an error that nobody remembers.
#[test]
fn an_event_that_cannot_be_written_ends_the_run_and_is_there_after_a_resume() {
    let whole = Lab::new();
    whole.smoke(ARMS).exits(0);
    let whole = whole.path("run");
    for event in [
        "replay_seen",
        "evaluated",
        "sampled",
        "checkpoint_saved",
        "arm_finished",
    ] {
        let lab = Lab::new();
        let mut command = lab.command(&[SMOKE, ARMS].concat());
        command.env("LD_PRELOAD", fails_once(&lab));
        command.env("FAILS_AT", format!(r#""event":"{event}","arm":1"#));
        let failed = Done::from(command.output().expect("start"));
        let failed = failed
            .exits(1)
            .says(&["events.jsonl", "No space left on device"]);
        assert!(
            failed.err.contains("forgetlab resume run"),
            "{event}: {failed}"
        );
        let run = lab.path("run");
        assert!(!events_say(&run, "arm_failed"), "{event}: {failed}");
        lab.forgetlab(&["resume", "run"]).exits(0);
        Figures::of(&run).must_equal(&Figures::of(&whole), event);
        assert_eq!(replay(&run), replay(&whole), "{event}");
    }
}

/// Else the limit of a shell would be told as a fault of a strategy, and its arms be lost for good.
#[test]
fn a_lack_of_descriptors_fails_no_arm() {
    let many = [
        "--set",
        "seeds=[0,1,2,3,4,5,6,7]",
        "--set",
        "phases.steps=2",
    ];
    let lab = Lab::new();
    lab.after("ulimit -n 24", &[SMOKE, ARMS, &many].concat())
        .exits(0);
    let whole = Figures::of(&lab.path("run"));
    let mut refused = 0;
    for files in 5..14 {
        let lab = Lab::new();
        let done = lab.after(
            &format!("ulimit -n {files}"),
            &[SMOKE, ARMS, &many].concat(),
        );
        let run = lab.path("run");
        assert!(!events_say(&run, "arm_failed"), "{files} files: {done}");
        if done.code == Some(0) {
            continue;
        }
        refused += 1;
        assert!(!done.err.contains("panicked"), "{files} files: {done}");
        let done = match run.join("config.toml").exists() {
            true => lab.forgetlab(&["resume", "run"]),
            false => lab.smoke(&[ARMS, &many].concat()),
        };
        assert_eq!(done.code, Some(0), "{files} files: {done}");
        Figures::of(&run).must_equal(&whole, &format!("{files} files"));
    }
    assert!(refused > 2, "only {refused} limits were too low");
}

/// Else a limit on the size of files would end a run by a signal, without a word.
#[test]
fn a_limit_on_the_size_of_files_is_told() {
    let lab = Lab::new();
    let done = lab.after("ulimit -f 8", &[SMOKE, ARMS].concat());
    done.exits(1)
        .says(&["File too large", "ulimit -f", "forgetlab resume run"]);
    assert!(
        !fs::read(lab.path("run/events.jsonl"))
            .expect("events")
            .is_empty()
    );
    lab.forgetlab(&["resume", "run"]).exits(0);
}
