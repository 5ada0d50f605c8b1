#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* madvise */
#endif
#include "core/internal.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

void *df_allocate(size_t bytes) {
    enum { LINES = 128, HUGE_PAGE = 2 << 20 };
    const bool large = bytes >= 2 * HUGE_PAGE;
    void *memory = NULL;
    if (posix_memalign(&memory, large ? HUGE_PAGE : LINES, bytes ? bytes : LINES))
        return NULL;
#ifdef MADV_HUGEPAGE
    if (large)
        madvise(memory, bytes / HUGE_PAGE * HUGE_PAGE, MADV_HUGEPAGE); /* a hint: failure is no harm */
#endif
    return memory;
}

/* The kernel that packs a step's weights, or NULL where they are copied as they are. */
static const df_kernel *packer(const df_model *model, const df_plan_step *step) {
    const df_kernel *kernel = model->kernels->step[step->kind];
    return kernel->pack ? kernel : NULL;
}

static bool has_weights(const df_plan_step *step) {
    return step->weight >= 0 || step->merged;
}

/* Room for each convolution's packed weights and filled-up bias, and a copy of the others. A processor fetches lines in
 * pairs, and weights come from far. */
static size_t lay_out_weights(df_model *model, const df_program *program) {
    enum { PAIR_OF_LINES = 32 };
    size_t floats = 0;
    for (int32_t i = 0; i < model->plan.step_count; i++) {
        const df_plan_step *step = &model->plan.steps[i];
        if (!has_weights(step))
            continue;
        const df_kernel *kernel = packer(model, step);
        const int64_t values = kernel ? kernel->packed(&step->call) : df_weight_values(&program->weights[step->weight]);
        model->packed[i].weight = floats;
        floats += (size_t)df_round_up(values, PAIR_OF_LINES);
        model->packed[i].bias = floats;
        if (step->kind != DF_STEP_TIME)
            floats += (size_t)df_round_up(df_round_up(step->call.out_channels, model->kernels->lanes), PAIR_OF_LINES);
    }
    return floats * sizeof(float);
}

static df_code pack_merged(df_model *model, const df_program *program, int32_t index, df_error *error) {
    const df_plan_step *step = &model->plan.steps[index];
    const int64_t c = step->call.channels;
    float *merged = malloc((size_t)(2 * c * c) * sizeof *merged);
    if (!merged)
        return df_fail(error, DF_OUT_OF_MEMORY, "no memory to merge an attention of %lld channels", (long long)c);
    df_merge_attention(program, &step->attention, c, merged, model->weights + model->packed[index].bias);
    packer(model, step)->pack(&step->call, merged, model->weights + model->packed[index].weight);
    free(merged);
    return DF_OK;
}

static df_code pack_weights(df_model *model, const df_program *program, df_error *error) {
    memset(model->weights, 0, model->weight_bytes);
    for (int32_t i = 0; i < model->plan.step_count; i++) {
        const df_plan_step *step = &model->plan.steps[i];
        if (step->merged) {
            const df_code code = pack_merged(model, program, i, error);
            if (code)
                return code;
        }
        if (step->merged || !has_weights(step))
            continue;
        const df_weight *weight = &program->weights[step->weight];
        float *packed = model->weights + model->packed[i].weight;
        if (packer(model, step))
            packer(model, step)->pack(&step->call, weight->data, packed);
        else
            memcpy(packed, weight->data, (size_t)df_weight_values(weight) * sizeof(float));
        if (step->bias >= 0)
            memcpy(model->weights + model->packed[i].bias, program->weights[step->bias].data,
                   (size_t)step->call.out_channels * sizeof(float));
    }
    return DF_OK;
}

static int64_t room_of_floats(const df_plan_step *step, const df_plan_options *options) {
    (void)options;
    return df_step_values(step);
}

static int64_t room_of_halves(const df_plan_step *step, const df_plan_options *options) {
    (void)options;
    const int64_t halves = df_step_values(step) * (step->kind == DF_STEP_STATISTICS ? 2 : 1); /* which are floats */
    return df_round_up(halves, 32);                                                           /* a cache line */
}

