/* The emulator by itself: its arithmetic against plain formulas, and that it catches the mistakes it is there for. */
#include "../core/check.h"
#include "device.h"

#include <algorithm>
#include <float.h>
#include <signal.h>
#include <stdlib.h>
#include <string>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <thread>
#include <time.h>
#include <unistd.h>
#include <vector>

static const uint64_t SEEDS[] = {0, 1, 2, 3, 12345};

static float from_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Memory of the "GPU" with values in it. */
template <typename T> struct device_array {
    T *at;
    explicit device_array(size_t count) : at((T *)emulator_allocate(count * sizeof(T))) {}
    device_array(const device_array &) = delete;
    ~device_array() { emulator_free(at); }
};

/* ---------------------------------------------------------------- 16-bit numbers */

struct format {
    int exponent_bits, digits; /* digits: stored ones */
};

/* The value of a pattern, by the definition of the format. */
static double decode(format f, unsigned bits) {
    const int bias = (1 << (f.exponent_bits - 1)) - 1, most = (1 << f.exponent_bits) - 1;
    const int exponent = (int)(bits >> f.digits) & most;
    const double fraction = ldexp((double)(bits & ((1u << f.digits) - 1)), -f.digits), sign = bits >> 15 ? -1 : 1;
    if (exponent == most)
        return fraction != 0 ? (double)NAN : sign * (double)INFINITY;
    return sign * (exponent ? ldexp(1 + fraction, exponent - bias) : ldexp(fraction, 1 - bias));
}

template <typename T> static void check_format(const char *name, format f) {
    int wrong_value = 0, wrong_back = 0, wrong_tie = 0, wrong_beside = 0;
    const unsigned infinity = (unsigned)((1 << f.exponent_bits) - 1) << f.digits;
    for (unsigned bits = 0; bits < 65536; bits++) {
        const double value = decode(f, bits);
        const float got = to_float(T{(uint16_t)bits});
        if (value != value) {
            wrong_value += got == got;
            wrong_back += from_float<T>(got).bits != 0x7fff;
            continue;
        }
        wrong_value += !((double)got == value && signbit(got) == signbit(value));
        wrong_back += from_float<T>(got).bits != bits;
    }
    for (unsigned sign = 0; sign < 65536; sign += 32768)
        for (unsigned bits = 0; bits < infinity; bits++) {
            /* Half way to the next number; beyond the last one as if there were one more. */
            const double low = fabs(decode(f, bits)), step = low - fabs(decode(f, bits ? bits - 1 : 1));
            const double high = bits + 1 < infinity ? decode(f, bits + 1) : low + fabs(step);
            const float middle = (float)((low + high) / 2) * (sign ? -1.0f : 1.0f);
            const float outward = sign ? -INFINITY : INFINITY;
            if (fabs((double)middle) != (low + high) / 2)
                wrong_tie++; /* not a float: the test is wrong */
            wrong_tie += from_float<T>(middle).bits != (sign | (bits & 1 ? bits + 1 : bits));
            wrong_beside += from_float<T>(nextafterf(middle, outward)).bits != (sign | (bits + 1));
            wrong_beside += from_float<T>(nextafterf(middle, 0)).bits != (sign | bits);
        }
    CHECK(!wrong_value, "%s: %d patterns have another value", name, wrong_value);
    CHECK(!wrong_back, "%s: %d values become other patterns", name, wrong_back);
    CHECK(!wrong_tie, "%s: %d ties not to even", name, wrong_tie);
    CHECK(!wrong_beside, "%s: %d not to the nearest", name, wrong_beside);
    CHECK(from_float<T>(INFINITY).bits == infinity && from_float<T>(-INFINITY).bits == (infinity | 0x8000), "%s", name);
    CHECK(from_float<T>(FLT_MAX).bits == infinity, "%s: the largest float", name);
    CHECK(from_float<T>(from_bits(1)).bits == 0 && from_float<T>(from_bits(0x80000001)).bits == 0x8000,
          "%s: the smallest float", name);
    CHECK(from_float<T>(from_bits(0x7f800001)).bits == 0x7fff && from_float<T>(from_bits(0xffffffff)).bits == 0x7fff,
          "%s: NaN", name);
}

static void test_formats() {
    check_format<bf16>("bf16", {8, 7});
    check_format<fp16>("fp16", {5, 10});
    CHECK(from_float<fp16>(65504).bits == 0x7bff && from_float<fp16>(65519.996f).bits == 0x7bff, "below the largest");
    CHECK(from_float<fp16>(65520).bits == 0x7c00, "half way to beyond the largest");
    CHECK(from_float<fp16>(0x1p-25f).bits == 0 && from_float<fp16>(0x1.000002p-25f).bits == 1, "half of the smallest");
    CHECK(pack_two<bf16>(1, 2) == 0x40003f80, "pack_two");
}

static void test_functions() {
    for (float x = -140; x < 120; x += 0.37f) {
        const double two = exp2((double)x), e = exp((double)x);
        CHECK(fabs((double)fast_exp2(x) - two) <= 1e-6 * two + 2e-45, "2^%g", (double)x);
        if (fabsf(x) < 80)
            CHECK(fabs((double)fast_exp(x) - e) <= 1e-6 * e, "e^%g", (double)x);
    }
    CHECK(fast_exp2(-INFINITY) == 0 && fast_exp(-1e30f) == 0, "far below zero");
    CHECK(silu(-1000) == 0 && silu(1000) == 1000, "silu");
    CHECK(rsqrtf(4) == 0.5f && __fdividef(1, 4) == 0.25f, "quotients");
    CHECK(min(-1, 2) == -1 && max(3u, 0xffffffffu) == 0xffffffffu && max(2.0f, NAN) == 2, "least and most");
    CHECK(__uint_as_float(0x3f800000) == 1 && __float_as_uint(-2) == 0xc0000000, "bits");
    int least = 5;
    float sum = 1;
    unsigned count = 0xffffffff;
    CHECK(atomicMin(&least, 3) == 5 && atomicMin(&least, 4) == 3 && least == 3, "atomicMin");
    CHECK(atomicAdd(&sum, 0.5f) == 1 && sum == 1.5f, "atomicAdd");
    CHECK(atomicAdd(&count, 2u) == 0xffffffff && count == 1, "atomicAdd");
    const float4 four = make_float4(1, 2, 3, 4);
    CHECK(__ldg(&four).w == 4 && sizeof(uint4) == 16 && alignof(float2) == 8, "vectors");
}

