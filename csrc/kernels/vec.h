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
#define V_NEON     5

/* What the matrix products multiply ("terms"), while everything around them stays in floats. */
#ifndef V_BF16
#define V_BF16 0
#endif

/* Whether there are AMX's tiles (tiles.h), which hold bf16: terms, or the parts of floats (split.h). */
#ifndef V_AMX
#define V_AMX 0
#endif
#define V_TILED  (V_AMX && V_BF16) /* all matrix products run in tiles */

#define V_INLINE static inline __attribute__((always_inline, unused))

/* Full unrolling, without which the register tile below would live in memory. */
#if defined(__clang__)
#define V_UNROLL _Pragma("clang loop unroll(full)")
#define V_ROLLED _Pragma("clang loop unroll(disable)")
#else
#define V_UNROLL _Pragma("GCC unroll 16")
#define V_ROLLED _Pragma("GCC unroll 1")
#endif

/* LANES, ROWS: a register tile of ROWS x 2 vectors, which leaves registers for two of weights and one of input (AMX: four
 * tiles of sums). */
#if V_SET == V_PORTABLE || V_SET == V_NEON
#define V_LANES 4
#elif V_SET == V_AVX2
#define V_LANES 8
#else
#define V_LANES 16
#endif
#if V_TILED
#define V_ROWS 32
#elif V_SET == V_PORTABLE || V_SET == V_AVX2 /* 16 registers, else 32 */
#define V_ROWS 6
#else
#define V_ROWS 14
#endif
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

/* v_set: all lanes x.   v_fma: a * b + c.   v_max, v_min: the larger one, the smaller one; x where x is NaN.
 * v_load_n: the first n (1..LANES) of memory, zeros above; touches no more.   v_store_n: writes no more than n. Where a
 * full vector is the quicker one to move, they do that. */
#if V_SET == V_PORTABLE || V_SET == V_WIDE || V_SET == V_NEON
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
#elif V_SET == V_NEON
    return (vf)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
    return a * b + c;
