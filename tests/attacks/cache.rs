//! Damaged entries of the cache of first phases, which every later run would take for its own.

use std::fs;

use forgetlab_tests::{Dice, Lab};

use crate::campaign::{Going, Numbers, PATIENCE, Tally, copy, run_of, trials, undisturbed, whole};
use crate::damage::Damage;

/// One bad sector must not stand in the results of every run to come.
#[test]
fn a_damaged_cache_changes_no_number_in_silence() {
    let lab = Lab::new();
    let mut dice = Dice(3);
    let mut tally = Tally::default();
    let args = run_of("waiting", 6, "run", &[]);
    let (want, _) = undisturbed(&lab, &args, &lab.path("run"));
    let cache = lab.path("results/cache");
    copy(&cache, &lab.path("whole"));
    let entry = fs::read_dir(&cache)
        .expect("cache")
        .next()
        .expect("an entry")
        .expect("an entry");
    let files = fs::read_dir(entry.path())
        .expect("an entry")
        .map(|file| file.expect("a file").file_name());
    let mut files: Vec<_> = files.collect();
    files.sort();
    for name in files {
        let mut damages = [&Damage::DRAWN[..4], &Damage::FIXED].concat();
        while !whole() && damages.len() > 5 {
            damages.remove(dice.below(damages.len() as u64) as usize);
        }
        for damage in damages {
            let times = if Damage::DRAWN.contains(&damage) {
                trials(2, 60)
            } else {
                1
            };
            for _ in 0..times {
                for folder in [&cache, &lab.path("run")] {
                    fs::remove_dir_all(folder).expect("remove");
                }
                copy(&lab.path("whole"), &cache);
                let kind = format!("{}, {damage:?}", name.to_string_lossy());
                if damage
                    .spoil(&entry.path().join(&name), 0, &mut dice)
                    .is_none()
                {
                    fs::create_dir_all(lab.path("run")).expect("folder");
                    continue;
                }
                let ended = Going::start(&lab, &args).end(PATIENCE);
                let verdict = match (ended.code, want.difference(&Numbers::of(&lab.path("run")))) {
                    (Some(0), None) => "equal",
                    (Some(0), Some(_)) if ended.said.contains("warning") => "told",
                    (Some(0), Some(_)) => "SILENT",
                    _ => "refused",
                };
                let silent =
                    (verdict == "SILENT").then(|| "other numbers without a word".to_owned());
                tally.note(&kind, verdict, ended.misdeed().or(silent));
                fs::create_dir_all(lab.path("run")).expect("folder");
            }
        }
    }
    tally.finish("cache");
}