/* ---------------------------------------------------------------- launches */

DF_KERNEL(1024, 1) note_place_kernel(uint32_t *places, int *order, int *next) {
    const dim3 g = gridDim, b = blockDim;
    const uint64_t block = ((uint64_t)blockIdx.z * g.y + blockIdx.y) * g.x + blockIdx.x;
    const uint64_t thread = ((uint64_t)threadIdx.z * b.y + threadIdx.y) * b.x + threadIdx.x;
    places[block * (b.x * b.y * b.z) + thread]++;
    if (!thread)
        order[(*next)++] = (int)block;
}

static std::vector<int> block_order(uint64_t seed, dim3 grid, dim3 block) {
    const size_t blocks = (size_t)grid.x * grid.y * grid.z, places = blocks * block.x * block.y * block.z;
    device_array<uint32_t> place(places);
    device_array<int> order(blocks), next(1);
    memset(place.at, 0, places * sizeof *place.at);
    *next.at = 0;
    emulator_seed(seed);
    emulator_launch("note_place", note_place_kernel, grid, block, 0, place.at, order.at, next.at);
    CHECK(*next.at == (int)blocks, "%d of %zu blocks", *next.at, blocks);
    for (size_t i = 0; i < places; i++)
        CHECK(place.at[i] == 1, "thread %zu ran %u times", i, place.at[i]);
    return std::vector<int>(order.at, order.at + blocks);
}

static void test_launches() {
    const dim3 shapes[][2] = {{1, 1},    {dim3(3, 4, 5), dim3(7, 3, 2)}, {100, 1},
                              {2, 1024}, {dim3(1, 2, 49), 33},           {dim3(1, 1, 3), dim3(2, 2, 64)}};
    for (const auto &shape : shapes) {
        const std::vector<int> ascending = block_order(0, shape[0], shape[1]);
        const std::vector<int> descending = block_order(1, shape[0], shape[1]);
        CHECK(std::is_sorted(ascending.begin(), ascending.end()), "seed 0: ascending");
        CHECK(std::is_sorted(descending.rbegin(), descending.rend()), "seed 1: descending");
        for (uint64_t seed = 2; seed < 20; seed++) {
            std::vector<int> order = block_order(seed, shape[0], shape[1]);
            CHECK(order.size() < 50 || (order != ascending && order != descending), "seed %d", (int)seed);
            CHECK(order == block_order(seed, shape[0], shape[1]), "seed %d: another order the next time", (int)seed);
            std::sort(order.begin(), order.end());
            CHECK(order == ascending, "seed %d: not every block", (int)seed);
        }
    }
}

/* ---------------------------------------------------------------- barriers and shuffles */

/* BARRIER: with it the result is right; without it, it depends on the order. */
template <bool BARRIER> DF_KERNEL(1024, 1) reverse_kernel(const int *input, int *output, int rounds) {
    DF_SHARED(shared);
    int *const values = (int *)shared, size = (int)blockDim.x, thread = (int)threadIdx.x;
    int value = input[thread];
    for (int i = 0; i < rounds; i++) {
        values[thread] = value;
        if (BARRIER)
            __syncthreads();
        value = values[size - 1 - thread] + 1;
        __syncthreads();
    }
    output[thread] = value;
}

template <bool BARRIER> static std::vector<int> reversed(uint64_t seed, unsigned size, int rounds) {
    device_array<int> input(size), output(size);
    for (unsigned i = 0; i < size; i++)
        input.at[i] = 1000 * (int)i;
    emulator_seed(seed);
    emulator_launch("reverse", reverse_kernel<BARRIER>, 1, size, size * sizeof(int), input.at, output.at, rounds);
    return std::vector<int>(output.at, output.at + size);
}

/* All but the first threads leave early: the barrier is for those that are left. */
DF_KERNEL(256, 1) leave_kernel(int *output) {
    DF_SHARED(shared);
    int *const values = (int *)shared;
    const int thread = (int)threadIdx.x;
    if (thread >= 40)
        return;
    values[thread] = thread;
    __syncthreads();
    output[thread] = values[39 - thread];
}

static void test_barriers() {
    for (uint64_t seed : SEEDS) {
        for (unsigned size : {1u, 2u, 31u, 32u, 33u, 100u, 256u, 1024u})
            for (int rounds = 1; rounds < 4; rounds++) {
                const std::vector<int> got = reversed<true>(seed, size, rounds);
                for (int i = 0; i < (int)size; i++) {
                    const int want = 1000 * (rounds % 2 ? (int)size - 1 - i : i) + rounds;
                    CHECK(got[(size_t)i] == want, "seed %d, %u threads: %d", (int)seed, size, i);
                }
            }
        device_array<int> output(40);
        emulator_seed(seed);
        emulator_launch("leave", leave_kernel, 2, 256, 160, output.at);
        for (int i = 0; i < 40; i++)
            CHECK(output.at[i] == 39 - i, "thread %d of those that stayed", i);
    }
    for (unsigned size : {2u, 32u, 256u}) {
        const std::vector<int> ascending = reversed<false>(0, size, 1), descending = reversed<false>(1, size, 1);
        CHECK(ascending != descending && ascending != reversed<true>(0, size, 1),
              "%u threads: a missing barrier does not show", size);
        CHECK(size == 2 || reversed<false>(2, size, 1) != reversed<false>(3, size, 1), "%u threads: seeds", size);
    }
}

