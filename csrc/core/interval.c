/* Scenario 1: the interval of phi for which members and non-members answer most alike.
 *
 * The grid lies over the overlap of the groups, [a, b] = [min phi of members, max phi of non-members], both over the
 * draws that keep their image's label. Where the groups do not overlap (a > b), it lies over the gap between them, so
 * that both groups are drawn to each other. Where a = b there is one candidate, [a, a].
 *
 * For every pair of edges, each image gives the phi that the selection would choose, and the two groups' histograms
 * are compared. Pairs are in the order (edge 0, edge 1), (0, 2) ... (0, last), (1, 2) ...; the first minimum wins, where
 * what differs by less than TIE counts as equal: the same counts in other bins sum up to another last bit.
 *
 * `official` takes the distance to the interval where the release takes the distance to its middle: phi outside is
 * further from the middle by half a width, whatever the draw, so the order is the same. */
#include "select.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

enum { STEPS = 20, MOST_EDGES = STEPS + 2, BINS = 100 };
static const double LARGEST = 1e300; /* so that no difference of two phi, times STEPS, overflows */
static const double TIE = 1e-12;

/* What the selection has to choose from, members' images before non-members'. */
typedef struct candidates {
    double *phi;    /* of every candidate, image after image */
    int64_t *start; /* [images + 1]: where each image's candidates start */
    double *chosen; /* [images]: phi of the selected one under the interval at hand */
    int64_t members, images;
    double lowest_member, highest_nonmember; /* over the draws, without the originals */
} candidates;

static df_code check(int64_t images, int32_t n, const double *phi, const double *phi_original, df_mode mode,
                     df_error *error) {
    if (mode != DF_PAPER && mode != DF_OFFICIAL) {
        return df_fail(error, DF_INVALID, "mode is %d, expected DF_PAPER or DF_OFFICIAL", (int)mode);
    }
    if (images < 1 || n < 1) {
        return df_fail(error, DF_INVALID, "phi is %" PRId64 " images x %d draws, expected at least one of each", images,
                       n);
    }
    if ((phi_original != NULL) != (mode == DF_OFFICIAL)) {
        return df_fail(error, DF_INVALID, "phi_original belongs to official mode: %s",
                       phi_original ? "it was given in paper mode" : "it is missing");
    }
    for (int64_t i = 0; i < images * n; i++) {
        if (!(fabs(phi[i]) <= LARGEST)) {
            return df_fail(error, DF_INVALID, "phi of image %" PRId64 ", draw %" PRId64 " is %g, expected at most +-%g",
                           i / n, i % n, phi[i], LARGEST);
        }
    }
    for (int64_t i = 0; phi_original && i < images; i++) {
        if (!(fabs(phi_original[i]) <= LARGEST)) {
            return df_fail(error, DF_INVALID, "phi_original[%" PRId64 "] is %g, expected at most +-%g", i,
                           phi_original[i], LARGEST);
        }
    }
    return DF_OK;
}

static df_code gather(candidates *all, int64_t images, int32_t n, const double *phi, const uint8_t *match,
                      const uint8_t *member, const double *phi_original, df_error *error) {
    int64_t groups[2] = {0, 0}, end = 0;
    all->lowest_member = INFINITY;
    all->highest_nonmember = -INFINITY;
    for (int group = 1; group >= 0; group--) {
        for (int64_t i = 0; i < images; i++) {
            if ((member[i] != 0) != group) {
                continue;
            }
            groups[group]++;
            all->start[all->images] = end;
            for (int32_t j = 0; j < n; j++) {
                double value = phi[i * n + j];
                if (!match[i * n + j]) {
                    continue;
                }
                all->phi[end++] = value;
                if (group) {
                    all->lowest_member = fmin(all->lowest_member, value);
                } else {
                    all->highest_nonmember = fmax(all->highest_nonmember, value);
                }
            }
            if (phi_original) { /* the original agrees with itself, so no image is left out */
                all->phi[end++] = phi_original[i];
            }
            all->images += end > all->start[all->images];
        }
        if (group) {
            all->members = all->images;
        }
    }
    all->start[all->images] = end;
    if (groups[0] == 0 || groups[1] == 0) {
        return df_fail(error, DF_INVALID, "member names %" PRId64 " members and %" PRId64 " non-members, expected both",
                       groups[1], groups[0]);
    }
    if (!isfinite(all->lowest_member) || !isfinite(all->highest_nonmember)) {
        return df_fail(error, DF_INVALID, "match has no draw that keeps its label among the %s",
                       isfinite(all->lowest_member) ? "non-members" : "members");
    }
    return DF_OK;
}

/* Edges of the grid over [a, b], ascending; returns how many. */
static int make_edges(double a, double b, df_mode mode, double edges[MOST_EDGES]) {
    double step = (b - a) / STEPS;
    edges[0] = a;
    if (!(step > 0)) { /* a = b, or so close that a step is below the smallest double */
        return 1;
    }
    if (mode == DF_PAPER) {
        for (int i = 1; i < STEPS; i++) {
            edges[i] = a + (b - a) * i / STEPS;
        }
        edges[STEPS] = b;
        return STEPS + 1;
    }
    /* numpy.arange(a, b + step, step): the length is rounded up, so that a last edge beyond b can slip in, and the
     * values are spaced by the difference of the first two. */
    int count = (int)fmin(ceil((b + step - a) / step), MOST_EDGES);
    double spacing = (a + step) - a;
    for (int i = 1; i < count; i++) {
        edges[i] = a + i * spacing;
    }
    return count;
}

