/* The seam between plan and kernels: a step of a plan is one df_call, and a table of kernels per instruction set.
 *
 * Values, [images][height * width][channels] without gaps, are float32 or, where a table says so, bfloat16. A norm's
 * statistics, weights, and images before IMPORT and after EXPORT are float32. A kernel splits its step into tasks that
 * any thread may run in any order. An output's bits must depend on its own image only: how tasks are cut (which may
 * depend on the number of images and threads), and which rows share a register tile, must never change the order of a
 * sum. */
#ifndef DIFFENCE_KERNELS_H
#define DIFFENCE_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Whether this compiler and target can hold the x86 or the Arm kernels at all; whether a processor can run them is asked
 * at run time. */
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define DF_X86 1
#else
#define DF_X86 0
#endif
/* And those with tiles, which older compilers do not know. */
#if DF_X86 && (defined(__clang__) ? __clang_major__ >= 12 : __GNUC__ >= 11)
#define DF_AMX 1
#else
#define DF_AMX 0
#endif
#if defined(__aarch64__) && (defined(__GNUC__) || defined(__clang__))
#define DF_ARM 1
#else
#define DF_ARM 0
#endif

typedef enum df_step_kind {
    DF_STEP_IMPORT = 0, /* images from NCHW */
    DF_STEP_EXPORT,     /* and back */
    DF_STEP_TIME,       /* row time[i] of a table */
    DF_STEP_CONV,       /* linear too: a 1x1 convolution of one pixel */
    DF_STEP_WINOGRAD, /* conv 3x3 at stride 1 that can apply a norm as it reads, by Winograd's algorithm where that pays */
    DF_STEP_NORM,     /* group norm, with SiLU where asked */
    DF_STEP_STATISTICS, /* of a group norm that its reader applies: [DF_NORM_ROWS][channels] */
    DF_STEP_SILU,
    DF_STEP_ATTENTION,
    DF_STEP_ADD,
    DF_STEP_CONCAT,
    DF_STEP_UPSAMPLE,
    DF_STEP_KIND_COUNT
} df_step_kind;

/* What a norm's reader gets of each channel: it reads (x - mean) * factor + shift, which is least at least and most at
 * most; those two only from kernels that say so. */
enum { DF_NORM_MEAN, DF_NORM_FACTOR, DF_NORM_SHIFT, DF_NORM_LEAST, DF_NORM_MOST, DF_NORM_ROWS };

typedef struct df_call {
    int64_t images;
    int32_t threads;                             /* that will share the tasks; only for cutting them */
    int32_t channels, height, width;             /* of the input; of input[0] where it is upsampled */
    int32_t out_channels, out_height, out_width; /* of output */
    int32_t size, stride;                        /* conv: 1 or 3, 1 or 2; zero padding (size - 1) / 2 */
    int32_t parts;                               /* norm: groups; attention: heads */
    int32_t split;                               /* the input's channels from here on are those of input[1]: 1x1 conv at
                                                  * stride 1, winograd, norm, statistics, concat; else `channels` */
    int32_t pitch[3];                            /* attention: values from one position of an input to the next */
    float epsilon;                               /* norm, statistics */
    bool silu;                                   /* norm; winograd: after its norm */
    bool broadcast;                              /* add: input[1] is one vector per image */
    bool upsample;                               /* winograd: each pixel of the input stands for 2 x 2 */
    const void *input[3];                        /* attention: q, k, v; add and concat: two */
    const int32_t *time;                         /* time: [images] */
    const float *norm;                           /* winograd: (input - mean) * factor + shift is read, or NULL */
    const float *weight;                         /* conv: as `pack` wrote it; norm: scale; time: [steps][channels] */
    const float *bias;                           /* conv: [out_channels] zero-filled up to `lanes`; norm: shift */
    const void *shift;                           /* conv: [images][out_channels] to add per image, or NULL */
    const void *residual;                        /* conv, attention: to add, as output, or NULL */
    void *output;
    int64_t block, columns; /* of a task, from `tasks`: tiles (winograd), rows (conv) or queries (attention), and output
                             * channels (the first two) */
} df_call;

typedef struct df_kernel {
    int64_t (*tasks)(df_call *call);        /* how many, after deciding how to cut the step for call->threads */
    size_t (*scratch)(const df_call *call); /* bytes of a worker's own memory, whatever call->images; NULL: none */
    void (*run)(const df_call *call, int64_t task, void *scratch); /* scratch is aligned to 64 bytes */
    /* conv: floats of its packed weights, and packing them from [out_channels][channels][size][size] */
    int64_t (*packed)(const df_call *call);
    void (*pack)(const df_call *call, const float *weight, float *packed);
} df_kernel;

typedef struct df_kernels {
    const char *name;
    const df_kernel *step[DF_STEP_KIND_COUNT];
    int32_t lanes;  /* biases are filled up to a multiple of this */
    bool direct3x3; /* Winograd's algorithm is not worth it here: a WINOGRAD step is computed directly */
    bool half;      /* values are bfloat16 */
    bool ranges;    /* statistics have DF_NORM_LEAST and DF_NORM_MOST, which the readers here need */
} df_kernels;

extern const df_kernels df_kernels_reference, df_kernels_portable, df_kernels_portable_bf16;
#if DF_X86
extern const df_kernels df_kernels_avx2, df_kernels_avx512, df_kernels_avx512_bf16;
#endif
#if DF_AMX
extern const df_kernels df_kernels_amx, df_kernels_amx_bf16;
#endif
#if DF_ARM
extern const df_kernels df_kernels_neon, df_kernels_neon_bf16;
#endif

/* Steps that only move values, the same for every instruction set; `half`: values that are bfloat16. */
typedef struct df_moves {
    df_kernel from_nchw, to_nchw, time, concat, upsample;
} df_moves;
extern const df_moves df_moves_float, df_moves_half;
#define DF_MOVES(moves)                                                                                                \
    [DF_STEP_IMPORT] = &(moves).from_nchw, [DF_STEP_EXPORT] = &(moves).to_nchw, [DF_STEP_TIME] = &(moves).time,        \
    [DF_STEP_CONCAT] = &(moves).concat, [DF_STEP_UPSAMPLE] = &(moves).upsample

static inline int64_t df_round_up(int64_t value, int64_t multiple) {
    return (value + multiple - 1) / multiple * multiple;
}
static inline int64_t df_min(int64_t a, int64_t b) {
    return a < b ? a : b;
}
/* How many blocks of `block` cover `count`. */
static inline int64_t df_blocks(int64_t count, int64_t block) {
    return (count + block - 1) / block;
}

#endif
