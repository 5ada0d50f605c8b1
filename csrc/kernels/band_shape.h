/* How a step of conv_bands.h is cut: into bands of lines, groups of bands that fill tiles, patches of groups, and tasks. */

enum {
    BAND_LINES = 2 * MOST_PAIRS, /* of outputs, at most */
    BAND_INPUTS = MOST_POINTS,   /* lines read for them */
    BAND_KEPT = 2,               /* of which the next band reads again */
    BAND_TAPS = 3,               /* of a line of a kernel */
    MANY_CHANNELS = 128,         /* from which F(4, 3) is worth its larger error */
    GROUP_BANDS = 16,            /* at most */
    NEAR_STEPS = 4,              /* whose weights for 16 outputs stay near while all pixels of a patch pass */
    PATCH_BYTES = 524288,        /* bytes of a patch, at most (but for one group) */
    WORTH = 128,                 /* pixels of bands in a task, at least: it reads all weights for them */
    LARGE_IMAGE = 256,           /* pixels */
    MANY = 16384,                /* weights of a tap */
    READ_AHEAD = 1024,           /* values of the input that are fetched in advance */
    READS = 1024,                /* parts of a read */
    /* Bytes of weights for each line that is fetched in advance: the processor fetches what follows by itself, but not as
     * early as a patch of few pixels needs it. */
    FETCHED_APART = 512,
    FETCHED_BY_FEW = 64,
    FEW_PIXELS = 4 * TILE_ROWS, /* of bands */
    STEP_VECTORS = PATCH_DEPTH / LANES
};

/* A row of a tile: a pixel of a band. */
typedef struct band_row {
    int64_t at, shift;  /* the upper output's first channel; the image's in what is added to it */
    int32_t lines;      /* outputs that exist: none beyond a group or a task, fewer in the last band of some heights */
    float unit, centre; /* of the image */
} band_row;

typedef struct band_scratch {
    run_sum sums[RUN_SUMS];
    char rest[]; /* as band_shape says */
} band_scratch;

/* Of an image's values, and of zero: the middle of them, and the unit of the largest difference of two of them. */
typedef struct patch_range {
    float unit, centre;
} patch_range;

/* What a pixel of a band has of 16 outputs so far, in parts: a pair's sums at its first point and at its second one, and
 * lines. The only pair leaves its place to the lines. */
enum { PART_FIRST, PART_SECOND };
V_INLINE int band_part(int pairs, int line) {
    return 2 * (pairs - 1) + line;
}

/* What follows from a step's shape alone, whatever call->images. */
typedef struct band_shape {
    int pairs, points, lines;    /* of F(lines, 3) */
    int64_t steps, reads;        /* of a pixel: of PATCH_DEPTH channels, for the tiles and for the reader */
    int64_t plane, pitch;        /* items of a pixel's plane, and of all three */
    int64_t of_image, group;     /* bands */
    int64_t across, tiles;       /* of a group: pixels to the next, and tiles */
    int64_t most;                /* groups of a patch, at most */
    int64_t apart;               /* items of a patch from a point to the next */
    int64_t ranges, rows, patch; /* bytes from a patch to its images' ranges, its rows, and the other patch */
    int64_t kept, parts, end;    /* bytes of band_scratch.rest before what readers keep, and parts of outputs */
    int64_t right;               /* items to the same band's next pixel */
} band_shape;

/* F(4, 3) with many channels, and for images of so many pixels that one alone is not slower for half as many more weights.
 * Not where it would fill up lines; nor for an upsampled input, of which F(2, 3) has three points only; nor for the few
 * outputs of a last convolution, whose error is the network's. */
static int band_pairs(const df_call *call) {
    const bool many = call->channels >= MANY_CHANNELS && call->out_channels >= TILE_ROWS,
               large = call->out_height * call->out_width >= LARGE_IMAGE;
    return many && large && call->out_height % BAND_LINES == 0 && !call->upsample ? 2 : 1;
}

