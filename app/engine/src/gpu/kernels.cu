// Kernels of the GPU's engine. Each takes a struct of its own; in most of them a block computes one row.
//
// Plain C except for the macros below, so that tests can compile it for the CPU, with fibers in place of a
// block's threads. Numbers are `float`; those behind `void *` are called rounded, and are bf16 if `bf16` is set. All
// arithmetic is f32, and all sums have a fixed order. Outputs are not const. `arguments.rs` has the same structs,
// field by field.

#ifdef __CUDACC__
#define KERNEL(name, Arguments) extern "C" __global__ void name(Arguments a)
#define DEVICE static __device__ __forceinline__
#define SHARED __shared__
#define THREAD ((long)threadIdx.x)
#define THREADS ((long)blockDim.x)
#define BLOCK ((long)blockIdx.x)
#define SYNC() __syncthreads()
// Threads that move together, and the number that another of them has.
#define WARP 32L
#define SHUFFLE(x, mask) __shfl_xor_sync(0xffffffffu, x, mask)
// Adds whole numbers, whose sum is the same in every order.
#define ADD(sum, x) atomicAdd(sum, x)
#endif

#define MAX_THREADS 256
#define EACH(i, n) for (long i = THREAD; i < (n); i += THREADS)
// Four numbers a thread at a time, from i on.
#define FOURS(i, n) for (long i = 4 * THREAD; i < (n); i += 4 * THREADS)
#define LANES(j) for (int j = 0; j < 4; j++)

// The lowest number, which unlike −∞ can be subtracted from itself.
#define LOWEST -3.402823466e38f
// What a row has in place of a token that is still to be chosen.
#define UNCHOSEN 0xffffffffu

typedef unsigned long long Whole;

typedef union {
    float f;
    unsigned int u;
} Bits;

typedef struct {
    float at[4];
} Four;

DEVICE float of_bits(unsigned int u) {
    Bits bits;
    bits.u = u;
    return bits.f;
}

// The nearest bf16, ties to even.
DEVICE unsigned int to_bf16(float x) {
    Bits bits;
    bits.f = x;
    return x != x ? 0x7fc0u : (bits.u + 0x7fffu + ((bits.u >> 16) & 1u)) >> 16;
}

DEVICE float rounded(float x, long bf16) { return bf16 ? of_bits(to_bf16(x) << 16) : x; }

DEVICE float load(const void *p, long i, long bf16) {
    if (!bf16) return ((const float *)p)[i];
    return of_bits((unsigned int)((const unsigned short *)p)[i] << 16);
}

DEVICE void store(void *p, long i, float x, long bf16) {
    if (bf16)
        ((unsigned short *)p)[i] = (unsigned short)to_bf16(x);
    else
        ((float *)p)[i] = x;
}

// Whether four numbers can be moved at once.
DEVICE long together(const void *p, long at, long i, long n, long bf16) {
    return i + 4 <= n && ((unsigned long)p + (bf16 ? 2 : 4) * (at + i)) % (bf16 ? 8 : 16) == 0;
}

// Numbers i to i + 3 of a row of n that begins at `at`; zeros behind its end.
DEVICE Four load4(const void *p, long at, long i, long n, long bf16) {
    Four x;
    if (!together(p, at, i, n, bf16)) {
        LANES(j) x.at[j] = i + j < n ? load(p, at + i + j, bf16) : 0;
    } else if (bf16) {
        uint2 two = *(const uint2 *)((const unsigned short *)p + at + i);
        x.at[0] = of_bits(two.x << 16), x.at[1] = of_bits(two.x & 0xffff0000u);
        x.at[2] = of_bits(two.y << 16), x.at[3] = of_bits(two.y & 0xffff0000u);
    } else {
        float4 four = *(const float4 *)((const float *)p + at + i);
        x.at[0] = four.x, x.at[1] = four.y, x.at[2] = four.z, x.at[3] = four.w;
    }
    return x;
}

// The reverse of load4; nothing behind the end of the row is written.
DEVICE void store4(void *p, long at, long i, long n, Four x, long bf16) {
    if (!together(p, at, i, n, bf16)) {
        LANES(j) {
            if (i + j < n) store(p, at + i + j, x.at[j], bf16);
        }
    } else if (bf16) {
        uint2 two;
        two.x = to_bf16(x.at[0]) | to_bf16(x.at[1]) << 16;
        two.y = to_bf16(x.at[2]) | to_bf16(x.at[3]) << 16;
        *(uint2 *)((unsigned short *)p + at + i) = two;
    } else {
        float4 four;
        four.x = x.at[0], four.y = x.at[1], four.z = x.at[2], four.w = x.at[3];
        *(float4 *)((float *)p + at + i) = four;
    }
}

DEVICE Four same(float x) {
    Four four;
    LANES(j) four.at[j] = x;
    return four;
}

// Sum over the threads of a warp, returned to all of them.
DEVICE float warp_sum(float x) {
    for (int mask = WARP / 2; mask > 0; mask /= 2) x += SHUFFLE(x, mask);
    return x;
}

// Sum over the threads of a block, returned to all of them. The number of threads is a power of two.
DEVICE float block_sum(float x) {
    SHARED float of_warp[MAX_THREADS / 2];
    x = warp_sum(x);
    SYNC();
    if (THREAD % WARP == 0) of_warp[THREAD / WARP] = x;
    SYNC();
    x = 0;
    for (long i = 0; i < THREADS / WARP; i++) x += of_warp[i];
    return x;
}

DEVICE float block_max(float x) {
    SHARED float of_warp[MAX_THREADS / 2];
    for (int mask = WARP / 2; mask > 0; mask /= 2) x = fmaxf(x, SHUFFLE(x, mask));
    SYNC();
    if (THREAD % WARP == 0) of_warp[THREAD / WARP] = x;
    SYNC();
    for (long i = 0; i < THREADS / WARP; i++) x = fmaxf(x, of_warp[i]);
    return x;
}

