//! Runs that wait in line until their device is free.

use std::fs;
use std::path::{Path, PathBuf};

use forgetlab_study::run::is_worked_on;
use forgetlab_tests::{Lab, wait_for};
use rustix::process::{Signal, kill_process};
use serde_json::Value;

use crate::processes::Background;

/// Starts a run that goes on until it is stopped, on the CPU; its worker and its name.
fn busy(lab: &Lab) -> (Background, String) {
    let endless = [
        "--arms",
        "none",
        "--set",
        "phases.steps=1000000",
        "--detach",
    ];
    lab.smoke(&endless).exits(0);
    let run = lab.runs().remove(0);
    let name = name(&run).to_owned();
    (Background::of(run), name)
}

/// Queues a short run; its folder.
fn queued(lab: &Lab, more: &[&str]) -> PathBuf {
    let args = [&["--arms", "none", "--queue"], more].concat();
    let told = lab.smoke(&args).exits(0).says(&["waits for cpu, place "]);
    PathBuf::from(told.out.trim_end().lines().last().expect("a path"))
}

fn name(run: &Path) -> &str {
    run.file_name()
        .and_then(|name| name.to_str())
        .expect("name")
}

fn objects(text: &str) -> Vec<Value> {
    let lines = text.lines().map(serde_json::from_str);
    lines.collect::<Result<_, _>>().expect("objects")
}

/// Names of those that wait, in order.
fn line(lab: &Lab) -> Vec<String> {
    let line = objects(&lab.forgetlab(&["queue", "--json"]).exits(0).out);
    for (place, waiting) in line.iter().enumerate() {
        assert_eq!(waiting["device"], "cpu");
        assert_eq!(waiting["place"], place + 1);
        assert!(waiting["since"].as_f64() > Some(1.7e9));
    }
    let names = line.iter().map(|waiting| waiting["run"].as_str());
    names.map(|name| name.expect("name").to_owned()).collect()
}

/// What the list says of a run.
fn listed(lab: &Lab, run: &Path) -> Value {
    let all = objects(&lab.forgetlab(&["list", "--json"]).exits(0).out);
    let mut all = all.into_iter();
    all.find(|line| line["name"] == name(run)).expect("listed")
}

fn is_finished(lab: &Lab, run: &Path) -> bool {
    listed(lab, run)["status"] == "finished"
}

/// Times of the first and the last event of a run.
fn times(run: &Path) -> (f64, f64) {
    let events = fs::read_to_string(run.join("events.jsonl")).expect("events");
    let events = objects(&events);
    let time = |event: Option<&Value>| event.and_then(|event| event["time"].as_f64());
    (
        time(events.first()).expect("first"),
        time(events.last()).expect("last"),
    )
}

/// A night of work is put in line in the evening: each run must begin, in order, and never two at once.
#[test]
fn runs_in_line_work_one_after_the_other() {
    let lab = Lab::new();
    lab.forgetlab(&["queue"]).exits(0).says(&["nobody waits"]);
    let (worker, busy) = busy(&lab);
    let runs: Vec<PathBuf> = (0..3).map(|_| queued(&lab, &[])).collect();
    let names: Vec<&str> = runs.iter().map(|run| name(run)).collect();
    assert_eq!(line(&lab), names);
    let second = listed(&lab, &runs[1]);
    assert_eq!(
        (&second["status"], &second["place"]),
        (&"queued".into(), &2.into())
    );
    lab.forgetlab(&["list"])
        .exits(0)
        .says(&["queued 1", "queued 3"]);
    // Whoever wants to begin with it at once is told what is in the way.
    lab.forgetlab(&["resume", names[1]])
        .exits(1)
        .says(&["place 2 in line", "forgetlab stop"]);
    let watcher = lab.start(&["attach", names[0]]);
    // Let it say what it waits for.
    std::thread::sleep(std::time::Duration::from_millis(500));
    lab.forgetlab(&["stop", &busy]).exits(0);
    drop(worker);
    for run in &runs {
        wait_for("a finished run", || is_finished(&lab, run));
    }
    watcher
        .end()
        .exits(0)
        .says(&[&format!("waits for cpu, place 1 in line, behind {busy}")]);
    let times: Vec<(f64, f64)> = runs.iter().map(|run| times(run)).collect();
    assert!(
        times.windows(2).all(|pair| pair[0].1 < pair[1].0),
        "{times:?}"
    );
    assert!(line(&lab).is_empty());
    // One that finds the device free waits for nobody; a worker holds it until it is gone.
    wait_for("a free device", || !is_worked_on(&runs[2]));
    let free = lab.smoke(&["--arms", "none", "--queue"]).exits(0);
    free.says(&["running in the background"]);
}

