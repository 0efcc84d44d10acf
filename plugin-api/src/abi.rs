//! The C ABI, version 1: every struct and function that crosses between the lab and a strategy.
//!
//! `include/forgetlab_strategy.h` says the same in C; a test compiles it and compares each offset.
//! Strategies in Rust never touch this module: they implement [`crate::Strategy`].
//!
//! # Rules
//! - A library exports one C symbol, [`SYMBOL`], which returns a static [`Descriptor`]. Its first
//!   four fields keep their place in every version to come, so that both sides can name theirs.
//! - Every struct begins with `struct_size` (set by whoever fills it) and ends in `reserved`
//!   (zero). A newer minor version takes its new fields out of `reserved` or appends them and grows
//!   `struct_size`; a reader never reads past the `struct_size` it is given.
//! - Integers have a fixed width, lengths are `u64` counts of elements, booleans are `u8` (0 or 1),
//!   kinds are `u32` constants, text is UTF-8 with a length and no terminator. An empty array may
//!   have a null pointer.
//! - Memory belongs to whoever allocated it. What is passed in is valid until the call returns.
//!   Results are copied into buffers of the caller: capacity in, needed length out. A buffer that is
//!   too small gives [`RETRY`] with the needed length; the same call with a larger one gives the
//!   same result, nothing is drawn twice.
//! - Every call returns a status. With [`FAILED`] and [`UNSUPPORTED`] a text goes into the
//!   [`Message`] of the caller.
//! - `draw_old`, `generate` and `score` work from `phase_started` on. One request is for at most [`MAX_BATCHES`]
//!   times `max_rows` rows, and for at most [`MAX_ELEMENTS`] values. A callback may ask again; once the run is being
//!   stopped, one that has asked for more than that altogether is answered [`CANCELLED`].
//! - The mode of floating-point arithmetic (rounding, flush to zero) is the lab's own again after every call, and
//!   within its services.
//! - All calls into one instance come one at a time, on one thread at a time; instances are
//!   independent. Services of [`Host`] may be called only inside a callback, on its thread. They
//!   never call back into the plugin.
//! - No exception, panic or `longjmp` crosses in either direction.
//!
//! # Life of an instance
//! `create`, then `phase_started` at the start of each phase, `next_batch` and `observe` once a
//! step, `save` at any time between two calls, `destroy`. To resume, the lab calls `create`, then
//! `load` with the phase under way, and goes on with `next_batch`; `phase_started` is not repeated.
//! The state must hold all that later batches depend on, except the random stream, whose position
//! the lab saves itself. Equal state and equal inputs must give equal batches, bit for bit.
//!
//! # Targets
//! Everything per token is indexed by the token it is about: weight, log-probability and top-k
//! entry `[r, t]` belong to predicting token `t` of row `r` from the tokens before it. Token 0 is
//! never predicted; its entries are ignored (weights, teacher) or 0 (log-probabilities).

use std::ffi::c_void;

/// Name of the one exported symbol, of type [`Entry`].
pub const SYMBOL: &str = "forgetlab_strategy";
/// Magic number of a descriptor: `b"FLSTRAT1"` read as a little-endian integer.
pub const MAGIC: u64 = u64::from_le_bytes(*b"FLSTRAT1");
/// Major version of the ABI; different ones do not work together.
pub const ABI_MAJOR: u32 = 1;
/// Minor version of the ABI. A plugin works with hosts of its own minor version or a newer one.
pub const ABI_MINOR: u32 = 0;

/// The call did what was asked.
pub const OK: i32 = 0;
/// There is no result (`next_batch`: no replay this step; `new_batch`: no batch at this time).
pub const NOTHING: i32 = 1;
/// Call again: a buffer was too small (the needed lengths are set), or the plugin asks for it.
pub const RETRY: i32 = 2;
/// The call failed; the message says why. From a plugin this ends the arm.
pub const FAILED: i32 = 3;
/// The run is being stopped; from a plugin: it gave up the call for that.
pub const CANCELLED: i32 = 4;
/// This host does not offer the service; the plugin may go on without it.
pub const UNSUPPORTED: i32 = 5;

