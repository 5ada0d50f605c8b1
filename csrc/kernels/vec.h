/* The vector type of the fast kernels: LANES floats. Included once by each isa_*.c, which has set V_SET to one of the
 * pages below and opened the target pragma.
 *
 * + - * / work on it lane by lane. Everything is IEEE: no flush to zero, no reciprocal estimates, no contraction (the
 * build's -ffp-contract=off), so lane arithmetic does not depend on the instruction set, except that v_fma rounds once
 * where there is an FMA instruction and twice where there is none. */
#define V_PORTABLE 1
#define V_AVX2     2
#define V_AVX512   3
#define V_WIDE     4 /* the shapes of AVX-512 in halves of AVX2: for tests on processors without AVX-512 */

#define V_INLINE   static inline __attribute__((always_inline, unused))

/* Full unrolling, without which the register tile below would live in memory. */
#if defined(__clang__)
#define V_UNROLL _Pragma("clang loop unroll(full)")
#else
#define V_UNROLL _Pragma("GCC unroll 16")
#endif

/* LANES, ROWS: a register tile of ROWS x 2 vectors, which leaves registers for two of weights and one of input. */
#if V_SET == V_PORTABLE
#define V_LANES 4
#elif V_SET == V_AVX2
#define V_LANES 8
#else
#define V_LANES 16
#endif
#define V_ROWS (V_LANES == 16 ? 14 : 6)
enum { LANES = V_LANES, ROWS = V_ROWS };

typedef float vf __attribute__((vector_size(4 * LANES)));
typedef double vd __attribute__((vector_size(8 * LANES)));
typedef uint32_t vu __attribute__((vector_size(4 * LANES)));
typedef int32_t vi __attribute__((vector_size(4 * LANES)));

V_INLINE vf v_load(const float *p) {
    vf v;
    memcpy(&v, p, sizeof v);
    return v;
}

V_INLINE void v_store(float *p, vf v) {
    memcpy(p, &v, sizeof v);
}

/* v_set: all lanes x.   v_fma: a * b + c.   v_max: the larger one, and x where x is NaN.
 * v_load_n: the first n (1..LANES) of memory, zeros above; touches no more.   v_store_n: writes no more than n. Where a
 * full vector is the quicker one to move, they do that. */
#if V_SET == V_PORTABLE || V_SET == V_WIDE
V_INLINE vf v_set(float x) {
    return x - (vf){0}; /* which leaves -0 and NaN as they are */
}
V_INLINE vf v_fma(vf a, vf b, vf c) {
#if V_SET == V_WIDE
    union {
        vf all;
        __m256 half[2];
    } x = {a}, y = {b}, z = {c};
    for (int i = 0; i < 2; i++)
        z.half[i] = _mm256_fmadd_ps(x.half[i], y.half[i], z.half[i]);
    return z.all;
#else
    return a * b + c;
#endif
}
V_INLINE vf v_max(vf least, vf x) {
    const vi below = x < least;
    return (vf)((below & (vi)least) | (~below & (vi)x));
}
V_INLINE vf v_load_n(const float *p, int64_t n) {
    vf v = v_set(0);
    if (n == LANES)
        return v_load(p);
    memcpy(&v, p, (size_t)n * sizeof *p);
    return v;
}
V_INLINE void v_store_n(float *p, vf v, int64_t n) {
    if (n == LANES)
        v_store(p, v);
    else
        memcpy(p, &v, (size_t)n * sizeof *p);
}
#elif V_SET == V_AVX2
V_INLINE vf v_set(float x) {
    return _mm256_set1_ps(x);
}
V_INLINE vf v_fma(vf a, vf b, vf c) {
    return _mm256_fmadd_ps(a, b, c);
}
V_INLINE vf v_max(vf least, vf x) {
    return _mm256_max_ps(least, x);
}
V_INLINE __m256i v_first(int64_t n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
V_INLINE vf v_load_n(const float *p, int64_t n) {
    return n == LANES ? v_load(p) : (vf)_mm256_maskload_ps(p, v_first(n));
}
V_INLINE void v_store_n(float *p, vf v, int64_t n) {
    if (n == LANES)
        v_store(p, v);
    else
        _mm256_maskstore_ps(p, v_first(n), v);
}
#elif V_SET == V_AVX512
V_INLINE vf v_set(float x) {
    return _mm512_set1_ps(x);
}
V_INLINE vf v_fma(vf a, vf b, vf c) {
    return _mm512_fmadd_ps(a, b, c);
}
V_INLINE vf v_max(vf least, vf x) {
    return _mm512_max_ps(least, x);
}
V_INLINE __mmask16 v_first(int64_t n) {
    return (__mmask16)((1U << n) - 1);
}
V_INLINE vf v_load_n(const float *p, int64_t n) {
    return _mm512_maskz_loadu_ps(v_first(n), p);
}
V_INLINE void v_store_n(float *p, vf v, int64_t n) {
    _mm512_mask_storeu_ps(p, v_first(n), v);
}
#endif

/* a where x has its sign bit set, b elsewhere. */
V_INLINE vf v_if_negative(vf x, vf a, vf b) {
    const vi mask = (vi)x >> 31;
    return (vf)((mask & (vi)a) | (~mask & (vi)b));
}

V_INLINE vf v_negative_abs(vf x) {
    return (vf)((vu)x | 0x80000000U);
}

/* Over the lanes, in their order. */
V_INLINE float v_sum(vf v) {
    float lanes[LANES], sum = 0;
    v_store(lanes, v);
    for (int i = 0; i < LANES; i++)
        sum += lanes[i];
    return sum;
}

V_INLINE float v_largest(vf v) {
    float lanes[LANES];
    v_store(lanes, v);
    float most = lanes[0];
    for (int i = 1; i < LANES; i++)
        most = lanes[i] > most ? lanes[i] : most;
    return most;
}
