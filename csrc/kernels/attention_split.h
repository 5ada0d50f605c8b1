/* The same attention with its products in tiles (split.h): for some queries of a head, scores with 16 keys at a time, their
 * softmax, whose parts are rows again, and the values' weighted sums. */

enum {
    SPLIT_QUERIES = SUMS * TILE_ROWS,
    /* Terms of a part of them, and floats of their scores: a cache line more, or they would share cache sets. */
    SPLIT_PART = SPLIT_QUERIES * SPLIT_STEP + SPLIT_STEP,
    SPLIT_SCORES = SUMS * SPLIT_SUMS + TILE_ROWS
};

/* Whether it is worth it: a tile is 16 queries, and 16 keys. */
static bool split_attention_fits(const df_call *call) {
    return attention_positions(call) >= SPLIT_QUERIES && call->channels / call->parts >= SPLIT_STEP;
}

typedef struct split_attention_scratch {
    tile_term *keys;    /* columns: [positions / 16][channels / 32][part] of tiles */
    tile_term *values;  /* columns: [channels / 16][positions / 32][part] of tiles */
    tile_term *queries; /* rows: [channels / 32][part] of SPLIT_PART */
    tile_term *weights; /* rows: [positions / 32][part] of SPLIT_PART */
    float *scores;      /* [positions / 16] of SPLIT_SCORES: [SUMS][16][16] */
    float *sums;        /* [SUMS][16][16] */
    float *total;       /* [SPLIT_QUERIES] of the exponentials */
    float *spare;
} split_attention_scratch;

static tile_term *split_attention_take(float **at, int64_t tiles) {
    return (tile_term *)attention_take(at, tiles * PARTS * TILE_TERMS / TILE_PAIR);
}

/* Lays the arrays out in memory and returns the bytes they take. */
static size_t split_attention_layout(const df_call *call, float *memory, split_attention_scratch *s) {
    const int64_t steps = df_blocks(attention_positions(call), SPLIT_STEP), dim = call->channels / call->parts;
    const int64_t deep = df_blocks(dim, SPLIT_STEP);
    float *at = memory;
    s->keys = split_attention_take(&at, 2 * steps * deep);
    s->values = split_attention_take(&at, df_blocks(dim, TILE_ROWS) * steps);
    s->queries = (tile_term *)attention_take(&at, deep * PARTS * SPLIT_PART / TILE_PAIR);
    s->weights = (tile_term *)attention_take(&at, steps * PARTS * SPLIT_PART / TILE_PAIR);
    s->scores = attention_take(&at, 2 * steps * SPLIT_SCORES);
    s->sums = attention_take(&at, SUMS * SPLIT_SUMS);
    s->total = attention_take(&at, SPLIT_QUERIES);
    s->spare = attention_take(&at, SPLIT_SUMS);
    return (size_t)(at - memory) * sizeof(float);
}

static size_t split_attention_bytes(const df_call *call) {
    split_attention_scratch s;
    static float origin[1]; /* only differences are used */
    return split_attention_layout(call, origin, &s);
}

/* The first of n floats, and zeros: n may be anything. */
V_INLINE vf split_attention_load(const float *from, int64_t n) {
    return n > 0 ? v_load_n(from, df_min(LANES, n)) : v_set(0);
}

static void split_attention_pack(const df_call *call, const float *k, const float *v,
                                 const split_attention_scratch *s) {
    const int64_t positions = attention_positions(call), dim = call->channels / call->parts;
    const int64_t steps = df_blocks(positions, SPLIT_STEP), deep = df_blocks(dim, SPLIT_STEP);
    for (int64_t j = 0; j < steps * SPLIT_STEP; j++) /* a key is a column of words */
        for (int64_t i = 0; i < deep; i++) {
            const int64_t n = j < positions ? dim - i * SPLIT_STEP : 0;
            const float *from = k + j * call->pitch[1] + i * SPLIT_STEP;
            tile_term *to = s->keys + ((j / TILE_ROWS * deep + i) * PARTS) * TILE_TERMS + j % TILE_ROWS * TILE_PAIR;
            tile_term row[PARTS][SPLIT_STEP];
            split_store(row[0], SPLIT_STEP, split_attention_load(from, n),
                        split_attention_load(from + LANES, n - LANES), true);
            for (int part = 0; part < PARTS; part++)
                for (int64_t w = 0; w < TILE_ROWS; w++)
                    memcpy(to + part * TILE_TERMS + w * SPLIT_STEP, row[part] + w * TILE_PAIR, TILE_PAIR * sizeof *to);
        }
    for (int64_t i = 0; i < dim; i += TILE_ROWS)
        for (int64_t j = 0; j < steps * TILE_ROWS; j++) { /* word j of the columns: positions 16 apart */
            const int64_t at = j / TILE_ROWS * SPLIT_STEP + j % TILE_ROWS;
            vf pair[2];
            for (int64_t half = 0; half < 2; half++) {
                const int64_t position = at + half * TILE_ROWS;
                pair[half] =
                    split_attention_load(v + position * call->pitch[2] + i, position < positions ? dim - i : 0);
            }
            split_store(s->values + (i / TILE_ROWS * steps + j / TILE_ROWS) * SPLIT_COLUMNS +
                            j % TILE_ROWS * SPLIT_STEP,
                        TILE_TERMS, pair[0], pair[1], true);
        }
}

