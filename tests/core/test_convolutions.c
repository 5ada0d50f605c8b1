/* Direct convolutions, over odd sizes. */
#include "convolution.h"

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
    if (!emulated()) { /* outputs that are too many for the caches, while those of one image are not */
        df_call streamed = call_of(2, 5, 201, 203);
        streamed.out_channels = 16;
        check_conv(DF_STEP_CONV, streamed, (conv_variant){.shift = true, .residual = true});
    }
    /* Whole steps of 32 on both sides, which tiles read in place, and rows that fill no tile. */
    for (variant = 0; variant < 4; variant++) {
        df_call steps = call_of(3, 160, 9, 7);
        steps.out_channels = 70;
        check_conv(DF_STEP_CONV, steps,
                   (conv_variant){.shift = variant & 1, .residual = variant & 2, .split = variant == 3 ? 0 : 64});
    }
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
    for (precision = DF_FP32; precision < DF_PRECISION_COUNT; precision++)
        test_conv();
    precision = DF_BF16;
    test_portable_is_fixed();
    return check_report("convolutions");
}
