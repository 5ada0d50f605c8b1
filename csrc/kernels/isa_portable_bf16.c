/* bfloat16 products without instructions for them: slow, and there to be asked for by name, above all by tests. */
#include "kernels/kernels.h"

#include <math.h>
#include <string.h>

#define V_SET  V_PORTABLE
#define V_BF16 1
#include "kernels/table.h"

const df_kernels df_kernels_portable_bf16 = DF_TABLE("portable");
