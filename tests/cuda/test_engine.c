/* The CUDA engine in the emulator: whole networks against the plain way to run them, and its promises about bits, memory
 * and errors. */
#include "../core/check.h"
#include "../core/network.h"
#include "diffence_cuda.h"

enum { IMAGES = 7, VALUES = 3 * 12 * 10 };

void emulator_fail_allocation(size_t limit); /* of cudaMalloc; 0: none */

static const char *const precisions[] = {"fp32", "bf16", "fp16"};
static const double bounds[] = {6e-7, 2e-2, 2.5e-3};

static df_error error;

static void *on_gpu(const void *values, size_t bytes) {
    void *memory = NULL;
    if (posix_memalign(&memory, 64, bytes))
        abort();
    if (values)
        memcpy(memory, values, bytes);
    else
        memset(memory, 0xff, bytes);
    return memory;
}

static bool hopper; /* whether engines use Hopper's tiles */

static df_cuda_engine *engine_of(const df_program *program, df_cuda_precision precision, int32_t batch) {
    df_cuda_model *model = NULL;
    df_cuda_engine *engine = NULL;
    const df_cuda_options options = {0, precision, hopper};
    CHECK(!df_cuda_model_create(program, &options, &model, &error), "%s", error.message);
    CHECK(!model || df_cuda_model_hopper(model) == hopper, "Hopper");
    CHECK(model && !df_cuda_engine_create(model, batch, &engine, &error), "%s", error.message);
    df_cuda_model_release(model); /* the engine keeps its own */
    if (!engine)
        exit(check_report("test_engine"));
    return engine;
}

/* Near the plain result, and the same bits for any batch and order. */
static void check_network(const char *what, const df_program *program, int32_t steps, df_cuda_precision precision,
                          double bound) {
    const int64_t values = (int64_t)program->channels * program->height * program->width;
    float *x = on_gpu(NULL, (size_t)(IMAGES * values) * sizeof(float)),
          *got = on_gpu(NULL, (size_t)(IMAGES * values) * sizeof(float));
    float *again = on_gpu(NULL, (size_t)(IMAGES * values) * sizeof(float));
    double *expected = malloc((size_t)(IMAGES * values) * sizeof *expected);
    int32_t t[IMAGES], *device_t = on_gpu(NULL, sizeof t);
    fill_random(x, IMAGES * values, 1.5F);
    for (int i = 0; i < IMAGES; i++) {
        device_t[i] = t[i] = steps ? i * 7 % steps : 0;
        plain_run(program, x + i * values, t[i], expected + i * values);
    }
    df_cuda_engine *engine = engine_of(program, precision, 3);
    CHECK(!df_cuda_predict(engine, IMAGES, x, device_t, got, NULL, &error), "%s", error.message);
    const double off = relative_error(got, expected, IMAGES * values);
    CHECK(off < bound, "%s, %s: error %g, allowed %g", what, precisions[precision], off, bound);
    df_cuda_engine_destroy(engine);
    for (int32_t batch = 1; batch <= IMAGES; batch += 3) {
        engine = engine_of(program, precision, batch);
        CHECK(df_cuda_engine_batch(engine) == batch, "batch");
        for (int64_t i = 0; i < IMAGES * values; i++)
            again[i] = x[(IMAGES - 1 - i / values) * values + i % values];
        for (int i = 0; i < IMAGES; i++)
            device_t[i] = t[IMAGES - 1 - i];
        CHECK(!df_cuda_predict(engine, IMAGES, again, device_t, again, NULL, &error), "%s", error.message);
        for (int i = 0; i < IMAGES; i++)
            CHECK(!memcmp(got + i * values, again + (IMAGES - 1 - i) * values, (size_t)values * sizeof *got),
                  "%s, %s: image %d has other bits in another order, batch %d", what, precisions[precision], i, batch);
        df_cuda_engine_destroy(engine);
    }
    free(x), free(got), free(again), free(expected), free(device_t);
}

