/* Winograd's F(4x4, 3x3): how a step is cut into tasks, of some tiles and some chunks of outputs, and their memory. */

enum {
    POINTS = EDGE * EDGE,
    CHUNK = 32,                  /* output channels that go through the last two stages at a time */
    TILES = ROWS * (132 / ROWS), /* of a task, at most: the weights are read once for each block */
    /* Words of a task's transformed inputs, at most (but for the first ROWS tiles): they are read again for each CHUNK.
     * With twice as many, the CIFAR-10 UNet took 1.19 times as long on a Zen 3 whose third cache was not its own. */
    TRANSFORMED = V_SET == V_AVX2 ? 600000 : 1250000,
    READING = 4,    /* tiles that one could multiply while their weights are read */
    PATCH = 40960,  /* floats of the input that is being transformed, at most (but for one row of tiles) */
    LATE = 64,      /* channels of a chunk whose weights are transformed at a time, where that is late: 288 KiB */
    LATE_TILES = 8, /* of such a task, at most */
    PAD = 16 * PAIR /* terms between the 36 planes, which would else share their cache sets */
};

typedef struct winograd_scratch {
    term *inputs;   /* [POINTS][tiles][channels] */
    float *outputs; /* [POINTS][tiles][CHUNK] */
    float *patch;   /* [rows][columns][STRIP] */
    float *weights; /* [POINTS][CHUNK / COLUMNS][LATE][COLUMNS] */
    float *sums;    /* [POINTS][LATE_TILES][CHUNK] */
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

/* Whether a step has weights that a task of few tiles transforms as it uses them (winograd_weights.h): a large convolution of
 * small images. In bfloat16 weights' roundings make up for each other, which takes too long for a task. */
static bool winograd_late(const df_call *call) {
    return !V_BF16 && (int64_t)call->out_height * call->out_width <= 4 * TILE * TILE &&
           (int64_t)call->channels * call->out_channels >= 128 * 256;
}

/* Floats from one point's transformed weights to the next's. */
static int64_t winograd_late_plane(void) {
    return LATE * CHUNK + PAD;
}

/* Sums of a second piece, which must not be mixed with those of the first before it is complete. */
static int64_t winograd_late_sums(void) {
    return LATE_TILES * CHUNK + PAD;
}

/* Where the taps of the chunk that begins with this output are: after all transformed weights. */
static int64_t winograd_late_at(const df_call *call, int64_t out) {
    return (POINTS * df_round_up(call->out_channels, COLUMNS) + 9 * out) * call->channels;
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
    s->weights = s->patch + df_round_up(patch, 16);
    s->sums = s->weights + (winograd_late(call) ? POINTS * winograd_late_plane() : 0);
    const float *end = s->sums + (winograd_late(call) ? POINTS * winograd_late_sums() : 0);
    return (size_t)(end - memory) * sizeof(float);
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
