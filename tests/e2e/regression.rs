//! The study on a line: a run like any other, though it has no tokens and calls no strategy.

use std::fs;
use std::thread;
use std::time::Duration;

use forgetlab_tests::{Dice, Figures, Lab, Table, events, events_say, wait_for};

/// A second in a debug build.
const SHORT: &[&str] = &[
    "regression-1d",
    "--preset",
    "smoke",
    "--set",
    "model.hidden=[6,5]",
    "--set",
    "model.map.steps=120",
    "--set",
    "model.sghmc.burn_in=40",
    "--set",
    "phases.new.steps=80",
    "--set",
    "phases.old.eval_every=40",
    "--set",
    "training.eval_every=20",
    "--set",
    "training.checkpoint_seconds=0",
];

fn command<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["run"], SHORT, more].concat()
}

/// Else the study would be seen nowhere but in the run that made it.
#[test]
fn its_run_has_files_tables_and_figures_like_any_other() {
    let lab = Lab::new();
    lab.forgetlab(&["experiments"])
        .exits(0)
        .says(&["regression-1d", "cpu, paper, smoke"]);
    let seeds = ["--seed", "0", "--seed", "1", "--out", "run"];
    lab.forgetlab(&command(&seeds)).exits(0).says(&[
        "old error",
        "forgot",
        "final error (RMSE)",
        "verdict",
        "regression.png",
    ]);
    let metrics = Table::read(&lab.path("run/metrics.csv"));
    for (dataset, columns) in [("old", ["error", "distance"]), ("new", ["error", "error"])] {
        let last = metrics.rows.iter().rfind(|row| row["dataset"] == dataset);
        let last = last.expect("a row");
        for column in columns {
            assert!(last[column].parse::<f64>().is_ok(), "{dataset}: {last:?}");
        }
    }
    let summary = Table::read(&lab.path("run/summary.csv"));
    for arm in ["none", "true-data:kl:1"] {
        for row in summary
            .arm(arm)
            .iter()
            .filter(|row| row["dataset"] == "old")
        {
            let of = |column: &str| row[column].parse::<f64>().expect(column);
            let forgot = of("final_error") - of("start_error");
            assert!((forgot - of("forgetting_error")).abs() < 1e-12, "{row:?}");
        }
    }
    lab.forgetlab(&["attach", "run"])
        .exits(0)
        .says(&["finished"]);
    lab.forgetlab(&["resume", "run"])
        .exits(0)
        .says(&["is finished"]);
    // Settings reach the run, and its own configuration gives the same one again.
    let config = fs::read_to_string(lab.path("run/config.toml")).expect("config");
    assert!(config.contains("precision = \"f64\"") && config.contains("burn_in = 40"));
    lab.forgetlab(&["run", "run", "--out", "again"]).exits(0);
    Figures::of(&lab.path("again")).must_equal(&Figures::of(&lab.path("run")), "run again");
    lab.forgetlab(&["compare", "run", "again", "--csv", "both.csv"])
        .exits(0);
    assert!(Table::read(&lab.path("both.csv")).rows[0].contains_key("forgetting_error"));

    // The pictures are in the CSVs.
    fs::create_dir(lab.path("kept")).expect("folder");
    for file in ["metrics.csv", "summary.csv", "curves.csv", "config.toml"] {
        fs::copy(lab.path("run").join(file), lab.path("kept").join(file)).expect("copy");
    }
    lab.forgetlab(&["figure", "kept", "--kind", "regression,error,forgetting"])
        .exits(0);
    for figure in ["regression", "error", "forgetting"] {
        let draw = |run: &str| {
            let path = lab.path(run).join(format!("figures/{figure}.svg"));
            fs::read_to_string(path).expect("a figure")
        };
        assert_eq!(draw("kept"), draw("run"), "{figure} from the CSVs alone");
    }
    lab.forgetlab(&["compare", "kept"])
        .exits(0)
        .says(&["final error (RMSE)"]);
}

