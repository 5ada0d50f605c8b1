/* Program -> steps, fused, with a place in one arena for every value that is left. */
#include "core/plan.h"

#include <stdlib.h>
#include <string.h>

enum {
    FIRST = 2,
    ALIGNMENT = 16 /* units: a cache line of floats */,
    GONE = -2 /* output of a step that is no more */
};

typedef struct planner {
    const df_program *program;
    const df_shape *shapes;
    df_plan *plan;
    int32_t *alias;    /* value -> the value that stands for it */
    int32_t *uses;     /* of a value that stands for itself */
    int32_t *producer; /* value -> step, -1 where no step makes it */
    const df_plan_options *options;
} planner;

/* One SiLU of a value is enough: networks write it down once per block for the time embedding. */
static void count_uses(planner *p, int32_t *silu_of) {
    const df_program *program = p->program;
    for (int32_t id = 0; id < program->op_count + FIRST; id++) {
        p->alias[id] = id;
        silu_of[id] = -1;
    }
    for (int32_t i = 0; i < program->op_count; i++) {
        const df_op *op = &program->ops[i];
        if (op->kind == DF_OP_SILU) {
            int32_t *first = &silu_of[p->alias[op->inputs[0]]];
            if (*first >= 0) {
                p->alias[i + FIRST] = *first;
                continue;
            }
            *first = i + FIRST;
        }
        for (int j = 0; j < 3 && op->inputs[j] >= 0; j++)
            p->uses[p->alias[op->inputs[j]]]++;
    }
    p->uses[p->alias[program->op_count + 1]]++;
}

static df_plan_step *add_step(planner *p, df_step_kind kind, int32_t input, int32_t output) {
    const df_shape in = p->shapes[input], out = p->shapes[output];
    df_plan_step *step = &p->plan->steps[p->plan->step_count];
    *step = (df_plan_step){.kind = kind,
                           .input = {input, -1, -1},
                           .norm = -1,
                           .shift = -1,
                           .residual = -1,
                           .output = output,
                           .weight = -1,
                           .bias = -1};
    step->call = (df_call){.channels = in.channels,
                           .height = in.height,
                           .width = in.width,
                           .out_channels = out.channels,
                           .out_height = out.height,
                           .out_width = out.width,
                           .size = 1,
                           .stride = 1,
                           .parts = 1,
                           .split = in.channels,
                           .pitch = {in.channels, in.channels, in.channels}};
    p->producer[output] = p->plan->step_count++;
    return step;
}

static bool is_conv(df_step_kind kind) {
    return kind == DF_STEP_CONV || kind == DF_STEP_WINOGRAD;
}

/* The step that makes a value which nobody else wants, or NULL. */
static df_plan_step *sole(const planner *p, int32_t value) {
    const int32_t producer = p->producer[value];
    return producer < 0 || p->uses[value] != 1 ? NULL : &p->plan->steps[producer];
}

static df_plan_step *sole_conv(const planner *p, int32_t value) {
    df_plan_step *step = sole(p, value);
    return step && is_conv(step->kind) && step->residual < 0 ? step : NULL;
}

/* Whether Winograd's algorithm saves enough multiplications to pay for its transformations: 36 for a tile of 4 x 4
 * outputs, which may overhang, against 9 for each output. A few input channels do not pay for them either. */
static bool winograd_pays(const df_call *call, const df_plan_options *options) {
    /* In bf16 the last convolution, which makes few channels, would add as much error as all the others, and where there
     * are few channels at all Winograd saves little. */
    const bool too_rough = options->rough && call->out_channels <= 32;
    const int64_t tiles = df_blocks(call->out_height, 4) * df_blocks(call->out_width, 4);
    const int64_t pixels = (int64_t)call->out_height * call->out_width;
    return options->winograd && call->size == 3 && call->stride == 1 && call->channels >= 8 &&
           (options->direct3x3 || (!too_rough && 36 * tiles * 4 <= 9 * pixels * 3));
}

/* An addition becomes part of a convolution that makes one of its sides. The convolution moves down to the addition's
 * place, where the other side exists for sure. */
static bool fuse_add(planner *p, int32_t a, int32_t b, int32_t output, bool broadcast) {
    df_plan_step *conv = sole_conv(p, a);
    int32_t other = b;
    if (conv && broadcast && conv->shift >= 0)
        conv = NULL;
    if (!conv && !broadcast) {
        conv = sole_conv(p, b);
        other = a;
    }
    if (!conv)
        return false;
    df_plan_step *moved = add_step(p, conv->kind, conv->input[0], output);
    const int32_t produced = conv->output;
    *moved = *conv;
    moved->output = output;
    *(broadcast ? &moved->shift : &moved->residual) = other;
    conv->output = GONE;
    p->producer[produced] = -1;
    return true;
}

