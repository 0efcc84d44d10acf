//! The services of the lab, as a strategy calls them.

use crate::{Error, Sequences, abi, raw::MessageBuffer};

/// The services of the lab, lent for one callback.
pub struct Host<'a> {
    raw: &'a abi::Host,
}

/// The model that generates or scores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Model {
    /// The frozen copy of the student at the start of the phase.
    #[default]
    Reference,
    /// The student as it is now.
    Student,
    /// A snapshot kept by [`Host::keep_snapshot`].
    Snapshot(u64),
    /// The student after one virtual step on the current new batch; scores only.
    VirtualStep,
}

impl Model {
    /// Kind of the model and id of the snapshot, as in the ABI.
    fn raw(self) -> (u32, u64) {
        match self {
            Model::Reference => (abi::MODEL_REFERENCE, 0),
            Model::Student => (abi::MODEL_STUDENT, 0),
            Model::Snapshot(id) => (abi::MODEL_SNAPSHOT, id),
            Model::VirtualStep => (abi::MODEL_VIRTUAL_STEP, 0),
        }
    }
}

/// A request to generate one sequence per prompt. [`Generate::new`] samples the reference freely:
/// temperature 1, no truncation, no stop tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct Generate {
    /// Model that is sampled.
    pub model: Model,
    /// Prompts, each of at least one token.
    pub prompts: Vec<Vec<u32>>,
    /// Length at which a sequence ends, prompt included.
    pub length: usize,
    /// Sampling temperature; 0: always the most likely token.
    pub temperature: f32,
    /// Top-k: sample from the k most likely tokens; 0: from all.
    pub top_k: u32,
    /// Top-p: sample from the most likely tokens of this probability mass; 1: from all.
    pub top_p: f32,
    /// Tokens that end a sequence, each kept as its last token.
    pub stop_tokens: Vec<u32>,
}

impl Generate {
    /// A request for free samples of the reference, `length` tokens each.
    pub fn new(prompts: Vec<Vec<u32>>, length: usize) -> Self {
        Self {
            model: Model::Reference,
            prompts,
            length,
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            stop_tokens: Vec::new(),
        }
    }
}

/// Log-probabilities of sequences, in nats. `[r, t]` belongs to predicting token `t` of row `r`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scores {
    /// Log-probability of each token `[rows, T]`; 0 for token 0 and padding.
    pub log_probs: Vec<f32>,
    /// Number of most likely tokens per position.
    pub k: usize,
    /// Most likely tokens `[rows, T, k]`, most likely first.
    pub top_ids: Vec<u32>,
    /// Their log-probabilities.
    pub top_log_probs: Vec<f32>,
}

/// Special tokens, where the tokenizer has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    /// BOS, the first token of every sequence; what separates documents in a model without BOS.
    pub bos: Option<u32>,
    /// EOS, the end of a text.
    pub eos: Option<u32>,
    /// Padding.
    pub pad: Option<u32>,
}

/// Severity of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Information.
    Info,
    /// Warning.
    Warn,
    /// Failure.
    Error,
}

/// Calls a service of the table; an error if the table does not have it.
macro_rules! service {
    ($host:expr, $name:ident ( $($arg:expr),* )) => {{
        let Some(service) = $host.raw.$name else {
            let text = concat!("this lab has no service `", stringify!($name), "`");
            return Err(Error::Unsupported(text.into()));
        };
        // SAFETY: the table is the host's own, and every pointer leads to memory that is valid for
        // the call and as long as its length or capacity says.
        MessageBuffer::around(|message| unsafe { service($host.raw.context, $($arg,)* message) })
    }};
}

impl<'a> Host<'a> {
    pub(crate) fn new(raw: &'a abi::Host) -> Self {
        Self { raw }
    }

    /// Draws true old sequences of all old tasks, in equal shares.
    pub fn draw_old(&mut self, rows: usize) -> Result<Sequences, Error> {
        self.draw(abi::TASK_ALL, rows)
    }

    /// Draws true old sequences of one old task (an index into [`crate::Phase::old_tasks`]).
    pub fn draw_old_task(&mut self, task: usize, rows: usize) -> Result<Sequences, Error> {
        self.draw(task as u64, rows)
    }

    fn draw(&mut self, task: u64, rows: usize) -> Result<Sequences, Error> {
        let request = abi::DrawRequest {
            struct_size: size_of::<abi::DrawRequest>() as u64,
            task,
            rows: rows as u64,
            reserved: [0; 4],
        };
        let drawn = sequences(Shape::default(), true, "draw_old", |out| {
            Ok(service!(self, draw_old(&request, out)))
        })?;
        drawn.ok_or_else(|| "draw_old: the lab has no old sequences".into())
    }

