//! How quickly a screen of very long runs answers, and how much of them it keeps.
//!
//! What is measured is left out of a usual `cargo test`: `tests/README.md` says how it is run.

use std::time::{Duration, Instant};

use super::*;
use crate::view::Pane;
use forgetlab_study::run::{Cost, Event as Told, PhaseInfo, Role, Score};

const DATASETS: [&str; 4] = ["reversal", "sort", "rotate", "complement"];

/// So many arms of so many evaluations, given to a lab as they come from a worker: in turn, some at a time.
fn long_run(arms: usize, evaluations: usize) -> App {
    let names = (0..arms).map(|arm| format!("true-data:kl:{}", arm + 1));
    let infos: Vec<ArmInfo> = names.map(|name| fake::arm_info(&name, 0)).collect();
    let in_phase = (evaluations / DATASETS.len()).max(1);
    let phase = |dataset: &&str| PhaseInfo {
        dataset: (*dataset).to_owned(),
        steps: in_phase as u64,
    };
    let started = Told::RunStarted {
        experiment: "toy-continual".into(),
        preset: "cpu".into(),
        arms: infos,
        phases: DATASETS.iter().map(phase).collect(),
        config: None,
    };
    let mut app = app(UNICODE, LARGE);
    open(&mut app, &[RUN]);
    feed_to(
        &mut app,
        RUN,
        true,
        fake::stamp(vec![started]),
        RunStatus::Live,
    );
    let all: Vec<usize> = (0..evaluations).collect();
    for some in all.chunks(1000) {
        let of_arm = |arm: usize| some.iter().map(move |&at| evaluation(arm, at, in_phase));
        let records = fake::stamp((0..arms).flat_map(of_arm).collect());
        feed_to(&mut app, RUN, false, records, RunStatus::Live);
        app.take_commands();
    }
    app
}

fn evaluation(arm: usize, at: usize, in_phase: usize) -> Told {
    let phase = (at / in_phase).min(DATASETS.len() - 1);
    // Noise that is the same in every run of this.
    let noise =
        |salt: usize| ((at * 7919 + arm * 104_729 + salt * 1_299_709) % 1009) as f64 / 1009.0;
    let score = |(task, dataset): (usize, &&str)| {
        let role = match task.cmp(&phase) {
            std::cmp::Ordering::Less => Role::Old,
            std::cmp::Ordering::Equal => Role::New,
            std::cmp::Ordering::Greater => Role::Future,
        };
        let accuracy =
            (0.2 + 0.6 * (at % in_phase) as f64 / in_phase as f64 + 0.1 * noise(task)).min(1.0);
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
    Told::Evaluated {
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

/// The median of five times; `after` each, something that is not measured.
fn median(app: &mut App, run: impl Fn(&mut App), after: impl Fn(&mut App)) -> Duration {
    let mut terminal = Terminal::new(TestBackend::new(LARGE.width, LARGE.height)).unwrap();
    let mut draw = |app: &App| {
        terminal.draw(|frame| app.draw(frame)).unwrap();
    };
    draw(app);
    let mut times = [(); 5].map(|()| {
        let start = Instant::now();
        run(app);
        draw(app);
        let time = start.elapsed();
        after(app);
        draw(app);
        time
    });
    times.sort_unstable();
    times[2]
}

/// Else keys would lag behind fingers where there is much to see.
#[test]
#[ignore = "measures: in a release build, on a quiet machine"]
fn a_key_is_answered_by_a_frame_in_eight_milliseconds() {
    let mut app = long_run(32, 200_000);
    let mut slow = Vec::new();
    let mut tell = |name: &str, time: Duration| {
        println!("speed: {name:<24} {:.2} ms", time.as_secs_f64() * 1e3);
        if time > Duration::from_millis(8) {
            slow.push(name.to_owned());
        }
    };
    // The cursor is on, and the panes that come first are gone through.
    keys(&mut app, "c");
    for first in ["kept", "curves", "losses", "matrix", "panels", "arm"] {
        keys(&mut app, &format!(":arrange {first}"));
        key(&mut app, KeyCode::Enter);
        for name in [
            "m", "x", "y", "+", "-", "[", "]", "s", "S", "j", "h", "l", "c", "p", "z", "v",
        ] {
            let press = |app: &mut App| keys(app, name);
            let time = median(&mut app, press, |app| match name {
                "m" => key(app, KeyCode::Esc),
                "y" | "S" | "c" | "p" | "z" => keys(app, name),
                "v" => (1..Pane::ALL.len()).for_each(|_| keys(app, "v")),
                _ => {}
            });
            tell(&format!("{name} ({first} first)"), time);
        }
    }
    let time = median(
        &mut app,
        |app| {
            let records = fake::stamp(vec![evaluation(0, 199_999, 50_000)]);
            feed_to(app, RUN, false, records, RunStatus::Live);
        },
        |_| {},
    );
    tell("an update", time);
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    for line in status
        .lines()
        .filter(|line| line.starts_with("VmHWM") || line.starts_with("VmRSS"))
    {
        println!("speed: {line}");
    }
    assert!(slow.is_empty(), "{slow:?}");
}
