/* A program from Python: a shape, a table of operations, named weights. */
#include "boundary.h"

enum { OP_COLUMNS = 7 }; /* kind, in0, in1, in2, w0, w1, attr */

void program_clear(Program *self) {
    PyMem_Free(self->ops);
    PyMem_Free(self->weights);
    Py_XDECREF(self->arrays);
    Py_XDECREF(self->named);
}

static int read_shape(Program *self, PyObject *value) {
    PyObject *shape = PySequence_Check(value) ? PySequence_Tuple(value) : NULL;
    if (!shape || PyTuple_GET_SIZE(shape) != 3) {
        Py_XDECREF(shape);
        if (!PyErr_Occurred()) {
            PyErr_Format(PyExc_TypeError, "shape: expected (channels, height, width), got %R", value);
        }
        return -1;
    }
    df_program *program = &self->program;
    int status = 0;
    if (int32_argument(PyTuple_GET_ITEM(shape, 0), "shape[0]", 1, INT32_MAX, &program->channels) < 0 ||
        int32_argument(PyTuple_GET_ITEM(shape, 1), "shape[1]", 1, INT32_MAX, &program->height) < 0 ||
        int32_argument(PyTuple_GET_ITEM(shape, 2), "shape[2]", 1, INT32_MAX, &program->width) < 0) {
        status = -1;
    }
    Py_DECREF(shape);
    return status;
}

static int read_ops(Program *self, PyObject *ops_value, PyObject *epsilons_value) {
    npy_intp shape[2] = {-'N', OP_COLUMNS};
    PyArrayObject *table = int32_array(ops_value, "ops", 2, shape, INT32_MIN, INT32_MAX), *epsilons = NULL;
    if (table) {
        shape[0] = PyArray_DIM(table, 0);
        epsilons = float32_array(epsilons_value, "epsilons", 1, shape);
    }
    int status = -1;
    if (epsilons && shape[0] > INT32_MAX) {
        PyErr_Format(PyExc_ValueError, "ops: expected at most %d operations, got %zd", INT32_MAX, (Py_ssize_t)shape[0]);
    } else if (epsilons && !(self->ops = PyMem_New(df_op, (size_t)shape[0]))) {
        PyErr_NoMemory();
    } else if (epsilons) {
        const int32_t *row = PyArray_DATA(table);
        const float *epsilon = PyArray_DATA(epsilons);
        for (npy_intp i = 0; i < shape[0]; i++, row += OP_COLUMNS) {
            self->ops[i] = (df_op){row[0], {row[1], row[2], row[3]}, {row[4], row[5]}, row[6], epsilon[i]};
        }
        self->program.ops = self->ops;
        self->program.op_count = (int32_t)shape[0];
        status = 0;
    }
    Py_XDECREF(table);
    Py_XDECREF(epsilons);
    return status;
}

static int read_weight(Program *self, Py_ssize_t i) {
    PyObject *pair = PyTuple_GET_ITEM(self->named, i);
    char name[120];
    PyOS_snprintf(name, sizeof name, "weights[%zd]", i);
    if (!PyTuple_Check(pair) || PyTuple_GET_SIZE(pair) != 2 || !PyUnicode_Check(PyTuple_GET_ITEM(pair, 0))) {
        PyErr_Format(PyExc_TypeError, "%s: expected a tuple (name, array), got %.200R", name, pair);
        return -1;
    }
    df_weight *weight = &self->weights[i];
    weight->name = PyUnicode_AsUTF8(PyTuple_GET_ITEM(pair, 0));
    if (!weight->name) {
        return -1;
    }
    PyOS_snprintf(name, sizeof name, "weights[%zd] (%.80s)", i, weight->name);
    PyArrayObject *array = weight_array(PyTuple_GET_ITEM(pair, 1), name);
    if (!array) {
        return -1;
    }
    weight->data = PyArray_DATA(array);
    weight->rank = PyArray_NDIM(array);
    for (int axis = 0; axis < weight->rank; axis++) {
        weight->shape[axis] = PyArray_DIM(array, axis);
    }
    int status = PyList_Append(self->arrays, (PyObject *)array);
    Py_DECREF(array); /* the list keeps it; the core checks that it is finite */
    return status;
}

static int read_weights(Program *self, PyObject *value) {
    self->named = PySequence_Check(value) ? PySequence_Tuple(value) : NULL;
    if (!self->named) {
        if (!PyErr_Occurred()) {
            PyErr_Format(PyExc_TypeError, "weights: expected a sequence of (name, array), got %s",
                         Py_TYPE(value)->tp_name);
        }
        return -1;
    }
    Py_ssize_t count = PyTuple_GET_SIZE(self->named);
    self->arrays = PyList_New(0);
    self->weights = PyMem_Calloc((size_t)count, sizeof *self->weights);
    if (!self->arrays || !self->weights || count > INT32_MAX) {
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        if (read_weight(self, i) < 0) {
            return -1;
        }
    }
    self->program.weights = self->weights;
    self->program.weight_count = (int32_t)count;
    return 0;
}

int program_read(Program *self, PyObject *shape, PyObject *ops, PyObject *epsilons, PyObject *weights) {
    return read_shape(self, shape) < 0 || read_ops(self, ops, epsilons) < 0 || read_weights(self, weights) < 0 ? -1 : 0;
}
