//! The dry run of `plugins check`: every call of a strategy, against a tiny stand-in for the lab.

use std::{sync::Arc, time::Duration};

use forgetlab_study::experiment::Objective;
use serde_json::{Map, Value};

use super::{
    Capabilities, DrawRequest, GenerateRequest, InstanceOptions, LogLevel, OnLate, PhaseContext,
    Plugin, ReplayBatch, ScoreRequest, Scores, Sequences, ServiceError, Services, SettingsError,
    SpecialTokens, StepMetrics, StrategyError, StrategyInstance, Task, Teacher, WhichModel,
};

const VOCAB: u32 = 32;
const SEQ_LEN: usize = 12;
const ROWS: usize = 4;
const STEPS: u64 = 40;
/// Steps before the state is saved, and after it: enough to empty a buffer of some batches.
const STEPS_BEFORE_SAVE: u64 = 3;
const STEPS_AFTER_SAVE: u64 = 20;

/// Receives the name of each call and its outcome, as they come.
pub type Report<'a> = &'a mut dyn FnMut(&'static str, String);

/// Time in a call after which it is reported.
const DEADLINE: Duration = Duration::from_secs(10);

/// Why a dry run failed.
#[derive(Debug, thiserror::Error)]
pub enum DryRunError {
    /// The settings are invalid.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The strategy failed or misbehaved.
    #[error(transparent)]
    Strategy(#[from] StrategyError),
    /// An instance made from the saved state went on differently.
    #[error(
        "after save and load, step {step} differs from that of an instance that just went on: {what}; a resumed run would not equal an uninterrupted one. The saved state must hold all that later batches depend on"
    )]
    NotResumable {
        /// First step that differs, counted in the phase.
        step: u64,
        /// How.
        what: &'static str,
    },
}

/// Takes an instance through two phases, saves it in the second, and compares the following steps with
/// those of an instance made from the saved state. `report` is told of each call, up to an error.
pub fn dry_run(
    plugin: &Arc<Plugin>,
    settings: &Map<String, Value>,
    on_late: &OnLate,
    report: Report,
) -> Result<(), DryRunError> {
    let settings = plugin.resolve_settings(settings)?;
    report("settings", Value::from(settings.clone()).to_string());
    let mut lab = MadeUpLab::default();
    let mut instance = instantiate(plugin, &settings, on_late, &mut lab)?;
    report("create", "ok".into());

    let first = phase(0, plugin.capabilities);
    instance.phase_started(&first, &mut lab)?;
    report("phase_started", "first phase, no old tasks".into());
    let batch = step(&mut instance, &first, 0, &mut lab)?;
    report("next_batch", describe(batch.as_ref()));

    let second = phase(1, plugin.capabilities);
    instance.phase_started(&second, &mut lab)?;
    report(
        "phase_started",
        "second phase, old tasks alpha and beta".into(),
    );
    for i in 0..STEPS_BEFORE_SAVE {
        let batch = step(&mut instance, &second, i, &mut lab)?;
        report("next_batch", describe(batch.as_ref()));
    }

    let state = instance.save()?;
    report("save", format!("{} bytes", state.len()));
    let mut other_lab = lab.clone();
    let mut other = instantiate(plugin, &settings, on_late, &mut other_lab)?;
    // The lab restores the random stream; what `create` drew does not count.
    other_lab = lab.clone();
    other.load(&state, Some(&second), &mut other_lab)?;
    report("load", "ok, into a second instance".into());
    let differs = |step, what| Err(DryRunError::NotResumable { step, what });
    if other.save()? != state {
        return differs(STEPS_BEFORE_SAVE, "its own saved state has other bytes");
    }
    for i in STEPS_BEFORE_SAVE..STEPS_BEFORE_SAVE + STEPS_AFTER_SAVE {
        let batch = step(&mut instance, &second, i, &mut lab)?;
        if batch != step(&mut other, &second, i, &mut other_lab)? {
            return differs(i, "its batch is another one");
        }
        if lab.position != other_lab.position {
            return differs(i, "it drew more or less from the random stream");
        }
    }
    report(
        "compare",
        format!("equal over {STEPS_AFTER_SAVE} more steps"),
    );
    drop((instance, other));
    report("destroy", "ok".into());
    let counts = [(lab.log_lines, "log lines"), (lab.metrics, "metrics")];
    for (count, what) in counts.iter().filter(|(count, _)| *count > 0) {
        report("heard", format!("{count} {what}"));
    }
    Ok(())
}

fn instantiate(
    plugin: &Arc<Plugin>,
    settings: &Map<String, Value>,
    on_late: &OnLate,
    lab: &mut MadeUpLab,
) -> Result<StrategyInstance, StrategyError> {
    let options = InstanceOptions {
        arm: plugin.name.clone(),
        offered: Capabilities::ALL,
        breadcrumb: None,
        deadline: Some((DEADLINE, Arc::clone(on_late))),
    };
    plugin.instantiate(settings, options, lab)
}

/// Makes one step: asks for the batch, then reports metrics.
fn step(
    instance: &mut StrategyInstance,
    phase: &PhaseContext,
    phase_step: u64,
    lab: &mut MadeUpLab,
) -> Result<Option<ReplayBatch>, StrategyError> {
    let step = phase.first_step + phase_step;
    let batch = instance.next_batch(step, lab)?;
    let metrics = StepMetrics {
        step,
        new_loss: 2.0,
        replay_loss: batch.as_ref().map(|_| 1.0),
        grad_norm: 1.0,
        learning_rate: 1e-3,
        new_row_losses: vec![2.0; ROWS],
        replay_row_losses: batch.iter().flat_map(|b| vec![1.0; b.rows]).collect(),
    };
    instance.observe(&metrics, lab)?;
    Ok(batch)
}

