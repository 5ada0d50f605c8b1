/* phi in both modes, on numbers that can be worked out by hand. */
#include "check.h"
#include "diffence.h"

#include <float.h>
#include <math.h>
#include <string.h>

static df_error error;

static double phi_of(df_mode mode, int32_t classes, const double *logits, int32_t *predicted) {
    double phi = (double)NAN;
    CHECK(df_phi(1, classes, logits, mode, &phi, predicted, &error) == DF_OK, "%s", error.message);
    return phi;
}

#define ROW(...) ((const double[]){__VA_ARGS__})

static void test_values(void) {
    int32_t top;
    double phi;
    phi = phi_of(DF_PAPER, 3, ROW(1000, 0, -1000), &top);
    CHECK(phi == 1000 && top == 0, "%g, %d", phi, top);
    phi = phi_of(DF_PAPER, 3, ROW(-1e300, 1e300, 0), &top);
    CHECK(phi == 1e300 && top == 1, "%g, %d", phi, top);
    phi = phi_of(DF_OFFICIAL, 3, ROW(1000, 0, -1000), &top);
    CHECK(fabs(phi - 103.616) < 1e-3 && top == 0, "%g, %d", phi, top); /* the cap, -ln 1e-45 */
    for (int mode = DF_PAPER; mode <= DF_OFFICIAL; mode++) {
        phi = phi_of((df_mode)mode, 2, ROW(1, 3), &top);
        CHECK(fabs(phi - 2) < 1e-6 && top == 1, "mode %d: %g, %d", mode, phi, top);
        phi = phi_of((df_mode)mode, 4, ROW(5, 5, 5, 5), &top); /* all alike: p = 1/4, the first maximum */
        CHECK(fabs(phi + log(3)) < 1e-6 && top == 0, "mode %d: %g, %d", mode, phi, top);
        phi = phi_of((df_mode)mode, 4, ROW(-1, 2, 2, 0), &top); /* a tie at the top */
        CHECK(fabs(phi + log(1 + exp(-3) + exp(-2))) < 1e-6 && top == 1, "mode %d: %g, %d", mode, phi, top);
    }
    /* float32 exponentials: exp(-104) is 0 there, so the floor takes over; in paper mode nothing happens. */
    CHECK(fabs(phi_of(DF_OFFICIAL, 2, ROW(104, 0), &top) - 103.616) < 1e-3, "floor");
    CHECK(fabs(phi_of(DF_PAPER, 2, ROW(104, 0), &top) - 104) < 1e-12, "no floor");
    CHECK(fabs(phi_of(DF_OFFICIAL, 2, ROW(50, 0), &top) - 50) < 1e-5, "below the floor");
}

static void test_errors(void) {
    double logits[6] = {0, 1, 2, 3, 4, 5}, phi[2];
    int32_t top[2];
    static const double bad[] = {(double)NAN, (double)INFINITY, -(double)INFINITY};
    for (int mode = DF_PAPER; mode <= DF_OFFICIAL; mode++) {
        CHECK(df_phi(2, 3, logits, (df_mode)mode, phi, top, &error) == DF_OK, "%s", error.message);
        for (int i = 0; i < 3; i++) {
            logits[4] = bad[i];
            CHECK(df_phi(2, 3, logits, (df_mode)mode, phi, top, &error) == DF_INVALID, "%g", bad[i]);
            CHECK(strstr(error.message, "row 1, class 1"), "%s", error.message);
        }
        logits[4] = 4;
        CHECK(df_phi(6, 1, logits, (df_mode)mode, phi, top, &error) == DF_INVALID, "one class");
    }
    logits[1] = 1e39; /* no float32 */
    CHECK(df_phi(2, 3, logits, DF_PAPER, phi, top, &error) == DF_OK, "%s", error.message);
    CHECK(df_phi(2, 3, logits, DF_OFFICIAL, phi, top, &error) == DF_INVALID, "1e39 in float32");
    logits[0] = logits[2] = -DBL_MAX;
    logits[1] = DBL_MAX;
    CHECK(df_phi(2, 3, logits, DF_PAPER, phi, top, &error) == DF_INVALID, "infinite phi");
    CHECK(strstr(error.message, "row 0 spans"), "%s", error.message);
    CHECK(df_phi(2, 3, logits, (df_mode)7, phi, top, &error) == DF_INVALID, "mode 7");
    CHECK(df_phi(-1, 3, logits, DF_PAPER, phi, top, &error) == DF_INVALID, "-1 rows");
}

int main(void) {
    test_values();
    test_errors();
    return check_report("phi");
}
