// Runs kernels.cu on the CPU. The threads of a block are fibers that switch at every SYNC, in an order that is
// another one each time, so that a missing SYNC changes results.

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
#define WARP 2L
#define SHUFFLE(x, mask) shuffle(x, mask)
#define ADD(sum, x) (*(sum) += (x))

typedef struct {
    float x, y, z, w;
} __attribute__((may_alias)) float4;

typedef struct {
    unsigned int x, y;
} __attribute__((may_alias)) uint2;

enum { FIBERS = 4, STACK = 1 << 16 };

static jmp_buf scheduler, fibers[FIBERS];
static int current;
static long block;

static void switch_to(jmp_buf from, jmp_buf to) {
    if (!_setjmp(from)) _longjmp(to, 1);
}

static float shuffle(float x, int mask) {
    static float of_fiber[FIBERS];
    of_fiber[current] = x;
    SYNC();
    x = of_fiber[current ^ mask];
    SYNC();
    return x;
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
    static unsigned random;
    if (!made) make_fibers();
    made = 1;
    kernel_of_call = kernel, args_of_call = args;
    for (block = 0; block < blocks; block++) {
        for (int i = 0; i < FIBERS; i++) done[i] = 0;
        for (int left = FIBERS; left > 0;) {
            random = random * 1664525u + 1013904223u;
            int first = random >> 24 & (FIBERS - 1), step = random >> 31 ? 1 : FIBERS - 1;
            for (int i = 0; i < FIBERS; i++) {
                current = (first + i * step) % FIBERS;
                if (done[current]) continue;
                switch_to(scheduler, fibers[current]);
                left -= done[current];
            }
        }
    }
}
