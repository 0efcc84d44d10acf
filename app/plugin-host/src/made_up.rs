//! A made-up lab for `plugins check`: its models generate random tokens, and it notes what it is asked for.

use std::{cell::Cell, collections::HashSet, rc::Rc};

use forgetlab_plugin_api::abi;
use forgetlab_study::experiment::Objective;

use super::{
    Capabilities, DrawRequest, GenerateRequest, LogLevel, PhaseContext, ReplayBatch, ScoreRequest,
    Scores, Sequences, ServiceError, Services, SpecialTokens, StepMetrics, Task, WhichModel,
};

const VOCAB: u32 = 32;
const SEQ_LEN: usize = 12;
const ROWS: usize = 4;
/// Steps of a phase.
pub(super) const STEPS: u64 = 200;
/// Generated tokens by which a sample is known again: by chance two agree once in 200 million.
const KNOWN_BY: usize = 6;

/// How the losses go that a strategy is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Losses {
    /// From high to low.
    Falling,
    /// Up and down.
    Jumping,
}

impl Losses {
    /// Metrics of a step.
    pub(super) fn at(self, step: u64, batch: Option<&ReplayBatch>) -> StepMetrics {
        let level = match self {
            Self::Falling => 0.2 + 8.0 / (1.0 + (step % STEPS) as f64),
            Self::Jumping => 0.5 + (mixed(step) % 1000) as f64 / 125.0,
        };
        let row = |row: usize| (level * (0.5 + row as f64 / ROWS as f64)) as f32;
        StepMetrics {
            step,
            new_loss: level,
            replay_loss: batch.map(|_| level / 3.0),
            grad_norm: level / 2.0,
            learning_rate: 1e-3 * level,
            new_row_losses: (0..ROWS).map(row).collect(),
            replay_row_losses: (0..batch.map_or(0, |batch| batch.rows)).map(row).collect(),
        }
    }
}

