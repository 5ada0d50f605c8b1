/* What tests of kernels share: memory between guards, the sets under test, and a step run by any of them, whose values are
 * floats to the test and bfloat16 to the sets that store them. */
#ifndef DIFFENCE_TESTS_STEPS_H
#define DIFFENCE_TESTS_STEPS_H

#include "check.h"
#include "core/internal.h"
#include "network.h"

enum { GUARD = 64 };
/* A NaN of its own, so that what is read from beyond an end shows in the result even where it is multiplied by 0. */
static const union {
    uint32_t bits;
    float value;
} sentinel = {0x7fc12345U};

/* Room for exactly `count` values between two guards, filled with NaN. */
static float *guarded(int64_t count) {
    float *memory = NULL;
    if (posix_memalign((void **)&memory, 64, (size_t)(count + 2 * GUARD) * sizeof *memory))
        abort();
    for (int64_t i = 0; i < count + 2 * GUARD; i++)
        memory[i] = i < GUARD || i >= count + GUARD ? sentinel.value : NAN;
    return memory + GUARD;
}

static bool guards_hold(const float *values, int64_t count) {
    for (int64_t i = 0; i < GUARD; i++)
        if (memcmp(&values[-1 - i], &sentinel, sizeof sentinel) ||
            memcmp(&values[count + i], &sentinel, sizeof sentinel))
            return false;
    return true;
}

static void release(float *values) {
    free(values - GUARD);
}

static float *guarded_random(int64_t count, float scale) {
    float *values = guarded(count);
    fill_random(values, count, scale);
    return values;
}

#if DF_X86
extern const df_kernels kernels_wide, kernels_wide_bf16, kernels_wide_amx, kernels_wide_amx_bf16; /* isa_wide.c */
enum { WIDE = 2 };
static const df_kernels *const wide[WIDE][DF_PRECISION_COUNT] = {{&kernels_wide, &kernels_wide_bf16},
                                                                 {&kernels_wide_amx, &kernels_wide_amx_bf16}};
#else
enum { WIDE = 0 };
static const df_kernels *const wide[1][DF_PRECISION_COUNT];
#endif

static df_precision precision; /* of the sets under test */

/* The instruction sets, and after them those that only tests know. */
static int32_t set_count(void) {
    return df_isa_count() + WIDE;
}

/* NULL where the processor cannot run it, or where ONLY names another one. */
static const df_kernels *set_at(int32_t index) {
    int32_t avx2 = -1;
    const char *only = getenv("ONLY");
    const int32_t beyond = index - df_isa_count();
    if (only && (beyond >= 0 || strcmp(only, df_isa_name(index)) != 0))
        return NULL;
    if (beyond >= 0)
        return df_isa_resolve("avx2", DF_FP32, &avx2, NULL) == DF_OK ? wide[beyond][precision] : NULL;
    return df_isa_supported(index, precision) ? df_isa_kernels(index, precision) : NULL;
}

static void cut_to_terms(float *values, int64_t count) {
    for (int64_t i = 0; i < count && precision == DF_BF16; i++) {
        uint32_t bits;
        memcpy(&bits, &values[i], sizeof bits);
        bits &= 0xffff0000U;
        memcpy(&values[i], &bits, sizeof bits);
    }
}

/* Random values whose products are the same in both precisions, and which both can store. */
static float *guarded_terms(int64_t count, float scale) {
    float *values = guarded_random(count, scale);
    cut_to_terms(values, count);
    return values;
}

static int64_t output_values(const df_call *call) {
    return call->images * call->out_channels * call->out_height * call->out_width;
}

/* Room for exactly `count` bfloat16 numbers between two guards, filled with NaN. */
static uint16_t *guarded_halves(int64_t count) {
    uint16_t *memory = NULL;
    if (posix_memalign((void **)&memory, 64, (size_t)(count + 2 * GUARD) * sizeof *memory))
        abort();
    for (int64_t i = 0; i < count + 2 * GUARD; i++)
        memory[i] = i < GUARD || i >= count + GUARD ? 0x7fd1 : 0x7fc0;
    return memory + GUARD;
}

static void release_halves(const void *values) {
    if (values)
        free((uint16_t *)values - GUARD);
}