static void add_op(planner *p, int32_t index) {
    static const df_step_kind step_kinds[DF_OP_KIND_COUNT] = {
        [DF_OP_TIME_EMBEDDING] = DF_STEP_TIME,
        [DF_OP_LINEAR] = DF_STEP_CONV,
        [DF_OP_SILU] = DF_STEP_SILU,
        [DF_OP_CONV] = DF_STEP_CONV,
        [DF_OP_GROUP_NORM] = DF_STEP_NORM,
        [DF_OP_ATTENTION] = DF_STEP_ATTENTION,
        [DF_OP_ADD] = DF_STEP_ADD,
        [DF_OP_CONCAT] = DF_STEP_CONCAT,
        [DF_OP_UPSAMPLE] = DF_STEP_UPSAMPLE,
    };
    const df_op *op = &p->program->ops[index];
    const int32_t output = index + FIRST;
    if (p->alias[output] != output)
        return;
    int32_t input[3];
    for (int j = 0; j < 3; j++)
        input[j] = op->inputs[j] < 0 ? -1 : p->alias[op->inputs[j]];
    bool broadcast = false;
    if (op->kind == DF_OP_ADD) {
        broadcast = df_shape_values(p->shapes[input[0]]) != df_shape_values(p->shapes[input[1]]);
        if (fuse_add(p, input[0], input[1], output, broadcast))
            return;
    }
    df_plan_step *norm = op->kind == DF_OP_SILU ? sole(p, input[0]) : NULL;
    if (norm && norm->kind == DF_STEP_NORM && !norm->call.silu) {
        norm->call.silu = true;
        p->producer[output] = p->producer[norm->output];
        norm->output = output;
        return;
    }
    df_plan_step *step = add_step(p, step_kinds[op->kind], input[0], output);
    memcpy(step->input, input, sizeof input);
    if (op->kind == DF_OP_TIME_EMBEDDING)
        step->input[0] = -1; /* the engine passes the time by itself */
    step->weight = op->weights[0];
    step->bias = op->weights[1];
    step->call.broadcast = broadcast;
    step->call.epsilon = op->epsilon;
    if (op->kind == DF_OP_CONCAT)
        step->call.channels = step->call.out_channels; /* of both; split stays that of the first */
    if (op->kind == DF_OP_CONV) {
        step->call.size = (int32_t)p->program->weights[op->weights[0]].shape[2];
        step->call.stride = op->attr;
        if (winograd_pays(&step->call, p->options))
            step->kind = DF_STEP_WINOGRAD;
    } else if (op->attr) {
        step->call.parts = op->attr;
    }
}

/* ---------------------------------------------------------------- fusion of whole steps, on the finished list */

static bool reads(const df_plan_step *step, int32_t value) {
    return step->input[0] == value || step->input[1] == value || step->input[2] == value || step->norm == value ||
           step->shift == value || step->residual == value;
}

/* Whether every step that reads a value is a `fits` one and reads it as its only input. */
typedef bool (*fitting)(const df_plan_step *step, const df_plan_options *options);
static bool all_readers(const planner *p, int32_t value, fitting fits) {
    const df_plan *plan = p->plan;
    for (int32_t i = 0; i < plan->step_count; i++) {
        const df_plan_step *step = &plan->steps[i];
        if (step->output != GONE && reads(step, value) &&
            (step->input[0] != value || step->input[1] >= 0 || step->shift == value || step->residual == value ||
             !fits(step, p->options)))
            return false;
    }
    return true;
}

static int count_readers(const df_plan *plan, int32_t value, df_plan_step **last) {
    int count = 0;
    for (int32_t i = 0; i < plan->step_count; i++)
        if (plan->steps[i].output != GONE && reads(&plan->steps[i], value)) {
            *last = &plan->steps[i];
            count++;
        }
    return count;
}

static bool is_pointwise(const df_plan_step *step) {
    return step->kind == DF_STEP_CONV && step->call.size == 1 && step->call.stride == 1;
}

static bool reads_two(const df_plan_step *step, const df_plan_options *options) {
    (void)options;
    return is_pointwise(step) || step->kind == DF_STEP_WINOGRAD || step->kind == DF_STEP_NORM ||
           step->kind == DF_STEP_STATISTICS;
}

