// The transformer against Hugging Face Transformers in float64: logits, losses, gradients of every parameter, per-sample
// gradients and forward-mode derivatives of twelve small models (make_transformers.py).
#include "tests/check.h"

#include "core/base/mem.h"
#include "core/base/threads.h"
#include "core/graph/sketch_sink.h"
#include "core/nn/generate.h"
#include "core/nn/transformer.h"
#include "data/json.h"
#include "data/model_folder.h"

static const char *const names[] = {
    "llama_mha",          "llama_gqa2_tied",           "llama_mqa8_f16", "llama_headdim_sharded", "llama_linear_bf16",
    "llama_llama3",       "llama_llama3_v5_tied_bf16", "phi3_window",    "phi3_gqa_bf16",         "phi3_longrope_short",
    "phi3_longrope_long", "phi3_longrope_f16"};
enum { MODELS = sizeof names / sizeof *names };

struct golden {
    struct model_folder *folder;
    struct safetensors *file;
    json_t *about;
    struct backend *backend;
    struct step *step;
    struct transformer *model;
    int64_t batch, seq_len, rows;
    int32_t *targets;
    double *losses, *tangents; // [rows], by position; the last one of each sequence is unused
};

// The numbers of one golden tensor; the pointer lives as long as the file.
static void *values(const struct golden *g, const char *name, enum dtype dtype, int64_t n) {
    const struct safetensors_tensor *tensor = safetensors_find(g->file, name);
    assert_non_null(tensor);
    assert_int_equal(tensor->dtype, safetensors_dtype_of(dtype));
    assert_int_equal(tensor->n_elements, n);
    void *copy = mem_new((size_t)n, (size_t)dtype_bytes(dtype));
    memcpy(copy, tensor->data, (size_t)tensor->n_bytes);
    return copy;
}

static void golden_open(struct golden *g, const char *name) {
    char root[4096];
    check_source("tests/golden/models", root, sizeof root);
    char *path = mem_format("%s/%s", root, name), *file = mem_format("%s/golden.safetensors", path),
         *about = mem_format("%s/golden.json", path);
    *g = (struct golden){0};
    check_ok(model_folder_open(path, &g->folder));
    check_ok(safetensors_open(file, &g->file));
    check_ok(json_read_file(about, &g->about));
    free(path);
    free(file);
    free(about);
    threads_set(0);
    check_ok(backend_open("cpu", &g->backend));
    check_ok(step_new(g->backend, &g->step));
    check_ok(transformer_new(g->backend, model_folder_config(g->folder), DTYPE_F32, model_folder_source(g->folder),
                             &g->model));
    g->batch = json_integer_value(json_object_get(g->about, "batch"));
    g->seq_len = json_integer_value(json_object_get(g->about, "length"));
    g->rows = g->batch * g->seq_len;
    int32_t *tokens = values(g, "tokens", DTYPE_I32, g->rows);
    g->targets = mem_new((size_t)g->rows, sizeof *g->targets);
    for (int64_t i = 0; i < g->rows; i++) g->targets[i] = (i + 1) % g->seq_len ? tokens[i + 1] : -1;
    free(tokens);
    g->losses = mem_new((size_t)g->rows, sizeof(double));
    g->tangents = mem_new((size_t)g->rows, sizeof(double));
}

static void golden_close(struct golden *g) {
    transformer_free(g->model);
    step_free(g->step);
    backend_close(g->backend);
    json_decref(g->about);
    safetensors_free(g->file);
    model_folder_free(g->folder);
    free(g->targets);
    free(g->losses);
    free(g->tangents);
}

// The direction of make_transformers.py: d_i = ((i * 2654435761) mod 2^32) / 2^31 - 1.
static double direction(int64_t i) { return (double)(uint32_t)((uint64_t)i * 2654435761u) / 0x1p31 - 1; }

struct pass {
    double gradient_weight;
    bool tangent;
    float *logits; // [rows, vocab] or NULL
};

