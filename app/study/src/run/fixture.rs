//! A small finished run made by hand, for tests of everything that reads runs.

use std::sync::Arc;

use crate::experiment::{ArmInfo, Objective};

use super::{
    Continuation, Cost, Evaluation, Event, Outcomes, PhaseInfo, Quality, Record, ReplayLook, Role,
    RowLook, RunState, SampleLook, Score, TrainingStretch,
};

/// Two arms, two phases of 20 steps, an evaluation every 10.
pub fn state() -> RunState {
    let mut state = RunState::default();
    for (seq, event) in events().into_iter().enumerate() {
        state.apply(&Record {
            v: 1,
            seq: seq as u64,
            time: 1.0 + seq as f64,
            event,
        });
    }
    state
}

/// The same with several seeds: those of the first dataset are less accurate by the given share in the second
/// phase.
pub fn seeds(lost: &[f64]) -> RunState {
    let one = state();
    let mut state = RunState {
        arms: Vec::new(),
        ..one.clone()
    };
    for (seed, lost) in lost.iter().enumerate() {
        for arm in &one.arms {
            let mut arm = arm.clone();
            arm.info.seed = seed as u64;
            arm.info.slug = format!("{}-{seed}", arm.info.slug);
            for evaluation in arm.evaluations.iter_mut().filter(|e| e.phase == 1) {
                let old = evaluation.scores[0].accuracy.as_mut();
                *old.expect("an accuracy") -= lost;
            }
            state.arms.push(arm);
        }
    }
    state
}

/// The events of that run.
pub fn events() -> Vec<Event> {
    let mut events = vec![
        Event::RunStarted {
            experiment: "toy-continual".into(),
            preset: "cpu".into(),
            arms: vec![arm("none", "", None), arm("bos-prompted", "kl", Some(10.0))],
            config: None,
            phases: ["reversal", "sort"]
                .map(|dataset| PhaseInfo {
                    dataset: dataset.into(),
                    steps: 20,
                })
                .into(),
        },
        Event::WorkerStarted {
            pid: 1,
            version: "0.1.0".into(),
            device: "cpu, 2 threads".into(),
            resumed: false,
        },
    ];
    for arm in 0..2 {
        events.extend(evaluations(arm).iter().map(|e| evaluated(arm, e)));
        events.push(Event::ArmFinished { arm, step: 40 });
    }
    events.push(Event::RunFinished {});
    events
}

/// An evaluation as an event.
pub fn evaluated(arm: usize, evaluation: &Evaluation) -> Event {
    Event::Evaluated {
        arm,
        phase: evaluation.phase,
        step: evaluation.step,
        cost: evaluation.cost,
        scores: evaluation.scores.clone(),
    }
}

/// Figures of ten steps of training up to a step of the second phase.
pub fn trained(arm: usize, step: u64) -> Event {
    let stretch = TrainingStretch {
        phase: 1,
        step,
        steps: 10,
        loss: 1.0 / step as f64,
        replay: (arm == 1).then_some(0.25),
        grad_norm: 0.5,
        lr: 0.003,
    };
    stretch.event(arm)
}

/// A sample of a batch of four rows, two of them as text.
pub fn look(step: u64) -> ReplayLook {
    ReplayLook {
        step,
        rows: vec!["<bos> reversal 1 2".into(), "<bos> reversal 3 4".into()],
        about: vec![
            RowLook {
                masked: vec![(0, 5)],
                objective: Some(Objective::Kl),
                generated: Some(true),
                dataset: Some("reversal".into()),
                nll: Some(0.5),
                nll_student: Some(1.25),
                copies: 1,
            },
            RowLook::default(),
        ],
        nll: Some(0.75),
        nll_student: Some(1.5),
        scored: Some(0.875),
        quality: Quality {
            rows: 4,
            tokens: 16,
            duplicate_rows: 1,
            distinct: [0.25, 0.5, 0.75, 1.0],
        },
    }
}

