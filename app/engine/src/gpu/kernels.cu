// Kernels of the GPU's engine. All take the same struct; in most of them a block computes one row.
//
// Plain C except for the macros below, so that tests can compile it for the CPU, with fibers in place of a
// block's threads. Tensors are f32; if `bf16` is set, those called "rounded" are bf16. All arithmetic is f32.
// Pointers are to the outputs first, then to the inputs.

#ifdef __CUDACC__
#define KERNEL extern "C" __global__ void
#define DEVICE static __device__ __forceinline__
#define SHARED __shared__
#define THREAD ((long)threadIdx.x)
#define THREADS ((long)blockDim.x)
#define BLOCK ((long)blockIdx.x)
#define SYNC() __syncthreads()
#endif

#define MAX_THREADS 256
#define EACH(i, n) for (long i = THREAD; i < (n); i += THREADS)

typedef struct {
    void *p[10];
    long n[7];
    float x[10];
} Args;

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

// RMSNorm of a row of `x [M, D]` before its gain: `y [M, D]`, rounded, and `1/rms [M]`.
KERNEL norm_forward(Args a) {
    void *y = a.p[0];
    float *inv_rms = (float *)a.p[1];
    long d = a.n[0], bf16 = a.n[1];
    const float *x = (const float *)a.p[2] + BLOCK * d;
    float squares = 0;
    EACH(i, d) squares += x[i] * x[i];
    float r = 1 / sqrtf(block_sum(squares) / d + a.x[0]);
    EACH(i, d) store(y, BLOCK * d + i, x[i] * r, bf16);
    if (THREAD == 0) inv_rms[BLOCK] = r;
}

// `dx = dh + inv_rms · (g − y · mean(g · y))` with `g = gain · dy`; a missing `dh` counts as 0, a missing gain
// as 1. `y` and the gain are rounded.
KERNEL norm_backward(Args a) {
    float *dx = (float *)a.p[0];
    const float *dh = (const float *)a.p[1], *dy = (const float *)a.p[2];
    const void *y = a.p[3], *gain = a.p[5];
    float r = ((const float *)a.p[4])[BLOCK];
    long d = a.n[0], bf16 = a.n[1], at = BLOCK * d;
    float mean = 0;
    EACH(i, d) mean += (gain ? load(gain, i, bf16) : 1) * dy[at + i] * load(y, at + i, bf16);
    mean = block_sum(mean) / d;
    EACH(i, d) {
        float g = (gain ? load(gain, i, bf16) : 1) * dy[at + i];
        g = r * (g - load(y, at + i, bf16) * mean);
        dx[at + i] = dh ? dh[at + i] + g : g;
    }
}

// A row of `y [M, D]` times `gain [D]`; all rounded.
KERNEL gain_forward(Args a) {
    long d = a.n[0], bf16 = a.n[1], at = BLOCK * d;
    EACH(i, d) store(a.p[0], at + i, load(a.p[1], at + i, bf16) * load(a.p[2], i, bf16), bf16);
}

// Gradient of a gain from that of its product with `y [M, D]`: each block sums `n[3]` of the `n[2]` rows.
KERNEL gain_backward(Args a) {
    const float *dy = (const float *)a.p[1];
    long d = a.n[0], bf16 = a.n[1], begin = BLOCK * a.n[3];
    long end = begin + a.n[3] < a.n[2] ? begin + a.n[3] : a.n[2];
    EACH(i, d) {
        float sum = 0;
        for (long m = begin; m < end; m++) sum += dy[m * d + i] * load(a.p[2], m * d + i, bf16);
        ((float *)a.p[0])[BLOCK * d + i] = sum;
    }
}

// One head of one position of `qkv [M, (N + 2 K) H]`.
typedef struct {
    long m, head, part; // position; head among all; 0 for q, 1 for k, 2 for v
    long at;            // its first number in `q [B, K, T G, H]`, or in `k`, `v [B, K, T, H]`
} Head;

