//! What a run leaves behind, and what can be done with it afterwards.

use std::fs;

use forgetlab_tests::{Figures, Lab, Table, build_crate_outside, compile_c, library, root};

const METRICS: &str = "experiment,arm,strategy,objective,coeff,lr,seed,phase,step,tokens_trained,\
    tokens_generated,flops,seconds,dataset,role,ntp,kl,accuracy,forgetting_ntp,forgetting_accuracy";
const SUMMARY: &str = "experiment,arm,strategy,objective,coeff,lr,seed,dataset,role,start_ntp,\
    final_ntp,best_ntp,start_accuracy,final_accuracy,best_accuracy,forgetting_ntp,\
    forgetting_accuracy,learning_ntp,learning_accuracy,worst_ntp,worst_ntp_step,worst_accuracy,\
    worst_accuracy_step,forgetting_best_ntp,forgetting_best_accuracy,retention_ntp,\
    retention_accuracy,kl_old,kl_new,right_to_wrong,wrong_to_right,right_to_wrong_corrected,\
    wrong_to_right_corrected,average_accuracy,backward_transfer,forward_transfer,min_accuracy,\
    worst_case_accuracy,tokens_trained,tokens_generated,\
    seconds_train,seconds_generate,seconds_eval,flops_train,flops_reference,\
    flops_generate,flops_eval,replaced,phase_end,status";

/// Else a script that reads the CSVs would break, or a figure be plotted twice.
#[test]
fn a_run_leaves_its_csvs_figures_and_configuration() {
    let lab = Lab::new();
    let done = lab.smoke(&["--seed", "0", "--seed", "7"]).exits(0);
    let [run] = &lab.runs()[..] else {
        panic!("{done}")
    };
    let name = run.file_name().and_then(|n| n.to_str()).expect("name");
    for file in [
        "config.toml",
        "environment.json",
        "events.jsonl",
        "metrics.csv",
        "summary.csv",
        "figures/accuracy.svg",
        "figures/accuracy.png",
    ] {
        assert!(
            run.join(file).metadata().is_ok_and(|m| m.len() > 0),
            "{file}"
        );
    }
    let done = done.says(&[
        &format!("{name}/metrics.csv"),
        &format!("{name}/figures/accuracy.png"),
        "self-generated:kl:10",
        "final accuracy, %",
    ]);
    assert!(!done.out.contains('\u{1b}'), "no colours in a pipe: {done}");

    let metrics = Table::read(&run.join("metrics.csv"));
    assert_eq!(metrics.columns.join(","), METRICS);
    let mut keys: Vec<_> = metrics
        .rows
        .iter()
        .map(|r| ["arm", "seed", "step", "dataset"].map(|c| r[c].clone()))
        .collect();
    // 4 arms, 2 seeds, 3 datasets, steps 0 to 24 by 4.
    assert_eq!(keys.len(), 4 * 2 * 3 * 7);
    keys.sort();
    keys.dedup();
    assert_eq!(
        keys.len(),
        4 * 2 * 3 * 7,
        "one row per (arm, step, dataset)"
    );
    let summary = Table::read(&run.join("summary.csv"));
    assert_eq!(summary.columns.join(","), SUMMARY);
    assert_eq!(summary.rows.len(), 4 * 2 * 3);
    assert_eq!(summary.values("status"), ["finished"]);

    let environment = fs::read(run.join("environment.json")).expect("environment.json");
    let environment: serde_json::Value = serde_json::from_slice(&environment).expect("JSON");
    let commit = environment["commit"].as_str().expect("a commit");
    lab.forgetlab(&["--version"]).exits(0).says(&[commit]);
    let peak = environment["peak_memory_bytes"].as_u64();
    assert!(peak.is_some_and(|bytes| bytes > 1 << 20), "{peak:?}");

    // The configuration, and the folder it stands in, can be run again.
    let config = run.join("config.toml");
    for (what, out) in [(config.to_str(), "again"), (run.to_str(), "thrice")] {
        let what = what.expect("UTF-8");
        lab.forgetlab(&["run", what, "--out", out]).exits(0);
        Figures::of(&lab.path(out)).must_equal(&Figures::of(run), what);
    }
}