/// Else hours of sampling would be lost with the terminal, or end in other numbers.
#[test]
fn killed_anywhere_it_goes_on_to_the_same_figures_and_shares_its_first_phase() {
    let lab = Lab::new();
    lab.forgetlab(&command(&["--out", "whole"])).exits(0);
    let (whole, all) = (Figures::of(&lab.path("whole")), events(&lab.path("whole")));
    let mut dice = Dice(5);
    for (i, cache) in [&["--no-cache"][..], &["--no-cache"], &[]]
        .iter()
        .enumerate()
    {
        let out = format!("killed-{i}");
        let run = lab.path(&out);
        let begin = [&command(&["--out", &out])[..], cache].concat();
        let mut kills = 0;
        for part in 0..4 {
            let args = match run.join("config.toml").exists() {
                true => [&["resume", &out][..], cache].concat(),
                false => begin.clone(),
            };
            let mut live = lab.start(&args);
            let at = part * all / 4 + dice.below(all as u64 / 4) as usize;
            wait_for("events", || events(&run) >= at || !live.runs());
            thread::sleep(Duration::from_micros(dice.below(20_000)));
            kills += usize::from(live.kill().code.is_none());
        }
        assert!(kills > 0, "run {i} was never killed");
        lab.forgetlab(&[&["resume", &out][..], cache].concat())
            .exits(0);
        Figures::of(&run).must_equal(&whole, &format!("run {i}, killed {kills} times"));
        let curves = |run: &str| fs::read(lab.path(run).join("curves.csv")).expect("curves");
        assert!(curves(&out) == curves("whole"), "curves of run {i}");
    }
    assert!(events_say(&lab.path("killed-2"), "comes from the cache"));
    // A rate of the second phase leaves the first what it was.
    lab.forgetlab(&command(&["--arms", "none+lr=1e-5", "--out", "slower"]))
        .exits(0);
    assert!(events_say(&lab.path("slower"), "comes from the cache"));
}

/// Else a run would be asked to stop in vain, or go on as another one.
#[test]
fn it_stops_when_asked_and_goes_on_as_no_other() {
    let lab = Lab::new();
    let long = [
        "--set",
        "phases.new.steps=1000000",
        "--out",
        "results/runs/run",
    ];
    let live = lab.start(&command(&long));
    let run = lab.path("results/runs/run");
    wait_for("the second phase", || events_say(&run, "checkpoint_saved"));
    lab.forgetlab(&["stop", "run"]).exits(0);
    let done = live.end();
    assert_eq!(done.code, Some(130), "{done}");
    lab.forgetlab(&["list"]).exits(0).says(&["interrupted"]);
    let config = fs::read_to_string(run.join("config.toml")).expect("config");
    let other = config.replace("grid = 50", "grid = 51");
    assert_ne!(config, other);
    fs::write(run.join("config.toml"), other).expect("write");
    lab.forgetlab(&["resume", "run"])
        .exits(1)
        .says(&["data.grid was 50, is 51"]);
}

/// Else a wish that cannot be met would be met in silence by something else.
#[test]
fn what_it_does_not_have_is_refused_in_words() {
    let lab = Lab::new();
    let cases: &[(&[&str], &[&str])] = &[
        (
            &["--arms", "none,self-generated:kl"],
            &["self-generated:kl:1", "`none` and `true-data:kl:COEFF`"],
        ),
        (
            &["--arms", "true-data:ntp:1"],
            &["`none` and `true-data:kl:COEFF`"],
        ),
        (
            &["--arms", "true-data:kl:1+buffer=3"],
            &["`buffer` is no setting here"],
        ),
        (
            &["--arms", "none+beta1=0.5"],
            &["lr alone is gradient descent"],
        ),
        (
            &["--arms", "none+seconds=5"],
            &["takes steps, eval_every and optimizer.lr alone"],
        ),
        (&["--device", "cuda"], &["device", "on the CPU alone"]),
        (
            &["--set", "data.old.points=-3"],
            &["data.old.points=-3", "expected usize"],
        ),
        (
            &["--set", "data.new.points=0"],
            &["data.new.points", "must be 1 to"],
        ),
        (
            &["--set", "data.old.from=5"],
            &["data.old.from", "must be below"],
        ),
        (
            &["--set", "data.old.noise=0"],
            &["data.old.noise", "must be above 0"],
        ),
        (
            &["--set", "model.sghmc.friction=2"],
            &["model.sghmc.friction", "at most 1"],
        ),
        (&["--set", "model.hidden=[]"], &["model.hidden"]),
        (
            &["--set", "training.batch_size=8"],
            &["unknown setting `training.batch_size`"],
        ),
        (
            &["--set", "training.micro_batch=8"],
            &["trains on all points at every step"],
        ),
        (
            &["--set", "phases.old.steps=8"],
            &["phases.old", "follows from model.map"],
        ),
        (&["--set", "phases.new.steps=0"], &["must be at least 1"]),
        (
            &["--set", "precision=\"f32\""],
            &["precision", "must be f64"],
        ),
    ];
    for (args, texts) in cases {
        let done = lab.forgetlab(&command(args)).exits(2).says(texts);
        assert_eq!(done.err.matches("error:").count(), 1, "one message: {done}");
        assert!(lab.runs().is_empty(), "a run was begun: {done}");
    }
    lab.smoke(&["--set", "precision=\"f64\""])
        .exits(2)
        .says(&["is that of a regression"]);
    // Its functions are no language models.
    lab.forgetlab(&command(&["--out", "run"])).exits(0);
    lab.forgetlab(&["sample", "run/none", "--prompt", "x"])
        .exits(1)
        .says(&["no tokenizer"]);
}
