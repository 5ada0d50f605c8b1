/* Steps that compute nothing. Block sizes only decide how the work is shared. */
#include "kernels/kernels.h"

#include <string.h>

enum { PIXELS = 256 };

static int64_t image_tasks(df_call *call) {
    return call->images;
}

static void import_run(const df_call *call, int64_t image, void *scratch) {
    (void)scratch;
    const int64_t pixels = (int64_t)call->height * call->width, channels = call->channels;
    const float *in = call->input[0] + image * channels * pixels;
    float *out = call->output + image * channels * pixels;
    for (int64_t p = 0; p < pixels; p++)
        for (int64_t c = 0; c < channels; c++)
            out[p * channels + c] = in[c * pixels + p];
}

static void export_run(const df_call *call, int64_t image, void *scratch) {
    (void)scratch;
    const int64_t pixels = (int64_t)call->height * call->width, channels = call->channels;
    const float *in = call->input[0] + image * channels * pixels;
    float *out = call->output + image * channels * pixels;
    for (int64_t c = 0; c < channels; c++)
        for (int64_t p = 0; p < pixels; p++)
            out[c * pixels + p] = in[p * channels + c];
}

static void time_run(const df_call *call, int64_t image, void *scratch) {
    (void)scratch;
    const size_t channels = (size_t)call->out_channels;
    memcpy(call->output + (size_t)image * channels, call->weight + (size_t)call->time[image] * channels,
           channels * sizeof(float));
}

static int64_t concat_tasks(df_call *call) {
    return df_blocks(call->images * call->height * call->width, PIXELS);
}

static void concat_run(const df_call *call, int64_t task, void *scratch) {
    (void)scratch;
    const int64_t all = call->images * call->height * call->width;
    const int64_t c0 = call->split, c = call->out_channels, c1 = c - c0;
    for (int64_t p = task * PIXELS; p < df_min(all, (task + 1) * PIXELS); p++) {
        memcpy(call->output + p * c, call->input[0] + p * c0, (size_t)c0 * sizeof(float));
        memcpy(call->output + p * c + c0, call->input[1] + p * c1, (size_t)c1 * sizeof(float));
    }
}

static int64_t row_tasks(df_call *call) {
    return call->images * call->height;
}

static void upsample_run(const df_call *call, int64_t row, void *scratch) {
    (void)scratch;
    const int64_t c = call->channels, w = call->width;
    const float *in = call->input[0] + row * w * c;
    float *out = call->output + row * 4 * w * c; /* two output rows of 2 w pixels */
    for (int64_t x = 0; x < 2 * w; x++)
        memcpy(out + x * c, in + x / 2 * c, (size_t)c * sizeof(float));
    memcpy(out + 2 * w * c, out, (size_t)(2 * w * c) * sizeof(float));
}

const df_kernel df_move_import = {image_tasks, NULL, import_run, NULL, NULL};
const df_kernel df_move_export = {image_tasks, NULL, export_run, NULL, NULL};
const df_kernel df_move_time = {image_tasks, NULL, time_run, NULL, NULL};
const df_kernel df_move_concat = {concat_tasks, NULL, concat_run, NULL, NULL};
const df_kernel df_move_upsample = {row_tasks, NULL, upsample_run, NULL, NULL};
