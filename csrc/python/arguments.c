#include "boundary.h"

#include <float.h>
#include <math.h>
#include <stdio.h>

/* ---------------------------------------------------------------- errors */

PyObject *raise_core_error(df_code code, const df_error *error) {
    PyObject *type = PyExc_SystemError;
    switch (code) {
    case DF_INVALID:
        type = PyExc_ValueError;
        break;
    case DF_OUT_OF_MEMORY:
        type = PyExc_MemoryError;
        break;
    case DF_UNSUPPORTED:
        type = PyExc_RuntimeError;
        break;
    case DF_SYSTEM:
        type = PyExc_OSError;
        break;
    case DF_INTERRUPTED:
        if (!PyErr_Occurred()) {
            PyErr_SetNone(PyExc_KeyboardInterrupt);
        }
        return NULL;
    case DF_OK:
        break;
    }
    PyErr_SetString(type, error->message);
    return NULL;
}

/* ---------------------------------------------------------------- scalars */

int int_argument(PyObject *value, const char *name, int64_t low, int64_t high, int64_t *out) {
    PyObject *index = PyNumber_Index(value);
    if (!index) {
        if (PyErr_ExceptionMatches(PyExc_TypeError)) {
            PyErr_Format(PyExc_TypeError, "%s: expected an integer, got %s", name, Py_TYPE(value)->tp_name);
        }
        return -1;
    }
    int overflow;
    long long number = PyLong_AsLongLongAndOverflow(index, &overflow);
    int failed = overflow || number < low || number > high;
    if (failed && !PyErr_Occurred()) {
        PyErr_Format(PyExc_ValueError, "%s: expected an integer from %lld to %lld, got %S", name, (long long)low,
                     (long long)high, index);
    }
    Py_DECREF(index);
    *out = (int64_t)number;
    return failed ? -1 : 0;
}

int int32_argument(PyObject *value, const char *name, int32_t low, int32_t high, int32_t *out) {
    int64_t wide;
    if (int_argument(value, name, low, high, &wide) < 0) {
        return -1;
    }
    *out = (int32_t)wide;
    return 0;
}

int object_argument(PyObject *value, const char *name, PyTypeObject *type) {
    if (Py_IS_TYPE(value, type)) {
        return 0;
    }
    PyErr_Format(PyExc_TypeError, "%s: expected a %s, got %s", name, type->tp_name, Py_TYPE(value)->tp_name);
    return -1;
}

static const char *const precision_names[DF_PRECISION_COUNT] = {[DF_FP32] = "fp32", [DF_BF16] = "bf16"};

const char *precision_name(df_precision precision) {
    return precision_names[precision];
}

int precision_argument(PyObject *value, df_precision *precision) {
    if (value && !PyUnicode_Check(value)) {
        PyErr_Format(PyExc_TypeError, "precision: expected 'fp32' or 'bf16', got %s", Py_TYPE(value)->tp_name);
        return -1;
    }
    for (*precision = DF_FP32; value && *precision < DF_PRECISION_COUNT; ++*precision) {
        if (PyUnicode_CompareWithASCIIString(value, precision_names[*precision]) == 0) {
            return 0;
        }
    }
    if (!value) {
        return 0;
    }
    PyErr_Format(PyExc_ValueError, "precision: expected 'fp32' or 'bf16', got %.60R", value);
    return -1;
}

int mode_argument(PyObject *value, df_mode *mode) {
    *mode = DF_PAPER;
    if (value && !PyUnicode_Check(value)) {
        PyErr_Format(PyExc_TypeError, "mode: expected a str, got %s", Py_TYPE(value)->tp_name);
        return -1;
    }
    if (!value || PyUnicode_CompareWithASCIIString(value, "paper") == 0) {
        return 0;
    }
    *mode = DF_OFFICIAL;
    if (PyUnicode_CompareWithASCIIString(value, "official") == 0) {
        return 0;
    }
    PyErr_Format(PyExc_ValueError, "mode: expected 'paper' or 'official', got %R", value);
    return -1;
}

