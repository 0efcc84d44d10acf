//! Commands that the lab prints work when pasted into a shell, and names with spaces are names.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use forgetlab_tests::{Done, Figures, Lab, SMOKE, binary, built, events, library, wait_for};
use rustix::process::Signal;

/// Pastes the first printed command that begins so into a shell.
#[track_caller]
fn paste(lab: &Lab, said: &str, begins: &str) -> Done {
    let start = said
        .find(begins)
        .unwrap_or_else(|| panic!("no {begins:?} in:\n{said}"));
    let line = said[start..].lines().next().unwrap_or_default();
    let command = line.split('`').next().unwrap_or_default();
    let mut bash = Command::new("bash");
    let model = lab.command(&[]);
    bash.envs(model.get_envs().filter_map(|(k, v)| Some((k, v?))));
    let program = binary();
    let folder = program.parent().expect("folder").display();
    let path = std::env::var("PATH").unwrap_or_default();
    bash.env("PATH", format!("{folder}:{path}"));
    bash.current_dir(lab.path(""))
        .args(["-c", command])
        .stdin(Stdio::null());
    bash.output().expect("bash").into()
}

/// A lab with the hostile strategy in a folder that needs quotes.
fn lab() -> Lab {
    let lab = Lab::new();
    fs::create_dir(lab.path("my plugins")).expect("folder");
    let name = library("forgetlab_hostile");
    fs::copy(built().join(&name), lab.path("my plugins").join(&name)).expect("copy");
    lab
}

const MINE: &[&str] = &[
    "--plugin-dir",
    "my plugins",
    "--out",
    "my run",
    "--arms",
    "hostile:kl,none",
];

fn training(run: &Path) {
    wait_for("steps", || events(run) > 20);
}

/// Else the way back to an interrupted run would have to be put together by hand, under stress.
#[test]
fn printed_ways_on_can_be_pasted() {
    let lab = lab();
    let run = lab.path("my run");
    let long = ["--set", "phases.steps=300"];
    let args = [SMOKE, MINE, &long].concat();
    let mut live = lab.start(&args);
    training(&run);
    live.signal(Signal::INT);
    let done = live.end().exits(130);
    // Another shell knows nothing of the arguments; the run does.
    let attached = lab.forgetlab(&["attach", "my run"]).exits(130);
    let stopped = lab.forgetlab(&["resume", "my run"]).exits(2);
    assert!(stopped.err.contains("hostile"), "{stopped}");
    assert!(done.out.contains("--plugin-dir 'my plugins'"), "{done}");
    assert!(attached.out.contains("my plugins'"), "{attached}");

    let dir = lab.path("my plugins").display().to_string();
    let resume = ["resume", "my run", "--detach", "--plugin-dir", &dir];
    let detached = lab.forgetlab(&resume).exits(0);
    let refused = lab
        .forgetlab(&["resume", "my run", "--plugin-dir", &dir])
        .exits(1);
    let before = events(&run);
    wait_for("more steps", || events(&run) > before + 3);
    let stopped = paste(&lab, &refused.err, "forgetlab stop").exits(0);
    paste(&lab, &detached.out, "forgetlab attach").exits(130);
    paste(&lab, &stopped.out, "forgetlab resume").exits(0);
    let finished = Figures::of(&run);
    lab.forgetlab(&[SMOKE, MINE, &long, &["--out", "whole"]].concat())
        .exits(2);
    let whole = [
        "--plugin-dir",
        "my plugins",
        "--arms",
        "hostile:kl,none",
        "--out",
        "whole",
    ];
    lab.smoke(&[&whole, &long[..]].concat()).exits(0);
    Figures::of(&lab.path("whole")).must_equal(&finished, "pasted");
}

/// Else a strategy that crashes could be left out only by whoever finds the words for it.
#[test]
fn the_way_on_without_a_crashing_strategy_can_be_pasted() {
    let lab = lab();
    let abort = [
        "--set",
        "hostile.mode=abort",
        "--set",
        "hostile.from_step=12",
    ];
    let crashed = lab.smoke(&[MINE, &abort].concat()).exits(1);
    paste(&lab, &crashed.err, "forgetlab resume").exits(1);
    let attached = lab.forgetlab(&["attach", "my run"]).exits(1);
    let again = paste(&lab, &attached.out, "forgetlab resume");
    assert_ne!(again.code, Some(0), "it crashes again: {again}");
    let advice = again.out.find("go on without it").expect("advice");
    paste(&lab, &again.out[advice..], "forgetlab resume")
        .exits(3)
        .says(&["--skip-arm"]);
}

/// Else a folder that a desktop would make could not be run, resumed or compared.
#[test]
fn folders_and_runs_with_spaces_are_found() {
    let lab = Lab::new();
    lab.smoke(&["--arms", "none", "--out", "my run"]).exits(0);
    lab.forgetlab(&["run", "my run", "--out", "the same"])
        .exits(0);
    Figures::of(&lab.path("the same")).must_equal(&Figures::of(&lab.path("my run")), "again");
    for command in ["resume", "attach", "stop", "compare"] {
        lab.forgetlab(&[command, "my run"]).exits(0);
        lab.forgetlab(&[command, "my run/"]).exits(0);
    }
    // An experiment's name stays one, whatever lies beside it.
    fs::rename(lab.path("the same"), lab.path("toy-continual")).expect("rename");
    lab.smoke(&["--arms", "none,true-data:kl", "--out", "new"])
        .exits(0);
    let other = lab
        .smoke(&["--arms", "none", "--seed", "1", "--out", "my run"])
        .exits(1);
    paste(&lab, &other.err, "forgetlab resume")
        .exits(0)
        .says(&["is finished"]);

    fs::create_dir_all(lab.path("results/runs")).expect("folder");
    fs::rename(lab.path("my run"), lab.path("results/runs/my first run")).expect("rename");
    lab.forgetlab(&["compare", "my firs rnu"])
        .exits(2)
        .says(&["did you mean 'my first run'?"]);
}

/// Else a slip in the folder of a strategy would be told as a strategy that does not exist.
#[test]
fn a_plugin_folder_that_is_not_there_is_refused_by_name() {
    let lab = Lab::new();
    fs::write(lab.path("file"), "").expect("write");
    lab.smoke(&["--arms", "none", "--out", "run"]).exits(0);
    let smoke = [SMOKE, &["--out", "new"]].concat();
    for command in [&smoke[..], &["resume", "run"], &["plugins", "list"]] {
        for (dir, why) in [("pluggins", "No such file"), ("file", "is no folder")] {
            let done = lab.forgetlab(&[command, &["--plugin-dir", dir]].concat());
            done.exits(2).says(&["--plugin-dir", dir, why]);
        }
    }
    assert!(!lab.path("new").exists());
}

/// Else whoever begins a strategy could not tell its arms from those of a built-in one.
#[test]
fn a_new_strategy_does_not_take_the_name_of_a_built_in_one() {
    let lab = Lab::new();
    let strategies = fs::read_dir(forgetlab_tests::root().join("strategies")).expect("strategies");
    let mut names = 0;
    for entry in strategies
        .map(|entry| entry.expect("entry"))
        .filter(|e| e.path().is_dir())
    {
        let name = entry.file_name().into_string().expect("UTF-8");
        lab.forgetlab(&["plugins", "new", &name]).exits(2).says(&[
            &name,
            "built-in strategy",
            "choose another name",
        ]);
        assert!(!lab.path(&name).exists());
        names += 1;
    }
    assert!(names >= 4);
    lab.forgetlab(&["plugins", "new", "true-data-2", "--c"])
        .exits(0);
}
