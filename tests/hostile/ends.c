/* A strategy that ends the process: in the function that ENDS_IN names, by `exit` or `_exit` as ENDS_BY says, with the
 * exit code ENDS_WITH. */
#define _POSIX_C_SOURCE 200809L
#include "forgetlab_strategy.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int is(const char *variable, const char *value) {
    const char *given = getenv(variable);
    return given && !strcmp(given, value);
}

static void end_in(const char *function) {
    if (!is("ENDS_IN", function)) return;
    int code = atoi(getenv("ENDS_WITH"));
    if (is("ENDS_BY", "exit")) exit(code);
    _exit(code);
}

__attribute__((constructor)) static void constructor(void) { end_in("constructor"); }

static int32_t create(const fl_host *host, const fl_create_args *args, void **out, fl_message *message) {
    (void)host, (void)args, (void)message;
    static int instance;
    *out = &instance;
    end_in("create");
    return FL_OK;
}

static int32_t phase_started(void *instance, const fl_host *host, const fl_phase *phase, fl_message *message) {
    (void)instance, (void)host, (void)phase, (void)message;
    end_in("phase_started");
    return FL_OK;
}

static int32_t next_batch(void *instance, const fl_host *host, const fl_step *step, fl_replay_batch *batch,
                          fl_message *message) {
    (void)instance, (void)host, (void)step, (void)batch, (void)message;
    end_in("next_batch");
    return FL_NOTHING;
}

static int32_t observe(void *instance, const fl_host *host, const fl_observation *seen, fl_message *message) {
    (void)instance, (void)host, (void)seen, (void)message;
    end_in("observe");
    return FL_OK;
}

static int32_t save(void *instance, uint8_t *buffer, uint64_t capacity, uint64_t *needed, fl_message *message) {
    (void)instance, (void)buffer, (void)capacity, (void)message;
    *needed = 0;
    end_in("save");
    return FL_OK;
}

static int32_t load(void *instance, const fl_host *host, uint32_t state_version, const uint8_t *state,
                    uint64_t state_len, const fl_phase *phase, fl_message *message) {
    (void)instance, (void)host, (void)state_version, (void)state, (void)state_len, (void)phase, (void)message;
    return FL_OK;
}

static void destroy(void *instance) {
    (void)instance;
    end_in("destroy");
}

const fl_descriptor *forgetlab_strategy(void) {
    static const fl_descriptor descriptor = {
        .struct_size = sizeof descriptor,
        .magic = FL_MAGIC,
        .abi_major = FL_ABI_MAJOR,
        .abi_minor = FL_ABI_MINOR,
        .name = (const uint8_t *)"hostile",
        .name_len = 7,
        .settings_schema = (const uint8_t *)"{}",
        .settings_schema_len = 2,
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
