/* Convolution 3x3 at stride 1 by Winograd's F(4x4, 3x3), which is F(4, 3) in both directions: 36 multiplications for 16
 * outputs instead of 144. A tile of 4 x 4 outputs reads 6 x 6 inputs d:
 *
 *     output = A' [(G g G') * (B' d B)] A
 *
 * and the elementwise products, summed over the channels, are 36 matrix products [tiles][channels] x [channels][outputs],
 * one for each pair of points. A task takes a block of tiles through all three stages, so that what lies between them
 * stays in its caches; the transformed weights are read as one stream. A large upsampled image has the outputs of four
 * phases, with 25 points each (winograd_line.h). */

enum {
    POINTS = EDGE * EDGE,
    CHUNK = 32,                  /* output channels that go through the last two stages at a time */
    TILES = ROWS * (132 / ROWS), /* of a task, at most: the weights are read once for each block */
    /* Words of a task's transformed inputs, at most (but for the first ROWS tiles): they are read again for each CHUNK.
     * With twice as many, the CIFAR-10 UNet took 1.19 times as long on a Zen 3 whose third cache was not its own. */
    TRANSFORMED = V_SET == V_AVX2 ? 600000 : 1250000,
    READING = 4,    /* tiles that one could multiply while their weights are read */
    PATCH = 40960,  /* floats of the input that is being transformed, at most (but for one row of tiles) */
    PAD = 16 * PAIR /* terms between the 36 planes, which would else share their cache sets */
};

typedef struct winograd_scratch {
    term *inputs;   /* [POINTS][tiles][channels] */
    float *outputs; /* [POINTS][tiles][CHUNK] */
    float *patch;   /* [rows][columns][STRIP] */
    int64_t input_plane, output_plane;
} winograd_scratch;

/* Rows of tiles, of an image. Phases have those of the small image. */
static int64_t winograd_down(const df_call *call) {
    return df_blocks(call->out_height >> winograd_phased(call), TILE);
}

static int64_t winograd_tiles(const df_call *call) {
    return winograd_down(call) * winograd_across(call);
}

/* Matrices of weights, of one phase. */
static int winograd_points(const df_call *call) {
    return winograd_phased(call) ? (EDGE - 1) * (EDGE - 1) : POINTS;
}

/* Output channels; of phases, those of all four, each filled up to whole chunks. */
static int64_t winograd_outs(const df_call *call) {
    return winograd_phased(call) ? 4 * df_round_up(call->out_channels, CHUNK) : call->out_channels;
}

/* Up to CHUNK of them, of one phase. */
typedef struct winograd_chunk {
    int64_t first, outs; /* of the output's channels */
    bool phased;
    int y, x;   /* the phase in either direction */
    int64_t at; /* terms before its weights */
} winograd_chunk;

static winograd_chunk winograd_chunk_at(const df_call *call, int64_t out) {
    const int64_t of_phase = df_round_up(call->out_channels, CHUNK), first = out % of_phase;
    const int phase = (int)(out / of_phase);
    const bool phased = winograd_phased(call);
    const int64_t column = phase * df_round_up(call->out_channels, COLUMNS) + first;
    return (winograd_chunk){.first = first,
                            .outs = df_min(CHUNK, call->out_channels - first),
                            .phased = phased,
                            .y = phase / 2,
                            .x = phase % 2,
                            .at = winograd_points(call) * packed_at(call->channels, 0, column)};
}

static bool winograd_idle_point(const winograd_chunk *chunk, int point) {
    return chunk->phased && (winograd_idle(chunk->y, point / EDGE) || winograd_idle(chunk->x, point % EDGE));
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
    return df_min(lines < EDGE ? 1 : (lines - 2) / TILE, winograd_down(call));
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
    const int64_t tasks = df_blocks(tiles, block) * df_blocks(winograd_outs(call), columns);
    const double in = (double)call->channels, out = (double)df_min(columns, winograd_outs(call));
    const double rows = (double)(block < ROWS ? (block + ROWS) / 2 : block);
    const double product = winograd_points(call) * in * out / (LANES * PAIR);
    const double task = product * (rows + READING) + (double)block * (in * 300 + out * 250) / LANES;
    return task * (double)df_blocks(tasks, call->threads > 0 ? call->threads : 1);
}

/* Tasks of equal size, as many as give each thread the same number of them, or one more for each. */
static int64_t winograd_tasks(df_call *call) {
    const int64_t tiles = call->images * winograd_tiles(call), chunks = df_blocks(winograd_outs(call), CHUNK);
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
    return df_blocks(tiles, call->block) * df_blocks(winograd_outs(call), call->columns);
}

/* ---------------------------------------------------------------- weights */

