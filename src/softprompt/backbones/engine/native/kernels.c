/* The small operations between the matrix products of a frozen Transformer, each in one pass over memory, and attention
 * within rows that are laid end to end. bfloat16 in and out, float32 inside. Compiled on first use by library.py for one
 * level of instructions (levels.py); where there is no compiler the same functions are computed with PyTorch.
 *
 * Letters: S packed positions, H width, F feed-forward width, A heads, K head width, L length of one row.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef uint16_t bf16;

static inline float widen(bf16 v) {
    uint32_t bits = (uint32_t)v << 16;
    float out;
    memcpy(&out, &bits, 4);
    return out;
}

/* Round to nearest, ties to even; NaN stays NaN (rounding up its bits could carry them over to zero). */
static inline bf16 narrow(float v) {
    uint32_t bits;
    memcpy(&bits, &v, 4);
    uint32_t rounded = bits + 0x7fffu + ((bits >> 16) & 1u);
    return (bf16)(v != v ? 0x7fc0u : rounded >> 16);
}

/* e^x to about 2 units in the last place; NaN stays NaN. */
static inline float exp_(float x) {
    x = x < -87.0f ? -87.0f : x;
    x = x > 88.0f ? 88.0f : x;
    float n = rintf(x * 1.44269504088896341f);
    float r = fmaf(n, -0.693359375f, x);
    r = fmaf(n, 2.12194440e-4f, r);
    float p = 1.9875691500e-4f;
    p = fmaf(p, r, 1.3981999507e-3f);
    p = fmaf(p, r, 8.3334519073e-3f);
    p = fmaf(p, r, 4.1665795894e-2f);
    p = fmaf(p, r, 1.6666665459e-1f);
    p = fmaf(p, r, 5.0000001201e-1f);
    p = fmaf(p, r * r, r + 1.0f);
    int32_t power = ((int32_t)n + 127) << 23;
    float scale;
    memcpy(&scale, &power, 4);
    return p * scale;
}

#if defined(__AVX512BF16__) && defined(__AVX512VL__) && defined(__AVX512BW__)
#include <immintrin.h>
#define WIDE 1

/* e^x on 16 lanes, relative error below 1e-5: far below what bfloat16 keeps. NaN stays NaN: max and min return their second
 * operand where one is NaN. */
static inline __m512 exp16(__m512 x) {
    x = _mm512_min_ps(_mm512_set1_ps(88.0f), _mm512_max_ps(_mm512_set1_ps(-87.0f), x));
    __m512 t = _mm512_mul_ps(x, _mm512_set1_ps(1.44269504088896341f));
    __m512 n = _mm512_roundscale_ps(t, 8), f = _mm512_sub_ps(t, n);
    __m512 p = _mm512_set1_ps(1.3333558e-3f);
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(9.6181291e-3f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(5.5504109e-2f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(2.4022651e-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(6.9314718e-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, n);
}

/* 1 / x to 28 bits. */
static inline __m512 inverse16(__m512 x) {
    __m512 r = _mm512_rcp14_ps(x);
    return _mm512_mul_ps(r, _mm512_fnmadd_ps(x, r, _mm512_set1_ps(2.0f)));
}

static inline __m256i narrow16(__m512 x) { return (__m256i)_mm512_cvtneps_pbh(x); }

static inline __m512 widen16(const bf16 *p) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16));
}

static inline void store16(bf16 *p, __m512 x) { _mm256_storeu_si256((__m256i *)p, narrow16(x)); }

/* Lanes of the 16 from k on that lie below L. */
static inline __mmask16 lanes(int k, int L) { return L - k >= 16 ? 0xffff : (L <= k ? 0 : (__mmask16)((1u << (L - k)) - 1)); }

#endif

/* ---- norms -------------------------------------------------------------------------------------------------------- */

/* sum = x + keep[row] * o (o may be NULL: sum = x and is not written); y = sum * rstd * w. */
void add_rms(const bf16 *x, const bf16 *o, const float *keep, const int32_t *row, const bf16 *w, bf16 *sum, bf16 *y,
             float *rstd, int64_t S, int64_t H, float eps, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t s = 0; s < S; s++) {
        const bf16 *from = x + s * H;
        float total = 0.0f;
        if (o) {
            bf16 *to = sum + s * H;
            const bf16 *add = o + s * H;
            if (keep) {
                const float *k = keep + (int64_t)row[s] * H;
#pragma omp simd reduction(+ : total)
                for (int64_t i = 0; i < H; i++) {
                    bf16 v = narrow(widen(from[i]) + widen(narrow(k[i] * widen(add[i]))));
                    to[i] = v;
                    total += widen(v) * widen(v);
                }
            } else {
#pragma omp simd reduction(+ : total)
                for (int64_t i = 0; i < H; i++) {
                    bf16 v = narrow(widen(from[i]) + widen(add[i]));
                    to[i] = v;
                    total += widen(v) * widen(v);
                }
            }
            from = to;
        } else {
#pragma omp simd reduction(+ : total)
            for (int64_t i = 0; i < H; i++) total += widen(from[i]) * widen(from[i]);
        }
        float r = 1.0f / sqrtf(total / (float)H + eps);
        rstd[s] = r;
        bf16 *out = y + s * H;
#pragma omp simd
        for (int64_t i = 0; i < H; i++) out[i] = narrow(widen(from[i]) * r * widen(w[i]));
    }
}

/* dx = dsum + d(norm); d_o = keep[row] * dx (d_o may be NULL; dsum may be NULL). */
void add_rms_backward(const bf16 *dy, const bf16 *dsum, const bf16 *sum, const float *rstd, const bf16 *w,
                      const float *keep, const int32_t *row, bf16 *dx, bf16 *d_o, int64_t S, int64_t H, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t s = 0; s < S; s++) {
        const bf16 *g = dy + s * H, *v = sum + s * H;
        float r = rstd[s], dot = 0.0f;
#pragma omp simd reduction(+ : dot)
        for (int64_t i = 0; i < H; i++) dot += widen(g[i]) * widen(w[i]) * widen(v[i]);
        float c = dot * r * r * r / (float)H;
        bf16 *to = dx + s * H;
        if (dsum) {
            const bf16 *res = dsum + s * H;
#pragma omp simd
            for (int64_t i = 0; i < H; i++) to[i] = narrow(widen(res[i]) + r * widen(w[i]) * widen(g[i]) - c * widen(v[i]));
        } else {
#pragma omp simd
            for (int64_t i = 0; i < H; i++) to[i] = narrow(r * widen(w[i]) * widen(g[i]) - c * widen(v[i]));
        }
        if (d_o) {
            bf16 *od = d_o + s * H;
            const float *k = keep + (int64_t)row[s] * H;
#pragma omp simd
            for (int64_t i = 0; i < H; i++) od[i] = narrow(k[i] * widen(to[i]));
        }
    }
}

