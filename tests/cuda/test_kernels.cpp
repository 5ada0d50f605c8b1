/* Every kernel of the CUDA engine but Hopper's own instructions, against plain loops in double, at sizes that fill no tile:
 * in the emulator, with memory that ends at a guard page, poisoned outputs, and three orders of blocks and threads. */
#include "../core/check.h"
#include "diffence.h"
#include "kernels.h"

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

static uint64_t random_state = 1;

static float random_float() { /* in [-1, 1) */
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (float)(uint32_t)(random_state >> 33) / 1073741824.0f - 1.0f;
}

/* Values on the "GPU". */
template <typename T> struct buffer {
    T *at;
    size_t count;
    explicit buffer(size_t n) : at((T *)emulator_allocate(n * sizeof(T))), count(n) {}
    buffer(const buffer &) = delete;
    ~buffer() { emulator_free(at); }
    void poison() { memset((void *)at, 0xff, count * sizeof(T)); }
    std::vector<T> copy() const { return std::vector<T>(at, at + count); }
    bool equals(const std::vector<T> &other) const { return memcmp(at, other.data(), count * sizeof(T)) == 0; }
};

/* [rows][pitch], zero beyond the channels. */
template <typename T> static void fill(buffer<T> &values, int32_t channels, int32_t pitch, float scale = 1) {
    for (size_t i = 0; i < values.count; i++)
        values.at[i] = from_float<T>((int32_t)(i % (size_t)pitch) < channels ? scale * random_float() : 0.0f);
}

template <typename T> static const char *type_name() {
    return sizeof(T) == 4 ? "fp32" : from_float<T>(1.0f).bits == 0x3f80 ? "bf16" : "fp16";
}
template <> const char *type_name<float>() {
    return "fp32";
}

/* Half a unit in the last place of a value of T, relative. */
template <typename T> static double rounding();
template <> double rounding<float>() {
    return 0x1p-24;
}
template <> double rounding<bf16>() {
    return 0x1p-8;
}
template <> double rounding<fp16>() {
    return 0x1p-11;
}

/* Runs `start` under several schedules; the output must be complete and always the same. */
template <typename T, typename F> static void run_all_orders(const std::string &name, buffer<T> &output, F start) {
    std::vector<T> first;
    for (uint64_t seed = 0; seed < 3; seed++) {
        emulator_seed(seed);
        output.poison();
        const cudaError_t status = start();
        CHECK(status == cudaSuccess, "%s: %s", name.c_str(), cudaGetErrorName(status));
        if (seed == 0)
            first = output.copy();
        else
            CHECK(output.equals(first), "%s: other bits in another order of threads", name.c_str());
    }
    emulator_seed(0);
}

/* ---------------------------------------------------------------- convolution */

struct conv_case {
    int32_t images, channels, split, out, height, width, size, stride;
    bool upsample, add;
};

static std::string describe(const conv_case &c) {
    char text[160];
    snprintf(text, sizeof text, "conv %d images %d(%d) -> %d channels, %dx%d, %dx%d stride %d%s%s", c.images,
             c.channels, c.split, c.out, c.height, c.width, c.size, c.size, c.stride, c.upsample ? " upsampled" : "",
             c.add ? " with additions" : "");
    return text;
}

