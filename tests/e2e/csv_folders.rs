//! Folders of results of which only the CSVs were kept, as committed ones are; figures of runs and of them.

use std::fs;
use std::path::Path;

use forgetlab_tests::{Lab, root};

/// Copies files of a run.
fn keep(from: &Path, to: &Path, files: &[&str]) {
    fs::create_dir_all(to).expect("folder");
    for file in files {
        fs::copy(from.join(file), to.join(file)).expect("copy");
    }
}

/// Else the numbers of a committed folder could be trusted no more than those of a copy by hand.
#[test]
fn kept_csvs_compare_as_the_run_they_are_from() {
    let lab = Lab::new();
    lab.smoke(&["--out", "runs/a", "--seed", "0", "--seed", "1"])
        .exits(0);
    let run = lab.path("runs/a");
    let all = ["metrics.csv", "summary.csv", "config.toml"];
    keep(&run, &lab.path("kept/a"), &all);
    keep(&run, &lab.path("metrics/a"), &["metrics.csv"]);
    let from_events = lab.forgetlab(&["compare", "runs/a"]).exits(0);
    let kept = lab.forgetlab(&["compare", "kept/a"]).exits(0);
    // What is in the CSVs is told the same; intervals over single rows are not in them.
    let scores = |out: &str| {
        out[out.find("final accuracy").expect("scores")
            ..out.find("difference to").expect("differences")]
            .to_owned()
    };
    assert_eq!(scores(&from_events.out), scores(&kept.out));
    assert_eq!(from_events.err, "");
    kept.says(&["note: a is read from its CSVs", "no events"]);
    lab.forgetlab(&["compare", "metrics/a", "--csv", "joined.csv"])
        .exits(0)
        .says(&[
            "no summary.csv",
            "no config.toml",
            "finished",
            "wrote joined.csv",
        ]);

    let metrics = lab.path("metrics/a/metrics.csv");
    let text = fs::read_to_string(&metrics).expect("read");
    fs::write(&metrics, text.replacen(",new,", ",new,x", 1)).expect("write");
    lab.forgetlab(&["compare", "metrics/a"])
        .exits(1)
        .says(&["metrics.csv", "line 2, column `ntp`"]);
    fs::remove_file(&metrics).expect("remove");
    lab.forgetlab(&["compare", "metrics/a"])
        .exits(1)
        .says(&["neither a run", "nor a folder of results"]);
}

/// Else what the pages show could not be made again from what lies beside them.
#[test]
fn the_committed_results_can_be_read() {
    let lab = Lab::new();
    let folders = [
        "toy-continual-cpu",
        "instruct-smollm2",
        "lr-vs-replay-cpu",
        "method-comparison-cpu",
    ];
    for folder in folders {
        let path = root().join("results").join(folder);
        let path = path.to_str().expect("UTF-8");
        let done = lab.forgetlab(&["compare", path]).exits(0);
        assert!(done.out.lines().count() > 10, "{done}");
        let done = lab
            .forgetlab(&["figure", path, "--out", folder])
            .exits(0)
            .says(&[&format!("{folder}/forgetting.png"), "no events"]);
        for file in done.out.lines() {
            let size = fs::metadata(lab.path(file)).expect("a figure").len();
            assert!(size > 1000, "{file}");
        }
    }
}

/// Else a figure for a paper, of seeds that were run one by one, would have to be drawn by hand.
#[test]
fn figures_are_drawn_again_and_of_several_runs_together() {
    let lab = Lab::new();
    for (seed, out) in [("0", "a"), ("1", "b")] {
        lab.smoke(&["--out", out, "--seed", seed]).exits(0);
    }
    let drawn = lab.path("a/figures/accuracy.svg");
    let before = fs::read(&drawn).expect("figure");
    fs::remove_file(&drawn).expect("remove");
    lab.forgetlab(&["figure", "a", "--kind", "accuracy"])
        .exits(0)
        .says(&["a/figures/accuracy.svg\na/figures/accuracy.png\n"]);
    assert_eq!(fs::read(&drawn).expect("figure"), before);

    let kinds = "forgetting,accuracy";
    let done = lab
        .forgetlab(&["figure", "a", "b", "--seeds", "--kind", kinds])
        .exits(0);
    let files = [
        "figures/forgetting.svg",
        "figures/forgetting.png",
        "figures/accuracy.svg",
        "figures/accuracy.png",
    ];
    assert_eq!(done.out.lines().collect::<Vec<_>>(), files, "{done}");
    let svg = fs::read_to_string(lab.path("figures/accuracy.svg")).expect("figure");
    for text in [
        "bos-prompted:kl:10, 2 seeds",
        "95 % interval",
        "single seeds",
    ] {
        assert!(svg.contains(text), "{text}");
    }

    lab.smoke(&["--out", "wide", "--set", "model.d_model=32", "--seed", "2"])
        .exits(0);
    lab.forgetlab(&["figure", "a", "wide", "--out", "apart"])
        .exits(0);
    let svg = fs::read_to_string(lab.path("apart/accuracy.svg")).expect("figure");
    assert!(svg.contains("a: none") && svg.contains("wide: none"));
    lab.smoke(&["--out", "long", "--set", "phases.steps=9"])
        .exits(0);
    lab.forgetlab(&["figure", "a", "long"])
        .exits(1)
        .says(&["a and long cannot be drawn together", "the phases"]);
    lab.forgetlab(&["figure", "a", "--kind", "retention"])
        .exits(1)
        .says(&["nothing to draw for `retention`", "questions"]);
    lab.forgetlab(&["figure", "a", "--kind", "pie"])
        .exits(2)
        .says(&["accuracy, ntp, forgetting, retention"]);
}