int interval_argument(PyObject *value, df_interval *interval) {
    *interval = (df_interval){-INFINITY, INFINITY};
    if (!value || value == Py_None) {
        return 0;
    }
    PyObject *pair = PySequence_Check(value) ? PySequence_Tuple(value) : NULL;
    if (!pair || PyTuple_GET_SIZE(pair) != 2) {
        Py_XDECREF(pair);
        if (!PyErr_Occurred() || PyErr_ExceptionMatches(PyExc_TypeError)) {
            PyErr_Format(PyExc_TypeError, "interval: expected (low, high) or None, got %R", value);
        }
        return -1;
    }
    interval->low = PyFloat_AsDouble(PyTuple_GET_ITEM(pair, 0));
    interval->high = PyErr_Occurred() ? 0 : PyFloat_AsDouble(PyTuple_GET_ITEM(pair, 1));
    Py_DECREF(pair);
    if (PyErr_Occurred()) {
        if (PyErr_ExceptionMatches(PyExc_TypeError)) {
            PyErr_Format(PyExc_TypeError, "interval: expected two numbers, got %R", value);
        }
        return -1;
    }
    if (!(interval->low <= interval->high)) { /* also where one is NaN */
        PyErr_Format(PyExc_ValueError, "interval: expected low <= high, got %R", value);
        return -1;
    }
    return 0;
}

int buffer_argument(PyObject *value, const char *name, Py_ssize_t size, Py_buffer *view) {
    if (PyObject_GetBuffer(value, view, PyBUF_SIMPLE) < 0) {
        if (PyErr_ExceptionMatches(PyExc_TypeError) || PyErr_ExceptionMatches(PyExc_BufferError)) {
            PyErr_Format(PyExc_TypeError, "%s: expected bytes or another contiguous buffer, got %s", name,
                         Py_TYPE(value)->tp_name);
        }
        return -1;
    }
    if (size >= 0 && view->len != size) {
        PyErr_Format(PyExc_ValueError, "%s: expected %zd bytes, got %zd", name, size, view->len);
        PyBuffer_Release(view);
        return -1;
    }
    return 0;
}

/* ---------------------------------------------------------------- arrays */

/* "(B, 3, 32, 32)" */
static void print_shape(char *text, size_t room, int rank, const npy_intp *shape) {
    size_t used = 0;
    for (int axis = 0; axis < rank && used < room; axis++) {
        const char *before = axis ? ", " : "(";
        int wrote = shape[axis] < 0 ? snprintf(text + used, room - used, "%s%c", before, (char)-shape[axis])
                                    : snprintf(text + used, room - used, "%s%lld", before, (long long)shape[axis]);
        used += (size_t)wrote;
    }
    if (used < room) {
        snprintf(text + used, room - used, rank == 0 ? "()" : rank == 1 ? ",)" : ")");
    }
}

static int check_shape(PyArrayObject *array, const char *name, int rank, const npy_intp *shape) {
    int same = PyArray_NDIM(array) == rank, free = 0;
    for (int axis = 0; axis < rank; axis++) {
        free |= shape[axis] < 0;
    }
    for (int axis = 0; same && axis < rank; axis++) {
        npy_intp length = PyArray_DIM(array, axis);
        same = shape[axis] < 0 ? length >= 1 : length == shape[axis];
    }
    if (!same) {
        char expected[160], got[160];
        print_shape(expected, sizeof expected, rank, shape);
        print_shape(got, sizeof got, PyArray_NDIM(array), PyArray_DIMS(array));
        PyErr_Format(PyExc_ValueError, "%s: expected shape %s%s, got %s", name, expected,
                     free ? " with at least one item" : "", got);
        return -1;
    }
    return 0;
}

/* Whatever NumPy makes an array of: arrays, buffers, __array__ (torch tensors on the CPU), nested lists. */
static PyArrayObject *read_array(PyObject *value, const char *name) {
    PyObject *array = PyArray_FromAny(value, NULL, 0, 0, NPY_ARRAY_ENSUREARRAY, NULL);
    if (!array && PyErr_ExceptionMatches(PyExc_Exception) && !PyErr_ExceptionMatches(PyExc_MemoryError)) {
        PyObject *type, *reason, *trace;
        PyErr_Fetch(&type, &reason, &trace);
        PyErr_Format(PyExc_TypeError, "%s: expected an array, got %s: %S", name, Py_TYPE(value)->tp_name,
                     reason ? reason : type);
        Py_XDECREF(type);
        Py_XDECREF(reason);
        Py_XDECREF(trace);
    }
    return (PyArrayObject *)array;
}

static PyArrayObject *refuse_dtype(PyArrayObject *array, const char *name, const char *expected) {
    PyErr_Format(PyExc_TypeError, "%s: expected %s, got %S", name, expected, (PyObject *)PyArray_DESCR(array));
    Py_DECREF(array);
    return NULL;
}

/* Takes over the reference. The array itself where it is already as asked for, else a converted copy. */
static PyArrayObject *convert(PyArrayObject *array, int type) {
    PyArrayObject *result = (PyArrayObject *)PyArray_FromArray(array, PyArray_DescrFromType(type), NPY_ARRAY_CARRAY_RO);
    Py_DECREF(array);
    return result;
}

