/* The schedule and both samplers, to the tables of the authors' release. */
#include "check.h"
#include "diffence.h"

#include <math.h>
#include <string.h>

static double alpha_bar[1000];
static df_error error;

static bool close_to(double value, double expected) {
    return fabs(value - expected) < 1e-6;
}

static void test_coefficients(void) {
    /* index, alpha_bar, then the signal and noise coefficients in paper and in official mode for T = index + 1 */
    static const double table[][6] = {
        {0, 0.999900000, 0.999950, 0.010000, 1.000050, 0.010001},
        {39, 0.980646365, 0.990276, 0.139117, 1.009820, 0.140483},
        {40, 0.979766924, 0.989832, 0.142243, 1.010273, 0.143704},
        {49, 0.971015723, 0.985401, 0.170248, 1.014815, 0.172770},
        {50, 0.969951494, 0.984861, 0.173345, 1.015372, 0.176010},
        {99, 0.897018146, 0.947110, 0.320908, 1.055843, 0.338828},
        {100, 0.895141591, 0.946119, 0.323818, 1.056949, 0.342260},
        {140, 0.809843960, 0.899913, 0.436069, 1.111218, 0.484568},
        {159, 0.763626600, 0.873857, 0.486182, 1.144352, 0.556364},
        {160, 0.761116416, 0.872420, 0.488757, 1.146237, 0.560232},
        {199, 0.659038508, 0.811812, 0.583919, 1.231812, 0.719279},
        {200, 0.656347006, 0.810152, 0.586219, 1.234336, 0.723591},
        {259, 0.497613812, 0.705417, 0.708792, 1.417600, 1.004784},
        {260, 0.494986820, 0.703553, 0.710643, 1.421357, 1.010077},
        {299, 0.396419759, 0.629619, 0.776904, 1.588263, 1.233928},
        {499, 0.078587243, 0.280334, 0.959902, 3.567171, 3.424137},
    };
    for (size_t row = 0; row < sizeof table / sizeof *table; row++) {
        const double *e = table[row];
        int32_t index = (int32_t)e[0];
        CHECK(fabs(alpha_bar[index] - e[1]) < 1e-8, "alpha_bar[%d] = %.9f", index, alpha_bar[index]);
        for (int mode = DF_PAPER; mode <= DF_OFFICIAL; mode++) {
            df_sampler *sampler;
            CHECK(df_sampler_create(alpha_bar, 1000, index + 1, 1, (df_mode)mode, &sampler, &error) == DF_OK, "%s",
                  error.message);
            CHECK(close_to((double)sampler->signal, e[2 + 2 * mode]), "index %d, mode %d: signal %.7f", index, mode,
                  (double)sampler->signal);
            CHECK(close_to((double)sampler->noise, e[3 + 2 * mode]), "index %d, mode %d: noise %.7f", index, mode,
                  (double)sampler->noise);
            df_sampler_destroy(sampler);
        }
    }
    CHECK(fabs(alpha_bar[999] - 0.000040358) < 1e-9, "alpha_bar[999] = %.9f", alpha_bar[999]);
}

/* (x, x0, e) of the sampler must agree with DDIM step by step, applied to numbers. */
static void check_steps(int32_t T, int32_t k, df_mode mode, int count, const int32_t *indices, const int32_t *targets) {
    df_sampler *sampler;
    CHECK(df_sampler_create(alpha_bar, 1000, T, k, mode, &sampler, &error) == DF_OK, "%s", error.message);
    CHECK(sampler->T == T && sampler->k == k && sampler->mode == mode, "(%d, %d)", T, k);
    CHECK(sampler->step_count == count, "(%d, %d): %d steps", T, k, sampler->step_count);
    for (int i = 0; i < count && i < sampler->step_count; i++) {
        df_step step = sampler->steps[i];
        double c = alpha_bar[indices[i]], d = targets[i] < 0 ? 1 : alpha_bar[targets[i]], x = 0.7, e = -0.3;
        double x0 = (x - sqrt(1 - c) * e) / sqrt(c), expected = sqrt(d) * x0 + sqrt(1 - d) * e;
        double size = fmax(1, (double)step.x_scale); /* up to 157, in float32 */
        CHECK(step.t == indices[i], "(%d, %d): step %d evaluates %d", T, k, i, step.t);
        CHECK(close_to(((double)step.x_scale * x + (double)step.eps_scale * e) / size, expected / size),
              "(%d, %d): step %d is %.7f, %.7f", T, k, i, (double)step.x_scale, (double)step.eps_scale);
    }
    df_sampler_destroy(sampler);
}

#define STEPS(...) ((const int32_t[]){__VA_ARGS__})

static void test_step_lists(void) {
    check_steps(160, 160, DF_OFFICIAL, 1, STEPS(160), STEPS(0));
    check_steps(40, 10, DF_OFFICIAL, 4, STEPS(40, 30, 20, 10), STEPS(30, 20, 10, 0));
    check_steps(40, 40, DF_OFFICIAL, 1, STEPS(40), STEPS(0));
    check_steps(100, 20, DF_OFFICIAL, 5, STEPS(100, 80, 60, 40, 20), STEPS(80, 60, 40, 20, 0));
    check_steps(47, 10, DF_OFFICIAL, 4, STEPS(47, 37, 27, 17), STEPS(37, 27, 17, 7)); /* stops at T mod k */
    check_steps(7, 4, DF_OFFICIAL, 1, STEPS(7), STEPS(3));
    check_steps(1, 1, DF_OFFICIAL, 1, STEPS(1), STEPS(0));
    check_steps(999, 999, DF_OFFICIAL, 1, STEPS(999), STEPS(0));

    check_steps(160, 160, DF_PAPER, 1, STEPS(159), STEPS(-1));
    check_steps(40, 10, DF_PAPER, 4, STEPS(39, 29, 19, 9), STEPS(29, 19, 9, -1));
    check_steps(47, 10, DF_PAPER, 5, STEPS(46, 36, 26, 16, 6), STEPS(36, 26, 16, 6, -1)); /* lands all the same */
    check_steps(41, 40, DF_PAPER, 2, STEPS(40, 0), STEPS(0, -1));
    check_steps(1, 1, DF_PAPER, 1, STEPS(0), STEPS(-1));
    check_steps(3, 1, DF_PAPER, 3, STEPS(2, 1, 0), STEPS(1, 0, -1));
    check_steps(1000, 1000, DF_PAPER, 1, STEPS(999), STEPS(-1));
}