/// A machine that was started again, or somebody who thinks better of it, must neither lose a run nor block the line.
#[test]
fn who_is_killed_or_stopped_in_line_leaves_it_and_can_come_back() {
    let lab = Lab::new();
    let (worker, busy) = busy(&lab);
    let runs: Vec<PathBuf> = (0..4).map(|_| queued(&lab, &[])).collect();
    let [killed, stopped, third, removed] = &runs[..] else {
        panic!("{runs:?}");
    };
    let pid = Background::of(killed.clone()).pid().expect("it waits");
    kill_process(pid, Signal::KILL).expect("signal");
    wait_for("a shorter line", || line(&lab).len() == 3);
    let crashed = listed(&lab, killed);
    assert_eq!(crashed["status"], "crashed");
    let why = crashed["why"].as_str().expect("why");
    assert!(why.contains("waited in the queue for cpu"), "{why}");
    lab.forgetlab(&["attach", name(killed)])
        .exits(1)
        .says(&["waited in the queue for cpu", "forgetlab resume"]);
    lab.forgetlab(&["stop", name(stopped)])
        .exits(0)
        .says(&["to leave the queue", "forgetlab resume"]);
    assert_eq!(listed(&lab, stopped)["status"], "interrupted");
    assert_eq!(line(&lab), [name(third), name(removed)]);
    // Back, at the end of the line.
    lab.forgetlab(&["resume", name(stopped), "--queue"])
        .exits(0)
        .says(&["place 3 in line"]);
    fs::remove_dir_all(removed).expect("remove");
    let names = [name(third), name(stopped)];
    wait_for("a line without it", || line(&lab) == names);
    lab.forgetlab(&["stop", &busy]).exits(0);
    drop(worker);
    for run in [third, stopped] {
        wait_for("a finished run", || is_finished(&lab, run));
    }
    assert!(times(third).1 < times(stopped).1);
    assert!(!removed.exists());
    lab.forgetlab(&["resume", name(killed)]).exits(0);
    assert!(is_finished(&lab, killed));
}

/// A sweep is a night's work, too.
#[test]
fn a_sweep_waits_as_one_thing() {
    let lab = Lab::new();
    let (worker, busy) = busy(&lab);
    let args = "run pretrain-length --preset smoke --arms none --workers 1 --out sweep --queue";
    let args: Vec<&str> = args.split(' ').collect();
    lab.forgetlab(&args)
        .exits(0)
        .says(&["waits for cpu, place 1 in line"]);
    let behind = queued(&lab, &[]);
    assert_eq!(line(&lab), ["sweep", name(&behind)]);
    assert!(!lab.path("sweep/points").exists());
    lab.forgetlab(&["stop", "sweep"])
        .exits(0)
        .says(&["forgetlab resume"]);
    assert_eq!(line(&lab), [name(&behind)]);
    lab.forgetlab(&["resume", "sweep", "--workers", "1", "--queue"])
        .exits(0)
        .says(&["place 2 in line"]);
    lab.forgetlab(&["stop", &busy]).exits(0);
    drop(worker);
    wait_for("the end of the sweep", || {
        let line = lab.forgetlab(&["attach", "sweep"]).out;
        line.contains("100%") && lab.path("sweep/points").exists()
    });
    assert!(is_finished(&lab, &behind));
    let points = fs::read_dir(lab.path("sweep/points")).expect("points");
    let points = points.map(|point| times(&point.expect("point").path()).0);
    let (begun, before) = (points.fold(f64::INFINITY, f64::min), times(&behind).1);
    assert!(before < begun, "{before} {begun}");
}
