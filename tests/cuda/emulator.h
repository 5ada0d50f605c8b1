/* Runs the CUDA kernels on a CPU, for tests where no GPU is: what csrc/cuda/device.h declares, and as much of CUDA as
 * the kernels and their host code use, under CUDA's names.
 *
 * Blocks run one after another. Each thread of a block runs on a stack of its own until it has to wait for others; the
 * seed decides who goes first. What a GPU would only sometimes punish is punished here every time: memory that nobody
 * wrote is 0xFF (NaN in every format), memory that does not exist is a segmentation fault with a message, an
 * asynchronous copy arrives as late as it may, and threads that wait for each other forever end the process.
 */
#ifndef DF_EMULATED
#error "the emulator is for code that is compiled with DF_EMULATED"
#endif
#ifndef DIFFENCE_CUDA_DEVICE_H
#include "cuda/device.h" /* which includes this file again, after its 16-bit numbers */
#elif !defined(DIFFENCE_TEST_EMULATOR_H)
#define DIFFENCE_TEST_EMULATOR_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <type_traits>

#define DF_DEVICE                  __attribute__((unused)) inline
#define DF_KERNEL(threads, blocks) __attribute__((unused)) static void
/* Aligned to 1024 bytes. What is between the end and the next multiple of 1024 is checked when the block ends. */
#define DF_SHARED(name)            [[maybe_unused]] unsigned char *const name = emulator_shared()

/* ---------------------------------------------------------------- for the tests */

/* Order of a block's threads and of a grid's blocks. 0: ascending, 1: descending, others: pseudo-random. */
void emulator_seed(uint64_t seed);

/* Filled with 0xFF. It ends, rounded up to 16 bytes, at an unreadable page; the page before its first page is
 * unreadable too, and what is between is checked by emulator_free. NULL where the system has no more. */
void *emulator_allocate(size_t bytes);
void emulator_free(void *memory);
/* Bytes that are allocated now, with cudaMalloc or emulator_allocate. */
size_t emulator_allocated();
/* cudaMalloc fails once more than `limit` bytes would be allocated; 0: never. */
extern "C" void emulator_fail_allocation(size_t limit); /* for tests in C too */

/* ---------------------------------------------------------------- CUDA's types */

struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct alignas(8) int2 {
    int x, y;
};
struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) int4 {
    int x, y, z, w;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
inline int2 make_int2(int x, int y) {
    return {x, y};
}
inline uint2 make_uint2(unsigned x, unsigned y) {
    return {x, y};
}
inline float2 make_float2(float x, float y) {
    return {x, y};
}
inline int4 make_int4(int x, int y, int z, int w) {
    return {x, y, z, w};
}
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) {
    return {x, y, z, w};
}
inline float4 make_float4(float x, float y, float z, float w) {
    return {x, y, z, w};
}

/* ---------------------------------------------------------------- what the templates below call */

typedef void (*emulator_call)(void *closure);
void emulator_run(const char *name, dim3 grid, dim3 block, size_t shared, emulator_call call, void *closure);
unsigned char *emulator_shared();
/* bits: of a value of `size` bytes, then of the result; all ones where CUDA leaves it undefined. */
void emulator_shuffle(bool exclusive_or, size_t size, uint32_t mask, uint64_t *bits, int lane);
void emulator_copy_wait(unsigned under_way);
void emulator_load_matrices(bool transposed, uint32_t r[4], const void *row);
void emulator_multiply_add(bool half, float d[4], const uint32_t a[4], uint32_t b0, uint32_t b1);

/* What kernel<<<grid, block, shared>>>(arguments...) does, complete when it returns. Host threads take turns. */
template <typename... P, typename... A>
void emulator_launch(const char *name, void (*kernel)(P...), dim3 grid, dim3 block, size_t shared, A... arguments) {
    static_assert((sizeof(P) + ... + 0) <= 4096, "CUDA passes no more to a kernel");
    auto run = [&] { kernel(arguments...); };
    emulator_run(
        name, grid, block, shared, [](void *closure) { (*(decltype(run) *)closure)(); }, &run);
}

/* ---------------------------------------------------------------- CUDA's kernel language */

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;

void __syncthreads();
void __syncwarp(uint32_t mask = 0xffffffff);

