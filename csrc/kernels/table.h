/* The whole text of the fast kernels and their table, for the instruction set of the isa_*.c that includes it. */
#include "kernels/vec.h"

#include "kernels/exp.h"
#include "kernels/gemm.h"

#include "kernels/attention.h"
#include "kernels/conv.h"
#include "kernels/elementwise.h"
#include "kernels/norm.h"
#if V_AMX
#include "kernels/conv3x3.h"
#else
#include "kernels/winograd.h"
#endif

static const df_kernel conv_step = {conv_tasks, conv_scratch_bytes, conv_run, conv_packed, conv_pack};
#if V_AMX
static const df_kernel winograd_step = {conv3x3_tasks, conv3x3_scratch_bytes, conv3x3_run, conv3x3_packed,
                                        conv3x3_pack};
#else
static const df_kernel winograd_step = {winograd_tasks, winograd_scratch_bytes, winograd_run, winograd_packed,
                                        winograd_pack};
#endif
static const df_kernel norm_step = {norm_tasks, norm_scratch, norm_run, NULL, NULL};
static const df_kernel statistics_step = {norm_tasks, norm_scratch, statistics_run, NULL, NULL};
static const df_kernel silu_step = {value_tasks, NULL, silu_run, NULL, NULL};
static const df_kernel attention_step = {attention_tasks, attention_bytes, attention_run, NULL, NULL};
static const df_kernel add_step = {add_tasks, NULL, add_run, NULL, NULL};

#define DF_TABLE(isa)                                                                                                  \
    {                                                                                                                  \
        .name = isa,                                                                                                   \
        .step = {DF_MOVES,                                                                                             \
                 [DF_STEP_CONV] = &conv_step,                                                                          \
                 [DF_STEP_WINOGRAD] = &winograd_step,                                                                  \
                 [DF_STEP_NORM] = &norm_step,                                                                          \
                 [DF_STEP_STATISTICS] = &statistics_step,                                                              \
                 [DF_STEP_SILU] = &silu_step,                                                                          \
                 [DF_STEP_ATTENTION] = &attention_step,                                                                \
                 [DF_STEP_ADD] = &add_step},                                                                           \
        .lanes = COLUMNS, .direct3x3 = V_AMX,                                                                          \
    }
