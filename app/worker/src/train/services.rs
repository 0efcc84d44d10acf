//! What an arm's strategy may ask for while it is called.

use forgetlab_engine::{Engine, EngineError, Request, Sampling, Stream, Weights};
use forgetlab_plugin_host::{
    DrawRequest, GenerateRequest, LogLevel, ScoreRequest, Scores, Sequences, ServiceError,
    Services, SpecialTokens, WhichModel,
};
use forgetlab_study::run::{Cost, Level, RunError};
use serde::{Deserialize, Serialize};

use crate::data::{Batch, Suite};

use super::error::TrainError;

/// Positions in an arm's random streams; saved with it, so that a resumed arm goes on drawing where it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Counters {
    /// Calls of `draw_old`.
    draws: u64,
    /// Rows generated.
    rows: u64,
    /// Calls of `random`.
    randoms: u64,
}

/// An arm's random streams.
pub(super) struct Streams {
    draws: Stream,
    rows: Stream,
    randoms: Stream,
}

impl Streams {
    pub(super) fn new(seed: u64, slug: &str) -> Self {
        let stream = |purpose: &str| Stream::new(seed, &format!("{purpose}, arm {slug}"));
        Self {
            draws: stream("old data"),
            rows: stream("generation"),
            randoms: stream("random numbers of the strategy"),
        }
    }
}

/// Rows whose whole logits are in memory at a time, where a strategy asks for likely tokens.
const LOGIT_ROWS: usize = 16;

/// What a strategy may ask for during one of its calls.
pub(super) struct ArmServices<'a> {
    pub engine: &'a mut Engine,
    pub suite: &'a Suite,
    pub student: &'a Weights,
    pub reference: &'a Weights,
    pub phase: usize,
    /// New data of the step under way.
    pub new_batch: Option<&'a Batch>,
    pub streams: &'a Streams,
    pub counters: &'a mut Counters,
    /// Where tokens and FLOPs are added that the strategy asks for.
    pub cost: &'a mut Cost,
    /// Figures reported, not yet in the events.
    pub metrics: &'a mut Vec<(String, f64)>,
    /// Writes a log line at once: a strategy that never returns must still be heard.
    pub log: &'a dyn Fn(Level, &str) -> Result<(), RunError>,
    /// Lines logged in this call.
    pub lines: usize,
    pub stop: &'a dyn Fn() -> bool,
    /// Failure of the device in this call: it ends the run, not the arm.
    pub failed: Option<TrainError>,
    /// Why a log line of this call is not in the events: it ends the run, whatever the strategy answers.
    pub unwritten: Option<RunError>,
}

/// The most log lines of one call, and the most metrics: so that a runaway strategy cannot fill the disk.
const MAX_LINES_PER_CALL: usize = 100;

impl<'a> ArmServices<'a> {
    fn model(&self, model: WhichModel) -> Result<&'a Weights, ServiceError> {
        match model {
            WhichModel::Reference => Ok(self.reference),
            WhichModel::Student => Ok(self.student),
            WhichModel::Snapshot(_) => Err(ServiceError::NotSupported("kept snapshots")),
            WhichModel::VirtualStep => {
                Err(ServiceError::NotSupported("scores after a virtual step"))
            }
        }
    }

    /// Counts one forward of every row, padding left out.
    fn pay_for_scores(&mut self, request: &ScoreRequest) {
        let model = self.engine.layout().config;
        let rows = request.lengths.iter().map(|&len| len as usize);
        let flops: f64 = rows
            .map(|len| model.forward_flops(len, len.saturating_sub(1)))
            .sum();
        match request.model {
            WhichModel::Reference => self.cost.flops_reference += flops,
            _ => self.cost.flops_generate += flops,
        }
    }

    fn on_device<T>(&mut self, done: Result<T, EngineError>) -> Result<T, ServiceError> {
        done.map_err(|error| self.fails(error.into()))
    }

    /// Notes what is not the strategy's fault.
    fn fails(&mut self, error: TrainError) -> ServiceError {
        let message = error.to_string();
        self.failed = Some(error);
        ServiceError::Failed(message)
    }
}

/// Rows as strategies see them.
fn sequences(batch: &Batch, tasks: Option<Vec<usize>>) -> Sequences {
    let weights = batch.mask.iter().map(|&target| f32::from(target));
    Sequences {
        rows: batch.rows(),
        seq_len: batch.seq_len,
        tokens: batch.tokens.clone(),
        lengths: batch.lens.iter().map(|&len| len as u32).collect(),
        weights: Some(weights.collect()),
        tasks,
    }
}

