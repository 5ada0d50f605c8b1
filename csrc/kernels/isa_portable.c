/* The fast kernels over the compiler's own vectors, for any processor. Without FMA: its convolutions have the same bits
 * everywhere. */
#include "kernels/kernels.h"

#include <math.h>
#include <string.h>

#define V_SET V_PORTABLE
#include "kernels/table.h"

const df_kernels df_kernels_portable = DF_TABLE("portable");
