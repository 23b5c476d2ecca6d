/* Causal attention over a tree of segments: prompts, the rows that share them, answers behind rows. Included by kernels.c,
 * whose helpers it uses.
 *
 * Letters: S packed positions, A query heads, G key/value heads, R = A / G query heads of a group, K head width, T positions of
 * a segment, L positions of its whole text (ancestors first), M = T * R rows of queries: all heads of a group at a position,
 * then those of the next one.
 */
#ifdef WIDE
#include <omp.h>

#define DEEPEST 8    /* segments of one whole text */
#define QUERY_ROWS 256 /* rows of queries whose weights are held at a time in the backward pass */

/* Rotary positions: the two halves of each of the first `turned` heads of a position are a pair; the rest is copied. sign 1
 * turns forward, -1 back. x is [S, heads, K]; cosines and sines [S, K / 2]; out may be x. */
void rotate(const bf16 *x, const float *cosine, const float *sine, bf16 *out, int64_t S, int64_t turned, int64_t heads,
            int64_t K, float sign, int threads) {
    int64_t half = K / 2;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t s = 0; s < S; s++) {
        const float *c = cosine + s * half, *d = sine + s * half;
        for (int64_t h = 0; h < turned; h++) {
            const bf16 *from = x + (s * heads + h) * K;
            bf16 *to = out + (s * heads + h) * K;
#pragma omp simd
            for (int64_t j = 0; j < half; j++) {
                float low = widen(from[j]), high = widen(from[j + half]);
                to[j] = narrow(low * c[j] - sign * high * d[j]);
                to[j + half] = narrow(high * c[j] + sign * low * d[j]);
            }
        }
        if (out != x)
            memcpy(out + (s * heads + turned) * K, x + (s * heads + turned) * K, (heads - turned) * K * sizeof(bf16));
    }
}

/* The pieces of a segment's whole text, and its length L. */
struct chain {
    int pieces, L, segment[DEEPEST];
};

static struct chain chain_of(const int32_t *length, const int32_t *parent, int64_t s) {
    struct chain found = {0, 0, {0}};
    for (int64_t at = s; at >= 0 && found.pieces < DEEPEST; at = parent[at]) found.segment[found.pieces++] = (int)at;
    for (int i = 0; i < found.pieces / 2; i++) {
        int held = found.segment[i];
        found.segment[i] = found.segment[found.pieces - 1 - i];
        found.segment[found.pieces - 1 - i] = held;
    }
    for (int i = 0; i < found.pieces; i++) found.L += length[found.segment[i]];
    return found;
}

static int longest_text(const int32_t *length, const int32_t *parent, int64_t segments) {
    int most = 0;
    for (int64_t s = 0; s < segments; s++) {
        int L = chain_of(length, parent, s).L;
        most = L > most ? L : most;
    }
    return up_to(most, 32);
}

/* One head's keys or values of a whole text into [Lp, Kp], zero elsewhere. */
static void take_text(const bf16 *base, int64_t stride, const struct chain *text, const int32_t *start, const int32_t *length,
                      bf16 *to, int Lp, int K, int Kp) {
    int at = 0;
    for (int i = 0; i < text->pieces; i++) {
        int n = length[text->segment[i]];
        copy_rows(base + start[text->segment[i]] * stride, stride, 0, 1, to + (int64_t)at * Kp, n, n, K, Kp);
        at += n;
    }
    memset(to + (int64_t)at * Kp, 0, (int64_t)(Lp - at) * Kp * sizeof(bf16));
}

/* Query rows i0 .. i0 + rows - 1 of M, from a segment's [T, ..., R, K] with a stride, into [rows, Kp]; zero elsewhere. */
static void take_rows(const bf16 *from, int64_t stride, int R, int K, int i0, int M, bf16 *to, int rows, int Kp) {
    for (int i = 0; i < rows; i++) {
        bf16 *t = to + (int64_t)i * Kp;
        int used = i0 + i < M ? K : 0;
        if (used) memcpy(t, from + (i0 + i) / R * stride + (i0 + i) % R * K, K * sizeof(bf16));
        if (used < Kp) memset(t + used, 0, (Kp - used) * sizeof(bf16));
    }
}

/* Keys lo .. hi - 1 among the 16 from k on. */
static inline __mmask16 between(int k, int lo, int hi) { return lanes(k, hi) & (__mmask16)~lanes(k, lo); }

