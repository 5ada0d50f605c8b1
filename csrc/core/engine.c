#include "core/internal.h"
#include "core/pool.h"

#include <stdlib.h>
#include <string.h>

static const double poll_seconds = 0.05;

struct df_engine {
    df_model *model;
    int32_t batch, threads;
    df_memory memory;
    char *arena, *scratch;
    size_t worker_scratch;
    double *seconds; /* that each of the plan's steps took in the last evaluation */
    double *busy;    /* [threads][steps]: how long a thread was busy with its share of the images */
};

static int64_t unit_of(const df_model *model) { /* bytes of a value's element */
    return model->kernels->half ? 2 : 4;
}

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
    if (__builtin_mul_overflow(model->plan.arena, unit_of(model) * batch, &arena) ||
        __builtin_mul_overflow((int64_t)scratch_of_a_worker(model), (int64_t)threads, &scratch) ||
        arena > PTRDIFF_MAX - scratch)
        return df_fail(error, DF_INVALID, "batch %d: its activations are more bytes than an address can count", batch);
    *memory = (df_memory){.weights = model->weight_bytes, .arena = (size_t)arena, .scratch = (size_t)scratch};
    return DF_OK;
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
        made->seconds = calloc((size_t)model->plan.step_count, sizeof *made->seconds);
        made->busy = calloc((size_t)model->plan.step_count * (size_t)threads, sizeof *made->busy);
        made->arena = df_allocate(memory.arena);
        made->scratch = df_allocate(memory.scratch);
    }
    if (!made || !made->seconds || !made->busy || !made->arena || !made->scratch) {
        df_engine_destroy(made);
        return df_fail(error, DF_OUT_OF_MEMORY, "no memory for batch %d: %zu bytes of activations, %zu of scratch",
                       batch, memory.arena, memory.scratch);
    }
    *engine = made;
    return DF_OK;
}

