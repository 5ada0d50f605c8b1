/* Which of an image's draws answers for it. Draws are independent and identically distributed, so the first acceptable
 * one is a uniform choice among the acceptable ones. */
#include "select.h"

#include <inttypes.h>
#include <math.h>

df_code df_interval_check(df_interval interval, df_error *error) {
    if (!(interval.low <= interval.high)) {
        return df_fail(error, DF_INVALID, "interval is (%g, %g), expected low <= high and no NaN", interval.low,
                       interval.high);
    }
    return DF_OK;
}

df_code df_labels_check(int64_t images, const int32_t *labels, df_error *error) {
    for (int64_t i = 0; i < images; i++) {
        if (labels[i] < 0) {
            return df_fail(error, DF_INVALID, "labels[%" PRId64 "] is %d, expected a class index", i, labels[i]);
        }
    }
    return DF_OK;
}

df_outcome df_select_row(int32_t n, const double *phi, const int32_t *predicted, int32_t label, df_interval interval,
                         int32_t *draw) {
    int32_t agreeing = -1, any = 0; /* the nearest so far, among the draws that agree and among all */
    double agreeing_distance = 0, any_distance = 0;
    for (int32_t j = 0; j < n; j++) {
        double distance = df_interval_distance(interval, phi[j]);
        if (predicted[j] == label) {
            if (distance == 0) {
                *draw = j;
                return DF_INSIDE;
            }
            if (agreeing < 0 || distance < agreeing_distance) {
                agreeing = j;
                agreeing_distance = distance;
            }
        }
        if (j == 0 || distance < any_distance) {
            any = j;
            any_distance = distance;
        }
    }
    *draw = agreeing >= 0 ? agreeing : any;
    return agreeing >= 0 ? DF_NEAREST : DF_FALLBACK;
}

df_code df_select(int64_t images, int32_t n, const double *phi, const int32_t *predicted, const int32_t *labels,
                  df_interval interval, int32_t *draw, int8_t *outcome, df_error *error) {
    if (images < 0) {
        return df_fail(error, DF_INVALID, "phi has %" PRId64 " images, expected none or more", images);
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
    for (int64_t i = 0; i < images * n; i++) {
        if (isnan(phi[i])) {
            return df_fail(error, DF_INVALID, "phi is NaN at image %" PRId64 ", draw %" PRId64, i / n, i % n);
        }
    }
    for (int64_t i = 0; i < images; i++) {
        outcome[i] = (int8_t)df_select_row(n, phi + i * n, predicted + i * n, labels[i], interval, draw + i);
    }
    return DF_OK;
}
