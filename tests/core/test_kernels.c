/* Every kernel of every instruction set against the reference: odd sizes, poisoned outputs and scratch, guarded ends,
 * and the same bits for an image alone as in company. */
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

static void absolute(float *to, const float *from, int64_t count) {
    for (int64_t i = 0; i < count; i++)
        to[i] = fabsf(from[i]);
}

/* What a convolution may do beside multiplying. */
typedef struct conv_variant {
    bool shift, residual, upsample, norm, silu;
    int32_t split; /* channels of a second input */
} conv_variant;

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

static void test_conv(void) {
    int variant = 0;
    for (int i = 0; i < CHANNELS; i++)
        for (int j = 0; j < CHANNELS; j++)
            for (int32_t size = 1; size <= 3; size += 2)
                for (int32_t stride = 1; stride <= 2; stride++, variant++) {
                    if (left_out(variant))
                        continue;
                    const int32_t *hw = sizes[variant % SIZES];
                    df_call call = call_of(variant % 3 ? 3 : 1, channels[i], hw[0], hw[1]);
                    call.out_channels = channels[j], call.size = size, call.stride = stride;
                    /* Sizes and strides go by four. */
                    conv_variant more = {.shift = variant / 4 & 1, .residual = variant / 8 & 1};
                    check_conv(DF_STEP_CONV, call, more);
                    if (size == 1 && stride == 1 && channels[i] > 1)
                        more.split = 1 + variant % (channels[i] - 1), check_conv(DF_STEP_CONV, call, more);
                }
    /* More than one piece, one block of rows and one group of outputs. */
    df_call large = call_of(3, 150, 9, 9);
    large.out_channels = 150, large.size = 3;
    check_conv(DF_STEP_CONV, large, (conv_variant){.shift = true, .residual = true});
    df_call linear = call_of(5, 300, 1, 1);
    linear.out_channels = 290;
    check_conv(DF_STEP_CONV, linear, (conv_variant){.residual = true});
    df_call two = call_of(2, 600, 7, 9);
    two.out_channels = 140;
    check_conv(DF_STEP_CONV, two, (conv_variant){.shift = true, .split = 290});
    two.channels = 128; /* the second's last vector reaches beyond the last step */
    check_conv(DF_STEP_CONV, two, (conv_variant){.residual = true, .split = 101});
    /* Whole steps of 32 on both sides, which tiles read in place, and rows that fill no tile. */
    for (variant = 0; variant < 4; variant++) {
        df_call steps = call_of(3, 160, 9, 7);
        steps.out_channels = 70;
        check_conv(DF_STEP_CONV, steps,
                   (conv_variant){.shift = variant & 1, .residual = variant & 2, .split = variant == 3 ? 0 : 64});
    }
}

static void test_winograd(void) {
    int variant = 0;
    for (int i = 0; i < CHANNELS; i++)
        for (int j = 0; j < CHANNELS; j++)
            for (int s = 0; s < SIZES; s++, variant++) {
                if (left_out(variant))
                    continue;
                df_call call = call_of(variant % 3 ? 3 : 1, channels[i], sizes[s][0], sizes[s][1]);
                call.out_channels = channels[j], call.size = 3;
                check_conv(DF_STEP_WINOGRAD, call,
                           (conv_variant){.shift = variant & 1,
                                          .residual = variant & 2,
                                          .upsample = variant & 4,
                                          .norm = variant % 5 > 1,
                                          .silu = variant % 5 > 2,
                                          .split = variant % 7 ? 0 : channels[i] / 3});
            }
    /* More than one block of tiles, piece of channels and chunk of outputs; a width of many tiles, in several bands; in
     * tiles of AMX parts of an image, several images to a task, and lines of zeros within a tile. */
    static const int32_t large[][5] = {{70, 3, 3, 40, 40},   {3, 530, 9, 9, 70},   {2, 20, 9, 1100, 9},
                                       {2, 72, 33, 35, 100}, {7, 130, 17, 20, 40}, {5, 260, 6, 6, 20},
                                       {2, 264, 24, 24, 40}};
    for (size_t i = 0; i < sizeof large / sizeof *large; i++) {
        df_call call = call_of(large[i][0], large[i][1], large[i][2], large[i][3]);
        call.out_channels = large[i][4], call.size = 3, call.threads = (int32_t)i % 6;
        check_conv(DF_STEP_WINOGRAD, call,
                   (conv_variant){.shift = true,
                                  .residual = true,
                                  .norm = true,
                                  .silu = true,
                                  .split = i == 3   ? 36
                                           : i == 4 ? 120
                                           : i == 6 ? 100
                                                    : 0});
    }
}

