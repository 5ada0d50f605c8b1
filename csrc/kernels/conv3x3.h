/* Convolution 3x3 of bfloat16 at stride 1, directly, for tiles multiply so fast that Winograd's transformations would take
 * longer than they save. What it reads (a norm, SiLU, an upsampled value, both sides of a concatenation) is computed once,
 * into a patch, as the tiles multiply it (run_terms.h).
 *
 * Images lie in the patch as lines: one of zeros, then the image's, each of them a pixel of zeros and then the line's
 * pixels. So the zeros below an image are those above the next, those to the right of a line begin the next one, and a tap
 * of the kernel is the same distance away from every output pixel: 16 pixels that follow each other are the rows of a tile,
 * for each of the nine taps. What comes out for the zeros is left behind; where tiles fill lines, they pass the zeros. */

enum {
    TAPS = 9,
    PATCH_BYTES = 393216, /* bytes of a patch, at most (but for one line and its neighbours) */
    WORTH = 256,          /* pixels of a task, at least: it reads all weights for them */
    READ_AHEAD = 1024     /* values of the input that are fetched in advance */
};

typedef struct conv3x3_scratch {
    run_sum sums[RUN_SUMS];
    float add[TILE_ROWS]; /* to all of them */
    float spare[TILE_ROWS * TILE_ROWS];
    patch_item patches[];
} conv3x3_scratch;

static int64_t conv3x3_across(const df_call *call) { /* pixels of a line */
    return (int64_t)call->out_width + 1;
}

static int64_t conv3x3_steps(const df_call *call) {
    return df_blocks(call->channels, PATCH_DEPTH);
}

/* Items of a pixel, with room for the second input's last vector; and to the next, an odd number of cache lines, so that
 * neighbours do not share their sets. */
static int64_t conv3x3_pixel(const df_call *call) {
    return df_round_up(call->split + df_round_up(call->channels - call->split, LANES), PATCH_DEPTH);
}
static int64_t conv3x3_pitch(const df_call *call) {
    const int64_t line = 64 / (int64_t)sizeof(patch_item);
    return (conv3x3_pixel(call) / line | 1) * line;
}

static int64_t conv3x3_of_image(const df_call *call) { /* lines */
    return (int64_t)call->out_height + 1;
}

static int64_t conv3x3_lines(const df_call *call) { /* of all images */
    return call->images * conv3x3_of_image(call);
}

/* Whether tiles fill lines. */
static bool conv3x3_full(const df_call *call) {
    return call->out_width % TILE_ROWS == 0;
}

/* About as many taps as the tiles take for 16 outputs of so many lines, not more. */
static int64_t conv3x3_taps(const df_call *call, int64_t lines) {
    const int64_t images = df_blocks(lines, conv3x3_of_image(call)); /* a line of zeros each */
    const int64_t line = conv3x3_full(call) ? call->out_width : conv3x3_across(call);
    const int64_t runs = (lines - images) * line / RUN;
    return (runs > 1 ? runs : 1) * conv3x3_steps(call) * TAPS;
}

/* Lines of a patch, at most: of some images or of a part of one, whatever call->images. */
static int64_t conv3x3_most(const df_call *call) {
    const int64_t line = conv3x3_across(call) * conv3x3_pitch(call) * (int64_t)sizeof(patch_item);
    const int64_t fit = PATCH_BYTES / line - 2, of_image = conv3x3_of_image(call);
    return fit < 1 ? 1 : fit < of_image ? fit : fit / of_image * of_image;
}

/* Items of a patch: with the lines above and below, and what the last tile reads beyond the end. */
static int64_t conv3x3_patch_items(const df_call *call) {
    return ((conv3x3_most(call) + 2) * conv3x3_across(call) + 1 + TILE_ROWS) * conv3x3_pitch(call);
}

static size_t conv3x3_scratch_bytes(const df_call *call) {
    return sizeof(conv3x3_scratch) + (size_t)(2 * conv3x3_patch_items(call)) * sizeof(patch_item);
}

/* Equal blocks of lines, one for each thread unless they become small; then threads share the columns. */
static int64_t conv3x3_tasks(df_call *call) {
    const int64_t lines = conv3x3_lines(call), worth = lines * conv3x3_across(call) / WORTH;
    const int64_t blocks = worth < 1 ? 1 : df_min(worth, call->threads > 0 ? call->threads : 1);
    call->block = df_blocks(lines, blocks);
    return share_columns(call, df_blocks(lines, call->block), TILE_ROWS);
}