static int64_t winograd_packed(const df_call *call) {
    const int64_t columns = (winograd_phased(call) ? 4 : 1) * df_round_up(call->out_channels, COLUMNS);
    return winograd_points(call) * columns * df_blocks(call->channels, PAIR);
}

/* G g G', in double. */
static void winograd_weight(const winograd_chunk *chunk, const float *g, double u[POINTS]) {
    double row[3][EDGE], column[EDGE];
    for (int y = 0; y < 3; y++) {
        double line[3] = {(double)g[3 * y], (double)g[3 * y + 1], (double)g[3 * y + 2]};
        if (chunk->phased)
            winograd_line_phase(chunk->x, line);
        winograd_line_weight(line, row[y]);
    }
    for (int x = 0; x < EDGE; x++) {
        double line[3] = {row[0][x], row[1][x], row[2][x]};
        if (chunk->phased)
            winograd_line_phase(chunk->y, line);
        winograd_line_weight(line, column);
        for (int y = 0; y < EDGE; y++)
            u[y * EDGE + x] = column[y];
    }
}

#if V_BF16
/* Rounds the weights of a pair of channels to terms, from the last to the first, each so that it makes up for what those
 * before it do to the outputs: a third of the errors of weights goes away, a sixth of all. The outputs of random inputs
 * change by e' (R x R) e where e are the errors of the 36 weights and R = (A A') * (B' B), 6 x 6, one for either direction.
 * With R = L D L' that is a weighted sum of the squares of (L' e L)[y][x], in which e[y][x] has the factor 1 and all others
 * are later ones. (Inputs that are not random, but smooth: about a ninth instead of a sixth.) The idle points of a phase
 * come first, as zeros, or last, where nothing makes up for them. */
static void winograd_round(double u[POINTS]) {
    static const double later[EDGE][EDGE] = {/* L' without its diagonal */
                                             {0, 0.72727, 0.72727, 0.27273, 0.27273, 0},
                                             {0, 0, -0.28881, 1.48096, -0.16872, -0.11599},
                                             {0, 0, 0, 0.28257, 1.56257, -0.1631},
                                             {0, 0, 0, 0, 0.12285, -0.29488},
                                             {0, 0, 0, 0, 0, -0.26262},
                                             {0}};
    double along[EDGE][EDGE]; /* e L */
    for (int y = EDGE - 1; y >= 0; y--) {
        double error[EDGE];
        for (int x = EDGE - 1; x >= 0; x--) {
            double *weight = u + y * EDGE + x, below = 0;
            along[y][x] = 0;
            for (int i = x + 1; i < EDGE; i++)
                along[y][x] += later[x][i] * error[i];
            for (int i = y + 1; i < EDGE; i++)
                below += later[y][i] * along[i][x];
            const double near = (double)from_term(to_term((float)(*weight - along[y][x] - below)));
            error[x] = near - *weight;
            along[y][x] += error[x];
            *weight = near;
        }
    }
}
#endif

/* (out, c, 3, 3) -> [phase][out / CHUNK][point] of the packed columns of a chunk: the order in which a task reads them. */
static void winograd_pack(const df_call *call, const float *weight, float *packed) {
    const int64_t c = call->channels, filled = df_round_up(call->out_channels, COLUMNS);
    memset(packed, 0, (size_t)winograd_packed(call) * sizeof *packed);
    for (int64_t out = 0; out < winograd_outs(call); out += CHUNK) {
        const winograd_chunk chunk = winograd_chunk_at(call, out);
        const int64_t columns = df_min(CHUNK, filled - chunk.first);
        for (int64_t k = 0; k < chunk.outs; k++)
            for (int64_t i = 0; i < c; i++) {
                double u[POINTS];
                winograd_weight(&chunk, weight + ((chunk.first + k) * c + i) * 9, u);
#if V_BF16
                winograd_round(u);
#endif
                term *to = (term *)packed + chunk.at + packed_at(c, i, k);
                for (int p = 0; p < POINTS; p++)
                    if (!winograd_idle_point(&chunk, p)) {
                        *to = to_term((float)u[p]);
                        to += packed_at(c, 0, columns);
                    }
            }
    }
}

/* ---------------------------------------------------------------- inputs */

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
            for (int64_t y = 0; y < TILE * rows + 2; y++)
                winograd_read(call, image, TILE * row + y - 1, first, count, s->patch + y * line);
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

