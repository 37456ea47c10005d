#include "walk/network.h"

#include "core/base/mem.h"
#include "core/nn/evaluate.h"
#include "data/npy.h"
#include "data/whole_file.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { TOKENS_PER_PASS = 2048, WINDOWS_LEAST = 8, STRIDE_MULTIPLE = 8 };

// ---- coordinates ----

// Counts coordinates and says where each weight begins.
static void number_coordinates(struct network *network) {
    const struct transformer *model = network->model;
    network->first = mem_new((size_t)model->n_weights, sizeof *network->first);
    for (int64_t k = 0; k < model->n_weights; k++) {
        const struct weight *w = &model->weights[k];
        network->first[k] = w->grid ? network->n : -1;
        if (w->grid) network->n += w->rows * w->cols;
    }
}

// What is made of one matrix's weights and neighbours, all [rows, cols] on the host.
typedef void visit_weight(struct network *network, int64_t first, int64_t n, const float *w, const float *down,
                          const float *up, double *out);

static enum status each_weight(struct network *network, visit_weight *visit, double *out) {
    enum status status = STATUS_OK;
    struct transformer *model = network->model;
    void *w = NULL, *down = NULL, *up = NULL;
    for (int64_t k = 0; k < model->n_weights; k++) {
        const struct weight *weight = &model->weights[k];
        int64_t n = weight->rows * weight->cols;
        if (!weight->grid) continue;
        TRY(mem_buffer_new(n * 4, weight->name, &w));
        TRY(mem_buffer_new(n * 4, weight->name, &down));
        TRY(mem_buffer_new(n * 4, weight->name, &up));
        TRY(backend_read(model->backend, weight->stored, w));
        TRY(backend_sync(model->backend));
        TRY(rounding_neighbours(network->rounding, weight, down, up));
        visit(network, network->first[k], n, w, down, up, out);
        mem_buffer_free(w);
        mem_buffer_free(down);
        mem_buffer_free(up);
        w = down = up = NULL;
    }
done:
    mem_buffer_free(w);
    mem_buffer_free(down);
    mem_buffer_free(up);
    return status;
}

// Differences of floats are exact or nearly so in double; w^y is w to the last bit of a float.
static void take_coordinates(struct network *network, int64_t first, int64_t n, const float *w, const float *down,
                             const float *up, double *out) {
    (void)out;
    for (int64_t i = 0; i < n; i++) {
        double s = (double)up[i] - (double)down[i];
        network->s[first + i] = s;
        network->y[first + i] = s > 0 ? ((double)w[i] - (double)down[i]) / s : 0;
        network->frozen += !(s > 0);
    }
}

static void take_clipped(struct network *network, int64_t first, int64_t n, const float *w, const float *down,
                         const float *up, double *out) {
    (void)network, (void)up;
    for (int64_t i = 0; i < n; i++) out[first + i] = network->s[first + i] > 0 ? 0 : (double)down[i] - (double)w[i];
}

enum status network_new(struct transformer *model, struct step *step, const struct grid *grid,
                        const struct network_options *options, struct network **out) {
    REQUIRE(options->seq_len > 1, "a window has two tokens at least");
    enum status status = STATUS_OK;
    void *y = NULL, *s = NULL;
    struct network *network = mem_new(1, sizeof *network);
    *network = (struct network){.model = model, .step = step, .options = *options};
    TRY(transformer_prepare(model, options->seq_len));
    TRY(rounding_new(model, grid, DTYPE_F32, &network->rounding));
    number_coordinates(network);
    TRY(mem_buffer_new(network->n * (int64_t)sizeof(double), "coordinates", &y));
    network->y = y;
    TRY(mem_buffer_new(network->n * (int64_t)sizeof(double), "coordinates", &s));
    network->s = s;
    TRY(each_weight(network, take_coordinates, NULL));
    *out = network;
    network = NULL;
done:
    network_free(network);
    return status;
}

void network_free(struct network *network) {
    if (!network) return;
    rounding_free(network->rounding);
    mem_buffer_free(network->y);
    mem_buffer_free(network->s);
    free(network->first);
    free(network);
}

void network_start(struct network *network, const double *x) {
    for (int64_t i = 0; i < network->n; i++) {
        REQUIRE(x[i] >= 0 && x[i] <= 1, "x is in the box");
        network->y[i] = network->s[i] > 0 ? x[i] : 0;
    }
    network->interpolated = true;
}

// ---- windows ----