template <typename T>
DF_KERNEL(64, 1)
shuffle_kernel(const T *input, T *across, T *from, int lane_mask, int step, uint32_t mask) {
    const int thread = (int)threadIdx.x;
    if (!(mask >> (thread % 32) & 1))
        return;
    across[thread] = __shfl_xor_sync(mask, input[thread], lane_mask);
    from[thread] = __shfl_sync(mask, input[thread], thread + step);
}

template <typename T> static void check_shuffles(const char *name, uint64_t seed) {
    device_array<T> input(64), across(64), from(64);
    for (int i = 0; i < 64; i++)
        input.at[i] = (T)(i * 3 + 1) / (T)2;
    emulator_seed(seed);
    for (uint32_t mask : {0xffffffffu, 0x0000ffffu, 0x12345678u})
        for (int lane = 0; lane < 32; lane++) {
            emulator_launch("shuffle", shuffle_kernel<T>, 2, 64, 0, input.at, across.at, from.at, lane, lane, mask);
            for (int i = 0; i < 64; i++) {
                const int partner = i ^ lane, source = i / 32 * 32 + (i + lane) % 32;
                if (!(mask >> (i % 32) & 1))
                    continue;
                if (mask >> (partner % 32) & 1)
                    CHECK(across.at[i] == input.at[partner], "%s: lane %d ^ %d", name, i, lane);
                if (mask >> (source % 32) & 1)
                    CHECK(from.at[i] == input.at[source], "%s: lane %d of %d", name, source, i);
            }
        }
}

/* Sums of what every lane has, where the two halves of a warp go separate ways and meet again. */
DF_KERNEL(96, 1) halves_kernel(int *output) {
    const int thread = (int)threadIdx.x, lane = thread % 32;
    int sum = thread;
    if (lane < 16) {
        for (int i = 8; i; i /= 2)
            sum += __shfl_xor_sync(0x0000ffff, sum, i);
    } else {
        for (int i = 1; i < 16; i *= 2) {
            sum += __shfl_xor_sync(0xffff0000, sum, i);
            __syncwarp(0xffff0000);
        }
    }
    sum += __shfl_xor_sync(0xffffffff, sum, 16);
    __syncthreads();
    output[thread] = sum;
}

/* A warp of less than 32 threads takes part with a full mask. */
DF_KERNEL(32, 1) few_kernel(int *output) {
    output[threadIdx.x] = __shfl_xor_sync(0xffffffff, (int)threadIdx.x, 1);
}

static void test_shuffles() {
    for (uint64_t seed : SEEDS) {
        check_shuffles<int>("int", seed);
        check_shuffles<unsigned>("unsigned", seed);
        check_shuffles<float>("float", seed);
        check_shuffles<double>("double", seed);
        device_array<int> output(96);
        emulator_launch("halves", halves_kernel, 1, 96, 0, output.at);
        for (int i = 0; i < 96; i++)
            CHECK(output.at[i] == 496 + 1024 * (i / 32), "sum of thread %d: %d", i, output.at[i]);
        emulator_launch("few", few_kernel, 1, 6, 0, output.at);
        for (int i = 0; i < 6; i++)
            CHECK(output.at[i] == (i ^ 1), "thread %d of few", i);
    }
}

/* Lanes of one warp exchange values through shared memory. */
template <bool WAIT> DF_KERNEL(32, 1) neighbour_kernel(int *output) {
    DF_SHARED(shared);
    int *const values = (int *)shared, lane = (int)threadIdx.x;
    values[lane] = lane;
    if (WAIT)
        __syncwarp();
    output[lane] = values[lane ^ 1];
}

static void test_missing_warp_barrier() {
    device_array<int> output(32);
    for (uint64_t seed : SEEDS) {
        emulator_seed(seed);
        emulator_launch("neighbour", neighbour_kernel<true>, 1, 32, 128, output.at);
        for (int i = 0; i < 32; i++)
            CHECK(output.at[i] == (i ^ 1), "lane %d", i);
        emulator_launch("neighbour", neighbour_kernel<false>, 1, 32, 128, output.at);
        CHECK(std::count(output.at, output.at + 32, -1) > 0, "a missing __syncwarp does not show");
    }
}

/* ---------------------------------------------------------------- matrices */

/* Two warps, each with its own 64 rows of 8 numbers, of which it reads every other one in a mixed order. */
DF_KERNEL(64, 1) load_kernel(const uint16_t *input, const int *row_of, bool transposed, uint32_t *output) {
    DF_SHARED(shared);
    uint16_t *const rows = (uint16_t *)shared;
    const int thread = (int)threadIdx.x, warp = thread / 32, lane = thread % 32;
    for (int i = thread; i < 2 * 64 * 8; i += 64)
        rows[i] = input[i];
    __syncthreads();
    uint32_t r[4];
    const uint16_t *const row = rows + (warp * 64 + row_of[lane]) * 8;
    if (transposed)
        load_matrices_transposed(r, row);
    else
        load_matrices(r, row);
    for (int m = 0; m < 4; m++)
        output[thread * 4 + m] = r[m];
}