// Sizes are 1: N, 2: K, 3: T, 4: H. The `G = N / K` queries of a group are contiguous.
DEVICE Head head_of_block(const Args *a) {
    long n_heads = a->n[1], kv_heads = a->n[2], seq_len = a->n[3], all = n_heads + 2 * kv_heads;
    Head h;
    h.m = BLOCK / all, h.head = BLOCK % all;
    h.part = h.head < n_heads ? 0 : h.head < n_heads + kv_heads ? 1 : 2;
    long group = h.part == 0 ? n_heads / kv_heads : 1;
    long n = h.part == 0 ? h.head : (h.head - n_heads) % kv_heads;
    long row = (h.m / seq_len * kv_heads + n / group) * seq_len + h.m % seq_len;
    h.at = (row * group + n % group) * a->n[4];
    return h;
}

// Copies one head of `qkv [M, (N + 2 K) H]` to q, k or v, rounded. q and k are normalised if `n[6]` is set
// (QK-norm, keeping `1/rms [M, N + K]`) and rotated; sequences begin at position `n[5]`.
KERNEL qkv_forward(Args a) {
    long bf16 = a.n[0], seq_len = a.n[3], h = a.n[4], half = h / 2;
    Head to = head_of_block(&a);
    void *out = a.p[to.part];
    const float *x = (const float *)a.p[4] + BLOCK * h;
    if (to.part == 2) {
        EACH(i, h) store(out, to.at + i, x[i], bf16);
        return;
    }
    const float *cos = (const float *)a.p[5] + (a.n[5] + to.m % seq_len) * half;
    const float *sin = (const float *)a.p[6] + (a.n[5] + to.m % seq_len) * half;
    float r = 1, squares = 0;
    if (a.n[6]) {
        EACH(i, h) squares += x[i] * x[i];
        r = 1 / sqrtf(block_sum(squares) / h + a.x[0]);
        if (THREAD == 0) ((float *)a.p[3])[to.m * (a.n[1] + a.n[2]) + to.head] = r;
    }
    EACH(i, half) {
        float u = x[i] * r, v = x[half + i] * r;
        store(out, to.at + i, u * cos[i] - v * sin[i], bf16);
        store(out, to.at + half + i, v * cos[i] + u * sin[i], bf16);
    }
}

// Backward of qkv_forward: the gradient of one head of `qkv [M, (N + 2 K) H]`, rounded, from those of q, k and
// v. The rotation commutes with the norm's Jacobian, which is applied first.
KERNEL qkv_backward(Args a) {
    long bf16 = a.n[0], seq_len = a.n[3], h = a.n[4], half = h / 2;
    Head of = head_of_block(&a);
    const float *dy = (const float *)a.p[1 + of.part] + of.at;
    if (of.part == 2) {
        EACH(i, h) store(a.p[0], BLOCK * h + i, dy[i], bf16);
        return;
    }
    const void *y = a.p[4 + of.part];
    const float *cos = (const float *)a.p[7] + of.m % seq_len * half;
    const float *sin = (const float *)a.p[8] + of.m % seq_len * half;
    float r = 1, mean = 0;
    if (a.n[6]) {
        r = ((const float *)a.p[6])[of.m * (a.n[1] + a.n[2]) + of.head];
        EACH(i, h) mean += dy[i] * load(y, of.at + i, bf16);
        mean = block_sum(mean) / h;
    }
    EACH(i, half) {
        float u = r * (dy[i] - load(y, of.at + i, bf16) * mean);
        float v = r * (dy[half + i] - load(y, of.at + half + i, bf16) * mean);
        store(a.p[0], BLOCK * h + i, u * cos[i] + v * sin[i], bf16);
        store(a.p[0], BLOCK * h + half + i, v * cos[i] - u * sin[i], bf16);
    }
}

// Causal softmax of a row of `scores [.., T G, S]` times `scale`: probabilities, rounded, and the log-sum-exp.
// The G queries at position t see keys up to `first + t`.
KERNEL softmax_forward(Args a) {
    long bf16 = a.n[0], keys = a.n[1], seen = a.n[4] + BLOCK % a.n[2] / a.n[3] + 1;
    const float *x = (const float *)a.p[2] + BLOCK * keys;
    float scale = a.x[0], max = -INFINITY, sum = 0;
    EACH(i, seen) max = fmaxf(max, x[i] * scale);
    max = block_max(max);
    EACH(i, seen) sum += expf(x[i] * scale - max);
    sum = block_sum(sum);
    EACH(i, keys) store(a.p[0], BLOCK * keys + i, i < seen ? expf(x[i] * scale - max) / sum : 0, bf16);
    if (THREAD == 0) ((float *)a.p[1])[BLOCK] = max + logf(sum);
}