template <typename T> struct conv_setup {
    conv_case c;
    int32_t in_height, in_width, out_height, out_width, pitch, out_pitch, first_pitch, second_pitch, segments;
    std::vector<double> weights; /* [out][channels][size][size], as rounded */
    buffer<T> first, second, tiled, plain, residual, shift, output;
    buffer<float> bias, times, partials;
    buffer<int32_t> time;

    explicit conv_setup(const conv_case &k)
        : c(k), in_height(k.upsample ? 2 * k.height : k.height), in_width(k.upsample ? 2 * k.width : k.width),
          out_height((in_height + k.stride - 1) / k.stride), out_width((in_width + k.stride - 1) / k.stride),
          pitch(k.split ? k.split + pitch_for(k.channels - k.split) : pitch_for(k.channels)),
          out_pitch(pitch_for(k.out)), first_pitch(k.split ? k.split : pitch),
          second_pitch(k.split ? pitch - k.split : 0), segments(conv_segments(out_height * out_width, k.upsample)),
          first((size_t)(k.images * k.height * k.width * first_pitch)),
          second((size_t)(k.images * k.height * k.width * (second_pitch ? second_pitch : 8))),
          tiled((size_t)blocks_for(k.out, tile_columns(k.out)) * (size_t)tile_columns(k.out) *
                (size_t)((k.upsample ? 16 : k.size * k.size) * pitch)),
          plain((size_t)(k.size * k.size * pitch * out_pitch)),
          residual((size_t)(k.images * out_height * out_width * out_pitch)), shift((size_t)(k.images * out_pitch)),
          output((size_t)(k.images * out_height * out_width * out_pitch)), bias((size_t)out_pitch),
          times((size_t)(5 * out_pitch)), partials((size_t)(k.images * segments * 2 * out_pitch)),
          time((size_t)k.images) {
        fill(first, k.split ? k.split : k.channels, first_pitch);
        fill(second, k.channels - k.split, second_pitch ? second_pitch : 8);
        fill(residual, k.out, out_pitch);
        fill(shift, k.out, out_pitch);
        fill(bias, k.out, out_pitch);
        fill(times, k.out, out_pitch);
        for (int32_t i = 0; i < k.images; i++)
            time.at[i] = i % 5;
        memset((void *)tiled.at, 0, tiled.count * sizeof(T));
        memset((void *)plain.at, 0, plain.count * sizeof(T));
        const int32_t taps = k.size * k.size, block = pitch % DEPTH ? pitch : (int32_t)DEPTH;
        for (int32_t out = 0; out < k.out; out++)
            for (int32_t i = 0; i < k.channels; i++)
                for (int32_t tap = 0; tap < taps; tap++) {
                    const T w = from_float<T>(random_float() / sqrtf((float)(k.channels * taps)));
                    weights.push_back((double)to_float(w));
                    if (!k.upsample)
                        tiled.at[(int64_t)out * taps * pitch + (i / block * taps + tap) * block + i % block] = w;
                    plain.at[((int64_t)tap * pitch + i) * out_pitch + out] = w;
                }
        if (k.upsample)
            pack_phases(block);
    }
    /* Line y of the kernel lies on the stored line lies_on[line of the output % 2][y], counted from the first that is read. */
    void pack_phases(int32_t block) {
        const int lies_on[2][3] = {{0, 1, 1}, {0, 0, 1}};
        const int64_t rows = blocks_for(c.out, tile_columns(c.out)) * tile_columns(c.out);
        for (int phase = 0; phase < 4; phase++)
            for (int32_t out = 0; out < c.out; out++)
                for (int32_t i = 0; i < c.channels; i++) {
                    double sums[2][2] = {{0, 0}, {0, 0}};
                    for (int y = 0; y < 3; y++)
                        for (int x = 0; x < 3; x++)
                            sums[lies_on[phase / 2][y]][lies_on[phase % 2][x]] +=
                                weights[(size_t)((out * c.channels + i) * 9 + 3 * y + x)];
                    for (int tap = 0; tap < 4; tap++)
                        tiled.at[(phase * rows + out) * 4 * pitch + (i / block * 4 + tap) * block + i % block] =
                            from_float<T>((float)sums[tap / 2][tap % 2]);
                }
    }
    conv_call<T> call() {
        conv_call<T> call = {};
        call.images = c.images;
        call.channels = c.channels;
        call.pitch = pitch;
        call.height = c.height;
        call.width = c.width;
        call.out_channels = c.out;
        call.out_height = out_height;
        call.out_width = out_width;
        call.size = c.size;
        call.stride = c.stride;
        call.upsample = c.upsample;
        call.weight_rows = (int32_t)blocks_for(c.out, tile_columns(c.out)) * tile_columns(c.out);
        call.input = {first.at, c.split ? second.at : nullptr, c.split ? c.split : pitch, first_pitch, second_pitch};
        call.end.bias = bias.at;
        call.end.out_pitch = out_pitch;
        call.end.output = output.at;
        if (c.add) {
            call.end.times = times.at;
            call.end.time = time.at;
            call.end.shift = shift.at;
            call.end.residual = residual.at;
        }
        return call;
    }
    double input(int32_t image, int32_t y, int32_t x, int32_t i) const {
        if (y < 0 || y >= in_height || x < 0 || x >= in_width)
            return 0;
        const int64_t pixel =
            ((int64_t)image * c.height + (c.upsample ? y / 2 : y)) * c.width + (c.upsample ? x / 2 : x);
        const bool in_second = c.split && i >= c.split;
        return (double)to_float(in_second ? second.at[pixel * second_pitch + i - c.split]
                                          : first.at[pixel * first_pitch + i]);
    }
    /* The value before it is rounded, and the sum of the terms' sizes. */
    double expected(int32_t image, int32_t pixel, int32_t out, double *size) const {
        const int64_t at = ((int64_t)image * out_height * out_width + pixel) * out_pitch + out;
        double sum = (double)bias.at[out];
        if (c.add)
            sum += (double)times.at[time.at[image] * out_pitch + out] +
                   (double)to_float(shift.at[image * out_pitch + out]) + (double)to_float(residual.at[at]);
        *size = fabs(sum);
        const int32_t pad = (c.size - 1) / 2, taps = c.size * c.size;
        for (int32_t tap = 0; tap < taps; tap++)
            for (int32_t i = 0; i < c.channels; i++) {
                const double term = weights[(size_t)((out * c.channels + i) * taps + tap)] *
                                    input(image, pixel / out_width * c.stride + tap / c.size - pad,
                                          pixel % out_width * c.stride + tap % c.size - pad, i);
                sum += term;
                *size += fabs(term);
            }
        return sum;
    }
};