/* The first candidate inside, else the nearest one. */
static double choose(const double *phi, const double *end, df_interval interval) {
    double nearest = *phi, least = INFINITY;
    for (; phi < end; phi++) {
        double distance = df_interval_distance(interval, *phi);
        if (distance == 0) {
            return *phi;
        }
        if (distance < least) {
            least = distance;
            nearest = *phi;
        }
    }
    return nearest;
}

/* 100 equal bins over [low, high], each closed below and open above, the last one closed; values outside are lost. The
 * edges are numpy.linspace's and decide, the division only guesses. */
static void histogram(const double *values, int64_t count, double low, double high, double counts[BINS]) {
    double edges[BINS + 1], width = high - low, step = width / BINS;
    for (int i = 0; i < BINS; i++) {
        edges[i] = i * step + low;
        counts[i] = 0;
    }
    edges[BINS] = high;
    for (int64_t i = 0; i < count; i++) {
        double x = values[i];
        if (x < low || x > high) {
            continue;
        }
        double guess = (x - low) / width * BINS;
        int bin = guess < BINS ? (int)guess : BINS - 1; /* also where the width is 0 and the guess is no number */
        if (bin > 0 && x < edges[bin]) {
            bin--;
        } else if (bin < BINS - 1 && x >= edges[bin + 1]) {
            bin++;
        }
        counts[bin]++;
    }
}

/* Counts to frequencies. Empty bins count 1e-19, so that every logarithm below is finite. */
static void normalise(double counts[BINS]) {
    double sum = 0;
    for (int i = 0; i < BINS; i++) {
        counts[i] = fmax(counts[i], 1e-19);
        sum += counts[i];
    }
    for (int i = 0; i < BINS; i++) {
        counts[i] /= sum;
    }
}

/* KL(p || m) / 2 + KL(q || m) / 2 with m = (p + q) / 2, natural logarithm; 0..ln 2. */
static double jensen_shannon(const double p[BINS], const double q[BINS]) {
    double sum = 0;
    for (int i = 0; i < BINS; i++) {
        double m = (p[i] + q[i]) / 2;
        sum += p[i] * log(p[i] / m) + q[i] * log(q[i] / m);
    }
    return fmax(sum / 2, 0); /* rounding may leave it a little below */
}

static double score(candidates *all, df_interval interval, df_mode mode) {
    for (int64_t i = 0; i < all->images; i++) {
        all->chosen[i] = choose(all->phi + all->start[i], all->phi + all->start[i + 1], interval);
    }
    double low = INFINITY, high = -INFINITY; /* pooled, or of the non-members alone in official mode */
    for (int64_t i = mode == DF_PAPER ? 0 : all->members; i < all->images; i++) {
        low = fmin(low, all->chosen[i]);
        high = fmax(high, all->chosen[i]);
    }
    if (low == high) { /* as numpy.histogram does */
        low -= 0.5;
        high += 0.5;
    }
    double p[BINS], q[BINS];
    histogram(all->chosen, all->members, low, high, p);
    histogram(all->chosen + all->members, all->images - all->members, low, high, q);
    normalise(p);
    normalise(q);
    double divergence = jensen_shannon(p, q);
    return mode == DF_PAPER ? divergence : sqrt(divergence);
}

static df_code search(candidates *all, df_mode mode, df_search *result, int32_t room, double *lows, double *highs,
                      double *divergences, df_error *error) {
    double edges[MOST_EDGES];
    double a = fmin(all->lowest_member, all->highest_nonmember), b = fmax(all->lowest_member, all->highest_nonmember);
    int count = make_edges(a, b, mode, edges);
    int32_t pairs = count == 1 ? 1 : count * (count - 1) / 2;
    if (lows && room < pairs) {
        return df_fail(error, DF_INVALID, "room is %d pairs, expected at least %d", room, pairs);
    }
    *result = (df_search){.divergence = INFINITY};
    for (int i = 0; i < count; i++) {
        for (int j = count == 1 ? 0 : i + 1; j < count; j++) {
            df_interval interval = {edges[i], edges[j]};
            double divergence = score(all, interval, mode);
            if (lows) {
                lows[result->pairs] = interval.low;
                highs[result->pairs] = interval.high;
                divergences[result->pairs] = divergence;
            }
            if (divergence < result->divergence - TIE) {
                *result = (df_search){interval, divergence, result->pairs, result->pairs};
            }
            result->pairs++;
        }
    }
    return DF_OK;
}

df_code df_search_interval(int64_t images, int32_t n, const double *phi, const uint8_t *match, const uint8_t *member,
                           const double *phi_original, df_mode mode, df_search *result, int32_t room, double *lows,
                           double *highs, double *divergences, df_error *error) {
    if ((lows == NULL) != (highs == NULL) || (lows == NULL) != (divergences == NULL)) {
        return df_fail(error, DF_INVALID, "lows, highs and divergences: expected all three or none");
    }
    df_code code = check(images, n, phi, phi_original, mode, error);
    if (code != DF_OK) {
        return code;
    }
    size_t count = (size_t)images;
    candidates all = {.phi = calloc(count * ((size_t)n + 1), sizeof *all.phi),
                      .start = calloc(count + 1, sizeof *all.start),
                      .chosen = calloc(count, sizeof *all.chosen)};
    if (!all.phi || !all.start || !all.chosen) {
        code = df_fail(error, DF_OUT_OF_MEMORY, "no memory to search %" PRId64 " images x %d draws", images, n);
    } else {
        code = gather(&all, images, n, phi, match, member, phi_original, error);
    }
    if (code == DF_OK) {
        code = search(&all, mode, result, room, lows, highs, divergences, error);
    }
    free(all.phi);
    free(all.start);
    free(all.chosen);
    return code;
}
