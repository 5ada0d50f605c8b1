#include "diffence.h"

#include <math.h>

/* log(exp(a) + exp(b)); either may be -inf. */
static double log_add(double a, double b) {
    double high = a > b ? a : b, low = a > b ? b : a;
    return high == -INFINITY ? high : high + log1p(exp(low - high));
}

static double log_sum(const double *row, int32_t classes) {
    double high = row[0], sum = 0.0;
    for (int32_t c = 1; c < classes; c++)
        high = row[c] > high ? row[c] : high;
    for (int32_t c = 0; c < classes; c++)
        sum += exp(row[c] - high);
    return high + log(sum);
}

/* Draws are added one after the other, each image for itself, so the company of an image never changes its bits. */
df_code df_average(int64_t images, int32_t n, int32_t classes, const double *logits, df_average_kind kind, double *out,
                   df_error *error) {
    if (images < 1 || n < 1 || classes < 2)
        return df_fail(error, DF_INVALID, "logits: expected at least 1 image, 1 draw and 2 classes, got (%lld, %d, %d)",
                       (long long)images, (int)n, (int)classes);
    if (kind != DF_AVERAGE_LOGITS && kind != DF_AVERAGE_PROBABILITIES)
        return df_fail(error, DF_INVALID, "kind: expected logits or probabilities, got %d", (int)kind);
    for (int64_t i = 0; i < images; i++) {
        const double *draws = logits + i * n * classes;
        double *mean = out + i * classes;
        for (int32_t c = 0; c < classes; c++)
            mean[c] = kind == DF_AVERAGE_LOGITS ? 0.0 : -INFINITY;
        for (int32_t j = 0; j < n; j++) {
            const double *row = draws + (int64_t)j * classes;
            const double total = kind == DF_AVERAGE_LOGITS ? 0.0 : log_sum(row, classes);
            for (int32_t c = 0; c < classes; c++) {
                if (!isfinite(row[c]))
                    return df_fail(error, DF_INVALID, "logits: image %lld, draw %d, class %d is not finite",
                                   (long long)i, (int)j, (int)c);
                mean[c] = kind == DF_AVERAGE_LOGITS ? mean[c] + row[c] : log_add(mean[c], row[c] - total);
            }
        }
        for (int32_t c = 0; c < classes; c++)
            mean[c] = kind == DF_AVERAGE_LOGITS ? mean[c] / n : mean[c] - log(n);
    }
    return DF_OK;
}
