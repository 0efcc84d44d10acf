//! Several workers for one run, and requests to stop at random moments.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::Duration;

use forgetlab_tests::{Dice, Lab};

use crate::campaign::{
    Going, Numbers, PATIENCE, Tally, bounded, run_of, share, trials, undisturbed,
};

/// Two Enter keys, or a job that a scheduler starts twice, must not mix two runs into one folder.
#[test]
fn of_three_workers_at_once_one_does_the_run() {
    let lab = Lab::new();
    let mut tally = Tally::default();
    let args = run_of("waiting", 5, "run", &["--no-cache"]);
    let (want, _) = undisturbed(
        &lab,
        &run_of("waiting", 5, "base", &["--no-cache"]),
        &lab.path("base"),
    );
    for _ in 0..trials(1, 40) {
        let _ = fs::remove_dir_all(lab.path("run"));
        let all: Vec<Going> = (0..3).map(|_| Going::start(&lab, &args)).collect();
        let all: Vec<_> = all.into_iter().map(|going| going.end(PATIENCE)).collect();
        let won = all.iter().filter(|ended| ended.code == Some(0)).count();
        let lost = |ended: &&crate::campaign::Ended| ended.code != Some(0);
        // Which run is there, and is worked on, is what a loser has to say.
        let wordless = all
            .iter()
            .filter(lost)
            .find(|ended| !ended.said.contains("already"));
        let wrong =
            wordless.map(|ended| format!("lost with {:?}: {}", ended.code, ended.last_words()));
        let wrong = wrong.or_else(|| want.difference(&Numbers::of(&lab.path("run"))));
        tally.note("three runs at once", &format!("equal, {won} won"), wrong);
    }
    tally.finish("races");
}

/// `stop` must always end a run so that it can be resumed, whenever it comes.
#[test]
fn a_run_that_is_stopped_at_any_moment_ends_equal() {
    let lab = Lab::new();
    let mut dice = Dice(2);
    let mut tally = Tally::default();
    let args = run_of("waiting", 5, "run", &["--no-cache"]);
    let (want, takes) = undisturbed(
        &lab,
        &run_of("waiting", 5, "base", &["--no-cache"]),
        &lab.path("base"),
    );
    for _ in 0..trials(3, 40) {
        let _ = fs::remove_dir_all(lab.path("run"));
        let going = Going::start(&lab, &args);
        sleep(share(&mut dice, takes, 0.0, 1.0));
        let stop = bounded(&lab, &["stop", "run"]);
        let ended = going.end(PATIENCE);
        let codes = format!("stop {:?}, run {:?}", stop.code, ended.code);
        let mut wrong = stop.misdeed().or(ended.misdeed());
        if wrong.is_none() && !matches!(ended.code, Some(0 | 130)) {
            wrong = Some(format!("{codes}: {}", ended.last_words()));
        }
        let last = match lab.path("run/config.toml").exists() {
            true => bounded(&lab, &["resume", "run", "--no-cache"]),
            false => Going::start(&lab, &args).end(PATIENCE),
        };
        let wrong = wrong.or_else(|| last.failure());
        tally.note(
            "stop",
            &codes,
            wrong.or_else(|| want.difference(&Numbers::of(&lab.path("run")))),
        );
    }
    tally.finish("races");
}

/// Somebody who looks at runs, again and again, must not get in their way.
#[test]
fn lists_beside_a_run_do_not_disturb_it() {
    let lab = Lab::new();
    let mut tally = Tally::default();
    let args = run_of("waiting", 5, "results/runs/run", &["--no-cache"]);
    let over = AtomicBool::new(false);
    let list = || {
        let mut bad = None;
        while !over.load(Ordering::Relaxed) {
            let ended = bounded(&lab, &["list"]);
            bad = bad.or_else(|| ended.failure());
            sleep(Duration::from_millis(5));
        }
        bad
    };
    scope(|threads| {
        let lists: Vec<_> = (0..2).map(|_| threads.spawn(list)).collect();
        for _ in 0..trials(2, 40) {
            // At once: a folder that is half removed is a damaged run.
            if fs::rename(lab.path("results/runs/run"), lab.path("gone")).is_ok() {
                fs::remove_dir_all(lab.path("gone")).expect("remove");
            }
            let ended = Going::start(&lab, &args).end(PATIENCE);
            let wrong = ended.failure();
            tally.note("run beside lists", "done", wrong);
        }
        over.store(true, Ordering::Relaxed);
        for list in lists {
            tally.note("list beside a run", "whole", list.join().expect("a thread"));
        }
    });
    tally.finish("races");
}
