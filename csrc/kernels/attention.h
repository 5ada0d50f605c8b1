/* softmax(q k' / sqrt(dim)) v, head by head, for a block of queries at a time: the scores of a block are the only thing
 * that grows with the number of positions. They lie in panels of DEPTH keys, which is what the second product reads. */

enum { QUERIES = 4 * ROWS };

static int64_t attention_positions(const df_call *call) {
    return (int64_t)call->height * call->width;
}

static int64_t attention_tasks(const df_call *call) {
    return call->images * call->parts * df_blocks(attention_positions(call), QUERIES);
}

typedef struct attention_scratch {
    float *scores, *queries; /* panels [keys or dim / DEPTH][QUERIES][DEPTH] */
    float *keys, *values;    /* packed columns [dim][COLUMNS], [DEPTH][COLUMNS] */
    float *sums;             /* [QUERIES][COLUMNS] */
    float *total;            /* [QUERIES] of the exponentials */
} attention_scratch;

/* Lays the arrays out in memory and returns the bytes they take. */
static size_t attention_layout(const df_call *call, float *memory, attention_scratch *s) {
    const int64_t dim = call->channels / call->parts;
    const int64_t sizes[] = {df_round_up(attention_positions(call), DEPTH) * QUERIES,
                             df_round_up(dim, DEPTH) * QUERIES,
                             dim * COLUMNS,
                             DEPTH * COLUMNS,
                             QUERIES * COLUMNS,
                             df_round_up(QUERIES, 16)};
    float **const arrays[] = {&s->scores, &s->queries, &s->keys, &s->values, &s->sums, &s->total};
    int64_t at = 0;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        *arrays[i] = memory ? memory + at : NULL;
        at += sizes[i];
    }
    return (size_t)at * sizeof(float);
}

static size_t attention_bytes(const df_call *call) {
    attention_scratch s;
    return attention_layout(call, NULL, &s);
}

/* scores[rows][positions] = q k'. */
static void attention_scores(const df_call *call, const float *q, const float *k, int64_t rows,
                             const attention_scratch *s) {
    const int64_t positions = attention_positions(call), stride = call->channels, dim = stride / call->parts;
    for (int64_t l = 0; l < dim; l += DEPTH)
        for (int64_t r = 0; r < rows; r++)
            copy_floats(s->queries + l * QUERIES + r * DEPTH, q + r * stride + l, df_min(DEPTH, dim - l));
    for (int64_t j = 0; j < positions; j += COLUMNS) {
        for (int64_t column = 0; column < COLUMNS; column++)
            for (int64_t i = 0; i < dim; i++)
                s->keys[i * COLUMNS + column] = j + column < positions ? k[(j + column) * stride + i] : 0.0F;
        float *scores = s->scores + j / DEPTH * DEPTH * QUERIES + j % DEPTH;
        for (int64_t l = 0; l < dim; l += DEPTH)
            gemm(rows, df_min(DEPTH, dim - l), s->queries + l * QUERIES, s->keys + l * COLUMNS, scores, DEPTH, l == 0);
    }
}

V_INLINE float *attention_at(float *row, int64_t key) {
    return row + key / DEPTH * DEPTH * QUERIES + key % DEPTH;
}

/* One row of scores -> exp(scale (score - largest)); returns their sum. */
static float attention_softmax(float *row, int64_t positions, float scale) {
    for (int64_t j = positions; j % LANES != 0; j++)
        *attention_at(row, j) = -INFINITY; /* the last vector's idle lanes become zeros */
    vf largest = v_set(-INFINITY);
    for (int64_t j = 0; j < positions; j += LANES)
        largest = v_max(largest, v_load(attention_at(row, j)));
    const vf most = v_set(v_largest(largest));
    float total = 0;
    for (int64_t first = 0; first < positions; first += DEPTH) {
        vf sum = v_set(0);
        for (int64_t j = first; j < df_min(positions, first + DEPTH); j += LANES) {
            const vf e = exp_negative((v_load(attention_at(row, j)) - most) * v_set(scale));
            v_store(attention_at(row, j), e);
            sum += e;
        }
        total += v_sum(sum);
    }
    return total;
}

/* out[rows][dim] = scores v / total. */
static void attention_values(const df_call *call, const float *v, float *out, int64_t rows,
                             const attention_scratch *s) {
    const int64_t positions = attention_positions(call), stride = call->channels, dim = stride / call->parts;
    for (int64_t i = 0; i < dim; i += COLUMNS) {
        const int64_t columns = df_min(COLUMNS, dim - i);
        for (int64_t l = 0; l < positions; l += DEPTH) {
            const int64_t piece = df_min(DEPTH, positions - l);
            for (int64_t j = 0; j < piece; j++) {
                copy_floats(s->values + j * COLUMNS, v + (l + j) * stride + i, columns);
                clear_floats(s->values + j * COLUMNS + columns, COLUMNS - columns);
            }
            gemm(rows, piece, s->scores + l * QUERIES, s->values, s->sums, COLUMNS, l == 0);
        }
        for (int64_t r = 0; r < rows; r++)
            for (int64_t j = 0; j < columns; j += LANES)
                v_store_n(out + r * stride + i + j, v_load(s->sums + r * COLUMNS + j) / v_set(s->total[r]),
                          df_min(LANES, columns - j));
    }
}

/* A block of queries of one head of one image. */
static void attention_run(const df_call *call, int64_t task, void *scratch) {
    attention_scratch s;
    attention_layout(call, scratch, &s);
    const int64_t positions = attention_positions(call), stride = call->channels, dim = stride / call->parts;
    const int64_t blocks = df_blocks(positions, QUERIES);
    const int64_t image = task / blocks / call->parts, head = task / blocks % call->parts;
    const int64_t first = task % blocks * QUERIES, rows = df_min(QUERIES, positions - first);
    const int64_t keys = image * positions * stride + head * dim, queries = keys + first * stride;
    attention_scores(call, call->input[0] + queries, call->input[1] + keys, rows, &s);
    for (int64_t r = 0; r < rows; r++)
        s.total[r] = attention_softmax(s.scores + r * DEPTH, positions, (float)(1.0 / sqrt((double)dim)));
    attention_values(call, call->input[2] + keys, call->output + queries, rows, &s);
}
