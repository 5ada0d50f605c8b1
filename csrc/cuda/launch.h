/* How the host code of the CUDA engine starts a kernel, on a GPU or in the emulator. */
#ifndef DIFFENCE_CUDA_LAUNCH_H
#define DIFFENCE_CUDA_LAUNCH_H

#include "device.h"

#include <stddef.h>

#ifndef DF_EMULATED
#include <cuda_runtime.h>
#endif

/* The launch's own error; what the kernel does wrong shows later. */
template <typename... P, typename... A>
static inline cudaError_t launch(void (*kernel)(P...), dim3 grid, int threads, size_t shared, cudaStream_t stream,
                                 A... arguments) {
#ifdef DF_EMULATED
    (void)stream;
    emulator_launch(__PRETTY_FUNCTION__, kernel, grid, dim3((unsigned)threads), shared, arguments...);
    return cudaSuccess;
#else
    if (shared > 48 << 10) { /* what a kernel gets without asking */
        const cudaError_t error =
            cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared);
        if (error != cudaSuccess)
            return error;
    }
    kernel<<<grid, (unsigned)threads, shared, stream>>>(P(arguments)...);
    return cudaGetLastError();
#endif
}

static inline int64_t blocks_for(int64_t count, int64_t each) {
    return (count + each - 1) / each;
}

#endif
