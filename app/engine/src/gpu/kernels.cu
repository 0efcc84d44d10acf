// Kernels of the GPU's engine. Each takes a struct of its own; in most of them a block computes one row.
//
// Plain C except for the macros below, so that tests can compile it for the CPU, with fibers in place of a
// block's threads. Numbers are `float`; those behind `void *` are called rounded, and are bf16 if `bf16` is set. All
// arithmetic is f32. Outputs are not const. `arguments.rs` has the same structs, field by field.

#ifdef __CUDACC__
#define KERNEL(name, Arguments) extern "C" __global__ void name(Arguments a)
#define DEVICE static __device__ __forceinline__
#define SHARED __shared__
#define THREAD ((long)threadIdx.x)
#define THREADS ((long)blockDim.x)
#define BLOCK ((long)blockIdx.x)
#define SYNC() __syncthreads()
#endif

#define MAX_THREADS 256
#define EACH(i, n) for (long i = THREAD; i < (n); i += THREADS)

typedef union {
    float f;
    unsigned int u;
} Bits;

DEVICE float load(const void *p, long i, long bf16) {
    if (!bf16) return ((const float *)p)[i];
    Bits bits;
    bits.u = (unsigned int)((const unsigned short *)p)[i] << 16;
    return bits.f;
}

// Rounds to the nearest bf16, ties to even.
DEVICE void store(void *p, long i, float x, long bf16) {
    if (!bf16) {
        ((float *)p)[i] = x;
        return;
    }
    Bits bits;
    bits.f = x;
    unsigned int rounded = (bits.u + 0x7fffu + ((bits.u >> 16) & 1u)) >> 16;
    ((unsigned short *)p)[i] = x != x ? 0x7fc0u : (unsigned short)rounded;
}

// Sum over the threads of a block, returned to all of them. The number of threads is a power of two.
DEVICE float block_sum(float x) {
    SHARED float s[MAX_THREADS];
    SYNC();
    s[THREAD] = x;
    SYNC();
    for (long half = THREADS / 2; half > 0; half /= 2) {
        if (THREAD < half) s[THREAD] += s[THREAD + half];
        SYNC();
    }
    return s[0];
}

DEVICE float block_max(float x) {
    SHARED float s[MAX_THREADS];
    SYNC();
    s[THREAD] = x;
    SYNC();
    for (long half = THREADS / 2; half > 0; half /= 2) {
        if (THREAD < half) s[THREAD] = fmaxf(s[THREAD], s[THREAD + half]);
        SYNC();
    }
    return s[0];
}

// log Σ e^x over a row.
DEVICE float log_sum_exp(const float *x, long n) {
    float max = -INFINITY, sum = 0;
    EACH(i, n) max = fmaxf(max, x[i]);
    max = block_max(max);
    EACH(i, n) sum += expf(x[i] - max);
    return max + logf(block_sum(sum));
}

typedef struct {
    void *y;
    float *inv_rms;
    const float *x;
    long d;
    long bf16;
    float eps;
} NormForward;

// RMSNorm of a row of `x [M, D]` before its gain: `y [M, D]`, rounded, and `1/rms [M]`.
KERNEL(norm_forward, NormForward) {
    void *y = a.y;
    float *inv_rms = a.inv_rms;
    long d = a.d, bf16 = a.bf16;
    const float *x = a.x + BLOCK * d;
    float squares = 0;
    EACH(i, d) squares += x[i] * x[i];
    float r = 1 / sqrtf(block_sum(squares) / d + a.eps);
    EACH(i, d) store(y, BLOCK * d + i, x[i] * r, bf16);
    if (THREAD == 0) inv_rms[BLOCK] = r;
}

typedef struct {
    float *dx;
    const float *dh;
    const float *dy;
    const void *y;
    const float *inv_rms;
    const void *gain;
    long d;
    long bf16;
} NormBackward;

