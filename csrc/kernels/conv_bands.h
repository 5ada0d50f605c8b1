/* Convolution 3x3 at stride 1 of floats in digits (run_digits.h), by F(2, 3) or F(4, 3) across lines (band_points.h) and
 * directly along them: tiles multiply so fast that transformations in both directions would take longer than they save.
 * What it reads (a norm, SiLU, an upsampled value, both sides of a concatenation) is computed once, into a patch
 * (band_patch.h), as the tiles multiply the one before. How a step is cut is in band_shape.h. */

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
