/* What df_select, the scheduler of draws and the interval search share. Private to the core. */
#ifndef DIFFENCE_SELECT_H
#define DIFFENCE_SELECT_H

#include "diffence.h"

/* Distance of phi to the closed interval: 0 exactly where phi is inside. */
static inline double df_interval_distance(df_interval interval, double phi) {
    return phi < interval.low ? interval.low - phi : phi > interval.high ? phi - interval.high : 0;
}

df_code df_interval_check(df_interval interval, df_error *error); /* no NaN, low <= high */
df_code df_labels_check(int64_t images, const int32_t *labels, df_error *error);

/* The choice among the n draws of one image; phi has no NaN. */
df_outcome df_select_row(int32_t n, const double *phi, const int32_t *predicted, int32_t label, df_interval interval,
                         int32_t *draw);

#endif
