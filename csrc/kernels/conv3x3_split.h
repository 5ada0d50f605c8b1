/* Convolution 3x3 at stride 1 by Winograd's F(4, 3) along lines, and directly from line to line: six multiplications for
 * each of three lines make four outputs, instead of twelve, in tiles (split.h). In both directions it would be half as many
 * again, but of the transformed weights twice as many, and of the inputs half as many more, would have to be read again and
 * again by a core that multiplies this fast.
 *
 * All images' lines lie one above the other, each image's after a line of zeros, which is also the one below the image
 * before. A line is a row of tiles of 4 outputs; the tiles above and below are `across` rows away. */

enum {
    LINES = 3,  /* of the kernel */
    ROOM = 720, /* rows of a task's transformed inputs times steps of 32 channels, at most: 0.8 MB (but for a line) */
    ENOUGH = 64 /* rows of a task, at least, where there are threads enough: it reads all weights for them */
};

/* Where a row's outputs go: in the output of channel 0; how many, 0 for what is left of the last tile or a line of zeros. */
typedef struct split3x3_place {
    int64_t at;
    int32_t image, columns;
} split3x3_place;

typedef struct split3x3_scratch {
    tile_term *inputs; /* [EDGE][steps][PARTS][rows][32] */
    float *sums[2];    /* [EDGE][tiles][16][16], in turn */
    float *line;       /* [TILE * across + 2][STRIP] */
    float *spare;
    int64_t *starts;        /* of each tile's rows in a part of the inputs */
    split3x3_place *places; /* [tiles][16] */
    int64_t rows, plane;    /* of the inputs: rows of a part, terms of a point */
} split3x3_scratch;

static int64_t split3x3_line_count(const df_call *call) { /* of all images */
    return call->images * ((int64_t)call->out_height + 1);
}

/* Lines of a task, at most. */
static int64_t split3x3_most(const df_call *call) {
    const int64_t fit = ROOM / (split_steps(call) * winograd_across(call)) - 2;
    return fit < 1 ? 1 : fit;
}

/* Whether it is worth it (else winograd.h): all weights are read for as many rows as fit, and must not take longer than
 * these rows' products. One step of channels is over too soon, and an image of fewer rows than a tile has shares it with
 * lines of zeros; with many channels a single image gains nevertheless, for its weights are fewer here. */
static bool split3x3_fits(const df_call *call) {
    const int64_t rows = call->out_height * winograd_across(call), steps = split_steps(call);
    return split3x3_most(call) * winograd_across(call) >= ENOUGH && steps >= 2 && (rows >= TILE_ROWS || steps >= 8);
}

static size_t split3x3_layout(const df_call *call, int64_t lines, float *memory, split3x3_scratch *s) {
    const int64_t across = winograd_across(call), outputs = lines * across, tiles = df_blocks(outputs, TILE_ROWS);
    /* The lines above and below, and what the last tile reads beyond; an odd number, or parts would share cache sets. */
    s->rows = (outputs + 2 * across + TILE_ROWS) | 1;
    s->plane = split_steps(call) * PARTS * s->rows * STRIP;
    s->inputs = (tile_term *)memory;
    s->sums[0] = memory + df_round_up(EDGE * s->plane / TILE_PAIR, 16);
    s->sums[1] = s->sums[0] + EDGE * tiles * SPLIT_SUMS;
    s->line = s->sums[1] + EDGE * tiles * SPLIT_SUMS;
    s->spare = s->line + df_round_up((TILE * across + 2) * STRIP, 16);
    s->starts = (int64_t *)(s->spare + SPLIT_SUMS);
    s->places = (split3x3_place *)(s->starts + df_round_up(tiles, 8));
    return (size_t)((float *)(s->places + tiles * TILE_ROWS) - memory) * sizeof(float);
}

static size_t split3x3_scratch_bytes(const df_call *call) {
    split3x3_scratch s;
    static float origin[1]; /* only differences are used */
    return split3x3_layout(call, split3x3_most(call), origin, &s);
}

/* Whole images to a task where they fit, since it then reads no line twice; else, or where there are fewer images than
 * threads, equal parts of an image; and where these would become small, threads share the columns. */
static int64_t split3x3_tasks(df_call *call) {
    const int64_t of_image = (int64_t)call->out_height + 1, most = split3x3_most(call);
    const int64_t threads = call->threads > 0 ? call->threads : 1, share = df_blocks(call->images, threads);
    const int64_t rows = of_image * winograd_across(call);
    if (most >= of_image && call->images >= threads) {
        const int64_t rounds = df_blocks(share, most / of_image); /* of each thread */
        call->block = df_blocks(share, rounds) * of_image;
    } else {
        const int64_t parts = df_blocks(threads, call->images), fewest = df_blocks(of_image, most);
        call->block = df_blocks(of_image, parts > fewest && rows >= parts * ENOUGH ? parts : fewest);
    }
    return share_columns(call, df_blocks(split3x3_line_count(call), call->block), TILE_ROWS);
}

