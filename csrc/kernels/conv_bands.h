/* Convolution 3x3 at stride 1 of floats in digits (run_digits.h), by F(2, 3) or F(4, 3) across lines (band_points.h) and
 * directly along them: tiles multiply so fast that transformations in both directions would take longer than they save.
 * What it reads (a norm, SiLU, an upsampled value, both sides of a concatenation) is computed once, into a patch, as the
 * tiles multiply it.
 *
 * A patch has the bands of all images one after the other, some at a time as a group, such that they fill tiles. A group's
 * pixels go from left to right, of each band one, with a pixel of zeros before the first and one behind the last, which
 * with F(2, 3) are the next group's first ones. So a tap along a line is the same distance away from every pixel, and 16
 * that follow each other are the rows of a tile, for all three taps. */

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
/* What a pixel of a band has of 16 outputs so far, in parts: a pair's sums at its first point and at its second one, and
 * lines. The only pair leaves its place to the lines. */
enum { PART_FIRST, PART_SECOND };
V_INLINE int band_part(int pairs, int line) {
    return 2 * (pairs - 1) + line;
}

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

/* ---------------------------------------------------------------- weights */

/* Items of the weights for 16 outputs at a point; and at all, with their units. */
static int64_t band_point_columns(const df_call *call) {
    return df_blocks(call->channels, PATCH_DEPTH) * BAND_TAPS * TAP_ITEMS;
}
static int64_t band_columns(const df_call *call) {
    return (2 * band_pairs(call) + 2) * (band_point_columns(call) + TILE_ROWS * (int64_t)sizeof(float));
}
static const float *band_units(const df_call *call, int64_t out, int point) {
    const int64_t points = 2 * band_pairs(call) + 2;
    const patch_item *columns = (const patch_item *)call->weight + out / TILE_ROWS * band_columns(call);
    return (const float *)(const void *)(columns + points * band_point_columns(call)) + point * TILE_ROWS;
}
/* Floats before the sums of all weights of each output. */
static int64_t band_totals(const df_call *call) {
    return df_blocks(call->out_channels, TILE_ROWS) * band_columns(call) / (int64_t)sizeof(float);
}

static int64_t conv_bands_packed(const df_call *call) {
    return band_totals(call) + df_round_up(call->out_channels, TILE_ROWS);
}

/* (out, c, 3, 3) -> [out / 16][point][step][3] of what a tap of a step takes, the order in which a task reads them, and
 * [point][16] units; behind all, [out] sums. */
static void conv_bands_pack(const df_call *call, const float *weight, float *packed) {
    const int64_t c = call->channels, kernel = 9, of_point = band_point_columns(call);
    const int pairs = band_pairs(call), points = 2 * pairs + 2;
    memset(packed, 0, (size_t)conv_bands_packed(call) * sizeof *packed);
    for (int64_t k = 0; k < call->out_channels; k++, weight += c * kernel) {
        patch_item *columns = (patch_item *)packed + k / TILE_ROWS * band_columns(call);
        float *units = (float *)(void *)(columns + points * of_point) + k % TILE_ROWS;
        double sum = 0;
        for (int64_t l = 0; l < c * kernel; l++)
            sum += (double)weight[l];
        packed[band_totals(call) + k] = (float)sum;
        for (int point = 0; point < points; point++, columns += of_point, units += TILE_ROWS) {
            float most = 0, poison = 0;
            for (int64_t l = 0; l < c * BAND_TAPS; l++) {
                const float w = band_weight(weight + l / BAND_TAPS * kernel + l % BAND_TAPS, pairs, point);
                most = fmaxf(most, fabsf(w));
                poison += w * 0;
            }
            *units = digits_unit(most, poison);
            for (int64_t l = 0; l < c * BAND_TAPS; l++) {
                const int64_t i = l / BAND_TAPS, tap = l % BAND_TAPS;
                column_put(columns + (i / PATCH_DEPTH * BAND_TAPS + tap) * TAP_ITEMS, i % PATCH_DEPTH, k % TILE_ROWS,
                           band_weight(weight + i * kernel + tap, pairs, point), *units);
            }
        }
    }
}

