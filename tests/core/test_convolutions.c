/* Convolutions of every instruction set against the reference, over odd sizes and all that they do beside multiplying. */
#include "compare.h"

/* An emulator, where ONLY names the one set to test, is slow: most of the small cases are left out. */
static bool left_out(int variant) {
    return getenv("ONLY") && variant % 6;
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

/* Upsampled values of 16 x 16 pixels and more, whose outputs Winograd's algorithm computes as four phases: chunks and tiles
 * that are not full, several blocks, tasks that share a phase's outputs, and all else that is read or added. */
static void test_phases(void) {
    static const int32_t cases[][6] = {{2, 33, 16, 16, 20, 1},  {3, 8, 17, 19, 70, 2}, {1, 270, 16, 20, 33, 3},
                                       {5, 40, 16, 17, 100, 4}, {2, 20, 5, 70, 3, 1},  {1, 16, 40, 41, 256, 16}};
    for (int i = 0; i < (int)(sizeof cases / sizeof *cases); i++) {
        const int32_t *of = cases[i];
        df_call call = call_of(of[0], of[1], of[2], of[3]);
        call.out_channels = of[4], call.size = 3, call.threads = of[5];
        check_conv(DF_STEP_WINOGRAD, call,
                   (conv_variant){.shift = i & 1,
                                  .residual = i & 2,
                                  .upsample = true,
                                  .norm = i > 2,
                                  .silu = i > 3,
                                  .split = i == 3 ? 13 : 0});
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

/* Winograd's weights in bfloat16 make up for each other's roundings: with a large upsampled image those of a phase, which
 * has fewer. */
static void check_rounded_weights(bool upsample, double allowed) {
    enum { C = 64, EDGE = 16 };
    const int scale = upsample ? 2 : 1, count = C * EDGE * EDGE * scale * scale;
    float *x = guarded_terms(C * EDGE * EDGE, 1), *w = guarded_random(C * C * 9, 1), *exact = guarded(count);
    float bias[C] = {0};
    df_call call = call_of(1, C, EDGE, EDGE);
    call.size = 3, call.upsample = upsample, call.out_height = call.out_width = EDGE * scale;
    call.input[0] = x, call.weight = w, call.bias = bias, call.output = exact;
    run_step(&df_kernels_reference, DF_STEP_WINOGRAD, &call, false);
    for (int32_t set = 1; set < set_count(); set++) {
        const df_kernels *kernels = set_at(set);
        if (!kernels || kernels->direct3x3)
            continue;
        float *packed = pack(kernels, DF_STEP_WINOGRAD, &call, w), *y = guarded(count);
        df_call rough = call;
        rough.weight = packed, rough.output = y;
        run_step(kernels, DF_STEP_WINOGRAD, &rough, false);
        double off = 0, all = 0;
        for (int i = 0; i < count; i++) {
            off += pow((double)y[i] - (double)exact[i], 2);
            all += pow((double)exact[i], 2);
        }
        CHECK(sqrt(off / all) <= allowed, "%s: %g of the outputs", kernels->name, sqrt(off / all));
        release(packed);
        release(y);
    }
    release(x);
    release(w);
    release(exact);
}

static void test_rounded_weights(void) {
    check_rounded_weights(false, 1.06e-2); /* each rounded by itself: 1.2e-2 */
    check_rounded_weights(true, 0.9e-2);   /* 0.96e-2 */
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
    skip_missing_sets();
    for (precision = DF_FP32; precision < DF_PRECISION_COUNT; precision++) {
        test_conv();
        test_winograd();
        test_phases();
        test_digits();
        test_silu_of_a_reader();
    }
    precision = DF_BF16;
    test_rounded_weights();
    test_portable_is_fixed();
    return check_report("convolutions");
}
