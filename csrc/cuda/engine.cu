/* A model with memory for a batch: runs its steps, and reconstructs images. */
#include "engine.h"

#include <new>

struct df_cuda_engine {
    df_cuda_model *model = nullptr;
    int32_t batch = 0;
    df_cuda_memory memory = {};
    unsigned char *arena = nullptr;
    float *x = nullptr, *eps = nullptr; /* [batch][C,H,W] */
    int32_t *time = nullptr;            /* [batch] */
    cudaEvent_t done = nullptr;         /* of the last call's work, which the next one waits for */
#ifndef DF_EMULATED
    /* The steps on x, time and eps as one graph for a number of images: a launch instead of a hundred. */
    struct graph {
        int64_t images;
        cudaGraphExec_t steps;
    };
    std::vector<graph> graphs;
    int64_t last = 0; /* the number of images of the last evaluation */
    cudaStream_t recorder = nullptr;
#endif
};

static int64_t image_values(const df_cuda_model *model) {
    return df_shape_values(model->shape);
}

df_code df_cuda_engine_memory(const df_cuda_model *model, int32_t batch, df_cuda_memory *memory, df_error *error) {
    if (batch < 1)
        return df_fail(error, DF_INVALID, "batch must be at least 1, got %d", batch);
    /* Kernels count pixels of a batch in 32 bits; a tile may be mostly empty, so eightfold. */
    if (batch > INT32_MAX / 16 / model->pixels)
        return df_fail(error, DF_INVALID, "batch %d: at most %lld images of this size are run at a time", batch,
                       (long long)(INT32_MAX / 16 / model->pixels));
    const int64_t values = model->units * (int64_t)bytes_of(model->precision) + image_values(model) * 8 + 4;
    *memory = df_cuda_memory{model->weight_bytes + model->table_bytes, (size_t)(values * batch)};
    return DF_OK;
}

static df_code allocate(df_cuda_engine *engine, df_error *error) {
    const df_cuda_model *model = engine->model;
    const size_t batch = (size_t)engine->batch, values = (size_t)image_values(model) * batch;
    df_code code = check(cudaMalloc((void **)&engine->arena, (size_t)model->units * bytes_of(model->precision) * batch),
                         "activations", error);
    if (!code)
        code = check(cudaMalloc((void **)&engine->x, values * sizeof(float)), "images", error);
    if (!code)
        code = check(cudaMalloc((void **)&engine->eps, values * sizeof(float)), "images", error);
    if (!code)
        code = check(cudaMalloc((void **)&engine->time, batch * sizeof(int32_t)), "time steps", error);
    if (!code)
        code = check(cudaEventCreateWithFlags(&engine->done, cudaEventDisableTiming), "event", error);
#ifndef DF_EMULATED
    if (!code)
        code = check(cudaStreamCreateWithFlags(&engine->recorder, cudaStreamNonBlocking), "stream", error);
#endif
    return code;
}

df_code df_cuda_engine_create(df_cuda_model *model, int32_t batch, df_cuda_engine **engine, df_error *error) {
    *engine = nullptr;
    df_cuda_memory memory;
    df_code code = df_cuda_engine_memory(model, batch, &memory, error);
    if (code)
        return code;
    df_cuda_engine *made = new (std::nothrow) df_cuda_engine;
    if (!made)
        return df_fail(error, DF_OUT_OF_MEMORY, "no memory for an engine");
    df_cuda_model_retain(model);
    made->model = model;
    made->batch = batch;
    made->memory = memory;
    const device_scope scope(model->device);
    code = check(scope.status, "device", error);
    if (!code)
        code = allocate(made, error);
    if (code == DF_OUT_OF_MEMORY)
        code = df_fail(error, DF_OUT_OF_MEMORY, "batch %d: the GPU has no %zu bytes left for it", batch, memory.arena);
    if (code)
        df_cuda_engine_destroy(made);
    else
        *engine = made;
    return code;
}

