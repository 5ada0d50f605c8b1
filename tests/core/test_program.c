/* What the core refuses, and that nothing makes it fall over. */
#include "check.h"
#include "core/internal.h"
#include "network.h"

static bool refused(network *net, const char *words) {
    df_model *model = NULL;
    const df_code code = df_model_create(&net->program, &(df_options){.isa = "reference"}, &model, &net->error);
    const bool right =
        code == DF_INVALID && !model && net->error.code == DF_INVALID && strstr(net->error.message, words);
    if (!right)
        fprintf(stderr, "code %d, message: %s\n", code, code ? net->error.message : "none");
    df_model_release(model);
    return right;
}

/* One change to a good program and the words its message must have. */
#define REFUSED(words, ...)                                                                                            \
    do {                                                                                                               \
        network *net = network_unet();                                                                                 \
        __VA_ARGS__;                                                                                                   \
        CHECK(refused(net, words), "%s", words);                                                                       \
        network_destroy(net);                                                                                          \
    } while (0)

static int32_t find(const network *net, df_op_kind kind) {
    int32_t i = 0;
    while (net->ops[i].kind != (int32_t)kind)
        i++;
    return i;
}

static df_op *op_of(network *net, df_op_kind kind) {
    return &net->ops[find(net, kind)];
}
static df_weight *weight_of(network *net, df_op_kind kind, int slot) {
    return &net->weights[op_of(net, kind)->weights[slot]];
}