static inline __m512 tanh16(__m512 x) {
    __m512 e = exp16(_mm512_add_ps(x, x));
    return _mm512_sub_ps(_mm512_set1_ps(1.0f), _mm512_div_ps(_mm512_set1_ps(2.0f), _mm512_add_ps(e, _mm512_set1_ps(1.0f))));
}

/* Scores of 16 keys as they go into the softmax: scaled, and capped where cap is not 0. */
static inline __m512 score16(const float *raw, float scale, float cap) {
    __m512 v = _mm512_mul_ps(_mm512_loadu_ps(raw), _mm512_set1_ps(scale));
    if (cap == 0.0f) return v;
    return _mm512_mul_ps(tanh16(_mm512_mul_ps(v, _mm512_set1_ps(1.0f / cap))), _mm512_set1_ps(cap));
}

/* qkv is [S, A + 2 G, K] with rotated queries and keys; segments from `first` on are computed, which begin at position `given`:
 * out [S - given, A, K], lse float [S - given, A]. A query attends to the last `window` positions of its whole text (0: all). */
void attend_tree(const bf16 *qkv, const int32_t *start, const int32_t *length, const int32_t *parent, int64_t first,
                 int64_t segments, int64_t given, bf16 *out, float *lse, int64_t A, int64_t G, int64_t K, int64_t window,
                 float scale, float cap, int threads) {
    int most = longest_text(length, parent, segments), Kp = up_to((int)K, 32), R = (int)(A / G);
    int64_t stride = (A + 2 * G) * K;
    int64_t bytes = (int64_t)most * Kp * 2 * 3 + 32 * (int64_t)most * 6 + 32 * Kp * 6 + 8192;
#pragma omp parallel num_threads(threads)
    {
        char *scratch = aligned_alloc(64, (bytes + 63) / 64 * 64);
        configure();
#pragma omp for schedule(dynamic, 1)
        for (int64_t task = 0; task < (segments - first) * G; task++) {
            int64_t s = first + task / G, g = task % G, s0 = start[s];
            int M = length[s] * R;
            if (!M) continue;
            struct chain text = chain_of(length, parent, s);
            int Lp = up_to(text.L, 32), before = text.L - length[s];
            char *at = scratch;
            bf16 *rows = carve(&at, (int64_t)Lp * Kp * 2), *q = carve(&at, 32 * (int64_t)Kp * 2);
            uint32_t *kt = carve(&at, (int64_t)Lp * Kp * 2), *vp = carve(&at, (int64_t)Lp * Kp * 2);
            float *score = carve(&at, 32 * (int64_t)Lp * 4), *o = carve(&at, 32 * (int64_t)Kp * 4);
            bf16 *p = carve(&at, 32 * (int64_t)Lp * 2);
            take_text(qkv + (A + g) * K, stride, &text, start, length, rows, Lp, (int)K, Kp);
            transpose_words((uint32_t *)rows, Kp / 2, kt, Lp, Lp, Kp / 2);
            take_text(qkv + (A + G + g) * K, stride, &text, start, length, rows, Lp, (int)K, Kp);
            interleave(rows, vp, Lp, Kp);
            for (int i0 = 0; i0 < M; i0 += 32) {
                int some = M - i0 < 32 ? M - i0 : 32, seen = up_to(before + (i0 + some - 1) / R + 1, 32);
                float inverse[32];
                take_rows(qkv + s0 * stride + g * R * K, stride, R, (int)K, i0, M, q, 32, Kp);
                gemm(q, Kp, kt, Lp, score, Lp, 32, seen, Kp);
                for (int i = 0; i < some; i++) {
                    int t = (i0 + i) / R, r = (i0 + i) % R, hi = before + t + 1;
                    int lo = window && hi > window ? hi - (int)window : 0;
                    float *from = score + i * (int64_t)Lp;
                    bf16 *to = p + i * (int64_t)Lp;
                    __m512 most16 = _mm512_set1_ps(-INFINITY), total16 = _mm512_setzero_ps();
                    for (int k = 0; k < seen; k += 16) {
                        __m512 v = score16(from + k, scale, cap);
                        _mm512_storeu_ps(from + k, v);
                        most16 = _mm512_mask_max_ps(most16, between(k, lo, hi), most16, v);
                    }
                    float most_s = _mm512_reduce_max_ps(most16);
                    for (int k = 0; k < seen; k += 16) {
                        __m512 e = exp16(_mm512_sub_ps(_mm512_loadu_ps(from + k), _mm512_set1_ps(most_s)));
                        e = _mm512_maskz_mov_ps(between(k, lo, hi), e);
                        total16 = _mm512_add_ps(total16, e);
                        _mm256_storeu_si256((__m256i *)(to + k), narrow16(e));
                    }
                    float total = _mm512_reduce_add_ps(total16);
                    lse[(s0 - given + t) * A + g * R + r] = most_s + logf(total);
                    inverse[i] = 1.0f / total;
                }
                if (some < 32) memset(p + some * (int64_t)Lp, 0, (32 - some) * (int64_t)Lp * sizeof(bf16));
                gemm(p, Lp, vp, Kp, o, Kp, 32, Kp, seen);
                for (int i = 0; i < some; i++) {
                    int t = (i0 + i) / R, r = (i0 + i) % R;
                    bf16 *to = out + ((s0 - given + t) * A + g * R + r) * K;
                    float *from = o + i * Kp, scale_o = inverse[i];
#pragma omp simd
                    for (int j = 0; j < K; j++) to[j] = narrow(from[j] * scale_o);
                }
            }
        }
        release();
        free(scratch);
    }
}

