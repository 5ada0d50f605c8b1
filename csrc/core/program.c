#include "core/plan.h"

#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { IMAGE = 0, TIME = 1, FIRST = 2, ANY = -1 };

/* What an operation takes. optional: its last weight may be -1. */
static const struct {
    const char *name;
    int inputs, weights;
    bool optional, attr, epsilon;
} kinds[DF_OP_KIND_COUNT] = {
    [DF_OP_TIME_EMBEDDING] = {"time embedding", 1, 1, false, false, false},
    [DF_OP_LINEAR] = {"linear", 1, 2, true, false, false},
    [DF_OP_SILU] = {"silu", 1, 0, false, false, false},
    [DF_OP_CONV] = {"conv", 1, 2, true, true, false},
    [DF_OP_GROUP_NORM] = {"group norm", 1, 2, false, true, true},
    [DF_OP_ATTENTION] = {"attention", 3, 0, false, true, false},
    [DF_OP_ADD] = {"add", 2, 0, false, false, false},
    [DF_OP_CONCAT] = {"concat", 2, 0, false, false, false},
    [DF_OP_UPSAMPLE] = {"upsample", 1, 0, false, false, false},
};

typedef struct checker {
    const df_program *program;
    df_shape *shapes;
    bool *value_used, *weight_used;
    int32_t index, time_steps;
    df_error *error;
} checker;

static df_code bad_op(const checker *at, const char *format, ...) __attribute__((format(printf, 2, 3)));
static df_code bad_op(const checker *at, const char *format, ...) {
    char text[200];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    return df_fail(at->error, DF_INVALID, "operation %d (%s): %s", at->index,
                   kinds[at->program->ops[at->index].kind].name, text);
}

static void print_shape(char *text, size_t room, int32_t rank, const int64_t *shape) {
    static const char *const letters[] = {"n", "c", "s", "s"};
    size_t used = (size_t)snprintf(text, room, "[");
    for (int32_t i = 0; i < rank && used < room; i++)
        used += (size_t)(shape[i] == ANY
                             ? snprintf(text + used, room - used, "%s%s", i ? ", " : "", letters[i])
                             : snprintf(text + used, room - used, "%s%lld", i ? ", " : "", (long long)shape[i]));
    if (used < room)
        snprintf(text + used, room - used, "]");
}

static df_code expect_weight(const checker *at, int slot, int32_t rank, const int64_t *expected) {
    const df_weight *weight = &at->program->weights[at->program->ops[at->index].weights[slot]];
    bool same = weight->rank == rank;
    for (int32_t i = 0; same && i < rank; i++)
        same = expected[i] == ANY || weight->shape[i] == expected[i];
    if (same)
        return DF_OK;
    char want[64], got[64];
    print_shape(want, sizeof want, rank, expected);
    print_shape(got, sizeof got, weight->rank, weight->shape);
    return bad_op(at, "weight '%.60s' has shape %s, expected %s", weight->name, got, want);
}

int64_t df_weight_values(const df_weight *weight) {
    int64_t values = 1;
    for (int32_t i = 0; i < weight->rank; i++)
        values *= weight->shape[i];
    return values;
}

static df_code check_weight(const df_program *program, int32_t index, df_error *error) {
    const df_weight *weight = &program->weights[index];
    if (!weight->name)
        return df_fail(error, DF_INVALID, "weight %d has no name", index);
    if (!weight->data)
        return df_fail(error, DF_INVALID, "weight '%.80s' has no data", weight->name);
    if (weight->rank < 1 || weight->rank > 4)
        return df_fail(error, DF_INVALID, "weight '%.80s' must have 1 to 4 dimensions, got %d", weight->name,
                       weight->rank);
    int64_t values = 1;
    for (int32_t i = 0; i < weight->rank; i++) {
        if (weight->shape[i] < 1 || weight->shape[i] > INT32_MAX)
            return df_fail(error, DF_INVALID, "weight '%.80s': dimension %d must be in 1..%d, got %lld", weight->name,
                           i, INT32_MAX, (long long)weight->shape[i]);
        if (__builtin_mul_overflow(values, weight->shape[i], &values) ||
            values > PTRDIFF_MAX / (ptrdiff_t)sizeof(float))
            return df_fail(error, DF_INVALID, "weight '%.80s' has more values than memory can hold", weight->name);
    }
    return DF_OK;
}

