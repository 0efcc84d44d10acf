//! Damaged files of a run, half-done and finished: whatever reads them says so, or finds the same numbers.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use forgetlab_tests::{Dice, Lab};
use rustix::process::Signal;

use crate::campaign::{
    Going, Numbers, PATIENCE, Tally, bounded, copy, finished, run_of, trials, undisturbed, whole,
};
use crate::damage::Damage;

/// A run that went through a bad disk must not be published with other numbers than it had.
#[test]
fn a_damaged_run_that_is_half_done_is_not_believed() {
    let lab = Lab::new();
    let (want, _) = undisturbed(
        &lab,
        &run_of("toy", 21, "whole", &["--no-cache"]),
        &lab.path("whole"),
    );
    half_done(&lab, "half");
    campaign(&lab, "half", &want, 1, "torn files of a half-done run");
}

/// The same of one that was done, and is compared months later.
#[test]
fn a_damaged_run_that_was_finished_is_not_believed() {
    let lab = Lab::new();
    let (want, _) = undisturbed(
        &lab,
        &run_of("toy", 21, "whole", &["--no-cache"]),
        &lab.path("whole"),
    );
    campaign(&lab, "whole", &want, 2, "torn files of a finished run");
}

/// Kills a run when some of its arms have saved checkpoints and are not done.
fn half_done(lab: &Lab, name: &str) {
    let mut dice = Dice(21);
    let run = lab.path(name);
    for _ in 0..100 {
        let _ = fs::remove_dir_all(&run);
        let mut going = Going::start(lab, &run_of("toy", 21, name, &["--no-cache"]));
        let enough = 10 + dice.below(12) as usize;
        let saved = || {
            let events = fs::read_to_string(run.join("events.jsonl")).unwrap_or_default();
            events.matches(r#""event":"checkpoint_saved""#).count()
        };
        while saved() < enough && going.wait(Duration::ZERO).is_none() {}
        going.signal_all(Signal::KILL);
        going.wait(PATIENCE);
        if saved() >= enough && !finished(&run) {
            return;
        }
    }
    panic!("no run could be killed half-way");
}

/// Spoils every kind of file in every way, a trial at a time.
fn campaign(lab: &Lab, of: &str, want: &Numbers, seed: u64, title: &str) {
    let mut dice = Dice(seed);
    let mut tally = Tally::default();
    let runs = lab.path("results/runs");
    copy(&lab.path("whole"), &runs.join("other"));
    let usual = Usual::of(lab, &lab.path(of), want);
    for (kind, files) in kinds(&lab.path(of)) {
        let mut damages = [&Damage::DRAWN[..], &Damage::FIXED].concat();
        // In the small part, other damages to each kind of file.
        while !whole() && damages.len() > if kind == "events.jsonl" { 6 } else { 1 } {
            damages.remove(dice.below(damages.len() as u64) as usize);
        }
        for damage in damages {
            let times = if Damage::DRAWN.contains(&damage) {
                trials(1, 20)
            } else {
                1
            };
            for _ in 0..times {
                let case = runs.join("r");
                let _ = fs::remove_dir_all(&case);
                copy(&lab.path(of), &case);
                let file = &files[dice.below(files.len() as u64) as usize];
                // A last line that is torn is what a kill leaves, and as good as not written.
                let spared = usize::from(kind.ends_with(".jsonl"));
                if damage.spoil(&case.join(file), spared, &mut dice).is_some() {
                    let what = format!("{kind}, {damage:?}");
                    try_all(lab, &mut tally, &what, damage, want, &usual);
                }
            }
        }
    }
    tally.finish(title);
}

/// Files of a run by what they are: names without the numbers and arms in them.
fn kinds(run: &Path) -> BTreeMap<String, Vec<PathBuf>> {
    let mut kinds: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    let mut folders = vec![run.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("folder") {
            let path = entry.expect("entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let file = path.strip_prefix(run).expect("below the run").to_owned();
            let mut parts: Vec<String> = file
                .iter()
                .map(|p| p.to_string_lossy().into_owned())
                .collect();
            if let [arms, arm, ..] = &mut parts[..]
                && arms == "arms"
                && !arm.starts_with("first-phase")
            {
                *arm = "ARM".into();
            }
            let kind: String = parts
                .join("/")
                .chars()
                .filter(|c| !c.is_ascii_digit())
                .collect();
            kinds.entry(kind).or_default().push(file);
        }
    }
    kinds.values_mut().for_each(|files| files.sort());
    kinds
}

/// What the commands say of the run as it is.
struct Usual {
    compared: Numbers,
    warnings: BTreeSet<String>,
}

impl Usual {
    fn of(lab: &Lab, run: &Path, want: &Numbers) -> Self {
        let case = lab.path("results/runs/r");
        copy(run, &case);
        let compared = bounded(lab, &["compare", "r", "--csv", "joined.csv"]);
        let resumed = bounded(lab, &["resume", "r", "--no-cache"]);
        assert_eq!(
            (compared.code, resumed.code),
            (Some(0), Some(0)),
            "{}{}",
            compared.said,
            resumed.said
        );
        assert_eq!(
            Numbers::of(&case).difference(want),
            None,
            "it ends like the undisturbed run"
        );
        let said = compared.said + &resumed.said;
        Self {
            compared: Numbers::of_file(&lab.path("joined.csv")),
            warnings: warnings(&said).collect(),
        }
    }

    /// Whether a command warns of what is not usual.
    fn told(&self, said: &str) -> bool {
        warnings(said).any(|line| !self.warnings.contains(&line))
    }
}

/// Lines that say that something is wrong, without their numbers.
fn warnings(said: &str) -> impl Iterator<Item = String> + '_ {
    let words = [
        "warning",
        "unreadable",
        "damaged",
        "corrupt",
        "torn",
        "lost",
    ];
    let wrong = said
        .lines()
        .filter(move |line| words.iter().any(|word| line.contains(word)));
    wrong.map(|line| line.chars().filter(|c| !c.is_ascii_digit()).collect())
}

/// Tries every command that reads a run on a damaged one.
fn try_all(
    lab: &Lab,
    tally: &mut Tally,
    what: &str,
    damage: Damage,
    want: &Numbers,
    usual: &Usual,
) {
    let _ = fs::remove_file(lab.path("joined.csv"));
    let case = lab.path("results/runs/r");
    for args in [
        &["list"][..],
        &["compare", "r", "--csv", "joined.csv"],
        &["attach", "r"],
        &["resume", "r", "--no-cache"],
        &["list"],
    ] {
        let ended = bounded(lab, args);
        if let Some(misdeed) = ended.misdeed() {
            tally.bad(what, args[0], &misdeed);
            continue;
        }
        let said = &ended.said;
        match (args[0], ended.code) {
            ("list", _) if !said.contains("other") => tally.bad(
                what,
                "list",
                &format!("without the others: {}", ended.last_words()),
            ),
            ("attach" | "list", _) => {}
            (command, Some(0)) => {
                let difference = match command {
                    "resume" => want.difference(&Numbers::of(&case)),
                    // Events that end earlier are those of a run that was killed earlier.
                    _ if damage == Damage::Cut && what.starts_with("events") => None,
                    _ => usual
                        .compared
                        .difference(&Numbers::of_file(&lab.path("joined.csv"))),
                };
                match difference {
                    None => tally.count(what, &format!("{command} equal")),
                    Some(_) if usual.told(said) => tally.count(what, &format!("{command} told")),
                    Some(why) => tally.bad(what, &format!("{command} SILENT"), &why),
                }
            }
            (command, _) if said.contains("error") || said.contains("unreadable") => {
                tally.count(what, &format!("{command} refused"));
            }
            (command, code) => tally.bad(
                what,
                command,
                &format!("{code:?} without an error: {}", ended.last_words()),
            ),
        }
    }
}
