//! A pretrained model finetuned: what such a run leaves, that stopping it changes nothing, and bad files.

use std::fs;
use std::path::Path;

use forgetlab_tests::{Figures, Lab, Table, events, wait_for};
use rustix::process::Signal;

/// All of it on what is built in, in a second or two.
const SMOKE: &[&str] = &["run", "instruct", "--preset", "smoke", "--threads", "1"];

fn instruct<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [SMOKE, more].concat()
}

fn number(field: &str) -> f64 {
    field
        .parse()
        .unwrap_or_else(|error| panic!("{field:?}: {error}"))
}

/// What a run must have found, however often it was stopped.
fn must_equal(run: &Path, other: &Path, why: &str) {
    Figures::of(run).must_equal(&Figures::of(other), why);
    for name in ["choices.csv", "replay.csv"] {
        let (a, b) = (Table::read(&run.join(name)), Table::read(&other.join(name)));
        assert_eq!(a, b, "{why}: {name}");
    }
}

/// One look an interval at what each arm replays, with figures that can be.
fn replay_is_looked_at(run: &Path, arms: &[&str]) {
    let replay = Table::read(&run.join("replay.csv"));
    assert_eq!(replay.values("arm"), arms, "`none` replays nothing");
    for arm in arms {
        let rows = replay.arm(arm);
        let steps: Vec<&str> = rows.iter().map(|row| row["step"].as_str()).collect();
        assert_eq!(steps, ["0", "4", "8"], "{arm}: a look an interval");
        for row in rows {
            assert_eq!(row["rows"], "2", "the whole batch");
            let nll = number(&row["nll"]);
            // A random model of 1024 tokens knows next to nothing: ln 1024 = 6.9.
            assert!((3.0..9.0).contains(&nll), "{row:?}");
            let shares = ["distinct_1", "distinct_2", "distinct_3", "distinct_4"];
            assert!(
                shares
                    .iter()
                    .all(|&n| (0.0..=1.0).contains(&number(&row[n])))
            );
        }
    }
}

/// Standard errors by their formula, and the accuracies of `metrics.csv`.
fn choices_agree_with_metrics(run: &Path, metrics: &Table, arms: usize) {
    let choices = Table::read(&run.join("choices.csv"));
    assert_eq!(choices.rows.len(), arms * (4 + 2 + 2));
    for row in &choices.rows {
        let (n, p) = (number(&row["questions"]), number(&row["accuracy"]));
        // The sample's standard deviation over √n.
        let stderr = (p * (1.0 - p) / (n - 1.0)).sqrt();
        assert!(
            (number(&row["accuracy_stderr"]) - stderr).abs() < 1e-9,
            "{row:?}"
        );
        let plain = row["dataset"].starts_with("plain");
        assert_eq!(row["accuracy_normalised"].is_empty(), !plain, "{row:?}");
        assert_eq!(
            row["accuracy_normalised_stderr"].is_empty(),
            !plain,
            "{row:?}"
        );
        let same = metrics.rows.iter().find(|metric| {
            ["arm", "step", "dataset"]
                .iter()
                .all(|&key| metric[key] == row[key])
        });
        let column = if plain {
            "accuracy_normalised"
        } else {
            "accuracy"
        };
        assert_eq!(same.expect("in metrics.csv")["accuracy"], row[column]);
    }
}

