/* From a step of the plan to the launch of its kernel. */
#include "engine.h"

namespace {

/* Where the values of a run lie; `tables`: floats, those that depend on time only, all time steps as if they were images. */
template <typename T> struct places {
    const df_cuda_model &model;
    const run_context &run;
    bool tables;

    T *at(int32_t value) const {
        if (value < 0)
            return nullptr;
        if (tables)
            return (T *)(model.tables + model.table[(size_t)value]);
        if (model.table[(size_t)value] >= 0)
            for (const gathered &gather : model.gathers)
                if (gather.value == value)
                    return (T *)run.arena + (int64_t)gather.offset * run.batch;
        return (T *)run.arena + model.plan.places[value].offset * run.batch;
    }
    int32_t pitch(int32_t value) const { return pitch_for(model.shapes[(size_t)value].channels); }
    int32_t pixels(int32_t value) const {
        return model.shapes[(size_t)value].height * model.shapes[(size_t)value].width;
    }
    /* Behind the value itself. */
    float *partials(int32_t value) const {
        return (float *)(at(value) + (int64_t)run.batch * pixels(value) * pitch(value));
    }
    source<T> two(const cuda_step &step) const {
        const int32_t first = step.plan.input[0], second = step.plan.input[1];
        const bool both = second >= 0;
        return {at(first), at(second), both ? step.plan.call.split : pitch(first), pitch(first),
                both ? pitch(second) : 0};
    }
    const unsigned char *weight(const cuda_step &step) const { return model.weights + step.weight; }
    const float *bias(const cuda_step &step) const { return (const float *)(model.weights + step.bias); }
};

template <typename T> epilogue<T> end_of(const places<T> &where, const cuda_step &step) {
    epilogue<T> end = {};
    const int32_t shift = step.plan.shift, output = step.plan.output;
    end.out_pitch = pitch_for(step.plan.call.out_channels);
    end.residual = where.at(step.plan.residual);
    end.output = where.at(output);
    if (shift >= 0 && !where.tables && where.model.table[(size_t)shift] >= 0) {
        end.times = where.model.tables + where.model.table[(size_t)shift];
        end.time = where.run.time;
    } else {
        end.shift = where.at(shift);
    }
    if (step.partials && !step.separate)
        end.partials = where.partials(output);
    return end;
}

template <typename T> cudaError_t run_conv(const places<T> &where, const cuda_step &step, cudaStream_t stream) {
    const df_call &call = step.plan.call;
    conv_call<T> conv = {};
    conv.images = where.run.images;
    conv.input = where.two(step);
    conv.channels = call.channels;
    conv.pitch =
        step.plan.input[1] >= 0 ? call.split + pitch_for(call.channels - call.split) : pitch_for(call.channels);
    conv.height = call.height;
    conv.width = call.width;
    conv.out_channels = call.out_channels;
    conv.out_height = call.out_height;
    conv.out_width = call.out_width;
    conv.size = call.size;
    conv.stride = call.stride;
    conv.upsample = call.upsample;
    conv.weight = (const T *)where.weight(step);
    conv.weight_rows = weight_rows(call);
    conv.end = end_of(where, step);
    conv.end.bias = where.bias(step);
    if (step.kernel == CONV_PLANAR)
        conv.planar = where.run.eps;
    if constexpr (sizeof(T) == 2)
        if (step.kernel == CONV_TILED)
            return conv_tiled(conv, where.model.hopper, stream);
    return conv_plain(conv, stream);
}

template <typename T> cudaError_t run_norm(const places<T> &where, const cuda_step &step, cudaStream_t stream) {
    const df_call &call = step.plan.call;
    norm_call<T> norm = {};
    norm.images = where.run.images;
    norm.channels = call.channels;
    norm.groups = call.parts;
    norm.pixels = call.height * call.width;
    norm.pitch = pitch_for(call.channels);
    norm.epsilon = call.epsilon;
    norm.silu = call.silu;
    norm.input = where.two(step);
    norm.scale = (const float *)where.weight(step);
    norm.shift = where.bias(step);
    norm.output = where.at(step.plan.output);
    if constexpr (sizeof(T) == 2) {
        for (int i = 0; i < 2 && step.plan.input[i] >= 0; i++) {
            norm.partials[i] = where.partials(step.plan.input[i]);
            norm.segments[i] = where.model.segments[(size_t)step.plan.input[i]];
        }
        return norm_from_partials(norm, stream);
    } else {
        return norm_exact(norm, stream);
    }
}

template <typename T> cudaError_t run_attention(const places<T> &where, const cuda_step &step, cudaStream_t stream) {
    const df_plan_step &plan = step.plan;
    attention_call<T> attention = {};
    attention.images = where.run.images;
    attention.pixels = plan.call.height * plan.call.width;
    attention.channels = plan.call.channels;
    attention.heads = plan.call.parts;
    attention.q = where.at(plan.input[0]) + plan.offset[0];
    attention.k = where.at(plan.input[1]) + plan.offset[1];
    attention.v = where.at(plan.input[2]) + plan.offset[2];
    attention.q_pitch = pitch_for(plan.call.pitch[0]);
    attention.k_pitch = pitch_for(plan.call.pitch[1]);
    attention.v_pitch = pitch_for(plan.call.pitch[2]);
    attention.end = end_of(where, step);
    if constexpr (sizeof(T) == 2)
        if (step.kernel == ATTENTION_TILED)
            return attention_tiled(attention, stream);
    return attention_plain(attention, stream);
}

template <typename T> cudaError_t run_kind(const places<T> &where, const cuda_step &step, cudaStream_t stream) {
    const df_plan_step &plan = step.plan;
    const df_call &call = plan.call;
    const int64_t images = where.run.images;
    const int32_t pixels = call.height * call.width, pitch = pitch_for(call.out_channels);
    T *output = where.at(plan.output);
    switch (plan.kind) {
    case DF_STEP_IMPORT:
        return import_images(images, call.channels, pixels, where.run.x, output, stream);
    case DF_STEP_EXPORT:
        return export_images(images, call.channels, pixels, (const T *)where.at(plan.input[0]), where.run.eps, stream);
    case DF_STEP_CONV:
        return run_conv(where, step, stream);
    case DF_STEP_NORM:
        return run_norm(where, step, stream);
    case DF_STEP_ATTENTION:
        return run_attention(where, step, stream);
    case DF_STEP_SILU:
        return apply_silu(images * pixels * pitch, (const T *)where.at(plan.input[0]), output, stream);
    case DF_STEP_ADD: {
        const int32_t first = plan.input[0], second = plan.input[1];
        return add_values(images, pixels, pitch, (const T *)where.at(first), (const T *)where.at(second),
                          call.broadcast, output, stream);
    }
    case DF_STEP_CONCAT:
        return concatenate(images * pixels, call.out_channels, pitch,
                           source<T>{where.at(plan.input[0]), where.at(plan.input[1]), call.split,
                                     where.pitch(plan.input[0]), where.pitch(plan.input[1])},
                           output, stream);
    case DF_STEP_UPSAMPLE:
        return upsample(images, call.height, call.width, pitch, (const T *)where.at(plan.input[0]), output, stream);
    case DF_STEP_TIME:     /* a table already */
    case DF_STEP_WINOGRAD: /* not in these plans: */
    case DF_STEP_STATISTICS:
    case DF_STEP_KIND_COUNT:
        break;
    }
    return cudaErrorInvalidValue;
}

/* For a value whose kernel leaves no partials. */
template <typename T> cudaError_t partials_of(const places<T> &where, int32_t value) {
    if constexpr (sizeof(T) == 2)
        return make_partials(where.run.images, where.pixels(value), where.pitch(value), (const T *)where.at(value),
                             where.partials(value), where.run.stream);
    else
        return cudaSuccess;
}

template <typename T> cudaError_t run_of(const df_cuda_model *model, const cuda_step &step, const run_context &run) {
    const places<T> where = {*model, run, false};
    cudaError_t status = run_kind(where, step, run.stream);
    if (status == cudaSuccess && step.separate)
        status = partials_of(where, step.plan.output);
    return status;
}

template <typename T> cudaError_t gather_of(const df_cuda_model *model, const run_context &run) {
    const places<T> where = {*model, run, false};
    cudaError_t status = cudaSuccess;
    for (const gathered &gather : model->gathers) {
        const float *table = model->tables + model->table[(size_t)gather.value];
        if (status == cudaSuccess)
            status = gather_times(run.images, where.pitch(gather.value), table, run.time, where.at(gather.value),
                                  run.stream);
        if (status == cudaSuccess)
            status = partials_of(where, gather.value);
    }
    return status;
}

} // namespace

cudaError_t run_step(const df_cuda_model *model, const cuda_step &step, const run_context &run) {
    switch (model->precision) {
    case DF_CUDA_BF16:
        return run_of<bf16>(model, step, run);
    case DF_CUDA_FP16:
        return run_of<fp16>(model, step, run);
    default:
        return run_of<float>(model, step, run);
    }
}

cudaError_t gather_values(const df_cuda_model *model, const run_context &run) {
    switch (model->precision) {
    case DF_CUDA_BF16:
        return gather_of<bf16>(model, run);
    case DF_CUDA_FP16:
        return gather_of<fp16>(model, run);
    default:
        return gather_of<float>(model, run);
    }
}

cudaError_t run_time_step(const df_cuda_model *model, const cuda_step &step) {
    run_context run = {};
    run.images = run.batch = model->time_steps;
    const places<float> where = {*model, run, true};
    return run_kind(where, step, nullptr);
}