fn phase(index: usize, capabilities: Capabilities) -> PhaseContext {
    let names = ["alpha", "beta", "gamma"];
    let task = |(i, name): (usize, &&str)| Task {
        name: name.to_string(),
        markers: vec![1, 4 + i as u32],
        sequences: if capabilities.contains(Capabilities::OLD_DATA) {
            1000
        } else {
            0
        },
    };
    let mut tasks: Vec<Task> = names.iter().enumerate().map(task).collect();
    PhaseContext {
        phase: index,
        phases: 2,
        first_step: index as u64 * STEPS,
        steps: STEPS,
        new_task: tasks.pop().unwrap_or_else(|| task((0, &names[0]))),
        old_tasks: if index == 0 { Vec::new() } else { tasks },
        replay_rows: ROWS,
        max_rows: ROWS,
        seq_len: SEQ_LEN,
        max_seq_len: SEQ_LEN,
        vocab_size: VOCAB,
        objective: Some(Objective::Kl),
        coeff: Some(1.0),
    }
}

fn describe(batch: Option<&ReplayBatch>) -> String {
    let Some(batch) = batch else {
        return "nothing this step".into();
    };
    let row = &batch.tokens[..batch.lengths[0] as usize];
    let mut text = format!(
        "{} rows of {} tokens, the first {row:?}",
        batch.rows, batch.seq_len
    );
    if batch.row_objectives.is_some() {
        text += ", an objective for each row";
    }
    match &batch.teacher {
        Teacher::Reference => {}
        Teacher::Snapshot(id) => text += &format!(", teacher: snapshot {id}"),
        Teacher::Supplied { k, .. } => text += &format!(", teacher: top {k} supplied"),
    }
    if let Some(coeff) = batch.coeff {
        text += &format!(", coefficient {coeff}");
    }
    text
}

/// A lab whose models generate random tokens; everything depends on the stream's position alone.
#[derive(Clone, Default)]
pub(super) struct MadeUpLab {
    position: u64,
    snapshots: u64,
    log_lines: u64,
    metrics: u64,
}

impl MadeUpLab {
    /// Next number of a SplitMix64 stream.
    fn next(&mut self) -> u64 {
        self.position += 1;
        let mut z = self.position.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn continued(&mut self, prompts: &[Vec<u32>], length: usize, stops: &[u32]) -> Sequences {
        let mut made = Sequences {
            rows: prompts.len(),
            seq_len: length,
            ..Sequences::default()
        };
        for prompt in prompts {
            let mut row = prompt.clone();
            while row.len() < length && !row[prompt.len()..].iter().any(|t| stops.contains(t)) {
                row.push(8 + (self.next() % u64::from(VOCAB - 8)) as u32);
            }
            made.lengths.push(row.len() as u32);
            row.resize(length, 0);
            made.tokens.extend(row);
        }
        made
    }
}

impl Services for MadeUpLab {
    fn draw_old(&mut self, request: &DrawRequest) -> Result<Sequences, ServiceError> {
        let tasks: Vec<usize> = (0..request.rows)
            .map(|row| request.task.unwrap_or(row % 2))
            .collect();
        let prompts: Vec<Vec<u32>> = tasks.iter().map(|task| vec![1, 4 + *task as u32]).collect();
        Ok(Sequences {
            tasks: Some(tasks),
            ..self.continued(&prompts, SEQ_LEN, &[])
        })
    }

    fn generate(&mut self, request: &GenerateRequest) -> Result<Sequences, ServiceError> {
        Ok(self.continued(&request.prompts, request.length, &request.stop_tokens))
    }

    fn score(&mut self, request: &ScoreRequest) -> Result<Scores, ServiceError> {
        let even = -f64::from(VOCAB).ln() as f32;
        let cells = request.tokens.iter().enumerate();
        let score = |(cell, token): (usize, &u32)| match cell % request.seq_len {
            0 => 0.0,
            _ => even - *token as f32 / 100.0,
        };
        let top = request.tokens.len() * request.top_k;
        Ok(Scores {
            log_probs: cells.map(score).collect(),
            top_ids: (0..top)
                .map(|i| (i % request.top_k.max(1)) as u32)
                .collect(),
            top_log_probs: vec![even; top],
        })
    }

    fn new_batch(&mut self) -> Result<Option<Sequences>, ServiceError> {
        let mut lab = Self {
            position: 1 << 40,
            ..self.clone()
        };
        Ok(Some(lab.continued(&vec![vec![1, 6]; ROWS], SEQ_LEN, &[])))
    }

    fn encode(&mut self, text: &str) -> Result<Vec<u32>, ServiceError> {
        Ok(text.bytes().map(|byte| u32::from(byte) % VOCAB).collect())
    }

    fn decode(&mut self, tokens: &[u32]) -> Result<String, ServiceError> {
        Ok(tokens.iter().map(|token| format!("<{token}>")).collect())
    }

    fn special_tokens(&self) -> SpecialTokens {
        SpecialTokens {
            bos: Some(1),
            eos: Some(2),
            pad: Some(0),
        }
    }

    fn random(&mut self, out: &mut [u64]) -> Result<(), ServiceError> {
        out.fill_with(|| self.next());
        Ok(())
    }

    fn log(&mut self, _: LogLevel, _: &str) {
        self.log_lines += 1;
    }

    fn metric(&mut self, _: &str, _: f64) {
        self.metrics += 1;
    }

    fn cancelled(&self) -> bool {
        false
    }

    fn keep_snapshot(&mut self, _: WhichModel) -> Result<u64, ServiceError> {
        self.snapshots += 1;
        Ok(self.snapshots)
    }

    fn drop_snapshot(&mut self, _: u64) -> Result<(), ServiceError> {
        Ok(())
    }
}
