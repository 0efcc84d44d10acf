/*
 * The C ABI, version 1, between forgetlab and its replay strategies.
 *
 * A strategy is a shared library that exports one function:
 *
 *     const fl_descriptor *forgetlab_strategy(void);
 *
 * which returns a static descriptor. Build it with
 *
 *     cc -std=c11 -O2 -shared -fPIC -o libforgetlab_strategy_mine.so mine.c
 *
 * and try it with `forgetlab plugins check libforgetlab_strategy_mine.so`. `forgetlab plugins new mine --c`
 * writes a whole one to begin with.
 *
 * Rules
 * - Every struct begins with struct_size, set by whoever fills it, and ends in reserved fields, which
 *   are zero. Never read past the struct_size you are given; step through old_tasks by task_stride.
 * - Lengths count elements. Text is UTF-8 with a length and no terminator. An empty array may have a
 *   null pointer.
 * - Memory belongs to whoever allocated it. What is passed in is valid until the call returns.
 *   Results are copied into buffers of the caller: capacity in, needed length out. A buffer that is too
 *   small gives FL_RETRY with the needed length; the same call with a larger one gives the same
 *   result, nothing is drawn twice.
 * - Every call returns a status. With FL_FAILED and FL_UNSUPPORTED a text goes into the fl_message of
 *   the caller.
 * - All calls into one instance come one at a time. Services of fl_host may be called only inside a
 *   callback that is given the host, on its thread; draw_old, generate and score from phase_started on.
 * - A request to draw, generate or score is for at most FL_MAX_BATCHES times max_rows rows, and for at
 *   most FL_MAX_ELEMENTS values. A callback may ask again; once the run is being stopped, one that has
 *   asked for more than that altogether is answered FL_CANCELLED.
 * - Never write past a capacity: it ends the arm, or the lab. A state has at most FL_MAX_STATE bytes.
 * - The mode of floating-point arithmetic (rounding, flush to zero) is the lab's own again after every
 *   call, and within its services.
 * - No exception or longjmp crosses.
 *
 * Life: create; phase_started at the start of each phase; next_batch and observe once a step; save at
 * any time between two calls; destroy. To resume, the lab calls create, then load with the phase under
 * way, and goes on with next_batch. The state must hold all that later batches depend on, except
 * settings, phase and random stream, which the lab keeps. Equal state and equal inputs must give equal
 * batches, bit for bit. All seven functions are mandatory.
 *
 * The lab trains the first phase, which has no old tasks, once for all arms: an instance usually begins
 * its life with the second. A batch with a bad id, length or weight ends the arm with a message. What a
 * capability declares and the lab does not offer refuses the run before it starts; this version of the
 * lab does not offer snapshots, the virtual step and supplied teachers.
 *
 * Targets: weight, log-probability and top-k entry [r, t] belong to predicting token t of row r from
 * the tokens before it. Token 0 is never predicted.
 */
