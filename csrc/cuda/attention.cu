/* softmax(q k' / sqrt(dim)) v over an image's pixels, one head at a time. On tensor cores as FlashAttention does it (Dao
 * et al., 2022): the scores of some queries and keys exist only in registers, and the largest so far is carried along. */
#include "tile.h"

namespace {

enum { THREADS = 128 };

template <int DIM> struct shape {
    enum {
        WORDS = DIM / CHANNELS,
        KEYS = DIM > 128 ? 32 : 64,              /* at a time: as many as there are registers for */
        INPUTS = (QUERIES + 2 * KEYS) * DIM * 2, /* bytes */
        OUTPUTS = QUERIES * (DIM + 4) * 4,
        SHARED = INPUTS > OUTPUTS ? INPUTS : OUTPUTS
    };
};

/* ROWS rows from pixel `first` of an image on; zeros beyond the pixels and beyond the head's dimensions. */
template <typename T, int DIM, int ROWS>
DF_DEVICE void load_rows(eight<T> *matrix, const T *image, int32_t pitch, int32_t first, int32_t pixels, int32_t dim,
                         int thread) {
    constexpr int WORDS = shape<DIM>::WORDS;
    for (int i = thread; i < ROWS * WORDS; i += THREADS) {
        const int row = i / WORDS, word = i % WORDS;
        const bool inside = first + row < pixels && word * CHANNELS < dim;
        copy_async(matrix + swizzled<WORDS>(row, word),
                   inside ? image + (int64_t)(first + row) * pitch + word * CHANNELS : image, inside);
    }
}

template <typename T, int DIM> DF_KERNEL(THREADS, 2) attention_kernel(attention_call<T> call, int tiles, float scale) {
    constexpr int WORDS = shape<DIM>::WORDS, KEYS = shape<DIM>::KEYS;
    DF_SHARED(shared);
    eight<T> *q = (eight<T> *)shared, *k = q + QUERIES * WORDS, *v = k + KEYS * WORDS;
    const int thread = (int)threadIdx.x, warp = thread / 32, lane = thread % 32;
    const int tile = (int)(blockIdx.x % (unsigned)tiles);
    const int head = (int)(blockIdx.x / (unsigned)tiles % (unsigned)call.heads);
    const int64_t image = blockIdx.x / (unsigned)tiles / (unsigned)call.heads, first = image * call.pixels;
    const int32_t dim = call.channels / call.heads, channel = head * dim;
    load_rows<T, DIM, QUERIES>(q, call.q + first * call.q_pitch + channel, call.q_pitch, tile * QUERIES, call.pixels,
                               dim, thread);
    float out[DIM / 8][4] = {};
    float most[2] = {-INFINITY, -INFINITY}, total[2] = {0, 0}; /* of rows lane / 4 and 8 below it */
    for (int32_t start = 0; start < call.pixels; start += KEYS) {
        __syncthreads(); /* nobody reads the keys and values before any more */
        load_rows<T, DIM, KEYS>(k, call.k + first * call.k_pitch + channel, call.k_pitch, start, call.pixels, dim,
                                thread);
        copy_commit(); /* the queries too, the first time */
        load_rows<T, DIM, KEYS>(v, call.v + first * call.v_pitch + channel, call.v_pitch, start, call.pixels, dim,
                                thread);
        copy_commit();
        copy_wait<1>();
        __syncthreads();
        float scores[KEYS / 8][4] = {};
#pragma unroll
        for (int d = 0; d < DIM / 16; d++) {
            uint32_t a[4];
            load_matrices(a, q + swizzled<WORDS>(16 * warp + lane % 16, 2 * d + lane / 16));
#pragma unroll
            for (int j = 0; j < KEYS / 8; j += 2) {
                uint32_t b[4];
                load_matrices(b, k + swizzled<WORDS>(8 * j + lane % 8 + lane / 16 * 8, 2 * d + lane / 8 % 2));
                multiply_add<T>(scores[j], a, b[0], b[1]);
                multiply_add<T>(scores[j + 1], a, b[2], b[3]);
            }
        }
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float largest = most[half];
#pragma unroll
            for (int j = 0; j < KEYS / 8; j++)
#pragma unroll
                for (int c = 0; c < 2; c++) {
                    float &score = scores[j][2 * half + c];
                    score = start + 8 * j + lane % 4 * 2 + c < call.pixels ? score * scale : -INFINITY;
                    largest = fmaxf(largest, score);
                }
            largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 1));
            largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 2));
            const float before = fast_exp2(most[half] - largest); /* every block has a key, so largest is finite */
            float sum = 0;
#pragma unroll
            for (int j = 0; j < KEYS / 8; j++)
#pragma unroll
                for (int c = 0; c < 2; c++) {
                    float &score = scores[j][2 * half + c];
                    score = fast_exp2(score - largest);
                    sum += score;
                }
            sum += __shfl_xor_sync(0xffffffffu, sum, 1);
            sum += __shfl_xor_sync(0xffffffffu, sum, 2);
            total[half] = total[half] * before + sum;
            most[half] = largest;
#pragma unroll
            for (int d = 0; d < DIM / 8; d++) {
                out[d][2 * half] *= before;
                out[d][2 * half + 1] *= before;
            }
        }
        copy_wait<0>();
        __syncthreads();
