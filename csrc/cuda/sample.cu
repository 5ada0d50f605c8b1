/* What core/noise.c, core/hash.c and core/reconstruct.c do to images around the network, on the GPU. */
#include "kernels.h"

namespace {

enum { THREADS = 256 };

/* Philox4x32-10 (Salmon et al., SC 2011). */
DF_DEVICE void philox(uint32_t c[4], uint32_t k0, uint32_t k1) {
    for (int round = 0; round < 10; round++) {
        const uint64_t left = (uint64_t)0xD2511F53u * c[0], right = (uint64_t)0xCD9E8D57u * c[2];
        c[0] = (uint32_t)(right >> 32) ^ c[1] ^ k0;
        c[1] = (uint32_t)right;
        c[2] = (uint32_t)(left >> 32) ^ c[3] ^ k1;
        c[3] = (uint32_t)left;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
}

/* Box-Muller in double, as on the CPU: only where the two libraries' last digits of log, sin and cos differ can the float
 * be another, and then by one unit in the last place. */
DF_DEVICE void normals_of(uint32_t first, uint32_t second, float out[2]) {
    const double radius = sqrt(-2.0 * log(((double)first + 1.0) * 0x1p-32));
    const double angle = 6.283185307179586476925 * ((double)second * 0x1p-32);
    out[0] = (float)(radius * cos(angle));
    out[1] = (float)(radius * sin(angle));
}

DF_DEVICE uint32_t load_le32(const uint8_t *bytes) {
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

/* Four values of an item, which share a block of the generator. */
DF_KERNEL(THREADS, 4) noise_kernel(noising call, float *x) {
    const int32_t blocks = (call.values + 3) / 4;
    const int64_t at = thread_number();
    if (at >= call.count * blocks)
        return;
    const int64_t item = call.first + at / blocks;
    const int32_t position = (int32_t)(at % blocks) * 4, image = call.index[item];
    float normals[4] = {0};
    if (!call.noise) {
        const uint8_t *hash = call.hashes + (int64_t)image * 16;
        uint32_t words[4] = {(uint32_t)position / 4, (uint32_t)call.draws[item], load_le32(hash + 8),
                             load_le32(hash + 12)};
        philox(words, load_le32(hash), load_le32(hash + 4));
        normals_of(words[0], words[1], normals);
        normals_of(words[2], words[3], normals + 2);
    }
    for (int j = 0; j < 4 && position + j < call.values; j++) {
        const int64_t p = position + j;
        const float normal = call.noise ? call.noise[item * call.values + p] : normals[j];
        const float pixel = 2 * call.images[(int64_t)image * call.values + p] - 1;
        x[at / blocks * call.values + p] = call.signal * pixel + call.scale * normal;
    }
}

DF_KERNEL(THREADS, 4) step_kernel(int64_t values, float x_scale, float eps_scale, const float *eps, float *x) {
    const int64_t at = thread_number();
    if (at < values)
        x[at] = x_scale * x[at] + eps_scale * eps[at];
}

DF_KERNEL(THREADS, 4)
finish_kernel(int64_t first, int64_t all, int32_t values, const float *x, float *out, int32_t *bad) {
    const int64_t at = thread_number();
    if (at >= all)
        return;
    const float value = x[at], grey = (value + 1) / 2;
    if (!isfinite(value))
        atomicMin(bad, (int32_t)(first + at / values));
    out[at] = grey > 0 ? (grey < 1 ? grey : 1) : 0;
}

DF_KERNEL(THREADS, 4) fill_kernel(int64_t count, int32_t value, int32_t *out) {
    if (thread_number() < count)
        out[thread_number()] = value;
}

/* ---------------------------------------------------------------- SipHash-2-4 with 128 bits of output */

struct siphash {
    uint64_t v0, v1, v2, v3;
};

DF_DEVICE uint64_t rotate(uint64_t value, int bits) {
    return value << bits | value >> (64 - bits);
}

DF_DEVICE void rounds(siphash &s, int count) {
    for (int i = 0; i < count; i++) {
        s.v0 += s.v1;
        s.v2 += s.v3;
        s.v1 = rotate(s.v1, 13) ^ s.v0;
        s.v3 = rotate(s.v3, 16) ^ s.v2;
        s.v0 = rotate(s.v0, 32);
        s.v2 += s.v1;
        s.v0 += s.v3;
        s.v1 = rotate(s.v1, 17) ^ s.v2;
        s.v3 = rotate(s.v3, 21) ^ s.v0;
        s.v2 = rotate(s.v2, 32);
    }
}

DF_DEVICE void absorb(siphash &s, uint64_t word) {
    s.v3 ^= word;
    rounds(s, 2);
    s.v0 ^= word;
}

/* The value's bits; -0 and 0 are the same grey. */
DF_DEVICE uint64_t pixel_bits(float value) {
    const uint32_t bits = __float_as_uint(value);
    return bits == 0x80000000u ? 0 : bits;
}

struct hash_key {
    uint64_t low, high;
};

/* An image: it is one chain of dependent rounds. */
DF_KERNEL(32, 1)
hash_kernel(int64_t count, int32_t channels, int32_t height, int32_t width, hash_key key, const float *images,
            uint8_t *hashes) {
    const int64_t at = thread_number();
    if (at >= count)
        return;
    const int64_t pixels = (int64_t)channels * height * width;
    const float *image = images + at * pixels;
    siphash s = {key.low ^ 0x736f6d6570736575u, key.high ^ 0x646f72616e646f6du ^ 0xee, key.low ^ 0x6c7967656e657261u,
                 key.high ^ 0x7465646279746573u};
    absorb(s, (uint64_t)(uint32_t)height << 32 | (uint32_t)channels);
    uint64_t tail = (uint32_t)width;
    for (int64_t i = 0; i < pixels; i++) {
        if (i % 2 == 0) {
            absorb(s, pixel_bits(image[i]) << 32 | tail);
            tail = 0;
        } else {
            tail = pixel_bits(image[i]);
        }
    }
    absorb(s, (12 + 4 * (uint64_t)pixels) << 56 | tail);
    s.v2 ^= 0xee;
    rounds(s, 4);
    const uint64_t low = s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
    s.v1 ^= 0xdd;
    rounds(s, 4);
    const uint64_t high = s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
    for (int i = 0; i < 8; i++) {
        hashes[at * 16 + i] = (uint8_t)(low >> (8 * i));
        hashes[at * 16 + 8 + i] = (uint8_t)(high >> (8 * i));
    }
}

} // namespace

cudaError_t noise_images(const noising &call, float *x, cudaStream_t stream) {
    const int64_t threads = call.count * ((call.values + 3) / 4);
    return launch(noise_kernel, dim3((unsigned)blocks_for(threads, THREADS)), THREADS, 0, stream, call, x);
}

cudaError_t take_step(int64_t values, float x_scale, float eps_scale, const float *eps, float *x, cudaStream_t stream) {
    return launch(step_kernel, dim3((unsigned)blocks_for(values, THREADS)), THREADS, 0, stream, values, x_scale,
                  eps_scale, eps, x);
}

cudaError_t finish_images(int64_t first, int64_t count, int32_t values, const float *x, float *out, int32_t *bad,
                          cudaStream_t stream) {
    return launch(finish_kernel, dim3((unsigned)blocks_for(count * values, THREADS)), THREADS, 0, stream, first,
                  count * values, values, x, out, bad);
}

cudaError_t fill_times(int64_t count, int32_t t, int32_t *time, cudaStream_t stream) {
    return launch(fill_kernel, dim3((unsigned)blocks_for(count, THREADS)), THREADS, 0, stream, count, t, time);
}

cudaError_t hash_images(int64_t count, int32_t channels, int32_t height, int32_t width, const uint8_t key[16],
                        const float *images, uint8_t *hashes, cudaStream_t stream) {
    hash_key halves = {0, 0};
    for (int i = 0; i < 8; i++) {
        halves.low |= (uint64_t)key[i] << (8 * i);
        halves.high |= (uint64_t)key[8 + i] << (8 * i);
    }
    return launch(hash_kernel, dim3((unsigned)blocks_for(count, 32)), 32, 0, stream, count, channels, height, width,
                  halves, images, hashes);
}
