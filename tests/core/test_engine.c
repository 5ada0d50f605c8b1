/* A whole network: against the plain way to run it, and the promises about bits, memory, threads and interruption. */
#include "check.h"
#include "core/internal.h"
#include "network.h"

#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

/* A failed allocation returns NULL under the address sanitizer too. */
const char *__asan_default_options(void);
const char *__asan_default_options(void) {
    return "allocator_may_return_null=1";
}

enum { IMAGES = 8, VALUES = 3 * 12 * 10 };

typedef struct fixture {
    network *net;
    float x[IMAGES * VALUES];
    int32_t t[IMAGES];
    df_error error;
} fixture;

static fixture *fixture_create(void) {
    random_state = 3;
    fixture *f = calloc(1, sizeof *f);
    f->net = network_unet();
    fill_random(f->x, IMAGES * VALUES, 1.5F);
    for (int i = 0; i < IMAGES; i++)
        f->t[i] = i * 7 % UNET_STEPS;
    f->t[1] = 0, f->t[2] = UNET_STEPS - 1;
    return f;
}

static void fixture_destroy(fixture *f) {
    network_destroy(f->net);
    free(f);
}

static df_model *model_of(fixture *f, df_options options) {
    df_model *model = NULL;
    CHECK(!df_model_create(&f->net->program, &options, &model, &f->error), "%s", f->error.message);
    return model;
}

static df_engine *engine_of(fixture *f, df_options options, int32_t batch, int32_t threads) {
    df_model *model = model_of(f, options);
    df_engine *engine = NULL;
    CHECK(!df_engine_create(model, batch, threads, &engine, &f->error), "%s", f->error.message);
    df_model_release(model); /* the engine keeps its own */
    return engine;
}

/* Near the plain result, and the same bits for any batch, threads and order. */
static void check_options(fixture *f, df_options options, const double *expected, double bound) {
    static float got[IMAGES * VALUES], again[IMAGES * VALUES];
    char name[80];
    snprintf(name, sizeof name, "%s%s%s", options.isa, options.precision == DF_BF16 ? ", bf16" : "",
             options.direct ? ", direct" : "");
    df_engine *engine = engine_of(f, options, 3, 1);
    const df_model *model = df_engine_model(engine);
    CHECK(!strcmp(df_model_isa(model), options.isa) && df_model_precision(model) == options.precision, "%s", name);
    memset(got, 0xff, sizeof got);
    CHECK(!df_engine_predict(engine, IMAGES, f->x, f->t, got, NULL, &f->error), "%s", f->error.message);
    const double error = relative_error(got, expected, IMAGES * VALUES);
    CHECK(error < bound, "%s: error %g, allowed %g", name, error, bound);
    df_engine_destroy(engine);
    static const int32_t batches[] = {1, 3, 7, IMAGES}; /* 8 by 3 threads: shares of 2, 3 and 3 */
    for (size_t i = 0; i < sizeof batches / sizeof *batches; i++)
        for (int32_t threads = 1; threads <= 3; threads++) {
            const int32_t batch = batches[i];
            engine = engine_of(f, options, batch, threads);
            memset(again, 0xff, sizeof again);
            CHECK(!df_engine_predict(engine, IMAGES, f->x, f->t, again, NULL, &f->error), "%s", f->error.message);
            CHECK(!memcmp(got, again, sizeof got), "%s: batch %d, %d threads: other bits", name, batch, threads);
            df_engine_destroy(engine);
        }
    /* In another order, and in place. */
    engine = engine_of(f, options, IMAGES, 2);
    int32_t t[IMAGES];
    for (int i = 0; i < IMAGES; i++) {
        memcpy(again + (IMAGES - 1 - i) * VALUES, f->x + i * VALUES, VALUES * sizeof *again);
        t[IMAGES - 1 - i] = f->t[i];
    }
    CHECK(!df_engine_predict(engine, IMAGES, again, t, again, NULL, &f->error), "%s", f->error.message);
    for (int i = 0; i < IMAGES; i++)
        CHECK(!memcmp(got + i * VALUES, again + (IMAGES - 1 - i) * VALUES, VALUES * sizeof *got), "%s: order", name);
    df_engine_destroy(engine);
}

