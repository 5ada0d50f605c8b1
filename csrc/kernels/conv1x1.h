/* Convolution 1x1 at stride 1, of one input or two, where values are terms and their channels fill whole steps: the pixels
 * of all images are one list of rows, and tiles read them where they lie. */

enum {
    DOWN = 3,              /* tiles of rows at a time, */
    WIDE = 2,              /* and of outputs */
    FEW = DOWN * TILE_ROWS /* rows */
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

/* The sums of `down` x 16 rows for COLUMNS outputs, and beside them what is left of those before. */
V_INLINE void conv1x1_sums(const df_call *call, const int down, const conv1x1_side side[2], const term *b, float *sums,
                           conv1x1_rest *before, const char *next, int64_t fetch, const value *out) {
    const int64_t wide = COLUMNS * PAIR * (int64_t)sizeof *b, line = COLUMNS * (int64_t)sizeof *sums;
    const int64_t share = df_blocks(FEW, call->channels / TILE_DEPTH);
    TILES_BARRIER();
    tile_zero(0);
    tile_zero(1);
    if (down > 1) {
        tile_zero(2);
        tile_zero(3);
    }
    if (down > 2) {
        tile_zero(4);
        tile_zero(5);
    }
    for (int s = 0; s < 2; s++) {
        const int64_t apart = side[s].channels * (int64_t)sizeof *b, tile = TILE_ROWS * side[s].channels;
        V_ROLLED for (int64_t l = 0; l < side[s].channels; l += TILE_DEPTH, b += TILE_DEPTH * COLUMNS) {
            const term *a = side[s].rows + l;
            tile_load(7, b, wide);
            tile_load(6, a, apart);
            tile_dot(0, 6, 7);
            if (down > 1) {
                tile_load(6, a + tile, apart);
                tile_dot(2, 6, 7);
            }
            if (down > 2) {
                tile_load(6, a + 2 * tile, apart);
                tile_dot(4, 6, 7);
            }
            tile_load(7, b + TILE_DEPTH, wide);
            tile_load(6, a, apart);
            tile_dot(1, 6, 7);
            if (down > 1) {
                tile_load(6, a + tile, apart);
                tile_dot(3, 6, 7);
            }
            if (down > 2) {
                tile_load(6, a + 2 * tile, apart);
                tile_dot(5, 6, 7);
            }
            conv1x1_finish(call, before, share);
            for (int64_t i = 0; i < fetch; i++, next += 64)
                __builtin_prefetch(next, 0, 2);
            for (int64_t i = 0; i < share; i++, out += call->out_channels)
                __builtin_prefetch(out, 1, 2);
        }
    }
    tile_store(0, sums, line);
    tile_store(1, sums + TILE_ROWS, line);
    if (down > 1) {
        tile_store(2, sums + TILE_ROWS * COLUMNS, line);
        tile_store(3, sums + TILE_ROWS * COLUMNS + TILE_ROWS, line);
    }
    if (down > 2) {
        tile_store(4, sums + 2 * TILE_ROWS * COLUMNS, line);
        tile_store(5, sums + 2 * TILE_ROWS * COLUMNS + TILE_ROWS, line);
    }
    TILES_BARRIER();
}

static void conv1x1_run(const df_call *call, int64_t task, void *scratch) {
    conv1x1_scratch *s = scratch;
    const int64_t parts = df_blocks(call->out_channels, call->columns), c = call->channels, split = call->split;
    const int64_t first = task / parts * call->block, last = df_min(first + call->block, conv_rows(call));
    const int64_t begin = task % parts * call->columns, end = df_min(begin + call->columns, call->out_channels);
    const int64_t apart = packed_at(c, 0, COLUMNS);
    conv1x1_rest before = {0};
    tiles_open();
    for (int64_t row = first, count, turn = 0; row < last; row += count) {
        const term *rows[2] = {(const term *)call->input[0] + row * split,
                               split < c ? (const term *)call->input[1] + row * (c - split) : NULL};
        count = df_min(FEW, (last - row) / TILE_ROWS * TILE_ROWS);
        if (!count) { /* the last few: a tile would read beyond the end */
            count = last - row;
            memcpy(s->rows, rows[0], (size_t)(count * split) * sizeof(term));
            memset(s->rows + count * split, 0, (size_t)((TILE_ROWS - count) * split) * sizeof(term));
            rows[0] = s->rows;
            if (rows[1]) {
                term *second = s->rows + TILE_ROWS * split;
                memcpy(second, rows[1], (size_t)(count * (c - split)) * sizeof(term));
                memset(second + count * (c - split), 0, (size_t)((TILE_ROWS - count) * (c - split)) * sizeof(term));
                rows[1] = second;
            }
        }
        const conv1x1_side side[2] = {{rows[0], split}, {rows[1], c - split}};
        const term *b = (const term *)call->weight + begin / COLUMNS * apart;
        /* The next rows, of the first input. */
        const int64_t fetch =
            df_blocks(FEW * split * (int64_t)sizeof(term), 64 * df_blocks(end - begin, COLUMNS) * (c / TILE_DEPTH));
        const char *next = (const char *)(rows[0] + FEW * split);
        for (int64_t out = begin; out < end;
             out += COLUMNS, b += apart, turn = !turn, next += fetch * 64 * (c / TILE_DEPTH)) {
            /* clang-format off */
#define DOWN_OF(n) case n: conv1x1_sums(call, n, side, b, s->sums[turn], &before, next, fetch, (value *)call->output + row * call->out_channels + out); break;
            switch (df_blocks(count, TILE_ROWS)) {
            DOWN_OF(1) DOWN_OF(2) DOWN_OF(3)
            default: break;
            }
#undef DOWN_OF
            /* clang-format on */
            conv1x1_finish(call, &before, FEW);
            before = (conv1x1_rest){.row = row, .end = row + count, .out = out, .sums = s->sums[turn]};
        }
    }
    tiles_close();
    conv1x1_finish(call, &before, FEW);
}
