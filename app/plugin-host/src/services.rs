//! The services that the training loop offers to a strategy during a callback.

use thiserror::Error;

/// Services of the training loop to one arm's strategy; mirrors the host table of the plugin ABI.
///
/// Everything per token is indexed by the token it is about: entry `[r, t]` belongs to predicting
/// token `t` of row `r`. Results of [`Services::draw_old`] and [`Services::generate`] must depend on
/// the arm's named random streams only, so that a resumed run repeats them.
///
/// Requests were checked by the host: there are old tasks and a task asked for is one of them, lengths, ids
/// and sampling settings are in range.
pub trait Services {
    /// Draws true old sequences of one old task, or of all in equal shares.
    fn draw_old(&mut self, request: &DrawRequest) -> Result<Sequences, ServiceError>;
    /// Generates one sequence a prompt.
    fn generate(&mut self, request: &GenerateRequest) -> Result<Sequences, ServiceError>;
    /// Log-probabilities of every token, optionally with the most likely ones.
    fn score(&mut self, request: &ScoreRequest) -> Result<Scores, ServiceError>;
    /// The batch of new data of the current step; `None` outside a step.
    fn new_batch(&mut self) -> Result<Option<Sequences>, ServiceError>;
    /// Text to tokens, no special token added.
    fn encode(&mut self, text: &str) -> Result<Vec<u32>, ServiceError>;
    /// Tokens to text.
    fn decode(&mut self, tokens: &[u32]) -> Result<String, ServiceError>;
    /// Ids of the special tokens.
    fn special_tokens(&self) -> SpecialTokens;
    /// Fills `out` from the arm's counter-based stream, whose position the training loop saves.
    fn random(&mut self, out: &mut [u64]) -> Result<(), ServiceError>;
    /// Logs a line for the researcher.
    fn log(&mut self, level: LogLevel, message: &str);
    /// Records a named, finite figure, shown on screen and written to the CSV.
    fn metric(&mut self, name: &str, value: f64);
    /// Whether the run is being stopped.
    fn cancelled(&self) -> bool;
    /// Keeps a copy of the reference or the student beyond the phase, and returns its id.
    fn keep_snapshot(&mut self, model: WhichModel) -> Result<u64, ServiceError> {
        let _ = model;
        Err(ServiceError::NotSupported("kept snapshots"))
    }
    /// Drops a kept snapshot.
    fn drop_snapshot(&mut self, id: u64) -> Result<(), ServiceError> {
        let _ = id;
        Err(ServiceError::NotSupported("kept snapshots"))
    }
}

/// Failure of a service. The strategy is told and may go on.
#[derive(Debug, Error)]
pub enum ServiceError {
    /// This version of the host does not offer the service.
    #[error("{0}: not supported by this version of the lab")]
    NotSupported(&'static str),
    /// The strategy asked for something impossible, or the work failed.
    #[error("{0}")]
    Failed(String),
    /// The run is being stopped.
    #[error("the run is being stopped")]
    Cancelled,
}

/// A [`ServiceError::Failed`] with this text.
pub(super) fn failed(text: impl Into<String>) -> ServiceError {
    ServiceError::Failed(text.into())
}

/// The model that generates or scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhichModel {
    /// Frozen copy of the student at the start of the phase.
    Reference,
    /// Student as it is now.
    Student,
    /// Copy kept by [`Services::keep_snapshot`].
    Snapshot(u64),
    /// Student after one virtual step on the current new batch; scores only.
    VirtualStep,
}

/// A request for true old sequences.
#[derive(Clone, Debug, PartialEq)]
pub struct DrawRequest {
    /// Index into [`super::PhaseContext::old_tasks`]; `None`: all in equal shares.
    pub task: Option<usize>,
    /// Sequences wanted, at least 1.
    pub rows: usize,
}

/// A request to generate sequences from prompts.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerateRequest {
    /// Model that is sampled.
    pub model: WhichModel,
    /// One prompt a row, each of 1 to `length` tokens, all ids valid.
    pub prompts: Vec<Vec<u32>>,
    /// Length at which a sequence ends, prompt included.
    pub length: usize,
    /// Sampling temperature; 0: always the most likely token.
    pub temperature: f32,
    /// Top-k: sample from the k most likely tokens; `None`: from all.
    pub top_k: Option<u32>,
    /// Top-p: sample from the most likely tokens of this probability mass; `None`: from all.
    pub top_p: Option<f32>,
    /// Tokens that end a sequence, each kept as its last token.
    pub stop_tokens: Vec<u32>,
}

/// A request to score sequences; ids and lengths are valid.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoreRequest {
    /// Model that scores.
    pub model: WhichModel,
    /// Number of rows.
    pub rows: usize,
    /// Padded length of a row.
    pub seq_len: usize,
    /// Token ids `[rows, seq_len]`.
    pub tokens: Vec<u32>,
    /// True length of each row.
    pub lengths: Vec<u32>,
    /// Number of most likely tokens to return per position; 0: none.
    pub top_k: usize,
}

/// Rows of tokens, padded to one length.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sequences {
    /// Number of rows.
    pub rows: usize,
    /// Padded length of a row.
    pub seq_len: usize,
    /// Token ids `[rows, seq_len]`.
    pub tokens: Vec<u32>,
    /// True length of each row.
    pub lengths: Vec<u32>,
    /// Loss weights on targets `[rows, seq_len]`; `None`: 1 for every token but the first.
    pub weights: Option<Vec<f32>>,
    /// Index of each row's old task, where known.
    pub tasks: Option<Vec<usize>>,
}

/// Log-probabilities of [`Services::score`], in nats.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scores {
    /// Log-probability of each token `[rows, seq_len]`; 0 for token 0 and padding.
    pub log_probs: Vec<f32>,
    /// Most likely tokens `[rows, seq_len, k]`, most likely first; empty for `top_k` 0.
    pub top_ids: Vec<u32>,
    /// Their log-probabilities.
    pub top_log_probs: Vec<f32>,
}

/// Special token ids, where the tokenizer has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    /// BOS, the first token of every sequence; what separates documents in a model without BOS.
    pub bos: Option<u32>,
    /// EOS, the end of a text.
    pub eos: Option<u32>,
    /// Padding.
    pub pad: Option<u32>,
}

/// Severity of a strategy's log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Information.
    Info,
    /// Warning.
    Warn,
    /// Failure.
    Error,
}
