#include "cuda.h"

typedef struct {
    PyObject_HEAD df_cuda_engine *engine;
    CudaModelObject *model;
    Lock lock;
} CudaEngineObject;

static PyObject *engine_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"model", "batch", NULL};
    PyObject *model, *batch_value;
    int32_t batch;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO:Engine", names, &model, &batch_value) ||
        object_argument(model, "model", ((CudaState *)PyType_GetModuleState(type))->model) < 0 ||
        int32_argument(batch_value, "batch", 1, INT32_MAX, &batch) < 0) {
        return NULL;
    }
    CudaEngineObject *self = (CudaEngineObject *)type->tp_alloc(type, 0);
    if (!self) {
        return NULL;
    }
    self->model = (CudaModelObject *)Py_NewRef(model);
    df_error error;
    df_code code = DF_OK;
    int status = lock_create(&self->lock);
    if (status == 0) {
        PyThreadState *thread = PyEval_SaveThread();
        code = df_cuda_engine_create(self->model->model, batch, &self->engine, &error);
        PyEval_RestoreThread(thread);
    }
    if (status < 0 || code != DF_OK) {
        Py_DECREF(self);
        return status < 0 ? NULL : raise_core_error(code, &error);
    }
    return (PyObject *)self;
}

static int engine_traverse(PyObject *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((CudaEngineObject *)self)->model);
    return 0;
}

static void engine_dealloc(PyObject *object) {
    CudaEngineObject *self = (CudaEngineObject *)object;
    PyObject_GC_UnTrack(self);
    df_cuda_engine_destroy(self->engine);
    lock_destroy(&self->lock);
    Py_XDECREF(self->model);
    free_instance(object);
}

static PyObject *engine_model(PyObject *self, void *Py_UNUSED(closure)) {
    return Py_NewRef(((CudaEngineObject *)self)->model);
}

static PyObject *engine_batch(PyObject *self, void *Py_UNUSED(closure)) {
    return PyLong_FromLong(df_cuda_engine_batch(((CudaEngineObject *)self)->engine));
}

/* {first, C, H, W} of the model's images */
static void batch_shape(const CudaEngineObject *self, npy_intp first, npy_intp shape[4]) {
    int32_t channels, height, width;
    df_cuda_model_shape(self->model->model, &channels, &height, &width);
    shape[0] = first;
    shape[1] = channels;
    shape[2] = height;
    shape[3] = width;
}

static PyObject *none_or_error(df_code code, const df_error *error) {
    return code == DF_OK ? Py_NewRef(Py_None) : raise_core_error(code, error);
}

PyDoc_STRVAR(predict_doc,
             "predict($self, /, x, t, eps, stream)\n--\n\n"
             "eps = network(x, t), on the stream and without waiting for it: x and eps float32 (B, C, H, W), t int32\n"
             "(B,) in 0..time_steps-1, which is not checked. All are DLPack capsules of tensors on the model's GPU.");

static PyObject *engine_predict(PyObject *object, PyObject *args) {
    CudaEngineObject *self = (CudaEngineObject *)object;
    PyObject *x_value, *t_value, *eps_value, *stream_value;
    void *stream;
    if (!PyArg_ParseTuple(args, "OOOO:predict", &x_value, &t_value, &eps_value, &stream_value) ||
        stream_argument(stream_value, &stream) < 0) {
        return NULL;
    }
    const int32_t device = df_cuda_model_device(self->model->model);
    npy_intp shape[4];
    batch_shape(self, -'B', shape);
    const float *x = device_tensor(x_value, "x", TENSOR_FLOAT32, 4, shape, device);
    const int32_t *t = x ? device_tensor(t_value, "t", TENSOR_INT32, 1, shape, device) : NULL;
    float *eps = t ? device_tensor(eps_value, "eps", TENSOR_FLOAT32, 4, shape, device) : NULL;
    if (!eps || lock_acquire(&self->lock, "Engine") < 0) {
        return NULL;
    }
    df_error error;
    PyThreadState *thread = PyEval_SaveThread();
    df_code code = df_cuda_predict(self->engine, shape[0], x, t, eps, stream, &error);
    PyEval_RestoreThread(thread);
    lock_release(&self->lock);
    return none_or_error(code, &error);
}

/* (t, x_scale, eps_scale) of each step, as _core.Sampler.steps gives them; to be freed with PyMem_Free. */
static df_step *read_steps(PyObject *value, int32_t *count) {
    PyObject *rows = PySequence_Fast(value, "steps: expected a sequence of (t, x_scale, eps_scale)");
    df_step *steps = NULL;
    if (!rows) {
        return NULL;
    }
    *count = (int32_t)PySequence_Fast_GET_SIZE(rows);
    if (*count < 1) {
        PyErr_SetString(PyExc_ValueError, "steps: expected at least one");
    } else if (!(steps = PyMem_New(df_step, (size_t)*count))) {
        PyErr_NoMemory();
    }
    for (int32_t i = 0; steps && i < *count; i++) {
        int t;
        if (!PyArg_ParseTuple(PySequence_Fast_GET_ITEM(rows, i), "iff:steps", &t, &steps[i].x_scale,
                              &steps[i].eps_scale)) {
            PyMem_Free(steps);
            steps = NULL;
        } else {
            steps[i].t = t;
        }
    }
    Py_DECREF(rows);
    return steps;
}

