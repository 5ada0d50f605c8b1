/* The C API of the CUDA engine: the core's programs on a GPU. No Python, no CUDA header.
 *
 * Pointers named device_* are to memory of the model's GPU, all others to the host's. A stream is a cudaStream_t; work is
 * put on it and not waited for, but where a comment says so. Codes and errors are the core's: DF_UNSUPPORTED where there
 * is no driver or GPU, DF_OUT_OF_MEMORY where the GPU's memory does not suffice, DF_SYSTEM for what the driver reports.
 */
#ifndef DIFFENCE_CUDA_H
#define DIFFENCE_CUDA_H

#include "diffence.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What convolutions and attention multiply, and what activations are stored in; sums are float32. DF_CUDA_FP32 is for
 * comparisons: no tensor cores, no TF32. */
typedef enum df_cuda_precision { DF_CUDA_FP32, DF_CUDA_BF16, DF_CUDA_FP16, DF_CUDA_PRECISION_COUNT } df_cuda_precision;

/* GPUs that can run it (compute capability 8.0 and newer are counted, and device numbers are CUDA's own). */
df_code df_cuda_device_count(int32_t *count, df_error *error);

typedef struct df_cuda_options {
    int32_t device; /* CUDA's number of the GPU */
    df_cuda_precision precision;
    bool hopper; /* Hopper's own instructions where the GPU and this build have them; the same tiles without them */
} df_cuda_options;

typedef struct df_cuda_model df_cuda_model;

df_code df_cuda_model_create(const df_program *program, const df_cuda_options *options, df_cuda_model **model,
                             df_error *error);
void df_cuda_model_retain(df_cuda_model *model);
void df_cuda_model_release(df_cuda_model *model);
int32_t df_cuda_model_device(const df_cuda_model *model);
df_cuda_precision df_cuda_model_precision(const df_cuda_model *model);
bool df_cuda_model_hopper(const df_cuda_model *model); /* whether Hopper's instructions are used */
void df_cuda_model_shape(const df_cuda_model *model, int32_t *channels, int32_t *height, int32_t *width);
int32_t df_cuda_model_time_steps(const df_cuda_model *model);

typedef struct df_cuda_memory { /* bytes on the GPU */
    size_t weights;             /* shared by the engines of one model */
    size_t arena;               /* of one engine: everything that a run touches */
} df_cuda_memory;

typedef struct df_cuda_engine df_cuda_engine;

df_code df_cuda_engine_memory(const df_cuda_model *model, int32_t batch, df_cuda_memory *memory, df_error *error);
/* One engine runs one call at a time (the caller serialises); calls on different streams wait for each other on the GPU. */
df_code df_cuda_engine_create(df_cuda_model *model, int32_t batch, df_cuda_engine **engine, df_error *error);
void df_cuda_engine_destroy(df_cuda_engine *engine); /* waits for its work */
int32_t df_cuda_engine_batch(const df_cuda_engine *engine);

/* eps[count,C,H,W] = network(x[count,C,H,W], t[count]), as df_engine_predict; t must lie in 0..steps-1, which is the
 * caller's to see to (NULL where the program uses no time). */
df_code df_cuda_predict(df_cuda_engine *engine, int64_t count, const float *device_x, const int32_t *device_t,
                        float *device_eps, void *stream, df_error *error);

/* As df_reconstruct. hashes: 16 bytes an image. *bad must be INT32_MAX or more than any item; it becomes the smallest
 * item whose result is not finite. The poll is asked between batches. */
df_code df_cuda_reconstruct(df_cuda_engine *engine, const df_sampler *sampler, const float *device_images,
                            const uint8_t *device_hashes, int64_t count, const int32_t *device_index,
                            const int32_t *device_draws, const float *device_noise, float *device_out,
                            int32_t *device_bad, void *stream, const df_interrupt *interrupt, df_error *error);

/* Runs the network once on the first `images` <= batch of its memory, waiting for it, and times every step. The records'
 * seconds are the GPU's; their number is df_cuda_engine_step_count. */
int32_t df_cuda_engine_step_count(const df_cuda_engine *engine);
df_code df_cuda_engine_profile(df_cuda_engine *engine, int32_t images, df_step_profile *steps, df_error *error);

/* df_content_hash of images[count,C,H,W], 16 bytes each. */
df_code df_cuda_content_hashes(int32_t device, const uint8_t key[16], int64_t count, int32_t channels, int32_t height,
                               int32_t width, const float *device_images, uint8_t *device_hashes, void *stream,
                               df_error *error);
/* df_phi of float32 logits[rows,classes]; *bad as above, the smallest row without a finite phi. */
df_code df_cuda_phi(int32_t device, int64_t rows, int32_t classes, const float *device_logits, df_mode mode,
                    double *device_phi, int32_t *device_predicted, int32_t *device_bad, void *stream, df_error *error);

#ifdef __cplusplus
}
#endif

#endif
