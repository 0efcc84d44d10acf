/* A strategy whose every text would set a window's title, clear the screen, turn writing around and forge lines. */
#include "forgetlab_strategy.h"

#include <stdlib.h>
#include <string.h>

#define EVIL                                                                                             \
    "ev\033]0;owned\007\033[2J\xc2\x9b" "2J\xe2\x80\xae\xe2\x81\xa6\xe2\x80\xa8\xe2\x80\x8b\rx\b\nerror: forged\nil"
/* The same in JSON. */
#define EVIL_JSON                                                                                        \
    "ev\\u001b]0;owned\\u0007\\u001b[2J\\u009b2J\\u202e\\u2066\\u2028\\u200b\\rx\\b\\nerror: forged\\nil"
#define TEXT(s) (const uint8_t *)(s), sizeof(s) - 1

static int32_t create(const fl_host *host, const fl_create_args *args, void **out, fl_message *message) {
    (void)args, (void)message;
    *out = calloc(1, 8);
    host->log(host->context, FL_LOG_WARN, TEXT(EVIL), message);
    return *out ? FL_OK : FL_FAILED;
}
static int32_t phase_started(void *self, const fl_host *host, const fl_phase *phase, fl_message *message) {
    (void)self, (void)phase;
    host->log(host->context, FL_LOG_INFO, TEXT(EVIL), message);
    return FL_OK;
}
static int32_t next_batch(void *self, const fl_host *host, const fl_step *step, fl_replay_batch *batch,
                          fl_message *message) {
    (void)self, (void)step, (void)batch;
    host->metric(host->context, TEXT("ev\033[2J"), 1, message);
    message->len = sizeof EVIL - 1;
    memcpy(message->text, EVIL, sizeof EVIL - 1);
    return FL_FAILED;
}
static int32_t observe(void *self, const fl_host *host, const fl_observation *seen, fl_message *message) {
    (void)self, (void)host, (void)seen, (void)message;
    return FL_OK;
}
static int32_t save(void *self, uint8_t *buffer, uint64_t capacity, uint64_t *needed, fl_message *message) {
    (void)self, (void)buffer, (void)capacity, (void)message;
    *needed = 0;
    return FL_OK;
}
static int32_t load(void *self, const fl_host *host, uint32_t version, const uint8_t *state, uint64_t len,
                    const fl_phase *phase, fl_message *message) {
    (void)self, (void)host, (void)version, (void)state, (void)len, (void)phase, (void)message;
    return FL_OK;
}

const fl_descriptor *forgetlab_strategy(void) {
    static const char schema[] =
        "{\"type\": \"object\", \"properties\": {\"" EVIL_JSON "\": {\"type\": \"string\", \"default\": \"" EVIL_JSON
        "\", \"description\": \"" EVIL_JSON "\"}}}";
    static const fl_descriptor descriptor = {
        .struct_size = sizeof descriptor,
        .magic = FL_MAGIC,
        .abi_major = FL_ABI_MAJOR,
        .abi_minor = FL_ABI_MINOR,
        .name = (const uint8_t *)"evil",
        .name_len = 4,
        .version = (const uint8_t *)EVIL,
        .version_len = sizeof EVIL - 1,
        .summary = (const uint8_t *)EVIL,
        .summary_len = sizeof EVIL - 1,
        .settings_schema = (const uint8_t *)schema,
        .settings_schema_len = sizeof schema - 1,
        .capabilities = FL_NEEDS_OLD_DATA,
        .state_version = 1,
        .create = create,
        .phase_started = phase_started,
        .next_batch = next_batch,
        .observe = observe,
        .save = save,
        .load = load,
        .destroy = free,
    };
    return &descriptor;
}