impl Services for ArmServices<'_> {
    fn draw_old(&mut self, request: &DrawRequest) -> Result<Sequences, ServiceError> {
        let old = self.suite.old(self.phase);
        let mut random = self.streams.draws.at(self.counters.draws);
        self.counters.draws += 1;
        let tasks: Vec<usize> = match request.task {
            Some(task) => vec![task; request.rows],
            None => (0..request.rows).map(|row| row % old.len()).collect(),
        };
        let datasets: Vec<usize> = tasks.iter().map(|&task| old[task]).collect();
        match self.suite.draw(&datasets, &mut random) {
            Ok(batch) => Ok(sequences(&batch, Some(tasks))),
            Err(error) => Err(self.fails(error.into())),
        }
    }

    fn generate(&mut self, request: &GenerateRequest) -> Result<Sequences, ServiceError> {
        if self.cancelled() {
            return Err(ServiceError::Cancelled);
        }
        let rows = request.prompts.len();
        let sampling = Sampling {
            temperature: request.temperature,
            top_k: request.top_k,
            top_p: request.top_p,
            stop_tokens: request.stop_tokens.clone(),
        };
        let model = self.model(request.model)?;
        let generated = self.engine.generate(
            model,
            Request {
                prompts: &request.prompts,
                length: request.length,
                sampling: &sampling,
                stream: &self.streams.rows,
                first_row: self.counters.rows,
            },
        );
        let generated = self.on_device(generated)?;
        self.counters.rows += rows as u64;
        let model = self.engine.layout().config;
        for (prompt, &len) in request.prompts.iter().zip(&generated.lengths) {
            self.cost.tokens_generated += u64::from(len) - prompt.len() as u64;
            self.cost.flops_generate += model.generation_flops(prompt.len(), len as usize);
        }
        Ok(Sequences {
            rows,
            seq_len: request.length,
            tokens: generated.tokens,
            lengths: generated.lengths,
            weights: None,
            tasks: None,
        })
    }

    fn score(&mut self, request: &ScoreRequest) -> Result<Scores, ServiceError> {
        if self.cancelled() {
            return Err(ServiceError::Cancelled);
        }
        let model = self.model(request.model)?;
        let t = request.seq_len;
        let losses = self.engine.evaluate(model, None, &request.tokens, t);
        let losses = self.on_device(losses)?;
        let in_row = |i: usize| i % t < request.lengths[i / t] as usize;
        let mut scores = Scores {
            log_probs: vec![0.0; request.tokens.len()],
            ..Scores::default()
        };
        for i in (0..request.tokens.len()).filter(|&i| i % t > 0 && in_row(i)) {
            scores.log_probs[i] = -losses[i - 1].ntp;
        }
        if request.top_k > 0 {
            let k = request.top_k;
            scores.top_ids = vec![0; request.tokens.len() * k];
            scores.top_log_probs = vec![0.0; request.tokens.len() * k];
            let v = self.engine.layout().config.vocab_size;
            // Several rows at a time: the weights are packed anew for each call.
            for first in (0..request.rows).step_by(LOGIT_ROWS) {
                let rows = LOGIT_ROWS.min(request.rows - first);
                let tokens = &request.tokens[first * t..][..rows * t];
                let logits = self.engine.logits(model, tokens, t);
                let logits = self.on_device(logits)?;
                for row in 0..rows {
                    for position in 1..request.lengths[first + row] as usize {
                        let at = ((first + row) * t + position) * k;
                        // Token `position` is predicted one position before.
                        let logits = &logits[(row * t + position - 1) * v..][..v];
                        for (j, (id, log_prob)) in most_likely(logits, k).into_iter().enumerate() {
                            scores.top_ids[at + j] = id;
                            scores.top_log_probs[at + j] = log_prob;
                        }
                    }
                }
            }
        }
        self.pay_for_scores(request);
        Ok(scores)
    }

    fn new_batch(&mut self) -> Result<Option<Sequences>, ServiceError> {
        Ok(self.new_batch.map(|batch| sequences(batch, None)))
    }

    fn encode(&mut self, text: &str) -> Result<Vec<u32>, ServiceError> {
        self.suite
            .encode(text)
            .map_err(|error| ServiceError::Failed(error.to_string()))
    }

    fn decode(&mut self, tokens: &[u32]) -> Result<String, ServiceError> {
        self.suite
            .decode(tokens)
            .map_err(|error| ServiceError::Failed(error.to_string()))
    }

    fn special_tokens(&self) -> SpecialTokens {
        self.suite.special_tokens()
    }

    fn random(&mut self, out: &mut [u64]) -> Result<(), ServiceError> {
        let mut random = self.streams.randoms.at(self.counters.randoms);
        self.counters.randoms += 1;
        out.fill_with(|| random.bits());
        Ok(())
    }

    fn log(&mut self, level: LogLevel, message: &str) {
        let level = match level {
            LogLevel::Info => Level::Info,
            LogLevel::Warn => Level::Warn,
            LogLevel::Error => Level::Error,
        };
        self.lines += 1;
        let written = match self.lines {
            _ if self.unwritten.is_some() => return,
            ..=MAX_LINES_PER_CALL => (self.log)(level, message),
            n if n == MAX_LINES_PER_CALL + 1 => {
                (self.log)(Level::Warn, "more log lines of this call are left out")
            }
            _ => return,
        };
        self.unwritten = written.err();
    }

    fn metric(&mut self, name: &str, value: f64) {
        match self.metrics.iter().position(|(known, _)| known == name) {
            Some(i) => self.metrics[i].1 = value,
            None if self.metrics.len() < MAX_LINES_PER_CALL => {
                self.metrics.push((name.to_owned(), value))
            }
            None => {}
        }
    }

    fn cancelled(&self) -> bool {
        (self.stop)()
    }
}

/// The `k` most likely tokens, best first, with their log-probabilities.
fn most_likely(logits: &[f32], k: usize) -> Vec<(u32, f32)> {
    let lse = forgetlab_engine::ops::head::log_sum_exp(logits);
    let mut all: Vec<(u32, f32)> = logits
        .iter()
        .enumerate()
        .map(|(id, x)| (id as u32, x - lse))
        .collect();
    all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    all.truncate(k);
    all
}
