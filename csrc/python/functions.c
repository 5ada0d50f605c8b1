#include "boundary.h"

enum { KEY_BYTES = 16, MOST_PAIRS = 231 }; /* pairs: room for what any interval search tries (diffence.h) */

/* ---------------------------------------------------------------- the machine */

/* The arguments of a function that takes a precision and nothing else. */
static int only_precision(PyObject *args, PyObject *kwargs, const char *format, df_precision *precision) {
    static char *names[] = {"precision", NULL};
    PyObject *value = NULL;
    return PyArg_ParseTupleAndKeywords(args, kwargs, format, names, &value) ? precision_argument(value, precision) : -1;
}

PyDoc_STRVAR(isas_doc,
             "isas(precision='fp32')\n--\n\n"
             "Instruction sets that this build knows -> whether this machine can run them in this precision, slowest\n"
             "first. 'portable' runs 'bf16' without instructions for it, so slowly.");

static PyObject *core_isas(PyObject *Py_UNUSED(module), PyObject *args, PyObject *kwargs) {
    df_precision precision;
    if (only_precision(args, kwargs, "|O:isas", &precision) < 0) {
        return NULL;
    }
    PyObject *sets = PyDict_New();
    for (int32_t i = 0; sets && i < df_isa_count(); i++) {
        PyObject *runs = df_isa_supported(i, precision) ? Py_True : Py_False;
        if (PyDict_SetItemString(sets, df_isa_name(i), runs) < 0) {
            Py_CLEAR(sets);
        }
    }
    return sets;
}

PyDoc_STRVAR(default_isa_doc,
             "default_isa(precision='fp32')\n--\n\n"
             "$DIFFENCE_ISA where it is set, else the fastest that this machine can run. ValueError for a\n"
             "name that is unknown, RuntimeError for one that the machine cannot run, or not in this precision.");

static PyObject *core_default_isa(PyObject *Py_UNUSED(module), PyObject *args, PyObject *kwargs) {
    df_precision precision;
    if (only_precision(args, kwargs, "|O:default_isa", &precision) < 0) {
        return NULL;
    }
    int32_t chosen;
    df_error error;
    df_code code = df_isa_resolve(NULL, precision, &chosen, &error);
    return code == DF_OK ? PyUnicode_FromString(df_isa_name(chosen)) : raise_core_error(code, &error);
}

PyDoc_STRVAR(default_threads_doc,
             "default_threads()\n--\n\n"
             "$DIFFENCE_NUM_THREADS where it is set, else the processors that this process may run on.");

static PyObject *core_default_threads(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored)) {
    int32_t threads;
    df_error error;
    df_code code = df_default_threads(&threads, &error);
    return code == DF_OK ? PyLong_FromLong(threads) : raise_core_error(code, &error);
}

/* ---------------------------------------------------------------- schedule and noise */

PyDoc_STRVAR(schedule_linear_doc,
             "schedule_linear(steps, first, last)\n--\n\n"
             "alpha_bar, float64 (steps,), of the linear schedule of beta from first to last, both in (0, 1):\n"
             "beta in float32, its cumulative product in float64.");

static PyObject *core_schedule_linear(PyObject *Py_UNUSED(module), PyObject *args, PyObject *kwargs) {
    static char *names[] = {"steps", "first", "last", NULL};
    PyObject *steps_value;
    double first, last;
    int32_t steps;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "Odd:schedule_linear", names, &steps_value, &first, &last) ||
        int32_argument(steps_value, "steps", 1, INT32_MAX, &steps) < 0) {
        return NULL;
    }
    npy_intp length = steps;
    PyArrayObject *alpha_bar = new_array(1, &length, NPY_FLOAT64);
    if (!alpha_bar) {
        return NULL;
    }
    df_error error;
    df_code code = df_schedule_linear(steps, first, last, PyArray_DATA(alpha_bar), &error);
    if (code != DF_OK) {
        Py_DECREF(alpha_bar);
        return raise_core_error(code, &error);
    }
    return (PyObject *)alpha_bar;
}

