/* DLPack: its structures as the specification lays them down, and the checks of a tensor that comes in as one. */
#include "cuda.h"

typedef struct {
    int32_t type, id;
} Device; /* DLDevice */

typedef struct {
    uint8_t code, bits;
    uint16_t lanes;
} DataType; /* DLDataType */

typedef struct {
    void *data;
    Device device;
    int32_t rank;
    DataType type;
    int64_t *shape, *strides; /* strides in values; NULL: contiguous */
    uint64_t offset;          /* bytes */
} Tensor;                     /* DLTensor, the first member of DLManagedTensor */

enum { ON_CPU = 1, ON_CUDA = 2, CODE_INT = 0, CODE_UINT = 1, CODE_FLOAT = 2 };

#ifdef DF_EMULATED /* the emulator's GPU is the CPU, and whatever its number */
static const int32_t expected_device = ON_CPU;
#else
static const int32_t expected_device = ON_CUDA;
#endif

static const struct {
    uint8_t code, bits;
    const char *name;
} types[] = {[TENSOR_FLOAT32] = {CODE_FLOAT, 32, "float32"},
             [TENSOR_FLOAT64] = {CODE_FLOAT, 64, "float64"},
             [TENSOR_INT32] = {CODE_INT, 32, "int32"},
             [TENSOR_UINT8] = {CODE_UINT, 8, "uint8"}};

static int check_shape(const Tensor *tensor, const char *name, int rank, npy_intp *shape) {
    if (tensor->rank != rank) {
        PyErr_Format(PyExc_ValueError, "%s: expected %d dimensions, got %d", name, rank, (int)tensor->rank);
        return -1;
    }
    int64_t stride = 1;
    for (int axis = rank - 1; axis >= 0; axis--) {
        const int64_t length = tensor->shape[axis];
        if (shape[axis] < 0 && length >= 1) {
            shape[axis] = (npy_intp)length;
        }
        if (length != shape[axis]) {
            PyErr_Format(PyExc_ValueError, "%s: expected length %zd in dimension %d, got %lld", name,
                         shape[axis] < 0 ? (Py_ssize_t)1 : (Py_ssize_t)shape[axis], axis, (long long)length);
            return -1;
        }
        if (tensor->strides && length > 1 && tensor->strides[axis] != stride) {
            PyErr_Format(PyExc_ValueError, "%s: expected a contiguous tensor", name);
            return -1;
        }
        stride *= length;
    }
    return 0;
}

void *device_tensor(PyObject *capsule, const char *name, TensorType type, int rank, npy_intp *shape, int32_t device) {
    if (!PyCapsule_IsValid(capsule, "dltensor")) {
        PyErr_Format(PyExc_TypeError, "%s: expected a DLPack capsule that nobody has taken, got %s", name,
                     Py_TYPE(capsule)->tp_name);
        return NULL;
    }
    const Tensor *tensor = PyCapsule_GetPointer(capsule, "dltensor");
    if (tensor->device.type != expected_device || (expected_device == ON_CUDA && tensor->device.id != device)) {
        PyErr_Format(PyExc_ValueError, "%s: expected a tensor on GPU %d, got one on device %d of type %d", name, device,
                     (int)tensor->device.id, (int)tensor->device.type);
        return NULL;
    }
    if (tensor->type.code != types[type].code || tensor->type.bits != types[type].bits || tensor->type.lanes != 1) {
        PyErr_Format(PyExc_TypeError, "%s: expected %s, got %d bits of type %d", name, types[type].name,
                     (int)tensor->type.bits, (int)tensor->type.code);
        return NULL;
    }
    if (check_shape(tensor, name, rank, shape) < 0) {
        return NULL;
    }
    unsigned char *data = (unsigned char *)tensor->data + tensor->offset;
    if ((uintptr_t)data % 16 != 0) {
        PyErr_Format(PyExc_ValueError, "%s: expected memory aligned to 16 bytes; clone the tensor", name);
        return NULL;
    }
    return data;
}

void *optional_tensor(PyObject *capsule, const char *name, TensorType type, int rank, npy_intp *shape, int32_t device,
                      int *failed) {
    if (capsule == Py_None) {
        return NULL;
    }
    void *data = device_tensor(capsule, name, type, rank, shape, device);
    *failed |= data == NULL;
    return data;
}

int stream_argument(PyObject *value, void **stream) {
    *stream = PyLong_AsVoidPtr(value);
    return PyErr_Occurred() ? -1 : 0;
}

static const char *const precisions[] = {"fp32", "bf16", "fp16"};
_Static_assert(sizeof precisions / sizeof *precisions == DF_CUDA_PRECISION_COUNT, "a name for every precision");

const char *cuda_precision_name(df_cuda_precision precision) {
    return precisions[precision];
}

int cuda_precision_argument(PyObject *value, df_cuda_precision *precision) {
    for (int i = 0; PyUnicode_Check(value) && i < DF_CUDA_PRECISION_COUNT; i++) {
        if (PyUnicode_CompareWithASCIIString(value, precisions[i]) == 0) {
            *precision = (df_cuda_precision)i;
            return 0;
        }
    }
    PyErr_Format(PyExc_ValueError, "precision: expected 'fp32', 'bf16' or 'fp16' on a GPU, got %R", value);
    return -1;
}
