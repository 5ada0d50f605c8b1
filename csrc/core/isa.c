#include "core/internal.h"

#include <stdlib.h>
#include <string.h>

/* Slowest first. */
static const df_kernels *const tables[] = {
    &df_kernels_reference,
    &df_kernels_portable,
#if DF_X86
    &df_kernels_avx2,
    &df_kernels_avx512,
#endif
};
/* Known everywhere, so that asking for one on another architecture says "not on this machine" and not "unknown". */
static const char *const names[] = {"reference", "portable", "avx2", "avx512"};

enum { COUNT = sizeof names / sizeof *names, COMPILED = sizeof tables / sizeof *tables };

int32_t df_isa_count(void) {
    return COUNT;
}

const char *df_isa_name(int32_t index) {
    return index >= 0 && index < COUNT ? names[index] : NULL;
}

bool df_isa_supported(int32_t index) {
    if (index < 0 || index >= COMPILED)
        return false;
#if DF_X86
    /* These ask the processor and whether the system saves the wide registers. */
    __builtin_cpu_init();
    if (index == 2)
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (index == 3)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#endif
    return true;
}

const df_kernels *df_isa_kernels(int32_t index) {
    return tables[index];
}

df_code df_isa_resolve(const char *name_or_null, int32_t *index, df_error *error) {
    const char *name = name_or_null ? name_or_null : getenv("DIFFENCE_ISA");
    const char *source = name_or_null ? "isa" : "DIFFENCE_ISA";
    if (!name) {
        *index = COUNT - 1;
        while (!df_isa_supported(*index))
            --*index;
        return DF_OK;
    }
    for (int32_t i = 0; i < COUNT; i++) {
        if (strcmp(name, names[i]) != 0)
            continue;
        if (!df_isa_supported(i))
            return df_fail(error, DF_UNSUPPORTED, "%s: this processor or build cannot run '%s'", source, name);
        *index = i;
        return DF_OK;
    }
    return df_fail(error, DF_INVALID, "%s must be one of reference, portable, avx2, avx512, got '%.60s'", source, name);
}
