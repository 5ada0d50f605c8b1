#include "boundary.h"

typedef struct {
    PyObject_HEAD df_engine *engine;
    ModelObject *model;
    Lock lock;
} EngineObject;

static PyObject *engine_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"model", "batch", "threads", NULL};
    PyObject *model, *batch_value = NULL, *threads_value = NULL;
    int32_t batch, threads;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|$OO:Engine", names, &model, &batch_value, &threads_value)) {
        return NULL;
    }
    if (!batch_value || !threads_value) { /* the parser knows no keyword-only argument that is not optional */
        PyErr_Format(PyExc_TypeError, "Engine() missing required keyword-only argument: '%s'",
                     batch_value ? "threads" : "batch");
        return NULL;
    }
    if (object_argument(model, "model", state_of(type)->model) < 0 ||
        int32_argument(batch_value, "batch", 1, INT32_MAX, &batch) < 0 ||
        int32_argument(threads_value, "threads", 1, INT32_MAX, &threads) < 0) {
        return NULL;
    }
    EngineObject *self = (EngineObject *)type->tp_alloc(type, 0);
    if (!self) {
        return NULL;
    }
    self->model = (ModelObject *)Py_NewRef(model);
    df_error error;
    df_code code = DF_OK;
    int status = lock_create(&self->lock);
    if (status == 0) {
        PyThreadState *thread = PyEval_SaveThread();
        code = df_engine_create(self->model->model, batch, threads, &self->engine, &error);
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
    Py_VISIT(((EngineObject *)self)->model);
    return 0;
}

static void engine_dealloc(PyObject *object) {
    EngineObject *self = (EngineObject *)object;
    PyObject_GC_UnTrack(self);
    df_engine_destroy(self->engine);
    lock_destroy(&self->lock);
    Py_XDECREF(self->model);
    free_instance(object);
}

static PyObject *engine_model(PyObject *self, void *Py_UNUSED(closure)) {
    return Py_NewRef(((EngineObject *)self)->model);
}

static PyObject *engine_batch(PyObject *self, void *Py_UNUSED(closure)) {
    return PyLong_FromLong(df_engine_batch(((EngineObject *)self)->engine));
}

static PyObject *engine_threads(PyObject *self, void *Py_UNUSED(closure)) {
    return PyLong_FromLong(df_engine_threads(((EngineObject *)self)->engine));
}

/* {first, C, H, W} of the model's images */
static void batch_shape(const EngineObject *self, npy_intp first, npy_intp shape[4]) {
    int32_t channels, height, width;
    df_model_shape(self->model->model, &channels, &height, &width);
    shape[0] = first;
    shape[1] = channels;
    shape[2] = height;
    shape[3] = width;
}

/* The result where the core and every poll went well, else NULL with an exception set; takes over the reference. */
static PyObject *finish(PyArrayObject *result, df_code code, const df_error *error) {
    if (code != DF_OK) {
        Py_DECREF(result);
        return raise_core_error(code, error);
    }
    return (PyObject *)result;
}

PyDoc_STRVAR(predict_doc,
             "predict($self, /, x, t)\n--\n\n"
             "The network's output, float32 (B, C, H, W), for x, float32 (B, C, H, W) and finite, at the time\n"
             "steps t, integers (B,) in 0..time_steps-1. Any B >= 1: it runs in the engine's batches, and each\n"
             "row has the same bits in any company. Neither array may be written to meanwhile. Ctrl-C stops it.");

static PyObject *engine_predict(PyObject *object, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"x", "t", NULL};
    EngineObject *self = (EngineObject *)object;
    PyObject *x_value, *t_value, *answer = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO:predict", names, &x_value, &t_value)) {
        return NULL;
    }
    npy_intp shape[4];
    batch_shape(self, -'B', shape);
    int32_t steps = df_model_time_steps(self->model->model);
    PyArrayObject *x = float32_array(x_value, "x", 4, shape), *t = NULL, *eps = NULL;
    if (x) {
        shape[0] = PyArray_DIM(x, 0);
        t = int32_array(t_value, "t", 1, shape, 0, steps > 0 ? steps - 1 : INT32_MAX);
    }
    if (t && check_finite(x, "x") == 0) {
        eps = new_array(4, shape, NPY_FLOAT32);
    }
    if (eps && lock_acquire(&self->lock, "Engine") == 0) {
        df_error error;
        Interruptible call;
        interruptible_open(&call);
        df_code code = df_engine_predict(self->engine, shape[0], PyArray_DATA(x), PyArray_DATA(t), PyArray_DATA(eps),
                                         &call.interrupt, &error);
        interruptible_close(&call);
        lock_release(&self->lock);
        answer = finish(eps, code, &error);
    } else {
        Py_XDECREF(eps);
    }
    Py_XDECREF(x);
    Py_XDECREF(t);
    return answer;
}

/* The arguments of reconstruct, converted. */
typedef struct {
    PyArrayObject *images, *index, *draws, *noise;
    Py_buffer hashes; /* .obj is NULL where there are none */
    npy_intp count, shape[4];
} Reconstruction;

static void reconstruction_clear(Reconstruction *work) {
    Py_XDECREF(work->images);
    Py_XDECREF(work->index);
    Py_XDECREF(work->draws);
    Py_XDECREF(work->noise);
    PyBuffer_Release(&work->hashes);
}

