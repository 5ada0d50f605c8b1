/* Programs for the tests, and the plain way to run one: NCHW, in double, one operation after the other, no plan. */
#ifndef DIFFENCE_TEST_NETWORK_H
#define DIFFENCE_TEST_NETWORK_H

#include "diffence.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NETWORK_ROOM = 128 };

typedef struct network {
    df_program program;
    df_op ops[NETWORK_ROOM];
    df_weight weights[NETWORK_ROOM];
    float *data[NETWORK_ROOM];
    char names[NETWORK_ROOM][32];
    df_error error;
} network;

static uint64_t random_state = 1;

static inline uint32_t random_bits(void) {
    random_state = random_state * 6364136223846793005U + 1442695040888963407U;
    return (uint32_t)(random_state >> 33);
}

static inline float random_float(void) {
    return (float)random_bits() / 1073741824.0F - 1.0F;
} /* in [-1, 1) */

static inline void fill_random(float *values, int64_t count, float scale) {
    for (int64_t i = 0; i < count; i++)
        values[i] = scale * random_float();
}

static inline network *network_create(int32_t channels, int32_t height, int32_t width) {
    network *net = calloc(1, sizeof *net);
    net->program =
        (df_program){.channels = channels, .height = height, .width = width, .ops = net->ops, .weights = net->weights};
    return net;
}

static inline void network_destroy(network *net) {
    for (int32_t i = 0; i < NETWORK_ROOM; i++)
        free(net->data[i]);
    free(net);
}

static inline int32_t network_weight(network *net, int32_t rank, const int64_t *shape, float scale, float offset) {
    const int32_t index = net->program.weight_count++;
    int64_t values = 1;
    df_weight *weight = &net->weights[index];
    weight->rank = rank;
    for (int32_t i = 0; i < rank; i++)
        values *= weight->shape[i] = shape[i];
    net->data[index] = malloc((size_t)values * sizeof(float));
    fill_random(net->data[index], values, scale);
    for (int64_t i = 0; i < values; i++)
        net->data[index][i] += offset;
    snprintf(net->names[index], sizeof net->names[index], "weight.%d", index);
    weight->name = net->names[index];
    weight->data = net->data[index];
    return index;
}

static inline int32_t network_op(network *net, df_op op) {
    net->ops[net->program.op_count] = op;
    return 2 + net->program.op_count++;
}

static inline int32_t add_conv(network *net, int32_t in, int32_t c, int32_t out, int32_t size, int32_t stride) {
    const float scale = 1.7F / sqrtf((float)(c * size * size));
    const int32_t w = network_weight(net, 4, (int64_t[]){out, c, size, size}, scale, 0);
    const int32_t b = network_weight(net, 1, (int64_t[]){out}, 0.1F, 0);
    return network_op(net, (df_op){DF_OP_CONV, {in, -1, -1}, {w, b}, stride, 0});
}

static inline int32_t add_linear(network *net, int32_t in, int32_t c, int32_t out) {
    const int32_t w = network_weight(net, 2, (int64_t[]){out, c}, 1.7F / sqrtf((float)c), 0);
    const int32_t b = network_weight(net, 1, (int64_t[]){out}, 0.1F, 0);
    return network_op(net, (df_op){DF_OP_LINEAR, {in, -1, -1}, {w, b}, 0, 0});
}

static inline int32_t add_norm(network *net, int32_t in, int32_t c, int32_t groups) {
    const int32_t w = network_weight(net, 1, (int64_t[]){c}, 0.2F, 1);
    const int32_t b = network_weight(net, 1, (int64_t[]){c}, 0.2F, 0);
    return network_op(net, (df_op){DF_OP_GROUP_NORM, {in, -1, -1}, {w, b}, groups, 1e-5F});
}

static inline int32_t add_plain(network *net, df_op_kind kind, int32_t a, int32_t b) {
    return network_op(net, (df_op){(int32_t)kind, {a, b, -1}, {-1, -1}, 0, 0});
}

static inline int32_t add_silu(network *net, int32_t in) {
    return add_plain(net, DF_OP_SILU, in, -1);
}

