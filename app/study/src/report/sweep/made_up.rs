//! Runs of two phases, English then Spanish, made by hand, for tests.

use crate::experiment::ArmInfo;
use crate::run::{ArmState, ArmStatus, Cost, Evaluation, PhaseInfo, Role, RunState, Score};

use super::SweepPoint;
use crate::experiment::AxisValue;

/// An arm with one seed.
#[derive(Clone, Debug)]
pub(in crate::report) struct Made {
    /// Name, which tells strategy, objective, coefficient and rate.
    pub(in crate::report) name: String,
    /// Seed.
    pub(in crate::report) seed: u64,
    /// Loss of the old data at the end of the first phase, which falls there from 7 in 100 steps.
    pub(in crate::report) before: f64,
    /// Steps, new loss, old loss and KL on the new data in the second phase, from its start on.
    pub(in crate::report) course: Vec<(u64, f64, f64, f64)>,
    /// Evaluations of the first phase, steps and old loss, between its ends.
    pub(in crate::report) pretraining: Vec<(u64, f64)>,
}

impl Default for Made {
    fn default() -> Self {
        Self {
            name: "none".into(),
            seed: 0,
            before: 3.0,
            course: Vec::new(),
            pretraining: Vec::new(),
        }
    }
}

/// Steps of the first phase.
const PRETRAINING: u64 = 100;

/// A number on an axis.
pub(in crate::report) fn place(key: &str, name: &str, value: f64) -> AxisValue {
    AxisValue {
        key: key.into(),
        name: name.into(),
        value: toml::Value::Float(value),
    }
}

/// A point of a grid.
pub(in crate::report) fn point(grid: &str, place: Vec<AxisValue>, arms: &[Made]) -> SweepPoint {
    let values = place
        .iter()
        .map(|value| format!("{}={}", value.name, value.value));
    SweepPoint {
        name: values.collect::<Vec<_>>().join(","),
        grid: grid.into(),
        place,
        state: state(arms),
    }
}

/// A run of such arms.
pub(in crate::report) fn state(arms: &[Made]) -> RunState {
    RunState {
        experiment: "study".into(),
        preset: "cpu".into(),
        phases: [("en", PRETRAINING), ("es", 1000)]
            .map(|(dataset, steps)| PhaseInfo {
                dataset: dataset.into(),
                steps,
            })
            .into(),
        arms: arms.iter().map(arm).collect(),
        finished: true,
        ..RunState::default()
    }
}

fn arm(made: &Made) -> ArmState {
    let mut settings = made.name.split('+');
    let mut parts = settings.next().unwrap_or_default().split(':');
    let strategy = parts.next().unwrap_or_default().to_owned();
    let lr = settings.find_map(|setting| setting.strip_prefix("lr=")?.parse().ok());
    let info = ArmInfo {
        name: made.name.clone(),
        slug: format!("{}-{}", made.name, made.seed),
        strategy,
        objective: parts.next().unwrap_or_default().into(),
        coeff: parts.next().and_then(|coeff| coeff.parse().ok()),
        lr: lr.unwrap_or(3e-3),
        seed: made.seed,
        steps: Vec::new(),
    };
    let start = made.course.first().map_or(8.0, |&(_, new, ..)| new);
    let ends = [(0, 7.0), (PRETRAINING, made.before)];
    let mut first: Vec<(u64, f64)> = ends
        .into_iter()
        .chain(made.pretraining.iter().copied())
        .collect();
    first.sort_by_key(|&(step, _)| step);
    let pretraining = first
        .into_iter()
        .map(|(step, old)| evaluation(0, step, (start, old, 0.0)));
    let later = made.course.iter().filter(|&&(step, ..)| step > 0);
    let finetuning =
        later.map(|&(step, new, old, kl)| evaluation(1, PRETRAINING + step, (new, old, kl)));
    ArmState {
        status: ArmStatus::Finished,
        evaluations: pretraining.chain(finetuning).collect(),
        ..ArmState::new(info)
    }
}

fn evaluation(phase: usize, step: u64, (new, old, kl): (f64, f64, f64)) -> Evaluation {
    let roles = [[Role::New, Role::Future], [Role::Old, Role::New]][phase];
    let score = |dataset: &str, role, ntp, kl| Score {
        dataset: dataset.into(),
        role,
        ntp: Some(ntp),
        kl: Some(kl),
        accuracy: Some(0.3),
        fit: None,
        choices: None,
        outcomes: None,
        rows_kept: false,
    };
    Evaluation {
        phase,
        step,
        cost: Cost::default(),
        scores: vec![
            score("en", roles[0], old, 0.5 * kl),
            score("es", roles[1], new, kl),
        ],
    }
}

