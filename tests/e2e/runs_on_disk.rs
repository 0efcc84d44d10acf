//! Runs in the results folder: listed, told apart, refused without a trace.

use std::fs;
use std::path::{Path, PathBuf};

use forgetlab_tests::{Lab, SMOKE, events, wait_for};

use crate::broken_files::limited;

pub fn name(run: &Path) -> &str {
    run.file_name()
        .and_then(|name| name.to_str())
        .expect("name")
}

/// The run that is new in the lab.
pub fn newest(lab: &Lab, known: &mut Vec<PathBuf>) -> PathBuf {
    let new = lab.runs().into_iter().find(|run| !known.contains(run));
    let new = new.expect("a new run");
    known.push(new.clone());
    new
}

/// Else a list of ten runs would not tell which is which, and one spoilt folder would hide the other nine.
#[test]
fn the_list_tells_runs_apart_and_survives_unreadable_ones() {
    let lab = Lab::new();
    let mut known = Vec::new();
    lab.smoke(&[
        "--arms", "none", "--seed", "0", "--seed", "1", "--seed", "2",
    ])
    .exits(0);
    let first = newest(&lab, &mut known);
    lab.smoke(&["--arms", "none", "--set", "optimizer.lr=1e-4"])
        .exits(0);
    let second = newest(&lab, &mut known);
    // By when it was started, whatever it is called.
    let renamed = lab.path("results/runs/0-first");
    fs::rename(&second, &renamed).expect("rename");
    let done = lab.forgetlab(&["list"]).exits(0);
    let lines: Vec<&str> = done.out.lines().collect();
    assert!(lines[0].starts_with("run "), "{done}");
    let place = |name: &str| lines.iter().position(|line| line.starts_with(name));
    assert!(place(name(&first)) < place("0-first"), "{done}");
    let told = done.out.split("0-first").collect::<Vec<_>>();
    assert!(
        told[0].contains("smoke") && told[0].contains("0-2"),
        "{done}"
    );
    assert!(
        told[0].contains("lr=0.003") && told[1].contains("lr=1e-4"),
        "{done}"
    );
    assert!(
        lines.iter().all(|line| line.chars().count() <= 80),
        "{done}"
    );

    lab.smoke(&["--arms", "none"]).exits(0);
    let garbage = newest(&lab, &mut vec![first.clone(), renamed.clone()]);
    fs::write(garbage.join("events.jsonl"), "nothing\nof the kind\n").expect("write");
    let torn = lab.path("results/runs/torn");
    fs::create_dir(&torn).expect("folder");
    fs::write(torn.join("config.toml"), "experiment = ").expect("write");
    let folder = lab.path("results/runs/folder");
    fs::create_dir_all(folder.join("events.jsonl")).expect("folder");
    fs::copy(first.join("config.toml"), folder.join("config.toml")).expect("copy");
    let done = lab.forgetlab(&["list"]).exits(1);
    for run in ["0-first", name(&first)] {
        let line = done
            .out
            .lines()
            .find(|line| line.starts_with(run))
            .expect("listed");
        assert!(line.contains("finished"), "{done}");
    }
    for (run, why) in [
        (name(&garbage), "line 1: it is not an event"),
        ("torn", "line 1"),
        ("folder", "cannot read"),
    ] {
        let line = done
            .out
            .lines()
            .find(|line| line.starts_with(run))
            .expect("listed");
        assert!(
            line.contains("unreadable: ") && line.contains(why),
            "{done}"
        );
    }
    let two = lab
        .forgetlab(&["compare", "0-first", name(&garbage), name(&first)])
        .exits(1);
    let two = two.says(&[name(&garbage), "unreadable and left out", "0-first"]);
    assert!(
        two.out.contains(name(&first)) && !two.out.contains(name(&garbage)),
        "{two}"
    );
    lab.forgetlab(&["compare", name(&garbage)])
        .exits(1)
        .says(&["none of these runs"]);
}

/// Else every attempt that the disk, the machine or a strategy refused would stay in the list for ever.
#[test]
fn a_refused_run_leaves_no_folder() {
    // Its first event is larger than a file may be; what comes before is not.
    let seeds: Vec<String> = (0..100).map(|seed| seed.to_string()).collect();
    let seeds = format!("seeds=[{}]", seeds.join(","));
    let many = [SMOKE, &["--set", &seeds]].concat();
    for more in [&[][..], &["--detach"]] {
        let lab = Lab::new();
        let done = limited(&lab, 8, &[&many, more].concat());
        assert_ne!(done.code, Some(0), "{done}");
        assert!(
            done.err.contains("events.jsonl") && !done.err.contains("forgetlab resume /"),
            "{done}"
        );
        assert!(!lab.path("results").exists(), "{more:?}");
        let done = limited(&lab, 8, &[&many, more, &["--out", "a/b/run"]].concat());
        assert_ne!(done.code, Some(0), "{done}");
        assert!(!lab.path("a").exists(), "{more:?}");

        // A folder that was there stays, with what was in it.
        fs::create_dir_all(lab.path("mine/worker.lock")).expect("folder");
        lab.smoke(&[more, &["--out", "mine"]].concat())
            .exits(1)
            .says(&["worker.lock"]);
        let left = fs::read_dir(lab.path("mine")).expect("mine");
        let left: Vec<_> = left
            .map(|entry| entry.expect("entry").file_name())
            .collect();
        assert_eq!(left, ["worker.lock"], "{more:?}");
    }
    // One that is there already is not taken away.
    let lab = Lab::new();
    lab.smoke(&["--arms", "none", "--out", "run"]).exits(0);
    lab.smoke(&["--arms", "none", "--seed", "9", "--out", "run"])
        .exits(1);
    lab.forgetlab(&["resume", "run"]).exits(0);
}

/// Else two runs would halve each other's speed, or fill the memory, and nobody would know why.
#[test]
fn another_run_on_the_device_is_told_with_what_it_takes() {
    let lab = Lab::new();
    let endless = [
        "--set",
        "phases.steps=1000000",
        "--detach",
        "--out",
        "elsewhere",
    ];
    lab.smoke(&["--arms", "none"]).exits(0);
    lab.smoke(&endless).exits(0);
    wait_for("the run to go on", || events(&lab.path("elsewhere")) > 10);
    let told = lab.smoke(&["--arms", "none", "--out", "second"]).exits(0);
    let line = told
        .out
        .lines()
        .find(|line| line.contains("is live on cpu"));
    let line = line.unwrap_or_else(|| panic!("{told}"));
    for text in [
        "warning: another run is live on cpu: ",
        "elsewhere (about ",
        "of memory, 1 thread); this one takes about ",
        "both will be slower",
    ] {
        assert!(line.contains(text), "{line}");
    }
    lab.smoke(&["--arms", "none", "--out", "behind", "--detach"])
        .exits(0)
        .says(&["another run is live on cpu: "]);
    lab.forgetlab(&["attach", "behind"]).exits(0);
    lab.forgetlab(&["stop", "elsewhere"]).exits(0);
    let alone = lab.smoke(&["--arms", "none", "--out", "third"]).exits(0);
    assert!(!alone.out.contains("is live on"), "{alone}");
}
