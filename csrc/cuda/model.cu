/* A program, checked, planned and packed for a GPU. */
#include "engine.h"

#include <cmath>
#include <cstring>
#include <memory>
#include <new>

df_code check(cudaError_t status, const char *what, df_error *error) {
    if (status == cudaSuccess)
        return DF_OK;
    cudaGetLastError(); /* it has been seen */
    const df_code code = status == cudaErrorMemoryAllocation ? DF_OUT_OF_MEMORY : DF_SYSTEM;
    return df_fail(error, code, "%s: CUDA reports %s (%s)", what, cudaGetErrorName(status), cudaGetErrorString(status));
}

df_code df_cuda_device_count(int32_t *count, df_error *error) {
    *count = 0;
    int devices = 0;
    const cudaError_t status = cudaGetDeviceCount(&devices);
    if (status != cudaSuccess) {
        cudaGetLastError();
        return df_fail(error, DF_UNSUPPORTED, "no GPU: CUDA reports %s (%s)", cudaGetErrorName(status),
                       cudaGetErrorString(status));
    }
    for (int device = 0; device < devices; device++) {
        int major = 0;
        cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
        *count += major >= 8;
    }
    return *count ? DF_OK : df_fail(error, DF_UNSUPPORTED, "no GPU of compute capability 8.0 or newer");
}

