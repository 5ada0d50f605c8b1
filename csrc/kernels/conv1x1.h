/* Convolution 1x1 at stride 1, of one input or two, where values are terms and their channels fill whole steps: the pixels
 * of all images are one list of rows, and tiles read them where they lie. */

enum {
    FEW = 3 * TILE_ROWS /* rows at a time, at most; of outputs: two tiles */
};

typedef struct conv1x1_scratch {
    float sums[2][FEW * COLUMNS]; /* in turn */
    term rows[];                  /* the last few, filled up to a whole tile */
} conv1x1_scratch;

static bool conv1x1_fits(const df_call *call) {
    return conv_is_pointwise(call) && call->channels % TILE_DEPTH == 0 && call->split % TILE_DEPTH == 0;
}

static size_t conv1x1_scratch_bytes(const df_call *call) {
    return sizeof(conv1x1_scratch) + (size_t)(TILE_ROWS * call->channels) * sizeof(term);
}

/* A task is a block of whole tiles: of as many rows as each thread's share, unless they become few. */
static int64_t conv1x1_tasks(df_call *call) {
    const int64_t rows = conv_rows(call), threads = call->threads > 0 ? call->threads : 1;
    call->block = df_round_up(df_blocks(rows, df_min(threads, df_blocks(rows, 2 * FEW))), TILE_ROWS);
    return share_columns(call, df_blocks(rows, call->block), COLUMNS);
}

/* Up to FEW rows of sums that are left to do, of COLUMNS outputs. */
typedef struct conv1x1_rest {
    int64_t row, end, out;
    const float *sums;
} conv1x1_rest;

/* The next `count` of them: from sums to outputs. */
V_INLINE void conv1x1_finish_as(const df_call *call, conv1x1_rest *rest, int64_t count, const bool with_shift,
                                const bool with_residual) {
    const int64_t k = call->out_channels, pixels = (int64_t)call->out_height * call->out_width, out = rest->out;
    const int64_t end = df_min(rest->row + count, rest->end);
    const value *shift = call->shift, *residual = call->residual;
    const float *sums = rest->sums;
    value *output = call->output;
    vf add[2];
    int64_t n[2];
    V_UNROLL for (int j = 0; j < 2; j++) {
        add[j] = v_load(call->bias + out + j * LANES);
        n[j] = df_min(LANES, k - out - j * LANES);
    }
    for (int64_t row = rest->row; row < end; row++, sums += COLUMNS)
        V_UNROLL for (int j = 0; j < 2; j++) if (n[j] > 0) {
            const int64_t at = row * k + out + j * LANES;
            vf v = v_load(sums + j * LANES) + add[j];
            if (with_shift)
                v += v_read_n(shift + row / pixels * k + out + j * LANES, n[j]);
            if (with_residual)
                v += v_read_n(residual + at, n[j]);
            v_write_n(output + at, v, n[j]);
        }
    rest->row = end, rest->sums = sums;
}

V_INLINE void conv1x1_finish(const df_call *call, conv1x1_rest *rest, int64_t count) {
    if (rest->row == rest->end)
        return;
    if (call->shift)
        conv1x1_finish_as(call, rest, count, true, call->residual);
    else if (call->residual)
        conv1x1_finish_as(call, rest, count, false, true);
    else
        conv1x1_finish_as(call, rest, count, false, false);
}

/* A side of the input: its rows from the first one on, and their channels. */
typedef struct conv1x1_side {
    const term *rows;
    int64_t channels;
} conv1x1_side;

/* The sums of `down` x 16 rows for COLUMNS outputs. Beside them: what is left of those before, and fetching what the next
 * rows will read, `fetch` lines with each step, and where these outputs will be written. */
