//! SIGKILL at random moments of a run and of every resume: the end must be that of an undisturbed run.

use std::fs;
use std::time::Duration;

use forgetlab_tests::{Dice, Lab};
use rustix::process::{Signal, kill_process};

use crate::campaign::{
    Going, KINDS, Numbers, PATIENCE, Tally, bounded, finished, run_of, share, trials, undisturbed,
    whole,
};

/// Whom the signal hits. A run may be one process or several.
const VICTIMS: [&str; 3] = ["all", "parent", "worker"];

/// A night's run that was killed, by a machine that went down or a full memory, must cost minutes and no number.
#[test]
fn a_killed_run_ends_like_an_undisturbed_one() {
    let mut tally = Tally::default();
    for (i, (kind, _)) in KINDS.into_iter().enumerate() {
        for cached in [false, true] {
            // In the small part each kind with or without the cache.
            if whole() || cached == (i % 2 == 0) {
                let what = format!("{kind}{}", if cached { ", with cache" } else { "" });
                let seed = 1 + 2 * i as u64 + u64::from(cached);
                kill(&mut tally, &what, kind, cached, seed, trials(2, 65));
            }
        }
    }
    tally.finish("kills");
}

/// So many kills of a kind, one to four a run.
fn kill(tally: &mut Tally, what: &str, kind: &str, cached: bool, seed: u64, kills: u64) {
    let lab = Lab::new();
    let mut dice = Dice(seed);
    let cache: &[&str] = if cached { &[] } else { &["--no-cache"] };
    let (want, takes) = undisturbed(
        &lab,
        &run_of(kind, seed, "base", &["--no-cache"]),
        &lab.path("base"),
    );
    let mut done = 0;
    // A run that ends before its kill counts none.
    for trial in 0..20 * kills {
        if done >= kills {
            break;
        }
        let (name, mut left) = (format!("run{trial}"), 1 + dice.below(4));
        if cached && dice.below(2) == 0 {
            let _ = fs::remove_dir_all(lab.path("results/cache"));
        }
        let wrong = loop {
            let begun = lab.path(&name).join("config.toml").exists();
            let args = match begun {
                true => [&["resume", name.as_str()], cache]
                    .concat()
                    .into_iter()
                    .map(str::to_owned)
                    .collect(),
                false => run_of(kind, seed, &name, cache),
            };
            let mut going = Going::start(&lab, &args);
            let until = if left > 0 {
                share(&mut dice, takes, 0.0, 1.1)
            } else {
                PATIENCE
            };
            if let Some(status) = going.wait(until) {
                let ended = going.end(Duration::ZERO);
                let wrong = ended.misdeed().or_else(|| match status.code() {
                    Some(0) => want.difference(&Numbers::of(&lab.path(&name))),
                    code => Some(format!("ended with {code:?}: {}", ended.last_words())),
                });
                break wrong;
            }
            if left == 0 {
                break Some(format!(
                    "resume hangs: {:?}",
                    going.end(Duration::ZERO).misdeed()
                ));
            }
            strike(&lab, going, &name, VICTIMS[dice.below(3) as usize]);
            (left, done) = (left - 1, done + 1);
            tally.count(what, "kills");
        };
        tally.note(what, "equal", wrong);
        let _ = fs::remove_dir_all(lab.path(&name));
    }
}

/// Kills a run, or one process of it, and waits until nobody works on it.
fn strike(lab: &Lab, mut going: Going, name: &str, victim: &str) {
    let run = lab.path(name);
    match (victim, going.worker(&run)) {
        ("parent", _) => {
            going.signal(Signal::KILL);
            going.wait(PATIENCE);
            if run.join("config.toml").exists() {
                // A worker that outlives it is stopped as any other is.
                bounded(lab, &["stop", name]);
            }
        }
        ("worker", Some(pid)) => {
            let _ = kill_process(pid, Signal::KILL);
            let ended = going.end(PATIENCE);
            let done = ended.code == Some(0) && !finished(&run);
            assert!(
                !done,
                "the worker of {name} was killed, and it says that it is done: {}",
                ended.last_words()
            );
        }
        _ => {
            going.signal_all(Signal::KILL);
            going.wait(PATIENCE);
        }
    }
}
