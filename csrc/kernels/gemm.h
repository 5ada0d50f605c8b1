/* The one inner product of the fast kernels: a register tile over rows of any stride and packed columns.
 *
 * A long sum is cut into pieces of DEPTH terms at fixed places: each piece is summed in registers from zero, and the
 * pieces are added up in order. So a sum's bits depend on its own terms only, and its error grows with DEPTH and the
 * number of pieces instead of with their product. */

enum {
    DEPTH =
        256 * PAIR, /* terms of a piece: with COLUMNS of AVX2 one of packed columns fills half of a 32 KiB L1 cache */
    COLUMNS = 2 * LANES,
    BLOCK = ROWS * (96 / ROWS),                       /* rows that share a pass over the columns */
    STEP = V_TILED ? 16 : 1,                          /* words of a sum that are multiplied at once */
    ROWS_AHEAD = V_SET == V_AVX2 || V_SET == V_AVX512 /* whether they are fetched: measured on Zen 3 and a Xeon */
};

/* What a product does with c: c = a b; c += a b, where a b is summed from zero, as pieces are; or a b is added to it term by
 * term, as one sum that goes on. */
typedef enum gemm_sum { SUM_FIRST, SUM_PIECE, SUM_ON } gemm_sum;

/* Of the piece that begins with term l. */
V_INLINE gemm_sum sum_at(int64_t l) {
    return l == 0 ? SUM_FIRST : SUM_PIECE;
}

/* Words of packed columns, and of rows, for sums of this many terms: whole steps, filled up with zeros. */
V_INLINE int64_t packed_words(int64_t depth) {
    return df_round_up(df_blocks(depth, PAIR), STEP);
}

/* Where the term of row l and column k lies in packed columns of `depth` rows, which are
 * [columns / COLUMNS][packed_words(depth)][COLUMNS][PAIR]. */
V_INLINE int64_t packed_at(int64_t depth, int64_t l, int64_t k) {
    return (k / COLUMNS * packed_words(depth) + l / PAIR) * COLUMNS * PAIR + k % COLUMNS * PAIR + l % PAIR;
}

/* Where a step's blocks are fewer than threads, these share its columns, in multiples. Returns how many tasks that is. */
V_INLINE int64_t share_columns(df_call *call, int64_t blocks, int64_t multiple) {
    call->columns = df_round_up(call->out_channels, multiple);
    while (call->columns > multiple && blocks * df_blocks(call->out_channels, call->columns) < call->threads)
        call->columns = df_round_up(call->columns / 2, multiple);
    return blocks * df_blocks(call->out_channels, call->columns);
}

/* Whether a step's outputs go past the caches: 4 MiB of whole lines, which no cache keeps until they are read, and which are
 * then not read before they are written. */
V_INLINE bool streams(const df_call *call) {
    const int64_t values = call->images * call->out_height * call->out_width * call->out_channels;
    return STREAMS && values * (int64_t)sizeof(value) >= 4 << 20 && call->out_channels % CACHE_LINE == 0 &&
           (uintptr_t)call->output % 64 == 0;
}

#if V_AMX
#include "kernels/tiles.h"
#else
V_INLINE void tiles_open(void) {}
V_INLINE void tiles_close(void) {}
#endif

#if V_TILED
/* c[16 or 32][COLUMNS] (+)= a[16 or 32][depth] times packed columns. Depth: whole steps. */
V_INLINE void tile_gemm(const bool two, int64_t depth, const term *a, int64_t lda, const term *b, float *c, int64_t ldc,
                        gemm_sum goal) {
    const int64_t apart = lda * (int64_t)sizeof *a, wide = COLUMNS * PAIR * (int64_t)sizeof *b;
    const int64_t line = ldc * (int64_t)sizeof *c;
    TILES_BARRIER();
    if (goal == SUM_FIRST) {
        tile_zero(0);
        tile_zero(1);
        tile_zero(2);
        tile_zero(3);
    } else {
        tile_load(0, c, line);
        tile_load(1, c + TILE_ROWS, line);
        if (two) {
            tile_load(2, c + TILE_ROWS * ldc, line);
            tile_load(3, c + TILE_ROWS * ldc + TILE_ROWS, line);
        }
    }
    for (int64_t l = 0; l < depth; l += TILE_DEPTH, b += TILE_DEPTH * COLUMNS) {
        tile_load(4, a + l, apart);
        tile_load(6, b, wide);
        tile_dot(0, 4, 6);
        tile_load(7, b + TILE_DEPTH, wide);
        tile_dot(1, 4, 7);
        if (two) {
            tile_load(5, a + l + TILE_ROWS * lda, apart);
            tile_dot(2, 5, 6);
            tile_dot(3, 5, 7);
        }
    }
    tile_store(0, c, line);
    tile_store(1, c + TILE_ROWS, line);
    if (two) {
        tile_store(2, c + TILE_ROWS * ldc, line);
        tile_store(3, c + TILE_ROWS * ldc + TILE_ROWS, line);
    }
    TILES_BARRIER();
}

/* c[rows][COLUMNS] (+)= a[rows][depth] b[depth][COLUMNS]. There must be room for rows and c up to a multiple of ROWS, and
 * zeros in rows up to whole steps. */