// Σ e^(x − max) of the numbers so far, and their max.
typedef struct {
    float max;
    float sum;
} Exponentials;

// Takes in numbers of which `max` is the largest; returns what sums over the earlier ones must be multiplied by.
DEVICE float rise(Exponentials *e, float max) {
    float factor = expf(e->max - max);
    e->max = max;
    e->sum *= factor;
    return factor;
}

// log Σ e^x over what all threads have seen; what a sum of this thread over e^(x − max) must be multiplied by for
// one over all threads of e^x / Σ e^x.
DEVICE float log_sum_exp(Exponentials e, float *share) {
    float max = block_max(e.max), scale = expf(e.max - max), sum = block_sum(e.sum * scale);
    if (share) *share = scale / sum;
    return max + logf(sum);
}

typedef struct {
    float *h;
    const void *table;
    const unsigned int *tokens;
    long d;
    long bf16;
    float scale;
} EmbedForward;

// The row of token `tokens[BLOCK]` of an embedding `[V, D]`, as f32, times `scale`.
KERNEL(embed_forward, EmbedForward) {
    long d = a.d, from = a.tokens[BLOCK] * d;
    FOURS(i, d) {
        Four x = load4(a.table, from, i, d, a.bf16);
        LANES(j) x.at[j] *= a.scale;
        store4(a.h, BLOCK * d, i, d, x, 0);
    }
}

// Gains i to i + 3 of D, times `scale`: `offset` more than what is stored, rounded, and 1 without any.
DEVICE Four gains(const void *stored, float offset, float scale, long i, long d, long bf16) {
    Four gain = stored ? load4(stored, 0, i, d, bf16) : same(1 - offset);
    LANES(j) gain.at[j] = scale * (gain.at[j] + offset);
    return gain;
}

typedef struct {
    void *y;
    void *gained;
    float *sum;
    float *inv_rms;
    const float *x;
    const void *gain;
    const unsigned int *rows;
    long d;
    long bf16;
    float eps;
    float offset;
    float scale;
} NormForward;

// RMSNorm of rows of `x [.., D]`, which `rows [M]` chooses if it is there: before the gain `y [M, D]`, rounded; after
// it and times `scale` `gained [M, D]`, rounded, or added to `sum [M, D]`; those that are wanted, and `1/rms [M]`.
KERNEL(norm_forward, NormForward) {
    long d = a.d, bf16 = a.bf16, at = BLOCK * d, from = (a.rows ? a.rows[BLOCK] : BLOCK) * d;
    float squares = 0;
    FOURS(i, d) {
        Four x = load4(a.x, from, i, d, 0);
        LANES(j) squares += x.at[j] * x.at[j];
    }
    float r = 1 / sqrtf(block_sum(squares) / d + a.eps);
    FOURS(i, d) {
        Four x = load4(a.x, from, i, d, 0);
        LANES(j) x.at[j] = rounded(x.at[j] * r, bf16);
        if (a.y) store4(a.y, at, i, d, x, bf16);
        if (!a.gained && !a.sum) continue;
        Four gain = gains(a.gain, a.offset, a.scale, i, d, bf16);
        LANES(j) x.at[j] *= gain.at[j];
        if (a.gained) store4(a.gained, at, i, d, x, bf16);
        if (!a.sum) continue;
        Four sum = load4(a.sum, at, i, d, 0);
        LANES(j) sum.at[j] += x.at[j];
        store4(a.sum, at, i, d, sum, 0);
    }
    if (THREAD == 0) a.inv_rms[BLOCK] = r;
}

typedef struct {
    float *dh;
    void *dh_rounded;
    void *gained;
    float *gain_sums;
    const float *dy;
    const void *y;
    const float *inv_rms;
    const void *gain;
    const unsigned int *rows;
    long d;
    long bf16;
    long adds;
    long len;
    long len_of_block;
    long normed;
    float offset;
    float scale;
} NormBackward;

// Backward of norm_forward for `len_of_block` of the `len` rows of `dh [M, D]`, in place: adds the gradient of the
// norm's input, or sets it if `adds` is 0. From `y`, `inv_rms` and the gradient `dy` of the output after the gain
// it is `inv_rms · (g − y · mean(g · y))` with `g = scale · gain · dy`. Where `rows [M]` is there, it says whose row
// of those a row takes; a number from `normed` on is of none, and its gradient 0.
//
// Those that are wanted: dh, the rounded dh, the output after the gain again, rounded, and the block's sum for the
// gradient of the gain, `[blocks, D]`.
KERNEL(norm_backward, NormBackward) {
    long d = a.d, bf16 = a.bf16, begin = BLOCK * a.len_of_block;
    long end = begin + a.len_of_block < a.len ? begin + a.len_of_block : a.len;
    if (a.gain_sums) FOURS(i, d) store4(a.gain_sums, BLOCK * d, i, d, same(0), 0);
    for (long m = begin; m < end; m++) {
        long from = a.rows ? a.rows[m] : m, at = from * d, is_normed = from < a.normed;
        float mean = 0, r = 0;
        if (is_normed) {
            FOURS(i, d) {
                Four dy = load4(a.dy, at, i, d, 0), y = load4(a.y, at, i, d, bf16);
                Four gain = gains(a.gain, a.offset, a.scale, i, d, bf16);
                LANES(j) mean += gain.at[j] * dy.at[j] * y.at[j];
            }
            mean = block_sum(mean) / d;
            r = a.inv_rms[from];
        }
        FOURS(i, d) {
            Four dh = a.adds ? load4(a.dh, m * d, i, d, 0) : same(0);
            if (is_normed) {
                Four dy = load4(a.dy, at, i, d, 0), y = load4(a.y, at, i, d, bf16);
                Four gain = gains(a.gain, a.offset, a.scale, i, d, bf16);
                LANES(j) dh.at[j] += r * (gain.at[j] * dy.at[j] - y.at[j] * mean);
                if (a.gain_sums) {
                    Four sum = load4(a.gain_sums, BLOCK * d, i, d, 0);
                    LANES(j) sum.at[j] += a.scale * dy.at[j] * y.at[j];
                    store4(a.gain_sums, BLOCK * d, i, d, sum, 0);
                }
                LANES(j) y.at[j] *= gain.at[j];
                if (a.gained) store4(a.gained, at, i, d, y, bf16);
            }
            if (a.dh) store4(a.dh, m * d, i, d, dh, 0);
            if (a.dh_rounded) store4(a.dh_rounded, m * d, i, d, dh, bf16);
        }
    }
}