/// Else arms would be said to cost the same that do not.
#[test]
fn the_flops_of_every_arm_are_counted_apart() {
    let lab = Lab::new();
    let arms = "none,true-data:kl,self-generated:kl,self-generated:ntp:1";
    lab.smoke(&["--arms", arms, "--out", "run"]).exits(0);
    let summary = Table::read(&lab.path("run/summary.csv"));
    let metrics = Table::read(&lab.path("run/metrics.csv"));
    let flops = |arm: &str| {
        let last = summary.arm(arm)[0].clone();
        let parts = ["train", "reference", "generate", "eval"];
        let parts = parts.map(|part| -> f64 {
            let field = &last[&format!("flops_{part}")];
            field.parse().expect("a number")
        });
        let rows = metrics.arm(arm);
        let all: Vec<f64> = rows
            .iter()
            .map(|r| r["flops"].parse().expect("one"))
            .collect();
        let without_eval = parts[..3].iter().sum();
        assert_eq!(all.last(), Some(&without_eval), "{arm}");
        assert!(all.is_sorted() && all[0] == 0.0, "{arm}: {all:?}");
        parts
    };
    let [train, reference, generate, eval] = flops("none");
    assert!(train > 0.0 && eval > 0.0);
    assert_eq!((reference, generate), (0.0, 0.0), "it asks for neither");

    let [with_replay, reference, generate, looked] = flops("true-data:kl:10");
    // The reference's forward is a third of training on the same rows.
    assert_eq!(with_replay - train, 3.0 * reference);
    assert!(reference > 0.0);
    assert_eq!(generate, 0.0);
    // What is replayed is scored now and then, which `none` has not.
    assert!(looked > eval && looked < 1.1 * eval, "{looked} and {eval}");

    let [_, reference, generate, same] = flops("self-generated:kl:10");
    assert!(reference > 0.0 && generate > 0.0);
    assert_eq!(same, looked);
    let [_, reference, same, _] = flops("self-generated:ntp:1");
    assert_eq!((reference, same), (0.0, generate), "no KL, no reference");
}

/// Else `--out` would mix a run with somebody's files, or do finished work again.
#[test]
fn out_takes_an_empty_a_new_or_its_own_folder_and_no_other() {
    let lab = Lab::new();
    fs::create_dir(lab.path("empty")).expect("folder");
    fs::create_dir(lab.path("occupied")).expect("folder");
    fs::write(lab.path("occupied/thesis.tex"), "precious").expect("file");
    lab.smoke(&["--out", "empty"]).exits(0);
    let new = "new/deep/läng run";
    lab.smoke(&["--out", new]).exits(0);
    Figures::of(&lab.path(new)).must_equal(&Figures::of(&lab.path("empty")), new);
    lab.smoke(&["--out", "occupied"]).exits(1).says(&[
        "thesis.tex",
        "occupied",
        "give an empty or a new folder",
    ]);
    assert_eq!(fs::read_dir(lab.path("occupied")).expect("read").count(), 1);

    let before = fs::read(lab.path("empty/events.jsonl")).expect("events");
    lab.smoke(&["--out", "empty"])
        .exits(0)
        .says(&["empty is finished"]);
    lab.smoke(&["--out", "empty", "--seed", "1"])
        .exits(1)
        .says(&["another configuration", "forgetlab resume empty"]);
    for more in [&[][..], &["--detach"]] {
        lab.forgetlab(&[&["resume", "empty"], more].concat())
            .exits(0)
            .says(&["empty is finished"]);
    }
    let after = fs::read(lab.path("empty/events.jsonl")).expect("events");
    assert_eq!(before, after, "a finished run was touched");
}

/// Else two studies could not be put side by side.
#[test]
fn runs_are_listed_and_compared() {
    let lab = Lab::new();
    lab.forgetlab(&["list"])
        .exits(0)
        .says(&["no runs under", "forgetlab run toy-continual"]);
    lab.smoke(&[]).exits(0);
    lab.smoke(&["--arms", "none,none:kl-new:1"]).exits(0);
    let runs = lab.runs();
    let names: Vec<&str> = runs
        .iter()
        .map(|run| run.file_name().and_then(|n| n.to_str()).expect("name"))
        .collect();
    lab.forgetlab(&["list"])
        .exits(0)
        .says(&[names[0], names[1], "finished", "100%"]);
    let done = lab
        .forgetlab(&["compare", names[0], names[1], "--csv", "joined.csv"])
        .exits(0)
        .says(&["none:kl-new:1", "self-generated:kl:10", "wrote joined.csv"]);
    let joined = Table::read(&lab.path("joined.csv"));
    assert_eq!(joined.columns.join(","), format!("run,{SUMMARY}"), "{done}");
    assert_eq!(joined.values("run"), names);
    assert_eq!(joined.rows.len(), 6 * 3);
    // In a pipe the tables, too; the CSV where it is asked for.
    let piped = lab.forgetlab(&["compare", names[0], names[1]]).exits(0);
    assert!(done.out.starts_with(&piped.out), "{piped}");
    let csv = lab
        .forgetlab(&["compare", names[0], names[1], "--csv", "-"])
        .exits(0);
    assert_eq!(Table::parse(&csv.out), joined);
    lab.forgetlab(&["compare", names[0], "2"]).exits(2).says(&[
        "`2` could be any of",
        names[0],
        names[1],
    ]);
    lab.forgetlab(&["resume", &names[0].replace("toy", "tou")])
        .exits(2)
        .says(&["did you mean", names[0]]);
}

