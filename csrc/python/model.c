#include "boundary.h"

#include <stddef.h>
#include <structmember.h>

/* isa None or a str, precision, direct -> *options. The instruction set is resolved here and not in the core, which
 * runs without the GIL: that reads the environment, and os.environ writes it. */
static int read_options(PyObject *isa, PyObject *precision, int direct, df_options *options) {
    *options = (df_options){.direct = direct};
    if (precision_argument(precision, &options->precision) < 0) {
        return -1;
    }
    if (isa != Py_None && !PyUnicode_Check(isa)) {
        PyErr_Format(PyExc_TypeError, "isa: expected a str or None, got %s", Py_TYPE(isa)->tp_name);
        return -1;
    }
    const char *isa_name = isa == Py_None ? NULL : PyUnicode_AsUTF8(isa);
    if (PyErr_Occurred()) {
        return -1;
    }
    int32_t chosen;
    df_error error;
    df_code code = df_isa_resolve(isa_name, options->precision, &chosen, &error);
    if (code != DF_OK) {
        raise_core_error(code, &error);
        return -1;
    }
    options->isa = df_isa_name(chosen);
    return 0;
}

static PyObject *model_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"shape", "ops", "epsilons", "weights", "isa", "precision", "direct", NULL};
    PyObject *shape, *ops, *epsilons, *weights, *isa = Py_None;
    PyObject *precision = NULL;
    int direct = 0;
    df_options options;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOO|$OOp:Model", names, &shape, &ops, &epsilons, &weights, &isa,
                                     &precision, &direct) ||
        read_options(isa, precision, direct, &options) < 0) {
        return NULL;
    }
    Program program = {0};
    ModelObject *self = NULL;
    if (program_read(&program, shape, ops, epsilons, weights) == 0 && (self = (ModelObject *)type->tp_alloc(type, 0))) {
        df_error error;
        PyThreadState *thread = PyEval_SaveThread();
        df_code code = df_model_create(&program.program, &options, &self->model, &error);
        PyEval_RestoreThread(thread);
        if (code != DF_OK) {
            Py_CLEAR(self);
            raise_core_error(code, &error);
        }
    }
    program_clear(&program);
    return (PyObject *)self;
}

static PyObject *memory_record(const df_memory *memory) {
    return Py_BuildValue("{s:n,s:n,s:n}", "weights", (Py_ssize_t)memory->weights, "arena", (Py_ssize_t)memory->arena,
                         "scratch", (Py_ssize_t)memory->scratch);
}

PyDoc_STRVAR(memory_needed_doc,
             "memory_needed($type, /, shape, ops, epsilons, weights, *, batch, threads, isa=None, precision='fp32', "
             "direct=False)\n--\n\n"
             "What `memory` of such a Model says, before it is made: nothing is packed.");

static PyObject *model_memory_needed(PyObject *Py_UNUSED(type), PyObject *args, PyObject *kwargs) {
    static char *names[] = {"shape",   "ops", "epsilons",  "weights", "batch",
                            "threads", "isa", "precision", "direct",  NULL};
    PyObject *shape, *ops, *epsilons, *weights, *batch_value = NULL, *threads_value = NULL, *isa = Py_None;
    PyObject *record = NULL;
    PyObject *precision = NULL;
    int direct = 0;
    int32_t batch, threads;
    df_options options;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOO|$OOOOp:memory_needed", names, &shape, &ops, &epsilons,
                                     &weights, &batch_value, &threads_value, &isa, &precision, &direct) ||
        read_options(isa, precision, direct, &options) < 0) {
        return NULL;
    }
    if (!batch_value || !threads_value) {
        PyErr_SetString(PyExc_TypeError, "memory_needed: batch and threads must be given");
        return NULL;
    }
    if (int32_argument(batch_value, "batch", 1, INT32_MAX, &batch) < 0 ||
        int32_argument(threads_value, "threads", 1, INT32_MAX, &threads) < 0) {
        return NULL;
    }
    Program program = {0};
    if (program_read(&program, shape, ops, epsilons, weights) == 0) {
        df_memory memory;
        df_error error;
        df_code code = df_memory_needed(&program.program, &options, batch, threads, &memory, &error);
        record = code == DF_OK ? memory_record(&memory) : raise_core_error(code, &error);
    }
    program_clear(&program);
    return record;
}

static void model_dealloc(PyObject *self) {
    PyObject_GC_UnTrack(self);
    PyObject_ClearWeakRefs(self);
    df_model_release(((ModelObject *)self)->model);
    free_instance(self);
}

