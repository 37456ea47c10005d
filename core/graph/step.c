#include "core/graph/step.h"

#include "core/base/mem.h"

#include <stdlib.h>

enum { STEP_ALIGN = 64, CHUNKS_MAX = 64 };

struct chunk {
    char *data;
    int64_t size;
};

struct segment {
    segment_run *run;
    void *context;
    struct step_mark mark; // memory in use when the way back entered it
    bool entered;
};

struct step {
    struct backend *backend;
    struct step_options options;
    struct arena *objects; // values, segments
    struct node *nodes;
    int64_t n_nodes, nodes_size;
    bool recording;

    struct chunk chunks[CHUNKS_MAX];
    int64_t n_chunks;
    struct step_mark top;
    int64_t below[CHUNKS_MAX]; // bytes used in the chunks before this one
    int64_t peak;
};

enum status step_new(struct backend *backend, struct step **out) {
    struct step *step = mem_new(1, sizeof *step);
    step->backend = backend;
    step->objects = arena_new();
    *out = step;
    return STATUS_OK;
}

static void step_chunks_free(struct step *step) {
    for (int64_t i = 0; i < step->n_chunks; i++)
        if (step->chunks[i].data) step->backend->fns->buffer_free(step->backend, step->chunks[i].data);
    step->n_chunks = 0;
}

void step_free(struct step *step) {
    if (!step) return;
    step_chunks_free(step);
    arena_free(step->objects);
    free(step->nodes);
    free(step);
}

void step_begin(struct step *step, struct step_options options) {
    step->options = options;
    step->recording = options.gradient;
    step->n_nodes = 0;
    step->top = (struct step_mark){0};
    arena_reset(step->objects);
}

void step_switch(struct step *step, struct step_options options) {
    REQUIRE(step->n_nodes == 0, "options change before anything is recorded");
    step->options = options;
    step->recording = options.gradient;
}

struct backend *step_backend(const struct step *step) {
    return step->backend;
}
const struct step_options *step_options(const struct step *step) { return &step->options; }
bool step_may_overwrite(const struct step *step) { return !step->options.gradient; }

// ---- memory ----

static enum status chunk_add(struct step *step, int64_t bytes) {
    REQUIRE(step->n_chunks < CHUNKS_MAX, "step memory in too many pieces");
    struct chunk chunk = {.size = bytes};
    if (!step->backend->dry) {
        void *data = NULL;
        enum status status = step->backend->fns->buffer_new(step->backend, bytes, "activations", &data);
        if (status != STATUS_OK) return status;
        chunk.data = data;
    }
    step->chunks[step->n_chunks++] = chunk;
    return STATUS_OK;
}

static int64_t step_used(const struct step *step) { return step->below[step->top.chunk] + step->top.used; }

enum status step_take(struct step *step, enum dtype dtype, int64_t rows, int64_t cols, struct view *out) {
    int64_t bytes = (rows * cols * dtype_bytes(dtype) + STEP_ALIGN - 1) / STEP_ALIGN * STEP_ALIGN;
    enum { CHUNK_LEAST = 1 << 20 };
    struct step_mark *top = &step->top;
    // What does not fit into the current chunk goes to the next one; a next one that is too small is replaced.
    while (top->chunk >= step->n_chunks || step->chunks[top->chunk].size - top->used < bytes) {
        if (top->chunk < step->n_chunks && top->used > 0) {
            step->below[top->chunk + 1] = step_used(step);
            *top = (struct step_mark){.chunk = top->chunk + 1};
            continue;
        }
        while (step->n_chunks > top->chunk) {
            struct chunk *last = &step->chunks[--step->n_chunks];
            if (last->data) step->backend->fns->buffer_free(step->backend, last->data);
        }
        // Twice as much each time, so that pieces stay few; a plan has room for anything.
        int64_t size = step->backend->dry ? INT64_MAX / 2 : CHUNK_LEAST;
        for (int64_t i = 0; i < step->n_chunks && !step->backend->dry; i++) size += step->chunks[i].size;
        enum status status = chunk_add(step, bytes > size ? bytes : size);
        if (status != STATUS_OK) return status;
    }
    char *data = step->chunks[top->chunk].data;
    *out = view_new(data ? data + top->used : NULL, dtype, rows, cols);
    top->used += bytes;
    if (step_used(step) > step->peak) step->peak = step_used(step);
    return STATUS_OK;
}