static bool reads_normed(const df_plan_step *step, const df_plan_options *options) {
    (void)options;
    return step->kind == DF_STEP_WINOGRAD && step->norm < 0;
}

static bool reads_small(const df_plan_step *step, const df_plan_options *options) {
    const bool direct = step->kind == DF_STEP_CONV && step->call.size == 3 && step->call.stride == 1;
    return reads_normed(step, options) || (options->reads_upsampled && direct);
}

/* The readers of a concatenation read its two sides. */
static void fuse_concat(planner *p, df_plan_step *concat) {
    df_plan *plan = p->plan;
    if (concat->call.split % p->options->split_multiple != 0 || !all_readers(p, concat->output, reads_two))
        return;
    for (int32_t i = 0; i < plan->step_count; i++) {
        df_plan_step *step = &plan->steps[i];
        if (step->output == GONE || step->input[0] != concat->output)
            continue;
        step->input[0] = concat->input[0];
        step->input[1] = concat->input[1];
        step->call.split = concat->call.split;
    }
    concat->output = GONE;
}

/* The readers of an upsampled value read each pixel four times. */
static void fuse_upsample(planner *p, df_plan_step *upsample) {
    df_plan *plan = p->plan;
    if (!all_readers(p, upsample->output, reads_small))
        return;
    for (int32_t i = 0; i < plan->step_count; i++) {
        df_plan_step *step = &plan->steps[i];
        if (step->output == GONE || step->input[0] != upsample->output)
            continue;
        step->input[0] = upsample->input[0];
        step->call.height = upsample->call.height;
        step->call.width = upsample->call.width;
        step->call.upsample = true;
    }
    upsample->output = GONE;
}

/* A norm with one reader, a Winograd convolution, is applied as that reads: only its statistics are a step. */
static void fuse_norm(planner *p, df_plan_step *norm) {
    df_plan_step *reader = NULL;
    if (count_readers(p->plan, norm->output, &reader) != 1 || !all_readers(p, norm->output, reads_normed))
        return;
    reader->input[0] = norm->input[0];
    reader->norm = norm->output;
    reader->call.silu = norm->call.silu;
    norm->kind = DF_STEP_STATISTICS;
    norm->call.silu = false;
}

/* The projection that makes one of an attention's inputs and nothing else, from a value of the same width. */
static df_plan_step *projection(const df_plan *plan, int32_t value, int32_t channels) {
    df_plan_step *reader;
    if (count_readers(plan, value, &reader) != 1)
        return NULL;
    for (int32_t i = 0; i < plan->step_count; i++) {
        df_plan_step *step = &plan->steps[i];
        if (step->output == value)
            return is_pointwise(step) && step->shift < 0 && step->residual < 0 && step->call.channels == channels
                       ? step
                       : NULL;
    }
    return NULL;
}

/* Attention of one head over projections of one value: two projections instead of four (merge.c). They come to lie in
 * one value, the keys are the value itself, and attention does the last addition. */
static void merge_attention(planner *p, df_plan_step *attention) {
    const df_plan *plan = p->plan;
    const int32_t c = attention->call.channels;
    df_plan_step *out = NULL;
    if (attention->call.parts != 1 || attention->input[0] == attention->input[1] ||
        attention->input[1] == attention->input[2] || attention->input[0] == attention->input[2] ||
        count_readers(plan, attention->output, &out) != 1 || !is_pointwise(out) || out->input[0] != attention->output ||
        out->call.out_channels != c || out->shift >= 0 || out->residual == attention->output)
        return;
    df_plan_step *made[3];
    for (int j = 0; j < 3; j++) {
        made[j] = projection(plan, attention->input[j], c);
        if (!made[j] || made[j]->input[0] != made[0]->input[0])
            return;
    }
    df_plan_step *both = made[0];
    const int32_t x = both->input[0];
    both->attention = (df_attention_weights){{made[0]->weight, made[0]->bias},
                                             {made[1]->weight, made[1]->bias},
                                             {made[2]->weight, made[2]->bias},
                                             {out->weight, out->bias}};
    both->merged = true;
    both->call.out_channels = 2 * c;
    made[1]->output = made[2]->output = GONE;
    /* It moves down to the last projection's place, where everything that is to be added exists. */
    *out = (df_plan_step){.kind = DF_STEP_ATTENTION,
                          .input = {both->output, x, both->output},
                          .offset = {0, 0, c},
                          .norm = -1,
                          .shift = -1,
                          .residual = out->residual,
                          .output = out->output,
                          .weight = -1,
                          .bias = -1,
                          .call = attention->call};
    out->call.pitch[0] = out->call.pitch[2] = 2 * c;
    attention->output = GONE;
}