// Backward of softmax_forward: the probabilities again, and the gradient of the scores from that of the
// probabilities; both rounded.
KERNEL softmax_backward(Args a) {
    long bf16 = a.n[0], keys = a.n[1], seen = a.n[4] + BLOCK % a.n[2] / a.n[3] + 1;
    long at = BLOCK * keys;
    const float *x = (const float *)a.p[2] + at, *dp = (const float *)a.p[4] + at;
    float lse = ((const float *)a.p[3])[BLOCK], scale = a.x[0], delta = 0;
    EACH(i, seen) delta += expf(x[i] * scale - lse) * dp[i];
    delta = block_sum(delta);
    EACH(i, keys) {
        float p = i < seen ? expf(x[i] * scale - lse) : 0;
        store(a.p[0], at + i, p, bf16);
        store(a.p[1], at + i, p == 0 ? 0 : p * (dp[i] - delta) * scale, bf16);
    }
}

// `0.5 (1 + tanh u)`, which is the logistic function of `2u`, and `du/dx`.
DEVICE float gelu_gate(float x, float *du) {
    const float c = 0.7978845608f, a = 0.044715f;
    *du = c * (1 + 3 * a * x * x);
    return 1 / (1 + expf(-2 * c * x * (1 + a * x * x)));
}

// GELU of a row of `x [M, F]`, rounded.
KERNEL gelu_forward(Args a) {
    const float *x = (const float *)a.p[1] + BLOCK * a.n[1];
    float du;
    EACH(i, a.n[1]) store(a.p[0], BLOCK * a.n[1] + i, x[i] * gelu_gate(x[i], &du), a.n[0]);
}

// Backward of gelu_forward: `dy` times the derivative at `x`, and the output again; both rounded.
KERNEL gelu_backward(Args a) {
    const float *dy = (const float *)a.p[2], *x = (const float *)a.p[3];
    EACH(j, a.n[1]) {
        long i = BLOCK * a.n[1] + j;
        float du, s = gelu_gate(x[i], &du), slope = s + 2 * x[i] * s * (1 - s) * du;
        store(a.p[0], i, dy[i] * slope, a.n[0]);
        store(a.p[1], i, x[i] * s, a.n[0]);
    }
}

// `silu(gate) · up` of a row of `x [M, 2 F]`, the gate first; rounded.
KERNEL swiglu_forward(Args a) {
    const float *gate = (const float *)a.p[1] + BLOCK * 2 * a.n[1], *up = gate + a.n[1];
    EACH(i, a.n[1]) store(a.p[0], BLOCK * a.n[1] + i, gate[i] / (1 + expf(-gate[i])) * up[i], a.n[0]);
}

// Backward of swiglu_forward: the gradient of `x [M, 2 F]` from `dy [M, F]`, and the output again; both rounded.
KERNEL swiglu_backward(Args a) {
    long f = a.n[1], at = BLOCK * 2 * f;
    const float *dy = (const float *)a.p[2] + BLOCK * f, *gate = (const float *)a.p[3] + at, *up = gate + f;
    EACH(i, f) {
        float s = 1 / (1 + expf(-gate[i])), silu = gate[i] * s;
        store(a.p[0], at + i, dy[i] * up[i] * (s + silu * (1 - s)), a.n[0]);
        store(a.p[0], at + f + i, dy[i] * silu, a.n[0]);
        store(a.p[1], BLOCK * f + i, silu * up[i], a.n[0]);
    }
}

