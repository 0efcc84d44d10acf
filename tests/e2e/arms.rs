//! Arms with settings of their own: what they are called, what they train, and that they go on as they were.

use std::collections::{BTreeMap, HashSet};
use std::fs;

use forgetlab_tests::{Figures, Lab, SMOKE, Table, compile_c, events, library, root, wait_for};
use rustix::process::Signal;

/// Joining and grouping by name is what every notebook does; two arms of one name would be mixed up there.
#[test]
fn arms_that_differ_in_one_setting_differ_in_name_everywhere() {
    let lab = Lab::new();
    let arms = "none,none+lr=1e-3,none+steps=4,self-generated:kl:10+batch=8+buffer_batches=2";
    let more = ["--arms", arms, "--seed", "0", "--seed", "1", "--out", "run"];
    let done = lab.forgetlab(&[SMOKE, &more].concat()).exits(0);
    let run = lab.path("run");
    let all = Table::read(&run.join("metrics.csv")).rows;
    let mut seen = HashSet::new();
    for row in &all {
        let key = ["arm", "seed", "step", "dataset"].map(|column| row[column].clone());
        assert!(seen.insert(key.clone()), "twice: {key:?}");
    }
    let names: HashSet<&str> = all.iter().map(|row| row["arm"].as_str()).collect();
    assert_eq!(names, arms.split(',').collect());
    for name in arms.split(',') {
        assert!(
            done.out.contains(name),
            "{name} is not in the table:\n{}",
            done.out
        );
        let slug = format!("{}-seed1", name.replace(':', "-"));
        assert!(run.join("arms").join(&slug).is_dir(), "{slug}");
    }
    // Shorter phases end earlier; the learning rate is what it says.
    let last = |name: &str| {
        let own = all.iter().filter(|row| row["arm"] == name);
        own.map(|row| row["step"].parse::<u64>().expect("step"))
            .max()
    };
    assert_eq!((last("none"), last("none+steps=4")), (Some(24), Some(16)));
    assert!(
        all.iter()
            .filter(|row| row["arm"] == "none+lr=1e-3")
            .all(|row| row["lr"] == "0.001")
    );

    // The same arm in a run of its own, asked for another way, gives the same numbers.
    let more = [
        "--arms",
        "none",
        "--set",
        "arms.none.lr=1e-3",
        "--out",
        "alone",
    ];
    lab.forgetlab(&[SMOKE, &more].concat()).exits(0);
    let scores = |rows: &[BTreeMap<String, String>]| -> Vec<String> {
        let own = rows
            .iter()
            .filter(|row| row["arm"] == "none+lr=1e-3" && row["seed"] == "0");
        own.map(|row| {
            format!(
                "{} {} {} {}",
                row["step"], row["dataset"], row["ntp"], row["kl"]
            )
        })
        .collect()
    };
    let alone = Table::read(&lab.path("alone/metrics.csv")).rows;
    assert!(!scores(&alone).is_empty());
    assert_eq!(scores(&alone), scores(&all));
    let plain: Vec<&str> = all
        .iter()
        .filter(|row| row["arm"] == "none" && row["seed"] == "0")
        .map(|row| row["ntp"].as_str())
        .collect();
    assert!(
        alone
            .iter()
            .any(|row| !plain.contains(&row["ntp"].as_str())),
        "the setting changes nothing"
    );
}

/// A stopped run whose arms train unlike sets of weights must end as an uninterrupted one.
#[test]
fn arms_with_settings_of_their_own_go_on_as_they_were() {
    let arms = "none,none+lora_rank=2,bos-prompted:kl+steps=6+beta2=0.9,bos-prompted:kl+replay_batch=2+lora_rank=3";
    let command = |out: &'static str| {
        [
            "run",
            "instruct",
            "--preset",
            "smoke",
            "--threads",
            "2",
            "--arms",
            arms,
            "--out",
            out,
        ]
    };
    let lab = Lab::new();
    lab.forgetlab(&command("whole")).exits(0);
    let whole = Figures::of(&lab.path("whole"));
    for at in [3, 25, 40] {
        let mut live = lab.start(&command("run"));
        let run = lab.path("run");
        wait_for("events of a run", || events(&run) >= at || !live.runs());
        live.signal(Signal::TERM);
        live.end();
        lab.forgetlab(&["resume", "run"]).exits(0);
        Figures::of(&run).must_equal(&whole, &format!("stopped at event {at}"));
        fs::remove_dir_all(&run).expect("remove");
    }
}

