/* Convolution 3x3 at stride 1 of floats in digits (run_digits.h), by F(2, 3) (Lavin and Gray, 2016, "Fast algorithms for
 * convolutional neural networks") across lines and directly along them: tiles multiply so fast that transformations in both
 * directions would take longer than they save. What it reads (a norm, SiLU, an upsampled value, both sides of a
 * concatenation) is computed once, into a patch, as the tiles multiply it.
 *
 * Two lines of outputs, a band, need four lines of inputs d0..d3. At each of four points, one line comes from them, and one
 * of weights from the three lines g0..g2 of a kernel, and these are multiplied:
 *
 *     1:  (d1 + d2) / 2, g0 + g1 + g2;    -1:  (d2 - d1) / 2, g0 - g1 + g2;    0:  d0 - d2, g0;    infinity:  d1 - d3, g2.
 *
 * Of the products p come the outputs: p(1) + p(-1) + p(0) above, p(1) - p(-1) - p(infinity) below. Where the input is
 * upsampled, d1 is d2, and there is nothing at -1.
 *
 * A patch has the bands of all images one after the other, some at a time as a group, such that they fill tiles. A group's
 * pixels go from left to right, of each band one, with a pixel of zeros before the first; behind the last are those of the
 * next group. So a tap along a line is the same distance away from every pixel, and 16 that follow each other are the rows
 * of a tile, for all three taps. */

enum {
    BAND_LINES = 2,       /* of outputs */
    BAND_INPUTS = 4,      /* lines read for them */
    BAND_TAPS = 3,        /* of a line of a kernel */
    GROUP_BANDS = 16,     /* at most */
    NEAR_STEPS = 4,       /* whose weights for 16 outputs stay near while all pixels of a patch pass */
    PATCH_BYTES = 524288, /* bytes of a patch, at most (but for one group) */
    WORTH = 128,          /* pixels of bands in a task, at least: it reads all weights for them */
    MANY = 16384,         /* weights of a tap */
    READ_AHEAD = 1024,    /* values of the input that are fetched in advance */
    READS = 1024,         /* parts of a read */
    FETCHED_APART = 512,  /* bytes of weights for each line that is fetched in advance */
    STEP_VECTORS = PATCH_DEPTH / LANES
};
enum { POINT_ONE, POINT_MINUS_ONE, POINT_ZERO, POINT_INFINITY, BAND_POINTS };

/* A row of a tile: a pixel of a band. */
typedef struct band_row {
    int64_t at, shift; /* the upper output's first channel; the image's in what is added to it */
    int32_t lines;     /* outputs that exist: none beyond a group or a task, one in the last band of an odd height */
    float unit;        /* of the image */
} band_row;

typedef struct band_scratch {
    run_sum sums[RUN_SUMS];
    char rest[]; /* as band_shape says */
} band_scratch;

/* What follows from a step's shape alone, whatever call->images. */
typedef struct band_shape {
    int64_t steps, reads;       /* of a pixel: of PATCH_DEPTH channels, for the tiles and for the reader */
    int64_t plane, pitch;       /* items of a pixel's plane, and of all three */
    int64_t of_image, group;    /* bands */
    int64_t across, tiles;      /* of a group: pixels to the next, and tiles */
    int64_t most;               /* groups of a patch, at most */
    int64_t apart;              /* items of a patch from a point to the next */
    int64_t units, rows, patch; /* bytes from a patch to its images' units, its rows, and the other patch */
    int64_t kept, outputs, end; /* bytes of band_scratch.rest before what readers keep, outputs so far */
    int64_t right;              /* items to the same band's next pixel */
} band_shape;