enum status network_draw(const struct corpus *corpus, int64_t seq_len, uint64_t seed, int64_t first, int64_t n,
                         int32_t *tokens) {
    return corpus_draw(corpus, seq_len, seed, first, n, tokens);
}

// ---- gradients ----

// Backend memory of one pass over at most `batch` windows, and its copy on the host.
struct pass {
    struct view tokens, targets, loss;
    int32_t *host_targets; // [batch * seq_len]
    double *host_loss;
    int64_t batch;
};

static int64_t batch_of(const struct network *network, int64_t windows) {
    int64_t batch = network->options.batch;
    if (batch <= 0) {
        batch = TOKENS_PER_PASS / network->options.seq_len;
        if (batch < WINDOWS_LEAST) batch = WINDOWS_LEAST;
    }
    return batch < windows ? batch : windows;
}

static enum status pass_open(struct pass *pass, struct backend *backend, int64_t batch, int64_t seq_len) {
    enum status status = STATUS_OK;
    int64_t rows = batch * seq_len;
    void *targets = NULL, *loss = NULL;
    *pass = (struct pass){.batch = batch};
    TRY(backend_matrix_new(backend, DTYPE_I32, rows, 1, "tokens", &pass->tokens));
    TRY(backend_matrix_new(backend, DTYPE_I32, rows, 1, "targets", &pass->targets));
    TRY(backend_matrix_new(backend, DTYPE_F64, rows, 1, "losses", &pass->loss));
    TRY(mem_buffer_new(rows * (int64_t)sizeof(int32_t), "targets", &targets));
    pass->host_targets = targets;
    TRY(mem_buffer_new(rows * (int64_t)sizeof(double), "losses", &loss));
    pass->host_loss = loss;
done:
    return status;
}

static void pass_close(struct pass *pass, struct backend *backend) {
    backend_matrix_free(backend, &pass->tokens);
    backend_matrix_free(backend, &pass->targets);
    backend_matrix_free(backend, &pass->loss);
    mem_buffer_free(pass->host_targets);
    mem_buffer_free(pass->host_loss);
}

static enum status check_losses(const struct pass *pass, int64_t rows, int64_t seq_len, int64_t before) {
    for (int64_t i = 0; i < rows; i++)
        if (!isfinite(pass->host_loss[i]))
            return status_set(STATUS_INVALID, "the loss of window %lld is not finite, so it has no gradient",
                              (long long)(before + i / seq_len));
    return STATUS_OK;
}

// One backward pass; the sample of the loss is a window, so no factor depends on how many share the pass.
static enum status pass_run(struct network *network, struct pass *pass, const int32_t *tokens, int64_t windows,
                            int64_t before) {
    enum status status = STATUS_OK;
    struct transformer *model = network->model;
    int64_t seq_len = network->options.seq_len, rows = windows * seq_len;
    struct value *hidden = NULL;
    struct view tokens_view = view_rows(pass->tokens, 0, rows), loss_view = view_rows(pass->loss, 0, rows);
    struct transformer_loss loss = {.targets = view_rows(pass->targets, 0, rows),
                                    .cross_entropy = loss_view,
                                    .gradient_weight = 1 / (double)(seq_len - 1)};
    for (int64_t i = 0; i < rows; i++) pass->host_targets[i] = (i + 1) % seq_len ? tokens[i + 1] : -1;
    TRY(backend_write(model->backend, tokens_view, tokens));
    TRY(backend_write(model->backend, loss.targets, pass->host_targets));
    step_begin(network->step, (struct step_options){.gradient = true,
                                                    .recompute = network->options.recompute,
                                                    .seq_len = seq_len,
                                                    .dtype = model->dtype});
    TRY(transformer_forward(model, network->step, tokens_view, &hidden));
    TRY(transformer_loss(model, network->step, hidden, &loss));
    TRY(backend_read(model->backend, loss_view, pass->host_loss));
    TRY(backend_sync(model->backend));
    TRY(check_losses(pass, rows, seq_len, before));
    TRY(step_backward(network->step));
done:
    return status;
}

static void set_sinks(struct network *network, struct grad_sink *sink) {
    for (int64_t k = 0; k < network->model->n_weights; k++)
        if (network->first[k] >= 0) network->model->weights[k].sink = sink;
}

// Who wants rows: `position` is moved by the number of windows done before each pass.
struct taker {
    rows_take *take;
    void *context;
    void (*move)(void *context, int64_t before);
};

