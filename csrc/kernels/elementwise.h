/* SiLU and addition as steps of their own. Every lane computes the same wherever the vectors begin. */

enum { VALUES = 16384 /* of a task */ };

static int64_t value_count(const df_call *call) {
    return call->images * call->channels * call->height * call->width;
}

static int64_t value_tasks(df_call *call) {
    return df_blocks(value_count(call), VALUES);
}

static void silu_run(const df_call *call, int64_t task, void *scratch) {
    (void)scratch;
    const int64_t end = df_min(value_count(call), (task + 1) * VALUES);
    for (int64_t i = task * VALUES; i < end; i += LANES) {
        const int64_t n = df_min(LANES, end - i);
        v_store_n(call->output + i, silu(v_load_n(call->input[0] + i, n)), n);
    }
}

static void add_values(const float *a, const float *b, float *out, int64_t count) {
    for (int64_t i = 0; i < count; i += LANES) {
        const int64_t n = df_min(LANES, count - i);
        v_store_n(out + i, v_load_n(a + i, n) + v_load_n(b + i, n), n);
    }
}

/* A task is a row of the image where one vector is added to every pixel, else a run of values. */
static int64_t add_tasks(df_call *call) {
    return call->broadcast ? call->images * call->height : value_tasks(call);
}

static void add_run(const df_call *call, int64_t task, void *scratch) {
    (void)scratch;
    const int64_t c = call->channels;
    if (call->broadcast) {
        const float *vector = call->input[1] + task / call->height * c;
        for (int64_t p = task * call->width; p < (task + 1) * call->width; p++)
            add_values(call->input[0] + p * c, vector, call->output + p * c, c);
    } else {
        const int64_t first = task * VALUES;
        add_values(call->input[0] + first, call->input[1] + first, call->output + first,
                   df_min(VALUES, value_count(call) - first));
    }
}