static void fuse_steps(planner *p) {
    static void (*const fuse[DF_STEP_KIND_COUNT])(planner *, df_plan_step *) = {
        [DF_STEP_ATTENTION] = merge_attention,
        [DF_STEP_NORM] = fuse_norm,
        [DF_STEP_CONCAT] = fuse_concat,
        [DF_STEP_UPSAMPLE] = fuse_upsample,
    };
    /* Norms before concatenations: a norm that is read as it is applied reads both sides itself. */
    static const df_step_kind order[] = {DF_STEP_ATTENTION, DF_STEP_NORM, DF_STEP_UPSAMPLE, DF_STEP_CONCAT};
    for (size_t k = 0; k < sizeof order / sizeof *order; k++)
        for (int32_t i = 0; i < p->plan->step_count; i++) {
            df_plan_step *step = &p->plan->steps[i];
            if (step->kind == order[k] && step->output >= 0)
                fuse[order[k]](p, step);
        }
}

static void drop_gone(df_plan *plan) {
    int32_t kept = 0;
    for (int32_t i = 0; i < plan->step_count; i++)
        if (plan->steps[i].output != GONE)
            plan->steps[kept++] = plan->steps[i];
    plan->step_count = kept;
}

/* ---------------------------------------------------------------- places */

static void touch(const df_plan_step *step, int32_t index, int32_t *last) {
    const int32_t values[] = {step->input[0], step->input[1], step->input[2], step->norm, step->shift, step->residual};
    for (size_t j = 0; j < sizeof values / sizeof *values; j++)
        if (values[j] >= 0)
            last[values[j]] = index;
}

/* First fit by lifetime: a value takes the lowest gap between those that are alive when its step runs (its step's
 * inputs among them). live: sorted by offset. */
static void place_values(df_plan *plan, const df_plan_options *options, const int32_t *last, int32_t *live) {
    int32_t count = 0;
    for (int32_t i = 0; i < plan->step_count - 1; i++) { /* the last step exports */
        int32_t kept = 0;
        for (int32_t j = 0; j < count; j++)
            if (last[live[j]] >= i)
                live[kept++] = live[j];
        count = kept;
        const int32_t value = plan->steps[i].output;
        df_place *place = &plan->places[value];
        place->size = df_round_up(options->room(&plan->steps[i], options), ALIGNMENT);
        int32_t at = 0;
        while (at < count && plan->places[live[at]].offset - place->offset < place->size) {
            place->offset = plan->places[live[at]].offset + plan->places[live[at]].size;
            at++;
        }
        memmove(live + at + 1, live + at, (size_t)(count++ - at) * sizeof *live);
        live[at] = value;
        if (place->offset + place->size > plan->arena)
            plan->arena = place->offset + place->size;
    }
}

df_code df_plan_create(const df_program *program, const df_shape *shapes, const df_plan_options *options, df_plan *plan,
                       df_error *error) {
    const int32_t values = program->op_count + FIRST;
    *plan = (df_plan){.value_count = values};
    /* At most one step for every operation, and import and export. */
    plan->steps = calloc((size_t)values, sizeof *plan->steps);
    plan->places = calloc((size_t)values, sizeof *plan->places);
    int32_t *memory = calloc((size_t)values * 4, sizeof *memory);
    if (!plan->steps || !plan->places || !memory) {
        free(memory);
        df_plan_clear(plan);
        return df_fail(error, DF_OUT_OF_MEMORY, "no memory to plan %d operations", program->op_count);
    }
    planner p = {program, shapes, plan, memory, memory + values, memory + 2 * (size_t)values, options};
    int32_t *spare = memory + 3 * (size_t)values;
    count_uses(&p, spare);
    memset(p.producer, -1, (size_t)values * sizeof *p.producer);
    add_step(&p, DF_STEP_IMPORT, 0, 0)->input[0] = -1; /* the caller's images */
    for (int32_t i = 0; i < program->op_count; i++)
        add_op(&p, i);
    const int32_t output = p.alias[values - 1];
    add_step(&p, DF_STEP_EXPORT, output, output)->output = -1;
    fuse_steps(&p);
    drop_gone(plan);
    int32_t *last = p.uses; /* done with */
    for (int32_t i = 0; i < plan->step_count; i++)
        touch(&plan->steps[i], i, last);
    place_values(plan, options, last, spare);
    free(memory);
    return DF_OK;
}

void df_plan_clear(df_plan *plan) {
    free(plan->steps);
    free(plan->places);
    *plan = (df_plan){0};
}
