//! Signals at random moments: a run stops with a checkpoint where it is told to, and goes on where it is not.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use forgetlab_tests::{Dice, Lab, events, wait_for};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::campaign::{
    Ended, Going, Numbers, PATIENCE, Tally, bounded, finished, run_of, share, trials, undisturbed,
};

/// Steps of a phase: long enough to be met in the middle.
const LONG: [&str; 3] = ["--no-cache", "--set", "phases.steps=60"];

struct Campaign {
    lab: Lab,
    dice: Dice,
    want: Numbers,
    takes: Duration,
    tally: Tally,
}

impl Campaign {
    fn new(seed: u64) -> Self {
        let lab = Lab::new();
        let args = run_of("waiting", 5, "base", &LONG);
        let (want, takes) = undisturbed(&lab, &args, &lab.path("base"));
        Self {
            lab,
            dice: Dice(seed),
            want,
            takes,
            tally: Tally::default(),
        }
    }

    fn start(&self, more: &[&str]) -> Going {
        let _ = fs::remove_dir_all(self.lab.path("run"));
        Going::start(
            &self.lab,
            &run_of("waiting", 5, "run", &[&LONG, more].concat()),
        )
    }

    /// Waits a random part of the time a run takes, from its first events on.
    fn wait(&mut self, least: f64, most: f64) {
        let run = self.lab.path("run");
        wait_for("the run to begin", || events(&run) > 2);
        sleep(share(&mut self.dice, self.takes, least, most));
    }

    /// What is wrong with a run that may have been interrupted, once it has been resumed.
    fn wrong(&self, ended: Ended, interrupted: bool) -> Option<String> {
        let run = self.lab.path("run");
        let honest = match ended.code {
            Some(0) => finished(&run),
            Some(130) => interrupted,
            _ => false,
        };
        if !honest {
            return Some(format!(
                "ended with {:?}: {}",
                ended.code,
                ended.last_words()
            ));
        }
        let resumed = bounded(&self.lab, &["resume", "run", "--no-cache"]);
        let wrong = ended.misdeed().or_else(|| resumed.failure());
        wrong.or_else(|| self.want.difference(&Numbers::of(&run)))
    }
}

/// A laptop that sleeps in the middle of a run must not change it.
#[test]
fn a_run_that_is_stopped_and_continued_is_not_changed() {
    let mut c = Campaign::new(1);
    for _ in 0..trials(1, 20) {
        let going = c.start(&[]);
        for _ in 0..3 {
            c.wait(0.0, 0.2);
            going.signal_all(Signal::STOP);
            sleep(Duration::from_millis(30));
            going.signal_all(Signal::CONT);
        }
        let wrong = c.wrong(going.end(PATIENCE), false);
        c.tally.note("STOP and CONT", "equal", wrong);
    }
    c.tally.finish("signals");
}

/// A scheduler's SIGTERM, a closed terminal or an impatient Ctrl-C must leave a run that can be resumed, and say so by
/// its exit code; whether it reaches the command alone or, as a terminal sends it, all of its processes.
#[test]
fn a_run_that_is_told_to_stop_can_be_resumed() {
    let mut c = Campaign::new(2);
    let kinds = [
        ("TERM", Signal::TERM, 1),
        ("TERM twice", Signal::TERM, 2),
        ("INT", Signal::INT, 1),
        ("INT twice", Signal::INT, 2),
        ("HUP", Signal::HUP, 1),
    ];
    for (name, signal, times) in kinds {
        for trial in 0..trials(2, 20) {
            let going = c.start(&[]);
            c.wait(0.0, 1.0);
            for _ in 0..times {
                match trial % 2 {
                    0 => going.signal(signal),
                    _ => going.signal_all(signal),
                }
            }
            let wrong = c.wrong(going.end(PATIENCE), true);
            c.tally.note(
                name,
                if finished(&c.lab.path("run")) {
                    "equal"
                } else {
                    "?"
                },
                wrong,
            );
        }
    }
    c.tally.finish("signals");
}

/// `nohup forgetlab run` and `--detach` are for nights without a terminal.
#[test]
fn a_run_in_the_background_outlives_its_terminal() {
    let mut c = Campaign::new(3);
    for _ in 0..trials(1, 20) {
        let args = run_of("waiting", 5, "run", &LONG);
        let _ = fs::remove_dir_all(c.lab.path("run"));
        let going = Going::start_ignoring_hangup(&c.lab, &args);
        c.wait(0.0, 0.5);
        going.signal_all(Signal::HUP);
        let ended = going.end(PATIENCE);
        let code = ended.code;
        let wrong = c
            .wrong(ended, false)
            .or((code != Some(0)).then(|| format!("ended with {code:?}")));
        c.tally.note("HUP of nohup", "equal", wrong);
    }
    for _ in 0..trials(2, 20) {
        let ended = c.start(&["--detach"]).end(PATIENCE);
        let wrong = ended.misdeed().or_else(|| hang_up(&mut c));
        c.tally.note("HUP of --detach", "equal", wrong);
    }
    c.tally.finish("signals");
}

/// Hangs up on a detached worker at once and later; what is wrong at its end.
fn hang_up(c: &mut Campaign) -> Option<String> {
    let told = fs::read_to_string(c.lab.path("run/worker.lock")).unwrap_or_default();
    let pid = told.trim().parse().ok().and_then(Pid::from_raw);
    let pid = pid.filter(|&pid| test_kill_process(pid).is_ok())?;
    for _ in 0..3 {
        let _ = kill_process(pid, Signal::HUP);
        sleep(share(&mut c.dice, c.takes, 0.0, 0.1));
    }
    let seen = bounded(&c.lab, &["attach", "run"]);
    seen.failure()
        .or_else(|| c.want.difference(&Numbers::of(&c.lab.path("run"))))
}