/* `count` words of 32 bits from a sequence of integers. */
static int read_words(PyObject *value, const char *name, Py_ssize_t count, uint32_t *words) {
    PyObject *items = PySequence_Check(value) ? PySequence_Tuple(value) : NULL;
    if (!items || PyTuple_GET_SIZE(items) != count) {
        Py_XDECREF(items);
        if (!PyErr_Occurred()) {
            PyErr_Format(PyExc_TypeError, "%s: expected %zd integers, got %R", name, count, value);
        }
        return -1;
    }
    int status = 0;
    for (Py_ssize_t i = 0; i < count && status == 0; i++) {
        int64_t word = 0;
        status = int_argument(PyTuple_GET_ITEM(items, i), name, 0, UINT32_MAX, &word);
        words[i] = (uint32_t)word;
    }
    Py_DECREF(items);
    return status;
}

PyDoc_STRVAR(philox_doc, "philox(counter, key)\n--\n\n"
                         "The four words that Philox4x32-10 gives for four words of counter and two of key.");

static PyObject *core_philox(PyObject *Py_UNUSED(module), PyObject *args, PyObject *kwargs) {
    static char *names[] = {"counter", "key", NULL};
    PyObject *counter_value, *key_value;
    uint32_t counter[4], key[2], out[4];
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO:philox", names, &counter_value, &key_value) ||
        read_words(counter_value, "counter", 4, counter) < 0 || read_words(key_value, "key", 2, key) < 0) {
        return NULL;
    }
    df_philox(counter, key, out);
    return Py_BuildValue("(IIII)", out[0], out[1], out[2], out[3]);
}

PyDoc_STRVAR(siphash128_doc, "siphash128(key, data)\n--\n\n"
                             "SipHash-2-4-128, 16 bytes, of any contiguous buffer, under a key of 16 bytes.");

static PyObject *core_siphash128(PyObject *Py_UNUSED(module), PyObject *args, PyObject *kwargs) {
    static char *names[] = {"key", "data", NULL};
    PyObject *key_value, *data_value;
    Py_buffer key, data;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO:siphash128", names, &key_value, &data_value) ||
        buffer_argument(key_value, "key", KEY_BYTES, &key) < 0) {
        return NULL;
    }
    if (buffer_argument(data_value, "data", -1, &data) < 0) {
        PyBuffer_Release(&key);
        return NULL;
    }
    uint8_t hash[16];
    PyThreadState *thread = PyEval_SaveThread();
    df_siphash128(key.buf, data.buf, (size_t)data.len, hash);
    PyEval_RestoreThread(thread);
    PyBuffer_Release(&key);
    PyBuffer_Release(&data);
    return PyBytes_FromStringAndSize((const char *)hash, sizeof hash);
}

PyDoc_STRVAR(content_hashes_doc,
             "content_hashes(key, images)\n--\n\n"
             "16 bytes an image of float32 (B, C, H, W) in [0, 1]: its identity under the fence's key.");

static PyObject *core_content_hashes(PyObject *Py_UNUSED(module), PyObject *args, PyObject *kwargs) {
    static char *names[] = {"key", "images", NULL};
    PyObject *key_value, *images_value, *hashes = NULL;
    Py_buffer key;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO:content_hashes", names, &key_value, &images_value) ||
        buffer_argument(key_value, "key", KEY_BYTES, &key) < 0) {
        return NULL;
    }
    npy_intp shape[4] = {-'B', -'C', -'H', -'W'};
    PyArrayObject *images = float32_array(images_value, "images", 4, shape);
    if (images && check_range(images, "images", 0, 1) == 0) {
        for (int axis = 0; axis < 4; axis++) {
            shape[axis] = PyArray_DIM(images, axis);
        }
        if (shape[1] > INT32_MAX || shape[2] > INT32_MAX || shape[3] > INT32_MAX) {
            PyErr_SetString(PyExc_ValueError, "images: expected channels, height and width below 2**31");
        } else {
            hashes = PyBytes_FromStringAndSize(NULL, shape[0] * 16);
        }
    }
    if (hashes) {
        uint8_t(*out)[16] = (uint8_t(*)[16])PyBytes_AS_STRING(hashes);
        const float *image = PyArray_DATA(images);
        PyThreadState *thread = PyEval_SaveThread();
        for (npy_intp i = 0; i < shape[0]; i++, image += shape[1] * shape[2] * shape[3]) {
            df_content_hash(key.buf, image, (int32_t)shape[1], (int32_t)shape[2], (int32_t)shape[3], out[i]);
        }
        PyEval_RestoreThread(thread);
    }
    Py_XDECREF(images);
    PyBuffer_Release(&key);
    return hashes;
}

