/* The interval search on cases whose answer is known; tests/test_interval_search.py compares it to plain NumPy. */
#include "check.h"
#include "diffence.h"

#include <math.h>
#include <string.h>

enum { ROOM = 231 };

static df_error error;
static double lows[ROOM], highs[ROOM], divergences[ROOM];

static df_search search(int64_t images, int32_t n, const double *phi, const uint8_t *match, const uint8_t *member,
                        const double *original) {
    df_search result = {.pairs = -1};
    df_code code = df_search_interval(images, n, phi, match, member, original, original ? DF_OFFICIAL : DF_PAPER,
                                      &result, ROOM, lows, highs, divergences, &error);
    CHECK(code == DF_OK, "%s", error.message);
    return result;
}

/* The best of the list, the first of equals. */
static void check_best(const df_search *result) {
    int32_t best = 0;
    for (int32_t i = 1; i < result->pairs; i++) {
        best = divergences[i] < divergences[best] - 1e-12 ? i : best;
    }
    CHECK(result->best == best, "best %d, expected %d", result->best, best);
    CHECK(result->interval.low == lows[best] && result->interval.high == highs[best], "interval");
    CHECK(result->divergence == divergences[best], "divergence");
}

#define PHI(...)   ((const double[]){__VA_ARGS__})
#define BYTES(...) ((const uint8_t[]){__VA_ARGS__})

static void test_paper_grid(void) {
    /* Members 0 and 10, non-members -10 and 7: the grid lies over 0..7. */
    df_search result = search(4, 1, PHI(0, 10, -10, 7), BYTES(1, 1, 1, 1), BYTES(1, 1, 0, 0), NULL);
    CHECK(result.pairs == 210, "%d pairs", result.pairs);
    for (int i = 0, pair = 0; i < 21; i++) {
        for (int j = i + 1; j < 21; j++, pair++) {
            CHECK(lows[pair] == 7.0 * i / 20 && highs[pair] == 7.0 * j / 20, "pair %d: %g..%g", pair, lows[pair],
                  highs[pair]);
            /* One draw an image: nothing to choose. No two values share a bin, so nothing is alike. */
            CHECK(fabs(divergences[pair] - log(2)) < 1e-12, "pair %d: %g", pair, divergences[pair]);
        }
    }
    CHECK(result.best == 0 && result.interval.high == 7.0 / 20, "the first minimum wins, not pair %d", result.best);
}

static void test_finds_the_overlap(void) {
    /* Both images can answer 1 or 5, in opposite order: alike wherever one of the two is preferred. */
    df_search result = search(2, 2, PHI(1, 5, 5, 1), BYTES(1, 1, 1, 1), BYTES(1, 0), NULL);
    check_best(&result);
    CHECK(result.divergence == 0, "%g", result.divergence);
    for (int32_t pair = 0; pair < result.pairs; pair++) {
        bool both = lows[pair] <= 1 && highs[pair] >= 5, middle = lows[pair] - 1 == 5 - highs[pair];
        bool alike = !both && !middle; /* else each group takes its first draw */
        CHECK((divergences[pair] == 0) == alike, "%g..%g: %g", lows[pair], highs[pair], divergences[pair]);
    }
}

static void test_images_without_an_agreeing_draw(void) {
    /* Image 1 (member) and image 3 (non-member) never agree: the same result without them. */
    df_search with =
        search(4, 2, PHI(1, 2, 77, 99, 1.5, 0.5, -50, -60), BYTES(1, 1, 0, 0, 1, 1, 0, 0), BYTES(1, 1, 0, 0), NULL);
    df_search without = search(2, 2, PHI(1, 2, 1.5, 0.5), BYTES(1, 1, 1, 1), BYTES(1, 0), NULL);
    CHECK(with.divergence == without.divergence && with.best == without.best, "%g, %g", with.divergence,
          without.divergence);
    CHECK(with.interval.low == without.interval.low && with.interval.high == without.interval.high, "interval");
    /* In official mode their originals count: two images more in the histograms. */
    const double original[4] = {1, 77, 1.5, -50};
    search(4, 2, PHI(1, 2, 77, 99, 1.5, 0.5, -50, -60), BYTES(1, 1, 0, 0, 1, 1, 0, 0), BYTES(1, 1, 0, 0), original);
    CHECK(lows[0] == 1, "the originals are outside of the range: %g", lows[0]);
}

