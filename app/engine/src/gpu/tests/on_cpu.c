// Runs kernels.cu on the CPU. The threads of a block are fibers that switch at every SYNC, in ascending and
// descending order alternately, so that a missing SYNC changes results.

#undef _FORTIFY_SOURCE // its longjmp refuses to leave a stack for another
#include <math.h>
#include <setjmp.h>
#include <ucontext.h>

// A kernel of that name takes the address of its struct; `NAME_bytes` is the size of that.
#define KERNEL(name, Arguments)                                                                       \
    static void name##_of(Arguments);                                                                 \
    const unsigned long name##_bytes = sizeof(Arguments);                                             \
    void name(const void *a) { name##_of(*(const Arguments *)a); }                                    \
    static void name##_of(Arguments a)
#define DEVICE static inline
#define SHARED static
#define THREAD ((long)current)
#define THREADS ((long)FIBERS)
#define BLOCK block
#define SYNC() switch_to(fibers[current], scheduler)

enum { FIBERS = 4, STACK = 1 << 16 };

static jmp_buf scheduler, fibers[FIBERS];
static int current;
static long block;

static void switch_to(jmp_buf from, jmp_buf to) {
    if (!_setjmp(from)) _longjmp(to, 1);
}

#include "../kernels.cu"

static char stacks[FIBERS][STACK];
static int done[FIBERS];
static void (*kernel_of_call)(const void *);
static const void *args_of_call;

static void fiber(void) {
    for (;;) {
        SYNC();
        kernel_of_call(args_of_call);
        done[current] = 1;
    }
}

static void make_fibers(void) {
    static ucontext_t here, there;
    for (current = 0; current < FIBERS; current++) {
        getcontext(&there);
        there.uc_stack.ss_sp = stacks[current];
        there.uc_stack.ss_size = STACK;
        makecontext(&there, fiber, 0);
        if (!_setjmp(scheduler)) swapcontext(&here, &there);
    }
}

// Runs a kernel once for each block. Not thread-safe.
void run_blocks(void (*kernel)(const void *), const void *args, long blocks) {
    static int made;
    if (!made) make_fibers();
    made = 1;
    kernel_of_call = kernel, args_of_call = args;
    for (block = 0; block < blocks; block++) {
        for (int i = 0; i < FIBERS; i++) done[i] = 0;
        for (int left = FIBERS, forwards = 1; left > 0; forwards = !forwards) {
            for (int i = 0; i < FIBERS; i++) {
                current = forwards ? i : FIBERS - 1 - i;
                if (done[current]) continue;
                switch_to(scheduler, fibers[current]);
                left -= done[current];
            }
        }
    }
}
