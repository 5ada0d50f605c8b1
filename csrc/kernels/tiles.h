/* The eight tile registers of AMX, 16 rows of 16 words, and sums of products in them.
 *
 * tile_load, tile_store: 16 rows, `stride` bytes from each to the next.   tile_zero.   tile_dot: sum += rows * columns, each
 * word's first terms and second terms summed from zero on their own, then added. Subnormal numbers count as zeros. */
enum { TILE_ROWS = 16, TILE_DEPTH = TILE_ROWS * PAIR, TILE_TERMS = TILE_ROWS * TILE_DEPTH };

#if V_SET == V_AVX512
#define tile_load(tile, from, stride) _tile_loadd(tile, from, stride)
#define tile_store(tile, to, stride)  _tile_stored(tile, to, stride)
#define tile_zero(tile)               _tile_zero(tile)
#define tile_dot(sum, rows, columns)  _tile_dpbf16ps(sum, rows, columns)

/* A task's first and last words: all tiles whole, and the registers given back, which the system else would save. */
V_INLINE void tiles_open(void) {
    static const struct {
        uint8_t palette, start, reserved[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } shape = {.palette = 1, .bytes = {64, 64, 64, 64, 64, 64, 64, 64}, .rows = {16, 16, 16, 16, 16, 16, 16, 16}};
    _tile_loadconfig(&shape);
}
V_INLINE void tiles_close(void) {
    _tile_release();
}
/* The compiler does not know that tiles are read from memory and written to it. */
#define TILES_BARRIER() __asm__ volatile("" ::: "memory")
#else /* the same in plain C, for tests on processors without them */
static _Thread_local union tile {
    term terms[TILE_ROWS][TILE_DEPTH];
    float sums[TILE_ROWS][TILE_ROWS];
} tile_registers[8];

V_INLINE void tiles_open(void) {}
V_INLINE void tiles_close(void) {}
#define TILES_BARRIER() (void)0

V_INLINE void tile_zero(int tile) {
    memset(&tile_registers[tile], 0, sizeof tile_registers[tile]);
}
V_INLINE void tile_load(int tile, const void *from, int64_t stride) {
    for (int r = 0; r < TILE_ROWS; r++)
        memcpy(tile_registers[tile].terms[r], (const char *)from + r * stride, sizeof tile_registers[tile].terms[r]);
}
V_INLINE void tile_store(int tile, void *to, int64_t stride) {
    for (int r = 0; r < TILE_ROWS; r++)
        memcpy((char *)to + r * stride, tile_registers[tile].terms[r], sizeof tile_registers[tile].terms[r]);
}
V_INLINE float tile_value(term x) {
    const uint32_t bits = (uint32_t)x << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
static void tile_dot(int sum, int rows, int columns) {
    for (int r = 0; r < TILE_ROWS; r++)
        for (int k = 0; k < TILE_ROWS; k++) {
            float of[PAIR] = {0};
            for (int l = 0; l < TILE_DEPTH; l++)
                of[l % PAIR] =
                    fmaf(tile_value(tile_registers[rows].terms[r][l]),
                         tile_value(tile_registers[columns].terms[l / PAIR][k * PAIR + l % PAIR]), of[l % PAIR]);
            tile_registers[sum].sums[r][k] += of[0] + of[1];
        }
}
#endif

/* c[16 or 32][COLUMNS] (+)= a[16 or 32][depth] times packed columns. Depth: whole steps. */
V_INLINE void tile_gemm(const bool two, int64_t depth, const term *a, int64_t lda, const term *b, float *c, int64_t ldc,
                        bool first) {
    const int64_t apart = lda * (int64_t)sizeof *a, wide = COLUMNS * PAIR * (int64_t)sizeof *b;
    const int64_t line = ldc * (int64_t)sizeof *c;
    TILES_BARRIER();
    if (first) {
        tile_zero(0);
        tile_zero(1);
        tile_zero(2);
        tile_zero(3);
    } else {
        tile_load(0, c, line);
        tile_load(1, c + TILE_ROWS, line);
        if (two) {
            tile_load(2, c + TILE_ROWS * ldc, line);
            tile_load(3, c + TILE_ROWS * ldc + TILE_ROWS, line);
        }
    }
    for (int64_t l = 0; l < depth; l += TILE_DEPTH, b += TILE_DEPTH * COLUMNS) {
        tile_load(4, a + l, apart);
        tile_load(6, b, wide);
        tile_dot(0, 4, 6);
        tile_load(7, b + TILE_DEPTH, wide);
        tile_dot(1, 4, 7);
        if (two) {
            tile_load(5, a + l + TILE_ROWS * lda, apart);
            tile_dot(2, 5, 6);
            tile_dot(3, 5, 7);
        }
    }
    tile_store(0, c, line);
    tile_store(1, c + TILE_ROWS, line);
    if (two) {
        tile_store(2, c + TILE_ROWS * ldc, line);
        tile_store(3, c + TILE_ROWS * ldc + TILE_ROWS, line);
    }
    TILES_BARRIER();
}
