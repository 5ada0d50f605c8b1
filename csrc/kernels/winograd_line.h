/* Winograd's F(4, 3) along a line, and reading the line. Four outputs, three weights apart from each other by one, come from
 * six inputs d with six multiplications instead of twelve. With the points 0, +-a, +-b and infinity, a = sqrt(1/2), b =
 * sqrt(2), whose rounding errors are about half of those of the customary 0, +-1, +-2,
 *
 *     output = A' [(G g) * (B' d)]        (Lavin and Gray, CVPR 2016; * is elementwise) */

enum {
    TILE = 4,
    EDGE = 6,
    STRIP = 32, /* input channels that are read at a time */
    /* Whether the next tile's are fetched: with the pixels below 6 % of the network on an Intel Xeon with AVX-512, on Zen
     * 3 with AVX2 a loss. */
    OUTPUTS_AHEAD = V_SET == V_AVX512
};

#define WINOGRAD_A 0.70710678118654752440F
#define WINOGRAD_B 1.41421356237309504880F

/* Along a line that is upsampled, two of an output's three taps fall on the same pixel:
 *
 *     output[2 i] = g0 d[i-1] + (g1 + g2) d[i],   output[2 i + 1] = (g0 + g1) d[i] + g2 d[i+1]
 *
 * These two phases are lines of their own, as long as d, with a filter of three taps of which the last or the first is
 * zero. So the last or the first of the six points has no weight, five multiplications are left for four outputs, and
 * both phases share the transformed inputs. But both directions together have 4 x 25 matrices of weights instead of 36: too
 * many to be read for a few tiles. */
static bool winograd_phased(const df_call *call) {
    return call->upsample && (int64_t)call->height * call->width >= 16 * TILE * TILE;
}

/* Whether a point has no weight in a phase, 0 or 1. */
V_INLINE bool winograd_idle(int phase, int point) {
    return point == (phase ? 0 : EDGE - 1);
}

/* The filter of a phase. */
static void winograd_line_phase(int phase, double g[3]) {
    const int end = phase ? 0 : 2;
    g[1] += g[end];
    g[end] = 0;
}

/* Tiles of a line. */
static int64_t winograd_across(const df_call *call) {
    return df_blocks(call->out_width >> winograd_phased(call), TILE);
}

/* G g, in double. */
static void winograd_line_weight(const double g[3], double u[EDGE]) {
    const double a = sqrt(0.5), b = sqrt(2.0);
    const double points[4] = {a, -a, b, -b}, scale[4] = {-1.5, -1.5, 6, 6};
    u[0] = g[0];
    for (int i = 0; i < 4; i++)
        u[i + 1] = (g[0] + points[i] * g[1] + points[i] * points[i] * g[2]) / scale[i];
    u[5] = g[2];
}

V_INLINE void winograd_read_as(const df_call *call, int64_t image, int64_t y, int64_t first, int64_t count, float *to,
                               const bool with_norm, const bool with_silu) {
    const int64_t h = call->height, w = call->width, up = call->upsample && !winograd_phased(call);
    const int64_t across = TILE * winograd_across(call) + 2;
    const bool second = first >= call->split;
    const int64_t pitch = second ? call->channels - call->split : call->split;
    const value *in =
        (const value *)call->input[second] + (image * h + (y >> up)) * w * pitch + first - (second ? call->split : 0);
    const float *norm = with_norm ? call->norm + image * DF_NORM_ROWS * call->channels + first : NULL;
    /* So many pixels are fetched in advance. On Zen 3 a line of the image: 3 to 9 % of these convolutions. */
    const int64_t ahead = V_SET == V_AVX512 ? 8 : V_SET == V_AVX2 ? w : 0;
    for (int64_t i = 0; i < count; i += LANES, to += LANES, in += LANES) {
        const int64_t n = df_min(LANES, count - i);
        vf mean = v_set(0), factor = v_set(0), shift = v_set(0);
        if (with_norm) {
            mean = v_load_n(norm + DF_NORM_MEAN * call->channels + i, n);
            factor = v_load_n(norm + DF_NORM_FACTOR * call->channels + i, n);
            shift = v_load_n(norm + DF_NORM_SHIFT * call->channels + i, n);
        }
        v_store(to, v_set(0));
        for (int64_t x = 0; x < w << up; x++) {
            vf v = v_read_n(in + (x >> up) * pitch, n);
            if (ahead && i % CACHE_LINE == 0)
                __builtin_prefetch(in + ((x >> up) + ahead) * pitch);
            if (with_norm)
                v = v_fma(v - mean, factor, shift);
            v_store(to + (x + 1) * STRIP, with_silu ? silu_in_sum(v) : v);
        }
        for (int64_t x = (w << up) + 1; x < across; x++)
            v_store(to + x * STRIP, v_set(0));
    }
}

/* Channels first..first+count-1 (of one of the inputs) of line y of an image and of the pixels beside it, as the
 * convolution reads them: upsampled (but for phases), normalised, with zeros outside the image. Into
 * [TILE * across + 2][STRIP]. */
static void winograd_read(const df_call *call, int64_t image, int64_t y, int64_t first, int64_t count, float *to) {
    if (y < 0 || y >= call->out_height >> winograd_phased(call))
        memset(to, 0, (size_t)((TILE * winograd_across(call) + 2) * STRIP) * sizeof *to);
    else if (!call->norm)
        winograd_read_as(call, image, y, first, count, to, false, false);
    else if (call->silu)
        winograd_read_as(call, image, y, first, count, to, true, true);
    else
        winograd_read_as(call, image, y, first, count, to, true, false);
}

/* B' d. */
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

/* A' m. */
V_INLINE void winograd_out(const vf m[EDGE], vf y[TILE]) {
    const vf a = v_set(WINOGRAD_A), b = v_set(WINOGRAD_B), half = v_set(0.5F), two = v_set(2.0F);
    const vf sum_a = m[1] + m[2], difference_a = a * (m[1] - m[2]);
    const vf sum_b = m[3] + m[4], difference_b = b * (m[3] - m[4]);
    y[0] = m[0] + sum_a + sum_b;
    y[1] = difference_a + difference_b;
    y[2] = v_fma(half, sum_a, two * sum_b);
    y[3] = v_fma(half, difference_a, v_fma(two, difference_b, m[5]));
}
