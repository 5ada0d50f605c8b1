/* Convolution 3x3 at stride 1, directly, where tiles multiply so fast that Winograd's transformations would take longer than
 * they save. What it reads (a norm, SiLU, an upsampled value, both sides of a concatenation) is computed once, as terms in
 * a patch.
 *
 * Images lie in the patch as lines: one of zeros, then the image's, each of them a pixel of zeros and then the line's
 * pixels. So the zeros below an image are those above the next, those to the right of a line begin the next one, and a tap
 * of the kernel is the same distance away from every output pixel: 16 pixels that follow each other are the rows of a tile,
 * for each of the nine taps. What comes out for the zeros is left behind. */

enum {
    TAPS = 9,
    RUN = 6 * TILE_ROWS, /* pixels at a time, at most */
    PATCH = 327680,      /* terms of a task's patch, at most (but for one line and its neighbours) */
    WORTH = 256,         /* pixels of a task, at least, where there are threads enough: it reads all weights for them */
    AHEAD = 1024         /* floats of the input that are fetched in advance */
};

typedef struct conv3x3_scratch {
    float sums[RUN * TILE_ROWS];
    float spare[TILE_ROWS * TILE_ROWS];
    term patch[];
} conv3x3_scratch;

static int64_t conv3x3_across(const df_call *call) { /* pixels of a line */
    return (int64_t)call->out_width + 1;
}

/* Terms of a pixel: whole steps, and a cache line more, so that neighbours do not share their cache sets. */
static int64_t conv3x3_pitch(const df_call *call) {
    return (packed_words(call->channels) + 16) * PAIR;
}

static int64_t conv3x3_lines(const df_call *call) { /* of all images */
    return call->images * ((int64_t)call->out_height + 1);
}

/* Lines of a task, at most: of an image or a few, whatever call->images. */
static int64_t conv3x3_most(const df_call *call) {
    const int64_t fit = PATCH / (conv3x3_across(call) * conv3x3_pitch(call)) - 2;
    return fit < 1 ? 1 : fit;
}

static size_t conv3x3_scratch_bytes(const df_call *call) {
    /* The lines above and below, and what the last tile reads beyond the end. */
    const int64_t pixels = (conv3x3_most(call) + 2) * conv3x3_across(call) + 1 + TILE_ROWS;
    return sizeof(conv3x3_scratch) + (size_t)(pixels * conv3x3_pitch(call)) * sizeof(term);
}

/* Equal blocks of lines, as many as give each thread the same number of them unless they become small; where there are
 * fewer than threads, these share the columns. */
static int64_t conv3x3_tasks(df_call *call) {
    const int64_t lines = conv3x3_lines(call), threads = call->threads > 0 ? call->threads : 1;
    const int64_t fewest = df_blocks(lines, conv3x3_most(call)), even = df_round_up(fewest, threads);
    const int64_t blocks = lines * conv3x3_across(call) >= even * WORTH ? even : fewest;
    call->block = df_blocks(lines, blocks);
    return share_columns(call, df_blocks(lines, call->block), COLUMNS);
}

/* ---------------------------------------------------------------- weights */

static int64_t conv3x3_packed(const df_call *call) {
    return TAPS * df_round_up(call->out_channels, TILE_ROWS) * packed_words(call->channels);
}

/* Where the weights for the outputs from `out` on begin. */
static int64_t conv3x3_at(const df_call *call, int64_t out) {
    return TAPS * packed_words(call->channels) * PAIR * out;
}

/* (out, c, 3, 3) -> [out / 16][c / 32][9] of tiles [16][16][2], the order in which a task reads them. */
static void conv3x3_pack(const df_call *call, const float *weight, float *packed) {
    const int64_t c = call->channels;
    memset(packed, 0, (size_t)conv3x3_packed(call) * sizeof *packed);
    for (int64_t k = 0; k < call->out_channels; k++)
        for (int64_t i = 0; i < c; i++)
            for (int64_t tap = 0; tap < TAPS; tap++) {
                term *tile = (term *)packed + conv3x3_at(call, k / TILE_ROWS * TILE_ROWS) +
                             (i / TILE_DEPTH * TAPS + tap) * TILE_TERMS;
                tile[(i % TILE_DEPTH / PAIR * TILE_ROWS + k % TILE_ROWS) * PAIR + i % PAIR] =
                    to_term(weight[(k * c + i) * TAPS + tap]);
            }
}

/* ---------------------------------------------------------------- inputs */

