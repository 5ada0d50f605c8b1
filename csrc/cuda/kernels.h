/* The seam between the CUDA engine and its kernels: what each launch is given.
 *
 * Activations are [images][pixels][pitch] of T (float, bf16 or fp16), pitch = channels rounded up to CHANNELS, what is
 * beyond the channels zero. So every row is a whole number of 16-byte words. An output's bits depend on its own image
 * only: how a launch is cut into blocks may never change the order of a sum.
 *
 * Whoever makes a value that a group norm reads leaves *partials* beside it, [images][segments][2][pitch]: for each
 * channel the sum and the sum of squares of the stored values of one segment of the image's pixels. */
#ifndef DIFFENCE_CUDA_KERNELS_H
#define DIFFENCE_CUDA_KERNELS_H

#include "launch.h"

#include <stdint.h>

enum {
    CHANNELS = 8, /* of a 16-byte word of 16-bit numbers */
    TILE = 128,   /* pixels of a convolution's tile, of one image or of several small ones */
    DEPTH = 64,   /* terms of a sum that a convolution's tile holds at a time: 128 bytes of 16-bit numbers a row */
    QUERIES = 64  /* of an attention's tile */
};

/* Values of a row of so many channels. */
static inline int32_t pitch_for(int32_t channels) {
    return (channels + CHANNELS - 1) / CHANNELS * CHANNELS;
}

/* One or two values side by side, as the readers of a concatenation see them. */
template <typename T> struct source {
    const T *first, *second; /* second: NULL where there is none */
    int32_t split;           /* channels of the first; a multiple of CHANNELS where there is a second */
    int32_t first_pitch, second_pitch;
};

/* What is added to an output, and where its partials go. */
template <typename T> struct epilogue {
    const float *bias;   /* [out_pitch], or NULL */
    const float *times;  /* [steps][out_pitch], the row of the image's time step, or NULL */
    const int32_t *time; /* [images] */
    const T *shift;      /* [images][out_pitch], or NULL */
    const T *residual;   /* as output, or NULL */
    float *partials;     /* or NULL */
    T *output;
    int32_t out_pitch;
};

/* Where upsampled, each stored pixel stands for 2 x 2 (size 3, stride 1); a tiled convolution is four of 2 x 2 then, one
 * for every place in the 2 x 2, with sums of weights. Weights are zero where there is no channel:
 * plain: [size][size][pitch][out_pitch];
 * tiled: [4 where upsampled][weight_rows: the outputs, filled up to the tile's columns][blocks][taps][channels of a block],
 * see conv.cu. */
template <typename T> struct conv_call {
    int64_t images;
    int32_t channels, pitch; /* of the input: pitch is that of both sources together */
    int32_t height, width;   /* as stored, before upsampling */
    int32_t out_channels, out_height, out_width;
    int32_t size, stride; /* 1 or 3, 1 or 2; zero padding (size - 1) / 2 */
    bool upsample;
    source<T> input;
    const T *weight;
    int32_t weight_rows;
    epilogue<T> end;
    float *planar; /* plain, instead of end.output: [images][out_channels][pixels] */
};

/* Pixels of a segment of the partials that a tile of `rows` pixels leaves: a tile holds a part of one image, or several
 * images of a power of two of rows each. */
DF_BOTH int32_t image_rows(int64_t pixels, int32_t rows) {
    if (pixels >= rows)
        return (int32_t)((pixels + rows - 1) / rows * rows);
    int32_t room = 16;
    while (room < pixels)
        room *= 2;
    return room;
}
DF_BOTH int32_t segments_of(int64_t pixels, int32_t rows) {
    return pixels >= rows ? (int32_t)((pixels + rows - 1) / rows) : 1;
}

/* Of what a tiled convolution makes. */
DF_BOTH int32_t conv_segments(int64_t out_pixels, bool upsample) {
    return upsample ? 4 * segments_of(out_pixels / 4, TILE) : segments_of(out_pixels, TILE);
}

/* Columns of the tile that a convolution of so many outputs takes on Hopper; others take at most 128. Weights are filled up
 * to a multiple of it. */
static inline int32_t tile_columns(int32_t out_channels) {
    const int32_t beyond = (out_channels - 1) % 256 + 1; /* of the last tile of 256 */
    return out_channels > 128 && beyond > 128 ? 256 : out_channels > 64 ? 128 : out_channels > 32 ? 64 : 32;
}

/* conv.cu: on tensor cores; T 16 bits wide. hopper: has_hopper_kernels of the GPU's compute capability. */
bool has_hopper_kernels(int compute_major);
template <typename T> cudaError_t conv_tiled(const conv_call<T> &call, bool hopper, cudaStream_t stream);
/* conv_plain.cu: any T, any shape; partials are not made. */
template <typename T> cudaError_t conv_plain(const conv_call<T> &call, cudaStream_t stream);

