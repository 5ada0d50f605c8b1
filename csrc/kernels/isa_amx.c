/* Products of floats by AMX, as whole numbers of three digits. The target is set here for the reasons of isa_avx512.c. */
#include "kernels/kernels.h"

#if DF_AMX
#include <immintrin.h>
#include <math.h>
#include <string.h>

#if defined(__clang__)
#pragma clang attribute push(                                                                                          \
    __attribute__((target("amx-tile,amx-bf16,amx-int8,avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx2,fma"))),      \
    apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("amx-tile,amx-bf16,amx-int8,avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx2,fma")
#endif

#define V_SET V_AVX512
#define V_AMX 1
#include "kernels/table.h"

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

const df_kernels df_kernels_amx = DF_TABLE("amx");
#endif