struct step_mark step_mark(const struct step *step) {
    return step->top;
}
void step_release(struct step *step, struct step_mark mark) { step->top = mark; }
int64_t step_peak_bytes(const struct step *step) { return step->peak; }
void step_peak_reset(struct step *step) { step->peak = 0; }

enum status step_reserve(struct step *step, int64_t bytes) {
    REQUIRE(step->top.chunk == 0 && step->top.used == 0, "memory is reserved between steps");
    if (step->n_chunks == 1 && step->chunks[0].size >= bytes) return STATUS_OK;
    step_chunks_free(step);
    return chunk_add(step, bytes);
}

// ---- values ----

void *step_object(struct step *step, size_t size) { return arena_take(step->objects, 1, size); }

struct value *step_input(struct step *step, struct view data) {
    struct value *value = arena_take(step->objects, 1, sizeof *value);
    value->data = data;
    return value;
}

enum status step_value(struct step *step, int64_t rows, int64_t cols, bool needs_grad, struct value **out) {
    struct view data;
    enum status status = step_take(step, step->options.dtype, rows, cols, &data);
    if (status != STATUS_OK) return status;
    *out = step_input(step, data);
    (*out)->needs_grad = needs_grad && step->options.gradient;
    return STATUS_OK;
}

enum status step_tangent(struct step *step, struct value *value) {
    if (value->has_tangent) return STATUS_OK;
    enum status status = step_take(step, value->data.dtype, value->data.rows, value->data.cols, &value->tangent);
    value->has_tangent = status == STATUS_OK;
    return status;
}

enum status step_grad(struct step *step, struct value *value, struct view *grad, bool *accumulate) {
    *accumulate = value->has_grad;
    if (!value->has_grad) {
        enum status status = step_take(step, value->data.dtype, value->data.rows, value->data.cols, &value->grad);
        if (status != STATUS_OK) return status;
        value->has_grad = true;
    }
    *grad = value->grad;
    return STATUS_OK;
}

enum status step_seed(struct step *step, struct value *value, struct view *grad) {
    bool accumulate;
    enum status status = step_grad(step, value, grad, &accumulate);
    REQUIRE(status != STATUS_OK || !accumulate, "a seed is the first part of a gradient");
    return status;
}

enum status step_grad_pass(struct step *step, struct value *from, struct value *to) {
    if (!to->needs_grad) return STATUS_OK;
    if (!to->has_grad) {
        to->grad = from->grad;
        to->has_grad = true;
        return STATUS_OK;
    }
    return backend_run(step->backend,
                       &(struct op_call){.op = OP_copy, .accumulate = true, .in = {from->grad}, .out = {to->grad}});
}

// ---- the record ----

void step_append(struct step *step, struct node node) {
    if (!step->recording) return;
    if (step->n_nodes == step->nodes_size) {
        step->nodes_size = step->nodes_size ? 2 * step->nodes_size : 64;
        step->nodes = mem_resize(step->nodes, (size_t)step->nodes_size, sizeof *step->nodes);
    }
    step->nodes[step->n_nodes++] = node;
}

static enum status backward_to(struct step *step, int64_t first) {
    while (step->n_nodes > first) {
        struct node node = step->nodes[--step->n_nodes];
        enum status status = node.reverse(step, &node);
        if (status != STATUS_OK) return status;
    }
    return STATUS_OK;
}

enum status step_backward(struct step *step) { return backward_to(step, 0); }

// ---- segments ----

