/* The kernels of AMX with its tiles in plain C. */
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

/* How vectors this wide are passed does not matter: nothing leaves this file. */
#pragma GCC diagnostic ignored "-Wpsabi"

#define V_SET  V_WIDE
#define V_BF16 1
#define V_AMX  1
#include "kernels/table.h"

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

extern const df_kernels kernels_wide_amx;
const df_kernels kernels_wide_amx = DF_TABLE("wide, amx");
#endif
