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
    const value *in = call->input[0];
    value *out = call->output;
    for (int64_t i = task * VALUES; i < end; i += LANES) {
        const int64_t n = df_min(LANES, end - i);
        v_write_n(out + i, silu(v_read_n(in + i, n)), n);
    }
}

static void add_values(const value *a, const value *b, value *out, int64_t count) {
    for (int64_t i = 0; i < count; i += LANES) {
        const int64_t n = df_min(LANES, count - i);
        v_write_n(out + i, v_read_n(a + i, n) + v_read_n(b + i, n), n);
    }
}

/* A task is a row of the image where one vector is added to every pixel, else a run of values. */
static int64_t add_tasks(df_call *call) {
    return call->broadcast ? call->images * call->height : value_tasks(call);
}

static void add_run(const df_call *call, int64_t task, void *scratch) {
    (void)scratch;
    const int64_t c = call->channels;
    const value *a = call->input[0], *b = call->input[1];
    value *out = call->output;
    if (call->broadcast) {
        const value *vector = b + task / call->height * c;
        for (int64_t p = task * call->width; p < (task + 1) * call->width; p++)
            add_values(a + p * c, vector, out + p * c, c);
    } else {
        const int64_t first = task * VALUES;
        add_values(a + first, b + first, out + first, df_min(VALUES, value_count(call) - first));
    }
}
