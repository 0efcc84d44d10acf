/* A replay strategy for forgetlab: true old data, every few steps.
 *
 *     cc -std=c11 -O2 -shared -fPIC -o libforgetlab_strategy_my_strategy.so strategy.c
 *     forgetlab plugins check libforgetlab_strategy_my_strategy.so
 */
#include "forgetlab_strategy.h"

#include <stdlib.h>
#include <string.h>

#define TEXT(s) (const uint8_t *)(s), sizeof(s) - 1

typedef struct {
    uint64_t every;  /* a setting */
    uint64_t drawn;  /* batches so far: saved, to show how */
} strategy;

static int32_t fail(fl_message *message, const char *text) {
    if (message && message->text) {
        message->len = strlen(text);
        memcpy(message->text, text, message->len < message->capacity ? message->len : message->capacity);
    }
    return FL_FAILED;
}

static int32_t create(const fl_host *host, const fl_create_args *args, void **out, fl_message *message) {
    (void)host;
    strategy *self = calloc(1, sizeof *self);
    if (!self) return fail(message, "out of memory");
    /* The lab checked the settings and filled in defaults: {"every":2}. A real one takes a JSON reader. */
    char json[256] = {0};
    if (args->settings_len < sizeof json) memcpy(json, args->settings, args->settings_len);
    const char *every = strstr(json, "\"every\":");
    self->every = every ? strtoull(every + 8, NULL, 10) : 2;
    *out = self;
    return FL_OK;
}

static int32_t phase_started(void *instance, const fl_host *host, const fl_phase *phase, fl_message *message) {
    (void)instance, (void)host, (void)phase, (void)message;
    return FL_OK;
}

static int32_t next_batch(void *instance, const fl_host *host, const fl_step *step, fl_replay_batch *batch,
                          fl_message *message) {
    strategy *self = instance;
    if (step->phase->old_tasks_len == 0 || step->phase_step % self->every != 0) return FL_NOTHING;
    fl_draw_request request = {.struct_size = sizeof request, .task = FL_TASK_ALL, .rows = step->rows};
    /* The old sequences go straight into the lab's own buffers. */
    fl_sequences drawn = {
        .struct_size = sizeof drawn,
        .tokens = batch->tokens,
        .weights = batch->weights,
        .tokens_capacity = batch->tokens_capacity,
        .lengths = batch->lengths,
        .rows_capacity = batch->rows_capacity,
    };
    int32_t status = host->draw_old(host->context, &request, &drawn, message);
    if (status != FL_OK) return status;
    batch->rows = drawn.rows;
    batch->seq_len = drawn.seq_len;
    batch->has_weights = 1;
    self->drawn++;
    return FL_OK;
}

static int32_t observe(void *instance, const fl_host *host, const fl_observation *seen, fl_message *message) {
    strategy *self = instance;
    (void)seen;
    return host->metric(host->context, TEXT("batches drawn"), (double)self->drawn, message);
}

static int32_t save(void *instance, uint8_t *buffer, uint64_t capacity, uint64_t *needed, fl_message *message) {
    strategy *self = instance;
    (void)message;
    *needed = sizeof self->drawn;
    if (capacity < *needed) return FL_RETRY;
    memcpy(buffer, &self->drawn, sizeof self->drawn);
    return FL_OK;
}

static int32_t load(void *instance, const fl_host *host, uint32_t state_version, const uint8_t *state,
                    uint64_t state_len, const fl_phase *phase, fl_message *message) {
    strategy *self = instance;
    (void)host, (void)phase;
    if (state_version != 1 || state_len != sizeof self->drawn) return fail(message, "a state of another version");
    memcpy(&self->drawn, state, sizeof self->drawn);
    return FL_OK;
}

static void destroy(void *instance) { free(instance); }

#define NAME "my-strategy"
#define VERSION "0.1.0"
#define SUMMARY "true old data, every few steps"
#define SCHEMA                                                                                        \
    "{\"type\": \"object\", \"properties\": {\"every\": {\"type\": \"integer\", \"minimum\": 1, "     \
    "\"default\": 2, \"description\": \"steps from one replay batch to the next\"}}}"

const fl_descriptor *forgetlab_strategy(void) {
    static const fl_descriptor descriptor = {
        .struct_size = sizeof descriptor,
        .magic = FL_MAGIC,
        .abi_major = FL_ABI_MAJOR,
        .abi_minor = FL_ABI_MINOR,
        .name = (const uint8_t *)NAME,
        .name_len = sizeof NAME - 1,
        .version = (const uint8_t *)VERSION,
        .version_len = sizeof VERSION - 1,
        .summary = (const uint8_t *)SUMMARY,
        .summary_len = sizeof SUMMARY - 1,
        .settings_schema = (const uint8_t *)SCHEMA,
        .settings_schema_len = sizeof SCHEMA - 1,
        .capabilities = FL_NEEDS_OLD_DATA | FL_INDEPENDENT_OF_STUDENT,
        .state_version = 1,
        .create = create,
        .phase_started = phase_started,
        .next_batch = next_batch,
        .observe = observe,
        .save = save,
        .load = load,
        .destroy = destroy,
    };
    return &descriptor;
}