PyDoc_STRVAR(normals_doc,
             "normals(hash, draw, first, count)\n--\n\n"
             "Standard normals first..first+count-1 (NCHW positions), float32 (count,), of one draw of the image\n"
             "with this content hash of 16 bytes. first + count is at most 2**32.");

static PyObject *core_normals(PyObject *Py_UNUSED(module), PyObject *args, PyObject *kwargs) {
    static char *names[] = {"hash", "draw", "first", "count", NULL};
    PyObject *hash_value, *draw_value, *first_value, *count_value;
    int64_t draw, first, count;
    Py_buffer hash;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOO:normals", names, &hash_value, &draw_value, &first_value,
                                     &count_value) ||
        int_argument(draw_value, "draw", 0, UINT32_MAX, &draw) < 0 ||
        int_argument(first_value, "first", 0, UINT32_MAX, &first) < 0 ||
        int_argument(count_value, "count", 0, UINT32_MAX - first, &count) < 0 ||
        buffer_argument(hash_value, "hash", 16, &hash) < 0) {
        return NULL;
    }
    npy_intp length = count;
    PyArrayObject *out = new_array(1, &length, NPY_FLOAT32);
    if (out) {
        float *values = PyArray_DATA(out);
        PyThreadState *thread = PyEval_SaveThread();
        df_normals(hash.buf, (uint32_t)draw, (uint32_t)first, (uint32_t)count, values);
        PyEval_RestoreThread(thread);
    }
    PyBuffer_Release(&hash);
    return (PyObject *)out;
}

/* ---------------------------------------------------------------- selection */

PyDoc_STRVAR(phi_doc,
             "phi(logits, mode='paper')\n--\n\n"
             "phi, float64 (M,), and the predicted class (the first maximum), int32 (M,), of each row of logits,\n"
             "float64 (M, classes) and finite, classes >= 2. mode: 'paper' or 'official'.");

static PyObject *core_phi(PyObject *Py_UNUSED(module), PyObject *args, PyObject *kwargs) {
    static char *names[] = {"logits", "mode", NULL};
    PyObject *logits_value, *mode_value = NULL;
    df_mode mode;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|O:phi", names, &logits_value, &mode_value) ||
        mode_argument(mode_value, &mode) < 0) {
        return NULL;
    }
    npy_intp shape[2] = {-'M', -'C'};
    PyArrayObject *logits = float64_array(logits_value, "logits", 2, shape);
    if (!logits) {
        return NULL;
    }
    npy_intp rows = PyArray_DIM(logits, 0), classes = PyArray_DIM(logits, 1);
    PyArrayObject *values = new_array(1, &rows, NPY_FLOAT64), *predicted = new_array(1, &rows, NPY_INT32);
    PyObject *answer = NULL;
    if (values && predicted && classes > INT32_MAX) {
        PyErr_Format(PyExc_ValueError, "logits: expected at most %d classes, got %zd", INT32_MAX, (Py_ssize_t)classes);
    } else if (values && predicted) {
        df_error error;
        PyThreadState *thread = PyEval_SaveThread();
        df_code code = df_phi(rows, (int32_t)classes, PyArray_DATA(logits), mode, PyArray_DATA(values),
                              PyArray_DATA(predicted), &error);
        PyEval_RestoreThread(thread);
        answer = code == DF_OK ? Py_BuildValue("(OO)", values, predicted) : raise_core_error(code, &error);
    }
    Py_XDECREF(values);
    Py_XDECREF(predicted);
    Py_DECREF(logits);
    return answer;
}