V_INLINE void conv1x1_sums(const df_call *call, const int down, const conv1x1_side side[2], const term *b, float *sums,
                           conv1x1_rest *before, const char *next, int64_t fetch, const value *out) {
    const int64_t wide = COLUMNS * PAIR * (int64_t)sizeof *b, line = COLUMNS * (int64_t)sizeof *sums;
    const int64_t share = df_blocks(FEW, call->channels / TILE_DEPTH); /* so they are done with before the next */
    TILES_BARRIER();
#define EACH_ROW(what) what(0, 0, 1) what(1, 2, 3) what(2, 4, 5)
#define ZERO(r, left, right)                                                                                           \
    if (r < down) {                                                                                                    \
        tile_zero(left);                                                                                               \
        tile_zero(right);                                                                                              \
    }
#define LEFT(r, left, right)                                                                                           \
    if (r < down) {                                                                                                    \
        tile_load(6, a + r * tile, apart);                                                                             \
        tile_dot(left, 6, 7);                                                                                          \
    }
#define RIGHT(r, left, right)                                                                                          \
    if (r < down) {                                                                                                    \
        tile_load(6, a + r * tile, apart);                                                                             \
        tile_dot(right, 6, 7);                                                                                         \
    }
#define STORE(r, left, right)                                                                                          \
    if (r < down) {                                                                                                    \
        tile_store(left, sums + r * TILE_ROWS * COLUMNS, line);                                                        \
        tile_store(right, sums + r * TILE_ROWS * COLUMNS + TILE_ROWS, line);                                           \
    }
    EACH_ROW(ZERO)
    for (int s = 0; s < 2; s++) {
        const int64_t apart = side[s].channels * (int64_t)sizeof *b, tile = TILE_ROWS * side[s].channels;
        V_ROLLED for (int64_t l = 0; l < side[s].channels; l += TILE_DEPTH, b += TILE_DEPTH * COLUMNS) {
            const term *a = side[s].rows + l;
            tile_load(7, b, wide);
            EACH_ROW(LEFT)
            tile_load(7, b + TILE_DEPTH, wide);
            EACH_ROW(RIGHT)
            conv1x1_finish(call, before, share);
            for (int64_t i = 0; i < fetch; i++, next += 64)
                __builtin_prefetch(next, 0, 2);
            for (int64_t i = 0; i < share; i++, out += call->out_channels)
                __builtin_prefetch(out, 1, 2);
        }
    }
    EACH_ROW(STORE)
#undef EACH_ROW
#undef ZERO
#undef LEFT
#undef RIGHT
#undef STORE
    TILES_BARRIER();
}

/* The last few rows, filled up to a tile, which would read beyond the end. */
static const term *conv1x1_fill(const term *rows, int64_t count, int64_t channels, term *to) {
    memcpy(to, rows, (size_t)(count * channels) * sizeof *to);
    memset(to + count * channels, 0, (size_t)((TILE_ROWS - count) * channels) * sizeof *to);
    return to;
}

static void conv1x1_run(const df_call *call, int64_t task, void *scratch) {
    conv1x1_scratch *s = scratch;
    const int64_t parts = df_blocks(call->out_channels, call->columns), c = call->channels, split = call->split;
    const int64_t first = task / parts * call->block, last = df_min(first + call->block, conv_rows(call));
    const int64_t begin = task % parts * call->columns, end = df_min(begin + call->columns, call->out_channels);
    const int64_t apart = packed_at(c, 0, COLUMNS), products = df_blocks(end - begin, COLUMNS) * (c / TILE_DEPTH);
    const int64_t fetch =
        df_blocks(FEW * split * (int64_t)sizeof(term), 64 * products); /* of the first input's next rows */
    conv1x1_rest before = {0};
    tiles_open();
    for (int64_t row = first, count, turn = 0; row < last; row += count) {
        conv1x1_side side[2] = {{(const term *)call->input[0] + row * split, split}};
        if (split < c)
            side[1] = (conv1x1_side){(const term *)call->input[1] + row * (c - split), c - split};
        count = df_min(FEW, (last - row) / TILE_ROWS * TILE_ROWS);
        if (!count) {
            count = last - row;
            side[0].rows = conv1x1_fill(side[0].rows, count, split, s->rows);
            if (split < c)
                side[1].rows = conv1x1_fill(side[1].rows, count, c - split, s->rows + TILE_ROWS * split);
        }
        const term *b = (const term *)call->weight + begin / COLUMNS * apart;
        const value *to = (const value *)call->output + row * call->out_channels;
        const char *next = (const char *)(side[0].rows + FEW * split);
        for (int64_t out = begin; out < end; out += COLUMNS, b += apart, turn = !turn) {
            /* clang-format off */
#define DOWN_OF(n) case n: conv1x1_sums(call, n, side, b, s->sums[turn], &before, next, fetch, to + out); break;
            switch (df_blocks(count, TILE_ROWS)) {
            DOWN_OF(1) DOWN_OF(2) DOWN_OF(3)
            default: break;
            }
#undef DOWN_OF
            /* clang-format on */
            before = (conv1x1_rest){.row = row, .end = row + count, .out = out, .sums = s->sums[turn]};
            next += fetch * 64 * (c / TILE_DEPTH);
        }
    }
    tiles_close();
    conv1x1_finish(call, &before, FEW);
}
