/* phi of a row of logits (core/phi.c), on the GPU, so that only one number and one class of each leave it. */
#include "kernels.h"

namespace {

enum { THREADS = 128 };

DF_DEVICE double phi_paper(const float *z, int32_t classes, int32_t top) {
    int32_t second = top == 0;
    for (int32_t c = 0; c < classes; c++)
        if (c != top && z[c] > z[second])
            second = c;
    double rest = 0;
    for (int32_t c = 0; c < classes; c++)
        if (c != top && c != second)
            rest += exp((double)z[c] - (double)z[second]);
    return (double)z[top] - (double)z[second] - log1p(rest);
}

DF_DEVICE double phi_official(const float *z, int32_t classes, int32_t top) {
    const double tiny = 1e-45;
    double sum = 0, others = 0;
    for (int32_t c = 0; c < classes; c++)
        sum += (double)expf(z[c] - z[top]);
    for (int32_t c = 0; c < classes; c++)
        if (c != top)
            others += (double)expf(z[c] - z[top]) / sum;
    return log(1 / sum + tiny) - log(others + tiny);
}

DF_KERNEL(THREADS, 1)
phi_kernel(int64_t rows, int32_t classes, const float *logits, bool official, double *phi, int32_t *predicted,
           int32_t *bad) {
    const int64_t row = thread_number();
    if (row >= rows)
        return;
    const float *z = logits + row * classes;
    int32_t top = 0;
    bool finite = true;
    for (int32_t c = 0; c < classes; c++) {
        finite = finite && isfinite(z[c]);
        if (z[c] > z[top])
            top = c;
    }
    if (!finite)
        atomicMin(bad, (int32_t)row);
    phi[row] = official ? phi_official(z, classes, top) : phi_paper(z, classes, top);
    predicted[row] = top;
}

} // namespace

cudaError_t phi_rows(int64_t rows, int32_t classes, const float *logits, bool official, double *phi, int32_t *predicted,
                     int32_t *bad, cudaStream_t stream) {
    return launch(phi_kernel, dim3((unsigned)blocks_for(rows, THREADS)), THREADS, 0, stream, rows, classes, logits,
                  official, phi, predicted, bad);
}