static band_shape band_shape_of(const df_call *call) {
    const int64_t width = call->out_width, split = call->split, rest = call->channels - split;
    const int pairs = band_pairs(call), lines = 2 * pairs;
    band_shape of = {.pairs = pairs,
                     .points = lines + 2,
                     .lines = lines,
                     .steps = df_blocks(call->channels, PATCH_DEPTH),
                     .of_image = df_blocks(call->out_height, lines),
                     .group = 1};
    const int64_t reads = rest ? df_blocks(of.steps * PATCH_DEPTH - split, PATCH_DEPTH) : 0; /* of the second input */
    of.reads = df_blocks(split, PATCH_DEPTH) + reads;
    /* An odd number of cache lines in all, so that neighbours do not share their sets. */
    of.plane = df_round_up(split + reads * PATCH_DEPTH, PATCH_DEPTH);
    of.pitch = (PLANES * of.plane / 64 | 1) * 64;
    /* The fewest that leave at most a ninth of their tiles' rows unused. */
    while (of.group < GROUP_BANDS && 8 * df_round_up(of.group * width, TILE_ROWS) > 9 * of.group * width)
        of.group++;
    of.right = of.group * of.pitch;
    of.across = (width + pairs) * of.group;
    of.tiles = df_blocks(of.group * width, TILE_ROWS);
    /* Of whole runs, if possible. */
    const int64_t fit = PATCH_BYTES / (of.points * of.across * of.pitch);
    of.most = fit < 1 ? 1 : fit < RUN_TILES ? fit : fit / RUN_TILES * RUN_TILES;
    /* With a pixel beside the last group, and what its last tile reads beyond its end. */
    of.apart = (of.most * of.across + of.group + TILE_ROWS) * of.pitch;
    const int64_t rows = of.most * of.tiles * TILE_ROWS, images = df_blocks(of.most * of.group, of.of_image) + 1;
    of.ranges = of.points * of.apart;
    of.rows = of.ranges + df_round_up(images * (int64_t)sizeof(patch_range), 64);
    of.patch = of.rows + df_round_up(rows * (int64_t)sizeof(band_row), 64);
    of.kept = 2 * of.patch;
    of.parts = of.kept + (width * of.reads * BAND_KEPT + BAND_LINES) * PATCH_DEPTH * (int64_t)sizeof(float);
    of.end = of.parts + rows * band_part(pairs, lines) * TILE_ROWS * (int64_t)sizeof(float);
    return of;
}

/* Whether that is worth it (else winograd.h): where what fills up channels and tiles is at most half of them, and always
 * with many weights, for they are fewer. And no sum of 32 bits may overflow. */
static bool conv_bands_fits(const df_call *call) {
    const band_shape of = band_shape_of(call);
    const int64_t c = call->channels, pixels = of.group * call->out_width * call->out_height;
    const int64_t filled = of.steps * PATCH_DEPTH * of.tiles * TILE_ROWS * of.of_image * of.lines;
    return c <= DIGIT_TERMS / BAND_TAPS && (c * call->out_channels >= MANY || 2 * filled <= 3 * c * pixels);
}

/* About as many taps as the tiles take for 16 outputs of so many groups, not more. */
static int64_t band_taps(const df_call *call, const band_shape *of, int64_t groups) {
    const int64_t runs = groups * of->tiles / RUN_TILES, points = of->points - call->upsample;
    return (runs > 1 ? runs : 1) * points * of->steps * BAND_TAPS;
}

static size_t conv_bands_scratch_bytes(const df_call *call) {
    return sizeof(band_scratch) + (size_t)band_shape_of(call).end;
}

/* Equal blocks of groups, one for each thread unless they become small; then threads share the columns. */
static int64_t conv_bands_tasks(df_call *call) {
    const band_shape of = band_shape_of(call);
    const int64_t groups = df_blocks(call->images * of.of_image, of.group), worth = groups * of.across / WORTH;
    const int64_t blocks = worth < 1 ? 1 : df_min(worth, call->threads > 0 ? call->threads : 1);
    call->block = df_blocks(groups, blocks);
    return share_columns(call, df_blocks(groups, call->block), TILE_ROWS);
}
