//! What a run will take, told before it takes it.

use std::time::Instant;

use forgetlab_tests::{Lab, SMOKE, Table};
use serde_json::Value;

/// What a dry run says of one run.
fn predicted(lab: &Lab, args: &[&str]) -> Value {
    let done = lab
        .forgetlab(&[args, &["--dry-run", "--json"]].concat())
        .exits(0);
    serde_json::from_str(&done.out).unwrap_or_else(|error| panic!("{error}: {done}"))
}

/// Whether two counts are within some percent of each other.
fn near(a: f64, b: f64, percent: f64) -> bool {
    (a - b).abs() <= percent / 100.0 * b.abs()
}

/// A budget that is planned by other counts than those that are counted is no budget.
#[test]
fn tokens_and_flops_are_those_that_the_run_then_counts() {
    let lab = Lab::new();
    let arms = "none,none:kl-new:1,true-data:kl:3,true-data:replace:0.3,bos-prompted:ntp:1,self-generated:kl+steps=9";
    let args = [SMOKE, &["--arms", arms, "--seed", "1", "--seed", "2"]].concat();
    let told = predicted(&lab, &args);
    assert!(!lab.path("results").exists(), "nothing is written");
    assert_eq!(
        (&told["problem"], &told["tokens_exact"]),
        (&Value::Null, &true.into())
    );
    assert_eq!(
        (&told["flops_exact"], &told["at_most"]),
        (&false.into(), &false.into())
    );
    let done = lab
        .forgetlab(&[&args[..], &["--out", "run"]].concat())
        .exits(0);
    let summary = Table::read(&lab.path("run/summary.csv"));
    let arms = told["arms"].as_array().expect("arms");
    assert_eq!(arms.len(), 12, "{done}");
    let mut exact = 0;
    for arm in arms {
        let (name, seed) = (arm["name"].as_str().expect("name"), arm["seed"].to_string());
        let rows = summary.arm(name);
        let row = rows.iter().find(|row| row["seed"] == seed).expect("a row");
        assert_eq!(arm["tokens"].to_string(), row["tokens_trained"], "{name}");
        assert_eq!(
            arm["tokens_generated"].to_string(),
            row["tokens_generated"],
            "{name}"
        );
        let kinds = [
            "flops_train",
            "flops_reference",
            "flops_generate",
            "flops_eval",
        ];
        for kind in kinds {
            let (told, counted) = (
                arm[kind].as_f64().expect("FLOPs"),
                row[kind].parse().expect("FLOPs"),
            );
            match arm["flops_exact"] == true {
                true => assert_eq!(told, counted, "{name}: {kind}"),
                false => assert!(
                    near(told, counted, 5.0),
                    "{name}: {kind}: {told}, {counted}"
                ),
            }
        }
        exact += usize::from(arm["flops_exact"] == true);
        if name.starts_with("true-data") || name.starts_with("none") {
            assert_eq!(arm["flops_exact"], true, "{name}");
        }
    }
    assert!(exact >= 8, "{told}");
    // The first phase counts once a seed.
    let sum: u64 = arms.iter().filter_map(|arm| arm["tokens"].as_u64()).sum();
    assert!(
        told["tokens"]
            .as_u64()
            .is_some_and(|all| all > 0 && all < sum),
        "{told}"
    );
    // The same memory that the run says of itself.
    let log = std::fs::read_to_string(lab.path("run/events.jsonl")).expect("events");
    let bytes = told["memory_bytes"].as_f64().expect("bytes");
    let about = format!("memory: about {:.1} MiB", bytes / f64::from(1 << 20));
    assert!(log.contains(&about), "{about}");
}

/// Of text no row is like another: what is said to be exact must be, and the rest near.
#[test]
fn texts_are_counted_row_by_row() {
    let lab = Lab::new();
    let args = ["run", "instruct", "--preset", "smoke", "--threads", "1"];
    let told = predicted(&lab, &args);
    assert_eq!(told["problem"], Value::Null, "{told}");
    lab.forgetlab(&[&args[..], &["--out", "run"]].concat())
        .exits(0);
    let summary = Table::read(&lab.path("run/summary.csv"));
    for arm in told["arms"].as_array().expect("arms") {
        let name = arm["name"].as_str().expect("name");
        let row = summary.arm(name)[0];
        let counted = |column: &str| -> f64 { row[column].parse().expect("a number") };
        let tokens = arm["tokens"].as_f64().expect("tokens");
        match arm["tokens_exact"] == true {
            true => assert_eq!(tokens, counted("tokens_trained"), "{name}"),
            false => assert!(
                near(tokens, counted("tokens_trained"), 20.0),
                "{name}: {tokens}"
            ),
        }
        if arm["flops_exact"] == true {
            for kind in ["flops_train", "flops_reference", "flops_eval"] {
                assert_eq!(arm[kind].as_f64(), Some(counted(kind)), "{name}: {kind}");
            }
        }
    }
    let none = &told["arms"][0];
    assert_eq!(
        (&none["name"], &none["flops_exact"]),
        (&"none".into(), &true.into())
    );
}

