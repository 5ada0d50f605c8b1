/* Convolution 3x3 at stride 1 by Winograd's F(4x4, 3x3), which is F(4, 3) in both directions: 36 multiplications for 16
 * outputs instead of 144. A tile of 4 x 4 outputs reads 6 x 6 inputs d:
 *
 *     output = A' [(G g G') * (B' d B)] A
 *
 * and the elementwise products, summed over the channels, are 36 matrix products [tiles][channels] x [channels][outputs],
 * one for each pair of points. A task takes a block of tiles through all three stages, so that what lies between them
 * stays in its caches; the transformed weights are read as one stream. A large upsampled image has the outputs of four
 * phases, with 25 points each (winograd_line.h). */

/* ---------------------------------------------------------------- inputs */

/* B' d B of one tile, for one vector of channels: `line` floats from a row of the patch to the next. */
V_INLINE void winograd_in_tile(const float *patch, int64_t line, term *out, int64_t plane) {
    vf t[EDGE][EDGE];
    V_UNROLL for (int x = 0; x < EDGE; x++) {
        vf d[EDGE], column[EDGE];
        V_UNROLL for (int y = 0; y < EDGE; y++) d[y] = v_load(patch + y * line + x * STRIP);
        winograd_in(d, column);
        V_UNROLL for (int y = 0; y < EDGE; y++) t[y][x] = column[y];
    }
    V_UNROLL for (int y = 0; y < EDGE; y++) {
        vf row[EDGE];
        winograd_in(t[y], row);
        V_UNROLL for (int x = 0; x < EDGE; x++) v_store_terms(out + (y * EDGE + x) * plane, row[x]);
    }
}

static void winograd_inputs(const df_call *call, int64_t tile, int64_t tiles, const winograd_scratch *s) {
    const int64_t across = winograd_across(call), of_image = winograd_tiles(call), band = winograd_band(call);
    const int64_t pitch = winograd_pitch(call), line = (TILE * across + 2) * STRIP;
    for (int64_t at = tile; at < tile + tiles;) {
        const int64_t image = at / of_image, row = at % of_image / across;
        const int64_t end = df_min(df_min(image * of_image + (row + band) * across, (image + 1) * of_image),
                                   tile + tiles); /* of the tiles in this band */
        const int64_t rows = (end - 1) % of_image / across - row + 1;
        for (int64_t first = 0, count; first < call->channels; first += count) {
            /* A strip begins at a multiple of its width, or where the second input does. */
            count = df_min(STRIP - first % STRIP, (first < call->split ? call->split : call->channels) - first);
            for (int64_t y = 0; y < TILE * rows + 2; y++)
                winograd_read(call, image, TILE * row + y - 1, first, count, s->patch + y * line);
            for (int64_t t = at; t < end; t++) {
                const int64_t y = t % of_image / across - row, x = t % across;
                term *out = s->inputs + (t - tile) * pitch + first;
                for (int64_t i = 0; i < count; i += LANES)
                    winograd_in_tile(s->patch + TILE * (y * line + x * STRIP) + i, line, out + i, s->input_plane);
            }
        }
        at = end;
    }
}

/* ---------------------------------------------------------------- outputs */

V_INLINE void winograd_out_tile(const winograd_chunk *chunk, const float *in, int64_t plane, const bool phased,
                                vf y[TILE][TILE]) {
    vf t[TILE][EDGE];
    V_UNROLL for (int x = 0; x < EDGE; x++) {
        vf m[EDGE], column[TILE];
        V_UNROLL for (int i = 0; i < EDGE; i++) {
            const bool idle = phased && (winograd_idle(chunk->y, i) || winograd_idle(chunk->x, x));
            m[i] = idle ? v_set(0) : v_load(in + (i * EDGE + x) * plane);
        }
        winograd_out(m, column);
        V_UNROLL for (int i = 0; i < TILE; i++) t[i][x] = column[i];
    }
    V_UNROLL for (int i = 0; i < TILE; i++) winograd_out(t[i], y[i]);
}

/* Where a tile's outputs begin, in pixels, and how many of them there are. */
typedef struct winograd_place {
    int64_t image, corner, rows, columns;
} winograd_place;

