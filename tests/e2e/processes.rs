//! Runs in the background: watched, stopped and resumed by other processes, and by two at once.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use forgetlab_tests::{Figures, Lab, Live, SMOKE, binary, events, events_say, wait_for};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// A worker in the background, killed when the test is over, whatever became of it.
pub struct Background(PathBuf);

impl Background {
    pub fn of(run: PathBuf) -> Self {
        Self(run)
    }

    /// Its process, while it is that of a lab.
    pub fn pid(&self) -> Option<Pid> {
        let pid = fs::read_to_string(self.0.join("worker.lock")).ok()?;
        let pid = pid.trim().parse().ok()?;
        let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
        command.contains("forgetlab").then_some(())?;
        Pid::from_raw(pid)
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.pid().expect("it runs"), signal).expect("signal");
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(pid) = self.pid() {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// Goes on until it is stopped.
const ENDLESS: &[&str] = &[
    "--arms",
    "none,true-data:kl",
    "--set",
    "phases.steps=1000000",
    "--set",
    "training.eval_every=50",
    "--out",
    "run",
];

/// Starts an endless run in the background.
fn background(lab: &Lab) -> Background {
    let background = Background::of(lab.path("run"));
    lab.smoke(&[ENDLESS, &["--detach"]].concat())
        .exits(0)
        .says(&["running in the background", "forgetlab attach"]);
    background
}

/// Waits until the run says something more.
fn goes_on(run: &Path) {
    let before = events(run);
    wait_for("more events", || events(run) > before);
}

/// Else a run could not be left alone, looked at from elsewhere, and ended in good order.
#[test]
fn a_background_run_is_attached_to_stopped_and_resumed() {
    let lab = Lab::new();
    let run = lab.path("run");
    let worker = background(&lab);
    let watcher = lab.start(&["attach", "run"]);
    let again = lab.start(&["attach", "run"]);
    goes_on(&run);
    // Leaving does not end the run.
    leave(again).exits(0).says(&["the run goes on"]);
    goes_on(&run);

    lab.forgetlab(&["stop", "run"])
        .exits(0)
        .says(&["stopped; go on with `forgetlab resume run`"]);
    watcher
        .end()
        .exits(130)
        .says(&["forgetlab resume", "none", "step"]);
    assert!(worker.pid().is_none(), "it has ended");
    lab.forgetlab(&["stop", "run"])
        .exits(0)
        .says(&["is not running (interrupted)"]);
    lab.forgetlab(&["attach", "run"]).exits(130);

    let before = events(&run);
    lab.forgetlab(&["resume", "run", "--detach"])
        .exits(0)
        .says(&["running in the background"]);
    wait_for("events after it was resumed", || events(&run) > before + 3);
    lab.forgetlab(&["stop", "run"]).exits(0);
    assert!(!events_say(&run, "fail"), "nothing went wrong");
}

fn leave(mut watcher: Live) -> forgetlab_tests::Done {
    // Before it listens a signal would simply end it.
    let pid = watcher.pid().as_raw_nonzero();
    wait_for("the watcher to listen to SIGINT", || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let caught = status.lines().find_map(|l| l.strip_prefix("SigCgt:"));
        let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        caught.is_some_and(|mask| mask & 0b10 != 0)
    });
    watcher.signal(Signal::INT);
    watcher.end()
}

/// Else a dropped SSH connection would end the run.
#[test]
fn a_background_run_survives_its_terminal_and_its_parent() {
    let lab = Lab::new();
    let run = lab.path("run");
    let worker = Background::of(run.clone());
    // A login shell with a group of its own, hung up and then killed.
    let args = [SMOKE, ENDLESS, &["--detach"]].concat().join(" ");
    let script = format!("{} {args}; echo started; sleep 1000", binary().display());
    let mut shell = lab.command(&[]);
    let environment: Vec<_> = shell
        .get_envs()
        .filter_map(|(k, v)| Some((k.to_owned(), v?.to_owned())))
        .collect();
    shell = Command::new("setsid");
    shell.args(["bash", "-c", &script]).envs(environment);
    shell
        .current_dir(lab.path(""))
        .stdin(std::process::Stdio::null());
    shell.stdout(std::process::Stdio::null());
    let mut shell = shell.spawn().expect("start a shell");
    wait_for("the run to begin", || events(&run) > 10);
    let group = Pid::from_child(&shell);
    let _ = kill_process_group(group, Signal::HUP);
    let _ = kill_process_group(group, Signal::KILL);
    shell.wait().expect("the shell ends");
    worker.signal(Signal::HUP);
    goes_on(&run);
    worker.signal(Signal::TERM);
    wait_for("the worker to stop", || worker.pid().is_none());
    lab.forgetlab(&["attach", "run"])
        .exits(130)
        .says(&["interrupted"]);
    let log = fs::read_to_string(run.join("worker.log")).expect("worker.log");
    assert!(log.contains("interrupted (SIGTERM)"), "{log}");
}

/// Else two processes would interleave their events and ruin the run.
#[test]
fn a_second_process_on_a_live_run_is_refused() {
    let lab = Lab::new();
    let run = lab.path("run");
    let worker = background(&lab);
    let pid = worker.pid().expect("it runs").as_raw_nonzero();
    let holder = format!("already being run by process {pid}");
    let again = [SMOKE, ENDLESS].concat();
    for args in [
        &["resume", "run"][..],
        &["resume", "run", "--detach"],
        &again,
    ] {
        lab.forgetlab(args)
            .exits(1)
            .says(&[&holder, "forgetlab attach", "forgetlab stop"]);
    }
    goes_on(&run);
    // One that stands still is no dead one.
    worker.signal(Signal::STOP);
    lab.forgetlab(&["resume", "run"]).exits(1).says(&[&holder]);
    lab.forgetlab(&["list"]).exits(0);
    worker.signal(Signal::CONT);
    goes_on(&run);
    lab.forgetlab(&["stop", "run"]).exits(0);
}

/// Else a run that lost its worker would look alive for ever.
#[test]
fn a_worker_that_vanished_is_noticed_by_those_who_watch() {
    let lab = Lab::new();
    let worker = background(&lab);
    let watcher = lab.start(&["attach", "run"]);
    goes_on(&lab.path("run"));
    worker.signal(Signal::KILL);
    watcher
        .end()
        .exits(1)
        .says(&["gone without a word", "forgetlab resume"]);
    lab.forgetlab(&["stop", "run"])
        .exits(0)
        .says(&["is not running (crashed)"]);
}

/// Else the same study in the background would not be the same study.
#[test]
fn a_background_run_gives_the_figures_of_one_in_the_foreground() {
    let lab = Lab::new();
    lab.smoke(&["--out", "front"]).exits(0);
    lab.smoke(&["--out", "back", "--detach", "--no-cache"])
        .exits(0);
    lab.forgetlab(&["attach", "back"])
        .exits(0)
        .says(&["finished", "summary.csv"]);
    Figures::of(&lab.path("back")).must_equal(&Figures::of(&lab.path("front")), "background");
}
