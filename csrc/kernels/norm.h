/* Group norm, with SiLU where asked: y = (x - mean) / sqrt(variance + epsilon) * scale + shift. Or only the statistics,
 * y = (x - mean) * factor + shift, where the readers of the norm apply it.
 *
 * Sums run over SPAN pixels in float and from there on in double, and around a guess of the mean, the mean of one pixel
 * in SPAN: neither the number of pixels nor a large mean costs accuracy. Such a guess is off by at most sqrt(SPAN - 1)
 * standard deviations (the rest of the values would have to pull that far), so what the variance loses when that is
 * taken out of it is bounded too. */

enum {
    SPAN = 16,
    FEW_CHANNELS = 64,   /* about as many to a task, whole groups */
    MOST_CHANNELS = 256, /* the same where a thread has the images to itself: more of a pixel lies in one piece */
    FETCHED = 2048,      /* values in advance, for the hardware's own fetching ends with each page */
    NORM_AHEAD = V_SET == V_AVX512 || V_SET == V_AVX2,
    RANGES = V_AMX && !V_BF16 /* run_digits.h reads them */
};

static int64_t norm_size(const df_call *call) {
    return call->channels / call->parts;
}

static int64_t norm_groups_in(const df_call *call, int64_t channels) {
    const int64_t groups = channels / norm_size(call);
    return groups < 1 ? 1 : df_min(groups, call->parts);
}

/* Groups of a task. */
static int64_t norm_groups(const df_call *call) {
    return norm_groups_in(call, call->threads > 1 ? FEW_CHANNELS : MOST_CHANNELS);
}

static int64_t norm_tasks(df_call *call) {
    return call->images * df_blocks(call->parts, norm_groups(call));
}

/* The scratch's arrays, of this many channels each: two of double, then five of float. */
static int64_t norm_width(const df_call *call) {
    return df_round_up(norm_groups_in(call, MOST_CHANNELS) * norm_size(call), LANES);
}
static size_t norm_scratch(const df_call *call) {
    return (size_t)norm_width(call) * (2 * sizeof(double) + 5 * sizeof(float));
}

/* Of the differences to a mean, for each channel. */
typedef struct norm_spread {
    double *squares;
    float *least, *most;
} norm_spread;

V_INLINE void add_lanes(double *sums, vf v, int64_t n) {
    if (n == LANES) {
        vd sum;
        memcpy(&sum, sums, sizeof sum);
        sum += __builtin_convertvector(v, vd);
        memcpy(sums, &sum, sizeof sum);
        return;
    }
    float lanes[LANES];
    v_store(lanes, v);
    for (int64_t i = 0; i < n; i++)
        sums[i] += (double)lanes[i];
}

/* Of x - mean: the sums over some pixels of up to `vectors` vectors of channels, the last one of n. With a spread also of
 * their squares, and where readers want it the range. Several vectors at a time keep more than one chain of additions
 * going. */
V_INLINE void norm_span(const value *in, int64_t pixels, int64_t pitch, const int vectors, int64_t n, const float *mean,
                        double *sums, const norm_spread *spread, int64_t at) {
    enum { MOST = 4 };
    vf sum[MOST], square[MOST], middle[MOST], least[MOST], most[MOST];
    V_UNROLL for (int i = 0; i < vectors; i++) {
        const int64_t count = i == vectors - 1 ? n : LANES;
        sum[i] = square[i] = v_set(0);
        middle[i] = v_load_n(mean + i * LANES, count);
        if (RANGES && spread) {
            least[i] = v_load_n(spread->least + at + i * LANES, count);
            most[i] = v_load_n(spread->most + at + i * LANES, count);
        }
    }
    for (int64_t p = 0; p < pixels; p++, in += pitch)
        V_UNROLL for (int i = 0; i < vectors; i++) {
            const vf x = v_read_n(in + i * LANES, i == vectors - 1 ? n : LANES) - middle[i];
            sum[i] += x;
            if (spread && NORM_AHEAD && i * LANES % CACHE_LINE == 0)
                __builtin_prefetch(in + i * LANES + FETCHED, 0, 2);
            if (spread)
                square[i] = v_fma(x, x, square[i]);
            if (RANGES && spread) {
                least[i] = v_min(least[i], x);
                most[i] = v_max(most[i], x);
            }
        }
    V_UNROLL for (int i = 0; i < vectors; i++) {
        add_lanes(sums + i * LANES, sum[i], i == vectors - 1 ? n : LANES);
        if (spread)
            add_lanes(spread->squares + at + i * LANES, square[i], i == vectors - 1 ? n : LANES);
        if (RANGES && spread) {
            v_store_n(spread->least + at + i * LANES, least[i], i == vectors - 1 ? n : LANES);
            v_store_n(spread->most + at + i * LANES, most[i], i == vectors - 1 ? n : LANES);
        }
    }
}

