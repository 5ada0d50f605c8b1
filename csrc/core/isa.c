#include "core/internal.h"

#include <stdlib.h>
#include <string.h>
#if DF_ARM && defined(__linux__)
#include <sys/auxv.h>
#endif
#if DF_X86
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

/* Slowest first. Names are known everywhere, so that asking for one on another architecture says "not on this machine"
 * and not "unknown". */
static const struct set {
    const char *name;
    const df_kernels *kernels[DF_PRECISION_COUNT]; /* NULL: not compiled in, or there are none */
} sets[] = {
    {"reference", {&df_kernels_reference, NULL}},
    {"portable", {&df_kernels_portable, &df_kernels_portable_bf16}},
#if DF_X86
    {"avx2", {&df_kernels_avx2, NULL}},
    {"avx512", {&df_kernels_avx512, &df_kernels_avx512_bf16}},
#else
    {"avx2", {NULL, NULL}},
    {"avx512", {NULL, NULL}},
#endif
#if DF_AMX
    {"amx", {&df_kernels_amx, &df_kernels_amx_bf16}},
#else
    {"amx", {NULL, NULL}},
#endif
#if DF_ARM
    {"neon", {&df_kernels_neon, &df_kernels_neon_bf16}},
#else
    {"neon", {NULL, NULL}},
#endif
};

enum { REFERENCE, PORTABLE, AVX2, AVX512, AMX, NEON, COUNT = sizeof sets / sizeof *sets };

#if DF_X86
/* Whether the processor has tiles of bf16 and of bytes, and the system lets this process use them, which has to be asked for once: their
 * registers are large. Every thread of the process may then. */
static bool may_use_tiles(void) {
#if defined(__linux__) && defined(SYS_arch_prctl)
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };   /* ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA */
    const unsigned needed = 1U << 22 | 1U << 24 | 1U << 25; /* AMX-BF16, AMX-TILE, AMX-INT8 */
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & needed) == needed &&
           syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
#else
    return false;
#endif
}
#endif

int32_t df_isa_count(void) {
    return COUNT;
}

const char *df_isa_name(int32_t index) {
    return index >= 0 && index < COUNT ? sets[index].name : NULL;
}

bool df_isa_supported(int32_t index, df_precision precision) {
    if (index < 0 || index >= COUNT || !sets[index].kernels[precision])
        return false;
#if DF_X86
    /* These ask the processor and whether the system saves the wide registers. */
    __builtin_cpu_init();
    if (index == AVX2)
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (index == AVX512 || index == AMX)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
               (precision != DF_BF16 || __builtin_cpu_supports("avx512bf16")) &&
               (index != AMX || (__builtin_cpu_supports("avx512vbmi") && may_use_tiles()));
#endif
#if DF_ARM
    if (index == NEON && precision == DF_BF16) {
#if defined(__linux__)
        const unsigned long bf16 = 1UL << 14; /* HWCAP2_BF16, which old headers lack */
        return getauxval(AT_HWCAP2) & bf16;
#else
        return false;
#endif
    }
#endif
    return true;
}

const df_kernels *df_isa_kernels(int32_t index, df_precision precision) {
    return sets[index].kernels[precision];
}

static df_code fastest(df_precision precision, int32_t *index, df_error *error) {
    const int32_t least = precision == DF_BF16 ? AVX2 : REFERENCE; /* those below have no instructions for it */
    for (*index = COUNT - 1; *index >= least; --*index)
        if (df_isa_supported(*index, precision))
            return DF_OK;
    return df_fail(error, DF_UNSUPPORTED,
                   "precision: this processor has no instructions for 'bf16'; use 'fp32', which is faster here");
}

df_code df_isa_resolve(const char *name_or_null, df_precision precision, int32_t *index, df_error *error) {
    const char *name = name_or_null ? name_or_null : getenv("DIFFENCE_ISA");
    const char *source = name_or_null ? "isa" : "DIFFENCE_ISA";
    if (!name)
        return fastest(precision, index, error);
    for (int32_t i = 0; i < COUNT; i++) {
        if (strcmp(name, sets[i].name) != 0)
            continue;
        if (!df_isa_supported(i, DF_FP32) && !df_isa_supported(i, DF_BF16))
            return df_fail(error, DF_UNSUPPORTED, "%s: this processor or build cannot run '%s'", source, name);
        if (!df_isa_supported(i, precision))
            return df_fail(error, DF_UNSUPPORTED, "precision: '%s' (%s) has no '%s' on this processor", name, source,
                           precision == DF_BF16 ? "bf16" : "fp32");
        *index = i;
        return DF_OK;
    }
    return df_fail(error, DF_INVALID, "%s must be one of reference, portable, avx2, avx512, amx, neon, got '%.60s'",
                   source, name);
}
