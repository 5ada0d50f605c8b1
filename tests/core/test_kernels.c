/* The other kernels of every instruction set against the reference, over odd sizes; and what is not finite, in all of them. */
#include "compare.h"

/* What is not finite must show wherever the reference shows it, and in no other image. The steps that a set may compute in
 * whole numbers, which know no NaN. */
static void test_not_finite(void) {
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    enum { IN_CONV, IN_KEYS, IN_VALUES, IN_WINOGRAD, IN_LARGE, IN_NORM, IN_LARGE_NORM, PLACES };
    for (int i = 0; i < 3 * PLACES; i++) {
        const int place = i % PLACES;
        const df_step_kind kind = place == IN_CONV    ? DF_STEP_CONV
                                  : place > IN_VALUES ? DF_STEP_WINOGRAD
                                                      : DF_STEP_ATTENTION;
        const bool large = place == IN_LARGE || place == IN_LARGE_NORM, normed = place >= IN_NORM;
        df_call call = large ? call_of(3, 128, 16, 20) : call_of(3, 128, 8, 8);
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
        call.norm = normed ? norm : NULL, call.silu = normed && i % 2;
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
    /* More groups than a task takes, whether or not threads share an image; and so many pixels that a sum in float alone
     * would drift. */
    df_call large[] = {call_of(2, 320, 20, 20), call_of(1, 6, 300, 301)};
    large[0].parts = 32, large[0].silu = true;
    large[1].parts = 3;
    for (int i = 0; i < 2; i++) {
        large[i].epsilon = 1e-6F;
        float *x = guarded_terms(output_values(&large[i]), 3);
        float *scale = guarded_random(320, 1), *shift = guarded_random(320, 1);
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

int main(void) {
    skip_missing_sets();
    test_moves();
    for (precision = DF_FP32; precision < DF_PRECISION_COUNT; precision++) {
        test_not_finite();
        test_attention();
        test_norm();
        test_add();
        test_silu();
    }
    return check_report("kernels");
}