/* ---------------------------------------------------------------- inputs */

/* A patch on its way: pixel by pixel of a band, first the channels of the one input, then of the other, a step at a time. */
typedef struct band_reader {
    const df_call *call;
    const band_shape *of;
    char *patch;
    int64_t first, band, end;          /* of all images': the patch's first, this one, and the one behind the last */
    int64_t rate, credit;              /* stages of steps to read with each tap, in 1 / READS; and what is due */
    const value *from[2][BAND_INPUTS]; /* the band's lines of either input, or NULL: zeros */
    int64_t x;                         /* the pixel */
    bool second, fresh;                /* which input; whether nothing is kept of the band above */
    int64_t at, count, filled; /* channel of that input; of how many; and with the zeros that fill up the last step */
    const float *norm;         /* of the image's channels, or NULL */
    patch_item *pixel, *to;    /* all of it; its channels of that input */
    float *kept, *keep;        /* what the band below will read again: of all pixels; of this step */
    float *lines;              /* the other lines of this step */
    int stage;                 /* how many pairs of its lines are read or kept */
    float centre;              /* of the image, as of patch_range */
    patch_item zero[MOST_POINTS][PLANES]; /* what a zero is at each point */
    float scale[MOST_POINTS];             /* 1 / the image's unit, and how much larger a point's values may be */
} band_reader;

/* The pixel before the first one of the patch's band number `band`. */
static patch_item *band_line(const band_reader *r, int64_t band) {
    const int64_t group = r->of->group;
    return (patch_item *)r->patch + (band / group * r->of->across + band % group) * r->of->pitch;
}
static patch_range *band_range(const band_reader *r, int64_t image) {
    return (patch_range *)(void *)(r->patch + r->of->ranges) + (image - r->first / r->of->of_image);
}

/* To the pixel's first input, or to its second one. */
V_INLINE void band_turn(band_reader *r, bool second) {
    const df_call *call = r->call;
    const int64_t first = second ? call->split : 0, end = second ? call->channels : call->split;
    r->second = second;
    r->at = 0;
    r->count = end - first;
    r->filled = end == call->channels ? r->of->steps * PATCH_DEPTH - first : r->count;
    r->to = r->pixel + first;
}

/* The image's range, and what follows from it at each point. The zeros of F(2, 3), beside which another image may lie, are
 * 0 in any unit. */
static void band_image(band_reader *r, int64_t image) {
    const int pairs = r->of->pairs;
    patch_range range = patch_range_of(r->call, image);
    if (pairs == 1)
        range.centre = 0;
    *band_range(r, image) = range;
    r->centre = range.centre;
    for (int point = 0; point < r->of->points; point++) {
        const float scale = 1 / (range.unit * band_growth(pairs, point));
        const float zero = pairs > 1 ? -range.centre * band_ones(pairs, point) * scale : 0;
        r->scale[point] = scale;
        digits_put(r->zero[point], 1, digits_whole(v_set(zero), v_set(1))[0]);
    }
}

static void band_begin(band_reader *r) {
    const df_call *call = r->call;
    const band_shape *of = r->of;
    const int64_t at = r->band - r->first, image = r->band / of->of_image;
    if (r->band == r->end)
        return;
    if (r->band % of->of_image == 0)
        r->fresh = true;
    if (r->fresh || at == 0)
        band_image(r, image);
    for (int64_t line = 0; line < of->points; line++) {
        const int64_t y = r->band % of->of_image * of->lines - 1 + line,
                      row = image * call->height + (y >> call->upsample);
        const bool inside = y >= 0 && y < call->out_height;
        for (int i = 0; i < 2; i++) {
            const int64_t c = i ? call->channels - call->split : call->split;
            r->from[i][line] = inside && c ? (const value *)call->input[i] + row * call->width * c : NULL;
        }
    }
    r->norm = call->norm ? call->norm + image * DF_NORM_ROWS * call->channels : NULL;
    r->pixel = band_line(r, at) + of->right;
    r->x = 0;
    r->keep = r->kept;
    r->stage = r->fresh ? 0 : 1;
    band_turn(r, false);
}

