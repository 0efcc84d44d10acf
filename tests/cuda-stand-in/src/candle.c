// What the GPU's path still takes of candle's own kernels, with the arguments that candle gives them: each is a
// pointer to the value. One call does what a whole grid would.

#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef uint16_t bf16;
typedef float f32;
typedef uint32_t u32;
typedef uint8_t u8;
typedef int64_t i64;

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

#define SAME(x) (x)
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
MAP(ucopy_f32, f32, f32, SAME)
MAP(ucopy_bf16, bf16, bf16, SAME)
MAP(ucopy_u32, u32, u32, SAME)
MAP(cast_f32_bf16, f32, bf16, to_bf16)
MAP(cast_bf16_f32, bf16, f32, from_bf16)

// numel, dims, info, lhs, rhs, out
static void badd_f32(void **args) {
    f32 *x = ARG(f32 *, 3), *y = ARG(f32 *, 4), *z = ARG(f32 *, 5);
    size_t dims = SIZE(1), *info = ARG(size_t *, 2);
    for (size_t i = 0; i < SIZE(0); i++) z[i] = x[at(i, dims, info, 1)] + y[at(i, dims, info, 2)];
}

// numel, dims, info, inp, out, mul, add
static void affine_f32(void **args) {
    f32 *x = ARG(f32 *, 3), *y = ARG(f32 *, 4);
    size_t dims = SIZE(1), *info = ARG(size_t *, 2);
    for (size_t i = 0; i < SIZE(0); i++) y[i] = x[at(i, dims, info, 1)] * ARG(f32, 5) + ARG(f32, 6);
}

// numel, dims, info, value, out
#define CONST_SET(name, type)                                                                         \
    static void name(void **args) {                                                                   \
        for (size_t i = 0; i < SIZE(0); i++)                                                          \
            ARG(type *, 4)[at(i, SIZE(1), ARG(size_t *, 2), 1)] = ARG(type, 3);                       \
    }
CONST_SET(const_set_f32, f32)

// src, dst, d1, d2, src_s, dst_s
#define COPY2D(name, type)                                                                            \
    static void name(void **args) {                                                                   \
        type *from = ARG(type *, 0), *to = ARG(type *, 1);                                            \
        for (size_t i = 0; i < ARG(u32, 2); i++)                                                      \
            memmove(to + i * ARG(u32, 5), from + i * ARG(u32, 4), ARG(u32, 3) * sizeof(type));        \
    }
COPY2D(copy2d_f32, f32)
COPY2D(copy2d_bf16, bf16)
COPY2D(copy2d_u32, u32)

// numel, dims, info, ids, inp, out, left_size, src_dim_size, ids_dim_size, right_size
#define INDEX_SELECT(name, type)                                                                      \
    static void name(void **args) {                                                                   \
        type *x = ARG(type *, 4), *y = ARG(type *, 5);                                                \
        size_t rows = SIZE(7), ids = SIZE(8), right = SIZE(9);                                        \
        for (size_t i = 0; i < SIZE(0); i++) {                                                        \
            u32 id = ARG(u32 *, 3)[i / right % ids];                                                  \
            y[i] = id == UINT32_MAX ? 0 : x[(i / (ids * right) * rows + id) * right + i % right];     \
        }                                                                                             \
    }
INDEX_SELECT(is_u32_f32, f32)
INDEX_SELECT(is_u32_bf16, bf16)

// numel, dims, info, ids, t, f, out
#define WHERE(name, id)                                                                               \
    static void name(void **args) {                                                                   \
        size_t dims = SIZE(1), *info = ARG(size_t *, 2);                                              \
        u32 *t = ARG(u32 *, 4), *f = ARG(u32 *, 5);                                                   \
        for (size_t i = 0; i < SIZE(0); i++)                                                          \
            ARG(u32 *, 6)[i] = ARG(id *, 3)[at(i, dims, info, 1)] ? t[at(i, dims, info, 2)]           \
                                                                  : f[at(i, dims, info, 3)];          \
    }
WHERE(where_u8_u32, u8)
WHERE(where_u32_u32, u32)

// Its arguments: `p` is a pointer, `.` is none.
typedef struct {
    const char *name, *args;
    void (*run)(void **args);
} CandleKernel;

#define ROW(name, args) {#name, args, name}
const CandleKernel candle_kernels[] = {
    ROW(ucopy_f32, "..ppp"),
    ROW(ucopy_bf16, "..ppp"),
    ROW(ucopy_u32, "..ppp"),
    ROW(cast_f32_bf16, "..ppp"),
    ROW(cast_bf16_f32, "..ppp"),
    ROW(badd_f32, "..pppp"),
    ROW(affine_f32, "..ppp.."),
    ROW(const_set_f32, "..p.p"),
    ROW(copy2d_f32, "pp...."),
    ROW(copy2d_bf16, "pp...."),
    ROW(copy2d_u32, "pp...."),
    ROW(is_u32_f32, "..pppp...."),
    ROW(is_u32_bf16, "..pppp...."),
    ROW(where_u8_u32, "..ppppp"),
    ROW(where_u32_u32, "..ppppp"),
    {0, 0, 0},
};
