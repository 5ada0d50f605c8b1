/* The choice among draws, on cases small enough to read. */
#include "check.h"
#include "diffence.h"

#include <math.h>
#include <string.h>

#define INF ((double)INFINITY)

static df_error error;

static void check_choice(const char *name, int32_t n, const double *phi, const int32_t *predicted, df_interval interval,
                         int32_t expected_draw, df_outcome expected_outcome) {
    const int32_t label = 1;
    int32_t draw = -1;
    int8_t outcome = -1;
    CHECK(df_select(1, n, phi, predicted, &label, interval, &draw, &outcome, &error) == DF_OK, "%s", error.message);
    CHECK(draw == expected_draw && outcome == (int8_t)expected_outcome, "%s: draw %d, outcome %d", name, draw, outcome);
}

#define PHI(...)   ((const double[]){__VA_ARGS__})
#define CLASS(...) ((const int32_t[]){__VA_ARGS__})

static void test_choices(void) {
    df_interval unit = {0, 1}, all = {-INF, INF}, below = {-INF, 0}, above = {0, INF};
    check_choice("first inside, not the middle one", 4, PHI(2, 0.9, 0.5, 0.5), CLASS(1, 1, 1, 1), unit, 1, DF_INSIDE);
    check_choice("another class inside does not count", 3, PHI(0.5, 3, 0.2), CLASS(0, 1, 1), unit, 2, DF_INSIDE);
    check_choice("closed below", 2, PHI(-1, 0), CLASS(1, 1), unit, 1, DF_INSIDE);
    check_choice("closed above", 2, PHI(-1, 1), CLASS(1, 1), unit, 1, DF_INSIDE);
    check_choice("nearest", 3, PHI(5, -0.5, 1.4), CLASS(1, 1, 1), unit, 2, DF_NEAREST);
    check_choice("first of two equally near", 3, PHI(5, -0.5, 1.5), CLASS(1, 1, 1), unit, 1, DF_NEAREST);
    check_choice("nearest of those that agree", 3, PHI(5, 1.1, -3), CLASS(1, 0, 1), unit, 2, DF_NEAREST);
    check_choice("fallback: nearest of all", 3, PHI(5, 1.1, -3), CLASS(0, 0, 2), unit, 1, DF_FALLBACK);
    check_choice("fallback: first inside", 3, PHI(5, 0.5, 0.5), CLASS(0, 0, 2), unit, 1, DF_FALLBACK);
    check_choice("a point", 3, PHI(0.3, 0.25, 0.2), CLASS(1, 1, 1), (df_interval){0.25, 0.25}, 1, DF_INSIDE);
    check_choice("scenario 3: first that agrees", 3, PHI(9, -9, 0), CLASS(0, 1, 1), all, 1, DF_INSIDE);
    check_choice("scenario 3: fallback", 2, PHI(9, -9), CLASS(0, 0), all, 0, DF_FALLBACK);
    check_choice("open below", 2, PHI(0.1, -1e300), CLASS(1, 1), below, 1, DF_INSIDE);
    check_choice("open below, nearest", 2, PHI(0.2, 0.1), CLASS(1, 1), below, 1, DF_NEAREST);
    check_choice("open above, nearest", 2, PHI(-0.2, -0.3), CLASS(1, 1), above, 0, DF_NEAREST);
    check_choice("infinite phi, inside", 1, PHI(INF), CLASS(1), above, 0, DF_INSIDE);
    check_choice("infinite phi, far", 2, PHI(INF, 7), CLASS(1, 1), unit, 1, DF_NEAREST);
    check_choice("infinite phi, nothing else", 1, PHI(-INF), CLASS(1), unit, 0, DF_NEAREST);
}

static void test_errors(void) {
    const double phi[4] = {0, 1, (double)NAN, 3};
    const int32_t predicted[4] = {0}, labels[2] = {0, -1};
    int32_t draw[2];
    int8_t outcome[2];
    df_interval unit = {0, 1};
    CHECK(df_select(2, 2, phi, predicted, predicted, unit, draw, outcome, &error) == DF_INVALID, "NaN phi");
    CHECK(strstr(error.message, "image 1, draw 0"), "%s", error.message);
    CHECK(df_select(2, 1, phi, predicted, labels, unit, draw, outcome, &error) == DF_INVALID, "label -1");
    CHECK(strstr(error.message, "labels[1] is -1"), "%s", error.message);
    CHECK(df_select(1, 0, phi, predicted, labels, unit, draw, outcome, &error) == DF_INVALID, "no draws");
    static const df_interval bad[] = {{1, 0}, {(double)NAN, 1}, {0, (double)NAN}, {INF, -INF}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        CHECK(df_select(1, 1, phi, predicted, labels, bad[i], draw, outcome, &error) == DF_INVALID, "interval %zu", i);
        CHECK(strstr(error.message, "low <= high"), "%s", error.message);
    }
}

int main(void) {
    test_choices();
    test_errors();
    return check_report("select");
}
