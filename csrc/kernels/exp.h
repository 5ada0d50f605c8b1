/* exp(x) for x <= 0, to about one unit in the last place, and SiLU, to about three. */

#define EXP_LEAST (-110.0F) /* exp of it is below half the smallest float: 0 */

/* x = n ln 2 + r with |r| <= ln 2 / 2: returns exp(r), and n in *power. The constant rounds n to a whole number, and
 * ln 2 is subtracted in two parts of which the first makes an exact product. Minimax polynomial, error 3e-9. */
V_INLINE vf exp_parts(vf x, vf *power) {
    const vf rounder = v_set(12582912.0F); /* 1.5 * 2^23 */
    const vf n = v_fma(x, v_set(1.44269504F), rounder) - rounder;
    const vf r = v_fma(n, v_set(2.12194440e-4F), v_fma(n, v_set(-0.693359375F), x));
    vf q = v_set(1.38143207e-3F);
    q = v_fma(q, r, v_set(8.36885107e-3F));
    q = v_fma(q, r, v_set(4.16684011e-2F));
    q = v_fma(q, r, v_set(1.66665195e-1F));
    q = v_fma(q, r, v_set(4.99999934e-1F));
    *power = n;
    return v_fma(q, r * r, r) + v_set(1.0F);
}

/* 2^n for a whole n in -126..127: n + 127 comes to lie in the lowest bits, and from there in the exponent. */
V_INLINE vf exp_power(vf n) {
    return (vf)((vu)(n + v_set(12582912.0F + 127.0F)) << 23);
}

/* x 2^n for a whole n in -252..0, in two steps, so that it reaches the subnormal numbers with one rounding. */
V_INLINE vf exp_scale(vf x, vf n) {
    const vf rounder = v_set(12582912.0F);
    const vf half = v_fma(n, v_set(0.5F), rounder) - rounder;
    return x * exp_power(half) * exp_power(n - half);
}

V_INLINE vf exp_negative(vf x) {
    vf n;
    const vf p = exp_parts(v_max(v_set(EXP_LEAST), x), &n);
    return exp_scale(p, n);
}

/* 2^y for -125 <= y <= 125, for sums of values that are not much larger than 1: y is multiplied in one part, so the result is
 * off by 6e-8 times y, and where that is much the result is small, or what is divided by it. Minimax polynomial, error
 * 2e-9, evaluated in a short chain. */
V_INLINE vf exp2_in_sum(vf y) {
    const vf rounder = v_set(12582912.0F); /* 1.5 * 2^23 */
    const vf shifted = y + rounder, f = y - (shifted - rounder), square = f * f;
    const vf low = v_fma(v_set(6.93147203e-1F), f, v_set(1.0F));
    const vf middle = v_fma(v_set(5.55033247e-2F), f, v_set(2.40226479e-1F));
    vf high = v_fma(v_set(1.33988744e-3F), f, v_set(9.61843736e-3F));
    high = v_fma(v_set(1.53533619e-4F), square, high);
    high = v_fma(high, square, middle);
    return (vf)((vu)v_fma(high, square, low) + ((vu)shifted << 23)); /* n comes to lie in the exponent */
}

/* exp(x) for x <= 0, where 2e-38 may stand for what is less: beside the 1 of a softmax's largest. */
V_INLINE vf exp_negative_in_sum(vf x) {
    return exp2_in_sum(v_max(v_set(-125.0F), x * v_set(1.44269504F)));
}

/* x / (1 + exp(-x)), below zero as x exp(x) / (1 + exp(x)): nothing overflows, and x exp(x) is scaled as a whole, so it
 * stays right down to the subnormal numbers. */
V_INLINE vf silu(vf x) {
    vf n;
    const vf bounded = v_max(v_set(EXP_LEAST), v_negative_abs(x));
    const vf p = exp_parts(bounded, &n);
    const vf top = v_if_negative(x, exp_scale(bounded * p, n), x);
    return top / (v_set(1.0F) + exp_scale(p, n));
}