/* Where AMX multiplies digits: channels and sizes for which it does, lines that tiles fill, several patches, and inputs
 * whose last vectors reach beyond a step. */
static void test_digits(void) {
    static const int32_t deep[] = {64, 124, 130, 192}, made[] = {1, 16, 150};
    static const int32_t area[][2] = {{1, 1}, {5, 7}, {4, 4}, {3, 16}, {2, 32}, {9, 48}, {8, 8}, {6, 28}};
    int variant = 0;
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 3; j++)
            for (int s = 0; s < 8; s++, variant++) {
                if (left_out(variant))
                    continue;
                df_call call = call_of(variant % 3 ? 3 : 1, deep[i], area[s][0], area[s][1]);
                call.out_channels = made[j], call.size = 3, call.threads = 1 + variant % 4;
                check_conv(DF_STEP_WINOGRAD, call,
                           (conv_variant){.shift = variant & 1,
                                          .residual = variant & 2,
                                          .upsample = variant % 4 == 1,
                                          .norm = variant % 5 > 1,
                                          .silu = variant % 5 > 2,
                                          .split = variant % 3 ? 0 : deep[i] / 3 + variant});
            }
}

/* What is not finite must show wherever the reference shows it, and in no other image. The steps that a set may compute in
 * whole numbers, which know no NaN. */
static void test_not_finite(void) {
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    enum { IN_CONV, IN_KEYS, IN_VALUES, IN_WINOGRAD, IN_NORM, PLACES };
    for (int i = 0; i < 3 * PLACES; i++) {
        const int place = i % PLACES;
        const df_step_kind kind = place == IN_CONV    ? DF_STEP_CONV
                                  : place > IN_VALUES ? DF_STEP_WINOGRAD
                                                      : DF_STEP_ATTENTION;
        df_call call = call_of(3, 128, 8, 8);
        call.size = kind == DF_STEP_WINOGRAD ? 3 : 1;
        const int64_t count = output_values(&call), weights = (int64_t)128 * 128 * call.size * call.size;
        float *x = guarded_terms(count, 1), *w = guarded_terms(weights, 1), *b = guarded_random(128, 1);
        float *expected = guarded(count), *got = guarded(count), *whole = guarded(count);
        float *norm = guarded_random(DF_NORM_ROWS * 3 * 128, 1);
        const int64_t of_image = count / 3, at = of_image + 3 * 128 + 70;
        float *others = guarded_terms(count, 1);
        for (int j = 0; j < 3; j++)
            call.input[j] = place == IN_KEYS && j == 2 ? others : place == IN_VALUES && j < 2 ? others : x;
        call.bias = b;
        fill_ranges(&call, (float *const[2]){x, x}, norm);
        call.norm = place == IN_NORM ? norm : NULL, call.silu = place == IN_NORM && i % 2;
        float *factor = norm + (DF_NORM_ROWS + DF_NORM_FACTOR) * 128 + 70, *const bad_one = call.norm ? factor : x + at;
        const float good = *bad_one;
        for (int32_t set = 1; set < set_count(); set++) {
            const df_kernels *kernels = set_at(set);
            if (!kernels)
                continue;
            float *packed = kernels->step[kind]->pack ? pack(kernels, kind, &call, w) : NULL;
            *bad_one = good, call.weight = packed, call.output = whole;
            fill_ranges(&call, (float *const[2]){x, x}, norm);
            run_step(kernels, kind, &call, false);
            *bad_one = bad[i / PLACES], call.output = got;
            fill_ranges(&call, (float *const[2]){x, x}, norm);
            run_step(kernels, kind, &call, false);
            call.weight = w, call.output = expected;
            run_step(&df_kernels_reference, kind, &call, false);
            bool hidden = false;
            for (int64_t j = of_image; j < 2 * of_image; j++)
                hidden |= !isfinite(expected[j]) && isfinite(got[j]);
            CHECK(!hidden, "%s: step %d: %g among the inputs is hidden", kernels->name, kind, (double)bad[i / PLACES]);
            CHECK(!memcmp(got, whole, (size_t)of_image * sizeof *got) &&
                      !memcmp(got + 2 * of_image, whole + 2 * of_image, (size_t)of_image * sizeof *got),
                  "%s: step %d: %g in another image changes this one", kernels->name, kind, (double)bad[i / PLACES]);
            if (packed)
                release(packed);
        }
        float *all[] = {x, w, b, norm, others, expected, got, whole};
        for (size_t j = 0; j < sizeof all / sizeof *all; j++)
            release(all[j]);
    }
}

