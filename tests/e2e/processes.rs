//! Runs in the background: watched, stopped and resumed by other processes, and by two at once.

use std::fs;
use std::os::unix::process::CommandExt;
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
        worker_of(&self.0)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid().expect("it runs"), signal).expect("signal");
    }
}

/// The process that works on a run, while it is that of a lab.
fn worker_of(run: &Path) -> Option<Pid> {
    let pid = fs::read_to_string(run.join("worker.lock")).ok()?;
    let pid = pid.trim().parse().ok()?;
    let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
    command.contains("forgetlab").then_some(())?;
    Pid::from_raw(pid)
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

/// A run in the foreground, the leader of a process group as a shell makes it.
struct Foreground {
    live: Live,
    run: PathBuf,
}

impl Foreground {
    fn start(lab: &Lab, script: &str, args: &[&str]) -> Self {
        let mut command = lab.command_after(script, &[SMOKE, args].concat());
        command.process_group(0);
        let live = Live::start(&mut command);
        let run = lab.path("run");
        let mut this = Self { live, run };
        wait_for("the run to begin", || {
            events(&this.run) > 10 || !this.live.runs()
        });
        this
    }

    /// The process that does the work.
    fn worker(&self) -> Pid {
        worker_of(&self.run).expect("a worker")
    }

    /// As a terminal does it: to all of the group.
    fn signal_all(&mut self, signal: Signal) {
        kill_process_group(self.live.pid(), signal).expect("signal");
    }
}

/// State of a process, e.g. `T (stopped)`; empty where there is none.
fn state_of(process: Pid) -> String {
    let path = format!("/proc/{}/status", process.as_raw_nonzero());
    let status = fs::read_to_string(path).unwrap_or_default();
    let state = status.lines().find_map(|line| line.strip_prefix("State:"));
    state.unwrap_or_default().trim().to_owned()
}

/// Else Ctrl-C would be taken for two, and end the run without a checkpoint; or not reach the worker at all.
#[test]
fn a_terminals_ctrl_c_and_ctrl_z_reach_the_worker_once() {
    let lab = Lab::new();
    let mut front = Foreground::start(&lab, ":", ENDLESS);
    let run = lab.path("run");
    let (parent, worker) = (front.live.pid(), front.worker());
    assert_ne!(parent, worker);
    // Whoever runs this may ignore what the key itself sends.
    front.signal_all(Signal::STOP);
    wait_for("both to stand still", || {
        [parent, worker]
            .iter()
            .all(|&pid| state_of(pid).starts_with('T'))
    });
    front.signal_all(Signal::CONT);
    goes_on(&run);
    front.signal_all(Signal::INT);
    front.live.end().exits(130).says(&[
        "interrupted (SIGINT)",
        "metrics.csv",
        "forgetlab resume run",
    ]);
    assert!(events_say(&run, r#""event":"interrupted""#));
}

/// Else `nohup` would not keep a night's run from ending with its terminal.
#[test]
fn a_run_that_was_started_with_hangups_ignored_survives_them() {
    let lab = Lab::new();
    let run = lab.path("run");
    let mut front = Foreground::start(&lab, "trap '' HUP", ENDLESS);
    front.signal_all(Signal::HUP);
    goes_on(&run);
    front.live.signal(Signal::TERM);
    front.live.end().exits(130).says(&["interrupted (SIGTERM)"]);
}

/// Else a worker that nobody waits for would keep the run, and its success or failure be told to nobody.
#[test]
fn run_and_its_worker_end_together_and_either_end_is_told() {
    let lab = Lab::new();
    let run = lab.path("run");
    let front = Foreground::start(&lab, ":", ENDLESS);
    let worker = front.worker();
    goes_on(&run);
    front.live.kill();
    wait_for("the worker to end", || {
        let state = state_of(worker);
        state.is_empty() || state.starts_with('Z')
    });
    let resume = lab.start(&["resume", "run"]);
    goes_on(&run);
    let worker = Background::of(run.clone());
    worker.signal(Signal::KILL);
    resume.end().exits(1).says(&[
        "the worker ended (signal: 9 (SIGKILL), as the system does where memory runs out)",
        "before the run was over",
        "go on with `forgetlab resume run`",
    ]);
    let attach = lab.forgetlab(&["attach", "run"]).exits(1);
    let attach = attach.says(&["forgetlab resume run"]);
    // It may have been killed in a call of a strategy, which is told.
    let words = ["gone without a word", "its worker ended inside strategy"];
    assert!(
        words.iter().any(|words| attach.out.contains(words)),
        "{attach}"
    );
}

/// Else one of two that start the same run would fail for a reason nobody understands, or spoil it.
#[test]
fn of_several_that_start_the_same_run_one_has_it() {
    for _ in 0..3 {
        let lab = Lab::new();
        let run = lab.path("run");
        let mut started: Vec<Live> = (0..3)
            .map(|_| lab.start(&[SMOKE, ENDLESS].concat()))
            .collect();
        wait_for("all but one to end", || {
            started
                .iter_mut()
                .filter_map(|live| live.runs().then_some(()))
                .count()
                == 1
        });
        goes_on(&run);
        for mut live in started {
            if live.runs() {
                live.signal(Signal::TERM);
                live.end().exits(130);
            } else {
                let done = live.end().exits(1);
                done.says(&["already being run by process", "forgetlab attach run"]);
            }
        }
    }
}

/// Else a hangup in the first moments would end what was said to run in the background.
#[test]
fn a_background_worker_takes_no_notice_of_hangups_from_the_beginning() {
    let lab = Lab::new();
    let run = lab.path("run");
    let mut detaching = lab.start(&[SMOKE, ENDLESS, &["--detach"]].concat());
    let worker = Background::of(run.clone());
    let mut met = 0;
    while detaching.runs() {
        // Its process is known once it has the lock, long before it has begun.
        if let Some(pid) = worker.pid().filter(|&pid| leads_a_session(pid)) {
            met += usize::from(kill_process(pid, Signal::HUP).is_ok());
        }
    }
    detaching.end().exits(0);
    assert!(met > 0, "nobody hung up");
    goes_on(&run);
    lab.forgetlab(&["stop", "run"]).exits(0);
}

/// By what the kernel says of it: a session from outside a container has no number that `getsid` could give.
fn leads_a_session(pid: Pid) -> bool {
    let pid = pid.as_raw_nonzero().to_string();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Behind the name, which may hold anything: state, parent, group, session.
    let session = stat
        .rsplit(')')
        .next()
        .and_then(|rest| rest.split_whitespace().nth(3));
    session == Some(&pid)
}

/// Else nobody would learn why a run that was left alone has ended, once somebody has gone on with it.
#[test]
fn the_reason_why_a_background_worker_ended_is_told_and_kept() {
    let lab = Lab::new();
    let run = lab.path("results/runs/run");
    let few = ["--arms", "none", "--out", "results/runs/run", "--detach"];
    let long = ["--set", "phases.steps=300"];
    lab.after("ulimit -f 24", &[SMOKE, &few, &long].concat())
        .exits(0);
    let worker = Background::of(run.clone());
    wait_for("the worker to end", || worker.pid().is_none());
    let why = ["its worker ended: ", "File too large", "forgetlab resume"];
    lab.forgetlab(&["attach", "run"]).exits(1).says(&why);
    let list = lab.forgetlab(&["list"]).exits(0);
    list.says(&["\n    its worker ended: ", "crashed"]);
    lab.forgetlab(&["resume", "run", "--detach"]).exits(0);
    lab.forgetlab(&["attach", "run"])
        .exits(0)
        .says(&["finished"]);
    let log = fs::read_to_string(run.join("worker.log")).expect("worker.log");
    assert!(
        log.contains("File too large") && log.contains("summary.csv"),
        "{log}"
    );
    assert_eq!(log.matches("worker started").count(), 2, "{log}");
}