namespace {

/* ---------------------------------------------------------------- 16-bit numbers, on the host */

/* To the nearest, ties to even; the number is finite. */
uint16_t to_bf16(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}

/* The same; what is too large becomes infinite. Scaled by a power of two, a number's last digit that fp16 holds is a whole
 * number, which nearbyint rounds. */
uint16_t to_fp16(float x) {
    const uint16_t sign = std::signbit(x) ? 0x8000 : 0;
    const float size = std::fabs(x);
    if (size == 0)
        return sign;
    int exponent;
    std::frexp(size, &exponent); /* size in [2^(exponent - 1), 2^exponent) */
    const int last = (exponent - 11 > -24) ? exponent - 11 : -24;
    const int32_t digits = (int32_t)std::nearbyint(std::ldexp(size, -last)); /* up to 2048, which carries */
    if (last == -24)
        return (uint16_t)(sign | digits); /* subnormal, or the smallest exponent: the carry runs into it */
    const int32_t bits = ((last + 25) << 10) + (digits - 1024);
    return (uint16_t)(sign | (bits >= 0x7c00 ? 0x7c00 : bits));
}

void put(unsigned char *to, int64_t index, float value, df_cuda_precision precision) {
    if (precision == DF_CUDA_FP32) {
        memcpy(to + 4 * index, &value, 4);
        return;
    }
    const uint16_t bits = precision == DF_CUDA_BF16 ? to_bf16(value) : to_fp16(value);
    memcpy(to + 2 * index, &bits, 2);
}

/* ---------------------------------------------------------------- which kernel takes which step */

df_cuda_precision precision_of(const df_cuda_model *model, const cuda_step &step) {
    return step.of_time ? DF_CUDA_FP32 : model->precision;
}

/* Tensor cores wherever a tile is not mostly empty: not for vectors, nor for as few channels as an image has. */
kernel_choice choose(const df_cuda_model *model, const cuda_step &step) {
    const df_call &call = step.plan.call;
    const bool half = precision_of(model, step) != DF_CUDA_FP32;
    if (step.plan.kind == DF_STEP_CONV) {
        const bool fills = call.out_channels > CHANNELS && call.out_height * call.out_width >= 4 &&
                           call.height < 16384 && call.width < 16384;
        return half && fills ? CONV_TILED : CONV_PLAIN;
    }
    if (step.plan.kind == DF_STEP_ATTENTION)
        return half && attention_fits_tiles(call.channels, call.parts) ? ATTENTION_TILED : ATTENTION_PLAIN;
    return MOVE;
}

/* Units of a step's output of one image: the value, and its partials, for which the smaller tile has more segments. */
template <int BYTES> int64_t room(const df_plan_step *step, const df_plan_options *) {
    const df_call *call = &step->call;
    const int64_t pixels = (int64_t)call->out_height * call->out_width, pitch = pitch_for(call->out_channels);
    int64_t segments = segments_of(pixels, QUERIES); /* no fewer than TILE's */
    if (call->upsample && segments < conv_segments(pixels, true))
        segments = conv_segments(pixels, true);
    return pixels * pitch + (BYTES == 2 ? segments * 2 * pitch * 4 / BYTES : 0);
}

/* ---------------------------------------------------------------- the steps */

/* The values that a step reads; -1 where there is none. */
void inputs_of(const df_plan_step &step, int32_t out[5]) {
    out[0] = step.input[0];
    out[1] = step.input[1];
    out[2] = step.input[2];
    out[3] = step.shift;
    out[4] = step.residual;
}

bool is_of_time(const df_cuda_model *model, const df_plan_step &step) {
    if (step.kind == DF_STEP_TIME)
        return true;
    int32_t inputs[5];
    inputs_of(step, inputs);
    bool any = false;
    for (int32_t value : inputs) {
        if (value >= 0 && model->table[(size_t)value] < 0)
            return false;
        any = any || value >= 0;
    }
    return any && step.output >= 0;
}

int readers_of(const df_cuda_model *model, int32_t value) {
    int count = 0;
    for (const cuda_step &step : model->steps) {
        int32_t inputs[5];
        inputs_of(step.plan, inputs);
        for (int32_t input : inputs)
            count += input == value;
    }
    return count;
}

/* A value of time that a step reads otherwise than as the shift of a convolution. */
void note_gather(df_cuda_model *model, int32_t value) {
    for (const gathered &gather : model->gathers)
        if (gather.value == value)
            return;
    model->gathers.push_back({value, (size_t)model->units});
    const df_shape shape = model->shapes[(size_t)value];
    const int64_t pixels = (int64_t)shape.height * shape.width, partials = 2 * segments_of(pixels, TILE);
    const int64_t of_a_float = (int64_t)(4 / bytes_of(model->precision));
    model->units += df_round_up(pitch_for(shape.channels) * (pixels + partials * of_a_float), 16);
}

void lower(df_cuda_model *model) {
    int64_t tables = 0;
    model->units = model->plan.arena;
    model->table.assign((size_t)model->plan.value_count, -1);
    model->segments.assign((size_t)model->plan.value_count, 0);
    model->shapes.assign((size_t)model->plan.value_count, df_shape{0, 0, 0});
    for (int32_t i = 0; i < model->plan.step_count; i++) {
        cuda_step step = {};
        step.plan = model->plan.steps[i];
        step.of_time = is_of_time(model, step.plan);
        step.kernel = choose(model, step);
        const df_call &call = step.plan.call;
        const int32_t output = step.plan.output;
        if (output >= 0) {
            const int64_t pixels = (int64_t)call.out_height * call.out_width;
            model->shapes[(size_t)output] = {call.out_channels, call.out_height, call.out_width};
            model->segments[(size_t)output] = step.kernel == ATTENTION_TILED ? segments_of(pixels, QUERIES)
                                              : step.kernel == CONV_TILED    ? conv_segments(pixels, call.upsample)
                                                                             : segments_of(pixels, TILE);
            model->pixels = pixels > model->pixels ? pixels : model->pixels;
            if (step.of_time) {
                model->table[(size_t)output] = tables;
                tables += model->time_steps * pixels * pitch_for(call.out_channels);
            }
        }
        if (!step.of_time) {
            int32_t inputs[5];
            inputs_of(step.plan, inputs);
            for (int j = 0; j < 5; j++)
                if (inputs[j] >= 0 && model->table[(size_t)inputs[j]] >= 0 && j != 3)
                    note_gather(model, inputs[j]);
        }
        model->steps.push_back(step);
    }
    model->table_bytes = (size_t)tables * sizeof(float);
    for (cuda_step &norm : model->steps)
        if (norm.plan.kind == DF_STEP_NORM && !norm.of_time && model->precision != DF_CUDA_FP32)
            for (cuda_step &step : model->steps)
                if (step.plan.output >= 0 &&
                    (step.plan.output == norm.plan.input[0] || step.plan.output == norm.plan.input[1])) {
                    step.partials = true;
                    step.separate = step.kernel != CONV_TILED && step.kernel != ATTENTION_TILED;
                }
    /* The last convolution writes what EXPORT would. */
    const size_t count = model->steps.size();
    const int32_t last = model->steps[count - 1].plan.input[0];
    for (size_t i = 0; i + 1 < count; i++) {
        cuda_step &step = model->steps[i];
        if (step.plan.output == last && step.kernel == CONV_PLAIN && !step.of_time && readers_of(model, last) == 1 &&
            step.plan.residual < 0 && step.plan.shift < 0) {
            step.kernel = CONV_PLANAR;
            model->steps.pop_back();
            break;
        }
    }
}

/* ---------------------------------------------------------------- weights */

bool has_weights(const cuda_step &step) {
    return (step.plan.weight >= 0 || step.plan.merged) && step.plan.kind != DF_STEP_TIME;
}

int32_t input_pitch(const df_call &call) {
    return call.split < call.channels ? call.split + pitch_for(call.channels - call.split) : pitch_for(call.channels);
}

/* Places of all weights, 16-byte words each; the bytes of all. */
size_t lay_out(df_cuda_model *model) {
    size_t bytes = 0;
    for (cuda_step &step : model->steps) {
        if (!has_weights(step))
            continue;
        const df_call &call = step.plan.call;
        size_t weight = (size_t)call.channels * 4, bias = (size_t)call.channels * 4;
        if (step.plan.kind == DF_STEP_CONV) {
            const bool phases = step.kernel == CONV_TILED && call.upsample; /* 4 of 2 x 2 */
            const size_t taps = phases ? 16 : (size_t)call.size * (size_t)call.size;
            const size_t depth = taps * (size_t)input_pitch(call);
            const size_t rows = (size_t)(step.kernel == CONV_TILED ? weight_rows(call) : pitch_for(call.out_channels));
            weight = depth * rows * bytes_of(precision_of(model, step));
            bias = (size_t)pitch_for(call.out_channels) * 4;
        }
        step.weight = bytes;
        bytes += (size_t)df_round_up((int64_t)weight, 256);
        step.bias = bytes;
        bytes += (size_t)df_round_up((int64_t)bias, 256);
    }
    return bytes;
}

/* 2 x 2 weights of a phase, from 3 x 3: what reads the same stored pixel is added up. In phase 0 the first of three lines
 * lies on the stored line before, and the other two on the next; in phase 1 the first two, and the last. */
float phase_weight(const float *nine, int phase, int tap) {
    const int down = phase / 2, right = phase % 2;
    double sum = 0;
    for (int y = 0; y < 3; y++)
        for (int x = 0; x < 3; x++)
            if ((y + 1 - down) / 2 == tap / 2 && (x + 1 - right) / 2 == tap % 2)
                sum += (double)nine[3 * y + x];
    return (float)sum;
}

/* weight: [out][in][size][size] */
void pack_conv(const df_cuda_model *model, const cuda_step &step, const float *weight, unsigned char *to) {
    const df_call &call = step.plan.call;
    const df_cuda_precision precision = precision_of(model, step);
    const bool four = step.kernel == CONV_TILED && call.upsample;
    const int64_t nine = (int64_t)call.size * call.size, taps = four ? 4 : nine, pitch = input_pitch(call);
    const int64_t block = pitch % DEPTH ? pitch : (int64_t)DEPTH, out_pitch = pitch_for(call.out_channels);
    for (int phase = 0; phase < (four ? 4 : 1); phase++)
        for (int64_t out = 0; out < call.out_channels; out++)
            for (int64_t c = 0; c < call.channels; c++)
                for (int64_t tap = 0; tap < taps; tap++) {
                    const int64_t row = phase * (int64_t)weight_rows(call) + out;
                    const int64_t at = step.kernel == CONV_TILED
                                           ? row * taps * pitch + (c / block * taps + tap) * block + c % block
                                           : (tap * pitch + c) * out_pitch + out;
                    const float *given = weight + (out * call.channels + c) * nine;
                    put(to, at, four ? phase_weight(given, phase, (int)tap) : given[tap], precision);
                }
}

void pack(const df_cuda_model *model, const df_program *program, unsigned char *weights) {
    for (const cuda_step &step : model->steps) {
        if (!has_weights(step))
            continue;
        const df_call &call = step.plan.call;
        float *bias = (float *)(weights + step.bias);
        if (step.plan.merged) {
            const int64_t c = call.channels;
            std::vector<float> merged((size_t)(2 * c * c));
            df_merge_attention(program, &step.plan.attention, c, merged.data(), bias);
            pack_conv(model, step, merged.data(), weights + step.weight);
            continue;
        }
        const float *weight = program->weights[step.plan.weight].data;
        if (step.plan.kind == DF_STEP_CONV)
            pack_conv(model, step, weight, weights + step.weight);
        else
            memcpy(weights + step.weight, weight, (size_t)call.channels * 4);
        if (step.plan.bias >= 0)
            memcpy(bias, program->weights[step.plan.bias].data,
                   (size_t)(step.plan.kind == DF_STEP_CONV ? call.out_channels : call.channels) * 4);
    }
}

/* fp16 holds no more than 65504; bf16 what float holds. */
df_code check_range(const df_program *program, df_cuda_precision precision, df_error *error) {
    for (int32_t i = 0; i < program->weight_count && precision == DF_CUDA_FP16; i++)
        for (int64_t j = 0; j < df_weight_values(&program->weights[i]); j++)
            if (!(std::fabs(program->weights[i].data[j]) < 65504))
                return df_fail(error, DF_INVALID, "weight '%.80s' holds %g, which is too large for fp16; use bf16",
                               program->weights[i].name, (double)program->weights[i].data[j]);
    return DF_OK;
}

df_code upload(df_cuda_model *model, const df_program *program, df_error *error) {
    std::vector<unsigned char> packed(model->weight_bytes, 0);
    pack(model, program, packed.data());
    df_code code = check(cudaMalloc((void **)&model->weights, model->weight_bytes + 256), "weights", error);
    if (!code)
        code = check(cudaMemcpy(model->weights, packed.data(), model->weight_bytes, cudaMemcpyHostToDevice), "weights",
                     error);
    if (!code)
        code = check(cudaMalloc((void **)&model->tables, model->table_bytes + 256), "tables of the time steps", error);
    return code;
}

/* Everything that depends on the time step only, for all of them. */
df_code make_tables(const df_cuda_model *model, const df_program *program, df_error *error) {
    df_code code = DF_OK;
    for (const cuda_step &step : model->steps) {
        if (!step.of_time || code)
            continue;
        if (step.plan.kind != DF_STEP_TIME) {
            code = check(run_time_step(model, step), "tables of the time steps", error);
            continue;
        }
        const df_weight &weight = program->weights[step.plan.weight];
        const size_t channels = (size_t)step.plan.call.out_channels, pitch = (size_t)pitch_for((int32_t)channels);
        std::vector<float> rows((size_t)model->time_steps * pitch, 0.0f);
        for (size_t t = 0; t < (size_t)model->time_steps; t++)
            memcpy(&rows[t * pitch], weight.data + t * channels, channels * 4);
        code = check(cudaMemcpy(model->tables + model->table[(size_t)step.plan.output], rows.data(), rows.size() * 4,
                                cudaMemcpyHostToDevice),
                     "tables of the time steps", error);
    }
    return code ? code : check(cudaStreamSynchronize(nullptr), "tables of the time steps", error);
}

df_code build(df_cuda_model *model, const df_program *program, df_error *error) {
    std::vector<df_shape> shapes(program->op_count > 0 ? (size_t)program->op_count + 2 : 2);
    df_code code = df_program_check(program, shapes.data(), &model->time_steps, error);
    if (!code)
        code = df_program_check_finite(program, error);
    if (!code)
        code = check_range(program, model->precision, error);
    df_plan_options options = {};
    options.reads_upsampled = true;
    options.split_multiple = CHANNELS;
    options.room = model->precision == DF_CUDA_FP32 ? room<4> : room<2>;
    if (!code)
        code = df_plan_create(program, shapes.data(), &options, &model->plan, error);
    if (code)
        return code;
    model->shape = shapes[0];
    lower(model);
    model->weight_bytes = lay_out(model);
    const device_scope scope(model->device);
    int major = 0;
    code = check(scope.status, "device", error);
    if (!code)
        code = check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, model->device), "device", error);
    if (!code && major < 8)
        code = df_fail(error, DF_UNSUPPORTED, "GPU %d has compute capability %d, expected 8.0 or newer", model->device,
                       major);
    model->hopper = model->hopper && has_hopper_kernels(major);
    if (!code)
        code = upload(model, program, error);
    if (!code)
        code = make_tables(model, program, error);
    return code;
}

} // namespace

