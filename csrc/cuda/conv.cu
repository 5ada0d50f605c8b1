/* Convolution on tensor cores, as a matrix product whose left side is never written down: row m is pixel m of the output,
 * and its terms are the channels of the pixels around it. Several stages of both sides are in shared memory; while one is
 * multiplied the next ones are copied.
 *
 * Terms come in blocks of DEPTH channels where the pitch is a multiple of that, all taps of one block after the other: the
 * nine taps read nearly the same pixels, which are still in the L1 cache then. Else all channels are one block. */
#include "hopper.h"

namespace {

/* A tile of TILE rows and COLUMNS columns; WARPS_DOWN x WARPS_ACROSS warps share it. */
template <int COLUMNS_, int WARPS_DOWN, int WARPS_ACROSS, int STAGES_, int BLOCKS_> struct tile_shape {
    enum {
        COLUMNS = COLUMNS_,
        STAGES = STAGES_,
        BLOCKS = BLOCKS_, /* at a time on a multiprocessor */
        THREADS = 32 * WARPS_DOWN * WARPS_ACROSS,
        DOWN = WARPS_DOWN,
        WARP_ROWS = TILE / WARPS_DOWN,
        WARP_COLUMNS = COLUMNS / WARPS_ACROSS,
        ROW_BLOCKS = WARP_ROWS / 16,
        COLUMN_BLOCKS = WARP_COLUMNS / 8,
        WORDS = DEPTH / CHANNELS, /* of a row */
        STEP = THREADS / WORDS,   /* rows from one that a thread copies to the next */
        ROWS = TILE / STEP,
        LEFT = TILE * DEPTH * 2, /* bytes */
        STAGE = LEFT + COLUMNS * DEPTH * 2,
        SHARED = STAGES * STAGE
    };
    static_assert(SHARED >= TILE * (COLUMNS + 4) * 4, "the outputs take the place of the stages");
};

using wide = tile_shape<128, 2, 2, 3, 2>;
using medium = tile_shape<64, 4, 1, 3, 2>;
using narrow = tile_shape<32, 4, 1, 3, 2>;
/* Hopper's, whose products give each warp 16 rows of all columns. */
using hopper_wide = tile_shape<128, 8, 1, 3, 2>;
using hopper_widest = tile_shape<256, 8, 1, 4, 1>;

/* What a thread copies: the same column of words of several rows. Of each row the first pixel of its image, and the place
 * of the first tap, which is far outside where there is no row. The thread's next word begins at channel
 * block * DEPTH + word * CHANNELS of the tap. */
template <typename S> struct walker {
    int32_t base[S::ROWS];
    int16_t y[S::ROWS], x[S::ROWS];
    int32_t block, tap, word;
};

template <typename S, typename T>
DF_DEVICE void start_walk(walker<S> &walk, const conv_call<T> &call, const tile_rows &rows, int thread) {
    const int pad = (call.size - 1) / 2, down = rows.phase / 2, right = rows.phase % 2;
    const int32_t line = rows.phases == 4 ? call.width : call.out_width;
#pragma unroll
    for (int i = 0; i < S::ROWS; i++) {
        const tile_place at = locate(rows, thread / S::WORDS + S::STEP * i);
        walk.base[i] = at.inside ? at.image * call.height * call.width : 0;
        walk.y[i] = (int16_t)(at.inside ? at.pixel / line * call.stride - pad + down : -30000);
        walk.x[i] = (int16_t)(at.inside ? at.pixel % line * call.stride - pad + right : -30000);
    }
    walk.block = walk.tap = 0;
    walk.word = thread % S::WORDS;
}

/* Pixels of a line of the kernel. */
template <typename T> DF_DEVICE int edge_of(const conv_call<T> &call) {
    return call.upsample ? 2 : call.size;
}

/* weight: of the tile's first column. */
template <typename S, typename T>
DF_DEVICE void load_stage(const conv_call<T> &call, walker<S> &walk, unsigned char *stage, const T *weight, int chunk,
                          int thread) {
    const int words = call.pitch % DEPTH ? call.pitch / CHANNELS : S::WORDS, edge = edge_of(call), taps = edge * edge;
    while (walk.word >= words) {
        walk.word -= words;
        if (++walk.tap == taps) {
            walk.tap = 0;
            walk.block++;
        }
    }
    const int word = thread % S::WORDS, row = thread / S::WORDS;
    const int32_t channel = walk.block * DEPTH + walk.word * CHANNELS;
    const bool known = call.pitch % DEPTH ? walk.block == 0 : channel < call.pitch;
    const int dy = edge == 3 ? walk.tap / 3 : walk.tap / 2, dx = walk.tap - dy * edge; /* one tap: 0 */
    const bool second = channel >= call.input.split;
    const T *from = second ? call.input.second + (channel - call.input.split) : call.input.first + channel;
    const int32_t pitch = second ? call.input.second_pitch : call.input.first_pitch;
    eight<T> *left = (eight<T> *)stage;
#pragma unroll
    for (int i = 0; i < S::ROWS; i++) {
        const int32_t y = walk.y[i] + dy, x = walk.x[i] + dx;
        const bool inside = known && y >= 0 && y < call.height && x >= 0 && x < call.width;
        const int64_t pixel = inside ? walk.base[i] + y * call.width + x : 0;
        copy_async_cached(left + swizzled<S::WORDS>(row + S::STEP * i, word),
                          inside ? from + pixel * pitch : call.input.first, inside);
    }
    eight<T> *right = (eight<T> *)(stage + S::LEFT);
    const int32_t depth = taps * call.pitch;
    const T *words_of_row = weight + (int64_t)row * depth + chunk * DEPTH + word * CHANNELS;
#pragma unroll
    for (int i = 0; i < S::COLUMNS / S::STEP; i++)
        copy_async(right + swizzled<S::WORDS>(row + S::STEP * i, word),
                   known ? words_of_row + (int64_t)(S::STEP * i) * depth : call.weight, known);
    walk.word += S::WORDS;
}

template <typename T, typename S>
DF_DEVICE void multiply_stage(float sums[S::ROW_BLOCKS][S::COLUMN_BLOCKS][4], const unsigned char *stage, int warp,
                              int lane) {
    const eight<T> *left = (const eight<T> *)stage, *right = (const eight<T> *)(stage + S::LEFT);
    const int first_row = warp % S::DOWN * S::WARP_ROWS, first_column = warp / S::DOWN * S::WARP_COLUMNS;
#pragma unroll
    for (int k = 0; k < DEPTH / 16; k++) {
        uint32_t a[S::ROW_BLOCKS][4];
#pragma unroll
        for (int i = 0; i < S::ROW_BLOCKS; i++)
            load_matrices(a[i], left + swizzled<S::WORDS>(first_row + 16 * i + lane % 16, 2 * k + lane / 16));
#pragma unroll
        for (int j = 0; j < S::COLUMN_BLOCKS; j += 2) {
            uint32_t b[4];
            load_matrices(
                b, right + swizzled<S::WORDS>(first_column + 8 * j + lane % 8 + lane / 16 * 8, 2 * k + lane / 8 % 2));
#pragma unroll
            for (int i = 0; i < S::ROW_BLOCKS; i++) {
                multiply_add<T>(sums[i][j], a[i], b[0], b[1]);
                multiply_add<T>(sums[i][j + 1], a[i], b[2], b[3]);
            }
        }
    }
}

/* The sums of all warps, in the place of the stages, and what becomes of them. */
template <typename T, typename S>
DF_DEVICE void store_tile(const float sums[S::ROW_BLOCKS][S::COLUMN_BLOCKS][4], unsigned char *shared,
                          const conv_call<T> &call, const tile_rows &rows, int32_t column, int thread) {
    const int warp = thread / 32, lane = thread % 32;
    float *tile = (float *)shared;
    constexpr int PITCH = tile_pitch<S::COLUMNS>::value;
    const int row = warp % S::DOWN * S::WARP_ROWS + lane / 4, two = warp / S::DOWN * S::WARP_COLUMNS + lane % 4 * 2;
#pragma unroll
    for (int i = 0; i < S::ROW_BLOCKS; i++)
#pragma unroll
        for (int j = 0; j < S::COLUMN_BLOCKS; j++)
#pragma unroll
            for (int v = 0; v < 4; v++)
                tile[(row + 16 * i + v / 2 * 8) * PITCH + two + 8 * j + v % 2] = sums[i][j][v];
    __syncthreads();
    const int32_t left = call.end.out_pitch - column, columns = left < S::COLUMNS ? left : S::COLUMNS;
    finish_tile<T, TILE, S::COLUMNS, S::THREADS, whole_block>(tile, call.end, rows, column, columns, thread);
}

template <typename T> DF_DEVICE int chunks_of(const conv_call<T> &call) {
    return (edge_of(call) * edge_of(call) * call.pitch + DEPTH - 1) / DEPTH;
}

/* What a block computes: columns first, then phases, so that blocks that follow each other read the same pixels. */
template <typename T, typename S>
DF_DEVICE const T *find_tile(const conv_call<T> &call, tile_rows &rows, int column_tiles, int32_t *column) {
    const unsigned rest = blockIdx.x / (unsigned)column_tiles;
    *column = (int32_t)(blockIdx.x % (unsigned)column_tiles) * S::COLUMNS;
    rows.phase = (int32_t)(rest % (unsigned)rows.phases);
    rows.first = rest / (unsigned)rows.phases * TILE;
    return call.weight +
           ((int64_t)rows.phase * call.weight_rows + *column) * edge_of(call) * edge_of(call) * call.pitch;
}

template <typename T, typename S>
DF_KERNEL(S::THREADS, S::BLOCKS)
conv_kernel(conv_call<T> call, tile_rows rows, int column_tiles) {
    DF_SHARED(shared);
    const int thread = (int)threadIdx.x, chunks = chunks_of(call);
    int32_t column;
    const T *weight = find_tile<T, S>(call, rows, column_tiles, &column);
    walker<S> walk;
    start_walk(walk, call, rows, thread);
    for (int chunk = 0; chunk < S::STAGES - 1; chunk++) {
        if (chunk < chunks)
            load_stage(call, walk, shared + chunk * S::STAGE, weight, chunk, thread);
        copy_commit();
    }
    float sums[S::ROW_BLOCKS][S::COLUMN_BLOCKS][4] = {};
    for (int chunk = 0; chunk < chunks; chunk++) {
        copy_wait<S::STAGES - 2>();
        __syncthreads(); /* the stage is there for all, and nobody reads the one before any more */
        const int next = chunk + S::STAGES - 1;
        if (next < chunks)
            load_stage(call, walk, shared + next % S::STAGES * S::STAGE, weight, next, thread);
        copy_commit();
        multiply_stage<T, S>(sums, shared + chunk % S::STAGES * S::STAGE, thread / 32, thread % 32);
    }
    copy_wait<0>();
    __syncthreads();
    store_tile<T, S>(sums, shared, call, rows, column, thread);
}

/* The same with Hopper's products, which go on while the next stages are copied: a stage is free only after the barrier
 * that follows the products after its own, so they are copied one stage less ahead. */
template <typename T, typename S>
DF_KERNEL(S::THREADS, S::BLOCKS)
conv_hopper_kernel(conv_call<T> call, tile_rows rows, int column_tiles) {
#if DF_HOPPER
    DF_SHARED(shared);
    const int thread = (int)threadIdx.x, chunks = chunks_of(call);
    int32_t column;
    const T *weight = find_tile<T, S>(call, rows, column_tiles, &column);
    walker<S> walk;
    start_walk(walk, call, rows, thread);
    for (int chunk = 0; chunk < S::STAGES - 2; chunk++) {
        if (chunk < chunks)
            load_stage(call, walk, shared + chunk * S::STAGE, weight, chunk, thread);
        copy_commit();
    }
    float sums[S::ROW_BLOCKS][S::COLUMN_BLOCKS][4] = {};
    const int rows_before = thread / 128 * 64 * DEPTH * 2; /* bytes: of the other warpgroup's rows */
    for (int chunk = 0; chunk < chunks; chunk++) {
        const unsigned char *stage = shared + chunk % S::STAGES * S::STAGE;
        copy_wait<S::STAGES - 3>();
        before_async_reads();
        __syncthreads();
        start_products();
        multiply_group<T, S::COLUMNS>(sums[0], stage + rows_before, stage + S::LEFT);
        end_products<1>();
        const int next = chunk + S::STAGES - 2;
        if (next < chunks)
            load_stage(call, walk, shared + next % S::STAGES * S::STAGE, weight, next, thread);
        copy_commit();
    }
    end_products<0>();
    copy_wait<0>();
    __syncthreads();
    store_tile<T, S>(sums, shared, call, rows, column, thread);
#else
    (void)call;
    (void)rows;
    (void)column_tiles; /* the host does not start what was not compiled for its GPU */
#endif
}

template <typename T, typename S>
cudaError_t start(void (*kernel)(conv_call<T>, tile_rows, int), const conv_call<T> &call, cudaStream_t stream) {
    const int32_t phases = call.upsample ? 4 : 1, pixels = call.out_height * call.out_width / phases;
    const tile_rows rows = {0, (uint32_t)image_rows(pixels, TILE), pixels, call.images, phases, 0, call.width};
    const int64_t row_tiles = blocks_for(call.images * rows.per_image, TILE);
    const int64_t column_tiles = blocks_for(call.end.out_pitch, S::COLUMNS);
    return launch(kernel, dim3((unsigned)(row_tiles * column_tiles * phases)), S::THREADS, S::SHARED, stream, call,
                  rows, (int)column_tiles);
}

} // namespace

