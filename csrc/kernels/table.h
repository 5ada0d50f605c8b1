/* The whole text of the fast kernels and their table, for the instruction set of the isa_*.c that includes it. */
#include "kernels/vec.h"

#include "kernels/exp.h"
#include "kernels/gemm.h"

#include "kernels/attention.h"
#include "kernels/conv.h"
#include "kernels/elementwise.h"
#include "kernels/norm.h"
#if V_TILED
#include "kernels/attention_tiles.h"
#include "kernels/conv1x1.h"
#include "kernels/run_terms.h"

#include "kernels/conv3x3.h"
#else
#include "kernels/winograd_line.h"

#include "kernels/winograd_cut.h"

#include "kernels/winograd_weights.h"

#include "kernels/winograd.h"
#if V_AMX
#include "kernels/run_digits.h"

#include "kernels/band_points.h"

#include "kernels/band_shape.h"

#include "kernels/band_patch.h"

#include "kernels/conv_bands.h"

#include "kernels/conv_digits.h"

#include "kernels/attention_digits.h"
#endif
#endif

/* A step's kernel, or one of two, by its shape alone. */
#define ONE(of)                                                                                                        \
    { of##_tasks, of##_scratch_bytes, of##_run, of##_packed, of##_pack }
#define EITHER(name, first, second)                                                                                    \
    static int64_t name##_tasks(df_call *call) {                                                                       \
        return first##_fits(call) ? first##_tasks(call) : second##_tasks(call);                                        \
    }                                                                                                                  \
    static size_t name##_scratch_bytes(const df_call *call) {                                                          \
        return first##_fits(call) ? first##_scratch_bytes(call) : second##_scratch_bytes(call);                        \
    }                                                                                                                  \
    static void name##_run(const df_call *call, int64_t task, void *scratch) {                                         \
        (first##_fits(call) ? first##_run : second##_run)(call, task, scratch);                                        \
    }                                                                                                                  \
    static int64_t name##_packed(const df_call *call) {                                                                \
        return first##_fits(call) ? first##_packed(call) : second##_packed(call);                                      \
    }                                                                                                                  \
    static void name##_pack(const df_call *call, const float *weight, float *packed) {                                 \
        (first##_fits(call) ? first##_pack : second##_pack)(call, weight, packed);                                     \
    }
#if V_TILED
#define conv1x1_packed conv_packed /* the same weights for both */
#define conv1x1_pack   conv_pack
EITHER(any_conv, conv1x1, conv)
static const df_kernel conv_step = ONE(any_conv), winograd_step = ONE(conv3x3);
#elif V_AMX
EITHER(any_conv, conv_digits, conv)
EITHER(any_winograd, conv_bands, winograd)
static const df_kernel conv_step = ONE(any_conv), winograd_step = ONE(any_winograd);
#else
static const df_kernel conv_step = ONE(conv), winograd_step = ONE(winograd);
#endif
#undef ONE
#undef EITHER
static const df_kernel norm_step = {norm_tasks, norm_scratch, norm_run, NULL, NULL};
static const df_kernel statistics_step = {norm_tasks, norm_scratch, statistics_run, NULL, NULL};
static const df_kernel silu_step = {value_tasks, NULL, silu_run, NULL, NULL};
#if V_TILED
static const df_kernel attention_step = {attention_tasks, tiled_attention_bytes, tiled_attention_run, NULL, NULL};
#elif V_AMX
static const df_kernel attention_step = {attention_tasks, any_attention_bytes, any_attention_run, NULL, NULL};
#else
static const df_kernel attention_step = {attention_tasks, attention_bytes, attention_run, NULL, NULL};
#endif
static const df_kernel add_step = {add_tasks, NULL, add_run, NULL, NULL};

#if V_TILED
#define V_MOVES df_moves_half
#else
#define V_MOVES df_moves_float
#endif
#define DF_TABLE(isa)                                                                                                  \
    {                                                                                                                  \
        .name = isa,                                                                                                   \
        .step = {DF_MOVES(V_MOVES),                                                                                    \
                 [DF_STEP_CONV] = &conv_step,                                                                          \
                 [DF_STEP_WINOGRAD] = &winograd_step,                                                                  \
                 [DF_STEP_NORM] = &norm_step,                                                                          \
                 [DF_STEP_STATISTICS] = &statistics_step,                                                              \
                 [DF_STEP_SILU] = &silu_step,                                                                          \
                 [DF_STEP_ATTENTION] = &attention_step,                                                                \
                 [DF_STEP_ADD] = &add_step},                                                                           \
        .lanes = COLUMNS, .direct3x3 = V_TILED, .half = V_TILED, .ranges = RANGES,                                     \
    }