/* The norm and its statistics. x: of one input, `second` channels of which move to another. */
static void check_norm(df_call call, int32_t second, const float *x, const float *scale, const float *shift,
                       double tolerance, const char *what) {
    const int64_t pixels = call.images * call.height * call.width, first = call.channels - second;
    float *part[2] = {guarded(pixels * first), guarded(pixels * second)};
    for (int64_t p = 0; p < pixels; p++) {
        memcpy(part[0] + p * first, x + p * call.channels, (size_t)first * sizeof *x);
        memcpy(part[1] + p * second, x + p * call.channels + first, (size_t)second * sizeof *x);
    }
    call.input[0] = part[0], call.input[1] = part[1], call.split = (int32_t)first;
    call.weight = scale, call.bias = shift;
    compare(DF_STEP_NORM, &call, NULL, NULL, tolerance, what);
    /* The mean may round to either side, and the shift with it: what counts is where they take a value. */
    const int64_t made = call.images * DF_NORM_ROWS * call.channels;
    call.output = guarded(made);
    for (int32_t set = 0; set < set_count(); set++) {
        const df_kernels *kernels = set_at(set);
        if (!kernels)
            continue;
        run_step(kernels, DF_STEP_STATISTICS, &call, true);
        CHECK(guards_hold(call.output, made), "%s: %s: statistics outside", kernels->name, what);
        float *expected = guarded(pixels * call.channels);
        df_call norm = call;
        norm.output = expected, norm.silu = false;
        run_step(&df_kernels_reference, DF_STEP_NORM, &norm, false);
        double worst = 0;
        bool inside = true;
        for (int64_t i = 0; i < pixels * call.channels; i++) {
            const float *of =
                (const float *)call.output + i / (pixels / call.images * call.channels) * DF_NORM_ROWS * call.channels;
            const int64_t c = i % call.channels;
            const double y =
                ((double)x[i] - (double)of[c]) * (double)of[call.channels + c] + (double)of[2 * call.channels + c];
            const double error = fabs(y - (double)expected[i]) / (1 + fabs((double)expected[i]));
            worst = error <= worst ? worst : error;
            if (kernels->ranges) {
                const double slack = tolerance * (1 + fabs(y));
                inside &= y >= (double)of[DF_NORM_LEAST * call.channels + c] - slack;
                inside &= y <= (double)of[DF_NORM_MOST * call.channels + c] + slack;
            }
        }
        CHECK(worst <= tolerance, "%s: %s: statistics are off by %g", kernels->name, what, worst);
        CHECK(inside, "%s: %s: a value outside its channel's range", kernels->name, what);
        release(expected);
    }
    release(call.output);
    release(part[0]);
    release(part[1]);
}

