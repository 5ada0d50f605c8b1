/* The scheduler of draws: what it hands out, when it is done, and that early and full answer alike. */
#include "check.h"
#include "diffence.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static df_error error;
static uint32_t seed = 1;

static uint32_t random_below(uint32_t bound) {
    const uint32_t counter[4] = {seed++, 0, 0, 0}, key[2] = {0, 0};
    uint32_t words[4];
    df_philox(counter, key, words);
    return words[0] % bound;
}

static df_draws *create(int64_t images, int32_t n, const int32_t *labels, df_interval interval, bool early) {
    df_draws *draws = NULL;
    CHECK(df_draws_create(images, n, labels, interval, early, &draws, &error) == DF_OK, "%s", error.message);
    return draws;
}

static void submit_one(df_draws *draws, int32_t index, int32_t draw, double phi, int32_t predicted) {
    CHECK(df_draws_submit(draws, 1, &index, &draw, &phi, &predicted, &error) == DF_OK, "%s", error.message);
}

static void test_waves(void) {
    const int32_t labels[3] = {0, 0, 0};
    const df_interval unit = {0, 1};
    int32_t index[16], draw[16], used[3];
    int8_t outcome[3];
    df_draws *draws = create(3, 3, labels, unit, true);
    CHECK(df_draws_images(draws) == 3 && df_draws_n(draws) == 3, "size");
    CHECK(df_draws_next(draws, 0, index, draw) == 0, "none asked for");
    CHECK(df_draws_next(draws, 4, index, draw) == 4, "a batch reaches into the next wave");
    CHECK(memcmp(index, (int32_t[]){0, 1, 2, 0}, 16) == 0 && memcmp(draw, (int32_t[]){0, 0, 0, 1}, 16) == 0, "order");
    submit_one(draws, 0, 1, 0.5, 0); /* inside, but draw 0 is not known yet */
    submit_one(draws, 1, 0, 0.5, 0); /* resolves image 1 */
    submit_one(draws, 2, 0, 0.5, 7); /* another class */
    CHECK(df_draws_next(draws, 16, index, draw) == 3, "images 2, 0 and 2 again");
    CHECK(memcmp(index, (int32_t[]){2, 0, 2}, 12) == 0 && memcmp(draw, (int32_t[]){1, 2, 2}, 12) == 0, "order");
    CHECK(df_draws_next(draws, 16, index, draw) == 0 && !df_draws_done(draws), "the rest waits for results");
    CHECK(df_draws_result(draws, used, index, outcome, &error) == DF_INVALID, "too early");
    CHECK(strstr(error.message, "2 of 3 images"), "%s", error.message);
    submit_one(draws, 2, 2, 0.5, 0);
    submit_one(draws, 2, 1, 9, 0);
    CHECK(!df_draws_done(draws), "image 0 is open");
    submit_one(draws, 0, 0, 9, 0);
    CHECK(df_draws_done(draws) && df_draws_next(draws, 16, index, draw) == 0, "all resolved");
    submit_one(draws, 0, 2, 0.5, 0); /* was on its way; changes nothing but the count */
    CHECK(df_draws_result(draws, used, draw, outcome, &error) == DF_OK, "%s", error.message);
    CHECK(memcmp(draw, (int32_t[]){1, 0, 2}, 12) == 0, "%d %d %d", draw[0], draw[1], draw[2]);
    CHECK(memcmp(used, (int32_t[]){3, 1, 3}, 12) == 0, "%d %d %d", used[0], used[1], used[2]);
    CHECK(outcome[0] == DF_INSIDE && outcome[1] == DF_INSIDE && outcome[2] == DF_INSIDE, "outcomes");
    df_draws_destroy(draws);
}

