#define DIFFENCE_IMPORTS_NUMPY
#include "cuda.h"

static PyObject *device_count(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored)) {
    int32_t count;
    df_error error;
    df_code code = df_cuda_device_count(&count, &error);
    return code == DF_OK ? PyLong_FromLong(count) : raise_core_error(code, &error);
}

PyDoc_STRVAR(device_count_doc, "device_count($module, /)\n--\n\n"
                               "GPUs that the engine runs on; RuntimeError with the reason where there is none.");

static PyObject *content_hashes(PyObject *Py_UNUSED(module), PyObject *args) {
    PyObject *device_value, *key, *images_value, *hashes_value, *stream_value;
    int32_t device;
    void *stream;
    if (!PyArg_ParseTuple(args, "OOOOO:content_hashes", &device_value, &key, &images_value, &hashes_value,
                          &stream_value) ||
        int32_argument(device_value, "device", 0, INT32_MAX, &device) < 0 ||
        stream_argument(stream_value, &stream) < 0) {
        return NULL;
    }
    npy_intp shape[4] = {-'B', -'C', -'H', -'W'};
    const float *images = device_tensor(images_value, "images", TENSOR_FLOAT32, 4, shape, device);
    npy_intp hash_shape[2] = {shape[0], 16};
    uint8_t *hashes = images ? device_tensor(hashes_value, "hashes", TENSOR_UINT8, 2, hash_shape, device) : NULL;
    Py_buffer view;
    if (!hashes || buffer_argument(key, "key", 16, &view) < 0) {
        return NULL;
    }
    df_error error;
    df_code code = df_cuda_content_hashes(device, view.buf, shape[0], (int32_t)shape[1], (int32_t)shape[2],
                                          (int32_t)shape[3], images, hashes, stream, &error);
    PyBuffer_Release(&view);
    return code == DF_OK ? Py_NewRef(Py_None) : raise_core_error(code, &error);
}

PyDoc_STRVAR(content_hashes_doc, "content_hashes($module, device, key, images, hashes, stream, /)\n--\n\n"
                                 "hashes, uint8 (B, 16), become those of images, float32 (B, C, H, W), as\n"
                                 "_core.content_hashes gives them.");

static PyObject *phi(PyObject *Py_UNUSED(module), PyObject *args) {
    PyObject *device_value, *logits_value, *mode_value, *phi_value, *predicted_value, *bad_value, *stream_value;
    int32_t device;
    df_mode mode;
    void *stream;
    if (!PyArg_ParseTuple(args, "OOOOOOO:phi", &device_value, &logits_value, &mode_value, &phi_value, &predicted_value,
                          &bad_value, &stream_value) ||
        int32_argument(device_value, "device", 0, INT32_MAX, &device) < 0 || mode_argument(mode_value, &mode) < 0 ||
        stream_argument(stream_value, &stream) < 0) {
        return NULL;
    }
    npy_intp shape[2] = {-'M', -'C'}, one = 1;
    const float *logits = device_tensor(logits_value, "logits", TENSOR_FLOAT32, 2, shape, device);
    double *values = logits ? device_tensor(phi_value, "phi", TENSOR_FLOAT64, 1, shape, device) : NULL;
    int32_t *predicted = values ? device_tensor(predicted_value, "predicted", TENSOR_INT32, 1, shape, device) : NULL;
    int32_t *bad = predicted ? device_tensor(bad_value, "bad", TENSOR_INT32, 1, &one, device) : NULL;
    if (!bad) {
        return NULL;
    }
    df_error error;
    df_code code =
        df_cuda_phi(device, shape[0], (int32_t)shape[1], logits, mode, values, predicted, bad, stream, &error);
    return code == DF_OK ? Py_NewRef(Py_None) : raise_core_error(code, &error);
}

PyDoc_STRVAR(phi_doc, "phi($module, device, logits, mode, phi, predicted, bad, stream, /)\n--\n\n"
                      "phi, float64 (M,), and predicted, int32 (M,), of logits, float32 (M, C), as _core.phi gives\n"
                      "them; bad, int32 (1,), becomes the smallest row with a logit that is not finite.");

PyMethodDef cuda_functions[] = {
    {"device_count", device_count, METH_NOARGS, device_count_doc},
    {"content_hashes", content_hashes, METH_VARARGS, content_hashes_doc},
    {"phi", phi, METH_VARARGS, phi_doc},
    {NULL, NULL, 0, NULL},
};

static int module_exec(PyObject *module) {
    CudaState *state = PyModule_GetState(module);
#ifdef DF_EMULATED
    const int emulated = 1;
#else
    const int emulated = 0;
#endif
    if (PyArray_ImportNumPyAPI() < 0 || add_type(module, &cuda_model_spec, &state->model) < 0 ||
        add_type(module, &cuda_engine_spec, &state->engine) < 0) {
        return -1;
    }
    return PyModule_AddObjectRef(module, "EMULATED", emulated ? Py_True : Py_False);
}

static int module_traverse(PyObject *module, visitproc visit, void *arg) {
    CudaState *state = PyModule_GetState(module);
    Py_VISIT(state->model);
    Py_VISIT(state->engine);
    return 0;
}

static int module_clear(PyObject *module) {
    CudaState *state = PyModule_GetState(module);
    Py_CLEAR(state->model);
    Py_CLEAR(state->engine);
    return 0;
}

static void module_free(void *module) {
    module_clear(module);
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
#if PY_VERSION_HEX >= 0x030C0000
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED}, /* NumPy's C API is not */
#endif
#if PY_VERSION_HEX >= 0x030D0000
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

PyDoc_STRVAR(module_doc, "The CUDA engine. Private: diffence.engine is its face.");

static struct PyModuleDef module_definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "diffence._cuda",
    .m_doc = module_doc,
    .m_size = sizeof(CudaState),
    .m_methods = cuda_functions,
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC PyInit__cuda(void); /* Python's headers do not declare it */

PyMODINIT_FUNC PyInit__cuda(void) {
    return PyModuleDef_Init(&module_definition);
}
