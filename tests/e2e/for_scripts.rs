//! What programs read: lists as one JSON object a line, completions of a shell, manual pages.

use std::fs;
use std::process::Command;

use forgetlab_tests::{Done, Lab, Table};
use serde_json::Value;

/// Every line of what was printed.
fn lines(done: &Done) -> Vec<Value> {
    let lines = done.out.lines();
    let parsed: Result<Vec<Value>, _> = lines.map(serde_json::from_str).collect();
    parsed.unwrap_or_else(|error| panic!("{error}: {}", done.out))
}

/// Else a script would have to cut columns out of a table that is made to fit a terminal.
#[test]
fn runs_sweeps_and_what_cannot_be_read_are_objects() {
    let lab = Lab::new();
    assert!(lines(&lab.forgetlab(&["list", "--json"]).exits(0)).is_empty());
    lab.smoke(&["--arms", "none,true-data:kl", "--seed", "3", "--seed", "5"])
        .exits(0);
    let sweep = "run pretrain-length --preset smoke --arms none";
    let sweep: Vec<&str> = sweep.split(' ').collect();
    lab.forgetlab(&sweep).exits(0);
    let spoilt = lab.path("results/runs/20200101T000000Z-spoilt");
    fs::create_dir_all(&spoilt).expect("folder");
    fs::write(spoilt.join("config.toml"), "preset = ").expect("file");
    let all = lines(&lab.forgetlab(&["list", "--json"]).exits(1));
    let [bad, run, sweep] = &all[..] else {
        panic!("{all:?}");
    };
    assert_eq!(
        (&bad["name"], &bad["status"]),
        (&"20200101T000000Z-spoilt".into(), &"unreadable".into())
    );
    assert_eq!(run["status"], "finished");
    assert_eq!((&run["arms"], &run["percent"]), (&2.into(), &100.into()));
    assert_eq!(run["seeds"], serde_json::json!([3, 5]));
    assert!(run["started"].as_u64().is_some_and(|at| at > 1_700_000_000));
    assert!(run.get("points").is_none());
    let detail = run["arms_detail"].as_array().expect("arms");
    assert_eq!(detail.len(), 2);
    assert!(
        detail[0]["verdict"].is_string() && detail[0]["forgot"].is_f64(),
        "{run}"
    );
    assert_eq!(
        (&run["display_name"], &run["tags"]),
        (&Value::Null, &serde_json::json!([]))
    );
    let counts = &sweep["points"];
    assert!(
        counts["all"].as_u64() > Some(1) && counts["all"] == counts["finished"],
        "{sweep}"
    );
    let name = sweep["name"].as_str().expect("name");
    let points = lines(&lab.forgetlab(&["list", name, "--json"]).exits(0));
    assert_eq!(Some(points.len() as u64), counts["all"].as_u64());
    assert!(points.iter().all(|point| point["status"] == "finished"));
}

/// The same of everything else that is listed.
#[test]
fn experiments_strategies_and_the_machine_are_objects() {
    let lab = Lab::new();
    let experiments = lines(&lab.forgetlab(&["experiments", "--json"]).exits(0));
    let toy = experiments
        .iter()
        .find(|line| line["experiment"] == "toy-continual");
    assert_eq!(toy.expect("toy-continual")["default_preset"], "cpu");
    let presets = lines(
        &lab.forgetlab(&["experiments", "toy-continual", "--json"])
            .exits(0),
    );
    let cpu = presets.iter().find(|line| line["default"] == true);
    assert_eq!(cpu.expect("default")["arms"][0], "none");
    let plugins = lines(&lab.forgetlab(&["plugins", "list", "--json"]).exits(0));
    let names: Vec<&str> = plugins
        .iter()
        .filter_map(|line| line["strategy"].as_str())
        .collect();
    assert_eq!(
        names,
        ["bos-prompted", "none", "self-generated", "true-data"]
    );
    assert!(plugins[0]["settings"][0]["name"].is_string());
    fs::create_dir(lab.path("more")).expect("folder");
    fs::write(lab.path("more/libno_strategy.so"), "no library").expect("file");
    let args = ["plugins", "list", "--plugin-dir", "more", "--json"];
    let plugins = lines(&lab.forgetlab(&args).exits(0));
    assert!(plugins.iter().any(|line| line["refused"].is_string()));
    let checks = lines(&lab.forgetlab(&["doctor", "--json"]).exits(0));
    assert!(
        checks
            .iter()
            .any(|line| line["check"] == "CPU" && line["text"].is_string())
    );
}

