/* Reconstruction against the same steps written out around df_engine_predict, on a network of three operations. */
#include "check.h"
#include "diffence.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { CHANNELS = 2, HEIGHT = 3, WIDTH = 5, SIZE = CHANNELS * HEIGHT * WIDTH, STEPS = 20, IMAGES = 4, ITEMS = 11 };

static df_error error;
static double alpha_bar[STEPS];
static float images[IMAGES * SIZE];
static uint8_t hashes[IMAGES][16];
/* Repeated images, repeated draws, and no order. */
static const int32_t index_[ITEMS] = {3, 0, 0, 2, 1, 3, 3, 0, 2, 2, 0};
static const int32_t draws[ITEMS] = {0, 0, 1, 5, 0, 1000000, 0, 2, 1, 0, 0};

/* eps = conv1x1(x) + table[t] */
static df_engine *make_engine(int32_t batch, int32_t threads, float scale) {
    static float table[STEPS * CHANNELS], mix[CHANNELS * CHANNELS];
    for (int i = 0; i < STEPS * CHANNELS; i++) {
        table[i] = 0.01f * (float)(i % 7) - 0.02f;
    }
    mix[0] = mix[3] = 0.5f * scale;
    mix[1] = -0.25f * scale;
    mix[2] = 0.125f * scale;
    const df_weight weights[] = {{"table", table, 2, {STEPS, CHANNELS}}, {"mix", mix, 4, {CHANNELS, CHANNELS, 1, 1}}};
    const df_op ops[] = {
        {DF_OP_TIME_EMBEDDING, {1, -1, -1}, {0, -1}, 0, 0},
        {DF_OP_CONV, {0, -1, -1}, {1, -1}, 1, 0},
        {DF_OP_ADD, {3, 2, -1}, {-1, -1}, 0, 0},
    };
    const df_program program = {CHANNELS, HEIGHT, WIDTH, 3, ops, 2, weights};
    df_model *model = NULL;
    df_engine *engine = NULL;
    CHECK(df_model_create(&program, &(df_options){0}, &model, &error) == DF_OK, "%s", error.message);
    CHECK(df_engine_create(model, batch, threads, &engine, &error) == DF_OK, "%s", error.message);
    df_model_release(model); /* the engine keeps its own */
    return engine;
}

static df_sampler *make_sampler(int32_t T, int32_t k, df_mode mode) {
    df_sampler *sampler = NULL;
    CHECK(df_sampler_create(alpha_bar, STEPS, T, k, mode, &sampler, &error) == DF_OK, "%s", error.message);
    return sampler;
}

/* One item, in the words of the header. */
static void by_hand(df_engine *engine, const df_sampler *sampler, const float *image, const float *normals, float *x) {
    float eps[SIZE];
    for (int p = 0; p < SIZE; p++) {
        x[p] = sampler->signal * (2 * image[p] - 1) + sampler->noise * normals[p];
    }
    for (int32_t i = 0; i < sampler->step_count; i++) {
        CHECK(df_engine_predict(engine, 1, x, &sampler->steps[i].t, eps, NULL, &error) == DF_OK, "%s", error.message);
        for (int p = 0; p < SIZE; p++) {
            x[p] = sampler->steps[i].x_scale * x[p] + sampler->steps[i].eps_scale * eps[p];
        }
    }
    for (int p = 0; p < SIZE; p++) {
        x[p] = fminf(fmaxf((x[p] + 1) / 2, 0), 1);
    }
}

static void test_the_same_bits_however_it_runs(void) {
    static const struct {
        int32_t T, k;
        df_mode mode;
    } cases[] = {{8, 8, DF_PAPER}, {8, 3, DF_PAPER}, {STEPS, 1, DF_PAPER}, {8, 3, DF_OFFICIAL}, {19, 19, DF_OFFICIAL}};
    df_engine *one = make_engine(1, 1, 1);
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        df_sampler *sampler = make_sampler(cases[c].T, cases[c].k, cases[c].mode);
        float expected[ITEMS * SIZE], normals[ITEMS * SIZE], out[ITEMS * SIZE];
        int inner = 0;
        for (int m = 0; m < ITEMS; m++) {
            df_normals(hashes[index_[m]], (uint32_t)draws[m], 0, SIZE, normals + m * SIZE);
            by_hand(one, sampler, images + index_[m] * SIZE, normals + m * SIZE, expected + m * SIZE);
        }
        for (int i = 0; i < ITEMS * SIZE; i++) {
            CHECK(expected[i] >= 0 && expected[i] <= 1, "%g", (double)expected[i]);
            inner += expected[i] > 0 && expected[i] < 1;
        }
        CHECK(inner > 2 * ITEMS, "only %d values are not clamped", inner);
        for (int32_t batch = 1; batch <= 16; batch += 3) {
            df_engine *engine = make_engine(batch, 1 + batch % 2, 1);
            for (int passed = 0; passed < 2; passed++) {
                memset(out, 0xff, sizeof out);
                CHECK(df_reconstruct(engine, sampler, IMAGES, images, passed ? NULL : (const uint8_t(*)[16])hashes,
                                     ITEMS, index_, draws, passed ? normals : NULL, out, NULL, &error) == DF_OK,
                      "%s", error.message);
                CHECK(memcmp(out, expected, sizeof out) == 0, "case %zu, batch %d, noise %d", c, batch, passed);
            }
            df_engine_destroy(engine);
        }
        CHECK(memcmp(expected, expected + 6 * SIZE, SIZE * sizeof *expected) == 0, "items 0 and 6 are the same");
        CHECK(memcmp(expected + SIZE, expected + 2 * SIZE, SIZE * sizeof *expected) != 0, "items 1 and 2 are not");
        df_sampler_destroy(sampler);
    }
    df_engine_destroy(one);
}