/* ---------------------------------------------------------------- weights */

/* Items of the weights for 16 outputs. */
static int64_t conv3x3_columns(const df_call *call) {
    return conv3x3_steps(call) * TAPS * TAP_ITEMS;
}

static int64_t conv3x3_packed(const df_call *call) {
    const int64_t bytes = conv3x3_columns(call) * (int64_t)sizeof(patch_item);
    return df_blocks(call->out_channels, TILE_ROWS) * bytes / (int64_t)sizeof(float);
}

/* (out, c, 3, 3) -> [out / 16][step][9] of what a tap of a step takes, the order in which a task reads them. */
static void conv3x3_pack(const df_call *call, const float *weight, float *packed) {
    const int64_t c = call->channels;
    memset(packed, 0, (size_t)conv3x3_packed(call) * sizeof *packed);
    for (int64_t k = 0; k < call->out_channels; k++, weight += c * TAPS) {
        patch_item *to = (patch_item *)packed + k / TILE_ROWS * conv3x3_columns(call);
        for (int64_t i = 0; i < c; i++)
            for (int64_t tap = 0; tap < TAPS; tap++)
                column_put(to + (i / PATCH_DEPTH * TAPS + tap) * TAP_ITEMS, i % PATCH_DEPTH, k % TILE_ROWS,
                           weight[i * TAPS + tap]);
    }
}

/* ---------------------------------------------------------------- inputs */

/* A patch on its way: lines of all images, the one above and the one below among them. A few pixels that follow each
 * other are read together, one vector of channels after the other, first those of the one input, then of the other. */
typedef struct conv3x3_reader {
    const df_call *call;
    int64_t lines, most;         /* to go, with this one; pixels to read together */
    int64_t image, y, x, pixels; /* of the first of them; how many */
    bool second;                 /* which input */
    int64_t at, count;           /* channel of that input; of how many */
    const value *from;           /* the line in that input */
    const float *norm;           /* of its channels, or NULL */
    patch_item *line, *to;       /* the line, with the zeros before it; the first pixel's channels of that input */
} conv3x3_reader;

static void conv3x3_turn(conv3x3_reader *r) { /* to an input */
    const df_call *call = r->call;
    const int64_t first = r->second ? call->split : 0;
    r->at = 0;
    r->count = r->second ? call->channels - call->split : call->split;
    r->from = (const value *)call->input[r->second] +
              (r->image * call->height + (r->y >> call->upsample)) * call->width * r->count;
    r->norm = call->norm ? call->norm + r->image * DF_NORM_ROWS * call->channels + first : NULL;
    r->to = r->line + (1 + r->x) * conv3x3_pitch(call) + first;
}

/* From a pixel on. */
static void conv3x3_begin_pixels(conv3x3_reader *r, int64_t x) {
    r->x = x;
    r->pixels = df_min(r->most, r->call->out_width - x);
    r->second = false;
    conv3x3_turn(r);
}

static void conv3x3_pass_line(conv3x3_reader *r) {
    const df_call *call = r->call;
    r->lines--;
    r->line += conv3x3_across(call) * conv3x3_pitch(call);
    if (++r->y == call->out_height) {
        r->y = -1;
        r->image++;
    }
}

static void conv3x3_clear(patch_item *at, int64_t items) {
    memset(at, 0, (size_t)items * sizeof *at);
}

/* The line, or the next that is not of zeros, if there is one. */
static void conv3x3_begin_line(conv3x3_reader *r) {
    const df_call *call = r->call;
    const int64_t pitch = conv3x3_pitch(call);
    for (; r->lines; conv3x3_pass_line(r)) {
        const bool zeros = r->y < 0 || r->image < 0 || r->image >= call->images;
        conv3x3_clear(r->line, zeros ? conv3x3_across(call) * pitch : pitch);
        if (!zeros) {
            conv3x3_begin_pixels(r, 0);
            return;
        }
    }
    conv3x3_clear(r->line, pitch); /* behind the last line */
}