/// A number that looks random, from another.
fn mixed(of: u64) -> u64 {
    // SplitMix64.
    let mut z = of.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A phase; the first, 0, has no old tasks, those after it have two.
pub(super) fn phase(index: usize, capabilities: Capabilities) -> PhaseContext {
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
        phases: 3,
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

/// A lab whose models generate random tokens; everything depends on the stream's position alone.
#[derive(Clone, Default)]
pub(super) struct MadeUpLab {
    pub(super) position: u64,
    /// Another one makes another student.
    student: u32,
    snapshots: u64,
    pub(super) log_lines: u64,
    pub(super) metrics: u64,
    /// Capability bits of the services asked for, by all copies of this lab.
    asked: Rc<Cell<u64>>,
    /// How the samples begin that the reference of this phase gave, and those of phases before.
    samples: HashSet<Vec<u32>>,
    stale: HashSet<Vec<u32>>,
}

impl MadeUpLab {
    /// Next number of a SplitMix64 stream.
    fn next(&mut self) -> u64 {
        self.position += 1;
        mixed(self.position)
    }

    /// The same lab with another student.
    pub(super) fn with_another_student(&self) -> Self {
        Self {
            student: 1,
            ..self.clone()
        }
    }

    /// Capabilities of the services asked for so far.
    pub(super) fn asked(&self) -> Capabilities {
        Capabilities::from_bits(self.asked.get())
    }

    fn note(&self, asked: u64) {
        self.asked.set(self.asked.get() | asked);
    }

    fn note_model(&self, model: WhichModel, service: u64) {
        self.note(match model {
            WhichModel::Reference | WhichModel::Student => service,
            WhichModel::Snapshot(_) => service | abi::NEEDS_SNAPSHOTS,
            WhichModel::VirtualStep => abi::NEEDS_VIRTUAL_STEP,
        });
    }

    /// What a model's own outputs are shifted by; only the student's vary.
    fn shift(&self, model: WhichModel) -> u32 {
        match model {
            WhichModel::Student | WhichModel::VirtualStep => self.student,
            WhichModel::Reference | WhichModel::Snapshot(_) => 0,
        }
    }

    /// A new phase has a new reference.
    pub(super) fn new_reference(&mut self) {
        self.stale.extend(self.samples.drain());
    }

    /// The first row of a batch that the reference of an earlier phase has generated.
    pub(super) fn stale_row(&self, batch: &ReplayBatch) -> Option<usize> {
        let rows = batch.tokens.chunks_exact(batch.seq_len);
        let mut rows = rows.zip(&batch.lengths);
        rows.position(|(row, length)| {
            (KNOWN_BY..=*length as usize).any(|end| self.stale.contains(&row[..end]))
        })
    }

    fn continued(
        &mut self,
        prompts: &[Vec<u32>],
        length: usize,
        stops: &[u32],
        shift: u32,
    ) -> Sequences {
        let mut made = Sequences {
            rows: prompts.len(),
            seq_len: length,
            ..Sequences::default()
        };
        for prompt in prompts {
            let mut row = prompt.clone();
            while row.len() < length && !row[prompt.len()..].iter().any(|t| stops.contains(t)) {
                row.push(
                    8 + (self.next().wrapping_add(shift.into()) % u64::from(VOCAB - 8)) as u32,
                );
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
        self.note(abi::NEEDS_OLD_DATA);
        let tasks: Vec<usize> = (0..request.rows)
            .map(|row| request.task.unwrap_or(row % 2))
            .collect();
        let prompts: Vec<Vec<u32>> = tasks.iter().map(|task| vec![1, 4 + *task as u32]).collect();
        Ok(Sequences {
            tasks: Some(tasks),
            ..self.continued(&prompts, SEQ_LEN, &[], 0)
        })
    }

    fn generate(&mut self, request: &GenerateRequest) -> Result<Sequences, ServiceError> {
        self.note_model(request.model, abi::NEEDS_GENERATION);
        let (length, shift) = (request.length, self.shift(request.model));
        let made = self.continued(&request.prompts, length, &request.stop_tokens, shift);
        if request.model == WhichModel::Reference {
            let rows = made.tokens.chunks_exact(length).zip(&made.lengths);
            for ((row, made), prompt) in rows.zip(&request.prompts) {
                let end = prompt.len() + KNOWN_BY;
                if *made as usize >= end {
                    self.samples.insert(row[..end].to_vec());
                }
            }
        }
        Ok(made)
    }

    fn score(&mut self, request: &ScoreRequest) -> Result<Scores, ServiceError> {
        self.note_model(request.model, abi::NEEDS_SCORES);
        let even = -f64::from(VOCAB).ln() as f32;
        let shift = self.shift(request.model);
        let cells = request.tokens.iter().enumerate();
        let score = |(cell, token): (usize, &u32)| match cell % request.seq_len {
            0 => 0.0,
            _ => even - ((*token + shift) % VOCAB) as f32 / 100.0,
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
        Ok(Some(lab.continued(
            &vec![vec![1, 6]; ROWS],
            SEQ_LEN,
            &[],
            0,
        )))
    }

    fn encode(&mut self, text: &str) -> Result<Vec<u32>, ServiceError> {
        self.note(abi::NEEDS_TOKENIZER);
        Ok(text.bytes().map(|byte| u32::from(byte) % VOCAB).collect())
    }

    fn decode(&mut self, tokens: &[u32]) -> Result<String, ServiceError> {
        self.note(abi::NEEDS_TOKENIZER);
        Ok(tokens.iter().map(|token| format!("<{token}>")).collect())
    }

    fn special_tokens(&self) -> SpecialTokens {
        self.note(abi::NEEDS_TOKENIZER);
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
        self.note(abi::NEEDS_SNAPSHOTS);
        self.snapshots += 1;
        Ok(self.snapshots)
    }

    fn drop_snapshot(&mut self, _: u64) -> Result<(), ServiceError> {
        Ok(())
    }
}