static void test_norm(void) {
    for (int i = 0; i < CHANNELS; i++)
        for (int32_t groups = 1; groups <= channels[i]; groups++)
            for (int s = 0; s < SIZES && channels[i] % groups == 0; s++) {
                df_call call = call_of(s & 1 ? 3 : 1, channels[i], sizes[s][0], sizes[s][1]);
                call.parts = groups, call.epsilon = 1e-5F, call.silu = (s + groups) & 1;
                const int64_t count = output_values(&call);
                float *x = guarded_random(count, 1), *scale = guarded_random(call.channels, 2);
                float *shift = guarded_random(call.channels, 2);
                for (int64_t j = 0; j < count; j++)
                    x[j] += s == 4 ? 5000.0F : 0.5F; /* a mean far above the deviation must cost nothing */
                for (int64_t pixel = 0; s == 3 && pixel < count / call.channels; pixel += 16)
                    for (int64_t j = 0; j < call.channels; j++)
                        x[pixel * call.channels + j] += 100; /* one in 16 that is unlike the others may, a little */
                cut_to_terms(x, count);
                char what[100];
                snprintf(what, sizeof what, "norm (%d, %d, %d), %d groups", call.channels, call.height, call.width,
                         groups);
                check_norm(call, (s + groups) % 3 ? 0 : call.channels / 3, x, scale, shift, s == 3 ? 4e-6 : 1e-6, what);
                release(x);
                release(scale);
                release(shift);
            }
    /* More groups than a task takes; and so many pixels that a sum in float alone would drift. */
    df_call large[] = {call_of(1, 128, 32, 32), call_of(1, 6, 300, 301)};
    large[0].parts = 32, large[0].silu = true;
    large[1].parts = 3;
    for (int i = 0; i < 2; i++) {
        large[i].epsilon = 1e-6F;
        float *x = guarded_terms(output_values(&large[i]), 3);
        float *scale = guarded_random(128, 1), *shift = guarded_random(128, 1);
        check_norm(large[i], 0, x, scale, shift, 6e-7, "large norm");
        release(x);
        release(scale);
        release(shift);
    }
}

static void test_attention(void) {
    static const int32_t cases[][3] = {{1, 9, 9},  {3, 1, 1},  {5, 3, 2},    {12, 4, 4},  {17, 9, 7},
                                       {40, 1, 9}, {40, 8, 8}, {72, 12, 13}, {8, 18, 17}, {300, 5, 5}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int32_t variant = 0; variant < 4; variant++) {
            df_call call = call_of(i & 1 ? 1 : 3, cases[i][0], cases[i][1], cases[i][2]);
            call.parts = variant & 1 ? 2 : 1;
            if (call.channels % call.parts)
                continue;
            float *qkv[3], *residual = guarded_terms(output_values(&call), 1);
            for (int j = 0; j < 3; j++) {
                call.pitch[j] = call.channels + (variant & 2 ? j + 1 : 0);
                qkv[j] = guarded_terms(call.images * call.height * call.width * call.pitch[j], j == 0 ? 4 : 1);
                call.input[j] = qkv[j];
            }
            call.residual = variant & 2 ? residual : NULL;
            char what[100];
            snprintf(what, sizeof what, "attention (%d, %d, %d), variant %d", call.channels, call.height, call.width,
                     variant);
            compare(DF_STEP_ATTENTION, &call, NULL, NULL, attention_bound[precision], what);
            for (int j = 0; j < 3; j++)
                release(qkv[j]);
            release(residual);
        }
    /* Scores of +-1e4 would overflow without the largest taken out. */
    df_call call = call_of(1, 4, 5, 5);
    float *q = guarded_terms(100, 100), *v = guarded_terms(100, 1);
    call.input[0] = call.input[1] = q, call.input[2] = v;
    compare(DF_STEP_ATTENTION, &call, NULL, NULL, precision == DF_BF16 ? 5e-3 : 1e-3, "attention with large scores");
    release(q);
    release(v);
}