bool has_hopper_kernels(int compute_major) {
#ifdef DF_EMULATED
    (void)compute_major; /* it computes what they do */
    return true;
#else
    cudaFuncAttributes attributes;
    return compute_major == 9 &&
           cudaFuncGetAttributes(&attributes, conv_hopper_kernel<bf16, hopper_wide>) == cudaSuccess &&
           attributes.binaryVersion == 90;
#endif
}

template <typename T> cudaError_t conv_tiled(const conv_call<T> &call, bool hopper, cudaStream_t stream) {
    const int32_t columns = tile_columns(call.out_channels);
    if (hopper && columns == 256)
        return start<T, hopper_widest>(conv_hopper_kernel<T, hopper_widest>, call, stream);
    if (hopper && columns == 128)
        return start<T, hopper_wide>(conv_hopper_kernel<T, hopper_wide>, call, stream);
    if (columns >= 128)
        return start<T, wide>(conv_kernel<T, wide>, call, stream);
    if (columns == 64)
        return start<T, medium>(conv_kernel<T, medium>, call, stream);
    return start<T, narrow>(conv_kernel<T, narrow>, call, stream);
}

template cudaError_t conv_tiled<bf16>(const conv_call<bf16> &, bool, cudaStream_t);
template cudaError_t conv_tiled<fp16>(const conv_call<fp16> &, bool, cudaStream_t);
