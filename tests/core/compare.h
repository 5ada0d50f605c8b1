/* Steps of every fast instruction set beside the reference's: poisoned outputs and scratch, guarded ends, and the same bits for
 * an image alone as in company. */
#ifndef DIFFENCE_TESTS_COMPARE_H
#define DIFFENCE_TESTS_COMPARE_H

#include "steps.h"

/* A Winograd step in bf16 that is computed directly: only what it reads is rounded, to eight bits. */
static const double direct_bound = 4e-3;

/* One in digits, which with so many weights all are: 24 bits of the largest value, and what F(2, 3) makes of that. */
enum { IN_DIGITS = 16384 };
static const double digits_bound = 3e-7;

/* What rounding a result to bfloat16 changes, at most, relative to it. */
static const double rounding = 1.01 / 256;

/* Every fast set against the reference. magnitude: of the output's sums, or NULL: the output itself and 1. */
static void compare(df_step_kind kind, const df_call *given, const float *weight, const float *magnitude,
                    double tolerance, const char *what) {
    df_call call = *given;
    const int64_t count = output_values(&call), of_image = count / call.images;
    float *expected = guarded(count);
    call.output = expected;
    run_step(&df_kernels_reference, kind, &call, false);
    for (int32_t set = 1; set < set_count(); set++) {
        const df_kernels *kernels = set_at(set);
        if (!kernels)
            continue;
        float *got = guarded(count), *alone = guarded(of_image);
        float *packed = kernels->step[kind]->pack ? pack(kernels, kind, given, weight) : NULL;
        call.output = got;
        call.weight = packed ? packed : given->weight;
        run_step(kernels, kind, &call, false);
        double worst = 0;
        for (int64_t i = 0; i < count; i++) {
            const double size = magnitude ? (double)magnitude[i] : 1 + fabs((double)expected[i]);
            const double off = fabs((double)got[i] - (double)expected[i]);
            const double error = (kernels->half ? off - rounding * fabs((double)expected[i]) : off) / size;
            worst = error <= worst ? worst : error; /* NaN counts */
        }
        const bool direct = kind == DF_STEP_WINOGRAD && kernels->direct3x3;
        const bool digits =
            kind == DF_STEP_WINOGRAD && kernels->ranges && call.channels * call.out_channels >= IN_DIGITS;
        const double allowed = fmin(tolerance, direct ? direct_bound : digits ? digits_bound : INFINITY);
        CHECK(worst <= allowed, "%s: %s: error %g, allowed %g", kernels->name, what, worst, allowed);
        CHECK(guards_hold(got, count), "%s: %s writes outside", kernels->name, what);
        for (int64_t image = 0; image < call.images && call.images > 1; image++) {
            df_call one = only_image(&call, kind, image);
            one.threads = (int32_t)image + 2; /* cut in another way */
            one.output = alone;
            run_step(kernels, kind, &one, true);
            CHECK(!memcmp(alone, got + image * of_image, (size_t)of_image * sizeof *alone),
                  "%s: %s: image %d differs when alone", kernels->name, what, (int)image);
        }
        if (packed)
            release(packed);
        release(got);
        release(alone);
    }
    release(expected);
}

/* Pieces of 256 terms: a rounding is at most 6e-8, and random ones do not all point one way. Winograd's transformations
 * add and subtract what a direct sum never holds, and bf16 rounds what they make (by up to 4 % where there is one channel, and
 * nothing to average); so it does an attention's weights. */
static const double conv_bound = 5e-7, winograd_bound[] = {4e-6, 5e-2}, attention_bound[] = {2e-6, 4e-3};

/* The least and the most that comes out of a norm, in each channel of each image. */
static void fill_ranges(const df_call *call, float *const x[2], float *norm) {
    const int64_t c = call->channels, pixels = (int64_t)call->height * call->width;
    for (int64_t image = 0; image < call->images; image++)
        for (int64_t i = 0; i < c; i++) {
            float *of = norm + image * DF_NORM_ROWS * c + i;
            const bool second = i >= call->split;
            const int64_t pitch = second ? c - call->split : call->split;
            const float *in = x[second] + image * pixels * pitch + i - (second ? call->split : 0);
            float *least = of + DF_NORM_LEAST * c, *most = of + DF_NORM_MOST * c;
            *least = INFINITY, *most = -INFINITY;
            for (int64_t p = 0; p < pixels; p++) {
                const float y = (in[p * pitch] - of[0]) * of[DF_NORM_FACTOR * c] + of[DF_NORM_SHIFT * c];
                *least = y < *least || isnan(y) ? y : *least, *most = y > *most || isnan(y) ? y : *most;
            }
        }
}

static const int32_t channels[] = {1, 3, 5, 8, 12, 17, 32, 40};
static const int32_t sizes[][2] = {{1, 1}, {1, 9}, {2, 3}, {5, 4}, {9, 7}, {3, 6}, {8, 8}};
enum { CHANNELS = sizeof channels / sizeof *channels, SIZES = sizeof sizes / sizeof *sizes };

static df_call call_of(int64_t images, int32_t c, int32_t h, int32_t w) {
    return (df_call){.images = images,
                     .channels = c,
                     .height = h,
                     .width = w,
                     .out_channels = c,
                     .out_height = h,
                     .out_width = w,
                     .size = 1,
                     .stride = 1,
                     .parts = 1,
                     .split = c,
                     .pitch = {c, c, c}};
}

/* Sets that this processor or build lacks. */
static void skip_missing_sets(void) {
    for (int32_t isa = 0; isa < df_isa_count(); isa++)
        for (precision = DF_FP32; precision < DF_PRECISION_COUNT; precision++)
            if (!df_isa_supported(isa, precision))
                SKIP("%s: this processor or build cannot run it in %s", df_isa_name(isa),
                     precision == DF_BF16 ? "bf16" : "fp32");
}

#endif
