/* The noise schedule and DDIM with eta = 0 as a list of (index, two coefficients): the sampler's mathematics is done
 * here, once, in double; running it is one multiply-add per step. */
#include "diffence.h"

#include <math.h>
#include <stdlib.h>

df_code df_schedule_linear(int32_t steps, double beta_first, double beta_last, double *alpha_bar, df_error *error) {
    if (steps < 1) {
        return df_fail(error, DF_INVALID, "steps is %d, expected at least 1", steps);
    }
    /* In float32, where the schedule is used: a beta that rounds to 0 or 1 is none. */
    if (!((float)beta_first > 0 && (float)beta_first < 1)) {
        return df_fail(error, DF_INVALID, "first beta is %g, expected a value between 0 and 1", beta_first);
    }
    if (!((float)beta_last > 0 && (float)beta_last < 1)) {
        return df_fail(error, DF_INVALID, "last beta is %g, expected a value between 0 and 1", beta_last);
    }
    double product = 1;
    for (int32_t i = 0; i < steps; i++) {
        double beta = steps == 1 ? beta_first : beta_first + (beta_last - beta_first) * i / (steps - 1);
        product *= 1 - (double)(float)beta;
        alpha_bar[i] = product;
    }
    return DF_OK;
}

static df_code check_alpha_bar(const double *alpha_bar, int32_t steps, df_error *error) {
    for (int32_t i = 0; i < steps; i++) {
        if (!(alpha_bar[i] > 0 && alpha_bar[i] <= (i ? alpha_bar[i - 1] : 1))) {
            return df_fail(error, DF_INVALID, "alpha_bar[%d] is %g, expected values in (0, 1] that never increase", i,
                           alpha_bar[i]);
        }
    }
    return DF_OK;
}

/* From level `from` to level `to`: x <- sqrt(to) x0_hat + sqrt(1 - to) e, x0_hat = (x - sqrt(1 - from) e) / sqrt(from),
 * with the coefficients of x and e collected. */
static df_step ddim_step(int32_t t, double from, double to) {
    double ratio = sqrt(to) / sqrt(from);
    return (df_step){t, (float)ratio, (float)(sqrt(1 - to) - ratio * sqrt(1 - from))};
}

df_code df_sampler_create(const double *alpha_bar, int32_t steps, int32_t T, int32_t k, df_mode mode,
                          df_sampler **sampler, df_error *error) {
    *sampler = NULL;
    if (mode != DF_PAPER && mode != DF_OFFICIAL) {
        return df_fail(error, DF_INVALID, "mode is %d, expected DF_PAPER or DF_OFFICIAL", (int)mode);
    }
    if (steps < 1) {
        return df_fail(error, DF_INVALID, "alpha_bar has %d values, expected at least 1", steps);
    }
    df_code code = check_alpha_bar(alpha_bar, steps, error);
    if (code != DF_OK) {
        return code;
    }
    int32_t most = mode == DF_PAPER ? steps : steps - 1; /* official mode evaluates index T itself */
    if (T < 1 || T > most) {
        return df_fail(error, DF_INVALID, "T is %d, expected 1..%d (%s mode, %d noise levels)", T, most,
                       mode == DF_PAPER ? "paper" : "official", steps);
    }
    if (k < 1 || k > T) {
        return df_fail(error, DF_INVALID, "k is %d, expected 1..T = 1..%d", k, T);
    }

    int32_t step_count = mode == DF_PAPER ? (T - 1) / k + 1 : T / k;
    df_sampler *made = malloc(sizeof *made);
    df_step *list = calloc((size_t)step_count, sizeof *list);
    if (!made || !list) {
        free(made);
        free(list);
        return df_fail(error, DF_OUT_OF_MEMORY, "no memory for a sampler of %d steps", step_count);
    }
    double level = alpha_bar[T - 1];
    if (mode == DF_PAPER) {
        *made = (df_sampler){T, k, step_count, mode, (float)sqrt(level), (float)sqrt(1 - level), list};
    } else { /* the release's noising has reciprocal coefficients */
        *made = (df_sampler){T, k, step_count, mode, (float)(1 / sqrt(level)), (float)sqrt(1 / level - 1), list};
    }
    int32_t t = mode == DF_PAPER ? T - 1 : T;
    for (int32_t i = 0; i < step_count; i++, t -= k) {
        /* Only paper mode passes below index 0: its last step, however short, lands on the clean image. */
        list[i] = ddim_step(t, alpha_bar[t], t >= k ? alpha_bar[t - k] : 1);
    }
    *sampler = made;
    return DF_OK;
}

void df_sampler_destroy(df_sampler *sampler) {
    if (sampler) {
        free(sampler->steps);
        free(sampler);
    }
}