static void test_refused_submits_change_nothing(void) {
    const int32_t labels[2] = {0, 0};
    int32_t index[4], draw[4], predicted[4] = {0};
    double phi[4] = {0};
    df_draws *draws = create(2, 2, labels, (df_interval){0, 1}, false);
    CHECK(df_draws_next(draws, 3, index, draw) == 3, "(0, 0) (1, 0) (0, 1)");
    static const struct {
        int32_t index[3], draw[3];
        double last_phi;
        const char *words;
    } bad[] = {
        {{0, 1, 1}, {0, 0, 1}, 0, "(1, 1) was not handed out"}, {{0, 1, 0}, {0, 0, 0}, 0, "(0, 0) was submitted"},
        {{0, 1, 2}, {0, 0, 0}, 0, "(2, 0) is none of"},         {{0, 1, -1}, {0, 0, 0}, 0, "(-1, 0) is none of"},
        {{0, 1, 0}, {0, 0, 2}, 0, "(0, 2) is none of"},         {{0, 1, 0}, {0, 0, -1}, 0, "(0, -1) is none of"},
        {{0, 1, 0}, {0, 0, 1}, (double)NAN, "phi is NaN"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        phi[2] = bad[i].last_phi;
        CHECK(df_draws_submit(draws, 3, bad[i].index, bad[i].draw, phi, predicted, &error) == DF_INVALID, "case %zu",
              i);
        CHECK(strstr(error.message, bad[i].words), "case %zu: %s", i, error.message);
    }
    phi[2] = 0;
    CHECK(df_draws_submit(draws, 3, index, draw, phi, predicted, &error) == DF_OK, "%s", error.message);
    CHECK(df_draws_submit(draws, 1, index, draw, phi, predicted, &error) == DF_INVALID, "twice");
    df_draws_destroy(draws);
}

/* Run to the end, `most` items at a time, results in random order and with random delay. */
static void run(df_draws *draws, const double *phi, const int32_t *predicted, int64_t most, uint8_t *given) {
    const int32_t n = df_draws_n(draws);
    const size_t items = (size_t)df_draws_images(draws) * (size_t)n;
    int32_t *index = malloc(items * sizeof *index), *draw = malloc(items * sizeof *draw);
    int64_t waiting = 0;
    while (!df_draws_done(draws)) {
        int64_t got = df_draws_next(draws, most, index + waiting, draw + waiting);
        for (int64_t m = waiting; m < waiting + got; m++) {
            CHECK(given[index[m] * n + draw[m]]++ == 0, "(%d, %d) handed out twice", index[m], draw[m]);
        }
        waiting += got;
        CHECK(waiting > 0, "neither done nor anything to do");
        for (int64_t left = got ? (int64_t)random_below((uint32_t)waiting + 1) : waiting; left > 0; left--) {
            int64_t m = (int64_t)random_below((uint32_t)waiting);
            int32_t item = index[m] * n + draw[m];
            submit_one(draws, index[m], draw[m], phi[item], predicted[item]);
            index[m] = index[--waiting];
            draw[m] = draw[waiting];
        }
    }
    free(index);
    free(draw);
}

static void test_early_equals_full_equals_select(void) {
    enum { IMAGES = 40, N = 9 };
    static const df_interval intervals[] = {
        {-1, 1}, {0.25, 0.25}, {-(double)INFINITY, (double)INFINITY}, {50, 60}, {-(double)INFINITY, -2}};
    for (int round = 0; round < 200; round++) {
        double phi[IMAGES * N];
        int32_t predicted[IMAGES * N], labels[IMAGES];
        for (int i = 0; i < IMAGES * N; i++) {
            phi[i] = random_below(33) / 4.0 - 4; /* with ties */
            predicted[i] = (int32_t)random_below(3);
        }
        for (int i = 0; i < IMAGES; i++) {
            labels[i] = (int32_t)random_below(3);
        }
        df_interval interval = intervals[round % 5];
        int32_t expected[IMAGES], draw[IMAGES], used[2][IMAGES];
        int8_t expected_outcome[IMAGES], outcome[IMAGES];
        CHECK(df_select(IMAGES, N, phi, predicted, labels, interval, expected, expected_outcome, &error) == DF_OK, "%s",
              error.message);
        for (int early = 0; early < 2; early++) {
            uint8_t given[IMAGES * N] = {0};
            df_draws *draws = create(IMAGES, N, labels, interval, early);
            run(draws, phi, predicted, 1 + random_below(70), given);
            CHECK(df_draws_result(draws, used[early], draw, outcome, &error) == DF_OK, "%s", error.message);
            CHECK(memcmp(draw, expected, sizeof draw) == 0, "round %d, early %d: draws", round, early);
            CHECK(memcmp(outcome, expected_outcome, sizeof outcome) == 0, "round %d, early %d: outcomes", round, early);
            for (int i = 0; i < IMAGES; i++) {
                int32_t least = early && outcome[i] == DF_INSIDE ? draw[i] + 1 : N;
                CHECK(used[early][i] >= least && used[early][i] <= N, "image %d used %d", i, used[early][i]);
            }
            df_draws_destroy(draws);
        }
    }
}

/* One item at a time nothing is drawn ahead: early mode computes exactly the draws up to the answer. */
static void test_early_is_frugal(void) {
    enum { IMAGES = 30, N = 10 };
    int32_t labels[IMAGES] = {0}, used[IMAGES], draw[IMAGES];
    int8_t outcome[IMAGES];
    df_draws *draws = create(IMAGES, N, labels, (df_interval){0, 1}, true);
    int32_t index, j;
    while (df_draws_next(draws, 1, &index, &j) == 1) {
        submit_one(draws, index, j, j == index % (N + 1) ? 0.5 : 2, 0);
    }
    CHECK(df_draws_result(draws, used, draw, outcome, &error) == DF_OK, "%s", error.message);
    for (int i = 0; i < IMAGES; i++) {
        int hit = i % (N + 1);
        CHECK(used[i] == (hit < N ? hit + 1 : N), "image %d used %d", i, used[i]);
        CHECK(outcome[i] == (hit < N ? DF_INSIDE : DF_NEAREST), "image %d: outcome %d", i, outcome[i]);
    }
    df_draws_destroy(draws);
}

static void test_create_errors(void) {
    const int32_t labels[1] = {0}, negative[1] = {-3};
    df_draws *draws;
    CHECK(df_draws_create(0, 1, labels, (df_interval){0, 1}, false, &draws, &error) == DF_INVALID, "no images");
    CHECK(df_draws_create(1, 0, labels, (df_interval){0, 1}, false, &draws, &error) == DF_INVALID, "no draws");
    CHECK(df_draws_create(1, 1, labels, (df_interval){1, 0}, false, &draws, &error) == DF_INVALID, "interval");
    CHECK(df_draws_create(1, 1, negative, (df_interval){0, 1}, false, &draws, &error) == DF_INVALID, "label");
    CHECK(draws == NULL, "an object beside an error");
    df_draws_destroy(NULL);
}

int main(void) {
    test_waves();
    test_refused_submits_change_nothing();
    test_early_equals_full_equals_select();
    test_early_is_frugal();
    test_create_errors();
    return check_report("draws");
}