static void test_refusals(void) {
    REFUSED("at least one operation", net->program.op_count = 0);
    REFUSED("at least one operation", net->program.op_count = -5);
    REFUSED("at least one operation", net->program.ops = NULL);
    REFUSED("weight_count", net->program.weight_count = -1);
    REFUSED("weight_count", net->program.weights = NULL);
    REFUSED("channels, height and width", net->program.channels = 0);
    REFUSED("channels, height and width", net->program.height = -1);
    REFUSED("channels, height and width", net->program.width = INT32_MAX, net->program.height = INT32_MAX);
    REFUSED("operation 2 (silu): input 0", net->ops[2].inputs[0] = 4);
    REFUSED("operation 2 (silu): input 0", net->ops[2].inputs[0] = INT32_MAX);
    REFUSED("operation 2 (silu): input 0", net->ops[2].inputs[0] = -1);
    REFUSED("input 1 is not used", net->ops[2].inputs[1] = 0);
    REFUSED("kind must be in 0..8, got 9", net->ops[2].kind = DF_OP_KIND_COUNT);
    REFUSED("kind must be in 0..8, got -1", net->ops[2].kind = -1);
    REFUSED("attr is not used", net->ops[2].attr = 1);
    REFUSED("epsilon is not used", net->ops[2].epsilon = 1e-5F);
    REFUSED("weight 0 is not used", net->ops[2].weights[0] = 0);
    REFUSED("time step (value 1)", net->ops[2].inputs[0] = 1);
    REFUSED("time step (value 1)", net->ops[0].inputs[0] = 0);
    REFUSED("(conv): weight 0 is missing", op_of(net, DF_OP_CONV)->weights[0] = -1);
    REFUSED("(conv): weight 1 must be in", op_of(net, DF_OP_CONV)->weights[1] = NETWORK_ROOM);
    REFUSED("(conv): weight 0 must be in", op_of(net, DF_OP_CONV)->weights[0] = -7);
    REFUSED("(conv): stride", op_of(net, DF_OP_CONV)->attr = 0);
    REFUSED("(conv): stride", op_of(net, DF_OP_CONV)->attr = 3);
    REFUSED("expected [n, 3, s, s]", weight_of(net, DF_OP_CONV, 0)->shape[1] = 4);
    REFUSED("kernel, expected 1 x 1 or 3 x 3", weight_of(net, DF_OP_CONV, 0)->shape[2] = 2);
    REFUSED("kernel, expected 1 x 1 or 3 x 3", weight_of(net, DF_OP_CONV, 0)->shape[3] = 1);
    REFUSED("has shape [12], expected [n, 3, s, s]",
            op_of(net, DF_OP_CONV)->weights[0] = op_of(net, DF_OP_CONV)->weights[1]);
    REFUSED("'weight.6' has shape [11], expected [12]", weight_of(net, DF_OP_CONV, 1)->shape[0] = 11);
    REFUSED("(linear): weight 'weight.1' has shape [20, 13], expected [n, 12]",
            weight_of(net, DF_OP_LINEAR, 0)->shape[1] = 13);
    REFUSED("(linear): weight 'weight.2' has shape [20, 1]", weight_of(net, DF_OP_LINEAR, 1)->rank = 2,
            weight_of(net, DF_OP_LINEAR, 1)->shape[1] = 1);
    REFUSED("(linear): input 0 must be a vector", op_of(net, DF_OP_LINEAR)->inputs[0] = 0);
    REFUSED("groups (attr) must divide", op_of(net, DF_OP_GROUP_NORM)->attr = 5);
    REFUSED("groups (attr) must divide", op_of(net, DF_OP_GROUP_NORM)->attr = 0);
    REFUSED("groups (attr) must divide", op_of(net, DF_OP_GROUP_NORM)->attr = -2);
    REFUSED("epsilon must be finite and above 0, got 0", op_of(net, DF_OP_GROUP_NORM)->epsilon = 0);
    REFUSED("epsilon must be finite", op_of(net, DF_OP_GROUP_NORM)->epsilon = NAN);
    REFUSED("epsilon must be finite", op_of(net, DF_OP_GROUP_NORM)->epsilon = INFINITY);
    REFUSED("(group norm): weight 1 is missing", op_of(net, DF_OP_GROUP_NORM)->weights[1] = -1);
    REFUSED("heads (attr) must divide", op_of(net, DF_OP_ATTENTION)->attr = 3);
    REFUSED("heads (attr) must divide", op_of(net, DF_OP_ATTENTION)->attr = 0);
    REFUSED("(attention): input 2 has shape (3, 12, 10), expected that of input 0",
            op_of(net, DF_OP_ATTENTION)->inputs[2] = 0);
    REFUSED("(add): input 1 has shape (3, 12, 10), expected that of input 0, (12, 12, 10)",
            op_of(net, DF_OP_ADD)->inputs[1] = 0);
    REFUSED("(concat): input 1 has shape",
            op_of(net, DF_OP_CONCAT)->inputs[1] = op_of(net, DF_OP_ATTENTION)->inputs[0]);
    REFUSED("weight 'weight.0': dimension 1 must be in", net->weights[0].shape[1] = 0);
    REFUSED("weight 'weight.0': dimension 0 must be in", net->weights[0].shape[0] = -3);
    REFUSED("weight 'weight.0': dimension 0 must be in", net->weights[0].shape[0] = INT64_MAX);
    REFUSED("more values than memory", for (int i = 0; i < 4; i++) weight_of(net, DF_OP_CONV, 0)->shape[i] = INT32_MAX);
    REFUSED("1 to 4 dimensions, got 5", net->weights[0].rank = 5);
    REFUSED("1 to 4 dimensions, got 0", net->weights[0].rank = 0);
    REFUSED("has no name", net->weights[0].name = NULL);
    REFUSED("'weight.0' has no data", net->weights[0].data = NULL);
    REFUSED("'weight.3' must be finite, got nan at position 2", net->data[3][2] = NAN);
    REFUSED("'weight.3' must be finite, got -inf at position 0", net->data[3][0] = -INFINITY);
    REFUSED("is not used by any operation", network_weight(net, 1, (int64_t[]){4}, 1, 0));
    REFUSED("(silu): its value", const int32_t last = net->program.op_count++; net->ops[last] = net->ops[last - 1];
            net->ops[last - 1] = net->ops[2]);
    REFUSED("the output has shape (12, 12, 10), expected the image's, (3, 12, 10)",
            add_conv(net, net->program.op_count + 1, 3, 12, 1, 1));
    REFUSED("expected [50, c]", net->weights[network_weight(net, 2, (int64_t[]){51, 12}, 1, 0)].rank = 2;
            net->ops[net->program.op_count] = net->ops[0];
            network_op(net, (df_op){DF_OP_TIME_EMBEDDING, {1, -1, -1}, {net->program.weight_count - 1, -1}, 0, 0}));
    df_error error;
    df_model *model;
    CHECK(df_model_create(NULL, &(df_options){0}, &model, &error) == DF_INVALID, "no program");
}