/* Kinds, ids, and that what is unused says so. */
static df_code check_form(checker *at) {
    const df_program *program = at->program;
    const df_op *op = &program->ops[at->index];
    if (op->kind < 0 || op->kind >= DF_OP_KIND_COUNT)
        return df_fail(at->error, DF_INVALID, "operation %d: kind must be in 0..%d, got %d", at->index,
                       DF_OP_KIND_COUNT - 1, op->kind);
    const int inputs = kinds[op->kind].inputs, weights = kinds[op->kind].weights;
    for (int i = 0; i < 3; i++) {
        const int32_t id = op->inputs[i];
        if (i >= inputs) {
            if (id != -1)
                return bad_op(at, "input %d is not used and must be -1, got %d", i, id);
            continue;
        }
        if (id < 0 || id >= at->index + FIRST)
            return bad_op(at, "input %d must be one of the values 0..%d before it, got %d", i, at->index + FIRST - 1,
                          id);
        if ((id == TIME) != (op->kind == DF_OP_TIME_EMBEDDING))
            return bad_op(at, "input %d is value %d: the time step (value 1) goes to time embeddings, and only there",
                          i, id);
        at->value_used[id] = true;
    }
    for (int i = 0; i < 2; i++) {
        const int32_t id = op->weights[i];
        if (i >= weights ? id != -1 : id == -1 && !(kinds[op->kind].optional && i == weights - 1))
            return bad_op(
                at, i >= weights ? "weight %d is not used and must be -1, got %d" : "weight %d is missing (%d)", i, id);
        if (id == -1)
            continue;
        if (id < 0 || id >= program->weight_count)
            return bad_op(at, "weight %d must be in 0..%d, got %d", i, program->weight_count - 1, id);
        at->weight_used[id] = true;
    }
    if (!kinds[op->kind].attr && op->attr != 0)
        return bad_op(at, "attr is not used and must be 0, got %d", op->attr);
    if (kinds[op->kind].epsilon ? !(op->epsilon > 0 && op->epsilon < INFINITY) : !(op->epsilon == 0))
        return bad_op(at,
                      kinds[op->kind].epsilon ? "epsilon must be finite and above 0, got %g"
                                              : "epsilon is not used and must be 0, got %g",
                      (double)op->epsilon);
    return DF_OK;
}

static df_code check_vector(const checker *at, df_shape in) {
    if (in.height != 1 || in.width != 1)
        return bad_op(at, "input 0 must be a vector (height = width = 1), got height %d, width %d", in.height,
                      in.width);
    return DF_OK;
}

/* attr groups or heads. */
static df_code check_parts(const checker *at, const char *what, int32_t channels) {
    const int32_t parts = at->program->ops[at->index].attr;
    if (parts < 1 || channels % parts != 0)
        return bad_op(at, "%s (attr) must divide the %d channels, got %d", what, channels, parts);
    return DF_OK;
}

static df_code same_shape(const checker *at, int input, df_shape first, df_shape other) {
    if (first.channels != other.channels || first.height != other.height || first.width != other.width)
        return bad_op(at, "input %d has shape (%d, %d, %d), expected that of input 0, (%d, %d, %d)", input,
                      other.channels, other.height, other.width, first.channels, first.height, first.width);
    return DF_OK;
}

