// The engine's kernels, compiled for the CPU, by name.

#include "../../../app/engine/src/gpu/tests/on_cpu.c"

#include <stddef.h>

typedef struct {
    const char *name;
    void (*run)(Args);
} EngineKernel;

#define ROW(name) {#name, name},
const EngineKernel engine_kernels[] = {
#include "names.h"
    {0, 0}};

// The struct that a launch takes begins with so many pointers.
const unsigned long engine_pointers = sizeof(((Args *)0)->p) / sizeof(void *);
const unsigned engine_max_threads = MAX_THREADS;

_Static_assert(offsetof(Args, p) == 0, "pointers come first");
