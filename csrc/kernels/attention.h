/* softmax(q k' / sqrt(dim)) v, head by head. A task takes some queries of one head: it packs the keys and the values
 * once, and goes through its queries a few at a time, so that their scores stay in the cache. */

enum { PORTION = 128 /* queries of a task, at most */, QUERIES = PORTION };

static int64_t attention_positions(const df_call *call) {
    return (int64_t)call->height * call->width;
}

static int64_t attention_portions(const df_call *call) {
    return df_blocks(attention_positions(call), PORTION);
}

static int64_t attention_tasks(df_call *call) {
    return call->images * call->parts * attention_portions(call);
}

typedef struct attention_scratch {
    float *keys;   /* [positions / COLUMNS][dim][COLUMNS] */
    float *values; /* [dim / COLUMNS][positions][COLUMNS] */
    float *scores; /* [QUERIES][positions, filled up to COLUMNS] */
    float *sums;   /* [QUERIES][COLUMNS] */
    float *total;  /* [QUERIES] of the exponentials */
} attention_scratch;

/* Lays the arrays out in memory and returns the bytes they take. */
static size_t attention_layout(const df_call *call, float *memory, attention_scratch *s) {
    const int64_t positions = attention_positions(call), filled = df_round_up(positions, COLUMNS);
    const int64_t dim = call->channels / call->parts;
    const int64_t sizes[] = {filled * dim, df_round_up(dim, COLUMNS) * positions, QUERIES * filled, QUERIES * COLUMNS,
                             df_round_up(QUERIES, 16)};
    float **const arrays[] = {&s->keys, &s->values, &s->scores, &s->sums, &s->total};
    int64_t at = 0;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        *arrays[i] = memory ? memory + at : NULL;
        at += df_round_up(sizes[i], 16);
    }
    return (size_t)at * sizeof(float);
}

static size_t attention_bytes(const df_call *call) {
    attention_scratch s;
    return attention_layout(call, NULL, &s);
}

static void attention_pack(const df_call *call, const float *k, const float *v, const attention_scratch *s) {
    const int64_t positions = attention_positions(call), dim = call->channels / call->parts;
    for (int64_t j = 0; j < df_round_up(positions, COLUMNS); j++)
        for (int64_t i = 0; i < dim; i++)
            s->keys[(j / COLUMNS * dim + i) * COLUMNS + j % COLUMNS] = j < positions ? k[j * call->pitch[1] + i] : 0.0F;
    for (int64_t i = 0; i < dim; i += COLUMNS) {
        const int64_t n = df_min(COLUMNS, dim - i);
        float *to = s->values + i * positions;
        for (int64_t j = 0; j < positions; j++, to += COLUMNS) {
            copy_floats(to, v + j * call->pitch[2] + i, n);
            clear_floats(to + n, COLUMNS - n);
        }
    }
}

/* scores[rows][positions] = q k'. */
static void attention_scores(const df_call *call, const float *q, int64_t rows, const attention_scratch *s) {
    const int64_t filled = df_round_up(attention_positions(call), COLUMNS), dim = call->channels / call->parts;
    for (int64_t j = 0; j < filled; j += COLUMNS)
        for (int64_t l = 0; l < dim; l += DEPTH)
            gemm(rows, df_min(DEPTH, dim - l), q + l, call->pitch[0], s->keys + j * dim + l * COLUMNS, s->scores + j,
                 filled, l == 0, s->keys + j * dim + (l + df_min(DEPTH, dim - l)) * COLUMNS);
}

/* One row of scores -> exp(scale (score - largest)); returns their sum. */
static float attention_softmax(float *row, int64_t positions, float scale) {
    for (int64_t j = positions; j % LANES != 0; j++)
        row[j] = -INFINITY; /* the last vector's idle lanes become zeros */
    vf largest = v_set(-INFINITY);
    for (int64_t j = 0; j < positions; j += LANES)
        largest = v_max(largest, v_load(row + j));
    const vf most = v_set(v_largest(largest));
    float total = 0;
    for (int64_t first = 0; first < positions; first += DEPTH) {
        vf sum = v_set(0);
        for (int64_t j = first; j < df_min(positions, first + DEPTH); j += LANES) {
            const vf e = exp_negative((v_load(row + j) - most) * v_set(scale));
            v_store(row + j, e);
            sum += e;
        }
        total += v_sum(sum);
    }
    return total;
}

/* out[rows][dim] = scores v / total, and what is to be added. */
static void attention_values(const df_call *call, const float *residual, float *out, int64_t rows,
                             const attention_scratch *s) {
    const int64_t positions = attention_positions(call), filled = df_round_up(positions, COLUMNS);
    const int64_t c = call->channels, dim = c / call->parts;
    for (int64_t i = 0; i < dim; i += COLUMNS) {
        for (int64_t l = 0; l < positions; l += DEPTH)
            gemm(rows, df_min(DEPTH, positions - l), s->scores + l, filled, s->values + i * positions + l * COLUMNS,
                 s->sums, COLUMNS, l == 0, s->values + i * positions + (l + df_min(DEPTH, positions - l)) * COLUMNS);
        for (int64_t r = 0; r < rows; r++)
            for (int64_t j = i; j < df_min(i + COLUMNS, dim); j += LANES) {
                const int64_t n = df_min(LANES, dim - j);
                vf v = v_load(s->sums + r * COLUMNS + j - i) / v_set(s->total[r]);
                if (residual)
                    v += v_load_n(residual + r * c + j, n);
                v_store_n(out + r * c + j, v, n);
            }
    }
}

static void attention_run(const df_call *call, int64_t task, void *scratch) {
    attention_scratch s;
    attention_layout(call, scratch, &s);
    const int64_t positions = attention_positions(call), c = call->channels, dim = c / call->parts;
    const int64_t portions = attention_portions(call), portion = df_blocks(positions, portions);
    const int64_t image = task / portions / call->parts, head = task / portions % call->parts * dim;
    const int64_t first = task % portions * portion, end = df_min(first + portion, positions);
    attention_pack(call, call->input[1] + image * positions * call->pitch[1] + head,
                   call->input[2] + image * positions * call->pitch[2] + head, &s);
    for (int64_t query = first; query < end; query += QUERIES) {
        const int64_t rows = df_min(QUERIES, end - query), at = image * positions + query;
        attention_scores(call, call->input[0] + at * call->pitch[0] + head, rows, &s);
        for (int64_t r = 0; r < rows; r++)
            s.total[r] = attention_softmax(s.scores + r * df_round_up(positions, COLUMNS), positions,
                                           (float)(1.0 / sqrt((double)dim)));
        attention_values(call, call->residual ? call->residual + at * c + head : NULL, call->output + at * c + head,
                         rows, &s);
    }
}