/* Columns of [Kp, Lp] floats added to float rows [n, K] with a stride. */
static void add_transposed(const float *from, int Lp, float *to, int64_t stride, int n, int K) {
    __m512i block[16];
    for (int k = 0; k < n; k += 16)
        for (int d = 0; d < K; d += 16) {
            for (int a = 0; a < 16; a++) block[a] = _mm512_loadu_si512(from + (int64_t)(d + a) * Lp + k);
            transpose16(block);
            int rows = n - k < 16 ? n - k : 16;
            __mmask16 columns = lanes(d, K);
            for (int a = 0; a < rows; a++) {
                float *t = to + (k + a) * stride + d;
                __m512 sum = _mm512_add_ps(_mm512_maskz_loadu_ps(columns, t), _mm512_castsi512_ps(block[a]));
                _mm512_mask_storeu_ps(t, columns, sum);
            }
        }
}

/* Gradients of two rows of weights and scores, as rows and as pairs interleaved. */
static void two_rows(const float *score, const float *dp, int Lp, int seen, int k_end, const int lo[2], const int hi[2],
                     const float shift[2], const float delta[2], float scale, float cap, bf16 *rows, uint32_t *pw,
                     uint32_t *dw) {
    for (int k = 0; k < seen; k += 16) {
        __m512i pp[2], dd[2];
        for (int r = 0; r < 2; r++) {
            __mmask16 m = between(k, lo[r], hi[r]);
            __m512 v = score16(score + r * (int64_t)Lp + k, scale, cap);
            __m512 e = _mm512_maskz_mov_ps(m, exp16(_mm512_sub_ps(v, _mm512_set1_ps(shift[r]))));
            __m512 d = _mm512_sub_ps(_mm512_loadu_ps(dp + r * (int64_t)Lp + k), _mm512_set1_ps(delta[r]));
            d = _mm512_mul_ps(_mm512_mul_ps(d, e), _mm512_set1_ps(scale));
            if (cap != 0.0f) {
                __m512 y = _mm512_mul_ps(v, _mm512_set1_ps(1.0f / cap));
                d = _mm512_mul_ps(d, _mm512_fnmadd_ps(y, y, _mm512_set1_ps(1.0f)));
            }
            __m256i low = narrow16(_mm512_maskz_mov_ps(m, d));
            _mm256_storeu_si256((__m256i *)(rows + r * (int64_t)Lp + k), low);
            dd[r] = _mm512_cvtepu16_epi32(low);
            pp[r] = _mm512_cvtepu16_epi32(narrow16(e));
        }
        _mm512_storeu_si512(pw + k, _mm512_or_si512(pp[0], _mm512_slli_epi32(pp[1], 16)));
        _mm512_storeu_si512(dw + k, _mm512_or_si512(dd[0], _mm512_slli_epi32(dd[1], 16)));
    }
    memset(pw + seen, 0, (k_end - seen) * sizeof(uint32_t));
    memset(dw + seen, 0, (k_end - seen) * sizeof(uint32_t));
}