template <typename T> inline T emulator_shuffle_value(bool exclusive_or, uint32_t mask, T value, int lane) {
    static_assert(std::is_arithmetic<T>::value && sizeof(T) >= 4, "CUDA has no shuffle for this type");
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof value);
    emulator_shuffle(exclusive_or, sizeof value, mask, &bits, lane);
    memcpy(&value, &bits, sizeof value);
    return value;
}
template <typename T> inline T __shfl_xor_sync(uint32_t mask, T value, int lane_mask) {
    return emulator_shuffle_value(true, mask, value, lane_mask);
}
template <typename T> inline T __shfl_sync(uint32_t mask, T value, int lane) {
    return emulator_shuffle_value(false, mask, value, lane);
}

/* Plain: no two threads run at once. */
inline int atomicMin(int *at, int value) {
    const int before = *at;
    *at = value < before ? value : before;
    return before;
}
template <typename T> inline T emulator_atomic_add(T *at, T value) {
    const T before = *at;
    *at = before + value;
    return before;
}
inline int atomicAdd(int *at, int value) {
    return (int)emulator_atomic_add((unsigned *)at, (unsigned)value);
}
inline unsigned atomicAdd(unsigned *at, unsigned value) {
    return emulator_atomic_add(at, value);
}
inline float atomicAdd(float *at, float value) {
    return emulator_atomic_add(at, value);
}

template <typename T> inline T __ldg(const T *from) {
    return *from;
}