typedef struct {
    float *sum;
    const void *rows;
    long d;
    long len;
    long together;
    long distance;
    long columns;
    long adds;
    long bf16;
} SumRows;

// Sum of `len` rows of D numbers, rounded, added to `sum [D]` or set if `adds` is 0; a block sums `columns` columns.
// `together` rows follow one another, and so do as many `distance` numbers behind their begin.
KERNEL(sum_rows, SumRows) {
    SHARED float of_thread[MAX_THREADS];
    // Threads meet in the loop: `columns` and `side` are powers of two, so that all go round it equally often.
    long side = THREADS / 2 < a.columns ? THREADS / 2 : a.columns, groups = THREADS / side;
    for (long j = THREAD % side; j < a.columns; j += side) {
        long column = BLOCK * a.columns + j, is_there = column < a.d;
        unsigned int len = (unsigned int)a.len, together = (unsigned int)a.together;
        float sum = 0;
        if (is_there)
            for (unsigned int m = (unsigned int)(THREAD / side); m < len; m += (unsigned int)groups) {
                long row = m / together * a.distance + m % together * a.d;
                sum += load(a.rows, row + column, a.bf16);
            }
        SYNC();
        of_thread[THREAD] = sum;
        SYNC();
        if (THREAD >= side || !is_there) continue;
        for (long group = 1; group < groups; group++) sum += of_thread[group * side + THREAD];
        a.sum[column] = a.adds ? a.sum[column] + sum : sum;
    }
}

// One head of one position of `qkv [M, (N + 2 K) H]`.
typedef struct {
    long part;   // 0 for q, 1 for k, 2 for v
    long head;   // number of its group
    long member; // number within the group, 0 for k and v
    long group;  // members of a group, 1 for k and v
} Head;

// Head `head` among all, of N query heads and K heads of keys; a group's `G = N / K` queries are contiguous.
DEVICE Head head_of(long head, long n_heads, long kv_heads) {
    Head h;
    h.part = head < n_heads ? 0 : head < n_heads + kv_heads ? 1 : 2;
    h.group = h.part == 0 ? n_heads / kv_heads : 1;
    long n = h.part == 0 ? head : (head - n_heads) % kv_heads;
    h.head = n / h.group, h.member = n % h.group;
    return h;
}

// What is normalised together: a head, or all queries of a position, and all its keys.
#define OF_HEAD 1
#define OF_ALL 2

// Numbers i and i + H/2 of a head, which RoPE turns together.
typedef struct {
    float u;
    float v;
} Pair;

DEVICE Pair load_pair(const void *x, long at, long half, long bf16) {
    Pair pair = {load(x, at, bf16), load(x, at + half, bf16)};
    return pair;
}

DEVICE void store_pair(void *x, long at, long half, Pair pair, long bf16) {
    store(x, at, pair.u, bf16);
    store(x, at + half, pair.v, bf16);
}

DEVICE Pair turned(Pair x, float cos, float sin) {
    Pair pair = {x.u * cos - x.v * sin, x.v * cos + x.u * sin};
    return pair;
}

// The pair at `column` of a row that begins at `at`, with its bias, if there is one, times `r`.
DEVICE Pair projected(const void *qkv, const void *bias, long at, long column, long half, float r, long bf16) {
    Pair x = load_pair(qkv, at + column, half, bf16);
    if (bias) {
        Pair more = load_pair(bias, column, half, bf16);
        x.u += more.u, x.v += more.v;
    }
    x.u *= r, x.v *= r;
    return x;
}

typedef struct {
    void *q;
    void *k;
    void *v;
    float *inv_rms;
    const void *qkv;
    const void *bias;
    const void *q_gain;
    const void *k_gain;
    const float *cos;
    const float *sin;
    long n_heads;
    long kv_heads;
    long seq_len;
    long head_dim;
    long bf16;
    long first;
    long keys;
    long first_key;
    long qk_norm;
    float eps;
    float offset;
} QkvForward;

// `1/rms` of `len` numbers of a row of `qkv` that begins at `at`, from `first` on, with their biases.
DEVICE float inv_rms_of(QkvForward a, long at, long first, long len) {
    float squares = 0;
    EACH(i, len) {
        float x = load(a.qkv, at + first + i, a.bf16);
        if (a.bias) x += load(a.bias, first + i, a.bf16);
        squares += x * x;
    }
    return 1 / sqrtf(block_sum(squares) / len + a.eps);
}

