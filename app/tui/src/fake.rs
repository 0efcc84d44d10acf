//! Test data: experiments, plugins, devices and the records of runs.

use std::path::PathBuf;
use std::sync::Arc;

use forgetlab_study::experiment::{ArmInfo, Objective, Overrides, RunConfig, resolve};
use forgetlab_study::run::{
    Continuation, Cost, EVENT_SCHEMA, Event, Labels, Level, Outcomes, PhaseInfo, PointStatus,
    Quality, Record, ReplayLook, Role, RowLook, RunState, RunStatus, SampleLook, Score,
    SweepCounts, TrainingStretch,
};
use serde_json::json;

use super::lab::*;

/// Start time of the test runs, seconds since the Unix epoch.
pub const START: f64 = 1_795_439_000.0;
const TASKS: [&str; 4] = ["reversal", "sort", "rotate", "complement"];
const STEPS: u64 = 150;
const EVERY: u64 = 10;

/// Share of an old task's accuracy that a test arm keeps after each further phase.
fn kept(strategy: &str) -> f64 {
    match strategy {
        "none" => 0.04,
        "bos-prompted" => 0.93,
        "self-generated" => 0.985,
        _ => 0.998,
    }
}

/// An arm as `STRATEGY[:OBJECTIVE:COEFF]`.
pub fn arm_info(name: &str, seed: u64) -> ArmInfo {
    let parts: Vec<&str> = name.split(':').collect();
    ArmInfo {
        name: name.into(),
        slug: format!("{}-seed{seed}", name.replace(':', "-")),
        strategy: parts[0].into(),
        objective: parts.get(1).unwrap_or(&"").to_string(),
        coeff: parts.get(2).and_then(|coeff| coeff.parse().ok()),
        lr: 3e-3,
        seed,
        steps: Vec::new(),
    }
}

/// The four arms of the usual comparison.
pub fn four_arms() -> Vec<ArmInfo> {
    [
        "none",
        "true-data:kl:10",
        "self-generated:kl:10",
        "bos-prompted:kl:10",
    ]
    .map(|name| arm_info(name, 0))
    .into()
}

/// Held-out rows of a test dataset.
const ROWS: u32 = 50;

fn score(task: usize, phase: usize, step_in_phase: u64, info: &ArmInfo) -> Score {
    let strategy = info.strategy.as_str();
    let progress = step_in_phase as f64 / STEPS as f64;
    let learned = |p: f64| 1.0 / (1.0 + (-14.0 * (p - 0.35)).exp());
    let (role, accuracy) = match task.cmp(&phase) {
        std::cmp::Ordering::Less => {
            let phases = (phase - task - 1) as f64 + (progress * 5.0).min(1.0);
            // Seeds and tasks differ a little.
            let luck = 1.0 + 0.3 * ((info.seed % 5 * 2 + task as u64 * 3) % 5) as f64;
            let kept = kept(strategy).powf(phases * luck);
            // With this one the first steps of a phase cost more than is lost in the end.
            let dip = strategy == "bos-prompted" && step_in_phase == EVERY;
            (Role::Old, if dip { 0.6 * kept } else { kept })
        }
        std::cmp::Ordering::Equal => (Role::New, learned(progress)),
        std::cmp::Ordering::Greater => (Role::Future, 0.0),
    };
    let right = (accuracy * f64::from(ROWS)).round() as u32;
    let accuracy = f64::from(right) / f64::from(ROWS);
    Score {
        dataset: TASKS[task].into(),
        role,
        ntp: Some(2.4 - 1.9 * accuracy),
        kl: Some((1.0 - accuracy) * if role == Role::Old { 1.2 } else { 0.1 }),
        accuracy: Some(accuracy),
        fit: None,
        choices: None,
        outcomes: Some(Arc::new(Outcomes {
            right: (0..ROWS).map(|row| u32::from(row < right)).collect(),
            weights: Vec::new(),
            ntp: Vec::new(),
        })),
        rows_kept: true,
    }
}

fn evaluated(arm: usize, info: &ArmInfo, step: u64) -> Event {
    let phase = (step.saturating_sub(1) / STEPS) as usize;
    let in_phase = step - phase as u64 * STEPS;
    let share = if info.strategy == "none" { 0 } else { step };
    Event::Evaluated {
        arm,
        phase,
        step,
        cost: Cost {
            tokens_trained: (step + share) * 256 * 9,
            tokens_generated: share * 256 * 9,
            seconds_new: step as f64 * 0.05,
            seconds_replay: share as f64 * 0.06,
            seconds_generate: share as f64 * 0.02,
            seconds_eval: step as f64 * 0.004,
            flops_train: (step + share) as f64 * 3.1e9,
            flops_reference: share as f64 * 1.1e9,
            flops_generate: share as f64 * 0.9e9,
            flops_eval: step as f64 * 0.2e9,
            replaced: None,
        },
        scores: (0..TASKS.len())
            .map(|task| score(task, phase, in_phase, info))
            .collect(),
    }
}

