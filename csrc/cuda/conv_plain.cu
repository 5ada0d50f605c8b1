/* Convolution without tensor cores: for float32, for few channels, and what the other is tested against. A thread makes a
 * word of channels of one pixel. Each tap is summed by itself, so that no sum is long. */
#include "tile.h"

namespace {

enum { THREADS = 128 };

/* The sum of one tap's terms. */
template <typename T>
DF_DEVICE void add_tap(float sum[8], const T *from, int32_t channels, const T *weight, int32_t out_pitch) {
    for (int32_t c = 0; c < channels; c += CHANNELS) {
        float x[8];
        load_eight(x, from + c);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            float w[8];
            load_eight(w, weight + (int64_t)(c + i) * out_pitch);
#pragma unroll
            for (int j = 0; j < 8; j++)
                sum[j] += x[i] * w[j];
        }
    }
}

template <typename T> DF_KERNEL(THREADS, 1) conv_plain_kernel(conv_call<T> call) {
    const int32_t pixels = call.out_height * call.out_width;
    const int64_t at = thread_number();
    if (at >= call.images * pixels)
        return;
    const tile_place place = {(int32_t)(at / pixels), (int32_t)(at % pixels), true};
    const int32_t channel = (int32_t)blockIdx.y * CHANNELS, out_pitch = call.end.out_pitch;
    const int up = call.upsample ? 1 : 0, pad = (call.size - 1) / 2;
    const int32_t height = call.height << up, width = call.width << up;
    const source<T> &in = call.input;
    float value[8] = {0};
    if (call.end.bias)
        load_eight(value, call.end.bias + channel);
    for (int tap = 0; tap < call.size * call.size; tap++) {
        const int32_t y = place.pixel / call.out_width * call.stride + tap / call.size - pad;
        const int32_t x = place.pixel % call.out_width * call.stride + tap % call.size - pad;
        if (y < 0 || y >= height || x < 0 || x >= width)
            continue;
        const int64_t pixel = ((int64_t)place.image * call.height + (y >> up)) * call.width + (x >> up);
        const T *weight = call.weight + (int64_t)tap * call.pitch * out_pitch + channel;
        float sum[8] = {0};
        if (in.second) {
            add_tap(sum, in.first + pixel * in.first_pitch, in.split, weight, out_pitch);
            add_tap(sum, in.second + pixel * in.second_pitch, call.pitch - in.split,
                    weight + (int64_t)in.split * out_pitch, out_pitch);
        } else {
            add_tap(sum, in.first + pixel * in.first_pitch, call.pitch, weight, out_pitch);
        }
#pragma unroll
        for (int j = 0; j < 8; j++)
            value[j] += sum[j];
    }
    if (!call.planar) {
        finish_value(value, call.end, place.image, at, channel);
        return;
    }
#pragma unroll
    for (int j = 0; j < 8; j++)
        if (channel + j < call.out_channels)
            call.planar[((int64_t)place.image * call.out_channels + channel + j) * pixels + place.pixel] = value[j];
}

} // namespace

template <typename T> cudaError_t conv_plain(const conv_call<T> &call, cudaStream_t stream) {
    const int64_t blocks = blocks_for(call.images * call.out_height * call.out_width, THREADS);
    return launch(conv_plain_kernel<T>, dim3((unsigned)blocks, (unsigned)(call.end.out_pitch / CHANNELS)), THREADS, 0,
                  stream, call);
}

template cudaError_t conv_plain<float>(const conv_call<float> &, cudaStream_t);
template cudaError_t conv_plain<bf16>(const conv_call<bf16> &, cudaStream_t);
template cudaError_t conv_plain<fp16>(const conv_call<fp16> &, cudaStream_t);