/* sum = x + keep[row] * o; y = (sum - mean) * rstd * w + b. */
void add_ln(const bf16 *x, const bf16 *o, const float *keep, const int32_t *row, const bf16 *w, const bf16 *b, bf16 *sum,
            bf16 *y, float *mean, float *rstd, int64_t S, int64_t H, float eps, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t s = 0; s < S; s++) {
        const bf16 *from = x + s * H, *add = o + s * H;
        bf16 *to = sum + s * H, *out = y + s * H;
        float total = 0.0f, square = 0.0f;
        if (keep) {
            const float *k = keep + (int64_t)row[s] * H;
#pragma omp simd reduction(+ : total)
            for (int64_t i = 0; i < H; i++) {
                to[i] = narrow(widen(from[i]) + widen(narrow(k[i] * widen(add[i]))));
                total += widen(to[i]);
            }
        } else {
#pragma omp simd reduction(+ : total)
            for (int64_t i = 0; i < H; i++) {
                to[i] = narrow(widen(from[i]) + widen(add[i]));
                total += widen(to[i]);
            }
        }
        float m = total / (float)H;
#pragma omp simd reduction(+ : square)
        for (int64_t i = 0; i < H; i++) square += (widen(to[i]) - m) * (widen(to[i]) - m);
        float r = 1.0f / sqrtf(square / (float)H + eps);
        mean[s] = m;
        rstd[s] = r;
#pragma omp simd
        for (int64_t i = 0; i < H; i++) out[i] = narrow((widen(to[i]) - m) * r * widen(w[i]) + widen(b[i]));
    }
}

/* dx = d(norm) of the sum; d_o = keep[row] * dx (d_o may be NULL). */
void add_ln_backward(const bf16 *dy, const bf16 *sum, const float *mean, const float *rstd, const bf16 *w,
                     const float *keep, const int32_t *row, bf16 *dx, bf16 *d_o, int64_t S, int64_t H, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t s = 0; s < S; s++) {
        const bf16 *g = dy + s * H, *v = sum + s * H;
        float m = mean[s], r = rstd[s], plain = 0.0f, dot = 0.0f;
#pragma omp simd reduction(+ : plain, dot)
        for (int64_t i = 0; i < H; i++) {
            float wg = widen(g[i]) * widen(w[i]);
            plain += wg;
            dot += wg * (widen(v[i]) - m);
        }
        float a = plain / (float)H, c = dot * r * r / (float)H;
        bf16 *to = dx + s * H;
#pragma omp simd
        for (int64_t i = 0; i < H; i++)
            to[i] = narrow(r * (widen(g[i]) * widen(w[i]) - a - (widen(v[i]) - m) * c));
        if (d_o) {
            bf16 *od = d_o + s * H;
            const float *k = keep + (int64_t)row[s] * H;
#pragma omp simd
            for (int64_t i = 0; i < H; i++) od[i] = narrow(k[i] * widen(to[i]));
        }
    }
}

/* ---- activations -------------------------------------------------------------------------------------------------- */

enum { RELU = 0, GELU_TANH = 1, GELU = 2, SILU = 3 };

static inline void gelu_tanh(float x, float *f, float *d) {
    float u = 0.7978845608028654f * (x + 0.044715f * x * x * x);
    float s = 1.0f / (1.0f + exp_(-2.0f * u));
    *f = x * s;
    /* 1 - s first: it is 0 where the rest overflows. */
    *d = s + 2.0f * x * s * (1.0f - s) * 0.7978845608028654f * (1.0f + 3.0f * 0.044715f * x * x);
}

/* x * Phi(x) with erf after Abramowitz and Stegun 7.1.26, absolute error 1.5e-7. */
static inline void gelu_erf(float x, float *f, float *d) {
    float z = fabsf(x) * 0.70710678118654752f;
    float e = exp_(-z * z);
    float t = 1.0f / (1.0f + 0.3275911f * z);
    float p = 1.061405429f;
    p = fmaf(p, t, -1.453152027f);
    p = fmaf(p, t, 1.421413741f);
    p = fmaf(p, t, -0.284496736f);
    p = fmaf(p, t, 0.254829592f);
    float tail = 0.5f * p * t * e; /* 1 - Phi(|x|) */
    float phi = x < 0.0f ? tail : 1.0f - tail;
    *f = x * phi;
    *d = phi + x * e * 0.3989422804014327f;
}

static inline void silu(float x, float *f, float *d) {
    float s = 1.0f / (1.0f + exp_(-x));
    *f = x * s;
    *d = s + x * s * (1.0f - s);
}

static inline void relu(float x, float *f, float *d) {
    *f = x <= 0.0f ? 0.0f : x; /* NaN passes */
    *d = x <= 0.0f ? 0.0f : 1.0f;
}

#define FORWARD(NAME, FUNCTION)                                                                                         \
    static void NAME##_forward(const bf16 *gate, const bf16 *value, const float *k, bf16 *out, int64_t F) {             \
        if (value && k) {                                                                                               \
            _Pragma("omp simd") for (int64_t i = 0; i < F; i++) {                                                       \
                float f, d;                                                                                             \
                FUNCTION(widen(gate[i]), &f, &d);                                                                       \
                out[i] = narrow(f * widen(value[i]) * k[i]);                                                            \
            }                                                                                                           \
        } else if (value) {                                                                                             \
            _Pragma("omp simd") for (int64_t i = 0; i < F; i++) {                                                       \
                float f, d;                                                                                             \
                FUNCTION(widen(gate[i]), &f, &d);                                                                       \
                out[i] = narrow(f * widen(value[i]));                                                                   \
            }                                                                                                           \
        } else if (k) {                                                                                                 \
            _Pragma("omp simd") for (int64_t i = 0; i < F; i++) {                                                       \
                float f, d;                                                                                             \
                FUNCTION(widen(gate[i]), &f, &d);                                                                       \
                out[i] = narrow(f * k[i]);                                                                              \
            }                                                                                                           \
        } else {                                                                                                        \
            _Pragma("omp simd") for (int64_t i = 0; i < F; i++) {                                                       \
                float f, d;                                                                                             \
                FUNCTION(widen(gate[i]), &f, &d);                                                                       \
                out[i] = narrow(f);                                                                                     \
            }                                                                                                           \
        }                                                                                                               \
    }                                                                                                                   \
    static void NAME##_backward(const bf16 *gate, const bf16 *value, const float *k, const bf16 *dout, bf16 *dgate,     \
                                bf16 *dvalue, int64_t F) {                                                              \
        if (value) {                                                                                                    \
            _Pragma("omp simd") for (int64_t i = 0; i < F; i++) {                                                       \
                float f, d, g = widen(dout[i]) * (k ? k[i] : 1.0f);                                                     \
                FUNCTION(widen(gate[i]), &f, &d);                                                                       \
                dgate[i] = narrow(g * widen(value[i]) * d);                                                             \
                dvalue[i] = narrow(g * f);                                                                              \
            }                                                                                                           \
        } else {                                                                                                        \
            _Pragma("omp simd") for (int64_t i = 0; i < F; i++) {                                                       \
                float f, d, g = widen(dout[i]) * (k ? k[i] : 1.0f);                                                     \
                FUNCTION(widen(gate[i]), &f, &d);                                                                       \
                dgate[i] = narrow(g * d);                                                                               \
            }                                                                                                           \
        }                                                                                                               \
    }