static void test_against_plain(fixture *f) {
    static double expected[IMAGES * VALUES];
    for (int i = 0; i < IMAGES; i++)
        plain_run(&f->net->program, f->x + i * VALUES, f->t[i], expected + i * VALUES);
    for (int32_t isa = 0; isa < df_isa_count(); isa++)
        for (df_precision precision = DF_FP32; precision < DF_PRECISION_COUNT; precision++)
            for (int direct = 0; direct <= 1; direct++) {
                const df_options options = {df_isa_name(isa), precision, direct};
                if (!df_isa_supported(isa, precision)) {
                    if (!direct)
                        SKIP("%s: this processor or build cannot run it in %s", options.isa,
                             precision == DF_BF16 ? "bf16" : "fp32");
                    continue;
                }
                const double fp32 = isa == 0 || direct ? 6e-7 : 1.2e-6;
                check_options(f, options, expected, precision == DF_BF16 ? 3e-2 : fp32);
            }
}

static int count_steps(const df_model *model, df_step_kind kind) {
    int count = 0;
    for (int32_t i = 0; i < model->plan.step_count; i++)
        count += model->plan.steps[i].kind == kind;
    return count;
}

static void test_plan(fixture *f) {
    df_model *model = model_of(f, (df_options){.isa = "portable"});
    CHECK(count_steps(model, DF_STEP_ADD) == 0, "every addition is part of a convolution");
    CHECK(count_steps(model, DF_STEP_SILU) == 2, "of the time embedding, and once for all blocks");
    CHECK(count_steps(model, DF_STEP_NORM) == 1 && count_steps(model, DF_STEP_STATISTICS) == 7,
          "norms are part of the Winograd convolutions that read them");
    int64_t all = 0;
    for (int32_t i = 0; i < model->plan.value_count; i++)
        all += model->plan.places[i].size;
    CHECK(model->plan.arena < all / 2, "%lld floats for values of %lld", (long long)model->plan.arena, (long long)all);
    int64_t parameters = 0;
    for (int32_t i = 0; i < f->net->program.weight_count; i++)
        parameters += df_weight_values(&f->net->weights[i]);
    int32_t c, h, w;
    df_model_shape(model, &c, &h, &w);
    CHECK(c == 3 && h == 12 && w == 10, "shape");
    CHECK(df_model_parameters(model) == parameters && df_model_time_steps(model) == UNET_STEPS, "counts");
    df_model_release(model);
    df_model_release(NULL);
    df_engine_destroy(NULL);
}

/* Additions that may not be fused: of a value with itself, of one that somebody else needs too, of two vectors. */
static void test_additions(void) {
    df_error error;
    for (int shape = 0; shape < 2; shape++) {
        network *net = network_create(4, shape ? 5 : 1, shape ? 3 : 1);
        const int32_t a = add_conv(net, 0, 4, 4, 3, 1);
        const int32_t twice = add_plain(net, DF_OP_ADD, a, a);
        const int32_t both = add_plain(net, DF_OP_ADD, add_conv(net, twice, 4, 4, 1, 1), add_conv(net, 0, 4, 4, 3, 1));
        const int32_t residual = add_plain(net, DF_OP_ADD, 0, add_conv(net, both, 4, 4, 1, 1));
        const int32_t table = network_weight(net, 2, (int64_t[]){3, 4}, 1, 0);
        const int32_t time = network_op(net, (df_op){DF_OP_TIME_EMBEDDING, {1, -1, -1}, {table, -1}, 0, 0});
        const int32_t shifted = add_plain(net, DF_OP_ADD, residual, time);
        const int32_t unnormed = add_norm(net, shifted, 4, 2);
        const int32_t silu = add_silu(net, unnormed);
        add_plain(net, DF_OP_ADD, add_plain(net, DF_OP_ADD, unnormed, silu), add_silu(net, shifted));
        df_model *model = NULL;
        df_engine *engine = NULL;
        CHECK(!df_model_create(&net->program, &(df_options){.isa = "reference"}, &model, &error), "%s", error.message);
        CHECK(count_steps(model, DF_STEP_ADD) == 4, "%d additions left", count_steps(model, DF_STEP_ADD));
        CHECK(!df_engine_create(model, 1, 1, &engine, &error), "%s", error.message);
        float x[60], got[60];
        double expected[60];
        const int32_t t = 2;
        const int64_t count = shape ? 60 : 4;
        fill_random(x, count, 1);
        CHECK(!df_engine_predict(engine, 1, x, &t, got, NULL, &error), "%s", error.message);
        plain_run(&net->program, x, t, expected);
        CHECK(relative_error(got, expected, count) < 3e-7, "error %g", relative_error(got, expected, count));
        df_engine_destroy(engine);
        df_model_release(model);
        network_destroy(net);
    }
}