static void run(struct golden *g, struct pass pass) {
    struct value *hidden = NULL;
    int32_t *tokens = values(g, "tokens", DTYPE_I32, g->rows);
    step_begin(g->step, (struct step_options){.gradient = pass.gradient_weight != 0, .seq_len = g->seq_len});
    check_ok(transformer_forward(g->model, g->step, view_new(tokens, DTYPE_I32, g->rows, 1), &hidden));
    if (pass.logits)
        check_ok(transformer_logits(g->model, g->step, hidden->data,
                                    view_new(pass.logits, DTYPE_F32, g->rows, g->model->config.vocab)));
    struct transformer_loss loss = {.targets = view_new(g->targets, DTYPE_I32, g->rows, 1),
                                    .cross_entropy = view_new(g->losses, DTYPE_F64, g->rows, 1),
                                    .gradient_weight = pass.gradient_weight};
    if (pass.tangent) loss.tangent = view_new(g->tangents, DTYPE_F64, g->rows, 1);
    check_ok(transformer_loss(g->model, g->step, hidden, &loss));
    if (pass.gradient_weight != 0) check_ok(step_backward(g->step));
    free(tokens);
}

static void logits_and_losses_equal_transformers(void **state) {
    (void)state;
    for (int k = 0; k < MODELS; k++) {
        struct golden g;
        golden_open(&g, names[k]);
        int64_t n = g.rows * g.model->config.vocab;
        float *logits = mem_new((size_t)n, sizeof *logits), *want = values(&g, "logits", DTYPE_F32, n);
        double *want_loss = values(&g, "token_loss", DTYPE_F64, g.batch * (g.seq_len - 1)), worst = 0;
        run(&g, (struct pass){.logits = logits});
        for (int64_t i = 0; i < n; i++) worst = fmax(worst, fabs((double)logits[i] - (double)want[i]));
        print_message("%-28s largest logit error %.2g\n", names[k], worst);
        check_near(worst, 0, 0, 1e-4);
        for (int64_t b = 0; b < g.batch; b++)
            for (int64_t t = 0; t + 1 < g.seq_len; t++)
                check_near(g.losses[b * g.seq_len + t], want_loss[b * (g.seq_len - 1) + t], 0, 1e-4);
        free(logits);
        free(want);
        free(want_loss);
        golden_close(&g);
    }
}

static void gradients_equal_transformers(void **state) {
    (void)state;
    for (int k = 0; k < MODELS; k++) {
        struct golden g;
        golden_open(&g, names[k]);
        json_t *parameters = json_object_get(g.about, "parameters");
        int64_t n = (int64_t)json_array_size(parameters);
        double *norm2 = values(&g, "grad_norm2", DTYPE_F64, n), *dot = values(&g, "grad_dot", DTYPE_F64, n);
        for (int64_t i = 0; i < g.model->n_weights; i++) {
            struct weight *w = &g.model->weights[i];
            check_ok(backend_matrix_new(g.backend, DTYPE_F32, w->rows, w->cols, "gradient", &w->grad));
            memset(w->grad.data, 0, (size_t)view_count(w->grad) * 4);
            w->sink = &accumulate_sink;
        }
        run(&g, (struct pass){.gradient_weight = 1.0 / (double)(g.batch * (g.seq_len - 1))});
        assert_int_equal(n, g.model->n_weights);
        for (int64_t p = 0; p < n; p++) {
            const struct weight *w =
                transformer_weight(g.model, json_string_value(json_array_get(parameters, (size_t)p)));
            assert_non_null(w);
            double squares = 0, product = 0;
            for (int64_t i = 0; i < view_count(w->grad); i++) {
                // Transformers gives the embedding of Phi-3's padding token (2) no gradient; ours are derivatives.
                if (w == g.model->embedding && g.model->config.architecture == ARCHITECTURE_PHI3 && i / w->cols == 2)
                    continue;
                double x = (double)view_f32(w->grad, 0)[i];
                squares += x * x, product += x * direction(i);
            }
            check_near(squares, norm2[p], 1e-4, 1e-12);
            check_near(product, dot[p], 1e-4, 1e-4 * sqrt(norm2[p] * (double)view_count(w->grad)));
        }
        free(norm2);
        free(dot);
        golden_close(&g);
    }
}