static void test_size_overflow(void) {
    network *net = network_create(1, 1, 1);
    int32_t value = 0;
    for (int i = 0; i < 40; i++)
        value = add_plain(net, i & 1 ? DF_OP_UPSAMPLE : DF_OP_CONCAT, value, i & 1 ? -1 : value);
    CHECK(refused(net, "more than 2147483647 values"), "doubling");
    network_destroy(net);
}

static void test_image_must_be_used(void) {
    network *net = network_create(4, 1, 1);
    const int32_t table = network_weight(net, 2, (int64_t[]){3, 4}, 1, 0);
    network_op(net, (df_op){DF_OP_TIME_EMBEDDING, {1, -1, -1}, {table, -1}, 0, 0});
    CHECK(refused(net, "image (value 0) is not used"), "image");
    network_destroy(net);
}

static void test_isa_names(void) {
    df_error error;
    int32_t index = -1;
    CHECK(df_isa_count() == 6 && !df_isa_name(-1) && !df_isa_name(6), "names");
    CHECK(df_isa_supported(0, DF_FP32) && df_isa_supported(1, DF_FP32), "supported");
    CHECK(!df_isa_supported(-1, DF_FP32) && !df_isa_supported(6, DF_FP32), "supported");
    for (int32_t i = 0; i < df_isa_count(); i++) {
        const df_code code = df_isa_resolve(df_isa_name(i), DF_FP32, &index, &error);
        CHECK(code == (df_isa_supported(i, DF_FP32) ? DF_OK : DF_UNSUPPORTED), "%s", df_isa_name(i));
        CHECK(code || index == i, "%s", df_isa_name(i));
    }
    CHECK(df_isa_resolve("sse9", DF_FP32, &index, &error) == DF_INVALID && strstr(error.message, "sse9"), "unknown");
    unsetenv("DIFFENCE_ISA");
    CHECK(!df_isa_resolve(NULL, DF_FP32, &index, &error) && index >= 1, "default");
    for (int32_t i = index + 1; i < df_isa_count(); i++)
        CHECK(!df_isa_supported(i, DF_FP32), "the fastest is the default");
    setenv("DIFFENCE_ISA", "reference", 1);
    CHECK(!df_isa_resolve(NULL, DF_FP32, &index, &error) && index == 0, "from the environment");
    CHECK(!df_isa_resolve("portable", DF_FP32, &index, &error) && index == 1, "an argument goes first");
    setenv("DIFFENCE_ISA", "avx", 1);
    CHECK(df_isa_resolve(NULL, DF_FP32, &index, &error) == DF_INVALID && strstr(error.message, "DIFFENCE_ISA"),
          "malformed");
    setenv("DIFFENCE_ISA", "", 1);
    CHECK(df_isa_resolve(NULL, DF_FP32, &index, &error) == DF_INVALID, "empty");
    unsetenv("DIFFENCE_ISA");
}

/* Values that come near a bound, among them ones that are right somewhere else in the program. */
static int32_t odd_number(const network *net) {
    static const int32_t extremes[] = {-1, 0, 1, 2, 3, -2, 9, INT32_MAX, INT32_MIN, INT32_MAX - 1};
    return random_bits() % 3 ? (int32_t)(random_bits() % (uint32_t)(net->program.op_count + 3))
                             : extremes[random_bits() % (sizeof extremes / sizeof *extremes)];
}

