/* The C API of the core: C11, no Python, no CUDA.
 *
 * Every function that can fail returns a df_code and, when it is not DF_OK, fills the df_error that it was given.
 * Nothing here prints, exits or aborts. Objects are created by *_create and freed by *_destroy (NULL is allowed).
 * Images and network inputs are float32, C-contiguous, NCHW at this boundary; the engine's own layout is private.
 */
#ifndef DIFFENCE_H
#define DIFFENCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---------------------------------------------------------------- errors */

typedef enum df_code {
    DF_OK = 0,
    DF_INVALID,       /* a caller's argument is wrong: ValueError in Python */
    DF_OUT_OF_MEMORY, /* MemoryError */
    DF_UNSUPPORTED,   /* this processor or build cannot do what was asked: RuntimeError */
    DF_INTERRUPTED,   /* the poll callback asked to stop; nothing was written to the outputs that counts */
    DF_SYSTEM         /* a system call failed (a thread could not be started): OSError */
} df_code;

typedef struct df_error {
    df_code code;
    char message[256]; /* one line, names the argument, what was expected and what came */
} df_error;

/* Fill *error (printf style) and return code. Lives in core/error.c. */
df_code df_fail(df_error *error, df_code code, const char *format, ...)
#if defined(__GNUC__)
    __attribute__((format(printf, 3, 4)))
#endif
    ;

/* Called between network evaluations, and between operations once 50 ms have passed since the last call, always on
 * the thread that entered the core. Non-zero stops the work with DF_INTERRUPTED. A NULL df_interrupt never stops. */
typedef struct df_interrupt {
    int (*poll)(void *context);
    void *context;
} df_interrupt;

/* ---------------------------------------------------------------- instruction sets */

/* What convolutions, linear layers and attention multiply. Sums, norms and softmax are float32 in both; what steps hand on is
 * rounded to bfloat16 too where "amx" multiplies it. */
typedef enum df_precision { DF_FP32, DF_BF16, DF_PRECISION_COUNT } df_precision;

/* Names: "reference" (scalar, sums in double: the specification; no bf16), "portable" (the fast kernels over plain C
 * vectors; bf16 without instructions for it, so slowly), "avx2" (AVX2 + FMA; no bf16), "avx512" (F, BW, DQ, VL; bf16
 * where the processor has AVX512-BF16), "amx" (AVX-512 and AMX's tiles of bf16 and of bytes, in which floats are
 * multiplied as whole numbers of 24 bits; where the system permits them, which asking about it or naming it requests for
 * the process), "neon" (64-bit Arm; bf16 where it has that extension). */
int32_t df_isa_count(void);
const char *df_isa_name(int32_t index);
/* Compiled in, and the processor and the system can run it in this precision. */
bool df_isa_supported(int32_t index, df_precision precision);
/* The set that a NULL name stands for: $DIFFENCE_ISA where it is set, else the fastest supported one; for bf16 one that
 * has instructions for it. An unknown name is DF_INVALID, what this machine cannot run DF_UNSUPPORTED: never a silent
 * fallback. */
df_code df_isa_resolve(const char *name_or_null, df_precision precision, int32_t *index, df_error *error);

/* ---------------------------------------------------------------- program */

/* A network is a flat list of operations in single-assignment form. Value 0 is the image (channels, height, width),
 * value 1 the time step of each image (one integer); operation i defines value i + 2; the last value is the output
 * and must have the image's shape. Vectors are values of height = width = 1. */
typedef enum df_op_kind {
    DF_OP_TIME_EMBEDDING, /* in0 = 1 (time); w0 = table [steps, dim] -> (dim,1,1): row t */
    DF_OP_LINEAR,         /* in0 (c,1,1); w0 [out, c], w1 [out] or -1 -> (out,1,1) */
    DF_OP_SILU,           /* in0 -> same: x / (1 + exp(-x)) */
    DF_OP_CONV,           /* in0 (c,h,w); w0 [out, c, s, s], s in {1, 3}; w1 [out] or -1; attr = stride in {1, 2};
                           * zero padding (s - 1) / 2 -> (out, ceil(h / stride), ceil(w / stride)) */
    DF_OP_GROUP_NORM,     /* in0 (c,h,w); w0, w1 [c] scale and shift; attr = groups; epsilon > 0 -> same */
    DF_OP_ATTENTION,      /* in0 = q, in1 = k, in2 = v, same shape (c,h,w); attr = heads;
                           * softmax(q k^T / sqrt(c / heads)) v over the h * w positions -> same */
    DF_OP_ADD,            /* in0 (c,h,w) + in1 (c,h,w) or (c,1,1), broadcast -> shape of in0 */
    DF_OP_CONCAT,         /* channels of in0, then of in1, same h and w -> (c0 + c1,h,w) */
    DF_OP_UPSAMPLE,       /* nearest, factor 2 -> (c,2h,2w) */
    DF_OP_KIND_COUNT
} df_op_kind;