V_INLINE void winograd_out_tile(const winograd_chunk *chunk, const float *in, int64_t plane, const bool phased,
                                vf y[TILE][TILE]) {
    vf t[TILE][EDGE];
    V_UNROLL for (int x = 0; x < EDGE; x++) {
        vf m[EDGE], column[TILE];
        V_UNROLL for (int i = 0; i < EDGE; i++) {
            const bool idle = phased && (winograd_idle(chunk->y, i) || winograd_idle(chunk->x, x));
            m[i] = idle ? v_set(0) : v_load(in + (i * EDGE + x) * plane);
        }
        winograd_out(m, column);
        V_UNROLL for (int i = 0; i < TILE; i++) t[i][x] = column[i];
    }
    V_UNROLL for (int i = 0; i < TILE; i++) winograd_out(t[i], y[i]);
}

V_INLINE void winograd_outputs_as(const df_call *call, int64_t tile, int64_t tiles, const winograd_chunk *chunk,
                                  const winograd_scratch *s, const bool phased) {
    const int64_t across = winograd_across(call), of_image = winograd_tiles(call), k = call->out_channels;
    const int64_t height = call->out_height, width = call->out_width, step = phased ? 2 : 1;
    for (int64_t t = 0; t < tiles; t++) {
        const int64_t image = (tile + t) / of_image, in_image = (tile + t) % of_image;
        const int64_t y0 = in_image / across * TILE, x0 = in_image % across * TILE;
        const int64_t rows = df_min(TILE, height / step - y0), columns = df_min(TILE, width / step - x0);
        const int64_t corner = (image * height + y0 * step + chunk->y) * width + x0 * step + chunk->x;
        const int64_t at = corner * k + chunk->first;
        for (int64_t j = 0; j < chunk->outs; j += LANES) {
            const int64_t n = df_min(LANES, chunk->outs - j);
            vf y[TILE][TILE], add = v_load(call->bias + chunk->first + j);
            winograd_out_tile(chunk, s->outputs + t * CHUNK + j, s->output_plane, phased, y);
            if (call->shift)
                add += v_read_n((const value *)call->shift + image * k + chunk->first + j, n);
            for (int64_t r = 0; r < rows; r++)
                for (int64_t c = 0; c < columns; c++) {
                    /* gcc 12 makes more of this than of strides: 15 % of this stage. */
                    const int64_t pixel = at + (r * width + c) * step * k + j;
                    vf v = y[r][c] + add;
                    if (call->residual)
                        v += v_read_n((const value *)call->residual + pixel, n);
                    if (OUTPUTS_AHEAD) {
                        __builtin_prefetch((const value *)call->output + pixel + TILE * step * k, 1);
                        if (call->residual)
                            __builtin_prefetch((const value *)call->residual + pixel + TILE * step * k);
                    }
                    v_write_n((value *)call->output + pixel, v, n);
                }
        }
    }
}

static void winograd_outputs(const df_call *call, int64_t tile, int64_t tiles, const winograd_chunk *chunk,
                             const winograd_scratch *s) {
    if (chunk->phased)
        winograd_outputs_as(call, tile, tiles, chunk, s, true);
    else
        winograd_outputs_as(call, tile, tiles, chunk, s, false);
}

/* ---------------------------------------------------------------- a task */

/* The products of a block for a chunk, whose weights lie in the order of their use. */
static void winograd_products(const df_call *call, int64_t tiles, const winograd_chunk *chunk,
                              const winograd_scratch *s) {
    const int64_t depth = call->channels, pitch = winograd_pitch(call);
    const term *u = (const term *)call->weight + chunk->at;
    for (int p = 0; p < POINTS; p++) {
        if (winograd_idle_point(chunk, p))
            continue;
        for (int64_t j = 0; j < chunk->outs; j += COLUMNS)
            for (int64_t l = 0; l < depth; l += DEPTH) {
                const int64_t piece = df_min(DEPTH, depth - l);
                const term *next = u + packed_at(piece, 0, COLUMNS);
                gemm(tiles, piece, s->inputs + p * s->input_plane + l, pitch, u, s->outputs + p * s->output_plane + j,
                     CHUNK, l == 0, next);
                u = next;
            }
    }
}

static void winograd_run(const df_call *call, int64_t task, void *scratch) {
    const int64_t parts = df_blocks(winograd_outs(call), call->columns);
    const int64_t tile = task / parts * call->block, first = task % parts * call->columns;
    const int64_t tiles = df_min(call->block, call->images * winograd_tiles(call) - tile);
    const int64_t end = df_min(first + call->columns, winograd_outs(call));
    winograd_scratch s;
    winograd_layout(call, tiles, scratch, &s);
    winograd_inputs(call, tile, tiles, &s);
    for (int64_t out = first; out < end; out += CHUNK) {
        const winograd_chunk chunk = winograd_chunk_at(call, out);
        winograd_products(call, tiles, &chunk, &s);
        winograd_outputs(call, tile, tiles, &chunk, &s);
    }
}