static void test_add(void) {
    for (int i = 0; i < CHANNELS; i++)
        for (int s = 0; s < SIZES; s++)
            for (int broadcast = 0; broadcast < 2; broadcast++) {
                df_call call = call_of(3, channels[i], sizes[s][0], sizes[s][1]);
                float *a = guarded_terms(output_values(&call), 1), *b = guarded_terms(output_values(&call), 1);
                call.input[0] = a, call.input[1] = b, call.broadcast = broadcast;
                compare(DF_STEP_ADD, &call, NULL, NULL, 0, "add");
                release(a);
                release(b);
            }
    df_call call = call_of(2, 40, 30, 30); /* more than a task's values */
    float *a = guarded_terms(output_values(&call), 1), *b = guarded_terms(output_values(&call), 1);
    call.input[0] = a, call.input[1] = b;
    compare(DF_STEP_ADD, &call, NULL, NULL, 0, "add, large");
    release(a);
    release(b);
}

/* Units in the last place of float32 at x, the subnormal ones too. */
static double ulp(double x) {
    int exponent;
    frexp(x, &exponent);
    return ldexp(1, exponent - 24 < -149 ? -149 : exponent - 24);
}

static void test_silu(void) {
    enum { COUNT = 400000 };
    df_call call = call_of(1, 1, 1, COUNT);
    float *x = guarded(COUNT), *y = guarded(COUNT);
    static const float special[] = {0.0F, -0.0F, 1e-45F, -1e-45F, -87.3F, -88.8F, -100,  -103.9F, -104,    -110,
                                    -111, -1e4F, -1e30F, -3e38F,  88.8F,  1e4F,   3e38F, 1e-38F,  INFINITY};
    enum { SPECIAL = sizeof special / sizeof *special };
    for (int i = 0; i < COUNT; i++) /* -120..120, finer around zero */
        x[i] = i < SPECIAL ? special[i] : i & 1 ? 120 * random_float() : random_float() * 4;
    cut_to_terms(x, COUNT);
    call.input[0] = x, call.output = y;
    for (int32_t set = 0; set < set_count(); set++) {
        const df_kernels *kernels = set_at(set);
        if (!kernels)
            continue;
        run_step(kernels, DF_STEP_SILU, &call, false);
        double worst = 0;
        float at = 0;
        for (int i = 0; i < COUNT; i++) {
            const double exact = x[i] < -1e3F ? -0.0 : (double)x[i] / (1 + exp(-(double)x[i]));
            if (kernels->half && fabs(exact) < 1.2e-38)
                continue; /* no bfloat16 but zero */
            const double error =
                x[i] == INFINITY ? (y[i] == INFINITY ? 0 : 1e9) : fabs((double)y[i] - exact) / ulp(exact);
            if (!(error <= worst))
                worst = error, at = x[i];
        }
        CHECK(worst <= (kernels->half ? 32772 : 3.5), "%s: silu(%g) is off by %g units in the last place",
              kernels->name, (double)at, worst);
        CHECK(guards_hold(y, COUNT), "%s: silu writes outside", kernels->name);
    }
    x[1] = NAN;
    for (int32_t set = 0; set < set_count(); set++)
        if (set_at(set)) {
            run_step(set_at(set), DF_STEP_SILU, &call, false);
            CHECK(isnan(y[1]), "%s: silu hides a NaN", set_at(set)->name);
        }
    release(x);
    release(y);
}

/* SiLU as a convolution reads it, which only copies then: where it is computed directly or in digits, so little else is
 * rounded. */