/// Else a researcher would look in vain for what the study was run for.
#[test]
fn losses_questions_replay_and_retention_are_in_the_files_of_a_run() {
    let lab = Lab::new();
    lab.forgetlab(&instruct(&["--out", "run"])).exits(0).says(&[
        "verilog",
        "retention.svg",
        "finished",
    ]);
    let run = lab.path("run");
    let metrics = Table::read(&run.join("metrics.csv"));
    let arms = metrics.values("arm");
    let expected = [
        "none",
        "true-data:kl:1",
        "bos-prompted:kl:1",
        "bos-prompted:ntp:1",
    ];
    assert_eq!(arms, expected);
    for arm in &arms {
        let rows = metrics.arm(arm);
        let of = |dataset: &str, column: &str| -> Vec<String> {
            let rows = rows.iter().filter(|row| row["dataset"] == dataset);
            rows.map(|row| row[column].clone()).collect()
        };
        assert_eq!(of("english", "step"), ["0", "4", "8", "12"], "{arm}");
        assert_eq!(of("english", "role"), ["new", "old", "old", "old"], "{arm}");
        let verilog = ["future", "new", "new", "new"];
        assert_eq!(of("verilog", "role"), verilog, "{arm}");
        for dataset in ["english", "verilog"] {
            let kl: Vec<f64> = of(dataset, "kl").iter().map(|kl| number(kl)).collect();
            assert_eq!(
                kl[0], 0.0,
                "{arm}: the untouched model is its own reference"
            );
            assert!(kl[1..].iter().all(|&kl| kl > 0.0), "{arm}: {kl:?}");
        }
        let ntp: Vec<f64> = of("verilog", "ntp").iter().map(|ntp| number(ntp)).collect();
        assert!(ntp[3] < ntp[0], "{arm} learns nothing: {ntp:?}");
        for (questions, steps) in [
            ("plain_8", &["0", "4", "8", "12"][..]),
            ("plain", &["0", "12"]),
            ("chat", &["0", "12"]),
        ] {
            assert_eq!(of(questions, "step"), steps, "{arm}, {questions}");
            assert!(of(questions, "role").iter().all(|role| role == "old"));
            let right = |a: &String| (0.0..=1.0).contains(&number(a));
            assert!(of(questions, "accuracy").iter().all(right), "{arm}");
            let forgotten = number(of(questions, "forgetting_accuracy").last().expect("a row"));
            let accuracy = of(questions, "accuracy");
            let (then, now) = (
                number(&accuracy[0]),
                number(accuracy.last().expect("a row")),
            );
            assert_eq!(forgotten, then - now, "{arm}, {questions}");
        }
    }

    choices_agree_with_metrics(&run, &metrics, arms.len());

    replay_is_looked_at(&run, &expected[1..]);

    let svg = fs::read_to_string(run.join("figures/retention.svg")).expect("retention.svg");
    for text in [
        "bos-prompted:ntp:1",
        "accuracy on plain_8",
        "drift on old data",
        "start of the",
    ] {
        assert!(svg.contains(text), "{text}");
    }
    let png = fs::read(run.join("figures/retention.png")).expect("retention.png");
    assert_eq!(&png[..8], b"\x89PNG\r\n\x1a\n");
}

/// Else a stop in the middle, or memory for one arm only, would change what a study finds; or looking at
/// replay would.
#[test]
fn stopped_resumed_or_one_arm_after_another_the_figures_are_the_same() {
    let lab = Lab::new();
    let longer = ["--set", "phases.verilog.steps=40"];
    let command = |out: &'static str, more: &[&'static str]| {
        instruct(&[&longer, more, &["--out", out]].concat())
    };
    lab.forgetlab(&command("whole", &[])).exits(0);
    let whole = lab.path("whole");

    let run = lab.path("stopped");
    let mut live = lab.start(&command("stopped", &[]));
    wait_for("a part of the run", || events(&run) > 60 || !live.runs());
    live.signal(Signal::TERM);
    live.end().exits(130).says(&["SIGTERM", "forgetlab resume"]);
    assert_ne!(
        Table::read(&run.join("metrics.csv")),
        Table::read(&whole.join("metrics.csv"))
    );
    lab.forgetlab(&["resume", "stopped"]).exits(0);
    must_equal(&run, &whole, "stopped and resumed");

    let one = ["--set", "training.concurrent_arms=1"];
    lab.forgetlab(&command("one", &one)).exits(0);
    must_equal(&lab.path("one"), &whole, "one arm after another");
}

/// Else what is looked at, and how often, would decide what is trained.
#[test]
fn looking_at_replay_changes_no_bit_of_what_is_trained() {
    let lab = Lab::new();
    let looks = |out: &str, every: &str| -> (usize, Vec<(String, Vec<String>)>) {
        let every = format!("training.eval_every={every}");
        lab.forgetlab(&instruct(&["--set", &every, "--out", out]))
            .exits(0);
        let run = lab.path(out);
        let metrics = Table::read(&run.join("metrics.csv"));
        let last = metrics.rows.iter().filter(|row| row["step"] == "12");
        let found = last.map(|row| {
            let figures = [
                "ntp",
                "kl",
                "accuracy",
                "tokens_trained",
                "tokens_generated",
            ];
            let name = format!("{} {}", row["arm"], row["dataset"]);
            (name, figures.map(|figure| row[figure].clone()).into())
        });
        (
            Table::read(&run.join("replay.csv")).rows.len(),
            found.collect(),
        )
    };
    let (often, seldom) = (looks("often", "1"), looks("seldom", "12"));
    assert_eq!((often.0, seldom.0), (36, 3), "looks of three arms");
    assert_eq!(often.1, seldom.1);
}