static void conv3x3_next_pixels(conv3x3_reader *r) {
    const df_call *call = r->call;
    const int64_t c = call->channels, filled = conv3x3_pixel(call) - c;
    if (!r->second && call->split < c) {
        r->second = true;
        conv3x3_turn(r);
        return;
    }
    for (int64_t i = 0; i < r->pixels && filled; i++)
        conv3x3_clear(r->line + (1 + r->x + i) * conv3x3_pitch(call) + c, filled);
    if (r->x + r->pixels < call->out_width) {
        conv3x3_begin_pixels(r, r->x + r->pixels);
    } else {
        conv3x3_pass_line(r);
        conv3x3_begin_line(r);
    }
}

/* The lines around first..first+lines-1 of all images, so many pixels at a time that it takes at most `taps` calls of
 * conv3x3_read, if possible. */
static conv3x3_reader conv3x3_begin(const df_call *call, int64_t first, int64_t lines, int64_t taps,
                                    patch_item *patch) {
    const int64_t of_image = conv3x3_of_image(call), above = first - 1 + of_image, width = call->out_width;
    const int64_t vectors = df_blocks(call->split, LANES) + df_blocks(call->channels - call->split, LANES);
    conv3x3_reader r = {.call = call,
                        .lines = lines + 2,
                        .most = 1,
                        .image = above / of_image - 1,
                        .y = above % of_image - 1,
                        .line = patch};
    while (r.most < width && (lines + 2) * df_blocks(width, r.most) * vectors > taps)
        r.most++;
    conv3x3_begin_line(&r);
    return r;
}

/* The next vector of some pixels, as the convolution reads it. What is stored beyond an input's channels are zeros, or
 * overwritten later. */
V_INLINE void conv3x3_read_as(conv3x3_reader *r, const bool with_norm, const bool with_silu) {
    const int64_t n = df_min(LANES, r->count - r->at), pitch = conv3x3_pitch(r->call), c = r->call->channels;
    const int64_t x = r->x, up = r->call->upsample, count = r->count;
    const value *from = r->from + r->at;
    patch_item *to = r->to + r->at;
    vf factor = v_set(0), offset = v_set(0);
    if (with_norm) { /* the mean taken out later: that costs less than a term's rounding */
        const float *norm = r->norm + r->at;
        factor = v_load_n(norm + DF_NORM_FACTOR * c, n);
        offset = v_fma(-v_load_n(norm + DF_NORM_MEAN * c, n), factor, v_load_n(norm + DF_NORM_SHIFT * c, n));
    }
    for (int64_t i = 0; i < r->pixels; i++, to += pitch) {
        const value *at = from + ((x + i) >> up) * count;
        vf v = v_read_n(at, n);
        __builtin_prefetch(at + READ_AHEAD, 0, 2);
        if (with_norm)
            v = v_fma(v, factor, offset);
        v_store_terms(to, with_silu ? silu_to_term(v) : v);
    }
    r->at += LANES;
    if (r->at >= count)
        conv3x3_next_pixels(r);
}

V_INLINE void conv3x3_read(conv3x3_reader *r) {
    if (!r->lines)
        return;
    if (!r->norm)
        conv3x3_read_as(r, false, false);
    else if (r->call->silu)
        conv3x3_read_as(r, true, true);
    else
        conv3x3_read_as(r, true, false);
}

static void conv3x3_read_rest(conv3x3_reader *r) {
    while (r->lines)
        conv3x3_read(r);
}

/* ---------------------------------------------------------------- outputs */

/* Up to RUN pixels of an image that follow each other, the zeros at the end of a line among them, and 16 outputs of each.
 * Their sums are in memory while those of the next run are being taken. */
typedef struct conv3x3_pixels {
    int64_t image, x, count; /* what is left; x of the next, or something less than 0 where there are no zeros */
    int64_t out, at;         /* channel; offset in the output of the next that is no zero */
    const run_sum *sums;     /* of the next */
} conv3x3_pixels;

/* The next `count` of them: from sums to outputs. */
V_INLINE void conv3x3_finish_as(const df_call *call, conv3x3_pixels *p, const float *add, int64_t count,
                                const bool with_residual) {
    const int64_t k = call->out_channels, n = df_min(LANES, k - p->out), width = call->out_width;
    const value *residual = call->residual;
    value *output = call->output;
    const vf more = v_load(add);
    const run_sum *sums = p->sums, *end = sums + df_min(count, p->count) * TILE_ROWS;
    int64_t x = p->x, at = p->at;
    p->count -= count;
    for (; sums < end; sums += TILE_ROWS, x++) {
        if (x == width) {
            x = -1;
            continue;
        }
        vf v = run_value(sums) + more;
        if (with_residual)
            v += v_read_n(residual + at, n);
        v_write_n(output + at, v, n);
        at += k;
    }
    p->sums = sums, p->x = x, p->at = at;
}

