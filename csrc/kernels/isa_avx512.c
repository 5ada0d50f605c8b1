/* The fast kernels for AVX-512 F, BW, DQ, VL. The target is set here and not by the build's flags, so that all sources
 * compile with the same ones; headers come first, so that nothing of theirs is compiled for it. */
#include "kernels/kernels.h"

#if DF_X86
#include <immintrin.h>
#include <math.h>
#include <string.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"))),                   \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")
#endif

#define V_SET V_AVX512
#include "kernels/table.h"

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

const df_kernels df_kernels_avx512 = DF_TABLE("avx512");
#endif
