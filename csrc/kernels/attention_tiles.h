/* The same attention where values are terms: for some queries of a head, scores with 32 keys at a time, their softmax,
 * whose terms are rows again, and the values' weighted sums, which are finished beside the next ones' products. */

enum {
    ASKED = 2 * TILE_ROWS, /* queries at a time: they stay in the first cache while keys and values pass by */
    ASKED_SUMS = ASKED * TILE_DEPTH,
    APART = 32 /* terms between rows beyond their own, or these would share cache sets */
};

typedef struct tiled_attention_scratch {
    term *keys;     /* columns: [positions / 16][channels / 32] of tiles */
    term *values;   /* columns: [channels / 32][2][positions / 32] of tiles */
    term *queries;  /* rows: [ASKED][channels, filled up to 32, and APART] */
    term *weights;  /* rows: [ASKED][positions, filled up to 32, and APART] */
    float *scores;  /* [ASKED][positions, filled up to 32, and APART / 2] */
    float *sums[2]; /* [ASKED][32], in turn */
    float *inverse; /* [ASKED] of the exponentials' sums */
} tiled_attention_scratch;

/* Lays the arrays out in memory and returns the bytes they take. */
static size_t tiled_attention_layout(const df_call *call, float *memory, tiled_attention_scratch *s) {
    const int64_t filled = df_round_up(attention_positions(call), TILE_DEPTH);
    const int64_t dim = call->channels / call->parts, deep = df_round_up(dim, TILE_DEPTH);
    float *at = memory;
    s->keys = (term *)attention_take(&at, filled * deep / PAIR);
    s->values = (term *)attention_take(&at, deep * filled / PAIR);
    s->queries = (term *)attention_take(&at, ASKED * (deep + APART) / PAIR);
    s->weights = (term *)attention_take(&at, ASKED * (filled + APART) / PAIR);
    s->scores = attention_take(&at, ASKED * (filled + APART / 2));
    s->sums[0] = attention_take(&at, ASKED_SUMS);
    s->sums[1] = attention_take(&at, ASKED_SUMS);
    s->inverse = attention_take(&at, ASKED);
    return (size_t)(at - memory) * sizeof(float);
}

static size_t tiled_attention_bytes(const df_call *call) {
    tiled_attention_scratch s;
    static float origin[1]; /* only differences are used */
    return tiled_attention_layout(call, origin, &s);
}

/* The first n of 32 terms, and zeros. */
V_INLINE vu tiled_attention_line(const term *from, int64_t n) {
    vu words;
    if (n == TILE_DEPTH) {
        memcpy(&words, from, sizeof words);
    } else {
        term line[TILE_DEPTH] = {0};
        memcpy(line, from, (size_t)n * sizeof *line);
        memcpy(&words, line, sizeof words);
    }
    return words;
}

/* A key is a column of words. */
static void tiled_attention_keys(const df_call *call, const value *k, term *to) {
    const int64_t positions = attention_positions(call), dim = call->channels / call->parts;
    for (int64_t j = 0; j < df_round_up(positions, TILE_DEPTH); j += TILE_ROWS)
        for (int64_t i = 0; i < dim; i += TILE_DEPTH, to += TILE_TERMS) {
            vu rows[TILE_ROWS];
            const int64_t n = df_min(TILE_DEPTH, dim - i);
            V_UNROLL for (int r = 0; r < TILE_ROWS; r++) {
                const int64_t row = j + r;
                rows[r] =
                    tiled_attention_line(k + df_min(row, positions - 1) * call->pitch[1] + i, row < positions ? n : 0);
            }
            v_transpose(rows);
            V_UNROLL for (int r = 0; r < TILE_ROWS; r++) memcpy(to + r * TILE_DEPTH, &rows[r], sizeof rows[r]);
        }
}

/* Positions that follow each other share a word. Of a cache line everything is used at once, two columns of tiles. */
static void tiled_attention_values(const df_call *call, const value *v, term *to) {
    const int64_t positions = attention_positions(call), dim = call->channels / call->parts;
    const int64_t words = df_round_up(positions, TILE_DEPTH) / PAIR;
    const vu lower = (vu)v_set(0) + 0xffffU, low = V_LOW, high = V_HIGH;
    for (int64_t i = 0; i < dim; i += TILE_DEPTH, to += 2 * words * TILE_DEPTH)
        for (int64_t w = 0; w < words; w++) {
            const int64_t n = df_min(TILE_DEPTH, dim - i), j = w * PAIR, left = positions - j;
            const value *at = v + df_min(j, positions - 1) * call->pitch[2] + i;
            const vu first = tiled_attention_line(at, left > 0 ? n : 0);
            const vu second = tiled_attention_line(left > 1 ? at + call->pitch[2] : at, left > 1 ? n : 0);
            const vu even = (first & lower) | second << 16, odd = first >> 16 | (second & ~lower);
            v_store_words(to + w * TILE_DEPTH, (vf)v_pick(even, odd, low));
            v_store_words(to + (words + w) * TILE_DEPTH, (vf)v_pick(even, odd, high));
        }
}

