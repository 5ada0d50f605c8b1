/* What the host side of the CUDA engine shares: a model's steps, and how one is run. */
#ifndef DIFFENCE_CUDA_ENGINE_H
#define DIFFENCE_CUDA_ENGINE_H

#include "diffence_cuda.h"

#include "core/plan.h"
#include "kernels.h"

#include <atomic>
#include <vector>

/* DF_OK, or what CUDA says: no memory, or the error's name and what was being done. */
df_code check(cudaError_t status, const char *what, df_error *error);

/* Makes a GPU the current one, and afterwards the one that was. */
class device_scope {
  public:
    explicit device_scope(int32_t device) {
        status = cudaGetDevice(&before);
        if (status == cudaSuccess && before != device)
            status = cudaSetDevice(device);
    }
    ~device_scope() {
        if (before >= 0)
            cudaSetDevice(before);
    }
    device_scope(const device_scope &) = delete;
    device_scope &operator=(const device_scope &) = delete;
    cudaError_t status;

  private:
    int before = -1;
};

/* Which kernel a step takes. In float32 always the plain or exact one. */
enum kernel_choice {
    MOVE,        /* whatever its kind says; there is one */
    CONV_TILED,  /* tensor cores */
    CONV_PLAIN,  /* few output channels, of which a tile would waste most; vectors */
    CONV_PLANAR, /* the same as the last step, which writes the caller's layout at once */
    ATTENTION_TILED,
    ATTENTION_PLAIN /* heads of more than 256 dimensions, or of a number that no 16-byte words hold */
};

struct cuda_step {
    df_plan_step plan;
    kernel_choice kernel;
    bool of_time;        /* depends on nothing but the time step: computed once, for all of them */
    bool partials;       /* a group norm reads what it makes */
    bool separate;       /* and its kernel leaves none: another one does */
    size_t weight, bias; /* bytes from the weights' beginning */
};

/* A value that a step reads image by image although it depends on the time step only; with its partials, like others. */
struct gathered {
    int32_t value;
    size_t offset; /* in units, of one image, behind the arena's others */
};

struct df_cuda_model {
    std::atomic<int32_t> references{1};
    int32_t device = 0;
    df_cuda_precision precision = DF_CUDA_FP32;
    bool hopper = false;
    df_shape shape = {};
    int32_t time_steps = 0;
    df_plan plan = {};
    std::vector<cuda_step> steps;
    std::vector<df_shape> shapes; /* of every value, as its step makes it */
    std::vector<int64_t> table;   /* of every value that depends on time only: its floats' place in `tables`, else -1 */
    std::vector<int32_t> segments; /* of every value's partials */
    std::vector<gathered> gathers;
    int64_t units = 0;  /* of one image in the arena: values of the precision's type */
    int64_t pixels = 1; /* the most of one value, which bound the batch */
    unsigned char *weights = nullptr;
    float *tables = nullptr; /* [time_steps][pitch] of each value that depends on time only */
    size_t weight_bytes = 0, table_bytes = 0;
};

static inline size_t bytes_of(df_cuda_precision precision) {
    return precision == DF_CUDA_FP32 ? 4 : 2;
}

/* Of a tiled convolution's packed weights, in one phase. */
static inline int32_t weight_rows(const df_call &call) {
    return (int32_t)df_round_up(call.out_channels, tile_columns(call.out_channels));
}

/* Where a run finds its values. */
struct run_context {
    int64_t images;
    int32_t batch;        /* places are multiplied by it */
    unsigned char *arena; /* of the precision's type; of floats while the tables are made */
    const float *x;       /* planar, what IMPORT reads */
    float *eps;           /* planar, what EXPORT writes */
    const int32_t *time;
    cudaStream_t stream;
};

/* One step, with the kernels of the model's precision. */
cudaError_t run_step(const df_cuda_model *model, const cuda_step &step, const run_context &run);
/* The rows of `gathers`: before the steps. */
cudaError_t gather_values(const df_cuda_model *model, const run_context &run);
/* One step of those that depend on time only, for all time steps at once, into the tables. */
cudaError_t run_time_step(const df_cuda_model *model, const cuda_step &step);

#endif