static void per_sample_norms_equal_transformers(void **state) {
    (void)state;
    for (int k = 0; k < MODELS; k++) {
        struct golden g;
        golden_open(&g, names[k]);
        int64_t linear = (int64_t)json_array_size(json_object_get(g.about, "linear"));
        double *want = values(&g, "sample_norm2", DTYPE_F64, g.batch * linear);
        struct sketch_sink *sink = NULL;
        int64_t *group = calloc((size_t)g.model->n_weights, sizeof *group);
        for (int64_t i = 0; i < g.model->n_weights; i++) group[i] = g.model->weights[i].is_linear ? 0 : -1;
        struct sketch_options options = {.n_groups = 1, .group = group};
        check_ok(sketch_sink_new(g.backend, g.model->weights, g.model->n_weights, &options, g.batch, &sink));
        sketch_sink_attach(sink);
        check_ok(sketch_sink_begin(sink, (struct view){0}));
        run(&g, (struct pass){.gradient_weight = 1.0 / (double)(g.seq_len - 1)});
        check_ok(sketch_sink_end(sink, g.batch));
        for (int64_t b = 0; b < g.batch; b++) {
            double sum = 0;
            for (int64_t l = 0; l < linear; l++) sum += want[b * linear + l];
            check_near(sink->norms[b], sum, 1e-5, 0);
        }
        sketch_sink_free(sink);
        free(group);
        free(want);
        golden_close(&g);
    }
}

static void directional_derivatives_equal_transformers(void **state) {
    (void)state;
    for (int k = 0; k < MODELS; k++) {
        struct golden g;
        golden_open(&g, names[k]);
        double *want = values(&g, "token_loss_dot", DTYPE_F64, g.batch * (g.seq_len - 1)), size = 0;
        for (int64_t i = 0; i < g.model->n_weights; i++) {
            struct weight *w = &g.model->weights[i];
            if (!w->is_linear) continue;
            check_ok(backend_matrix_new(g.backend, DTYPE_F32, w->rows, w->cols, "direction", &w->direction));
            for (int64_t e = 0; e < view_count(w->direction); e++) view_f32(w->direction, 0)[e] = (float)direction(e);
        }
        run(&g, (struct pass){.tangent = true});
        for (int64_t i = 0; i < g.batch * (g.seq_len - 1); i++) size = fmax(size, fabs(want[i]));
        for (int64_t b = 0; b < g.batch; b++)
            for (int64_t t = 0; t + 1 < g.seq_len; t++)
                check_near(g.tangents[b * g.seq_len + t], want[b * (g.seq_len - 1) + t], 1e-4, 2e-5 * size);
        free(want);
        golden_close(&g);
    }
}

// The cached path gives the tokens that whole forward passes give.
static void generation_with_a_cache_equals_whole_passes(void **state) {
    (void)state;
    for (int k = 0; k < MODELS; k++) {
        struct golden g;
        golden_open(&g, names[k]);
        if (g.model->config.rope.kind == ROPE_LONGROPE) { // the factors depend on the length of the pass
            golden_close(&g);
            continue;
        }
        enum { PROMPT = 5, NEW = 20 };
        g.model->config.n_eos = 0;
        int64_t vocab = g.model->config.vocab, made = 0;
        int32_t *tokens = values(&g, "tokens", DTYPE_I32, g.rows), sequence[PROMPT + NEW], got[NEW];
        float *logits = mem_new((size_t)(vocab * (PROMPT + NEW)), sizeof *logits);
        memcpy(sequence, tokens, PROMPT * sizeof *tokens);
        check_ok(generate(g.model, g.step, tokens, PROMPT, NEW, got, &made));
        assert_int_equal(made, NEW);
        for (int64_t n = PROMPT; n < PROMPT + NEW; n++) {
            struct value *hidden = NULL;
            step_begin(g.step, (struct step_options){.seq_len = n});
            check_ok(transformer_forward(g.model, g.step, view_new(sequence, DTYPE_I32, n, 1), &hidden));
            check_ok(transformer_logits(g.model, g.step, hidden->data, view_new(logits, DTYPE_F32, n, vocab)));
            const float *last = logits + (n - 1) * vocab;
            int32_t best = 0;
            for (int32_t v = 1; v < vocab; v++)
                if (last[v] > last[best]) best = v;
            sequence[n] = best;
            assert_int_equal(got[n - PROMPT], best);
        }
        free(logits);
        free(tokens);
        golden_close(&g);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logits_and_losses_equal_transformers),
        cmocka_unit_test(gradients_equal_transformers),
        cmocka_unit_test(per_sample_norms_equal_transformers),
        cmocka_unit_test(directional_derivatives_equal_transformers),
        cmocka_unit_test(generation_with_a_cache_equals_whole_passes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