static void test_degenerate_ranges(void) {
    const double original[4] = {3, 3, 3, 3};
    for (int official = 0; official < 2; official++) {
        df_search same =
            search(4, 1, PHI(3, 3, 3, 3), BYTES(1, 1, 1, 1), BYTES(1, 0, 1, 0), official ? original : NULL);
        CHECK(same.pairs == 1 && same.interval.low == 3 && same.interval.high == 3, "%g..%g", same.interval.low,
              same.interval.high);
        CHECK(same.divergence == 0, "all alike: %g", same.divergence);
        /* Members above all non-members: the gap between them is searched. */
        df_search apart =
            search(4, 1, PHI(8, 9, 1, 2), BYTES(1, 1, 1, 1), BYTES(1, 1, 0, 0), official ? original : NULL);
        check_best(&apart);
        CHECK(apart.pairs >= 210 && lows[0] == 2, "%d pairs from %g", apart.pairs, lows[0]);
        for (int32_t pair = 0; pair < apart.pairs; pair++) {
            CHECK(lows[pair] < highs[pair] && lows[pair] >= 2 && highs[pair] < 8.4, "%g..%g", lows[pair], highs[pair]);
        }
        /* Neighbouring doubles and subnormal ranges: nothing to see, nothing to crash on. */
        search(2, 1, PHI(1, 1 + 0x1p-52), BYTES(1, 1), BYTES(1, 0), official ? original : NULL);
        search(2, 1, PHI(0, 0x1p-1074), BYTES(1, 1), BYTES(1, 0), official ? original : NULL);
        search(2, 1, PHI(-1e300, 1e300), BYTES(1, 1), BYTES(1, 0), official ? original : NULL);
        search(2, 1, PHI(1e300, 1e300), BYTES(1, 1), BYTES(1, 0), official ? original : NULL);
    }
}

static void test_official_edges(void) {
    int longer = 0;
    for (int i = 0; i < 1000; i++) {
        const double a = -3 - i * 0.0137, b = 2 + i * 0.0071, original[2] = {0, 0};
        df_search result = search(2, 1, PHI(a, b), BYTES(1, 1), BYTES(1, 0), original);
        CHECK(result.pairs == 210 || result.pairs == 231, "%d pairs", result.pairs);
        longer += result.pairs == 231;
        double last = highs[result.pairs - 1], step = (b - a) / 20;
        CHECK(fabs(last - (result.pairs == 231 ? b + step : b)) < 1e-12, "last edge %g", last);
    }
    CHECK(longer > 50 && longer < 300, "%d of 1000 ranges have 22 edges", longer); /* about one in seven */
}

static void test_errors(void) {
    const double phi[4] = {1, 2, 3, 4}, nan_phi[4] = {1, 2, (double)NAN, 4}, infinite[4] = {1, (double)INFINITY, 3, 4};
    const uint8_t all[4] = {1, 1, 1, 1}, none[4] = {0}, first[2] = {1, 0}, only_first[4] = {1, 1, 0, 0},
                  only_second[4] = {0, 0, 1, 1};
    const struct {
        const double *phi;
        const uint8_t *match, *member;
        const double *original;
        df_mode mode;
        int64_t images;
        int32_t n, room;
        const char *words;
    } bad[] = {
        {nan_phi, all, first, NULL, DF_PAPER, 2, 2, ROOM, "image 1, draw 0"},
        {infinite, all, first, NULL, DF_PAPER, 2, 2, ROOM, "image 0, draw 1"},
        {phi, all, all, NULL, DF_PAPER, 2, 2, ROOM, "2 members and 0 non-members"},
        {phi, all, none, NULL, DF_PAPER, 2, 2, ROOM, "0 members and 2 non-members"},
        {phi, none, first, NULL, DF_PAPER, 2, 2, ROOM, "among the members"},
        {phi, only_second, first, NULL, DF_PAPER, 2, 2, ROOM, "among the members"},
        {phi, only_first, first, NULL, DF_PAPER, 2, 2, ROOM, "among the non-members"},
        {phi, only_first, first, phi, DF_OFFICIAL, 2, 2, ROOM, "among the non-members"},
        {phi, all, first, phi, DF_PAPER, 2, 2, ROOM, "given in paper mode"},
        {phi, all, first, NULL, DF_OFFICIAL, 2, 2, ROOM, "missing"},
        {phi, all, first, infinite, DF_OFFICIAL, 2, 2, ROOM, "phi_original[1]"},
        {phi, all, first, NULL, DF_PAPER, 2, 2, 209, "room is 209"},
        {phi, all, first, NULL, DF_PAPER, 0, 2, ROOM, "0 images"},
        {phi, all, first, NULL, DF_PAPER, 2, 0, ROOM, "0 draws"},
        {phi, all, first, NULL, (df_mode)2, 2, 2, ROOM, "mode is 2"},
    };
    df_search result;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        error = (df_error){DF_OK, ""};
        df_code code =
            df_search_interval(bad[i].images, bad[i].n, bad[i].phi, bad[i].match, bad[i].member, bad[i].original,
                               bad[i].mode, &result, bad[i].room, lows, highs, divergences, &error);
        CHECK(code == DF_INVALID && strstr(error.message, bad[i].words), "case %zu: %s", i, error.message);
    }
    CHECK(df_search_interval(2, 2, phi, all, first, NULL, DF_PAPER, &result, ROOM, lows, NULL, NULL, &error) ==
              DF_INVALID,
          "lows alone");
    CHECK(df_search_interval(2, 2, phi, all, first, NULL, DF_PAPER, &result, 0, NULL, NULL, NULL, &error) == DF_OK,
          "%s", error.message);
}

int main(void) {
    test_paper_grid();
    test_finds_the_overlap();
    test_images_without_an_agreeing_draw();
    test_degenerate_ranges();
    test_official_edges();
    test_errors();
    return check_report("interval");
}