// Copies a position of `qkv [M, (N + 2 K) H]`, rounded, to `q [B, K, T G, H]` and, from row `first_key` on, to `k`
// and `v [B, K, keys, H]`, a warp for each head, with their biases if there are some. q and k are normalised as
// `qk_norm` says, keeping `1/rms`: OF_HEAD `[M, N + K]`, with gains `[H]` of q and of k if there are some; OF_ALL
// `[M, 2]`, with gains `[N H]` and `[K H]`. Then they are rotated, if there are cosines; sequences begin at position
// `first`.
KERNEL(qkv_forward, QkvForward) {
    long bf16 = a.bf16, h = a.head_dim, half = h / 2, heads = a.n_heads + 2 * a.kv_heads;
    long row = BLOCK / a.seq_len, t = BLOCK % a.seq_len, lane = THREAD % WARP;
    long from = BLOCK * heads * h, angle = (a.first + t) * half;
    float r_q = 1, r_k = 1;
    if (a.qk_norm == OF_ALL) {
        r_q = inv_rms_of(a, from, 0, a.n_heads * h);
        r_k = inv_rms_of(a, from, a.n_heads * h, a.kv_heads * h);
        if (THREAD == 0) a.inv_rms[2 * BLOCK] = r_q, a.inv_rms[2 * BLOCK + 1] = r_k;
    }
    for (long head = THREAD / WARP; head < heads; head += THREADS / WARP) {
        Head to = head_of(head, a.n_heads, a.kv_heads);
        long keys = to.part == 0 ? a.seq_len : a.keys, key = to.part == 0 ? t : a.first_key + t;
        long at = (((row * a.kv_heads + to.head) * keys + key) * to.group + to.member) * h;
        if (to.part == 2) {
            for (long i = lane; i < half; i += WARP) {
                Pair x = projected(a.qkv, a.bias, from, head * h + i, half, 1, bf16);
                store_pair(a.v, at + i, half, x, bf16);
            }
            continue;
        }
        float r = to.part == 0 ? r_q : r_k, squares = 0;
        if (a.qk_norm == OF_HEAD) {
            for (long i = lane; i < half; i += WARP) {
                Pair x = projected(a.qkv, a.bias, from, head * h + i, half, 1, bf16);
                squares += x.u * x.u + x.v * x.v;
            }
            r = 1 / sqrtf(warp_sum(squares) / h + a.eps);
            if (lane == 0) a.inv_rms[BLOCK * (a.n_heads + a.kv_heads) + head] = r;
        }
        void *out = to.part == 0 ? a.q : a.k;
        const void *gain = to.part == 0 ? a.q_gain : a.k_gain;
        long first_gain = a.qk_norm == OF_ALL ? (head - (to.part == 0 ? 0 : a.n_heads)) * h : 0;
        for (long i = lane; i < half; i += WARP) {
            Pair x = projected(a.qkv, a.bias, from, head * h + i, half, r, bf16);
            if (gain) {
                Pair stored = load_pair(gain, first_gain + i, half, bf16);
                x.u *= stored.u + a.offset, x.v *= stored.v + a.offset;
            }
            if (a.cos) x = turned(x, a.cos[angle + i], a.sin[angle + i]);
            store_pair(out, at + i, half, x, bf16);
        }
    }
}

typedef struct {
    void *d_qkv;
    float *gain_sums;
    const void *dq;
    const float *dk;
    const float *dv;
    const void *q;
    const void *k;
    const void *qkv;
    const void *bias;
    const void *q_gain;
    const void *k_gain;
    const float *inv_rms;
    const float *cos;
    const float *sin;
    long n_heads;
    long kv_heads;
    long seq_len;
    long head_dim;
    long bf16;
    long qk_norm;
    long len;
    long len_of_block;
    float offset;
} QkvBackward;

// A pair of a head of q or k in the backward of a norm with gains.
typedef struct {
    Pair dy; // gradient of what came of the gains
    Pair y;  // what went into them
    Pair gain;
} Gained;

DEVICE Gained gained_of(QkvBackward a, Head of, long m, long head, long at, long i, float r) {
    long bf16 = a.bf16, h = a.head_dim, half = h / 2, angle = m % a.seq_len * half + i;
    long row = m * (a.n_heads + 2 * a.kv_heads) * h;
    long first_gain = a.qk_norm == OF_ALL ? (head - (of.part == 0 ? 0 : a.n_heads)) * h : 0;
    Gained x;
    x.dy = of.part == 0 ? load_pair(a.dq, at + i, half, bf16) : load_pair(a.dk, at + i, half, 0);
    if (a.cos) x.dy = turned(x.dy, a.cos[angle], -a.sin[angle]);
    x.y = projected(a.qkv, a.bias, row, head * h + i, half, r, bf16);
    x.gain = load_pair(of.part == 0 ? a.q_gain : a.k_gain, first_gain + i, half, bf16);
    x.gain.u += a.offset, x.gain.v += a.offset;
    return x;
}

// The part of a thread in the sum of gradients times normalised numbers of a head.
DEVICE float gained_sum(QkvBackward a, Head of, long m, long head, long at, float r) {
    float sum = 0;
    for (long i = THREAD % WARP; i < a.head_dim / 2; i += WARP) {
        Gained x = gained_of(a, of, m, head, at, i, r);
        sum += x.gain.u * x.dy.u * x.y.u + x.gain.v * x.dy.v * x.y.v;
    }
    return sum;
}

DEVICE long place_of(QkvBackward a, Head of, long m) {
    long row = m / a.seq_len, t = m % a.seq_len;
    return (((row * a.kv_heads + of.head) * a.seq_len + t) * of.group + of.member) * a.head_dim;
}