typedef struct df_op {
    int32_t kind;
    int32_t inputs[3];  /* value ids, -1 where unused; always smaller than the op's own id */
    int32_t weights[2]; /* indices into df_program.weights, -1 where unused */
    int32_t attr;       /* stride, groups or heads; 0 where unused */
    float epsilon;      /* group norm; 0 where unused */
} df_op;

typedef struct df_weight {
    const char *name; /* for messages */
    const float *data;
    int32_t rank;
    int64_t shape[4];
} df_weight;

typedef struct df_program {
    int32_t channels, height, width;
    int32_t op_count;
    const df_op *ops;
    int32_t weight_count;
    const df_weight *weights; /* each used by at least one operation; finite */
} df_program;

/* ---------------------------------------------------------------- model and engine */

/* How a model computes. Zeros are the defaults. */
typedef struct df_options {
    const char *isa; /* NULL: as df_isa_resolve says */
    df_precision precision;
    bool direct; /* no Winograd: 3x3 convolutions take a quarter of its memory for weights, and more time */
} df_options;

/* A validated, fused program with its weights packed for one instruction set and precision. Immutable after creation,
 * reference counted (atomically): engines of one model share it. The caller's program and weights are not kept. */
typedef struct df_model df_model;

df_code df_model_create(const df_program *program, const df_options *options, df_model **model, df_error *error);
void df_model_retain(df_model *model);
void df_model_release(df_model *model);
const char *df_model_isa(const df_model *model);
df_precision df_model_precision(const df_model *model);
int64_t df_model_parameters(const df_model *model); /* number of weight values of the program */
void df_model_shape(const df_model *model, int32_t *channels, int32_t *height, int32_t *width);
int32_t df_model_time_steps(const df_model *model); /* rows of the time table; 0 where the program uses no time */

typedef struct df_memory { /* bytes */
    size_t weights;        /* packed, shared by the engines of one model */
    size_t arena;          /* activations of one engine: everything that a run touches */
    size_t scratch;        /* the workers' own buffers */
} df_memory;

/* A model planned for up to `batch` images and `threads` threads. One engine runs one call at a time (the caller
 * serialises); different engines may run at once. A run allocates nothing. */
typedef struct df_engine df_engine;

df_code df_engine_memory(const df_model *model, int32_t batch, int32_t threads, df_memory *memory, df_error *error);
/* The same of a model that is not made yet: the program is checked and planned, and no weight is read or packed. */
df_code df_memory_needed(const df_program *program, const df_options *options, int32_t batch, int32_t threads,
                         df_memory *memory, df_error *error);
df_code df_engine_create(df_model *model, int32_t batch, int32_t threads, df_engine **engine, df_error *error);
void df_engine_destroy(df_engine *engine);
int32_t df_engine_batch(const df_engine *engine);
int32_t df_engine_threads(const df_engine *engine);
const df_model *df_engine_model(const df_engine *engine);

/* eps[count,C,H,W] = network(x[count,C,H,W], t[count]); any count >= 1, run in batches. Same bits for any batch size,
 * order, company and number of threads. t outside 0..steps-1 is DF_INVALID before any work. */
df_code df_engine_predict(df_engine *engine, int64_t count, const float *x, const int32_t *t, float *eps,
                          const df_interrupt *interrupt, df_error *error);

/* One step of the plan: what it is, what it reads and makes, its arithmetic as a direct computation does it (a
 * multiplication and an addition count as two), and how long it took in the last evaluation: where each thread had a share
 * of the images, the mean of the threads. */
typedef struct df_step_profile {
    const char *kind;
    int32_t channels, height, width, out_channels, out_height, out_width, size;
    double flop; /* of one image; 0 for steps that are not made of products */
    double seconds;
} df_step_profile;

int32_t df_engine_step_count(const df_engine *engine);
df_step_profile df_engine_step_profile(const df_engine *engine, int32_t index);