template <typename T> struct norm_call {
    int64_t images;
    int32_t channels, groups, pixels, pitch; /* pitch: of the output */
    float epsilon;
    bool silu;
    source<T> input;
    const float *partials[2]; /* of either source; not read by norm_exact */
    int32_t segments[2];
    const float *scale, *shift; /* [channels] */
    T *output;
};

/* norm.cu: from partials. */
template <typename T> cudaError_t norm_from_partials(const norm_call<T> &call, cudaStream_t stream);
/* Mean first and then the squares around it, without partials: what fp32 takes. */
template <typename T> cudaError_t norm_exact(const norm_call<T> &call, cudaStream_t stream);
/* The partials of a value whose maker left none, one segment for TILE pixels. */
template <typename T>
cudaError_t make_partials(int64_t images, int32_t pixels, int32_t pitch, const T *value, float *partials,
                          cudaStream_t stream);

template <typename T> struct attention_call {
    int64_t images;
    int32_t pixels, channels, heads;
    const T *q, *k, *v;
    int32_t q_pitch, k_pitch, v_pitch;
    epilogue<T> end; /* bias, times and shift: NULL */
};

static inline bool attention_fits_tiles(int32_t channels, int32_t heads) {
    const int32_t dim = channels / heads;
    return dim % CHANNELS == 0 && dim <= 256;
}

/* attention.cu: on tensor cores, where attention_fits_tiles. Partials: one segment for QUERIES pixels. */
template <typename T> cudaError_t attention_tiled(const attention_call<T> &call, cudaStream_t stream);
/* Any T, any shape; partials are not made. */
template <typename T> cudaError_t attention_plain(const attention_call<T> &call, cudaStream_t stream);

/* move.cu */
template <typename T>
cudaError_t import_images(int64_t images, int32_t channels, int32_t pixels, const float *planar, T *output,
                          cudaStream_t stream);
template <typename T>
cudaError_t export_images(int64_t images, int32_t channels, int32_t pixels, const T *input, float *planar,
                          cudaStream_t stream);
/* Row time[i] of a table, for the rare step that reads a value of the time step otherwise than as a shift. */
template <typename T>
cudaError_t gather_times(int64_t images, int32_t pitch, const float *table, const int32_t *time, T *output,
                         cudaStream_t stream);
template <typename T>
cudaError_t concatenate(int64_t pixels, int32_t channels, int32_t pitch, const source<T> &input, T *output,
                        cudaStream_t stream);
template <typename T>
cudaError_t upsample(int64_t images, int32_t height, int32_t width, int32_t pitch, const T *input, T *output,
                     cudaStream_t stream);
template <typename T> cudaError_t apply_silu(int64_t values, const T *input, T *output, cudaStream_t stream);
/* other: as input, or [images][pitch] where it is broadcast. */
template <typename T>
cudaError_t add_values(int64_t images, int32_t pixels, int32_t pitch, const T *input, const T *other, bool broadcast,
                       T *output, cudaStream_t stream);

/* sample.cu: the arithmetic of core/reconstruct.c around the network, and its noise. */
struct noising {
    int64_t first, count;  /* items */
    int32_t values;        /* of one image */
    const float *images;   /* [..][values] in [0, 1] */
    const uint8_t *hashes; /* 16 bytes an image, or NULL where there is noise */
    const int32_t *index, *draws;
    const float *noise; /* [items][values], or NULL */
    float signal, scale;
};
cudaError_t noise_images(const noising &call, float *x, cudaStream_t stream);
/* x <- x_scale x + eps_scale eps */
cudaError_t take_step(int64_t values, float x_scale, float eps_scale, const float *eps, float *x, cudaStream_t stream);
/* out = clamp((x + 1) / 2, 0, 1); *bad becomes the smallest item, first..first + count - 1, that is not finite. */
cudaError_t finish_images(int64_t first, int64_t count, int32_t values, const float *x, float *out, int32_t *bad,
                          cudaStream_t stream);
cudaError_t fill_times(int64_t count, int32_t t, int32_t *time, cudaStream_t stream);
/* core/hash.c's df_content_hash of each image. */
cudaError_t hash_images(int64_t count, int32_t channels, int32_t height, int32_t width, const uint8_t key[16],
                        const float *images, uint8_t *hashes, cudaStream_t stream);

/* phi.cu: core/phi.c. *bad becomes the smallest row that has no finite phi. */
cudaError_t phi_rows(int64_t rows, int32_t classes, const float *logits, bool official, double *phi, int32_t *predicted,
                     int32_t *bad, cudaStream_t stream);

#endif