void df_cuda_engine_destroy(df_cuda_engine *engine) {
    if (!engine)
        return;
    {
        const device_scope scope(engine->model->device);
        if (engine->done) {
            cudaEventSynchronize(engine->done);
            cudaEventDestroy(engine->done);
        }
#ifndef DF_EMULATED
        for (const df_cuda_engine::graph &graph : engine->graphs)
            cudaGraphExecDestroy(graph.steps);
        if (engine->recorder)
            cudaStreamDestroy(engine->recorder);
#endif
        cudaFree(engine->arena);
        cudaFree(engine->x);
        cudaFree(engine->eps);
        cudaFree(engine->time);
    }
    df_cuda_model_release(engine->model);
    delete engine;
}

int32_t df_cuda_engine_batch(const df_cuda_engine *engine) {
    return engine->batch;
}

/* ---------------------------------------------------------------- evaluations */

static const char *name_of(df_step_kind kind) {
    switch (kind) {
    case DF_STEP_CONV:
        return "convolution";
    case DF_STEP_NORM:
        return "group norm";
    case DF_STEP_ATTENTION:
        return "attention";
    default:
        return "step of the network";
    }
}

static df_code evaluate(df_cuda_engine *engine, const run_context &run, df_error *error) {
    df_code code = check(gather_values(engine->model, run), "time steps", error);
    for (const cuda_step &step : engine->model->steps)
        if (!code && !step.of_time)
            code = check(run_step(engine->model, step, run), name_of(step.plan.kind), error);
    return code;
}

static run_context context_of(const df_cuda_engine *engine, int64_t images, const float *x, const int32_t *time,
                              float *eps, cudaStream_t stream) {
    run_context run = {};
    run.images = images;
    run.batch = engine->batch;
    run.arena = engine->arena;
    run.x = x;
    run.eps = eps;
    run.time = time;
    run.stream = stream;
    return run;
}

/* On the engine's own images. */
static df_code evaluate_own(df_cuda_engine *engine, int64_t images, cudaStream_t stream, df_error *error) {
    run_context run = context_of(engine, images, engine->x, engine->time, engine->eps, stream);
#ifdef DF_EMULATED
    return evaluate(engine, run, error);
#else
    enum { KEPT = 4 };
    for (const df_cuda_engine::graph &graph : engine->graphs)
        if (graph.images == images)
            return check(cudaGraphLaunch(graph.steps, stream), "graph", error);
    /* Recording costs more than launching once, and an early fence's batches shrink from one to the next. */
    if (images != engine->batch && images != engine->last) {
        engine->last = images;
        return evaluate(engine, run, error);
    }
    run.stream = engine->recorder; /* the caller's may be the default stream, which cannot be recorded */
    df_code code = check(cudaStreamBeginCapture(run.stream, cudaStreamCaptureModeThreadLocal), "graph", error);
    if (code)
        return code;
    code = evaluate(engine, run, error);
    cudaGraph_t recorded = nullptr;
    const cudaError_t ended = cudaStreamEndCapture(run.stream, &recorded);
    if (!code)
        code = check(ended, "graph", error);
    cudaGraphExec_t steps = nullptr;
    if (!code)
        code = check(cudaGraphInstantiate(&steps, recorded, 0), "graph", error);
    if (recorded)
        cudaGraphDestroy(recorded);
    if (code)
        return code;
    if (engine->graphs.size() == KEPT) { /* the one that was not the whole batch, probably */
        cudaEventSynchronize(engine->done);
        cudaGraphExecDestroy(engine->graphs.back().steps);
        engine->graphs.pop_back();
    }
    engine->graphs.push_back({images, steps});
    return check(cudaGraphLaunch(steps, stream), "graph", error);
#endif
}

/* Work on the caller's stream, after the last call's. */
static df_code begin(df_cuda_engine *engine, cudaStream_t stream, df_error *error) {
    return check(cudaStreamWaitEvent(stream, engine->done, 0), "event", error);
}

static df_code end(df_cuda_engine *engine, cudaStream_t stream, df_code code, df_error *error) {
    const cudaError_t status = cudaEventRecord(engine->done, stream);
    return code ? code : check(status, "event", error);
}

static int64_t smaller(int64_t a, int64_t b) {
    return a < b ? a : b;
}

