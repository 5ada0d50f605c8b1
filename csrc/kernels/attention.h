/* softmax(q k' / sqrt(dim)) v, head by head. A task takes the queries of one head, or a portion of them where there are
 * few heads for the threads: it packs the keys and the values once, and goes through its queries a few at a time, so that
 * their scores stay in the cache. */

enum { QUERIES = 128 /* at a time; of a portion */ };

static int64_t attention_positions(const df_call *call) {
    return (int64_t)call->height * call->width;
}

static int64_t attention_tasks(df_call *call) {
    const int64_t positions = attention_positions(call), heads = call->images * call->parts;
    call->block = heads >= 4 * (int64_t)call->threads ? positions : df_min(QUERIES, positions);
    return heads * df_blocks(positions, call->block);
}

/* What a task reads and writes: queries, all keys and values of their head, and from the first query on the rest. */
typedef struct attention_part {
    const value *q, *k, *v, *residual;
    value *output;
    int64_t queries;
} attention_part;

static attention_part attention_part_of(const df_call *call, int64_t task) {
    const int64_t positions = attention_positions(call), c = call->channels;
    const int64_t portions = df_blocks(positions, call->block), first = task % portions * call->block;
    const int64_t image = task / portions / call->parts, head = task / portions % call->parts * (c / call->parts);
    const int64_t keys = image * positions, query = keys + first;
    const value *q = call->input[0], *k = call->input[1], *v = call->input[2], *residual = call->residual;
    return (attention_part){.q = q + query * call->pitch[0] + head,
                            .k = k + keys * call->pitch[1] + head,
                            .v = v + keys * call->pitch[2] + head,
                            .residual = residual ? residual + query * c + head : NULL,
                            .output = (value *)call->output + query * c + head,
                            .queries = df_min(call->block, positions - first)};
}

static float *attention_take(float **at, int64_t floats) {
    float *taken = *at;
    *at += df_round_up(floats, 16);
    return taken;
}

#if !V_TILED /* there: attention_tiles.h */
typedef struct attention_scratch {
    term *keys;     /* packed: a column for each position, a row for each channel */
    term *values;   /* packed: a column for each channel, a row for each position */
    term *queries;  /* [QUERIES][dim], where terms are not floats */
    float *scores;  /* [QUERIES][positions, filled up to COLUMNS]; once exponentials, the first of it as terms */
    float *sums;    /* [QUERIES][COLUMNS] */
    float *inverse; /* [QUERIES] of the exponentials' sums */
} attention_scratch;

/* Lays the arrays out in memory and returns the bytes they take. */
static size_t attention_layout(const df_call *call, float *memory, attention_scratch *s) {
    const int64_t positions = attention_positions(call), filled = df_round_up(positions, COLUMNS);
    const int64_t dim = call->channels / call->parts;
    float *at = memory;
    s->keys = (term *)attention_take(&at, filled * packed_words(dim));
    s->values = (term *)attention_take(&at, df_round_up(dim, COLUMNS) * packed_words(positions));
    s->queries = (term *)attention_take(&at, V_BF16 ? QUERIES * packed_words(dim) : 0);
    s->scores = attention_take(&at, QUERIES * filled);
    s->sums = attention_take(&at, QUERIES * COLUMNS);
    s->inverse = attention_take(&at, QUERIES);
    return (size_t)(at - memory) * sizeof(float);
}

static size_t attention_bytes(const df_call *call) {
    attention_scratch s;
    static float origin[1]; /* only differences are used */
    return attention_layout(call, origin, &s);
}

/* A vector of words, of no more than `left` values, and zeros. */
V_INLINE vu attention_words(const value *from, int64_t left) {
    term terms[LANES * PAIR];
    V_UNROLL for (int i = 0; i < PAIR; i++, left -= LANES)
        v_store_terms(terms + i * LANES, left > 0 ? v_read_n(from + i * LANES, df_min(LANES, left)) : v_set(0));
    return (vu)v_words(terms);
}

static void attention_pack(const df_call *call, const value *k, const value *v, const attention_scratch *s) {
    const int64_t positions = attention_positions(call), dim = call->channels / call->parts;
    for (int64_t j = 0; j < df_round_up(positions, COLUMNS); j += LANES) /* words, for a row's terms are a column's */
        for (int64_t i = 0; i < dim; i += LANES * PAIR) {
            vu rows[LANES];
            V_UNROLL for (int r = 0; r < LANES; r++) /* beyond the last key it again, whose scores are not used */
                rows[r] = attention_words(k + df_min(j + r, positions - 1) * call->pitch[1] + i, dim - i);
            v_transpose(rows);
            for (int64_t w = 0; w < df_min(LANES, packed_words(dim) - i / PAIR); w++)
                v_store_words(s->keys + packed_at(dim, i + w * PAIR, j), (vf)rows[w]);
        }
    for (int64_t i = 0; i < df_round_up(dim, COLUMNS); i += LANES)
        for (int64_t j = 0; j < packed_words(positions) * PAIR; j += PAIR) {
            vf follow[PAIR];
            for (int64_t l = 0; l < PAIR; l++)
                follow[l] = i < dim && j + l < positions
                                ? v_read_n(v + (j + l) * call->pitch[2] + i, df_min(LANES, dim - i))
                                : v_set(0);
            v_store_words(s->values + packed_at(positions, j, i), v_join(follow));
        }
}

