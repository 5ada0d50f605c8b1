/* Winograd's F(4x4, 3x3): the weights, transformed and packed in the order of their use. */

/* G g G', in double. */
static void winograd_weight(const winograd_chunk *chunk, const float *g, double u[POINTS]) {
    double row[3][EDGE], column[EDGE];
    for (int y = 0; y < 3; y++) {
        double line[3] = {(double)g[3 * y], (double)g[3 * y + 1], (double)g[3 * y + 2]};
        if (chunk->phased)
            winograd_line_phase(chunk->x, line);
        winograd_line_weight(line, row[y]);
    }
    for (int x = 0; x < EDGE; x++) {
        double line[3] = {row[0][x], row[1][x], row[2][x]};
        if (chunk->phased)
            winograd_line_phase(chunk->y, line);
        winograd_line_weight(line, column);
        for (int y = 0; y < EDGE; y++)
            u[y * EDGE + x] = column[y];
    }
}

#if V_BF16
/* Rounds the weights of a pair of channels to terms, from the last to the first, each so that it makes up for what those
 * before it do to the outputs: a third of the errors of weights goes away, a sixth of all. The outputs of random inputs
 * change by e' (R x R) e where e are the errors of the 36 weights and R = (A A') * (B' B), 6 x 6, one for either direction.
 * With R = L D L' that is a weighted sum of the squares of (L' e L)[y][x], in which e[y][x] has the factor 1 and all others
 * are later ones. (Inputs that are not random, but smooth: about a ninth instead of a sixth.) The idle points of a phase
 * come first, as zeros, or last, where nothing makes up for them. */
static void winograd_round(double u[POINTS]) {
    static const double later[EDGE][EDGE] = {/* L' without its diagonal */
                                             {0, 0.72727, 0.72727, 0.27273, 0.27273, 0},
                                             {0, 0, -0.28881, 1.48096, -0.16872, -0.11599},
                                             {0, 0, 0, 0.28257, 1.56257, -0.1631},
                                             {0, 0, 0, 0, 0.12285, -0.29488},
                                             {0, 0, 0, 0, 0, -0.26262},
                                             {0}};
    double along[EDGE][EDGE]; /* e L */
    for (int y = EDGE - 1; y >= 0; y--) {
        double error[EDGE];
        for (int x = EDGE - 1; x >= 0; x--) {
            double *weight = u + y * EDGE + x, below = 0;
            along[y][x] = 0;
            for (int i = x + 1; i < EDGE; i++)
                along[y][x] += later[x][i] * error[i];
            for (int i = y + 1; i < EDGE; i++)
                below += later[y][i] * along[i][x];
            const double near = (double)from_term(to_term((float)(*weight - along[y][x] - below)));
            error[x] = near - *weight;
            along[y][x] += error[x];
            *weight = near;
        }
    }
}
#endif

/* ---------------------------------------------------------------- as they are used */

/* Weights that are transformed as they are used. Where there are few tiles, their products wait for the 36 transformed weights
 * of each pair of channels to come from memory, and the 9 that there were come in a quarter of the time. So of small images'
 * larger convolutions both are kept, and a task of few tiles transforms a chunk's weights, LATE channels at a time, into
 * its own cache. Both ways the same operations make the weights and the same sums use them, so bits do not depend on which
 * a task takes. */

/* (out, c, 3, 3) -> [out / CHUNK][c][9][outs of the chunk]: the order in which a task reads them. Outs are filled up with
 * zeros. */
static void winograd_late_pack(const df_call *call, const float *weight, float *packed) {
    const int64_t c = call->channels, filled = df_round_up(call->out_channels, COLUMNS);
    for (int64_t out = 0; out < filled; out += CHUNK)
        for (int64_t i = 0; i < c; i++)
            for (int64_t tap = 0; tap < 9; tap++)
                for (int64_t k = out; k < df_min(out + CHUNK, filled); k++)
                    *packed++ = k < call->out_channels ? weight[(k * c + i) * 9 + tap] : 0;
}