/* norm, SiLU, conv, + time, norm, SiLU, conv, + shortcut: the block of a DDPM UNet. */
static inline int32_t add_block(network *net, int32_t in, int32_t c, int32_t out, int32_t time, int32_t time_dim) {
    int32_t h = add_conv(net, add_silu(net, add_norm(net, in, c, 2)), c, out, 3, 1);
    const int32_t shift = add_linear(net, add_silu(net, time), time_dim, out);
    h = add_plain(net, DF_OP_ADD, h, shift);
    h = add_conv(net, add_silu(net, add_norm(net, h, out, 4)), out, out, 3, 1);
    return add_plain(net, DF_OP_ADD, h, c == out ? in : add_conv(net, in, c, out, 1, 1));
}

enum { UNET_STEPS = 50 };

/* Every kind of operation, odd channel counts, two scales. */
static inline network *network_unet(void) {
    network *net = network_create(3, 12, 10);
    const int32_t table = network_weight(net, 2, (int64_t[]){UNET_STEPS, 12}, 1, 0);
    int32_t time = network_op(net, (df_op){DF_OP_TIME_EMBEDDING, {1, -1, -1}, {table, -1}, 0, 0});
    time = add_linear(net, add_silu(net, add_linear(net, time, 12, 20)), 20, 20);
    const int32_t first = add_conv(net, 0, 3, 12, 3, 1);
    const int32_t top = add_block(net, first, 12, 12, time, 20);
    int32_t h = add_block(net, add_conv(net, top, 12, 12, 3, 2), 12, 20, time, 20);
    const int32_t n = add_norm(net, h, 20, 5);
    const int32_t q = add_conv(net, n, 20, 20, 1, 1), k = add_conv(net, n, 20, 20, 1, 1);
    const int32_t v = add_conv(net, n, 20, 20, 1, 1);
    const int32_t attended = network_op(net, (df_op){DF_OP_ATTENTION, {q, k, v}, {-1, -1}, 2, 0});
    h = add_plain(net, DF_OP_ADD, h, add_conv(net, attended, 20, 20, 1, 1));
    h = add_conv(net, add_plain(net, DF_OP_UPSAMPLE, h, -1), 20, 20, 3, 1);
    h = add_block(net, add_plain(net, DF_OP_CONCAT, h, top), 32, 12, time, 20);
    add_conv(net, add_silu(net, add_norm(net, h, 12, 1)), 12, 3, 3, 1);
    return net;
}

typedef struct plain_value {
    int64_t c, h, w;
    double *x;
} plain_value;

static inline double plain_at(const plain_value *v, int64_t c, int64_t y, int64_t x) {
    return y < 0 || y >= v->h || x < 0 || x >= v->w ? 0 : v->x[(c * v->h + y) * v->w + x];
}

static inline void plain_conv(const plain_value *in, plain_value *out, const float *w, const float *b, int64_t size,
                              int64_t stride) {
    for (int64_t k = 0; k < out->c; k++)
        for (int64_t p = 0; p < out->h * out->w; p++) {
            double sum = b ? (double)b[k] : 0;
            for (int64_t c = 0; c < in->c; c++)
                for (int64_t tap = 0; tap < size * size; tap++)
                    sum += (double)w[(k * in->c + c) * size * size + tap] *
                           plain_at(in, c, p / out->w * stride + tap / size - (size - 1) / 2,
                                    p % out->w * stride + tap % size - (size - 1) / 2);
            out->x[k * out->h * out->w + p] = sum;
        }
}

static inline void plain_norm(const plain_value *in, plain_value *out, const float *w, const float *b, int64_t groups,
                              double epsilon) {
    const int64_t size = in->c / groups * in->h * in->w;
    for (int64_t g = 0; g < groups; g++) {
        double mean = 0, variance = 0;
        for (int64_t i = g * size; i < (g + 1) * size; i++)
            mean += in->x[i] / (double)size;
        for (int64_t i = g * size; i < (g + 1) * size; i++)
            variance += (in->x[i] - mean) * (in->x[i] - mean) / (double)size;
        for (int64_t i = g * size; i < (g + 1) * size; i++)
            out->x[i] = (in->x[i] - mean) / sqrt(variance + epsilon) * (double)w[i / (in->h * in->w)] +
                        (double)b[i / (in->h * in->w)];
    }
}

