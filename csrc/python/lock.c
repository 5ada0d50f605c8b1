#include "boundary.h"

#include <unistd.h>

enum { WAIT_MICROSECONDS = 50000 }; /* between two looks for Ctrl-C while waiting */

int lock_create(Lock *lock) {
    lock->lock = PyThread_allocate_lock();
    lock->process = getpid();
    if (!lock->lock) {
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}

void lock_destroy(Lock *lock) {
    if (lock->lock) {
        PyThread_free_lock(lock->lock);
    }
}

int lock_acquire(Lock *lock, const char *owner) {
    PyLockStatus status = PyThread_acquire_lock_timed(lock->lock, 0, 0);
    while (status != PY_LOCK_ACQUIRED) {
        /* Two waits that would never end: a signal handler that calls the object which it interrupted, and a child
         * process in which the thread that held the lock does not exist. */
        if (lock->process != getpid()) {
            PyErr_Format(PyExc_RuntimeError,
                         "%s: was in use by another thread when this process was forked; make a new one", owner);
            return -1;
        }
        if (lock->thread == PyThread_get_thread_ident()) {
            PyErr_Format(PyExc_RuntimeError, "%s: called again from a signal handler while a call is running", owner);
            return -1;
        }
        PyThreadState *thread = PyEval_SaveThread();
        status = PyThread_acquire_lock_timed(lock->lock, WAIT_MICROSECONDS, 0);
        PyEval_RestoreThread(thread);
        if (PyErr_CheckSignals() < 0) {
            if (status == PY_LOCK_ACQUIRED) {
                PyThread_release_lock(lock->lock);
            }
            return -1;
        }
    }
    lock->thread = PyThread_get_thread_ident();
    lock->process = getpid();
    return 0;
}

void lock_release(Lock *lock) {
    lock->thread = 0;
    PyThread_release_lock(lock->lock);
}

static int poll_signals(void *context) {
    Interruptible *call = context;
    PyEval_RestoreThread(call->thread);
    int stop = PyErr_CheckSignals() < 0;
    call->thread = PyEval_SaveThread();
    return stop;
}

void interruptible_open(Interruptible *call) {
    call->interrupt = (df_interrupt){poll_signals, call};
    call->thread = PyEval_SaveThread();
}

void interruptible_close(Interruptible *call) {
    PyEval_RestoreThread(call->thread);
}
