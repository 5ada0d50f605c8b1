/* Group norm with SiLU. In 16 bits from the partials that the value's maker left, so that it reads everything once; in
 * float32 exactly as it is written: the mean, and then the squares around it. */
#include "tile.h"

namespace {

enum { THREADS = 256, EXACT_THREADS = 128 };

/* Totals of a channel over all segments, in their order. */
template <typename T>
DF_DEVICE void channel_totals(const norm_call<T> &call, int64_t image, int32_t channel, double out[2]) {
    const bool second = channel >= call.input.split;
    const int32_t pitch = second ? call.input.second_pitch : call.input.first_pitch;
    const int32_t segments = call.segments[second];
    const float *partials =
        call.partials[second] + image * segments * 2 * pitch + (second ? channel - call.input.split : channel);
    out[0] = out[1] = 0;
    for (int32_t s = 0; s < segments; s++) {
        out[0] += (double)partials[(int64_t)s * 2 * pitch];
        out[1] += (double)partials[((int64_t)s * 2 + 1) * pitch];
    }
}

/* One part of one image's pixels. Shared: mean, factor and shift of each channel, and its totals. */
template <typename T> DF_KERNEL(THREADS, 4) norm_kernel(norm_call<T> call) {
    DF_SHARED(shared);
    float *means = (float *)shared, *factors = means + call.pitch, *shifts = factors + call.pitch;
    double *totals = (double *)(shifts + call.pitch); /* [pitch][2] */
    const int thread = (int)threadIdx.x;
    const int64_t image = blockIdx.x;
    for (int32_t c = thread; c < call.channels; c += THREADS)
        channel_totals(call, image, c, totals + 2 * c);
    __syncthreads();
    const int32_t size = call.channels / call.groups;
    for (int32_t g = thread; g < call.groups; g += THREADS) {
        double sum = 0, squares = 0;
        for (int32_t c = g * size; c < (g + 1) * size; c++) {
            sum += totals[2 * c];
            squares += totals[2 * c + 1];
        }
        const double count = (double)size * call.pixels, mean = sum / count;
        const double variance = squares / count - mean * mean;
        const double inverse = 1.0 / sqrt((variance > 0 ? variance : 0) + (double)call.epsilon);
        for (int32_t c = g * size; c < (g + 1) * size; c++) {
            const double factor = inverse * (double)call.scale[c];
            means[c] = (float)mean;
            factors[c] = (float)factor;
            shifts[c] =
                (float)((double)call.shift[c] - (mean - (double)means[c]) * factor); /* what rounding it costs */
        }
    }
    for (int32_t c = call.channels + thread; c < call.pitch; c += THREADS)
        means[c] = factors[c] = shifts[c] = 0;
    __syncthreads();
    const int32_t words = call.pitch / CHANNELS;
    for (int32_t first = 0; first < words; first += THREADS) { /* once, but for more than 2048 channels */
        const int32_t here = words - first < THREADS ? words - first : THREADS, rows = THREADS / here;
        if (thread >= rows * here)
            continue;
        const int32_t channel = (first + thread % here) * CHANNELS;
        float mean[8], factor[8], shift[8];
        load_eight(mean, means + channel);
        load_eight(factor, factors + channel);
        load_eight(shift, shifts + channel);
        const bool second = channel >= call.input.split;
        const int32_t pitch = second ? call.input.second_pitch : call.input.first_pitch;
        const T *in = second ? call.input.second + channel - call.input.split : call.input.first + channel;
        for (int32_t p = (int32_t)blockIdx.y * rows + thread / here; p < call.pixels; p += rows * (int32_t)gridDim.y) {
            const int64_t pixel = image * call.pixels + p;
            float value[8];
            load_eight(value, in + pixel * pitch);
#pragma unroll
            for (int j = 0; j < 8; j++) {
                value[j] = (value[j] - mean[j]) * factor[j] + shift[j];
                if (call.silu)
                    value[j] = silu(value[j]);
            }
            store_eight(call.output + pixel * call.pitch + channel, value);
        }
    }
}

/* The sum over a block's threads, in an order that does not depend on who is first. scratch: EXACT_THREADS doubles. */
DF_DEVICE double sum_of_block(double value, double *scratch) {
    scratch[threadIdx.x] = value;
    __syncthreads();
    for (int half = EXACT_THREADS / 2; half > 0; half /= 2) {
        if ((int)threadIdx.x < half)
            scratch[threadIdx.x] += scratch[threadIdx.x + half];
        __syncthreads();
    }
    const double sum = scratch[0];
    __syncthreads();
    return sum;
}

template <typename T> DF_DEVICE float source_at(const source<T> &in, int64_t pixel, int32_t channel) {
    return to_float(channel < in.split ? in.first[pixel * in.first_pitch + channel]
                                       : in.second[pixel * in.second_pitch + channel - in.split]);
}

/* One group of one image. */
template <typename T> DF_KERNEL(EXACT_THREADS, 4) norm_exact_kernel(norm_call<T> call) {
    DF_SHARED(shared);
    double *scratch = (double *)shared;
    const int64_t image = blockIdx.x / (unsigned)call.groups;
    const int32_t group = (int32_t)(blockIdx.x % (unsigned)call.groups), size = call.channels / call.groups;
    const int64_t first = image * call.pixels;
    const int64_t count = (int64_t)size * call.pixels;
    double sum = 0;
    for (int64_t i = threadIdx.x; i < count; i += EXACT_THREADS)
        sum += (double)source_at(call.input, first + i / size, group * size + (int32_t)(i % size));
    const double mean = sum_of_block(sum, scratch) / (double)count;
    sum = 0;
    for (int64_t i = threadIdx.x; i < count; i += EXACT_THREADS) {
        const double away = (double)source_at(call.input, first + i / size, group * size + (int32_t)(i % size)) - mean;
        sum += away * away;
    }
    const double inverse = 1.0 / sqrt(sum_of_block(sum, scratch) / (double)count + (double)call.epsilon);
    for (int64_t i = threadIdx.x; i < count; i += EXACT_THREADS) {
        const int32_t c = group * size + (int32_t)(i % size);
        const double value =
            ((double)source_at(call.input, first + i / size, c) - mean) * inverse * (double)call.scale[c] +
            (double)call.shift[c];
        const float y = (float)(call.silu ? value / (1.0 + exp(-value)) : value);
        call.output[(first + i / size) * call.pitch + c] = from_float<T>(y);
    }
    if (group == call.groups - 1) { /* what is beyond the channels */
        const int32_t beyond = call.pitch - call.channels;
        for (int64_t i = threadIdx.x; i < (int64_t)beyond * call.pixels; i += EXACT_THREADS)
            call.output[(first + i / beyond) * call.pitch + call.channels + i % beyond] = from_float<T>(0);
    }
}

/* One word of one segment. */
template <typename T>
DF_KERNEL(THREADS, 4)
partials_kernel(int64_t images, int32_t pixels, int32_t pitch, const T *value, float *partials) {
    const int32_t words = pitch / CHANNELS, segments = segments_of(pixels, TILE);
    const int64_t at = thread_number();
    if (at >= images * segments * words)
        return;
    const int32_t word = (int32_t)(at % words), segment = (int32_t)(at / words % segments);
    const int64_t image = at / words / segments;
    float sum[8] = {0}, squares[8] = {0};
    const int32_t end = (segment + 1) * TILE < pixels ? (segment + 1) * TILE : pixels;
    for (int32_t p = segment * TILE; p < end; p++) {
        float x[8];
        load_eight(x, value + (image * pixels + p) * pitch + word * CHANNELS);
#pragma unroll
        for (int j = 0; j < 8; j++) {
            sum[j] += x[j];
            squares[j] += x[j] * x[j];
        }
    }
    float *out = partials + (image * segments + segment) * 2 * pitch + word * CHANNELS;
    store_eight(out, sum);
    store_eight(out + pitch, squares);
}

} // namespace