/* The same over any number of pixels. */
V_INLINE void norm_sums_of(const value *in, int64_t pixels, int64_t pitch, int64_t channels, const float *mean,
                           double *sums, const norm_spread *spread) {
    for (int64_t p = 0; p < pixels; p += SPAN) {
        const value *at = in + p * pitch;
        const int64_t count = df_min(SPAN, pixels - p);
        int64_t i = 0;
        for (; i + 4 * LANES <= channels; i += 4 * LANES)
            norm_span(at + i, count, pitch, 4, LANES, mean + i, sums + i, spread, i);
        for (; i + LANES <= channels; i += LANES)
            norm_span(at + i, count, pitch, 1, LANES, mean + i, sums + i, spread, i);
        if (i < channels)
            norm_span(at + i, count, pitch, 1, channels - i, mean + i, sums + i, spread, i);
    }
}

/* Channels first..first+channels-1 of an image that lie in one of the step's inputs. */
typedef struct norm_piece {
    const value *in;
    int64_t pitch, at, channels; /* at: in the task's arrays */
} norm_piece;

/* Into piece[2]; returns how many there are. */
static int norm_pieces(const df_call *call, int64_t image, int64_t first, int64_t channels, norm_piece *piece) {
    const int64_t pixels = (int64_t)call->height * call->width, c = call->channels, split = call->split;
    const value *one = call->input[0], *two = call->input[1];
    int count = 0;
    if (first < split)
        piece[count++] = (norm_piece){one + image * pixels * split + first, split, 0, df_min(channels, split - first)};
    if (first + channels > split) {
        const int64_t begin = first > split ? first : split;
        piece[count++] = (norm_piece){two + image * pixels * (c - split) + begin - split, c - split, begin - first,
                                      first + channels - begin};
    }
    return count;
}

/* Of one pixel in SPAN of them, where no spread is asked for. */
static void norm_sums(const norm_piece *piece, int pieces, int64_t pixels, const float *mean, double *sums,
                      const norm_spread *spread) {
    for (const norm_piece *p = piece; p < piece + pieces; p++) {
        memset(sums + p->at, 0, (size_t)p->channels * sizeof *sums);
        if (spread) {
            const norm_spread own = {spread->squares + p->at, spread->least + p->at, spread->most + p->at};
            for (int64_t i = 0; i < p->channels; i++)
                own.squares[i] = 0, own.least[i] = INFINITY, own.most[i] = -INFINITY;
            norm_sums_of(p->in, pixels, p->pitch, p->channels, mean + p->at, sums + p->at, &own);
        } else {
            norm_sums_of(p->in, df_blocks(pixels, SPAN), SPAN * p->pitch, p->channels, mean + p->at, sums + p->at,
                         NULL);
        }
    }
}

static double norm_mean(const double *sums, int64_t size, int64_t pixels) {
    double total = 0;
    for (int64_t i = 0; i < size; i++)
        total += sums[i];
    return total / (double)(size * pixels);
}

