/* Convolution 1x1 at stride 1, of one input or two, in tiles (split.h): the pixels of all images are one list of rows. */

enum { SPLIT1X1_ROOM = 1024 /* rows of a task times steps of 32 channels, at most: 200 KB (but for 16 rows) */ };

typedef struct split1x1_scratch {
    tile_term *rows; /* [steps][PARTS][rows][32] */
    int64_t apart;   /* terms from a part to the next: an odd number of lines, or they would share cache sets */
    float *sums[2];  /* [tiles][16][16], in turn */
    float *spare;
    int64_t *starts;
} split1x1_scratch;

/* Whether a convolution is one of these: an image of one pixel is bound by its weights, which are floats elsewhere. */
static bool split1x1_fits(const df_call *call) {
    return call->size == 1 && call->stride == 1 && (int64_t)call->height * call->width >= TILE_ROWS;
}

static int64_t split1x1_rows(const df_call *call) {
    return call->images * call->height * call->width;
}

static int64_t split1x1_most(const df_call *call) {
    const int64_t fit = SPLIT1X1_ROOM / split_steps(call) / TILE_ROWS * TILE_ROWS;
    return fit < TILE_ROWS ? TILE_ROWS : fit;
}

static size_t split1x1_layout(const df_call *call, int64_t rows, float *memory, split1x1_scratch *s) {
    const int64_t tiles = df_blocks(rows, TILE_ROWS);
    s->rows = (tile_term *)memory;
    s->apart = tiles * TILE_TERMS + SPLIT_STEP;
    s->sums[0] = memory + split_steps(call) * PARTS * s->apart / TILE_PAIR;
    s->sums[1] = s->sums[0] + tiles * SPLIT_SUMS;
    s->spare = s->sums[1] + tiles * SPLIT_SUMS;
    s->starts = (int64_t *)(s->spare + SPLIT_SUMS);
    return (size_t)((float *)(s->starts + tiles) - memory) * sizeof(float);
}

static size_t split1x1_scratch_bytes(const df_call *call) {
    split1x1_scratch s;
    static float origin[1]; /* only differences are used */
    return split1x1_layout(call, split1x1_most(call), origin, &s);
}

static int64_t split1x1_tasks(df_call *call) {
    const int64_t rows = split1x1_rows(call), threads = call->threads > 0 ? call->threads : 1;
    const int64_t fewest = df_blocks(rows, split1x1_most(call)), even = df_round_up(fewest, threads);
    const int64_t blocks = rows >= even * SUMS * TILE_ROWS ? even : fewest;
    call->block = df_blocks(rows, blocks);
    return share_columns(call, df_blocks(rows, call->block), TILE_ROWS);
}

static int64_t split1x1_packed(const df_call *call) {
    return df_blocks(call->out_channels, TILE_ROWS) * split_steps(call) * SPLIT_COLUMNS / TILE_PAIR;
}

/* (out, c) -> [out / 16][step][part] of tiles. */
static void split1x1_pack(const df_call *call, const float *weight, float *packed) {
    const int64_t steps = split_steps(call);
    memset(packed, 0, (size_t)split1x1_packed(call) * sizeof *packed);
    for (int64_t k = 0; k < call->out_channels; k++)
        for (int64_t i = 0; i < call->channels; i++) {
            int64_t within;
            const int64_t step = split_step(call, i, &within);
            split_weight((tile_term *)packed + (k / TILE_ROWS * steps + step) * SPLIT_COLUMNS +
                             split_at(within, k % TILE_ROWS),
                         (double)weight[k * call->channels + i]);
        }
}

/* Rows of both inputs, split. */
static void split1x1_read(const df_call *call, int64_t first, int64_t rows, const split1x1_scratch *s) {
    const int64_t step_apart = PARTS * s->apart;
    tile_term *to = s->rows;
    for (int second = 0; second < (call->split < call->channels ? 2 : 1); second++) {
        const int64_t c = second ? call->channels - call->split : call->split;
        const value *from = (const value *)call->input[second] + first * c;
        for (int64_t row = 0; row < rows; row++, from += c)
            for (int64_t i = 0; i < c; i += SPLIT_STEP) {
                const int64_t low = df_min(LANES, c - i), high = df_min(LANES, c - i - LANES);
                split_store(to + i / SPLIT_STEP * step_apart + row * SPLIT_STEP, s->apart, v_read_n(from + i, low),
                            high > 0 ? v_read_n(from + i + LANES, high) : v_set(0), false);
            }
        to += df_blocks(c, SPLIT_STEP) * step_apart;
    }
}

/* Rows that are left to do, for 16 outputs. */
typedef struct split1x1_rest {
    const df_call *call;
    int64_t row, end;
    const float *sums; /* of the first of them */
    int64_t out;
} split1x1_rest;

/* The next `count` of them: from sums to outputs. */
static void split1x1_finish(split1x1_rest *rest, int64_t count) {
    if (rest->row == rest->end)
        return;
    const df_call *call = rest->call;
    const int64_t k = call->out_channels, out = rest->out, n = df_min(LANES, k - out);
    const int64_t pixels = (int64_t)call->height * call->width;
    for (; count > 0 && rest->row < rest->end; count--, rest->row++, rest->sums += TILE_ROWS) {
        const int64_t at = rest->row * k + out;
        vf v = v_load(rest->sums) + v_load(call->bias + out);
        if (call->shift)
            v += v_read_n((const value *)call->shift + rest->row / pixels * k + out, n);
        if (call->residual)
            v += v_read_n((const value *)call->residual + at, n);
        v_write_n((value *)call->output + at, v, n);
    }
}

/* While the tiles take the sums for 16 outputs, those before are finished. */
typedef struct split1x1_beside {
    split1x1_rest before;
    int64_t share; /* rows at a time */
} split1x1_beside;

static void split1x1_do_beside(void *context) {
    split1x1_beside *beside = context;
    split1x1_finish(&beside->before, beside->share);
}

static void split1x1_run(const df_call *call, int64_t task, void *scratch) {
    const int64_t parts = df_blocks(call->out_channels, call->columns), first = task / parts * call->block;
    const int64_t rows = df_min(call->block, split1x1_rows(call) - first), tiles = df_blocks(rows, TILE_ROWS);
    const int64_t begin = task % parts * call->columns, end = df_min(begin + call->columns, call->out_channels);
    const int64_t steps = split_steps(call), none = 0;
    split1x1_scratch s;
    split1x1_layout(call, rows, scratch, &s);
    split1x1_read(call, first, rows, &s);
    for (int64_t tile = 0; tile < tiles; tile++)
        s.starts[tile] = tile * TILE_TERMS;
    split1x1_beside beside = {.share = df_blocks(rows, steps * df_blocks(tiles, SUMS))};
    tiles_open();
    for (int64_t out = begin, turn = 0; out < end; out += TILE_ROWS, turn = !turn) {
        const split1x1_rest now = {.call = call, .row = first, .end = first + rows, .sums = s.sums[turn], .out = out};
        const tile_term *b = (const tile_term *)call->weight + out / TILE_ROWS * steps * SPLIT_COLUMNS;
        const split_columns of = {.b = b,
                                  .next = b + steps * SPLIT_COLUMNS,
                                  .steps = steps,
                                  .taps = 1,
                                  .tap = &none,
                                  .step_apart = PARTS * s.apart,
                                  .part_apart = s.apart,
                                  .beside = split1x1_do_beside,
                                  .context = &beside};
        split_gemm(s.rows, s.starts, tiles, &of, s.sums[turn], s.spare);
        beside.before = now;
    }
    tiles_close();
    split1x1_finish(&beside.before, rows);
}