template <typename T> cudaError_t norm_from_partials(const norm_call<T> &call, cudaStream_t stream) {
    /* Enough blocks for any GPU, and each with enough to do that finding the factors again is little. */
    const int64_t parts = call.images >= 1024 ? 1 : call.pixels * (int64_t)call.pitch >= 1 << 15 ? 4 : 1;
    return launch(norm_kernel<T>, dim3((unsigned)call.images, (unsigned)parts), THREADS,
                  (size_t)call.pitch * (3 * sizeof(float) + 2 * sizeof(double)), stream, call);
}

template <typename T> cudaError_t norm_exact(const norm_call<T> &call, cudaStream_t stream) {
    return launch(norm_exact_kernel<T>, dim3((unsigned)(call.images * call.groups)), EXACT_THREADS,
                  EXACT_THREADS * sizeof(double), stream, call);
}

template <typename T>
cudaError_t make_partials(int64_t images, int32_t pixels, int32_t pitch, const T *value, float *partials,
                          cudaStream_t stream) {
    const int64_t count = images * segments_of(pixels, TILE) * (pitch / CHANNELS);
    return launch(partials_kernel<T>, dim3((unsigned)blocks_for(count, THREADS)), THREADS, 0, stream, images, pixels,
                  pitch, value, partials);
}

template cudaError_t norm_from_partials<bf16>(const norm_call<bf16> &, cudaStream_t);
template cudaError_t norm_from_partials<fp16>(const norm_call<fp16> &, cudaStream_t);
template cudaError_t norm_exact<float>(const norm_call<float> &, cudaStream_t);
template cudaError_t make_partials<bf16>(int64_t, int32_t, int32_t, const bf16 *, float *, cudaStream_t);
template cudaError_t make_partials<fp16>(int64_t, int32_t, int32_t, const fp16 *, float *, cudaStream_t);
