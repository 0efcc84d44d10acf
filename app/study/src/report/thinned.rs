//! Figures and verdicts of a state that is kept thin are those of the whole run.

use std::sync::Arc;

use crate::run::{
    ArmState, ArmStatus, ChoiceScores, Estimate, Evaluation, Outcomes, PhaseInfo, RunState, Score,
    fixture,
};

use super::*;

const PHASES: [&str; 3] = ["a", "b", "c"];
const ROWS: u32 = 24;

/// A number from 0 to 1 that looks like chance.
fn noise(of: [usize; 3]) -> f64 {
    let mixed = of.iter().fold(17_u64, |sum, &n| {
        (sum ^ n as u64)
            .wrapping_mul(6_364_136_223_846_793_005)
            .rotate_left(29)
    });
    (mixed >> 11) as f64 / (1_u64 << 53) as f64
}

fn choices(accuracy: f64) -> ChoiceScores {
    ChoiceScores {
        questions: ROWS as usize,
        accuracy: Estimate {
            mean: accuracy,
            stderr: None,
        },
        accuracy_normalised: None,
        chance: 0.25,
    }
}

/// Two seeds that have no evaluation yet.
fn begun() -> RunState {
    let mut state = fixture::state();
    state.arms.truncate(1);
    let phase = |dataset: &str| PhaseInfo {
        dataset: dataset.into(),
        steps: 10_000,
    };
    state.phases = PHASES.map(phase).into();
    let mut other = state.arms[0].info.clone();
    other.seed = 1;
    state.arms = vec![
        ArmState::new(state.arms[0].info.clone()),
        ArmState::new(other),
    ];
    state
}

/// The evaluation of a seed at a place, of `all`: three tasks, data that no phase trains, and questions that are asked
/// at the ends of phases and now and then.
fn evaluation(state: &RunState, seed: usize, at: usize, all: usize) -> Evaluation {
    let in_phase = all / PHASES.len();
    let phase = at / in_phase;
    let asked = at.is_multiple_of(37) || (at + 1).is_multiple_of(in_phase) || at == 0;
    let names = PHASES.iter().copied().chain(["older"]);
    let names = names.chain(asked.then_some("questions"));
    let score = |(task, name): (usize, &str)| {
        let level = if task == phase { 0.7 } else { 0.45 };
        let right = |row: u32| u32::from(noise([seed * 7 + task, at, row as usize]) < level);
        let right: Vec<u32> = (0..ROWS).map(right).collect();
        let accuracy = f64::from(right.iter().sum::<u32>()) / f64::from(ROWS);
        let ntp = (0..ROWS).map(|row| noise([seed + 5 * task, at, 100 + row as usize]) as f32);
        let ntp: Vec<f32> = ntp.collect();
        let mean = ntp.iter().map(|&ntp| f64::from(ntp)).sum::<f64>() / f64::from(ROWS);
        Score {
            dataset: name.into(),
            role: state.role(name, phase),
            // A loss that is no number at times.
            ntp: Some(mean).filter(|_| !(at + task).is_multiple_of(997)),
            kl: Some(noise([seed, at, task])),
            accuracy: Some(accuracy),
            fit: None,
            choices: (name == "questions").then(|| choices(accuracy)),
            outcomes: Some(Arc::new(Outcomes {
                right,
                weights: Vec::new(),
                ntp,
            })),
            rows_kept: true,
        }
    };
    Evaluation {
        phase,
        step: 10 * at as u64,
        cost: Default::default(),
        scores: names.enumerate().map(score).collect(),
    }
}

/// Everything that a screen tells of the seeds, but for means over steps.
fn told(state: &RunState) -> Vec<String> {
    let mut told = Vec::new();
    for arm in arms(&[("run", state)]) {
        told.push(format!("{:?}", judge(&arm, Margins::default())));
        for dataset in old_datasets(&arm) {
            for metric in Metric::ALL {
                told.push(format!(
                    "{:?}",
                    forgetting(&arm, dataset, metric, Margins::default())
                ));
            }
        }
    }
    for arm in &state.arms {
        let now = arm.evaluations.last().unwrap();
        told.push(format!("{:?}", transfer(state, arm)));
        told.push(format!("{:?}", arm.mean_forgetting(&state.phases, now)));
        told.push(format!("{:?}", arm.new_learning(&state.phases, now)));
        for dataset in state.datasets() {
            told.push(format!("{dataset} {:?}", answers(state, arm, dataset)));
            for metric in Metric::ALL {
                let kept = Kept {
                    retention: None,
                    ..kept(state, arm, dataset, metric)
                };
                told.push(format!("{dataset} {kept:?}"));
            }
        }
    }
    told
}

/// Follows a run of so many evaluations, thin and whole, and compares what is told on the way and at its end.
fn compared(all: usize) -> (RunState, RunState) {
    let (mut thin, mut whole) = (begun(), begun());
    for at in 0..all {
        for seed in 0..2 {
            // The second one is some way behind.
            let Some(at) = at.checked_sub(20 * seed) else {
                continue;
            };
            for state in [&mut thin, &mut whole] {
                let evaluation = evaluation(state, seed, at, all);
                let arm = &mut state.arms[seed];
                (arm.phase, arm.step) = (evaluation.phase, evaluation.step);
                arm.status = ArmStatus::Running;
                arm.evaluations.push(evaluation);
            }
        }
        thin.thin();
        if at == all / 2 + 7 {
            assert_eq!(told(&thin), told(&whole), "at {at} of {all}");
        }
    }
    assert_eq!(told(&thin), told(&whole), "at the end of {all}");
    (thin, whole)
}

/// Else the screen would give other figures and verdicts than `compare`.
#[test]
fn a_run_of_some_hundred_evaluations_is_told_as_it_is() {
    let (thin, whole) = compared(600);
    for (thin, whole) in thin.arms.iter().zip(&whole.arms) {
        let steps = |arm: &ArmState| arm.evaluations.iter().map(|e| e.step).collect::<Vec<_>>();
        assert_eq!(steps(thin), steps(whole));
        for dataset in ["a", "b", "older"] {
            for metric in Metric::ALL {
                let of = |arm| super::kept(&begun(), arm, dataset, metric);
                assert_eq!(of(thin), of(whole), "{dataset}");
            }
        }
        assert!(
            thin.is_thinned(),
            "rows that nothing follows from are dropped"
        );
    }
}

/// Else the lab's memory would grow with a run, or what it tells of a long one be something else.
#[test]
fn a_long_run_takes_bounded_room_and_is_told_as_it_is() {
    let (thin, whole) = compared(6000);
    let mut most = 0;
    for (own, all) in thin.arms.iter().zip(&whole.arms) {
        assert!(own.evaluations.len() < 1100, "{}", own.evaluations.len());
        assert_eq!(
            own.evaluations.len() + own.dropped.evaluations(),
            all.evaluations.len()
        );
        let rows = own.evaluations.iter().flat_map(|e| &e.scores);
        most = most.max(rows.filter(|score| score.outcomes.is_some()).count());
        // A mean over steps is over those that are left.
        for dataset in ["a", "b", "older"] {
            let of = |state, arm| {
                kept(state, arm, dataset, Metric::Accuracy)
                    .retention
                    .unwrap()
            };
            let (own, all) = (of(&thin, own), of(&whole, all));
            assert!((own - all).abs() < 0.02, "{dataset}: {own} and {all}");
        }
    }
    assert!(most < 600, "{most} scores with rows");
}
