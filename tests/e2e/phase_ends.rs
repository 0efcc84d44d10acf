//! Phases that end before their steps do: by a held-out loss, by too many evaluations without a lower one, by time.

use std::fs;
use std::path::Path;

use forgetlab_tests::{Figures, Lab, SMOKE, Table, events, training, wait_for};
use rustix::process::Signal;
use serde_json::Value;

/// How the phases of a run ended: arm, phase, step and reason.
fn ends(run: &Path) -> Vec<(u64, u64, u64, String)> {
    let text = fs::read_to_string(run.join("events.jsonl")).expect("events");
    let events = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let ended = events.filter(|event| event["event"] == "phase_ended");
    let mut ends: Vec<_> = ended
        .map(|event| {
            let number = |name: &str| event[name].as_u64().expect("a number");
            let by = event["by"].as_str().expect("a reason").to_owned();
            (number("arm"), number("phase"), number("step"), by)
        })
        .collect();
    ends.sort();
    ends.dedup();
    ends
}

/// Held-out losses of a dataset by step.
fn losses(run: &Path, arm: &str, dataset: &str) -> Vec<(u64, f64)> {
    let rows = Table::read(&run.join("metrics.csv")).rows;
    let own = rows
        .iter()
        .filter(|row| row["arm"] == arm && row["dataset"] == dataset);
    own.map(|row| {
        let number = |name: &str| row[name].parse::<f64>().expect("a number");
        (number("step") as u64, number("ntp"))
    })
    .collect()
}

/// Three phases of many steps, the second of which another criterion ends.
const LONG: [&str; 4] = [
    "--set",
    "phases.steps=400",
    "--set",
    "training.eval_every=10",
];

/// "Trained until the same new loss" is how methods are compared; a phase that goes on, or stops elsewhere after a
/// crash, would compare other models than it says.
#[test]
fn a_phase_ends_at_the_loss_that_is_wanted_and_the_same_after_a_kill() {
    let lab = Lab::new();
    let arms = ["--arms", "none,true-data:kl,none+target_loss=0.66"];
    let target = [
        "--set",
        "phases.sort.target_loss=0.56",
        "--set",
        "phases.rotate.steps=20",
    ];
    let whole = [SMOKE, &LONG, &arms, &target].concat();
    let done = lab
        .forgetlab(&[&whole[..], &["--out", "whole"]].concat())
        .exits(0);
    let run = lab.path("whole");
    let ended = ends(&run);
    let by: Vec<&str> = ended.iter().map(|end| end.3.as_str()).collect();
    let (met, missed) = (
        ["steps", "target-loss", "steps"],
        ["steps", "steps", "steps"],
    );
    assert_eq!(by, [met, missed, met].concat(), "{ended:?}");
    done.says(&[
        "its data have the loss that was wanted",
        "true-data:kl:10: warning: phase 1 ends by its steps: the lowest held-out loss of sort is 0.",
    ]);
    // Every step is in the curves of training, and no phase has more points than a screen can use.
    for (slug, points) in training(&run) {
        let of = |point: &Value, key: &str| point[key].as_u64().expect("a number");
        let steps: u64 = points.iter().map(|point| of(point, "steps")).sum();
        assert_eq!(
            points.last().map(|point| of(point, "step")),
            Some(steps),
            "{slug}"
        );
        for phase in 0..3 {
            let own = points.iter().filter(|point| of(point, "phase") == phase);
            let (count, end) = (
                own.clone().count(),
                own.map(|point| of(point, "step")).max(),
            );
            assert!(
                (1..=200).contains(&count),
                "{slug}: {count} in phase {phase}"
            );
            let is_end =
                |&(_, p, step, _): &(u64, u64, u64, String)| p == phase && Some(step) == end;
            assert!(
                ended.iter().any(is_end),
                "{slug}: phase {phase} ends at {end:?}"
            );
        }
    }
    for (i, arm, target) in [(0, "none", 0.56), (2, "none+target_loss=0.66", 0.66)] {
        let (from, to) = (ended[3 * i].2, ended[3 * i + 1].2);
        let mut of_phase = losses(&run, arm, "sort");
        of_phase.retain(|&(step, _)| step > from && step <= to);
        let ((_, last), before) = of_phase.split_last().expect("evaluations");
        assert!(*last <= target, "{arm}: {last}");
        let early = before.iter().find(|(_, loss)| *loss <= target);
        assert_eq!(early, None, "{arm}");
    }
    let summary = Table::read(&run.join("summary.csv")).rows;
    assert!(summary.iter().all(|row| row["status"] == "finished"));
    let of_sort = summary.iter().filter(|row| row["dataset"] == "sort");
    let of_sort: Vec<&str> = of_sort.map(|row| row["phase_end"].as_str()).collect();
    assert_eq!(of_sort, ["target-loss", "steps", "target-loss"]);

    let killed = lab.path("killed");
    for at in [30, 90, 150] {
        let mut live = match killed.exists() {
            true => lab.start(&["resume", "killed"]),
            false => lab.start(&[&whole[..], &["--out", "killed"]].concat()),
        };
        wait_for("events of a run", || events(&killed) >= at || !live.runs());
        live.signal(Signal::KILL);
        live.end();
    }
    lab.forgetlab(&["resume", "killed"]).exits(0);
    assert_eq!(ends(&killed), ended);
    Figures::of(&killed).must_equal(&Figures::of(&run), "killed three times");
}

