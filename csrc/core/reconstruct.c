/* Noising and denoising a batch of (image, draw) items: all arithmetic on images around the network. */
#include "diffence.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

typedef struct items {
    int64_t image_count, count, size; /* size: values of one image */
    const float *images;
    const uint8_t (*hashes)[16];
    const int32_t *index, *draws;
    const float *noise;
} items;

static df_code check(const items *all, const df_model *model, const df_sampler *sampler, df_error *error) {
    if (all->image_count < 1 || all->count < 1) {
        return df_fail(error, DF_INVALID,
                       "images and items: expected at least one of each, got %" PRId64 " and %" PRId64,
                       all->image_count, all->count);
    }
    if (!all->noise && !all->hashes) {
        return df_fail(error, DF_INVALID, "hashes: expected one of each image where no noise is given, got NULL");
    }
    int32_t known = df_model_time_steps(model), most = sampler->steps[0].t;
    if (known > 0 && most >= known) {
        return df_fail(error, DF_INVALID, "sampler: it evaluates step %d, the network knows 0..%d", most, known - 1);
    }
    for (int64_t m = 0; m < all->count; m++) {
        int32_t i = all->index[m];
        if (i < 0 || i >= all->image_count) {
            return df_fail(error, DF_INVALID, "index[%" PRId64 "] is %d, expected 0..%" PRId64, m, i,
                           all->image_count - 1);
        }
        if (all->draws[m] < 0) {
            return df_fail(error, DF_INVALID, "draws[%" PRId64 "] is %d, expected 0 or more", m, all->draws[m]);
        }
        const float *image = all->images + i * all->size;
        for (int64_t p = 0; p < all->size; p++) {
            if (!(image[p] >= 0 && image[p] <= 1)) {
                return df_fail(error, DF_INVALID, "images[%d] has a value of %g, expected 0..1", i, (double)image[p]);
            }
        }
    }
    return DF_OK;
}

static void noise_item(const items *all, int64_t m, const df_sampler *sampler, float *x) {
    const float *image = all->images + all->index[m] * all->size, *normals = x;
    if (all->noise) {
        normals = all->noise + m * all->size;
    } else { /* into x itself: each one is read where it is replaced */
        df_normals(all->hashes[all->index[m]], (uint32_t)all->draws[m], 0, (uint32_t)all->size, x);
    }
    for (int64_t p = 0; p < all->size; p++) {
        x[p] = sampler->signal * (2 * image[p] - 1) + sampler->noise * normals[p];
    }
}

/* Items first..first+count-1, at most a batch; x is their place in the output. */
static df_code reconstruct_batch(df_engine *engine, const df_sampler *sampler, const items *all, int64_t first,
                                 int64_t count, float *x, float *eps, int32_t *t, const df_interrupt *interrupt,
                                 df_error *error) {
    for (int64_t m = 0; m < count; m++) {
        noise_item(all, first + m, sampler, x + m * all->size);
    }
    const int64_t values = count * all->size;
    for (int32_t i = 0; i < sampler->step_count; i++) {
        const df_step step = sampler->steps[i];
        for (int64_t m = 0; m < count; m++) {
            t[m] = step.t;
        }
        if (interrupt && interrupt->poll && interrupt->poll(interrupt->context)) {
            return df_fail(error, DF_INTERRUPTED, "interrupted");
        }
        df_code code = df_engine_predict(engine, count, x, t, eps, interrupt, error);
        if (code != DF_OK) {
            return code;
        }
        for (int64_t p = 0; p < values; p++) {
            x[p] = step.x_scale * x[p] + step.eps_scale * eps[p];
        }
    }
    for (int64_t p = 0; p < values; p++) {
        if (!isfinite(x[p])) {
            return df_fail(error, DF_INVALID, "the network's output for image %d, draw %d is not finite",
                           all->index[first + p / all->size], all->draws[first + p / all->size]);
        }
        float grey = (x[p] + 1) / 2;
        x[p] = grey > 0 ? (grey < 1 ? grey : 1) : 0;
    }
    return DF_OK;
}

df_code df_reconstruct(df_engine *engine, const df_sampler *sampler, int64_t image_count, const float *images,
                       const uint8_t (*hashes)[16], int64_t count, const int32_t *index, const int32_t *draws,
                       const float *noise, float *out, const df_interrupt *interrupt, df_error *error) {
    const df_model *model = df_engine_model(engine);
    int32_t channels, height, width;
    df_model_shape(model, &channels, &height, &width);
    const int64_t size = (int64_t)channels * height * width; /* a checked program: at most INT32_MAX */
    const items all = {image_count, count, size, images, hashes, index, draws, noise};
    df_code code = check(&all, model, sampler, error);
    if (code != DF_OK) {
        return code;
    }
    const int64_t batch = count < df_engine_batch(engine) ? count : df_engine_batch(engine);
    float *eps = calloc((size_t)(batch * size), sizeof *eps);
    int32_t *t = calloc((size_t)batch, sizeof *t);
    if (!eps || !t) {
        code = df_fail(error, DF_OUT_OF_MEMORY, "no memory to reconstruct batches of %" PRId64, batch);
    }
    for (int64_t first = 0; first < count && code == DF_OK; first += batch) {
        code = reconstruct_batch(engine, sampler, &all, first, count - first < batch ? count - first : batch,
                                 out + first * size, eps, t, interrupt, error);
    }
    free(eps);
    free(t);
    return code;
}