FORWARD(relu, relu)
FORWARD(gelu_tanh, gelu_tanh)
FORWARD(gelu_erf, gelu_erf)
FORWARD(silu, silu)

#ifdef WIDE
/* f(x) and f'(x) on 16 lanes. */
static inline __attribute__((always_inline)) void act16(int64_t kind, __m512 x, __m512 *f, __m512 *d) {
    const __m512 one = _mm512_set1_ps(1.0f);
    if (kind == RELU) {
        __mmask16 on = _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_NLE_UQ); /* NaN passes */
        *f = _mm512_maskz_mov_ps(on, x);
        *d = _mm512_maskz_mov_ps(on, one);
    } else if (kind == GELU) {
        __m512 z = _mm512_mul_ps(_mm512_abs_ps(x), _mm512_set1_ps(0.70710678f));
        __m512 e = exp16(_mm512_fnmadd_ps(z, z, _mm512_setzero_ps()));
        __m512 t = inverse16(_mm512_fmadd_ps(z, _mm512_set1_ps(0.3275911f), one));
        __m512 p = _mm512_set1_ps(1.061405429f);
        p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(-1.453152027f));
        p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(1.421413741f));
        p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(-0.284496736f));
        p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(0.254829592f));
        __m512 tail = _mm512_mul_ps(_mm512_mul_ps(p, t), _mm512_mul_ps(e, _mm512_set1_ps(0.5f)));
        __mmask16 low = _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_LT_OQ);
        __m512 phi = _mm512_mask_mov_ps(_mm512_sub_ps(one, tail), low, tail);
        *f = _mm512_mul_ps(x, phi);
        *d = _mm512_fmadd_ps(_mm512_mul_ps(x, e), _mm512_set1_ps(0.39894228f), phi);
    } else {
        __m512 u = x, du = one;
        if (kind == GELU_TANH) {
            __m512 xx = _mm512_mul_ps(x, x);
            u = _mm512_mul_ps(x, _mm512_fmadd_ps(xx, _mm512_set1_ps(0.071354816f), _mm512_set1_ps(1.5957691f)));
            du = _mm512_fmadd_ps(xx, _mm512_set1_ps(0.21406445f), _mm512_set1_ps(1.5957691f));
        }
        __m512 s = inverse16(_mm512_add_ps(one, exp16(_mm512_sub_ps(_mm512_setzero_ps(), u))));
        *f = _mm512_mul_ps(x, s);
        *d = _mm512_fmadd_ps(_mm512_mul_ps(*f, _mm512_sub_ps(one, s)), du, s); /* 1 - s is 0 where du is huge */
    }
}

static inline __attribute__((always_inline)) void forward16(int64_t kind, const bf16 *gate, const bf16 *value,
                                                            const float *k, bf16 *out, int64_t F) {
    for (int64_t i = 0; i < F; i += 16) {
        __m512 f, d;
        act16(kind, widen16(gate + i), &f, &d);
        if (value) f = _mm512_mul_ps(f, widen16(value + i));
        if (k) f = _mm512_mul_ps(f, _mm512_loadu_ps(k + i));
        store16(out + i, f);
    }
}

static inline __attribute__((always_inline)) void backward16(int64_t kind, const bf16 *gate, const bf16 *value,
                                                             const float *k, const bf16 *dout, bf16 *dgate, bf16 *dvalue,
                                                             int64_t F) {
    for (int64_t i = 0; i < F; i += 16) {
        __m512 f, d, g = widen16(dout + i);
        if (k) g = _mm512_mul_ps(g, _mm512_loadu_ps(k + i));
        act16(kind, widen16(gate + i), &f, &d);
        if (value) {
            store16(dvalue + i, _mm512_mul_ps(g, f));
            g = _mm512_mul_ps(g, widen16(value + i));
        }
        store16(dgate + i, _mm512_mul_ps(g, d));
    }
}

#define WIDE_KIND(KIND)                                                                                                 \
    if (kind == KIND) {                                                                                                 \
        if (forward) forward16(KIND, gate, value, k, to, F);                                                            \
        else backward16(KIND, gate, value, k, dout, to, dvalue, F);                                                     \
        return;                                                                                                         \
    }

static void wide_row(int forward, int64_t kind, const bf16 *gate, const bf16 *value, const float *k, const bf16 *dout,
                     bf16 *to, bf16 *dvalue, int64_t F) {
    WIDE_KIND(RELU)
    WIDE_KIND(GELU_TANH)
    WIDE_KIND(GELU)
    WIDE_KIND(SILU)
}
#endif

/* out = keep[row] * act(gate) * value; up is [S, 2F] gate and value side by side, or [S, F] gate alone. */
void activate(const bf16 *up, const float *keep, const int32_t *row, bf16 *out, int64_t S, int64_t F, int64_t kind,
              int64_t gated, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t s = 0; s < S; s++) {
        const bf16 *gate = up + s * F * (gated ? 2 : 1), *value = gated ? gate + F : 0;
        const float *k = keep ? keep + (int64_t)row[s] * F : 0;
        bf16 *to = out + s * F;
#ifdef WIDE
        if (F % 16 == 0) {
            wide_row(1, kind, gate, value, k, 0, to, 0, F);
            continue;
        }
#endif
        if (kind == RELU) relu_forward(gate, value, k, to, F);
        else if (kind == GELU_TANH) gelu_tanh_forward(gate, value, k, to, F);
        else if (kind == GELU) gelu_erf_forward(gate, value, k, to, F);
        else silu_forward(gate, value, k, to, F);
    }
}

void activate_backward(const bf16 *up, const float *keep, const int32_t *row, const bf16 *dout, bf16 *dup, int64_t S,
                       int64_t F, int64_t kind, int64_t gated, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t s = 0; s < S; s++) {
        int64_t at = s * F * (gated ? 2 : 1);
        const bf16 *gate = up + at, *value = gated ? gate + F : 0, *g = dout + s * F;
        const float *k = keep ? keep + (int64_t)row[s] * F : 0;
        bf16 *dg = dup + at, *dv = dg + F;
#ifdef WIDE
        if (F % 16 == 0) {
            wide_row(0, kind, gate, value, k, g, dg, dv, F);
            continue;
        }
#endif
        if (kind == RELU) relu_backward(gate, value, k, g, dg, dv, F);
        else if (kind == GELU_TANH) gelu_tanh_backward(gate, value, k, g, dg, dv, F);
        else if (kind == GELU) gelu_erf_backward(gate, value, k, g, dg, dv, F);
        else silu_backward(gate, value, k, g, dg, dv, F);
    }
}

/* ---- token losses ------------------------------------------------------------------------------------------------- */