/* Everything but the weights' values. */
static df_code plan_model(df_model *model, const df_program *program, const df_options *options, df_error *error) {
    int32_t isa;
    df_code code = df_isa_resolve(options->isa, options->precision, &isa, error);
    if (code)
        return code;
    model->precision = options->precision;
    model->kernels = df_isa_kernels(isa, options->precision);
    const size_t values = program->op_count > 0 ? (size_t)program->op_count + 2 : 2;
    df_shape *shapes = malloc(values * sizeof *shapes);
    if (!shapes)
        return df_fail(error, DF_OUT_OF_MEMORY, "no memory for a program of %d operations", program->op_count);
    const df_plan_options plan = {.winograd = !options->direct || model->kernels->direct3x3,
                                  .rough = options->precision == DF_BF16,
                                  .direct3x3 = model->kernels->direct3x3,
                                  .split_multiple = 1,
                                  .room = model->kernels->half ? room_of_halves : room_of_floats};
    code = df_program_check(program, shapes, &model->time_steps, error);
    if (!code)
        code = df_plan_create(program, shapes, &plan, &model->plan, error);
    model->shape = shapes[0];
    free(shapes);
    if (code)
        return code;
    for (int32_t i = 0; i < program->weight_count; i++)
        model->parameters += df_weight_values(&program->weights[i]);
    model->packed = calloc((size_t)model->plan.step_count, sizeof *model->packed);
    if (!model->packed)
        return df_fail(error, DF_OUT_OF_MEMORY, "no memory for a plan of %d steps", model->plan.step_count);
    model->weight_bytes = lay_out_weights(model, program);
    return DF_OK;
}

static df_code create(const df_program *program, const df_options *options, df_model **model, df_error *error) {
    *model = NULL;
    if (!program || !options)
        return df_fail(error, DF_INVALID, "program and options must not be NULL");
    df_model *made = calloc(1, sizeof *made);
    if (!made)
        return df_fail(error, DF_OUT_OF_MEMORY, "no memory for a model");
    atomic_init(&made->references, 1);
    const df_code code = plan_model(made, program, options, error);
    if (code)
        df_model_release(made);
    else
        *model = made;
    return code;
}

df_code df_model_create(const df_program *program, const df_options *options, df_model **model, df_error *error) {
    df_code code = create(program, options, model, error);
    if (!code)
        code = df_program_check_finite(program, error);
    if (!code && !((*model)->weights = df_allocate((*model)->weight_bytes)))
        code = df_fail(error, DF_OUT_OF_MEMORY, "no memory for %zu bytes of packed weights", (*model)->weight_bytes);
    if (!code)
        code = pack_weights(*model, program, error);
    if (code) {
        df_model_release(*model);
        *model = NULL;
    }
    return code;
}

df_code df_memory_needed(const df_program *program, const df_options *options, int32_t batch, int32_t threads,
                         df_memory *memory, df_error *error) {
    df_model *model;
    df_code code = create(program, options, &model, error);
    if (!code)
        code = df_engine_memory(model, batch, threads, memory, error);
    df_model_release(model);
    return code;
}

void df_model_retain(df_model *model) {
    atomic_fetch_add_explicit(&model->references, 1, memory_order_relaxed);
}

void df_model_release(df_model *model) {
    if (!model || atomic_fetch_sub_explicit(&model->references, 1, memory_order_acq_rel) != 1)
        return;
    df_plan_clear(&model->plan);
    free(model->packed);
    free(model->weights);
    free(model);
}

const char *df_model_isa(const df_model *model) {
    return model->kernels->name;
}
df_precision df_model_precision(const df_model *model) {
    return model->precision;
}
int64_t df_model_parameters(const df_model *model) {
    return model->parameters;
}
int32_t df_model_time_steps(const df_model *model) {
    return model->time_steps;
}

void df_model_shape(const df_model *model, int32_t *channels, int32_t *height, int32_t *width) {
    *channels = model->shape.channels;
    *height = model->shape.height;
    *width = model->shape.width;
}