fn stretch(step: u64, info: &ArmInfo) -> TrainingStretch {
    let phase = ((step - 1) / STEPS) as usize;
    let in_phase = (step - phase as u64 * STEPS) as f64;
    TrainingStretch {
        phase,
        step,
        steps: EVERY,
        loss: 0.3 + 2.0 * (-in_phase / 40.0).exp(),
        replay: (info.strategy != "none").then_some(0.02 + 0.001 * (step % 7) as f64),
        grad_norm: 0.5 + (step % 3) as f64 / 4.0,
        lr: info.lr * (in_phase / 20.0).min(1.0),
    }
}

fn look(step: u64, strategy: &str) -> ReplayLook {
    let row = |n: u64| format!("<bos> reversal {n} 4 1 9 > 9 1 4 {n} says {strategy}");
    let mut rows: Vec<String> = (step % 7..step % 7 + 3).map(row).collect();
    // Of each row the prompt is given: `<bos>` and the task.
    let about = |copies| RowLook {
        masked: vec![(0, 14)],
        objective: Some(Objective::Kl),
        generated: Some(strategy != "true-data"),
        dataset: Some("reversal".into()),
        nll: Some(1.5),
        nll_student: Some(1.75 + (step % 3) as f64 / 8.0),
        copies,
    };
    let mut about: Vec<RowLook> = [0, 1, 2].map(about).into();
    about.push(RowLook {
        generated: Some(true),
        ..RowLook::default()
    });
    rows.push(
        "A prose sample that runs on. ".repeat(20) + "\n\nNaïve café 日本語 \u{fffd}[2J end…",
    );
    ReplayLook {
        step,
        rows,
        about,
        nll: Some(1.234),
        nll_student: Some(1.4),
        scored: Some(0.875),
        quality: Quality {
            rows: 32,
            tokens: 448,
            duplicate_rows: 1,
            distinct: [0.04, 0.21, 0.55, 0.8],
        },
    }
}

/// What the student of a test arm writes: it knows the tasks that it was trained on, as far as it keeps them.
fn sampled(step: u64, info: &ArmInfo) -> SampleLook {
    let phase = (step.saturating_sub(1) / STEPS) as usize;
    let bos = Continuation {
        dataset: None,
        prompt: "<bos>".into(),
        text: format!(" {} 1 1 2 <eos>", TASKS[phase]),
    };
    let of_task = (0..TASKS.len()).flat_map(|task| {
        let knows = score(task, phase, step - phase as u64 * STEPS, info).accuracy > Some(0.5);
        let answer = if knows { "0 7 3 4" } else { "0 1 1 1" };
        let name = TASKS[task];
        let sample = |prompt: &str, text: String| Continuation {
            dataset: Some(name.into()),
            prompt: format!("<bos> {name}{prompt}"),
            text,
        };
        [
            sample("", format!(" 4 3 7 <sep> <null> <eq> {answer} <eos>")),
            sample(" 4 3 7 <sep> <null> <eq>", format!(" {answer} <eos>")),
        ]
    });
    SampleLook {
        step,
        samples: [bos].into_iter().chain(of_task).collect(),
    }
}