static void test_loads() {
    device_array<uint16_t> input(2 * 64 * 8);
    device_array<int> row_of(32);
    device_array<uint32_t> output(64 * 4);
    for (int i = 0; i < 2 * 64 * 8; i++)
        input.at[i] = (uint16_t)(i * 7 + 5);
    for (int i = 0; i < 32; i++)
        row_of.at[i] = (i * 11 + 3) % 32 * 2;
    for (uint64_t seed : SEEDS)
        for (int transposed = 0; transposed < 2; transposed++) {
            emulator_seed(seed);
            emulator_launch("load", load_kernel, 1, 64, 2 * 64 * 16, input.at, row_of.at, transposed == 1, output.at);
            for (int thread = 0; thread < 64; thread++)
                for (int m = 0; m < 4; m++)
                    for (int half = 0; half < 2; half++) {
                        /* PTX: register m of a thread holds of matrix m the elements 2 (thread % 4) and + 1 of row
                         * thread / 4; row i of matrix m is where thread 8 m + i points. */
                        const int along = thread % 4 * 2 + half, across = thread % 32 / 4;
                        const int row = transposed ? along : across, column = transposed ? across : along;
                        const int place = (thread / 32 * 64 + row_of.at[m * 8 + row]) * 8 + column;
                        const unsigned got = output.at[thread * 4 + m] >> 16 * half & 0xffff;
                        CHECK(got == input.at[place], "thread %d, register %d, half %d", thread, m, half);
                    }
        }
}

/* Registers as they come, of every lane: a [32][4], b [32][2], d [32][4]. */
template <typename T> DF_KERNEL(32, 1) multiply_kernel(const uint32_t *a, const uint32_t *b, float *d) {
    const unsigned lane = threadIdx.x;
    uint32_t left[4];
    float sum[4];
    for (int i = 0; i < 4; i++) {
        left[i] = a[lane * 4 + i];
        sum[i] = d[lane * 4 + i];
    }
    multiply_add<T>(sum, left, b[lane * 2], b[lane * 2 + 1]);
    for (int i = 0; i < 4; i++)
        d[lane * 4 + i] = sum[i];
}

/* d += a b through the registers, element i of each fragment at the place that the PTX specification gives it. */
template <typename T> static void multiply(const float a[16][16], const float b[16][8], float d[16][8]) {
    device_array<uint32_t> left(128), right(64);
    device_array<float> sum(128);
    T *const left_at = (T *)left.at, *const right_at = (T *)right.at;
    const auto sum_place = [d](int lane, int i) -> float & {
        const int group = lane >> 2, in_group = lane % 4;
        return d[i < 2 ? group : group + 8][in_group * 2 + (i & 1)];
    };
    for (int lane = 0; lane < 32; lane++) {
        const int group = lane >> 2, in_group = lane % 4;
        for (int i = 0; i < 8; i++) {
            const int row = (i >= 0 && i < 2) || (i >= 4 && i < 6) ? group : group + 8;
            const int column = i < 4 ? in_group * 2 + (i & 1) : in_group * 2 + (i & 1) + 8;
            left_at[lane * 8 + i] = from_float<T>(a[row][column]);
        }
        for (int i = 0; i < 4; i++) {
            const int row = i < 2 ? in_group * 2 + (i & 1) : in_group * 2 + (i & 1) + 8;
            right_at[lane * 4 + i] = from_float<T>(b[row][group]);
        }
        for (int i = 0; i < 4; i++)
            sum.at[lane * 4 + i] = sum_place(lane, i);
    }
    emulator_launch("multiply", multiply_kernel<T>, 1, 32, 0, left.at, right.at, sum.at);
    for (int lane = 0; lane < 32; lane++)
        for (int i = 0; i < 4; i++)
            sum_place(lane, i) = sum.at[lane * 4 + i];
}

template <typename T> static void check_multiply(const char *name, uint64_t seed) {
    float a[16][16], b[16][8], d[16][8], want[16][8];
    emulator_seed(seed);
    /* Whole numbers, another one at every place; all sums are exact. */
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 16; j++)
            a[i][j] = (float)(i * 16 + j - 100);
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 8; j++) {
            b[i][j] = (float)((i * 8 + j) * 37 % 128 - 60);
            d[i][j] = (float)(i * 8 + j) * 1000;
        }
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 8; j++) {
            want[i][j] = d[i][j];
            for (int k = 0; k < 16; k++)
                want[i][j] += a[i][k] * b[k][j];
        }
    multiply<T>(a, b, d);
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 8; j++)
            CHECK(d[i][j] == want[i][j], "%s (%d, %d): %g, not %g", name, i, j, (double)d[i][j], (double)want[i][j]);
    /* Each element of the one side alone, which a mistake in both sides' columns would not survive. */
    for (int k = 0; k < 16; k++) {
        memset(a, 0, sizeof a);
        memset(d, 0, sizeof d);
        for (int i = 0; i < 16; i++)
            a[i][k] = (float)(i + 1);
        multiply<T>(a, b, d);
        for (int i = 0; i < 16; i++)
            for (int j = 0; j < 8; j++)
                CHECK(d[i][j] == (float)(i + 1) * b[k][j], "%s: term %d of (%d, %d)", name, k, i, j);
    }
    /* One rounding at the end: floats would lose the 1. */
    memset(a, 0, sizeof a);
    a[3][0] = a[3][1] = a[3][2] = 1;
    b[0][5] = 0x1p15f;
    b[1][5] = 1;
    b[2][5] = -0x1p15f;
    d[3][5] = 0x1p-12f;
    multiply<T>(a, b, d);
    CHECK(d[3][5] == 1 + 0x1p-12f, "%s: %.9g", name, (double)d[3][5]);
}