template <typename T>
static void compare_conv(const conv_setup<T> &s, const std::string &name, const float *planar, double weights = 0) {
    double worst = 0;
    const int32_t pixels = s.out_height * s.out_width;
    for (int32_t image = 0; image < s.c.images; image++)
        for (int32_t pixel = 0; pixel < pixels; pixel++)
            for (int32_t out = 0; out < (planar ? s.c.out : s.out_pitch); out++) {
                const double got =
                    planar ? (double)planar[((int64_t)image * s.c.out + out) * pixels + pixel]
                           : (double)to_float(s.output.at[((int64_t)image * pixels + pixel) * s.out_pitch + out]);
                double size = 0;
                const double want = out < s.c.out ? s.expected(image, pixel, out, &size) : 0;
                const double allowed = (planar ? 0 : rounding<T>() * fabs(want)) + (1e-6 + weights) * size;
                const double ratio = out < s.c.out ? fabs(got - want) / (allowed + 1e-30) : got == 0 ? 0 : 1e9;
                worst = ratio > worst || std::isnan(ratio) ? (std::isnan(ratio) ? 1e9 : ratio) : worst;
            }
    CHECK(worst <= 1, "%s: %g times the error that is allowed", name.c_str(), worst);
}

/* Of the output as it is stored. */
template <typename T> static void compare_partials(const conv_setup<T> &s, const std::string &name) {
    double worst = 0;
    const int32_t pixels = s.out_height * s.out_width;
    for (int32_t image = 0; image < s.c.images; image++)
        for (int32_t segment = 0; segment < s.segments; segment++)
            for (int32_t c = 0; c < s.out_pitch; c++) {
                double sum = 0, squares = 0, size = 1e-30;
                const int32_t phases = s.c.upsample ? 4 : 1, of_phase = s.segments / phases;
                const int32_t phase = segment / of_phase, first = segment % of_phase * TILE;
                for (int32_t i = first; i < pixels / phases && i < first + TILE; i++) {
                    const int32_t y = 2 * (i / s.c.width) + phase / 2, x = 2 * (i % s.c.width) + phase % 2;
                    const int32_t p = phases == 4 ? y * s.out_width + x : i;
                    const double v = (double)to_float(s.output.at[((int64_t)image * pixels + p) * s.out_pitch + c]);
                    sum += v;
                    squares += v * v;
                    size += fabs(v);
                }
                const float *got = s.partials.at + ((int64_t)(image * s.segments + segment) * 2) * s.out_pitch + c;
                const double a = fabs((double)got[0] - sum) / size,
                             b = fabs((double)got[s.out_pitch] - squares) / (squares + 1e-30);
                worst = !(a <= worst) ? a : worst;
                worst = !(b <= worst) ? b : worst;
            }
    CHECK(worst < 2e-6, "%s: partials are off by %g", name.c_str(), worst);
}

/* The last image alone has the bits that it has in company. */
template <typename T, typename F> static void check_alone(conv_setup<T> &s, const std::string &name, F start) {
    const std::vector<T> together = s.output.copy();
    const std::vector<float> partials = s.partials.copy();
    conv_call<T> call = s.call();
    const int64_t last = s.c.images - 1, pixels = s.out_height * s.out_width, in_pixels = s.c.height * s.c.width;
    call.images = 1;
    call.input.first += last * in_pixels * s.first_pitch;
    call.input.second = call.input.second ? call.input.second + last * in_pixels * s.second_pitch : nullptr;
    call.end.time = call.end.time ? call.end.time + last : nullptr;
    call.end.shift = call.end.shift ? call.end.shift + last * s.out_pitch : nullptr;
    call.end.residual = call.end.residual ? call.end.residual + last * pixels * s.out_pitch : nullptr;
    call.end.partials = s.partials.at;
    s.output.poison();
    start(call);
    CHECK(memcmp(s.output.at, together.data() + last * pixels * s.out_pitch,
                 (size_t)(pixels * s.out_pitch) * sizeof(T)) == 0 &&
              memcmp(s.partials.at, partials.data() + last * s.segments * 2 * s.out_pitch,
                     (size_t)(s.segments * 2 * s.out_pitch) * sizeof(float)) == 0,
          "%s: an image alone has other bits", name.c_str());
}