#ifndef FORGETLAB_STRATEGY_H
#define FORGETLAB_STRATEGY_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* First check of a descriptor: "FLSTRAT1" read as a little-endian integer. */
#define FL_MAGIC UINT64_C(0x3154415254534c46)
/* Versions of the ABI that differ here do not work together. */
#define FL_ABI_MAJOR UINT32_C(1)
/* Newest minor version described here. A plugin works with hosts of its own minor or a newer one. */
#define FL_ABI_MINOR UINT32_C(0)
/* The call did what was asked. */
#define FL_OK 0
/* There is nothing to give (next_batch: no replay this step; new_batch: none at this time). */
#define FL_NOTHING 1
/* Call again: a buffer was too small (the needed lengths are set), or the plugin asks for it. */
#define FL_RETRY 2
/* It cannot be done; the message says why. From a plugin this ends the arm. */
#define FL_FAILED 3
/* The run is being stopped; from a plugin: it noticed and gave up. */
#define FL_CANCELLED 4
/* A service this host does not offer; the plugin may go on without it. */
#define FL_UNSUPPORTED 5
/* Capability: draws true old sequences. */
#define FL_NEEDS_OLD_DATA UINT64_C(1)
/* Capability: generates. */
#define FL_NEEDS_GENERATION UINT64_C(2)
/* Capability: encodes, decodes or asks for special tokens. */
#define FL_NEEDS_TOKENIZER UINT64_C(4)
/* Capability: scores sequences under the reference or the student. */
#define FL_NEEDS_SCORES UINT64_C(8)
/* Capability: keeps snapshots of a model. */
#define FL_NEEDS_SNAPSHOTS UINT64_C(16)
/* Capability: scores under the student after a virtual step. */
#define FL_NEEDS_VIRTUAL_STEP UINT64_C(32)
/* Capability: hands in its own teacher log-probabilities. */
#define FL_SUPPLIES_TEACHER UINT64_C(64)
/* Capability: batches depend neither on the student nor on observe, so that the lab may ask for them ahead of time. */
#define FL_INDEPENDENT_OF_STUDENT UINT64_C(128)
/* Model: the frozen copy of the student at the start of the phase. */
#define FL_MODEL_REFERENCE UINT32_C(0)
/* Model: the student as it is now. */
#define FL_MODEL_STUDENT UINT32_C(1)
/* Model: a snapshot kept by the host (snapshot names it). */
#define FL_MODEL_SNAPSHOT UINT32_C(2)
/* Model: the student after one virtual step on the current new batch; scores only. */
#define FL_MODEL_VIRTUAL_STEP UINT32_C(3)
/* Objective of a row or arm: that of the arm (row), none (arm). */
#define FL_OBJECTIVE_DEFAULT 0
/* Objective: KL(teacher || student). */
#define FL_OBJECTIVE_KL 1
/* Objective: next-token prediction. */
#define FL_OBJECTIVE_NTP 2
/* Objective of an arm only: old rows replace rows of the new batch. */
#define FL_OBJECTIVE_REPLACE 3
/* Teacher of a KL row: the reference. */
#define FL_TEACHER_REFERENCE UINT32_C(0)
/* Teacher of a KL row: the snapshot teacher_snapshot. */
#define FL_TEACHER_SNAPSHOT UINT32_C(1)
/* Teacher of a KL row: the log-probabilities in the batch. */
#define FL_TEACHER_SUPPLIED UINT32_C(2)
/* Log level: worth knowing. */
#define FL_LOG_INFO UINT32_C(0)
/* Log level: worth a look. */
#define FL_LOG_WARN UINT32_C(1)
/* Log level: something failed. */
#define FL_LOG_ERROR UINT32_C(2)
/* Draw from old tasks in equal shares. */
#define FL_TASK_ALL UINT64_MAX
/* Most bytes of a fl_message, a log line, a name or a version. */
#define FL_MAX_TEXT UINT64_C(4096)
/* Most bytes of a settings schema or of settings. */
#define FL_MAX_SETTINGS UINT64_C(1048576)
/* Most bytes of a saved state. */
#define FL_MAX_STATE UINT64_C(536870912)
/* Most elements of one token or log-probability buffer. */
#define FL_MAX_ELEMENTS UINT64_C(67108864)
/* Most rows of one request to draw, generate or score, in batches of max_rows. */
#define FL_MAX_BATCHES UINT64_C(1024)
/* Most values of one call of the random stream. */
#define FL_MAX_RANDOM UINT64_C(16777216)
/* Most top-k entries a token. */
#define FL_MAX_TOP_K UINT64_C(4096)

typedef struct fl_descriptor fl_descriptor;
typedef struct fl_message fl_message;
typedef struct fl_create_args fl_create_args;
typedef struct fl_task fl_task;
typedef struct fl_phase fl_phase;
typedef struct fl_step fl_step;
typedef struct fl_observation fl_observation;
typedef struct fl_replay_batch fl_replay_batch;
typedef struct fl_sequences fl_sequences;
typedef struct fl_draw_request fl_draw_request;
typedef struct fl_generate_request fl_generate_request;
typedef struct fl_score_request fl_score_request;
typedef struct fl_scores fl_scores;
typedef struct fl_special_tokens fl_special_tokens;
typedef struct fl_host fl_host;