static enum status each_pass(struct network *network, const int32_t *tokens, int64_t windows, struct taker taker) {
    REQUIRE(windows > 0, "there are windows");
    enum status status = STATUS_OK;
    struct pass pass = {0};
    int64_t batch = batch_of(network, windows), seq_len = network->options.seq_len;
    struct rows_sink *sink = rows_sink_new(batch, NULL, taker.take, taker.context);
    if (network->interpolated) TRY(network_set(network, NULL));
    transformer_set_form(network->model, network->interpolated ? WEIGHT_INTERPOLATED : WEIGHT_STORED);
    set_sinks(network, &sink->sink);
    TRY(pass_open(&pass, network->model->backend, batch, seq_len));
    for (int64_t before = 0; before < windows; before += batch) {
        int64_t n = windows - before < batch ? windows - before : batch;
        taker.move(taker.context, before);
        rows_sink_begin(sink);
        TRY(pass_run(network, &pass, tokens + before * seq_len, n, before));
        if (network->options.progress)
            network->options.progress(network->options.progress_context, before + n, windows);
    }
done:
    set_sinks(network, NULL);
    transformer_set_form(network->model, WEIGHT_STORED);
    pass_close(&pass, network->model->backend);
    rows_sink_free(sink);
    return status;
}

static void move_column(void *context, int64_t before) { ((struct rows_matrix *)context)->column = before; }

enum status network_rows(struct network *network, const int32_t *tokens, int64_t windows, int64_t stride,
                         double *rows) {
    REQUIRE(stride >= windows, "a row has room for the windows");
    struct rows_matrix to = {.values = rows, .stride = stride, .first = network->first, .scale = network->s};
    return each_pass(network, tokens, windows,
                     (struct taker){.take = rows_to_matrix, .context = &to, .move = move_column});
}

struct products {
    struct rows_inner to;
    double *all; // [windows]
};

static enum status take_products(void *context, const struct rows_tile *tile) {
    return rows_to_inner(&((struct products *)context)->to, tile);
}

static void move_products(void *context, int64_t before) {
    struct products *products = context;
    products->to.sums = products->all + before;
}

// <gradient, direction> with respect to the weights.
static enum status products_with(struct network *network, const int32_t *tokens, int64_t windows,
                                 const double *direction, double *out) {
    struct products products = {.to = {.first = network->first, .direction = direction}, .all = out};
    memset(out, 0, (size_t)windows * sizeof *out);
    return each_pass(network, tokens, windows,
                     (struct taker){.take = take_products, .context = &products, .move = move_products});
}

enum status network_inner(struct network *network, const int32_t *tokens, int64_t windows, const double *d,
                          double *products) {
    enum status status = STATUS_OK;
    void *buffer = NULL;
    TRY(mem_buffer_new(network->n * (int64_t)sizeof(double), "a direction", &buffer));
    double *direction = buffer;
    for (int64_t i = 0; i < network->n; i++) direction[i] = network->s[i] * d[i];
    TRY(products_with(network, tokens, windows, direction, products));
done:
    mem_buffer_free(buffer);
    return status;
}

enum status network_clip_offsets(struct network *network, const int32_t *tokens, int64_t windows, double *offsets) {
    enum status status = STATUS_OK;
    void *direction = NULL;
    memset(offsets, 0, (size_t)windows * sizeof *offsets);
    if (network->interpolated) return STATUS_OK;
    TRY(mem_buffer_new(network->n * (int64_t)sizeof(double), "a direction", &direction));
    TRY(each_weight(network, take_clipped, direction));
    TRY(products_with(network, tokens, windows, direction, offsets));
done:
    mem_buffer_free(direction);
    return status;
}

// ---- M ----

static enum status matrix_memory(struct network_matrix *matrix, const char *path, struct whole_file **file) {
    enum status status = STATUS_OK;
    char header[NPY_HEADER_BYTES];
    int64_t bytes = 0, header_bytes = npy_header(NPY_F64, matrix->n, matrix->stride, header);
    if (__builtin_mul_overflow(matrix->n, matrix->stride, &bytes) || bytes > INT64_MAX / 16)
        return status_set(STATUS_NO_MEMORY, "a matrix of %lld x %lld numbers fits nowhere", (long long)matrix->n,
                          (long long)matrix->stride);
    bytes *= (int64_t)sizeof(double);
    if (!path) {
        TRY(mem_buffer_new(bytes, "the matrix M", &matrix->buffer));
        matrix->values = matrix->buffer;
        for (int64_t i = 0; i < matrix->n; i++)
            for (int64_t k = matrix->m; k < matrix->stride; k++) matrix->values[i * matrix->stride + k] = 0;
        return STATUS_OK;
    }
    TRY(whole_file_open(path, file));
    TRY(whole_file_map(*file, header_bytes + bytes, &matrix->map));
    matrix->map_bytes = header_bytes + bytes;
    memcpy(matrix->map, header, (size_t)header_bytes);
    matrix->values = (double *)(void *)((char *)matrix->map + header_bytes);
done:
    return status;
}

