/* Group norm, with SiLU where asked: y = (x - mean) / sqrt(variance + epsilon) * scale + shift.
 *
 * Sums run over SPAN pixels in float and from there on in double, and the variance is taken around the mean: neither
 * the number of pixels nor a large mean costs accuracy. */

enum { SPAN = 16, NORM_CHANNELS = 64 /* about as many to a task, whole groups */ };

static int64_t norm_size(const df_call *call) {
    return call->channels / call->parts;
}

/* Groups of a task. */
static int64_t norm_groups(const df_call *call) {
    const int64_t groups = NORM_CHANNELS / norm_size(call);
    return groups < 1 ? 1 : df_min(groups, call->parts);
}

static int64_t norm_tasks(const df_call *call) {
    return call->images * df_blocks(call->parts, norm_groups(call));
}

/* The scratch's arrays, of this many channels each: two of double, then three of float. */
static int64_t norm_width(const df_call *call) {
    return df_round_up(norm_groups(call) * norm_size(call), LANES);
}
static size_t norm_scratch(const df_call *call) {
    return (size_t)norm_width(call) * (2 * sizeof(double) + 3 * sizeof(float));
}

static void add_lanes(double *sums, vf v, int64_t n) {
    float lanes[LANES];
    v_store(lanes, v);
    for (int64_t i = 0; i < n; i++)
        sums[i] += (double)lanes[i];
}

/* Of x - mean of each channel: the sums, and the sums of the squares where they are asked for. */
V_INLINE void norm_sums(const df_call *call, const float *in, int64_t channels, const float *mean, double *sums,
                        double *squares) {
    const int64_t pixels = (int64_t)call->height * call->width, stride = call->channels;
    for (int64_t i = 0; i < channels; i++) {
        sums[i] = 0;
        if (squares)
            squares[i] = 0;
    }
    for (int64_t p = 0; p < pixels; p += SPAN)
        for (int64_t i = 0; i < channels; i += LANES) {
            const int64_t n = df_min(LANES, channels - i), end = df_min(pixels, p + SPAN);
            vf sum = v_set(0), square = v_set(0);
            for (int64_t q = p; q < end; q++) {
                const vf x = v_load_n(in + q * stride + i, n) - v_load(mean + i);
                sum += x;
                square = v_fma(x, x, square);
            }
            add_lanes(sums + i, sum, n);
            if (squares)
                add_lanes(squares + i, square, n);
        }
}

static double norm_mean(const double *sums, int64_t size, int64_t pixels) {
    double total = 0;
    for (int64_t i = 0; i < size; i++)
        total += sums[i];
    return total / (double)(size * pixels);
}

V_INLINE void norm_apply(const df_call *call, const float *in, float *out, int64_t channels, const float *mean,
                         const float *factor, const float *shift, const bool with_silu) {
    const int64_t pixels = (int64_t)call->height * call->width, stride = call->channels;
    for (int64_t p = 0; p < pixels; p++)
        for (int64_t i = 0; i < channels; i += LANES) {
            const int64_t n = df_min(LANES, channels - i);
            const vf x = v_load_n(in + p * stride + i, n) - v_load(mean + i);
            const vf y = v_fma(x, v_load(factor + i), v_load(shift + i));
            v_store_n(out + p * stride + i, with_silu ? silu(y) : y, n);
        }
}

/* Some groups of one image. */
static void norm_run(const df_call *call, int64_t task, void *scratch) {
    const int64_t parts = df_blocks(call->parts, norm_groups(call)), size = norm_size(call);
    const int64_t pixels = (int64_t)call->height * call->width, width = norm_width(call);
    const int64_t first = task % parts * norm_groups(call) * size, at = task / parts * pixels * call->channels + first;
    const int64_t channels = df_min(norm_groups(call) * size, call->channels - first);
    const float *in = call->input[0] + at;
    double *sums = scratch, *squares = sums + width;
    float *mean = (float *)(squares + width), *factor = mean + width, *shift = factor + width;
    memset(mean, 0, (size_t)width * 3 * sizeof *mean);
    norm_sums(call, in, channels, mean, sums, NULL);
    for (int64_t i = 0; i < channels; i++)
        mean[i] = (float)norm_mean(sums + i / size * size, size, pixels);
    /* Around the rounded mean: what it is off by comes out of the same pass, and is taken out of both results. */
    norm_sums(call, in, channels, mean, sums, squares);
    for (int64_t i = 0; i < channels; i++) {
        const double off = norm_mean(sums + i / size * size, size, pixels);
        const double variance = norm_mean(squares + i / size * size, size, pixels) - off * off;
        const double inverse = (double)call->weight[first + i] / sqrt(variance + (double)call->epsilon);
        factor[i] = (float)inverse;
        shift[i] = (float)((double)call->bias[first + i] - off * inverse);
    }
    if (call->silu)
        norm_apply(call, in, call->output + at, channels, mean, factor, shift, true);
    else
        norm_apply(call, in, call->output + at, channels, mean, factor, shift, false);
}
