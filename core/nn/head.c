// The end of the network: logits and losses, a few rows at a time, so that no [N, V] matrix ever exists. Logits are F32 in
// any step (a difference of models near each other would drown in bf16's rounding); their gradient goes on in the step's dtype.
#include "core/nn/transformer.h"

// Logits of one model for that many elements are held at once: small enough for a processor's cache; enough rows to fill an
// accelerator, half a gigabyte.
enum { HOST_CHUNK_ELEMENTS = 2 << 20, DEVICE_CHUNK_ELEMENTS = 128 << 20, CHUNK_ROWS_LEAST = 64 };

static int64_t chunk_rows(const struct transformer *model, int64_t seq_len, int64_t rows) {
    int64_t elements = model->backend->fns->host_memory ? HOST_CHUNK_ELEMENTS : DEVICE_CHUNK_ELEMENTS;
    int64_t n = model->head_rows > 0 ? model->head_rows : elements / model->config.vocab;
    if (model->head_rows <= 0 && n < CHUNK_ROWS_LEAST) n = CHUNK_ROWS_LEAST;
    // Sinks see whole samples.
    if (model->head->sink && seq_len > 0) n = n < seq_len ? seq_len : n / seq_len * seq_len;
    return n < rows ? n : rows;
}

int64_t transformer_logits_bytes(const struct transformer *model, enum dtype dtype, int64_t rows) {
    int64_t models = 2, gradient = dtype == DTYPE_F32 ? 0 : dtype_bytes(dtype);
    return chunk_rows(model, 0, rows) * model->config.vocab * (models * (int64_t)sizeof(float) + gradient);
}

enum status transformer_logits(struct transformer *model, struct step *step, struct view hidden, struct view logits) {
    enum status status = STATUS_OK;
    struct step_mark mark = step_mark(step);
    struct view w;
    TRY(weight_value(step, model->head, &w));
    TRY(backend_run(
        model->backend,
        &(struct op_call){.op = OP_matmul, .in = {hidden, w}, .out = {logits}, .params.matmul.transpose_b = true}));
    step_release(step, mark);
done:
    return status;
}

static struct view part(struct view v, int64_t first, int64_t n) { return v.rows ? view_rows(v, first, n) : v; }

static enum status cross_entropy(struct transformer *model, struct view logits, struct view targets, struct view loss,
                                 struct loss_params params) {
    return backend_run(
        model->backend,
        &(struct op_call){.op = OP_cross_entropy, .in = {logits, targets}, .out = {loss}, .params.loss = params});
}

// Directional derivative of each row's loss: <d loss / d logits, logits tangent>, with the gradient in `logits`.
static enum status loss_tangent(struct transformer *model, struct step *step, struct value *hidden, struct view h,
                                int64_t first, struct view gradient, double weight, struct view out) {
    enum status status = STATUS_OK;
    struct step_mark mark = step_mark(step);
    struct view tangent;
    TRY(step_take(step, DTYPE_F32, gradient.rows, gradient.cols, &tangent));
    TRY(transformer_logits(model, step, view_rows(hidden->tangent, first, h.rows), tangent));
    if (model->head->direction.rows)
        TRY(backend_run(model->backend, &(struct op_call){.op = OP_matmul,
                                                          .accumulate = true,
                                                          .in = {h, model->head->direction},
                                                          .out = {tangent},
                                                          .params.matmul.transpose_b = true}));
    TRY(backend_run(
        model->backend,
        &(struct op_call){.op = OP_row_dot, .in = {gradient, tangent}, .out = {out}, .params.factor = 1 / weight}));
    step_release(step, mark);
done:
    return status;
}

// Sends the gradient with respect to the logits on to the hidden states and to the head.
static enum status logits_reverse(struct transformer *model, struct step *step, struct value *hidden, struct view h,
                                  int64_t first, struct view dlogits) {
    enum status status = STATUS_OK;
    struct weight *head = model->head;
    if (h.dtype != dlogits.dtype) {
        struct view narrow;
        TRY(step_take(step, h.dtype, dlogits.rows, dlogits.cols, &narrow));
        TRY(backend_run(model->backend, &(struct op_call){.op = OP_copy, .in = {dlogits}, .out = {narrow}}));
        dlogits = narrow;
    }
    if (head->sink) TRY(head->sink->product(head->sink, step, head, dlogits, h, first));
    if (hidden->needs_grad) {
        struct view w;
        TRY(weight_value(step, head, &w));
        TRY(backend_run(
            model->backend,
            &(struct op_call){.op = OP_matmul, .in = {dlogits, w}, .out = {view_rows(hidden->grad, first, h.rows)}}));
    }
done:
    return status;
}