df_code df_cuda_predict(df_cuda_engine *engine, int64_t count, const float *device_x, const int32_t *device_t,
                        float *device_eps, void *stream, df_error *error) {
    if (count < 1)
        return df_fail(error, DF_INVALID, "count must be at least 1, got %lld", (long long)count);
    if (!device_x || !device_eps || (!device_t && engine->model->time_steps))
        return df_fail(error, DF_INVALID, "x, t and eps must not be NULL");
    const device_scope scope(engine->model->device);
    df_code code = check(scope.status, "device", error);
    if (code)
        return code;
    const int64_t values = image_values(engine->model);
    code = begin(engine, (cudaStream_t)stream, error);
    for (int64_t first = 0; first < count && !code; first += engine->batch)
        code = evaluate(engine,
                        context_of(engine, smaller(engine->batch, count - first), device_x + first * values,
                                   device_t ? device_t + first : nullptr, device_eps + first * values,
                                   (cudaStream_t)stream),
                        error);
    return end(engine, (cudaStream_t)stream, code, error);
}

/* ---------------------------------------------------------------- reconstruction */

static df_code reconstruct_batch(df_cuda_engine *engine, const df_sampler *sampler, const noising &noise, float *out,
                                 int32_t *bad, cudaStream_t stream, df_error *error) {
    const int64_t all = noise.count * noise.values;
    df_code code = check(noise_images(noise, engine->x, stream), "noise", error);
    for (int32_t i = 0; i < sampler->step_count && !code; i++) {
        const df_step step = sampler->steps[i];
        code = check(fill_times(noise.count, step.t, engine->time, stream), "time steps", error);
        if (!code)
            code = evaluate_own(engine, noise.count, stream, error);
        if (!code)
            code = check(take_step(all, step.x_scale, step.eps_scale, engine->eps, engine->x, stream), "step", error);
    }
    return code ? code
                : check(finish_images(noise.first, noise.count, noise.values, engine->x,
                                      out + noise.first * noise.values, bad, stream),
                        "images", error);
}

df_code df_cuda_reconstruct(df_cuda_engine *engine, const df_sampler *sampler, const float *device_images,
                            const uint8_t *device_hashes, int64_t count, const int32_t *device_index,
                            const int32_t *device_draws, const float *device_noise, float *device_out,
                            int32_t *device_bad, void *stream, const df_interrupt *interrupt, df_error *error) {
    const int32_t known = engine->model->time_steps, most = sampler->steps[0].t;
    if (count < 1 || count > INT32_MAX)
        return df_fail(error, DF_INVALID, "items: expected 1 to %d, got %lld", INT32_MAX, (long long)count);
    if (!device_noise && !device_hashes)
        return df_fail(error, DF_INVALID, "hashes: expected one of each image where no noise is given, got NULL");
    if (known > 0 && most >= known)
        return df_fail(error, DF_INVALID, "sampler: it evaluates step %d, the network knows 0..%d", most, known - 1);
    const device_scope scope(engine->model->device);
    df_code code = check(scope.status, "device", error);
    if (code)
        return code;
    noising noise = {};
    noise.values = (int32_t)image_values(engine->model);
    noise.images = device_images;
    noise.hashes = device_hashes;
    noise.index = device_index;
    noise.draws = device_draws;
    noise.noise = device_noise;
    noise.signal = sampler->signal;
    noise.scale = sampler->noise;
    code = begin(engine, (cudaStream_t)stream, error);
    for (int64_t first = 0; first < count && !code; first += engine->batch) {
        if (interrupt && interrupt->poll && interrupt->poll(interrupt->context)) {
            code = df_fail(error, DF_INTERRUPTED, "interrupted");
            break;
        }
        noise.first = first;
        noise.count = smaller(engine->batch, count - first);
        code = reconstruct_batch(engine, sampler, noise, device_out, device_bad, (cudaStream_t)stream, error);
    }
    return end(engine, (cudaStream_t)stream, code, error);
}

/* ---------------------------------------------------------------- profile */

int32_t df_cuda_engine_step_count(const df_cuda_engine *engine) {
    int32_t count = 0;
    for (const cuda_step &step : engine->model->steps)
        count += !step.of_time;
    return count;
}

