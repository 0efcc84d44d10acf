/* A library whose handshake is wrong in the way VARIANT names. */
#include "forgetlab_strategy.h"

#include <stddef.h>

static void crash(void) { *(volatile int *)NULL = 0; }

#define OTHER_MAJOR 1
#define NEWER_MINOR 2
#define WRONG_MAGIC 3
#define NULL_DESCRIPTOR 4
#define SHORT_STRUCT 5
#define NULL_FUNCTION 6
#define BAD_NAME 7
#define BAD_SCHEMA 8
#define NEW_CAPABILITY 9

/* As different from version 1 as it gets: only the first four fields, before memory that is not there. */
static const struct {
    uint64_t struct_size, magic;
    uint32_t abi_major, abi_minor;
} other_major = {24, FL_MAGIC, 7, 3};

static fl_descriptor descriptor = {
    .struct_size = sizeof(fl_descriptor),
    .magic = FL_MAGIC,
    .abi_major = FL_ABI_MAJOR,
    .abi_minor = FL_ABI_MINOR,
    .name = (const uint8_t *)"handshake",
    .name_len = 9,
    .settings_schema = (const uint8_t *)"{}",
    .settings_schema_len = 2,
    /* Nothing may be called before the checks. */
    .create = (fl_create_fn)crash,
    .phase_started = (fl_phase_started_fn)crash,
    .next_batch = (fl_next_batch_fn)crash,
    .observe = (fl_observe_fn)crash,
    .save = (fl_save_fn)crash,
    .load = (fl_load_fn)crash,
    .destroy = (fl_destroy_fn)crash,
};

const fl_descriptor *forgetlab_strategy(void) {
    switch (VARIANT) {
    case OTHER_MAJOR: return (const fl_descriptor *)&other_major;
    case NEWER_MINOR: descriptor.abi_minor = FL_ABI_MINOR + 1; break;
    case WRONG_MAGIC: descriptor.magic = 1; break;
    case NULL_DESCRIPTOR: return NULL;
    case SHORT_STRUCT: descriptor.struct_size -= 8; break;
    case NULL_FUNCTION: descriptor.save = NULL; break;
    case BAD_NAME: descriptor.name = (const uint8_t *)"Handshake"; break;
    case BAD_SCHEMA: descriptor.settings_schema = (const uint8_t *)"[]"; break;
    case NEW_CAPABILITY: descriptor.capabilities = UINT64_C(1) << 40; break;
    }
    return &descriptor;
}