/* scores[rows][positions] = q k'. */
static void attention_scores(const df_call *call, const value *q, int64_t rows, const attention_scratch *s) {
    const int64_t filled = df_round_up(attention_positions(call), COLUMNS), dim = call->channels / call->parts;
#if V_BF16
    const term *queries = s->queries;
    const int64_t pitch = packed_words(dim) * PAIR;
    for (int64_t r = 0; r < rows; r++) {
        clear_terms(s->queries + r * pitch + dim, pitch - dim);
        copy_terms(s->queries + r * pitch, q + r * call->pitch[0], dim);
    }
#else
    const term *queries = q;
    const int64_t pitch = call->pitch[0];
#endif
    for (int64_t j = 0; j < filled; j += COLUMNS)
        for (int64_t l = 0; l < dim; l += DEPTH) {
            const int64_t piece = df_min(DEPTH, dim - l);
            const term *keys = s->keys + packed_at(dim, l, j);
            gemm(rows, piece, queries + l, pitch, keys, s->scores + j, filled, sum_at(l),
                 keys + packed_at(piece, 0, COLUMNS));
        }
}

/* One row of scores -> terms of exp(scale (score - largest)) in its place; returns the inverse of their sum. */
static float attention_softmax(float *row, int64_t positions, float scale) {
    const int64_t end = df_round_up(positions, LANES);
    for (int64_t j = positions; j < end; j++)
        row[j] = -INFINITY; /* what fills up the last vector becomes zeros */
    vf largest = v_set(-INFINITY);
    for (int64_t j = 0; j < end; j += LANES)
        largest = v_max(largest, v_load(row + j));
    const vf most = v_set(v_largest(largest));
    float total = 0;
    for (int64_t first = 0; first < end; first += DEPTH) {
        vf sum = v_set(0);
        for (int64_t j = first; j < df_min(end, first + DEPTH); j += LANES) {
            const vf e = exp_negative((v_load(row + j) - most) * v_set(scale));
            v_store_terms((term *)row + j, e); /* never past what was read */
            sum += e;
        }
        total += v_sum(sum);
    }
    return 1 / total;
}

/* out[rows][dim] = scores v / their sum, and what is to be added. */
static void attention_values(const df_call *call, const value *residual, value *out, int64_t rows,
                             const attention_scratch *s) {
    const int64_t positions = attention_positions(call), filled = df_round_up(positions, COLUMNS);
    const int64_t c = call->channels, dim = c / call->parts;
    for (int64_t i = 0; i < dim; i += COLUMNS) {
        for (int64_t l = 0; l < positions; l += DEPTH) {
            const int64_t piece = df_min(DEPTH, positions - l);
            const term *values = s->values + packed_at(positions, l, i);
            gemm(rows, piece, (const term *)s->scores + l, filled * PAIR, values, s->sums, COLUMNS, sum_at(l),
                 values + packed_at(piece, 0, COLUMNS));
        }
        for (int64_t r = 0; r < rows; r++)
            for (int64_t j = i; j < df_min(i + COLUMNS, dim); j += LANES) {
                const int64_t n = df_min(LANES, dim - j);
                vf v = v_load(s->sums + r * COLUMNS + j - i) * v_set(s->inverse[r]);
                if (residual)
                    v += v_read_n(residual + r * c + j, n);
                v_write_n(out + r * c + j, v, n);
            }
    }
}

/* A row that attention_values will write, and what it will add, come from memory while the softmax computes. */
V_INLINE void attention_fetch(const value *residual, const value *out, int64_t dim) {
    for (int64_t i = 0; i < dim; i += CACHE_LINE) {
        __builtin_prefetch(out + i, 1, 2);
        if (residual)
            __builtin_prefetch(residual + i, 0, 2);
    }
}

static void attention_run(const df_call *call, int64_t task, void *scratch) {
    attention_scratch s;
    attention_layout(call, scratch, &s);
    const attention_part part = attention_part_of(call, task);
    const int64_t positions = attention_positions(call), c = call->channels, dim = c / call->parts;
    const float scale = (float)(1.0 / sqrt((double)dim));
    attention_pack(call, part.k, part.v, &s);
    for (int64_t query = 0; query < part.queries; query += QUERIES) {
        const int64_t rows = df_min(QUERIES, part.queries - query);
        const value *residual = part.residual ? part.residual + query * c : NULL;
        value *out = part.output + query * c;
        attention_scores(call, part.q + query * call->pitch[0], rows, &s);
        for (int64_t r = 0; r < rows; r++) {
            attention_fetch(residual ? residual + r * c : NULL, out + r * c, dim);
            s.inverse[r] = attention_softmax(s.scores + r * df_round_up(positions, COLUMNS), positions, scale);
        }
        attention_values(call, residual, out, rows, &s);
    }
}
#endif