PyDoc_STRVAR(
    reconstruct_doc,
    "reconstruct($self, /, signal, scale, steps, images, hashes, index, draws, noise, out, bad, stream)\n--\n\n"
    "out[m] = reconstruction of image index[m] with its draw draws[m] (as _core.Engine.reconstruct), on the\n"
    "stream. images float32 (B, C, H, W) in [0, 1], hashes uint8 (B, 16) or None, index and draws int32\n"
    "(M,), which are not checked, noise float32 (M, C, H, W) or None, out float32 (M, C, H, W), bad int32\n"
    "(1,): becomes the smallest m whose result is not finite. Ctrl-C stops it between batches.");

static PyObject *engine_reconstruct(PyObject *object, PyObject *args) {
    CudaEngineObject *self = (CudaEngineObject *)object;
    PyObject *steps_value, *images_value, *hashes_value, *index_value, *draws_value, *noise_value, *out_value;
    PyObject *bad_value, *stream_value;
    df_sampler sampler = {0};
    void *stream;
    if (!PyArg_ParseTuple(args, "ffOOOOOOOOO:reconstruct", &sampler.signal, &sampler.noise, &steps_value, &images_value,
                          &hashes_value, &index_value, &draws_value, &noise_value, &out_value, &bad_value,
                          &stream_value) ||
        stream_argument(stream_value, &stream) < 0) {
        return NULL;
    }
    const int32_t device = df_cuda_model_device(self->model->model);
    npy_intp images_shape[4], items_shape[4], hash_shape[2] = {0, 16}, one = 1;
    batch_shape(self, -'B', images_shape);
    batch_shape(self, -'M', items_shape);
    int failed = 0;
    const float *images = device_tensor(images_value, "images", TENSOR_FLOAT32, 4, images_shape, device);
    if (!images) {
        return NULL;
    }
    hash_shape[0] = images_shape[0];
    const uint8_t *hashes = optional_tensor(hashes_value, "hashes", TENSOR_UINT8, 2, hash_shape, device, &failed);
    const int32_t *index = failed ? NULL : device_tensor(index_value, "index", TENSOR_INT32, 1, items_shape, device);
    const int32_t *draws = index ? device_tensor(draws_value, "draws", TENSOR_INT32, 1, items_shape, device) : NULL;
    const float *noise =
        draws ? optional_tensor(noise_value, "noise", TENSOR_FLOAT32, 4, items_shape, device, &failed) : NULL;
    float *out = draws && !failed ? device_tensor(out_value, "out", TENSOR_FLOAT32, 4, items_shape, device) : NULL;
    int32_t *bad = out ? device_tensor(bad_value, "bad", TENSOR_INT32, 1, &one, device) : NULL;
    if (!bad || !(sampler.steps = read_steps(steps_value, &sampler.step_count))) {
        return NULL;
    }
    df_code code = DF_OK;
    df_error error;
    const int locked = lock_acquire(&self->lock, "Engine");
    if (locked == 0) {
        Interruptible call;
        interruptible_open(&call);
        code = df_cuda_reconstruct(self->engine, &sampler, images, hashes, items_shape[0], index, draws, noise, out,
                                   bad, stream, &call.interrupt, &error);
        interruptible_close(&call);
        lock_release(&self->lock);
    }
    PyMem_Free(sampler.steps);
    return locked < 0 ? NULL : none_or_error(code, &error);
}

PyDoc_STRVAR(profile_doc,
             "profile($self, /, images)\n--\n\n"
             "Runs the network on so many images, waits, and tells of each step what _core.Engine.profile\n"
             "does; the seconds are the GPU's.");

static PyObject *engine_profile(PyObject *object, PyObject *images_value) {
    CudaEngineObject *self = (CudaEngineObject *)object;
    int32_t images;
    if (int32_argument(images_value, "images", 1, INT32_MAX, &images) < 0) {
        return NULL;
    }
    const int32_t count = df_cuda_engine_step_count(self->engine);
    df_step_profile *steps = PyMem_New(df_step_profile, (size_t)count);
    if (!steps) {
        return PyErr_NoMemory();
    }
    PyObject *list = NULL;
    if (lock_acquire(&self->lock, "Engine") == 0) {
        df_error error;
        PyThreadState *thread = PyEval_SaveThread();
        df_code code = df_cuda_engine_profile(self->engine, images, steps, &error);
        PyEval_RestoreThread(thread);
        lock_release(&self->lock);
        list = code == DF_OK ? PyList_New(0) : raise_core_error(code, &error);
    }
    for (int32_t i = 0; list && i < count; i++) {
        PyObject *step = profile_row(&steps[i]);
        if (!step || PyList_Append(list, step) < 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(step);
    }
    PyMem_Free(steps);
    return list;
}

static PyMethodDef engine_methods[] = {
    {"predict", engine_predict, METH_VARARGS, predict_doc},
    {"reconstruct", engine_reconstruct, METH_VARARGS, reconstruct_doc},
    {"profile", engine_profile, METH_O, profile_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef engine_properties[] = {
    {"model", engine_model, NULL, "The Model that it was made of.", NULL},
    {"batch", engine_batch, NULL, "Images that one pass of the network takes.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyDoc_STRVAR(engine_doc,
             "Engine(model, batch)\n--\n\n"
             "A model with memory on its GPU for up to `batch` images. Calls are serialised by the object's\n"
             "own lock, and the GIL is released while one is launched.");

static PyType_Slot engine_slots[] = {
    {Py_tp_doc, (void *)engine_doc},
    {Py_tp_new, engine_new},
    {Py_tp_dealloc, engine_dealloc},
    {Py_tp_traverse, engine_traverse},
    {Py_tp_methods, engine_methods},
    {Py_tp_getset, engine_properties},
    {0, NULL},
};

PyType_Spec cuda_engine_spec = {
    .name = "diffence._cuda.Engine",
    .basicsize = sizeof(CudaEngineObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = engine_slots,
};