// Backward of qkv_forward of whole sequences, for `len_of_block` of the `len` positions: the gradient of `qkv
// [M, (N + 2 K) H]` with its biases, rounded, from those of q, rounded, k and v. Without gains the rotation commutes
// with the norm's Jacobian, which is applied first, to q and k as they became. With gains it is not, and what was
// normalised is computed again from `qkv`; if it is wanted, the block's sum for the gradients of the gains of each
// head, `[blocks, (N + K) H]`.
KERNEL(qkv_backward, QkvBackward) {
    long bf16 = a.bf16, h = a.head_dim, half = h / 2, lane = THREAD % WARP;
    long normed = a.n_heads + a.kv_heads, heads = normed + a.kv_heads, begin = BLOCK * a.len_of_block;
    long end = begin + a.len_of_block < a.len ? begin + a.len_of_block : a.len;
    for (long m = begin; m < end; m++) {
        long angle = m % a.seq_len * half;
        float mean_q = 0, mean_k = 0;
        if (a.qk_norm == OF_ALL) {
            for (long head = THREAD / WARP; head < normed; head += THREADS / WARP) {
                Head of = head_of(head, a.n_heads, a.kv_heads);
                float r = a.inv_rms[2 * m + of.part];
                float sum = gained_sum(a, of, m, head, place_of(a, of, m), r);
                if (of.part == 0)
                    mean_q += sum;
                else
                    mean_k += sum;
            }
            mean_q = block_sum(mean_q) / (a.n_heads * h);
            mean_k = block_sum(mean_k) / (a.kv_heads * h);
        }
        for (long head = THREAD / WARP; head < heads; head += THREADS / WARP) {
            Head of = head_of(head, a.n_heads, a.kv_heads);
            long to = (m * heads + head) * h, at = place_of(a, of, m), part = of.part;
            if (part == 2) {
                for (long i = lane; i < h; i += WARP) store(a.d_qkv, to + i, a.dv[at + i], bf16);
                continue;
            }
            float r = 1, mean = part == 0 ? mean_q : mean_k;
            if (a.qk_norm) r = a.inv_rms[a.qk_norm == OF_ALL ? 2 * m + part : m * normed + head];
            if (a.q_gain) {
                if (a.qk_norm == OF_HEAD) mean = warp_sum(gained_sum(a, of, m, head, at, r)) / h;
                for (long i = lane; i < half; i += WARP) {
                    Gained x = gained_of(a, of, m, head, at, i, r);
                    if (a.gain_sums) {
                        long gain = (BLOCK * normed + head) * h + i;
                        Pair sum = {0, 0};
                        if (m > begin) sum = load_pair(a.gain_sums, gain, half, 0);
                        sum.u += x.dy.u * x.y.u, sum.v += x.dy.v * x.y.v;
                        store_pair(a.gain_sums, gain, half, sum, 0);
                    }
                    Pair dx = {r * (x.gain.u * x.dy.u - x.y.u * mean), r * (x.gain.v * x.dy.v - x.y.v * mean)};
                    store_pair(a.d_qkv, to + i, half, dx, bf16);
                }
                continue;
            }
            const void *dy = part == 0 ? a.dq : (const void *)a.dk, *y = part == 0 ? a.q : a.k;
            long dy_bf16 = part == 0 && bf16;
            if (a.qk_norm) {
                for (long i = lane; i < h; i += WARP) mean += load(dy, at + i, dy_bf16) * load(y, at + i, bf16);
                mean = warp_sum(mean) / h;
            }
            for (long i = lane; i < half; i += WARP) {
                Pair x = load_pair(dy, at + i, half, dy_bf16);
                if (a.qk_norm) {
                    Pair of_y = load_pair(y, at + i, half, bf16);
                    x.u = r * (x.u - of_y.u * mean), x.v = r * (x.v - of_y.v * mean);
                }
                if (a.cos) x = turned(x, a.cos[angle + i], -a.sin[angle + i]);
                store_pair(a.d_qkv, to + i, half, x, bf16);
            }
        }
    }
}

typedef struct {
    void *y;
    const void *x;
    long rows;
    long columns;
    long width;
    long bf16;
} SwapRows;

// Turns `x [B, columns, rows, W]` into `y [B, rows, columns, W]`, both rounded; a block writes `columns` times W.
KERNEL(swap_rows, SwapRows) {
    long width = a.width, fours = (width + 3) / 4, b = BLOCK / a.rows, row = BLOCK % a.rows;
    EACH(j, a.columns * fours) {
        long column = j / fours, i = 4 * (j % fours), from = ((b * a.columns + column) * a.rows + row) * width;
        Four x = load4(a.x, from, i, width, a.bf16);
        store4(a.y, (BLOCK * a.columns + column) * width, i, width, x, a.bf16);
    }
}

typedef struct {
    void *p;
    float *lse;
    const float *scores;
    long bf16;
    long keys;
    long queries;
    long group;
    long first;
    long window;
    long all_queries;
    long first_query;
    float scale;
} SoftmaxForward;

// Whether a query sees a key.
#define SEEN(i) ((i) >= unseen && (i) < seen)

// Causal softmax of a row of `scores [.., queries, keys]` times `scale`: probabilities, rounded, and the log-sum-exp.
// The G queries at position t see the last `window` keys up to `first + t`. `lse [.., all_queries]` has those of more
// queries than the scores, which are the ones from `first_query` on.
KERNEL(softmax_forward, SoftmaxForward) {
    long query = BLOCK % a.queries, seen = a.first + query / a.group + 1, at = BLOCK * a.keys;
    long unseen = seen > a.window ? seen - a.window : 0;
    Exponentials e = {LOWEST, 0};
    FOURS(i, seen) {
        Four x = load4(a.scores, at, i, a.keys, 0);
        float max = e.max;
        LANES(j) if (SEEN(i + j)) max = fmaxf(max, x.at[j] * a.scale);
        rise(&e, max);
        LANES(j) if (SEEN(i + j)) e.sum += expf(x.at[j] * a.scale - max);
    }
    float lse = log_sum_exp(e, 0);
    FOURS(i, a.keys) {
        Four x = load4(a.scores, at, i, a.keys, 0);
        LANES(j) x.at[j] = SEEN(i + j) ? expf(x.at[j] * a.scale - lse) : 0;
        store4(a.p, at, i, a.keys, x, a.bf16);
    }
    if (THREAD == 0) a.lse[BLOCK / a.queries * a.all_queries + a.first_query + query] = lse;
}

typedef struct {
    void *p;
    void *d_scores;
    const float *scores;
    const float *lse;
    const float *dp;
    long bf16;
    long keys;
    long queries;
    long group;
    long first;
    long window;
    long all_queries;
    long first_query;
    float scale;
} SoftmaxBackward;