    /// Generates one sequence per prompt.
    pub fn generate(&mut self, request: &Generate) -> Result<Sequences, Error> {
        let prompts = Sequences::from_rows(&request.prompts, 0);
        let (model, snapshot) = request.model.raw();
        let raw = abi::GenerateRequest {
            struct_size: size_of::<abi::GenerateRequest>() as u64,
            model,
            top_k: request.top_k,
            snapshot,
            prompts: prompts.tokens.as_ptr(),
            prompt_lengths: prompts.lengths.as_ptr(),
            prompts_len: prompts.rows() as u64,
            prompt_stride: prompts.seq_len as u64,
            length: request.length as u64,
            temperature: request.temperature,
            top_p: request.top_p,
            stop_tokens: request.stop_tokens.as_ptr(),
            stop_tokens_len: request.stop_tokens.len() as u64,
            reserved: [0; 8],
        };
        let shape = Shape {
            rows: prompts.rows(),
            seq_len: request.length,
        };
        let generated = sequences(shape, false, "generate", |out| {
            Ok(service!(self, generate(&raw, out)))
        })?;
        generated.ok_or_else(|| "generate: the lab generated nothing".into())
    }

    /// Log-probability of every token, with the `top_k` most likely tokens per position (0: none).
    pub fn score(
        &mut self,
        model: Model,
        sequences: &Sequences,
        top_k: usize,
    ) -> Result<Scores, Error> {
        let cells = sequences.tokens.len();
        let (model, snapshot) = model.raw();
        let request = abi::ScoreRequest {
            struct_size: size_of::<abi::ScoreRequest>() as u64,
            model,
            top_k: u32::try_from(top_k).unwrap_or(u32::MAX),
            snapshot,
            tokens: sequences.tokens.as_ptr(),
            lengths: sequences.lengths.as_ptr(),
            rows: sequences.rows() as u64,
            seq_len: sequences.seq_len as u64,
            reserved: [0; 4],
        };
        let mut scores = Scores {
            log_probs: vec![0.0; cells],
            k: top_k,
            top_ids: vec![0; cells * top_k],
            top_log_probs: vec![0.0; cells * top_k],
        };
        let mut raw = abi::Scores {
            struct_size: size_of::<abi::Scores>() as u64,
            log_probs: scores.log_probs.as_mut_ptr(),
            log_probs_capacity: cells as u64,
            top_ids: scores.top_ids.as_mut_ptr(),
            top_log_probs: scores.top_log_probs.as_mut_ptr(),
            top_capacity: scores.top_ids.len() as u64,
            rows: 0,
            seq_len: 0,
            k: 0,
            reserved: [0; 4],
        };
        let (status, message) = service!(self, score(&request, &mut raw));
        message.result(status, "score")?;
        Ok(scores)
    }

    /// The batch of new data of the current step; `None` outside a step.
    pub fn new_batch(&mut self) -> Result<Option<Sequences>, Error> {
        sequences(Shape::default(), true, "new_batch", |out| {
            Ok(service!(self, new_batch(out)))
        })
    }

    /// Turns text into tokens, adding no special token.
    pub fn encode(&mut self, text: &str) -> Result<Vec<u32>, Error> {
        grow(text.len() + 16, "encode", |out: &mut [u32], needed| {
            let (ptr, len) = (text.as_ptr(), text.len() as u64);
            Ok(service!(
                self,
                encode(ptr, len, out.as_mut_ptr(), out.len() as u64, needed)
            ))
        })
    }

