/* Convolutions as matrix products in digits (run_digits.h): 1x1, and 3x3 at stride 2. A row is what an output pixel reads,
 * tap by tap, and has a unit of its own. A few rows stay near while all weights pass them, and beside them the next are read. */

/* RUN rows, and the same that come next. */
typedef struct digit_rows {
    int64_t row, count, read; /* the first one; how many; of which are read */
    patch_item *items;
    float units[RUN];
} digit_rows;

typedef struct digit_scratch {
    run_sum sums[RUN_SUMS];
    float spare[TILE_ROWS * TILE_ROWS];
    patch_item rows[];
} digit_scratch;

/* Whether a convolution is one of these (else conv.h): one for few outputs is bound by its rows, and an image of one pixel by
 * its weights, either of which is read as floats there. */
static bool conv_digits_fits(const df_call *call) {
    const int64_t depth = conv_depth(call), pixels = (int64_t)call->out_height * call->out_width;
    return pixels >= TILE_ROWS && depth >= PATCH_DEPTH / 2 && depth <= DIGIT_TERMS &&
           (depth >= 4 * PATCH_DEPTH || call->out_channels >= 64);
}

static int64_t digit_steps(const df_call *call) {
    return df_blocks(conv_depth(call), PATCH_DEPTH);
}
/* Items of a row's plane, with room for what the last vector of its last part stores beyond that; and of a row. */
static int64_t digit_plane(const df_call *call) {
    return df_round_up(conv_depth(call) + (call->split % LANES ? LANES : 0), PATCH_DEPTH);
}
static int64_t digit_pitch(const df_call *call) {
    return (PLANES * digit_plane(call) / 64 | 1) * 64;
}

static size_t conv_digits_scratch_bytes(const df_call *call) {
    return sizeof(digit_scratch) + (size_t)(2 * RUN * digit_pitch(call));
}

/* Equal blocks of rows, one for each thread unless they become small; then threads share the columns. */
static int64_t conv_digits_tasks(df_call *call) {
    const int64_t rows = conv_rows(call), threads = call->threads > 0 ? call->threads : 1;
    const int64_t blocks = df_min(threads, df_blocks(rows, 4 * RUN));
    call->block = df_round_up(df_blocks(rows, blocks), RUN);
    return share_columns(call, df_blocks(rows, call->block), TILE_ROWS);
}

/* ---------------------------------------------------------------- weights */

/* Items of those for 16 outputs, with their units; of whole pairs of lines, in which a processor fetches. */
static int64_t digit_columns(const df_call *call) {
    return digit_steps(call) * TAP_ITEMS + 2 * TILE_ROWS * (int64_t)sizeof(float);
}

static int64_t conv_digits_packed(const df_call *call) {
    return df_blocks(call->out_channels, TILE_ROWS) * digit_columns(call) / (int64_t)sizeof(float);
}

/* (out, c, size, size) -> [out / 16][step] of tiles, and 16 units. */
static void conv_digits_pack(const df_call *call, const float *weight, float *packed) {
    const int64_t c = call->channels, taps = (int64_t)call->size * call->size, depth = conv_depth(call);
    memset(packed, 0, (size_t)conv_digits_packed(call) * sizeof *packed);
    for (int64_t k = 0; k < call->out_channels; k++, weight += depth) {
        patch_item *to = (patch_item *)packed + k / TILE_ROWS * digit_columns(call);
        const float unit = column_unit(weight, depth);
        for (int64_t l = 0; l < depth; l++)
            column_put(to + l / PATCH_DEPTH * TAP_ITEMS, l % PATCH_DEPTH, k % TILE_ROWS, weight[l % c * taps + l / c],
                       unit);
        memcpy(to + digit_steps(call) * TAP_ITEMS + k % TILE_ROWS * (int64_t)sizeof unit, &unit, sizeof unit);
    }
}

/* ---------------------------------------------------------------- rows */

/* Values that follow each other in a row and in memory, or zeros. */
typedef struct row_part {
    const value *from;
    int64_t count;
} row_part;
enum { ROW_PARTS = 9 };

/* What an output pixel reads; returns how many parts it has. */
static int row_parts(const df_call *call, int64_t row, row_part part[ROW_PARTS]) {
    const int64_t c = call->channels, split = call->split, w = call->width, h = call->height;
    const value *one = call->input[0];
    if (conv_is_pointwise(call)) {
        part[0] = (row_part){one + row * split, split};
        part[1] = (row_part){(const value *)call->input[1] + row * (c - split), c - split};
        return split < c ? 2 : 1;
    }
    conv_pixel at;
    conv_find_pixels(call, row, 1, &at);
    const int64_t left = at.x < 0 ? -at.x : 0, right = df_min(call->size, w - at.x);
    int parts = 0;
    for (int64_t y = at.y; y < at.y + call->size; y++) {
        const bool inside = y >= 0 && y < h;
        part[parts++] = (row_part){NULL, left * c};
        part[parts++] =
            (row_part){inside ? one + ((at.image * h + y) * w + at.x + left) * c : NULL, (right - left) * c};
        part[parts++] = (row_part){NULL, (call->size - right) * c};
    }
    return parts;
}

static float row_unit(const row_part *part, int parts) {
    vf most = v_set(0), poison = v_set(0);
    for (const row_part *p = part; p < part + parts; p++)
        for (int64_t i = 0; p->from && i < p->count; i += LANES) {
            const vf v = v_read_n(p->from + i, df_min(LANES, p->count - i));
            __builtin_prefetch(p->from + i + READ_AHEAD, 0, 2);
            most = v_max(most, -v_negative_abs(v));
            poison = v_fma(v, v_set(0), poison);
        }
    return digits_unit(v_largest(most), v_sum(poison));
}