/* Without biases and without time; the caller's program is gone when the model runs. */
static void test_model_keeps_nothing(void) {
    df_error error;
    network *net = network_create(2, 4, 4);
    const int32_t w = network_weight(net, 4, (int64_t[]){2, 2, 3, 3}, 1, 0);
    network_op(net, (df_op){DF_OP_CONV, {0, -1, -1}, {w, -1}, 1, 0});
    float x[32], got[32];
    double expected[32];
    fill_random(x, 32, 1);
    plain_run(&net->program, x, 0, expected);
    df_model *model = NULL;
    df_engine *engine = NULL;
    CHECK(!df_model_create(&net->program, &(df_options){0}, &model, &error), "%s", error.message);
    memset(net->data[0], 0xff, 36 * sizeof(float));
    network_destroy(net);
    CHECK(df_model_time_steps(model) == 0, "no time");
    CHECK(!df_engine_create(model, 1, 1, &engine, &error), "%s", error.message);
    df_model_retain(model);
    df_model_release(model);
    df_model_release(model);
    CHECK(!df_engine_predict(engine, 1, x, NULL, got, NULL, &error), "%s", error.message);
    CHECK(relative_error(got, expected, 32) < 3e-7, "error %g", relative_error(got, expected, 32));
    df_engine_destroy(engine);
}

static void test_bad_calls(fixture *f) {
    df_model *model = model_of(f, (df_options){.isa = "portable"});
    df_engine *engine = NULL;
    df_memory memory;
    for (int32_t bad = -1; bad <= 0; bad++) {
        CHECK(df_engine_create(model, bad, 1, &engine, &f->error) == DF_INVALID && strstr(f->error.message, "batch"),
              "batch");
        CHECK(df_engine_create(model, 1, bad, &engine, &f->error) == DF_INVALID && strstr(f->error.message, "threads"),
              "threads");
    }
    CHECK(df_engine_create(model, 1, 1025, &engine, &f->error) == DF_INVALID && !engine, "threads");
    CHECK(!df_engine_create(model, 2, 2, &engine, &f->error), "%s", f->error.message);
    CHECK(df_engine_batch(engine) == 2 && df_engine_threads(engine) == 2 && df_engine_model(engine) == model,
          "getters");
    float eps[IMAGES * VALUES] = {0};
    CHECK(df_engine_predict(engine, 0, f->x, f->t, eps, NULL, &f->error) == DF_INVALID, "count");
    CHECK(df_engine_predict(engine, 1, NULL, f->t, eps, NULL, &f->error) == DF_INVALID, "x");
    CHECK(df_engine_predict(engine, 1, f->x, NULL, eps, NULL, &f->error) == DF_INVALID, "t");
    CHECK(df_engine_predict(engine, 1, f->x, f->t, NULL, NULL, &f->error) == DF_INVALID, "eps");
    for (int i = 0; i < 2; i++) {
        int32_t t[IMAGES] = {0};
        t[IMAGES - 1] = i ? -1 : UNET_STEPS;
        CHECK(df_engine_predict(engine, IMAGES, f->x, t, eps, NULL, &f->error) == DF_INVALID &&
                  strstr(f->error.message, "t must be in 0..49") && strstr(f->error.message, "position 7"),
              "%s", f->error.message);
    }
    for (int i = 0; i < IMAGES * VALUES; i++)
        if (eps[i] != 0) {
            CHECK(false, "work was done before t was checked");
            break;
        }
    CHECK(!df_engine_memory(model, 2, 2, &memory, &f->error), "%s", f->error.message);
    CHECK(df_engine_memory(model, 0, 2, &memory, &f->error) == DF_INVALID, "memory");
    CHECK(df_engine_memory(model, 2, 0, &memory, &f->error) == DF_INVALID, "memory");
    df_engine_destroy(engine);
    df_model_release(model);
}

