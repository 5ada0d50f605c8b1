/* phi = log(p / (1 - p)), p the largest probability of a row: the confidence that the fence selects by. */
#include "diffence.h"

#include <inttypes.h>
#include <math.h>

/* z_top - logsumexp(the others), with the largest of the others taken out of the sum: no overflow, no cap. */
static double phi_paper(const double *z, int32_t classes, int32_t top) {
    int32_t second = top == 0;
    for (int32_t c = 0; c < classes; c++) {
        if (c != top && z[c] > z[second]) {
            second = c;
        }
    }
    double rest = 0;
    for (int32_t c = 0; c < classes; c++) {
        if (c != top && c != second) {
            rest += exp(z[c] - z[second]);
        }
    }
    return z[top] - z[second] - log1p(rest);
}

/* The release's arithmetic: float32 exponentials, float64 probabilities, both logarithms with a floor. The cap of
 * 103.616 and the coarse values below it come from the float32 underflow, and are wanted. */
static double phi_official(const double *z, int32_t classes, int32_t top) {
    const double tiny = 1e-45;
    float most = (float)z[top];
    double sum = 0, others = 0;
    for (int32_t c = 0; c < classes; c++) {
        sum += (double)expf((float)z[c] - most);
    }
    for (int32_t c = 0; c < classes; c++) {
        if (c != top) {
            others += (double)expf((float)z[c] - most) / sum;
        }
    }
    return log(1 / sum + tiny) - log(others + tiny);
}

df_code df_phi(int64_t rows, int32_t classes, const double *logits, df_mode mode, double *phi, int32_t *predicted,
               df_error *error) {
    if (mode != DF_PAPER && mode != DF_OFFICIAL) {
        return df_fail(error, DF_INVALID, "mode is %d, expected DF_PAPER or DF_OFFICIAL", (int)mode);
    }
    if (rows < 0) {
        return df_fail(error, DF_INVALID, "logits has %" PRId64 " rows, expected none or more", rows);
    }
    if (classes < 2) {
        return df_fail(error, DF_INVALID, "logits has %d classes, expected at least 2", classes);
    }
    for (int64_t row = 0; row < rows; row++) {
        const double *z = logits + row * classes;
        int32_t top = 0;
        for (int32_t c = 0; c < classes; c++) {
            if (!isfinite(z[c]) || (mode == DF_OFFICIAL && !isfinite((float)z[c]))) {
                return df_fail(error, DF_INVALID, "logits row %" PRId64 ", class %d is %g, expected a finite %s value",
                               row, c, z[c], mode == DF_OFFICIAL ? "float32" : "float64");
            }
            if (z[c] > z[top]) {
                top = c;
            }
        }
        phi[row] = mode == DF_PAPER ? phi_paper(z, classes, top) : phi_official(z, classes, top);
        predicted[row] = top;
        if (!isfinite(phi[row])) { /* only where z_top - z_second does not fit a double */
            return df_fail(error, DF_INVALID, "logits row %" PRId64 " spans more than a float64 can hold", row);
        }
    }
    return DF_OK;
}
