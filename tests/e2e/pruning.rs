//! Room is made with what nobody needs, and with nothing else.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use forgetlab_tests::{Lab, SMOKE, events, wait_for};
use rustix::process::Signal;

use crate::runs_on_disk::{name, newest};

/// Runs of every kind, by what they are.
struct Zoo {
    finished: PathBuf,
    all_failed: PathBuf,
    one_failed: PathBuf,
    never_begun: PathBuf,
    killed: PathBuf,
    foreign: PathBuf,
}

fn zoo(lab: &Lab) -> Zoo {
    let mut known = Vec::new();
    lab.smoke(&["--arms", "none"]).exits(0);
    let finished = newest(lab, &mut known);
    lab.smoke(&["--arms", "none", "--set", "optimizer.lr=1e30"])
        .exits(3);
    let all_failed = newest(lab, &mut known);
    let hot = [
        "--arms",
        "none,true-data:kl",
        "--set",
        "arms.true-data.lr=1e30",
    ];
    lab.smoke(&hot).exits(3);
    let one_failed = newest(lab, &mut known);
    let slow = [
        "--set",
        "training.eval_every=1000000",
        "--set",
        "phases.steps=1000000",
    ];
    let live = lab.start(&[SMOKE, &slow, &["--no-cache"]].concat());
    wait_for("a run to begin", || lab.runs().len() == 4);
    let killed = newest(lab, &mut known);
    wait_for("its first steps", || events(&killed) > 6);
    live.kill();
    let make = |name: &str, config: &str| {
        let folder = lab.path("results/runs").join(name);
        fs::create_dir(&folder).expect("folder");
        let path = folder.join("config.toml");
        fs::write(&path, config).expect("write");
        let file = fs::File::options().append(true).open(path).expect("open");
        let hour = Duration::from_secs(3600);
        file.set_modified(SystemTime::now() - hour).expect("time");
        folder
    };
    let config = fs::read_to_string(finished.join("config.toml")).expect("config.toml");
    Zoo {
        never_begun: make("never-begun", &config),
        foreign: make("foreign", "[server]\nport = 80\n"),
        finished,
        all_failed,
        one_failed,
        killed,
    }
}

/// Else room would be made with somebody's results, or with what is no run at all.
#[test]
fn pruning_removes_what_it_showed_and_nothing_else() {
    let lab = Lab::new();
    let zoo = zoo(&lab);
    fs::create_dir(lab.path("results/runs/notes")).expect("folder");
    let endless = ["--set", "phases.steps=1000000", "--detach"];
    lab.smoke(&endless).exits(0);
    let before = lab.runs();

    // Nobody to ask: nothing goes.
    let shown = lab.forgetlab(&["runs", "prune"]).exits(2);
    let shown = shown.says(&["there is no terminal to ask on", "--yes"]);
    assert_eq!(lab.runs(), before, "{shown}");
    for (run, why) in [
        (&zoo.all_failed, "every arm failed"),
        (&zoo.never_begun, "never begun"),
        (&zoo.killed, "crashed before anything was measured"),
    ] {
        let line = shown.out.lines().find(|line| line.contains(name(run)));
        let line = line.unwrap_or_else(|| panic!("{shown}"));
        assert!(line.contains(why) && line.contains("B "), "{shown}");
    }
    assert!(shown.out.contains("3 runs, "), "{shown}");
    let old = lab
        .forgetlab(&["runs", "prune", "--older-than", "1", "--yes"])
        .exits(0);
    old.says(&["nothing to remove"]);
    assert_eq!(lab.runs(), before);

    lab.forgetlab(&["runs", "prune", "--yes"])
        .exits(0)
        .says(&["removed 3 runs, "]);
    let gone = [&zoo.all_failed, &zoo.never_begun, &zoo.killed];
    for run in &before {
        assert_eq!(run.exists(), !gone.contains(&run), "{}", run.display());
    }
    lab.forgetlab(&["runs", "prune", "--failed", "--yes"])
        .exits(0)
        .says(&["removed 1 run, "]);
    assert!(!zoo.one_failed.exists() && zoo.finished.exists());
    // Neither what is live, nor what is no run, not even by name.
    let live = lab
        .runs()
        .into_iter()
        .find(|run| *run != zoo.finished && *run != zoo.foreign);
    let live = live
        .filter(|run| name(run) != "notes")
        .expect("the live run");
    for run in [&live, &zoo.foreign] {
        lab.forgetlab(&["runs", "prune", name(run), "--yes"])
            .exits(2)
            .says(&["stays"]);
        assert!(run.exists());
    }
    let stays = lab.forgetlab(&["runs", "prune", "notes", "--yes"]);
    assert_ne!(stays.code, Some(0), "{stays}");
    lab.forgetlab(&["stop", name(&live)]).exits(0);
}

/// Else figures would go with the weights, or the weights with the figures.
#[test]
fn checkpoints_go_alone_and_named_runs_go_whole() {
    let lab = Lab::new();
    lab.smoke(&["--arms", "none", "--out", "results/runs/one"])
        .exits(0);
    let steps = ["--set", "phases.steps=400", "--out", "results/runs/two"];
    let mut live = lab.start(&[SMOKE, &["--arms", "none"], &steps[..]].concat());
    let two = lab.path("results/runs/two");
    wait_for("the second phase", || events(&two) > 60 || !live.runs());
    live.signal(Signal::INT);
    live.end().exits(130);
    let summary = fs::read(lab.path("results/runs/one/summary.csv")).expect("summary.csv");
    let checkpoints = |run: &str| {
        let arms = fs::read_dir(lab.path("results/runs").join(run).join("arms")).expect("arms");
        arms.filter(|arm| {
            arm.as_ref()
                .expect("arm")
                .path()
                .join("checkpoints")
                .exists()
        })
        .count()
    };
    let only = ["runs", "prune", "--checkpoints-only", "--yes"];
    lab.forgetlab(&[&only[..], &["two"]].concat())
        .exits(2)
        .says(&["can still be resumed"]);
    lab.forgetlab(&only)
        .exits(0)
        .says(&["removed the checkpoints of 1 run, "]);
    assert_eq!((checkpoints("one"), checkpoints("two")), (0, 1));
    lab.forgetlab(&["compare", "one"]).exits(0);
    lab.forgetlab(&["resume", "one"])
        .exits(0)
        .says(&["is finished"]);
    assert!(fs::read(lab.path("results/runs/one/summary.csv")).expect("summary.csv") == summary);
    lab.forgetlab(&only).exits(0).says(&["nothing to remove"]);

    fs::write(lab.path("results/runs/one/notes.md"), "mine").expect("write");
    let shown = lab.forgetlab(&["runs", "prune", "one"]).exits(2);
    shown.says(&["finished; also holds notes.md"]);
    lab.forgetlab(&["runs", "prune", "one", "--yes"])
        .exits(0)
        .says(&["removed 1 run, "]);
    assert!(!lab.path("results/runs/one").exists() && two.exists());
    lab.forgetlab(&["resume", "two"]).exits(0);
}