static void mutate(network *net) {
    df_op *op = &net->ops[random_bits() % (uint32_t)net->program.op_count];
    df_weight *weight = &net->weights[random_bits() % (uint32_t)net->program.weight_count];
    const uint32_t i = random_bits();
    int64_t *dimension;
    switch (random_bits() % 13) {
    case 0:
        op->kind = (int32_t)(random_bits() % DF_OP_KIND_COUNT);
        break;
    case 1:
    case 2:
    case 3:
        op->inputs[i % 3] = odd_number(net);
        break;
    case 4:
        op->weights[i % 2] = odd_number(net);
        break;
    case 5:
        op->attr = odd_number(net);
        break;
    case 6:
        op->epsilon = random_bits() & 1 ? 0 : random_float();
        break;
    case 7:
        weight->rank = odd_number(net);
        break;
    case 8:
        dimension = &weight->shape[i % 4];
        *dimension = odd_number(net);
        if (random_bits() % 4 == 0)
            *dimension *= INT64_C(1) << 31;
        break;
    case 9:
        *op = net->ops[random_bits() % (uint32_t)net->program.op_count];
        break;
    case 10:
        net->program.op_count -= net->program.op_count > 1;
        break;
    case 11:
        net->program.height = 1 + (int32_t)(random_bits() % 16);
        break;
    default:
        net->program.width = 1 + (int32_t)(random_bits() % 16);
    }
}

/* Whether the weights' shapes still fit the memory behind them, which the core cannot know. */
static bool data_holds(const network *net, const int64_t *values) {
    for (int32_t i = 0; i < net->program.weight_count; i++)
        if (df_weight_values(&net->weights[i]) > values[i])
            return false;
    return true;
}

/* A program that passes must also run, fused and planned, as it does operation by operation. */
static void run_mutant(const network *net) {
    const df_program *program = &net->program;
    enum { MOST = 1 << 14, IMAGES = 2 };
    const int64_t values = (int64_t)program->channels * program->height * program->width;
    if (values > MOST)
        return;
    df_error error;
    df_model *model = NULL;
    df_engine *engine = NULL;
    float *x = malloc((size_t)(2 * IMAGES * values) * sizeof *x), *eps = x + IMAGES * values;
    double *expected = malloc((size_t)values * sizeof *expected);
    fill_random(x, IMAGES * values, 1);
    const char *const isa = random_bits() & 1 ? "portable" : "reference";
    CHECK(!df_model_create(program, &(df_options){.isa = isa}, &model, &error), "%s", error.message);
    if (model && !df_engine_create(model, IMAGES, 1, &engine, &error)) {
        const int32_t t[IMAGES] = {0, df_model_time_steps(model) > 7 ? 7 : 0};
        CHECK(!df_engine_predict(engine, IMAGES, x, t, eps, NULL, &error), "%s", error.message);
        plain_run(program, x + values, t[1], expected);
        CHECK(relative_error(eps + values, expected, values) < 1e-5, "a mutant of error %g",
              relative_error(eps + values, expected, values));
    }
    df_engine_destroy(engine);
    df_model_release(model);
    free(x);
    free(expected);
}

static void test_fuzz(void) {
    network *net = network_unet();
    const network original = *net;
    int64_t values[NETWORK_ROOM];
    for (int32_t i = 0; i < net->program.weight_count; i++)
        values[i] = df_weight_values(&net->weights[i]);
    int passed = 0;
    for (uint64_t seed = 1; seed <= 6000; seed++) {
        *net = original;
        random_state = seed * 0x9e3779b97f4a7c15U;
        for (uint32_t i = 0, count = 1 + random_bits() % 3; i < count; i++)
            mutate(net);
        df_shape shapes[NETWORK_ROOM + 2];
        int32_t steps = 0;
        df_error error = {0};
        const df_code code = df_program_check(&net->program, shapes, &steps, &error);
        CHECK(code == DF_OK || (code == DF_INVALID && error.message[0]), "seed %llu", (unsigned long long)seed);
        if (code == DF_OK && data_holds(net, values)) {
            passed++;
            run_mutant(net);
        }
    }
    CHECK(passed > 300, "only %d mutants were valid: the fuzzing does not reach the planner", passed);
    *net = original;
    network_destroy(net);
}

int main(void) {
    test_refusals();
    test_size_overflow();
    test_image_must_be_used();
    test_isa_names();
    test_fuzz();
    return check_report("program");
}