static void test_memory(fixture *f) {
    df_model *model = model_of(f, (df_options){0});
    df_memory one, many;
    CHECK(!df_engine_memory(model, 1, 1, &one, &f->error) && !df_engine_memory(model, 10, 3, &many, &f->error),
          "memory");
    CHECK(one.weights == many.weights && one.weights >= (size_t)df_model_parameters(model) * sizeof(float), "weights");
    CHECK(many.arena == 10 * one.arena && many.scratch == 3 * one.scratch && one.arena > 0, "what grows with what");
    df_model_release(model);

    df_memory before, direct;
    CHECK(!df_memory_needed(&f->net->program, &(df_options){0}, 10, 3, &before, &f->error), "%s", f->error.message);
    CHECK(!memcmp(&before, &many, sizeof many), "stated before it is taken");
    CHECK(!df_memory_needed(&f->net->program, &(df_options){.direct = true}, 10, 3, &direct, &f->error), "direct");
    CHECK(direct.weights < many.weights, "Winograd's weights are larger");
    CHECK(df_memory_needed(&f->net->program, &(df_options){0}, 0, 3, &before, &f->error) == DF_INVALID, "no batch");
    CHECK(df_memory_needed(NULL, &(df_options){0}, 1, 1, &before, &f->error) == DF_INVALID, "no program");

    /* 2^61 bytes an engine: more than there are, and 2^66: more than a size_t counts. */
    network *net = network_create(1, 1 << 14, 1 << 14);
    add_silu(net, 0);
    df_engine *engine = NULL;
    CHECK(!df_model_create(&net->program, &(df_options){.isa = "reference"}, &model, &f->error), "%s",
          f->error.message);
    CHECK(df_engine_create(model, 1 << 30, 1, &engine, &f->error) == DF_OUT_OF_MEMORY && !engine, "%s",
          f->error.message);
    df_model_release(model);
    network_destroy(net);
    net = network_create(1, 1 << 15, 65535);
    int32_t value = 0, sum;
    for (int i = 0; i < 30; i++) { /* all alive until the end */
        net->ops[net->program.op_count] = (df_op){DF_OP_SILU, {value, -1, -1}, {-1, -1}, 0, 0};
        value = 2 + net->program.op_count++;
    }
    sum = value;
    for (int32_t i = value - 1; i > 1; i--)
        sum = add_plain(net, DF_OP_ADD, sum, i);
    CHECK(!df_model_create(&net->program, &(df_options){.isa = "reference"}, &model, &f->error), "%s",
          f->error.message);
    CHECK(df_engine_create(model, INT32_MAX, 1, &engine, &f->error) == DF_INVALID && !engine, "%s", f->error.message);
    CHECK(strstr(f->error.message, "batch 2147483647"), "%s", f->error.message);
    df_model_release(model);
    network_destroy(net);
}

typedef struct poller {
    int calls, stop_at;
    pthread_t thread;
    useconds_t sleep;
    bool same_thread;
} poller;

static int poll_count(void *context) {
    poller *p = context;
    p->same_thread &= pthread_equal(p->thread, pthread_self()) != 0;
    usleep(p->sleep);
    return ++p->calls == p->stop_at;
}

static void test_interrupt(fixture *f) {
    static float eps[IMAGES * VALUES];
    df_engine *engine = engine_of(f, (df_options){.isa = "portable"}, 2, 2);
    poller p = {.thread = pthread_self(), .same_thread = true};
    df_interrupt interrupt = {poll_count, &p};
    CHECK(!df_engine_predict(engine, IMAGES, f->x, f->t, eps, &interrupt, &f->error), "%s", f->error.message);
    CHECK(p.calls >= 3 && p.same_thread, "between four evaluations: %d", p.calls);
    p = (poller){.thread = pthread_self(), .same_thread = true, .stop_at = 2};
    CHECK(df_engine_predict(engine, IMAGES, f->x, f->t, eps, &interrupt, &f->error) == DF_INTERRUPTED && p.calls == 2,
          "stopped after %d", p.calls);
    CHECK(!df_engine_predict(engine, IMAGES, f->x, f->t, eps, &(df_interrupt){0}, &f->error), "no callback");
    df_engine_destroy(engine);
}