static PyArrayObject *shaped_array(PyObject *value, const char *name, int rank, const npy_intp *shape) {
    PyArrayObject *array = read_array(value, name);
    if (array && check_shape(array, name, rank, shape) < 0) {
        Py_CLEAR(array);
    }
    return array;
}

PyArrayObject *float32_array(PyObject *value, const char *name, int rank, const npy_intp *shape) {
    PyArrayObject *array = shaped_array(value, name, rank, shape);
    if (array && PyArray_TYPE(array) != NPY_FLOAT32) {
        return refuse_dtype(array, name, "float32");
    }
    return array ? convert(array, NPY_FLOAT32) : NULL;
}

PyArrayObject *weight_array(PyObject *value, const char *name) {
    PyArrayObject *array = read_array(value, name);
    if (array && PyArray_TYPE(array) != NPY_FLOAT32) {
        return refuse_dtype(array, name, "float32");
    }
    if (array && (PyArray_NDIM(array) < 1 || PyArray_NDIM(array) > 4)) {
        PyErr_Format(PyExc_ValueError, "%s: expected 1 to 4 dimensions, got %d", name, PyArray_NDIM(array));
        Py_CLEAR(array);
    }
    return array ? convert(array, NPY_FLOAT32) : NULL;
}

PyArrayObject *float64_array(PyObject *value, const char *name, int rank, const npy_intp *shape) {
    PyArrayObject *array = shaped_array(value, name, rank, shape);
    if (array && PyArray_TYPE(array) != NPY_FLOAT64 && PyArray_TYPE(array) != NPY_FLOAT32 &&
        PyArray_TYPE(array) != NPY_FLOAT16) {
        return refuse_dtype(array, name, "float64");
    }
    return array ? convert(array, NPY_FLOAT64) : NULL;
}

PyArrayObject *bool_array(PyObject *value, const char *name, int rank, const npy_intp *shape) {
    PyArrayObject *array = shaped_array(value, name, rank, shape);
    if (array && PyArray_TYPE(array) != NPY_BOOL) {
        return refuse_dtype(array, name, "bool");
    }
    return array ? convert(array, NPY_BOOL) : NULL;
}

/* "images[1, 0, 3, 4]" */
static void print_position(char *text, size_t room, PyArrayObject *array, const char *name, npy_intp position) {
    npy_intp where[NPY_MAXDIMS];
    int rank = PyArray_NDIM(array);
    for (int axis = rank - 1; axis >= 0; axis--) {
        where[axis] = position % PyArray_DIM(array, axis);
        position /= PyArray_DIM(array, axis);
    }
    int used = snprintf(text, room, "%.60s", name);
    for (int axis = 0; axis < rank && used > 0 && (size_t)used < room; axis++) {
        used += snprintf(text + used, room - (size_t)used, "%s%lld%s", axis ? ", " : "[", (long long)where[axis],
                         axis == rank - 1 ? "]" : "");
    }
}

/* A copy of an array that is int32 already, checked after it was made. */
static PyArrayObject *copy_int32(PyArrayObject *array, const char *name, int32_t low, int32_t high) {
    PyArrayObject *copy = (PyArrayObject *)PyArray_FromArray(array, PyArray_DescrFromType(NPY_INT32),
                                                             NPY_ARRAY_CARRAY | NPY_ARRAY_ENSURECOPY);
    Py_DECREF(array);
    if (!copy) {
        return NULL;
    }
    const int32_t *numbers = PyArray_DATA(copy);
    npy_intp count = PyArray_SIZE(copy);
    int32_t least = high, most = low;
    for (npy_intp i = 0; i < count; i++) {
        least = numbers[i] < least ? numbers[i] : least;
        most = numbers[i] > most ? numbers[i] : most;
    }
    if (least >= low && most <= high) {
        return copy;
    }
    npy_intp first = 0;
    while (numbers[first] >= low && numbers[first] <= high) {
        first++;
    }
    char where[160];
    print_position(where, sizeof where, copy, name, first);
    PyErr_Format(PyExc_ValueError, "%s: expected an integer from %d to %d, got %d", where, (int)low, (int)high,
                 (int)numbers[first]);
    Py_DECREF(copy);
    return NULL;
}