static const conv_case conv_cases[] = {
    {3, 3, 0, 24, 5, 7, 3, 1, false, true},      {2, 8, 0, 8, 4, 4, 3, 1, false, false},
    {5, 20, 0, 32, 4, 4, 3, 1, false, true},     {2, 64, 0, 72, 12, 11, 3, 1, false, true},
    {1, 24, 16, 40, 9, 9, 1, 1, false, true},    {2, 136, 64, 136, 3, 5, 1, 1, false, false},
    {3, 72, 0, 200, 6, 6, 3, 2, false, true},    {2, 32, 0, 48, 4, 3, 3, 1, true, true},
    {1, 128, 0, 16, 16, 16, 3, 1, false, false}, {1, 64, 0, 136, 13, 12, 3, 1, true, true},
    {9, 16, 8, 260, 2, 2, 1, 1, false, true},    {2, 128, 64, 130, 8, 8, 1, 1, false, true},
    {1, 8, 0, 24, 7, 6, 3, 2, false, false},
};

template <typename T> static void test_conv_tiled() {
    for (const conv_case &c : conv_cases)
        for (int hopper = 0; hopper <= 1; hopper++) {
            if (hopper && tile_columns(c.out) < 128)
                continue;
            conv_setup<T> s(c);
            const std::string name = std::string(type_name<T>()) + (hopper ? " hopper " : " tiled ") + describe(c);
            s.partials.poison();
            run_all_orders(name, s.output, [&] {
                conv_call<T> call = s.call();
                call.weight = s.tiled.at;
                call.end.partials = s.partials.at;
                return conv_tiled(call, hopper == 1, nullptr);
            });
            compare_conv(s, name, nullptr, c.upsample ? rounding<T>() : 0); /* sums of weights are rounded again */
            compare_partials(s, name);
            check_alone(s, name, [&](conv_call<T> &call) {
                call.weight = s.tiled.at;
                conv_tiled(call, hopper == 1, nullptr);
            });
        }
}

template <typename T> static void test_conv_plain() {
    for (const conv_case &c : conv_cases) {
        if (c.channels > 100)
            continue; /* the same code, for longer */
        conv_setup<T> s(c);
        const std::string name = std::string(type_name<T>()) + " plain " + describe(c);
        run_all_orders(name, s.output, [&] {
            conv_call<T> call = s.call();
            call.weight = s.plain.at;
            return conv_plain(call, nullptr);
        });
        compare_conv(s, name, nullptr);
        if (c.add)
            continue;
        buffer<float> planar((size_t)(c.images * c.out * s.out_height * s.out_width));
        run_all_orders(name, planar, [&] {
            conv_call<T> call = s.call();
            call.weight = s.plain.at;
            call.planar = planar.at;
            return conv_plain(call, nullptr);
        });
        compare_conv(s, name + " planar", planar.at);
    }
}

/* ---------------------------------------------------------------- group norm */

struct norm_case {
    int32_t images, channels, split, groups, pixels;
    bool silu;
    float offset; /* of all values: what a sum of squares must survive */
};