static void band_next_pixel(band_reader *r) {
    if (!r->second && r->call->split < r->call->channels) {
        band_turn(r, true);
    } else if (++r->x < r->call->out_width) {
        r->pixel += r->of->right;
        band_turn(r, false);
    } else {
        r->band++;
        r->fresh = false;
        band_begin(r);
    }
}

/* Up to `groups` of them, the first of which begins with band `first`, in about `taps` calls of band_read_some. `fresh`: they
 * do not follow those that were read last. */
static band_reader band_patch(const df_call *call, const band_shape *of, int64_t first, int64_t groups, bool fresh,
                              int64_t taps, char *patch, float *kept) {
    const int64_t bands = groups * of->group;
    band_reader r = {.call = call,
                     .of = of,
                     .patch = patch,
                     .first = first,
                     .band = first,
                     .end = df_min(first + bands, call->images * of->of_image),
                     .rate = taps ? df_blocks((of->pairs + 1) * bands * call->out_width * of->reads * READS, taps) : 0,
                     .fresh = fresh,
                     .kept = kept,
                     .lines = kept + call->out_width * of->reads * BAND_KEPT * PATCH_DEPTH};
    band_begin(&r);
    return r;
}

/* For each vector of a step. */
#define EACH V_UNROLL for (int v = 0; v < STEP_VECTORS; v++)

/* A step of a line, as the convolution reads it. */
V_INLINE void band_read_line(const band_reader *r, const value *line, vf *d, const bool with_norm,
                             const bool with_silu) {
    const vf centre = v_set(r->centre);
    EACH d[v] = -centre;
    if (!line)
        return;
    const int64_t c = r->call->channels, rest = r->count - r->at;
    const value *at = line + (r->x >> r->call->upsample) * r->count + r->at;
    const float *norm = with_norm ? r->norm + (r->second ? r->call->split : 0) + r->at : NULL;
    if (rest >= PATCH_DEPTH) {
        EACH d[v] = v_read(at + v * LANES);
        EACH __builtin_prefetch(at + READ_AHEAD + v * LANES, 0, 2);
        if (with_norm)
            EACH d[v] =
                v_fma(d[v] - v_load(norm + DF_NORM_MEAN * c + v * LANES), v_load(norm + DF_NORM_FACTOR * c + v * LANES),
                      v_load(norm + DF_NORM_SHIFT * c + v * LANES));
    } else {
        EACH d[v] = v_set(0);
        for (int64_t i = 0, n; (n = df_min(LANES, rest - i)) > 0; i += LANES) {
            const vf x = v_read_n(at + i, n);
            d[i / LANES] =
                with_norm ? v_fma(x - v_load_n(norm + DF_NORM_MEAN * c + i, n),
                                  v_load_n(norm + DF_NORM_FACTOR * c + i, n), v_load_n(norm + DF_NORM_SHIFT * c + i, n))
                          : x;
        }
    }
    if (with_silu)
        silu_to_digits(d, STEP_VECTORS);
    EACH d[v] -= centre;
}

/* The next two lines of a step. What is stored beyond an input's channels is multiplied by zeros, or overwritten later. */
V_INLINE void band_read_lines(band_reader *r, const bool with_norm, const bool with_silu) {
    float *to = r->stage ? r->lines + (r->stage - 1) * 2 * PATCH_DEPTH : r->keep;
    vf d[STEP_VECTORS];
    V_UNROLL for (int line = 0; line < 2; line++, to += PATCH_DEPTH) {
        band_read_line(r, r->from[r->second][2 * r->stage + line], d, with_norm, with_silu);
        EACH v_store(to + v * LANES, d[v]);
    }
}

/* A step of a pixel beside the image: zeros, like the lines above and below it. */
V_INLINE void band_put_zeros(const band_reader *r, patch_item *to, const int pairs) {
    const int64_t plane = r->of->plane, apart = r->of->apart;
    V_UNROLL for (int point = 0; point < 2 * pairs + 2; point++) V_UNROLL for (int digit = 0; digit < PLANES; digit++)
        memset(to + point * apart + digit * plane, r->zero[point][digit], PATCH_DEPTH);
}

