/* Convolution 3x3 at stride 1 by Winograd's F(4x4, 3x3): 36 multiplications for 16 outputs instead of 144.
 *
 * A tile of 4 x 4 outputs reads 6 x 6 inputs d. With the points 0, +-a, +-b and infinity, a = sqrt(1/2), b = sqrt(2),
 * whose rounding errors are about half of those of the customary 0, +-1, +-2,
 *
 *     output = A' [(G g G') * (B' d B)] A        (Lavin and Gray, CVPR 2016; * is elementwise)
 *
 * and the elementwise products, summed over the channels, are 36 matrix products [tiles][channels] x [channels][outputs],
 * one for each pair of points. A task takes a block of tiles through all three stages, so that what lies between them
 * stays in its caches; the transformed weights are read as one stream. */

enum {
    TILE = 4,
    EDGE = 6,
    POINTS = EDGE * EDGE,
    CHUNK = 32,                  /* output channels that go through the last two stages at a time */
    STRIP = 32,                  /* input channels that go through the first stage at a time */
    TILES = ROWS * (132 / ROWS), /* of a task, at most: the weights are read once for each block */
    TRANSFORMED = 1250000,       /* words of a task's transformed inputs, at most (but for the first ROWS tiles) */
    READING = 4,                 /* tiles that one could multiply while their weights are read */
    PATCH = 40960,               /* floats of the input that is being transformed, at most (but for one row of tiles) */
    PAD = 16 * PAIR,             /* terms between the 36 planes, which would else share their cache sets */
    AHEAD = V_SET == V_AVX512 ? 8 : 0 /* pixels of the input that are fetched in advance, and a tile of the output: 6 %
                                       * of the network on an Intel Xeon with AVX-512, a loss on Zen 3 with AVX2 */
};

#define WINOGRAD_A 0.70710678118654752440F
#define WINOGRAD_B 1.41421356237309504880F

typedef struct winograd_scratch {
    term *inputs;   /* [POINTS][tiles][channels] */
    float *outputs; /* [POINTS][tiles][CHUNK] */
    float *patch;   /* [rows][columns][STRIP] */
    int64_t input_plane, output_plane;
} winograd_scratch;

static int64_t winograd_across(const df_call *call) {
    return df_blocks(call->out_width, TILE);
}

static int64_t winograd_tiles(const df_call *call) {
    return df_blocks(call->out_height, TILE) * winograd_across(call);
}

/* Terms from a tile to the next. The last vector of either input is stored whole. */
static int64_t winograd_pitch(const df_call *call) {
    return df_round_up(call->channels, LANES) + (call->split % LANES ? LANES : 0);
}

/* Tiles of a task, at most. */
static int64_t winograd_most(const df_call *call) {
    const int64_t fit = TRANSFORMED * PAIR / (POINTS * winograd_pitch(call)) / ROWS * ROWS;
    return fit < ROWS ? ROWS : df_min(fit, TILES);
}

/* Rows of tiles whose input fits into a patch. */
static int64_t winograd_band(const df_call *call) {
    const int64_t lines = PATCH / (STRIP * (TILE * winograd_across(call) + 2));
    return df_min(lines < EDGE ? 1 : (lines - 2) / TILE, df_blocks(call->out_height, TILE));
}

static size_t winograd_layout(const df_call *call, int64_t tiles, float *memory, winograd_scratch *s) {
    s->input_plane = tiles * winograd_pitch(call) + PAD;
    s->output_plane = tiles * CHUNK + PAD;
    const int64_t patch = (TILE * winograd_band(call) + 2) * (TILE * winograd_across(call) + 2) * STRIP;
    s->inputs = (term *)memory;
    s->outputs = memory + df_round_up(POINTS * s->input_plane / PAIR, 16);
    s->patch = s->outputs + df_round_up(POINTS * s->output_plane, 16);
    return (size_t)(s->patch + patch - memory) * sizeof(float);
}

static size_t winograd_scratch_bytes(const df_call *call) {
    winograd_scratch s;
    static float origin[1]; /* only differences are used */
    return winograd_layout(call, winograd_most(call), origin, &s);
}

/* How long the slowest thread works, in vector operations, when tasks take `block` tiles and `columns` outputs. A task
 * costs its matrix products, its transformations, and the reading of its weights. */
static double winograd_cost(const df_call *call, int64_t block, int64_t columns) {
    const int64_t tiles = call->images * winograd_tiles(call);
    const int64_t tasks = df_blocks(tiles, block) * df_blocks(call->out_channels, columns);
    const double in = (double)call->channels, out = (double)df_min(columns, call->out_channels);
    const double rows = (double)(block < ROWS ? (block + ROWS) / 2 : block);
    const double product = POINTS * in * out / (LANES * PAIR);
    const double task = product * (rows + READING) + (double)block * (in * 300 + out * 250) / LANES;
    return task * (double)df_blocks(tasks, call->threads > 0 ? call->threads : 1);
}

