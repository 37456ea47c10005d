#include "core/nn/evaluate.h"

#include "core/base/mem.h"

#include <math.h>
#include <stdlib.h>

// Device memory of one pass over up to `batch` windows, and its copy on the host.
struct pass {
    struct backend *backend;
    struct view tokens, targets, loss, reference_loss, kl, agree;
    int32_t *host_tokens, *host_targets, *host_agree;
    double *host_values;
    int64_t seq_len;
};

static enum status pass_open(struct pass *pass, struct backend *backend, int64_t rows, int64_t seq_len) {
    enum status status = STATUS_OK;
    *pass = (struct pass){.backend = backend, .seq_len = seq_len};
    TRY(backend_matrix_new(backend, DTYPE_I32, rows, 1, "tokens", &pass->tokens));
    TRY(backend_matrix_new(backend, DTYPE_I32, rows, 1, "targets", &pass->targets));
    TRY(backend_matrix_new(backend, DTYPE_F64, rows, 1, "losses", &pass->loss));
    TRY(backend_matrix_new(backend, DTYPE_F64, rows, 1, "losses", &pass->reference_loss));
    TRY(backend_matrix_new(backend, DTYPE_F64, rows, 1, "losses", &pass->kl));
    TRY(backend_matrix_new(backend, DTYPE_I32, rows, 1, "agreement", &pass->agree));
    pass->host_tokens = mem_new((size_t)rows, sizeof(int32_t));
    pass->host_targets = mem_new((size_t)rows, sizeof(int32_t));
    pass->host_agree = mem_new((size_t)rows, sizeof(int32_t));
    pass->host_values = mem_new((size_t)rows, sizeof(double));
done:
    return status;
}

static void pass_close(struct pass *pass) {
    struct view *views[] = {&pass->tokens, &pass->targets, &pass->loss, &pass->reference_loss, &pass->kl, &pass->agree};
    for (size_t i = 0; i < sizeof views / sizeof *views; i++) backend_matrix_free(pass->backend, views[i]);
    free(pass->host_tokens);
    free(pass->host_targets);
    free(pass->host_agree);
    free(pass->host_values);
}

// Every position predicts the next token of its window; the last one has no target.
static enum status pass_load(struct pass *pass, const int32_t *tokens, int64_t rows) {
    for (int64_t i = 0; i < rows; i++) {
        pass->host_tokens[i] = tokens[i];
        pass->host_targets[i] = (i + 1) % pass->seq_len ? tokens[i + 1] : -1;
    }
    enum status status = backend_write(pass->backend, view_rows(pass->tokens, 0, rows), pass->host_tokens);
    if (status == STATUS_OK)
        status = backend_write(pass->backend, view_rows(pass->targets, 0, rows), pass->host_targets);
    return status;
}

static enum status pass_run(struct pass *pass, struct transformer *model, struct step *step,
                            const struct evaluate_options *options, int64_t rows) {
    enum status status = STATUS_OK;
    struct value *reference = NULL, *hidden = NULL;
    struct view tokens = view_rows(pass->tokens, 0, rows);
    struct transformer_loss loss = {.targets = view_rows(pass->targets, 0, rows),
                                    .cross_entropy = view_rows(pass->loss, 0, rows)};
    step_begin(step, (struct step_options){.seq_len = pass->seq_len, .dtype = model->dtype});
    if (options->reference) {
        transformer_set_form(options->reference, options->reference_form);
        TRY(transformer_forward(options->reference, step, tokens, &reference));
        loss.teacher = reference->data;
        loss.teacher_model = options->reference;
        loss.kl = view_rows(pass->kl, 0, rows);
        loss.agree = view_rows(pass->agree, 0, rows);
        loss.cross_entropy_teacher = view_rows(pass->reference_loss, 0, rows);
    }
    transformer_set_form(model, options->form);
    TRY(transformer_forward(model, step, tokens, &hidden));
    TRY(transformer_loss(model, step, hidden, &loss));
done:
    transformer_set_form(model, WEIGHT_STORED);
    if (options->reference) transformer_set_form(options->reference, WEIGHT_STORED);
    return status;
}