/// Records of a test run, with evaluations of every arm up to step `until`.
pub fn records(arms: &[ArmInfo], until: u64) -> Vec<Record> {
    let total = STEPS * TASKS.len() as u64;
    let mut events = vec![
        Event::RunStarted {
            experiment: "toy-continual".into(),
            preset: "cpu".into(),
            arms: arms.to_vec(),
            config: None,
            phases: TASKS
                .iter()
                .map(|task| PhaseInfo {
                    dataset: task.to_string(),
                    steps: STEPS,
                })
                .collect(),
        },
        Event::WorkerStarted {
            pid: 4242,
            version: "0.1.0".into(),
            device: "cpu, 2 threads, avx512f".into(),
            resumed: false,
        },
    ];
    for step in (0..=until.min(total)).step_by(EVERY as usize) {
        for (arm, info) in arms.iter().enumerate() {
            events.push(evaluated(arm, info, step));
            events.push(sampled(step, info).event(arm));
            if step % STEPS == 0 && step < total {
                let phase = (step / STEPS) as usize;
                events.push(Event::PhaseStarted { arm, phase, step });
                events.push(Event::Log {
                    level: Level::Info,
                    arm: Some(arm),
                    message: format!("phase {} of 4: {}", phase + 1, TASKS[phase]),
                });
            }
            if step > 0 {
                let stretch = stretch(step, info);
                events.push(Event::Trained { arm, stretch });
            }
            if step > 0 && step < total {
                events.push(Event::Progress {
                    arm,
                    phase: (step / STEPS) as usize,
                    step,
                    ntp: 1.234,
                    replay: (info.strategy != "none").then_some(0.0213),
                    grad_norm: 0.87,
                    tokens_per_second: 41_300.0,
                });
            }
            if info.strategy != "none" && step >= STEPS && step < total {
                let seen = look(step, &info.strategy);
                events.push(Event::ReplaySeen { arm, seen });
            }
            if info.strategy == "self-generated" && step > STEPS {
                events.push(Event::PluginMetric {
                    arm,
                    step,
                    name: "duplicates".into(),
                    value: 0.031,
                });
            }
            if step == total {
                events.push(Event::ArmFinished { arm, step });
            }
        }
    }
    if until >= total {
        events.push(Event::RunFinished {});
    }
    stamp(events)
}

/// Makes records of events, a third of a second apart.
pub fn stamp(events: Vec<Event>) -> Vec<Record> {
    let record = |(seq, event)| Record {
        v: EVENT_SCHEMA,
        seq: seq as u64,
        time: START + seq as f64 / 3.0,
        event,
    };
    events.into_iter().enumerate().map(record).collect()
}

/// The state after these records.
pub fn state(records: &[Record]) -> RunState {
    let mut state = RunState::default();
    for record in records {
        state.apply(record);
    }
    state
}

/// What a run of a preset does.
fn config(steps: u64) -> RunConfig {
    let mut config = resolve("toy-continual", &Overrides::default()).unwrap();
    config
        .phases
        .iter_mut()
        .for_each(|phase| phase.steps = steps);
    config
}

/// Test experiments.
pub fn experiments() -> Vec<Experiment> {
    let preset = |name: &str, summary: &str, steps| Preset {
        name: name.into(),
        summary: summary.into(),
        expectation: "Without replay the mean accuracy over the three old tasks ends below 35 %. \
                      With each replay strategy it ends above 95 %."
            .into(),
        config: config(steps),
        points: None,
    };
    let swept = Preset {
        points: Some(Points {
            count: 12,
            grids: vec!["d_model: 16, 32, 64; length: 10, 30, 100, 300".into()],
        }),
        ..preset("smoke", "A few steps of every point", 4)
    };
    let toy = Experiment {
        name: "toy-continual".into(),
        summary: "Digit tasks learned one after another; replay decides what is left of the first."
            .into(),
        presets: vec![
            preset("cpu", "Small enough for minutes on two cores", 150),
            preset("smoke", "Seconds, for tests", 4),
        ],
    };
    let grid = Experiment {
        name: "size-length-grid".into(),
        summary: "Forgetting over model size and length of pretraining.".into(),
        presets: vec![swept],
    };
    vec![toy, grid]
}

/// Test plugins, one of them rejected.
pub fn plugins() -> Vec<Plugin> {
    let plugin = |name: &str, summary: &str, schema| Plugin {
        name: name.into(),
        version: "0.1.0".into(),
        summary: summary.into(),
        path: PathBuf::from(format!("/opt/forgetlab/lib{}.so", name.replace('-', "_"))),
        replays: name != "none",
        schema,
        capabilities: vec!["batches do not depend on the student".into()],
        error: None,
    };
    let sampling = json!({
        "type": "object",
        "properties": {
            "temperature": {
                "type": "number", "exclusiveMinimum": 0, "maximum": 4, "default": 1.0,
                "description": "Sampling temperature"
            },
            "buffer": {
                "type": "integer", "minimum": 1, "default": 16,
                "description": "Batches generated at once"
            },
            "prompt": { "enum": ["task", "bos"], "default": "task" },
        },
    });
    let mut broken = plugin("libolder.so", "", json!({}));
    broken.version = String::new();
    broken.error =
        Some("was built for ABI 2.0, this host speaks 1.0 to 1.3: rebuild it with the SDK".into());
    vec![
        plugin(
            "none",
            "Replays nothing: plain finetuning, the baseline.",
            json!({}),
        ),
        plugin(
            "true-data",
            "Draws true sequences of the old tasks.",
            json!({}),
        ),
        plugin(
            "self-generated",
            "Samples old tasks from the model as it was at the start of the phase.",
            sampling.clone(),
        ),
        plugin("bos-prompted", "Samples from a bare BOS token.", sampling),
        broken,
    ]
}