static df_code check_conv(const checker *at, df_shape in, int64_t *out) {
    const df_op *op = &at->program->ops[at->index];
    const df_weight *weight = &at->program->weights[op->weights[0]];
    df_code code = expect_weight(at, 0, 4, (int64_t[]){ANY, in.channels, ANY, ANY});
    if (code)
        return code;
    const int64_t size = weight->shape[2];
    if ((size != 1 && size != 3) || weight->shape[3] != size)
        return bad_op(at, "weight '%.60s' has a %lld x %lld kernel, expected 1 x 1 or 3 x 3", weight->name,
                      (long long)size, (long long)weight->shape[3]);
    if (op->attr != 1 && op->attr != 2)
        return bad_op(at, "stride (attr) must be 1 or 2, got %d", op->attr);
    out[0] = weight->shape[0];
    out[1] = df_blocks(in.height, op->attr);
    out[2] = df_blocks(in.width, op->attr);
    return op->weights[1] == -1 ? DF_OK : expect_weight(at, 1, 1, (int64_t[]){weight->shape[0]});
}

static df_code check_linear(const checker *at, df_shape in, int64_t *out) {
    const df_op *op = &at->program->ops[at->index];
    df_code code = check_vector(at, in);
    if (!code)
        code = expect_weight(at, 0, 2, (int64_t[]){ANY, in.channels});
    if (code)
        return code;
    out[0] = at->program->weights[op->weights[0]].shape[0];
    return op->weights[1] == -1 ? DF_OK : expect_weight(at, 1, 1, (int64_t[]){out[0]});
}

static df_code check_time(checker *at, int64_t *out) {
    const df_weight *table = &at->program->weights[at->program->ops[at->index].weights[0]];
    const df_code code = expect_weight(at, 0, 2, (int64_t[]){at->time_steps ? at->time_steps : ANY, ANY});
    if (code)
        return code;
    at->time_steps = (int32_t)table->shape[0];
    out[0] = table->shape[1];
    out[1] = out[2] = 1;
    return DF_OK;
}

static df_code check_norm(const checker *at, df_shape in) {
    df_code code = check_parts(at, "groups", in.channels);
    for (int i = 0; i < 2 && !code; i++)
        code = expect_weight(at, i, 1, (int64_t[]){in.channels});
    return code;
}

static df_code check_attention(const checker *at, df_shape in) {
    const df_op *op = &at->program->ops[at->index];
    df_code code = check_parts(at, "heads", in.channels);
    for (int i = 1; i < 3 && !code; i++)
        code = same_shape(at, i, in, at->shapes[op->inputs[i]]);
    return code;
}

/* Shape of the operation's value. */
static df_code infer(checker *at) {
    const df_op *op = &at->program->ops[at->index];
    const df_shape in = at->shapes[op->inputs[0]];
    const df_shape other = op->inputs[1] >= 0 ? at->shapes[op->inputs[1]] : in;
    int64_t out[3] = {in.channels, in.height, in.width};
    df_code code = DF_OK;
    switch ((df_op_kind)op->kind) {
    case DF_OP_TIME_EMBEDDING:
        code = check_time(at, out);
        break;
    case DF_OP_LINEAR:
        code = check_linear(at, in, out);
        break;
    case DF_OP_CONV:
        code = check_conv(at, in, out);
        break;
    case DF_OP_GROUP_NORM:
        code = check_norm(at, in);
        break;
    case DF_OP_ATTENTION:
        code = check_attention(at, in);
        break;
    case DF_OP_ADD:
        if (other.channels != in.channels || other.height != 1 || other.width != 1)
            code = same_shape(at, 1, in, other);
        break;
    case DF_OP_CONCAT:
        code = same_shape(at, 1, (df_shape){other.channels, in.height, in.width}, other);
        out[0] += other.channels;
        break;
    case DF_OP_UPSAMPLE:
        out[1] *= 2;
        out[2] *= 2;
        break;
    case DF_OP_SILU:
    case DF_OP_KIND_COUNT:
        break;
    }
    if (code)
        return code;
    /* Each factor is below 2^32, and so is a product that passes: nothing here overflows. */
    if (out[0] * out[1] > INT32_MAX || out[0] * out[1] * out[2] > INT32_MAX)
        return bad_op(at, "its value has shape (%lld, %lld, %lld): more than %d values", (long long)out[0],
                      (long long)out[1], (long long)out[2], INT32_MAX);
    at->shapes[at->index + FIRST] = (df_shape){(int32_t)out[0], (int32_t)out[1], (int32_t)out[2]};
    return DF_OK;
}