/* Makes an instance; writes its handle. */
typedef int32_t (*fl_create_fn)(const fl_host *host, const fl_create_args *args, void **out, fl_message *message);
/* A phase begins: drop what belongs to the last one. */
typedef int32_t (*fl_phase_started_fn)(void *instance, const fl_host *host, const fl_phase *phase, fl_message *message);
/* Fills the replay batch of a step, or answers FL_NOTHING. */
typedef int32_t (*fl_next_batch_fn)(void *instance, const fl_host *host, const fl_step *step, fl_replay_batch *batch, fl_message *message);
/* Takes note of the step just made. */
typedef int32_t (*fl_observe_fn)(void *instance, const fl_host *host, const fl_observation *seen, fl_message *message);
/* Writes the state: buffer, capacity, needed length. The first call has capacity 0. */
typedef int32_t (*fl_save_fn)(void *instance, uint8_t *buffer, uint64_t capacity, uint64_t *needed, fl_message *message);
/* Takes a state back: state version, bytes, length, phase under way (null before the first). */
typedef int32_t (*fl_load_fn)(void *instance, const fl_host *host, uint32_t state_version, const uint8_t *state, uint64_t state_len, const fl_phase *phase, fl_message *message);
/* Ends an instance. */
typedef void (*fl_destroy_fn)(void *instance);
/* See fl_host.draw_old. */
typedef int32_t (*fl_draw_old_fn)(void *context, const fl_draw_request *request, fl_sequences *out, fl_message *message);
/* See fl_host.generate. */
typedef int32_t (*fl_generate_fn)(void *context, const fl_generate_request *request, fl_sequences *out, fl_message *message);
/* See fl_host.score. */
typedef int32_t (*fl_score_fn)(void *context, const fl_score_request *request, fl_scores *out, fl_message *message);
/* See fl_host.new_batch. */
typedef int32_t (*fl_new_batch_fn)(void *context, fl_sequences *out, fl_message *message);
/* Text and its length; token buffer, capacity, needed length. */
typedef int32_t (*fl_encode_fn)(void *context, const uint8_t *text, uint64_t len, uint32_t *tokens, uint64_t capacity, uint64_t *needed, fl_message *message);
/* Tokens and their number; text buffer, capacity, needed length. */
typedef int32_t (*fl_decode_fn)(void *context, const uint32_t *tokens, uint64_t len, uint8_t *text, uint64_t capacity, uint64_t *needed, fl_message *message);
/* See fl_host.special_tokens. */
typedef int32_t (*fl_special_tokens_fn)(void *context, fl_special_tokens *out, fl_message *message);
/* Fills a buffer with independent uniform 64-bit values. */
typedef int32_t (*fl_random_fn)(void *context, uint64_t *out, uint64_t len, fl_message *message);
/* Level, text, length. */
typedef int32_t (*fl_log_fn)(void *context, uint32_t level, const uint8_t *text, uint64_t len, fl_message *message);
/* Name, length, value. */
typedef int32_t (*fl_metric_fn)(void *context, const uint8_t *name, uint64_t len, double value, fl_message *message);
/* 1 when the run is being stopped. */
typedef uint8_t (*fl_cancelled_fn)(void *context);
/* Model (FL_MODEL_REFERENCE or FL_MODEL_STUDENT); writes the snapshot's id. */
typedef int32_t (*fl_keep_snapshot_fn)(void *context, uint32_t model, uint64_t *id, fl_message *message);
/* Id of the snapshot. */
typedef int32_t (*fl_drop_snapshot_fn)(void *context, uint64_t id, fl_message *message);

/* What a library is; static, returned by forgetlab_strategy. */
struct fl_descriptor {
    uint64_t struct_size; /* Bytes of this struct. Fixed place in every version. */
    uint64_t magic; /* FL_MAGIC. Fixed place in every version. */
    uint32_t abi_major; /* FL_ABI_MAJOR the plugin was built for. Fixed place in every version. */
    uint32_t abi_minor; /* FL_ABI_MINOR the plugin was built for. Fixed place in every version. */
    const uint8_t *name; /* Name used in arms: lower-case letters, digits and -. */
    uint64_t name_len; /* Bytes of name. */
    const uint8_t *version; /* Version of the plugin. */
    uint64_t version_len; /* Bytes of version. */
    const uint8_t *summary; /* One line on what it replays. */
    uint64_t summary_len; /* Bytes of summary. */
    const uint8_t *settings_schema; /* JSON Schema of the settings (an object). */
    uint64_t settings_schema_len; /* Bytes of settings_schema. */
    uint64_t capabilities; /* Capability bits. */
    uint32_t state_version; /* Version of the saved state, handed back to load. */
    uint32_t pad; /* zero */
    fl_create_fn create; /* Makes an instance. */
    fl_phase_started_fn phase_started; /* A phase begins. */
    fl_next_batch_fn next_batch; /* The replay batch of a step. */
    fl_observe_fn observe; /* Figures of the step just made. */
    fl_save_fn save; /* Writes the state. */
    fl_load_fn load; /* Takes a state back. */
    fl_destroy_fn destroy; /* Ends an instance. */
    uint64_t reserved[8]; /* zero */
};