static void test_products() {
    for (uint64_t seed : SEEDS) {
        check_multiply<bf16>("bf16", seed);
        check_multiply<fp16>("fp16", seed);
    }
}

/* ---------------------------------------------------------------- asynchronous copies */

enum copy_mistake { NO_MISTAKE, NO_WAIT, NO_COMMIT, NO_BARRIER, LATE_WAIT };

/* Sum over chunks of what a neighbour has copied, two stages deep. */
template <int MISTAKE> DF_KERNEL(64, 1) pipeline_kernel(const uint4 *input, int chunks, unsigned *output) {
    DF_SHARED(shared);
    uint4 *const stages = (uint4 *)shared; /* [2][64] */
    const int thread = (int)threadIdx.x, other = (thread + 33) % 64;
    unsigned sum = 0;
    copy_async(stages + thread, input + thread, true);
    copy_commit();
    for (int i = 0; i < chunks; i++) {
        if (i + 1 < chunks)
            copy_async(stages + (i + 1) % 2 * 64 + thread, input + (i + 1) * 64 + thread, true);
        if (MISTAKE != NO_COMMIT)
            copy_commit();
        if (MISTAKE == LATE_WAIT)
            copy_wait<2>();
        else if (MISTAKE != NO_WAIT)
            copy_wait<1>();
        if (MISTAKE != NO_BARRIER)
            __syncthreads();
        sum += stages[i % 2 * 64 + other].w;
        __syncthreads();
    }
    output[thread] = sum;
}

template <int MISTAKE> static int wrong_sums(uint64_t seed) {
    enum { CHUNKS = 20 };
    device_array<uint4> input(CHUNKS * 64);
    device_array<unsigned> output(64);
    for (unsigned i = 0; i < CHUNKS * 64; i++)
        input.at[i] = make_uint4(0, 0, 0, i * i);
    emulator_seed(seed);
    emulator_launch("pipeline", pipeline_kernel<MISTAKE>, 1, 64, 2 * 64 * 16, input.at, (int)CHUNKS, output.at);
    int wrong = 0;
    for (unsigned i = 0; i < 64; i++) {
        unsigned want = 0;
        for (unsigned chunk = 0; chunk < CHUNKS; chunk++)
            want += input.at[chunk * 64 + (i + 33) % 64].w;
        wrong += output.at[i] != want;
    }
    return wrong;
}

DF_KERNEL(1, 1) invalid_copy_kernel(const void *nowhere, unsigned *before, unsigned *after) {
    DF_SHARED(shared);
    for (int i = 0; i < 4; i++)
        ((unsigned *)shared)[i] = 7;
    copy_async(shared, nowhere, false);
    for (int i = 0; i < 4; i++)
        before[i] = ((unsigned *)shared)[i];
    copy_commit();
    copy_wait<0>();
    for (int i = 0; i < 4; i++)
        after[i] = ((unsigned *)shared)[i];
}

static void test_copies() {
    for (uint64_t seed : SEEDS) {
        CHECK(wrong_sums<NO_MISTAKE>(seed) == 0, "seed %d", (int)seed);
        CHECK(wrong_sums<NO_WAIT>(seed) == 64, "a missing copy_wait does not show");
        CHECK(wrong_sums<NO_COMMIT>(seed) == 64, "a missing copy_commit does not show");
        CHECK(wrong_sums<LATE_WAIT>(seed) == 64, "a copy_wait for too few groups does not show");
        CHECK(wrong_sums<NO_BARRIER>(seed) > 0, "a missing barrier after copy_wait does not show");
    }
    void *const nowhere = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    device_array<unsigned> before(4), after(4);
    emulator_launch("invalid_copy", invalid_copy_kernel, 1, 1, 16, nowhere, before.at, after.at);
    for (int i = 0; i < 4; i++)
        CHECK(before.at[i] == 0xffffffff && after.at[i] == 0, "place %d", i);
    munmap(nowhere, 4096);
}

/* ---------------------------------------------------------------- mistakes that end the process */

/* Runs `mistake` in a child: it must end by the signal, and say the text. */
template <typename F> static void expect_death(const char *name, int signal, const char *text, F mistake) {
    int ends[2];
    if (pipe(ends)) {
        CHECK(false, "%s: no pipe", name);
        return;
    }
    fflush(stdout);
    const pid_t child = fork();
    if (child == 0) {
        const struct rlimit none = {0, 0};
        setrlimit(RLIMIT_CORE, &none);
        alarm(20);
        dup2(ends[1], 2);
        close(ends[0]);
        mistake();
        _exit(0);
    }
    close(ends[1]);
    std::string said;
    char part[256];
    for (ssize_t got; (got = read(ends[0], part, sizeof part)) > 0;)
        said.append(part, (size_t)got);
    close(ends[0]);
    int status = 0;
    waitpid(child, &status, 0);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == signal, "%s: status 0x%x, %s", name, status, said.c_str());
    CHECK(said.find(text) != std::string::npos, "%s: \"%s\" is not in: %s", name, text, said.c_str());
}