/* A step at all points, from its lines. */
V_INLINE void band_put(const band_reader *r, const int pairs) {
    const int64_t plane = r->of->plane, apart = r->of->apart;
    const float *keep = r->keep, *lines = r->lines;
    patch_item *to = r->to + r->at;
    vf even[STEP_VECTORS], odd[STEP_VECTORS], p[STEP_VECTORS];
#define D(line)    v_load(((line) < BAND_KEPT ? keep : lines - BAND_KEPT * PATCH_DEPTH) + (line)*PATCH_DEPTH + v * LANES)
#define PUT(point) patch_put_step(to + (point)*apart, plane, p, v_set(r->scale[point]))
    V_UNROLL for (int pair = 0; pair < pairs; pair++) {
        const vf root = v_set(band_root(pairs, pair)), other = v_set(-band_other(pairs, pair));
        EACH even[v] = pairs > 1 ? v_fma(other, D(2), D(4)) : D(2);
        EACH odd[v] = pairs > 1 ? root * v_fma(other, D(1), D(3)) : D(1);
        EACH p[v] = even[v] + odd[v];
        PUT(2 * pair);
        EACH p[v] = even[v] - odd[v];
        if (!r->call->upsample)
            PUT(2 * pair + 1);
    }
    const vf both = v_set(-band_other(pairs, 0) - band_other(pairs, 1));
    EACH p[v] = pairs > 1 ? v_fma(both, D(2), D(4) + D(0)) : D(2) - D(0);
    PUT(2 * pairs);
    EACH p[v] = pairs > 1 ? v_fma(both, D(3), D(5) + D(1)) : D(3) - D(1);
    PUT(2 * pairs + 1);
#undef PUT
#undef D
    if (r->x == 0)
        band_put_zeros(r, to - r->of->right, pairs);
    if (r->x == r->call->out_width - 1 &&
        (pairs > 1 || r->band + r->of->group >= r->end)) /* else the next group's zeros */
        band_put_zeros(r, to + r->of->right, pairs);
}
#undef EACH

/* A little more of a patch: a processor looks ahead by some 500 instructions, and what is longer keeps the tiles waiting. */
static void band_read(band_reader *r) {
    const int pairs = r->of->pairs;
    if (r->band == r->end)
        return;
    if (r->stage <= pairs) {
        if (!r->norm)
            band_read_lines(r, false, false);
        else if (r->call->silu)
            band_read_lines(r, true, true);
        else
            band_read_lines(r, true, false);
        r->stage++;
        return;
    }
    if (pairs > 1)
        band_put(r, 2);
    else
        band_put(r, 1);
    memcpy(r->keep, r->lines + (pairs - 1) * 2 * PATCH_DEPTH, BAND_KEPT * PATCH_DEPTH * sizeof(float));
    r->keep += BAND_KEPT * PATCH_DEPTH;
    r->at += PATCH_DEPTH;
    r->stage = r->fresh ? 0 : 1;
    if (r->at >= r->filled)
        band_next_pixel(r);
}

V_INLINE void band_read_some(band_reader *r) {
    for (r->credit += r->rate; r->credit >= READS; r->credit -= READS)
        band_read(r);
}

static void band_read_rest(band_reader *r) {
    while (r->band < r->end)
        band_read(r);
}

/* The rows of a patch's tiles, where a patch holds them. */
static band_row *band_rows(const band_reader *patch, int64_t groups) {
    const df_call *call = patch->call;
    const band_shape *of = patch->of;
    const int64_t of_group = of->tiles * TILE_ROWS;
    band_row *rows = (band_row *)(void *)(patch->patch + of->rows);
    band_row *row = rows;
    for (int64_t first = patch->first; first < patch->first + groups * of->group; first += of->group) {
        for (int64_t band = first; band < first + of->group; band++) {
            const int64_t image = band / of->of_image, y = band % of->of_image * of->lines;
            band_row pixel = {0};
            if (band < patch->end)
                pixel = (band_row){.at = (image * call->out_height + y) * call->out_width * call->out_channels,
                                   .shift = image * call->out_channels,
                                   .lines = (int32_t)df_min(of->lines, call->out_height - y),
                                   .unit = band_range(patch, image)->unit,
                                   .centre = band_range(patch, image)->centre};
            for (int64_t x = 0; x < call->out_width; x++, pixel.at += call->out_channels)
                row[x * of->group + band - first] = pixel;
        }
        memset(row + call->out_width * of->group, 0, (size_t)(of_group - call->out_width * of->group) * sizeof *row);
        row += of_group;
    }
    return rows;
}

