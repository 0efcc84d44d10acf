//! Runs that are named, tagged, found again and thrown away.

use std::fs;
use std::path::Path;

use forgetlab_tests::{Done, Lab, wait_for};
use rustix::process::Signal;

use crate::runs_on_disk::name;

/// Names of the runs that a list shows.
fn shown(done: &Done) -> Vec<&str> {
    let lines = done.out.lines().skip(1);
    let lines = lines.filter(|line| !line.starts_with(' '));
    lines.filter_map(|line| line.split(' ').next()).collect()
}

fn files(run: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<(String, Vec<u8>)> = fs::read_dir(run)
        .expect("folder")
        .map(|entry| entry.expect("entry"))
        .filter(|entry| entry.path().is_file() && entry.file_name() != "worker.lock")
        .map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, fs::read(entry.path()).expect("file"))
        })
        .collect();
    files.sort();
    files
}

/// Of fifty runs, the three that matter must be found by what was done in them and what came out.
#[test]
fn runs_and_sweeps_are_found_by_what_they_are_and_what_came_out() {
    let lab = Lab::new();
    lab.smoke(&["--arms", "none,true-data:kl", "--out", "results/runs/two"])
        .exits(0);
    let lower = ["--set", "optimizer.lr=1e-4", "--out", "results/runs/low"];
    lab.smoke(&[&["--arms", "none"], &lower[..]].concat())
        .exits(0);
    let sweep = "run pretrain-length --preset smoke --arms none --out results/runs/sweep";
    let sweep: Vec<&str> = sweep.split(' ').collect();
    lab.forgetlab(&sweep).exits(0);
    let passes = |filter: &str| {
        let done = lab.forgetlab(&["list", "--filter", filter]).exits(0);
        let mut names: Vec<String> = shown(&done).into_iter().map(str::to_owned).collect();
        names.sort();
        names.join(" ")
    };
    for (filter, expected) in [
        ("", "low sweep two"),
        ("toy", "low two"),
        ("TRUE-DATA", "two"),
        ("arm:true-data:kl", "two"),
        ("cfg.optimizer.lr<1e-3", "low"),
        ("lr=1e-4 OR experiment=pretrain-length", "low sweep"),
        ("status:finished -name:low", "sweep two"),
        ("arms=2", "two"),
        ("done=1 seed=0 device=cpu", "low sweep two"),
        ("tokens>1 flops>1 seconds>0 -(coeff>0)", "low sweep"),
        ("forgot>-10 learned>-10 worst>=0 kept>=0", "low sweep two"),
    ] {
        assert_eq!(passes(filter), expected, "{filter}");
    }
    // Figures are those of the run's table, also where nobody has kept them.
    let verdicts = forgetlab_tests::Table::read(&lab.path("results/runs/two/verdicts.csv"));
    let forgot = verdicts.arm("none");
    let accuracy = forgot.iter().find(|row| row["metric"] == "accuracy");
    let row = accuracy.expect("a row");
    let forgot: f64 = row["forgetting"].parse().expect("a number");
    let by_figure = format!("name=two arm=none forgot={forgot} (worst<=1 kept<=1)");
    assert_eq!(passes(&by_figure), "two");
    fs::remove_file(lab.path("results/runs/two/digest.json")).expect("a digest");
    assert_eq!(passes(&by_figure), "two");
    let made = lab.path(".cache/forgetlab/digests");
    assert_eq!(fs::read_dir(made).expect("kept").count(), 1);
    assert_eq!(passes(&by_figure), "two");

    let verdicts = "verdict:keeps OR verdict:FORGETS OR verdict:unclear";
    let of_sweep = format!("experiment:pretrain ({verdicts})");
    assert_eq!(passes(&of_sweep), "sweep");

    let none = lab.forgetlab(&["list", "--filter", "nothing"]).exits(0);
    assert_eq!(none.out, "none of 3 runs and sweeps passes\n");
    lab.forgetlab(&["list", "--filter", "forgat>1"])
        .exits(2)
        .says(&["at character 1: ", "did you mean `forgot`?", "cfg.PATH"]);
    fs::write(lab.path("results/runs/low/config.toml"), "preset = ").expect("file");
    let done = lab.forgetlab(&["list", "--filter", "toy"]).exits(1);
    assert_eq!(shown(&done), ["two"], "{done}");
    assert!(
        done.err.contains("low is unreadable and left out"),
        "{done}"
    );
}

