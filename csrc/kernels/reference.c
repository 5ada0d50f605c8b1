/* The specification: plain loops, every sum in double, one rounding to float32 at the end of a step. */
#include "kernels/kernels.h"

#include <math.h>
#include <string.h>

static int64_t pixel_tasks(df_call *call) {
    return call->images * call->out_height * call->out_width;
}
static int64_t group_tasks(df_call *call) {
    return call->images * call->parts;
}
static int64_t image_tasks(df_call *call) {
    return call->images;
}

/* For x far below zero exp(-x) is infinite in double too, and x / infinity is the right -0. */
static double silu(double x) {
    return x / (1.0 + exp(-x));
}

static int64_t conv_packed(const df_call *call) {
    return (int64_t)call->out_channels * call->channels * call->size * call->size;
}

static void conv_pack(const df_call *call, const float *weight, float *packed) {
    memcpy(packed, weight, (size_t)conv_packed(call) * sizeof(float));
}

/* Channel i of pixel (y, x) of the stored input: of the one or the other where there are two. */
static double input_at(const df_call *call, int64_t image, int64_t y, int64_t x, int64_t i) {
    const bool second = i >= call->split;
    const int64_t first = second ? call->split : 0, pitch = second ? call->channels - call->split : call->split;
    const float *in = call->input[second];
    return in[((image * call->height + y) * call->width + x) * pitch + i - first];
}

/* The same as a convolution reads it: upsampled and normalised. */
static double conv_input(const df_call *call, int64_t image, int64_t y, int64_t x, int64_t i) {
    const double v = input_at(call, image, call->upsample ? y / 2 : y, call->upsample ? x / 2 : x, i);
    if (!call->norm)
        return v;
    const float *norm = call->norm + image * DF_NORM_ROWS * call->channels + i;
    const double mean = (double)norm[DF_NORM_MEAN * call->channels],
                 factor = (double)norm[DF_NORM_FACTOR * call->channels];
    const double z = (v - mean) * factor + (double)norm[DF_NORM_SHIFT * call->channels];
    return call->silu ? silu(z) : z;
}

static size_t conv_scratch(const df_call *call) {
    return (size_t)(call->channels * call->size * call->size) * sizeof(double);
}

/* One output pixel, all its channels. weight (out, c, size, size). */
static void conv_run(const df_call *call, int64_t task, void *scratch) {
    double *window = scratch; /* [size][size][c]: what the outputs of this pixel read */
    const int64_t c = call->channels, k = call->out_channels, taps = (int64_t)call->size * call->size;
    const int64_t h = call->upsample ? 2 * call->height : call->height,
                  w = call->upsample ? 2 * call->width : call->width;
    const int64_t pixels = (int64_t)call->out_height * call->out_width, image = task / pixels, pixel = task % pixels;
    const float *shift = call->shift, *residual = call->residual;
    float *output = call->output;
    for (int64_t tap = 0; tap < taps; tap++) {
        const int64_t y = pixel / call->out_width * call->stride + tap / call->size - (call->size - 1) / 2;
        const int64_t x = pixel % call->out_width * call->stride + tap % call->size - (call->size - 1) / 2;
        const bool inside = y >= 0 && y < h && x >= 0 && x < w;
        for (int64_t i = 0; i < c; i++)
            window[tap * c + i] = inside ? conv_input(call, image, y, x, i) : 0;
    }
    for (int64_t out = 0; out < k; out++) {
        double sum = call->bias[out];
        for (int64_t tap = 0; tap < taps; tap++)
            for (int64_t i = 0; i < c; i++)
                sum += window[tap * c + i] * (double)call->weight[(out * c + i) * taps + tap];
        if (shift)
            sum += shift[image * k + out];
        if (residual)
            sum += residual[task * k + out];
        output[task * k + out] = (float)sum;
    }
}

/* Mean and variance of one group of one image. */
static void group_statistics(const df_call *call, int64_t image, int64_t first, double *mean, double *variance) {
    const int64_t size = call->channels / call->parts, h = call->height, w = call->width;
    *mean = *variance = 0;
    for (int64_t p = 0; p < h * w; p++)
        for (int64_t i = first; i < first + size; i++)
            *mean += input_at(call, image, p / w, p % w, i);
    *mean /= (double)(h * w * size);
    for (int64_t p = 0; p < h * w; p++)
        for (int64_t i = first; i < first + size; i++) {
            const double difference = input_at(call, image, p / w, p % w, i) - *mean;
            *variance += difference * difference;
        }
    *variance /= (double)(h * w * size);
}

/* One group of one image. */
static void norm_run(const df_call *call, int64_t task, void *scratch) {
    (void)scratch;
    const int64_t c = call->channels, h = call->height, w = call->width, size = c / call->parts;
    const int64_t image = task / call->parts, first = task % call->parts * size;
    float *output = call->output;
    double mean, variance;
    group_statistics(call, image, first, &mean, &variance);
    const double inverse = 1.0 / sqrt(variance + (double)call->epsilon);
    for (int64_t p = 0; p < h * w; p++)
        for (int64_t i = first; i < first + size; i++) {
            const double y = (input_at(call, image, p / w, p % w, i) - mean) * inverse * (double)call->weight[i] +
                             (double)call->bias[i];
            output[(image * h * w + p) * c + i] = (float)(call->silu ? silu(y) : y);
        }
}