/* Log partition function and the target's logit of each row of bfloat16 logits [R, V]. */
void token_losses(const bf16 *logits, const int64_t *target, float *log_z, float *chosen, int64_t R, int64_t V,
                  int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t r = 0; r < R; r++) {
        const bf16 *x = logits + r * V;
        float top = -INFINITY, total = 0.0f;
#pragma omp simd reduction(max : top)
        for (int64_t i = 0; i < V; i++) top = widen(x[i]) > top ? widen(x[i]) : top;
#pragma omp simd reduction(+ : total)
        for (int64_t i = 0; i < V; i++) total += exp_(widen(x[i]) - top);
        log_z[r] = top + logf(total);
        chosen[r] = widen(x[target[r]]);
    }
}

/* d_logits = softmax * d_log_z, plus d_chosen at the target. */
void token_losses_backward(const bf16 *logits, const int64_t *target, const float *log_z, const float *d_log_z,
                           const float *d_chosen, bf16 *d_logits, int64_t R, int64_t V, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t r = 0; r < R; r++) {
        const bf16 *x = logits + r * V;
        bf16 *to = d_logits + r * V;
        float shift = log_z[r], g = d_log_z[r];
#pragma omp simd
        for (int64_t i = 0; i < V; i++) to[i] = narrow(g * exp_(widen(x[i]) - shift));
        int64_t t = target[r];
        to[t] = narrow(g * exp_(widen(x[t]) - shift) + d_chosen[r]);
    }
}

/* ---- attention within packed rows, on matrix tiles or vectors ----------------------------------------------------- */

#ifdef WIDE
#ifdef __AMX_BF16__
/* levels.py has asked Linux for the tile registers. */
static void configure(void) {
    struct {
        uint8_t palette, start;
        uint8_t zero[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } __attribute__((aligned(64))) config;
    memset(&config, 0, sizeof config);
    config.palette = 1;
    for (int i = 0; i < 8; i++) {
        config.bytes[i] = 64;
        config.rows[i] = 16;
    }
    _tile_loadconfig(&config);
}

static void release(void) { _tile_release(); }

/* C[M, N] = A[M, K] B. A is row-major; B holds pairs of its rows interleaved: [K / 2][N] words of two bfloat16.
 * M and N are multiples of 16, K of 32. */
static inline __attribute__((always_inline)) void product(const bf16 *A, int64_t lda, const uint32_t *B, int64_t ldb,
                                                           float *C, int64_t ldc, int M, int N, int K, int add) {
    int m = 0;
    for (; m + 32 <= M; m += 32) {
        int n = 0;
        for (; n + 32 <= N; n += 32) {
            if (add) {
                _tile_loadd(0, C + m * ldc + n, ldc * 4);
                _tile_loadd(1, C + m * ldc + n + 16, ldc * 4);
                _tile_loadd(2, C + (m + 16) * ldc + n, ldc * 4);
                _tile_loadd(3, C + (m + 16) * ldc + n + 16, ldc * 4);
            } else {
                _tile_zero(0);
                _tile_zero(1);
                _tile_zero(2);
                _tile_zero(3);
            }
            for (int k = 0; k < K; k += 32) {
                _tile_loadd(4, A + m * lda + k, lda * 2);
                _tile_loadd(6, B + (k / 2) * ldb + n, ldb * 4);
                _tile_loadd(7, B + (k / 2) * ldb + n + 16, ldb * 4);
                _tile_loadd(5, A + (m + 16) * lda + k, lda * 2);
                _tile_dpbf16ps(0, 4, 6);
                _tile_dpbf16ps(1, 4, 7);
                _tile_dpbf16ps(2, 5, 6);
                _tile_dpbf16ps(3, 5, 7);
            }
            _tile_stored(0, C + m * ldc + n, ldc * 4);
            _tile_stored(1, C + m * ldc + n + 16, ldc * 4);
            _tile_stored(2, C + (m + 16) * ldc + n, ldc * 4);
            _tile_stored(3, C + (m + 16) * ldc + n + 16, ldc * 4);
        }
        for (; n < N; n += 16) {
            if (add) {
                _tile_loadd(0, C + m * ldc + n, ldc * 4);
                _tile_loadd(2, C + (m + 16) * ldc + n, ldc * 4);
            } else {
                _tile_zero(0);
                _tile_zero(2);
            }
            for (int k = 0; k < K; k += 32) {
                _tile_loadd(4, A + m * lda + k, lda * 2);
                _tile_loadd(5, A + (m + 16) * lda + k, lda * 2);
                _tile_loadd(6, B + (k / 2) * ldb + n, ldb * 4);
                _tile_dpbf16ps(0, 4, 6);
                _tile_dpbf16ps(2, 5, 6);
            }
            _tile_stored(0, C + m * ldc + n, ldc * 4);
            _tile_stored(2, C + (m + 16) * ldc + n, ldc * 4);
        }
    }
    for (; m < M; m += 16)
        for (int n = 0; n < N; n += 16) {
            if (add) _tile_loadd(0, C + m * ldc + n, ldc * 4);
            else _tile_zero(0);
            for (int k = 0; k < K; k += 32) {
                _tile_loadd(4, A + m * lda + k, lda * 2);
                _tile_loadd(6, B + (k / 2) * ldb + n, ldb * 4);
                _tile_dpbf16ps(0, 4, 6);
            }
            _tile_stored(0, C + m * ldc + n, ldc * 4);
        }
}

#else
static void configure(void) {}
static void release(void) {}

/* ROWS x (16 * COLUMNS) of C in registers. */
#define BLOCK(ROWS, COLUMNS)                                                                                            \
    {                                                                                                                   \
        __m512 c[ROWS][COLUMNS];                                                                                        \
        for (int i = 0; i < ROWS; i++)                                                                                  \
            for (int j = 0; j < COLUMNS; j++)                                                                           \
                c[i][j] = add ? _mm512_loadu_ps(C + (m + i) * ldc + n + 16 * j) : _mm512_setzero_ps();                  \
        const bf16 *a = A + m * lda;                                                                                    \
        const uint32_t *b = B + n;                                                                                      \
        for (int k = 0; k < K; k += 2, a += 2, b += ldb) {                                                              \
            __m512bh w[COLUMNS];                                                                                        \
            for (int j = 0; j < COLUMNS; j++) w[j] = (__m512bh)_mm512_loadu_si512(b + 16 * j);                          \
            for (int i = 0; i < ROWS; i++) {                                                                            \
                int32_t pair;                                                                                           \
                memcpy(&pair, a + i * lda, 4);                                                                          \
                __m512bh v = (__m512bh)_mm512_set1_epi32(pair);                                                         \
                for (int j = 0; j < COLUMNS; j++) c[i][j] = _mm512_dpbf16_ps(c[i][j], v, w[j]);                         \
            }                                                                                                           \
        }                                                                                                               \
        for (int i = 0; i < ROWS; i++)                                                                                  \
            for (int j = 0; j < COLUMNS; j++) _mm512_storeu_ps(C + (m + i) * ldc + n + 16 * j, c[i][j]);                \
    }

/* C[M, N] = A[M, K] B, or C += A B. A is row-major; B holds pairs of its rows interleaved: [K / 2][N] words of two
 * bfloat16. M and N are multiples of 16, K of 2. */
static inline __attribute__((always_inline)) void product(const bf16 *A, int64_t lda, const uint32_t *B, int64_t ldb,
                                                           float *C, int64_t ldc, int M, int N, int K, int add) {
    int n = 0;
    for (; n + 32 <= N; n += 32)
        for (int m = 0; m < M; m += 8) BLOCK(8, 2)
    for (; n < N; n += 16)
        for (int m = 0; m < M; m += 8) BLOCK(8, 1)
}
#endif

static void gemm(const bf16 *A, int64_t lda, const uint32_t *B, int64_t ldb, float *C, int64_t ldc, int M, int N, int K) {
    product(A, lda, B, ldb, C, ldc, M, N, K, 0);
}

/* C += A B. */
static void gemm_add(const bf16 *A, int64_t lda, const uint32_t *B, int64_t ldb, float *C, int64_t ldc, int M, int N,
                     int K) {
    product(A, lda, B, ldb, C, ldc, M, N, K, 1);
}

/* Transpose a 16 x 16 block of 32-bit words held in registers. */
static inline void transpose16(__m512i r[16]) {
    __m512i t[16];
    for (int i = 0; i < 8; i++) {
        t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
    }
    for (int i = 0; i < 4; i++) {
        r[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
        r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
        r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
        r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
    }
    for (int i = 0; i < 8; i++) {
        r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
        r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
    }
}

/* to[j][i] = from[i][j] for words; both multiples of 16. */
static void transpose_words(const uint32_t *from, int64_t lf, uint32_t *to, int64_t lt, int rows, int columns) {
    __m512i block[16];
    for (int i = 0; i < rows; i += 16)
        for (int j = 0; j < columns; j += 16) {
            for (int a = 0; a < 16; a++) block[a] = _mm512_loadu_si512(from + (i + a) * lf + j);
            transpose16(block);
            for (int a = 0; a < 16; a++) _mm512_storeu_si512(to + (j + a) * lt + i, block[a]);
        }
}

/* Rows [L, K] with a stride into [Lp, Kp], zero elsewhere; each row scaled by keep (stride A) where given. */
static void copy_rows(const bf16 *from, int64_t stride, const float *keep, int64_t A, bf16 *to, int L, int Lp, int K,
                      int Kp) {
    for (int i = 0; i < L; i++) {
        const bf16 *f = from + i * stride;
        bf16 *t = to + (int64_t)i * Kp;
        __m512 k = _mm512_set1_ps(keep ? keep[i * A] : 1.0f);
        for (int j = 0; j < Kp; j += 32) {
            __mmask32 m = K - j >= 32 ? 0xffffffffu : (K <= j ? 0 : (1u << (K - j)) - 1);
            _mm_prefetch((const char *)(f + 16 * stride + j), _MM_HINT_T0);
            __m512i v = _mm512_maskz_loadu_epi16(m, f + j);
            if (keep) {
                __m512 low = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_castsi512_si256(v)), 16));
                __m512 high =
                    _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(v, 1)), 16));
                _mm256_storeu_si256((__m256i *)(t + j), narrow16(_mm512_mul_ps(low, k)));
                _mm256_storeu_si256((__m256i *)(t + j + 16), narrow16(_mm512_mul_ps(high, k)));
            } else {
                _mm512_storeu_si512(t + j, v);
            }
        }
    }
    memset(to + (int64_t)L * Kp, 0, (int64_t)(Lp - L) * Kp * sizeof(bf16));
}

