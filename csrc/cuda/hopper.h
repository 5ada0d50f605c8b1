/* Hopper's matrix products (sm_90a): a warpgroup of four warps multiplies 64 rows, both sides straight from shared memory,
 * while its threads go on. The emulator, which has no such instruction, computes the same with multiply_add: the same
 * numbers in the same registers, so that only the instruction itself and its descriptor are left to a GPU. */
#ifndef DIFFENCE_CUDA_HOPPER_H
#define DIFFENCE_CUDA_HOPPER_H

#include "tile.h"

#if defined(DF_EMULATED) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define DF_HOPPER 1
#else
#define DF_HOPPER 0
#endif

#if DF_HOPPER

#ifdef DF_EMULATED

DF_DEVICE void before_async_reads() {}
DF_DEVICE void start_products() {}
template <int LEFT> DF_DEVICE void end_products() {}

template <typename T, int COLUMNS>
DF_DEVICE void multiply_group(float sums[COLUMNS / 8][4], const unsigned char *left, const unsigned char *right) {
    const int warp = (int)threadIdx.x % 128 / 32, lane = (int)threadIdx.x % 32;
    for (int k = 0; k < DEPTH / 16; k++) {
        uint32_t a[4];
        load_matrices(a, (const eight<T> *)left + swizzled<8>(16 * warp + lane % 16, 2 * k + lane / 16));
        for (int j = 0; j < COLUMNS / 8; j += 2) {
            uint32_t b[4];
            load_matrices(b, (const eight<T> *)right +
                                 swizzled<8>(8 * j + lane % 8 + lane / 16 * 8, 2 * k + lane / 8 % 2));
            multiply_add<T>(sums[j], a, b[0], b[1]);
            multiply_add<T>(sums[j + 1], a, b[2], b[3]);
        }
    }
}

#else

/* What this thread wrote to shared memory, the tensor cores' own way of reading will see. */
DF_DEVICE void before_async_reads() {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
/* The sums' registers are ready; ends a group of products; waits until at most LEFT groups are under way. */
DF_DEVICE void start_products() {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
template <int LEFT> DF_DEVICE void end_products() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(LEFT) : "memory");
}

/* A matrix in shared memory, rows of 128 bytes swizzled (tile.h): its address, and 1024 bytes from one eight rows to the
 * next, both in units of 16; bit 62: the 128-byte swizzle. */
DF_DEVICE uint64_t matrix_descriptor(const void *matrix) {
    return (uint64_t)1 << 62 | (uint64_t)(1024 >> 4) << 32 | (uint64_t)1 << 16 |
           (uint64_t)((shared_address(matrix) & 0x3ffff) >> 4);
}

#define DF_S4(s, j)  "+f"(s[j][0]), "+f"(s[j][1]), "+f"(s[j][2]), "+f"(s[j][3])
#define DF_S16(s, j) DF_S4(s, j), DF_S4(s, j + 1), DF_S4(s, j + 2), DF_S4(s, j + 3)
#define DF_S64(s, j) DF_S16(s, j), DF_S16(s, j + 4), DF_S16(s, j + 8), DF_S16(s, j + 12)
#define DF_S128(s)   DF_S64(s, 0), DF_S64(s, 16)
#define DF_D64                                                                                                         \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, "   \
    "%24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, "   \
    "%46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define DF_D128                                                                                                        \
    DF_D64 ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, %82, %83, "    \
           "%84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, %96, %97, %98, %99, %100, %101, %102, %103, "  \
           "%104, %105, %106, %107, %108, %109, %110, %111, %112, %113, %114, %115, %116, %117, %118, %119, %120, "    \
           "%121, %122, %123, %124, %125, %126, %127"

/* sums (64 x COLUMNS, float; a warp's 16 rows as multiply_add's d, COLUMNS / 8 times) += left (64 x 16) right' (COLUMNS x 16),
 * both T, of the matrices' 16 columns that the descriptors point to. */
template <typename T, int COLUMNS>
DF_DEVICE void multiply_async(float sums[COLUMNS / 8][4], uint64_t left, uint64_t right);
#define DF_MULTIPLY(T, name, columns, registers, operands, a, b)                                                       \
    template <> DF_DEVICE void multiply_async<T, columns>(float s[columns / 8][4], uint64_t left, uint64_t right) {    \
        asm volatile("{ .reg .pred add; setp.eq.u32 add, 1, 1; wgmma.mma_async.sync.aligned.m64n" #columns             \
                     "k16.f32." name "." name " {" registers "}, " a ", " b ", add, 1, 1, 0, 0; }"                     \
                     : operands                                                                                        \
                     : "l"(left), "l"(right));                                                                         \
    }
DF_MULTIPLY(bf16, "bf16", 128, DF_D64, DF_S64(s, 0), "%64", "%65")
DF_MULTIPLY(fp16, "f16", 128, DF_D64, DF_S64(s, 0), "%64", "%65")
DF_MULTIPLY(bf16, "bf16", 256, DF_D128, DF_S128(s), "%128", "%129")
DF_MULTIPLY(fp16, "f16", 256, DF_D128, DF_S128(s), "%128", "%129")

template <typename T, int COLUMNS>
DF_DEVICE void multiply_group(float sums[COLUMNS / 8][4], const unsigned char *left, const unsigned char *right) {
    const uint64_t a = matrix_descriptor(left), b = matrix_descriptor(right);
#pragma unroll
    for (int k = 0; k < DEPTH / 16; k++)
        multiply_async<T, COLUMNS>(sums, a + 2 * (uint64_t)k, b + 2 * (uint64_t)k); /* 16 numbers on: 32 bytes */
}

#endif /* DF_EMULATED */
#endif /* DF_HOPPER */
#endif
