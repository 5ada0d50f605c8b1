/* Steps that move values, or add them, a 16-byte word at a time where they can. None of them is where the time goes. */
#include "tile.h"

namespace {

enum { THREADS = 256 };

/* A pixel. */
template <typename T>
DF_KERNEL(THREADS, 4)
import_kernel(int64_t count, int32_t channels, int32_t pitch, int32_t pixels, const float *planar, T *output) {
    const int64_t at = thread_number();
    if (at >= count)
        return;
    const int64_t image = at / pixels, pixel = at % pixels;
    for (int32_t c = 0; c < pitch; c += CHANNELS) {
        float value[8];
#pragma unroll
        for (int j = 0; j < 8; j++)
            value[j] = c + j < channels ? planar[(image * channels + c + j) * pixels + pixel] : 0;
        store_eight(output + at * pitch + c, value);
    }
}

/* A value of the output. */
template <typename T>
DF_KERNEL(THREADS, 4)
export_kernel(int64_t count, int32_t channels, int32_t pitch, int32_t pixels, const T *input, float *planar) {
    const int64_t at = thread_number();
    if (at >= count)
        return;
    const int64_t image = at / pixels / channels, channel = at / pixels % channels, pixel = at % pixels;
    planar[at] = to_float(input[(image * pixels + pixel) * pitch + channel]);
}

/* A word. */
template <typename T>
DF_KERNEL(THREADS, 4)
gather_kernel(int64_t count, int32_t words, const float *table, const int32_t *time, T *output) {
    const int64_t at = thread_number();
    if (at >= count)
        return;
    float value[8];
    load_eight(value, table + ((int64_t)time[at / words] * words + at % words) * CHANNELS);
    store_eight(output + at * CHANNELS, value);
}

/* A value: the sources need not begin at whole words. */
template <typename T>
DF_KERNEL(THREADS, 4)
concatenate_kernel(int64_t count, int32_t channels, int32_t pitch, source<T> input, T *output) {
    const int64_t at = thread_number();
    if (at >= count)
        return;
    const int64_t pixel = at / pitch;
    const int32_t channel = (int32_t)(at % pitch);
    output[at] = channel < input.split ? input.first[pixel * input.first_pitch + channel]
                 : channel < channels  ? input.second[pixel * input.second_pitch + channel - input.split]
                                       : from_float<T>(0);
}

/* A word of the output. */
template <typename T>
DF_KERNEL(THREADS, 4)
upsample_kernel(int64_t count, int32_t height, int32_t width, int32_t words, const T *input, T *output) {
    const int64_t at = thread_number();
    if (at >= count)
        return;
    const int64_t pixel = at / words, image = pixel / (4 * height * width);
    const int32_t in_image = (int32_t)(pixel % (4 * height * width));
    const int32_t y = in_image / (2 * width) / 2, x = in_image % (2 * width) / 2;
    const int64_t from = ((image * height + y) * width + x) * words + at % words;
    ((eight<T> *)output)[at] = ((const eight<T> *)input)[from];
}

/* A word. */
template <typename T> DF_KERNEL(THREADS, 4) silu_kernel(int64_t count, const T *input, T *output) {
    const int64_t at = thread_number();
    if (at >= count)
        return;
    float value[8];
    load_eight(value, input + at * CHANNELS);
#pragma unroll
    for (int j = 0; j < 8; j++)
        value[j] = sizeof(T) == 4 ? value[j] / (1.0f + expf(-value[j])) : silu(value[j]);
    store_eight(output + at * CHANNELS, value);
}

/* A word. other_pixels: pixels of an image that share a row of `other`. */
template <typename T>
DF_KERNEL(THREADS, 4)
add_kernel(int64_t count, int32_t words, int32_t other_pixels, const T *input, const T *other, T *output) {
    const int64_t at = thread_number();
    if (at >= count)
        return;
    float value[8], more[8];
    load_eight(value, input + at * CHANNELS);
    load_eight(more, other + (at / words / other_pixels * words + at % words) * CHANNELS);
#pragma unroll
    for (int j = 0; j < 8; j++)
        value[j] += more[j];
    store_eight(output + at * CHANNELS, value);
}

template <typename... P, typename... A>
cudaError_t each(void (*kernel)(int64_t, P...), int64_t count, cudaStream_t stream, A... arguments) {
    return launch(kernel, dim3((unsigned)blocks_for(count, THREADS)), THREADS, 0, stream, count, arguments...);
}

} // namespace

template <typename T>
cudaError_t import_images(int64_t images, int32_t channels, int32_t pixels, const float *planar, T *output,
                          cudaStream_t stream) {
    return each(import_kernel<T>, images * pixels, stream, channels, pitch_for(channels), pixels, planar, output);
}

template <typename T>
cudaError_t export_images(int64_t images, int32_t channels, int32_t pixels, const T *input, float *planar,
                          cudaStream_t stream) {
    return each(export_kernel<T>, images * channels * pixels, stream, channels, pitch_for(channels), pixels, input,
                planar);
}

template <typename T>
cudaError_t gather_times(int64_t images, int32_t pitch, const float *table, const int32_t *time, T *output,
                         cudaStream_t stream) {
    return each(gather_kernel<T>, images * (pitch / CHANNELS), stream, pitch / CHANNELS, table, time, output);
}

template <typename T>
cudaError_t concatenate(int64_t pixels, int32_t channels, int32_t pitch, const source<T> &input, T *output,
                        cudaStream_t stream) {
    return each(concatenate_kernel<T>, pixels * pitch, stream, channels, pitch, input, output);
}

template <typename T>
cudaError_t upsample(int64_t images, int32_t height, int32_t width, int32_t pitch, const T *input, T *output,
                     cudaStream_t stream) {
    const int32_t words = pitch / CHANNELS;
    return each(upsample_kernel<T>, images * 4 * height * width * words, stream, height, width, words, input, output);
}

template <typename T> cudaError_t apply_silu(int64_t values, const T *input, T *output, cudaStream_t stream) {
    return each(silu_kernel<T>, values / CHANNELS, stream, input, output);
}

template <typename T>
cudaError_t add_values(int64_t images, int32_t pixels, int32_t pitch, const T *input, const T *other, bool broadcast,
                       T *output, cudaStream_t stream) {
    const int32_t words = pitch / CHANNELS;
    return each(add_kernel<T>, images * pixels * words, stream, words, broadcast ? pixels : 1, input, other, output);
}

#define DF_MOVES(T)                                                                                                    \
    template cudaError_t import_images<T>(int64_t, int32_t, int32_t, const float *, T *, cudaStream_t);                \
    template cudaError_t export_images<T>(int64_t, int32_t, int32_t, const T *, float *, cudaStream_t);                \
    template cudaError_t gather_times<T>(int64_t, int32_t, const float *, const int32_t *, T *, cudaStream_t);         \
    template cudaError_t concatenate<T>(int64_t, int32_t, int32_t, const source<T> &, T *, cudaStream_t);              \
    template cudaError_t upsample<T>(int64_t, int32_t, int32_t, int32_t, const T *, T *, cudaStream_t);                \
    template cudaError_t apply_silu<T>(int64_t, const T *, T *, cudaStream_t);                                         \
    template cudaError_t add_values<T>(int64_t, int32_t, int32_t, const T *, const T *, bool, T *, cudaStream_t);
DF_MOVES(float)
DF_MOVES(bf16)
DF_MOVES(fp16)