/* A text the callee writes, in a buffer of the caller. */
struct fl_message {
    uint64_t struct_size; /* Bytes of this struct. */
    uint8_t *text; /* Buffer, UTF-8. */
    uint64_t capacity; /* Bytes of the buffer. */
    uint64_t len; /* Out: bytes of the whole text; what goes beyond capacity is lost. */
    uint64_t reserved[2]; /* zero */
};

/* What an instance is made from. */
struct fl_create_args {
    uint64_t struct_size; /* Bytes of this struct. */
    const uint8_t *settings; /* Settings: a JSON object, valid by the schema, defaults filled in;
                                a property of format "prompt" is an array of token ids. */
    uint64_t settings_len; /* Bytes of settings. */
    const uint8_t *arm; /* Arm it is made for, as the user wrote it. */
    uint64_t arm_len; /* Bytes of arm. */
    uint64_t reserved[4]; /* zero */
};

/* A task: one dataset with the marker its sequences begin with. */
struct fl_task {
    uint64_t struct_size; /* Bytes of this struct. */
    const uint8_t *name; /* Name of the dataset. */
    uint64_t name_len; /* Bytes of name. */
    const uint32_t *markers; /* Tokens every sequence of the task begins with, e.g. <bos> <task>; may be empty. */
    uint64_t markers_len; /* Tokens of markers. */
    uint64_t sequences; /* Sequences that can be drawn; 0 where the old data is not at hand. */
    uint64_t reserved[4]; /* zero */
};

/* The phase under way. */
struct fl_phase {
    uint64_t struct_size; /* Bytes of this struct. */
    uint64_t index; /* Number of the phase, from 0. */
    uint64_t count; /* Phases of the experiment. */
    uint64_t first_step; /* Steps of the arm at the start of the phase. */
    uint64_t steps; /* Optimizer steps of the phase. */
    uint64_t replay_rows; /* Rows wanted in a replay batch. */
    uint64_t max_rows; /* Rows accepted in a replay batch at most. */
    uint64_t seq_len; /* Usual length of a sequence; a generated one is this long. */
    uint64_t max_seq_len; /* Longest sequence accepted anywhere. */
    uint32_t vocab_size; /* Token ids are smaller than this. */
    uint32_t pad; /* zero */
    uint8_t objective; /* Objective of the arm. */
    uint8_t pad8[7]; /* zero */
    double coeff; /* Coefficient of the arm; 0 where there is none. */
    const fl_task *old_tasks; /* Tasks trained on before; each is task_stride bytes after the one before it. */
    uint64_t old_tasks_len; /* Number of old tasks; 0 in the first phase. */
    uint64_t task_stride; /* Bytes from one task to the next. */
    const fl_task *new_task; /* Task being trained on. */
    uint64_t reserved[8]; /* zero */
};

/* The step a batch is asked for. */
struct fl_step {
    uint64_t struct_size; /* Bytes of this struct. */
    uint64_t step; /* Steps of the arm so far. */
    uint64_t phase_step; /* Steps of the phase so far. */
    uint64_t rows; /* Rows wanted. */
    const fl_phase *phase; /* Phase under way. */
    uint64_t reserved[4]; /* zero */
};

