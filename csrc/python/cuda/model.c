#include "cuda.h"

#include <stddef.h>
#include <structmember.h>

static PyObject *model_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"shape", "ops", "epsilons", "weights", "device", "precision", "hopper", NULL};
    PyObject *shape, *ops, *epsilons, *weights, *device_value, *precision_value;
    int hopper;
    df_cuda_options options = {0};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOOOOp:Model", names, &shape, &ops, &epsilons, &weights,
                                     &device_value, &precision_value, &hopper) ||
        int32_argument(device_value, "device", 0, INT32_MAX, &options.device) < 0 ||
        cuda_precision_argument(precision_value, &options.precision) < 0) {
        return NULL;
    }
    options.hopper = hopper;
    Program program = {0};
    CudaModelObject *self = NULL;
    if (program_read(&program, shape, ops, epsilons, weights) == 0 &&
        (self = (CudaModelObject *)type->tp_alloc(type, 0))) {
        df_error error;
        PyThreadState *thread = PyEval_SaveThread();
        df_code code = df_cuda_model_create(&program.program, &options, &self->model, &error);
        PyEval_RestoreThread(thread);
        if (code != DF_OK) {
            Py_CLEAR(self);
            raise_core_error(code, &error);
        }
    }
    program_clear(&program);
    return (PyObject *)self;
}

static void model_dealloc(PyObject *object) {
    CudaModelObject *self = (CudaModelObject *)object;
    PyObject_GC_UnTrack(self);
    PyObject_ClearWeakRefs(object);
    df_cuda_model_release(self->model);
    free_instance(object);
}

static PyObject *model_device(PyObject *self, void *Py_UNUSED(closure)) {
    return PyLong_FromLong(df_cuda_model_device(((CudaModelObject *)self)->model));
}

static PyObject *model_precision(PyObject *self, void *Py_UNUSED(closure)) {
    return PyUnicode_FromString(cuda_precision_name(df_cuda_model_precision(((CudaModelObject *)self)->model)));
}

static PyObject *model_hopper(PyObject *self, void *Py_UNUSED(closure)) {
    return PyBool_FromLong(df_cuda_model_hopper(((CudaModelObject *)self)->model));
}

static PyObject *model_shape(PyObject *self, void *Py_UNUSED(closure)) {
    int32_t channels, height, width;
    df_cuda_model_shape(((CudaModelObject *)self)->model, &channels, &height, &width);
    return Py_BuildValue("(iii)", (int)channels, (int)height, (int)width);
}

static PyObject *model_time_steps(PyObject *self, void *Py_UNUSED(closure)) {
    return PyLong_FromLong(df_cuda_model_time_steps(((CudaModelObject *)self)->model));
}

PyDoc_STRVAR(memory_doc, "memory($self, /, batch)\n--\n\n"
                         "Bytes of the GPU that an Engine of this size takes, before it is taken: weights (shared by\n"
                         "the engines of the model), arena (everything that a run touches).");

static PyObject *model_memory(PyObject *self, PyObject *batch_value) {
    int32_t batch;
    if (int32_argument(batch_value, "batch", 1, INT32_MAX, &batch) < 0) {
        return NULL;
    }
    df_cuda_memory memory;
    df_error error;
    df_code code = df_cuda_engine_memory(((CudaModelObject *)self)->model, batch, &memory, &error);
    if (code != DF_OK) {
        return raise_core_error(code, &error);
    }
    return Py_BuildValue("{s:n,s:n}", "weights", (Py_ssize_t)memory.weights, "arena", (Py_ssize_t)memory.arena);
}

static PyMethodDef model_methods[] = {
    {"memory", model_memory, METH_O, memory_doc},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef model_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(CudaModelObject, weak_references), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef model_properties[] = {
    {"device", model_device, NULL, "Number of its GPU.", NULL},
    {"precision", model_precision, NULL, "What it multiplies and stores: 'fp32', 'bf16' or 'fp16'.", NULL},
    {"hopper", model_hopper, NULL, "Whether it uses Hopper's own instructions.", NULL},
    {"shape", model_shape, NULL, "(channels, height, width) of an image.", NULL},
    {"time_steps", model_time_steps, NULL, "Rows of the time table; 0 where the program uses no time.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyDoc_STRVAR(model_doc,
             "Model(shape, ops, epsilons, weights, device, precision, hopper)\n--\n\n"
             "A validated program (as _core.Model takes it) with its weights packed on one GPU; immutable. hopper:\n"
             "Hopper's own instructions where the GPU and this build have them.");

static PyType_Slot model_slots[] = {
    {Py_tp_doc, (void *)model_doc},   {Py_tp_new, model_new},
    {Py_tp_dealloc, model_dealloc},   {Py_tp_traverse, traverse_type_only},
    {Py_tp_methods, model_methods},   {Py_tp_members, model_members},
    {Py_tp_getset, model_properties}, {0, NULL},
};

PyType_Spec cuda_model_spec = {
    .name = "diffence._cuda.Model",
    .basicsize = sizeof(CudaModelObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = model_slots,
};
