//! From seeds to tables, verdicts, differences and gates, as a researcher asks for them.

use std::fs;

use forgetlab_tests::{Lab, SMOKE, Table};

/// Three seeds of five arms, one of which differs in the learning rate alone.
const ARMS: &str =
    "none,true-data:kl:10,self-generated:kl:10,bos-prompted:kl:10,self-generated:kl:10+lr=1e-3";

fn lab() -> Lab {
    let lab = Lab::new();
    let seeds = ["--seed", "0", "--seed", "1", "--seed", "2", "--out", "run"];
    let more = ["--arms", ARMS, "--set", "phases.steps=24"];
    lab.forgetlab(&[SMOKE, &more, &seeds].concat()).exits(0);
    lab
}

/// Else three seeds would have to be averaged by hand, and every paper would do it otherwise.
#[test]
fn seeds_become_one_row_an_arm_in_every_format_and_csv() {
    let lab = lab();
    let arms: Vec<&str> = ARMS.split(',').collect();
    let text = lab.forgetlab(&["compare", "run"]).exits(0);
    for expected in [
        "3 seeds: means with 95 % intervals",
        "margin 5.0",
        "K = ",
        "difference to none",
        "With 3 seeds no sign or rank test can be significant",
        "at equal new loss",
        "at equal compute",
    ] {
        assert!(
            text.out.replace('\n', " ").contains(expected),
            "{expected}: {text}"
        );
    }
    let latex = lab
        .forgetlab(&["compare", "run", "--format", "latex"])
        .exits(0);
    assert_eq!(latex.out.matches("\\begin{tabular}").count(), 7, "{latex}");
    let short = lab.forgetlab(&["compare", "run", "--latex"]).exits(0);
    assert_eq!(short.out, latex.out);
    let markdown = lab
        .forgetlab(&["compare", "run", "--format", "markdown"])
        .exits(0);
    for arm in &arms {
        let rows = |out: &str, start: &str| {
            out.lines()
                .filter(|line| line.trim().starts_with(start))
                .count()
        };
        assert!(rows(&latex.out, &format!("{arm} &")) >= 4, "{arm}: {latex}");
        assert!(
            rows(&markdown.out, &format!("| `{arm}` |")) >= 4,
            "{arm}: {markdown}"
        );
    }
    let more = [
        "--verdicts",
        "v.csv",
        "--differences",
        "d.csv",
        "--baseline",
        "true-data:kl:10",
    ];
    lab.forgetlab(&[&["compare", "run"][..], &more].concat())
        .exits(0);
    let verdicts = Table::read(&lab.path("v.csv"));
    assert_eq!(verdicts.values("arm"), arms);
    assert_eq!(verdicts.values("seeds"), ["3"]);
    // Two old datasets, two metrics.
    assert_eq!(verdicts.rows.len(), 5 * 2 * 2);
    let differences = Table::read(&lab.path("d.csv"));
    assert_eq!(
        differences.rows.len(),
        4 * 3 * 2,
        "each arm but the baseline"
    );
    for row in &differences.rows {
        let number = |column: &str| row[column].parse::<f64>().expect("a number");
        assert!(
            number("difference_low") <= number("difference")
                && number("difference") <= number("difference_high")
        );
        // Seeds that differ by nothing are not tested.
        assert_eq!(row["p"].is_empty(), row["p_holm"].is_empty(), "{row:?}");
        if !row["p"].is_empty() {
            assert!(number("p_holm") >= number("p"), "{row:?}");
            assert!((1.0..=4.0).contains(&number("arms_tested")), "{row:?}");
        }
        assert_eq!(row["baseline"], "true-data:kl:10");
    }
    let single = lab.forgetlab(&["compare", "run", "--seeds"]).exits(0);
    single.says(&[
        "#0 none",
        "#2 self-generated:kl:10+lr=1e-3",
        "says nothing about other",
    ]);
    // The run's own files say the same.
    assert_eq!(Table::read(&lab.path("run/verdicts.csv")), verdicts);
}

/// A gate that passes a run that forgets is worse than none.
#[test]
fn a_gate_fails_with_its_own_exit_code_and_says_why() {
    let lab = lab();
    let gate = |more: &[&str]| lab.forgetlab(&[&["compare", "run"][..], more].concat());
    gate(&["--fail-if", "forgot>2", "--allow-unclear"]).exits(0);
    gate(&["--fail-if", "learned<2"])
        .exits(4)
        .says(&["fails: none learned as little as"]);
    gate(&["--fail-if", "learned<2", "--arms", "true-data:kl:10"])
        .exits(4)
        .says(&["fails: true-data"]);
    gate(&["--fail-if", "forgot<0.05"])
        .exits(2)
        .says(&["forgot>0.05"]);
    gate(&["--baseline", "nobody"])
        .exits(2)
        .says(&["no arm is called `nobody`", "self-generated:kl:10+lr=1e-3"]);
}

/// Runs of unlike settings put side by side, and called one arm, would be a wrong comparison.
#[test]
fn seeds_of_several_runs_are_one_arm_where_the_settings_agree_and_else_differ_by_name() {
    let lab = Lab::new();
    for (out, seed, set) in [("a", "0", "3e-3"), ("b", "1", "3e-3"), ("c", "2", "1e-3")] {
        let set = format!("optimizer.lr={set}");
        lab.smoke(&[
            "--arms", "none", "--seed", seed, "--set", &set, "--out", out,
        ])
        .exits(0);
    }
    let same = lab.forgetlab(&["compare", "a", "b"]).exits(0);
    assert!(
        same.out.contains("2 seeds") && !same.out.contains("differ in"),
        "{same}"
    );
    let unlike = lab.forgetlab(&["compare", "a", "b", "c"]).exits(0);
    unlike.says(&[
        "the runs differ in",
        "optimizer.lr",
        "a and b: none",
        "c: none",
        "0.001",
    ]);
    // Without events nothing is known of single rows, and it is said.
    fs::create_dir(lab.path("kept")).expect("folder");
    fs::copy(lab.path("a/metrics.csv"), lab.path("kept/metrics.csv")).expect("copy");
    lab.forgetlab(&["compare", "kept"])
        .exits(0)
        .says(&["none: without the scores of single rows"]);
}