/* Figures of the step just made. */
struct fl_observation {
    uint64_t struct_size; /* Bytes of this struct. */
    uint64_t step; /* Steps of the arm before this one. */
    uint64_t phase_step; /* Steps of the phase before this one. */
    double new_loss; /* NTP loss of the new batch, nats per token. */
    double replay_loss; /* Replay loss before the coefficient; meaningful with has_replay. */
    double grad_norm; /* Norm of the gradient. */
    double learning_rate; /* Learning rate of the step. */
    const float *new_row_losses; /* Mean loss of each row of the new batch, nats per scored token. */
    uint64_t new_row_losses_len; /* Rows of new_row_losses. */
    const float *replay_row_losses; /* Mean loss of each row of the replay batch, by its own objective. */
    uint64_t replay_row_losses_len; /* Rows of replay_row_losses. */
    const fl_phase *phase; /* Phase under way. */
    uint8_t has_replay; /* Whether the step replayed anything. */
    uint8_t pad8[7]; /* zero */
    uint64_t reserved[4]; /* zero */
};

/*
 * A replay batch, filled by the plugin into buffers of the host.
 *
 * The host gives room for max_rows rows of max_seq_len, so FL_RETRY is rarely needed; the
 * needed lengths are rows, rows * seq_len and rows * seq_len * teacher_k.
 */
struct fl_replay_batch {
    uint64_t struct_size; /* Bytes of this struct. */
    uint32_t *tokens; /* Token ids [rows, seq_len]; padding too must be a valid id. */
    float *weights; /* Loss weights on targets [rows, seq_len]; 0 in padding. */
    uint64_t tokens_capacity; /* Elements of tokens and of weights. */
    uint32_t *lengths; /* True length of each row. */
    uint8_t *row_objectives; /* Objective of each row. */
    uint64_t rows_capacity; /* Elements of lengths and of row_objectives. */
    uint32_t *teacher_ids; /* Supplied teacher: token ids [rows, seq_len, teacher_k]. */
    float *teacher_log_probs; /* Supplied teacher: their log-probabilities. */
    uint64_t teacher_capacity; /* Elements of teacher_ids and of teacher_log_probs; 0 in the first call: answer FL_RETRY. Needs FL_SUPPLIES_TEACHER. */
    uint64_t rows; /* Out: rows. */
    uint64_t seq_len; /* Out: padded length. */
    uint64_t teacher_k; /* Out: entries a token of a supplied teacher. */
    uint64_t teacher_snapshot; /* Out: the snapshot of FL_TEACHER_SNAPSHOT. */
    double coeff; /* Out: coefficient of this step; meaningful with has_coeff. */
    uint32_t teacher; /* Out: teacher of the KL rows. */
    uint8_t has_weights; /* Out: whether weights is filled; else every token but the first weighs 1. */
    uint8_t has_row_objectives; /* Out: whether row_objectives is filled. */
    uint8_t has_coeff; /* Out: whether coeff overrides the arm's. */
    uint8_t pad8; /* zero */
    uint64_t reserved[8]; /* zero */
};

/* Sequences the host gives, in buffers of the plugin. */
struct fl_sequences {
    uint64_t struct_size; /* Bytes of this struct. */
    uint32_t *tokens; /* Token ids [rows, seq_len]. */
    float *weights; /* Loss weights on targets [rows, seq_len]; null: not wanted. */
    uint64_t tokens_capacity; /* Elements of tokens and of weights. */
    uint32_t *lengths; /* True length of each row. */
    uint64_t *tasks; /* Old task of each row by index, FL_TASK_ALL where unknown; null: not wanted. */
    uint64_t rows_capacity; /* Elements of lengths and of tasks. */
    uint64_t rows; /* Out: rows. */
    uint64_t seq_len; /* Out: padded length. */
    uint64_t reserved[4]; /* zero */
};

/* Which true old sequences to draw. */
struct fl_draw_request {
    uint64_t struct_size; /* Bytes of this struct. */
    uint64_t task; /* Index of the old task, or FL_TASK_ALL for all in equal shares. */
    uint64_t rows; /* Sequences wanted. */
    uint64_t reserved[4]; /* zero */
};

