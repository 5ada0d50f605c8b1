/* The eight tile registers of AMX, 16 rows of 16 words, and sums of products in them.
 *
 * tile_load, tile_store: 16 rows, `stride` bytes from each to the next.   tile_zero.   tile_dot: sum += rows * columns, each
 * word's first terms and second terms summed from zero on their own, then added. Subnormal numbers count as zeros.
 * tile_dot_bytes: the same of four signed bytes in each word, exactly, to sums of 32 bits. */
enum {
    TILE_ROWS = 16,
    TILE_PAIR = 2,
    TILE_DEPTH = TILE_ROWS * TILE_PAIR,
    TILE_TERMS = TILE_ROWS * TILE_DEPTH,
    TILE_BYTES = 4 * TILE_ROWS /* of a row */
};
typedef uint16_t tile_term; /* bfloat16 */

#if V_SET == V_AVX512
#define tile_load(tile, from, stride)      _tile_loadd(tile, from, stride)
#define tile_store(tile, to, stride)       _tile_stored(tile, to, stride)
#define tile_zero(tile)                    _tile_zero(tile)
#define tile_dot(sum, rows, columns)       _tile_dpbf16ps(sum, rows, columns)
#define tile_dot_bytes(sum, rows, columns) _tile_dpbssd(sum, rows, columns)

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
    tile_term terms[TILE_ROWS][TILE_DEPTH];
    float sums[TILE_ROWS][TILE_ROWS];
    int8_t bytes[TILE_ROWS][TILE_BYTES];
    int32_t whole[TILE_ROWS][TILE_ROWS];
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
V_INLINE float tile_value(tile_term x) {
    const uint32_t bits = (uint32_t)x << 16;
    float number;
    memcpy(&number, &bits, sizeof number);
    return number;
}
static __attribute__((unused)) void tile_dot(int sum, int rows, int columns) {
    for (int r = 0; r < TILE_ROWS; r++)
        for (int k = 0; k < TILE_ROWS; k++) {
            float of[TILE_PAIR] = {0};
            for (int l = 0; l < TILE_DEPTH; l++)
                of[l % TILE_PAIR] =
                    fmaf(tile_value(tile_registers[rows].terms[r][l]),
                         tile_value(tile_registers[columns].terms[l / TILE_PAIR][k * TILE_PAIR + l % TILE_PAIR]),
                         of[l % TILE_PAIR]);
            tile_registers[sum].sums[r][k] += of[0] + of[1];
        }
}
static __attribute__((unused)) void tile_dot_bytes(int sum, int rows, int columns) {
    for (int r = 0; r < TILE_ROWS; r++)
        for (int k = 0; k < TILE_ROWS; k++)
            for (int l = 0; l < TILE_BYTES; l++)
                tile_registers[sum].whole[r][k] +=
                    tile_registers[rows].bytes[r][l] * tile_registers[columns].bytes[l / 4][k * 4 + l % 4];
}
#endif