/* ---------------------------------------------------------------- weights */

/* Terms of the weights for 16 outputs at one point. */
static int64_t split3x3_columns(const df_call *call) {
    return split_steps(call) * LINES * SPLIT_COLUMNS;
}

static int64_t split3x3_packed(const df_call *call) {
    return df_blocks(call->out_channels, TILE_ROWS) * EDGE * split3x3_columns(call) / TILE_PAIR;
}

/* (out, c, 3, 3) -> [out / 16][6][step][3][part] of tiles, the order in which a task reads them. */
static void split3x3_pack(const df_call *call, const float *weight, float *packed) {
    memset(packed, 0, (size_t)split3x3_packed(call) * sizeof *packed);
    for (int64_t k = 0; k < call->out_channels; k++)
        for (int64_t i = 0; i < call->channels; i++) {
            int64_t within;
            const int64_t step = split_step(call, i, &within);
            for (int64_t y = 0; y < LINES; y++) {
                const float *g = weight + (k * call->channels + i) * 9 + y * 3;
                double u[EDGE];
                winograd_line_weight((const double[3]){(double)g[0], (double)g[1], (double)g[2]}, u);
                for (int64_t p = 0; p < EDGE; p++)
                    split_weight((tile_term *)packed + (k / TILE_ROWS * EDGE + p) * split3x3_columns(call) +
                                     (step * LINES + y) * SPLIT_COLUMNS + split_at(within, k % TILE_ROWS),
                                 u[p]);
            }
        }
}

/* ---------------------------------------------------------------- inputs */

/* A line of transformed tiles, for a step of channels. */
static void split3x3_transform(const df_call *call, const split3x3_scratch *s, tile_term *to) {
    const int64_t across = winograd_across(call), apart = s->rows * STRIP;
    for (int64_t x = 0; x < across; x++, to += STRIP) {
        vf d[2][EDGE], t[2][EDGE];
        V_UNROLL for (int half = 0; half < 2; half++) {
            V_UNROLL for (int i = 0; i < EDGE; i++) d[half][i] =
                v_load(s->line + (TILE * x + i) * STRIP + half * LANES);
            winograd_in(d[half], t[half]);
        }
        V_UNROLL for (int p = 0; p < EDGE; p++) split_store(to + p * s->plane, apart, t[0][p], t[1][p], false);
    }
}

/* Lines first-1..first+lines of all images. */
static void split3x3_inputs(const df_call *call, int64_t first, int64_t lines, const split3x3_scratch *s) {
    const int64_t across = winograd_across(call), of_image = (int64_t)call->out_height + 1;
    for (int64_t l = 0; l < lines + 2; l++) {
        const int64_t line = first - 1 + l, image = line / of_image, y = line % of_image - 1;
        const bool zeros = line < 0 || y < 0 || line >= split3x3_line_count(call);
        if (l == 0 && first % of_image == 0)
            continue; /* nothing below it is wanted */
        int64_t step = 0;
        for (int64_t at = 0, count; at < call->channels; at += count, step++) {
            /* A strip begins at a multiple of its width of either input. */
            const int64_t side = at < call->split ? call->split : call->channels;
            count = df_min(STRIP, side - at);
            tile_term *to = s->inputs + (step * PARTS * s->rows + l * across) * STRIP;
            if (zeros) {
                for (int64_t p = 0; p < EDGE * PARTS; p++)
                    memset(to + p / PARTS * s->plane + p % PARTS * s->rows * STRIP, 0,
                           (size_t)(across * STRIP) * sizeof *to);
                continue;
            }
            if (count <= LANES)
                memset(s->line, 0, (size_t)((TILE * across + 2) * STRIP) * sizeof *s->line);
            winograd_read(call, image, y, at, count, s->line);
            split3x3_transform(call, s, to);
        }
    }
}

/* ---------------------------------------------------------------- outputs */