/// Capability: draws true old sequences.
pub const NEEDS_OLD_DATA: u64 = 1 << 0;
/// Capability: generates sequences.
pub const NEEDS_GENERATION: u64 = 1 << 1;
/// Capability: encodes, decodes or asks for special tokens.
pub const NEEDS_TOKENIZER: u64 = 1 << 2;
/// Capability: scores sequences under the reference or the student.
pub const NEEDS_SCORES: u64 = 1 << 3;
/// Capability: keeps snapshots of a model.
pub const NEEDS_SNAPSHOTS: u64 = 1 << 4;
/// Capability: scores under the student after a virtual step.
pub const NEEDS_VIRTUAL_STEP: u64 = 1 << 5;
/// Capability: supplies its own teacher log-probabilities.
pub const SUPPLIES_TEACHER: u64 = 1 << 6;
/// Capability: batches depend neither on the student nor on `observe`, so that the lab may ask for
/// them ahead of time.
pub const INDEPENDENT_OF_STUDENT: u64 = 1 << 7;
/// All capabilities of this version; a plugin that declares another one is refused.
pub const ALL_CAPABILITIES: u64 = (1 << 8) - 1;

/// Model: the frozen copy of the student at the start of the phase.
pub const MODEL_REFERENCE: u32 = 0;
/// Model: the student as it is now.
pub const MODEL_STUDENT: u32 = 1;
/// Model: a snapshot kept by the host (`snapshot` names it).
pub const MODEL_SNAPSHOT: u32 = 2;
/// Model: the student after one virtual step on the current new batch; scores only.
pub const MODEL_VIRTUAL_STEP: u32 = 3;

/// Objective: of a row, the arm's; of an arm, none.
pub const OBJECTIVE_DEFAULT: u8 = 0;
/// Objective: KL(teacher || student).
pub const OBJECTIVE_KL: u8 = 1;
/// Objective: next-token prediction.
pub const OBJECTIVE_NTP: u8 = 2;
/// Objective of an arm only: old rows replace rows of the new batch.
pub const OBJECTIVE_REPLACE: u8 = 3;

/// Teacher of a KL row: the reference.
pub const TEACHER_REFERENCE: u32 = 0;
/// Teacher of a KL row: the snapshot `teacher_snapshot`.
pub const TEACHER_SNAPSHOT: u32 = 1;
/// Teacher of a KL row: the log-probabilities in the batch.
pub const TEACHER_SUPPLIED: u32 = 2;

/// Log level: information.
pub const LOG_INFO: u32 = 0;
/// Log level: warning.
pub const LOG_WARN: u32 = 1;
/// Log level: failure.
pub const LOG_ERROR: u32 = 2;

/// In place of an old task's index: all old tasks in equal shares.
pub const TASK_ALL: u64 = u64::MAX;

/// Maximum bytes of a [`Message`], a log line, a name or a version.
pub const MAX_TEXT: u64 = 4096;
/// Maximum bytes of a settings schema or of settings.
pub const MAX_SETTINGS: u64 = 1 << 20;
/// Maximum bytes of a saved state.
pub const MAX_STATE: u64 = 1 << 29;
/// Maximum elements of one token or log-probability buffer.
pub const MAX_ELEMENTS: u64 = 1 << 26;
/// Maximum rows of one request to draw, generate or score, in batches of `max_rows`.
pub const MAX_BATCHES: u64 = 1024;
/// Maximum values of one call of the random stream.
pub const MAX_RANDOM: u64 = 1 << 24;
/// Maximum top-k entries per token.
pub const MAX_TOP_K: u64 = 4096;

/// Type of the exported symbol, [`SYMBOL`].
pub type Entry = unsafe extern "C" fn() -> *const Descriptor;

