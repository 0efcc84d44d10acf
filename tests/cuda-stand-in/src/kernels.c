// The engine's kernels, compiled for the CPU, by name.

#include "../../../app/engine/src/gpu/tests/on_cpu.c"

#include <stddef.h>

// A pointer in the struct that a kernel takes.
typedef struct {
    const char *name;
    unsigned long offset;
} Pointer;

typedef struct {
    const char *name;
    void (*run)(const void *);
    const Pointer *pointers;
} EngineKernel;

#define POINTER(Arguments, field) {#field, offsetof(Arguments, field)},
#define ROW(name, ...) {#name, name, (const Pointer[]){__VA_ARGS__{0, 0}}},
const EngineKernel engine_kernels[] = {
#include "names.h"
    {0, 0, 0}};

const unsigned engine_max_threads = MAX_THREADS;
