/* Counts of resamples on cases that can be worked out by hand; tests/test_bootstrap_core.py compares with plain NumPy. */
#include "check.h"
#include "diffence.h"

#include <stdint.h>
#include <string.h>

static df_error error;

#define INTS(...) ((const int32_t[]){__VA_ARGS__})

/* attacks.md 9.4: scores .99 .9 .6 .45 .2 .1, members are the first, the second and the fourth. */
static const df_bootstrap six = {.rows = 1,
                                 .pairs = 1,
                                 .members = 3,
                                 .nonmembers = 3,
                                 .member_places = (const int32_t[]){3, 1, 0},
                                 .nonmember_places = (const int32_t[]){5, 2, 4},
                                 .member_draws = (const int32_t[]){0, 1, 2},
                                 .nonmember_draws = (const int32_t[]){0, 1, 2}};

static void check_counts(const char *name, const df_bootstrap *plan, const int64_t *expected) {
    int64_t counts[64] = {0};
    const int64_t size = 4 * plan->pairs * plan->rows;
    for (int32_t threads = 1; threads <= 3; threads++) {
        memset(counts, -1, sizeof counts);
        CHECK(df_bootstrap_counts(plan, threads, counts, &error) == DF_OK, "%s: %s", name, error.message);
        for (int64_t i = 0; i < size; i++) {
            CHECK(counts[i] == expected[i], "%s: count %d is %d, expected %d", name, (int)i, (int)counts[i],
                  (int)expected[i]);
        }
        CHECK(counts[size] == -1, "%s: written beyond the end", name);
    }
}

#define COUNTS(...) ((const int64_t[]){__VA_ARGS__})

static void test_six_samples(void) {
    df_bootstrap plan = six;
    check_counts("AUC 8/9, oracle 1/2 + 6/18", &plan, COUNTS(16, 6, 2, 1));
    plan.false_positives = plan.false_negatives = 1;
    check_counts("one allowed", &plan, COUNTS(16, 6, 3, 0));
    plan.false_positives = plan.false_negatives = 3;
    check_counts("all allowed", &plan, COUNTS(16, 6, 3, 0));
    plan.false_positives = plan.false_negatives = INT32_MAX;
    check_counts("more than all allowed", &plan, COUNTS(16, 6, 3, 0));
}

static void test_resamples(void) {
    df_bootstrap plan = six;
    plan.rows = 3;
    plan.member_draws = INTS(0, 0, 0, 2, 2, 1, 0, 1, 2);
    plan.nonmember_draws = INTS(1, 1, 1, 1, 0, 0, 0, 1, 2);
    /* The weakest member against the strongest non-member, thrice; then a perfect row; then the samples themselves. */
    check_counts("rows", &plan, COUNTS(0, 18, 16, 0, 9, 6, 0, 3, 2, 3, 0, 1));
}

static void test_pairs_and_ties(void) {
    df_bootstrap plan = {.rows = 2,
                         .pairs = 3,
                         .members = 2,
                         .nonmembers = 1,
                         .member_places = INTS(0, 0, 0, 1, 1, 2),
                         .nonmember_places = INTS(0, 1, 0),
                         .member_draws = INTS(0, 1, 1, 1),
                         .nonmember_draws = INTS(0, 0)};
    /* All tied; one above and one tied; all below. Second resample: the second member twice. */
    check_counts("ties", &plan, COUNTS(2, 2, 3, 2, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 1, 1, 1, 1, 1));
}

static void test_refusals(void) {
    int64_t counts[4];
    const struct {
        df_bootstrap plan;
        int32_t threads;
        const char *words;
    } bad[] = {
        {{.rows = 0, .pairs = 1, .members = 1, .nonmembers = 1}, 1, "0, 1, 1 and 1"},
        {{.rows = 1, .pairs = 0, .members = 1, .nonmembers = 1}, 1, "1, 0, 1 and 1"},
        {{.rows = 1, .pairs = 1, .members = 0, .nonmembers = 1}, 1, "1, 1, 0 and 1"},
        {{.rows = 1, .pairs = 1, .members = 1, .nonmembers = -1}, 1, "1, 1, 1 and -1"},
        {{.rows = 1, .pairs = 1, .members = INT32_MAX, .nonmembers = 1}, 1, "fewer than 2**31 - 1 samples"},
        {{.rows = 1, .pairs = 1, .members = 1, .nonmembers = 1, .false_positives = -1}, 1, "got -1 and 0"},
        {{.rows = 1, .pairs = 1, .members = 1, .nonmembers = 1}, 0, "threads"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        CHECK(df_bootstrap_counts(&bad[i].plan, bad[i].threads, counts, &error) == DF_INVALID, "case %zu", i);
        CHECK(strstr(error.message, bad[i].words), "case %zu: %s", i, error.message);
    }
    df_bootstrap plan = six;
    const int32_t *outside[] = {INTS(0, 1, 3), INTS(0, -1, 2), INTS(0, INT32_MAX, 2), INTS(INT32_MIN, 1, 2)};
    for (size_t i = 0; i < sizeof outside / sizeof *outside; i++) {
        plan.member_draws = outside[i];
        CHECK(df_bootstrap_counts(&plan, 2, counts, &error) == DF_INVALID && strstr(error.message, "resample 0"),
              "%zu: %s", i, error.message);
        plan.member_draws = six.member_draws;
        plan.nonmember_draws = outside[i];
        CHECK(df_bootstrap_counts(&plan, 2, counts, &error) == DF_INVALID && strstr(error.message, "resample 0"),
              "%zu: %s", i, error.message);
        plan.nonmember_draws = six.nonmember_draws;
        if (i > 0) { /* 3 is a place, if no position */
            plan.nonmember_places = outside[i];
            CHECK(df_bootstrap_counts(&plan, 2, counts, &error) == DF_INVALID && strstr(error.message, "places"),
                  "%zu: %s", i, error.message);
            plan.nonmember_places = six.nonmember_places;
        }
    }
}

int main(void) {
    test_six_samples();
    test_resamples();
    test_pairs_and_ties();
    test_refusals();
    return check_report("bootstrap");
}
