/* The text of the AVX-512 kernels, compiled for AVX2 in halves: what a processor without AVX-512 can test of them. Compiled
 * four times (Makefile): as it stands, with -DV_BF16=1, and both with -DV_AMX=1, whose tiles are then plain C. */
#include "kernels/kernels.h"

#if DF_X86
#include <immintrin.h>
#include <math.h>
#include <string.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif

#define V_SET V_WIDE
#include "kernels/table.h"

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#if V_TILED
#define WIDE kernels_wide_amx_bf16
#elif V_AMX
#define WIDE kernels_wide_amx
#elif V_BF16
#define WIDE kernels_wide_bf16
#else
#define WIDE kernels_wide
#endif
extern const df_kernels WIDE;
const df_kernels WIDE = DF_TABLE(V_AMX ? "wide amx" : "wide");
#endif
