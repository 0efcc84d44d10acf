// What the GPU's path still takes of candle's own kernels, where weights come and go, with the arguments that candle
// gives them: each is a pointer to the value. One call does what a whole grid would.

#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef uint16_t bf16;
typedef float f32;

static float from_bf16(bf16 x) {
    uint32_t bits = (uint32_t)x << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

// To the nearest, ties to even; what is not a number is CUDA's canonical one.
static bf16 to_bf16(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof f);
    return f != f ? 0x7fff : (bf16)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

#define ARG(type, i) (*(type *)args[i])
#define SIZE(i) ARG(size_t, i)

// Where element `i` of a tensor is: `info` has its dimensions, then `which` has its strides; none is contiguous.
static size_t at(size_t i, size_t dims, const size_t *info, size_t which) {
    if (!info) return i;
    const size_t *strides = info + which * dims;
    size_t to = 0;
    for (size_t d = dims; d-- > 0; i /= info[d]) to += i % info[d] * strides[d];
    return to;
}

// numel, dims, info, inp, out
#define MAP(name, from, to, f)                                                                        \
    static void name(void **args) {                                                                   \
        from *x = ARG(from *, 3);                                                                     \
        to *y = ARG(to *, 4);                                                                         \
        for (size_t i = 0; i < SIZE(0); i++) y[i] = f(x[at(i, SIZE(1), ARG(size_t *, 2), 1)]);        \
    }
MAP(cast_f32_bf16, f32, bf16, to_bf16)
MAP(cast_bf16_f32, bf16, f32, from_bf16)

// Its arguments: `p` is a pointer, `.` is none.
typedef struct {
    const char *name, *args;
    void (*run)(void **args);
} CandleKernel;

#define ROW(name, args) {#name, args, name}
const CandleKernel candle_kernels[] = {
    ROW(cast_f32_bf16, "..ppp"),
    ROW(cast_bf16_f32, "..ppp"),
    {0, 0, 0},
};