V_INLINE void norm_apply(const norm_piece *p, int64_t pixels, value *out, int64_t pitch, const float *mean,
                         const float *factor, const float *shift, const bool with_silu) {
    for (int64_t q = 0; q < pixels; q++)
        for (int64_t i = 0; i < p->channels; i += LANES) {
            const int64_t n = df_min(LANES, p->channels - i), at = p->at + i;
            const vf x = v_read_n(p->in + q * p->pitch + i, n) - v_load_n(mean + at, n);
            const vf y = v_fma(x, v_load_n(factor + at, n), v_load_n(shift + at, n));
            v_write_n(out + q * pitch + at, with_silu ? silu(y) : y, n);
        }
}

/* Some groups of one image. First a guess of each mean, then sums and squares around it: what it is off by comes out of
 * the same pass, and is taken out of both results. */
V_INLINE void norm_task(const df_call *call, int64_t task, void *scratch, const bool statistics) {
    const int64_t parts = df_blocks(call->parts, norm_groups(call)), size = norm_size(call);
    const int64_t pixels = (int64_t)call->height * call->width, width = norm_width(call), c = call->channels;
    const int64_t first = task % parts * norm_groups(call) * size, image = task / parts;
    const int64_t channels = df_min(norm_groups(call) * size, c - first);
    double *sums = scratch;
    float *mean = (float *)(sums + 2 * width), *factor = mean + width, *shift = factor + width;
    const norm_spread spread = {sums + width, shift + width, shift + 2 * width};
    norm_piece piece[2];
    const int pieces = norm_pieces(call, image, first, channels, piece);
    memset(mean, 0, (size_t)width * 3 * sizeof *mean);
    norm_sums(piece, pieces, pixels, mean, sums, NULL);
    for (int64_t group = 0; group < channels; group += size) {
        const float guess = (float)norm_mean(sums + group, size, df_blocks(pixels, SPAN));
        for (int64_t i = group; i < group + size; i++)
            mean[i] = guess;
    }
    norm_sums(piece, pieces, pixels, mean, sums, &spread);
    for (int64_t group = 0; group < channels; group += size) {
        const double off = norm_mean(sums + group, size, pixels);
        const double variance = norm_mean(spread.squares + group, size, pixels) - off * off;
        const double inverse = 1 / sqrt(variance + (double)call->epsilon);
        for (int64_t i = group; i < group + size; i++) {
            const double scaled = (double)call->weight[first + i] * inverse;
            factor[i] = (float)scaled;
            shift[i] = (float)((double)call->bias[first + i] - off * scaled);
        }
    }
    if (statistics) {
        float *out = (float *)call->output + image * DF_NORM_ROWS * c + first;
        memcpy(out + DF_NORM_MEAN * c, mean, (size_t)channels * sizeof *out);
        memcpy(out + DF_NORM_FACTOR * c, factor, (size_t)channels * sizeof *out);
        memcpy(out + DF_NORM_SHIFT * c, shift, (size_t)channels * sizeof *out);
        for (int64_t i = 0; RANGES && i < channels; i++) { /* rounded as readers round, so that nothing lies outside */
            const float one = fmaf(spread.least[i], factor[i], shift[i]);
            const float other = fmaf(spread.most[i], factor[i], shift[i]);
            out[DF_NORM_LEAST * c + i] = one < other ? one : other;
            out[DF_NORM_MOST * c + i] = one < other ? other : one;
        }
        return;
    }
    for (const norm_piece *p = piece; p < piece + pieces; p++) {
        value *out = (value *)call->output + image * pixels * c + first;
        if (call->silu)
            norm_apply(p, pixels, out, c, mean, factor, shift, true);
        else
            norm_apply(p, pixels, out, c, mean, factor, shift, false);
    }
}

static void norm_run(const df_call *call, int64_t task, void *scratch) {
    norm_task(call, task, scratch, false);
}

static void statistics_run(const df_call *call, int64_t task, void *scratch) {
    norm_task(call, task, scratch, true);
}