static void test_silu_of_a_reader(void) {
    enum { C = 128, H = 20, W = 21, COUNT = C * H * W };
    const float most = precision == DF_BF16 ? 3e38F : 8; /* a whole number's error is relative to the largest */
    float *x = guarded(COUNT), *y = guarded(COUNT), norm[DF_NORM_ROWS * C] = {0}, bias[C] = {0};
    float *w = guarded(C * C * 9);
    memset(w, 0, C * C * 9 * sizeof *w);
    for (int i = 0; i < C; i++)
        w[(i * C + i) * 9 + 4] = norm[DF_NORM_FACTOR * C + i] = 1;
    const float lowest = precision == DF_BF16 ? -1e4F : -3e38F;
    const float special[] = {0.0F, 100, -100, 1e4F, -1e4F, 1e30F, 3e38F, lowest};
    enum { SPECIAL = sizeof special / sizeof *special };
    for (int i = 0; i < COUNT; i++)
        x[i] = fminf(most, i < SPECIAL ? special[i] : i & 1 ? 90 * random_float() : random_float() * 6);
    cut_to_terms(x, COUNT);
    for (int i = 0; i < COUNT; i++) {
        float *least = norm + DF_NORM_LEAST * C + i % C, *largest = norm + DF_NORM_MOST * C + i % C;
        *least = fminf(*least, x[i]), *largest = fmaxf(*largest, x[i]);
    }
    df_call call = call_of(1, C, H, W);
    call.size = 3, call.silu = true;
    call.input[0] = x, call.norm = norm, call.bias = bias, call.output = y;
    for (int32_t set = 1; set < set_count(); set++) {
        const df_kernels *kernels = set_at(set);
        if (!kernels || !(kernels->direct3x3 || kernels->ranges))
            continue;
        float *packed = pack(kernels, DF_STEP_WINOGRAD, &call, w);
        call.weight = packed;
        run_step(kernels, DF_STEP_WINOGRAD, &call, false);
        double worst = 0;
        float at = 0;
        for (int i = 0; i < COUNT; i++) {
            const double exact = x[i] < -80 ? 0 : (double)x[i] / (1 + exp(-(double)x[i]));
            const double error =
                (fabs((double)y[i] - exact) - 1e-30) / (kernels->half ? fabs(exact) + 1e-30 : (double)most);
            if (!(error <= worst))
                worst = error, at = x[i];
        }
        CHECK(worst <= (kernels->half ? 1.06 / 256 : 4.5e-7), "%s: silu(%g) is off by %g of it", kernels->name,
              (double)at, worst);
        release(packed);
    }
    release(x);
    release(y);
    release(w);
}

/* Channel c of pixel p of image i has the value (i * 6 + p) * 9 + c wherever it is moved to, which bfloat16 holds too. */
static void check_moves(const df_kernels *kernels) {
    enum { IMAGES = 2, H = 3, W = 2, C = 5, D = 4 };
    float nchw[IMAGES * C * H * W], nhwc[IMAGES * H * W * C], other[IMAGES * H * W * D];
    for (int i = 0; i < IMAGES; i++)
        for (int p = 0; p < H * W; p++) {
            for (int c = 0; c < C; c++)
                nchw[(i * C + c) * H * W + p] = nhwc[(i * H * W + p) * C + c] = (float)((i * 6 + p) * 9 + c);
            for (int c = 0; c < D; c++)
                other[(i * H * W + p) * D + c] = (float)((i * 6 + p) * 9 + C + c);
        }
    float *out = guarded(IMAGES * C * H * W);
    df_call call = call_of(IMAGES, C, H, W);
    call.input[0] = nchw, call.output = out;
    run_step(kernels, DF_STEP_IMPORT, &call, true);
    CHECK(!memcmp(out, nhwc, sizeof nhwc) && guards_hold(out, IMAGES * C * H * W), "%s: import", kernels->name);
    call.input[0] = nhwc;
    run_step(kernels, DF_STEP_EXPORT, &call, true);
    CHECK(!memcmp(out, nchw, sizeof nchw) && guards_hold(out, IMAGES * C * H * W), "%s: export", kernels->name);
    release(out);

    out = guarded(IMAGES * H * W * (C + D));
    call.input[1] = other, call.output = out, call.channels = call.out_channels = C + D;
    run_step(kernels, DF_STEP_CONCAT, &call, true);
    bool right = guards_hold(out, IMAGES * H * W * (C + D));
    for (int i = 0; i < IMAGES * H * W * (C + D); i++)
        right &= out[i] == (float)i;
    CHECK(right, "%s: concat", kernels->name);
    release(out);

    out = guarded(IMAGES * 4 * H * W * C);
    call.input[1] = NULL, call.output = out, call.channels = call.out_channels = C;
    call.out_height = 2 * H, call.out_width = 2 * W;
    run_step(kernels, DF_STEP_UPSAMPLE, &call, true);
    right = guards_hold(out, IMAGES * 4 * H * W * C);
    for (int i = 0; i < IMAGES; i++)
        for (int y = 0; y < 2 * H; y++)
            for (int x = 0; x < 2 * W; x++)
                for (int c = 0; c < C; c++)
                    right &= out[((i * 2 * H + y) * 2 * W + x) * C + c] == (float)((i * 6 + y / 2 * W + x / 2) * 9 + c);
    CHECK(right, "%s: upsample", kernels->name);
    release(out);

    out = guarded(2 * C);
    call = (df_call){.images = 2, .out_channels = C, .time = (int32_t[]){3, 0}, .weight = nhwc, .output = out};
    run_step(kernels, DF_STEP_TIME, &call, true);
    CHECK(!memcmp(out, nhwc + 3 * C, C * sizeof *out) && !memcmp(out + C, nhwc, C * sizeof *out) &&
              guards_hold(out, 2 * C),
          "%s: time", kernels->name);
    release(out);
}

