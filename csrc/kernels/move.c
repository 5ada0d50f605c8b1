/* Steps that compute nothing, for values that are floats and for values that are bfloat16, the upper half of a float. Block
 * sizes only decide how the work is shared. */
#include "kernels/kernels.h"

#include <string.h>

enum { PIXELS = 256 };
typedef uint16_t half;

/* To the nearest, to even in the middle; the number is finite. */
static half to_half(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return (half)((bits + 0x7fffU + (bits >> 16 & 1U)) >> 16);
}
static float of_half(half x) {
    const uint32_t bits = (uint32_t)x << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
static float to_float(float x) {
    return x;
}
static float of_float(float x) {
    return x;
}

static int64_t image_tasks(df_call *call) {
    return call->images;
}
static int64_t pixel_tasks(df_call *call) {
    return df_blocks(call->images * call->height * call->width, PIXELS);
}
static int64_t row_tasks(df_call *call) {
    return call->images * call->height;
}

#define MOVES(type)                                                                                                    \
    static void import_##type(const df_call *call, int64_t image, void *scratch) {                                     \
        (void)scratch;                                                                                                 \
        const int64_t pixels = (int64_t)call->height * call->width, channels = call->channels;                         \
        const float *in = (const float *)call->input[0] + image * channels * pixels;                                   \
        type *out = (type *)call->output + image * channels * pixels;                                                  \
        for (int64_t p = 0; p < pixels; p++)                                                                           \
            for (int64_t c = 0; c < channels; c++)                                                                     \
                out[p * channels + c] = to_##type(in[c * pixels + p]);                                                 \
    }                                                                                                                  \
                                                                                                                       \
    static void export_##type(const df_call *call, int64_t image, void *scratch) {                                     \
        (void)scratch;                                                                                                 \
        const int64_t pixels = (int64_t)call->height * call->width, channels = call->channels;                         \
        const type *in = (const type *)call->input[0] + image * channels * pixels;                                     \
        float *out = (float *)call->output + image * channels * pixels;                                                \
        for (int64_t c = 0; c < channels; c++)                                                                         \
            for (int64_t p = 0; p < pixels; p++)                                                                       \
                out[c * pixels + p] = of_##type(in[p * channels + c]);                                                 \
    }                                                                                                                  \
                                                                                                                       \
    static void time_##type(const df_call *call, int64_t image, void *scratch) {                                       \
        (void)scratch;                                                                                                 \
        const int64_t channels = call->out_channels;                                                                   \
        const float *in = call->weight + call->time[image] * channels;                                                 \
        type *out = (type *)call->output + image * channels;                                                           \
        for (int64_t c = 0; c < channels; c++)                                                                         \
            out[c] = to_##type(in[c]);                                                                                 \
    }                                                                                                                  \
                                                                                                                       \
    static void concat_##type(const df_call *call, int64_t task, void *scratch) {                                      \
        (void)scratch;                                                                                                 \
        const int64_t all = call->images * call->height * call->width;                                                 \
        const int64_t c0 = call->split, c = call->out_channels, c1 = c - c0;                                           \
        const type *first = call->input[0], *second = call->input[1];                                                  \
        type *out = call->output;                                                                                      \
        for (int64_t p = task * PIXELS; p < df_min(all, (task + 1) * PIXELS); p++) {                                   \
            memcpy(out + p * c, first + p * c0, (size_t)c0 * sizeof *out);                                             \
            memcpy(out + p * c + c0, second + p * c1, (size_t)c1 * sizeof *out);                                       \
        }                                                                                                              \
    }                                                                                                                  \
                                                                                                                       \
    static void upsample_##type(const df_call *call, int64_t row, void *scratch) {                                     \
        (void)scratch;                                                                                                 \
        const int64_t c = call->channels, w = call->width;                                                             \
        const type *in = (const type *)call->input[0] + row * w * c;                                                   \
        type *out = (type *)call->output + row * 4 * w * c; /* two output rows of 2 w pixels */                        \
        for (int64_t x = 0; x < 2 * w; x++)                                                                            \
            memcpy(out + x * c, in + x / 2 * c, (size_t)c * sizeof *out);                                              \
        memcpy(out + 2 * w * c, out, (size_t)(2 * w * c) * sizeof *out);                                               \
    }                                                                                                                  \
                                                                                                                       \
    const df_moves df_moves_##type = {                                                                                 \
        {image_tasks, NULL, import_##type, NULL, NULL}, {image_tasks, NULL, export_##type, NULL, NULL},                \
        {image_tasks, NULL, time_##type, NULL, NULL},   {pixel_tasks, NULL, concat_##type, NULL, NULL},                \
        {row_tasks, NULL, upsample_##type, NULL, NULL},                                                                \
    };

MOVES(float)
MOVES(half)
