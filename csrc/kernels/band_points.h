/* The points of conv_bands.h: F(2, 3) and F(4, 3) (Lavin and Gray, 2016, "Fast algorithms for convolutional neural
 * networks") across lines, for floats in digits (run_digits.h).
 *
 * A band of 2 P lines of outputs needs 2 P + 2 lines of inputs d. At each of as many points, one line comes from these, and
 * one of weights from the three lines g0..g2 of a kernel, and these are multiplied. With P = 1 and points at 0, +-1 and
 * infinity:
 *
 *     1:  d2 + d1, (g0 + g1 + g2) / 2;    -1:  d2 - d1, (g0 - g1 + g2) / 2;    0:  d2 - d0, -g0;    infinity:  d3 - d1, g2.
 *
 * With P = 2 and points at 0, +-r, +-s and infinity, where r s = 1:
 *
 *     +-r:       (d4 - s^2 d2) +- r (d3 - s^2 d1),  (g0 +- r g1 + r^2 g2) / (2 r^2 (r^2 - s^2)), and so with s for r;
 *     0:         d4 - (r^2 + s^2) d2 + d0,          g0;
 *     infinity:  d5 - (r^2 + s^2) d3 + d1,          g2.
 *
 * Of the products p come the outputs: line j is the sum over pairs of r^j (p(r) + p(-r)), or r^j (p(r) - p(-r)) where j is
 * odd; the first line has p(0) beside it, the last one p(infinity).
 *
 * The larger a sum may be, the larger is the unit of its digits. With P = 2 the middle of an image's values is subtracted
 * from all of them and from the zeros around them; what that takes from an output is the middle times the sum of its
 * weights. And sums are divided by how much larger than the inputs they may be, and weights multiplied by that.
 *
 * r = 2/3 is next to what a search found to leave the least error, 1.9 times that of P = 1. */

enum { MOST_PAIRS = 2, MOST_POINTS = 2 * MOST_PAIRS + 2 };

/* Points in the order in which they are computed: both of a pair, the next pair, 0, infinity. */
static const float band_roots[MOST_PAIRS][MOST_PAIRS] = {{1}, {2 / 3.0F, 1.5F}};

V_INLINE float band_root(int pairs, int pair) {
    return band_roots[pairs - 1][pair];
}
/* The other pair's root, squared; 0 where there is none. */
V_INLINE float band_other(int pairs, int pair) {
    return pairs > 1 ? band_root(pairs, 1 - pair) * band_root(pairs, 1 - pair) : 0;
}

/* The values at a point where all inputs are 1. */
V_INLINE float band_ones(int pairs, int point) {
    const float all = pairs > 1 ? 2 - band_other(pairs, 0) - band_other(pairs, 1) : 0;
    if (point >= 2 * pairs)
        return all;
    const float root = band_root(pairs, point / 2);
    return (1 - band_other(pairs, point / 2)) * (point % 2 ? 1 - root : 1 + root);
}
/* How much larger than the largest difference of two inputs the value at a point may be. */
V_INLINE float band_growth(int pairs, int point) {
    if (pairs == 1)
        return point == 0 ? 2 : 1;
    if (point >= 2 * pairs)
        return (2 + band_other(pairs, 0) + band_other(pairs, 1)) / 2;
    return (1 + band_other(pairs, point / 2)) * (1 + band_root(pairs, point / 2)) / 2;
}

/* The weight at a point, from a column of a kernel. */
static float band_weight(const float *column, int pairs, int point) {
    const double above = column[0], level = column[3], below = column[6], growth = band_growth(pairs, point);
    if (point == 2 * pairs)
        return (float)(pairs > 1 ? growth * above : -growth * above);
    if (point > 2 * pairs)
        return (float)(growth * below);
    const double root = band_roots[pairs - 1][point / 2], square = root * root, other = pairs > 1 ? 1 / square : 0;
    const double at = point % 2 ? above - root * level + square * below : above + root * level + square * below;
    return (float)(growth * at / (2 * square * (square - other)));
}