/* Tiles begin at an image's line, not at one of zeros. Returns how many there are. */
static int64_t split3x3_place_tiles(const df_call *call, int64_t first, int64_t lines, const split3x3_scratch *s) {
    const int64_t across = winograd_across(call), of_image = (int64_t)call->out_height + 1, w = call->out_width;
    int64_t tiles = 0;
    for (int64_t row = 0; row < lines * across;) {
        if ((first + row / across) % of_image == 0) {
            row = (row / across + 1) * across;
            continue;
        }
        s->starts[tiles] = row * STRIP;
        for (int64_t i = 0; i < TILE_ROWS; i++, row++) {
            const int64_t line = first + row / across, image = line / of_image, y = line % of_image - 1;
            const int64_t x = row % across * TILE;
            const bool wanted = y >= 0 && line < first + lines;
            s->places[tiles * TILE_ROWS + i] =
                (split3x3_place){((image * call->out_height + y) * w + x) * call->out_channels, (int32_t)image,
                                 (int32_t)(wanted ? df_min(TILE, w - x) : 0)};
        }
        tiles++;
    }
    return tiles;
}

/* Rows that are left to do, for 16 outputs. */
typedef struct split3x3_rest {
    const df_call *call;
    const split3x3_place *place, *end;
    const float *sums;  /* of the first of them, at the first point */
    int64_t out, plane; /* floats from a point's sums to the next one's */
} split3x3_rest;

/* The next `count` of them: from sums to outputs. */
static void split3x3_finish(split3x3_rest *rest, int64_t count) {
    if (rest->place == rest->end)
        return;
    const df_call *call = rest->call;
    const int64_t k = call->out_channels, out = rest->out, n = df_min(LANES, k - out);
    for (; count > 0 && rest->place < rest->end; count--, rest->place++, rest->sums += TILE_ROWS) {
        const split3x3_place place = *rest->place;
        if (!place.columns)
            continue;
        vf m[EDGE], result[TILE], add = v_load(call->bias + out);
        V_UNROLL for (int p = 0; p < EDGE; p++) m[p] = v_load(rest->sums + p * rest->plane);
        winograd_out(m, result);
        if (call->shift)
            add += v_read_n((const value *)call->shift + place.image * k + out, n);
        V_UNROLL for (int i = 0; i < TILE; i++) if (i < place.columns) {
            const int64_t at = place.at + i * k + out;
            vf v = result[i] + add;
            if (call->residual)
                v += v_read_n((const value *)call->residual + at, n);
            v_write_n((value *)call->output + at, v, n);
        }
    }
}

/* ---------------------------------------------------------------- a task */

/* While the tiles take the sums for 16 outputs, those before are finished. */
typedef struct split3x3_beside {
    split3x3_rest before;
    int64_t share; /* rows at a time */
} split3x3_beside;

static void split3x3_do_beside(void *context) {
    split3x3_beside *beside = context;
    split3x3_finish(&beside->before, beside->share);
}

static void split3x3_run(const df_call *call, int64_t task, void *scratch) {
    const int64_t parts = df_blocks(call->out_channels, call->columns), first = task / parts * call->block;
    const int64_t lines = df_min(call->block, split3x3_line_count(call) - first), across = winograd_across(call);
    const int64_t begin = task % parts * call->columns, end = df_min(begin + call->columns, call->out_channels);
    const int64_t chunk = split3x3_columns(call), steps = split_steps(call);
    split3x3_scratch s;
    split3x3_layout(call, lines, scratch, &s);
    const int64_t tiles = split3x3_place_tiles(call, first, lines, &s), plane = tiles * SPLIT_SUMS;
    if (!tiles)
        return;
    split3x3_inputs(call, first, lines, &s);
    const int64_t taps[LINES] = {0, across * STRIP, 2 * across * STRIP};
    split3x3_beside beside = {.share = df_blocks(tiles * TILE_ROWS, EDGE * steps * LINES * df_blocks(tiles, SUMS))};
    const tile_term *b = (const tile_term *)call->weight + begin / TILE_ROWS * EDGE * chunk;
    tiles_open();
    for (int64_t out = begin, turn = 0; out < end; out += TILE_ROWS, turn = !turn) {
        const split3x3_rest now = {.call = call,
                                   .place = s.places,
                                   .end = s.places + tiles * TILE_ROWS,
                                   .sums = s.sums[turn],
                                   .out = out,
                                   .plane = plane};
        for (int64_t p = 0; p < EDGE; p++, b += chunk) {
            const split_columns of = {.b = b,
                                      .next = b + chunk,
                                      .steps = steps,
                                      .taps = LINES,
                                      .tap = taps,
                                      .step_apart = PARTS * s.rows * STRIP,
                                      .part_apart = s.rows * STRIP,
                                      .beside = split3x3_do_beside,
                                      .context = &beside};
            split_gemm(s.inputs + p * s.plane, s.starts, tiles, &of, s.sums[turn] + p * plane, s.spare);
        }
        beside.before = now;
    }
    tiles_close();
    split3x3_finish(&beside.before, tiles * TILE_ROWS);
}