/// Else a slip in a file would be found out after hours, or never.
#[test]
fn bad_files_are_named_with_what_is_wrong_before_anything_is_trained() {
    let lab = Lab::new();
    let good = r#"{"question":"q","choices":["a","b"],"answer":0}"#;
    let bad = good.replace("\"answer\":0", "\"answer\":2");
    fs::write(lab.path("wrong.jsonl"), format!("{good}\n{bad}\n")).expect("write");
    fs::write(lab.path("empty.txt"), "").expect("write");
    fs::write(lab.path("blank.jsonl"), "\n\n").expect("write");
    let user = r#"{"messages":[{"role":"user","content":"Write a gate."}]}"#;
    fs::write(lab.path("unanswered.jsonl"), format!("{user}\n")).expect("write");
    for (set, texts) in [
        (
            "data.questions.plain.file=wrong.jsonl",
            &["questions `plain`", "wrong.jsonl, line 2", "answer"][..],
        ),
        (
            "data.questions.chat.file=blank.jsonl",
            &["questions `chat`", "blank.jsonl", "is empty"],
        ),
        (
            "data.datasets.verilog.files=[\"empty.txt\"]",
            &["dataset `verilog`", "empty.txt", "is empty"],
        ),
        (
            "data.datasets.verilog.files=[\"missing.txt\"]",
            &["dataset `verilog`", "missing.txt", "No such file"],
        ),
        (
            "data.datasets.verilog.files=[\"unanswered.jsonl\"]",
            &["dataset `verilog`", "unanswered.jsonl, line 1", "assistant"],
        ),
        (
            "data.rows.seq_len=100000",
            &["data.rows.seq_len = 100000", "tiny-llama", "at most"],
        ),
        ("model.pretrained=nowhere.gguf", &["nowhere.gguf"]),
    ] {
        let done = lab
            .forgetlab(&instruct(&["--set", set]))
            .exits(1)
            .says(texts);
        assert_eq!(done.err.matches("error:").count(), 1, "one message: {done}");
        assert!(lab.runs().is_empty(), "a run was begun: {done}");
    }
    for (set, texts) in [
        ("data.rows.seq_len=1", &["data.rows.seq_len", "must be"][..]),
        (
            "data.datasets.verilgo.files=[\"x.txt\"]",
            &["did you mean", "verilog"],
        ),
        (
            "phases.verilog.dataset=verilgo",
            &["unknown dataset `verilgo`", "`verilog`"],
        ),
    ] {
        lab.forgetlab(&instruct(&["--set", set]))
            .exits(2)
            .says(texts);
        assert!(lab.runs().is_empty(), "a run was begun");
    }
}

/// Else one half of a run would be trained on other data than the other.
#[test]
fn data_that_changed_under_a_run_are_refused_and_taken_again_when_they_are_back() {
    let lab = Lab::new();
    let file = lab.path("prose.txt");
    let text: String = (0..200)
        .map(|i| {
            format!(
                "Number {i} is a part of a small text of {} words.\n\n",
                i * 7 % 31
            )
        })
        .collect();
    fs::write(&file, &text).expect("write");
    let sets = [
        "data.datasets.verilog.files=[\"prose.txt\"]",
        "phases.verilog.steps=100000",
    ];
    let command = instruct(&["--set", sets[0], "--set", sets[1], "--out", "run"]);
    let run = lab.path("run");
    let mut live = lab.start(&command);
    wait_for("a part of the run", || events(&run) > 60 || !live.runs());
    live.signal(Signal::TERM);
    live.end().exits(130);

    fs::write(&file, text.replace("Number 3 ", "Number 5 ")).expect("write");
    let before = events(&run);
    lab.forgetlab(&["resume", "run"]).exits(1).says(&[
        "`verilog`",
        "changed since the run was made",
        "start a new run",
    ]);
    assert_eq!(events(&run), before, "nothing was trained");
    fs::write(&file, &text).expect("write");
    let mut live = lab.start(&["resume", "run"]);
    wait_for("the run to go on", || {
        events(&run) > before + 20 || !live.runs()
    });
    live.signal(Signal::TERM);
    live.end().exits(130);
}
