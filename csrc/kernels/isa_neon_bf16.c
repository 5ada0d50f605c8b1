/* bfloat16 products by the BF16 extension. The target is set here for the reasons of isa_avx512.c. */
#include "kernels/kernels.h"

#if DF_ARM
#include <arm_neon.h>
#include <math.h>
#include <string.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("bf16"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("arch=armv8.2-a+bf16")
#endif

#define V_SET  V_NEON
#define V_BF16 1
#include "kernels/table.h"

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

const df_kernels df_kernels_neon_bf16 = DF_TABLE("neon");
#endif
