/* The one inner product of the fast kernels: a register tile over a panel of rows and packed columns.
 *
 * A long sum is cut into pieces of DEPTH terms at fixed places: each piece is summed in registers from zero, and the
 * pieces are added up in order. So a sum's bits depend on its own terms only, and its error grows with DEPTH and the
 * number of pieces instead of with their product. */

enum {
    DEPTH = 128, /* terms of a piece; also the row stride of a panel, which makes its addresses constants */
    COLUMNS = 2 * LANES,
    BLOCK = ROWS * (112 / ROWS) /* rows that share a pass over the columns: a panel of 56 KiB stays in L2 */
};

/* c[rows][COLUMNS] (+)= a[rows][depth] b[depth][COLUMNS]; rows is a constant where this is inlined. */
V_INLINE void gemm_rows(const int rows, int64_t depth, const float *a, const float *b, float *c, int64_t ldc,
                        bool first) {
    vf sum[ROWS][2];
    V_UNROLL for (int r = 0; r < rows; r++) sum[r][0] = sum[r][1] = v_set(0);
    for (int64_t l = 0; l < depth; l++) {
        const vf b0 = v_load(b), b1 = v_load(b + LANES);
        V_UNROLL for (int r = 0; r < rows; r++) {
            const vf x = v_set(a[r * DEPTH]);
            sum[r][0] = v_fma(x, b0, sum[r][0]);
            sum[r][1] = v_fma(x, b1, sum[r][1]);
        }
        a++;
        b += COLUMNS;
    }
    V_UNROLL for (int r = 0; r < rows; r++) {
        v_store(c, first ? sum[r][0] : v_load(c) + sum[r][0]);
        v_store(c + LANES, first ? sum[r][1] : v_load(c + LANES) + sum[r][1]);
        c += ldc;
    }
}

/* The same for any number of rows. */
static void gemm(int64_t rows, int64_t depth, const float *a, const float *b, float *c, int64_t ldc, bool first) {
    for (; rows >= ROWS; rows -= ROWS, a += ROWS * DEPTH, c += ROWS * ldc)
        gemm_rows(ROWS, depth, a, b, c, ldc, first);
        /* clang-format off */
#define GEMM_REST(n) case n: gemm_rows(n, depth, a, b, c, ldc, first); break;
    switch (rows) {
    GEMM_REST(1) GEMM_REST(2) GEMM_REST(3) GEMM_REST(4) GEMM_REST(5)
#if V_SET == V_AVX512
    GEMM_REST(6) GEMM_REST(7) GEMM_REST(8) GEMM_REST(9) GEMM_REST(10) GEMM_REST(11) GEMM_REST(12) GEMM_REST(13)
#endif
    default: break;
    }
#undef GEMM_REST
    /* clang-format on */
}

V_INLINE void copy_floats(float *to, const float *from, int64_t count) {
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES)
        v_store(to + i, v_load(from + i));
    if (i < count)
        v_store_n(to + i, v_load_n(from + i, count - i), count - i);
}

V_INLINE void clear_floats(float *to, int64_t count) {
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES)
        v_store(to + i, v_set(0));
    if (i < count)
        v_store_n(to + i, v_set(0), count - i);
}