/* [Lp, Kp] -> pairs of rows interleaved: [Lp / 2][Kp] words. */
static void interleave(const bf16 *from, uint32_t *to, int Lp, int Kp) {
    for (int i = 0; i < Lp; i += 2) {
        const bf16 *a = from + i * Kp, *b = a + Kp;
        uint32_t *t = to + (i / 2) * Kp;
#pragma omp simd
        for (int j = 0; j < Kp; j++) t[j] = (uint32_t)a[j] | ((uint32_t)b[j] << 16);
    }
}

static inline int up_to(int value, int multiple) { return (value + multiple - 1) / multiple * multiple; }

static void *carve(char **at, int64_t bytes) {
    void *out = *at;
    *at += (bytes + 63) / 64 * 64;
    return out;
}

static int longest(const int32_t *length, int64_t B) {
    int most = 0;
    for (int64_t b = 0; b < B; b++) most = length[b] > most ? length[b] : most;
    return most;
}

/* qkv is [S, 3, A, K]; out [S, A, K]; lse float [S, A]; keep float [S, A] or NULL scales the values; bias float
 * [A, 2 * reach - 1] or NULL is added to the score of key k for query q at index k - q + reach - 1. */
void attend(const bf16 *qkv, const float *keep, const float *bias, int64_t reach, const int32_t *start,
            const int32_t *length, bf16 *out, float *lse, int64_t B, int64_t A, int64_t K, float scale, int threads) {
    int most = up_to(longest(length, B), 32), Kp = up_to((int)K, 32);
    int64_t D = A * K, stride = 3 * D;
    int64_t bytes = (int64_t)most * Kp * 2 * 5 + 32 * (int64_t)most * 6 + 32 * Kp * 4 + 4096;
#pragma omp parallel num_threads(threads)
    {
        char *scratch = aligned_alloc(64, (bytes + 63) / 64 * 64);
        configure();
#pragma omp for schedule(dynamic, A)
        for (int64_t task = 0; task < B * A; task++) {
            int64_t b = task / A, h = task % A, s0 = start[b];
            int L = length[b], Lp = up_to(L, 32);
            if (!L) continue;
            char *at = scratch;
            bf16 *q = carve(&at, (int64_t)Lp * Kp * 2), *rows = carve(&at, (int64_t)Lp * Kp * 2);
            uint32_t *kt = carve(&at, (int64_t)Lp * Kp * 2), *vp = carve(&at, (int64_t)Lp * Kp * 2);
            float *score = carve(&at, 32 * (int64_t)Lp * 4), *o = carve(&at, 32 * (int64_t)Kp * 4);
            bf16 *p = carve(&at, 32 * (int64_t)Lp * 2);
            const bf16 *base = qkv + s0 * stride + h * K;
            copy_rows(base, stride, 0, A, q, L, Lp, K, Kp);
            copy_rows(base + D, stride, 0, A, rows, L, Lp, K, Kp);
            transpose_words((uint32_t *)rows, Kp / 2, kt, Lp, Lp, Kp / 2);
            copy_rows(base + 2 * D, stride, keep ? keep + s0 * A + h : 0, A, rows, L, Lp, K, Kp);
            interleave(rows, vp, Lp, Kp);
            for (int q0 = 0; q0 < L; q0 += 32) {
                int some = L - q0 < 32 ? L - q0 : 32;
                float inverse[32];
                gemm(q + q0 * Kp, Kp, kt, Lp, score, Lp, 32, Lp, Kp);
                for (int i = 0; i < some; i++) {
                    float *s = score + i * (int64_t)Lp;
                    const float *t = bias ? bias + h * (2 * reach - 1) + reach - 1 - (q0 + i) : 0;
                    bf16 *to = p + i * (int64_t)Lp;
                    __m512 most16 = _mm512_set1_ps(-INFINITY), total16 = _mm512_setzero_ps();
                    for (int k = 0; k < L; k += 16) {
                        __mmask16 m = lanes(k, L);
                        __m512 v = _mm512_mul_ps(_mm512_loadu_ps(s + k), _mm512_set1_ps(scale));
                        if (t) v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(m, t + k));
                        _mm512_storeu_ps(s + k, v);
                        most16 = _mm512_mask_max_ps(most16, m, most16, v);
                    }
                    float most_s = _mm512_reduce_max_ps(most16);
                    for (int k = 0; k < Lp; k += 16) {
                        __m512 e = exp16(_mm512_sub_ps(_mm512_loadu_ps(s + k), _mm512_set1_ps(most_s)));
                        e = _mm512_maskz_mov_ps(lanes(k, L), e);
                        total16 = _mm512_add_ps(total16, e);
                        _mm256_storeu_si256((__m256i *)(to + k), narrow16(e));
                    }
                    float total = _mm512_reduce_add_ps(total16);
                    lse[(s0 + q0 + i) * A + h] = most_s + logf(total);
                    inverse[i] = 1.0f / total;
                }
                if (some < 32) memset(p + some * (int64_t)Lp, 0, (32 - some) * (int64_t)Lp * sizeof(bf16));
                gemm(p, Lp, vp, Kp, o, Kp, 32, Kp, Lp);
                for (int i = 0; i < some; i++) {
                    bf16 *to = out + (s0 + q0 + i) * D + h * K;
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

/* [Kp, Lp] floats -> bfloat16 rows [L, K] with a stride, each scaled by keep where given. */
static void store_transposed(const float *from, int Lp, const float *keep, int64_t A, bf16 *to, int64_t stride, int L,
                             int K) {
    __m512i block[16];
    for (int k = 0; k < L; k += 16)
        for (int d = 0; d < K; d += 16) {
            for (int a = 0; a < 16; a++) block[a] = _mm512_loadu_si512(from + (int64_t)(d + a) * Lp + k);
            transpose16(block);
            int rows = L - k < 16 ? L - k : 16;
            __mmask16 columns = lanes(d, K);
            for (int a = 0; a < rows; a++) {
                __m512 v = _mm512_mul_ps(_mm512_castsi512_ps(block[a]), _mm512_set1_ps(keep ? keep[(k + a) * A] : 1.0f));
                _mm256_mask_storeu_epi16(to + (k + a) * stride + d, columns, narrow16(v));
            }
        }
}

void attend_backward(const bf16 *qkv, const float *keep, const float *bias, int64_t reach, const int32_t *start,
                     const int32_t *length, const bf16 *out, const bf16 *dout, const float *lse, bf16 *dqkv, int64_t B,
                     int64_t A, int64_t K, float scale, int threads) {
    int most = up_to(longest(length, B), 32), Kp = up_to((int)K, 32);
    int64_t D = A * K, stride = 3 * D, M = most;
    int64_t bytes = M * Kp * 2 * 10 + M * Kp * 4 + M * M * 4 + 32 * M * 10 + 32 * Kp * 4 + 8192;
#pragma omp parallel num_threads(threads)
    {
        char *scratch = aligned_alloc(64, (bytes + 63) / 64 * 64);
        configure();
#pragma omp for schedule(dynamic, A)
        for (int64_t task = 0; task < B * A; task++) {
            int64_t b = task / A, h = task % A, s0 = start[b];
            int L = length[b], Lp = up_to(L, 32);
            if (!L) continue;
            int64_t rows_bytes = (int64_t)Lp * Kp * 2;
            char *at = scratch;
            bf16 *q = carve(&at, rows_bytes), *rows = carve(&at, rows_bytes), *go = carve(&at, rows_bytes);
            uint32_t *kt = carve(&at, rows_bytes), *kp = carve(&at, rows_bytes), *vt = carve(&at, rows_bytes);
            uint32_t *pairs = carve(&at, rows_bytes), *qt = carve(&at, rows_bytes), *got = carve(&at, rows_bytes);
            uint32_t *pv = carve(&at, (int64_t)Lp * Lp * 2), *dsv = carve(&at, (int64_t)Lp * Lp * 2);
            float *score = carve(&at, 32 * (int64_t)Lp * 4), *dp = carve(&at, 32 * (int64_t)Lp * 4);
            bf16 *ds_rows = carve(&at, 32 * (int64_t)Lp * 2);
            float *dq = carve(&at, 32 * (int64_t)Kp * 4);
            float *wide = carve(&at, (int64_t)Lp * Kp * 4);
            const bf16 *base = qkv + s0 * stride + h * K;
            bf16 *dbase = dqkv + s0 * stride + h * K;
            const float *keep_h = keep ? keep + s0 * A + h : 0;
            copy_rows(base, stride, 0, A, q, L, Lp, K, Kp);
            interleave(q, pairs, Lp, Kp);
            transpose_words(pairs, Kp, qt, Lp / 2, Lp / 2, Kp);
            copy_rows(base + D, stride, 0, A, rows, L, Lp, K, Kp);
            transpose_words((uint32_t *)rows, Kp / 2, kt, Lp, Lp, Kp / 2);
            interleave(rows, kp, Lp, Kp);
            copy_rows(base + 2 * D, stride, keep_h, A, rows, L, Lp, K, Kp);
            transpose_words((uint32_t *)rows, Kp / 2, vt, Lp, Lp, Kp / 2);
            copy_rows(dout + s0 * D + h * K, D, 0, A, go, L, Lp, K, Kp);
            interleave(go, pairs, Lp, Kp);
            transpose_words(pairs, Kp, got, Lp / 2, Lp / 2, Kp);
            for (int q0 = 0; q0 < Lp; q0 += 32) {
                gemm(q + q0 * Kp, Kp, kt, Lp, score, Lp, 32, Lp, Kp);
                gemm(go + q0 * Kp, Kp, vt, Lp, dp, Lp, 32, Lp, Kp);
                for (int i = 0; i < 32; i += 2) {
                    int row = q0 + i;
                    float delta[2] = {0.0f, 0.0f}, shift[2] = {0.0f, 0.0f};
                    const float *t[2] = {0, 0};
                    for (int r = 0; r < 2 && row + r < L; r++) {
                        const bf16 *o = out + (s0 + row + r) * D + h * K, *g = go + (int64_t)(row + r) * Kp;
                        float dot = 0.0f;
#pragma omp simd reduction(+ : dot)
                        for (int j = 0; j < K; j++) dot += widen(o[j]) * widen(g[j]);
                        delta[r] = dot;
                        shift[r] = lse[(s0 + row + r) * A + h];
                        if (bias) t[r] = bias + h * (2 * reach - 1) + reach - 1 - (row + r);
                    }
                    uint32_t *pw = pv + (int64_t)(row / 2) * Lp, *dw = dsv + (int64_t)(row / 2) * Lp;
                    const float *s = score + i * (int64_t)Lp, *g = dp + i * (int64_t)Lp;
                    bf16 *rows_out = ds_rows + i * (int64_t)Lp;
                    for (int k = 0; k < Lp; k += 16) {
                        __m512i pp[2], dd[2];
                        for (int r = 0; r < 2; r++) {
                            __mmask16 m = row + r < L ? lanes(k, L) : 0;
                            __m512 v = _mm512_mul_ps(_mm512_loadu_ps(s + r * (int64_t)Lp + k), _mm512_set1_ps(scale));
                            if (t[r]) v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(m, t[r] + k));
                            __m512 e = _mm512_maskz_mov_ps(m, exp16(_mm512_sub_ps(v, _mm512_set1_ps(shift[r]))));
                            __m512 d = _mm512_sub_ps(_mm512_loadu_ps(g + r * (int64_t)Lp + k), _mm512_set1_ps(delta[r]));
                            d = _mm512_maskz_mul_ps(m, _mm512_mul_ps(d, e), _mm512_set1_ps(scale));
                            __m256i low = narrow16(d);
                            _mm256_storeu_si256((__m256i *)(rows_out + r * (int64_t)Lp + k), low);
                            dd[r] = _mm512_cvtepu16_epi32(low);
                            pp[r] = _mm512_cvtepu16_epi32(narrow16(e));
                        }
                        _mm512_storeu_si512(pw + k, _mm512_or_si512(pp[0], _mm512_slli_epi32(pp[1], 16)));
                        _mm512_storeu_si512(dw + k, _mm512_or_si512(dd[0], _mm512_slli_epi32(dd[1], 16)));
                    }
                }
                gemm(ds_rows, Lp, kp, Kp, dq, Kp, 32, Kp, Lp);
                for (int i = 0; i < 32 && q0 + i < L; i++) {
                    bf16 *to = dbase + (q0 + i) * stride;
                    float *from = dq + i * Kp;
#pragma omp simd
                    for (int j = 0; j < K; j++) to[j] = narrow(from[j]);
                }
            }
            gemm((bf16 *)qt, Lp, dsv, Lp, wide, Lp, Kp, Lp, Lp);
            store_transposed(wide, Lp, 0, A, dbase + D, stride, L, K);
            gemm((bf16 *)got, Lp, pv, Lp, wide, Lp, Kp, Lp, Lp);
            store_transposed(wide, Lp, keep_h, A, dbase + 2 * D, stride, L, K);
        }
        release();
        free(scratch);
    }
}

/* ---- cross-attention of few queries ------------------------------------------------------------------------------- */

/* What all decoder layers read: the source of each row [L, H] as words transposed, [H / 2][Lp], and with pairs of rows
 * interleaved, [Lp / 2][H]. Row b begins at place[b] * H / 2 words; Lp is L up to a multiple of 32, H a multiple of 32. */
void pack_source(const bf16 *x, const int32_t *start, const int32_t *length, const int32_t *place, uint32_t *words,
                 uint32_t *pairs, int64_t B, int64_t H, int threads) {
    int most = up_to(longest(length, B), 32);
#pragma omp parallel num_threads(threads)
    {
        bf16 *rows = aligned_alloc(64, (int64_t)most * H * 2 + 64);
#pragma omp for schedule(dynamic, 1)
        for (int64_t b = 0; b < B; b++) {
            int L = length[b], Lp = up_to(L, 32);
            if (!L) continue;
            memcpy(rows, x + start[b] * H, L * H * sizeof(bf16));
            memset(rows + L * H, 0, (Lp - L) * H * sizeof(bf16));
            transpose_words((uint32_t *)rows, H / 2, words + place[b] * H / 2, Lp, Lp, (int)H / 2);
            interleave(rows, pairs + place[b] * H / 2, Lp, (int)H);
        }
        free(rows);
    }
}

/* queries [B, Q, H] carried through the key projection, Q = decoder positions x heads (head = q % A); weights
 * [Qp * place] keeps the softmax, Qp is Q up to a multiple of 32; mixed [B, Q, H] = (weights * keep) source; share [B, Q]
 * is the sum of weights * keep. */
void attend_source(const bf16 *queries, const uint32_t *words, const uint32_t *pairs, const int32_t *start,
                   const int32_t *length, const int32_t *place, const float *keep, bf16 *weights, bf16 *mixed,
                   float *share, int64_t B, int64_t Q, int64_t H, int64_t A, float scale, int threads) {
    int most = up_to(longest(length, B), 32), Qp = up_to((int)Q, 32);
    int64_t bytes = (int64_t)Qp * H * 6 + (int64_t)Qp * most * 6 + 4096;
#pragma omp parallel num_threads(threads)
    {
        char *scratch = aligned_alloc(64, (bytes + 63) / 64 * 64);
        configure();
#pragma omp for schedule(dynamic, 1)
        for (int64_t b = 0; b < B; b++) {
            int L = length[b], Lp = up_to(L, 32);
            if (!L) {
                memset(mixed + b * Q * H, 0, Q * H * sizeof(bf16));
                memset(share + b * Q, 0, Q * sizeof(float));
                continue;
            }
            char *at = scratch;
            bf16 *q = carve(&at, (int64_t)Qp * H * 2), *p = carve(&at, (int64_t)Qp * Lp * 2);
            float *score = carve(&at, (int64_t)Qp * Lp * 4), *o = carve(&at, (int64_t)Qp * H * 4);
            bf16 *w = weights + (int64_t)place[b] * Qp;
            copy_rows(queries + b * Q * H, H, 0, 1, q, (int)Q, Qp, (int)H, (int)H);
            gemm(q, H, words + place[b] * H / 2, Lp, score, Lp, Qp, Lp, (int)H);
            for (int i = 0; i < Qp; i++) {
                float *s = score + i * (int64_t)Lp;
                if (i >= Q) {
                    memset(w + i * (int64_t)Lp, 0, Lp * 2);
                    memset(p + i * (int64_t)Lp, 0, Lp * 2);
                    continue;
                }
                __m512 most16 = _mm512_set1_ps(-INFINITY), total16 = _mm512_setzero_ps(), kept16 = total16;
                for (int k = 0; k < L; k += 16)
                    most16 = _mm512_mask_max_ps(most16, lanes(k, L), most16, _mm512_loadu_ps(s + k));
                float top = _mm512_reduce_max_ps(most16);
                for (int k = 0; k < Lp; k += 16) {
                    __m512 e = _mm512_mul_ps(_mm512_sub_ps(_mm512_loadu_ps(s + k), _mm512_set1_ps(top)), _mm512_set1_ps(scale));
                    e = _mm512_maskz_mov_ps(lanes(k, L), exp16(e));
                    total16 = _mm512_add_ps(total16, e);
                    _mm512_storeu_ps(s + k, e);
                }
                __m512 inverse = _mm512_set1_ps(1.0f / _mm512_reduce_add_ps(total16));
                const float *kh = keep ? keep + (int64_t)start[b] * A + i % A : 0;
                __m512i step = _mm512_mullo_epi32(_mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0),
                                                  _mm512_set1_epi32((int)A));
                for (int k = 0; k < Lp; k += 16) {
                    __m512 e = _mm512_mul_ps(_mm512_loadu_ps(s + k), inverse);
                    _mm256_storeu_si256((__m256i *)(w + i * (int64_t)Lp + k), narrow16(e));
                    if (kh)
                        e = _mm512_mul_ps(
                            e, _mm512_mask_i32gather_ps(_mm512_setzero_ps(), lanes(k, L), step, kh + (int64_t)k * A, 4));
                    kept16 = _mm512_add_ps(kept16, e);
                    _mm256_storeu_si256((__m256i *)(p + i * (int64_t)Lp + k), narrow16(e));
                }
                share[b * Q + i] = _mm512_reduce_add_ps(kept16);
            }
            gemm(p, Lp, pairs + place[b] * H / 2, H, o, H, Qp, (int)H, Lp);
            bf16 *to = mixed + b * Q * H;
#pragma omp simd
            for (int64_t i = 0; i < Q * H; i++) to[i] = narrow(o[i]);
        }
        release();
        free(scratch);
    }
}

/* d_queries [B, Q, H]; d_source float [sum of Lp, H] is added to. d_share may be NULL. */
void attend_source_backward(const bf16 *queries, const uint32_t *words, const uint32_t *pairs, const int32_t *start,
                            const int32_t *length, const int32_t *place, const float *keep, const bf16 *weights,
                            const bf16 *d_mixed, const float *d_share, bf16 *d_queries, float *d_source, int64_t B,
                            int64_t Q, int64_t H, int64_t A, float scale, int threads) {
    int most = up_to(longest(length, B), 32), Qp = up_to((int)Q, 32);
    int64_t bytes = (int64_t)Qp * H * 12 + (int64_t)Qp * most * 16 + 8192;
#pragma omp parallel num_threads(threads)
    {
        char *scratch = aligned_alloc(64, (bytes + 63) / 64 * 64);
        configure();
#pragma omp for schedule(dynamic, 1)
        for (int64_t b = 0; b < B; b++) {
            int L = length[b], Lp = up_to(L, 32);
            if (!L) {
                memset(d_queries + b * Q * H, 0, Q * H * sizeof(bf16));
                continue;
            }
            char *at = scratch;
            bf16 *g = carve(&at, (int64_t)Qp * H * 2), *q = carve(&at, (int64_t)Qp * H * 2);
            uint32_t *rows = carve(&at, (int64_t)Qp * H * 2);
            float *dq = carve(&at, (int64_t)Qp * H * 4), *dp = carve(&at, (int64_t)Qp * Lp * 4);
            bf16 *ds = carve(&at, (int64_t)Qp * Lp * 2), *pk = carve(&at, (int64_t)Qp * Lp * 2);
            uint32_t *mixed_words = carve(&at, (int64_t)Qp * Lp * 2), *turned = carve(&at, (int64_t)Qp * Lp * 2);
            const bf16 *w = weights + (int64_t)place[b] * Qp;
            copy_rows(d_mixed + b * Q * H, H, 0, 1, g, (int)Q, Qp, (int)H, (int)H);
            copy_rows(queries + b * Q * H, H, 0, 1, q, (int)Q, Qp, (int)H, (int)H);
            gemm(g, H, words + place[b] * H / 2, Lp, dp, Lp, Qp, Lp, (int)H);
            __m512i step = _mm512_mullo_epi32(_mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0),
                                              _mm512_set1_epi32((int)A));
            for (int i = 0; i < Qp; i++) {
                float *d = dp + i * (int64_t)Lp;
                const bf16 *wi = w + i * (int64_t)Lp;
                if (i >= Q) {
                    memset(ds + i * (int64_t)Lp, 0, Lp * 2);
                    memset(pk + i * (int64_t)Lp, 0, Lp * 2);
                    continue;
                }
                const float *kh = keep ? keep + (int64_t)start[b] * A + i % A : 0;
                __m512 extra = _mm512_set1_ps(d_share ? d_share[b * Q + i] : 0.0f), dot16 = _mm512_setzero_ps();
                for (int k = 0; k < Lp; k += 16) {
                    __m512 m = _mm512_maskz_mov_ps(lanes(k, L), _mm512_set1_ps(1.0f)), e = widen16(wi + k);
                    if (kh) m = _mm512_mask_i32gather_ps(m, lanes(k, L), step, kh + (int64_t)k * A, 4);
                    __m512 v = _mm512_mul_ps(_mm512_add_ps(_mm512_loadu_ps(d + k), extra), m);
                    _mm512_storeu_ps(d + k, v);
                    dot16 = _mm512_fmadd_ps(v, e, dot16);
                    _mm256_storeu_si256((__m256i *)(pk + i * (int64_t)Lp + k), narrow16(_mm512_mul_ps(e, m)));
                }
                __m512 dot = _mm512_set1_ps(_mm512_reduce_add_ps(dot16));
                for (int k = 0; k < Lp; k += 16) {
                    __m512 v = _mm512_mul_ps(_mm512_sub_ps(_mm512_loadu_ps(d + k), dot), widen16(wi + k));
                    _mm256_storeu_si256((__m256i *)(ds + i * (int64_t)Lp + k), narrow16(_mm512_mul_ps(v, _mm512_set1_ps(scale))));
                }
            }
            gemm(ds, Lp, pairs + place[b] * H / 2, H, dq, H, Qp, (int)H, Lp);
            bf16 *to = d_queries + b * Q * H;
#pragma omp simd
            for (int64_t i = 0; i < Q * H; i++) to[i] = narrow(dq[i]);
            float *into = d_source + (int64_t)place[b] * H;
            interleave(ds, mixed_words, Qp, Lp);
            transpose_words(mixed_words, Lp, turned, Qp / 2, Qp / 2, Lp);
            interleave(q, rows, Qp, (int)H);
            gemm_add((bf16 *)turned, Qp, rows, H, into, H, Lp, (int)H, Qp);
            interleave(pk, mixed_words, Qp, Lp);
            transpose_words(mixed_words, Lp, turned, Qp / 2, Qp / 2, Lp);
            interleave(g, rows, Qp, (int)H);
            gemm_add((bf16 *)turned, Qp, rows, H, into, H, Lp, (int)H, Qp);
        }
        release();
        free(scratch);
    }
}
#endif

#include "tree.c"
#include "linear.c"
