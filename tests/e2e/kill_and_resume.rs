//! A run that was killed or stopped and goes on must end as one that was never interrupted.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use forgetlab_tests::{
    Dice, Figures, Lab, Live, SMOKE, compile_c, events, events_say, library, root, wait_for,
};
use rustix::process::Signal;

/// A second or two of every objective, three phases long. `my-strategy`, the template in C, has a
/// state of its own and reports it.
const ENLARGED: &[&str] = &[
    "--arms",
    "none,true-data:kl,self-generated:kl,bos-prompted:ntp,true-data:replace:0.5,my-strategy:kl",
    "--set",
    "phases.steps=70",
];

/// A lab with the template strategy in C.
fn lab() -> Lab {
    let lab = Lab::new();
    // Where strategies are found without being told.
    let folder = lab.path(".local/share/forgetlab/strategies");
    fs::create_dir_all(&folder).expect("folder");
    let template = root().join("plugin-api/templates/strategy.c");
    compile_c(&template, &folder.join(library("mine")), None);
    lab
}

fn command<'a>(out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [SMOKE, ENLARGED, more, &["--out", out]].concat()
}

/// The run nobody interrupted: its figures and how many events it has.
fn uninterrupted() -> &'static (Figures, usize) {
    static WHOLE: std::sync::OnceLock<(Figures, usize)> = std::sync::OnceLock::new();
    WHOLE.get_or_init(|| {
        let lab = lab();
        lab.forgetlab(&command("run", &[])).exits(0);
        let run = lab.path("run");
        (Figures::of(&run), events(&run))
    })
}

/// Starts the run, or goes on with it where it got far enough to be one.
fn begin_or_resume(lab: &Lab, run: &Path, more: &[&str]) -> Live {
    if run.join("config.toml").exists() {
        lab.start(&["resume", "run"])
    } else {
        lab.start(&command("run", more))
    }
}

/// Kills the run once it has written `at` events, and a little later; whether it was still alive.
fn kill_at(lab: &Lab, run: &Path, at: usize, delay: Duration, more: &[&str]) -> bool {
    let mut live = begin_or_resume(lab, run, more);
    wait_for("events of a run", || events(run) >= at || !live.runs());
    thread::sleep(delay);
    live.kill().code.is_none()
}

fn finish(lab: &Lab, more: &[&str], why: &str) {
    let run = lab.path("run");
    let done = begin_or_resume(lab, &run, more).end();
    assert_eq!(done.code, Some(0), "{why}: {done}");
    Figures::of(&run).must_equal(&uninterrupted().0, why);
}

/// The checkpoint intervals that are tried: at every evaluation, at some, at ends of phases only.
const INTERVALS: [&[&str]; 3] = [
    &[],
    &["--set", "training.checkpoint_seconds=0.3"],
    &["--set", "training.checkpoint_seconds=1000"],
];

/// Kills each of `runs` runs `kills` times and compares the ends; how many kills met a live run.
fn killed(seed: u64, runs: u64, kills: u64, cache: Option<&Path>) -> usize {
    let mut dice = Dice(seed);
    let whole = uninterrupted().1;
    let mut died = 0;
    for i in 0..runs {
        let lab = lab();
        if let Some(cache) = cache {
            copy_folder(cache, &lab.path("results/cache"));
        }
        let run = lab.path("run");
        let more = INTERVALS[(i % 3) as usize];
        let mut why = format!("seed {seed}, run {i}, {more:?}, killed at");
        for kill in 0..kills {
            // Spread over the whole: a part of the events for each run, a random place in it. The
            // very first moments come before any event.
            let part = (i * kills + kill) * whole as u64 / (runs * kills);
            let at = part + dice.below(whole as u64 / (runs * kills));
            let at = if i == 0 && kill == 0 { 0 } else { at };
            let delay = Duration::from_micros(dice.below(25_000));
            why += &format!(" {at}+{delay:?}");
            died += usize::from(kill_at(&lab, &run, at as usize, delay, more));
        }
        finish(&lab, more, &why);
    }
    died
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("folder");
    for entry in fs::read_dir(from).expect("read") {
        let entry = entry.expect("entry");
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).expect("copy");
        }
    }
}