static enum status segment_leave(struct step *step, struct node *node) {
    struct value *in = node->in[0], *out = node->out;
    REQUIRE(!in->needs_grad || step->backend->dry || in->grad.data == out->grad.data,
            "the gradient of a segment's input takes over the memory of its output's");
    step_release(step, node->segment->mark);
    return STATUS_OK;
}

static enum status segment_enter(struct step *step, struct node *node) {
    node->segment->mark = step_mark(step);
    return STATUS_OK;
}

static enum status segment_reverse(struct step *step, struct node *node) {
    enum status status = STATUS_OK;
    struct segment *segment = node->segment;
    struct step_mark mark = step_mark(step);
    int64_t first = step->n_nodes;
    struct value *in = step_input(step, node->in[0]->data), *out = NULL;
    in->needs_grad = node->in[0]->needs_grad;
    step->recording = true;
    TRY(segment->run(step, segment->context, in, &out));
    out->grad = node->out->grad;
    out->has_grad = true;
    TRY(backward_to(step, first));
    if (in->needs_grad) TRY(step_grad_pass(step, in, node->in[0]));
    step_release(step, mark);
done:
    return status;
}

// The result of a segment whose other memory is about to be popped: moved to `to`, with its tangent.
static enum status segment_result(struct step *step, struct value *from, struct value *to) {
    enum status status = STATUS_OK;
    if (from->data.data != to->data.data || step->backend->dry)
        TRY(backend_run(step->backend, &(struct op_call){.op = OP_copy, .in = {from->data}, .out = {to->data}}));
    if (from->has_tangent && (from->tangent.data != to->tangent.data || step->backend->dry))
        TRY(backend_run(step->backend, &(struct op_call){.op = OP_copy, .in = {from->tangent}, .out = {to->tangent}}));
done:
    return status;
}

static enum status segment_forget(struct step *step, segment_run *run, void *context, struct value *in,
                                  struct value **out) {
    enum status status = STATUS_OK;
    bool recording = step->recording;
    struct value *kept = NULL, *made = NULL;
    if (step_may_overwrite(step))
        kept = step_input(step, in->data);
    else
        TRY(step_value(step, in->data.rows, in->data.cols, true, &kept));
    struct view tangent = in->tangent;
    if (in->has_tangent && !step_may_overwrite(step))
        TRY(step_take(step, in->data.dtype, in->data.rows, in->data.cols, &tangent));
    struct step_mark mark = step_mark(step);
    step->recording = false;
    TRY(run(step, context, in, &made));
    if (made->has_tangent) {
        REQUIRE(in->has_tangent, "a segment of a step with directions starts from a value with a tangent");
        kept->tangent = tangent;
        kept->has_tangent = true;
    }
    TRY(segment_result(step, made, kept));
    step_release(step, mark);
    *out = kept;
done:
    step->recording = recording;
    return status;
}

enum status step_segment(struct step *step, segment_run *run, void *context, struct value *in, struct value **out) {
    enum status status = STATUS_OK;
    struct segment *segment = arena_take(step->objects, 1, sizeof *segment);
    *segment = (struct segment){.run = run, .context = context};
    if (!step->options.gradient || step->options.recompute) {
        TRY(segment_forget(step, run, context, in, out));
        step_append(step, (struct node){.reverse = segment_reverse, .in = {in}, .out = *out, .segment = segment});
    } else {
        int64_t leave = step->n_nodes;
        step_append(step, (struct node){.reverse = segment_leave, .in = {in}, .segment = segment});
        TRY(run(step, context, in, out));
        step->nodes[leave].out = *out;
        step_append(step, (struct node){.reverse = segment_enter, .segment = segment});
    }
done:
    return status;
}

enum status step_plan(struct backend *backend, step_body *body, void *context, int64_t *bytes) {
    REQUIRE(!backend->dry, "plans do not nest");
    struct step *step = NULL;
    struct backend before = *backend;
    backend->dry = true;
    enum status status = step_new(backend, &step);
    if (status == STATUS_OK) status = body(step, context);
    if (status == STATUS_OK) *bytes = step->peak;
    step_free(step);
    *backend = before;
    return status;
}