/* G g. */
V_INLINE void winograd_late_line(const vf g[3], vf u[EDGE]) {
    const vf a = v_set(-2.0F / 3), b = v_set(1.0F / 6), half_a = v_set(-1.0F / 3), double_b = v_set(1.0F / 3);
    const vf even_a = v_fma(g[2], half_a, g[0] * a), odd_a = g[1] * v_set(-2.0F / 3 * WINOGRAD_A);
    const vf even_b = v_fma(g[2], double_b, g[0] * b), odd_b = g[1] * v_set(1.0F / 6 * WINOGRAD_B);
    u[0] = g[0];
    u[1] = even_a + odd_a;
    u[2] = even_a - odd_a;
    u[3] = even_b + odd_b;
    u[4] = even_b - odd_b;
    u[5] = g[2];
}

/* G g G' of some channels and `outs` outputs, into packed columns, `plane` floats from one point to the next. On the way
 * the taps from `next` on are fetched, 9 lines with each channel. */
static void winograd_late_weights(const float *g, int64_t channels, int64_t outs, float *to, int64_t plane,
                                  const float *next) {
    for (int64_t l = 0; l < channels; l++)
        for (int64_t k = 0; k < outs; k += LANES) {
            float *u = to + k / COLUMNS * channels * COLUMNS + l * COLUMNS + k % COLUMNS;
            vf row[3][EDGE];
            V_UNROLL for (int y = 0; y < 3; y++) {
                vf taps[3];
                V_UNROLL for (int x = 0; x < 3; x++) {
                    taps[x] = v_load(g + (l * 9 + 3 * y + x) * outs + k);
                    if (k == 0)
                        __builtin_prefetch(next + (l * 9 + 3 * y + x) * CACHE_LINE, 0, 2);
                }
                winograd_late_line(taps, row[y]);
            }
            V_UNROLL for (int x = 0; x < EDGE; x++) {
                const vf column[3] = {row[0][x], row[1][x], row[2][x]};
                vf all[EDGE];
                winograd_late_line(column, all);
                V_UNROLL for (int y = 0; y < EDGE; y++) v_store(u + (y * EDGE + x) * plane, all[y]);
            }
        }
}

/* ---------------------------------------------------------------- packed */

static int64_t winograd_packed(const df_call *call) {
    const int64_t columns = (winograd_phased(call) ? 4 : 1) * df_round_up(call->out_channels, COLUMNS);
    return (winograd_points(call) + (winograd_late(call) ? 9 : 0)) * columns * df_blocks(call->channels, PAIR);
}

/* (out, c, 3, 3) -> [phase][out / CHUNK][point] of the packed columns of a chunk: the order in which a task reads them. */
static void winograd_pack(const df_call *call, const float *weight, float *packed) {
    const int64_t c = call->channels, filled = df_round_up(call->out_channels, COLUMNS);
    memset(packed, 0, (size_t)winograd_packed(call) * sizeof *packed);
    if (winograd_late(call))
        winograd_late_pack(call, weight, packed + winograd_late_at(call, 0));
    for (int64_t out = 0; out < winograd_outs(call); out += CHUNK) {
        const winograd_chunk chunk = winograd_chunk_at(call, out);
        const int64_t columns = df_min(CHUNK, filled - chunk.first);
        if (winograd_late(call)) {
            const float *taps = packed + winograd_late_at(call, out);
            winograd_late_weights(taps, c, columns, packed + chunk.at, c * columns, taps);
            continue;
        }
        for (int64_t k = 0; k < chunk.outs; k++)
            for (int64_t i = 0; i < c; i++) {
                double u[POINTS];
                winograd_weight(&chunk, weight + ((chunk.first + k) * c + i) * 9, u);
#if V_BF16
                winograd_round(u);
#endif
                term *to = (term *)packed + chunk.at + packed_at(c, i, k);
                for (int p = 0; p < POINTS; p++)
                    if (!winograd_idle_point(&chunk, p)) {
                        *to = to_term((float)u[p]);
                        to += packed_at(c, 0, columns);
                    }
            }
    }
}