template <typename T, typename F> static void check_norm(const norm_case &c, bool from_partials, F start) {
    const int32_t pitch = c.split ? c.split + pitch_for(c.channels - c.split) : pitch_for(c.channels);
    const int32_t first_pitch = c.split ? c.split : pitch, second_pitch = c.split ? pitch - c.split : 8;
    char text[160];
    snprintf(text, sizeof text, "%s norm%s %d images, %d(%d) channels in %d groups, %d pixels, offset %g",
             type_name<T>(), from_partials ? "" : " exact", c.images, c.channels, c.split, c.groups, c.pixels,
             (double)c.offset);
    const std::string name = text;
    buffer<T> first((size_t)(c.images * c.pixels * first_pitch)), second((size_t)(c.images * c.pixels * second_pitch));
    buffer<T> output((size_t)(c.images * c.pixels * pitch_for(c.channels)));
    buffer<float> scale((size_t)c.channels), shift((size_t)c.channels);
    fill(first, c.split ? c.split : c.channels, first_pitch);
    fill(second, c.channels - c.split, second_pitch);
    for (size_t i = 0; i < first.count; i++)
        if ((int32_t)(i % (size_t)first_pitch) < (c.split ? c.split : c.channels))
            first.at[i] = from_float<T>(to_float(first.at[i]) + c.offset);
    fill(scale, c.channels, c.channels);
    fill(shift, c.channels, c.channels);
    const int32_t segments = segments_of(c.pixels, TILE);
    buffer<float> partials0((size_t)(c.images * segments * 2 * first_pitch)),
        partials1((size_t)(c.images * segments * 2 * second_pitch));
    norm_call<T> call = {};
    call.images = c.images;
    call.channels = c.channels;
    call.groups = c.groups;
    call.pixels = c.pixels;
    call.pitch = pitch_for(c.channels);
    call.epsilon = 1e-5f;
    call.silu = c.silu;
    call.input = {first.at, c.split ? second.at : nullptr, c.split ? c.split : pitch, first_pitch, second_pitch};
    call.scale = scale.at;
    call.shift = shift.at;
    call.output = output.at;
    call.partials[0] = partials0.at;
    call.partials[1] = partials1.at;
    call.segments[0] = call.segments[1] = segments;
    run_all_orders(name, output, [&] { return start(call, first.at, second.at, partials0.at, partials1.at); });
    double worst = 0;
    const int32_t size = c.channels / c.groups;
    for (int32_t image = 0; image < c.images; image++)
        for (int32_t g = 0; g < c.groups; g++) {
            const auto value = [&](int32_t p, int32_t i) {
                const int64_t pixel = (int64_t)image * c.pixels + p;
                return (double)to_float(c.split && i >= c.split ? second.at[pixel * second_pitch + i - c.split]
                                                                : first.at[pixel * first_pitch + i]);
            };
            double mean = 0, variance = 0;
            for (int32_t p = 0; p < c.pixels; p++)
                for (int32_t i = g * size; i < (g + 1) * size; i++)
                    mean += value(p, i) / ((double)size * c.pixels);
            for (int32_t p = 0; p < c.pixels; p++)
                for (int32_t i = g * size; i < (g + 1) * size; i++)
                    variance += (value(p, i) - mean) * (value(p, i) - mean) / ((double)size * c.pixels);
            for (int32_t p = 0; p < c.pixels; p++)
                for (int32_t i = g * size; i < (g + 1) * size; i++) {
                    double want =
                        (value(p, i) - mean) / sqrt(variance + 1e-5) * (double)scale.at[i] + (double)shift.at[i];
                    want = c.silu ? want / (1 + exp(-want)) : want;
                    const double got = (double)to_float(output.at[((int64_t)image * c.pixels + p) * call.pitch + i]);
                    const double allowed = rounding<T>() * fabs(want) + (1 + fabs((double)c.offset)) * 3e-6;
                    const double ratio = fabs(got - want) / allowed;
                    worst = !(ratio <= worst) ? ratio : worst;
                }
        }
    for (size_t i = 0; i < output.count; i++)
        if ((int32_t)(i % (size_t)call.pitch) >= c.channels && to_float(output.at[i]) != 0)
            worst = 1e9;
    CHECK(worst <= 1, "%s: %g times the error that is allowed", name.c_str(), worst);
}

static const norm_case norm_cases[] = {
    {2, 32, 0, 8, 16, true, 0},   {3, 20, 0, 5, 35, false, 0},   {1, 12, 0, 1, 130, true, 3},
    {2, 40, 24, 10, 49, true, 1}, {1, 136, 64, 4, 300, true, 0}, {2, 8, 0, 8, 1, false, 0},
};

template <typename T> static void test_norm_from_partials() {
    for (const norm_case &c : norm_cases)
        check_norm<T>(c, true, [](norm_call<T> &call, T *first, T *second, float *partials0, float *partials1) {
            cudaError_t status =
                make_partials(call.images, call.pixels, call.input.first_pitch, (const T *)first, partials0, nullptr);
            if (status == cudaSuccess && call.input.second)
                status = make_partials(call.images, call.pixels, call.input.second_pitch, (const T *)second, partials1,
                                       nullptr);
            return status == cudaSuccess ? norm_from_partials(call, nullptr) : status;
        });
}

static void test_norm_exact() {
    for (const norm_case &c : norm_cases)
        check_norm<float>(c, false, [](norm_call<float> &call, float *, float *, float *, float *) {
            return norm_exact(call, nullptr);
        });
}

/* ---------------------------------------------------------------- attention */

struct attention_case {
    int32_t images, pixels, channels, heads;
};

static const attention_case attention_cases[] = {{2, 16, 32, 1},  {1, 70, 128, 1}, {2, 9, 48, 2},
                                                 {1, 130, 64, 4}, {1, 64, 256, 1}, {1, 100, 200, 1}};