/// A name that was given after the fact must neither move a run nor keep it from being gone on with.
#[test]
fn labels_are_shown_and_decide_nothing() {
    let lab = Lab::new();
    lab.smoke(&["--arms", "none", "--out", "results/runs/one"])
        .exits(0);
    let sweep = "run pretrain-length --preset smoke --arms none --out results/runs/grid";
    let sweep: Vec<&str> = sweep.split(' ').collect();
    lab.forgetlab(&sweep).exits(0);
    let run = lab.path("results/runs/one");
    let before = files(&run);
    let label = |args: &[&str]| lab.forgetlab(&[&["label"], args].concat());
    assert_eq!(label(&["one"]).exits(0).out, "no labels\n");
    let told = label(&[
        "one",
        "--name",
        "plain, as ever",
        "--tag",
        "paper",
        "--tag",
        "fig 3",
    ])
    .exits(0);
    assert_eq!(told.out, "name  plain, as ever\ntags  fig 3, paper\n");
    label(&["one", "--note", "first\nsecond", "--untag", "paper"])
        .exits(0)
        .says(&["note  first\n      second\n"]);
    label(&["grid", "--tag", "widths"]).exits(0);
    // By what somebody called it.
    label(&["plain, as ever"]).exits(0).says(&["fig 3"]);
    label(&["one", "--untag", "paper"])
        .exits(2)
        .says(&["no tag `paper` to take away; there are fig 3"]);
    label(&["one", "--name", "a\nb"])
        .exits(1)
        .says(&["one line"]);
    label(&["nobody"]).exits(2);

    let list = lab.forgetlab(&["list"]).exits(0);
    list.says(&["\"plain, as ever\", #fig 3", "#widths, sweep: "]);
    let passes = |filter: &str| {
        let done = lab.forgetlab(&["list", "--filter", filter]).exits(0);
        shown(&done).join(" ")
    };
    assert_eq!(passes("tag:\"fig 3\" note:SECOND name:plain"), "one");
    assert_eq!(passes("tag=widths"), "grid");
    let json = lab
        .forgetlab(&["list", "--json", "--filter", "ever"])
        .exits(0);
    json.says(&[
        "\"display_name\":\"plain, as ever\"",
        "\"tags\":[\"fig 3\"]",
        "\"note\":\"first\\nsecond\"",
    ]);

    let mut after = files(&run);
    after.retain(|(name, _)| name != "labels.toml");
    assert_eq!(after.len(), before.len());
    assert!(after == before, "nothing else was written");
    lab.forgetlab(&["resume", "one"])
        .exits(0)
        .says(&["is finished"]);
    lab.forgetlab(&["resume", "grid"]).exits(0);
    lab.forgetlab(&["compare", "one"]).exits(0);
    // What somebody wrote by hand is shown harmlessly, and what is spoilt is told and no more.
    fs::write(run.join("labels.toml"), "name = \"a\\u001b[2Jb\"\n").expect("file");
    let list = lab.forgetlab(&["list"]).exits(0);
    assert!(
        list.out.contains("a\\u{1b}[2Jb") && !list.out.contains('\u{1b}'),
        "{list}"
    );
    fs::write(run.join("labels.toml"), "name = ").expect("file");
    lab.forgetlab(&["list"])
        .exits(0)
        .says(&["one  ", "without its labels", "labels.toml"]);
    label(&["one"]).exits(1).says(&["labels.toml"]);
    fs::write(run.join("labels.toml"), "tags = ['x']").expect("file");
    assert_eq!(label(&["one", "--untag", "x"]).exits(0).out, "no labels\n");
    assert!(!run.join("labels.toml").exists());
}

/// Else somebody's figures would go unasked, a run that goes on, or half of one.
#[test]
fn deletion_asks_and_takes_whole_runs_alone() {
    let lab = Lab::new();
    for run in ["one", "two", "three"] {
        let out = format!("results/runs/{run}");
        lab.smoke(&["--arms", "none", "--out", &out]).exits(0);
    }
    fs::write(lab.path("results/runs/one/notes.md"), "mine").expect("file");
    let delete = |args: &[&str]| lab.forgetlab(&[&["runs", "delete"], args].concat());
    delete(&["one", "two"]).exits(2).says(&[
        "also holds notes.md",
        "2 runs, ",
        "no terminal to ask on",
    ]);
    delete(&[]).exits(2);
    assert_eq!(lab.runs().len(), 3);
    let endless = [
        "--set",
        "phases.steps=1000000",
        "--out",
        "results/runs/live",
    ];
    let mut live = lab.start(&[forgetlab_tests::SMOKE, &["--arms", "none"], &endless[..]].concat());
    let folder = lab.path("results/runs/live");
    wait_for("a live run", || {
        forgetlab_tests::events(&folder) > 5 || !live.runs()
    });
    delete(&["live", "one", "--yes"])
        .exits(2)
        .says(&["live is live, and stays"]);
    fs::create_dir(lab.path("results/runs/notes")).expect("folder");
    for folder in ["results/runs/notes", "results/runs", "."] {
        let done = delete(&[folder, "--yes"]);
        assert_ne!(done.code, Some(0), "{done}");
    }
    assert_eq!(lab.runs().len(), 5);
    live.signal(Signal::INT);
    live.end().exits(130);

    // As a kill leaves it.
    let left = lab.path("results/runs/.deleting-three-0123456789abcdef");
    fs::rename(lab.path("results/runs/three"), &left).expect("rename");
    let list = lab.forgetlab(&["list"]).exits(0);
    assert!(!list.out.contains("deleting"), "{list}");
    let done = delete(&["one", "two", "one", "--yes"]).exits(0);
    done.says(&["removed 2 runs, ", "B"]);
    let runs = lab.runs();
    let names: Vec<&str> = runs.iter().map(|run| name(run)).collect();
    assert_eq!(names, ["live", "notes"]);
    delete(&["two", "--yes"]).exits(2).says(&["no run `two`"]);
}
