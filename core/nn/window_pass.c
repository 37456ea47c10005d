#include "core/nn/window_pass.h"

#include "core/base/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { TOKENS_PER_PASS = 2048, WINDOWS_LEAST = 8 };

int64_t window_pass_windows(int64_t seq_len) {
    int64_t windows = TOKENS_PER_PASS / seq_len;
    return windows < WINDOWS_LEAST ? WINDOWS_LEAST : windows;
}

static enum status host_buffer(int64_t bytes, const char *what, void *out) {
    void *buffer = NULL;
    enum status status = mem_buffer_new(bytes, what, &buffer);
    if (status == STATUS_OK) memcpy(out, &buffer, sizeof buffer);
    return status;
}

enum status window_pass_new(struct transformer *model, struct step *step, const struct window_pass_options *options,
                            struct window_pass **out) {
    REQUIRE(options->seq_len > 1, "a window has two tokens at least");
    enum status status = STATUS_OK;
    struct backend *backend = model->backend;
    struct window_pass *pass = mem_new(1, sizeof *pass);
    *pass = (struct window_pass){.model = model, .step = step, .options = *options};
    if (!pass->options.windows) pass->options.windows = window_pass_windows(options->seq_len);
    int64_t windows = pass->options.windows, rows = 0;
    if (__builtin_mul_overflow(windows, options->seq_len, &rows) || rows > INT64_MAX / 16)
        TRY(status_set(STATUS_NO_MEMORY, "%lld windows of %lld tokens fit nowhere", (long long)windows,
                       (long long)options->seq_len));
    TRY(transformer_prepare(model, options->seq_len));
    TRY(backend_matrix_new(backend, DTYPE_I32, rows, 1, "tokens", &pass->tokens));
    TRY(backend_matrix_new(backend, DTYPE_I32, rows, 1, "targets", &pass->targets));
    TRY(backend_matrix_new(backend, DTYPE_F64, rows, 1, "losses", &pass->loss));
    TRY(host_buffer(rows * (int64_t)sizeof *pass->host_tokens, "tokens", &pass->host_tokens));
    TRY(host_buffer(rows * (int64_t)sizeof *pass->host_targets, "targets", &pass->host_targets));
    TRY(host_buffer(rows * (int64_t)sizeof *pass->host_loss, "losses", &pass->host_loss));
    TRY(host_buffer(windows * (int64_t)sizeof *pass->losses, "losses", &pass->losses));
    *out = pass;
    pass = NULL;
done:
    window_pass_free(pass);
    return status;
}

void window_pass_free(struct window_pass *pass) {
    if (!pass) return;
    struct backend *backend = pass->model->backend;
    backend_matrix_free(backend, &pass->tokens);
    backend_matrix_free(backend, &pass->targets);
    backend_matrix_free(backend, &pass->loss);
    mem_buffer_free(pass->host_tokens);
    mem_buffer_free(pass->host_targets);
    mem_buffer_free(pass->host_loss);
    mem_buffer_free(pass->losses);
    free(pass);
}

static enum status write_text(struct window_pass *pass, const int32_t *tokens, int64_t first, int64_t n) {
    enum status status = STATUS_OK;
    int64_t seq_len = pass->options.seq_len, rows = pass->options.windows * seq_len;
    int64_t begin = first * seq_len, end = (first + n) * seq_len;
    struct backend *backend = pass->model->backend;
    for (int64_t i = 0; i < rows; i++) {
        bool asked = i >= begin && i < end;
        pass->host_tokens[i] = asked ? tokens[i] : 0;
        pass->host_targets[i] = asked && (i + 1) % seq_len ? tokens[i + 1] : -1;
    }
    TRY(backend_write(backend, pass->tokens, pass->host_tokens));
    TRY(backend_write(backend, pass->targets, pass->host_targets));
done:
    return status;
}

static enum status take_losses(struct window_pass *pass, int64_t first, int64_t n) {
    int64_t seq_len = pass->options.seq_len;
    for (int64_t b = 0; b < pass->options.windows; b++) {
        double sum = 0;
        for (int64_t t = 0; t < seq_len; t++) sum += pass->host_loss[b * seq_len + t];
        pass->losses[b] = b >= first && b < first + n ? sum / (double)(seq_len - 1) : 0;
        if (!isfinite(pass->losses[b]))
            return status_set(STATUS_INVALID, "the loss of window %lld is not finite, so it has no gradient",
                              (long long)(b - first));
    }
    return STATUS_OK;
}

enum status window_pass_run(struct window_pass *pass, const int32_t *tokens, int64_t first, int64_t n,
                            window_pass_begin *begin, void *context) {
    REQUIRE(first >= 0 && n >= 0 && first + n <= pass->options.windows, "windows of the pass");
    enum status status = STATUS_OK;
    struct transformer *model = pass->model;
    struct value *hidden = NULL;
    struct transformer_loss loss = {.targets = pass->targets,
                                    .cross_entropy = pass->loss,
                                    .gradient_weight = 1 / (double)(pass->options.seq_len - 1)};
    TRY(write_text(pass, tokens, first, n));
    step_begin(pass->step, (struct step_options){.gradient = true,
                                                 .recompute = pass->options.recompute,
                                                 .seq_len = pass->options.seq_len,
                                                 .dtype = model->dtype});
    if (begin) TRY(begin(context, pass));
    TRY(transformer_forward(model, pass->step, pass->tokens, &hidden));
    TRY(transformer_loss(model, pass->step, hidden, &loss));
    TRY(backend_read(model->backend, pass->loss, pass->host_loss));
    TRY(backend_sync(model->backend));
    TRY(take_losses(pass, first, n));
    TRY(step_backward(pass->step));
done:
    return status;
}