template <typename T> static void test_attention(bool tiled) {
    for (const attention_case &c : attention_cases) {
        char text[120];
        snprintf(text, sizeof text, "%s attention %s %d images, %d pixels, %d channels, %d heads", type_name<T>(),
                 tiled ? "tiled" : "plain", c.images, c.pixels, c.channels, c.heads);
        const std::string name = text;
        const int32_t q_pitch = 2 * c.channels, pitch = c.channels, dim = c.channels / c.heads;
        const int32_t segments = segments_of(c.pixels, QUERIES);
        buffer<T> both((size_t)(c.images * c.pixels * q_pitch)), k((size_t)(c.images * c.pixels * pitch)),
            residual((size_t)(c.images * c.pixels * pitch)), output((size_t)(c.images * c.pixels * pitch));
        buffer<float> partials((size_t)(c.images * segments * 2 * pitch));
        fill(both, q_pitch, q_pitch, 2);
        fill(k, pitch, pitch, 2);
        fill(residual, pitch, pitch);
        attention_call<T> call = {};
        call.images = c.images;
        call.pixels = c.pixels;
        call.channels = c.channels;
        call.heads = c.heads;
        call.q = both.at;
        call.k = k.at;
        call.v = both.at + c.channels;
        call.q_pitch = call.v_pitch = q_pitch;
        call.k_pitch = pitch;
        call.end.out_pitch = pitch;
        call.end.residual = residual.at;
        call.end.output = output.at;
        run_all_orders(name, output, [&] {
            if constexpr (sizeof(T) == 2)
                if (tiled) {
                    call.end.partials = partials.at;
                    return attention_tiled(call, nullptr);
                }
            return attention_plain(call, nullptr);
        });
        double worst = 0, squares = 0;
        std::vector<double> p((size_t)c.pixels);
        for (int32_t image = 0; image < c.images; image++)
            for (int32_t head = 0; head < c.heads; head++)
                for (int32_t i = 0; i < c.pixels; i++) {
                    double most = -INFINITY, total = 0;
                    for (int32_t j = 0; j < c.pixels; j++) {
                        p[(size_t)j] = 0;
                        for (int32_t d = head * dim; d < (head + 1) * dim; d++)
                            p[(size_t)j] += (double)to_float(both.at[((int64_t)image * c.pixels + i) * q_pitch + d]) *
                                            (double)to_float(k.at[((int64_t)image * c.pixels + j) * pitch + d]) /
                                            sqrt((double)dim);
                        most = p[(size_t)j] > most ? p[(size_t)j] : most;
                    }
                    for (int32_t j = 0; j < c.pixels; j++)
                        total += p[(size_t)j] = exp(p[(size_t)j] - most);
                    for (int32_t d = head * dim; d < (head + 1) * dim; d++) {
                        double want = 0;
                        for (int32_t j = 0; j < c.pixels; j++)
                            want +=
                                p[(size_t)j] / total *
                                (double)to_float(both.at[((int64_t)image * c.pixels + j) * q_pitch + c.channels + d]);
                        const int64_t at = ((int64_t)image * c.pixels + i) * pitch + d;
                        want += (double)to_float(residual.at[at]);
                        const double got = (double)to_float(output.at[at]);
                        worst = !(fabs(got - want) <= worst) ? fabs(got - want) : worst;
                        squares += got * got;
                    }
                }
        /* Probabilities are rounded to T as well: two roundings of values of up to 3. */
        const double allowed = sizeof(T) == 4 ? 5e-6 : 4 * rounding<T>();
        CHECK(worst <= allowed, "%s: off by %g, allowed are %g", name.c_str(), worst, allowed);
        if (sizeof(T) == 2 && tiled) {
            double sum = 0;
            for (int32_t i = 0; i < c.images * segments; i++)
                for (int32_t d = 0; d < pitch; d++)
                    sum += (double)partials.at[(2 * i + 1) * pitch + d];
            CHECK(fabs(sum / squares - 1) < 1e-5, "%s: partials", name.c_str());
        }
    }
}

/* ---------------------------------------------------------------- what only moves */