// Backward of softmax_forward: the probabilities again, and the gradient of the scores from that of the
// probabilities; both rounded.
KERNEL(softmax_backward, SoftmaxBackward) {
    long query = BLOCK % a.queries, seen = a.first + query / a.group + 1, at = BLOCK * a.keys;
    long unseen = seen > a.window ? seen - a.window : 0;
    float lse = a.lse[BLOCK / a.queries * a.all_queries + a.first_query + query], delta = 0;
    FOURS(i, seen) {
        Four x = load4(a.scores, at, i, a.keys, 0), dp = load4(a.dp, at, i, a.keys, 0);
        LANES(j) if (SEEN(i + j)) delta += expf(x.at[j] * a.scale - lse) * dp.at[j];
    }
    delta = block_sum(delta);
    FOURS(i, a.keys) {
        Four x = load4(a.scores, at, i, a.keys, 0), dp = load4(a.dp, at, i, a.keys, 0);
        LANES(j) {
            float p = SEEN(i + j) ? expf(x.at[j] * a.scale - lse) : 0;
            x.at[j] = p;
            dp.at[j] = p == 0 ? 0 : p * (dp.at[j] - delta) * a.scale;
        }
        store4(a.p, at, i, a.keys, x, a.bf16);
        store4(a.d_scores, at, i, a.keys, dp, a.bf16);
    }
}

// What an activation multiplies `x` by, a logistic function: of `x` itself in SiLU; in GELU, by `gelu`, of `2u`, where it
// is `0.5 (1 + tanh u)`. `slope` is the derivative of what it is the function of.
DEVICE float gate_of(float x, long gelu, float *slope) {
    const float c = 2 * 0.7978845608f, a = 0.044715f;
    float of = gelu ? c * x * (1 + a * x * x) : x;
    *slope = gelu ? c * (1 + 3 * a * x * x) : 1;
    return 1 / (1 + expf(-of));
}

typedef struct {
    void *y;
    const void *x;
    long bf16;
    long f;
} GeluForward;

// GELU of a row of `x [M, F]`; both rounded.
KERNEL(gelu_forward, GeluForward) {
    long f = a.f, at = BLOCK * f;
    float slope;
    FOURS(i, f) {
        Four x = load4(a.x, at, i, f, a.bf16);
        LANES(j) x.at[j] *= gate_of(x.at[j], 1, &slope);
        store4(a.y, at, i, f, x, a.bf16);
    }
}

typedef struct {
    void *dx;
    void *y;
    const void *dy;
    const void *x;
    long bf16;
    long f;
} GeluBackward;

// Backward of gelu_forward: `dy` times the derivative at `x`, and the output again; all rounded.
KERNEL(gelu_backward, GeluBackward) {
    long f = a.f, at = BLOCK * f;
    FOURS(i, f) {
        Four dy = load4(a.dy, at, i, f, a.bf16), x = load4(a.x, at, i, f, a.bf16);
        LANES(j) {
            float slope, s = gate_of(x.at[j], 1, &slope);
            dy.at[j] *= s + x.at[j] * s * (1 - s) * slope;
            x.at[j] *= s;
        }
        store4(a.dx, at, i, f, dy, a.bf16);
        store4(a.y, at, i, f, x, a.bf16);
    }
}

typedef struct {
    void *y;
    const void *x;
    long bf16;
    long f;
    long gelu;
} GluForward;

// `act(gate) · up` of a row of `x [M, 2 F]`, the gate first; both rounded. The activation is GELU by `gelu`, else SiLU.
KERNEL(glu_forward, GluForward) {
    long f = a.f, at = BLOCK * f;
    float slope;
    FOURS(i, f) {
        Four gate = load4(a.x, 2 * at, i, f, a.bf16), up = load4(a.x, 2 * at + f, i, f, a.bf16);
        LANES(j) up.at[j] *= gate.at[j] * gate_of(gate.at[j], a.gelu, &slope);
        store4(a.y, at, i, f, up, a.bf16);
    }
}

typedef struct {
    void *dx;
    void *y;
    const void *dy;
    const void *x;
    long bf16;
    long f;
    long gelu;
} GluBackward;

// Backward of glu_forward: the gradient of `x [M, 2 F]` from `dy [M, F]`, and the output again; all rounded.
KERNEL(glu_backward, GluBackward) {
    long f = a.f, at = BLOCK * f;
    FOURS(i, f) {
        Four gate = load4(a.x, 2 * at, i, f, a.bf16), up = load4(a.x, 2 * at + f, i, f, a.bf16);
        Four dy = load4(a.dy, at, i, f, a.bf16), y;
        LANES(j) {
            float slope, s = gate_of(gate.at[j], a.gelu, &slope), act = gate.at[j] * s, d = dy.at[j];
            y.at[j] = act * up.at[j];
            gate.at[j] = d * up.at[j] * (s + act * (1 - s) * slope);
            up.at[j] = d * act;
        }
        store4(a.dx, 2 * at, i, f, gate, a.bf16);
        store4(a.dx, 2 * at + f, i, f, up, a.bf16);
        store4(a.y, at, i, f, y, a.bf16);
    }
}

typedef struct {
    float *losses;
    void *logits;
    const void *reference;
    const unsigned int *targets;
    const float *ntp_weights;
    const float *kl_weights;
    long bf16;
    long v;
} Score;