// `dx = dh + inv_rms · (g − y · mean(g · y))` with `g = gain · dy`; a missing `dh` counts as 0, a missing gain
// as 1. `y` and the gain are rounded.
KERNEL(norm_backward, NormBackward) {
    float *dx = a.dx;
    const float *dh = a.dh, *dy = a.dy;
    const void *y = a.y, *gain = a.gain;
    float r = a.inv_rms[BLOCK];
    long d = a.d, bf16 = a.bf16, at = BLOCK * d;
    float mean = 0;
    EACH(i, d) mean += (gain ? load(gain, i, bf16) : 1) * dy[at + i] * load(y, at + i, bf16);
    mean = block_sum(mean) / d;
    EACH(i, d) {
        float g = (gain ? load(gain, i, bf16) : 1) * dy[at + i];
        g = r * (g - load(y, at + i, bf16) * mean);
        dx[at + i] = dh ? dh[at + i] + g : g;
    }
}

typedef struct {
    void *gained;
    const void *y;
    const void *gain;
    long d;
    long bf16;
} GainForward;

// A row of `y [M, D]` times `gain [D]`; all rounded.
KERNEL(gain_forward, GainForward) {
    long d = a.d, bf16 = a.bf16, at = BLOCK * d;
    EACH(i, d) store(a.gained, at + i, load(a.y, at + i, bf16) * load(a.gain, i, bf16), bf16);
}

typedef struct {
    float *sums;
    const float *dy;
    const void *y;
    long d;
    long bf16;
    long rows;
    long rows_of_block;
} GainBackward;

// Gradient of a gain from that of its product with `y [M, D]`: each block sums `rows_of_block` of the rows.
KERNEL(gain_backward, GainBackward) {
    const float *dy = a.dy;
    long d = a.d, bf16 = a.bf16, begin = BLOCK * a.rows_of_block;
    long end = begin + a.rows_of_block < a.rows ? begin + a.rows_of_block : a.rows;
    EACH(i, d) {
        float sum = 0;
        for (long m = begin; m < end; m++) sum += dy[m * d + i] * load(a.y, m * d + i, bf16);
        a.sums[BLOCK * d + i] = sum;
    }
}

// One head of one position of `qkv [M, (N + 2 K) H]`.
typedef struct {
    long m, head, part; // position; head among all; 0 for q, 1 for k, 2 for v
    long at;            // its first number in `q [B, K, T G, H]`, or in `k`, `v [B, K, T, H]`
} Head;

// Of N query heads, K heads of keys, sequences of T and heads of H; a group's `G = N / K` queries are contiguous.
DEVICE Head head_of_block(long n_heads, long kv_heads, long seq_len, long head_dim) {
    long all = n_heads + 2 * kv_heads;
    Head h;
    h.m = BLOCK / all, h.head = BLOCK % all;
    h.part = h.head < n_heads ? 0 : h.head < n_heads + kv_heads ? 1 : 2;
    long group = h.part == 0 ? n_heads / kv_heads : 1;
    long n = h.part == 0 ? h.head : (h.head - n_heads) % kv_heads;
    long row = (h.m / seq_len * kv_heads + n / group) * seq_len + h.m % seq_len;
    h.at = (row * group + n % group) * head_dim;
    return h;
}

typedef struct {
    void *q;
    void *k;
    void *v;
    float *inv_rms;
    const float *qkv;
    const float *cos;
    const float *sin;
    long n_heads;
    long kv_heads;
    long seq_len;
    long head_dim;
    long bf16;
    long first;
    long qk_norm;
    float eps;
} QkvForward;

// Copies one head of `qkv [M, (N + 2 K) H]` to q, k or v, rounded. q and k are normalised if `qk_norm` is set
// (QK-norm, keeping `1/rms [M, N + K]`) and rotated; sequences begin at position `first`.
KERNEL(qkv_forward, QkvForward) {
    long bf16 = a.bf16, h = a.head_dim, half = h / 2;
    Head to = head_of_block(a.n_heads, a.kv_heads, a.seq_len, h);
    void *out = to.part == 0 ? a.q : to.part == 1 ? a.k : a.v;
    const float *x = a.qkv + BLOCK * h;
    if (to.part == 2) {
        EACH(i, h) store(out, to.at + i, x[i], bf16);
        return;
    }
    const float *cos = a.cos + (a.first + to.m % a.seq_len) * half;
    const float *sin = a.sin + (a.first + to.m % a.seq_len) * half;
    float r = 1, squares = 0;
    if (a.qk_norm) {
        EACH(i, h) squares += x[i] * x[i];
        r = 1 / sqrtf(block_sum(squares) / h + a.eps);
        if (THREAD == 0) a.inv_rms[to.m * (a.n_heads + a.kv_heads) + to.head] = r;
    }
    EACH(i, half) {
        float u = x[i] * r, v = x[half + i] * r;
        store(out, to.at + i, u * cos[i] - v * sin[i], bf16);
        store(out, to.at + half + i, v * cos[i] + u * sin[i], bf16);
    }
}