static inline void plain_attention(const plain_value *q, const plain_value *k, const plain_value *v, plain_value *out,
                                   int64_t heads) {
    const int64_t positions = q->h * q->w, dim = q->c / heads;
    double *p = malloc((size_t)positions * sizeof *p);
    for (int64_t first = 0; first < q->c; first += dim)
        for (int64_t i = 0; i < positions; i++) {
            double total = 0, most = -INFINITY;
            for (int64_t j = 0; j < positions; j++) {
                p[j] = 0;
                for (int64_t c = first; c < first + dim; c++)
                    p[j] += q->x[c * positions + i] * k->x[c * positions + j] / sqrt((double)dim);
                most = fmax(most, p[j]);
            }
            for (int64_t j = 0; j < positions; j++)
                total += p[j] = exp(p[j] - most);
            for (int64_t c = first; c < first + dim; c++) {
                out->x[c * positions + i] = 0;
                for (int64_t j = 0; j < positions; j++)
                    out->x[c * positions + i] += p[j] / total * v->x[c * positions + j];
            }
        }
    free(p);
}

/* One image through a valid program, in double. */
static inline void plain_run(const df_program *program, const float *image, int32_t t, double *output) {
    plain_value *values = calloc((size_t)program->op_count + 2, sizeof *values);
    values[0] = (plain_value){program->channels, program->height, program->width, NULL};
    const int64_t count = values[0].c * values[0].h * values[0].w;
    values[0].x = malloc((size_t)count * sizeof(double));
    for (int64_t i = 0; i < count; i++)
        values[0].x[i] = (double)image[i];
    for (int32_t i = 0; i < program->op_count; i++) {
        const df_op *op = &program->ops[i];
        const plain_value *in = &values[op->inputs[0]], *other = op->inputs[1] >= 0 ? &values[op->inputs[1]] : NULL;
        const df_weight *weight = op->weights[0] >= 0 ? &program->weights[op->weights[0]] : NULL;
        const float *w = weight ? weight->data : NULL;
        const float *b = op->weights[1] >= 0 ? program->weights[op->weights[1]].data : NULL;
        plain_value *out = &values[i + 2];
        *out = (plain_value){in->c, in->h, in->w, NULL};
        if (op->kind == DF_OP_TIME_EMBEDDING)
            *out = (plain_value){weight->shape[1], 1, 1, NULL};
        else if (op->kind == DF_OP_LINEAR)
            out->c = weight->shape[0];
        else if (op->kind == DF_OP_CONV)
            *out = (plain_value){weight->shape[0], (in->h + op->attr - 1) / op->attr, (in->w + op->attr - 1) / op->attr,
                                 NULL};
        else if (op->kind == DF_OP_CONCAT)
            out->c += other->c;
        else if (op->kind == DF_OP_UPSAMPLE)
            *out = (plain_value){in->c, 2 * in->h, 2 * in->w, NULL};
        const int64_t size = out->h * out->w;
        out->x = malloc((size_t)(out->c * size) * sizeof(double));
        if (op->kind == DF_OP_LINEAR || op->kind == DF_OP_CONV)
            plain_conv(in, out, w, b, op->kind == DF_OP_CONV ? weight->shape[2] : 1,
                       op->kind == DF_OP_CONV ? op->attr : 1);
        else if (op->kind == DF_OP_GROUP_NORM)
            plain_norm(in, out, w, b, op->attr, (double)op->epsilon);
        else if (op->kind == DF_OP_ATTENTION)
            plain_attention(in, other, &values[op->inputs[2]], out, op->attr);
        else
            for (int64_t j = 0; j < out->c * size; j++) {
                const int64_t c = j / size, y = j % size / out->w, x = j % size % out->w;
                switch (op->kind) {
                case DF_OP_TIME_EMBEDDING:
                    out->x[j] = (double)w[t * out->c + j];
                    break;
                case DF_OP_SILU:
                    out->x[j] = in->x[j] / (1 + exp(-in->x[j]));
                    break;
                case DF_OP_ADD:
                    out->x[j] = in->x[j] + (other->h * other->w == size ? other->x[j] : other->x[c]);
                    break;
                case DF_OP_CONCAT:
                    out->x[j] = c < in->c ? plain_at(in, c, y, x) : plain_at(other, c - in->c, y, x);
                    break;
                default:
                    out->x[j] = plain_at(in, c, y / 2, x / 2);
                }
            }
    }
    memcpy(output, values[program->op_count + 1].x, (size_t)count * sizeof *output);
    for (int32_t i = 0; i < program->op_count + 2; i++)
        free(values[i].x);
    free(values);
}

/* |a - b| / |b|, root of the sums of squares. */
static inline double relative_error(const float *a, const double *b, int64_t count) {
    double difference = 0, size = 0;
    for (int64_t i = 0; i < count; i++) {
        difference += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        size += b[i] * b[i];
    }
    return sqrt(difference / size);
}

#endif