/* A network whose attention has one head, so that its projections are merged, and as wide as tiles are. */
static network *wide_network(void) {
    network *net = network_create(3, 8, 8);
    const int32_t table = network_weight(net, 2, (int64_t[]){20, 16}, 1, 0);
    const int32_t time = network_op(net, (df_op){DF_OP_TIME_EMBEDDING, {1, -1, -1}, {table, -1}, 0, 0});
    const int32_t first = add_conv(net, 0, 3, 64, 3, 1);
    int32_t h = add_block(net, first, 64, 136, time, 16);
    const int32_t n = add_norm(net, h, 136, 8);
    const int32_t q = add_conv(net, n, 136, 136, 1, 1), k = add_conv(net, n, 136, 136, 1, 1);
    const int32_t v = add_conv(net, n, 136, 136, 1, 1);
    const int32_t attended = network_op(net, (df_op){DF_OP_ATTENTION, {q, k, v}, {-1, -1}, 1, 0});
    h = add_plain(net, DF_OP_ADD, h, add_conv(net, attended, 136, 136, 1, 1));
    h = add_conv(net, h, 136, 64, 3, 2);
    h = add_conv(net, add_plain(net, DF_OP_UPSAMPLE, h, -1), 64, 64, 3, 1);
    h = add_block(net, add_plain(net, DF_OP_CONCAT, h, first), 128, 32, time, 16);
    add_conv(net, add_silu(net, add_norm(net, h, 32, 4)), 32, 3, 3, 1);
    return net;
}

/* Steps that no UNet has: vectors of the time step added pixel for pixel, images of one pixel, an output that no
 * convolution makes. */
static network *odd_network(void) {
    network *net = network_create(12, 1, 1);
    const int32_t table = network_weight(net, 2, (int64_t[]){9, 12}, 1, 0);
    const int32_t time = network_op(net, (df_op){DF_OP_TIME_EMBEDDING, {1, -1, -1}, {table, -1}, 0, 0});
    const int32_t sum = add_plain(net, DF_OP_ADD, add_silu(net, time), 0);
    const int32_t both = add_plain(net, DF_OP_CONCAT, time, sum);
    const int32_t h = add_linear(net, add_norm(net, both, 24, 3), 24, 12);
    add_plain(net, DF_OP_ADD, add_silu(net, h), time);
    return net;
}

/* A group norm that reads a value of the time step beside one of the image. */
static network *normed_time_network(void) {
    network *net = network_create(16, 1, 1);
    const int32_t table = network_weight(net, 2, (int64_t[]){9, 16}, 1, 0);
    const int32_t time = network_op(net, (df_op){DF_OP_TIME_EMBEDDING, {1, -1, -1}, {table, -1}, 0, 0});
    const int32_t both = add_plain(net, DF_OP_CONCAT, time, add_silu(net, 0));
    add_linear(net, add_norm(net, both, 32, 4), 32, 16);
    return net;
}

static network *timeless_network(void) {
    network *net = network_create(20, 6, 6);
    const int32_t h = add_conv(net, add_silu(net, add_norm(net, 0, 20, 4)), 20, 40, 3, 1);
    add_conv(net, add_plain(net, DF_OP_UPSAMPLE, add_conv(net, h, 40, 24, 3, 2), -1), 24, 20, 1, 1);
    return net;
}

static void test_networks(void) {
    const struct {
        const char *what;
        network *(*make)(void);
        int32_t steps;
    } networks[] = {{"unet", network_unet, UNET_STEPS},
                    {"wide", wide_network, 20},
                    {"odd", odd_network, 9},
                    {"normed time", normed_time_network, 9},
                    {"timeless", timeless_network, 0}};
    for (size_t i = 0; i < sizeof networks / sizeof *networks; i++) {
        random_state = 5 + i;
        network *net = networks[i].make();
        for (int p = 0; p < DF_CUDA_PRECISION_COUNT; p++)
            check_network(networks[i].what, &net->program, networks[i].steps, (df_cuda_precision)p, bounds[p]);
        hopper = true;
        check_network(networks[i].what, &net->program, networks[i].steps, DF_CUDA_BF16, bounds[DF_CUDA_BF16]);
        hopper = false;
        network_destroy(net);
    }
}

static int stops_at_once(void *context) {
    return ++*(int *)context > 1;
}