/* dqkv, all of it. What segments that others stand behind receive is added up in float32, by thread: shared[s] is the place of
 * such a segment among their positions (-1: it has no children), d_shared float [threads, positions, G, 2, K], zero at first.
 * Which thread does what depends on the number of threads alone, so a repetition gives the same bits. */
void attend_tree_backward(const bf16 *qkv, const int32_t *start, const int32_t *length, const int32_t *parent,
                          const int32_t *shared, int64_t segments, const bf16 *out, const bf16 *dout, const float *lse,
                          float *d_shared, int64_t positions, bf16 *dqkv, int64_t A, int64_t G, int64_t K, int64_t window,
                          float scale, float cap, int threads) {
    int Kp = up_to((int)K, 32), R = (int)(A / G);
    int64_t stride = (A + 2 * G) * K, M0 = QUERY_ROWS, L0 = longest_text(length, parent, segments);
    int64_t bytes = M0 * Kp * 2 * 5 + L0 * Kp * 2 * 4 + M0 * L0 * 4 + 32 * L0 * 10 + 32 * Kp * 4 + 2 * (L0 * Kp + 64) * 4 + 8192;
    double *cost = malloc((segments * G + 1) * sizeof(double));
    cost[0] = 0.0;
    for (int64_t task = 0; task < segments * G; task++)
        cost[task + 1] = cost[task] + 64.0 + (double)length[task / G] * chain_of(length, parent, task / G).L;
    double all = cost[segments * G];
#pragma omp parallel num_threads(threads)
    {
        int me = omp_get_thread_num(), team = omp_get_num_threads();
        char *scratch = aligned_alloc(64, (bytes + 63) / 64 * 64);
        configure();
        for (int64_t task = 0; task < segments * G; task++) {
            int whose = (int)((cost[task] + cost[task + 1]) * 0.5 / all * team);
            if ((whose < team ? whose : team - 1) != me) continue;
            int64_t s = task / G, g = task % G, s0 = start[s];
            int M = length[s] * R;
            if (!M) continue;
            struct chain text = chain_of(length, parent, s);
            int Lp = up_to(text.L, 32), before = text.L - length[s];
            int64_t text_bytes = (int64_t)Lp * Kp * 2, row_bytes = M0 * Kp * 2;
            char *at = scratch;
            bf16 *rows = carve(&at, text_bytes), *q = carve(&at, row_bytes), *go = carve(&at, row_bytes);
            uint32_t *kt = carve(&at, text_bytes), *kp = carve(&at, text_bytes), *vt = carve(&at, text_bytes);
            uint32_t *pairs = carve(&at, row_bytes), *qt = carve(&at, row_bytes), *got = carve(&at, row_bytes);
            uint32_t *pv = carve(&at, M0 * Lp * 2), *dsv = carve(&at, M0 * Lp * 2);
            float *score = carve(&at, 32 * (int64_t)Lp * 4), *dp = carve(&at, 32 * (int64_t)Lp * 4);
            bf16 *ds = carve(&at, 32 * (int64_t)Lp * 2);
            float *dq = carve(&at, 32 * (int64_t)Kp * 4);
            float *dk = carve(&at, ((int64_t)Lp * Kp + 32) * 4), *dv = carve(&at, ((int64_t)Lp * Kp + 32) * 4);
            take_text(qkv + (A + g) * K, stride, &text, start, length, rows, Lp, (int)K, Kp);
            transpose_words((uint32_t *)rows, Kp / 2, kt, Lp, Lp, Kp / 2);
            interleave(rows, kp, Lp, Kp);
            take_text(qkv + (A + G + g) * K, stride, &text, start, length, rows, Lp, (int)K, Kp);
            transpose_words((uint32_t *)rows, Kp / 2, vt, Lp, Lp, Kp / 2);
            for (int m0 = 0; m0 < M; m0 += QUERY_ROWS) {
                int Mp = up_to(M - m0 < QUERY_ROWS ? M - m0 : QUERY_ROWS, 32);
                take_rows(qkv + s0 * stride + g * R * K, stride, R, (int)K, m0, M, q, Mp, Kp);
                interleave(q, pairs, Mp, Kp);
                transpose_words(pairs, Kp, qt, Mp / 2, Mp / 2, Kp);
                take_rows(dout + (s0 * A + g * R) * K, A * K, R, (int)K, m0, M, go, Mp, Kp);
                interleave(go, pairs, Mp, Kp);
                transpose_words(pairs, Kp, got, Mp / 2, Mp / 2, Kp);
                for (int i0 = 0; i0 < Mp; i0 += 32) {
                    int last = m0 + i0 + 31 < M ? m0 + i0 + 31 : M - 1, seen = up_to(before + last / R + 1, 32);
                    gemm(q + (int64_t)i0 * Kp, Kp, kt, Lp, score, Lp, 32, seen, Kp);
                    gemm(go + (int64_t)i0 * Kp, Kp, vt, Lp, dp, Lp, 32, seen, Kp);
                    for (int i = 0; i < 32; i += 2) {
                        float delta[2] = {0.0f, 0.0f}, shift[2] = {0.0f, 0.0f};
                        int lo[2] = {0, 0}, hi[2] = {0, 0};
                        for (int r = 0; r < 2 && m0 + i0 + i + r < M; r++) {
                            int row = m0 + i0 + i + r, t = row / R;
                            const bf16 *o = out + ((s0 + t) * A + g * R + row % R) * K, *d = go + (int64_t)(i0 + i + r) * Kp;
                            float dot = 0.0f;
#pragma omp simd reduction(+ : dot)
                            for (int j = 0; j < K; j++) dot += widen(o[j]) * widen(d[j]);
                            delta[r] = dot;
                            shift[r] = lse[(s0 + t) * A + g * R + row % R];
                            hi[r] = before + t + 1;
                            lo[r] = window && hi[r] > window ? hi[r] - (int)window : 0;
                        }
                        int64_t pair = (int64_t)((i0 + i) / 2) * Lp;
                        two_rows(score + i * (int64_t)Lp, dp + i * (int64_t)Lp, Lp, seen, Lp, lo, hi, shift, delta, scale, cap,
                                 ds + i * (int64_t)Lp, pv + pair, dsv + pair);
                    }
                    gemm(ds, Lp, kp, Kp, dq, Kp, 32, Kp, seen);
                    for (int i = 0; i < 32 && m0 + i0 + i < M; i++) {
                        int row = m0 + i0 + i;
                        bf16 *to = dqkv + (s0 + row / R) * stride + (g * R + row % R) * K;
                        float *from = dq + i * Kp;
#pragma omp simd
                        for (int j = 0; j < K; j++) to[j] = narrow(from[j]);
                    }
                }
                (m0 ? gemm_add : gemm)((bf16 *)qt, Mp, dsv, Lp, dk, Lp, Kp, Lp, Mp);
                (m0 ? gemm_add : gemm)((bf16 *)got, Mp, pv, Lp, dv, Lp, Kp, Lp, Mp);
            }
            for (int piece = 0, column = 0; piece < text.pieces; column += length[text.segment[piece++]]) {
                int c = text.segment[piece], n = length[c];
                if (shared[c] >= 0) {
                    float *to = d_shared + (((int64_t)me * positions + shared[c]) * G + g) * 2 * K;
                    add_transposed(dk + column, Lp, to, G * 2 * K, n, (int)K);
                    add_transposed(dv + column, Lp, to + K, G * 2 * K, n, (int)K);
                } else {
                    bf16 *to = dqkv + start[c] * stride + (A + g) * K;
                    store_transposed(dk + column, Lp, 0, 1, to, stride, n, (int)K);
                    store_transposed(dv + column, Lp, 0, 1, to + G * K, stride, n, (int)K);
                }
            }
        }
        release();
        free(scratch);
#pragma omp barrier
        for (int64_t s = 0; s < segments; s++) {
            if (shared[s] < 0) continue;
#pragma omp for schedule(static) nowait
            for (int64_t n = 0; n < length[s]; n++)
                for (int64_t g = 0; g < G; g++) {
                    bf16 *to = dqkv + (start[s] + n) * stride + (A + g) * K;
                    const float *from = d_shared + ((shared[s] + n) * G + g) * 2 * K;
                    for (int64_t j = 0; j < 2 * K; j++) {
                        float total = 0.0f;
                        for (int64_t t = 0; t < team; t++) total += from[t * positions * G * 2 * K + j];
                        to[j < K ? j : j - K + G * K] = narrow(total);
                    }
                }
        }
    }
    free(cost);
}
#endif