template <typename T> static void test_moves() {
    const int32_t images = 3, channels = 5, height = 4, width = 3, pixels = height * width, pitch = 8;
    buffer<float> planar((size_t)(images * channels * pixels)), back((size_t)(images * channels * pixels));
    buffer<T> stored((size_t)(images * pixels * pitch)), twice((size_t)(images * pixels * 4 * pitch));
    fill(planar, 1, 1);
    run_all_orders("import", stored, [&] {
        return import_images(images, channels, pixels, (const float *)planar.at, stored.at, nullptr);
    });
    run_all_orders("export", back,
                   [&] { return export_images(images, channels, pixels, (const T *)stored.at, back.at, nullptr); });
    bool same = true, zero = true;
    for (size_t i = 0; i < planar.count; i++)
        same = same && back.at[i] == to_float(from_float<T>(planar.at[i]));
    for (size_t i = 0; i < stored.count; i++)
        zero = zero && (i % pitch < channels || to_float(stored.at[i]) == 0);
    CHECK(same && zero, "%s: import and export", type_name<T>());
    run_all_orders("upsample", twice,
                   [&] { return upsample(images, height, width, pitch, (const T *)stored.at, twice.at, nullptr); });
    for (int32_t i = 0; i < images; i++)
        for (int32_t y = 0; y < 2 * height; y++)
            for (int32_t x = 0; x < 2 * width; x++)
                same =
                    same && memcmp(&twice.at[((i * 2 * height + y) * 2 * width + x) * pitch],
                                   &stored.at[((i * height + y / 2) * width + x / 2) * pitch], pitch * sizeof(T)) == 0;
    CHECK(same, "%s: upsample", type_name<T>());
    buffer<T> joined((size_t)(images * pixels * 16)), sum((size_t)(images * pixels * pitch)),
        row((size_t)(images * pitch));
    run_all_orders("concat", joined, [&] {
        return concatenate(images * pixels, 10, 16, source<T>{stored.at, stored.at, channels, pitch, pitch}, joined.at,
                           nullptr);
    });
    for (int32_t p = 0; p < images * pixels; p++)
        for (int32_t c = 0; c < 16; c++)
            same = same && to_float(joined.at[p * 16 + c]) == (c < 10 ? to_float(stored.at[p * pitch + c % 5]) : 0);
    CHECK(same, "%s: concatenate", type_name<T>());
    fill(row, channels, pitch);
    for (int broadcast = 0; broadcast <= 1; broadcast++) {
        run_all_orders("add", sum, [&] {
            return add_values(images, pixels, pitch, (const T *)stored.at, (const T *)(broadcast ? row.at : stored.at),
                              broadcast == 1, sum.at, nullptr);
        });
        for (int32_t i = 0; i < images * pixels * pitch; i++) {
            const float other = to_float(broadcast ? row.at[i / pitch / pixels * pitch + i % pitch] : stored.at[i]);
            same = same && to_float(sum.at[i]) == to_float(from_float<T>(to_float(stored.at[i]) + other));
        }
        CHECK(same, "%s: add", type_name<T>());
    }
    run_all_orders("silu", sum,
                   [&] { return apply_silu(images * pixels * pitch, (const T *)stored.at, sum.at, nullptr); });
    double worst = 0;
    for (size_t i = 0; i < sum.count; i++) {
        const double x = (double)to_float(stored.at[i]), want = x / (1 + exp(-x));
        worst = fmax(worst, fabs((double)to_float(sum.at[i]) - want) / (rounding<T>() * fabs(want) + 2e-7));
    }
    CHECK(worst <= 1, "%s: silu: %g", type_name<T>(), worst);
    buffer<float> table(6 * pitch);
    buffer<int32_t> time(images);
    fill(table, pitch, pitch);
    for (int32_t i = 0; i < images; i++)
        time.at[i] = 5 - i;
    run_all_orders("gather", row, [&] {
        return gather_times(images, pitch, (const float *)table.at, (const int32_t *)time.at, row.at, nullptr);
    });
    for (int32_t i = 0; i < images * pitch; i++)
        same = same && to_float(row.at[i]) == to_float(from_float<T>(table.at[(5 - i / pitch) * pitch + i % pitch]));
    CHECK(same, "%s: gather", type_name<T>());
}

/* ---------------------------------------------------------------- around the network */