V_INLINE void conv3x3_finish(const df_call *call, conv3x3_pixels *p, const float *add, int64_t count) {
    if (p->count <= 0)
        return;
    if (call->residual)
        conv3x3_finish_as(call, p, add, count, true);
    else
        conv3x3_finish_as(call, p, add, count, false);
}

/* Where that will read and write. */
V_INLINE void conv3x3_fetch(const df_call *call, conv3x3_pixels *p, int64_t count) {
    const value *residual = call->residual ? call->residual : call->output, *output = call->output;
    const int64_t width = call->out_width, k = call->out_channels;
    int64_t x = p->x, at = p->at;
    for (int64_t i = df_min(count, p->count); i > 0; i--, x++) {
        if (x == width) {
            x = -1;
            continue;
        }
        __builtin_prefetch(output + at, 1, 2);
        __builtin_prefetch(residual + at, 0, 2);
        at += k;
    }
    p->count -= count, p->x = x, p->at = at;
}

/* What is added to all pixels of a run. */
static void conv3x3_add(const df_call *call, const conv3x3_pixels *p, float *add) {
    const int64_t k = call->out_channels;
    vf v = v_load(call->bias + p->out);
    if (call->shift)
        v += v_read_n((const value *)call->shift + p->image * k + p->out, df_min(LANES, k - p->out));
    v_store(add, v);
}

/* ---------------------------------------------------------------- products */

/* A task's state beside its tiles. They are busy for 16 cycles with each product, in which the rest of the core has time for
 * what is left of the run before and for the next patch: a little after each tap, for a processor looks ahead by some
 * hundred instructions only, and what comes in one piece keeps the tiles waiting. */
typedef struct conv3x3_aside {
    conv3x3_pixels before;
    conv3x3_reader next;
    conv3x3_scratch *s;
    const char *soon; /* weights to be fetched, `lines` of them with each tap */
    int64_t lines;
} conv3x3_aside;

/* The sums of `tiles` x 16 pixels, whose upper left neighbours are at a[at[..]]. Taps within steps of channels, so that what they
 * share of the pixels stays near. */
V_INLINE void conv3x3_sums(const df_call *call, const int tiles, const int64_t taps[TAPS], const patch_item *a,
                           const int64_t at[RUN_TILES], const conv3x3_pixels *now, conv3x3_aside *aside) {
    const int64_t pitch = conv3x3_pitch(call), steps = conv3x3_steps(call);
    const int64_t share = df_blocks(RUN, steps * TAPS); /* so they are done with the sums before new ones are stored */
    const patch_item *b = (const patch_item *)call->weight + now->out / TILE_ROWS * conv3x3_columns(call);
    conv3x3_scratch *s = aside->s;
    conv3x3_pixels soon = *now;
    if (now->out % (64 / (int64_t)sizeof(value)))
        soon.count = 0; /* the same lines as those of the outputs before */
    TILES_BARRIER();
    run_begin(tiles);
    for (int64_t step = 0; step < steps; step++, a += PATCH_DEPTH) {
        V_ROLLED for (int64_t tap = 0; tap < TAPS; tap++, b += TAP_ITEMS) {
            const patch_item *row = a + taps[tap];
            run_first(tiles, row, at, pitch, b);
            conv3x3_finish(call, &aside->before, s->add, share);
            conv3x3_fetch(call, &soon, share);
            for (int64_t i = 0; i < aside->lines; i++, aside->soon += 64)
                __builtin_prefetch(aside->soon, 0, 2);
            run_second(tiles, row, at, pitch);
            conv3x3_read(&aside->next);
            /* The way from tiles to memory falls asleep after some 1500 cycles and takes 1000 to wake up (Xeon, 2026). */
            if (tap % AWAKE == AWAKE - 1)
                tile_store(7, s->spare, ROWS_APART);
        }
    }
    TILES_BARRIER(); /* the sums before are read */
    run_end(tiles, s->sums);
    TILES_BARRIER();
    conv3x3_add(call, now, s->add);
}

