/* Program -> steps, fused, with a place in one arena for every value that is left. */
#include "core/internal.h"

#include <stdlib.h>
#include <string.h>

enum { FIRST = 2, ALIGNMENT = 16 /* floats: a cache line */ };

typedef struct planner {
    const df_program *program;
    const df_shape *shapes;
    df_plan *plan;
    int32_t *alias;    /* value -> the value that stands for it */
    int32_t *uses;     /* of a value that stands for itself */
    int32_t *producer; /* value -> step, -1 where no step makes it */
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
                           .parts = 1};
    p->producer[output] = p->plan->step_count++;
    return step;
}

/* The step that makes a value which nobody else wants, if it is of this kind. */
static df_plan_step *sole(const planner *p, int32_t value, df_step_kind kind) {
    const int32_t producer = p->producer[value];
    if (producer < 0 || p->uses[value] != 1 || p->plan->steps[producer].kind != kind)
        return NULL;
    return &p->plan->steps[producer];
}

/* An addition becomes part of a convolution that makes one of its sides. The convolution moves down to the addition's
 * place, where the other side exists for sure. */
static bool fuse_add(planner *p, int32_t a, int32_t b, int32_t output, bool broadcast) {
    df_plan_step *conv = sole(p, a, DF_STEP_CONV);
    int32_t other = b;
    if (conv && (broadcast ? conv->shift >= 0 || conv->residual >= 0 : conv->residual >= 0))
        conv = NULL;
    if (!conv && !broadcast) {
        conv = sole(p, b, DF_STEP_CONV);
        other = a;
        if (conv && conv->residual >= 0)
            conv = NULL;
    }
    if (!conv)
        return false;
    df_plan_step *moved = add_step(p, DF_STEP_CONV, conv->input[0], output);
    const int32_t produced = conv->output;
    *moved = *conv;
    moved->output = output;
    *(broadcast ? &moved->shift : &moved->residual) = other;
    conv->output = -1; /* gone */
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
    df_plan_step *norm = op->kind == DF_OP_SILU ? sole(p, input[0], DF_STEP_NORM) : NULL;
    if (norm && !norm->call.silu) {
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
    if (op->kind == DF_OP_CONV) {
        step->call.size = (int32_t)p->program->weights[op->weights[0]].shape[2];
        step->call.stride = op->attr;
    } else if (op->attr) {
        step->call.parts = op->attr;
    }
}

static void drop_moved(df_plan *plan) {
    int32_t kept = 0;
    for (int32_t i = 0; i < plan->step_count; i++)
        if (plan->steps[i].output >= 0)
            plan->steps[kept++] = plan->steps[i];
    plan->step_count = kept;
}

static void touch(const df_plan_step *step, int32_t index, int32_t *last) {
    for (int j = 0; j < 3; j++)
        if (step->input[j] >= 0)
            last[step->input[j]] = index;
    if (step->shift >= 0)
        last[step->shift] = index;
    if (step->residual >= 0)
        last[step->residual] = index;
}

/* First fit by lifetime: a value takes the lowest gap between those that are alive when its step runs (its step's
 * inputs among them). live: sorted by offset. */
static void place_values(df_plan *plan, const df_shape *shapes, const int32_t *last, int32_t *live) {
    int32_t count = 0;
    for (int32_t i = 0; i < plan->step_count - 1; i++) { /* the last step exports */
        int32_t kept = 0;
        for (int32_t j = 0; j < count; j++)
            if (last[live[j]] >= i)
                live[kept++] = live[j];
        count = kept;
        const int32_t value = plan->steps[i].output;
        df_place *place = &plan->places[value];
        place->size = df_round_up(df_shape_values(shapes[value]), ALIGNMENT);
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

df_code df_plan_create(const df_program *program, const df_shape *shapes, df_plan *plan, df_error *error) {
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
    planner p = {program, shapes, plan, memory, memory + values, memory + 2 * (size_t)values};
    int32_t *spare = memory + 3 * (size_t)values;
    count_uses(&p, spare);
    memset(p.producer, -1, (size_t)values * sizeof *p.producer);
    add_step(&p, DF_STEP_IMPORT, 0, 0)->input[0] = -1; /* the caller's images */
    for (int32_t i = 0; i < program->op_count; i++)
        add_op(&p, i);
    drop_moved(plan);
    const int32_t output = p.alias[values - 1];
    add_step(&p, DF_STEP_EXPORT, output, output)->output = -1;
    int32_t *last = p.uses; /* done with */
    for (int32_t i = 0; i < plan->step_count; i++)
        touch(&plan->steps[i], i, last);
    place_values(plan, shapes, last, spare);
    free(memory);
    return DF_OK;
}

void df_plan_clear(df_plan *plan) {
    free(plan->steps);
    free(plan->places);
    *plan = (df_plan){0};
}
