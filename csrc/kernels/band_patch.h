/* What conv_bands.h multiplies: patches, and how they are read. A patch has the bands of all images one after the other,
 * some at a time as a group, such that they fill tiles. A group's pixels go from left to right, of each band one, with a
 * pixel of zeros before the first and one behind the last, which with F(2, 3) are the next group's first ones. So a tap
 * along a line is the same distance away from every pixel, and 16 that follow each other are the rows of a tile, for all
 * three taps. */

/* An image's range, as the convolution reads it: from its norm, or from all its values. */
static patch_range patch_range_of(const df_call *call, int64_t image) {
    const int64_t c = call->channels, pixels = (int64_t)call->height * call->width;
    vf least = v_set(0), most = v_set(0), poison = v_set(0);
    if (call->norm) {
        const float *norm = call->norm + image * DF_NORM_ROWS * c;
        for (int64_t i = 0; i < c; i += LANES) {
            const int64_t n = df_min(LANES, c - i);
            const vf low = v_load_n(norm + DF_NORM_LEAST * c + i, n), high = v_load_n(norm + DF_NORM_MOST * c + i, n);
            most = v_max(most, high);
            least = v_max(least, -low);
            poison = v_fma(low, v_set(0), v_fma(high, v_set(0), poison));
        }
        if (call->silu)
            least = v_set(0.2785F); /* SiLU's smallest value is -0.27846 */
    }
    for (int side = 0; side < 2 && !call->norm; side++) {
        const int64_t count = pixels * (side ? c - call->split : call->split);
        const value *in = (const value *)call->input[side] + image * count;
        for (int64_t i = 0; i < count; i += LANES) {
            const vf v = v_read_n(in + i, df_min(LANES, count - i));
            most = v_max(most, v);
            least = v_max(least, -v);
            poison = v_fma(v, v_set(0), poison);
        }
    }
    const float below = v_largest(least), above = v_largest(most);
    return (patch_range){digits_unit(above + below, v_sum(poison)), (above - below) / 2};
}

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
