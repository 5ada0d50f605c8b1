/* A convolution of every instruction set against the reference, and all that it may do beside multiplying. */
#ifndef DIFFENCE_TEST_CONVOLUTION_H
#define DIFFENCE_TEST_CONVOLUTION_H

#include "compare.h"

/* Where ONLY names the one set to test. */
static bool emulated(void) {
    return getenv("ONLY") != NULL;
}

/* An emulator is slow, and so are sanitizers: most of the small cases are left out. */
static bool left_out(int variant) {
    return variant % (emulated() ? 6 : SANITIZED ? 3 : 1) != 0;
}

static void absolute(float *to, const float *from, int64_t count) {
    for (int64_t i = 0; i < count; i++)
        to[i] = fabsf(from[i]);
}

/* What a convolution may do beside multiplying. */
typedef struct conv_variant {
    bool shift, residual, upsample, norm, silu;
    int32_t split; /* channels of a second input */
} conv_variant;

static void check_conv(df_step_kind kind, df_call call, conv_variant variant) {
    const int32_t up = variant.upsample ? 2 : 1;
    call.upsample = variant.upsample, call.silu = variant.silu, call.split = call.channels - variant.split;
    call.out_height = (call.height * up + call.stride - 1) / call.stride;
    call.out_width = (call.width * up + call.stride - 1) / call.stride;
    const int64_t pixels = call.images * call.height * call.width, outputs = output_values(&call);
    const int64_t weights = (int64_t)call.out_channels * call.channels * call.size * call.size;
    const int64_t filled = df_round_up(call.out_channels, 64), shifts = call.images * call.out_channels;
    const int64_t norms = DF_NORM_ROWS * call.images * call.channels;
    float *x[2] = {guarded_terms(pixels * call.split, 1), guarded_terms(pixels * variant.split, 1)};
    float *w = guarded_terms(weights, 1), *b = guarded_random(filled, 1), *norm = guarded_random(norms, 1);
    float *s = guarded_terms(shifts, 1), *r = guarded_terms(outputs, 1), *magnitude = guarded(outputs);
    for (int64_t i = call.out_channels; i < filled; i++)
        b[i] = 0;
    df_call size = call; /* the sum of the absolute terms: what a rounding error is relative to */
    float *ax[2] = {guarded(pixels * call.split), guarded(pixels * variant.split)};
    float *aw = guarded(weights), *ab = guarded(filled), *as = guarded(shifts), *ar = guarded(outputs);
    float *an = guarded(norms);
    absolute(ax[0], x[0], pixels * call.split);
    absolute(ax[1], x[1], pixels * variant.split);
    absolute(aw, w, weights);
    absolute(ab, b, filled);
    absolute(as, s, shifts);
    absolute(ar, r, outputs);
    for (int64_t i = 0; i < norms; i++) /* |(x - mean) * factor + shift| <= (|x| + |mean|) * |factor| + |shift| */
        an[i] = i / call.channels % DF_NORM_ROWS == DF_NORM_MEAN ? -fabsf(norm[i]) : fabsf(norm[i]);
    fill_ranges(&call, x, norm);
    size.weight = aw, size.bias = ab, size.output = magnitude, size.silu = false;
    size.input[0] = ax[0], size.input[1] = ax[1], size.norm = variant.norm ? an : NULL;
    size.shift = variant.shift ? as : NULL, size.residual = variant.residual ? ar : NULL;
    run_step(&df_kernels_reference, kind, &size, false);
    if (kind == DF_STEP_WINOGRAD) /* a tile's outputs share their roundings: the largest of an image counts */
        for (int64_t image = 0; image < call.images; image++) {
            const int64_t count = outputs / call.images;
            float most = 0;
            for (int64_t i = image * count; i < (image + 1) * count; i++)
                most = fmaxf(most, magnitude[i]);
            for (int64_t i = image * count; i < (image + 1) * count; i++)
                magnitude[i] = most;
        }
    call.input[0] = x[0], call.input[1] = x[1], call.weight = w, call.bias = b, call.norm = variant.norm ? norm : NULL;
    call.shift = variant.shift ? s : NULL, call.residual = variant.residual ? r : NULL;
    char what[160];
    snprintf(what, sizeof what, "%s %d, stride %d, %d x (%d, %d, %d) -> %d, %s%s%ssplit %d",
             kind == DF_STEP_WINOGRAD ? "winograd" : "conv", call.size, call.stride, (int)call.images, call.channels,
             call.height, call.width, call.out_channels, variant.norm ? "norm, " : "", variant.silu ? "silu, " : "",
             variant.upsample ? "upsample, " : "", variant.split);
    compare(kind, &call, w, magnitude, kind == DF_STEP_WINOGRAD ? winograd_bound[precision] : conv_bound, what);
    float *all[] = {x[0], x[1], w, b, norm, s, r, magnitude, ax[0], ax[1], aw, ab, as, ar, an};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        release(all[i]);
}

#endif