/* Threads when the caller does not say: $DIFFENCE_NUM_THREADS, else the processors this process may run on. A
 * malformed value of the variable is DF_INVALID. */
df_code df_default_threads(int32_t *threads, df_error *error);

/* ---------------------------------------------------------------- noise schedule and sampler */

typedef enum df_mode { DF_PAPER = 0, DF_OFFICIAL = 1 } df_mode;

/* alpha_bar[steps] of the linear schedule: beta in float32 from first to last, cumulative product in float64. */
df_code df_schedule_linear(int32_t steps, double beta_first, double beta_last, double *alpha_bar, df_error *error);

/* One evaluation of the network: x <- x_scale * x + eps_scale * network(x, t). */
typedef struct df_step {
    int32_t t;
    float x_scale, eps_scale;
} df_step;

/* noised = signal * x0 + noise * normal, then the steps in order. The identity step of the authors' release is never
 * one of them, so there are no evaluations wasted. */
typedef struct df_sampler {
    int32_t T, k, step_count;
    df_mode mode;
    float signal, noise;
    df_step *steps;
} df_sampler;

/* 1 <= T <= steps (DF_OFFICIAL: <= steps - 1, it evaluates index T); 1 <= k <= T. */
df_code df_sampler_create(const double *alpha_bar, int32_t steps, int32_t T, int32_t k, df_mode mode,
                          df_sampler **sampler, df_error *error);
void df_sampler_destroy(df_sampler *sampler);

/* ---------------------------------------------------------------- noise */

/* Philox4x32-10 (Salmon et al., SC 2011). */
void df_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

/* SipHash-2-4-128 (Aumasson and Bernstein) of any bytes. */
void df_siphash128(const uint8_t key[16], const void *data, size_t size, uint8_t hash[16]);

/* df_siphash128 under the fence's 128-bit key over the image's shape and float32 values in [0, 1] (-0 counts as 0):
 * the image's identity. */
void df_content_hash(const uint8_t key[16], const float *image, int32_t channels, int32_t height, int32_t width,
                     uint8_t hash[16]);

/* Standard normals first..first+count-1 (NCHW positions) of one draw of one image: Philox words keyed by the low half
 * of the hash, with counter (position / 4, draw, high half of the hash), four normals a block by Box-Muller in
 * double. Independent of how the range is cut. */
void df_normals(const uint8_t hash[16], uint32_t draw, uint32_t first, uint32_t count, float *out);

/* ---------------------------------------------------------------- reconstruction */

/* Item m of `count`: image index[m] of images[image_count,C,H,W] (values in [0, 1]), draw draws[m].
 * out[m] = clamp((sampler(2 * image - 1) + 1) / 2, 0, 1), in [0, 1]. noise[count,C,H,W] replaces the keyed normals
 * where it is not NULL; hashes[image_count] may then be NULL. Runs in the engine's batches; all steps of an item run
 * in one batch. On DF_INTERRUPTED the contents of out are undefined. */
df_code df_reconstruct(df_engine *engine, const df_sampler *sampler, int64_t image_count, const float *images,
                       const uint8_t (*hashes)[16], int64_t count, const int32_t *index, const int32_t *draws,
                       const float *noise, float *out, const df_interrupt *interrupt, df_error *error);

/* ---------------------------------------------------------------- draws, selection, interval */

/* phi and the predicted class (first maximum) of each row of logits[rows,classes], classes >= 2.
 * DF_PAPER: z_top - logsumexp(z_others) in double. DF_OFFICIAL: the release's float32 exponentials, floor 1e-45
 * (official_release.md section 5). A non-finite logit is DF_INVALID and names its row. */
df_code df_phi(int64_t rows, int32_t classes, const double *logits, df_mode mode, double *phi, int32_t *predicted,
               df_error *error);

typedef struct df_interval { /* closed; -inf..inf where every agreeing draw is acceptable (scenario 3) */
    double low, high;
} df_interval;

typedef enum df_outcome {
    DF_INSIDE = 0,  /* an agreeing draw inside the interval: the first one in draw order */
    DF_NEAREST = 1, /* agreeing draws, none inside: the nearest to the interval, the first minimum */
    DF_FALLBACK = 2 /* no draw agrees: the draw whose own phi is nearest to the interval, for the fallback policy */
} df_outcome;