/* phi (B, n): the float64 array, or NULL with an exception set; shape is filled in. */
static PyArrayObject *read_phi(PyObject *value, npy_intp shape[2]) {
    shape[0] = -'B';
    shape[1] = -'n';
    PyArrayObject *phi = float64_array(value, "phi", 2, shape);
    if (phi) {
        shape[0] = PyArray_DIM(phi, 0);
        shape[1] = PyArray_DIM(phi, 1);
        if (shape[1] > INT32_MAX) {
            PyErr_Format(PyExc_ValueError, "phi: expected at most %d draws, got %zd", INT32_MAX, (Py_ssize_t)shape[1]);
            Py_CLEAR(phi);
        }
    }
    return phi;
}

PyDoc_STRVAR(select_doc,
             "select(phi, predicted, labels, interval=None)\n--\n\n"
             "The chosen draw, int32 (B,), and the outcome (INSIDE, NEAREST or FALLBACK), int8 (B,), for phi,\n"
             "float64 (B, n), predicted, integers (B, n) >= 0, and labels, integers (B,) >= 0. interval: (low,\n"
             "high), closed; None: every agreeing draw is acceptable.");

static PyObject *core_select(PyObject *Py_UNUSED(module), PyObject *args, PyObject *kwargs) {
    static char *names[] = {"phi", "predicted", "labels", "interval", NULL};
    PyObject *phi_value, *predicted_value, *labels_value, *interval_value = NULL, *answer = NULL;
    df_interval interval;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOO|O:select", names, &phi_value, &predicted_value, &labels_value,
                                     &interval_value) ||
        interval_argument(interval_value, &interval) < 0) {
        return NULL;
    }
    npy_intp shape[2];
    PyArrayObject *phi = read_phi(phi_value, shape), *predicted = NULL, *labels = NULL, *draw = NULL, *outcome = NULL;
    if (phi) {
        predicted = int32_array(predicted_value, "predicted", 2, shape, 0, INT32_MAX);
    }
    if (predicted) {
        labels = int32_array(labels_value, "labels", 1, shape, 0, INT32_MAX);
    }
    if (labels) {
        draw = new_array(1, shape, NPY_INT32);
        outcome = new_array(1, shape, NPY_INT8);
    }
    if (draw && outcome) {
        df_error error;
        PyThreadState *thread = PyEval_SaveThread();
        df_code code = df_select(shape[0], (int32_t)shape[1], PyArray_DATA(phi), PyArray_DATA(predicted),
                                 PyArray_DATA(labels), interval, PyArray_DATA(draw), PyArray_DATA(outcome), &error);
        PyEval_RestoreThread(thread);
        answer = code == DF_OK ? Py_BuildValue("(OO)", draw, outcome) : raise_core_error(code, &error);
    }
    Py_XDECREF(phi);
    Py_XDECREF(predicted);
    Py_XDECREF(labels);
    Py_XDECREF(draw);
    Py_XDECREF(outcome);
    return answer;
}

PyDoc_STRVAR(average_doc,
             "average(logits, kind='logits')\n--\n\n"
             "The mean over the draws, float64 (B, classes), of logits, float64 (B, n, classes) and finite:\n"
             "kind 'logits', of the logits; 'probabilities', the logarithm of the mean of their softmax.");

static PyObject *core_average(PyObject *Py_UNUSED(module), PyObject *args, PyObject *kwargs) {
    static char *names[] = {"logits", "kind", NULL};
    PyObject *logits_value;
    const char *kind = "logits";
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|s:average", names, &logits_value, &kind)) {
        return NULL;
    }
    bool probabilities = strcmp(kind, "probabilities") == 0;
    if (!probabilities && strcmp(kind, "logits") != 0) {
        return PyErr_Format(PyExc_ValueError, "kind: expected 'logits' or 'probabilities', got '%s'", kind);
    }
    npy_intp shape[3] = {-'B', -'n', -'C'};
    PyArrayObject *logits = float64_array(logits_value, "logits", 3, shape), *out = NULL;
    PyObject *answer = NULL;
    if (logits && (PyArray_DIM(logits, 1) > INT32_MAX || PyArray_DIM(logits, 2) > INT32_MAX)) {
        PyErr_Format(PyExc_ValueError, "logits: expected at most %d draws and classes", INT32_MAX);
    } else if (logits) {
        memcpy(shape, PyArray_DIMS(logits), sizeof shape);
        const npy_intp mean_shape[2] = {shape[0], shape[2]};
        out = new_array(2, mean_shape, NPY_FLOAT64);
    }
    if (out) {
        df_error error;
        PyThreadState *thread = PyEval_SaveThread();
        df_code code =
            df_average(shape[0], (int32_t)shape[1], (int32_t)shape[2], PyArray_DATA(logits),
                       probabilities ? DF_AVERAGE_PROBABILITIES : DF_AVERAGE_LOGITS, PyArray_DATA(out), &error);
        PyEval_RestoreThread(thread);
        answer = code == DF_OK ? Py_NewRef(out) : raise_core_error(code, &error);
    }
    Py_XDECREF(logits);
    Py_XDECREF(out);
    return answer;
}