V_INLINE winograd_place winograd_place_of(const df_call *call, int64_t tile, const winograd_chunk *chunk,
                                          int64_t step) {
    const int64_t across = winograd_across(call), image = tile / winograd_tiles(call), at = tile % winograd_tiles(call);
    const int64_t height = call->out_height, width = call->out_width, y = at / across * TILE, x = at % across * TILE;
    return (winograd_place){.image = image,
                            .corner = (image * height + y * step + chunk->y) * width + x * step + chunk->x,
                            .rows = df_min(TILE, height / step - y),
                            .columns = df_min(TILE, width / step - x)};
}

V_INLINE void winograd_outputs_as(const df_call *call, int64_t tile, int64_t tiles, const winograd_chunk *chunk,
                                  const winograd_scratch *s, const bool phased) {
    const int64_t k = call->out_channels, width = call->out_width, step = phased ? 2 : 1;
    for (int64_t t = 0; t < tiles; t++) {
        const winograd_place place = winograd_place_of(call, tile + t, chunk, step);
        const int64_t at = place.corner * k + chunk->first;
        for (int64_t j = 0; j < chunk->outs; j += LANES) {
            const int64_t n = df_min(LANES, chunk->outs - j);
            vf y[TILE][TILE], add = v_load(call->bias + chunk->first + j);
            winograd_out_tile(chunk, s->outputs + t * CHUNK + j, s->output_plane, phased, y);
            if (call->shift)
                add += v_read_n((const value *)call->shift + place.image * k + chunk->first + j, n);
            for (int64_t r = 0; r < place.rows; r++)
                for (int64_t c = 0; c < place.columns; c++) {
                    /* gcc 12 makes more of this than of strides: 15 % of this stage. */
                    const int64_t pixel = at + (r * width + c) * step * k + j;
                    vf v = y[r][c] + add;
                    if (call->residual)
                        v += v_read_n((const value *)call->residual + pixel, n);
                    if (OUTPUTS_AHEAD) {
                        __builtin_prefetch((const value *)call->output + pixel + TILE * step * k, 1);
                        if (call->residual)
                            __builtin_prefetch((const value *)call->residual + pixel + TILE * step * k);
                    }
                    v_write_n((value *)call->output + pixel, v, n);
                }
        }
    }
}

/* The same by whole lines, past the caches. What is added to them is fetched a tile before. */
V_INLINE void winograd_stream_as(const df_call *call, int64_t tile, int64_t tiles, const winograd_chunk *chunk,
                                 const winograd_scratch *s, const bool phased) {
    enum { VECTORS = CACHE_LINE / LANES };
    const int64_t k = call->out_channels, width = call->out_width, step = phased ? 2 : 1;
    for (int64_t t = 0; t < tiles; t++) {
        const winograd_place place = winograd_place_of(call, tile + t, chunk, step);
        for (int64_t j = 0; j < chunk->outs; j += CACHE_LINE) {
            const int64_t at = place.corner * k + chunk->first + j;
            vf line[TILE][TILE][VECTORS];
            for (int i = 0; i < VECTORS; i++) {
                const int64_t out = j + i * LANES;
                vf y[TILE][TILE], add = v_load(call->bias + chunk->first + out);
                winograd_out_tile(chunk, s->outputs + t * CHUNK + out, s->output_plane, phased, y);
                if (call->shift)
                    add += v_read((const value *)call->shift + place.image * k + chunk->first + out);
                for (int p = 0; p < TILE * TILE; p++)
                    line[p / TILE][p % TILE][i] = y[p / TILE][p % TILE] + add;
            }
            for (int64_t r = 0; r < place.rows; r++)
                for (int64_t c = 0; c < place.columns; c++) {
                    const int64_t pixel = at + (r * width + c) * step * k;
                    if (call->residual) {
                        const value *residual = (const value *)call->residual + pixel;
                        __builtin_prefetch(residual + TILE * step * k);
                        V_UNROLL for (int i = 0; i < VECTORS; i++) line[r][c][i] += v_read(residual + i * LANES);
                    }
                    V_UNROLL for (int i = 0; i < VECTORS; i++)
                        v_stream((value *)call->output + pixel + i * LANES, line[r][c][i]);
                }
        }
    }
    v_streamed();
}