/// A small number that differs by seed and arm.
fn noise(seed: u64, arm: usize) -> f64 {
    ((seed as usize * 7 + arm * 5) % 11) as f64 / 5.0 - 1.0
}

/// A course from a new loss of 8 to below a target that it crosses after `steps`, where it has forgotten `forgot`.
fn course(
    target: f64,
    steps: u64,
    (before, forgot): (f64, f64),
    kl: f64,
) -> Vec<(u64, f64, f64, f64)> {
    let at = |tenths: u64| {
        let share = tenths as f64 / 10.0;
        let new = target + (8.0 - target) * (1.0 - share).powi(3);
        (
            steps * tenths / 10,
            new,
            before + forgot * share.sqrt(),
            kl * share,
        )
    };
    let mut course: Vec<_> = (0..=10).map(at).collect();
    let end = (steps + 10, target - 0.01, before + 1.01 * forgot, 1.01 * kl);
    course.push(end);
    course
}

/// Forgetting by the length of pretraining, of four arms with three seeds, one of which does not learn after the
/// longest.
pub(in crate::report) fn lengths() -> Vec<SweepPoint> {
    let places = [
        (10.0, 4.44, [1.82, 0.029, -0.006, -0.009]),
        (30.0, 3.87, [2.00, 0.127, 0.06, 0.023]),
        (100.0, 3.52, [2.15, 0.205, 0.096, 0.042]),
        (300.0, 3.38, [2.25, 0.223, 0.113, 0.052]),
        (1000.0, 3.31, [2.42, 0.236, 0.118, 0.051]),
    ];
    let names = [
        "none",
        "self-generated:kl:1",
        "self-generated:kl:3",
        "self-generated:kl:10",
    ];
    let at = |&(tokens, before, forgot): &(f64, f64, [f64; 4])| {
        let made = |seed: u64| {
            (0..4).map(move |i| {
                let before = before + 0.02 * noise(seed, 0);
                let forgot = forgot[i] * (1.0 + 0.06 * noise(seed, i + 1));
                let target = if tokens > 900.0 && i == 3 && seed < 2 {
                    3.9
                } else {
                    3.8
                };
                Made {
                    name: names[i].into(),
                    seed,
                    before,
                    course: course(
                        target,
                        300 * (i as u64 + 1),
                        (before, forgot),
                        0.4 - 0.08 * i as f64,
                    ),
                    ..Made::default()
                }
            })
        };
        let arms: Vec<Made> = (0..3).flat_map(made).collect();
        let mut point = point(
            "",
            vec![place(
                "phases.en.tokens_per_parameter",
                "tokens a parameter",
                tokens,
            )],
            &arms,
        );
        point.state.experiment = "pretraining-length".into();
        let arm = serde_json::json!({"dataset": "es", "target_loss": 3.8});
        point.state.config = Some(serde_json::json!({"phases": [{"dataset": "en"}, arm]}));
        point
    };
    places.iter().map(at).collect()
}

/// Old loss by the rates of both phases, with and without replay, three seeds.
pub(in crate::report) fn rates() -> Vec<SweepPoint> {
    let finetuning = [("1e-2", 0.38), ("3e-3", 0.1), ("1e-3", 0.04), ("3e-4", 0.0)];
    let at = |(i, rate): (usize, f64)| {
        let made = |seed: u64| {
            finetuning
                .iter()
                .enumerate()
                .flat_map(move |(j, (lr, more))| {
                    let forgot = 1.83 - 0.15 * i as f64 + more + 0.04 * noise(seed, i + j);
                    let kept = 0.02 - 0.004 * i as f64 + 0.1 * more + 0.004 * noise(seed, j);
                    [("none", forgot), ("true-data:kl:10", kept)].map(|(name, forgot)| Made {
                        name: format!("{name}+lr={lr}"),
                        seed,
                        before: 3.9 + 0.002 * noise(seed, 3),
                        course: course(4.0, 100 << j, (3.9, forgot), forgot / 4.0),
                        ..Made::default()
                    })
                })
        };
        let arms: Vec<Made> = (0..3).flat_map(made).collect();
        let mut point = point(
            "",
            vec![place("phases.en.optimizer.lr", "pretraining lr", rate)],
            &arms,
        );
        point.state.experiment = "learning-rate".into();
        point.state.config = Some(serde_json::json!({"phases": [{"target_loss": 4.0}]}));
        point
    };
    [1e-3, 3e-3, 1e-2, 3e-2]
        .into_iter()
        .enumerate()
        .map(at)
        .collect()
}