df_code df_cuda_model_create(const df_program *program, const df_cuda_options *options, df_cuda_model **model,
                             df_error *error) {
    *model = nullptr;
    if (!program || !options || options->precision < 0 || options->precision >= DF_CUDA_PRECISION_COUNT)
        return df_fail(error, DF_INVALID,
                       "program and options must not be NULL, and precision one of df_cuda_precision");
    df_cuda_model *made = new (std::nothrow) df_cuda_model;
    if (!made)
        return df_fail(error, DF_OUT_OF_MEMORY, "no memory for a model");
    made->device = options->device;
    made->precision = options->precision;
    made->hopper = options->hopper;
    df_code code;
    try {
        code = build(made, program, error);
    } catch (const std::bad_alloc &) {
        code = df_fail(error, DF_OUT_OF_MEMORY, "no memory to pack the weights");
    }
    if (code)
        df_cuda_model_release(made);
    else
        *model = made;
    return code;
}

void df_cuda_model_retain(df_cuda_model *model) {
    model->references.fetch_add(1, std::memory_order_relaxed);
}

void df_cuda_model_release(df_cuda_model *model) {
    if (!model || model->references.fetch_sub(1, std::memory_order_acq_rel) != 1)
        return;
    {
        const device_scope scope(model->device);
        cudaFree(model->weights);
        cudaFree(model->tables);
    }
    df_plan_clear(&model->plan);
    delete model;
}

int32_t df_cuda_model_device(const df_cuda_model *model) {
    return model->device;
}
df_cuda_precision df_cuda_model_precision(const df_cuda_model *model) {
    return model->precision;
}
bool df_cuda_model_hopper(const df_cuda_model *model) {
    return model->hopper;
}
int32_t df_cuda_model_time_steps(const df_cuda_model *model) {
    return model->time_steps;
}
void df_cuda_model_shape(const df_cuda_model *model, int32_t *channels, int32_t *height, int32_t *width) {
    *channels = model->shape.channels;
    *height = model->shape.height;
    *width = model->shape.width;
}