void df_engine_destroy(df_engine *engine) {
    if (!engine)
        return;
    df_model_release(engine->model);
    free(engine->seconds);
    free(engine->busy);
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

static double flop_of(const df_plan_step *step) { /* of one image, computed directly */
    const df_call *call = &step->call;
    const double in = call->channels, pixels = (double)call->out_height * call->out_width;
    if (step->kind == DF_STEP_CONV || step->kind == DF_STEP_WINOGRAD)
        return 2 * in * call->out_channels * pixels * call->size * call->size;
    return step->kind == DF_STEP_ATTENTION ? 4 * in * pixels * pixels : 0;
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
    const bool direct = step->kind == DF_STEP_WINOGRAD && engine->model->kernels->direct3x3;
    return (df_step_profile){kinds[direct ? DF_STEP_CONV : step->kind],
                             call->channels,
                             call->height,
                             call->width,
                             call->out_channels,
                             call->out_height,
                             call->out_width,
                             call->size,
                             flop_of(step),
                             engine->seconds[index]};
}

static df_code poll_now(const df_interrupt *interrupt, double *polled, df_error *error) {
    const int stop = interrupt->poll(interrupt->context);
    *polled = df_now();
    return stop ? df_fail(error, DF_INTERRUPTED, "interrupted") : DF_OK;
}

/* Some images on their way through the network, with a part of the arena for their values. */
typedef struct group {
    int64_t images;
    const float *x;
    const int32_t *t;
    float *eps;
    char *arena;
} group;

static void *value_of(const df_engine *engine, const group *of, int32_t value, int64_t element) {
    if (value < 0)
        return NULL;
    const df_model *model = engine->model;
    return of->arena + (model->plan.places[value].offset * of->images + element) * unit_of(model);
}

/* A step for a group. */
static df_call call_of(const df_engine *engine, const group *of, int32_t index, int32_t threads) {
    const df_model *model = engine->model;
    const df_plan_step *step = &model->plan.steps[index];
    df_call call = step->call;
    for (int j = 0; j < 3; j++)
        if (step->input[j] >= 0)
            call.input[j] = value_of(engine, of, step->input[j], step->offset[j]);
    if (step->kind == DF_STEP_IMPORT)
        call.input[0] = of->x;
    call.norm = value_of(engine, of, step->norm, 0);
    call.shift = value_of(engine, of, step->shift, 0);
    call.residual = value_of(engine, of, step->residual, 0);
    call.output = step->kind == DF_STEP_EXPORT ? of->eps : value_of(engine, of, step->output, 0);
    if (step->weight >= 0 || step->merged) {
        call.weight = model->weights + model->packed[index].weight;
        call.bias = model->weights + model->packed[index].bias; /* zeros where there is none */
    }
    call.time = of->t;
    call.images = of->images;
    call.threads = threads;
    return call;
}

typedef struct region {
    const df_engine *engine;
    const df_kernel *kernel;
    const df_call *call;
} region;

static char *scratch_of(const df_engine *engine, int32_t worker) {
    return engine->scratch + engine->worker_scratch * (size_t)worker;
}

static void run_task(void *context, int64_t task, int32_t worker) {
    const region *r = context;
    r->kernel->run(r->call, task, scratch_of(r->engine, worker));
}

static void run_together(df_engine *engine, const group *all, int32_t index) {
    const double start = df_now();
    df_call call = call_of(engine, all, index, engine->threads);
    region r = {engine, engine->model->kernels->step[engine->model->plan.steps[index].kind], &call};
    df_parallel_for(engine->threads, r.kernel->tasks(&call), run_task, &r);
    engine->seconds[index] = df_now() - start;
}

/* Steps begin..end-1, with a share of the images for each thread: nobody waits for the others after every one of them. */
typedef struct shares {
    const df_engine *engine;
    const group *all;
    int32_t begin, end;
} shares;

static void run_share(void *context, int64_t share, int32_t worker) {
    const shares *of = context;
    const df_engine *engine = of->engine;
    const df_model *model = engine->model;
    const int64_t first = of->all->images * share / engine->threads;
    const int64_t end = of->all->images * (share + 1) / engine->threads, of_image = df_shape_values(model->shape);
    const group mine = {.images = end - first,
                        .x = of->all->x + first * of_image,
                        .t = of->all->t ? of->all->t + first : NULL,
                        .eps = of->all->eps + first * of_image,
                        .arena = of->all->arena + model->plan.arena * first * unit_of(model)};
    double *busy = engine->busy + (int64_t)worker * model->plan.step_count;
    for (int32_t i = of->begin; i < of->end; i++) {
        const double start = df_now();
        const df_kernel *kernel = model->kernels->step[model->plan.steps[i].kind];
        df_call call = call_of(engine, &mine, i, 1);
        const int64_t tasks = kernel->tasks(&call);
        for (int64_t task = 0; task < tasks; task++)
            kernel->run(&call, task, scratch_of(engine, worker));
        busy[i] += df_now() - start;
    }
}

static void run_shares(df_engine *engine, const group *all, int32_t begin, int32_t end) {
    const int32_t steps = engine->model->plan.step_count, threads = engine->threads;
    memset(engine->busy, 0, (size_t)steps * (size_t)threads * sizeof *engine->busy);
    df_parallel_for(threads, threads, run_share, &(shares){engine, all, begin, end});
    for (int32_t i = begin; i < end; i++) {
        engine->seconds[i] = 0;
        for (int32_t worker = 0; worker < threads; worker++)
            engine->seconds[i] += engine->busy[(int64_t)worker * steps + i] / threads;
    }
}

/* Whether each thread takes a share of the images: where there are about as many for each, and steps so short that threads
 * would wait for each other after each, or tiles, which want their own images in their caches (docs/performance.md). Elsewhere
 * tasks are shared step by step, since the threads of a busy machine are not equally fast. */
static bool may_share(const df_engine *engine, int64_t images) {
    static const double long_steps = 1e10; /* operations of an evaluation */
    const df_model *model = engine->model;
    const int64_t threads = engine->threads;
    double flop = 0;
    for (int32_t i = 0; i < model->plan.step_count; i++)
        flop += flop_of(&model->plan.steps[i]) * (double)images;
    const bool tiles = model->kernels->ranges || model->kernels->half;
    return threads > 1 && df_round_up(images, threads) * 7 <= images * 8 && (tiles || flop < long_steps);
}

/* One evaluation of the network on up to a batch of images. */
static df_code evaluate(df_engine *engine, int64_t images, const float *x, const int32_t *t, float *eps,
                        const df_interrupt *interrupt, double *polled, df_error *error) {
    static const double most_flop = 1e10; /* of a thread between two polls: 10 to 100 ms */
    const df_plan *plan = &engine->model->plan;
    const group all = {images, x, t, eps, engine->arena};
    const bool share = may_share(engine, images);
    for (int32_t i = 0, end; i < plan->step_count; i = end) {
        if (interrupt && i > 0 && df_now() - *polled >= poll_seconds) {
            const df_code code = poll_now(interrupt, polled, error);
            if (code)
                return code;
        }
        double flop = 0;
        for (end = i; end < plan->step_count && (end == i || (share && flop < most_flop)); end++)
            flop += flop_of(&plan->steps[end]) * (double)(images / engine->threads);
        if (share)
            run_shares(engine, &all, i, end);
        else
            run_together(engine, &all, i);
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
    double polled = df_now();
    for (int64_t first = 0; first < count && !code; first += engine->batch) {
        if (first && interrupt)
            code = poll_now(interrupt, &polled, error);
        if (!code)
            code = evaluate(engine, df_min(engine->batch, count - first), x + first * values, steps ? t + first : NULL,
                            eps + first * values, interrupt, &polled, error);
    }
    return code;
}
