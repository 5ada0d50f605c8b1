/* What conv_bands.h, conv_digits.h and attention_digits.h multiply: whole numbers of three digits of eight bits, which AMX
 * multiplies exactly, and twice as many at once as bfloat16. (Ootomo, Ozaki and Yokota, 2024, "DGEMM on integer matrix
 * multiplication unit", do the same for doubles.)
 *
 * Rows of the one side have a unit, an image's or their own, such that all their values are less than 2^23 of it, and so have
 * the weights of each output. Digits are -128..127, a value is 2^16 a + 2^8 b + c. Of the nine products six count:
 *
 *     2^32 aa' + 2^24 (ab' + ba') + 2^16 (ac' + bb' + ca'),
 *
 * which are three exact sums; what is left out is 2^-24 of the largest product, of either sign. */

typedef int8_t patch_item;
typedef int32_t run_sum;

enum {
    PATCH_DEPTH = TILE_BYTES, /* channels of a step */
    PLANES = 3,               /* items of a value */
    RUN_TILES = 2, /* of pixels at a time, each with three tiles of sums: one of pixels and one of weights are left */
    RUN = RUN_TILES * TILE_ROWS,
    RUN_SUMS = PLANES * RUN * TILE_ROWS,
    TILE_ITEMS = TILE_ROWS * TILE_BYTES,
    TAP_ITEMS = PLANES * TILE_ITEMS, /* of the weights for 16 outputs, at one tap of one step */
    ROWS_APART = 4 * TILE_ROWS,
    DIGIT_TERMS = 36864,     /* of a sum, at most: three products each, of 2^14 */
    AWAKE = 3,               /* steps for each store of a tile, at most */
    DIGITS_MIDDLE = 0x808080 /* makes all digits positive */
};
#define EACH_RUN(of) of(1) of(2)

/* Units of the largest value: less than 0x7f7f7f, by what rounding may add. */
static const float digits_most = 8355000.0F;
static const float sums_unit = 65536;     /* of the last of three sums */
static const float digits_least = 1e-30F; /* whose unit and its inverse are still normal numbers */

/* v * scale + DIGITS_MIDDLE, rounded. */
V_INLINE vu digits_whole(vf v, vf scale) {
    const vf sum = v_fma(v, scale, v_set((float)DIGITS_MIDDLE));
#if V_SET == V_AVX512
    return (vu)_mm512_cvtps_epi32(sum);
#else
    vu whole;
    for (int i = 0; i < LANES; i++)
        whole[i] = (uint32_t)lrintf(sum[i]);
    return whole;
#endif
}

#if V_SET == V_AVX512
/* 16 of each digit, one after the other. */
V_INLINE __m512i digits_apart(vu whole) {
    static const uint8_t order[64] = {2, 6, 10, 14, 18, 22, 26, 30, 34, 38, 42, 46, 50, 54, 58, 62,
                                      1, 5, 9,  13, 17, 21, 25, 29, 33, 37, 41, 45, 49, 53, 57, 61,
                                      0, 4, 8,  12, 16, 20, 24, 28, 32, 36, 40, 44, 48, 52, 56, 60};
    return _mm512_xor_si512(_mm512_permutexvar_epi8(_mm512_loadu_si512(order), (__m512i)whole), _mm512_set1_epi8(-128));
}
#endif

/* The digits of one number, `apart` items from each to the next. */
V_INLINE void digits_put(patch_item *to, int64_t apart, uint32_t whole) {
    for (int digit = 0; digit < PLANES; digit++)
        to[digit * apart] = (patch_item)((uint8_t)(whole >> 8 * (PLANES - 1 - digit)) ^ 0x80);
}

/* v * scale as digits, `plane` items apart. */
V_INLINE void patch_put(patch_item *to, int64_t plane, vf v, vf scale) {
    const vu whole = digits_whole(v, scale);
#if V_SET == V_AVX512
    const __m512i digits = digits_apart(whole);
    _mm_storeu_si128((__m128i *)to, _mm512_castsi512_si128(digits));
    _mm_storeu_si128((__m128i *)(to + plane), _mm512_extracti32x4_epi32(digits, 1));
    _mm_storeu_si128((__m128i *)(to + 2 * plane), _mm512_extracti32x4_epi32(digits, 2));
#else
    for (int i = 0; i < LANES; i++)
        digits_put(to + i, plane, whole[i]);
#endif
}

/* The same of the channels of a step. */
V_INLINE void patch_put_step(patch_item *to, int64_t plane, const vf *v, vf scale) {
#if V_SET == V_AVX512
    /* [a b c -] of four vectors, then the a, the b and the c. */
    __m512i abc[4];
    V_UNROLL for (int i = 0; i < 4; i++) abc[i] = digits_apart(digits_whole(v[i], scale));
    const __m512i ab01 = _mm512_shuffle_i32x4(abc[0], abc[1], 0x44), ab23 = _mm512_shuffle_i32x4(abc[2], abc[3], 0x44);
    const __m512i cc01 = _mm512_shuffle_i32x4(abc[0], abc[1], 0xaa), cc23 = _mm512_shuffle_i32x4(abc[2], abc[3], 0xaa);
    _mm512_storeu_si512(to, _mm512_shuffle_i32x4(ab01, ab23, 0x88));
    _mm512_storeu_si512(to + plane, _mm512_shuffle_i32x4(ab01, ab23, 0xdd));
    _mm512_storeu_si512(to + 2 * plane, _mm512_shuffle_i32x4(cc01, cc23, 0x88));
#else
    for (int64_t i = 0; i < PATCH_DEPTH; i += LANES)
        patch_put(to + i, plane, v[i / LANES], scale);
#endif
}

