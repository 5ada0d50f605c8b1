/* The language that the CUDA kernels are written in: CUDA C++ and the few instructions below, as functions.
 *
 * nvcc compiles them to the instructions themselves. With DF_EMULATED, tests/cuda/emulator.h takes the place of CUDA: the
 * same text runs on a CPU. A kernel uses threadIdx, blockIdx, blockDim, gridDim, __syncthreads, __shfl_xor_sync, atomicMin and what
 * is declared here, and nothing else; all of its shared memory is dynamic (DF_SHARED). Instructions of Hopper are in
 * hopper.h, which the emulator does not know.
 */
#ifndef DIFFENCE_CUDA_DEVICE_H
#define DIFFENCE_CUDA_DEVICE_H

#include <math.h>
#include <stdint.h>

/* 16-bit numbers as they lie in memory. */
struct bf16 {
    uint16_t bits;
};
struct fp16 {
    uint16_t bits;
};

#ifdef DF_EMULATED
#define DF_BOTH static inline
#include "emulator.h"
static inline void copy_async_cached(void *shared, const void *global, bool valid) { /* it has no caches */
    copy_async(shared, global, valid);
}
#else

#define DF_DEVICE                  __device__ __forceinline__
#define DF_BOTH                    static __host__ __device__ __forceinline__ /* for the host too */
#define DF_KERNEL(threads, blocks) __global__ void __launch_bounds__(threads, blocks)
/* The block's dynamic shared memory, aligned to 1024 bytes as Hopper's swizzle wants it. */
#define DF_SHARED(name)            extern __shared__ __align__(1024) unsigned char name[]

/* ---------------------------------------------------------------- 16-bit numbers */

DF_DEVICE float to_float(float x) {
    return x;
}
DF_DEVICE float to_float(bf16 x) {
    return __uint_as_float((uint32_t)x.bits << 16);
}
DF_DEVICE float to_float(fp16 x) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(x.bits));
    return value;
}

/* To the nearest, ties to even. */
template <typename T> DF_DEVICE T from_float(float x);
template <> DF_DEVICE float from_float<float>(float x) {
    return x;
}
template <> DF_DEVICE bf16 from_float<bf16>(float x) {
    bf16 value;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(value.bits) : "f"(x));
    return value;
}
template <> DF_DEVICE fp16 from_float<fp16>(float x) {
    fp16 value;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(value.bits) : "f"(x));
    return value;
}

/* 2^x and e^x to a few units in the last place of a float; for x far below zero 0. */
DF_DEVICE float fast_exp2(float x) {
    float value;
    asm("ex2.approx.f32 %0, %1;" : "=f"(value) : "f"(x));
    return value;
}
DF_DEVICE float fast_exp(float x) {
    return __expf(x);
}

/* ---------------------------------------------------------------- asynchronous copies to shared memory (sm_80) */

DF_DEVICE uint32_t shared_address(const void *shared) {
    return (uint32_t)__cvta_generic_to_shared(shared);
}

/* 16 bytes, both addresses aligned to 16; zeros where not valid, and then `global` is not read. */
DF_DEVICE void copy_async(void *shared, const void *global, bool valid) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global),
                 "r"(valid ? 16 : 0));
}
/* The same through the L1 cache, for what is read again soon. */
DF_DEVICE void copy_async_cached(void *shared, const void *global, bool valid) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global),
                 "r"(valid ? 16 : 0));
}
/* Ends a group of this thread's copies; waits until at most N of its groups are under way. */
DF_DEVICE void copy_commit() {
    asm volatile("cp.async.commit_group;");
}
template <int N> DF_DEVICE void copy_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

/* ---------------------------------------------------------------- matrix products of a warp (sm_80) */

/* Four 8x8 matrices of 16-bit numbers: lane 8 m + i gives the address of row i (16 bytes) of matrix m; r[m] of lane l is
 * row l / 4, columns 2 (l % 4) and one more. Transposed: row and column exchanged. */
DF_DEVICE void load_matrices(uint32_t r[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}
DF_DEVICE void load_matrices_transposed(uint32_t r[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

/* d (16x8, float) += a (16x16) b (16x8), T bf16 or fp16. Of lane l, with row = l / 4 and two = 2 (l % 4):
 * a: (row, two), (row + 8, two), (row, two + 8), (row + 8, two + 8), each with the column after it;
 * b: (two, row), (two + 8, row), each with the row after it; d: (row, two), (row, two + 1), (row + 8, two), (.., + 1). */
template <typename T>
DF_DEVICE void multiply_add(float d[4], const uint32_t a[4], const uint32_t b0, const uint32_t b1);
template <> DF_DEVICE void multiply_add<bf16>(float d[4], const uint32_t a[4], const uint32_t b0, const uint32_t b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
template <> DF_DEVICE void multiply_add<fp16>(float d[4], const uint32_t a[4], const uint32_t b0, const uint32_t b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

#endif /* DF_EMULATED */

/* Of all threads of a launch in one dimension. */
DF_DEVICE int64_t thread_number() {
    return (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
}

/* Two neighbours in one register, the first in the low half. */
template <typename T> DF_DEVICE uint32_t pack_two(float first, float second) {
    return (uint32_t)from_float<T>(second).bits << 16 | from_float<T>(first).bits;
}

/* Eight values that lie side by side: one or two accesses of 16 bytes, to which they are aligned. */
template <typename T> struct alignas(16) eight { T at[8]; };

template <typename T> DF_DEVICE void load_eight(float out[8], const T *from) {
    const eight<T> values = *(const eight<T> *)from;
#pragma unroll
    for (int i = 0; i < 8; i++)
        out[i] = to_float(values.at[i]);
}
template <typename T> DF_DEVICE void store_eight(T *to, const float in[8]) {
    eight<T> values;
#pragma unroll
    for (int i = 0; i < 8; i++)
        values.at[i] = from_float<T>(in[i]);
    *(eight<T> *)to = values;
}

DF_DEVICE float silu(float x) {
    return x / (1.0f + fast_exp(-x));
}

#endif