/* Tasks of equal size, as many as give each thread the same number of them, or one more for each. */
static int64_t winograd_tasks(df_call *call) {
    const int64_t tiles = call->images * winograd_tiles(call), chunks = df_blocks(call->out_channels, CHUNK);
    const int64_t fewest = df_blocks(tiles, winograd_most(call)), threads = call->threads > 0 ? call->threads : 1;
    double best = INFINITY;
    for (int64_t parts = 1; parts <= df_min(chunks, threads); parts++) {
        const int64_t rounds = df_blocks(fewest * parts, threads), columns = df_blocks(chunks, parts) * CHUNK;
        for (int64_t round = rounds; round <= rounds + 1; round++) {
            const int64_t blocks = round * threads / parts;
            const int64_t block = df_blocks(tiles, blocks < fewest ? fewest : df_min(blocks, tiles));
            const double cost = winograd_cost(call, block, columns);
            if (cost < best) {
                best = cost;
                call->block = block;
                call->columns = columns;
            }
        }
    }
    return df_blocks(tiles, call->block) * df_blocks(call->out_channels, call->columns);
}

/* ---------------------------------------------------------------- weights */

static int64_t winograd_packed(const df_call *call) {
    return POINTS * df_round_up(call->out_channels, COLUMNS) * df_blocks(call->channels, PAIR);
}

/* G g G', in double. */
static void winograd_weight(const float *g, double u[POINTS]) {
    const double a = sqrt(0.5), b = sqrt(2.0);
    const double points[4] = {a, -a, b, -b}, scale[4] = {-1.5, -1.5, 6, 6};
    double row[EDGE][3];
    for (int x = 0; x < 3; x++) {
        row[0][x] = (double)g[x];
        for (int i = 0; i < 4; i++)
            row[i + 1][x] =
                ((double)g[x] + points[i] * (double)g[3 + x] + points[i] * points[i] * (double)g[6 + x]) / scale[i];
        row[5][x] = (double)g[6 + x];
    }
    for (int y = 0; y < EDGE; y++) {
        u[y * EDGE] = row[y][0];
        for (int i = 0; i < 4; i++)
            u[y * EDGE + i + 1] = (row[y][0] + points[i] * row[y][1] + points[i] * points[i] * row[y][2]) / scale[i];
        u[y * EDGE + 5] = row[y][2];
    }
}

/* (out, c, 3, 3) -> [out / CHUNK][36] of the packed columns of a chunk: the order in which a task reads them. */
static void winograd_pack(const df_call *call, const float *weight, float *packed) {
    const int64_t c = call->channels, filled = df_round_up(call->out_channels, COLUMNS);
    memset(packed, 0, (size_t)winograd_packed(call) * sizeof *packed);
    for (int64_t k = 0; k < call->out_channels; k++) {
        const int64_t first = k / CHUNK * CHUNK, columns = df_min(CHUNK, filled - first);
        term *chunk = (term *)packed + POINTS * packed_at(c, 0, first);
        for (int64_t i = 0; i < c; i++) {
            double u[POINTS];
            winograd_weight(weight + (k * c + i) * 9, u);
            for (int64_t p = 0; p < POINTS; p++)
                chunk[p * packed_at(c, 0, columns) + packed_at(c, i, k - first)] = to_term((float)u[p]);
        }
    }
}

/* ---------------------------------------------------------------- inputs */

/* Channels first..first+count-1 of the pixels around some rows of tiles of an image, as the convolution reads them:
 * upsampled, normalised, with zeros outside the image. */