static void winograd_outputs(const df_call *call, int64_t tile, int64_t tiles, const winograd_chunk *chunk,
                             const winograd_scratch *s) {
    if (streams(call))
        chunk->phased ? winograd_stream_as(call, tile, tiles, chunk, s, true)
                      : winograd_stream_as(call, tile, tiles, chunk, s, false);
    else
        chunk->phased ? winograd_outputs_as(call, tile, tiles, chunk, s, true)
                      : winograd_outputs_as(call, tile, tiles, chunk, s, false);
}

/* ---------------------------------------------------------------- a task */

/* The products of a block for a chunk, whose weights lie in the order of their use. */
static void winograd_products(const df_call *call, int64_t tiles, const winograd_chunk *chunk,
                              const winograd_scratch *s) {
    const int64_t depth = call->channels, pitch = winograd_pitch(call);
    const term *u = (const term *)call->weight + chunk->at;
    for (int p = 0; p < POINTS; p++) {
        if (winograd_idle_point(chunk, p))
            continue;
        for (int64_t j = 0; j < chunk->outs; j += COLUMNS)
            for (int64_t l = 0; l < depth; l += DEPTH) {
                const int64_t piece = df_min(DEPTH, depth - l);
                const term *next = u + packed_at(piece, 0, COLUMNS);
                gemm(tiles, piece, s->inputs + p * s->input_plane + l, pitch, u, s->outputs + p * s->output_plane + j,
                     CHUNK, sum_at(l), next);
                u = next;
            }
    }
}

/* The same of a few tiles, whose weights are transformed here. While one part of them is, and multiplied, the next is
 * fetched, half of it each time. */
static void winograd_late_products(const df_call *call, int64_t tiles, const winograd_chunk *chunk,
                                   const winograd_scratch *s) {
    const int64_t depth = call->channels, pitch = winograd_pitch(call);
    const int64_t outs = df_round_up(chunk->outs, COLUMNS), plane = winograd_late_plane();
    const float *taps = call->weight + winograd_late_at(call, chunk->first);
    for (int64_t l = 0, piece; l < depth; l += piece) {
        const bool more = l >= DEPTH;
        piece = df_min(LATE, depth - l);
        const float *next = taps + 9 * outs * piece, *middle = next + 9 * CACHE_LINE * LATE;
        float *sums = more ? s->sums : s->outputs;
        const int64_t sums_plane = more ? winograd_late_sums() : s->output_plane;
        winograd_late_weights(taps, piece, outs, s->weights, plane, next);
        for (int p = 0; p < POINTS; p++)
            for (int64_t j = 0; j < outs; j += COLUMNS) {
                for (int i = 0; i < 8; i++, middle += CACHE_LINE)
                    __builtin_prefetch(middle, 0, 2);
                gemm(tiles, piece, s->inputs + p * s->input_plane + l, pitch,
                     (const term *)(s->weights + p * plane + j * piece), sums + p * sums_plane + j, CHUNK,
                     l % DEPTH ? SUM_ON : SUM_FIRST, NULL);
            }
        taps = next;
        if (more && (l + piece == depth || (l + piece) % DEPTH == 0))
            for (int p = 0; p < POINTS; p++)
                for (int64_t i = 0; i < tiles * CHUNK; i += LANES) {
                    float *sum = s->outputs + p * s->output_plane + i;
                    v_store(sum, v_load(sum) + v_load(s->sums + p * sums_plane + i));
                }
    }
}

static void winograd_run(const df_call *call, int64_t task, void *scratch) {
    const int64_t parts = df_blocks(winograd_outs(call), call->columns);
    const int64_t tile = task / parts * call->block, first = task % parts * call->columns;
    const int64_t tiles = df_min(call->block, call->images * winograd_tiles(call) - tile);
    const int64_t end = df_min(first + call->columns, winograd_outs(call));
    winograd_scratch s;
    winograd_layout(call, tiles, scratch, &s);
    winograd_inputs(call, tile, tiles, &s);
    for (int64_t out = first; out < end; out += CHUNK) {
        const winograd_chunk chunk = winograd_chunk_at(call, out);
        if (winograd_late(call) && tiles <= LATE_TILES)
            winograd_late_products(call, tiles, &chunk, &s);
        else
            winograd_products(call, tiles, &chunk, &s);
        winograd_outputs(call, tile, tiles, &chunk, &s);
    }
}