/* sums[tiles x 16][32] = a[tiles x 16][steps x 32] times two columns of tiles; `line` bytes from a row of sums to the next. */
V_INLINE void tiled_attention_sums(const int tiles, const term *a, int64_t pitch, const term *b, int64_t steps,
                                   float *sums, int64_t line, void (*beside)(void *), void *context) {
    const int64_t apart = pitch * (int64_t)sizeof *a, of_b = TILE_DEPTH * (int64_t)sizeof *b;
    float *below = sums + TILE_ROWS * line / (int64_t)sizeof *sums;
    const term *second = b + steps * TILE_TERMS;
    TILES_BARRIER();
    tile_zero(0);
    tile_zero(1);
    if (tiles > 1) {
        tile_zero(2);
        tile_zero(3);
    }
    V_ROLLED for (int64_t step = 0; step < steps; step++, a += TILE_DEPTH, b += TILE_TERMS, second += TILE_TERMS) {
        tile_load(4, a, apart);
        tile_load(6, b, of_b);
        tile_dot(0, 4, 6);
        tile_load(7, second, of_b);
        tile_dot(1, 4, 7);
        if (tiles > 1) {
            tile_load(5, a + TILE_ROWS * pitch, apart);
            tile_dot(2, 5, 6);
            tile_dot(3, 5, 7);
        }
        beside(context);
    }
    tile_store(0, sums, line);
    tile_store(1, sums + TILE_ROWS, line);
    if (tiles > 1) {
        tile_store(2, below, line);
        tile_store(3, below + TILE_ROWS, line);
    }
    TILES_BARRIER();
}

/* The rows of the next image that are like some of this one's, to be fetched beside the products. */
typedef struct tiled_attention_ahead {
    const char *at[3]; /* q, k, v */
    int64_t apart[3], bytes, offset, share;
} tiled_attention_ahead;

static void tiled_attention_fetch(void *context) {
    tiled_attention_ahead *ahead = context;
    for (int64_t i = 0; i < ahead->share; i++) {
        V_UNROLL for (int j = 0; j < 3; j++) __builtin_prefetch(ahead->at[j] + ahead->offset, 0, 2);
        ahead->offset += 64;
        if (ahead->offset < ahead->bytes)
            continue;
        ahead->offset = 0;
        V_UNROLL for (int j = 0; j < 3; j++) ahead->at[j] += ahead->apart[j];
    }
}

/* One row of scores -> terms of exp(scale (score - largest)); returns their sum. */
V_INLINE float tiled_attention_softmax(float *row, int64_t positions, float scale, term *to) {
    const int64_t end = df_round_up(positions, TILE_DEPTH);
    for (int64_t j = positions; j < end; j++)
        row[j] = -INFINITY; /* next to nothing, of values that are 0 */
    vf largest[2] = {v_set(-INFINITY), v_set(-INFINITY)}, sum[2] = {v_set(0), v_set(0)};
    for (int64_t j = 0; j < end; j += 2 * LANES)
        V_UNROLL for (int i = 0; i < 2; i++) largest[i] = v_max(largest[i], v_load(row + j + i * LANES));
    const vf most = v_set(v_largest(v_max(largest[0], largest[1])));
    for (int64_t j = 0; j < end; j += 2 * LANES)
        V_UNROLL for (int i = 0; i < 2; i++) {
            const vf e = exp_to_term((v_load(row + j + i * LANES) - most) * v_set(scale));
            v_store_terms(to + j + i * LANES, e);
            sum[i] += e;
        }
    return v_sum(sum[0] + sum[1]);
}

/* Rows of sums that are left to do, of up to 32 channels. */
typedef struct tiled_attention_rest {
    int64_t rows, share, n, c; /* to go, at a time; channels, and from a row to the next */
    const float *sums, *inverse;
    const value *residual;
    value *output;
} tiled_attention_rest;

