#define DIFFENCE_IMPORTS_NUMPY
#include "boundary.h"

/* The names of enum df_op_kind, in its order. */
static const char *const op_names[] = {"time_embedding", "linear", "silu",   "conv",    "group_norm",
                                       "attention",      "add",    "concat", "upsample"};
_Static_assert(sizeof op_names / sizeof *op_names == DF_OP_KIND_COUNT, "a name for every operation");

static int add_operations(PyObject *module) {
    PyObject *operations = PyDict_New();
    for (int kind = 0; operations && kind < DF_OP_KIND_COUNT; kind++) {
        PyObject *number = PyLong_FromLong(kind);
        if (!number || PyDict_SetItemString(operations, op_names[kind], number) < 0) {
            Py_CLEAR(operations);
        }
        Py_XDECREF(number);
    }
    int status = operations ? PyModule_AddObjectRef(module, "OPS", operations) : -1;
    Py_XDECREF(operations);
    return status;
}

static int module_exec(PyObject *module) {
    if (PyArray_ImportNumPyAPI() < 0) {
        return -1;
    }
    ModuleState *state = PyModule_GetState(module);
    if (add_type(module, &model_spec, &state->model) < 0 || add_type(module, &engine_spec, &state->engine) < 0 ||
        add_type(module, &sampler_spec, &state->sampler) < 0 || add_type(module, &draws_spec, &state->draws) < 0 ||
        add_operations(module) < 0) {
        return -1;
    }
    if (PyModule_AddIntConstant(module, "INSIDE", DF_INSIDE) < 0 ||
        PyModule_AddIntConstant(module, "NEAREST", DF_NEAREST) < 0 ||
        PyModule_AddIntConstant(module, "FALLBACK", DF_FALLBACK) < 0) {
        return -1;
    }
    return 0;
}

static int module_traverse(PyObject *module, visitproc visit, void *arg) {
    ModuleState *state = PyModule_GetState(module);
    Py_VISIT(state->model);
    Py_VISIT(state->engine);
    Py_VISIT(state->sampler);
    Py_VISIT(state->draws);
    return 0;
}

static int module_clear(PyObject *module) {
    ModuleState *state = PyModule_GetState(module);
    Py_CLEAR(state->model);
    Py_CLEAR(state->engine);
    Py_CLEAR(state->sampler);
    Py_CLEAR(state->draws);
    return 0;
}

static void module_free(void *module) {
    module_clear(module);
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
#if PY_VERSION_HEX >= 0x030C0000
    /* NumPy, whose C API this module uses, does not support them. */
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
#if PY_VERSION_HEX >= 0x030D0000
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

PyDoc_STRVAR(module_doc, "The C core. Private: diffence.engine, diffence.selection and diffence.fence are the faces.");

static struct PyModuleDef module_definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "diffence._core",
    .m_doc = module_doc,
    .m_size = sizeof(ModuleState),
    .m_methods = functions,
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC PyInit__core(void); /* Python's headers do not declare it */

PyMODINIT_FUNC PyInit__core(void) {
    return PyModuleDef_Init(&module_definition);
}