/* What to generate: one sequence a prompt. */
struct fl_generate_request {
    uint64_t struct_size; /* Bytes of this struct. */
    uint32_t model; /* Model that is sampled. */
    uint32_t top_k; /* Most likely tokens to choose from; 0: all. */
    uint64_t snapshot; /* The snapshot of FL_MODEL_SNAPSHOT. */
    const uint32_t *prompts; /* Prompts [prompts_len, prompt_stride]. */
    const uint32_t *prompt_lengths; /* True length of each prompt, at least 1. */
    uint64_t prompts_len; /* Number of prompts. */
    uint64_t prompt_stride; /* Padded length of a prompt. */
    uint64_t length; /* Length at which a sequence ends, prompt included. */
    float temperature; /* Temperature; 0: always the most likely token. */
    float top_p; /* Probability mass to choose from; 1: all. */
    const uint32_t *stop_tokens; /* Tokens that end a sequence (they stay its last token). */
    uint64_t stop_tokens_len; /* Number of stop tokens; 0: to full length. */
    uint64_t reserved[8]; /* zero */
};

/* Sequences to score. */
struct fl_score_request {
    uint64_t struct_size; /* Bytes of this struct. */
    uint32_t model; /* Model that scores. */
    uint32_t top_k; /* Most likely tokens wanted a position; 0: none. */
    uint64_t snapshot; /* The snapshot of FL_MODEL_SNAPSHOT. */
    const uint32_t *tokens; /* Token ids [rows, seq_len]. */
    const uint32_t *lengths; /* True length of each row. */
    uint64_t rows; /* Rows. */
    uint64_t seq_len; /* Padded length. */
    uint64_t reserved[4]; /* zero */
};

/* Scores, in buffers of the plugin. */
struct fl_scores {
    uint64_t struct_size; /* Bytes of this struct. */
    float *log_probs; /* Log-probability of each token [rows, seq_len], nats. */
    uint64_t log_probs_capacity; /* Elements of log_probs. */
    uint32_t *top_ids; /* Most likely tokens [rows, seq_len, k], best first. */
    float *top_log_probs; /* Their log-probabilities. */
    uint64_t top_capacity; /* Elements of top_ids and of top_log_probs. */
    uint64_t rows; /* Out: rows. */
    uint64_t seq_len; /* Out: padded length. */
    uint64_t k; /* Out: most likely tokens a position. */
    uint64_t reserved[4]; /* zero */
};

/* Special token ids; -1 where the tokenizer has none. */
struct fl_special_tokens {
    uint64_t struct_size; /* Bytes of this struct. */
    int64_t bos; /* Begins every sequence; in a model without BOS, separates documents. */
    int64_t eos; /* Ends a text. */
    int64_t pad; /* Fills rows up. */
    uint64_t reserved[4]; /* zero */
};

/* The services of the host. Valid as long as the instance; callable inside callbacks only. */
struct fl_host {
    uint64_t struct_size; /* Bytes of this struct. */
    uint32_t abi_major; /* Major version of the host. */
    uint32_t abi_minor; /* Minor version of the host. */
    void *context; /* First argument of every service. */
    fl_draw_old_fn draw_old; /* Draws true old sequences. */
    fl_generate_fn generate; /* Generates from prompts. */
    fl_score_fn score; /* Scores sequences. */
    fl_new_batch_fn new_batch; /* The batch of new data of the current step. */
    fl_encode_fn encode; /* Text to tokens, no special token added. */
    fl_decode_fn decode; /* Tokens to text. */
    fl_special_tokens_fn special_tokens; /* Ids of the special tokens. */
    fl_random_fn random; /* The arm's own counter-based random stream. */
    fl_log_fn log; /* A line for the researcher. */
    fl_metric_fn metric; /* A named figure, live on screen and in the CSV. */
    fl_cancelled_fn cancelled; /* Whether the run is being stopped; long work should poll it. */
    fl_keep_snapshot_fn keep_snapshot; /* Keeps a copy of a model, which outlives the phase. */
    fl_drop_snapshot_fn drop_snapshot; /* Drops a kept copy. */
    uint64_t reserved[8]; /* zero */
};

#if defined(_WIN32)
#define FL_EXPORT __declspec(dllexport)
#else
#define FL_EXPORT __attribute__((visibility("default")))
#endif

/* The one function a strategy exports. */
FL_EXPORT const fl_descriptor *forgetlab_strategy(void);

#ifdef __cplusplus
}
#endif

#endif