    /// Turns tokens into text.
    pub fn decode(&mut self, tokens: &[u32]) -> Result<String, Error> {
        let bytes = grow(tokens.len() * 8 + 16, "decode", |out: &mut [u8], needed| {
            let (ptr, len) = (tokens.as_ptr(), tokens.len() as u64);
            Ok(service!(
                self,
                decode(ptr, len, out.as_mut_ptr(), out.len() as u64, needed)
            ))
        })?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Ids of the special tokens.
    pub fn special_tokens(&mut self) -> Result<SpecialTokens, Error> {
        let mut raw = abi::SpecialTokens {
            struct_size: size_of::<abi::SpecialTokens>() as u64,
            bos: -1,
            eos: -1,
            pad: -1,
            reserved: [0; 4],
        };
        let (status, message) = service!(self, special_tokens(&mut raw));
        message.result(status, "special_tokens")?;
        let id = |raw: i64| u32::try_from(raw).ok();
        Ok(SpecialTokens {
            bos: id(raw.bos),
            eos: id(raw.eos),
            pad: id(raw.pad),
        })
    }

    /// Fills `out` with independent uniform 64-bit values of the arm's own stream, whose position the lab
    /// saves.
    pub fn random(&mut self, out: &mut [u64]) -> Result<(), Error> {
        let (status, message) = service!(self, random(out.as_mut_ptr(), out.len() as u64));
        message.result(status, "random").map(drop)
    }

    /// A uniform random number from 0 to `bound` − 1; 0 for bound 0.
    pub fn random_below(&mut self, bound: u64) -> Result<u64, Error> {
        let mut value = [0];
        self.random(&mut value)?;
        Ok(((u128::from(value[0]) * u128::from(bound)) >> 64) as u64)
    }

    /// Logs a line for the researcher.
    pub fn log(&mut self, level: Level, text: &str) -> Result<(), Error> {
        let level = match level {
            Level::Info => abi::LOG_INFO,
            Level::Warn => abi::LOG_WARN,
            Level::Error => abi::LOG_ERROR,
        };
        let (status, message) = service!(self, log(level, text.as_ptr(), text.len() as u64));
        message.result(status, "log").map(drop)
    }

    /// Records a named number, shown on screen and written to the CSV.
    pub fn metric(&mut self, name: &str, value: f64) -> Result<(), Error> {
        let (status, message) = service!(self, metric(name.as_ptr(), name.len() as u64, value));
        message.result(status, "metric").map(drop)
    }

    /// Whether the run is being stopped; return [`Error::Cancelled`] from long work then.
    pub fn cancelled(&self) -> bool {
        self.raw.cancelled.is_some_and(|cancelled| {
            // SAFETY: the table is the host's own.
            unsafe { cancelled(self.raw.context) != 0 }
        })
    }

    /// Keeps a copy of the reference or the student beyond the phase, and returns its id.
    pub fn keep_snapshot(&mut self, model: Model) -> Result<u64, Error> {
        let mut id = 0;
        let (status, message) = service!(self, keep_snapshot(model.raw().0, &mut id));
        message.result(status, "keep_snapshot")?;
        Ok(id)
    }

    /// Drops a kept snapshot.
    pub fn drop_snapshot(&mut self, id: u64) -> Result<(), Error> {
        let (status, message) = service!(self, drop_snapshot(id));
        message.result(status, "drop_snapshot").map(drop)
    }
}

/// Status and message of a service call.
type Answer = Result<(i32, MessageBuffer), Error>;

/// Rows and padded length of sequences.
#[derive(Clone, Copy, Default)]
struct Shape {
    rows: usize,
    seq_len: usize,
}

impl Shape {
    fn cells(self) -> usize {
        self.rows.saturating_mul(self.seq_len)
    }
}

/// Pointer to a buffer; null, for "not wanted", if it is empty.
fn or_null<T>(buffer: &mut [T]) -> *mut T {
    if buffer.is_empty() {
        return std::ptr::null_mut();
    }
    buffer.as_mut_ptr()
}

/// Calls a service that gives sequences, with buffers of the shape `room` and, when it asks for them, with
/// larger ones: an empty shape asks for the size first. With `details`, weights and tasks are read too.
fn sequences(
    mut room: Shape,
    details: bool,
    service: &str,
    mut call: impl FnMut(*mut abi::Sequences) -> Answer,
) -> Result<Option<Sequences>, Error> {
    loop {
        let (rows, cells) = (room.rows, room.cells());
        let mut tokens = vec![0; cells];
        let mut lengths = vec![0; rows];
        let mut weights = vec![0.0; if details { cells } else { 0 }];
        let mut tasks = vec![0; if details { rows } else { 0 }];
        let mut raw = abi::Sequences {
            struct_size: size_of::<abi::Sequences>() as u64,
            tokens: tokens.as_mut_ptr(),
            weights: or_null(&mut weights),
            tokens_capacity: cells as u64,
            lengths: lengths.as_mut_ptr(),
            tasks: or_null(&mut tasks),
            rows_capacity: rows as u64,
            rows: 0,
            seq_len: 0,
            reserved: [0; 4],
        };
        let (status, message) = call(&mut raw)?;
        let shape = Shape {
            rows: raw.rows as usize,
            seq_len: raw.seq_len as usize,
        };
        if status == abi::RETRY && (shape.rows > rows || shape.cells() > cells) {
            room = shape;
            continue;
        }
        if !message.result(status, service)? {
            return Ok(None);
        }
        tokens.truncate(shape.cells());
        lengths.truncate(shape.rows);
        weights.truncate(shape.cells());
        tasks.truncate(shape.rows);
        let tasks: Option<Vec<_>> = tasks
            .into_iter()
            .map(|task| (task != abi::TASK_ALL).then_some(task as usize))
            .collect();
        return Ok(Some(Sequences {
            seq_len: shape.seq_len,
            tokens,
            lengths,
            weights: details.then_some(weights),
            tasks: tasks.filter(|_| details),
        }));
    }
}

/// Calls a service that fills one array, with a larger one when it asks for it.
fn grow<T: Copy + Default>(
    mut capacity: usize,
    service: &str,
    mut call: impl FnMut(&mut [T], *mut u64) -> Answer,
) -> Result<Vec<T>, Error> {
    loop {
        let mut out = vec![T::default(); capacity];
        let mut needed = 0;
        let (status, message) = call(&mut out, &mut needed)?;
        if status == abi::RETRY && needed > capacity as u64 {
            capacity = needed as usize;
            continue;
        }
        message.result(status, service)?;
        out.truncate(needed as usize);
        return Ok(out);
    }
}