/* phi, predicted: [images, n] (row-major); labels[images]. -> draw[images] in 0..n-1, outcome[images]. */
df_code df_select(int64_t images, int32_t n, const double *phi, const int32_t *predicted, const int32_t *labels,
                  df_interval interval, int32_t *draw, int8_t *outcome, df_error *error);

/* Which (image, draw) items to compute next. `full` hands out all n draws of every image; `early` stops an image as
 * soon as its answer is certain: draws 0..j are all known and j is the first that is inside. Items come in waves,
 * lowest draw first, over the unresolved images, so that a batch is always full while work is left. */
typedef struct df_draws df_draws;

df_code df_draws_create(int64_t images, int32_t n, const int32_t *labels, df_interval interval, bool early,
                        df_draws **draws, df_error *error);
void df_draws_destroy(df_draws *draws);
int64_t df_draws_next(df_draws *draws, int64_t most, int32_t *index, int32_t *draw); /* items written; 0 = none to
                                    hand out now (all done, or all that is left waits for a submit) */
/* Results of items that were handed out, in any order; an item that was not, or twice, is DF_INVALID. */
df_code df_draws_submit(df_draws *draws, int64_t count, const int32_t *index, const int32_t *draw, const double *phi,
                        const int32_t *predicted, df_error *error);
bool df_draws_done(const df_draws *draws);
int64_t df_draws_images(const df_draws *draws);
int32_t df_draws_n(const df_draws *draws);
/* Per image: draws computed (used), and the choice as df_select makes it among them. DF_INVALID before done. */
df_code df_draws_result(const df_draws *draws, int32_t *used, int32_t *draw, int8_t *outcome, df_error *error);

typedef enum df_average_kind { DF_AVERAGE_LOGITS = 0, DF_AVERAGE_PROBABILITIES = 1 } df_average_kind;

/* out[images,classes] = mean over the draws of logits[images,n,classes]: of the logits, or the logarithm of the mean of
 * their softmax. All logits must be finite. */
df_code df_average(int64_t images, int32_t n, int32_t classes, const double *logits, df_average_kind kind, double *out,
                   df_error *error);

/* Scenario 1's interval: the pair of edges of the grid over [min phi of members, max phi of non-members] for which the
 * selected draws' phi of members and non-members have the smallest Jensen-Shannon divergence (DF_OFFICIAL: distance).
 * match[images,n]: the draw's class is the image's label. DF_PAPER: 21 exact edges, 210 pairs, 100 bins over the
 * pooled range, images without an agreeing draw left out. DF_OFFICIAL: as official_release.md section 5, with
 * phi_original[images] as the last candidate row (NULL in DF_PAPER).
 * The first of the smallest wins (within 1e-12). Where all members' phi are above all non-members', the grid lies over
 * the gap between them; where the two ends are equal, there is one pair, that point.
 * lows, highs, divergences: room for `room` pairs (231 is always enough) or all NULL; *pairs = how many there were. */
typedef struct df_search {
    df_interval interval;
    double divergence;
    int32_t pairs, best;
} df_search;

df_code df_search_interval(int64_t images, int32_t n, const double *phi, const uint8_t *match, const uint8_t *member,
                           const double *phi_original, df_mode mode, df_search *result, int32_t room, double *lows,
                           double *highs, double *divergences, df_error *error);

/* ---------------------------------------------------------------- bootstrap */

/* Several attacks' scores of the same members and non-members, and resamples of these: positions, drawn with
 * replacement, of as many members and non-members as there are. A score is told by its place: 0 for the largest, equal
 * for equal scores, below members + nonmembers. */
typedef struct df_bootstrap {
    int64_t rows; /* resamples */
    int32_t pairs, members, nonmembers;
    const int32_t *member_places, *nonmember_places; /* [pairs,members], [pairs,nonmembers] */
    const int32_t *member_draws, *nonmember_draws;   /* [rows,members], [rows,nonmembers] */
    int32_t false_positives, false_negatives;        /* the most that are allowed */
} df_bootstrap;

/* counts[4,pairs,rows], of the ROC curve of each pair's scores in each resample: twice the area, in pairs of a member
 * and a non-member; the largest TP * nonmembers - FP * members; the largest TP at the FP allowed; the smallest FP at
 * the false negatives allowed. Exact, so the same for any number of threads. */
df_code df_bootstrap_counts(const df_bootstrap *plan, int32_t threads, int64_t *counts, df_error *error);

#ifdef __cplusplus
}
#endif

#endif