V_INLINE void winograd_read(const df_call *call, int64_t image, int64_t row, int64_t rows, int64_t first, int64_t count,
                            float *patch, const bool with_norm, const bool with_silu) {
    const int64_t h = call->height, w = call->width, up = call->upsample;
    const int64_t across = TILE * winograd_across(call) + 2;
    const bool second = first >= call->split;
    const int64_t pitch = second ? call->channels - call->split : call->split;
    const float *in = call->input[second] + image * h * w * pitch + first - (second ? call->split : 0);
    const float *norm = with_norm ? call->norm + image * 3 * call->channels + first : NULL;
    for (int64_t y = TILE * row - 1; y < TILE * (row + rows) + 1; y++, patch += across * STRIP) {
        const int64_t outside = y < 0 || y >> up >= h;
        for (int64_t i = 0; i < count; i += LANES) {
            float *to = patch + i;
            if (outside) {
                for (int64_t x = 0; x < across; x++)
                    v_store(to + x * STRIP, v_set(0));
                continue;
            }
            const int64_t n = df_min(LANES, count - i);
            vf mean = v_set(0), factor = v_set(0), shift = v_set(0);
            if (with_norm) {
                mean = v_load_n(norm + i, n);
                factor = v_load_n(norm + call->channels + i, n);
                shift = v_load_n(norm + 2 * call->channels + i, n);
            }
            const float *from = in + (y >> up) * w * pitch + i;
            v_store(to, v_set(0));
            for (int64_t x = 0; x < w << up; x++) {
                vf v = v_load_n(from + (x >> up) * pitch, n);
                if (AHEAD)
                    __builtin_prefetch(from + ((x >> up) + AHEAD) * pitch);
                if (with_norm)
                    v = v_fma(v - mean, factor, shift);
                v_store(to + (x + 1) * STRIP, with_silu ? silu_in_sum(v) : v);
            }
            for (int64_t x = (w << up) + 1; x < across; x++)
                v_store(to + x * STRIP, v_set(0));
        }
    }
}

/* B' d for a line of six. */
V_INLINE void winograd_in(const vf d[EDGE], vf t[EDGE]) {
    const vf a = v_set(WINOGRAD_A), b = v_set(WINOGRAD_B), two = v_set(-2.0F), half = v_set(-0.5F), sum = v_set(-2.5F);
    const vf even_a = v_fma(d[2], two, d[4]), odd_a = v_fma(d[1], two, d[3]);
    const vf even_b = v_fma(d[2], half, d[4]), odd_b = v_fma(d[1], half, d[3]);
    t[0] = v_fma(d[2], sum, d[0] + d[4]);
    t[1] = v_fma(a, odd_a, even_a);
    t[2] = v_fma(-a, odd_a, even_a);
    t[3] = v_fma(b, odd_b, even_b);
    t[4] = v_fma(-b, odd_b, even_b);
    t[5] = v_fma(d[3], sum, d[1] + d[5]);
}

/* B' d B of one tile, for one vector of channels: `line` floats from a row of the patch to the next. */
V_INLINE void winograd_in_tile(const float *patch, int64_t line, term *out, int64_t plane) {
    vf t[EDGE][EDGE];
    V_UNROLL for (int x = 0; x < EDGE; x++) {
        vf d[EDGE], column[EDGE];
        V_UNROLL for (int y = 0; y < EDGE; y++) d[y] = v_load(patch + y * line + x * STRIP);
        winograd_in(d, column);
        V_UNROLL for (int y = 0; y < EDGE; y++) t[y][x] = column[y];
    }
    V_UNROLL for (int y = 0; y < EDGE; y++) {
        vf row[EDGE];
        winograd_in(t[y], row);
        V_UNROLL for (int x = 0; x < EDGE; x++) v_store_terms(out + (y * EDGE + x) * plane, row[x]);
    }
}

static void winograd_inputs(const df_call *call, int64_t tile, int64_t tiles, const winograd_scratch *s) {
    const int64_t across = winograd_across(call), of_image = winograd_tiles(call), band = winograd_band(call);
    const int64_t pitch = winograd_pitch(call), line = (TILE * across + 2) * STRIP;
    for (int64_t at = tile; at < tile + tiles;) {
        const int64_t image = at / of_image, row = at % of_image / across;
        const int64_t end = df_min(df_min(image * of_image + (row + band) * across, (image + 1) * of_image),
                                   tile + tiles); /* of the tiles in this band */
        const int64_t rows = (end - 1) % of_image / across - row + 1;
        for (int64_t first = 0, count; first < call->channels; first += count) {
            /* A strip begins at a multiple of its width, or where the second input does. */
            count = df_min(STRIP - first % STRIP, (first < call->split ? call->split : call->channels) - first);
            if (!call->norm)
                winograd_read(call, image, row, rows, first, count, s->patch, false, false);
            else if (call->silu)
                winograd_read(call, image, row, rows, first, count, s->patch, true, true);
            else
                winograd_read(call, image, row, rows, first, count, s->patch, true, false);
            for (int64_t t = at; t < end; t++) {
                const int64_t y = t % of_image / across - row, x = t % across;
                term *out = s->inputs + (t - tile) * pitch + first;
                for (int64_t i = 0; i < count; i += LANES)
                    winograd_in_tile(s->patch + TILE * (y * line + x * STRIP) + i, line, out + i, s->input_plane);
            }
        }
        at = end;
    }
}

/* ---------------------------------------------------------------- outputs */