/// Else an overnight run would train on long after it has begun to overfit, or for longer than the machine is had.
#[test]
fn a_phase_ends_when_it_learns_no_more_or_its_time_is_up() {
    let lab = Lab::new();
    // A rate at which nothing is learned: no evaluation is below the first.
    let stuck = [
        "--set",
        "phases.reversal.optimizer.lr=1e-30",
        "--set",
        "phases.reversal.patience=2",
    ];
    let soon = [
        "--set",
        "phases.sort.seconds=0.000001",
        "--set",
        "phases.rotate.steps=10",
    ];
    let more = [
        &LONG[..],
        &stuck,
        &soon,
        &["--arms", "none", "--out", "run"],
    ]
    .concat();
    lab.forgetlab(&[SMOKE, &more].concat()).exits(0);
    let ended = ends(&lab.path("run"));
    // One evaluation that is the first, two that are patiently waited for, one more that exceeds.
    assert_eq!(ended[0], (0, 0, 40, "early-stop".into()));
    // Five steps that do not count, and one that does.
    assert_eq!(ended[1], (0, 1, 46, "seconds".into()));
    assert_eq!(ended[2], (0, 2, 56, "steps".into()));
    lab.forgetlab(&["list"]).exits(0);
    // The next run finds the first phase, and why it ended.
    let again = [&more[..more.len() - 1], &["again"]].concat();
    lab.forgetlab(&[SMOKE, &again].concat())
        .exits(0)
        .says(&["comes from the cache"]);
    assert_eq!(ends(&lab.path("again"))[0], ended[0]);
}

/// A typing error in a criterion would be a run that never ends, or ends at once.
#[test]
fn criteria_that_make_no_sense_are_refused_with_their_key() {
    let lab = Lab::new();
    for (set, says) in [
        (
            "phases.sort.target_loss=0",
            "phases.1.target_loss: 0 must be a finite number above 0",
        ),
        ("phases.seconds=-1", "phases.0.seconds"),
        ("phases.sort.patience=-1", "patience"),
        (
            "phases.sort.target_los=1",
            "did you mean `phases.sort.target_loss`",
        ),
        ("phases.sort.optimizer.lr=0", "phases.1.optimizer.lr"),
        ("phases.sort.batch_size=0", "phases.1.batch_size"),
        ("training.eval_growth=-1", "training.eval_growth"),
    ] {
        lab.smoke(&["--set", set]).exits(2).says(&[says]);
    }
    lab.smoke(&["--arms", "none+phases.reversal.patience=1"])
        .exits(2)
        .says(&["the first phase is shared"]);
}