// Losses `[M, 3]` of a position from its `logits [M, V]` and those of the reference, if there is one, all rounded:
// cross entropy, KL, whether the target is the first of the largest. With weights, the gradient of the logits takes
// their place.
KERNEL(score, Score) {
    long bf16 = a.bf16, v = a.v, at = BLOCK * v, target = a.targets[BLOCK];
    float goal = load(a.logits, at + target, bf16), beaten = 0, gap = 0;
    Exponentials e = {LOWEST, 0}, ref = {LOWEST, 0};
    FOURS(i, v) {
        Four x = load4(a.logits, at, i, v, bf16), y;
        float max = e.max;
        LANES(j) if (i + j < v) {
            max = fmaxf(max, x.at[j]);
            beaten += !(i + j < target ? x.at[j] < goal : x.at[j] <= goal);
        }
        rise(&e, max);
        LANES(j) if (i + j < v) e.sum += expf(x.at[j] - max);
        if (!a.reference) continue;
        y = load4(a.reference, at, i, v, bf16);
        max = ref.max;
        LANES(j) if (i + j < v) max = fmaxf(max, y.at[j]);
        gap *= rise(&ref, max);
        LANES(j) if (i + j < v) {
            float p = expf(y.at[j] - max);
            ref.sum += p;
            gap += p * (y.at[j] - x.at[j]);
        }
    }
    float lse = log_sum_exp(e, 0), ref_lse = 0, kl = 0;
    if (a.reference) {
        float share;
        ref_lse = log_sum_exp(ref, &share);
        kl = block_sum(gap * share) - (ref_lse - lse);
    }
    beaten = block_sum(beaten);
    if (THREAD == 0) {
        float *losses = a.losses + 3 * BLOCK;
        losses[0] = lse - goal;
        losses[1] = kl;
        losses[2] = beaten == 0;
    }
    if (!a.ntp_weights) return;
    float ntp_weight = a.ntp_weights[BLOCK], kl_weight = a.kl_weights[BLOCK];
    FOURS(i, v) {
        Four x = load4(a.logits, at, i, v, bf16), y = same(0);
        if (a.reference) y = load4(a.reference, at, i, v, bf16);
        LANES(j) {
            float g = (ntp_weight + kl_weight) * expf(x.at[j] - lse);
            if (a.reference) g -= kl_weight * expf(y.at[j] - ref_lse);
            x.at[j] = i + j == target ? g - ntp_weight : g;
        }
        store4(a.logits, at, i, v, x, bf16);
    }
}

typedef struct {
    float *grad;
    float *sums;
    const unsigned int *to;
    const unsigned int *starts;
    const unsigned int *order;
    const float *dh;
    long d;
    long v;
    float scale;
} EmbedBackward;

// Sums the rows of `dh` with the numbers `order[starts[BLOCK]..starts[BLOCK + 1]]`, of one token, times `scale`. The
// sum is added to row `to[BLOCK]` of an embedding's gradient `[V, D]`; from V on, it is set as row `to[BLOCK] − V` of
// `sums`.
KERNEL(embed_backward, EmbedBackward) {
    long d = a.d, to = a.to[BLOCK], adds = to < a.v;
    float *out = adds ? a.grad : a.sums;
    long at = (adds ? to : to - a.v) * d;
    FOURS(i, d) {
        Four sum = adds ? load4(out, at, i, d, 0) : same(0);
        for (long j = a.starts[BLOCK]; j < a.starts[BLOCK + 1]; j++) {
            Four dh = load4(a.dh, a.order[j] * d, i, d, 0);
            LANES(l) sum.at[l] += a.scale * dh.at[l];
        }
        store4(out, at, i, d, sum, 0);
    }
}

typedef struct {
    float *x;
    const float *y;
    long len;
    long stretch;
} Multiply;

// Multiplies a stretch of the `len` numbers `x` by `y`, in place.
KERNEL(multiply, Multiply) {
    long at = BLOCK * a.stretch, n = a.len - at < a.stretch ? a.len - at : a.stretch;
    FOURS(i, n) {
        Four x = load4(a.x, at, i, n, 0), y = load4(a.y, at, i, n, 0);
        LANES(j) x.at[j] *= y.at[j];
        store4(a.x, at, i, n, x, 0);
    }
}

typedef struct {
    void *y;
    const float *x;
    long len;
    long stretch;
    long bf16;
} RoundTo;

// Rounds a stretch of the `len` numbers `x`.
KERNEL(round_to, RoundTo) {
    long at = BLOCK * a.stretch, n = a.len - at < a.stretch ? a.len - at : a.stretch;
    FOURS(i, n) store4(a.y, at, i, n, load4(a.x, at, i, n, 0), a.bf16);
}

typedef struct {
    float *w;
    float *m;
    float *v;
    float *squares;
    unsigned short *rounded;
    const float *old_w;
    const float *old_m;
    const float *old_v;
    const float *grad;
    long len;
    long stretch;
    float beta1;
    float rest1;
    float beta2;
    float rest2;
    float correct1;
    float correct2;
    float eps;
    float lr;
    float weight_decay;
} AdamW;

// AdamW on a stretch of `len` elements: new weights and moments (in bf16 also the rounded weights) from the old
// ones and a gradient, and the sum of the squared gradients.
KERNEL(adamw, AdamW) {
    long at = BLOCK * a.stretch, n = a.len - at < a.stretch ? a.len - at : a.stretch;
    float squares = 0;
    FOURS(i, n) {
        Four w = load4(a.old_w, at, i, n, 0), m = load4(a.old_m, at, i, n, 0);
        Four v = load4(a.old_v, at, i, n, 0), grad = load4(a.grad, at, i, n, 0);
        LANES(j) {
            float g = grad.at[j];
            m.at[j] = a.beta1 * m.at[j] + a.rest1 * g;
            v.at[j] = a.beta2 * v.at[j] + a.rest2 * g * g;
            float direction = m.at[j] * a.correct1 / (sqrtf(v.at[j]) * a.correct2 + a.eps);
            w.at[j] -= a.lr * (a.weight_decay * w.at[j] + direction);
            squares += g * g;
        }
        store4(a.w, at, i, n, w, 0);
        store4(a.m, at, i, n, m, 0);
        store4(a.v, at, i, n, v, 0);
        if (a.rounded) store4(a.rounded, at, i, n, w, 1);
    }
    squares = block_sum(squares);
    if (THREAD == 0) a.squares[BLOCK] = squares;
}

// Bits that sort as the numbers do, and the reverse.
DEVICE unsigned int ascending(float x) {
    Bits bits;
    bits.f = x;
    return bits.u ^ (bits.u >> 31 ? 0xffffffffu : 0x80000000u);
}

DEVICE float of_ascending(unsigned int key) { return of_bits(key ^ (key >> 31 ? 0x80000000u : 0xffffffffu)); }

// The most likely tokens of a row: those above a key, and the first `equals` of those at it.
typedef struct {
    unsigned int key;
    long equals;
} Likely;