static df_step_profile describe(const cuda_step &step, double seconds) {
    static const char *const kinds[] = {"move",        "conv tiled",      "conv plain",
                                        "conv planar", "attention tiled", "attention plain"};
    const df_call &call = step.plan.call;
    const double pixels = (double)call.out_height * call.out_width;
    df_step_profile record = {};
    record.kind = step.plan.kind == DF_STEP_NORM ? "norm" : kinds[step.kernel];
    record.channels = call.channels;
    record.height = call.height;
    record.width = call.width;
    record.out_channels = call.out_channels;
    record.out_height = call.out_height;
    record.out_width = call.out_width;
    record.size = call.size;
    if (step.plan.kind == DF_STEP_CONV)
        record.flop = 2.0 * call.channels * call.out_channels * pixels * call.size * call.size;
    else if (step.plan.kind == DF_STEP_ATTENTION)
        record.flop = 4.0 * call.channels * pixels * pixels;
    record.seconds = seconds;
    return record;
}

df_code df_cuda_engine_profile(df_cuda_engine *engine, int32_t images, df_step_profile *steps, df_error *error) {
    if (images < 1 || images > engine->batch)
        return df_fail(error, DF_INVALID, "images must be in 1..%d, got %d", engine->batch, images);
    const device_scope scope(engine->model->device);
    df_code code = check(scope.status, "device", error);
    cudaEvent_t start = nullptr, stop = nullptr;
    if (!code)
        code = check(cudaEventCreateWithFlags(&start, cudaEventDefault), "event", error);
    if (!code)
        code = check(cudaEventCreateWithFlags(&stop, cudaEventDefault), "event", error);
    if (!code)
        code = begin(engine, nullptr, error);
    const int64_t values = image_values(engine->model) * images;
    if (!code)
        code = check(cudaMemsetAsync(engine->x, 0, (size_t)values * sizeof(float), nullptr), "images", error);
    if (!code)
        code = check(fill_times(images, 0, engine->time, nullptr), "time steps", error);
    const run_context run = context_of(engine, images, engine->x, engine->time, engine->eps, nullptr);
    if (!code)
        code = evaluate(engine, run, error); /* the kernels are loaded now, and the clock is up */
    int32_t at = 0;
    for (const cuda_step &step : engine->model->steps) {
        if (code || step.of_time)
            continue;
        float milliseconds = 0;
        code = check(cudaEventRecord(start, nullptr), "event", error);
        if (!code)
            code = check(run_step(engine->model, step, run), name_of(step.plan.kind), error);
        if (!code)
            code = check(cudaEventRecord(stop, nullptr), "event", error);
        if (!code)
            code = check(cudaEventSynchronize(stop), name_of(step.plan.kind), error);
        if (!code)
            code = check(cudaEventElapsedTime(&milliseconds, start, stop), "event", error);
        steps[at++] = describe(step, 1e-3 * (double)milliseconds);
    }
    if (start)
        cudaEventDestroy(start);
    if (stop)
        cudaEventDestroy(stop);
    return end(engine, nullptr, code, error);
}

/* ---------------------------------------------------------------- without a network */

df_code df_cuda_content_hashes(int32_t device, const uint8_t key[16], int64_t count, int32_t channels, int32_t height,
                               int32_t width, const float *device_images, uint8_t *device_hashes, void *stream,
                               df_error *error) {
    const device_scope scope(device);
    const df_code code = check(scope.status, "device", error);
    return code ? code
                : check(hash_images(count, channels, height, width, key, device_images, device_hashes,
                                    (cudaStream_t)stream),
                        "hashes", error);
}

df_code df_cuda_phi(int32_t device, int64_t rows, int32_t classes, const float *device_logits, df_mode mode,
                    double *device_phi, int32_t *device_predicted, int32_t *device_bad, void *stream, df_error *error) {
    if (mode != DF_PAPER && mode != DF_OFFICIAL)
        return df_fail(error, DF_INVALID, "mode is %d, expected DF_PAPER or DF_OFFICIAL", (int)mode);
    if (classes < 2)
        return df_fail(error, DF_INVALID, "logits has %d classes, expected at least 2", classes);
    const device_scope scope(device);
    const df_code code = check(scope.status, "device", error);
    return code ? code
                : check(phi_rows(rows, classes, device_logits, mode == DF_OFFICIAL, device_phi, device_predicted,
                                 device_bad, (cudaStream_t)stream),
                        "phi", error);
}
