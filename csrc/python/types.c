/* What the types of both extension modules share. */
#include "boundary.h"

int traverse_type_only(PyObject *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    return 0;
}

void free_instance(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    type->tp_free(self);
    Py_DECREF(type);
}

int add_type(PyObject *module, PyType_Spec *spec, PyTypeObject **type) {
    *type = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, NULL);
    return *type ? PyModule_AddType(module, *type) : -1;
}

PyObject *profile_row(const df_step_profile *s) {
    return Py_BuildValue("s(iii)(iii)idd", s->kind, s->channels, s->height, s->width, s->out_channels, s->out_height,
                         s->out_width, s->size, s->flop, s->seconds);
}