/* A line of an image, as the convolution reads it. */
V_INLINE void conv3x3_read_line(const df_call *call, int64_t image, int64_t y, term *to, const bool with_norm,
                                const bool with_silu) {
    const int64_t c = call->channels, pitch = conv3x3_pitch(call), up = call->upsample;
    const int64_t pixel = (image * call->height + (y >> up)) * call->width;
    const float *norm = with_norm ? call->norm + image * 3 * c : NULL;
    for (int second = 0; second < (call->split < c ? 2 : 1); second++) {
        const int64_t first = second ? call->split : 0, count = (second ? c : call->split) - first;
        for (int64_t x = 0; x < call->out_width; x++) {
            const float *from = call->input[second] + (pixel + (x >> up)) * count;
            term *at = to + x * pitch + first;
            for (int64_t i = 0; i < count; i += LANES) {
                const int64_t n = df_min(LANES, count - i);
                vf v = v_load_n(from + i, n);
                __builtin_prefetch(from + i + AHEAD, 0, 2);
                if (with_norm) {
                    const float *of = norm + first + i;
                    v = v_fma(v - v_load_n(of, n), v_load_n(of + c, n), v_load_n(of + 2 * c, n));
                }
                if (with_silu)
                    v = silu_to_term(v);
                if (n == LANES)
                    v_store_terms(at + i, v);
                else
                    v_store_terms_n(at + i, v, n);
            }
        }
    }
    for (int64_t x = 0; x < call->out_width; x++)
        clear_terms(to + x * pitch + c, packed_words(c) * PAIR - c);
}

/* The lines around first..first+lines-1 of all images. */
static void conv3x3_read(const df_call *call, int64_t first, int64_t lines, term *patch) {
    const int64_t pitch = conv3x3_pitch(call), across = conv3x3_across(call), of_image = (int64_t)call->out_height + 1;
    for (int64_t line = first - 1; line <= first + lines; line++, patch += across * pitch) {
        const int64_t image = line / of_image, y = line % of_image - 1;
        clear_terms(patch, pitch);
        if (line < 0 || line >= conv3x3_lines(call) || y < 0)
            clear_terms(patch, across * pitch);
        else if (!call->norm)
            conv3x3_read_line(call, image, y, patch + pitch, false, false);
        else if (call->silu)
            conv3x3_read_line(call, image, y, patch + pitch, true, true);
        else
            conv3x3_read_line(call, image, y, patch + pitch, true, false);
    }
    clear_terms(patch, pitch);
}

/* ---------------------------------------------------------------- outputs */

/* Up to RUN pixels of an image that follow each other, the zeros at the end of a line among them, and 16 outputs of each.
 * Their sums are in memory while those of the next run are being taken: what is left to do for them, and fetching what
 * that will need, goes on beside the tiles, which are busy for 16 cycles with each product. */
typedef struct conv3x3_pixels {
    int64_t image, y, x, count; /* what is left */
    int64_t out;
    const float *sums; /* [count][16] */
} conv3x3_pixels;

/* The offset in the output of the next of them, or -1: it is a zero. */
V_INLINE int64_t conv3x3_next(const df_call *call, conv3x3_pixels *at) {
    const int64_t width = call->out_width, x = at->x;
    at->count--;
    at->x = x == width ? 0 : x + 1;
    at->y += x == width;
    return x == width ? -1 : ((at->image * call->out_height + at->y) * width + x) * call->out_channels + at->out;
}

/* The next `count` of them: from sums to outputs. */
V_INLINE void conv3x3_finish(const df_call *call, conv3x3_pixels *at, int64_t count) {
    const int64_t k = call->out_channels, n = df_min(LANES, k - at->out);
    if (!at->count)
        return;
    vf add = v_load(call->bias + at->out);
    if (call->shift)
        add += v_load_n(call->shift + at->image * k + at->out, n);
    for (int64_t i = df_min(count, at->count); i > 0; i--, at->sums += TILE_ROWS) {
        const int64_t pixel = conv3x3_next(call, at);
        if (pixel < 0)
            continue;
        vf v = v_load(at->sums) + add;
        if (call->residual)
            v += v_load_n(call->residual + pixel, n);
        v_store_n(call->output + pixel, v, n);
    }
}

/* Where that will read and write. */
V_INLINE void conv3x3_fetch(const df_call *call, conv3x3_pixels *at, int64_t count) {
    for (int64_t i = df_min(count, at->count); i > 0; i--) {
        const int64_t pixel = conv3x3_next(call, at);
        if (pixel < 0)
            continue;
        __builtin_prefetch(call->output + pixel, 1, 2);
        if (call->residual)
            __builtin_prefetch(call->residual + pixel, 0, 2);
    }
}

/* The sums of `tiles` x 16 pixels, whose upper left neighbours are at `a`, and what is left of the run before them. As
 * many sums as there are registers for, so that each tile of weights, which comes from further away, is used often; taps
 * within steps of 32 channels, so that what they share of the pixels stays near. */