/* Reconstructions are the CPU's, within what the precision costs. */
static void test_reconstruct(void) {
    enum { ITEMS = 9, ON = 3 };
    random_state = 21;
    network *net = network_unet();
    double alpha_bar[UNET_STEPS];
    df_sampler *sampler;
    df_model *model;
    df_engine *cpu;
    df_options options = {.isa = "reference"};
    CHECK(!df_schedule_linear(UNET_STEPS, 1e-4, 0.05, alpha_bar, &error), "%s", error.message);
    CHECK(!df_sampler_create(alpha_bar, UNET_STEPS, 40, 20, DF_PAPER, &sampler, &error), "%s", error.message);
    CHECK(!df_model_create(&net->program, &options, &model, &error), "%s", error.message);
    CHECK(!df_engine_create(model, 4, 1, &cpu, &error), "%s", error.message);
    float *images = on_gpu(NULL, sizeof(float) * ON * VALUES), *out = on_gpu(NULL, sizeof(float) * ITEMS * VALUES);
    float *again = on_gpu(NULL, sizeof(float) * ITEMS * VALUES);
    static float want[ITEMS * VALUES];
    static double expected[ITEMS * VALUES];
    uint8_t(*hashes)[16] = on_gpu(NULL, sizeof(uint8_t[ON][16])), key[16] = {1, 2, 3};
    int32_t *index = on_gpu(NULL, sizeof(int32_t) * ITEMS), *draws = on_gpu(NULL, sizeof(int32_t) * ITEMS);
    int32_t *bad = on_gpu(NULL, sizeof(int32_t));
    for (int i = 0; i < ON * VALUES; i++)
        images[i] = 0.5F + 0.5F * random_float();
    for (int m = 0; m < ITEMS; m++) {
        index[m] = m % ON;
        draws[m] = m / ON;
    }
    CHECK(!df_cuda_content_hashes(0, key, ON, 3, 12, 10, images, hashes[0], NULL, &error), "%s", error.message);
    CHECK(!df_reconstruct(cpu, sampler, ON, images, (const uint8_t(*)[16])hashes, ITEMS, index, draws, NULL, want, NULL,
                          &error),
          "%s", error.message);
    for (int i = 0; i < ITEMS * VALUES; i++)
        expected[i] = (double)want[i];
    for (int p = 0; p < DF_CUDA_PRECISION_COUNT; p++) {
        *bad = INT32_MAX;
        df_cuda_engine *engine = engine_of(&net->program, (df_cuda_precision)p, 4);
        CHECK(!df_cuda_reconstruct(engine, sampler, images, hashes[0], ITEMS, index, draws, NULL, out, bad, NULL, NULL,
                                   &error),
              "%s", error.message);
        const double off = relative_error(out, expected, ITEMS * VALUES);
        CHECK(off < 2 * bounds[p] && *bad == INT32_MAX, "%s: reconstructions are off by %g", precisions[p], off);
        df_cuda_engine_destroy(engine);
        engine = engine_of(&net->program, (df_cuda_precision)p, ITEMS);
        CHECK(!df_cuda_reconstruct(engine, sampler, images, hashes[0], ITEMS, index, draws, NULL, again, bad, NULL,
                                   NULL, &error),
              "%s", error.message);
        CHECK(!memcmp(out, again, sizeof(float) * ITEMS * VALUES), "%s: other bits in another batch", precisions[p]);
        df_cuda_engine_destroy(engine);
    }
    df_cuda_engine *engine = engine_of(&net->program, DF_CUDA_BF16, 4);
    int polls = 0;
    const df_interrupt interrupt = {stops_at_once, &polls};
    CHECK(df_cuda_reconstruct(engine, sampler, images, hashes[0], ITEMS, index, draws, NULL, out, bad, NULL, &interrupt,
                              &error) == DF_INTERRUPTED &&
              polls == 2,
          "stopped after the first batch");
    CHECK(df_cuda_reconstruct(engine, sampler, images, NULL, ITEMS, index, draws, NULL, out, bad, NULL, NULL, &error) ==
              DF_INVALID,
          "neither hashes nor noise");
    images[VALUES] = NAN;
    *bad = INT32_MAX;
    CHECK(!df_cuda_reconstruct(engine, sampler, images, hashes[0], ITEMS, index, draws, NULL, out, bad, NULL, NULL,
                               &error) &&
              *bad == 1,
          "the first item that is not finite is 1, got %d", *bad);
    df_cuda_engine_destroy(engine);
    df_engine_destroy(cpu);
    df_model_release(model);
    df_sampler_destroy(sampler);
    network_destroy(net);
    free(images), free(out), free(again), free(hashes), free(index), free(draws), free(bad);
}