/* ---------------------------------------------------------------- outputs */

/* What becomes of sums. GATHER: they are added to a part, or are its first. PAIR: with those of the pair's first point (which
 * is alone where the input is upsampled) they are added to all lines. LAST: with what a line has so far, they are it. */
typedef enum band_work { WORK_GATHER, WORK_PAIR, WORK_LAST } band_work;

/* Up to RUN rows of sums that are left to do, of 16 outputs. */
typedef struct band_rest {
    const band_row *row, *end;   /* the next; behind the last */
    const run_sum *sums;         /* of the next */
    float *parts;                /* of the next */
    int64_t out;                 /* the first of the 16 */
    const float *units, *totals; /* of the 16: of their weights at the point; the sums of all of them */
    int pairs, point, part, line;
    band_work work;
    bool fresh; /* there are no sums at this point yet, of earlier steps */
} band_rest;

V_INLINE void band_write(const df_call *call, const band_row *row, int line, int64_t out, int64_t n, vf bias, vf totals,
                         vf v) {
    if (line >= row->lines)
        return;
    const int64_t at = row->at + line * (int64_t)call->out_width * call->out_channels + out;
    v = v_fma(totals, v_set(row->centre), v_fma(v, v_set(row->unit), bias));
    if (call->shift)
        v += v_read_n((const value *)call->shift + row->shift + out, n);
    if (call->residual)
        v += v_read_n((const value *)call->residual + at, n);
    v_write_n((value *)call->output + at, v, n);
}

/* The next `count` of them: from sums to outputs. */
V_INLINE void band_finish_as(const df_call *call, band_rest *rest, int64_t count, const int pairs, const band_work work,
                             const int pair, const bool fresh) {
    const band_row *row = rest->row, *end = rest->end - row > count ? row + count : rest->end;
    const int64_t out = rest->out, n = df_min(LANES, call->out_channels - out);
    const vf units = v_load(rest->units) * v_set(sums_unit), totals = v_load(rest->totals);
    const vf bias = v_load(call->bias + out);
    const int64_t next = band_part(pairs, 2 * pairs) * TILE_ROWS;
    const bool alone = pairs == 1 && rest->part == PART_FIRST;
    const run_sum *sums = rest->sums;
    float *parts = rest->parts, *part = parts + rest->part * TILE_ROWS;
    for (; row < end; row++, sums += TILE_ROWS, parts += next, part += next) {
        const vf p = run_value(sums);
        if (work == WORK_GATHER) {
            v_store(part, fresh ? p * units : v_fma(p, units, v_load(part)));
        } else if (work == WORK_LAST) {
            band_write(call, row, rest->line, out, n, bias, totals, v_fma(p, units, v_load(part)));
        } else {
            const vf here = v_fma(p, units, fresh ? v_set(0) : v_load(part)), first = alone ? here : v_load(parts);
            const vf even = alone ? here : first + here, odd = alone ? here : first - here;
            float power = 1;
            V_UNROLL for (int line = 0; line < 2 * pairs; line++, power *= band_root(pairs, pair)) {
                float *at = parts + band_part(pairs, line) * TILE_ROWS;
                const vf sum = line % 2 ? odd : even;
                const vf v = pair ? v_fma(v_set(power), sum, v_load(at)) : v_set(power) * sum;
                if (pair < pairs - 1 || line == 0 || line == 2 * pairs - 1)
                    v_store(at, v);
                else
                    band_write(call, row, line, out, n, bias, totals, v);
            }
        }
    }
    rest->row = row, rest->sums = sums, rest->parts = parts;
}