/// A cache that holds the first phase.
fn warm_cache(lab: &Lab) -> PathBuf {
    lab.forgetlab(&command("warm", &[])).exits(0);
    lab.path("results/cache")
}

/// Else a power cut, or the cluster's scheduler, would change a study's numbers or cost the run.
#[test]
fn killed_at_random_moments_a_run_ends_as_if_nothing_had_happened() {
    // A run may end before its kill reaches it: only those that died by it count.
    let mut died = 0;
    for round in 0..6 {
        died += killed(10 + round, 13, 1, None);
        if died >= 20 {
            return;
        }
    }
    panic!("only {died} of 78 kills met a live run");
}

/// Else an arm killed before its first checkpoint would not pay for the look at its first replay batch, which it takes
/// again.
#[test]
fn an_arm_killed_right_after_its_first_look_at_replay_ends_as_if_nothing_had_happened() {
    let lab = lab();
    let (arms, rare) = ("true-data:kl", "training.eval_every=10000");
    let command = |out| [SMOKE, &["--arms", arms, "--set", rare, "--out", out]].concat();
    lab.forgetlab(&command("whole")).exits(0);
    let run = lab.path("run");
    let mut live = lab.start(&command("run"));
    wait_for("a look", || {
        events_say(&run, r#""event":"replay_seen""#) || !live.runs()
    });
    live.kill();
    assert!(!events_say(&run, r#""event":"arm_finished""#), "too late");
    lab.forgetlab(&["resume", "run"]).exits(0);
    assert!(events_say(&run, r#""event":"rewound""#));
    Figures::of(&run).must_equal(&Figures::of(&lab.path("whole")), "killed after a look");
}

/// Else a run on a machine that is taken away again and again would drift.
#[test]
fn killed_again_and_again_a_run_ends_as_if_nothing_had_happened() {
    let died = killed(2, 2, 4, None);
    assert!(died >= 4, "only {died} of 8 kills met a live run");
}

/// Else the first phase from the cache would count twice, or not at all, after a crash.
#[test]
fn a_warm_cache_changes_nothing_killed_or_not() {
    let lab = lab();
    let cache = warm_cache(&lab);
    lab.forgetlab(&command("again", &[]))
        .exits(0)
        .says(&["comes from the cache"]);
    let whole = &uninterrupted().0;
    Figures::of(&lab.path("again")).must_equal(whole, "warm cache");
    lab.forgetlab(&command("without", &["--no-cache"])).exits(0);
    Figures::of(&lab.path("without")).must_equal(whole, "--no-cache");
    let died = killed(3, 4, 1, Some(&cache));
    assert!(died >= 2, "only {died} of 4 kills met a live run");
}

/// Else Ctrl-C would lose work, or a script would take a stopped run for a finished one.
#[test]
fn a_stopped_run_says_how_to_go_on_and_goes_on_unchanged() {
    for (signal, name, at) in [
        (Signal::INT, "SIGINT", 1),
        (Signal::TERM, "SIGTERM", 60),
        (Signal::HUP, "SIGHUP", 200),
    ] {
        let lab = lab();
        let run = lab.path("run");
        let more = INTERVALS[2];
        let mut live = begin_or_resume(&lab, &run, more);
        wait_for("events of a run", || events(&run) >= at || !live.runs());
        live.signal(signal);
        live.end()
            .exits(130)
            .says(&[name, "forgetlab resume", "metrics.csv"]);
        assert!(events_say(&run, r#""event":"interrupted""#), "{name}");
        finish(&lab, more, name);
    }
}

/// Else the same study on a laptop and on a server would not agree.
#[test]
fn one_and_two_threads_give_the_same_figures() {
    let lab = lab();
    lab.forgetlab(&command("run", &["--threads", "2"]))
        .exits(2)
        .says(&["cannot be used multiple times"]);
    lab.forgetlab(&command("run", &["--set", "threads=2"]))
        .exits(0);
    Figures::of(&lab.path("run")).must_equal(&uninterrupted().0, "two threads");
}
