//! What the training loop offers to a strategy while it is called.

use thiserror::Error;

/// Services of the training loop to one arm's strategy; mirrors the host table of the plugin ABI.
///
/// Everything per token is indexed by the token it is about: entry `[r, t]` belongs to predicting
/// token `t` of row `r`. Results of [`Services::draw_old`] and [`Services::generate`] must depend on
/// the arm's named random streams only, so that a resumed run repeats them.
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
    /// A line for the researcher.
    fn log(&mut self, level: LogLevel, message: &str);
    /// A named figure, live on screen and in the CSV; finite.
    fn metric(&mut self, name: &str, value: f64);
    /// Whether the run is being stopped.
    fn cancelled(&self) -> bool;
    /// Keeps a copy of the reference or the student beyond the phase; gives its id.
    fn keep_snapshot(&mut self, model: WhichModel) -> Result<u64, ServiceError> {
        let _ = model;
        Err(ServiceError::NotSupported("kept snapshots"))
    }
    /// Drops a kept copy.
    fn drop_snapshot(&mut self, id: u64) -> Result<(), ServiceError> {
        let _ = id;
        Err(ServiceError::NotSupported("kept snapshots"))
    }
}

/// Why a service gave no result; the strategy is told and may go on.
#[derive(Debug, Error)]
pub enum ServiceError {
    /// This host does not offer it yet.
    #[error("{0}: not supported by this version of the lab")]
    NotSupported(&'static str),
    /// The strategy asked for something impossible, or the work failed.
    #[error("{0}")]
    Failed(String),
    /// The run is being stopped.
    #[error("the run is being stopped")]
    Cancelled,
}

/// Which model generates or scores.
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

/// Which true old sequences to draw.
#[derive(Clone, Debug, PartialEq)]
pub struct DrawRequest {
    /// Index into [`super::PhaseContext::old_tasks`]; `None`: all in equal shares.
    pub task: Option<usize>,
    /// Sequences wanted, at least 1.
    pub rows: usize,
}

/// What to generate.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerateRequest {
    /// Model that is sampled.
    pub model: WhichModel,
    /// One prompt a row, each of 1 to `length` tokens, all ids valid.
    pub prompts: Vec<Vec<u32>>,
    /// Length at which a sequence ends, prompt included.
    pub length: usize,
    /// Temperature; 0: always the most likely token.
    pub temperature: f32,
    /// Most likely tokens to choose from; `None`: all.
    pub top_k: Option<u32>,
    /// Probability mass to choose from; `None`: all.
    pub top_p: Option<f32>,
    /// Tokens that end a sequence, staying its last token.
    pub stop_tokens: Vec<u32>,
}

/// Sequences to score, ids and lengths valid.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoreRequest {
    /// Model that scores.
    pub model: WhichModel,
    /// Rows.
    pub rows: usize,
    /// Padded length.
    pub seq_len: usize,
    /// Token ids `[rows, seq_len]`.
    pub tokens: Vec<u32>,
    /// True length of each row.
    pub lengths: Vec<u32>,
    /// Most likely tokens wanted a position; 0: none.
    pub top_k: usize,
}

/// Rows of one padded length.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sequences {
    /// Rows.
    pub rows: usize,
    /// Padded length.
    pub seq_len: usize,
    /// Token ids `[rows, seq_len]`.
    pub tokens: Vec<u32>,
    /// True length of each row.
    pub lengths: Vec<u32>,
    /// Loss weights on targets `[rows, seq_len]`; `None`: 1 for every token but the first.
    pub weights: Option<Vec<f32>>,
    /// Old task of each row, where known.
    pub tasks: Option<Vec<usize>>,
}

/// Log-probabilities of [`Services::score`], in nats.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scores {
    /// Log-probability of each token `[rows, seq_len]`; 0 for token 0 and padding.
    pub log_probs: Vec<f32>,
    /// Most likely tokens `[rows, seq_len, k]`, best first; empty when none were asked for.
    pub top_ids: Vec<u32>,
    /// Their log-probabilities.
    pub top_log_probs: Vec<f32>,
}

/// Special token ids, where the tokenizer has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    /// Begins every sequence.
    pub bos: Option<u32>,
    /// Ends a text.
    pub eos: Option<u32>,
    /// Fills rows up.
    pub pad: Option<u32>,
}

/// How bad a log line of a strategy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Worth knowing.
    Info,
    /// Worth a look.
    Warn,
    /// Something failed.
    Error,
}