/* The scores of one query -> the parts of exp(scale (score - largest)); returns their sum. */
static float split_attention_softmax(float *scores, int64_t positions, float scale, tile_term *to) {
    const int64_t tiles = 2 * df_blocks(positions, SPLIT_STEP);
    for (int64_t j = positions; j < tiles * TILE_ROWS; j++)
        scores[j / TILE_ROWS * SPLIT_SCORES + j % TILE_ROWS] = -INFINITY; /* next to nothing, of values that are 0 */
    vf largest = v_set(-INFINITY), sum = v_set(0);
    for (int64_t j = 0; j < tiles; j++)
        largest = v_max(largest, v_load(scores + j * SPLIT_SCORES));
    const vf most = v_set(v_largest(largest)), factor = v_set(scale);
    for (int64_t j = 0; j < tiles; j += 2, to += PARTS * SPLIT_PART) {
        const vf low = exp_negative_in_sum((v_load(scores + j * SPLIT_SCORES) - most) * factor);
        const vf high = exp_negative_in_sum((v_load(scores + (j + 1) * SPLIT_SCORES) - most) * factor);
        split_store(to, SPLIT_PART, low, high, false);
        sum += low + high;
    }
    return v_sum(sum);
}

/* Up to SPLIT_QUERIES of them. */
static void split_attention_queries(const df_call *call, const float *q, int64_t rows, const float *residual,
                                    float *out, const split_attention_scratch *s) {
    const int64_t positions = attention_positions(call), c = call->channels, dim = c / call->parts, none = 0;
    const int64_t steps = df_blocks(positions, SPLIT_STEP), deep = df_blocks(dim, SPLIT_STEP);
    const int64_t starts[SUMS] = {0, TILE_TERMS, 2 * TILE_TERMS, 3 * TILE_TERMS}, tiles = df_blocks(rows, TILE_ROWS);
    split_columns of = {.b = s->keys,
                        .steps = deep,
                        .taps = 1,
                        .tap = &none,
                        .step_apart = PARTS * SPLIT_PART,
                        .part_apart = SPLIT_PART};
    for (int64_t i = 0; i < deep; i++)
        for (int64_t r = 0; r < rows; r++) {
            const float *from = q + r * call->pitch[0] + i * SPLIT_STEP;
            const int64_t n = dim - i * SPLIT_STEP;
            split_store(s->queries + i * of.step_apart + r * SPLIT_STEP, of.part_apart, split_attention_load(from, n),
                        split_attention_load(from + LANES, n - LANES), false);
        }
    for (int64_t j = 0; j < 2 * steps; j++, of.b += deep * SPLIT_COLUMNS)
        split_gemm(s->queries, starts, tiles, &of, s->scores + j * SPLIT_SCORES, s->spare);
    for (int64_t r = 0; r < rows; r++)
        s->total[r] = split_attention_softmax(s->scores + r * TILE_ROWS, positions, (float)(1.0 / sqrt((double)dim)),
                                              s->weights + r * SPLIT_STEP);
    of.b = s->values, of.steps = steps;
    for (int64_t i = 0; i < dim; i += TILE_ROWS, of.b += steps * SPLIT_COLUMNS) {
        const int64_t n = df_min(LANES, dim - i);
        split_gemm(s->weights, starts, tiles, &of, s->sums, s->spare);
        for (int64_t r = 0; r < rows; r++) {
            vf v = v_load(s->sums + r * TILE_ROWS) / v_set(s->total[r]);
            if (residual)
                v += v_load_n(residual + r * c + i, n);
            v_store_n(out + r * c + i, v, n);
        }
    }
}

static void split_attention_run(const df_call *call, int64_t task, void *scratch) {
    split_attention_scratch s;
    split_attention_layout(call, scratch, &s);
    const attention_part part = attention_part_of(call, task);
    const int64_t c = call->channels;
    tiles_open();
    split_attention_pack(call, part.k, part.v, &s);
    for (int64_t query = 0; query < part.queries; query += SPLIT_QUERIES)
        split_attention_queries(call, part.q + query * call->pitch[0], df_min(SPLIT_QUERIES, part.queries - query),
                                part.residual ? part.residual + query * c : NULL, part.output + query * c, &s);
    tiles_close();
}

static size_t any_attention_bytes(const df_call *call) {
    return split_attention_fits(call) ? split_attention_bytes(call) : attention_bytes(call);
}

static void any_attention_run(const df_call *call, int64_t task, void *scratch) {
    (split_attention_fits(call) ? split_attention_run : attention_run)(call, task, scratch);
}
