/* The same attention with its products in digits (run_digits.h). For some queries of a head, scores with 16 keys at a time,
 * their softmax, whose exponentials are rows again, and the values' weighted sums. Each query, each key and each channel of
 * the values has a unit of its own; that of the exponentials is the same for all, for the largest of each query is 1. */

typedef struct digit_attention {
    int64_t positions, dim;
    int64_t channel_steps, position_steps; /* of PATCH_DEPTH */
    int64_t query_pitch, weight_pitch;     /* items from a row to the next: three planes, an odd number of lines */
    patch_item *keys;                      /* columns: [positions / 16][channel_steps] of tiles */
    patch_item *values;                    /* columns: [dim / 16][position_steps] of tiles */
    patch_item *queries, *weights;         /* rows: [RUN] of each */
    float *key_units, *value_units;
    float *row_units; /* [RUN]: of the queries, then of their exponentials over the sum of them */
    float *scores;    /* [RUN][positions, filled up to whole vectors, and one more] */
    run_sum *sums[2]; /* in turn */
} digit_attention;

/* Whether it is worth it: a tile is 16 queries, and 16 keys, and with few of either their digits cost as much. */
static bool digit_attention_fits(const df_call *call) {
    const int64_t positions = attention_positions(call);
    return positions >= 4 * TILE_ROWS && positions <= DIGIT_TERMS && call->channels / call->parts >= PATCH_DEPTH / 2;
}

static int64_t digit_attention_pitch(int64_t steps) {
    return (PLANES * steps | 1) * PATCH_DEPTH;
}

static int64_t digit_attention_line(const digit_attention *s) {
    return df_round_up(s->positions, LANES) + LANES;
}

static patch_item *digit_attention_take(float **at, int64_t items) {
    return (patch_item *)attention_take(at, items / (int64_t)sizeof(float));
}

/* Lays the arrays out in memory and returns the bytes they take. */
static size_t digit_attention_layout(const df_call *call, float *memory, digit_attention *s) {
    float *at = memory;
    s->positions = attention_positions(call), s->dim = call->channels / call->parts;
    s->channel_steps = df_blocks(s->dim, PATCH_DEPTH), s->position_steps = df_blocks(s->positions, PATCH_DEPTH);
    s->query_pitch = digit_attention_pitch(s->channel_steps);
    s->weight_pitch = digit_attention_pitch(s->position_steps);
    s->keys = digit_attention_take(&at, df_blocks(s->positions, TILE_ROWS) * s->channel_steps * TAP_ITEMS);
    s->values = digit_attention_take(&at, df_blocks(s->dim, TILE_ROWS) * s->position_steps * TAP_ITEMS);
    s->queries = digit_attention_take(&at, RUN * s->query_pitch);
    s->weights = digit_attention_take(&at, RUN * s->weight_pitch);
    s->key_units = attention_take(&at, df_round_up(s->positions, TILE_ROWS));
    s->value_units = attention_take(&at, df_round_up(s->dim, TILE_ROWS));
    s->row_units = attention_take(&at, RUN);
    s->scores = attention_take(&at, RUN * digit_attention_line(s));
    for (int turn = 0; turn < 2; turn++)
        s->sums[turn] = (run_sum *)attention_take(&at, RUN_SUMS);
    return (size_t)(at - memory) * sizeof(float);
}

static size_t digit_attention_bytes(const df_call *call) {
    digit_attention s;
    static float origin[1]; /* only differences are used */
    return digit_attention_layout(call, origin, &s);
}

/* A row of `count` values; returns its unit. */
static float digit_attention_row(const float *from, int64_t count, int64_t plane, patch_item *to) {
    const row_part part = {from, count};
    const float unit = row_unit(&part, 1);
    const int64_t i = df_round_up(count, LANES);
    patch_put_row(to, plane, from, count, v_set(1 / unit));
    for (int64_t digit = 0; digit < PLANES && i < plane; digit++)
        memset(to + digit * plane + i, 0, (size_t)(plane - i));
    return unit;
}

/* A key is a column: its digits go there in words of four channels. */
static void digit_attention_keys(const df_call *call, const float *k, const digit_attention *s) {
    const int64_t plane = s->channel_steps * PATCH_DEPTH;
    for (int64_t j = 0; j < df_round_up(s->positions, TILE_ROWS); j++) {
        patch_item *row = s->queries; /* not yet in use */
        patch_item *to = s->keys + j / TILE_ROWS * s->channel_steps * TAP_ITEMS + j % TILE_ROWS * 4;
        s->key_units[j] = 0;
        if (j < s->positions)
            s->key_units[j] = digit_attention_row(k + j * call->pitch[1], s->dim, plane, row);
        else
            memset(row, 0, (size_t)(PLANES * plane));
        for (int64_t step = 0; step < s->channel_steps; step++, to += TAP_ITEMS)
            for (int64_t digit = 0; digit < PLANES; digit++)
                for (int64_t word = 0; word < TILE_ROWS; word++)
                    memcpy(to + digit * TILE_ITEMS + word * ROWS_APART,
                           row + digit * plane + step * PATCH_DEPTH + word * 4, 4);
    }
}