/* One group of one image. What rounding the mean costs is put right in the shift. */
static void statistics_run(const df_call *call, int64_t task, void *scratch) {
    (void)scratch;
    const int64_t c = call->channels, size = c / call->parts;
    const int64_t image = task / call->parts, first = task % call->parts * size;
    double mean, variance;
    group_statistics(call, image, first, &mean, &variance);
    const double inverse = 1.0 / sqrt(variance + (double)call->epsilon);
    for (int64_t i = first; i < first + size; i++) {
        float *out = (float *)call->output + image * DF_NORM_ROWS * c + i;
        const double factor = inverse * (double)call->weight[i];
        out[DF_NORM_MEAN * c] = (float)mean;
        out[DF_NORM_FACTOR * c] = (float)factor;
        out[DF_NORM_SHIFT * c] = (float)((double)call->bias[i] - (mean - (double)out[0]) * factor);
    }
}

static void silu_run(const df_call *call, int64_t image, void *scratch) {
    (void)scratch;
    const int64_t values = (int64_t)call->channels * call->height * call->width;
    const float *in = call->input[0];
    float *output = call->output;
    for (int64_t i = image * values; i < (image + 1) * values; i++)
        output[i] = (float)silu(in[i]);
}

static size_t attention_scratch(const df_call *call) {
    return ((size_t)call->height * (size_t)call->width + (size_t)(call->channels / call->parts)) * sizeof(double);
}

/* One query of one image, all heads. */
static void attention_run(const df_call *call, int64_t task, void *scratch) {
    const int64_t c = call->channels, pixels = (int64_t)call->height * call->width, image = task / pixels;
    const int64_t dim = c / call->parts;
    const double scale = 1.0 / sqrt((double)dim);
    const float *residual = call->residual;
    float *output = call->output;
    double *p = scratch, *sum = p + pixels;
    for (int64_t first = 0; first < c; first += dim) {
        const float *q = (const float *)call->input[0] + task * call->pitch[0] + first;
        const float *k = (const float *)call->input[1] + image * pixels * call->pitch[1] + first;
        const float *v = (const float *)call->input[2] + image * pixels * call->pitch[2] + first;
        double most = -INFINITY, total = 0;
        for (int64_t j = 0; j < pixels; j++) {
            double score = 0;
            for (int64_t i = 0; i < dim; i++)
                score += (double)q[i] * (double)k[j * call->pitch[1] + i];
            p[j] = score * scale;
            most = fmax(most, p[j]);
        }
        memset(sum, 0, (size_t)dim * sizeof(double));
        for (int64_t j = 0; j < pixels; j++) {
            const double e = exp(p[j] - most);
            total += e;
            for (int64_t i = 0; i < dim; i++)
                sum[i] += e * (double)v[j * call->pitch[2] + i];
        }
        for (int64_t i = 0; i < dim; i++)
            output[task * c + first + i] =
                (float)(sum[i] / total + (residual ? (double)residual[task * c + first + i] : 0));
    }
}

static void add_run(const df_call *call, int64_t image, void *scratch) {
    (void)scratch;
    const int64_t c = call->channels, pixels = (int64_t)call->height * call->width;
    const float *in = (const float *)call->input[0] + image * pixels * c;
    const float *other = (const float *)call->input[1] + image * (call->broadcast ? c : pixels * c);
    float *output = call->output;
    for (int64_t p = 0; p < pixels; p++)
        for (int64_t i = 0; i < c; i++)
            output[(image * pixels + p) * c + i] = in[p * c + i] + other[call->broadcast ? i : p * c + i];
}

static const df_kernel conv = {pixel_tasks, conv_scratch, conv_run, conv_packed, conv_pack};
static const df_kernel norm = {group_tasks, NULL, norm_run, NULL, NULL};
static const df_kernel statistics = {group_tasks, NULL, statistics_run, NULL, NULL};
static const df_kernel silu_step = {image_tasks, NULL, silu_run, NULL, NULL};
static const df_kernel attention = {pixel_tasks, attention_scratch, attention_run, NULL, NULL};
static const df_kernel add = {image_tasks, NULL, add_run, NULL, NULL};

const df_kernels df_kernels_reference = {
    .name = "reference",
    .step = {DF_MOVES(df_moves_float), [DF_STEP_CONV] = &conv, [DF_STEP_WINOGRAD] = &conv, [DF_STEP_NORM] = &norm,
             [DF_STEP_STATISTICS] = &statistics, [DF_STEP_SILU] = &silu_step, [DF_STEP_ATTENTION] = &attention,
             [DF_STEP_ADD] = &add},
    .lanes = 1,
};