enum status network_matrix_new(struct network *network, const int32_t *tokens, int64_t windows,
                               const struct network_matrix_options *options, struct network_matrix **out) {
    enum status status = STATUS_OK;
    struct whole_file *file = NULL;
    int64_t stride = options->stride;
    if (stride == 0) stride = (windows + STRIDE_MULTIPLE - 1) / STRIDE_MULTIPLE * STRIDE_MULTIPLE;
    REQUIRE(stride >= windows, "a row has room for the windows");
    struct network_matrix *matrix = mem_new(1, sizeof *matrix);
    *matrix = (struct network_matrix){.n = network->n, .m = windows, .stride = stride};
    TRY(matrix_memory(matrix, options->path, &file));
    if (options->path && options->scratch) { // the file goes, its mapping stays
        whole_file_free(file);
        file = NULL;
    }
    TRY(network_rows(network, tokens, windows, stride, matrix->values));
    if (file) TRY(whole_file_commit(file));
    *out = matrix;
    matrix = NULL;
done:
    whole_file_free(file);
    network_matrix_free(matrix);
    return status;
}

void network_matrix_free(struct network_matrix *matrix) {
    if (!matrix) return;
    if (matrix->map) munmap(matrix->map, (size_t)matrix->map_bytes);
    mem_buffer_free(matrix->buffer);
    free(matrix);
}

// ---- losses ----

enum status network_set(struct network *network, const double *x) {
    return rounding_set(network->rounding, x ? x : network->y);
}

static enum status get_weight(const struct network *network, const struct weight *weight, struct tensor_source rounded,
                              double *x) {
    enum status status = STATUS_OK;
    int64_t n = weight->rows * weight->cols;
    void *buffer = NULL;
    TRY(mem_buffer_new(3 * n * (int64_t)sizeof(float), weight->name, &buffer));
    float *value = buffer, *down = value + n, *up = down + n;
    TRY(rounded.read(rounded.self, weight->name, weight->rows, weight->cols, value, NULL));
    TRY(rounding_neighbours(network->rounding, weight, down, up));
    for (int64_t i = 0; i < n; i++) {
        if (value[i] != down[i] && value[i] != up[i])
            TRY(status_set(STATUS_INVALID,
                           "%s: %g at [%lld, %lld] is no neighbour of the weight on this grid, %g and %g are",
                           weight->name, (double)value[i], (long long)(i / weight->cols), (long long)(i % weight->cols),
                           (double)down[i], (double)up[i]));
        x[i] = up[i] > down[i] && value[i] == up[i];
    }
done:
    mem_buffer_free(buffer);
    return status;
}

enum status network_get(const struct network *network, struct tensor_source rounded, double *x) {
    enum status status = STATUS_OK;
    for (int64_t i = 0; i < network->model->n_weights && status == STATUS_OK; i++)
        if (network->first[i] >= 0)
            status = get_weight(network, &network->model->weights[i], rounded, x + network->first[i]);
    return status;
}

enum status network_losses(struct network *network, const int32_t *tokens, int64_t windows, const double *x,
                           double *losses) {
    enum status status = STATUS_OK;
    struct evaluation *e = NULL;
    struct evaluate_options options = {.form = WEIGHT_INTERPOLATED, .batch = network->options.batch};
    TRY(network_set(network, x));
    TRY(evaluate(network->model, network->step, tokens, windows, network->options.seq_len, &options, &e));
    memcpy(losses, e->loss, (size_t)windows * sizeof *losses);
done:
    evaluation_free(e);
    return status;
}

enum status network_loss_change(struct network *network, const int32_t *tokens, int64_t windows, const double *x,
                                double *change) {
    enum status status = STATUS_OK;
    void *buffer = NULL;
    TRY(mem_buffer_new(windows * (int64_t)sizeof(double), "losses", &buffer));
    const double *at_y = buffer;
    TRY(network_losses(network, tokens, windows, NULL, buffer));
    TRY(network_losses(network, tokens, windows, x, change));
    for (int64_t k = 0; k < windows; k++) change[k] -= at_y[k];
done:
    mem_buffer_free(buffer);
    return status;
}