static void gemm(int64_t rows, int64_t depth, const term *a, int64_t lda, const term *b, float *c, int64_t ldc,
                 gemm_sum goal, const term *next) {
    (void)next; /* the hardware keeps up */
    const int64_t filled = packed_words(depth) * PAIR;
    for (int64_t r = 0; r < rows; r += ROWS, a += ROWS * lda, c += ROWS * ldc)
        if (rows - r > TILE_ROWS)
            tile_gemm(true, filled, a, lda, b, c, ldc, goal);
        else
            tile_gemm(false, filled, a, lda, b, c, ldc, goal);
}
#else
/* Hides how a pointer came about. Left alone, gcc 12 keeps one pointer for each row of the tile, more than there are
 * registers; like this there is one for three rows, which differ by 0, 1 and 2 times the stride. */
#define V_KEEP(pointer) __asm__("" : "+r"(pointer))

/* c[rows][COLUMNS] (+)= a[rows][depth] b[depth][COLUMNS], as `goal` says; rows is a constant where this is inlined. From
 * `next` on, `step` bytes for each word of the depth are fetched on the way, into the second cache, for the first is full:
 * one at a time, since a burst of them fills the queue that everything else waits in. The next rows may be fetched too:
 * all of them where no other terms lie between them, else a part. */
V_INLINE void gemm_rows(const int rows, int64_t depth, const term *a, int64_t lda, const term *b, float *c, int64_t ldc,
                        gemm_sum goal, const char *next, int64_t step) {
    enum { GROUPS = (ROWS + 2) / 3 };
    vf sum[ROWS][2];
    const term *row[GROUPS];
    const int groups = (rows + 2) / 3;
    const term *ahead = a + rows * lda;
    V_UNROLL for (int g = 0; g < groups; g++) row[g] = a + 3 * g * lda;
    V_UNROLL for (int r = 0; r < rows; r++) {
        sum[r][0] = goal == SUM_ON ? v_load(c + r * ldc) : v_set(0);
        sum[r][1] = goal == SUM_ON ? v_load(c + r * ldc + LANES) : v_set(0);
    }
    for (int64_t l = 0; l < depth; l += PAIR) {
        const vf b0 = v_words(b), b1 = v_words(b + LANES * PAIR);
        __builtin_prefetch(next, 0, 2);
        next += step;
        if (ROWS_AHEAD) {
            __builtin_prefetch(ahead, 0, 2);
            ahead += rows * PAIR;
        }
        V_UNROLL for (int r = 0; r < rows; r++) {
            const vf x = v_word(row[r / 3] + r % 3 * lda);
            sum[r][0] = v_dot(x, b0, sum[r][0]);
            sum[r][1] = v_dot(x, b1, sum[r][1]);
        }
        V_UNROLL for (int g = 0; g < groups; g++) {
            row[g] += PAIR;
            V_KEEP(row[g]);
        }
        b += COLUMNS * PAIR;
    }
    V_UNROLL for (int r = 0; r < rows; r++) {
        v_store(c, goal == SUM_PIECE ? v_load(c) + sum[r][0] : sum[r][0]);
        v_store(c + LANES, goal == SUM_PIECE ? v_load(c + LANES) + sum[r][1] : sum[r][1]);
        c += ldc;
    }
}

/* The same for any number of rows. Where a few are left over, too few to keep both arithmetic units busy, the last two
 * tiles share their rows. `next` are the columns that will be read after these: they are fetched on the way, a share
 * with each tile, because they are too many for the hardware to guess in time. (A single small tile does not wait for
 * its columns to be used again, and the hardware keeps up.) NULL: none. */
static void gemm(int64_t rows, int64_t depth, const term *a, int64_t lda, const term *b, float *c, int64_t ldc,
                 gemm_sum goal, const term *next) {
    const int64_t words = df_blocks(depth, PAIR);
    const bool fetch = next && rows >= ROWS;
    const int64_t step = fetch ? df_blocks(COLUMNS * PAIR * sizeof *b, df_blocks(rows, ROWS)) : 0;
    const char *at = (const char *)(fetch ? next : b);
    for (int64_t tile; rows > 0; rows -= tile, a += tile * lda, c += tile * ldc, at += step * words) {
        tile = rows >= 2 * ROWS || rows == ROWS ? ROWS : rows > ROWS ? (rows + 1) / 2 : rows;
        /* clang-format off */
#define GEMM_ROWS(n) case n: gemm_rows(n, depth, a, lda, b, c, ldc, goal, at, step); break;
        switch (tile) {
        GEMM_ROWS(1) GEMM_ROWS(2) GEMM_ROWS(3) GEMM_ROWS(4) GEMM_ROWS(5) GEMM_ROWS(6)
#if V_ROWS > 6
        GEMM_ROWS(7) GEMM_ROWS(8) GEMM_ROWS(9) GEMM_ROWS(10) GEMM_ROWS(11) GEMM_ROWS(12) GEMM_ROWS(13) GEMM_ROWS(14)
#endif
        default: break;
        }
#undef GEMM_ROWS
        /* clang-format on */
    }
}
#endif

/* Values to terms. */
V_INLINE void copy_terms(term *to, const value *from, int64_t count) {
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES)
        v_store_terms(to + i, v_read(from + i));
    if (i < count)
        v_store_terms_n(to + i, v_read_n(from + i, count - i), count - i);
}

V_INLINE void clear_terms(term *to, int64_t count) {
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES)
        v_store_terms(to + i, v_set(0));
    if (i < count)
        v_store_terms_n(to + i, v_set(0), count - i);
}