static int read_reconstruction(Reconstruction *work, EngineObject *self, PyObject *images, PyObject *index,
                               PyObject *draws, PyObject *hashes, PyObject *noise) {
    npy_intp *shape = work->shape, items = -'M';
    if (hashes == Py_None && noise == Py_None) {
        PyErr_SetString(PyExc_ValueError, "hashes: expected 16 bytes an image where no noise is given, got None");
        return -1;
    }
    batch_shape(self, -'B', shape);
    if (!(work->images = float32_array(images, "images", 4, shape)) || check_range(work->images, "images", 0, 1) < 0) {
        return -1;
    }
    npy_intp count = PyArray_DIM(work->images, 0);
    if (count > INT32_MAX) {
        PyErr_Format(PyExc_ValueError, "images: expected at most %d images, got %zd", INT32_MAX, (Py_ssize_t)count);
        return -1;
    }
    if (!(work->index = int32_array(index, "index", 1, &items, 0, (int32_t)count - 1))) {
        return -1;
    }
    items = PyArray_DIM(work->index, 0);
    if (!(work->draws = int32_array(draws, "draws", 1, &items, 0, INT32_MAX))) {
        return -1;
    }
    shape[0] = items;
    if (noise != Py_None &&
        (!(work->noise = float32_array(noise, "noise", 4, shape)) || check_finite(work->noise, "noise") < 0)) {
        return -1;
    }
    return hashes == Py_None ? 0 : buffer_argument(hashes, "hashes", count * 16, &work->hashes);
}

PyDoc_STRVAR(
    reconstruct_doc,
    "reconstruct($self, /, sampler, images, index, draws, *, hashes=None, noise=None)\n--\n\n"
    "Reconstructions, float32 (M, C, H, W) in [0, 1]: item m is image index[m] of images, float32 (B, C, H, W)\n"
    "in [0, 1], noised with draw draws[m] >= 0 of its own normals and denoised by the sampler's steps. hashes\n"
    "are 16 bytes an image, as content_hashes gives them; noise, float32 (M, C, H, W) and finite, takes the\n"
    "place of the keyed normals. No array may be written to meanwhile. Ctrl-C stops it within one evaluation.");

static PyObject *engine_reconstruct(PyObject *object, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"sampler", "images", "index", "draws", "hashes", "noise", NULL};
    EngineObject *self = (EngineObject *)object;
    PyObject *sampler, *images, *index, *draws, *hashes = Py_None, *noise = Py_None, *answer = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOO|$OO:reconstruct", names, &sampler, &images, &index, &draws,
                                     &hashes, &noise) ||
        object_argument(sampler, "sampler", state_of(Py_TYPE(self))->sampler) < 0) {
        return NULL;
    }
    Reconstruction work = {0};
    PyArrayObject *out = NULL;
    if (read_reconstruction(&work, self, images, index, draws, hashes, noise) == 0) {
        out = new_array(4, work.shape, NPY_FLOAT32);
    }
    if (out && lock_acquire(&self->lock, "Engine") == 0) {
        df_error error;
        Interruptible call;
        interruptible_open(&call);
        df_code code = df_reconstruct(
            self->engine, ((SamplerObject *)sampler)->sampler, PyArray_DIM(work.images, 0), PyArray_DATA(work.images),
            work.hashes.buf, work.shape[0], PyArray_DATA(work.index), PyArray_DATA(work.draws),
            work.noise ? PyArray_DATA(work.noise) : NULL, PyArray_DATA(out), &call.interrupt, &error);
        interruptible_close(&call);
        lock_release(&self->lock);
        answer = finish(out, code, &error);
    } else {
        Py_XDECREF(out);
    }
    reconstruction_clear(&work);
    return answer;
}

PyDoc_STRVAR(profile_doc,
             "profile($self, /)\n--\n\n"
             "The plan's steps with how long each took in the last evaluation: tuples of kind, (channels, height,\n"
             "width) read, (channels, height, width) made, kernel size, flop of one image as a direct computation\n"
             "does it, and seconds.");

static PyObject *engine_profile(PyObject *object, PyObject *Py_UNUSED(ignored)) {
    EngineObject *self = (EngineObject *)object;
    if (lock_acquire(&self->lock, "Engine") < 0) {
        return NULL;
    }
    PyObject *steps = PyList_New(0);
    for (int32_t i = 0; steps && i < df_engine_step_count(self->engine); i++) {
        const df_step_profile s = df_engine_step_profile(self->engine, i);
        PyObject *step = profile_row(&s);
        if (!step || PyList_Append(steps, step) < 0) {
            Py_CLEAR(steps);
        }
        Py_XDECREF(step);
    }
    lock_release(&self->lock);
    return steps;
}

static PyMethodDef engine_methods[] = {
    {"profile", engine_profile, METH_NOARGS, profile_doc},
    KEYWORD_METHOD("predict", engine_predict, predict_doc),
    KEYWORD_METHOD("reconstruct", engine_reconstruct, reconstruct_doc),
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef engine_properties[] = {
    {"model", engine_model, NULL, "The Model that it was made of.", NULL},
    {"batch", engine_batch, NULL, "Images that one pass of the network takes.", NULL},
    {"threads", engine_threads, NULL, "Threads that a call uses, the caller's among them.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyDoc_STRVAR(engine_doc, "Engine(model, *, batch, threads)\n--\n\n"
                         "A model planned for up to `batch` images and `threads` threads. Calls are serialised by the\n"
                         "object's own lock, and the GIL is released while one runs; different engines run at once.");

static PyType_Slot engine_slots[] = {
    {Py_tp_doc, (void *)engine_doc},
    {Py_tp_new, engine_new},
    {Py_tp_dealloc, engine_dealloc},
    {Py_tp_traverse, engine_traverse},
    {Py_tp_methods, engine_methods},
    {Py_tp_getset, engine_properties},
    {0, NULL},
};

PyType_Spec engine_spec = {
    .name = "diffence._core.Engine",
    .basicsize = sizeof(EngineObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = engine_slots,
};