V_INLINE void band_finish_pairs(const df_call *call, band_rest *rest, int64_t count, const int pairs) {
    if (rest->work == WORK_LAST)
        band_finish_as(call, rest, count, pairs, WORK_LAST, 0, false);
    else if (rest->work == WORK_GATHER && rest->fresh)
        band_finish_as(call, rest, count, pairs, WORK_GATHER, 0, true);
    else if (rest->work == WORK_GATHER)
        band_finish_as(call, rest, count, pairs, WORK_GATHER, 0, false);
    else if (rest->point < 2 && rest->fresh)
        band_finish_as(call, rest, count, pairs, WORK_PAIR, 0, true);
    else if (rest->point < 2)
        band_finish_as(call, rest, count, pairs, WORK_PAIR, 0, false);
    else if (rest->fresh)
        band_finish_as(call, rest, count, pairs, WORK_PAIR, pairs - 1, true);
    else
        band_finish_as(call, rest, count, pairs, WORK_PAIR, pairs - 1, false);
}

static void band_finish(const df_call *call, band_rest *rest, int64_t count) {
    if (rest->row == rest->end)
        return;
    if (rest->pairs > 1)
        band_finish_pairs(call, rest, count, 2);
    else
        band_finish_pairs(call, rest, count, 1);
}

/* What becomes of the sums at a point, over steps of which these are the first or the last ones. */
static band_rest band_rest_of(const df_call *call, const band_shape *of, int64_t out, int point, bool first,
                              bool last) {
    band_rest rest = {.out = out,
                      .units = band_units(call, out, point),
                      .totals = call->weight + band_totals(call) + out,
                      .pairs = of->pairs,
                      .point = point,
                      .fresh = first};
    if (point < 2 * of->pairs) {
        rest.part = point % 2 ? PART_SECOND : PART_FIRST;
        rest.work = (point % 2 || call->upsample) && last ? WORK_PAIR : WORK_GATHER;
        return rest;
    }
    rest.line = point == 2 * of->pairs ? 0 : of->lines - 1;
    rest.part = band_part(of->pairs, rest.line);
    rest.work = last ? WORK_LAST : WORK_GATHER;
    rest.fresh = false;
    return rest;
}

/* ---------------------------------------------------------------- products */

/* A task's state beside its tiles. They are busy for 16 cycles with each product, in which the rest of the core has time for
 * what is left of the run before and for the next patch: a little after each tap. */
typedef struct band_aside {
    band_rest before;
    band_reader next;
    band_scratch *s;
    const char *soon; /* weights to be fetched, in so many places with each tap */
    int64_t fetches, apart;
} band_aside;

/* The sums of `tiles` x 16 rows, whose left neighbours are at a[at[..]], for 16 outputs, over some steps. Taps within steps of
 * channels, so that what they share of the pixels stays near. */
V_INLINE void band_sums(const df_call *call, const band_shape *of, const int tiles, const patch_item *a,
                        const int64_t at[RUN_TILES], const patch_item *b, int64_t steps, const band_rest *now,
                        band_aside *aside) {
    const int64_t pitch = of->pitch, plane = of->plane, right = of->right;
    const int64_t share = df_blocks(RUN, steps * BAND_TAPS); /* so they are done before new sums are stored */
    TILES_BARRIER();
    run_begin(tiles);
    for (int64_t step = 0; step < steps; step++, a += PATCH_DEPTH - BAND_TAPS * right) {
        V_ROLLED for (int tap = 0; tap < BAND_TAPS; tap++, a += right, b += TAP_ITEMS) {
            run_first(tiles, a, at, pitch, plane, b);
            band_finish(call, &aside->before, share);
            run_second(tiles, a, at, pitch, plane, b);
            for (int64_t i = 0; i < aside->fetches; i++, aside->soon += aside->apart)
                __builtin_prefetch(aside->soon, 0, 2);
            band_read_some(&aside->next);
        }
    }
    TILES_BARRIER(); /* the sums before are read */
    run_end(tiles, aside->s->sums);
    TILES_BARRIER();
    aside->before = *now;
}