PyArrayObject *int32_array(PyObject *value, const char *name, int rank, const npy_intp *shape, int32_t low,
                           int32_t high) {
    PyArrayObject *wide = shaped_array(value, name, rank, shape);
    if (!wide) {
        return NULL;
    }
    if (!PyTypeNum_ISINTEGER(PyArray_TYPE(wide))) {
        return refuse_dtype(wide, name, "integers");
    }
    if (PyArray_TYPE(wide) == NPY_INT32) {
        return copy_int32(wide, name, low, high);
    }
    /* Only a 64-bit unsigned integer can be larger than an int64, and such a one is then negative in two's complement;
     * `wraps` tells the two apart. */
    int wraps = PyTypeNum_ISUNSIGNED(PyArray_TYPE(wide)) && PyArray_ITEMSIZE(wide) == 8;
    wide = convert(wide, wraps ? NPY_UINT64 : NPY_INT64);
    PyArrayObject *narrow = wide ? new_array(rank, PyArray_DIMS(wide), NPY_INT32) : NULL;
    if (!narrow) {
        Py_XDECREF(wide);
        return NULL;
    }
    const int64_t *from = PyArray_DATA(wide);
    int32_t *to = PyArray_DATA(narrow);
    npy_intp count = PyArray_SIZE(wide);
    for (npy_intp i = 0; i < count; i++) {
        int64_t number = from[i];
        if (number < low || number > high || (wraps && number < 0)) {
            char where[160];
            print_position(where, sizeof where, wide, name, i);
            if (wraps) {
                PyErr_Format(PyExc_ValueError, "%s: expected an integer from %d to %d, got %llu", where, (int)low,
                             (int)high, (unsigned long long)number);
            } else {
                PyErr_Format(PyExc_ValueError, "%s: expected an integer from %d to %d, got %lld", where, (int)low,
                             (int)high, (long long)number);
            }
            Py_CLEAR(narrow);
            break;
        }
        to[i] = (int32_t)number;
    }
    Py_DECREF(wide);
    return narrow;
}

/* Position of the first value that is not in low..high (a NaN never is), or count. Whole blocks first: without an exit
 * in the inner loop the compiler turns it into vector code. */
#define DEFINE_FIRST_OUTSIDE(function, real)                                                                           \
    static npy_intp function(const real *values, npy_intp count, real low, real high) {                                \
        enum { BLOCK = 4096 };                                                                                         \
        npy_intp start = 0;                                                                                            \
        for (; count - start >= BLOCK; start += BLOCK) {                                                               \
            int outside = 0;                                                                                           \
            for (npy_intp i = start; i < start + BLOCK; i++) {                                                         \
                outside |= !(values[i] >= low) | !(values[i] <= high);                                                 \
            }                                                                                                          \
            if (outside) {                                                                                             \
                break;                                                                                                 \
            }                                                                                                          \
        }                                                                                                              \
        while (start < count && values[start] >= low && values[start] <= high) {                                       \
            start++;                                                                                                   \
        }                                                                                                              \
        return start;                                                                                                  \
    }

DEFINE_FIRST_OUTSIDE(first_outside_float, float)
DEFINE_FIRST_OUTSIDE(first_outside_double, double)

int check_range(PyArrayObject *array, const char *name, double low, double high) {
    int single = PyArray_TYPE(array) == NPY_FLOAT32;
    const void *values = PyArray_DATA(array);
    npy_intp count = PyArray_SIZE(array);
    PyThreadState *thread = PyEval_SaveThread();
    npy_intp first = single ? first_outside_float(values, count, (float)low, (float)high)
                            : first_outside_double(values, count, low, high);
    PyEval_RestoreThread(thread);
    if (first == count) {
        return 0;
    }
    double found = single ? (double)((const float *)values)[first] : ((const double *)values)[first];
    char where[160], message[320];
    print_position(where, sizeof where, array, name, first);
    if (high >= (double)FLT_MAX) {
        snprintf(message, sizeof message, "%s: expected a finite number, got %g", where, found);
    } else {
        snprintf(message, sizeof message, "%s: expected a number from %g to %g, got %.9g", where, low, high, found);
    }
    PyErr_SetString(PyExc_ValueError, message);
    return -1;
}

int check_finite(PyArrayObject *array, const char *name) {
    double most = PyArray_TYPE(array) == NPY_FLOAT32 ? (double)FLT_MAX : DBL_MAX;
    return check_range(array, name, -most, most);
}

PyArrayObject *new_array(int rank, const npy_intp *shape, int type) {
    return (PyArrayObject *)PyArray_SimpleNew(rank, (npy_intp *)shape, type);
}

PyArrayObject *copy_array(npy_intp count, int type, const void *values) {
    PyArrayObject *array = new_array(1, &count, type);
    if (array) {
        memcpy(PyArray_DATA(array), values, (size_t)PyArray_NBYTES(array));
    }
    return array;
}