// Losses `[M, 3]` of a position from its `logits [M, V]` and those of the reference, if there is one: cross
// entropy, KL, whether the target is the first of the largest. With weights, also the gradient of the logits,
// rounded.
KERNEL score(Args a) {
    long bf16 = a.n[0], v = a.n[1], at = BLOCK * v;
    float *losses = (float *)a.p[0] + 3 * BLOCK;
    void *d_logits = a.p[1];
    const float *x = (const float *)a.p[2] + at, *ref = (const float *)a.p[3];
    long target = ((const unsigned int *)a.p[4])[BLOCK];
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
    float ntp_weight = ((const float *)a.p[5])[BLOCK], kl_weight = ((const float *)a.p[6])[BLOCK];
    EACH(i, v) {
        float g = (ntp_weight + kl_weight) * expf(x[i] - lse);
        if (ref) g -= kl_weight * expf(ref[i] - ref_lse);
        store(d_logits, at + i, i == target ? g - ntp_weight : g, bf16);
    }
}

// Adds to the row of token `tokens[BLOCK]` in an embedding's gradient `[V, D]`, in place, the rows of `dh` with
// the numbers `order[starts[BLOCK]..starts[BLOCK + 1]]`.
KERNEL embed_backward(Args a) {
    const unsigned int *tokens = (const unsigned int *)a.p[1], *starts = (const unsigned int *)a.p[2];
    const unsigned int *order = (const unsigned int *)a.p[3];
    const float *dh = (const float *)a.p[4];
    long d = a.n[0];
    float *grad = (float *)a.p[0] + tokens[BLOCK] * d;
    EACH(i, d) {
        float sum = grad[i];
        for (unsigned int j = starts[BLOCK]; j < starts[BLOCK + 1]; j++) sum += dh[order[j] * d + i];
        grad[i] = sum;
    }
}

// AdamW on `n[1]` of `n[0]` elements: new weights and moments (in bf16 also the rounded weights) from the old
// ones and a gradient, and the sum of the squared gradients.
KERNEL adamw(Args a) {
    const float *w = (const float *)a.p[5], *m = (const float *)a.p[6], *v = (const float *)a.p[7];
    const float *g = (const float *)a.p[8], *x = a.x;
    long begin = BLOCK * a.n[1], len = a.n[0] - begin < a.n[1] ? a.n[0] - begin : a.n[1];
    float squares = 0;
    EACH(j, len) {
        long i = begin + j;
        float m_new = x[0] * m[i] + x[1] * g[i], v_new = x[2] * v[i] + x[3] * g[i] * g[i];
        float direction = m_new * x[4] / (sqrtf(v_new) * x[5] + x[6]);
        float w_new = w[i] - x[7] * (x[8] * w[i] + direction);
        ((float *)a.p[0])[i] = w_new;
        ((float *)a.p[1])[i] = m_new;
        ((float *)a.p[2])[i] = v_new;
        if (a.p[4]) store(a.p[4], i, w_new, 1);
        squares += g[i] * g[i];
    }
    squares = block_sum(squares);
    if (THREAD == 0) ((float *)a.p[3])[BLOCK] = squares;
}

// Chooses a token for a row of `logits [B, V]`: with `uniforms [B]` by the inverse of the cumulative distribution
// of the logits times `x[0]`, and never a token of probability 0; without, the first of the largest.
KERNEL choose(Args a) {
    SHARED float of[MAX_THREADS];
    SHARED long best[MAX_THREADS];
    long v = a.n[0], each = (v + THREADS - 1) / THREADS;
    long begin = THREAD * each, end = begin + each < v ? begin + each : v;
    const float *x = (const float *)a.p[1] + BLOCK * v, *uniforms = (const float *)a.p[2];
    float max = -INFINITY, sum = 0;
    best[THREAD] = begin < v ? begin : 0;
    for (long i = begin; i < end; i++) {
        if (x[i] > max) best[THREAD] = i;
        max = fmaxf(max, x[i]);
    }
    of[THREAD] = max;
    max = block_max(max);
    if (uniforms) {
        for (long i = begin; i < end; i++) sum += expf((x[i] - max) * a.x[0]);
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
            float p = expf((x[i] - max) * a.x[0]);
            if (p > 0) token = i;
            if (p > 0 && left < p) break;
            left -= p;
        }
        // After rounding, no token may be left: then the last one with a probability is chosen.
        for (long i = v - 1; token < 0 && i > 0; i--)
            if (expf((x[i] - max) * a.x[0]) > 0) token = i;
    }
    ((unsigned int *)a.p[0])[BLOCK] = token < 0 ? 0 : (unsigned int)token;
}