DF_KERNEL(32, 1) touch_kernel(float *memory, int64_t at, bool write) {
    if (threadIdx.x == 5) {
        if (write)
            memory[at] = 1;
        else
            memory[0] += ((volatile float *)memory)[at];
    }
}
DF_KERNEL(32, 1) touch_shared_kernel(float *out, int at, bool write) {
    DF_SHARED(shared);
    if (threadIdx.x == 5) {
        if (write)
            ((volatile float *)shared)[at] = 1;
        else
            out[0] = ((volatile float *)shared)[at];
    }
}
DF_KERNEL(64, 1) half_barrier_kernel(int *out) {
    if (threadIdx.x <= 32)
        __syncthreads();
    out[threadIdx.x] = __shfl_xor_sync(0xffffffff, 1, 1);
}
DF_KERNEL(64, 1) left_at_barrier_kernel(int *out) {
    if (threadIdx.x == 3)
        __syncthreads();
    out[threadIdx.x] = __shfl_xor_sync(0xffffffff, 1, 1);
}
DF_KERNEL(64, 1) leave_warp_kernel(int *out) {
    if (threadIdx.x == 35)
        return;
    if (threadIdx.x < 32)
        __syncthreads();
    out[threadIdx.x] = __shfl_xor_sync(0xffffffff, 1, 1);
}
DF_KERNEL(32, 1) two_operations_kernel(int *out) {
    if (threadIdx.x == 7)
        __syncwarp();
    else
        out[threadIdx.x] = __shfl_xor_sync(0xffffffff, 1, 1);
}
DF_KERNEL(32, 1) two_masks_kernel(int *out) {
    out[threadIdx.x] = __shfl_xor_sync(threadIdx.x == 7 ? 0xff : 0xffffffff, 1, 1);
}
DF_KERNEL(32, 1) other_mask_kernel() {
    __syncwarp(2);
}
DF_KERNEL(32, 1) few_loads_kernel() {
    DF_SHARED(shared);
    uint32_t r[4];
    load_matrices(r, shared);
}
DF_KERNEL(32, 1) load_from_kernel(int offset) {
    DF_SHARED(shared);
    uint32_t r[4];
    load_matrices(r, shared + offset);
}
DF_KERNEL(32, 1) copy_kernel(const unsigned char *from, int to) {
    DF_SHARED(shared);
    if (threadIdx.x == 5) {
        copy_async(shared + to, from, true);
        copy_commit();
        copy_wait<0>();
    }
}
DF_KERNEL(32, 1) nothing_kernel() {}

static void overflow_stack(volatile int *depth) {
    volatile char room[1024];
    room[*depth % 1024] = (char)*depth;
    *depth = *depth + 1;
    if (*depth < 1000)
        overflow_stack(depth);
    *depth = *depth - room[*depth % 1024]; /* not a jump instead of a call */
}
DF_KERNEL(32, 1) deep_kernel(int *depth) {
    overflow_stack(depth);
}

static void launch_nothing(dim3 grid, dim3 block, size_t shared) {
    emulator_launch("nothing", nothing_kernel, grid, block, shared);
}

static void test_memory_mistakes() {
    for (size_t count : {1u, 25u, 1024u, 5000u}) {
        const int64_t end = (int64_t)(count + 3) / 4 * 4; /* whole 16 bytes */
        for (int write = 0; write < 2; write++) {
            const auto touch = [=](int64_t at) {
                float *const memory = (float *)emulator_allocate(count * sizeof(float));
                emulator_launch("touch", touch_kernel, 1, 32, 0, memory, at, write == 1);
                emulator_free(memory);
            };
            char text[100];
            snprintf(text, sizeof text, "offset %d of an allocation of %d bytes", (int)end * 4, (int)count * 4);
            expect_death("beyond the end", SIGSEGV, text, [=] { touch(end); });
            expect_death("beyond the end", SIGSEGV, "kernel touch, launch", [=] { touch(end + 1000); });
            expect_death("a page before", SIGSEGV, "thread (5, 0, 0)", [=] { touch(-1024); });
        }
        if (count % 1024)
            expect_death("before", SIGABRT, "written at offset -", [=] {
                float *const memory = (float *)emulator_allocate(count * sizeof(float));
                emulator_launch("touch", touch_kernel, 1, 32, 0, memory, -1, true);
                emulator_free(memory);
            });
        if (count % 4)
            expect_death("in the last 16 bytes", SIGABRT, "written at offset", [=] {
                float *const memory = (float *)emulator_allocate(count * sizeof(float));
                emulator_launch("touch", touch_kernel, 1, 32, 0, memory, end - 1, true);
                emulator_free(memory);
            });
    }
    for (size_t shared : {0u, 16u, 1024u, 4096u, 5000u, 227u << 10}) {
        const int start_of_end = (int)((shared + 1023) / 1024 * 256), end = (int)((shared + 15) / 16 * 4);
        const auto touch = [=](int at, bool write) {
            device_array<float> out(4);
            emulator_launch("touch_shared", touch_shared_kernel, 1, 32, shared, out.at, at, write);
            if (!write)
                _exit(out.at[0] != out.at[0]); /* what nobody wrote is NaN */
        };
        expect_death("shared read", SIGSEGV, "shared memory", [=] { touch(start_of_end, false); });
        expect_death("shared write", SIGSEGV, "block (0, 0, 0), thread (5, 0, 0)", [=] { touch(start_of_end, true); });
        expect_death("before shared", SIGSEGV, "shared memory", [=] { touch(-1024, true); });
        if (shared % 1024)
            expect_death("behind shared", SIGABRT, "shared memory was written", [=] { touch(end, true); });
        if (shared % 4096 && 4096 == sysconf(_SC_PAGESIZE))
            expect_death("just before shared", SIGABRT, "written at offset -4", [=] { touch(-1, true); });
    }
    expect_death("freed twice", SIGABRT, "was not allocated", [] {
        void *const memory = emulator_allocate(100);
        emulator_free(memory);
        emulator_free(memory);
    });
    expect_death("used after it was freed", SIGSEGV, "kernel touch", [] {
        float *const memory = (float *)emulator_allocate(100);
        emulator_free(memory);
        emulator_launch("touch", touch_kernel, 1, 32, 0, memory, 0, true);
    });
    expect_death("stack", SIGSEGV, "beyond a thread's stack", [] {
        device_array<int> depth(1);
        *depth.at = 0;
        emulator_launch("deep", deep_kernel, 1, 32, 0, depth.at);
    });
}

