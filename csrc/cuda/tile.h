/* What the tiled kernels share: how pixels lie in tiles, words in shared memory, and how a tile ends. */
#ifndef DIFFENCE_CUDA_TILE_H
#define DIFFENCE_CUDA_TILE_H

#include "kernels.h"

/* A tile's rows, counted over all images as if each had `per_image` of them (kernels.h, image_rows). With four phases the
 * rows are every other pixel of every other line of the output, from line phase / 2 and pixel phase % 2 on. */
struct tile_rows {
    uint32_t first, per_image;
    int32_t pixels; /* of an image; a row beyond them stands for nothing */
    int64_t images;
    int32_t phases, phase, width; /* 1 or 4; width: pixels of a line, where there are four */
};

struct tile_place {
    int32_t image, pixel;
    bool inside;
};

/* Where a place's output lies, in pixels of all images. */
DF_DEVICE int64_t output_row(const tile_rows &rows, const tile_place &at) {
    const int64_t row = (int64_t)at.image * rows.pixels + at.pixel;
    if (rows.phases == 1)
        return row;
    const int32_t y = at.pixel / rows.width, x = at.pixel % rows.width;
    return 4 * (row - at.pixel) + (2 * y + rows.phase / 2) * 2 * rows.width + 2 * x + rows.phase % 2;
}

DF_DEVICE tile_place locate(const tile_rows &rows, int row) {
    const uint32_t at = rows.first + (uint32_t)row, image = at / rows.per_image;
    const int32_t pixel = (int32_t)(at - image * rows.per_image);
    return {(int32_t)image, pixel, (int64_t)image < rows.images && pixel < rows.pixels};
}

/* Place of a 16-byte word in a matrix of rows of WORDS words, so that eight rows' words of one column, which ldmatrix
 * reads at once, and eight words of a row lie in different banks. Hopper's 128-byte swizzle where WORDS is 8. */
template <int WORDS> DF_DEVICE int swizzled(int row, int word) {
    return row * WORDS + (word ^ (row & 7));
}

/* Floats of a row of a tile of outputs: more than its columns, for the banks. */
template <int COLUMNS> struct tile_pitch {
    enum { value = COLUMNS + 4 };
};

struct whole_block {
    static DF_DEVICE void wait() { __syncthreads(); }
};

/* Adds what is to be added to a word of channels but the bias, rounds and stores it; value: what was stored. */
template <typename T>
DF_DEVICE void finish_value(float value[8], const epilogue<T> &end, int32_t image, int64_t row, int32_t channel) {
    float more[8];
    if (end.times) {
        load_eight(more, end.times + (int64_t)end.time[image] * end.out_pitch + channel);
#pragma unroll
        for (int j = 0; j < 8; j++)
            value[j] += more[j];
    }
    if (end.shift) {
        load_eight(more, end.shift + (int64_t)image * end.out_pitch + channel);
#pragma unroll
        for (int j = 0; j < 8; j++)
            value[j] += more[j];
    }
    if (end.residual) {
        load_eight(more, end.residual + row * end.out_pitch + channel);
#pragma unroll
        for (int j = 0; j < 8; j++)
            value[j] += more[j];
    }
#pragma unroll
    for (int j = 0; j < 8; j++)
        value[j] = to_float(from_float<T>(value[j])); /* partials are those of what a reader will see */
    store_eight(end.output + row * end.out_pitch + channel, value);
}

/* tile: [ROWS][tile_pitch] floats in shared memory, complete; its first `columns` columns are the output's channels from
 * `channel` on. Adds, rounds, stores, and leaves the partials. Rows are summed in an order that only the place in the
 * image fixes. All THREADS threads of BARRIER take part; the tile is used up. */
template <typename T, int ROWS, int COLUMNS, int THREADS, typename BARRIER>
DF_DEVICE void finish_tile(float *tile, const epilogue<T> &end, const tile_rows &rows, int32_t channel, int32_t columns,
                           int thread) {
    constexpr int WORDS = COLUMNS / 8, GROUPS = THREADS / WORDS, EACH = ROWS / GROUPS,
                  PITCH = tile_pitch<COLUMNS>::value;
    static_assert(EACH >= 1 && EACH <= 16 && GROUPS * WORDS == THREADS, "a group's rows belong to one image");
    const int word = thread % WORDS, group = thread / WORDS;
    float bias[8] = {0}, sum[8] = {0}, squares[8] = {0};
    if (8 * word < columns) {
        if (end.bias)
            load_eight(bias, end.bias + channel + 8 * word);
        for (int i = 0; i < EACH; i++) {
            const int row = group * EACH + i;
            const tile_place at = locate(rows, row);
            if (!at.inside)
                continue;
            float value[8];
            load_eight(value, tile + row * PITCH + 8 * word);
#pragma unroll
            for (int j = 0; j < 8; j++)
                value[j] += bias[j];
            finish_value(value, end, at.image, output_row(rows, at), channel + 8 * word);
#pragma unroll
            for (int j = 0; j < 8; j++) {
                sum[j] += value[j];
                squares[j] += value[j] * value[j];
            }
        }
    }
    if (!end.partials)
        return;
    BARRIER::wait();
    float *sums = tile; /* [GROUPS][2][COLUMNS] */
    store_eight(sums + group * 2 * COLUMNS + 8 * word, sum);
    store_eight(sums + (group * 2 + 1) * COLUMNS + 8 * word, squares);
    BARRIER::wait();
    const int segment_rows = rows.per_image < ROWS ? (int)rows.per_image : ROWS;
    const int of_a_segment = segment_rows / EACH;
    const int32_t segments = segments_of(rows.pixels, ROWS);
    for (int i = thread; i < GROUPS / of_a_segment * 2 * COLUMNS; i += THREADS) {
        const int column = i % COLUMNS, which = i / COLUMNS % 2, segment = i / COLUMNS / 2;
        const tile_place at = locate(rows, segment * segment_rows);
        if (!at.inside || column >= columns)
            continue;
        float total = 0;
        for (int g = segment * of_a_segment; g < (segment + 1) * of_a_segment; g++)
            total += sums[(g * 2 + which) * COLUMNS + column];
        const int64_t row = ((int64_t)at.image * rows.phases + rows.phase) * segments + at.pixel / ROWS;
        end.partials[(2 * row + which) * end.out_pitch + channel + column] = total;
    }
}

#endif