/// A gate in somebody's CI reads figures; rounded ones, or those of a table made to fit 80 columns, would do it harm.
#[test]
fn a_comparison_is_an_object_an_arm() {
    let lab = Lab::new();
    let arms = ["--arms", "none,true-data:kl", "--out", "run"];
    lab.smoke(&[&arms[..], &["--seed", "3", "--seed", "5"]].concat())
        .exits(0);
    let compare = |more: &[&str]| lab.forgetlab(&[&["compare", "run"], more].concat());
    let all = lines(&compare(&["--json"]).exits(0));
    let [none, replay] = &all[..] else {
        panic!("{all:?}");
    };
    assert_eq!(
        (&none["arm"], &replay["strategy"]),
        (&"none".into(), &"true-data".into())
    );
    assert_eq!(none["seeds"], serde_json::json!([3, 5]));
    compare(&[
        "--verdicts",
        "verdicts.csv",
        "--differences",
        "differences.csv",
    ])
    .exits(0);
    // The same numbers as in the CSVs.
    for (file, list, number) in [
        ("verdicts.csv", "forgetting", "forgetting"),
        ("verdicts.csv", "forgetting", "forgetting_high"),
        ("verdicts.csv", "forgetting", "margin"),
        ("differences.csv", "differences", "difference"),
        ("differences.csv", "differences", "difference_low"),
    ] {
        let rows = Table::read(&lab.path(file)).rows;
        assert!(!rows.is_empty(), "{file}");
        for row in rows {
            let own = all.iter().find(|arm| arm["arm"] == row["arm"]);
            let own = own.expect("arm")[list].as_array().expect("rows");
            let same = |object: &&Value| {
                let names = ["dataset", "metric", "quantity"];
                let mut names = names.iter().filter(|name| row.contains_key(**name));
                names.all(|name| object[name] == row[*name])
            };
            let found = own.iter().find(same).expect("row")[number].as_f64();
            assert_eq!(found, row[number].parse().ok(), "{file} {number}");
        }
    }
    let tokens = replay["cost"]["tokens_trained"].as_f64();
    assert!(tokens > none["cost"]["tokens_trained"].as_f64(), "{all:?}");
    assert!(none["final"]["sort"]["ntp"].as_f64() > Some(0.0), "{none}");
    assert_eq!(
        (&none["baseline"], &none["differences"]),
        (&"none".into(), &serde_json::json!([]))
    );
    let failed = compare(&["--json", "--fail-if", "forgot>-9"]).exits(4);
    assert_eq!(lines(&failed).len(), 2);
    compare(&["--json", "--format", "latex"]).exits(2);
}

/// A script with an error would greet its user at every login.
#[test]
fn completions_and_manual_pages_name_every_command() {
    let lab = Lab::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = lab.forgetlab(&["completions", shell]).exits(0).out;
        for word in ["prune", "tokenize", "best-rates"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
        // What this program says to itself is nobody's to type.
        assert!(!script.contains("plugin-child"), "{shell}");
        if shell == "bash" {
            fs::write(lab.path("completions"), &script).expect("file");
            let checked = Command::new("bash")
                .arg("-n")
                .arg(lab.path("completions"))
                .status();
            assert!(checked.expect("bash").success());
        }
    }
    lab.forgetlab(&["completions", "cmd"]).exits(2);
    let page = lab.forgetlab(&["man"]).exits(0).out;
    assert!(page.contains(".TH forgetlab 1"), "{page}");
    lab.forgetlab(&["man", "--out", "pages"])
        .exits(0)
        .says(&["pages/forgetlab.1"]);
    for page in ["forgetlab.1", "forgetlab-run.1", "forgetlab-runs-prune.1"] {
        let text = fs::read_to_string(lab.path("pages").join(page)).expect(page);
        assert!(text.contains(".SH NAME"), "{page}");
    }
    fs::write(lab.path("file"), "").expect("file");
    lab.forgetlab(&["man", "--out", "file"])
        .exits(1)
        .says(&["cannot write manual pages to file"]);
}