/* The same in a sum of other values, which do not see 2e-38 times x, nor the 6e-8 by which it is off below zero. Half as
 * long. */
V_INLINE vf silu_in_sum(vf x) {
    const vf y = v_max(v_set(-125.0F), v_min(v_set(125.0F), x * v_set(-1.44269504F)));
    return x / (v_set(1.0F) + exp2_in_sum(y));
}

#if V_SET == V_AVX512 && V_TILED
/* 2^y to 12 bits and more: 2^n 2^f, n <= y < n + 1, where the polynomial (a minimax one) is off by 8e-5. */
V_INLINE vf exp2_to_term(vf y) {
    const vf f = (vf)_mm512_reduce_ps(y, _MM_FROUND_TO_NEG_INF);
    vf p = v_fma(v_set(0.07802452F), f, v_set(0.22606716F));
    p = v_fma(p, f, v_set(0.69583354F));
    p = v_fma(p, f, v_set(0.99992522F));
    return (vf)_mm512_scalef_ps(p, y);
}
#endif

/* exp_negative_in_sum to 12 bits and more, for what becomes a bfloat16 term right away. */
V_INLINE vf exp_to_term(vf x) {
#if V_SET == V_AVX512 && V_TILED
    return exp2_to_term(v_max(v_set(-126.0F), x * v_set(1.44269504F)));
#else
    return exp_negative_in_sum(x);
#endif
}

/* The same to 12 bits and more, for what becomes a bfloat16 term right away, of 8: a third of the time. */
V_INLINE vf silu_to_term(vf x) {
#if V_SET == V_AVX512 && V_TILED
    /* Where the exponential is infinite, this is zero. The estimate of a reciprocal is off by 2^-14; only one maker's
     * processors have tiles, so its bits are the same on all of them. */
    return x * (vf)_mm512_rcp14_ps(v_set(1.0F) + exp2_to_term(x * v_set(-1.44269504F)));
#else
    return silu_in_sum(x);
#endif
}

/* The same of some vectors at once, for what becomes whole numbers of 24 bits right away: off by less than 2^-22 of it above
 * zero, and by less than 7e-8 below. */
V_INLINE void silu_to_digits(vf *x, const int count) {
#define EACH V_UNROLL for (int i = 0; i < count; i++)
#if V_SET == V_AVX512 && V_AMX
    /* 2^y as above, by a polynomial that is off by 9e-8; and a step of Newton's after the estimate. */
    vf y[4], f[4], p[4], below[4], estimate[4];
    EACH x[i] = v_max(v_set(-80.0F), x[i]);
    EACH y[i] = x[i] * v_set(-1.44269504F);
    EACH f[i] = (vf)_mm512_reduce_ps(y[i], _MM_FROUND_TO_NEG_INF);
    EACH p[i] = v_fma(v_set(1.87757669e-3F), f[i], v_set(8.98934063e-3F));
    EACH p[i] = v_fma(p[i], f[i], v_set(5.58263175e-2F));
    EACH p[i] = v_fma(p[i], f[i], v_set(2.40153611e-1F));
    EACH p[i] = v_fma(p[i], f[i], v_set(6.93153083e-1F));
    EACH p[i] = v_fma(p[i], f[i], v_set(0.99999994F));
    EACH below[i] = v_set(1.0F) + (vf)_mm512_scalef_ps(p[i], y[i]);
    EACH estimate[i] = (vf)_mm512_rcp14_ps(below[i]);
    EACH below[i] = v_fma(-estimate[i], below[i], v_set(1.0F));
    EACH x[i] = x[i] * v_fma(estimate[i], below[i], estimate[i]);
#else
    EACH x[i] = silu_in_sum(v_max(v_set(-80.0F), x[i]));
#endif
#undef EACH
}