typedef struct {
    void *d_qkv;
    const float *dq;
    const float *dk;
    const float *dv;
    const void *q;
    const void *k;
    const float *inv_rms;
    const float *cos;
    const float *sin;
    long n_heads;
    long kv_heads;
    long seq_len;
    long head_dim;
    long bf16;
    long qk_norm;
} QkvBackward;

// Backward of qkv_forward: the gradient of one head of `qkv [M, (N + 2 K) H]`, rounded, from those of q, k and
// v. The rotation commutes with the norm's Jacobian, which is applied first.
KERNEL(qkv_backward, QkvBackward) {
    long bf16 = a.bf16, h = a.head_dim, half = h / 2;
    Head of = head_of_block(a.n_heads, a.kv_heads, a.seq_len, h);
    const float *dy = (of.part == 0 ? a.dq : of.part == 1 ? a.dk : a.dv) + of.at;
    if (of.part == 2) {
        EACH(i, h) store(a.d_qkv, BLOCK * h + i, dy[i], bf16);
        return;
    }
    const void *y = of.part == 0 ? a.q : a.k;
    const float *cos = a.cos + of.m % a.seq_len * half;
    const float *sin = a.sin + of.m % a.seq_len * half;
    float r = 1, mean = 0;
    if (a.qk_norm) {
        r = a.inv_rms[of.m * (a.n_heads + a.kv_heads) + of.head];
        EACH(i, h) mean += dy[i] * load(y, of.at + i, bf16);
        mean = block_sum(mean) / h;
    }
    EACH(i, half) {
        float u = r * (dy[i] - load(y, of.at + i, bf16) * mean);
        float v = r * (dy[half + i] - load(y, of.at + half + i, bf16) * mean);
        store(a.d_qkv, BLOCK * h + i, u * cos[i] + v * sin[i], bf16);
        store(a.d_qkv, BLOCK * h + half + i, v * cos[i] - u * sin[i], bf16);
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
    float scale;
} SoftmaxForward;

// Causal softmax of a row of `scores [.., T G, S]` times `scale`: probabilities, rounded, and the log-sum-exp.
// The G queries at position t see keys up to `first + t`.
KERNEL(softmax_forward, SoftmaxForward) {
    long bf16 = a.bf16, keys = a.keys, seen = a.first + BLOCK % a.queries / a.group + 1;
    const float *x = a.scores + BLOCK * keys;
    float scale = a.scale, max = -INFINITY, sum = 0;
    EACH(i, seen) max = fmaxf(max, x[i] * scale);
    max = block_max(max);
    EACH(i, seen) sum += expf(x[i] * scale - max);
    sum = block_sum(sum);
    EACH(i, keys) store(a.p, BLOCK * keys + i, i < seen ? expf(x[i] * scale - max) / sum : 0, bf16);
    if (THREAD == 0) a.lse[BLOCK] = max + logf(sum);
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
    float scale;
} SoftmaxBackward;

// Backward of softmax_forward: the probabilities again, and the gradient of the scores from that of the
// probabilities; both rounded.
KERNEL(softmax_backward, SoftmaxBackward) {
    long bf16 = a.bf16, keys = a.keys, seen = a.first + BLOCK % a.queries / a.group + 1;
    long at = BLOCK * keys;
    const float *x = a.scores + at, *dp = a.dp + at;
    float lse = a.lse[BLOCK], scale = a.scale, delta = 0;
    EACH(i, seen) delta += expf(x[i] * scale - lse) * dp[i];
    delta = block_sum(delta);
    EACH(i, keys) {
        float p = i < seen ? expf(x[i] * scale - lse) : 0;
        store(a.p, at + i, p, bf16);
        store(a.d_scores, at + i, p == 0 ? 0 : p * (dp[i] - delta) * scale, bf16);
    }
}

// `0.5 (1 + tanh u)`, which is the logistic function of `2u`, and `du/dx`.
DEVICE float gelu_gate(float x, float *du) {
    const float c = 0.7978845608f, a = 0.044715f;
    *du = c * (1 + 3 * a * x * x);
    return 1 / (1 + expf(-2 * c * x * (1 + a * x * x)));
}

typedef struct {
    void *y;
    const float *x;
    long bf16;
    long f;
} GeluForward;

// GELU of a row of `x [M, F]`, rounded.
KERNEL(gelu_forward, GeluForward) {
    const float *x = a.x + BLOCK * a.f;
    float du;
    EACH(i, a.f) store(a.y, BLOCK * a.f + i, x[i] * gelu_gate(x[i], &du), a.bf16);
}

typedef struct {
    void *dx;
    void *y;
    const float *dy;
    const float *x;
    long bf16;
    long f;
} GeluBackward;

// Backward of gelu_forward: `dy` times the derivative at `x`, and the output again; both rounded.
KERNEL(gelu_backward, GeluBackward) {
    const float *dy = a.dy, *x = a.x;
    EACH(j, a.f) {
        long i = BLOCK * a.f + j;
        float du, s = gelu_gate(x[i], &du), slope = s + 2 * x[i] * s * (1 - s) * du;
        store(a.dx, i, dy[i] * slope, a.bf16);
        store(a.y, i, x[i] * s, a.bf16);
    }
}

typedef struct {
    void *y;
    const float *x;
    long bf16;
    long f;
} SwigluForward;

// `silu(gate) · up` of a row of `x [M, 2 F]`, the gate first; rounded.
KERNEL(swiglu_forward, SwigluForward) {
    const float *gate = a.x + BLOCK * 2 * a.f, *up = gate + a.f;
    EACH(i, a.f) store(a.y, BLOCK * a.f + i, gate[i] / (1 + expf(-gate[i])) * up[i], a.bf16);
}

typedef struct {
    void *dx;
    void *y;
    const float *dy;
    const float *x;
    long bf16;
    long f;
} SwigluBackward;

// Backward of swiglu_forward: the gradient of `x [M, 2 F]` from `dy [M, F]`, and the output again; both rounded.
KERNEL(swiglu_backward, SwigluBackward) {
    long f = a.f, at = BLOCK * 2 * f;
    const float *dy = a.dy + BLOCK * f, *gate = a.x + at, *up = gate + f;
    EACH(i, f) {
        float s = 1 / (1 + expf(-gate[i])), silu = gate[i] * s;
        store(a.dx, at + i, dy[i] * up[i] * (s + silu * (1 - s)), a.bf16);
        store(a.dx, at + f + i, dy[i] * silu, a.bf16);
        store(a.y, BLOCK * f + i, silu * up[i], a.bf16);
    }
}

typedef struct {
    float *losses;
    void *d_logits;
    const float *logits;
    const float *reference;
    const unsigned int *targets;
    const float *ntp_weights;
    const float *kl_weights;
    long bf16;
    long v;
} Score;

// Losses `[M, 3]` of a position from its `logits [M, V]` and those of the reference, if there is one: cross
// entropy, KL, whether the target is the first of the largest. With weights, also the gradient of the logits,
// rounded.
KERNEL(score, Score) {
    long bf16 = a.bf16, v = a.v, at = BLOCK * v;
    float *losses = a.losses + 3 * BLOCK;
    void *d_logits = a.d_logits;
    const float *x = a.logits + at, *ref = a.reference;
    long target = a.targets[BLOCK];
    float lse = log_sum_exp(x, v), ref_lse = 0, kl = 0, beaten = 0;
    if (ref) {
        ref += at;
        ref_lse = log_sum_exp(ref, v);
        EACH(i, v) kl += expf(ref[i] - ref_lse) * ((ref[i] - ref_lse) - (x[i] - lse));
        kl = block_sum(kl);
    }
    EACH(i, v) beaten += !(i < target ? x[i] < x[target] : x[i] <= x[target]);
    beaten = block_sum(beaten);
    if (THREAD == 0) {
        losses[0] = lse - x[target];
        losses[1] = kl;
        losses[2] = beaten == 0;
    }
    if (!d_logits) return;
    float ntp_weight = a.ntp_weights[BLOCK], kl_weight = a.kl_weights[BLOCK];
    EACH(i, v) {
        float g = (ntp_weight + kl_weight) * expf(x[i] - lse);
        if (ref) g -= kl_weight * expf(ref[i] - ref_lse);
        store(d_logits, at + i, i == target ? g - ntp_weight : g, bf16);
    }
}

typedef struct {
    float *grad;
    const unsigned int *tokens;
    const unsigned int *starts;
    const unsigned int *order;
    const float *dh;
    long d;
} EmbedBackward;

// Adds to the row of token `tokens[BLOCK]` in an embedding's gradient `[V, D]`, in place, the rows of `dh` with
// the numbers `order[starts[BLOCK]..starts[BLOCK + 1]]`.
KERNEL(embed_backward, EmbedBackward) {
    const unsigned int *tokens = a.tokens, *starts = a.starts;
    const unsigned int *order = a.order;
    const float *dh = a.dh;
    long d = a.d;
    float *grad = a.grad + tokens[BLOCK] * d;
    EACH(i, d) {
        float sum = grad[i];
        for (unsigned int j = starts[BLOCK]; j < starts[BLOCK + 1]; j++) sum += dh[order[j] * d + i];
        grad[i] = sum;
    }
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
    const float *w = a.old_w, *m = a.old_m, *v = a.old_v;
    const float *g = a.grad;
    long begin = BLOCK * a.stretch, len = a.len - begin < a.stretch ? a.len - begin : a.stretch;
    float squares = 0;
    EACH(j, len) {
        long i = begin + j;
        float m_new = a.beta1 * m[i] + a.rest1 * g[i], v_new = a.beta2 * v[i] + a.rest2 * g[i] * g[i];
        float direction = m_new * a.correct1 / (sqrtf(v_new) * a.correct2 + a.eps);
        float w_new = w[i] - a.lr * (a.weight_decay * w[i] + direction);
        a.w[i] = w_new;
        a.m[i] = m_new;
        a.v[i] = v_new;
        if (a.rounded) store(a.rounded, i, w_new, 1);
        squares += g[i] * g[i];
    }
    squares = block_sum(squares);
    if (THREAD == 0) a.squares[BLOCK] = squares;
}

typedef struct {
    unsigned int *tokens;
    const float *logits;
    const float *uniforms;
    long v;
    float inv_temperature;
} Choose;

// Chooses a token for a row of `logits [B, V]`: with `uniforms [B]` by the inverse of the cumulative distribution
// of the logits over the temperature, and never a token of probability 0; without, the first of the largest.
KERNEL(choose, Choose) {
    SHARED float of[MAX_THREADS];
    SHARED long best[MAX_THREADS];
    long v = a.v, each = (v + THREADS - 1) / THREADS;
    long begin = THREAD * each, end = begin + each < v ? begin + each : v;
    const float *x = a.logits + BLOCK * v, *uniforms = a.uniforms;
    float max = -INFINITY, sum = 0;
    best[THREAD] = begin < v ? begin : 0;
    for (long i = begin; i < end; i++) {
        if (x[i] > max) best[THREAD] = i;
        max = fmaxf(max, x[i]);
    }
    of[THREAD] = max;
    max = block_max(max);
    if (uniforms) {
        for (long i = begin; i < end; i++) sum += expf((x[i] - max) * a.inv_temperature);
        of[THREAD] = sum;
    }
    SYNC();
    if (THREAD != 0) return;
    long token = -1;
    if (!uniforms) {
        for (long t = THREADS - 1; t >= 0; t--)
            if (of[t] == max) token = best[t];
    } else {
        float total = 0;
        for (long t = 0; t < THREADS; t++) total += of[t];
        float left = uniforms[BLOCK] * total;
        long t = 0;
        while (t < THREADS - 1 && left >= of[t]) left -= of[t++];
        for (long i = t * each; i < v; i++) {
            float p = expf((x[i] - max) * a.inv_temperature);
            if (p > 0) token = i;
            if (p > 0 && left < p) break;
            left -= p;
        }
        // After rounding, no token may be left: then the last one with a probability is chosen.
        for (long i = v - 1; token < 0 && i > 0; i--)
            if (expf((x[i] - max) * a.inv_temperature) > 0) token = i;
    }
    a.tokens[BLOCK] = token < 0 ? 0 : (unsigned int)token;
}