static void tiled_attention_finish(void *context) {
    tiled_attention_rest *rest = context;
    const int64_t count = df_min(rest->share, rest->rows);
    for (int64_t r = 0; r < count; r++, rest->sums += TILE_DEPTH, rest->output += rest->c) {
        const vf inverse = v_set(*rest->inverse++);
        for (int64_t i = 0; i < rest->n; i += LANES) {
            const int64_t n = df_min(LANES, rest->n - i);
            vf v = v_load(rest->sums + i) * inverse;
            if (rest->residual)
                v += v_read_n(rest->residual + r * rest->c + i, n);
            v_write_n(rest->output + i, v, n);
        }
    }
    if (rest->residual)
        rest->residual += count * rest->c;
    rest->rows -= count;
}

/* Queries first..first+rows-1 of a part, tiles x 16 of them. */
V_INLINE void tiled_attention_queries(const df_call *call, const int tiles, const attention_part *part, int64_t first,
                                      int64_t rows, const tiled_attention_scratch *s) {
    const int64_t positions = attention_positions(call), filled = df_round_up(positions, TILE_DEPTH);
    const int64_t c = call->channels, dim = c / call->parts, deep = df_round_up(dim, TILE_DEPTH);
    const int64_t pitch = deep + APART, weight_pitch = filled + APART, score_pitch = filled + APART / 2;
    const value *q = part->q + first * call->pitch[0], *residual = part->residual ? part->residual + first * c : NULL;
    value *out = part->output + first * c;
    const int64_t bytes = dim * (int64_t)sizeof *q, steps = filled / TILE_DEPTH * (deep / TILE_DEPTH);
    tiled_attention_ahead ahead = {.bytes = bytes, .share = df_blocks(rows * df_blocks(bytes, 64), steps)};
    for (int j = 0; j < 3; j++) {
        const value *from = j == 0 ? part->q : j == 1 ? part->k : part->v;
        ahead.apart[j] = call->pitch[j] * (int64_t)sizeof *q;
        ahead.at[j] = (const char *)from + (positions + first) * ahead.apart[j];
    }
    for (int64_t r = 0; r < rows; r++) {
        memcpy(s->queries + r * pitch, q + r * call->pitch[0], (size_t)dim * sizeof *q);
        clear_terms(s->queries + r * pitch + dim, deep - dim);
    }
    for (int64_t j = 0; j < filled; j += TILE_DEPTH)
        tiled_attention_sums(tiles, s->queries, pitch, s->keys + j * deep, deep / TILE_DEPTH, s->scores + j,
                             score_pitch * (int64_t)sizeof(float), tiled_attention_fetch, &ahead);
    for (int64_t r = 0; r < rows; r++)
        s->inverse[r] = 1 / tiled_attention_softmax(s->scores + r * score_pitch, positions,
                                                    (float)(1.0 / sqrt((double)dim)), s->weights + r * weight_pitch);
    tiled_attention_rest rest = {0};
    for (int64_t i = 0, turn = 0; i < dim; i += TILE_DEPTH, turn = !turn) {
        tiled_attention_sums(tiles, s->weights, weight_pitch, s->values + i * filled, filled / TILE_DEPTH,
                             s->sums[turn], TILE_DEPTH * (int64_t)sizeof(float), tiled_attention_finish, &rest);
        rest = (tiled_attention_rest){.rows = rows,
                                      .share = df_blocks(rows, filled / TILE_DEPTH),
                                      .n = df_min(TILE_DEPTH, dim - i),
                                      .c = c,
                                      .sums = s->sums[turn],
                                      .inverse = s->inverse,
                                      .residual = residual ? residual + i : NULL,
                                      .output = out + i};
    }
    rest.share = rows;
    tiled_attention_finish(&rest);
}

static void tiled_attention_run(const df_call *call, int64_t task, void *scratch) {
    tiled_attention_scratch s;
    tiled_attention_layout(call, scratch, &s);
    const attention_part part = attention_part_of(call, task);
    tiles_open();
    tiled_attention_keys(call, part.k, s.keys);
    tiled_attention_values(call, part.v, s.values);
    for (int64_t query = 0; query < part.queries; query += ASKED) {
        const int64_t rows = df_min(ASKED, part.queries - query);
        /* clang-format off */
#define QUERIES_OF(n) case n: tiled_attention_queries(call, n, &part, query, rows, &s); break;
        switch (df_blocks(rows, TILE_ROWS)) {
        QUERIES_OF(1) QUERIES_OF(2)
        default: break;
        }
#undef QUERIES_OF
        /* clang-format on */
    }
    tiles_close();
}