/// A run that goes on under other settings would be neither the one nor the other.
#[test]
fn a_run_does_not_go_on_under_settings_that_change_its_numbers() {
    let lab = Lab::new();
    let mut live = lab.start(&[SMOKE, &["--set", "phases.steps=400", "--out", "run"]].concat());
    let run = lab.path("run");
    wait_for("events of a run", || events(&run) >= 12 || !live.runs());
    live.signal(Signal::TERM);
    live.end().exits(130);
    let config = run.join("config.toml");
    let before = fs::read_to_string(&config).expect("config");
    let edit = |from: &str, to: &str| {
        assert!(before.contains(from), "{from}");
        fs::write(&config, before.replacen(from, to, 1)).expect("edit");
    };
    for (from, to, key) in [
        (
            "beta2 = 0.99",
            "beta2 = 0.9",
            "optimizer.beta2 was 0.99, is 0.9",
        ),
        ("eval_rows = 16", "eval_rows = 15", "training.eval_rows"),
        ("n_digits = 3", "n_digits = 2", "data.n_digits"),
        ("coeff = 10.0", "coeff = 11.0", "coeff was 10, is 11"),
        (
            "precision = \"f32\"",
            "precision = \"bf16\"",
            "precision was f32, is bf16",
        ),
    ] {
        edit(from, to);
        lab.forgetlab(&["resume", "run"])
            .exits(1)
            .says(&["config.toml was changed", key]);
    }
    edit("checkpoint_seconds = 0.0", "checkpoint_seconds = 5.0");
    lab.forgetlab(&["resume", "run"])
        .exits(0)
        .says(&["training.checkpoint_seconds was 0, is 5"]);
}

/// A short key that means two things would be guessed at.
#[test]
fn a_key_of_strategy_and_phases_is_refused_with_both_full_keys() {
    let lab = Lab::new();
    let folder = lab.path("strategies");
    fs::create_dir_all(&folder).expect("folder");
    let template = root().join("plugin-api/templates/strategy.c");
    let text = fs::read_to_string(template).expect("template");
    let lr = text
        .replace("\\\"every\\\"", "\\\"lr\\\"")
        .replace("every + 8", "every + 5");
    assert_ne!(lr, text, "the template's setting has another name");
    fs::write(lab.path("mine.c"), lr).expect("write");
    let library = folder.join(library("mine"));
    compile_c(&lab.path("mine.c"), &library, None);
    let try_arm = |arm: &str| {
        let more = ["--arms", arm, "--plugin-dir", "strategies", "--out", "run"];
        lab.forgetlab(&[SMOKE, &more].concat())
    };
    let both = ["optimizer.lr", "my-strategy.lr"];
    try_arm("my-strategy:kl+lr=3").exits(2).says(&both);
    let done = try_arm("my-strategy:kl:10+optimizer.lr=0.001+my-strategy.lr=3").exits(0);
    done.says(&["+optimizer.lr=1e-3"]);
}

/// A curve over small shares of replay would show steps that are not there, and a share that replaces nothing would
/// pass for replay.
#[test]
fn shares_below_a_row_are_kept_on_average_and_told() {
    let lab = Lab::new();
    let shares = [
        "true-data:replace:0.03125",
        "self-generated:replace:0.15625",
        "true-data:replace:0",
    ];
    let more = [
        "--set",
        "phases.steps=16",
        "--out",
        "run",
        "--arms",
        &shares.join(","),
    ];
    lab.smoke(&more).exits(0);
    let summary = Table::read(&lab.path("run/summary.csv")).rows;
    let replaced = |arm: &str| {
        let rows = summary.iter().filter(|row| row["arm"] == arm);
        let all: HashSet<&str> = rows.map(|row| row["replaced"].as_str()).collect();
        all.into_iter().collect::<Vec<_>>()
    };
    // Of 16 rows half a row a step, and two and a half.
    assert_eq!(shares.map(replaced), [["0.03125"], ["0.15625"], ["0"]]);
    let again = ["--arms", "true-data:replace:0.001", "--out", "never"];
    lab.smoke(&again)
        .exits(2)
        .says(&["0.001 of 16 rows is less than one in all steps of a phase"]);
    let dropped = [
        "--set",
        "replay.fractions=drop",
        "--out",
        "dropped",
        "--arms",
    ];
    lab.smoke(&[&dropped[..], &["true-data:replace:0.15625"]].concat())
        .exits(0);
    let row = Table::read(&lab.path("dropped/summary.csv")).rows.remove(0);
    assert_eq!(row["replaced"], "0.125");
    lab.smoke(&[&dropped[..], &["true-data:replace:0.03125"]].concat())
        .exits(2)
        .says(&["is less than one;"]);
}
