/* What conv3x3.h multiplies: bfloat16, as it is. */

typedef term patch_item;
typedef float run_sum;

enum {
    PATCH_DEPTH = TILE_DEPTH, /* channels of a step */
    RUN_TILES = 6,            /* of sums at a time: one of pixels and one of weights are left */
    RUN = RUN_TILES * TILE_ROWS,
    RUN_SUMS = RUN * TILE_ROWS,
    TAP_ITEMS = TILE_TERMS, /* of the weights for 16 outputs, at one tap of one step */
    ROWS_APART = 4 * TILE_ROWS,
    AWAKE = 9 /* taps for each store of a tile, at most */
};
#define EACH_RUN(of) of(1) of(2) of(3) of(4) of(5) of(6)

/* Channel i of a step, of output k. */
static void column_put(patch_item *tap, int64_t i, int64_t k, float weight) {
    tap[(i / PAIR * TILE_ROWS + k) * PAIR + i % PAIR] = to_term(weight);
}

#define EACH_TILE(what) what(0) what(1) what(2) what(3) what(4) what(5)
V_INLINE void run_begin(const int tiles) {
#define ZERO(t)                                                                                                        \
    if (t < tiles)                                                                                                     \
        tile_zero(t);
    EACH_TILE(ZERO)
#undef ZERO
}

/* One tap of a step, in two halves: so many sums that each tile of weights, which comes from further away, is used often. */
#define DOT(t)                                                                                                         \
    if (t < tiles) {                                                                                                   \
        tile_load(6, a + at[t], pitch * (int64_t)sizeof *a);                                                           \
        tile_dot(t, 6, 7);                                                                                             \
    }
V_INLINE void run_first(const int tiles, const patch_item *a, const int64_t at[RUN_TILES], int64_t pitch,
                        const patch_item *b) {
    tile_load(7, b, ROWS_APART);
    DOT(0)
    DOT(1)
    DOT(2)
}
V_INLINE void run_second(const int tiles, const patch_item *a, const int64_t at[RUN_TILES],
                         int64_t pitch){DOT(3) DOT(4) DOT(5)}
#undef DOT

V_INLINE void run_end(const int tiles, run_sum *sums) {
#define STORE(t)                                                                                                       \
    if (t < tiles)                                                                                                     \
        tile_store(t, sums + t * TILE_ROWS * TILE_ROWS, ROWS_APART);
    EACH_TILE(STORE)
#undef STORE
}
#undef EACH_TILE

/* 16 outputs of a pixel, but for what is added to them. */
V_INLINE vf run_value(const run_sum *sums) {
    return v_load(sums);
}
