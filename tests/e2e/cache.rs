//! What is kept for later runs is told, and goes only where that was asked for.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use forgetlab_tests::Lab;

/// Folders of the first phases in the cache.
fn phases(lab: &Lab) -> Vec<PathBuf> {
    let entries = fs::read_dir(lab.path("results/cache"))
        .into_iter()
        .flatten();
    let paths = entries.map(|entry| entry.expect("entry").path());
    paths.filter(|path| !path.ends_with("tokens")).collect()
}

/// Else nobody could tell what takes the room, or whether a run still begins with it.
#[test]
fn entries_are_told_with_the_runs_that_use_them() {
    let lab = Lab::new();
    lab.forgetlab(&["cache", "list"])
        .exits(0)
        .says(&["the cache under ", "results/cache is empty"]);
    lab.forgetlab(&["cache", "prune", "--all", "--yes"])
        .exits(0)
        .says(&["nothing to remove under "]);
    lab.smoke(&["--arms", "none", "--seed", "3"]).exits(0);
    lab.smoke(&["--arms", "true-data:kl", "--seed", "3"])
        .exits(0);
    let sweep = [
        "run",
        "pretrain-length",
        "--preset",
        "smoke",
        "--arms",
        "none",
    ];
    lab.forgetlab(&sweep).exits(0);
    let told = lab.forgetlab(&["cache", "list"]).exits(0);
    let of_toy = told.out.lines().find(|line| line.contains("seed 3"));
    let of_toy = of_toy.unwrap_or_else(|| panic!("{told}"));
    for part in [
        "first phase, reversal, ",
        " steps, ",
        " parameters",
        "B  used 2",
    ] {
        assert!(of_toy.contains(part), "{part}: {told}");
    }
    let told = told.says(&[
        " and 1 more",
        "text, ",
        " tokens, by ",
        "-pretrain-length-",
        "/length=",
    ]);
    assert!(told.out.contains(" entries, "), "{told}");
}

/// Else room would be made with what somebody needs, or could not be made at all.
#[test]
fn pruning_removes_what_was_asked_for() {
    let lab = Lab::new();
    for seed in ["0", "1", "2"] {
        lab.smoke(&["--arms", "none", "--seed", seed]).exits(0);
    }
    let prune = |args: &[&str]| lab.forgetlab(&[&["cache", "prune"], args].concat());
    let all = phases(&lab);
    prune(&[]).exits(0).says(&["nothing to remove"]);
    prune(&["--older-than", "1", "--yes"])
        .exits(0)
        .says(&["nothing to remove"]);
    prune(&["--all"])
        .exits(2)
        .says(&["3 entries, ", "there is no terminal to ask on", "--yes"]);
    assert_eq!(phases(&lab).len(), 3);
    // A damaged one is told as such, and goes first.
    let torn = all[0].join("checkpoint.safetensors");
    let bytes = fs::read(&torn).expect("tensors");
    fs::write(&torn, &bytes[..bytes.len() / 2]).expect("write");
    lab.forgetlab(&["cache", "list"]).exits(0).says(&[
        "damaged: ",
        "torn or corrupt",
        "3 entries, ",
    ]);
    // What a killed process left goes with it, and what is nobody's business stays.
    fs::create_dir(lab.path("results/cache/.tmp-0123")).expect("folder");
    fs::write(lab.path("results/cache/notes.txt"), "mine").expect("write");
    prune(&["--yes"])
        .exits(0)
        .says(&["left by a killed process", "removed 2 entries, "]);
    assert!(!all[0].exists() && all[1].exists() && all[2].exists());
    // One that nobody has used for two days.
    let old = SystemTime::now() - Duration::from_secs(2 * 24 * 60 * 60);
    for path in [all[1].join("checkpoint.json"), all[1].clone()] {
        let opened = match path.is_dir() {
            true => fs::File::open(&path),
            false => fs::File::options().append(true).open(&path),
        };
        let set = opened.expect("open").set_modified(old);
        set.expect("time");
    }
    prune(&["--older-than", "1", "--yes"])
        .exits(0)
        .says(&["removed 1 entry, "]);
    assert!(!all[1].exists() && all[2].exists());
    prune(&["--all", "--yes"])
        .exits(0)
        .says(&["removed 1 entry, "]);
    let left = phases(&lab);
    assert_eq!(left, [lab.path("results/cache/notes.txt")]);
    // What is gone is trained again.
    lab.smoke(&["--arms", "none", "--seed", "0"]).exits(0);
    assert_eq!(phases(&lab).len(), 2);
}

/// Else an entry would go while a run that goes on is about to take it.
#[test]
fn a_use_makes_an_entry_young_again() {
    let lab = Lab::new();
    lab.smoke(&["--arms", "none"]).exits(0);
    let entry = phases(&lab).remove(0);
    let old = SystemTime::now() - Duration::from_secs(2 * 24 * 60 * 60);
    let json = entry.join("checkpoint.json");
    let file = fs::File::options().append(true).open(json).expect("open");
    file.set_modified(old).expect("time");
    let folder = fs::File::open(&entry).expect("open");
    folder.set_modified(old).expect("time");
    lab.smoke(&["--arms", "true-data:kl"]).exits(0);
    lab.forgetlab(&["cache", "prune", "--older-than", "1", "--yes"])
        .exits(0)
        .says(&["nothing to remove"]);
    assert!(entry.exists());
}
