/* Shared by the files of the CPython boundary: conversion of arguments, errors, locks, the module's state.
 *
 * The boundary checks what would make the core read outside a buffer and what a caller gets wrong; it computes nothing.
 * While a call runs with the GIL released it holds references to the caller's arrays, so they stay alive, but nobody
 * may write to them meanwhile: float arrays that are contiguous are read in place. Integers are always copied first,
 * so that no index can change between its check and its use.
 */
#ifndef DIFFENCE_BOUNDARY_H
#define DIFFENCE_BOUNDARY_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#define NPY_NO_DEPRECATED_API  NPY_2_0_API_VERSION
#define NPY_TARGET_VERSION     NPY_2_0_API_VERSION
#define PY_ARRAY_UNIQUE_SYMBOL diffence_numpy_api
#ifndef DIFFENCE_IMPORTS_NUMPY
#define NO_IMPORT_ARRAY
#endif
#include <numpy/arrayobject.h>

#include "diffence.h"

/* ---------------------------------------------------------------- the module _core */

typedef struct {
    PyTypeObject *model, *engine, *sampler, *draws;
} ModuleState;

typedef struct {
    PyObject_HEAD df_model *model;
    PyObject *weak_references;
} ModelObject;

typedef struct {
    PyObject_HEAD df_sampler *sampler;
} SamplerObject;

extern PyType_Spec model_spec, engine_spec, sampler_spec, draws_spec;

/* The state, from an instance's type: ours have no subclasses, so the type is the one that the module made. */
static inline ModuleState *state_of(PyTypeObject *type) {
    return PyType_GetModuleState(type);
}

/* For types that hold no Python object but their own type. */
int traverse_type_only(PyObject *self, visitproc visit, void *arg);
void free_instance(PyObject *self); /* the end of every tp_dealloc, after PyObject_GC_UnTrack */
int add_type(PyObject *module, PyType_Spec *spec, PyTypeObject **type);
PyObject *profile_row(const df_step_profile *step); /* a tuple of Engine.profile */

/* METH_KEYWORDS functions have one parameter more than PyCFunction says. */
#define KEYWORD_METHOD(name, function, doc)                                                                            \
    { name, (PyCFunction)(void (*)(void))(function), METH_VARARGS | METH_KEYWORDS, doc }

/* ---------------------------------------------------------------- errors */

/* Raises what the core reported (DF_INTERRUPTED: the exception that the poll left). Always NULL. */
PyObject *raise_core_error(df_code code, const df_error *error);

/* ---------------------------------------------------------------- scalar arguments: 0, or -1 with an exception set */

int int_argument(PyObject *value, const char *name, int64_t low, int64_t high, int64_t *out);
int int32_argument(PyObject *value, const char *name, int32_t low, int32_t high, int32_t *out);
int object_argument(PyObject *value, const char *name, PyTypeObject *type);
int mode_argument(PyObject *value, df_mode *mode); /* NULL: paper */
const char *precision_name(df_precision precision);
int precision_argument(PyObject *value, df_precision *precision); /* NULL: fp32 */
int interval_argument(PyObject *value, df_interval *interval);    /* NULL, None: -inf..inf */
/* A contiguous buffer of `size` bytes (-1: any); release it with PyBuffer_Release. */
int buffer_argument(PyObject *value, const char *name, Py_ssize_t size, Py_buffer *view);

/* ---------------------------------------------------------------- array arguments: a new reference, or NULL */

/* A length in `shape` that is negative is free but at least 1; -'B' is printed as B. The result is C-contiguous,
 * aligned and in the machine's byte order. */
PyArrayObject *float32_array(PyObject *value, const char *name, int rank, const npy_intp *shape);
/* float16 and float32 are taken too: nothing is lost. */
PyArrayObject *float64_array(PyObject *value, const char *name, int rank, const npy_intp *shape);
PyArrayObject *bool_array(PyObject *value, const char *name, int rank, const npy_intp *shape);
/* A copy, as int32, of integers of any width that all lie in low..high. */
PyArrayObject *int32_array(PyObject *value, const char *name, int rank, const npy_intp *shape, int32_t low,
                           int32_t high);
/* float32 of 1 to 4 dimensions, of any length. */
PyArrayObject *weight_array(PyObject *value, const char *name);

/* Finite and in low..high, or a ValueError with the first position that is not; float32_array and float64_array. */
int check_range(PyArrayObject *array, const char *name, double low, double high);
int check_finite(PyArrayObject *array, const char *name);

PyArrayObject *new_array(int rank, const npy_intp *shape, int type); /* uninitialised */
PyArrayObject *copy_array(npy_intp count, int type, const void *values);

/* ---------------------------------------------------------------- programs */

/* The C view of a program, with the Python objects that it points into. */
typedef struct {
    df_program program;
    df_op *ops;
    df_weight *weights;
    PyObject *arrays; /* a list */
    PyObject *named;  /* a tuple of our own: nobody can drop a name that a weight points to */
} Program;

/* From the arguments that Model takes first; 0, or -1 with an exception set. Zeroed before, cleared after in any case. */
int program_read(Program *self, PyObject *shape, PyObject *ops, PyObject *epsilons, PyObject *weights);
void program_clear(Program *self);

/* ---------------------------------------------------------------- locks and interrupts */

/* Serialises the calls on one object. Waits with the GIL released, and Ctrl-C ends the wait. */
typedef struct {
    PyThread_type_lock lock;
    _Atomic(unsigned long) thread; /* of the holder, 0 when free */
    _Atomic(long) process;         /* of the latest holder; of the maker at first */
} Lock;

int lock_create(Lock *lock);
void lock_destroy(Lock *lock);
int lock_acquire(Lock *lock, const char *owner); /* 0, or -1 with an exception set */
void lock_release(Lock *lock);

/* A call into the core that Ctrl-C may stop: open releases the GIL, close takes it again. The poll runs on the thread
 * that entered, with its own saved thread state, so it is right in every interpreter. */
typedef struct {
    PyThreadState *thread;
    df_interrupt interrupt;
} Interruptible;

void interruptible_open(Interruptible *call);
void interruptible_close(Interruptible *call);

/* ---------------------------------------------------------------- functions of the module */

extern PyMethodDef functions[];

#endif
