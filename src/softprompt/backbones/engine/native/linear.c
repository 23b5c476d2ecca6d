/* Products with a frozen weight on matrix tiles. Every element is added up in one order, whatever the number of rows, so a row's
 * result does not depend on the rows beside it; the libraries' own kernels change their order with the number of rows.
 * Included by kernels.c.
 *
 * Letters: M rows, N outputs, K inputs.
 */
#ifdef __AMX_BF16__

#define PANEL 32          /* columns of a result that are computed together */
#define HELD (1 << 20)    /* bytes of x that are read again for every panel: they stay in the core's own cache */

/* out[M, PANEL] = A[M, K] B, with B as pairs of its rows in a panel [K / 2][PANEL]; the last rows are copied to be filled up. */
static void panel_product(const bf16 *A, int64_t M, int64_t K, const uint32_t *B, bf16 *spare, bf16 *out, int64_t stride) {
    float tile[32 * PANEL] __attribute__((aligned(64)));
    for (int64_t m = 0; m < M; m += 32) {
        int rows = M - m < 32 ? (int)(M - m) : 32;
        const bf16 *from = A + m * K;
        if (rows < 32) {
            memcpy(spare, from, rows * K * sizeof(bf16));
            memset(spare + rows * K, 0, (32 - rows) * K * sizeof(bf16));
            from = spare;
        }
        gemm(from, K, B, PANEL, tile, PANEL, 32, PANEL, (int)K);
        for (int i = 0; i < rows; i++) {
            bf16 *to = out + (m + i) * stride;
            __m512i both = _mm512_inserti64x4(_mm512_castsi256_si512(narrow16(_mm512_load_ps(tile + i * PANEL))),
                                              narrow16(_mm512_load_ps(tile + i * PANEL + 16)), 1);
            _mm512_storeu_si512(to, both);
        }
    }
}

/* y[M, N] = x[M, K] W^T for W [N, K]. N and K are multiples of 32. */
void linear(const bf16 *x, const bf16 *W, bf16 *y, int64_t M, int64_t N, int64_t K, int threads) {
    int64_t some = HELD / (2 * K) / 32 * 32;
    some = some < 32 ? 32 : some;
#pragma omp parallel num_threads(threads)
    {
        char *scratch = aligned_alloc(64, (K * PANEL * 2 + 63) / 64 * 64 * 2 + 128), *at = scratch;
        uint32_t *panel = carve(&at, K * PANEL * 2);
        bf16 *spare = carve(&at, K * 32 * 2);
        configure();
        for (int64_t m = 0; m < M; m += some)
#pragma omp for schedule(static) nowait
            for (int64_t n = 0; n < N; n += PANEL) {
                transpose_words((const uint32_t *)(W + n * K), K / 2, panel, PANEL, PANEL, (int)(K / 2));
                panel_product(x + m * K, M - m < some ? M - m : some, K, panel, spare, y + m * N + n, N);
            }
        release();
        free(scratch);
    }
}
#endif