static void test_waiting_mistakes() {
    for (uint64_t seed : SEEDS) {
        emulator_seed(seed);
        device_array<int> out(64);
        const auto run = [&out](const char *name, void (*kernel)(int *), unsigned threads) {
            emulator_launch(name, kernel, dim3(2), threads, 0, out.at);
        };
        expect_death("half at a barrier", SIGABRT, "33 at __syncthreads, first thread (0, 0, 0)",
                     [=] { run("half_barrier", half_barrier_kernel, 64); });
        expect_death("one at a barrier", SIGABRT, "kernel left_at_barrier",
                     [=] { run("left_at_barrier", left_at_barrier_kernel, 64); });
        expect_death("a lane has left", SIGABRT, "ended", [=] { run("leave_warp", leave_warp_kernel, 64); });
        expect_death("two operations", SIGABRT, "__syncwarp",
                     [=] { run("two_operations", two_operations_kernel, 32); });
        expect_death("two masks", SIGABRT, "0x000000ff", [=] { run("two_masks", two_masks_kernel, 32); });
        expect_death("not in its mask", SIGABRT, "without the calling lane",
                     [] { emulator_launch("other_mask", other_mask_kernel, 1, 32, 0); });
    }
    emulator_seed(0);
    expect_death("a load of few", SIGABRT, "less than 32", [] { emulator_launch("", few_loads_kernel, 1, 31, 16); });
    expect_death("a load not aligned", SIGABRT, "not aligned",
                 [] { emulator_launch("", load_from_kernel, 1, 32, 64, 8); });
    expect_death("a load from outside", SIGABRT, "outside",
                 [] { emulator_launch("", load_from_kernel, 1, 32, 64, 64); });
    const auto copy = [](size_t from, int to) {
        device_array<unsigned char> memory(64);
        emulator_launch("copy", copy_kernel, 1, 32, 64, memory.at + from, to);
    };
    expect_death("a copy to nowhere", SIGABRT, "outside", [=] { copy(0, 64); });
    expect_death("a copy not aligned", SIGABRT, "not aligned", [=] { copy(0, 8); });
    expect_death("a copy from a place not aligned", SIGABRT, "not aligned", [=] { copy(8, 0); });
    expect_death("a copy from beyond the end", SIGSEGV, "offset 64", [=] { copy(64, 0); });
}

static void test_launch_mistakes() {
    launch_nothing(dim3(1, 65535, 1), 1, 227 << 10);
    expect_death("no blocks", SIGABRT, "no threads", [] { launch_nothing(0, 32, 0); });
    expect_death("no threads", SIGABRT, "no threads", [] { launch_nothing(1, dim3(32, 0), 0); });
    expect_death("many blocks", SIGABRT, "too large", [] { launch_nothing(dim3(1, 65536), 32, 0); });
    expect_death("many blocks", SIGABRT, "too large", [] { launch_nothing(0x80000000, 32, 0); });
    expect_death("many threads", SIGABRT, "too large", [] { launch_nothing(1, dim3(32, 33), 0); });
    expect_death("much shared memory", SIGABRT, "232449 bytes", [] { launch_nothing(1, 32, (227 << 10) + 1); });
}

/* ---------------------------------------------------------------- the rest */

static void test_host_threads() {
    emulator_seed(3);
    std::vector<std::thread> host;
    bool right[4] = {};
    for (int t = 0; t < 4; t++)
        host.emplace_back([&right, t] {
            const unsigned size = 64 + 32 * (unsigned)t;
            bool all = true;
            for (int round = 0; round < 50; round++) {
                device_array<int> input(size), output(size);
                for (unsigned i = 0; i < size; i++)
                    input.at[i] = t * 1000 + (int)i;
                emulator_launch("reverse", reverse_kernel<true>, 1, size, size * sizeof(int), input.at, output.at, 1);
                for (unsigned i = 0; i < size; i++)
                    all = all && output.at[i] == t * 1000 + (int)(size - 1 - i) + 1;
            }
            right[t] = all;
        });
    for (std::thread &one : host)
        one.join();
    for (int t = 0; t < 4; t++)
        CHECK(right[t], "host thread %d", t);
}