/// A time that is made up costs a night; where it is from must be said.
#[test]
fn a_time_says_where_it_is_from() {
    let lab = Lab::new();
    let args = [SMOKE, &["--arms", "none,bos-prompted:kl"]].concat();
    let start = Instant::now();
    let first = predicted(&lab, &args);
    let took = start.elapsed().as_secs_f64();
    assert!(
        took < 10.0,
        "somebody waits for it with every key: {took} s"
    );
    let from = |told: &Value| told["seconds_from"].as_str().expect("words").to_owned();
    assert!(from(&first).contains("tried out here"), "{first}");
    assert!(
        first["seconds"]
            .as_f64()
            .is_some_and(|s| s > 0.0 && s < 600.0),
        "{first}"
    );
    lab.forgetlab(&[&args[..], &["--out", "results/runs/before"]].concat())
        .exits(0);
    let second = predicted(&lab, &args);
    assert!(
        from(&second).contains("1 past run of this model here: before"),
        "{second}"
    );
    let other = predicted(&lab, &[&args[..], &["--set", "model.d_model=32"]].concat());
    assert!(
        from(&other).contains("tried out here"),
        "another model: {other}"
    );
    let tables = lab
        .forgetlab(&[&args[..], &["--dry-run"]].concat())
        .exits(0);
    tables.says(&[
        "in all",
        "Memory: about ",
        "MiB",
        "Time: about ",
        "past run of this model",
    ]);
    // What cannot be run here is told, not guessed.
    let paper = predicted(&lab, &["run", "method-comparison", "--preset", "paper"]);
    assert!(
        paper["problem"]
            .as_str()
            .is_some_and(|why| why.contains("is not here")),
        "{paper}"
    );
    assert!(
        paper["tokens"].is_null() && paper["seconds"].is_null(),
        "{paper}"
    );
    let line = predicted(&lab, &["run", "regression-1d", "--preset", "smoke"]);
    assert!(
        line["tokens"].is_null() && line["memory_bytes"].as_f64() > Some(0.0),
        "{line}"
    );
    lab.forgetlab(&[
        "run",
        "pretrain-length",
        "--preset",
        "smoke",
        "--dry-run",
        "--json",
    ])
    .exits(0)
    .says(&["\"name\":\"length="]);
    lab.forgetlab(&[SMOKE, &["--json"]].concat())
        .exits(2)
        .says(&["--dry-run"]);
}

/// Bytes of the checkpoints under a folder.
fn checkpoints(folder: &std::path::Path) -> f64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| match entry.path() {
        path if path.is_dir() => checkpoints(&path),
        path if path.extension().is_some_and(|e| e == "safetensors") => {
            entry.metadata().expect("a file").len() as f64
        }
        _ => 0.0,
    });
    sizes.sum()
}

/// Else a run would fill the disk in its last hour, or be refused where there is room.
#[test]
fn the_disk_of_checkpoints_is_told_and_is_no_less_than_what_is_taken() {
    let lab = Lab::new();
    let wide = ["--set", "model.d_model=128", "--set", "model.n_layers=4"];
    let args = [SMOKE, &wide].concat();
    let told = predicted(&lab, &args);
    let disk = told["disk_bytes"].as_f64().expect("a number of bytes");
    let parts = told["disk"].as_object().expect("bytes by purpose");
    let sum: f64 = parts.values().filter_map(Value::as_f64).sum();
    assert!(near(sum, disk, 0.01) && told["disk_free_bytes"].as_f64() > Some(0.0));
    lab.forgetlab(&[&args[..], &["--dry-run"]].concat())
        .exits(0)
        .says(&[
            "Disk: checkpoints take up to ",
            "checkpoints of arms",
            " free",
        ]);
    lab.forgetlab(&[&args[..], &["--out", "run"]].concat())
        .exits(0)
        .says(&["disk: checkpoints take up to "]);
    let results = checkpoints(&lab.path("results"));
    let taken = results + checkpoints(&lab.path("run"));
    // Arms that are over keep one of their two checkpoints.
    assert!(
        (1.0..2.2).contains(&(disk / taken)),
        "{disk} bytes are predicted, {taken} were taken, {results} of them under results"
    );
}

/// Else a night's run would end at the first checkpoint that the disk has no room for.
#[test]
fn a_run_that_no_disk_has_room_for_is_refused_before_it_begins() {
    let lab = Lab::new();
    let set = "--set model.d_model=512 --set model.n_layers=16 --set training.concurrent_arms=1";
    let set: Vec<&str> = set.split_whitespace().collect();
    let seeds: Vec<String> = (0..1000).map(|seed| seed.to_string()).collect();
    let seeds = format!("seeds=[{}]", seeds.join(","));
    let args = [SMOKE, &set, &["--set", &seeds]].concat();
    let told = predicted(&lab, &args);
    let warnings = told["warnings"].to_string();
    assert!(
        warnings.contains("the checkpoints of this run take up to"),
        "{told}"
    );
    if told["disk_free_bytes"].as_f64() >= told["disk_bytes"].as_f64() {
        eprintln!("skipped: this disk has room for all of it");
        return;
    }
    lab.forgetlab(&args).exits(1).says(&[
        "the checkpoints of this run take up to",
        "of disk",
        "are free (checkpoints of arms",
        "give another folder with --out or FORGETLAB_RESULTS",
    ]);
    assert!(lab.runs().is_empty());
}
