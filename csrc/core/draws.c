/* The scheduler of (image, draw) items: keeps the engine's batch full, and in early mode stops each image as soon as
 * its answer can no longer change. Answers depend on neither the mode nor the order in which results arrive. */
#include "select.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { WAITING = 0, HANDED_OUT, KNOWN };

struct df_draws {
    int64_t images, resolved_images;
    int32_t n;
    bool early;
    df_interval interval;
    int32_t *labels; /* [images] */
    /* Items, [images, n]. */
    double *phi;
    int32_t *predicted;
    uint8_t *state;
    /* Of each image. */
    int32_t *prefix; /* draws 0..prefix-1 are known; once resolved, they hold the answer */
    int32_t *used;   /* results submitted */
    bool *resolved;
    /* The wave: draw `wave` of the images active[next..active_count-1] comes next. */
    int32_t *active;
    int64_t active_count, next;
    int32_t wave;
};

df_code df_draws_create(int64_t images, int32_t n, const int32_t *labels, df_interval interval, bool early,
                        df_draws **draws, df_error *error) {
    *draws = NULL;
    if (images < 1 || images > INT32_MAX) { /* items name their image by an int32 */
        return df_fail(error, DF_INVALID, "labels has %" PRId64 " images, expected 1..%d", images, INT32_MAX);
    }
    if (n < 1) {
        return df_fail(error, DF_INVALID, "n is %d draws, expected at least 1", n);
    }
    df_code code = df_interval_check(interval, error);
    if (code == DF_OK) {
        code = df_labels_check(images, labels, error);
    }
    if (code != DF_OK) {
        return code;
    }
    size_t count = (size_t)images, items = count * (size_t)n; /* below 2^62: calloc checks the rest */
    df_draws *made = calloc(1, sizeof *made);
    if (made) {
        made->labels = calloc(count, sizeof *made->labels);
        made->phi = calloc(items, sizeof *made->phi);
        made->predicted = calloc(items, sizeof *made->predicted);
        made->state = calloc(items, sizeof *made->state);
        made->prefix = calloc(count, sizeof *made->prefix);
        made->used = calloc(count, sizeof *made->used);
        made->resolved = calloc(count, sizeof *made->resolved);
        made->active = calloc(count, sizeof *made->active);
    }
    if (!made || !made->labels || !made->phi || !made->predicted || !made->state || !made->prefix || !made->used ||
        !made->resolved || !made->active) {
        df_draws_destroy(made);
        return df_fail(error, DF_OUT_OF_MEMORY, "no memory for %d draws of %" PRId64 " images", n, images);
    }
    made->images = made->active_count = images;
    made->n = n;
    made->early = early;
    made->interval = interval;
    memcpy(made->labels, labels, count * sizeof *labels);
    for (int64_t i = 0; i < images; i++) {
        made->active[i] = (int32_t)i;
    }
    *draws = made;
    return DF_OK;
}

void df_draws_destroy(df_draws *draws) {
    if (draws) {
        free(draws->labels);
        free(draws->phi);
        free(draws->predicted);
        free(draws->state);
        free(draws->prefix);
        free(draws->used);
        free(draws->resolved);
        free(draws->active);
        free(draws);
    }
}

/* Resolved images leave the list once per wave, so a call costs what it hands out, not what there is. */
static void start_wave(df_draws *draws) {
    int64_t kept = 0;
    for (int64_t i = 0; i < draws->active_count; i++) {
        if (!draws->resolved[draws->active[i]]) {
            draws->active[kept++] = draws->active[i];
        }
    }
    draws->active_count = kept;
    draws->next = 0;
    draws->wave++;
}

int64_t df_draws_next(df_draws *draws, int64_t most, int32_t *index, int32_t *draw) {
    int64_t written = 0;
    while (written < most && !df_draws_done(draws)) {
        if (draws->next == draws->active_count) {
            if (draws->wave == draws->n - 1) {
                break;
            }
            start_wave(draws);
            continue;
        }
        int32_t image = draws->active[draws->next++];
        if (!draws->resolved[image]) {
            draws->state[(int64_t)image * draws->n + draws->wave] = HANDED_OUT;
            index[written] = image;
            draw[written++] = draws->wave;
        }
    }
    return written;
}

/* Extend the image's known prefix. In early mode it ends at the first draw that is inside: no later result can take
 * the place of that one. */
static void resolve(df_draws *draws, int32_t image) {
    const int64_t row = (int64_t)image * draws->n;
    int32_t *prefix = draws->prefix + image;
    while (!draws->resolved[image] && draws->state[row + *prefix] == KNOWN) {
        int64_t item = row + (*prefix)++;
        bool inside = draws->predicted[item] == draws->labels[image] &&
                      df_interval_distance(draws->interval, draws->phi[item]) == 0;
        if (*prefix == draws->n || (draws->early && inside)) {
            draws->resolved[image] = true;
            draws->resolved_images++;
        }
    }
}

df_code df_draws_submit(df_draws *draws, int64_t count, const int32_t *index, const int32_t *draw, const double *phi,
                        const int32_t *predicted, df_error *error) {
    df_code code = DF_OK;
    int64_t accepted = 0;
    for (; accepted < count; accepted++) {
        int32_t i = index[accepted], j = draw[accepted];
        if (i < 0 || i >= draws->images || j < 0 || j >= draws->n) {
            code = df_fail(error, DF_INVALID, "item (%d, %d) is none of %" PRId64 " images x %d draws", i, j,
                           draws->images, draws->n);
            break;
        }
        uint8_t *state = draws->state + (int64_t)i * draws->n + j;
        if (*state != HANDED_OUT) {
            code = df_fail(error, DF_INVALID, "item (%d, %d) was %s", i, j,
                           *state == KNOWN ? "submitted before" : "not handed out");
            break;
        }
        if (isnan(phi[accepted])) {
            code = df_fail(error, DF_INVALID, "phi is NaN at image %d, draw %d", i, j);
            break;
        }
        *state = KNOWN;
    }
    if (code != DF_OK) { /* all of a submit counts or nothing of it */
        while (accepted-- > 0) {
            draws->state[(int64_t)index[accepted] * draws->n + draw[accepted]] = HANDED_OUT;
        }
        return code;
    }
    for (int64_t m = 0; m < count; m++) {
        int64_t item = (int64_t)index[m] * draws->n + draw[m];
        draws->phi[item] = phi[m];
        draws->predicted[item] = predicted[m];
        draws->used[index[m]]++;
    }
    for (int64_t m = 0; m < count; m++) {
        resolve(draws, index[m]);
    }
    return DF_OK;
}

bool df_draws_done(const df_draws *draws) {
    return draws->resolved_images == draws->images;
}

int64_t df_draws_images(const df_draws *draws) {
    return draws->images;
}

int32_t df_draws_n(const df_draws *draws) {
    return draws->n;
}

df_code df_draws_result(const df_draws *draws, int32_t *used, int32_t *draw, int8_t *outcome, df_error *error) {
    if (!df_draws_done(draws)) {
        return df_fail(error, DF_INVALID, "%" PRId64 " of %" PRId64 " images still wait for results",
                       draws->images - draws->resolved_images, draws->images);
    }
    for (int64_t i = 0; i < draws->images; i++) {
        used[i] = draws->used[i];
        outcome[i] = (int8_t)df_select_row(draws->prefix[i], draws->phi + i * draws->n, draws->predicted + i * draws->n,
                                           draws->labels[i], draws->interval, draw + i);
    }
    return DF_OK;
}
