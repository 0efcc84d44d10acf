//! A little lab to call strategies with: an old task whose sequences are `1 4 5 6 7 8`.

use std::collections::BTreeMap;

use forgetlab_plugin_host::{
    Capabilities, DrawRequest, DryRunError, GenerateRequest, InstanceOptions, LogLevel, OnLate,
    PhaseContext, Plugin, ScoreRequest, Scores, Sequences, ServiceError, Services, SpecialTokens,
    StrategyError, StrategyInstance, Task, dry_run,
};
use forgetlab_study::experiment::Objective;
use serde_json::{Map, Value};

pub const SEQ_LEN: usize = 6;
pub const ROWS: usize = 4;
pub const STEPS: u64 = 20;

/// Services that count what is asked of them.
#[derive(Default)]
pub struct Lab {
    pub generated: Vec<GenerateRequest>,
    pub metrics: BTreeMap<String, f64>,
    pub stopping: bool,
    pub tokens: u32,
}

impl Services for Lab {
    fn draw_old(&mut self, request: &DrawRequest) -> Result<Sequences, ServiceError> {
        Ok(Sequences {
            rows: request.rows,
            seq_len: SEQ_LEN,
            tokens: [1, 4, 5, 6, 7, 8].repeat(request.rows),
            lengths: vec![SEQ_LEN as u32; request.rows],
            weights: None,
            tasks: None,
        })
    }

    fn generate(&mut self, request: &GenerateRequest) -> Result<Sequences, ServiceError> {
        self.generated.push(request.clone());
        let mut made = Sequences {
            rows: request.prompts.len(),
            seq_len: request.length,
            lengths: vec![request.length as u32; request.prompts.len()],
            ..Sequences::default()
        };
        for prompt in &request.prompts {
            made.tokens.extend(prompt);
            for _ in prompt.len()..request.length {
                self.tokens += 1;
                made.tokens.push(4 + self.tokens % 12);
            }
        }
        Ok(made)
    }

    fn score(&mut self, _: &ScoreRequest) -> Result<Scores, ServiceError> {
        Err(ServiceError::NotSupported("scores"))
    }

    fn new_batch(&mut self) -> Result<Option<Sequences>, ServiceError> {
        Ok(None)
    }

    fn encode(&mut self, text: &str) -> Result<Vec<u32>, ServiceError> {
        Ok(text.bytes().map(|byte| u32::from(byte) % 16).collect())
    }

    fn decode(&mut self, _: &[u32]) -> Result<String, ServiceError> {
        Ok(String::new())
    }

    fn special_tokens(&self) -> SpecialTokens {
        SpecialTokens {
            bos: Some(1),
            ..SpecialTokens::default()
        }
    }

    fn random(&mut self, out: &mut [u64]) -> Result<(), ServiceError> {
        out.fill(42);
        Ok(())
    }

    fn log(&mut self, _: LogLevel, _: &str) {}

    fn metric(&mut self, name: &str, value: f64) {
        self.metrics.insert(name.into(), value);
    }

    fn cancelled(&self) -> bool {
        self.stopping
    }
}

/// A phase with two old tasks, `1 4 …` and `1 5 …`; phase 0 has none.
pub fn phase(index: usize) -> PhaseContext {
    let task = |marker| Task {
        name: format!("task-{marker}"),
        markers: vec![1, marker],
        sequences: 100,
    };
    PhaseContext {
        phase: index,
        phases: 3,
        first_step: index as u64 * STEPS,
        steps: STEPS,
        old_tasks: if index == 0 {
            Vec::new()
        } else {
            vec![task(4), task(5)]
        },
        new_task: task(6),
        replay_rows: ROWS,
        max_rows: ROWS,
        seq_len: SEQ_LEN,
        max_seq_len: SEQ_LEN,
        vocab_size: 16,
        objective: Some(Objective::Kl),
        coeff: Some(1.0),
    }
}

pub fn options() -> InstanceOptions {
    InstanceOptions {
        arm: "test:kl:1".into(),
        offered: Capabilities::OLD_DATA
            .and(Capabilities::GENERATION)
            .and(Capabilities::TOKENIZER),
        breadcrumb: None,
        deadline: None,
    }
}

/// The check of `forgetlab plugins check`.
pub fn check(plugin: &std::sync::Arc<Plugin>, settings: &str) -> Result<(), DryRunError> {
    let settings: Map<String, Value> = serde_json::from_str(settings).expect("JSON");
    let on_late: OnLate = std::sync::Arc::new(|_| {});
    dry_run(plugin, &settings, &on_late, &mut |_| {})
}

/// An instance with settings given as JSON.
pub fn instance(
    plugin: &std::sync::Arc<Plugin>,
    settings: &str,
    lab: &mut Lab,
) -> Result<StrategyInstance, StrategyError> {
    let settings: Map<String, Value> = serde_json::from_str(settings).expect("JSON");
    let settings = plugin.resolve_settings(&settings).expect("valid settings");
    plugin.instantiate(&settings, options(), lab)
}