/* 16 channels of the values are columns: words of four positions. */
static void digit_attention_values(const df_call *call, const float *v, const digit_attention *s) {
    const int64_t pitch = call->pitch[2], dim = s->dim;
    float *units = s->value_units;
    for (int64_t i = 0; i < dim; i += LANES)
        v_store(units + i, v_set(digits_least));
    for (int64_t j = 0; j < s->positions; j++)
        for (int64_t i = 0; i < dim; i += LANES) {
            const vf x = v_load_n(v + j * pitch + i, df_min(LANES, dim - i)), most = v_load(units + i);
            __builtin_prefetch(v + j * pitch + i + READ_AHEAD, 0, 2);
            v_store(units + i, v_fma(x, v_set(0), v_max(-v_negative_abs(x), most))); /* NaN once x is not finite */
        }
    for (int64_t i = 0; i < dim; i += LANES)
        v_store(units + i, v_load(units + i) / v_set(digits_most));
    for (int64_t j = 0; j < s->position_steps * PATCH_DEPTH; j += 4)
        for (int64_t i = 0; i < dim; i += LANES) {
            patch_item *to = s->values + (i / TILE_ROWS * s->position_steps + j / PATCH_DEPTH) * TAP_ITEMS +
                             j % PATCH_DEPTH / 4 * ROWS_APART;
            const vf scale = v_set(1) / v_load(units + i);
            vu whole[4];
            V_UNROLL for (int64_t l = 0; l < 4; l++) whole[l] = digits_whole(
                j + l < s->positions ? v_load_n(v + (j + l) * pitch + i, df_min(LANES, dim - i)) : v_set(0), scale);
            V_UNROLL for (int digit = 0; digit < PLANES; digit++) {
                const int down = 8 * (PLANES - 1 - digit);
                const vu words = ((whole[0] >> down & 255U) | (whole[1] >> down & 255U) << 8 |
                                  (whole[2] >> down & 255U) << 16 | (whole[3] >> down & 255U) << 24) ^
                                 0x80808080U;
                memcpy(to + digit * TILE_ITEMS, &words, sizeof words);
            }
        }
}

/* Rows of sums that are left to do, of 16 columns: to [..][pitch]. */
typedef struct digit_attention_rest {
    int64_t row, rows, n, pitch;
    const run_sum *sums;
    const float *units, *row_units, *residual;
    float *to;
} digit_attention_rest;

/* The next `count` of them. */
V_INLINE void digit_attention_finish(digit_attention_rest *rest, int64_t count) {
    const int64_t end = df_min(rest->row + count, rest->rows), n = rest->n;
    if (rest->row >= end)
        return;
    const vf units = v_load(rest->units) * v_set(sums_unit);
    for (int64_t r = rest->row; r < end; r++) {
        vf v = run_value(rest->sums + r * TILE_ROWS) * units * v_set(rest->row_units[r]);
        if (rest->residual)
            v += v_load_n(rest->residual + r * rest->pitch, n);
        v_store_n(rest->to + r * rest->pitch, v, n);
    }
    rest->row = end;
}

/* Sums of `tiles` x 16 rows and 16 columns, and beside them what is left of those before. */
V_INLINE void digit_attention_sums(const int tiles, const patch_item *a, int64_t pitch, int64_t steps,
                                   const patch_item *b, digit_attention_rest *before, run_sum *sums) {
    const int64_t plane = steps * PATCH_DEPTH, at[RUN_TILES] = {0, TILE_ROWS * pitch}, share = df_blocks(RUN, steps);
    TILES_BARRIER();
    run_begin(tiles);
    for (int64_t step = 0; step < steps; step++, a += PATCH_DEPTH, b += TAP_ITEMS) {
        run_first(tiles, a, at, pitch, plane, b);
        digit_attention_finish(before, share);
        run_second(tiles, a, at, pitch, plane, b);
    }
    run_end(tiles, sums);
    TILES_BARRIER();
}