/// What a student wrote.
pub fn sampled(step: u64) -> SampleLook {
    let text = |dataset: Option<&str>, prompt: &str| Continuation {
        dataset: dataset.map(str::to_owned),
        prompt: prompt.into(),
        text: format!("{step} 4"),
    };
    SampleLook {
        step,
        samples: vec![
            text(None, "<bos>"),
            text(Some("sort"), "<bos> sort 4 1 <sep>"),
        ],
    }
}

fn arm(strategy: &str, objective: &str, coeff: Option<f64>) -> ArmInfo {
    let name = match coeff {
        Some(coeff) => format!("{strategy}:{objective}:{coeff}"),
        None => strategy.to_owned(),
    };
    ArmInfo {
        slug: format!("{}-seed0", name.replace(':', "-")),
        name,
        strategy: strategy.into(),
        objective: objective.into(),
        coeff,
        lr: 0.003,
        seed: 0,
        steps: Vec::new(),
    }
}

fn evaluations(arm: usize) -> Vec<Evaluation> {
    // (phase, step, reversal: ntp, kl, accuracy; sort: the same)
    let shared = [
        (0, 0_u64, (2.5, Some(0.0), 0.0), (2.5, Some(0.0), 0.0)),
        (0, 10, (0.5, Some(1.0), 0.6), (2.45, Some(0.1), 0.0)),
        (0, 20, (0.5, Some(1.25), 1.0), (2.4, Some(0.2), 0.0)),
    ];
    let own = match arm {
        0 => [
            (1, 30, (2.5, Some(2.0), 0.2), (0.8, None, 0.5)),
            (1, 40, (3.0, Some(2.5), 0.1), (0.7, None, 0.95)),
        ],
        _ => [
            (1, 30, (0.51, Some(0.01), 1.0), (0.9, None, 0.25)),
            (1, 40, (0.5, Some(0.02), 0.98), (0.75, None, 0.9)),
        ],
    };
    let score = |dataset: &str, role, (ntp, kl, accuracy): (f64, Option<f64>, f64)| Score {
        dataset: dataset.into(),
        role,
        ntp: Some(ntp),
        kl,
        accuracy: Some(accuracy),
        fit: None,
        choices: None,
        outcomes: None,
        rows_kept: false,
    };
    shared
        .into_iter()
        .chain(own)
        .map(|(phase, step, reversal, sort)| {
            let roles = [(Role::New, Role::Future), (Role::Old, Role::New)][phase];
            let replayed = if arm == 1 { step.saturating_sub(20) } else { 0 };
            Evaluation {
                phase,
                step,
                cost: Cost {
                    tokens_trained: 1000 * (step + replayed),
                    tokens_generated: 1000 * replayed,
                    seconds_new: step as f64 / 4.0,
                    seconds_replay: replayed as f64 / 2.0,
                    seconds_generate: replayed as f64 / 8.0,
                    seconds_eval: 0.25,
                    flops_train: 3e9 * (step + replayed) as f64,
                    flops_reference: 1e9 * replayed as f64,
                    flops_generate: 0.5e9 * replayed as f64,
                    flops_eval: 2.5e8 * (step / 10 + 1) as f64,
                    replaced: None,
                },
                scores: vec![
                    score("reversal", roles.0, reversal),
                    score("sort", roles.1, sort),
                ],
            }
        })
        .collect()
}

/// Gives every score of a run the outcomes of 100 rows that add up to it.
pub fn add_outcomes(state: &mut RunState) {
    let scores = state.arms.iter_mut().flat_map(|arm| &mut arm.evaluations);
    for score in scores.flat_map(|e| &mut e.scores) {
        let right = (score.accuracy.unwrap_or(0.0) * 100.0).round() as u32;
        let ntp = score.ntp.unwrap_or(0.0) as f32;
        score.outcomes = Some(Arc::new(Outcomes {
            right: (0..100).map(|row| u32::from(row < right)).collect(),
            weights: Vec::new(),
            ntp: (0..100)
                .map(|row| ntp + (row as f32 - 49.5) / 100.0)
                .collect(),
        }));
    }
}
