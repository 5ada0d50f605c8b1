/* What the sources of the CPU engine share: plan.h -> model -> engine. */
#ifndef DIFFENCE_INTERNAL_H
#define DIFFENCE_INTERNAL_H

#include "core/plan.h"

/* ---------------------------------------------------------------- isa.c */

/* NULL where there are none. */
const df_kernels *df_isa_kernels(int32_t index, df_precision precision);

/* ---------------------------------------------------------------- model.c */

/* Zeroed memory on a cache line or, where it is large, on huge pages; NULL where there is none. Release with free. */
void *df_allocate(size_t bytes);

/* Where a step's packed weights begin, in floats of the model's weights. */
typedef struct df_packed {
    size_t weight, bias;
} df_packed;

struct df_model {
    _Atomic int32_t references;
    df_precision precision;
    const df_kernels *kernels;
    df_shape shape;
    int32_t time_steps;
    int64_t parameters;
    df_plan plan;
    df_packed *packed; /* of each step */
    float *weights;    /* NULL while only planned */
    size_t weight_bytes;
};

#endif
