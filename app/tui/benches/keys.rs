//! How quickly the lab answers on very long runs: from a key, or from new events, to the frame that follows.
//!
//! A live run of 32 arms with 200 000 evaluations each on a screen of 250×60 cells. Times are to stay below 8 ms.

use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use forgetlab_study::experiment::ArmInfo;
use forgetlab_study::run::{Cost, EVENT_SCHEMA, Event, PhaseInfo, Record, Role, Score};
use forgetlab_tui::Probe;

const DATASETS: [&str; 4] = ["reversal", "sort", "rotate", "complement"];
const ARMS: usize = 32;
const EVALUATIONS: usize = 200_000;
const IN_PHASE: usize = EVALUATIONS / DATASETS.len();

fn stamp(events: impl Iterator<Item = Event>) -> Vec<Record> {
    let record = |(seq, event): (u64, Event)| Record {
        v: EVENT_SCHEMA,
        seq,
        time: seq as f64 / 3.0,
        event,
    };
    (0..).zip(events).map(record).collect()
}

fn started() -> Event {
    let arm = |arm: usize| ArmInfo {
        name: format!("true-data:kl:{}", arm + 1),
        slug: format!("true-data-kl-{}", arm + 1),
        strategy: "true-data".into(),
        objective: "kl".into(),
        coeff: Some(arm as f64 + 1.0),
        lr: 3e-3,
        seed: 0,
        steps: Vec::new(),
    };
    let phase = |dataset: &&str| PhaseInfo {
        dataset: (*dataset).to_owned(),
        steps: IN_PHASE as u64,
    };
    Event::RunStarted {
        experiment: "toy-continual".into(),
        preset: "cpu".into(),
        arms: (0..ARMS).map(arm).collect(),
        phases: DATASETS.iter().map(phase).collect(),
        config: None,
    }
}

/// An evaluation with noise that is the same in every run of this.
fn evaluated(arm: usize, at: usize) -> Event {
    let phase = (at / IN_PHASE).min(DATASETS.len() - 1);
    let noise =
        |salt: usize| ((at * 7919 + arm * 104_729 + salt * 1_299_709) % 1009) as f64 / 1009.0;
    let score = |(task, dataset): (usize, &&str)| {
        let role = match task.cmp(&phase) {
            std::cmp::Ordering::Less => Role::Old,
            std::cmp::Ordering::Equal => Role::New,
            std::cmp::Ordering::Greater => Role::Future,
        };
        let learned = (at % IN_PHASE) as f64 / IN_PHASE as f64;
        let accuracy = (0.2 + 0.6 * learned + 0.1 * noise(task)).min(1.0);
        Score {
            dataset: (*dataset).to_owned(),
            role,
            ntp: Some(2.4 - 1.9 * accuracy),
            kl: Some(1.0 - accuracy),
            accuracy: Some(accuracy),
            fit: None,
            choices: None,
            outcomes: None,
            rows_kept: false,
        }
    };
    Event::Evaluated {
        arm,
        phase,
        step: at as u64,
        cost: Cost {
            tokens_trained: at as u64 * 4096,
            seconds_new: at as f64 * 0.3,
            flops_train: at as f64 * 1e12,
            ..Cost::default()
        },
        scores: DATASETS.iter().enumerate().map(score).collect(),
    }
}

/// The lab after all but the last evaluation of every arm, some at a time, as they come from a worker.
fn long_run() -> Probe {
    let mut lab = Probe::new(250, 60, "20261123T130600Z-toy-continual-ab12");
    lab.feed(stamp(std::iter::once(started())));
    let all: Vec<usize> = (0..EVALUATIONS - 1).collect();
    for some in all.chunks(1000) {
        let of_arm = |arm: usize| some.iter().map(move |&at| evaluated(arm, at));
        lab.feed(stamp((0..ARMS).flat_map(of_arm)));
    }
    lab.draw();
    let screen = lab.screen();
    assert!(screen.contains("true-data:kl:1 "), "{screen}");
    lab
}

/// Times something and the frame after it; what `after` does is not timed.
fn measure(
    criterion: &mut Criterion,
    name: &str,
    lab: &mut Probe,
    mut run: impl FnMut(&mut Probe),
    after: &str,
) {
    criterion.bench_function(name, |bencher| {
        bencher.iter_custom(|times| {
            let mut sum = Duration::ZERO;
            for _ in 0..times {
                let start = Instant::now();
                run(lab);
                lab.draw();
                sum += start.elapsed();
                lab.press(after);
                lab.draw();
            }
            sum
        });
    });
}

fn keys(criterion: &mut Criterion) {
    let mut lab = long_run();
    // The cursor is on, and the panes that come first are gone through.
    lab.press("c");
    for first in ["kept", "curves", "losses", "matrix", "panels", "arm"] {
        lab.press(&format!(":arrange {first}\n"));
        for key in [
            "m", "x", "y", "L", "+", "-", "[", "]", "s", "S", "j", "h", "l", "c", "p", "z",
        ] {
            let after = match key {
                "m" => "\x1b",
                "y" | "L" | "S" | "c" | "p" | "z" => key,
                "[" => "]",
                _ => "",
            };
            let name = format!("{key} ({first} first)");
            measure(criterion, &name, &mut lab, |lab| lab.press(key), after);
        }
    }
    let run = |lab: &mut Probe| lab.feed(stamp(std::iter::once(evaluated(0, EVALUATIONS - 1))));
    measure(criterion, "an update", &mut lab, run, "");
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(500));
    targets = keys
}
criterion_main!(benches);
