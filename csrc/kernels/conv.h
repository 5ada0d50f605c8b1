/* Convolution 3x3 or 1x1, stride 1 or 2, and linear, as a matrix product. Pixels of all images form one list of rows:
 * small images fill the register tile too. A 1x1 convolution at stride 1 reads its rows where they lie, if floats are
 * what it multiplies; for the others a row, size * size * channels inputs for each output pixel, is gathered in pieces
 * of DEPTH columns into a panel that stays in the cache. */

/* Output channels of a task, at most: what it reads is used in 8 to 32 passes of COLUMNS. */
enum { OUTS = V_TILED ? 512 : 256 };

typedef struct conv_pixel {
    int64_t image;
    int32_t y, x; /* of the kernel's first tap, in the input */
} conv_pixel;

typedef struct conv_scratch {
    term panel[BLOCK * DEPTH];
    float sums[BLOCK * OUTS];
    conv_pixel pixels[BLOCK];
} conv_scratch;

static bool conv_is_pointwise(const df_call *call) {
    return call->size == 1 && call->stride == 1;
}

static int64_t conv_rows(const df_call *call) {
    return call->images * call->out_height * call->out_width;
}

/* Equal blocks of rows, as many as give each thread the same number of them unless they become small; where there are
 * fewer than threads, these share the columns. */
static int64_t conv_tasks(df_call *call) {
    const int64_t rows = conv_rows(call), threads = call->threads > 0 ? call->threads : 1;
    const int64_t fewest = df_blocks(rows, BLOCK), even = df_round_up(fewest, threads);
    const int64_t blocks = rows >= even * (BLOCK / 2) ? even : fewest;
    call->block = df_blocks(rows, blocks);
    call->columns = OUTS;
    while (call->columns > COLUMNS && blocks * df_blocks(call->out_channels, call->columns) < threads)
        call->columns /= 2;
    return df_blocks(rows, call->block) * df_blocks(call->out_channels, call->columns);
}

static size_t conv_scratch_bytes(const df_call *call) {
    (void)call;
    return sizeof(conv_scratch);
}

static int64_t conv_depth(const df_call *call) {
    return (int64_t)call->size * call->size * call->channels;
}

static int64_t conv_packed(const df_call *call) {
    return df_round_up(call->out_channels, COLUMNS) * packed_words(conv_depth(call));
}

/* (out, c, size, size) -> a row of packed columns for each tap and channel. */
static void conv_pack(const df_call *call, const float *weight, float *packed) {
    const int64_t c = call->channels, taps = (int64_t)call->size * call->size, depth = conv_depth(call);
    term *to = (term *)packed;
    memset(packed, 0, (size_t)conv_packed(call) * sizeof *packed);
    for (int64_t k = 0; k < call->out_channels; k++)
        for (int64_t i = 0; i < c; i++)
            for (int64_t tap = 0; tap < taps; tap++)
                to[packed_at(depth, tap * c + i, k)] = to_term(weight[(k * c + i) * taps + tap]);
}

static void conv_find_pixels(const df_call *call, int64_t first, int64_t rows, conv_pixel *pixels) {
    const int64_t w = call->out_width, pixels_of_image = w * call->out_height;
    const int32_t pad = (call->size - 1) / 2;
    for (int64_t i = 0; i < rows; i++) {
        const int64_t image = (first + i) / pixels_of_image, pixel = (first + i) % pixels_of_image;
        pixels[i] =
            (conv_pixel){image, (int32_t)(pixel / w) * call->stride - pad, (int32_t)(pixel % w) * call->stride - pad};
    }
}

/* Columns begin..end of each pixel's row. The taps of one kernel row lie next to each other in the image as they do in
 * the matrix: a run of size * channels values, of which only what lies outside the image is cut off. */
static void conv_gather(const df_call *call, const conv_pixel *pixels, int64_t rows, int64_t begin, int64_t end,
                        term *panel) {
    const int64_t c = call->channels, h = call->height, w = call->width, run = call->size * c;
    for (int64_t i = 0; i < rows; i++, panel += DEPTH) {
        const conv_pixel at = pixels[i];
        const value *in = call->input[0];
        const int64_t left = at.x < 0 ? -at.x * c : 0, right = df_min(call->size, w - at.x) * c;
        for (int64_t ky = begin / run; ky * run < end; ky++) {
            const int64_t from = begin > ky * run ? begin - ky * run : 0, to = df_min(end - ky * run, run);
            const int64_t y = at.y + ky;
            const bool inside = y >= 0 && y < h;
            int64_t low = inside ? df_min(from > left ? from : left, to) : to;
            int64_t high = inside && right > low ? df_min(right, to) : low;
            term *row = panel + ky * run - begin;
            clear_terms(row + from, low - from);
            copy_terms(row + low, in + ((at.image * h + y) * w + at.x) * c + low, high - low);
            clear_terms(row + high, to - high);
        }
        clear_terms(panel + end - begin, packed_words(end - begin) * PAIR - (end - begin));
    }
}