/* A' m for a line of six. */
V_INLINE void winograd_out(const vf m[EDGE], vf y[TILE]) {
    const vf a = v_set(WINOGRAD_A), b = v_set(WINOGRAD_B), half = v_set(0.5F), two = v_set(2.0F);
    const vf sum_a = m[1] + m[2], difference_a = a * (m[1] - m[2]);
    const vf sum_b = m[3] + m[4], difference_b = b * (m[3] - m[4]);
    y[0] = m[0] + sum_a + sum_b;
    y[1] = difference_a + difference_b;
    y[2] = v_fma(half, sum_a, two * sum_b);
    y[3] = v_fma(half, difference_a, v_fma(two, difference_b, m[5]));
}

V_INLINE void winograd_out_tile(const float *in, int64_t plane, vf y[TILE][TILE]) {
    vf t[TILE][EDGE];
    V_UNROLL for (int x = 0; x < EDGE; x++) {
        vf m[EDGE], column[TILE];
        V_UNROLL for (int i = 0; i < EDGE; i++) m[i] = v_load(in + (i * EDGE + x) * plane);
        winograd_out(m, column);
        V_UNROLL for (int i = 0; i < TILE; i++) t[i][x] = column[i];
    }
    V_UNROLL for (int i = 0; i < TILE; i++) winograd_out(t[i], y[i]);
}

/* Output channels out..out+outs-1 of some tiles. */
static void winograd_outputs(const df_call *call, int64_t tile, int64_t tiles, int64_t out, int64_t outs,
                             const winograd_scratch *s) {
    const int64_t across = winograd_across(call), of_image = winograd_tiles(call), k = call->out_channels;
    for (int64_t t = 0; t < tiles; t++) {
        const int64_t image = (tile + t) / of_image, in_image = (tile + t) % of_image;
        const int64_t y0 = in_image / across * TILE, x0 = in_image % across * TILE;
        const int64_t rows = df_min(TILE, call->out_height - y0), columns = df_min(TILE, call->out_width - x0);
        const int64_t at = ((image * call->out_height + y0) * call->out_width + x0) * k + out;
        for (int64_t j = 0; j < outs; j += LANES) {
            const int64_t n = df_min(LANES, outs - j);
            vf y[TILE][TILE], add = v_load(call->bias + out + j);
            winograd_out_tile(s->outputs + t * CHUNK + j, s->output_plane, y);
            if (call->shift)
                add += v_load_n(call->shift + image * k + out + j, n);
            for (int64_t r = 0; r < rows; r++)
                for (int64_t c = 0; c < columns; c++) {
                    const int64_t pixel = at + (r * call->out_width + c) * k + j;
                    vf v = y[r][c] + add;
                    if (call->residual)
                        v += v_load_n(call->residual + pixel, n);
                    if (AHEAD) {
                        __builtin_prefetch(call->output + pixel + TILE * k, 1);
                        if (call->residual)
                            __builtin_prefetch(call->residual + pixel + TILE * k);
                    }
                    v_store_n(call->output + pixel, v, n);
                }
        }
    }
}

/* ---------------------------------------------------------------- a task */

/* The 36 products of a block for the columns of a chunk, whose weights u lie in the order of their use. */
static void winograd_products(const df_call *call, int64_t tiles, int64_t columns, const term *u,
                              const winograd_scratch *s) {
    const int64_t depth = call->channels, pitch = winograd_pitch(call);
    for (int64_t p = 0; p < POINTS; p++)
        for (int64_t j = 0; j < columns; j += COLUMNS)
            for (int64_t l = 0; l < depth; l += DEPTH) {
                const int64_t piece = df_min(DEPTH, depth - l);
                const term *next = u + packed_at(piece, 0, COLUMNS);
                gemm(tiles, piece, s->inputs + p * s->input_plane + l, pitch, u, s->outputs + p * s->output_plane + j,
                     CHUNK, l == 0, next);
                u = next;
            }
}

static void winograd_run(const df_call *call, int64_t task, void *scratch) {
    const int64_t parts = df_blocks(call->out_channels, call->columns);
    const int64_t tile = task / parts * call->block, first = task % parts * call->columns;
    const int64_t tiles = df_min(call->block, call->images * winograd_tiles(call) - tile);
    const int64_t end = df_min(first + call->columns, call->out_channels);
    winograd_scratch s;
    winograd_layout(call, tiles, scratch, &s);
    winograd_inputs(call, tile, tiles, &s);
    for (int64_t out = first; out < end; out += CHUNK) {
        const int64_t outs = df_min(CHUNK, end - out);
        winograd_products(call, tiles, df_round_up(outs, COLUMNS),
                          (const term *)call->weight + POINTS * packed_at(call->channels, 0, out), &s);
        winograd_outputs(call, tile, tiles, out, outs, &s);
    }
}
