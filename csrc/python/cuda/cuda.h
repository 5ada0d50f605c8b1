/* Shared by the files of diffence._cuda, the boundary of the CUDA engine. Tensors come in as DLPack capsules, are read and
 * written in place on the caller's stream, and are the caller's to keep alive until that work is done. */
#ifndef DIFFENCE_PYTHON_CUDA_H
#define DIFFENCE_PYTHON_CUDA_H

#include "../boundary.h"

#include "diffence_cuda.h"

typedef struct {
    PyTypeObject *model, *engine;
} CudaState;

typedef struct {
    PyObject_HEAD df_cuda_model *model;
    PyObject *weak_references;
} CudaModelObject;

extern PyType_Spec cuda_model_spec, cuda_engine_spec;
extern PyMethodDef cuda_functions[];

/* What a tensor must be. A length that is negative is free; -'B' is printed as B, and the length found replaces it. */
typedef enum { TENSOR_FLOAT32, TENSOR_FLOAT64, TENSOR_INT32, TENSOR_UINT8 } TensorType;

/* Memory of a contiguous tensor on the GPU `device`, or NULL with an exception set. */
void *device_tensor(PyObject *capsule, const char *name, TensorType type, int rank, npy_intp *shape, int32_t device);
/* None: NULL, without an exception; *failed tells the two apart. */
void *optional_tensor(PyObject *capsule, const char *name, TensorType type, int rank, npy_intp *shape, int32_t device,
                      int *failed);
/* A cudaStream_t as an integer, as torch gives it. */
int stream_argument(PyObject *value, void **stream);
const char *cuda_precision_name(df_cuda_precision precision);
int cuda_precision_argument(PyObject *value, df_cuda_precision *precision);

#endif