static void test_runtime() {
    const size_t before = emulator_allocated();
    int count = 0, device = -1, value = 0;
    CHECK(cudaGetDeviceCount(&count) == cudaSuccess && count == 1, "%d devices", count);
    CHECK(cudaSetDevice(0) == cudaSuccess && cudaGetDevice(&device) == cudaSuccess && device == 0, "device %d", device);
    CHECK(cudaSetDevice(1) == cudaErrorInvalidDevice && cudaGetLastError() == cudaErrorInvalidDevice, "device 1");
    CHECK(cudaDeviceGetAttribute(&value, cudaDevAttrComputeCapabilityMajor, 0) == cudaSuccess && value == 8, "8.0");
    CHECK(cudaFuncSetAttribute(nothing_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, 1) == cudaSuccess, "set");

    float *memory = NULL, values[10], back[10];
    for (int i = 0; i < 10; i++)
        values[i] = (float)i;
    CHECK(cudaMalloc(&memory, sizeof values) == cudaSuccess && memory && memory[9] != memory[9], "cudaMalloc");
    CHECK(cudaMemcpy(memory, values, sizeof values, cudaMemcpyHostToDevice) == cudaSuccess, "to the device");
    CHECK(cudaMemcpyAsync(back, memory, sizeof back, cudaMemcpyDeviceToHost) == cudaSuccess, "from the device");
    CHECK(memcmp(values, back, sizeof back) == 0, "there and back");
    CHECK(cudaMemset(memory + 1, 0, 4) == cudaSuccess && memory[1] == 0 && memory[2] == 2, "cudaMemset");
    CHECK(cudaMemcpy(values, back, sizeof back, cudaMemcpyHostToDevice) == cudaErrorInvalidValue, "not the device's");
    CHECK(cudaMemcpy(memory + 1, back, sizeof back, cudaMemcpyHostToDevice) == cudaErrorInvalidValue, "beyond the end");
    CHECK(cudaMemset(back, 0, 4) == cudaErrorInvalidValue, "not the device's");
    CHECK(cudaPeekAtLastError() == cudaErrorInvalidValue && cudaGetLastError() == cudaErrorInvalidValue &&
              cudaGetLastError() == cudaSuccess,
          "the last error");
    CHECK(emulator_allocated() == before + sizeof values, "%zu bytes", emulator_allocated());

    void *more = NULL;
    size_t available = 0, total = 0;
    emulator_fail_allocation(before + 1000);
    CHECK(cudaMemGetInfo(&available, &total) == cudaSuccess && available == 960, "%zu available", available);
    CHECK(cudaMalloc(&more, 961) == cudaErrorMemoryAllocation && !more, "above the limit");
    CHECK(strcmp(cudaGetErrorString(cudaGetLastError()), "out of memory") == 0, "its text");
    CHECK(cudaMalloc(&more, 960) == cudaSuccess && more, "up to the limit");
    emulator_fail_allocation(0);
    CHECK(cudaFree(more) == cudaSuccess && cudaFree(memory) == cudaSuccess && cudaFree(NULL) == cudaSuccess, "free");
    CHECK(cudaFree(memory) == cudaErrorInvalidValue, "twice");
    CHECK(strcmp(cudaGetErrorName(cudaGetLastError()), "cudaErrorInvalidValue") == 0, "its name");
    CHECK(emulator_allocated() == before, "%zu bytes", emulator_allocated());

    cudaStream_t stream = NULL;
    cudaEvent_t start = NULL, end = NULL;
    float milliseconds = -1;
    CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess && stream, "stream");
    CHECK(cudaEventCreateWithFlags(&start, cudaEventDefault) == cudaSuccess && start, "event");
    CHECK(cudaEventCreateWithFlags(&end, cudaEventDefault) == cudaSuccess && end, "event");
    CHECK(cudaEventRecord(start, stream) == cudaSuccess && cudaEventRecord(end, stream) == cudaSuccess, "record");
    CHECK(cudaStreamWaitEvent(stream, end) == cudaSuccess && cudaEventSynchronize(end) == cudaSuccess, "wait");
    CHECK(cudaEventElapsedTime(&milliseconds, start, end) == cudaSuccess && milliseconds >= 0, "elapsed time");
    CHECK(cudaStreamSynchronize(stream) == cudaSuccess && cudaStreamDestroy(stream) == cudaSuccess, "stream");
    CHECK(cudaEventDestroy(start) == cudaSuccess && cudaEventDestroy(end) == cudaSuccess, "event");
}

/* ---------------------------------------------------------------- what it costs */

DF_KERNEL(256, 1) repeat_kernel(int what, int times, float *out) {
    DF_SHARED(shared);
    uint32_t r[4] = {0, 0, 0, 0};
    float d[4] = {0, 0, 0, 0};
    for (int i = 0; i < times; i++) {
        if (what == 0)
            d[0] = __shfl_xor_sync(0xffffffff, d[0], 1);
        else if (what == 1)
            load_matrices(r, shared + threadIdx.x % 32 * 16);
        else if (what == 2)
            multiply_add<bf16>(d, r, r[0], r[1]);
        else if (what == 3)
            multiply_add<fp16>(d, r, r[0], r[1]);
        else
            __syncthreads();
    }
    out[threadIdx.x] = d[0] + (float)r[0];
}

static double now() {
    timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static void test_cost() {
    const char *const names[] = {"shuffle", "load_matrices", "multiply_add bf16", "multiply_add fp16", "__syncthreads"};
    device_array<float> out(256);
    for (uint64_t seed : {0, 2})
        for (int what = 0; what < 5; what++) {
            const int times = 2000;
            emulator_seed(seed);
            emulator_launch("repeat", repeat_kernel, 1, 256, 512, what, 10, out.at);
            const double start = now();
            emulator_launch("repeat", repeat_kernel, 1, 256, 512, what, times, out.at);
            const double each = (now() - start) / (times * 8) * 1e6;
            printf("%s: %.2f us for a warp, seed %d\n", names[what], each, (int)seed);
            CHECK(each < 100, "%g us", each); /* a switch that asks the system takes longer, but not that long */
        }
    emulator_seed(0);
}

static void run_test(const char *name, void (*test)()) {
    const int failed = check_failed;
    emulator_seed(0);
    test();
    printf("%s %s\n", check_failed == failed ? "ok" : "FAILED", name);
}

int main() {
    run_test("formats", test_formats);
    run_test("functions", test_functions);
    run_test("launches", test_launches);
    run_test("barriers", test_barriers);
    run_test("shuffles", test_shuffles);
    run_test("missing_warp_barrier", test_missing_warp_barrier);
    run_test("loads", test_loads);
    run_test("products", test_products);
    run_test("copies", test_copies);
    run_test("launch_mistakes", test_launch_mistakes);
    run_test("waiting_mistakes", test_waiting_mistakes);
    run_test("memory_mistakes", test_memory_mistakes);
    run_test("runtime", test_runtime);
    run_test("host_threads", test_host_threads);
    run_test("cost", test_cost);
    return check_report("test_emulator");
}