/* All tiles of a patch, for 16 outputs, at a point, over some steps. */
static void band_pass(const band_reader *patch, const band_row *rows, int64_t tiles, const patch_item *a,
                      const patch_item *b, int64_t steps, band_rest now, band_aside *aside) {
    const df_call *call = patch->call;
    const band_shape *of = patch->of;
    float *parts = (float *)(void *)(aside->s->rest + of->parts);
    for (int64_t tile = 0; tile < tiles; tile += RUN_TILES) {
        const int64_t count = df_min(RUN_TILES, tiles - tile);
        int64_t at[RUN_TILES] = {0};
        for (int64_t t = tile; t < tile + count; t++)
            at[t - tile] = (t / of->tiles * of->across + t % of->tiles * TILE_ROWS) * of->pitch;
        now.row = rows + tile * TILE_ROWS;
        now.end = now.row + count * TILE_ROWS;
        now.parts = parts + tile * TILE_ROWS * band_part(of->pairs, of->lines) * TILE_ROWS;
        /* clang-format off */
#define RUN_OF(n) case n: band_sums(call, of, n, a, at, b, steps, &now, aside); break;
        switch (count) {
        EACH_RUN(RUN_OF)
        default: break;
        }
#undef RUN_OF
        /* clang-format on */
    }
}

/* Outputs begin..end-1 of a patch. */
static void band_multiply(const band_reader *patch, int64_t groups, int64_t begin, int64_t end, band_aside *aside) {
    const df_call *call = patch->call;
    const band_shape *of = patch->of;
    const band_row *rows = band_rows(patch, groups);
    const int64_t columns = band_columns(call), of_point = band_point_columns(call);
    aside->apart = groups * of->tiles * TILE_ROWS <= FEW_PIXELS ? FETCHED_BY_FEW : FETCHED_APART;
    aside->fetches = df_blocks(df_blocks(columns, aside->apart), band_taps(call, of, groups));
    for (int64_t out = begin; out < end; out += TILE_ROWS) {
        const int64_t after = out + TILE_ROWS < end ? out + TILE_ROWS : begin;
        const patch_item *weight = (const patch_item *)call->weight;
        aside->soon = (const char *)(weight + after / TILE_ROWS * columns);
        for (int point = 0; point < of->points; point++) {
            const patch_item *a = (const patch_item *)patch->patch + point * of->apart;
            const patch_item *b = weight + out / TILE_ROWS * columns + point * of_point;
            if (point == 1 && call->upsample)
                continue;
            for (int64_t step = 0, steps; step < of->steps; step += steps) {
                steps = df_min(NEAR_STEPS, of->steps - step);
                band_rest now = band_rest_of(call, of, out, point, step == 0, step + steps == of->steps);
                now.sums = aside->s->sums;
                band_pass(patch, rows, groups * of->tiles, a + step * PATCH_DEPTH, b + step * BAND_TAPS * TAP_ITEMS,
                          steps, now, aside);
            }
        }
    }
}

static void conv_bands_run(const df_call *call, int64_t task, void *scratch) {
    band_scratch *s = scratch;
    const band_shape of = band_shape_of(call);
    char *patch = s->rest, *other = patch + of.patch;
    float *kept = (float *)(void *)(s->rest + of.kept);
    const int64_t parts = df_blocks(call->out_channels, call->columns);
    const int64_t begin = task % parts * call->columns, end = df_min(begin + call->columns, call->out_channels);
    const int64_t all = df_blocks(call->images * of.of_image, of.group);
    const int64_t first = task / parts * call->block, last = df_min(first + call->block, all);
    band_aside aside = {.s = s};
    aside.next = band_patch(call, &of, first * of.group, df_min(of.most, last - first), true, 0, patch, kept);
    tiles_open();
    for (int64_t at = first, groups; at < last; at += groups) {
        groups = df_min(of.most, last - at);
        band_read_rest(&aside.next);
        const band_reader now = aside.next;
        if (at + groups < last) {
            const int64_t taps = band_taps(call, &of, groups) * df_blocks(end - begin, TILE_ROWS);
            aside.next = band_patch(call, &of, (at + groups) * of.group, df_min(of.most, last - at - groups), false,
                                    taps, other, kept);
        }
        band_multiply(&now, groups, begin, end, &aside);
        char *done = patch;
        patch = other;
        other = done;
    }
    tiles_close();
    band_finish(call, &aside.before, RUN);
}
