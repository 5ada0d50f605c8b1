/* What the machine can do at most: fused multiply-adds from registers, and bytes from memory. Compiled by
 * harness/peaks.py with -march=native -ffp-contract=fast, so that a * b + c is one instruction where there is one. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#define BYTES 64
#elif defined(__AVX__)
#define BYTES 32
#else
#define BYTES 16
#endif
#define LANES (BYTES / 4)

typedef float vector __attribute__((vector_size(BYTES)));
typedef uint64_t words __attribute__((vector_size(BYTES), may_alias));

/* Independent sums: enough to hide the latency of two units, few enough for 16 registers. */
#define CHAINS 12

int lanes(void) { return LANES; }

/* Returns the floating-point operations done. */
double multiply_add(int64_t rounds, float *sink) {
    volatile float near_one = 0.9999f, small = 1e-4f;
    vector scale, shift, sums[CHAINS];
    for (int lane = 0; lane < LANES; lane++) {
        scale[lane] = near_one;
        shift[lane] = small;
    }
    for (int chain = 0; chain < CHAINS; chain++) sums[chain] = shift * (float)(chain + 1);
    for (int64_t round = 0; round < rounds; round++) {
#pragma GCC unroll 12
        for (int chain = 0; chain < CHAINS; chain++) sums[chain] = sums[chain] * scale + shift;
    }
    for (int chain = 1; chain < CHAINS; chain++) sums[0] += sums[chain];
    memcpy(sink, &sums[0], sizeof(vector));
    return 2.0 * CHAINS * LANES * (double)rounds;
}

/* Returns the bytes read; `bytes` is a multiple of 8 vectors. */
double read_all(const void *source, int64_t bytes, uint64_t *sink) {
    const words *from = source;
    words sums[8] = {{0}};
    for (int64_t i = 0; i < bytes / BYTES; i += 8) {
#pragma GCC unroll 8
        for (int part = 0; part < 8; part++) sums[part] ^= from[i + part];
    }
    for (int part = 1; part < 8; part++) sums[0] ^= sums[part];
    *sink = sums[0][0];
    return (double)bytes;
}

/* Returns the bytes read and written. */
double copy_all(void *target, const void *source, int64_t bytes) {
    memcpy(target, source, (size_t)bytes);
    return 2.0 * (double)bytes;
}