/* The same of a row of values, or of zeros. What the last vector stores beyond them are zeros. */
static void patch_put_row(patch_item *to, int64_t plane, const float *from, int64_t count, vf scale) {
    int64_t i = 0;
    for (; from && i + PATCH_DEPTH <= count; i += PATCH_DEPTH) {
        vf step[PATCH_DEPTH / LANES];
        V_UNROLL for (int v = 0; v < PATCH_DEPTH / LANES; v++) step[v] = v_load(from + i + v * LANES);
        patch_put_step(to + i, plane, step, scale);
    }
    for (; i < count; i += LANES)
        patch_put(to + i, plane, from ? v_load_n(from + i, df_min(LANES, count - i)) : v_set(0), scale);
}

/* The largest of some values, and NaN where one is not finite. */
static float digits_unit(float largest, float poison) {
    const float most = largest < digits_least ? digits_least : largest;
    return (most + poison) / digits_most;
}

/* Of the weights of one output. */
static float column_unit(const float *weights, int64_t count) {
    float most = 0, poison = 0;
    for (int64_t i = 0; i < count; i++) {
        most = fmaxf(most, fabsf(weights[i]));
        poison += weights[i] * 0;
    }
    return digits_unit(most, poison);
}

/* Channel i of a step, of output k. */
static void column_put(patch_item *tap, int64_t i, int64_t k, float weight, float unit) {
    const long whole = lrint((double)weight / (double)unit) + DIGITS_MIDDLE;
    digits_put(tap + (i / 4 * TILE_ROWS + k) * 4 + i % 4, TILE_ITEMS, (uint32_t)whole);
}

/* Tile 3 t + d: the sums of pixels 16 t.. at the power 2^(32 - 8 d). */
#define EACH_TILE(what) what(0, 0, 0) what(0, 1, 1) what(0, 2, 2) what(1, 0, 3) what(1, 1, 4) what(1, 2, 5)
V_INLINE void run_begin(const int tiles) {
#define ZERO(t, d, tile)                                                                                               \
    if (t < tiles)                                                                                                     \
        tile_zero(tile);
    EACH_TILE(ZERO)
#undef ZERO
}

/* One tap of a step, in two halves, each of six products. */
/* clang-format off */
#define LOAD(t, digit) if (t < tiles) tile_load(6, a + at[t] + digit * plane, pitch);
#define DOT(t, tile)   if (t < tiles) tile_dot_bytes(tile, 6, 7);
V_INLINE void run_first(const int tiles, const patch_item *a, const int64_t at[RUN_TILES], int64_t pitch, int64_t plane,
                        const patch_item *b) {
    tile_load(7, b, ROWS_APART);
    LOAD(0, 0) DOT(0, 0)
    LOAD(1, 0) DOT(1, 3)
    LOAD(0, 1) DOT(0, 1)
    LOAD(1, 1) DOT(1, 4)
    LOAD(0, 2) DOT(0, 2)
    LOAD(1, 2) DOT(1, 5)
}
V_INLINE void run_second(const int tiles, const patch_item *a, const int64_t at[RUN_TILES], int64_t pitch,
                         int64_t plane, const patch_item *b) {
    tile_load(7, b + TILE_ITEMS, ROWS_APART);
    LOAD(1, 1) DOT(1, 5)
    LOAD(0, 1) DOT(0, 2)
    LOAD(1, 0) DOT(1, 4)
    LOAD(0, 0) DOT(0, 1)
    tile_load(7, b + 2 * TILE_ITEMS, ROWS_APART);
    DOT(0, 2)
    LOAD(1, 0) DOT(1, 5)
}
/* clang-format on */
#undef LOAD
#undef DOT

V_INLINE void run_end(const int tiles, run_sum *sums) {
#define STORE(t, d, tile)                                                                                              \
    if (t < tiles)                                                                                                     \
        tile_store(tile, sums + (d * RUN_TILES + t) * TILE_ROWS * TILE_ROWS, ROWS_APART);
    EACH_TILE(STORE)
#undef STORE
}
#undef EACH_TILE

/* 16 outputs of a row, in units of both and sums_unit. */
V_INLINE vf run_value(const run_sum *sums) {
    vf v = v_set(0);
    V_UNROLL for (int d = 0; d < PLANES; d++) {
        vi sum;
        memcpy(&sum, sums + d * RUN * TILE_ROWS, sizeof sum);
        const vf part = __builtin_convertvector(sum, vf);
        v = d ? v_fma(v, v_set(256), part) : part;
    }
    return v;
}