static PyObject *model_isa(PyObject *self, void *Py_UNUSED(closure)) {
    return PyUnicode_FromString(df_model_isa(((ModelObject *)self)->model));
}

static PyObject *model_precision(PyObject *self, void *Py_UNUSED(closure)) {
    return PyUnicode_FromString(precision_name(df_model_precision(((ModelObject *)self)->model)));
}

static PyObject *model_parameters(PyObject *self, void *Py_UNUSED(closure)) {
    return PyLong_FromLongLong(df_model_parameters(((ModelObject *)self)->model));
}

static PyObject *model_shape(PyObject *self, void *Py_UNUSED(closure)) {
    int32_t channels, height, width;
    df_model_shape(((ModelObject *)self)->model, &channels, &height, &width);
    return Py_BuildValue("(iii)", (int)channels, (int)height, (int)width);
}

static PyObject *model_time_steps(PyObject *self, void *Py_UNUSED(closure)) {
    return PyLong_FromLong(df_model_time_steps(((ModelObject *)self)->model));
}

PyDoc_STRVAR(memory_doc, "memory($self, /, batch, threads)\n--\n\n"
                         "Bytes that an Engine of this size takes, before it is taken: weights (shared by the engines\n"
                         "of the model), arena (activations), scratch (the workers' own buffers).");

static PyObject *model_memory(PyObject *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"batch", "threads", NULL};
    PyObject *batch_value, *threads_value;
    int32_t batch, threads;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO:memory", names, &batch_value, &threads_value) ||
        int32_argument(batch_value, "batch", 1, INT32_MAX, &batch) < 0 ||
        int32_argument(threads_value, "threads", 1, INT32_MAX, &threads) < 0) {
        return NULL;
    }
    df_memory memory;
    df_error error;
    df_code code = df_engine_memory(((ModelObject *)self)->model, batch, threads, &memory, &error);
    if (code != DF_OK) {
        return raise_core_error(code, &error);
    }
    return memory_record(&memory);
}

static PyMethodDef model_methods[] = {
    KEYWORD_METHOD("memory", model_memory, memory_doc),
    {"memory_needed", (PyCFunction)(void (*)(void))model_memory_needed, METH_VARARGS | METH_KEYWORDS | METH_CLASS,
     memory_needed_doc},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef model_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(ModelObject, weak_references), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef model_properties[] = {
    {"isa", model_isa, NULL, "Name of the instruction set that the weights are packed for.", NULL},
    {"precision", model_precision, NULL, "What it multiplies: 'fp32' or 'bf16'.", NULL},
    {"parameters", model_parameters, NULL, "Number of weight values of the program.", NULL},
    {"shape", model_shape, NULL, "(channels, height, width) of an image.", NULL},
    {"time_steps", model_time_steps, NULL, "Rows of the time table; 0 where the program uses no time.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyDoc_STRVAR(model_doc,
             "Model(shape, ops, epsilons, weights, *, isa=None, precision='fp32', direct=False)\n--\n\n"
             "A validated program with its weights packed for one instruction set and precision; immutable.\n\n"
             "shape: (channels, height, width) of an image. ops: integers (N, 7), one row an operation: kind (OPS),\n"
             "in0, in1, in2 (values: 0 the image, 1 the time step, i + 2 what operation i gives; -1: unused), w0, w1\n"
             "(positions in weights; -1: unused), attr (stride, groups or heads). epsilons: float32 (N,), that of\n"
             "each group norm. weights: (name, float32 array) pairs; nothing of them is kept. isa: None is\n"
             "$DIFFENCE_ISA, else the fastest that this machine can run. precision: what is multiplied, 'fp32' or\n"
             "'bf16'; sums are float32. direct: no Winograd, which quadruples the weights of 3x3 convolutions.\n\n"
             "ValueError names what is wrong in the program; RuntimeError: the machine cannot run isa, or cannot run\n"
             "it in this precision.");

static PyType_Slot model_slots[] = {
    {Py_tp_doc, (void *)model_doc},   {Py_tp_new, model_new},
    {Py_tp_dealloc, model_dealloc},   {Py_tp_traverse, traverse_type_only},
    {Py_tp_methods, model_methods},   {Py_tp_members, model_members},
    {Py_tp_getset, model_properties}, {0, NULL},
};

PyType_Spec model_spec = {
    .name = "diffence._core.Model",
    .basicsize = sizeof(ModelObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = model_slots,
};
