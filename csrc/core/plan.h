/* From a program to the steps that compute it: what every engine shares. Readable from C++. */
#ifndef DIFFENCE_PLAN_H
#define DIFFENCE_PLAN_H

#include "diffence.h"
#include "kernels/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---------------------------------------------------------------- program.c */

typedef struct df_shape {
    int32_t channels, height, width;
} df_shape;

static inline int64_t df_shape_values(df_shape shape) { /* at most INT32_MAX in a checked program */
    return (int64_t)shape.channels * shape.height * shape.width;
}

/* Values of a checked weight. */
int64_t df_weight_values(const df_weight *weight);

/* Everything but the weights' values, which are not read. shapes[op_count + 2] of every value (of the time: zeros);
 * *time_steps: rows of the time table, 0 where there is none. */
df_code df_program_check(const df_program *program, df_shape *shapes, int32_t *time_steps, df_error *error);

/* That every weight of a checked program is finite. */
df_code df_program_check_finite(const df_program *program, df_error *error);

/* ---------------------------------------------------------------- plan.c */

/* The program's weights of the four 1x1 convolutions around an attention of one head, matrix and bias (-1: none). */
typedef struct df_attention_weights {
    int32_t q[2], k[2], v[2], out[2];
} df_attention_weights;

typedef struct df_plan_step {
    df_step_kind kind;
    int32_t input[3], norm, shift, residual, output; /* values, -1 where unused */
    int32_t offset[3];                               /* of the input's first channel */
    int32_t weight, bias;                            /* the program's weights, -1 where unused */
    bool merged;                                     /* a convolution whose weights are made of `attention`'s */
    df_attention_weights attention;
    df_call call; /* shapes and constants; the engine fills in the pointers */
} df_plan_step;

/* Where a value lives in the arena, in units of one image (the size of an activation): a batch multiplies both. */
typedef struct df_place {
    int64_t offset, size;
} df_place;

typedef struct df_plan_options df_plan_options;

/* What an engine's kernels can do, as far as it decides which steps there are and how much room they take. */
struct df_plan_options {
    bool winograd;        /* 3x3 at stride 1 where that pays; it applies norms and upsampling as it reads */
    bool rough;           /* products of 16 bits, which are too rough for Winograd in the last convolution */
    bool direct3x3;       /* those steps do not compute by Winograd's algorithm, and so always pay */
    bool reads_upsampled; /* every 3x3 convolution at stride 1 can read pixels four times */
    int32_t
        split_multiple; /* of the first side's channels, for a concatenation that its readers read from both sides */
    int64_t (*room)(const df_plan_step *step, const df_plan_options *options); /* of a step's output of one image */
};

typedef struct df_plan {
    int32_t step_count, value_count;
    df_plan_step *steps;
    df_place *places; /* of every value; size 0 where fusion left none */
    int64_t arena;    /* units of one image */
} df_plan;

/* Values of what a step makes of one image. */
static inline int64_t df_step_values(const df_plan_step *step) {
    const df_call *call = &step->call;
    return step->kind == DF_STEP_STATISTICS ? DF_NORM_ROWS * (int64_t)call->channels
                                            : (int64_t)call->out_channels * call->out_height * call->out_width;
}

df_code df_plan_create(const df_program *program, const df_shape *shapes, const df_plan_options *options, df_plan *plan,
                       df_error *error);
void df_plan_clear(df_plan *plan);

/* ---------------------------------------------------------------- merge.c */

/* Softmax does not see what is constant in a row, so with one head of dimension c, q k' comes to (Wk' Wq x + Wk' bq) x',
 * up to such constants, and its rows add up to one, so Wo (P (Wv x + bv)) + bo = P (Wo Wv x + Wo bv + bo). Four
 * projections become two, exact but for rounding: weight[2 c][c] and bias[2 c], from products in double. */
void df_merge_attention(const df_program *program, const df_attention_weights *ids, int64_t c, float *weight,
                        float *bias);

#ifdef __cplusplus
}
#endif

#endif