PyDoc_STRVAR(search_interval_doc,
             "search_interval(phi, match, member, *, mode='paper', phi_original=None)\n--\n\n"
             "Scenario 1's interval, for phi, float64 (B, n), match, bool (B, n), whether a draw keeps the label, and\n"
             "member, bool (B,). phi_original, float64 (B,), belongs to mode 'official' and to it alone.\n"
             "A dict: low, high, divergence, best, and the arrays lows, highs, divergences of every pair tried.");

static PyObject *search_answer(const df_search *search, const double *lows, const double *highs,
                               const double *divergences) {
    return Py_BuildValue("{s:d,s:d,s:d,s:i,s:N,s:N,s:N}", "low", search->interval.low, "high", search->interval.high,
                         "divergence", search->divergence, "best", (int)search->best, "lows",
                         copy_array(search->pairs, NPY_FLOAT64, lows), "highs",
                         copy_array(search->pairs, NPY_FLOAT64, highs), "divergences",
                         copy_array(search->pairs, NPY_FLOAT64, divergences));
}

static PyObject *core_search_interval(PyObject *Py_UNUSED(module), PyObject *args, PyObject *kwargs) {
    static char *names[] = {"phi", "match", "member", "mode", "phi_original", NULL};
    PyObject *phi_value, *match_value, *member_value, *mode_value = NULL, *original_value = Py_None, *answer = NULL;
    df_mode mode;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOO|$OO:search_interval", names, &phi_value, &match_value,
                                     &member_value, &mode_value, &original_value) ||
        mode_argument(mode_value, &mode) < 0) {
        return NULL;
    }
    npy_intp shape[2];
    PyArrayObject *phi = read_phi(phi_value, shape), *match = NULL, *member = NULL, *original = NULL;
    if (phi) {
        match = bool_array(match_value, "match", 2, shape);
    }
    if (match) {
        member = bool_array(member_value, "member", 1, shape);
    }
    if (member && original_value != Py_None) {
        original = float64_array(original_value, "phi_original", 1, shape);
    }
    if (member && (original || original_value == Py_None)) {
        double lows[MOST_PAIRS], highs[MOST_PAIRS], divergences[MOST_PAIRS];
        df_search search;
        df_error error;
        PyThreadState *thread = PyEval_SaveThread();
        df_code code = df_search_interval(shape[0], (int32_t)shape[1], PyArray_DATA(phi), PyArray_DATA(match),
                                          PyArray_DATA(member), original ? PyArray_DATA(original) : NULL, mode, &search,
                                          MOST_PAIRS, lows, highs, divergences, &error);
        PyEval_RestoreThread(thread);
        answer = code == DF_OK ? search_answer(&search, lows, highs, divergences) : raise_core_error(code, &error);
    }
    Py_XDECREF(phi);
    Py_XDECREF(match);
    Py_XDECREF(member);
    Py_XDECREF(original);
    return answer;
}

/* ---------------------------------------------------------------- bootstrap */

PyDoc_STRVAR(bootstrap_doc,
             "bootstrap(members, nonmembers, member_draws, nonmember_draws, *, false_positives, false_negatives,\n"
             "          threads)\n--\n\n"
             "Counts, int64 (4, pairs, rows), of the ROC curves of resamples. members, integers (pairs, members), and\n"
             "nonmembers: the places of the scores, 0 for the largest, equal for equal scores. member_draws, integers\n"
             "(rows, members), and nonmember_draws: the positions drawn. See df_bootstrap_counts.");