// A row's logits over the temperature.
typedef struct {
    const float *x;
    long v;
    float max;
    float inv_temperature;
} Row;

DEVICE float probability(Row row, float x) { return expf((x - row.max) * row.inv_temperature); }

// In parts of 2⁻⁴⁰, so that sums are the same in every order.
DEVICE Whole parts(Row row, float x) {
    float p = probability(row, x) * 1099511627776.0f;
    return p > 0 ? (Whole)p : 0;
}

// What a token counts in a sum: 1, or its probability.
DEVICE Whole weight(Row row, unsigned int key, long counts) { return counts ? 1 : parts(row, of_ascending(key)); }

// The fewest of the most likely tokens, `among` some, whose weights reach `enough`; by eight bits of their keys at a
// time.
DEVICE Likely fewest(Row row, Likely among, long counts, Whole enough) {
    SHARED Whole of_bin[256];
    unsigned int prefix = 0;
    for (int shift = 24; shift >= 0; shift -= 8) {
        SYNC();
        EACH(i, 256) of_bin[i] = 0;
        SYNC();
        EACH(i, row.v) {
            unsigned int key = ascending(row.x[i]);
            if (key > among.key && (shift == 24 || key >> (shift + 8) == prefix))
                ADD(&of_bin[key >> shift & 255], weight(row, key, counts));
        }
        if (THREAD == 0 && (shift == 24 || among.key >> (shift + 8) == prefix))
            ADD(&of_bin[among.key >> shift & 255], (Whole)among.equals * weight(row, among.key, counts));
        SYNC();
        unsigned int bin = 255;
        while (bin > 0 && of_bin[bin] < enough) enough -= of_bin[bin--];
        prefix = prefix << 8 | bin;
    }
    Whole each = weight(row, prefix, counts);
    Likely likely = {prefix, each > 0 ? (long)((enough + each - 1) / each) : 1};
    return likely;
}

typedef struct {
    unsigned int *tokens;
    const float *logits;
    const float *uniforms;
    long v;
    long top_k;
    float top_p;
    float inv_temperature;
} Choose;

// Chooses a token for a row of `logits [B, V]` where there is none yet: with `uniforms [B]` by the inverse of the
// cumulative distribution of the logits over the temperature, and never a token of probability 0; without, the
// first of the largest. With `top_k` > 0, among so many of the most likely; with `top_p` > 0, of those among the
// fewest whose probabilities reach that share.
KERNEL(choose, Choose) {
    SHARED float of[MAX_THREADS];
    SHARED long at[MAX_THREADS];
    long v = a.v, each = (v + THREADS - 1) / THREADS;
    long begin = THREAD * each, end = begin + each < v ? begin + each : v;
    const float *x = a.logits + BLOCK * v;
    float max = -INFINITY, sum = 0;
    if (a.tokens[BLOCK] != UNCHOSEN) return;
    at[THREAD] = begin < v ? begin : 0;
    for (long i = begin; i < end; i++) {
        if (x[i] > max) at[THREAD] = i;
        max = fmaxf(max, x[i]);
    }
    of[THREAD] = max;
    max = block_max(max);
    if (!a.uniforms) {
        if (THREAD != 0) return;
        long token = 0;
        for (long t = THREADS - 1; t >= 0; t--)
            if (of[t] == max) token = at[t];
        a.tokens[BLOCK] = (unsigned int)token;
        return;
    }
    Row row = {x, v, max, a.inv_temperature};
    Likely likely = {0, v};
    if (a.top_k > 0 && a.top_k < v) likely = fewest(row, likely, 1, (Whole)a.top_k);
    if (a.top_p > 0) {
        SHARED Whole all;
        SYNC();
        if (THREAD == 0) all = (Whole)likely.equals * parts(row, of_ascending(likely.key));
        SYNC();
        Whole own = 0;
        EACH(i, v) if (ascending(x[i]) > likely.key) own += parts(row, x[i]);
        ADD(&all, own);
        SYNC();
        Whole enough = (Whole)(a.top_p * (float)all);
        likely = fewest(row, likely, 0, enough > 0 ? enough < all ? enough : all : 1);
    }
    // Tokens at the key before a thread's own.
    long equals = 0;
    if (likely.equals < v)
        for (long i = begin; i < end; i++) equals += ascending(x[i]) == likely.key;
    SYNC();
    at[THREAD] = equals;
    SYNC();
    equals = 0;
    for (long t = 0; t < THREAD; t++) equals += at[t];
    long first = equals;
    for (long i = begin; i < end; i++) {
        unsigned int key = ascending(x[i]);
        if (key > likely.key || (key == likely.key && equals++ < likely.equals)) sum += probability(row, x[i]);
    }
    SYNC();
    of[THREAD] = sum;
    at[THREAD] = first;
    SYNC();
    if (THREAD != 0) return;
    float total = 0;
    for (long t = 0; t < THREADS; t++) total += of[t];
    float left = a.uniforms[BLOCK] * total;
    long t = 0, token = -1;
    while (t < THREADS - 1 && left >= of[t]) left -= of[t++];
    equals = at[t];
    for (long i = t * each; i < v; i++) {
        unsigned int key = ascending(x[i]);
        if (key < likely.key || (key == likely.key && equals++ >= likely.equals)) continue;
        float p = probability(row, x[i]);
        if (p > 0) token = i;
        if (p > 0 && left < p) break;
        left -= p;
    }
    // After rounding, no token may be left: then the last one of the thread with a probability before is chosen.
    while (token < 0 && t > 0) {
        if (of[--t] == 0) continue;
        equals = at[t];
        for (long i = t * each; i < v && i < (t + 1) * each; i++) {
            unsigned int key = ascending(x[i]);
            if (key < likely.key || (key == likely.key && equals++ >= likely.equals)) continue;
            if (probability(row, x[i]) > 0) token = i;
        }
    }
    a.tokens[BLOCK] = token < 0 ? 0 : (unsigned int)token;
}