/// Test devices.
pub fn devices() -> Vec<Device> {
    vec![
        Device {
            spec: "cpu".into(),
            summary: "2 threads, avx512f".into(),
            error: None,
        },
        Device {
            spec: "cuda".into(),
            summary: String::new(),
            error: Some("built without CUDA: use `--features cuda`".into()),
        },
    ]
}

/// A line of the list of runs.
pub fn summary(name: &str, status: RunStatus, progress: f64, age: f64) -> RunSummary {
    RunSummary {
        name: name.into(),
        experiment: "toy-continual".into(),
        preset: "cpu".into(),
        status,
        arms: 4,
        started: Some(START - age),
        progress,
        problem: None,
        points: None,
        queued: None,
        labels: Labels::default(),
        digest: Arc::default(),
        config: Arc::default(),
    }
}

/// What is shown of a run beside the list.
pub fn preview(state: RunState) -> Preview {
    Preview {
        state,
        status: RunStatus::Finished,
        differs: Some((
            "20261121T120600Z-toy-continual-0a1b".into(),
            vec!["optimizer.lr=0.001".into(), "phases.1.steps=300".into()],
        )),
    }
}

/// A machine with a GPU.
pub fn machine() -> Machine {
    let room = |used: u64, total: u64| Room {
        used: used << 30,
        total: total << 30,
    };
    Machine {
        gpus: vec![Gpu {
            index: 0,
            name: "NVIDIA H200".into(),
            used: Some(0.91),
            memory: Some(room(61, 141)),
            power: Some(402.0),
            power_limit: Some(700.0),
            temperature: Some(61),
            clock: Some(1980),
            memory_clock: Some(3201),
            processes: vec![GpuProcess {
                pid: 4242,
                name: Some("forgetlab".into()),
                run: Some("20261123T130600Z-toy-continual-ab12".into()),
                memory: Some(60 << 30),
            }],
        }],
        gpu_problem: None,
        cpu: Cpu {
            used: Some(0.12),
            cores: vec![0.2, 0.04, 0.1, 0.14],
            count: 4,
            load: [0.61, 0.5, 0.4],
        },
        memory: room(13, 128),
        disk: Some(room(100, 912)),
        workers: vec![WorkerUse {
            run: "20261123T130600Z-toy-continual-ab12".into(),
            arm: Some("bos-prompted:kl:10".into()),
            device: "cuda:0".into(),
            pid: Some(4242),
            cores: Some(1.0),
            memory: Some(5 << 30),
            gpu_memory: Some(60 << 30),
            queued: false,
        }],
    }
}

/// A sweep of twelve points, with every status a point can have.
pub fn sweep(sweep: &str) -> Sweep {
    let point = |index: usize| {
        let (size, length) = (16 << (index / 4), [10, 30, 100, 300][index % 4]);
        let status = match index {
            0..3 => PointStatus::Finished,
            3 => PointStatus::Failed,
            4 => PointStatus::Live,
            5 => PointStatus::Unfinished,
            6 => PointStatus::Refused(
                "it takes 212 GiB, and this machine has 16 GiB: choose a smaller batch_size".into(),
            ),
            _ => PointStatus::Waiting,
        };
        let begun = index < 6;
        let name = format!("size={size}-length={length}-0123456{index:x}");
        SweepPoint {
            run: begun.then(|| point_run(sweep, &name)),
            name,
            progress: [1.0, 1.0, 1.0, 1.0, 0.42, 0.17]
                .get(index)
                .copied()
                .unwrap_or(0.0),
            told: match &status {
                PointStatus::Finished => format!("{index}.134 nats, 1.2 points: none"),
                _ => String::new(),
            },
            status,
        }
    };
    let points: Vec<SweepPoint> = (0..12).map(point).collect();
    let counts = SweepCounts::of(points.iter().map(|point| &point.status));
    let progress = points.iter().map(|point| point.progress).sum::<f64>() / 12.0;
    Sweep {
        summary: RunSummary {
            experiment: "size-length-grid".into(),
            preset: "smoke".into(),
            points: Some(counts),
            ..summary(sweep, counts.status(), progress, 1200.0)
        },
        points,
    }
}