static PyObject *core_bootstrap(PyObject *Py_UNUSED(module), PyObject *args, PyObject *kwargs) {
    static char *names[] = {"members",         "nonmembers",      "member_draws", "nonmember_draws",
                            "false_positives", "false_negatives", "threads",      NULL};
    PyObject *values[4], *false_positives, *false_negatives, *threads_value, *answer = NULL;
    df_bootstrap plan;
    int32_t threads;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOO$OOO:bootstrap", names, &values[0], &values[1], &values[2],
                                     &values[3], &false_positives, &false_negatives, &threads_value) ||
        int32_argument(false_positives, "false_positives", 0, INT32_MAX, &plan.false_positives) < 0 ||
        int32_argument(false_negatives, "false_negatives", 0, INT32_MAX, &plan.false_negatives) < 0 ||
        int32_argument(threads_value, "threads", 1, INT32_MAX, &threads) < 0) {
        return NULL;
    }
    npy_intp shape[2] = {-'P', -'m'};
    PyArrayObject *arrays[4] = {NULL}, *counts = NULL;
    for (int i = 0; i < 4; i++) {
        if (i == 1) {
            shape[0] = PyArray_DIM(arrays[0], 0);
            shape[1] = -'n';
        } else if (i >= 2) {
            shape[0] = i == 2 ? -'R' : PyArray_DIM(arrays[2], 0);
            shape[1] = PyArray_DIM(arrays[i - 2], 1);
        }
        arrays[i] = int32_array(values[i], names[i], 2, shape, 0, INT32_MAX);
        if (!arrays[i]) {
            goto done;
        }
    }
    npy_intp counts_shape[3] = {4, PyArray_DIM(arrays[0], 0), shape[0]};
    if (counts_shape[1] > INT32_MAX || PyArray_DIM(arrays[0], 1) > INT32_MAX || shape[1] > INT32_MAX) {
        PyErr_SetString(PyExc_ValueError, "members, nonmembers: expected fewer than 2**31 pairs and samples");
        goto done;
    }
    counts = new_array(3, counts_shape, NPY_INT64);
    if (counts) {
        plan.rows = shape[0];
        plan.pairs = (int32_t)counts_shape[1];
        plan.members = (int32_t)PyArray_DIM(arrays[0], 1);
        plan.nonmembers = (int32_t)shape[1];
        plan.member_places = PyArray_DATA(arrays[0]);
        plan.nonmember_places = PyArray_DATA(arrays[1]);
        plan.member_draws = PyArray_DATA(arrays[2]);
        plan.nonmember_draws = PyArray_DATA(arrays[3]);
        df_error error;
        PyThreadState *thread = PyEval_SaveThread();
        df_code code = df_bootstrap_counts(&plan, threads, PyArray_DATA(counts), &error);
        PyEval_RestoreThread(thread);
        answer = code == DF_OK ? Py_NewRef(counts) : raise_core_error(code, &error);
    }
done:
    for (int i = 0; i < 4; i++) {
        Py_XDECREF(arrays[i]);
    }
    Py_XDECREF(counts);
    return answer;
}

PyMethodDef functions[] = {
    KEYWORD_METHOD("isas", core_isas, isas_doc),
    KEYWORD_METHOD("default_isa", core_default_isa, default_isa_doc),
    {"default_threads", core_default_threads, METH_NOARGS, default_threads_doc},
    KEYWORD_METHOD("schedule_linear", core_schedule_linear, schedule_linear_doc),
    KEYWORD_METHOD("philox", core_philox, philox_doc),
    KEYWORD_METHOD("siphash128", core_siphash128, siphash128_doc),
    KEYWORD_METHOD("content_hashes", core_content_hashes, content_hashes_doc),
    KEYWORD_METHOD("normals", core_normals, normals_doc),
    KEYWORD_METHOD("phi", core_phi, phi_doc),
    KEYWORD_METHOD("select", core_select, select_doc),
    KEYWORD_METHOD("average", core_average, average_doc),
    KEYWORD_METHOD("search_interval", core_search_interval, search_interval_doc),
    KEYWORD_METHOD("bootstrap", core_bootstrap, bootstrap_doc),
    {NULL, NULL, 0, NULL},
};
