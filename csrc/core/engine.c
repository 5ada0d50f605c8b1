#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* clock_gettime */
#endif
#include "core/internal.h"
#include "core/pool.h"

#include <stdlib.h>
#include <time.h>

static const double poll_seconds = 0.05;

struct df_engine {
    df_model *model;
    int32_t batch, threads;
    df_memory memory;
    float *arena;
    char *scratch;
    size_t worker_scratch;
    df_call *calls;  /* the plan's steps with their pointers into the arena */
    double *seconds; /* each of them took in the last evaluation */
};

static size_t scratch_of_a_worker(const df_model *model) {
    size_t most = 0;
    for (int32_t i = 0; i < model->plan.step_count; i++) {
        const df_plan_step *step = &model->plan.steps[i];
        const df_kernel *kernel = model->kernels->step[step->kind];
        const size_t bytes = kernel->scratch ? (size_t)df_round_up((int64_t)kernel->scratch(&step->call), 64) : 0;
        most = bytes > most ? bytes : most;
    }
    return most;
}

df_code df_engine_memory(const df_model *model, int32_t batch, int32_t threads, df_memory *memory, df_error *error) {
    if (batch < 1)
        return df_fail(error, DF_INVALID, "batch must be at least 1, got %d", batch);
    const df_code code = df_check_threads(threads, error);
    if (code)
        return code;
    int64_t arena, scratch;
    if (__builtin_mul_overflow(model->plan.arena, (int64_t)sizeof(float) * batch, &arena) ||
        __builtin_mul_overflow((int64_t)scratch_of_a_worker(model), (int64_t)threads, &scratch) ||
        arena > PTRDIFF_MAX - scratch)
        return df_fail(error, DF_INVALID, "batch %d: its activations are more bytes than an address can count", batch);
    *memory = (df_memory){.weights = model->weight_bytes, .arena = (size_t)arena, .scratch = (size_t)scratch};
    return DF_OK;
}

static float *value_in_arena(const df_engine *engine, int32_t value) {
    return value < 0 ? NULL : engine->arena + engine->model->plan.places[value].offset * engine->batch;
}

static void resolve_calls(df_engine *engine) {
    const df_model *model = engine->model;
    for (int32_t i = 0; i < model->plan.step_count; i++) {
        const df_plan_step *step = &model->plan.steps[i];
        df_call *call = &engine->calls[i];
        *call = step->call;
        for (int j = 0; j < 3; j++)
            if (step->input[j] >= 0)
                call->input[j] = value_in_arena(engine, step->input[j]) + step->offset[j];
        call->norm = value_in_arena(engine, step->norm);
        call->shift = value_in_arena(engine, step->shift);
        call->residual = value_in_arena(engine, step->residual);
        call->output = value_in_arena(engine, step->output);
        if (step->weight >= 0 || step->merged) {
            call->weight = model->weights + model->packed[i].weight;
            call->bias = model->weights + model->packed[i].bias; /* zeros where there is none */
        }
        call->threads = engine->threads;
    }
}

df_code df_engine_create(df_model *model, int32_t batch, int32_t threads, df_engine **engine, df_error *error) {
    *engine = NULL;
    df_memory memory;
    df_code code = df_engine_memory(model, batch, threads, &memory, error);
    if (!code)
        code = df_pool_start(threads, error);
    if (code)
        return code;
    df_engine *made = calloc(1, sizeof *made);
    if (made) {
        df_model_retain(model);
        *made = (df_engine){.model = model, .batch = batch, .threads = threads, .memory = memory};
        made->worker_scratch = memory.scratch / (size_t)threads;
        made->calls = calloc((size_t)model->plan.step_count, sizeof *made->calls);
        made->seconds = calloc((size_t)model->plan.step_count, sizeof *made->seconds);
        made->arena = df_allocate(memory.arena);
        made->scratch = df_allocate(memory.scratch);
    }
    if (!made || !made->calls || !made->seconds || !made->arena || !made->scratch) {
        df_engine_destroy(made);
        return df_fail(error, DF_OUT_OF_MEMORY, "no memory for batch %d: %zu bytes of activations, %zu of scratch",
                       batch, memory.arena, memory.scratch);
    }
    resolve_calls(made);
    *engine = made;
    return DF_OK;
}

void df_engine_destroy(df_engine *engine) {
    if (!engine)
        return;
    df_model_release(engine->model);
    free(engine->calls);
    free(engine->seconds);
    free(engine->arena);
    free(engine->scratch);
    free(engine);
}

int32_t df_engine_batch(const df_engine *engine) {
    return engine->batch;
}
int32_t df_engine_threads(const df_engine *engine) {
    return engine->threads;
}
const df_model *df_engine_model(const df_engine *engine) {
    return engine->model;
}

