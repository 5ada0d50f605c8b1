#include "boundary.h"

/* The core's calls here are short, so they keep the GIL; the lock is for builds of Python that have none. */
typedef struct {
    PyObject_HEAD df_draws *draws;
    Lock lock;
} DrawsObject;

static PyObject *draws_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"n", "labels", "early", "interval", NULL};
    PyObject *n_value, *labels_value, *interval_value = NULL;
    int32_t n;
    int early = 0;
    df_interval interval;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO|$pO:Draws", names, &n_value, &labels_value, &early,
                                     &interval_value) ||
        int32_argument(n_value, "n", 1, INT32_MAX, &n) < 0 || interval_argument(interval_value, &interval) < 0) {
        return NULL;
    }
    npy_intp images = -'B';
    PyArrayObject *labels = int32_array(labels_value, "labels", 1, &images, 0, INT32_MAX);
    DrawsObject *self = labels ? (DrawsObject *)type->tp_alloc(type, 0) : NULL;
    if (self && lock_create(&self->lock) < 0) {
        Py_CLEAR(self);
    }
    if (self) {
        df_error error;
        df_code code =
            df_draws_create(PyArray_DIM(labels, 0), n, PyArray_DATA(labels), interval, early, &self->draws, &error);
        if (code != DF_OK) {
            Py_CLEAR(self);
            raise_core_error(code, &error);
        }
    }
    Py_XDECREF(labels);
    return (PyObject *)self;
}

static void draws_dealloc(PyObject *object) {
    DrawsObject *self = (DrawsObject *)object;
    PyObject_GC_UnTrack(self);
    df_draws_destroy(self->draws);
    lock_destroy(&self->lock);
    free_instance(object);
}

static PyObject *draws_done(PyObject *object, void *Py_UNUSED(closure)) {
    DrawsObject *self = (DrawsObject *)object;
    if (lock_acquire(&self->lock, "Draws") < 0) {
        return NULL;
    }
    bool done = df_draws_done(self->draws);
    lock_release(&self->lock);
    return PyBool_FromLong(done);
}

PyDoc_STRVAR(next_doc,
             "next($self, /, most)\n--\n\n"
             "(image, draw), int32 arrays, of up to `most` items to compute now; empty when nothing is left to\n"
             "hand out, or when all that is left waits for a submit.");

static PyObject *draws_next(PyObject *object, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"most", NULL};
    DrawsObject *self = (DrawsObject *)object;
    PyObject *most_value, *answer = NULL;
    int64_t most;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O:next", names, &most_value) ||
        int_argument(most_value, "most", 1, INT64_MAX, &most) < 0) {
        return NULL;
    }
    int64_t items = df_draws_images(self->draws) * df_draws_n(self->draws); /* they fit memory, so the product fits */
    most = most < items ? most : items;
    int32_t *index = PyMem_New(int32_t, (size_t)most), *draw = PyMem_New(int32_t, (size_t)most);
    if (!index || !draw) {
        PyErr_NoMemory();
    } else if (lock_acquire(&self->lock, "Draws") == 0) {
        int64_t count = df_draws_next(self->draws, most, index, draw);
        lock_release(&self->lock);
        answer = Py_BuildValue("(NN)", copy_array(count, NPY_INT32, index), copy_array(count, NPY_INT32, draw));
    }
    PyMem_Free(index);
    PyMem_Free(draw);
    return answer;
}

PyDoc_STRVAR(submit_doc,
             "submit($self, /, index, draw, phi, predicted)\n--\n\n"
             "Results of M items that were handed out, in any order: index, draw and predicted integers (M,),\n"
             "phi float64 (M,). ValueError for an item that was not handed out or was submitted before; then\n"
             "nothing of the call counts.");