/* The same of a 1x1 convolution at stride 1, which has one tap and may have two inputs. */
static void conv_convert(const df_call *call, int64_t first, int64_t rows, int64_t begin, int64_t end, term *panel) {
    const int64_t c = call->channels, split = call->split, middle = df_min(begin > split ? begin : split, end);
    const value *one = call->input[0], *two = call->input[1];
    for (int64_t row = first; row < first + rows; row++, panel += DEPTH) {
        if (begin < split)
            copy_terms(panel, one + row * split + begin, df_min(end, split) - begin);
        if (end > middle)
            copy_terms(panel + middle - begin, two + row * (c - split) + middle - split, end - middle);
        clear_terms(panel + end - begin, packed_words(end - begin) * PAIR - (end - begin));
    }
}

V_INLINE void conv_finish_as(const df_call *call, const conv_scratch *s, int64_t row, int64_t rows, int64_t out,
                             int64_t outs, const bool streamed) {
    const int64_t k = call->out_channels, pixels_of_image = (int64_t)call->out_height * call->out_width;
    for (int64_t i = 0; i < rows; i++) {
        const value *shift = call->shift ? (const value *)call->shift + (row + i) / pixels_of_image * k + out : NULL;
        const value *residual = call->residual ? (const value *)call->residual + (row + i) * k + out : NULL;
        value *output = (value *)call->output + (row + i) * k + out;
        for (int64_t j = 0; j < outs; j += LANES) {
            const int64_t n = df_min(LANES, outs - j);
            vf v = v_load(s->sums + i * OUTS + j) + v_load(call->bias + out + j);
            if (shift)
                v += v_read_n(shift + j, n);
            if (residual)
                v += v_read_n(residual + j, n);
            if (streamed)
                v_stream(output + j, v);
            else
                v_write_n(output + j, v, n);
        }
    }
}

static void conv_finish(const df_call *call, const conv_scratch *s, int64_t row, int64_t rows, int64_t out,
                        int64_t outs) {
    if (streams(call)) {
        conv_finish_as(call, s, row, rows, out, outs, true);
        v_streamed();
    } else
        conv_finish_as(call, s, row, rows, out, outs, false);
}

/* Columns out..out+outs-1 of some rows, over the terms l..l+piece-1: a are the rows' values from term l on. */
static void conv_multiply(const df_call *call, int64_t rows, int64_t depth, int64_t l, int64_t piece, const term *a,
                          int64_t lda, int64_t out, int64_t outs, conv_scratch *s) {
    const int64_t apart = packed_at(depth, 0, COLUMNS);
    const term *b = (const term *)call->weight + packed_at(depth, l, out);
    for (int64_t j = 0; j < outs; j += COLUMNS, b += apart)
        gemm(rows, piece, a, lda, b, s->sums + j, OUTS, sum_at(l), j + COLUMNS < outs ? b + apart : NULL);
}

#if !V_BF16
/* A 1x1 convolution at stride 1, of one input or two. */
static void conv_in_place(const df_call *call, int64_t row, int64_t rows, int64_t out, int64_t outs, conv_scratch *s) {
    const int64_t c = call->channels, split = call->split;
    for (int64_t l = 0, piece; l < c; l += piece) {
        const bool second = l >= split;
        const int64_t begin = second ? split : 0, end = second ? c : split, lda = end - begin;
        const value *in = call->input[second];
        piece = df_min(DEPTH, end - l);
        conv_multiply(call, rows, c, l, piece, in + row * lda + l - begin, lda, out, outs, s);
    }
}
#endif

static void conv_in_panels(const df_call *call, int64_t row, int64_t rows, int64_t out, int64_t outs, conv_scratch *s) {
    const int64_t depth = conv_depth(call);
    conv_find_pixels(call, row, rows, s->pixels);
    for (int64_t l = 0; l < depth; l += DEPTH) {
        const int64_t piece = df_min(DEPTH, depth - l);
        if (conv_is_pointwise(call))
            conv_convert(call, row, rows, l, l + piece, s->panel);
        else
            conv_gather(call, s->pixels, rows, l, l + piece, s->panel);
        conv_multiply(call, rows, depth, l, piece, s->panel, DEPTH, out, outs, s);
    }
}

static void conv_run(const df_call *call, int64_t task, void *scratch) {
    const int64_t parts = df_blocks(call->out_channels, call->columns);
    const int64_t row = task / parts * call->block, rows = df_min(call->block, conv_rows(call) - row);
    const int64_t out = task % parts * call->columns, outs = df_min(call->columns, call->out_channels - out);
    if (V_TILED)
        tiles_open();
#if !V_BF16
    if (conv_is_pointwise(call))
        conv_in_place(call, row, rows, out, outs, scratch);
    else
#endif
        conv_in_panels(call, row, rows, out, outs, scratch);
    if (V_TILED)
        tiles_close();
    conv_finish(call, scratch, row, rows, out, outs);
}