/* All columns for some rows. first: what is left of the first 16. */
static void digit_attention_multiply(const patch_item *a, int64_t pitch, int64_t steps, const patch_item *b,
                                     int64_t columns, digit_attention_rest first, const digit_attention *s) {
    digit_attention_rest before = {0};
    for (int64_t i = 0; i < columns; i += TILE_ROWS, b += steps * TAP_ITEMS) {
        run_sum *sums = s->sums[i / TILE_ROWS % 2];
        if (first.rows > TILE_ROWS)
            digit_attention_sums(2, a, pitch, steps, b, &before, sums);
        else
            digit_attention_sums(1, a, pitch, steps, b, &before, sums);
        before = first;
        before.sums = sums, before.n = df_min(TILE_ROWS, columns - i);
        before.units += i, before.to += i;
        if (before.residual)
            before.residual += i;
    }
    digit_attention_finish(&before, RUN);
}

/* The scores of one query -> the digits of exp(scale (score - largest)); returns their sum. */
static float digit_attention_softmax(float *scores, float scale, patch_item *to, const digit_attention *s) {
    const int64_t end = df_round_up(s->positions, LANES), plane = s->position_steps * PATCH_DEPTH;
    for (int64_t j = s->positions; j < end; j++)
        scores[j] = -INFINITY; /* next to nothing, of values that are 0 */
    vf largest = v_set(-INFINITY), sum = v_set(0);
    for (int64_t j = 0; j < end; j += LANES)
        largest = v_max(largest, v_load(scores + j));
    const vf most = v_set(v_largest(largest)), factor = v_set(scale);
    int64_t j = 0;
    for (; j + PATCH_DEPTH <= end; j += PATCH_DEPTH) {
        vf step[PATCH_DEPTH / LANES];
        V_UNROLL for (int v = 0; v < PATCH_DEPTH / LANES; v++) step[v] =
            exp_negative_in_sum((v_load(scores + j + v * LANES) - most) * factor);
        patch_put_step(to + j, plane, step, v_set(digits_most));
        V_UNROLL for (int v = 0; v < PATCH_DEPTH / LANES; v++) sum += step[v];
    }
    for (; j < end; j += LANES) {
        const vf e = exp_negative_in_sum((v_load(scores + j) - most) * factor);
        patch_put(to + j, plane, e, v_set(digits_most));
        sum += e;
    }
    for (int64_t digit = 0; digit < PLANES && end < plane; digit++)
        memset(to + digit * plane + end, 0, (size_t)(plane - end));
    return v_sum(sum);
}

/* Up to RUN queries. */
static void digit_attention_queries(const df_call *call, const float *q, int64_t rows, const float *residual,
                                    float *out, const digit_attention *s) {
    const int64_t line = digit_attention_line(s), plane = s->channel_steps * PATCH_DEPTH;
    const float scale = (float)(1.0 / sqrt((double)s->dim));
    for (int64_t r = 0; r < df_round_up(rows, TILE_ROWS); r++) {
        patch_item *query = s->queries + r * s->query_pitch;
        if (r < rows)
            s->row_units[r] = digit_attention_row(q + r * call->pitch[0], s->dim, plane, query);
        else
            memset(query, 0, (size_t)s->query_pitch);
    }
    const digit_attention_rest scores = {
        .rows = rows, .pitch = line, .units = s->key_units, .row_units = s->row_units, .to = s->scores};
    digit_attention_multiply(s->queries, s->query_pitch, s->channel_steps, s->keys, s->positions, scores, s);
    for (int64_t r = 0; r < df_round_up(rows, TILE_ROWS); r++) {
        patch_item *weights = s->weights + r * s->weight_pitch;
        if (r < rows)
            s->row_units[r] = 1 / (digits_most * digit_attention_softmax(s->scores + r * line, scale, weights, s));
        else
            memset(weights, 0, (size_t)s->weight_pitch);
    }
    const digit_attention_rest sums = {.rows = rows,
                                       .pitch = call->channels,
                                       .units = s->value_units,
                                       .row_units = s->row_units,
                                       .residual = residual,
                                       .to = out};
    digit_attention_multiply(s->weights, s->weight_pitch, s->position_steps, s->values, s->dim, sums, s);
}

static void digit_attention_run(const df_call *call, int64_t task, void *scratch) {
    digit_attention s;
    digit_attention_layout(call, scratch, &s);
    const attention_part part = attention_part_of(call, task);
    const int64_t c = call->channels;
    digit_attention_keys(call, part.k, &s);
    digit_attention_values(call, part.v, &s);
    tiles_open();
    for (int64_t query = 0; query < part.queries; query += RUN)
        digit_attention_queries(call, part.q + query * call->pitch[0], df_min(RUN, part.queries - query),
                                part.residual ? part.residual + query * c : NULL, part.output + query * c, &s);
    tiles_close();
}

static size_t any_attention_bytes(const df_call *call) {
    return digit_attention_fits(call) ? digit_attention_bytes(call) : attention_bytes(call);
}

static void any_attention_run(const df_call *call, int64_t task, void *scratch) {
    (digit_attention_fits(call) ? digit_attention_run : attention_run)(call, task, scratch);
}