// Sums of F64 rows per window over `count`.
static enum status pass_means(struct pass *pass, struct view rows_view, int64_t windows, int64_t count, double *out) {
    int64_t rows = windows * pass->seq_len;
    enum status status = backend_read(pass->backend, view_rows(rows_view, 0, rows), pass->host_values);
    if (status == STATUS_OK) status = backend_sync(pass->backend);
    for (int64_t w = 0; status == STATUS_OK && w < windows; w++) {
        double sum = 0;
        for (int64_t i = 0; i < pass->seq_len; i++) sum += pass->host_values[w * pass->seq_len + i];
        out[w] = sum / (double)count;
    }
    return status;
}

static enum status pass_agreement(struct pass *pass, int64_t windows, double *out) {
    int64_t rows = windows * pass->seq_len;
    enum status status = backend_read(pass->backend, view_rows(pass->agree, 0, rows), pass->host_agree);
    if (status == STATUS_OK) status = backend_sync(pass->backend);
    for (int64_t w = 0; status == STATUS_OK && w < windows; w++) {
        int64_t same = 0;
        for (int64_t i = 0; i < pass->seq_len; i++) same += pass->host_agree[w * pass->seq_len + i] != 0;
        out[w] = (double)same / (double)pass->seq_len;
    }
    return status;
}

static struct evaluation *evaluation_new(int64_t windows, int64_t seq_len, bool reference) {
    struct evaluation *e = mem_new(1, sizeof *e);
    *e = (struct evaluation){.windows = windows, .tokens = windows * seq_len};
    e->loss = mem_new((size_t)windows, sizeof(double));
    if (reference) {
        e->reference_loss = mem_new((size_t)windows, sizeof(double));
        e->kl = mem_new((size_t)windows, sizeof(double));
        e->agreement = mem_new((size_t)windows, sizeof(double));
    }
    return e;
}

void evaluation_free(struct evaluation *e) {
    if (!e) return;
    free(e->loss);
    free(e->reference_loss);
    free(e->kl);
    free(e->agreement);
    free(e);
}

enum status evaluate(struct transformer *model, struct step *step, const int32_t *tokens, int64_t windows,
                     int64_t seq_len, const struct evaluate_options *options, struct evaluation **out) {
    REQUIRE(windows > 0 && seq_len > 1, "at least one window of two tokens");
    enum status status = STATUS_OK;
    int64_t batch = options->batch > 0 ? options->batch : transformer_pass_tokens(model) / seq_len;
    if (batch < 1) batch = 1;
    if (batch > windows) batch = windows;
    struct pass pass = {0};
    struct evaluation *e = evaluation_new(windows, seq_len, options->reference);
    double sum = 0;
    TRY(pass_open(&pass, model->backend, batch * seq_len, seq_len));
    for (int64_t first = 0; first < windows; first += batch) {
        int64_t n = windows - first < batch ? windows - first : batch;
        TRY(pass_load(&pass, tokens + first * seq_len, n * seq_len));
        TRY(pass_run(&pass, model, step, options, n * seq_len));
        TRY(pass_means(&pass, pass.loss, n, seq_len - 1, e->loss + first));
        if (options->reference) {
            TRY(pass_means(&pass, pass.reference_loss, n, seq_len - 1, e->reference_loss + first));
            TRY(pass_means(&pass, pass.kl, n, seq_len, e->kl + first));
            TRY(pass_agreement(&pass, n, e->agreement + first));
        }
        for (int64_t w = first; w < first + n; w++) sum += e->loss[w];
        if (options->progress)
            options->progress(options->progress_context, first + n, windows, sum / (double)(first + n));
    }
    *out = e;
    e = NULL;
done:
    pass_close(&pass);
    evaluation_free(e);
    return status;
}

double evaluation_mean(const struct evaluation *e, const double *per_window, double *standard_error) {
    double mean = 0, squares = 0, n = (double)e->windows;
    for (int64_t w = 0; w < e->windows; w++) mean += per_window[w] / n;
    for (int64_t w = 0; w < e->windows; w++) squares += (per_window[w] - mean) * (per_window[w] - mean);
    if (standard_error) *standard_error = e->windows > 1 ? sqrt(squares / (n - 1) / n) : 0;
    return mean;
}
