/* The fast kernels for NEON, which every 64-bit Arm has. */
#include "kernels/kernels.h"

#if DF_ARM
#include <arm_neon.h>
#include <math.h>
#include <string.h>

#define V_SET V_NEON
#include "kernels/table.h"

const df_kernels df_kernels_neon = DF_TABLE("neon");
#endif