static void test_published_single_steps(void) {
    df_sampler *sampler;
    CHECK(df_sampler_create(alpha_bar, 1000, 160, 160, DF_OFFICIAL, &sampler, &error) == DF_OK, "%s", error.message);
    CHECK(close_to((double)sampler->steps[0].x_scale, 1.1461798), "%.7f", (double)sampler->steps[0].x_scale);
    CHECK(close_to((double)sampler->steps[0].eps_scale, -0.5502036), "%.7f", (double)sampler->steps[0].eps_scale);
    df_sampler_destroy(sampler);
    CHECK(df_sampler_create(alpha_bar, 1000, 160, 160, DF_PAPER, &sampler, &error) == DF_OK, "%s", error.message);
    CHECK(close_to((double)sampler->steps[0].x_scale, 1.1443516), "%.7f", (double)sampler->steps[0].x_scale);
    CHECK(close_to((double)sampler->steps[0].eps_scale, -0.5563637), "%.7f", (double)sampler->steps[0].eps_scale);
    df_sampler_destroy(sampler);
}

/* A perfect network gives back the image: noise it, feed the true noise to every step, see x0 again. */
static void test_the_true_noise_leads_back(void) {
    for (int32_t T = 1; T <= 1000; T += 37) {
        for (int32_t k = 1; k <= T; k += 1 + T / 3) {
            df_sampler *sampler;
            CHECK(df_sampler_create(alpha_bar, 1000, T, k, DF_PAPER, &sampler, &error) == DF_OK, "%s", error.message);
            double x0 = 0.4, e = 1.3, x = (double)sampler->signal * x0 + (double)sampler->noise * e;
            for (int i = 0; i < sampler->step_count; i++) {
                x = (double)sampler->steps[i].x_scale * x + (double)sampler->steps[i].eps_scale * e;
            }
            CHECK(fabs(x - x0) < 2e-4, "T = %d, k = %d: %g", T, k, x); /* x_scale is up to 157, in float32 */
            df_sampler_destroy(sampler);
        }
    }
}

static void refused(int32_t T, int32_t k, df_mode mode, const char *words) {
    df_sampler *sampler = (df_sampler *)&error;
    error = (df_error){DF_OK, ""};
    CHECK(df_sampler_create(alpha_bar, 1000, T, k, mode, &sampler, &error) == DF_INVALID, "T = %d, k = %d", T, k);
    CHECK(sampler == NULL && strstr(error.message, words), "T = %d, k = %d: %s", T, k, error.message);
}

static void test_errors(void) {
    refused(0, 1, DF_PAPER, "T is 0, expected 1..1000");
    refused(-5, 1, DF_OFFICIAL, "T is -5");
    refused(1001, 1, DF_PAPER, "T is 1001, expected 1..1000");
    refused(1000, 1, DF_OFFICIAL, "T is 1000, expected 1..999");
    refused(40, 0, DF_PAPER, "k is 0, expected 1..T = 1..40");
    refused(40, 41, DF_OFFICIAL, "k is 41");
    refused(40, 4, (df_mode)2, "mode is 2");

    double levels[3] = {0.9, 0.8, 0.7};
    df_sampler *sampler;
    CHECK(df_sampler_create(levels, 0, 1, 1, DF_PAPER, &sampler, &error) == DF_INVALID, "no levels");
    static const double bad[] = {0, -0.1, 1.1, (double)NAN, 0.95, (double)INFINITY};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        levels[1] = bad[i];
        CHECK(df_sampler_create(levels, 3, 1, 1, DF_PAPER, &sampler, &error) == DF_INVALID, "%g", bad[i]);
        CHECK(strstr(error.message, "alpha_bar[1]"), "%s", error.message);
    }
    df_sampler_destroy(NULL);

    double one;
    CHECK(df_schedule_linear(0, 1e-4, 0.02, &one, &error) == DF_INVALID, "no steps");
    CHECK(df_schedule_linear(1, 0, 0.02, &one, &error) == DF_INVALID, "no first beta");
    CHECK(df_schedule_linear(1, 1e-4, 1, &one, &error) == DF_INVALID, "last beta of 1");
    CHECK(df_schedule_linear(1, 1e-4, 0.99999999999, &one, &error) == DF_INVALID, "last beta that rounds to 1");
    CHECK(df_schedule_linear(1, (double)NAN, 0.02, &one, &error) == DF_INVALID, "NaN");
    CHECK(df_schedule_linear(1, 1e-4, 0.02, &one, &error) == DF_OK && fabs(one - 0.9999) < 1e-9, "%.9f", one);
}

int main(void) {
    CHECK(df_schedule_linear(1000, 1e-4, 0.02, alpha_bar, &error) == DF_OK, "%s", error.message);
    test_coefficients();
    test_step_lists();
    test_published_single_steps();
    test_the_true_noise_leads_back();
    test_errors();
    return check_report("sampler");
}