static band_shape band_shape_of(const df_call *call) {
    const int64_t width = call->out_width, split = call->split, rest = call->channels - split;
    band_shape of = {.steps = df_blocks(call->channels, PATCH_DEPTH),
                     .of_image = df_blocks(call->out_height, BAND_LINES),
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
    of.across = (width + 1) * of.group;
    of.tiles = df_blocks(of.group * width, TILE_ROWS);
    /* Of whole runs, if possible. */
    const int64_t fit = PATCH_BYTES / (BAND_POINTS * of.across * of.pitch);
    of.most = fit < 1 ? 1 : fit < RUN_TILES ? fit : fit / RUN_TILES * RUN_TILES;
    /* With the zeros behind the last group, and what its last tile reads beyond its end. */
    of.apart = (of.most * of.across + of.group + TILE_ROWS) * of.pitch;
    const int64_t rows = of.most * of.tiles * TILE_ROWS, images = df_blocks(of.most * of.group, of.of_image) + 1;
    of.units = BAND_POINTS * of.apart;
    of.rows = of.units + df_round_up(images * (int64_t)sizeof(float), 64);
    of.patch = of.rows + df_round_up(rows * (int64_t)sizeof(band_row), 64);
    of.kept = 2 * of.patch;
    of.outputs = of.kept + width * of.reads * BAND_LINES * PATCH_DEPTH * (int64_t)sizeof(float);
    of.end = of.outputs + rows * BAND_LINES * TILE_ROWS * (int64_t)sizeof(float);
    return of;
}

/* Whether that is worth it (else winograd.h): where what fills up channels and tiles is at most half of them, and always
 * with many weights, for they are fewer. And no sum of 32 bits may overflow. */
static bool conv_bands_fits(const df_call *call) {
    const band_shape of = band_shape_of(call);
    const int64_t c = call->channels, pixels = of.group * call->out_width * call->out_height;
    const int64_t filled = of.steps * PATCH_DEPTH * of.tiles * TILE_ROWS * of.of_image * BAND_LINES;
    return c <= DIGIT_TERMS / BAND_TAPS && (c * call->out_channels >= MANY || 2 * filled <= 3 * c * pixels);
}

/* About as many taps as the tiles take for 16 outputs of so many groups, not more. */
static int64_t band_taps(const df_call *call, const band_shape *of, int64_t groups) {
    const int64_t runs = groups * of->tiles / RUN_TILES, points = BAND_POINTS - call->upsample;
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
    return BAND_POINTS * (band_point_columns(call) + TILE_ROWS * (int64_t)sizeof(float));
}
static const float *band_units(const df_call *call, int64_t out, int point) {
    const patch_item *columns = (const patch_item *)call->weight + out / TILE_ROWS * band_columns(call);
    return (const float *)(const void *)(columns + BAND_POINTS * band_point_columns(call)) + point * TILE_ROWS;
}

static int64_t conv_bands_packed(const df_call *call) {
    return df_blocks(call->out_channels, TILE_ROWS) * band_columns(call) / (int64_t)sizeof(float);
}

/* The weight at a point, from a column of a kernel. */
static float band_weight(const float *column, int point) {
    const float above = column[0], level = column[3], below = column[6];
    return point == POINT_ONE         ? above + level + below
           : point == POINT_MINUS_ONE ? above - level + below
           : point == POINT_ZERO      ? above
                                      : below;
}

/* (out, c, 3, 3) -> [out / 16][point][step][3] of what a tap of a step takes, the order in which a task reads them; and
 * [point][16] units. */
static void conv_bands_pack(const df_call *call, const float *weight, float *packed) {
    const int64_t c = call->channels, kernel = 9, of_point = band_point_columns(call);
    memset(packed, 0, (size_t)conv_bands_packed(call) * sizeof *packed);
    for (int64_t k = 0; k < call->out_channels; k++, weight += c * kernel) {
        patch_item *columns = (patch_item *)packed + k / TILE_ROWS * band_columns(call);
        float *units = (float *)(void *)(columns + BAND_POINTS * of_point) + k % TILE_ROWS;
        for (int point = 0; point < BAND_POINTS; point++, columns += of_point, units += TILE_ROWS) {
            float most = 0, poison = 0;
            for (int64_t l = 0; l < c * BAND_TAPS; l++) {
                const float w = band_weight(weight + l / BAND_TAPS * kernel + l % BAND_TAPS, point);
                most = fmaxf(most, fabsf(w));
                poison += w * 0;
            }
            *units = digits_unit(most, poison);
            for (int64_t l = 0; l < c * BAND_TAPS; l++) {
                const int64_t i = l / BAND_TAPS, tap = l % BAND_TAPS;
                column_put(columns + (i / PATCH_DEPTH * BAND_TAPS + tap) * TAP_ITEMS, i % PATCH_DEPTH, k % TILE_ROWS,
                           band_weight(weight + i * kernel + tap, point), *units);
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
    int64_t rate, credit;              /* steps to read with each tap, in 1 / READS; and what is due */
    const value *from[2][BAND_INPUTS]; /* the band's lines of either input, or NULL: zeros */
    int64_t x;                         /* the pixel */
    bool second, fresh;                /* which input; whether nothing is kept of the band above */
    int64_t at, count, filled; /* channel of that input; of how many; and with the zeros that fill up the last step */
    const float *norm;         /* of the image's channels, or NULL */
    patch_item *pixel, *to;    /* all of it; its channels of that input */
    float *kept, *keep;        /* what the band below will read again: of all pixels; of this step */
    float scale;               /* 1 / the image's unit */
} band_reader;

/* The pixel before the first one of the patch's band number `band`. */
static patch_item *band_line(const band_reader *r, int64_t band) {
    const int64_t group = r->of->group;
    return (patch_item *)r->patch + (band / group * r->of->across + band % group) * r->of->pitch;
}
static float *band_unit(const band_reader *r, int64_t image) {
    return (float *)(void *)(r->patch + r->of->units) + (image - r->first / r->of->of_image);
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

static void band_begin(band_reader *r) {
    const df_call *call = r->call;
    const band_shape *of = r->of;
    const int64_t at = r->band - r->first, image = r->band / of->of_image;
    const bool ended = r->band == r->end;
    for (int64_t point = 0; point < BAND_POINTS && (ended || at % of->group == 0); point++)
        memset(band_line(r, df_round_up(at, of->group)) + point * of->apart, 0, (size_t)of->right);
    if (ended)
        return;
    if (r->band % of->of_image == 0)
        r->fresh = true;
    if (r->fresh || at == 0) {
        *band_unit(r, image) = patch_unit(call, image);
        r->scale = 1 / *band_unit(r, image);
    }
    for (int64_t line = 0; line < BAND_INPUTS; line++) {
        const int64_t y = r->band % of->of_image * BAND_LINES - 1 + line,
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
                     .rate = taps ? df_blocks(bands * call->out_width * of->reads * READS, taps) : 0,
                     .fresh = fresh,
                     .kept = kept};
    band_begin(&r);
    return r;
}

/* For each vector of a step. */
#define EACH V_UNROLL for (int v = 0; v < STEP_VECTORS; v++)

/* A step of a line, as the convolution reads it. */
V_INLINE void band_read_line(const band_reader *r, const value *line, vf *d, const bool with_norm,
                             const bool with_silu) {
    EACH d[v] = v_set(0);
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
}

/* The next step of a pixel. What is stored beyond an input's channels are zeros, or overwritten later. */
V_INLINE void band_read_as(band_reader *r, const bool with_norm, const bool with_silu) {
    const int64_t plane = r->of->plane, apart = r->of->apart;
    const vf scale = v_set(r->scale), half = v_set(0.5F);
    const value *const *from = r->from[r->second];
    float *keep = r->keep;
    patch_item *to = r->to + r->at;
    vf d0[STEP_VECTORS], d1[STEP_VECTORS], d2[STEP_VECTORS], d3[STEP_VECTORS], p[STEP_VECTORS];
    if (r->fresh) {
        band_read_line(r, from[0], d0, with_norm, with_silu);
        band_read_line(r, from[1], d1, with_norm, with_silu);
    } else {
        EACH d0[v] = v_load(keep + v * LANES);
        EACH d1[v] = v_load(keep + PATCH_DEPTH + v * LANES);
    }
    band_read_line(r, from[2], d2, with_norm, with_silu);
    band_read_line(r, from[3], d3, with_norm, with_silu);
    EACH v_store(keep + v * LANES, d2[v]);
    EACH v_store(keep + PATCH_DEPTH + v * LANES, d3[v]);
    EACH p[v] = (d1[v] + d2[v]) * half;
    patch_put_step(to + POINT_ONE * apart, plane, p, scale);
    if (!r->call->upsample) {
        EACH p[v] = (d2[v] - d1[v]) * half;
        patch_put_step(to + POINT_MINUS_ONE * apart, plane, p, scale);
    }
    EACH p[v] = d0[v] - d2[v];
    patch_put_step(to + POINT_ZERO * apart, plane, p, scale);
    EACH p[v] = d1[v] - d3[v];
    patch_put_step(to + POINT_INFINITY * apart, plane, p, scale);
    r->keep += BAND_LINES * PATCH_DEPTH;
    r->at += PATCH_DEPTH;
    if (r->at >= r->filled)
        band_next_pixel(r);
}
#undef EACH

static void band_read(band_reader *r) {
    if (r->band == r->end)
        return;
    if (!r->norm)
        band_read_as(r, false, false);
    else if (r->call->silu)
        band_read_as(r, true, true);
    else
        band_read_as(r, true, false);
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
            const int64_t image = band / of->of_image, y = band % of->of_image * BAND_LINES;
            band_row pixel = {0};
            if (band < patch->end)
                pixel = (band_row){.at = (image * call->out_height + y) * call->out_width * call->out_channels,
                                   .shift = image * call->out_channels,
                                   .lines = (int32_t)df_min(BAND_LINES, call->out_height - y),
                                   .unit = *band_unit(patch, image)};
            for (int64_t x = 0; x < call->out_width; x++, pixel.at += call->out_channels)
                row[x * of->group + band - first] = pixel;
        }
        memset(row + call->out_width * of->group, 0, (size_t)(of_group - call->out_width * of->group) * sizeof *row);
        row += of_group;
    }
    return rows;
}

/* ---------------------------------------------------------------- outputs */

/* Up to RUN rows of sums that are left to do, of 16 outputs. */
typedef struct band_rest {
    const band_row *row, *end; /* the next; behind the last */
    const run_sum *sums;       /* of the next */
    float *outputs;            /* its upper ones and its lower ones, so far */
    int64_t out;               /* the first of the 16 */
    int point;
    bool edge; /* these are the first sums of all, at point 1; or the last ones at 0 or infinity */
} band_rest;

V_INLINE void band_write(const df_call *call, const band_row *row, int64_t at, int64_t out, int64_t n, vf bias, vf v) {
    v = v_fma(v, v_set(row->unit), bias);
    if (call->shift)
        v += v_read_n((const value *)call->shift + row->shift + out, n);
    at += out;
    if (call->residual)
        v += v_read_n((const value *)call->residual + at, n);
    v_write_n((value *)call->output + at, v, n);
}

/* The next `count` of them: from sums to outputs. */
V_INLINE void band_finish_at(const df_call *call, band_rest *rest, int64_t count, const int point, const bool edge) {
    const band_row *row = rest->row, *end = rest->end - row > count ? row + count : rest->end;
    const int64_t out = rest->out, below = (int64_t)call->out_width * call->out_channels;
    const int64_t n = df_min(LANES, call->out_channels - out);
    const vf units = v_load(band_units(call, out, point)) * v_set(sums_unit), bias = v_load(call->bias + out);
    const run_sum *sums = rest->sums;
    float *upper = rest->outputs, *lower = upper + TILE_ROWS;
    for (; row < end; row++, sums += TILE_ROWS, upper += BAND_LINES * TILE_ROWS, lower += BAND_LINES * TILE_ROWS) {
        const vf p = run_value(sums);
        if (point == POINT_ONE) {
            v_store(upper, edge ? p * units : v_fma(p, units, v_load(upper)));
            v_store(lower, edge ? p * units : v_fma(p, units, v_load(lower)));
        } else if (point == POINT_MINUS_ONE) {
            v_store(upper, v_fma(p, units, v_load(upper)));
            v_store(lower, v_fma(-p, units, v_load(lower)));
        } else if (point == POINT_ZERO) {
            const vf v = v_fma(p, units, v_load(upper));
            if (!edge)
                v_store(upper, v);
            else if (row->lines > 0)
                band_write(call, row, row->at, out, n, bias, v);
        } else {
            const vf v = v_fma(-p, units, v_load(lower));
            if (!edge)
                v_store(lower, v);
            else if (row->lines > 1)
                band_write(call, row, row->at + below, out, n, bias, v);
        }
    }
    rest->row = row, rest->sums = sums, rest->outputs = upper;
}

static void band_finish(const df_call *call, band_rest *rest, int64_t count) {
    if (rest->row == rest->end)
        return;
    switch (2 * rest->point + rest->edge) {
    case 2 * POINT_ONE:
        band_finish_at(call, rest, count, POINT_ONE, false);
        break;
    case 2 * POINT_ONE + 1:
        band_finish_at(call, rest, count, POINT_ONE, true);
        break;
    case 2 * POINT_ZERO:
        band_finish_at(call, rest, count, POINT_ZERO, false);
        break;
    case 2 * POINT_ZERO + 1:
        band_finish_at(call, rest, count, POINT_ZERO, true);
        break;
    case 2 * POINT_INFINITY:
        band_finish_at(call, rest, count, POINT_INFINITY, false);
        break;
    case 2 * POINT_INFINITY + 1:
        band_finish_at(call, rest, count, POINT_INFINITY, true);
        break;
    default:
        band_finish_at(call, rest, count, POINT_MINUS_ONE, false);
        break;
    }
}

/* ---------------------------------------------------------------- products */

/* A task's state beside its tiles. They are busy for 16 cycles with each product, in which the rest of the core has time for
 * what is left of the run before and for the next patch: a little after each tap. */
typedef struct band_aside {
    band_rest before;
    band_reader next;
    band_scratch *s;
    const char *soon; /* weights to be fetched, in so many places with each tap */
    int64_t fetches;
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
            /* The processor fetches what follows by itself; to fetch each line was slower (Xeon, 2026). */
            for (int64_t i = 0; i < aside->fetches; i++, aside->soon += FETCHED_APART)
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
    float *outputs = (float *)(void *)(aside->s->rest + of->outputs);
    for (int64_t tile = 0; tile < tiles; tile += RUN_TILES) {
        const int64_t count = df_min(RUN_TILES, tiles - tile);
        int64_t at[RUN_TILES] = {0};
        for (int64_t t = tile; t < tile + count; t++)
            at[t - tile] = (t / of->tiles * of->across + t % of->tiles * TILE_ROWS) * of->pitch;
        now.row = rows + tile * TILE_ROWS;
        now.end = now.row + count * TILE_ROWS;
        now.outputs = outputs + tile * TILE_ROWS * BAND_LINES * TILE_ROWS;
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
    aside->fetches = df_blocks(df_blocks(columns, FETCHED_APART), band_taps(call, of, groups));
    for (int64_t out = begin; out < end; out += TILE_ROWS) {
        const int64_t after = out + TILE_ROWS < end ? out + TILE_ROWS : begin;
        const patch_item *weight = (const patch_item *)call->weight;
        aside->soon = (const char *)(weight + after / TILE_ROWS * columns);
        for (int point = 0; point < BAND_POINTS; point++) {
            const patch_item *a = (const patch_item *)patch->patch + point * of->apart;
            const patch_item *b = weight + out / TILE_ROWS * columns + point * of_point;
            if (point == POINT_MINUS_ONE && call->upsample)
                continue;
            for (int64_t step = 0, steps; step < of->steps; step += steps) {
                steps = df_min(NEAR_STEPS, of->steps - step);
                band_pass(patch, rows, groups * of->tiles, a + step * PATCH_DEPTH, b + step * BAND_TAPS * TAP_ITEMS,
                          steps,
                          (band_rest){.sums = aside->s->sums,
                                      .out = out,
                                      .point = point,
                                      .edge = point == POINT_ONE         ? step == 0
                                              : point == POINT_MINUS_ONE ? false
                                                                         : step + steps == of->steps},
                          aside);
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
