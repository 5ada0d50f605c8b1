#include "boundary.h"

static PyObject *sampler_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"alpha_bar", "T", "k", "mode", NULL};
    PyObject *levels, *T_value, *k_value, *mode_value;
    int32_t T, k;
    df_mode mode;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOO:Sampler", names, &levels, &T_value, &k_value, &mode_value) ||
        int32_argument(T_value, "T", 1, INT32_MAX, &T) < 0 || int32_argument(k_value, "k", 1, INT32_MAX, &k) < 0 ||
        mode_argument(mode_value, &mode) < 0) {
        return NULL;
    }
    npy_intp steps = -'S';
    PyArrayObject *alpha_bar = float64_array(levels, "alpha_bar", 1, &steps);
    if (!alpha_bar) {
        return NULL;
    }
    SamplerObject *self = NULL;
    steps = PyArray_DIM(alpha_bar, 0);
    if (steps > INT32_MAX) {
        PyErr_Format(PyExc_ValueError, "alpha_bar: expected at most %d values, got %zd", INT32_MAX, (Py_ssize_t)steps);
    } else if ((self = (SamplerObject *)type->tp_alloc(type, 0))) {
        df_error error;
        df_code code = df_sampler_create(PyArray_DATA(alpha_bar), (int32_t)steps, T, k, mode, &self->sampler, &error);
        if (code != DF_OK) {
            Py_CLEAR(self);
            raise_core_error(code, &error);
        }
    }
    Py_DECREF(alpha_bar);
    return (PyObject *)self;
}

static void sampler_dealloc(PyObject *self) {
    PyObject_GC_UnTrack(self);
    df_sampler_destroy(((SamplerObject *)self)->sampler);
    free_instance(self);
}

static PyObject *sampler_signal(PyObject *self, void *Py_UNUSED(closure)) {
    return PyFloat_FromDouble((double)((SamplerObject *)self)->sampler->signal);
}

static PyObject *sampler_noise(PyObject *self, void *Py_UNUSED(closure)) {
    return PyFloat_FromDouble((double)((SamplerObject *)self)->sampler->noise);
}

static PyObject *sampler_steps(PyObject *self, void *Py_UNUSED(closure)) {
    const df_sampler *sampler = ((SamplerObject *)self)->sampler;
    PyObject *steps = PyList_New(sampler->step_count);
    for (int32_t i = 0; steps && i < sampler->step_count; i++) {
        const df_step *step = &sampler->steps[i];
        PyObject *row = Py_BuildValue("(idd)", (int)step->t, (double)step->x_scale, (double)step->eps_scale);
        if (row) {
            PyList_SET_ITEM(steps, i, row);
        } else {
            Py_CLEAR(steps);
        }
    }
    return steps;
}

static PyGetSetDef sampler_properties[] = {
    {"signal", sampler_signal, NULL, "The factor of the image when it is noised.", NULL},
    {"noise", sampler_noise, NULL, "The factor of the normals when it is noised.", NULL},
    {"steps", sampler_steps, NULL, "(t, x_scale, eps_scale) of each network evaluation, in order.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyDoc_STRVAR(sampler_doc,
             "Sampler(alpha_bar, T, k, mode)\n--\n\n"
             "DDIM(k), eta = 0, from step T (1-based) of the schedule alpha_bar, float64 (S,), as a list of steps\n"
             "x <- x_scale * x + eps_scale * network(x, t); immutable. mode: 'paper' (1 <= T <= S) or 'official'\n"
             "(1 <= T <= S - 1); 1 <= k <= T.");

static PyType_Slot sampler_slots[] = {
    {Py_tp_doc, (void *)sampler_doc},     {Py_tp_new, sampler_new},           {Py_tp_dealloc, sampler_dealloc},
    {Py_tp_traverse, traverse_type_only}, {Py_tp_getset, sampler_properties}, {0, NULL},
};

PyType_Spec sampler_spec = {
    .name = "diffence._core.Sampler",
    .basicsize = sizeof(SamplerObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = sampler_slots,
};