static df_code check_ops(checker *at) {
    const df_program *program = at->program;
    for (at->index = 0; at->index < program->op_count; at->index++) {
        df_code code = check_form(at);
        if (!code)
            code = infer(at);
        if (code)
            return code;
    }
    for (int32_t i = 0; i < program->weight_count; i++)
        if (!at->weight_used[i])
            return df_fail(at->error, DF_INVALID, "weight '%.80s' is not used by any operation",
                           program->weights[i].name);
    if (!at->value_used[IMAGE])
        return df_fail(at->error, DF_INVALID, "the image (value 0) is not used by any operation");
    for (at->index = 0; at->index < program->op_count - 1; at->index++)
        if (!at->value_used[at->index + FIRST])
            return bad_op(at, "its value %d is never used", at->index + FIRST);
    const df_shape image = at->shapes[IMAGE], last = at->shapes[at->index + FIRST];
    if (last.channels != image.channels || last.height != image.height || last.width != image.width)
        return bad_op(at, "the output has shape (%d, %d, %d), expected the image's, (%d, %d, %d)", last.channels,
                      last.height, last.width, image.channels, image.height, image.width);
    return DF_OK;
}

df_code df_program_check(const df_program *program, df_shape *shapes, int32_t *time_steps, df_error *error) {
    const int64_t channels = program->channels, height = program->height, width = program->width;
    if (channels < 1 || height < 1 || width < 1 || channels * height > INT32_MAX ||
        channels * height * width > INT32_MAX)
        return df_fail(error, DF_INVALID,
                       "channels, height and width must be at least 1 and their product at most %d, "
                       "got (%d, %d, %d)",
                       INT32_MAX, program->channels, program->height, program->width);
    if (program->op_count < 1 || program->op_count > INT32_MAX - FIRST || !program->ops)
        return df_fail(error, DF_INVALID, "a program must have at least one operation, got %d", program->op_count);
    if (program->weight_count < 0 || (program->weight_count > 0 && !program->weights))
        return df_fail(error, DF_INVALID, "weight_count must be the number of weights, got %d", program->weight_count);
    for (int32_t i = 0; i < program->weight_count; i++) {
        const df_code code = check_weight(program, i, error);
        if (code)
            return code;
    }
    checker at = {.program = program, .shapes = shapes, .error = error};
    at.value_used = calloc((size_t)program->op_count + FIRST, sizeof(bool));
    at.weight_used = calloc((size_t)program->weight_count + 1, sizeof(bool));
    shapes[IMAGE] = (df_shape){program->channels, program->height, program->width};
    shapes[TIME] = (df_shape){0, 0, 0};
    const df_code code = at.value_used && at.weight_used
                             ? check_ops(&at)
                             : df_fail(error, DF_OUT_OF_MEMORY, "no memory to check %d operations", program->op_count);
    free(at.value_used);
    free(at.weight_used);
    *time_steps = at.time_steps;
    return code;
}

df_code df_program_check_finite(const df_program *program, df_error *error) {
    for (int32_t i = 0; i < program->weight_count; i++) {
        const df_weight *weight = &program->weights[i];
        const int64_t values = df_weight_values(weight);
        for (int64_t j = 0; j < values; j++)
            if (!isfinite(weight->data[j]))
                return df_fail(error, DF_INVALID, "weight '%.80s' must be finite, got %g at position %lld",
                               weight->name, (double)weight->data[j], (long long)j);
    }
    return DF_OK;
}