/* Parts one after the other: what a part's last vector stores beyond it is overwritten, or multiplied by weights of zero. */
static float digit_row(const df_call *call, int64_t row, patch_item *to) {
    row_part part[ROW_PARTS];
    const int parts = row_parts(call, row, part);
    const float unit = row_unit(part, parts);
    const vf scale = v_set(1 / unit);
    const int64_t plane = digit_plane(call);
    int64_t at = 0;
    for (const row_part *p = part; p < part + parts; at += p->count, p++)
        patch_put_row(to + at, plane, p->from, p->count, scale);
    return unit;
}

/* ---------------------------------------------------------------- products */

/* Up to RUN rows of sums that are left to do, of 16 outputs. */
typedef struct digit_rest {
    int64_t row, end, out;
    const run_sum *sums;
    const float *units;
} digit_rest;

/* The next `count` of them: from sums to outputs. */
V_INLINE void digit_finish(const df_call *call, digit_rest *rest, int64_t count) {
    const int64_t k = call->out_channels, pixels = (int64_t)call->out_height * call->out_width, out = rest->out;
    const int64_t n = df_min(LANES, k - out), end = df_min(rest->row + count, rest->end);
    if (rest->row >= end)
        return;
    const patch_item *columns = (const patch_item *)call->weight + (out / TILE_ROWS + 1) * digit_columns(call);
    const vf of_columns = v_load((const float *)(const void *)columns - 2 * TILE_ROWS) * v_set(sums_unit),
             bias = v_load(call->bias + out);
    for (; rest->row < end; rest->row++, rest->sums += TILE_ROWS, rest->units++) {
        const int64_t at = rest->row * k + out;
        vf v = v_fma(run_value(rest->sums) * of_columns, v_set(*rest->units), bias);
        if (call->shift)
            v += v_read_n((const value *)call->shift + rest->row / pixels * k + out, n);
        if (call->residual)
            v += v_read_n((const value *)call->residual + at, n);
        v_write_n((value *)call->output + at, v, n);
    }
}

/* The next `count` rows. */
static void digit_read(const df_call *call, digit_rows *next, int64_t count) {
    const int64_t pitch = digit_pitch(call);
    for (; count > 0 && next->read < next->count; count--, next->read++)
        next->units[next->read] = digit_row(call, next->row + next->read, next->items + next->read * pitch);
}

/* The sums of `tiles` x 16 rows. Beside them: what is left of those before, `count` of the next rows now and then, and
 * fetching weights, while they come from far. */
V_INLINE void digit_sums(const df_call *call, const int tiles, const digit_rows *now, int64_t out, digit_rest *before,
                         digit_rows *next, int64_t count, int64_t every, int64_t *turn, const char *fetch,
                         digit_scratch *s) {
    const int64_t pitch = digit_pitch(call), plane = digit_plane(call), steps = digit_steps(call);
    const int64_t at[RUN_TILES] = {0, TILE_ROWS * pitch}, share = df_blocks(RUN, steps);
    const patch_item *a = now->items, *b = (const patch_item *)call->weight + out / TILE_ROWS * digit_columns(call);
    TILES_BARRIER();
    run_begin(tiles);
    V_ROLLED for (int64_t step = 0; step < steps; step++, a += PATCH_DEPTH, b += TAP_ITEMS) {
        run_first(tiles, a, at, pitch, plane, b);
        digit_finish(call, before, share);
        run_second(tiles, a, at, pitch, plane, b);
        if (++*turn == every) {
            *turn = 0;
            digit_read(call, next, count);
        }
        for (int line = 0; fetch && line < TAP_ITEMS; line += 64, fetch += 64)
            __builtin_prefetch(fetch, 0, 2);
        if (step % AWAKE == AWAKE - 1)
            tile_store(7, s->spare, ROWS_APART);
    }
    TILES_BARRIER();
    run_end(tiles, s->sums);
    TILES_BARRIER();
}

static void conv_digits_run(const df_call *call, int64_t task, void *scratch) {
    digit_scratch *s = scratch;
    const int64_t parts = df_blocks(call->out_channels, call->columns);
    const int64_t begin = task % parts * call->columns, end = df_min(begin + call->columns, call->out_channels);
    const int64_t first = task / parts * call->block, last = df_min(first + call->block, conv_rows(call));
    const int64_t steps = df_blocks(end - begin, TILE_ROWS) * digit_steps(call);
    const int64_t count = df_blocks(RUN, steps), every = steps > RUN ? steps / RUN : 1;
    digit_rows rows[2] = {{.items = s->rows}, {.items = s->rows + RUN * digit_pitch(call)}}, *now = rows;
    digit_rest before = {0};
    now->row = first, now->count = df_min(RUN, last - first);
    tiles_open();
    for (int64_t row = first, turn = 0; row < last; row += RUN) {
        digit_rows *next = now == rows ? rows + 1 : rows;
        digit_read(call, now, RUN);
        next->row = row + RUN, next->count = df_min(RUN, last - next->row), next->read = 0;
        for (int64_t out = begin; out < end; out += TILE_ROWS) {
            const char *soon = (const char *)call->weight + (out / TILE_ROWS + 1) * digit_columns(call);
            if (row > first || out + TILE_ROWS >= end)
                soon = NULL;
            if (now->count > TILE_ROWS)
                digit_sums(call, 2, now, out, &before, next, count, every, &turn, soon, s);
            else
                digit_sums(call, 1, now, out, &before, next, count, every, &turn, soon, s);
            before = (digit_rest){row, row + now->count, out, s->sums, now->units};
        }
        now = next;
    }
    tiles_close();
    digit_finish(call, &before, RUN);
}