/// Else only the lab's own authors could put a strategy to the test.
#[test]
fn strategies_of_strangers_run_as_arms_and_agree_across_languages() {
    let lab = Lab::new();
    for folder in ["c", "rust", "crate"] {
        fs::create_dir(lab.path(folder)).expect("folder");
    }
    let template = root().join("plugin-api/templates/strategy.c");
    compile_c(&template, &lab.path("c").join(library("mine")), None);
    let built = build_crate_outside(&lab.path("crate"));
    fs::copy(built, lab.path("rust").join(library("mine"))).expect("copy");

    let arms = "none,true-data:kl,my-strategy:kl,my-strategy:replace:0.5";
    for folder in ["c", "rust"] {
        let out = format!("run-{folder}");
        lab.smoke(&["--plugin-dir", folder, "--arms", arms, "--out", &out])
            .exits(0);
        let summary = Table::read(&lab.path(&out).join("summary.csv"));
        assert_eq!(summary.values("arm").len(), 4);
        assert_eq!(summary.values("status"), ["finished"]);
        let tokens = |arm: &str| -> u64 {
            let rows = summary.arm(arm);
            assert_eq!(rows.len(), 3, "{arm}");
            rows[0]["tokens_trained"].parse().expect("number")
        };
        // It replays at every other step.
        let (none, all) = (tokens("none"), tokens("true-data:kl:10"));
        assert_eq!(tokens("my-strategy:kl:10") - none, (all - none) / 2);
        assert_eq!(tokens("my-strategy:replace:0.5"), none);
    }
    let of = |run: &str, file: &str| Table::read(&lab.path(run).join(file)).timeless();
    for file in ["metrics.csv", "summary.csv"] {
        assert_eq!(
            of("run-c", file),
            of("run-rust", file),
            "one strategy, two languages"
        );
    }
    let said = of("run-c", "plugin_metrics.csv");
    assert_eq!(said.values("name"), ["batches drawn"]);
    assert_eq!(said.rows.last().map(|row| row["value"].as_str()), Some("8"));
}

/// Else sweeps could not begin at nothing, nor a setting be as large as "never".
#[test]
fn values_at_the_end_of_their_range_work() {
    let lab = Lab::new();
    lab.smoke(&[
        "--arms",
        "none,true-data:replace:0,true-data:replace:1",
        "--out",
        "shares",
    ])
    .exits(0);
    let metrics = Table::read(&lab.path("shares/metrics.csv"));
    let losses = |arm: &str| -> Vec<String> {
        let rows = metrics.arm(arm);
        rows.iter().map(|row| row["ntp"].clone()).collect()
    };
    assert_eq!(losses("none"), losses("true-data:replace:0"));
    assert_ne!(losses("none"), losses("true-data:replace:1"));
    for set in [
        "replay.call_deadline_seconds=1e300",
        "training.checkpoint_seconds=1e300",
        "training.eval_every=9223372036854775807",
        "optimizer.warmup_steps=9223372036854775807",
    ] {
        lab.smoke(&["--set", set]).exits(0);
    }
    let least = "training.batch_size=1 replay.batch_size=1 training.eval_rows=1 model.d_model=2 \
        model.head_dim=2 training.eval_every=1 phases.steps=1 replay.coeff=0";
    let sets = least.split(' ').flat_map(|set| ["--set", set]);
    lab.smoke(&sets.collect::<Vec<_>>()).exits(0);
    lab.smoke(&["--seed", "9223372036854775807"]).exits(0);
}