static void test_sampling() {
    const int32_t images = 3, c = 3, h = 5, w = 3, values = c * h * w, items = 7;
    uint8_t key[16];
    for (int i = 0; i < 16; i++)
        key[i] = (uint8_t)(17 * i + 3);
    buffer<float> pixels((size_t)(images * values)), x((size_t)(items * values)), out((size_t)(items * values));
    buffer<uint8_t> hashes((size_t)images * 16);
    for (size_t i = 0; i < pixels.count; i++)
        pixels.at[i] = fabsf(random_float());
    pixels.at[4] = -0.0f;
    run_all_orders("hash", hashes, [&] { return hash_images(images, c, h, w, key, pixels.at, hashes.at, nullptr); });
    for (int32_t i = 0; i < images; i++) {
        uint8_t want[16];
        df_content_hash(key, pixels.at + i * values, c, h, w, want);
        CHECK(memcmp(want, hashes.at + 16 * i, 16) == 0, "hash of image %d", i);
    }
    buffer<int32_t> index(items), draws(items), bad(1);
    for (int32_t m = 0; m < items; m++) {
        index.at[m] = m % images;
        draws.at[m] = m * 1000;
    }
    noising call = {2, 4, values, pixels.at, hashes.at, index.at, draws.at, nullptr, 0.8f, 0.6f};
    buffer<float> four((size_t)(4 * values));
    run_all_orders("noise", four, [&] { return noise_images(call, four.at, nullptr); });
    std::vector<float> normals((size_t)values);
    bool same = true;
    for (int32_t m = 0; m < 4; m++) {
        const int32_t image = index.at[2 + m];
        df_normals(hashes.at + 16 * image, (uint32_t)draws.at[2 + m], 0, (uint32_t)values, normals.data());
        for (int32_t p = 0; p < values; p++)
            same = same && fabsf(four.at[m * values + p] -
                                 (0.8f * (2 * pixels.at[image * values + p] - 1) + 0.6f * normals[(size_t)p])) < 1e-6f;
    }
    CHECK(same, "noise as on the CPU");
    buffer<float> given((size_t)(items * values));
    fill(given, 1, 1);
    call.noise = given.at;
    call.hashes = nullptr;
    run_all_orders("given noise", four, [&] { return noise_images(call, four.at, nullptr); });
    same = fabsf(four.at[0] - (0.8f * (2 * pixels.at[index.at[2] * values] - 1) + 0.6f * given.at[2 * values])) < 1e-6f;
    CHECK(same, "noise as given");
    fill(x, 1, 1, 2);
    std::vector<float> before = x.copy();
    take_step(items * values, 1.25f, -0.5f, given.at, x.at, nullptr);
    for (size_t i = 0; i < x.count; i++)
        same = same && fabsf(x.at[i] - (1.25f * before[i] - 0.5f * given.at[i])) < 1e-6f;
    CHECK(same, "step");
    x.at[5 * values + 2] = NAN;
    x.at[6 * values] = INFINITY;
    bad.at[0] = INT32_MAX;
    run_all_orders("finish", out, [&] { return finish_images(10, items, values, x.at, out.at, bad.at, nullptr); });
    CHECK(bad.at[0] == 15, "the first item that is not finite: %d", bad.at[0]);
    for (int32_t i = 0; i < 5 * values; i++)
        same = same && out.at[i] == fminf(fmaxf((x.at[i] + 1) / 2, 0), 1);
    CHECK(same, "finish");
    buffer<int32_t> time(9);
    run_all_orders("times", time, [&] { return fill_times(9, 41, time.at, nullptr); });
    CHECK(time.at[0] == 41 && time.at[8] == 41, "times");
}

static void test_phi() {
    const int32_t rows = 150, classes = 10;
    buffer<float> logits((size_t)(rows * classes));
    buffer<double> phi(rows);
    buffer<int32_t> predicted(rows), bad(1);
    fill(logits, 1, 1, 30);
    logits.at[7 * classes + 3] = logits.at[7 * classes + 5] = 40; /* the first of two largest */
    for (int mode = 0; mode < 2; mode++) {
        std::vector<double> wide(logits.at, logits.at + logits.count), want(rows);
        std::vector<int32_t> classes_wanted(rows);
        df_error error;
        df_phi(rows, classes, wide.data(), mode ? DF_OFFICIAL : DF_PAPER, want.data(), classes_wanted.data(), &error);
        bad.at[0] = INT32_MAX;
        run_all_orders("phi", phi, [&] {
            return phi_rows(rows, classes, logits.at, mode == 1, phi.at, predicted.at, bad.at, nullptr);
        });
        bool same = bad.at[0] == INT32_MAX;
        for (int32_t i = 0; i < rows; i++)
            same = same && predicted.at[i] == classes_wanted[(size_t)i] && fabs(phi.at[i] - want[(size_t)i]) < 1e-9;
        CHECK(same, "phi in mode %d", mode);
    }
    logits.at[20 * classes] = NAN;
    phi_rows(rows, classes, logits.at, false, phi.at, predicted.at, bad.at, nullptr);
    CHECK(bad.at[0] == 20, "row with NaN: %d", bad.at[0]);
}

int main() {
    test_conv_plain<float>();
    test_conv_plain<bf16>();
    test_conv_plain<fp16>();
    test_conv_tiled<bf16>();
    test_conv_tiled<fp16>();
    test_norm_exact();
    test_norm_from_partials<bf16>();
    test_norm_from_partials<fp16>();
    test_attention<float>(false);
    test_attention<bf16>(false);
    test_attention<bf16>(true);
    test_attention<fp16>(true);
    test_moves<float>();
    test_moves<bf16>();
    test_moves<fp16>();
    test_sampling();
    test_phi();
    return check_report("test_kernels");
}