/// Declares the structs of the ABI and lists their layout for the test of the C header.
macro_rules! abi_structs {
    ($( $(#[$meta:meta])* $c:literal $name:ident { $( $(#[$field_meta:meta])* $field:ident : $ty:ty, )* } )*) => {
        $( $(#[$meta])* #[repr(C)] pub struct $name {
            $( $(#[$field_meta])* pub $field: $ty, )*
        } )*

        /// C name and size of every struct, with name, offset and size of every field.
        #[doc(hidden)]
        #[allow(clippy::type_complexity, reason = "for the tests of the header alone")]
        pub fn layouts() -> Vec<(&'static str, usize, Vec<(&'static str, usize, usize)>)> {
            vec![ $( ($c, size_of::<$name>(), vec![
                $( (stringify!($field), std::mem::offset_of!($name, $field), size_of::<$ty>()), )*
            ]), )* ]
        }
    };
}

abi_structs! {
    /// Description of a strategy library; static, returned by [`SYMBOL`].
    "fl_descriptor" Descriptor {
        /// Bytes of this struct. Fixed place in every version.
        struct_size: u64,
        /// [`MAGIC`]. Fixed place in every version.
        magic: u64,
        /// [`ABI_MAJOR`] the plugin was built for. Fixed place in every version.
        abi_major: u32,
        /// [`ABI_MINOR`] the plugin was built for. Fixed place in every version.
        abi_minor: u32,
        /// Name used in arms: lower-case letters, digits and `-`.
        name: *const u8,
        /// Bytes of `name`.
        name_len: u64,
        /// Version of the plugin.
        version: *const u8,
        /// Bytes of `version`.
        version_len: u64,
        /// One line on what it replays.
        summary: *const u8,
        /// Bytes of `summary`.
        summary_len: u64,
        /// JSON Schema of the settings (an object).
        settings_schema: *const u8,
        /// Bytes of `settings_schema`.
        settings_schema_len: u64,
        /// Capability bits.
        capabilities: u64,
        /// Version of the saved state, handed back to `load`.
        state_version: u32,
        /// Zero.
        pad: u32,
        /// Makes an instance.
        create: Option<CreateFn>,
        /// Announces a phase.
        phase_started: Option<PhaseStartedFn>,
        /// Gives the replay batch of a step.
        next_batch: Option<NextBatchFn>,
        /// Reports the metrics of the last step.
        observe: Option<ObserveFn>,
        /// Saves the state.
        save: Option<SaveFn>,
        /// Restores a saved state.
        load: Option<LoadFn>,
        /// Destroys an instance.
        destroy: Option<DestroyFn>,
        /// Zero.
        reserved: [u64; 8],
    }

    /// A text the callee writes, in a buffer of the caller.
    "fl_message" Message {
        /// Bytes of this struct.
        struct_size: u64,
        /// Buffer, UTF-8.
        text: *mut u8,
        /// Bytes of the buffer.
        capacity: u64,
        /// Out: bytes of the whole text, of which only `capacity` are kept.
        len: u64,
        /// Zero.
        reserved: [u64; 2],
    }

    /// Arguments of `create`.
    "fl_create_args" CreateArgs {
        /// Bytes of this struct.
        struct_size: u64,
        /// Settings: a JSON object, valid by the schema, defaults filled in; a property of format `prompt` is an
        /// array of token ids.
        settings: *const u8,
        /// Bytes of `settings`.
        settings_len: u64,
        /// Arm it is made for, as the user wrote it.
        arm: *const u8,
        /// Bytes of `arm`.
        arm_len: u64,
        /// Zero.
        reserved: [u64; 4],
    }

    /// A task: one dataset with the marker its sequences begin with.
    "fl_task" Task {
        /// Bytes of this struct.
        struct_size: u64,
        /// Name of the dataset.
        name: *const u8,
        /// Bytes of `name`.
        name_len: u64,
        /// Tokens every sequence of the task begins with, e.g. `<bos> <task>`; may be empty.
        markers: *const u32,
        /// Tokens of `markers`.
        markers_len: u64,
        /// Number of sequences that can be drawn; 0 where the data is not available.
        sequences: u64,
        /// Zero.
        reserved: [u64; 4],
    }

    /// The current phase.
    "fl_phase" Phase {
        /// Bytes of this struct.
        struct_size: u64,
        /// Index of the phase, from 0.
        index: u64,
        /// Number of phases in the experiment.
        count: u64,
        /// Steps of the arm at the start of the phase.
        first_step: u64,
        /// Optimizer steps of the phase.
        steps: u64,
        /// Rows wanted in a replay batch.
        replay_rows: u64,
        /// Rows accepted in a replay batch at most.
        max_rows: u64,
        /// Usual length of a sequence; a generated one is this long.
        seq_len: u64,
        /// Longest sequence accepted anywhere.
        max_seq_len: u64,
        /// Token ids are smaller than this.
        vocab_size: u32,
        /// Zero.
        pad: u32,
        /// Objective of the arm.
        objective: u8,
        /// Zero.
        pad8: [u8; 7],
        /// Coefficient of the arm; 0 where there is none.
        coeff: f64,
        /// Tasks trained on before; each is `task_stride` bytes after the one before it.
        old_tasks: *const Task,
        /// Number of old tasks; 0 in the first phase.
        old_tasks_len: u64,
        /// Bytes from one task to the next.
        task_stride: u64,
        /// Task being trained on.
        new_task: *const Task,
        /// Zero.
        reserved: [u64; 8],
    }

    /// The step a batch is asked for.
    "fl_step" Step {
        /// Bytes of this struct.
        struct_size: u64,
        /// Steps of the arm so far.
        step: u64,
        /// Steps of the phase so far.
        phase_step: u64,
        /// Rows wanted.
        rows: u64,
        /// The current phase.
        phase: *const Phase,
        /// Zero.
        reserved: [u64; 4],
    }

    /// Losses and gradient norm of the last step.
    "fl_observation" Observation {
        /// Bytes of this struct.
        struct_size: u64,
        /// Steps of the arm before this one.
        step: u64,
        /// Steps of the phase before this one.
        phase_step: u64,
        /// NTP loss of the new batch, nats per token.
        new_loss: f64,
        /// Replay loss before the coefficient; meaningful with `has_replay`.
        replay_loss: f64,
        /// Norm of the gradient.
        grad_norm: f64,
        /// Learning rate of the step.
        learning_rate: f64,
        /// Mean loss of each row of the new batch, nats per scored token.
        new_row_losses: *const f32,
        /// Rows of `new_row_losses`.
        new_row_losses_len: u64,
        /// Mean loss of each row of the replay batch, by its own objective.
        replay_row_losses: *const f32,
        /// Rows of `replay_row_losses`.
        replay_row_losses_len: u64,
        /// The current phase.
        phase: *const Phase,
        /// Whether the step replayed anything.
        has_replay: u8,
        /// Zero.
        pad8: [u8; 7],
        /// Zero.
        reserved: [u64; 4],
    }

    /// A replay batch, filled by the plugin into buffers of the host.
    ///
    /// The host gives room for `max_rows` rows of `max_seq_len`, so [`RETRY`] is rarely needed; the
    /// needed lengths are `rows`, `rows * seq_len` and `rows * seq_len * teacher_k`.
    "fl_replay_batch" ReplayBatch {
        /// Bytes of this struct.
        struct_size: u64,
        /// Token ids `[rows, seq_len]`; padding too must be a valid id.
        tokens: *mut u32,
        /// Loss weights on targets `[rows, seq_len]`; 0 in padding.
        weights: *mut f32,
        /// Elements of `tokens` and of `weights`.
        tokens_capacity: u64,
        /// True length of each row.
        lengths: *mut u32,
        /// Objective of each row.
        row_objectives: *mut u8,
        /// Elements of `lengths` and of `row_objectives`.
        rows_capacity: u64,
        /// Supplied teacher: token ids `[rows, seq_len, teacher_k]`.
        teacher_ids: *mut u32,
        /// Supplied teacher: their log-probabilities.
        teacher_log_probs: *mut f32,
        /// Elements of `teacher_ids` and of `teacher_log_probs`; 0 in the first call: answer [`RETRY`].
        /// Needs [`SUPPLIES_TEACHER`].
        teacher_capacity: u64,
        /// Out: rows.
        rows: u64,
        /// Out: padded length.
        seq_len: u64,
        /// Out: entries per token of a supplied teacher.
        teacher_k: u64,
        /// Out: the snapshot of [`TEACHER_SNAPSHOT`].
        teacher_snapshot: u64,
        /// Out: coefficient of this step; meaningful with `has_coeff`.
        coeff: f64,
        /// Out: teacher of the KL rows.
        teacher: u32,
        /// Out: whether `weights` is filled; else every token but the first weighs 1.
        has_weights: u8,
        /// Out: whether `row_objectives` is filled.
        has_row_objectives: u8,
        /// Out: whether `coeff` overrides the arm's.
        has_coeff: u8,
        /// Zero.
        pad8: u8,
        /// Zero.
        reserved: [u64; 8],
    }

    /// Sequences the host gives, in buffers of the plugin.
    "fl_sequences" Sequences {
        /// Bytes of this struct.
        struct_size: u64,
        /// Token ids `[rows, seq_len]`.
        tokens: *mut u32,
        /// Loss weights on targets `[rows, seq_len]`; null: not wanted.
        weights: *mut f32,
        /// Elements of `tokens` and of `weights`.
        tokens_capacity: u64,
        /// True length of each row.
        lengths: *mut u32,
        /// Old task of each row by index, [`TASK_ALL`] where unknown; null: not wanted.
        tasks: *mut u64,
        /// Elements of `lengths` and of `tasks`.
        rows_capacity: u64,
        /// Out: rows.
        rows: u64,
        /// Out: padded length.
        seq_len: u64,
        /// Zero.
        reserved: [u64; 4],
    }

    /// A request for true old sequences.
    "fl_draw_request" DrawRequest {
        /// Bytes of this struct.
        struct_size: u64,
        /// Index of the old task, or [`TASK_ALL`] for all in equal shares.
        task: u64,
        /// Sequences wanted.
        rows: u64,
        /// Zero.
        reserved: [u64; 4],
    }

    /// A request to generate one sequence per prompt.
    "fl_generate_request" GenerateRequest {
        /// Bytes of this struct.
        struct_size: u64,
        /// Model that is sampled.
        model: u32,
        /// Top-k: sample from the k most likely tokens; 0: from all.
        top_k: u32,
        /// The snapshot of [`MODEL_SNAPSHOT`].
        snapshot: u64,
        /// Prompts `[prompts_len, prompt_stride]`.
        prompts: *const u32,
        /// True length of each prompt, at least 1.
        prompt_lengths: *const u32,
        /// Number of prompts.
        prompts_len: u64,
        /// Padded length of a prompt.
        prompt_stride: u64,
        /// Length at which a sequence ends, prompt included.
        length: u64,
        /// Sampling temperature; 0: always the most likely token.
        temperature: f32,
        /// Top-p: sample from the most likely tokens of this probability mass; 1: from all.
        top_p: f32,
        /// Tokens that end a sequence, each kept as its last token.
        stop_tokens: *const u32,
        /// Number of stop tokens; 0: every sequence has the full length.
        stop_tokens_len: u64,
        /// Zero.
        reserved: [u64; 8],
    }

    /// A request to score sequences.
    "fl_score_request" ScoreRequest {
        /// Bytes of this struct.
        struct_size: u64,
        /// Model that scores.
        model: u32,
        /// Number of most likely tokens to return per position; 0: none.
        top_k: u32,
        /// The snapshot of [`MODEL_SNAPSHOT`].
        snapshot: u64,
        /// Token ids `[rows, seq_len]`.
        tokens: *const u32,
        /// True length of each row.
        lengths: *const u32,
        /// Rows.
        rows: u64,
        /// Padded length.
        seq_len: u64,
        /// Zero.
        reserved: [u64; 4],
    }

    /// Scores, in buffers of the plugin.
    "fl_scores" Scores {
        /// Bytes of this struct.
        struct_size: u64,
        /// Log-probability of each token `[rows, seq_len]`, nats.
        log_probs: *mut f32,
        /// Elements of `log_probs`.
        log_probs_capacity: u64,
        /// Most likely tokens `[rows, seq_len, k]`, most likely first.
        top_ids: *mut u32,
        /// Their log-probabilities.
        top_log_probs: *mut f32,
        /// Elements of `top_ids` and of `top_log_probs`.
        top_capacity: u64,
        /// Out: rows.
        rows: u64,
        /// Out: padded length.
        seq_len: u64,
        /// Out: number of most likely tokens per position.
        k: u64,
        /// Zero.
        reserved: [u64; 4],
    }

    /// Special token ids; −1 where the tokenizer has none.
    "fl_special_tokens" SpecialTokens {
        /// Bytes of this struct.
        struct_size: u64,
        /// BOS, the first token of every sequence; what separates documents in a model without BOS.
        bos: i64,
        /// EOS, the end of a text.
        eos: i64,
        /// Padding.
        pad: i64,
        /// Zero.
        reserved: [u64; 4],
    }

    /// The services of the host. Valid as long as the instance; callable inside callbacks only.
    "fl_host" Host {
        /// Bytes of this struct.
        struct_size: u64,
        /// Major version of the host.
        abi_major: u32,
        /// Minor version of the host.
        abi_minor: u32,
        /// First argument of every service.
        context: *mut c_void,
        /// Draws true old sequences.
        draw_old: Option<DrawOldFn>,
        /// Generates from prompts.
        generate: Option<GenerateFn>,
        /// Scores sequences.
        score: Option<ScoreFn>,
        /// Gives the batch of new data of the current step.
        new_batch: Option<NewBatchFn>,
        /// Turns text into tokens, adding no special token.
        encode: Option<EncodeFn>,
        /// Turns tokens into text.
        decode: Option<DecodeFn>,
        /// Gives the ids of the special tokens.
        special_tokens: Option<SpecialTokensFn>,
        /// Draws from the arm's own counter-based random stream.
        random: Option<RandomFn>,
        /// Logs a line for the researcher.
        log: Option<LogFn>,
        /// Records a named number, shown on screen and written to the CSV.
        metric: Option<MetricFn>,
        /// Whether the run is being stopped; long work should poll it.
        cancelled: Option<CancelledFn>,
        /// Keeps a copy of a model, which outlives the phase.
        keep_snapshot: Option<KeepSnapshotFn>,
        /// Drops a kept snapshot.
        drop_snapshot: Option<DropSnapshotFn>,
        /// Zero.
        reserved: [u64; 8],
    }
}

// SAFETY: a descriptor is immutable and its pointers lead to static data and functions.
unsafe impl Sync for Descriptor {}

/// Makes an instance; writes its handle.
pub type CreateFn =
    unsafe extern "C" fn(*const Host, *const CreateArgs, *mut *mut c_void, *mut Message) -> i32;
/// Announces a phase: drop what belongs to the previous one.
pub type PhaseStartedFn =
    unsafe extern "C" fn(*mut c_void, *const Host, *const Phase, *mut Message) -> i32;
/// Fills the replay batch of a step, or answers [`NOTHING`].
pub type NextBatchFn = unsafe extern "C" fn(
    *mut c_void,
    *const Host,
    *const Step,
    *mut ReplayBatch,
    *mut Message,
) -> i32;
/// Reports the metrics of the last step.
pub type ObserveFn =
    unsafe extern "C" fn(*mut c_void, *const Host, *const Observation, *mut Message) -> i32;
/// Saves the state: buffer, capacity, needed length. The first call has capacity 0.
pub type SaveFn = unsafe extern "C" fn(*mut c_void, *mut u8, u64, *mut u64, *mut Message) -> i32;
/// Restores a state: state version, bytes, length, current phase (null before the first).
pub type LoadFn = unsafe extern "C" fn(
    *mut c_void,
    *const Host,
    u32,
    *const u8,
    u64,
    *const Phase,
    *mut Message,
) -> i32;
/// Destroys an instance.
pub type DestroyFn = unsafe extern "C" fn(*mut c_void);

/// See [`Host::draw_old`].
pub type DrawOldFn =
    unsafe extern "C" fn(*mut c_void, *const DrawRequest, *mut Sequences, *mut Message) -> i32;
/// See [`Host::generate`].
pub type GenerateFn =
    unsafe extern "C" fn(*mut c_void, *const GenerateRequest, *mut Sequences, *mut Message) -> i32;
/// See [`Host::score`].
pub type ScoreFn =
    unsafe extern "C" fn(*mut c_void, *const ScoreRequest, *mut Scores, *mut Message) -> i32;
/// See [`Host::new_batch`].
pub type NewBatchFn = unsafe extern "C" fn(*mut c_void, *mut Sequences, *mut Message) -> i32;
/// See [`Host::encode`]: text and its length; token buffer, capacity, needed length.
pub type EncodeFn =
    unsafe extern "C" fn(*mut c_void, *const u8, u64, *mut u32, u64, *mut u64, *mut Message) -> i32;
/// See [`Host::decode`]: tokens and their number; text buffer, capacity, needed length.
pub type DecodeFn =
    unsafe extern "C" fn(*mut c_void, *const u32, u64, *mut u8, u64, *mut u64, *mut Message) -> i32;
/// See [`Host::special_tokens`].
pub type SpecialTokensFn =
    unsafe extern "C" fn(*mut c_void, *mut SpecialTokens, *mut Message) -> i32;
/// Fills a buffer with independent uniform 64-bit values.
pub type RandomFn = unsafe extern "C" fn(*mut c_void, *mut u64, u64, *mut Message) -> i32;
/// See [`Host::log`]: level, text, length.
pub type LogFn = unsafe extern "C" fn(*mut c_void, u32, *const u8, u64, *mut Message) -> i32;
/// See [`Host::metric`]: name, length, value.
pub type MetricFn = unsafe extern "C" fn(*mut c_void, *const u8, u64, f64, *mut Message) -> i32;
/// See [`Host::cancelled`]: 1 when the run is being stopped, else 0.
pub type CancelledFn = unsafe extern "C" fn(*mut c_void) -> u8;
/// See [`Host::keep_snapshot`]: model ([`MODEL_REFERENCE`] or [`MODEL_STUDENT`]); writes the snapshot's id.
pub type KeepSnapshotFn = unsafe extern "C" fn(*mut c_void, u32, *mut u64, *mut Message) -> i32;
/// See [`Host::drop_snapshot`]: id of the snapshot.
pub type DropSnapshotFn = unsafe extern "C" fn(*mut c_void, u64, *mut Message) -> i32;