int32_t df_engine_step_count(const df_engine *engine) {
    return engine->model->plan.step_count;
}

df_step_profile df_engine_step_profile(const df_engine *engine, int32_t index) {
    static const char *const kinds[DF_STEP_KIND_COUNT] = {
        [DF_STEP_IMPORT] = "import",       [DF_STEP_EXPORT] = "export",         [DF_STEP_TIME] = "time",
        [DF_STEP_CONV] = "conv",           [DF_STEP_WINOGRAD] = "winograd",     [DF_STEP_NORM] = "norm",
        [DF_STEP_SILU] = "silu",           [DF_STEP_STATISTICS] = "statistics", [DF_STEP_ADD] = "add",
        [DF_STEP_ATTENTION] = "attention", [DF_STEP_CONCAT] = "concat",         [DF_STEP_UPSAMPLE] = "upsample",
    };
    const df_plan_step *step = &engine->model->plan.steps[index];
    const df_call *call = &step->call;
    const double in = call->channels, pixels = (double)call->out_height * call->out_width;
    double flop = 0;
    if (step->kind == DF_STEP_CONV || step->kind == DF_STEP_WINOGRAD)
        flop = 2 * in * call->out_channels * pixels * call->size * call->size;
    else if (step->kind == DF_STEP_ATTENTION)
        flop = 4 * in * pixels * pixels;
    const bool direct = step->kind == DF_STEP_WINOGRAD && engine->model->kernels->direct3x3;
    return (df_step_profile){kinds[direct ? DF_STEP_CONV : step->kind],
                             call->channels,
                             call->height,
                             call->width,
                             call->out_channels,
                             call->out_height,
                             call->out_width,
                             call->size,
                             flop,
                             engine->seconds[index]};
}

typedef struct region {
    const df_engine *engine;
    const df_kernel *kernel;
    const df_call *call;
} region;

static void run_task(void *context, int64_t task, int32_t worker) {
    const region *r = context;
    r->kernel->run(r->call, task, r->engine->scratch + r->engine->worker_scratch * (size_t)worker);
}

static double now(void) { /* seconds */
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static df_code poll_now(const df_interrupt *interrupt, double *polled, df_error *error) {
    const int stop = interrupt->poll(interrupt->context);
    *polled = now();
    return stop ? df_fail(error, DF_INTERRUPTED, "interrupted") : DF_OK;
}

/* One evaluation of the network on up to a batch of images. */
static df_code evaluate(df_engine *engine, int64_t images, const float *x, const int32_t *t, float *eps,
                        const df_interrupt *interrupt, double *polled, df_error *error) {
    const df_model *model = engine->model;
    const int32_t steps = model->plan.step_count;
    engine->calls[0].input[0] = x;
    engine->calls[steps - 1].output = eps;
    for (int32_t i = 0; i < steps; i++) {
        const double start = now();
        if (interrupt && i > 0 && start - *polled >= poll_seconds) {
            const df_code code = poll_now(interrupt, polled, error);
            if (code)
                return code;
        }
        df_call *call = &engine->calls[i];
        call->images = images;
        call->time = t;
        region r = {engine, model->kernels->step[model->plan.steps[i].kind], call};
        df_parallel_for(engine->threads, r.kernel->tasks(call), run_task, &r);
        engine->seconds[i] = now() - start;
    }
    return DF_OK;
}

df_code df_engine_predict(df_engine *engine, int64_t count, const float *x, const int32_t *t, float *eps,
                          const df_interrupt *interrupt, df_error *error) {
    const int32_t steps = engine->model->time_steps;
    if (count < 1)
        return df_fail(error, DF_INVALID, "count must be at least 1, got %lld", (long long)count);
    if (!x || !eps || (!t && steps))
        return df_fail(error, DF_INVALID, "x, t and eps must not be NULL");
    for (int64_t i = 0; i < count && steps; i++)
        if (t[i] < 0 || t[i] >= steps)
            return df_fail(error, DF_INVALID, "t must be in 0..%d, got %d at position %lld", steps - 1, t[i],
                           (long long)i);
    df_code code = df_pool_start(engine->threads, error); /* after a fork there are no workers */
    if (interrupt && !interrupt->poll)
        interrupt = NULL;
    const int64_t values = df_shape_values(engine->model->shape);
    double polled = now();
    for (int64_t first = 0; first < count && !code; first += engine->batch) {
        if (first && interrupt)
            code = poll_now(interrupt, &polled, error);
        if (!code)
            code = evaluate(engine, df_min(engine->batch, count - first), x + first * values, steps ? t + first : NULL,
                            eps + first * values, interrupt, &polled, error);
    }
    return code;
}