typedef struct countdown {
    int left, calls;
} countdown;

static int count_down(void *context) {
    countdown *counter = context;
    counter->calls++;
    return --counter->left < 0;
}

static void test_interrupts_between_evaluations(void) {
    df_engine *engine = make_engine(4, 1, 1);
    df_sampler *sampler = make_sampler(9, 3, DF_PAPER);
    float out[ITEMS * SIZE];
    const int evaluations = 3 * 3; /* three steps of three batches */
    for (int left = 0; left <= evaluations; left++) {
        countdown counter = {left, 0};
        const df_interrupt interrupt = {count_down, &counter};
        df_code code = df_reconstruct(engine, sampler, IMAGES, images, (const uint8_t(*)[16])hashes, ITEMS, index_,
                                      draws, NULL, out, &interrupt, &error);
        CHECK(code == (left < evaluations ? DF_INTERRUPTED : DF_OK), "%d polls allowed: code %d", left, (int)code);
        CHECK(counter.calls == (left < evaluations ? left + 1 : evaluations), "%d calls", counter.calls);
    }
    const df_interrupt none = {NULL, NULL};
    CHECK(df_reconstruct(engine, sampler, IMAGES, images, (const uint8_t(*)[16])hashes, ITEMS, index_, draws, NULL, out,
                         &none, &error) == DF_OK,
          "%s", error.message);
    df_sampler_destroy(sampler);
    df_engine_destroy(engine);
}

static void test_errors(void) {
    df_engine *engine = make_engine(4, 1, 1), *wild = make_engine(4, 1, 1e38f);
    df_sampler *sampler = make_sampler(8, 8, DF_PAPER), *many = make_sampler(8, 1, DF_PAPER), *beyond = NULL;
    double long_schedule[2 * STEPS];
    CHECK(df_schedule_linear(2 * STEPS, 1e-3, 0.2, long_schedule, &error) == DF_OK, "%s", error.message);
    CHECK(df_sampler_create(long_schedule, 2 * STEPS, STEPS + 1, 1, DF_PAPER, &beyond, &error) == DF_OK, "%s",
          error.message);
    float bad_images[IMAGES * SIZE], out[ITEMS * SIZE];
    memcpy(bad_images, images, sizeof images);
    bad_images[2 * SIZE + 7] = NAN;
    const int32_t late[2] = {0, IMAGES}, negative[2] = {0, -1};
    const uint8_t(*keyed)[16] = (const uint8_t(*)[16])hashes;
    const struct {
        df_engine *engine;
        const df_sampler *sampler;
        const float *images;
        const uint8_t (*hashes)[16];
        const int32_t *index, *draws;
        int64_t image_count, count;
        const char *words;
    } bad[] = {
        {engine, sampler, images, keyed, late, draws, IMAGES, 2, "index[1] is 4, expected 0..3"},
        {engine, sampler, images, keyed, negative, draws, IMAGES, 2, "index[1] is -1"},
        {engine, sampler, images, keyed, index_, negative, IMAGES, 2, "draws[1] is -1"},
        {engine, sampler, images, NULL, index_, draws, IMAGES, 2, "hashes"},
        {engine, sampler, bad_images, keyed, index_, draws, IMAGES, ITEMS, "images[2] has a value of"},
        {engine, sampler, images, keyed, index_, draws, IMAGES, 0, "at least one of each"},
        {engine, sampler, images, keyed, index_, draws, 0, 2, "at least one of each"},
        {engine, beyond, images, keyed, index_, draws, IMAGES, 2, "evaluates step 20, the network knows 0..19"},
        {wild, many, images, keyed, index_, draws, IMAGES, 2, "is not finite"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        error = (df_error){DF_OK, ""};
        df_code code = df_reconstruct(bad[i].engine, bad[i].sampler, bad[i].image_count, bad[i].images, bad[i].hashes,
                                      bad[i].count, bad[i].index, bad[i].draws, NULL, out, NULL, &error);
        CHECK(code == DF_INVALID && strstr(error.message, bad[i].words), "case %zu: %s", i, error.message);
    }
    df_sampler_destroy(sampler);
    df_sampler_destroy(many);
    df_sampler_destroy(beyond);
    df_engine_destroy(engine);
    df_engine_destroy(wild);
}

int main(void) {
    const uint8_t key[16] = "a secret of ours";
    CHECK(df_schedule_linear(STEPS, 1e-3, 0.2, alpha_bar, &error) == DF_OK, "%s", error.message);
    for (int i = 0; i < IMAGES * SIZE; i++) {
        images[i] = (float)(i * 37 % 256) / 255;
    }
    for (int i = 0; i < IMAGES; i++) {
        df_content_hash(key, images + i * SIZE, CHANNELS, HEIGHT, WIDTH, hashes[i]);
    }
    test_the_same_bits_however_it_runs();
    test_interrupts_between_evaluations();
    test_errors();
    return check_report("reconstruct");
}