static void test_errors(void) {
    random_state = 31;
    network *net = network_unet();
    df_cuda_model *model = NULL;
    df_cuda_engine *engine = NULL;
    int32_t count = 0;
    const df_cuda_options options = {0, DF_CUDA_BF16, false}, fp16 = {0, DF_CUDA_FP16, false};
    CHECK(!df_cuda_device_count(&count, &error) && count == 1, "%s", error.message);
    CHECK(df_cuda_model_create(NULL, &options, &model, &error) == DF_INVALID && !model, "no program");
    CHECK(df_cuda_model_create(&net->program, &(df_cuda_options){7, DF_CUDA_BF16, false}, &model, &error) != DF_OK &&
              !model,
          "no such GPU");
    net->data[0][3] = INFINITY;
    CHECK(df_cuda_model_create(&net->program, &options, &model, &error) == DF_INVALID && !model, "not finite");
    net->data[0][3] = 1e5F;
    CHECK(df_cuda_model_create(&net->program, &fp16, &model, &error) == DF_INVALID && strstr(error.message, "fp16"),
          "too large for fp16: %s", error.message);
    net->data[0][3] = 0;
    CHECK(!df_cuda_model_create(&net->program, &fp16, &model, &error), "%s", error.message);
    CHECK(df_cuda_model_device(model) == 0 && df_cuda_model_precision(model) == DF_CUDA_FP16 &&
              df_cuda_model_time_steps(model) == UNET_STEPS,
          "what it is");
    df_cuda_memory memory;
    CHECK(df_cuda_engine_memory(model, 0, &memory, &error) == DF_INVALID, "batch 0");
    CHECK(df_cuda_engine_memory(model, INT32_MAX, &memory, &error) == DF_INVALID, "%s", error.message);
    CHECK(!df_cuda_engine_memory(model, 8, &memory, &error) && memory.arena > 8 * VALUES * 8 && memory.weights > 1000,
          "%zu bytes", memory.arena);
    emulator_fail_allocation(memory.weights + memory.arena / 2);
    CHECK(df_cuda_engine_create(model, 8, &engine, &error) == DF_OUT_OF_MEMORY && !engine, "out of memory");
    CHECK(strstr(error.message, "batch 8"), "%s", error.message);
    emulator_fail_allocation(0);
    CHECK(!df_cuda_engine_create(model, 8, &engine, &error), "%s", error.message);
    float x[4];
    CHECK(df_cuda_predict(engine, 0, x, NULL, x, NULL, &error) == DF_INVALID, "count 0");
    CHECK(df_cuda_predict(engine, 1, x, NULL, x, NULL, &error) == DF_INVALID, "no time step");
    df_step_profile steps[200];
    const int32_t all = df_cuda_engine_step_count(engine);
    CHECK(all > 10 && all < 200 && !df_cuda_engine_profile(engine, 8, steps, &error), "%s", error.message);
    int tiled = 0, plain = 0;
    for (int32_t i = 0; i < all; i++) {
        tiled += !strcmp(steps[i].kind, "conv tiled");
        plain += !strcmp(steps[i].kind, "conv plain");
    }
    CHECK(tiled > 8 && plain == 0 && !strcmp(steps[all - 1].kind, "conv planar"), "%d tiled, %d plain", tiled, plain);
    CHECK(df_cuda_engine_profile(engine, 9, steps, &error) == DF_INVALID, "more images than a batch");
    df_cuda_model_release(model);
    df_cuda_engine_destroy(engine);
    df_cuda_engine_destroy(NULL);
    df_cuda_model_release(NULL);
    network_destroy(net);
}

int main(void) {
    test_networks();
    test_reconstruct();
    test_errors();
    return check_report("test_engine");
}