static enum status copy(struct transformer *model, struct view from, struct view to, bool accumulate) {
    return backend_run(model->backend,
                       &(struct op_call){.op = OP_copy, .accumulate = accumulate, .in = {from}, .out = {to}});
}

// Losses of rows first .. first + n - 1 against the teacher; the gradient of their sum takes the place of the logits [n, V].
static enum status teacher_losses(struct transformer *model, struct step *step, const struct transformer_loss *loss,
                                  int64_t first, int64_t n, struct view logits, struct loss_params with) {
    enum status status = STATUS_OK;
    struct loss_params without = {0}, truth = {.gradient = loss->truth_weight != 0, .weight = loss->truth_weight};
    struct transformer *other = loss->teacher_model ? loss->teacher_model : model;
    struct view teacher, own = logits, targets = part(loss->targets, first, n);
    struct view cross_entropy_own = part(loss->cross_entropy, first, n);
    bool mixed = truth.gradient && with.gradient;
    if (cross_entropy_own.rows && !truth.gradient)
        TRY(cross_entropy(model, logits, targets, cross_entropy_own, without));
    TRY(step_take(step, DTYPE_F32, n, model->config.vocab, &teacher));
    TRY(transformer_logits(other, step, view_rows(loss->teacher, first, n), teacher));
    if (loss->cross_entropy_teacher.rows)
        TRY(cross_entropy(model, teacher, targets, part(loss->cross_entropy_teacher, first, n), without));
    if (mixed) {
        TRY(step_take(step, DTYPE_F32, n, model->config.vocab, &own));
        TRY(copy(model, logits, own, false));
    }
    TRY(backend_run(model->backend, &(struct op_call){.op = OP_kl_divergence,
                                                      .in = {teacher, logits},
                                                      .out = {part(loss->kl, first, n), part(loss->agree, first, n)},
                                                      .params.loss = with}));
    if (truth.gradient) TRY(cross_entropy(model, own, targets, cross_entropy_own, truth));
    if (mixed) TRY(copy(model, own, logits, true));
done:
    return status;
}

static bool has_gradient(const struct transformer_loss *loss) {
    return loss->gradient_weight != 0 || loss->truth_weight != 0;
}

static enum status loss_rows(struct transformer *model, struct step *step, struct value *hidden,
                             const struct transformer_loss *loss, int64_t first, int64_t n) {
    enum status status = STATUS_OK;
    struct loss_params with = {.gradient = loss->gradient_weight != 0 || loss->tangent.rows,
                               .weight = loss->gradient_weight != 0 ? loss->gradient_weight : 1};
    struct view h = view_rows(hidden->data, first, n);
    struct view logits;
    TRY(step_take(step, DTYPE_F32, n, model->config.vocab, &logits));
    TRY(transformer_logits(model, step, h, logits));
    if (loss->teacher.rows)
        TRY(teacher_losses(model, step, loss, first, n, logits, with));
    else if (loss->cross_entropy.rows)
        TRY(cross_entropy(model, logits, part(loss->targets, first, n), part(loss->cross_entropy, first, n), with));
    if (loss->tangent.rows)
        TRY(loss_tangent(model, step, hidden, h, first, logits, with.weight, part(loss->tangent, first, n)));
    if (has_gradient(loss)) TRY(logits_reverse(model, step, hidden, h, first, logits));
done:
    return status;
}

enum status transformer_loss(struct transformer *model, struct step *step, struct value *hidden,
                             const struct transformer_loss *loss) {
    enum status status = STATUS_OK;
    int64_t rows = hidden->data.rows, chunk = chunk_rows(model, step_options(step)->seq_len, rows);
    REQUIRE(loss->teacher.rows ? loss->kl.rows == rows : loss->cross_entropy.rows == rows, "a loss per row");
    REQUIRE(!loss->tangent.rows || hidden->has_tangent, "directions give the hidden states a tangent");
    REQUIRE(loss->truth_weight == 0 || (loss->teacher.rows && loss->cross_entropy.rows == rows && !loss->tangent.rows),
            "the cross entropy beside a teacher");
    if (has_gradient(loss) && hidden->needs_grad) {
        struct view grad;
        TRY(step_seed(step, hidden, &grad));
    }
    for (int64_t first = 0; first < rows; first += chunk) {
        struct step_mark mark = step_mark(step);
        TRY(loss_rows(model, step, hidden, loss, first, first + chunk < rows ? chunk : rows - first));
        step_release(step, mark);
    }
done:
    return status;
}