/* One evaluation that takes far longer than 50 ms is polled between its operations. */
static void test_interrupt_within(void) {
    df_error error;
    network *net = network_create(16, 48, 48);
    int32_t value = 0;
    for (int i = 0; i < 40; i++)
        value = add_conv(net, value, 16, 16, 3, 1);
    df_model *model = NULL;
    df_engine *engine = NULL;
    CHECK(!df_model_create(&net->program, &(df_options){.isa = "reference"}, &model, &error), "%s", error.message);
    CHECK(!df_engine_create(model, 1, 1, &engine, &error), "%s", error.message);
    float *x = calloc(2 * 16 * 48 * 48, sizeof *x);
    poller p = {.thread = pthread_self(), .same_thread = true, .stop_at = 1};
    df_interrupt interrupt = {poll_count, &p};
    CHECK(df_engine_predict(engine, 1, x, NULL, x + 16 * 48 * 48, &interrupt, &error) == DF_INTERRUPTED, "within");
    CHECK(p.calls == 1 && p.same_thread, "%d", p.calls);
    free(x);
    df_engine_destroy(engine);
    df_model_release(model);
    network_destroy(net);
}

typedef struct caller {
    df_engine *engine;
    const fixture *f;
    const float *expected;
    bool right;
} caller;

static void *predict_often(void *context) {
    caller *c = context;
    float eps[IMAGES * VALUES];
    c->right = true;
    for (int i = 0; i < 20; i++)
        c->right &= !df_engine_predict(c->engine, IMAGES, c->f->x, c->f->t, eps, NULL, NULL) &&
                    !memcmp(eps, c->expected, sizeof eps);
    return NULL;
}

/* Engines of one model at once, then a fork while another thread is at work: the child starts its own workers. */
static void test_threads_and_fork(fixture *f) {
    enum { CALLERS = 3 };
    static float expected[IMAGES * VALUES];
    df_model *model = model_of(f, (df_options){0});
    caller callers[CALLERS];
    pthread_t threads[CALLERS];
    for (int i = 0; i < CALLERS; i++) {
        callers[i] = (caller){NULL, f, expected, false};
        CHECK(!df_engine_create(model, 1 + i, 3, &callers[i].engine, &f->error), "%s", f->error.message);
    }
    CHECK(!df_engine_predict(callers[0].engine, IMAGES, f->x, f->t, expected, NULL, &f->error), "%s", f->error.message);
    for (int i = 1; i < CALLERS; i++)
        pthread_create(&threads[i], NULL, predict_often, &callers[i]);
    if (SANITIZED)
        SKIP("a fork beside busy threads: the child of gcc 12's address sanitizer inherits its locks as they are");
    for (int i = 0; i < 5 && !SANITIZED; i++) {
        const pid_t child = fork();
        if (child == 0) {
            predict_often(&callers[0]);
            _exit(callers[0].right ? 0 : 1);
        }
        int status = -1;
        CHECK(child > 0 && waitpid(child, &status, 0) == child && status == 0, "the child's status is %d", status);
    }
    predict_often(&callers[0]);
    for (int i = 1; i < CALLERS; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < CALLERS; i++) {
        CHECK(callers[i].right, "caller %d", i);
        df_engine_destroy(callers[i].engine);
    }
    df_model_release(model);
}

int main(void) {
    fixture *f = fixture_create();
    test_against_plain(f);
    test_plan(f);
    test_additions();
    test_model_keeps_nothing();
    test_bad_calls(f);
    test_memory(f);
    test_interrupt(f);
    test_interrupt_within();
    test_threads_and_fork(f);
    fixture_destroy(f);
    return check_report("engine");
}
