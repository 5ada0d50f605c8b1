/* Products of floats in tiles of bfloat16. A float is the sum of three of them, each with 8 of its 24 bits, exactly. Of the
 * nine products of the parts of two floats six count: the other three are at most 2^-22 of the whole together, and as the
 * parts of one side are rounded to nearest, of either sign. So a sum is as exact as one of floats (more: a tile adds 32
 * products before it rounds a sum), in 6 times 16 cycles for 8192 products.
 *
 * Rows lie in steps of 32 channels, [step][part][row][32], so that 16 rows that follow each other are a tile without
 * gaps. In its words are the channels i and i + 16 of the step. Columns: [step][tap][part] of tiles. */

enum {
    PARTS = 3,
    PRODUCTS = 6,
    SPLIT_STEP = TILE_DEPTH,            /* channels of a step */
    SUMS = 4,                           /* tiles of sums at a time: three of columns and one of rows are left */
    SPLIT_COLUMNS = PARTS * TILE_TERMS, /* terms of 16 columns for one step and tap */
    SPLIT_SUMS = TILE_ROWS * TILE_ROWS  /* floats */
};

/* The parts of 32 values from two vectors, as words. `apart`: terms from a part to the next. rounded: each part is the
 * nearest one, as columns need it; else the next one towards zero, which is quicker. */
V_INLINE void split_store(tile_term *to, int64_t apart, vf low, vf high, const bool rounded) {
    const vu mask = (vu)v_set(0) + 0xffff0000U;
    V_UNROLL for (int part = 0; part < PARTS; part++, to += apart) {
        const vu a = rounded ? v_rounded(low) : (vu)low, b = rounded ? v_rounded(high) : (vu)high;
        const vu words = (a >> 16) | (b & mask);
        memcpy(to, &words, sizeof words);
        low -= (vf)(a & mask);
        high -= (vf)(b & mask);
    }
}

/* Where the first part of channel i (of a step) and column k lies in a tile of columns. */
V_INLINE int64_t split_at(int64_t i, int64_t k) {
    return (i % TILE_ROWS * TILE_ROWS + k) * TILE_PAIR + i / TILE_ROWS;
}

/* What the rows are multiplied with. */
typedef struct split_columns {
    const tile_term *b, *next; /* `next`: what will be read after these, to be fetched on the way; NULL: nothing */
    int64_t steps, taps;
    const int64_t *tap;             /* terms from a tile's first row to those of each tap */
    int64_t step_apart, part_apart; /* terms of the rows */
    void (*beside)(
        void *context); /* called for each step and tap of SUMS tiles: what there is to do while they are busy */
    void *context;
} split_columns;

/* 16 sums of `tiles` x 16 rows, which begin at a[..]. Products of the same parts go through all tiles before the next ones,
 * for a tile's sum takes 52 cycles until it can be added to again. */
V_INLINE void split_tiles(const int tiles, const split_columns *of, const tile_term *const a[SUMS], const char *next,
                          int64_t share, float *sums, float *spare) {
    enum { LINE = 4 * TILE_ROWS };
    const tile_term *b = of->b;
    int64_t offset = 0;
    TILES_BARRIER();
#define SPLIT_EACH(what, ...) what(0, __VA_ARGS__) what(1, __VA_ARGS__) what(2, __VA_ARGS__) what(3, __VA_ARGS__)
#define SPLIT_ZERO(t, unused)                                                                                          \
    if (t < tiles)                                                                                                     \
        tile_zero(t);
#define SPLIT_DOT(t, part, columns)                                                                                    \
    if (t < tiles) {                                                                                                   \
        tile_load(7, a[t] + at + part * of->part_apart, LINE);                                                         \
        tile_dot(t, 7, columns);                                                                                       \
        __builtin_prefetch(next, 0, 2);                                                                                \
        next += share;                                                                                                 \
    }
#define SPLIT_STORE(t, unused)                                                                                         \
    if (t < tiles)                                                                                                     \
        tile_store(t, sums + t * SPLIT_SUMS, LINE);
    SPLIT_EACH(SPLIT_ZERO, 0)
    for (int64_t step = 0; step < of->steps; step++, offset += of->step_apart)
        for (int64_t tap = 0; tap < of->taps; tap++, b += SPLIT_COLUMNS) {
            const int64_t at = offset + of->tap[tap];
            tile_load(4, b, LINE);
            SPLIT_EACH(SPLIT_DOT, 2, 4)
            SPLIT_EACH(SPLIT_DOT, 1, 4)
            tile_load(5, b + TILE_TERMS, LINE);
            SPLIT_EACH(SPLIT_DOT, 1, 5)
            SPLIT_EACH(SPLIT_DOT, 0, 5)
            tile_load(6, b + 2 * TILE_TERMS, LINE);
            SPLIT_EACH(SPLIT_DOT, 0, 6)
            SPLIT_EACH(SPLIT_DOT, 0, 4)
            tile_store(7, spare, LINE); /* the way to memory must not fall asleep: conv3x3.h */
            if (of->beside)
                of->beside(of->context);
        }
    SPLIT_EACH(SPLIT_STORE, 0)
#undef SPLIT_EACH
#undef SPLIT_ZERO
#undef SPLIT_DOT
#undef SPLIT_STORE
    TILES_BARRIER();
}

/* sums[tile][16 rows][16 columns] of any number of tiles, in groups of about the same size. starts: of each tile's rows. */
static void split_gemm(const tile_term *rows, const int64_t *starts, int64_t tiles, const split_columns *of,
                       float *sums, float *spare) {
    const int64_t groups = df_blocks(tiles, SUMS), products = of->steps * of->taps * PRODUCTS;
    const int64_t bytes = SPLIT_COLUMNS * (int64_t)sizeof *of->b; /* for each step and tap */
    const int64_t share = of->next ? df_blocks(bytes, PRODUCTS * tiles) : 0;
    const char *next = (const char *)(of->next ? of->next : of->b);
    for (int64_t group = 0; group < groups; group++) {
        const int64_t first = tiles * group / groups, count = tiles * (group + 1) / groups - first;
        const tile_term *a[SUMS];
        for (int64_t t = 0; t < SUMS; t++)
            a[t] = rows + starts[first + df_min(t, count - 1)];
            /* clang-format off */
#define SPLIT_TILES(n) case n: split_tiles(n, of, a, next, share, sums + first * SPLIT_SUMS, spare); break;
        switch (count) {
        SPLIT_TILES(1) SPLIT_TILES(2) SPLIT_TILES(3) SPLIT_TILES(4)
        default: break;
        }
#undef SPLIT_TILES
        /* clang-format on */
        next += products * count * share;
    }
}