static PyObject *draws_submit(PyObject *object, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"index", "draw", "phi", "predicted", NULL};
    DrawsObject *self = (DrawsObject *)object;
    PyObject *index_value, *draw_value, *phi_value, *predicted_value;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOO:submit", names, &index_value, &draw_value, &phi_value,
                                     &predicted_value)) {
        return NULL;
    }
    npy_intp count = -'M';
    int32_t last_image = (int32_t)(df_draws_images(self->draws) - 1), last_draw = df_draws_n(self->draws) - 1;
    PyArrayObject *index = int32_array(index_value, "index", 1, &count, 0, last_image), *draw = NULL, *phi = NULL,
                  *predicted = NULL;
    if (index) {
        count = PyArray_DIM(index, 0);
        draw = int32_array(draw_value, "draw", 1, &count, 0, last_draw);
    }
    if (draw) {
        phi = float64_array(phi_value, "phi", 1, &count);
    }
    if (phi) {
        predicted = int32_array(predicted_value, "predicted", 1, &count, 0, INT32_MAX);
    }
    int submitted = 0;
    if (predicted && lock_acquire(&self->lock, "Draws") == 0) {
        df_error error;
        df_code code = df_draws_submit(self->draws, count, PyArray_DATA(index), PyArray_DATA(draw), PyArray_DATA(phi),
                                       PyArray_DATA(predicted), &error);
        lock_release(&self->lock);
        submitted = code == DF_OK;
        if (!submitted) {
            raise_core_error(code, &error);
        }
    }
    Py_XDECREF(index);
    Py_XDECREF(draw);
    Py_XDECREF(phi);
    Py_XDECREF(predicted);
    return submitted ? Py_NewRef(Py_None) : NULL;
}

PyDoc_STRVAR(result_doc,
             "result($self, /)\n--\n\n"
             "(used, draw, outcome) of each image, int32, int32 and int8 (B,): draws computed, the chosen one,\n"
             "and INSIDE, NEAREST or FALLBACK. ValueError before done.");

static PyObject *draws_result(PyObject *object, PyObject *Py_UNUSED(ignored)) {
    DrawsObject *self = (DrawsObject *)object;
    npy_intp images = df_draws_images(self->draws);
    PyArrayObject *used = new_array(1, &images, NPY_INT32), *draw = new_array(1, &images, NPY_INT32),
                  *outcome = new_array(1, &images, NPY_INT8);
    if (used && draw && outcome && lock_acquire(&self->lock, "Draws") == 0) {
        df_error error;
        df_code code =
            df_draws_result(self->draws, PyArray_DATA(used), PyArray_DATA(draw), PyArray_DATA(outcome), &error);
        lock_release(&self->lock);
        if (code == DF_OK) {
            return Py_BuildValue("(NNN)", used, draw, outcome);
        }
        raise_core_error(code, &error);
    }
    Py_XDECREF(used);
    Py_XDECREF(draw);
    Py_XDECREF(outcome);
    return NULL;
}

static PyMethodDef draws_methods[] = {
    KEYWORD_METHOD("next", draws_next, next_doc),
    KEYWORD_METHOD("submit", draws_submit, submit_doc),
    {"result", draws_result, METH_NOARGS, result_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef draws_properties[] = {
    {"done", draws_done, NULL, "Whether every image's answer is certain.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyDoc_STRVAR(draws_doc,
             "Draws(n, labels, *, early=False, interval=None)\n--\n\n"
             "Hands out (image, draw) items, n >= 1 draws of each image, and collects their phi and predicted\n"
             "class. labels: integers (B,) >= 0, the classes to keep. interval: (low, high), closed; None: every\n"
             "agreeing draw is acceptable. early: an image ends as soon as its answer is certain, which is the\n"
             "answer that all n draws would have given.");

static PyType_Slot draws_slots[] = {
    {Py_tp_doc, (void *)draws_doc},
    {Py_tp_new, draws_new},
    {Py_tp_dealloc, draws_dealloc},
    {Py_tp_traverse, traverse_type_only},
    {Py_tp_methods, draws_methods},
    {Py_tp_getset, draws_properties},
    {0, NULL},
};

PyType_Spec draws_spec = {
    .name = "diffence._core.Draws",
    .basicsize = sizeof(DrawsObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = draws_slots,
};