inline float __uint_as_float(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
inline uint32_t __float_as_uint(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}
inline float __fdividef(float x, float y) {
    return x / y;
}
/* A macro, because some C libraries have a function of this name. */
#define rsqrtf(x)                  emulator_rsqrtf(x)
inline float emulator_rsqrtf(float x) {
    return (float)(1.0 / sqrt((double)x));
}

#define EMULATOR_MIN_MAX(type)                                                                                         \
    inline type min(type a, type b) {                                                                                  \
        return b < a ? b : a;                                                                                          \
    }                                                                                                                  \
    inline type max(type a, type b) {                                                                                  \
        return a < b ? b : a;                                                                                          \
    }
EMULATOR_MIN_MAX(int)
EMULATOR_MIN_MAX(unsigned)
EMULATOR_MIN_MAX(long)
EMULATOR_MIN_MAX(unsigned long)
EMULATOR_MIN_MAX(long long)
EMULATOR_MIN_MAX(unsigned long long)
#undef EMULATOR_MIN_MAX
/* As in CUDA, of a NaN and a number the number. */
inline float min(float a, float b) {
    return fminf(a, b);
}
inline float max(float a, float b) {
    return fmaxf(a, b);
}
inline double min(double a, double b) {
    return fmin(a, b);
}
inline double max(double a, double b) {
    return fmax(a, b);
}

/* ---------------------------------------------------------------- what device.h declares */

inline float to_float(float x) {
    return x;
}
inline float to_float(bf16 x) {
    return __uint_as_float((uint32_t)x.bits << 16);
}
inline float to_float(fp16 x) {
    const uint32_t sign = (uint32_t)(x.bits & 0x8000) << 16, rest = (uint32_t)(x.bits & 0x7fff) << 13;
    if (rest >= 0x7c00 << 13) /* infinity or NaN */
        return __uint_as_float(sign | rest | 0x7f800000);
    /* The exponents' zeros are 112 apart; a product with a power of two is exact, of subnormal numbers too. */
    return __uint_as_float(sign | __float_as_uint(__uint_as_float(rest) * 0x1p112f));
}

/* Bits of a float, its last `drop` bits rounded off, ties to even; a carry into the exponent is right. */
inline uint32_t emulator_round(uint32_t bits, int drop) {
    return (bits + ((1u << (drop - 1)) - 1) + (bits >> drop & 1)) >> drop;
}
inline bf16 emulator_to_bf16(float x) {
    return {(uint16_t)(x != x ? 0x7fff : emulator_round(__float_as_uint(x), 16))}; /* 0x7fff: the GPU's NaN */
}
inline fp16 emulator_to_fp16(float x) {
    const uint32_t bits = __float_as_uint(x), sign = bits >> 16 & 0x8000, size = bits & 0x7fffffff;
    if (x != x)
        return {0x7fff};
    if (size >= 0x477ff000) /* half way from the largest number, 65504, to 65536, and above */
        return {(uint16_t)(sign | 0x7c00)};
    if (size >= 0x38800000) /* 2^-14: a normal number there too */
        return {(uint16_t)(sign | emulator_round(size - (112u << 23), 13))};
    if (size < 0x33000000) /* below 2^-25, half of the smallest */
        return {(uint16_t)sign};
    const int exponent = (int)(size >> 23); /* 102..112 */
    return {(uint16_t)(sign | emulator_round((size & 0x7fffff) | 0x800000, 126 - exponent))};
}
template <typename T> inline T from_float(float x) {
    static_assert(std::is_same<T, float>::value || std::is_same<T, bf16>::value || std::is_same<T, fp16>::value,
                  "float, bf16 or fp16");
    if constexpr (std::is_same<T, bf16>::value)
        return emulator_to_bf16(x);
    else if constexpr (std::is_same<T, fp16>::value)
        return emulator_to_fp16(x);
    else
        return x;
}

inline float fast_exp2(float x) {
    return exp2f(x);
}
inline float fast_exp(float x) {
    return expf(x);
}

/* Offset in the block's shared memory. */
uint32_t shared_address(const void *shared);

/* The destination is 0xFF until the copy_wait of this thread that covers the copy. */
void copy_async(void *shared, const void *global, bool valid);
void copy_commit();
template <int N> inline void copy_wait() {
    static_assert(N >= 0, "a number of groups");
    emulator_copy_wait((unsigned)N);
}

inline void load_matrices(uint32_t r[4], const void *row) {
    emulator_load_matrices(false, r, row);
}
inline void load_matrices_transposed(uint32_t r[4], const void *row) {
    emulator_load_matrices(true, r, row);
}
/* The products exactly, their sum with d in double, rounded once. */
template <typename T> inline void multiply_add(float d[4], const uint32_t a[4], const uint32_t b0, const uint32_t b1) {
    static_assert(std::is_same<T, bf16>::value || std::is_same<T, fp16>::value, "bf16 or fp16");
    emulator_multiply_add(std::is_same<T, fp16>::value, d, a, b0, b1);
}

/* ---------------------------------------------------------------- the CUDA runtime
 *
 * One device of compute capability 8.0. Everything is complete when the call returns. Of a copy's two sides, the one
 * that is the device's must lie inside an allocation. */

enum cudaError_t {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorNoDevice = 100,
    cudaErrorInvalidDevice = 101
};
enum cudaMemcpyKind {
    cudaMemcpyHostToHost = 0,
    cudaMemcpyHostToDevice = 1,
    cudaMemcpyDeviceToHost = 2,
    cudaMemcpyDeviceToDevice = 3,
    cudaMemcpyDefault = 4
};
enum cudaDeviceAttr {
    cudaDevAttrMultiProcessorCount = 16,
    cudaDevAttrComputeCapabilityMajor = 75,
    cudaDevAttrComputeCapabilityMinor = 76,
    cudaDevAttrMaxSharedMemoryPerBlockOptin = 97
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
enum { cudaStreamDefault = 0, cudaStreamNonBlocking = 1 };
enum { cudaEventDefault = 0, cudaEventDisableTiming = 2 };
typedef void *cudaStream_t;
typedef void *cudaEvent_t;

cudaError_t cudaGetLastError();
cudaError_t cudaPeekAtLastError();
const char *cudaGetErrorName(cudaError_t error);
const char *cudaGetErrorString(cudaError_t error);

cudaError_t cudaGetDeviceCount(int *count);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetDevice(int *device);
cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int device);
cudaError_t cudaMemGetInfo(size_t *available, size_t *total);
template <typename F> inline cudaError_t cudaFuncSetAttribute(F *, cudaFuncAttribute, int) {
    return cudaSuccess;
}

cudaError_t cudaMalloc(void **memory, size_t bytes);
template <typename T> inline cudaError_t cudaMalloc(T **memory, size_t bytes) {
    return cudaMalloc((void **)memory, bytes);
}
cudaError_t cudaFree(void *memory);
cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind);
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream = NULL);
cudaError_t cudaMemset(void *memory, int value, size_t bytes);
cudaError_t cudaMemsetAsync(void *memory, int value, size_t bytes, cudaStream_t stream = NULL);

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags = 0);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream = NULL);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t start, cudaEvent_t end);

#endif