#endif
}
V_INLINE vf v_max(vf least, vf x) {
    const vi below = x < least;
    return (vf)((below & (vi)least) | (~below & (vi)x));
}
V_INLINE vf v_min(vf most, vf x) {
    const vi above = x > most;
    return (vf)((above & (vi)most) | (~above & (vi)x));
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
V_INLINE vf v_min(vf most, vf x) {
    return _mm256_min_ps(most, x);
}
V_INLINE __m256i v_first(int64_t n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
V_INLINE vf v_load_n(const float *p, int64_t n) {
    return n == LANES ? v_load(p) : (vf)_mm256_maskload_ps(p, v_first(n));
}
V_INLINE void v_store_n(float *p, vf v, int64_t n) {
    if (n == LANES) {
        v_store(p, v);
        return;
    }
    /* Not with a mask: on Zen 3 that takes far longer (a fifth of a convolution of one channel, measured). */
    __m128 part = _mm256_castps256_ps128(v);
    if (n & 4) {
        _mm_storeu_ps(p, part);
        part = _mm256_extractf128_ps(v, 1);
        p += 4;
    }
    if (n & 2) {
        _mm_storel_pi((__m64 *)p, part);
        part = _mm_movehl_ps(part, part);
        p += 2;
    }
    if (n & 1)
        _mm_store_ss(p, part);
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
V_INLINE vf v_min(vf most, vf x) {
    return _mm512_min_ps(most, x);
}
V_INLINE __mmask16 v_first(int64_t n) {
    return (__mmask16)((1U << n) - 1);
}
V_INLINE vf v_load_n(const float *p, int64_t n) {
    return _mm512_maskz_loadu_ps(v_first(n), p);
}
V_INLINE void v_store_n(float *p, vf v, int64_t n) {
    if (n == LANES)
        v_store(p, v);
    else
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

/* Lanes of both: i of a, LANES + i of b. */
V_INLINE vu v_pick(vu a, vu b, vu index) {
#if defined(__clang__) && V_SET == V_AVX512
    return (vu)_mm512_permutex2var_epi32((__m512i)a, (__m512i)index, (__m512i)b);
#elif defined(__clang__)
    vu picked;
    for (int i = 0; i < LANES; i++)
        picked[i] = index[i] < LANES ? a[index[i]] : b[index[i] - LANES];
    return picked;
#else
    return __builtin_shuffle(a, b, index);
#endif
}

/* Lanes of the lower halves of two vectors, and of the upper ones, that take turns. */
#if V_LANES == 4
#define V_LOW                                                                                                          \
    { 0, 4, 1, 5 }
#define V_HIGH                                                                                                         \
    { 2, 6, 3, 7 }
#elif V_LANES == 8
#define V_LOW                                                                                                          \
    { 0, 8, 1, 9, 2, 10, 3, 11 }
#define V_HIGH                                                                                                         \
    { 4, 12, 5, 13, 6, 14, 7, 15 }
#else
#define V_LOW                                                                                                          \
    { 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23 }
#define V_HIGH                                                                                                         \
    { 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31 }
#endif

/* As many rows as lanes, turned over: as often as it takes, the words of the upper and of the lower half take turns. */
V_INLINE void v_transpose(vu rows[LANES]) {
    const vu low = V_LOW, high = V_HIGH;
    V_UNROLL for (int left = LANES; left > 1; left /= 2) {
        vu turned[LANES];
        V_UNROLL for (int i = 0; i < LANES / 2; i++) {
            turned[2 * i] = v_pick(rows[i], rows[i + LANES / 2], low);
            turned[2 * i + 1] = v_pick(rows[i], rows[i + LANES / 2], high);
        }
        V_UNROLL for (int i = 0; i < LANES; i++) rows[i] = turned[i];
    }
}

/* To the nearest bfloat16, to even in the middle; the lower half is left over. */
V_INLINE vu v_rounded(vf v) {
    const vu bits = (vu)v;
    return bits + 0x7fffU + ((bits >> 16) & 1U);
}

/* The same of one float. */
V_INLINE uint32_t rounded(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits + 0x7fffU + ((bits >> 16) & 1U);
}

/* Over the lanes: those of the upper half to those of the lower half, and so on. */
V_INLINE float v_sum(vf v) {
#if V_SET == V_AVX512
    return _mm512_reduce_add_ps(v); /* in that order too */
#else
    float lanes[LANES];
    v_store(lanes, v);
    for (int half = LANES / 2; half; half /= 2)
        for (int i = 0; i < half; i++)
            lanes[i] += lanes[i + half];
    return lanes[0];
#endif
}

V_INLINE float v_largest(vf v) {
#if V_SET == V_AVX512
    return _mm512_reduce_max_ps(v);
#else
    float lanes[LANES];
    v_store(lanes, v);
    float most = lanes[0];
    for (int i = 1; i < LANES; i++)
        most = lanes[i] > most ? lanes[i] : most;
    return most;
#endif
}

/* ---------------------------------------------------------------- terms */

/* A word of 32 bits holds PAIR terms that follow each other in a sum: one float, or two bfloat16, which are the upper
 * halves of floats.
 *
 * v_word: all words alike, from PAIR terms.   v_words, v_store_words: LANES words.   v_dot: sum + the product of a and b,
 * word by word.   v_store_terms: LANES floats, rounded to the nearest term.   v_store_terms_n: no more than the first n.
 * v_join: words of the terms that follow each other in the same lane of PAIR vectors.   to_term, from_term: of one float,
 * and back (bfloat16 only). */
#if V_BF16
enum { PAIR = 2 };
typedef uint16_t term;
typedef uint16_t v_terms __attribute__((vector_size(2 * LANES)));

V_INLINE vf v_join(const vf follow[PAIR]) {
    return (vf)((v_rounded(follow[0]) >> 16) | (v_rounded(follow[1]) & 0xffff0000U));
}
V_INLINE term to_term(float x) {
    return (term)(rounded(x) >> 16);
}
V_INLINE float from_term(term t) {
    const uint32_t bits = (uint32_t)t << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}
V_INLINE v_terms v_to_terms(vf v) {
#if V_SET == V_AVX512
    return (v_terms)_mm512_cvtneps_pbh(v);
#else
    return __builtin_convertvector(v_rounded(v) >> 16, v_terms);
#endif
}
V_INLINE void v_store_terms(term *p, vf v) {
    const v_terms terms = v_to_terms(v);
    memcpy(p, &terms, sizeof terms);
}
V_INLINE void v_store_terms_n(term *p, vf v, int64_t n) {
    const v_terms terms = v_to_terms(v);
#if V_SET == V_AVX512
    _mm256_mask_storeu_epi16(p, v_first(n), (__m256i)terms);
#else
    memcpy(p, &terms, (size_t)n * sizeof *p);
#endif
}
V_INLINE vf v_dot(vf a, vf b, vf sum) {
#if V_SET == V_AVX512
    return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b);
#elif V_SET == V_NEON
    return (vf)vbfdotq_f32((float32x4_t)sum, vreinterpretq_bf16_f32((float32x4_t)a),
                           vreinterpretq_bf16_f32((float32x4_t)b));
#else /* in the order of that instruction, but for subnormal numbers, which it takes for zeros */
    const vf above = v_fma((vf)((vu)a & 0xffff0000U), (vf)((vu)b & 0xffff0000U), sum);
    return v_fma((vf)((vu)a << 16), (vf)((vu)b << 16), above);
#endif
}
#else
enum { PAIR = 1 };
typedef float term;

V_INLINE vf v_join(const vf follow[PAIR]) {
    return follow[0];
}
V_INLINE term to_term(float x) {
    return x;
}
V_INLINE void v_store_terms(term *p, vf v) {
    v_store(p, v);
}
V_INLINE void v_store_terms_n(term *p, vf v, int64_t n) {
    v_store_n(p, v, n);
}
V_INLINE vf v_dot(vf a, vf b, vf sum) {
    return v_fma(a, b, sum);
}
#endif

/* ---------------------------------------------------------------- values */

/* What steps read and write: floats, or terms where all products run in tiles, which are so fast that moving values costs
 * more.   v_read, v_read_n, v_write, v_write_n: as v_load and its like. */
#if V_TILED
typedef term value;

V_INLINE vf v_from_terms(v_terms terms) {
#if V_SET == V_AVX512 /* gcc 12 converts halves */
    return (vf)_mm512_slli_epi32(_mm512_cvtepu16_epi32((__m256i)terms), 16);
#else
    return (vf)(__builtin_convertvector(terms, vu) << 16);
#endif
}
V_INLINE vf v_read(const value *p) {
    v_terms terms;
    memcpy(&terms, p, sizeof terms);
    return v_from_terms(terms);
}
V_INLINE vf v_read_n(const value *p, int64_t n) {
#if V_SET == V_AVX512
    return v_from_terms((v_terms)_mm256_maskz_loadu_epi16(v_first(n), p));
#else
    v_terms terms = {0};
    memcpy(&terms, p, (size_t)n * sizeof *p);
    return v_from_terms(terms);
#endif
}
V_INLINE void v_write(value *p, vf v) {
    v_store_terms(p, v);
}
V_INLINE void v_write_n(value *p, vf v, int64_t n) {
    v_store_terms_n(p, v, n);
}
#else
typedef float value;

V_INLINE vf v_read(const value *p) {
    return v_load(p);
}
V_INLINE vf v_read_n(const value *p, int64_t n) {
    return v_load_n(p, n);
}
V_INLINE void v_write(value *p, vf v) {
    v_store(p, v);
}
V_INLINE void v_write_n(value *p, vf v, int64_t n) {
    v_store_n(p, v, n);
}
#endif

enum { CACHE_LINE = 64 / sizeof(value) }; /* values */

/* v_stream: v_write to an aligned place, past the caches, by whole lines.   v_streamed: after the last one, before another
 * thread is told. */
#if V_SET == V_AVX2
enum { STREAMS = 1 };
V_INLINE void v_stream(value *p, vf v) {
    _mm256_stream_ps(p, v);
}
V_INLINE void v_streamed(void) {
    _mm_sfence();
}
#else
enum { STREAMS = 0 };
V_INLINE void v_stream(value *p, vf v) {
    v_write(p, v);
}
V_INLINE void v_streamed(void) {}
#endif

/* ---------------------------------------------------------------- words */

V_INLINE vf v_word(const term *p) {
    float word;
    memcpy(&word, p, sizeof word);
    return v_set(word);
}
V_INLINE vf v_words(const term *p) {
    vf v;
    memcpy(&v, p, sizeof v);
    return v;
}
V_INLINE void v_store_words(term *p, vf words) {
    memcpy(p, &words, sizeof words);
}