/* Lines y..y+lines-1 of an image, whose line above begins the patch, for 16 outputs. */
static void conv3x3_multiply(const df_call *call, int64_t image, int64_t y, int64_t lines, int64_t out,
                             const patch_item *patch, conv3x3_aside *aside) {
    const int64_t pitch = conv3x3_pitch(call), across = conv3x3_across(call);
    const int64_t k = call->out_channels, width = call->out_width;
    const bool full = conv3x3_full(call);
    const int64_t pixels = full ? lines * width : lines * across - 1; /* with the zeros */
    int64_t taps[TAPS];
    for (int64_t tap = 0; tap < TAPS; tap++)
        taps[tap] = (tap / 3 * across + tap % 3) * pitch;
    for (int64_t first = 0; first < pixels; first += RUN) {
        const int64_t before = (image * call->out_height + y) * width + first - (full ? 0 : first / across);
        int64_t tiles[RUN_TILES];
        for (int64_t t = 0; t < RUN_TILES; t++) {
            const int64_t pixel = first + t * TILE_ROWS;
            tiles[t] = (full ? pixel / width * across + pixel % width : pixel) * pitch;
        }
        const conv3x3_pixels at = {.image = image,
                                   .x = full ? -RUN : first % across,
                                   .count = df_min(RUN, pixels - first),
                                   .out = out,
                                   .at = before * k + out,
                                   .sums = aside->s->sums};
        /* clang-format off */
#define RUN_OF(n) case n: conv3x3_sums(call, n, taps, patch, tiles, &at, aside); break;
        switch (df_blocks(at.count, TILE_ROWS)) {
        EACH_RUN(RUN_OF)
        default: break;
        }
#undef RUN_OF
        /* clang-format on */
        aside->before = at;
    }
}

/* Outputs begin..end-1 of lines first..first+lines-1 of all images, which are the patch. */
static void conv3x3_lines_of(const df_call *call, int64_t first, int64_t lines, int64_t begin, int64_t end,
                             patch_item *patch, conv3x3_aside *aside) {
    const int64_t of_image = conv3x3_of_image(call), apart = conv3x3_across(call) * conv3x3_pitch(call);
    const int64_t taps = conv3x3_taps(call, lines);
    const int64_t columns = conv3x3_columns(call);
    aside->lines = df_blocks(columns * (int64_t)sizeof(patch_item) / 64, taps);
    for (int64_t out = begin; out < end; out += TILE_ROWS) {
        const int64_t after = out + TILE_ROWS < end ? out + TILE_ROWS : begin;
        aside->soon = (const char *)((const patch_item *)call->weight + after / TILE_ROWS * columns);
        for (int64_t line = first; line < first + lines;) {
            const int64_t y = line % of_image - 1, rest = df_min(of_image - 1 - y, first + lines - line);
            if (y >= 0)
                conv3x3_multiply(call, line / of_image, y, rest, out, patch + (line - first) * apart, aside);
            line += y < 0 ? 1 : rest;
        }
    }
}

static void conv3x3_run(const df_call *call, int64_t task, void *scratch) {
    conv3x3_scratch *s = scratch;
    const int64_t parts = df_blocks(call->out_channels, call->columns), most = conv3x3_most(call);
    const int64_t begin = task % parts * call->columns, end = df_min(begin + call->columns, call->out_channels);
    const int64_t first = task / parts * call->block, last = df_min(first + call->block, conv3x3_lines(call));
    patch_item *patch = s->patches, *other = patch + conv3x3_patch_items(call);
    conv3x3_aside aside = {.s = s, .next = conv3x3_begin(call, first, df_min(most, last - first), 0, patch)};
    tiles_open();
    for (int64_t line = first, lines; line < last; line += lines) {
        lines = df_min(most, last - line);
        conv3x3_read_rest(&aside.next);
        if (line + lines < last) {
            const int64_t taps = conv3x3_taps(call, lines) * df_blocks(end - begin, TILE_ROWS);
            aside.next = conv3x3_begin(call, line + lines, df_min(most, last - line - lines), taps, other);
        }
        conv3x3_lines_of(call, line, lines, begin, end, patch, &aside);
        patch_item *done = patch;
        patch = other;
        other = done;
    }
    tiles_close();
    conv3x3_finish(call, &aside.before, s->add, RUN);
}