#pragma unroll
        for (int j = 0; j < KEYS / 16; j++) {
            const uint32_t a[4] = {pack_two<T>(scores[2 * j][0], scores[2 * j][1]),
                                   pack_two<T>(scores[2 * j][2], scores[2 * j][3]),
                                   pack_two<T>(scores[2 * j + 1][0], scores[2 * j + 1][1]),
                                   pack_two<T>(scores[2 * j + 1][2], scores[2 * j + 1][3])};
#pragma unroll
            for (int d = 0; d < DIM / 8; d += 2) {
                uint32_t b[4];
                load_matrices_transposed(b, v + swizzled<WORDS>(16 * j + lane % 16, d + lane / 16));
                multiply_add<T>(out[d], a, b[0], b[1]);
                multiply_add<T>(out[d + 1], a, b[2], b[3]);
            }
        }
    }
    __syncthreads();
    float *outputs = (float *)shared;
    constexpr int PITCH = tile_pitch<DIM>::value;
#pragma unroll
    for (int d = 0; d < DIM / 8; d++)
#pragma unroll
        for (int c = 0; c < 4; c++)
            outputs[(16 * warp + lane / 4 + c / 2 * 8) * PITCH + 8 * d + lane % 4 * 2 + c % 2] =
                out[d][c] / total[c / 2];
    __syncthreads();
    const tile_rows rows = {
        (uint32_t)((image * tiles + tile) * QUERIES), (uint32_t)(tiles * QUERIES), call.pixels, call.images, 1, 0, 0};
    /* The last head writes what is beyond the channels too: its weights were zero, so it is. */
    const int32_t columns = head == call.heads - 1 ? call.end.out_pitch - channel : dim;
    finish_tile<T, QUERIES, DIM, THREADS, whole_block>(outputs, call.end, rows, channel, columns, thread);
}

template <typename T, int DIM> cudaError_t start(const attention_call<T> &call, cudaStream_t stream) {
    const int tiles = (int)blocks_for(call.pixels, QUERIES);
    const float scale = (float)(1.4426950408889634 / sqrt((double)(call.channels / call.heads))); /* powers of two */
    return launch(attention_kernel<T, DIM>, dim3((unsigned)(call.images * call.heads * tiles)), THREADS,
                  shape<DIM>::SHARED, stream, call, tiles, scale);
}

/* One query of one head. Shared: a score for each pixel, and a float for each thread. */
template <typename T> DF_KERNEL(THREADS, 1) attention_plain_kernel(attention_call<T> call, float scale) {
    DF_SHARED(shared);
    float *scores = (float *)shared, *scratch = scores + call.pixels;
    const int thread = (int)threadIdx.x;
    const int32_t dim = call.channels / call.heads;
    const int32_t query = (int32_t)(blockIdx.x % (unsigned)call.pixels);
    const int head = (int)(blockIdx.x / (unsigned)call.pixels % (unsigned)call.heads);
    const int64_t image = blockIdx.x / (unsigned)call.pixels / (unsigned)call.heads, first = image * call.pixels;
    const T *q = call.q + (first + query) * call.q_pitch + head * dim;
    float most = -INFINITY;
    for (int32_t i = thread; i < call.pixels; i += THREADS) {
        const T *k = call.k + (first + i) * call.k_pitch + head * dim;
        float score = 0;
        for (int32_t d = 0; d < dim; d++)
            score += to_float(q[d]) * to_float(k[d]);
        scores[i] = score * scale;
        most = fmaxf(most, scores[i]);
    }
    scratch[thread] = most;
    __syncthreads();
    for (int t = 0; t < THREADS; t++)
        most = fmaxf(most, scratch[t]);
    __syncthreads();
    float total = 0;
    for (int32_t i = thread; i < call.pixels; i += THREADS) {
        scores[i] = expf(scores[i] - most);
        total += scores[i];
    }
    scratch[thread] = total;
    __syncthreads();
    total = 0;
    for (int t = 0; t < THREADS; t++)
        total += scratch[t];
    const int32_t columns = head == call.heads - 1 ? call.end.out_pitch - head * dim : dim;
    for (int32_t d = thread; d < columns; d += THREADS) {
        float value = 0;
        for (int32_t i = 0; i < call.pixels && d < dim; i++)
            value += scores[i] * to_float(call.v[(first + i) * call.v_pitch + head * dim + d]);
        const int64_t at = (first + query) * call.end.out_pitch + head * dim + d;
        value /= total;
        if (call.end.residual)
            value += to_float(call.end.residual[at]);
        call.end.output[at] = from_float<T>(value);
    }
}

} // namespace

template <typename T> cudaError_t attention_tiled(const attention_call<T> &call, cudaStream_t stream) {
    const int32_t dim = call.channels / call.heads;
    return dim <= 64    ? start<T, 64>(call, stream)
           : dim <= 128 ? start<T, 128>(call, stream)
                        : start<T, 256>(call, stream);
}

template <typename T> cudaError_t attention_plain(const attention_call<T> &call, cudaStream_t stream) {
    const float scale = (float)(1.0 / sqrt((double)(call.channels / call.heads)));
    return launch(attention_plain_kernel<T>, dim3((unsigned)(call.images * call.heads * call.pixels)), THREADS,
                  ((size_t)call.pixels + THREADS) * sizeof(float), stream, call, scale);
}

template cudaError_t attention_tiled<bf16>(const attention_call<bf16> &, cudaStream_t);
template cudaError_t attention_tiled<fp16>(const attention_call<fp16> &, cudaStream_t);
template cudaError_t attention_plain<float>(const attention_call<float> &, cudaStream_t);
template cudaError_t attention_plain<bf16>(const attention_call<bf16> &, cudaStream_t);
template cudaError_t attention_plain<fp16>(const attention_call<fp16> &, cudaStream_t);
