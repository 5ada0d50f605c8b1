/* Convolutions 3x3 at stride 1, by Winograd's algorithm or what a set has in its place, over odd sizes. */
#include "convolution.h"

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

/* Images, channels, height, width, outputs and threads; what else is done goes by the number of the case. */
static void check_case(const int32_t of[6], int number, bool upsample, int32_t split) {
    df_call call = call_of(of[0], of[1], of[2], of[3]);
    call.out_channels = of[4], call.size = 3, call.threads = of[5];
    check_conv(DF_STEP_WINOGRAD, call,
               (conv_variant){.shift = number & 1,
                              .residual = number & 2,
                              .upsample = upsample,
                              .norm = number > 2,
                              .silu = number > 3,
                              .split = split});
}

/* Upsampled values of 16 x 16 pixels and more, whose outputs Winograd's algorithm computes as four phases: chunks and tiles
 * that are not full, several blocks, tasks that share a phase's outputs, and all else that is read or added. */
static void test_phases(void) {
    static const int32_t cases[][6] = {{2, 33, 16, 16, 20, 1},  {3, 8, 17, 19, 70, 2}, {1, 270, 16, 20, 33, 3},
                                       {5, 40, 16, 17, 100, 4}, {2, 20, 5, 70, 3, 1},  {1, 16, 40, 41, 256, 16}};
    for (int i = 0; i < (int)(sizeof cases / sizeof *cases); i++)
        check_case(cases[i], i, true, i == 3 ? 13 : 0);
}

/* Weights that tasks of few tiles transform themselves, and tasks of many do not: several pieces of a sum, chunks and parts
 * of channels that are not full. */
static void test_late(void) {
    static const int32_t cases[][6] = {{1, 260, 4, 4, 130, 1}, {5, 132, 7, 5, 257, 1}, {2, 1030, 1, 1, 33, 3},
                                       {2, 520, 3, 9, 70, 4},  {5, 200, 2, 3, 170, 1}, {3, 128, 8, 8, 256, 1}};
    for (int i = 0; i < (int)(sizeof cases / sizeof *cases); i++)
        check_case(cases[i], i, i == 4, i == 3 ? 201 : 0);
}

/* Outputs that are too many for the caches, while those of one image are not; of phases too. Only floats are streamed. */
static void test_streamed(void) {
    if (emulated() || precision == DF_BF16)
        return;
    for (int i = 0; i < 4; i++) {
        df_call call = call_of(2, 8, i & 1 ? 129 : 199, i & 1 ? 98 : 201);
        call.out_channels = i < 2 ? 16 : 48, call.size = 3, call.threads = 1 + i;
        check_conv(DF_STEP_WINOGRAD, call,
                   (conv_variant){.shift = i & 2, .residual = i < 3, .upsample = i & 1, .norm = i == 3});
    }
}

/* Where AMX multiplies digits: channels and sizes for which it does, lines that tiles fill, several patches, and inputs
 * whose last vectors reach beyond a step. */
static void test_digits(void) {
    static const int32_t deep[] = {64, 124, 130, 192}, made[] = {1, 16, 100};
    static const int32_t area[][2] = {{1, 1}, {5, 7}, {4, 4}, {3, 16}, {2, 32}, {9, 48}, {8, 8}, {6, 28}};
    int variant = 0;
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 3; j++)
            for (int s = 0; s < 8; s++, variant++) {
                if (left_out(variant) || (i + j + s) % 2) /* plain C is slow at that: every other pair */
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

/* Where those digits are multiplied by F(4, 3): bands of several images in a group, several patches and pieces of a sum,
 * outputs that do not fill tiles, an image of one band, and all else that is read or added. */
static void test_bands_of_four(void) {
    static const int32_t cases[][6] = {{3, 128, 16, 16, 16, 1}, {4, 130, 20, 13, 40, 2}, {1, 300, 16, 17, 33, 2},
                                       {2, 200, 12, 24, 36, 3}, {5, 128, 4, 66, 17, 1},  {2, 520, 16, 16, 20, 1},
                                       {7, 192, 64, 4, 20, 2}};
    for (int i = 0; i < (int)(sizeof cases / sizeof *cases); i++)
        check_case(cases[i], i, false, i == 3 ? 72 : i == 5 ? 256 : 0);
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
        CHECK(worst <= (kernels->half ? 1.06 / 256 : 6e-7), "%s: silu(%g) is off by %g of it", kernels->name,
              (double)at, worst);
        release(packed);
    }
    release(x);
    release(y);
    release(w);
}

/* Where SiLU's exponential would leave the numbers that there are: next to them errors are those of Winograd's sums. */
static void test_far_silu(void) {
    enum { C = 8, EDGE = 12, COUNT = C * EDGE * EDGE };
    static const float far[] = {-1e4F, 1e4F, -300, 300, -130, 130, -100, 100, -89, 89, -87, 87, 0};
    enum { FAR = sizeof far / sizeof *far };
    float *x = guarded(COUNT), *y = guarded(COUNT), norm[DF_NORM_ROWS * C] = {0}, bias[64] = {0}, w[C * C * 9] = {0};
    for (int i = 0; i < C; i++) {
        w[(i * C + i) * 9 + 4] = norm[DF_NORM_FACTOR * C + i] = 1;
        norm[DF_NORM_LEAST * C + i] = far[0], norm[DF_NORM_MOST * C + i] = far[1];
    }
    for (int i = 0; i < COUNT; i++)
        x[i] = far[i % FAR];
    df_call call = call_of(1, C, EDGE, EDGE);
    call.size = 3, call.silu = true;
    call.input[0] = x, call.norm = norm, call.bias = bias, call.output = y;
    for (int32_t set = 1; set < set_count(); set++) {
        const df_kernels *kernels = set_at(set);
        if (!kernels)
            continue;
        float *packed = pack(kernels, DF_STEP_WINOGRAD, &call, w);
        call.weight = packed;
        run_step(kernels, DF_STEP_WINOGRAD, &call, false);
        for (int i = 0; i < COUNT; i++)
            CHECK(fabs((double)y[i] - (x[i] < 0 ? 0 : (double)x[i])) <= 4e-6 * (double)far[1], "%s: silu(%g) = %g",
                  kernels->name, (double)x[i], (double)y[i]);
        release(packed);
    }
    release(x);
    release(y);
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

int main(void) {
    skip_missing_sets();
    for (precision = DF_FP32; precision < DF_PRECISION_COUNT; precision++) {
        test_winograd();
        test_phases();
        test_late();
        test_streamed();
        test_digits();
        test_bands_of_four();
        test_silu_of_a_reader();
    }
    precision = DF_FP32;
    test_far_silu();
    precision = DF_BF16;
    test_rounded_weights();
    return check_report("winograd");
}