V_INLINE void conv3x3_sums(const df_call *call, const int tiles, const int64_t taps[TAPS], const term *a,
                           const conv3x3_pixels *now, conv3x3_pixels *before, conv3x3_scratch *s) {
    const int64_t pitch = conv3x3_pitch(call), apart = pitch * (int64_t)sizeof *a;
    const int64_t line = TILE_ROWS * (int64_t)sizeof(float), steps = packed_words(call->channels) / STEP;
    const int64_t share = df_blocks(RUN, steps); /* so they are done with the sums before new ones are stored */
    const term *b = (const term *)call->weight + conv3x3_at(call, now->out);
    conv3x3_pixels soon = *now;
    TILES_BARRIER();
#define EACH_TILE(what) what(0) what(1) what(2) what(3) what(4) what(5)
#define ZERO(tile)                                                                                                     \
    if (tile < tiles)                                                                                                  \
        tile_zero(tile);
#define DOT(tile)                                                                                                      \
    if (tile < tiles) {                                                                                                \
        tile_load(6, row + tile * TILE_ROWS * pitch, apart);                                                           \
        tile_dot(tile, 6, 7);                                                                                          \
    }
#define STORE(tile)                                                                                                    \
    if (tile < tiles)                                                                                                  \
        tile_store(tile, s->sums + tile * TILE_ROWS * TILE_ROWS, line);
    EACH_TILE(ZERO)
    for (int64_t step = 0; step < steps; step++, a += TILE_DEPTH) {
        for (int64_t tap = 0; tap < TAPS; tap++, b += TILE_TERMS) {
            const term *row = a + taps[tap];
            tile_load(7, b, line);
            EACH_TILE(DOT)
        }
        /* The way from tiles to memory falls asleep after some 1500 cycles and takes 1000 to wake up (Intel Xeon, 2026). */
        tile_store(7, s->spare, line);
        conv3x3_finish(call, before, share);
        conv3x3_fetch(call, &soon, share);
    }
    TILES_BARRIER(); /* the sums before are read */
    EACH_TILE(STORE)
#undef EACH_TILE
#undef ZERO
#undef DOT
#undef STORE
    TILES_BARRIER();
}

/* Lines y..y+lines-1 of an image, whose line above begins the patch, for 16 outputs; `before`: the run before this one. */
static void conv3x3_multiply(const df_call *call, conv3x3_pixels at, int64_t lines, const term *patch,
                             conv3x3_pixels *before, conv3x3_scratch *s) {
    const int64_t pitch = conv3x3_pitch(call), across = conv3x3_across(call), pixels = lines * across - 1, y = at.y;
    int64_t taps[TAPS];
    for (int64_t tap = 0; tap < TAPS; tap++)
        taps[tap] = (tap / 3 * across + tap % 3) * pitch;
    for (int64_t first = 0; first < pixels; first += RUN) {
        const term *a = patch + first * pitch;
        at.y = y + first / across, at.x = first % across, at.count = df_min(RUN, pixels - first), at.sums = s->sums;
        /* clang-format off */
#define RUN_OF(n) case n: conv3x3_sums(call, n, taps, a, &at, before, s); break;
        switch (df_blocks(at.count, TILE_ROWS)) {
        RUN_OF(1) RUN_OF(2) RUN_OF(3) RUN_OF(4) RUN_OF(5) RUN_OF(6)
        default: break;
        }
#undef RUN_OF
        /* clang-format on */
        *before = at;
    }
}

static void conv3x3_run(const df_call *call, int64_t task, void *scratch) {
    conv3x3_scratch *s = scratch;
    const int64_t parts = df_blocks(call->out_channels, call->columns), first = task / parts * call->block;
    const int64_t lines = df_min(call->block, conv3x3_lines(call) - first), of_image = (int64_t)call->out_height + 1;
    const int64_t begin = task % parts * call->columns, end = df_min(begin + call->columns, call->out_channels);
    conv3x3_pixels before = {.count = 0};
    conv3x3_read(call, first, lines, s->patch);
    tiles_open();
    for (int64_t out = begin; out < end; out += TILE_ROWS)
        for (int64_t line = first; line < first + lines;) {
            const conv3x3_pixels at = {.image = line / of_image, .y = line % of_image - 1, .out = out};
            const int64_t rest = df_min(of_image - 1 - at.y, first + lines - line);
            const term *above = s->patch + (line - first) * conv3x3_across(call) * conv3x3_pitch(call);
            if (at.y >= 0)
                conv3x3_multiply(call, at, rest, above, &before, s);
            line += at.y < 0 ? 1 : rest;
        }
    tiles_close();
    conv3x3_finish(call, &before, RUN);
}