/// Seven mixtures, and two models finetuned with three coefficients each, with two seeds.
pub(in crate::report) fn capacity() -> Vec<SweepPoint> {
    let mixtures = [
        (1.0 / 64.0, 3.368, 4.684),
        (1.0 / 16.0, 3.384, 4.001),
        (0.125, 3.422, 3.705),
        (0.25, 3.450, 3.399),
        (0.5, 3.587, 3.189),
        (0.75, 3.790, 3.072),
        (63.0 / 64.0, 4.842, 2.972),
    ];
    let seeds = [0, 1];
    let mixture = |&(share, old, new): &(f64, f64, f64)| {
        let made = |seed| Made {
            seed,
            before: old + 0.005 * noise(seed, 1),
            course: vec![(0, new + 0.005 * noise(seed, 2), old, 0.0)],
            ..Made::default()
        };
        point(
            "frontier",
            vec![place("phases.en.mix.share", "share of es", share)],
            &seeds.map(made),
        )
    };
    let grid = |name: &str, (old, new): (f64, f64), ends: [(f64, f64); 3]| {
        let made = |seed: u64, (coeff, end): (f64, (f64, f64))| {
            let at = |tenth: u64| {
                let share = 1.0 - (1.0 - tenth as f64 / 10.0).powi(3);
                let (more, less) = (share * (end.0 - old), share * (end.1 - new));
                (
                    40 * tenth,
                    new + less + 0.004 * noise(seed, 4),
                    old + more + 0.004 * noise(seed, 5),
                    0.3 / coeff,
                )
            };
            Made {
                name: format!("self-generated:kl:{coeff}"),
                seed,
                before: old + 0.004 * noise(seed, 5),
                course: (0..=10).map(at).collect(),
                ..Made::default()
            }
        };
        let arms = seeds.iter().flat_map(|&seed| {
            [0.1, 1.0, 10.0]
                .into_iter()
                .zip(ends)
                .map(move |arm| made(seed, arm))
        });
        let arms: Vec<Made> = arms.collect();
        point(name, Vec::new(), &arms)
    };
    let mut points: Vec<SweepPoint> = mixtures.iter().map(mixture).collect();
    points.push(grid(
        "overtrained",
        (3.368, 4.684),
        [(3.896, 3.281), (3.515, 3.435), (3.392, 3.977)],
    ));
    points.push(grid(
        "short",
        (4.182, 4.190),
        [(4.408, 3.377), (4.206, 3.484), (4.179, 3.783)],
    ));
    points
        .iter_mut()
        .for_each(|point| point.state.experiment = "model-capacity".into());
    points
}

/// Two arms over five sizes and six lengths, of which two were not measured.
pub(in crate::report) fn map() -> Vec<SweepPoint> {
    let mut points = Vec::new();
    for (i, d) in [32.0, 48.0, 64.0, 96.0, 128.0].into_iter().enumerate() {
        for (j, tokens) in [20.0, 40.0, 80.0, 160.0, 320.0, 640.0]
            .into_iter()
            .enumerate()
        {
            let made = |(name, forgot): (&str, f64)| {
                let forgot = forgot * (1.0 + 0.3 * j as f64) / (1.0 + 0.4 * i as f64);
                Made {
                    name: name.into(),
                    before: 3.0,
                    pretraining: vec![(5, 5.0), (20, 3.8), (50, 3.3), (80, 3.08)],
                    course: course(3.8, 100, (3.0, forgot), forgot),
                    ..Made::default()
                }
            };
            let axes = vec![
                place("model.d_model", "D", d),
                place("t", "tokens a parameter", tokens),
            ];
            let arms: Vec<Made> = [("none", 0.8), ("true-data:kl:10", 0.04)].map(made).into();
            let mut point = point("", axes, &arms);
            point.state.experiment = "size-length".into();
            point.state.config = Some(serde_json::json!({"phases": [{"target_loss": 3.8}]}));
            if i == 4 && j > 3 {
                point.state.arms.clear();
            }
            points.push(point);
        }
    }
    points
}