/* The same floats as bfloat16, which they must be. */
static const void *to_halves(const void *floats, int64_t count) {
    if (!floats)
        return NULL;
    uint16_t *halves = guarded_halves(count);
    for (int64_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, (const float *)floats + i, sizeof bits);
        if (bits & 0xffffU)
            abort();
        halves[i] = (uint16_t)(bits >> 16);
    }
    return halves;
}

static int64_t input_values(df_step_kind kind, const df_call *call, int j) {
    const int64_t pixels = call->images * call->height * call->width;
    if (kind == DF_STEP_ATTENTION)
        return pixels * call->pitch[j];
    if (kind == DF_STEP_ADD)
        return j == 1 && call->broadcast ? call->images * call->channels : pixels * call->channels;
    return pixels * (j == 0 ? call->split : call->channels - call->split);
}

/* One step, its values as the set stores them; tasks backwards where asked, as threads might. */
static void run_stored(const df_kernels *kernels, df_step_kind kind, const df_call *given, bool backwards) {
    const df_kernel *kernel = kernels->step[kind];
    df_call call = *given;
    const int64_t floats = kernel->scratch ? (int64_t)kernel->scratch(&call) / 4 : 0;
    float *scratch = guarded(floats);
    const int64_t tasks = kernel->tasks(&call);
    for (int64_t i = 0; i < tasks; i++)
        kernel->run(&call, backwards ? tasks - 1 - i : i, scratch);
    CHECK(guards_hold(scratch, floats), "%s: step %d writes outside its scratch", kernels->name, kind);
    release(scratch);
}

/* Runs one step with the call's output, which is of floats. */
static void run_step(const df_kernels *kernels, df_step_kind kind, const df_call *given, bool backwards) {
    if (!kernels->half) {
        run_stored(kernels, kind, given, backwards);
        return;
    }
    df_call call = *given;
    const bool to_floats = kind == DF_STEP_STATISTICS || kind == DF_STEP_EXPORT;
    const int64_t outputs = kind == DF_STEP_TIME ? call.images * call.out_channels : output_values(&call);
    for (int j = 0; j < 3 && kind != DF_STEP_IMPORT; j++)
        call.input[j] = to_halves(call.input[j], input_values(kind, &call, j));
    call.shift = to_halves(call.shift, call.images * call.out_channels);
    call.residual = to_halves(call.residual, outputs);
    uint16_t *made = guarded_halves(outputs);
    if (!to_floats)
        call.output = made;
    run_stored(kernels, kind, &call, backwards);
    bool held = true;
    for (int64_t i = 0; i < GUARD; i++)
        held &= made[-1 - i] == 0x7fd1 && made[outputs + i] == 0x7fd1;
    CHECK(held, "%s: step %d writes outside", kernels->name, kind);
    for (int64_t i = 0; i < outputs && !to_floats; i++) {
        const uint32_t bits = (uint32_t)made[i] << 16;
        memcpy((float *)given->output + i, &bits, sizeof bits);
    }
    for (int j = 0; j < 3 && kind != DF_STEP_IMPORT; j++)
        release_halves(call.input[j]);
    release_halves(call.shift);
    release_halves(call.residual);
    release_halves(made);
}

static float *pack(const df_kernels *kernels, df_step_kind kind, const df_call *call, const float *weight) {
    const int64_t count = kernels->step[kind]->packed(call);
    float *packed = guarded(count);
    kernels->step[kind]->pack(call, weight, packed);
    CHECK(guards_hold(packed, count), "%s: packs outside", kernels->name);
    return packed;
}

/* A call for one image of another's. */
static df_call only_image(const df_call *call, df_step_kind kind, int64_t image) {
    df_call one = *call;
    const int64_t pixels = (int64_t)call->height * call->width;
    int64_t pitch[3] = {call->split, call->channels - call->split, 0};
    if (kind == DF_STEP_ATTENTION)
        for (int j = 0; j < 3; j++)
            pitch[j] = call->pitch[j];
    if (kind == DF_STEP_ADD)
        pitch[1] = call->channels;
    one.images = 1;
    for (int j = 0; j < 3; j++)
        if (call->input[j])
            one.input[j] = (const float *)one.input[j] + image * pitch[j] * (j == 1 && call->broadcast ? 1 : pixels);
    if (call->norm)
        one.norm += image * DF_NORM_ROWS * call->channels;
    if (call->shift)
        one.shift = (const float *)one.shift + image * call->out_channels;
    if (call->residual)
        one.residual = (const float *)one.residual + image * output_values(call) / call->images;
    return one;
}

#endif