static void test_moves(void) {
    static const df_kernels halves = {.name = "bfloat16", .step = {DF_MOVES(df_moves_half)}, .half = true};
    check_moves(&df_kernels_reference);
    check_moves(&halves);
    /* To the nearest, and to even in the middle. */
    const float x[] = {1.0F, 1.00390625F, 1.01171875F, 1.005F, -1.005F, 3.3e38F};
    const float nearest[] = {1.0F, 1.0F, 1.015625F, 1.0078125F, -1.0078125F, 3.2962e38F};
    float y[6];
    df_call call = call_of(1, 6, 1, 1);
    call.input[0] = x, call.output = y;
    run_step(&halves, DF_STEP_IMPORT, &call, false);
    for (int i = 0; i < 6; i++)
        CHECK(fabsf(y[i] / nearest[i] - 1) < 1e-4F, "%g became %g", (double)x[i], (double)y[i]);
}

/* The bits of the portable set are the same on every machine and by every compiler: this is one of its results. */
static void test_portable_is_fixed(void) {
    enum { C = 37, K = 9 };
    float x[C], w[K * C], b[16] = {0}, y[K];
    for (int i = 0; i < C; i++)
        x[i] = (float)((i * 7) % 11) / 7.0F - 0.6F;
    for (int i = 0; i < K * C; i++)
        w[i] = (float)((i * 13) % 29) / 23.0F - 0.5F;
    df_call call = call_of(1, C, 1, 1);
    call.out_channels = K;
    float *packed = pack(&df_kernels_portable, DF_STEP_CONV, &call, w);
    call.input[0] = x, call.weight = packed, call.bias = b, call.output = y;
    run_step(&df_kernels_portable, DF_STEP_CONV, &call, false);
    for (int k = 0; k < K; k++) {
        volatile float sum = 0; /* volatile: one rounding to float32 after each operation */
        for (int i = 0; i < C; i++) {
            const volatile float product = x[i] * w[k * C + i];
            sum = sum + product;
        }
        CHECK(y[k] == sum, "output %d: %a, expected %a", k, (double)y[k], (double)sum);
    }
    release(packed);
}

int main(void) {
    for (int32_t isa = 0; isa < df_isa_count(); isa++)
        for (precision = DF_FP32; precision < DF_PRECISION_COUNT; precision++)
            if (!df_isa_supported(isa, precision))
                SKIP("%s: this processor or build cannot run it in %s", df_isa_name(isa),
                     precision == DF_BF16 ? "bf16" : "fp32");
    test_moves();
    for (precision = DF_FP32; precision < DF_PRECISION_COUNT; precision++) {
        test_conv();
        test_winograd();
        test_digits();
        test_not_finite();
        test_attention();
        test_norm();
        test_add();
        test_silu();
        test_silu_of_a_reader();
    }
    test_portable_is_fixed();
    return check_report("kernels");
}
