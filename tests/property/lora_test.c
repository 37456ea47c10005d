// Low-rank adapters: their derivatives, merging, the start.
#include "tests/check.h"
#include "tests/small_networks.h"

#include "core/base/mem.h"
#include "core/base/rng.h"
#include "core/base/threads.h"
#include "core/nn/lora.h"
#include "core/nn/random_source.h"
#include "core/nn/rounding.h"

enum { BATCH = 3, SEQ_LEN = 13, ROWS = BATCH * SEQ_LEN, RANK = 3 };

struct setting {
    struct backend *backend;
    struct step *step;
    struct transformer *model;
    struct lora *lora;
    int32_t tokens[ROWS], targets[ROWS];
};

static double random_entry(uint64_t stream, int64_t i) {
    return rng_normal((struct rng){.seed = 9, .stream = RNG_TEST + stream}, (uint64_t)i);
}

// Adapters on every matrix with A and B of the size that a trained one could have, room for gradients and directions.
static void setting_open(struct setting *s, const struct transformer_config *config) {
    *s = (struct setting){0};
    threads_set(2);
    check_ok(backend_open("cpu", &s->backend));
    check_ok(step_new(s->backend, &s->step));
    struct random_source random = {.seed = 5, .gain = 1, .norm_spread = 0.3};
    check_ok(transformer_new(s->backend, config, DTYPE_F32, random_source(&random), &s->model));
    check_ok(lora_new(s->model, RANK, 2 * RANK, &s->lora));
    check_ok(lora_add_named(s->lora, NULL));
    check_ok(lora_start(s->lora, 7));
    for (int64_t k = 0; k < s->lora->n_weights; k++) {
        struct weight *w = &s->lora->weights[k];
        check_ok(backend_matrix_new(s->backend, DTYPE_F32, w->rows, w->cols, "gradient", &w->grad));
        check_ok(backend_matrix_new(s->backend, DTYPE_F32, w->rows, w->cols, "direction", &w->direction));
        memset(w->grad.data, 0, (size_t)view_count(w->grad) * 4);
        for (int64_t i = 0; i < view_count(w->stored); i++) {
            if (k % 2) view_f32(w->stored, 0)[i] = (float)(0.3 * random_entry(100 + (uint64_t)k, i));
            view_f32(w->direction, 0)[i] = (float)(0.3 * random_entry((uint64_t)k, i));
        }
        w->sink = &accumulate_sink;
    }
    struct rng rng = {.seed = 1, .stream = RNG_TEST};
    for (int i = 0; i < ROWS; i++) s->tokens[i] = (int32_t)(rng_bits(rng, (uint64_t)i) % VOCAB);
    for (int i = 0; i < ROWS; i++) s->targets[i] = (i + 1) % SEQ_LEN ? s->tokens[i + 1] : -1;
}

static void setting_close(struct setting *s) {
    lora_free(s->lora);
    transformer_free(s->model);
    step_free(s->step);
    backend_close(s->backend);
}

static void adapters_move(struct setting *s, double t) {
    for (int64_t k = 0; k < s->lora->n_weights; k++) {
        struct weight *w = &s->lora->weights[k];
        for (int64_t i = 0; i < view_count(w->stored); i++)
            view_f32(w->stored, 0)[i] += (float)t * view_f32(w->direction, 0)[i];
    }
}

struct pass {
    bool gradient, recompute, with_tangent;
    double loss[ROWS], tangent[ROWS];
};

static double pass_run(struct setting *s, struct pass *p) {
    struct value *hidden = NULL;
    double sum = 0;
    step_begin(s->step, (struct step_options){.gradient = p->gradient, .recompute = p->recompute, .seq_len = SEQ_LEN});
    check_ok(transformer_forward(s->model, s->step, view_new(s->tokens, DTYPE_I32, ROWS, 1), &hidden));
    struct transformer_loss loss = {.targets = view_new(s->targets, DTYPE_I32, ROWS, 1),
                                    .cross_entropy = view_new(p->loss, DTYPE_F64, ROWS, 1),
                                    .gradient_weight = p->gradient ? 1.0 / ROWS : 0};
    if (p->with_tangent) loss.tangent = view_new(p->tangent, DTYPE_F64, ROWS, 1);
    check_ok(transformer_loss(s->model, s->step, hidden, &loss));
    if (p->gradient) check_ok(step_backward(s->step));
    for (int i = 0; i < ROWS; i++) sum += p->loss[i] / ROWS;
    return sum;
}

static double tangent_mean(const struct pass *p) {
    double sum = 0;
    for (int i = 0; i < ROWS; i++) sum += p->tangent[i] / ROWS;
    return sum;
}

// <gradient, direction> over the matrices A (which 0), B (1) or both (2).
static double gradient_along(const struct setting *s, int which) {
    double sum = 0;
    for (int64_t k = 0; k < s->lora->n_weights; k++) {
        const struct weight *w = &s->lora->weights[k];
        for (int64_t i = 0; (which == 2 || k % 2 == which) && i < view_count(w->grad); i++)
            sum += (double)view_f32(w->grad, 0)[i] * (double)view_f32(w->direction, 0)[i];
    }
    return sum;
}

static void gradients_of_a_and_b_are_those_of_differences(void **state) {
    (void)state;
    for (size_t c = 0; c < sizeof configs / sizeof *configs; c++)
        for (int which = 0; which < 2; which++) {
            struct setting s;
            struct pass at = {.gradient = true}, moved = {0};
            const double t = 0x1p-7;
            setting_open(&s, configs[c]);
            pass_run(&s, &at);
            double along = gradient_along(&s, which);
            for (int64_t k = 0; k < s.lora->n_weights; k++)
                if (k % 2 != which)
                    memset(s.lora->weights[k].direction.data, 0, (size_t)view_count(s.lora->weights[k].grad) * 4);
            adapters_move(&s, t);
            double above = pass_run(&s, &moved);
            adapters_move(&s, -2 * t);
            double below = pass_run(&s, &moved);
            // Central differences: error O(t^2) of the third derivative, and 1e-7 / t of fp32.
            check_near(along, (above - below) / (2 * t), 2e-3, 2e-5);
            assert_true(fabs(along) > 1e-3);
            setting_close(&s);
        }
}

// The gradient of the input is part of both, so the layers before an adapter see it too.
static void reverse_and_forward_mode_agree(void **state) {
    (void)state;
    for (size_t c = 0; c < sizeof configs / sizeof *configs; c++) {
        struct setting s;
        struct pass p = {.gradient = true, .with_tangent = true};
        setting_open(&s, configs[c]);
        struct weight *embedding = s.model->embedding;
        check_ok(backend_matrix_new(s.backend, DTYPE_F32, embedding->rows, embedding->cols, "g", &embedding->grad));
        check_ok(
            backend_matrix_new(s.backend, DTYPE_F32, embedding->rows, embedding->cols, "d", &embedding->direction));
        memset(embedding->grad.data, 0, (size_t)view_count(embedding->grad) * 4);
        for (int64_t i = 0; i < view_count(embedding->direction); i++)
            view_f32(embedding->direction, 0)[i] = (float)(0.3 * random_entry(99, i));
        embedding->sink = &accumulate_sink;
        pass_run(&s, &p);
        double along = gradient_along(&s, 2);
        for (int64_t i = 0; i < view_count(embedding->grad); i++)
            along += (double)view_f32(embedding->grad, 0)[i] * (double)view_f32(embedding->direction, 0)[i];
        check_near(along, tangent_mean(&p), 1e-5, 1e-6);
        setting_close(&s);
    }
}

static void recomputation_gives_the_same_bits(void **state) {
    (void)state;
    struct setting kept, again;
    struct pass p = {.gradient = true}, q = {.gradient = true, .recompute = true};
    setting_open(&kept, &llama);
    setting_open(&again, &llama);
    pass_run(&kept, &p);
    pass_run(&again, &q);
    assert_memory_equal(p.loss, q.loss, sizeof p.loss);
    for (int64_t k = 0; k < kept.lora->n_weights; k++)
        assert_memory_equal(kept.lora->weights[k].grad.data, again.lora->weights[k].grad.data,
                            (size_t)view_count(kept.lora->weights[k].grad) * 4);
    setting_close(&kept);
    setting_close(&again);
}

static void logits_of(struct setting *s, float *out) {
    struct value *hidden = NULL;
    step_begin(s->step, (struct step_options){.seq_len = SEQ_LEN});
    check_ok(transformer_forward(s->model, s->step, view_new(s->tokens, DTYPE_I32, ROWS, 1), &hidden));
    check_ok(transformer_logits(s->model, s->step, hidden->data, view_new(out, DTYPE_F32, ROWS, VOCAB)));
}

static void merged_and_unmerged_give_the_same_logits(void **state) {
    (void)state;
    for (size_t c = 0; c < sizeof configs / sizeof *configs; c++) {
        struct setting s;
        float unmerged[ROWS * VOCAB], merged[ROWS * VOCAB], without[ROWS * VOCAB];
        setting_open(&s, configs[c]);
        logits_of(&s, unmerged);
        for (int64_t i = 0; i < s.model->n_weights; i++)
            check_ok(lora_merge(s.lora, &s.model->weights[i], s.model->weights[i].stored.data));
        lora_free(s.lora);
        s.lora = NULL;
        logits_of(&s, merged);
        check_all_near(merged, unmerged, ROWS * VOCAB, 1e-4, 1e-4);
        setting_close(&s);
        setting_open(&s, configs[c]);
        lora_free(s.lora);
        s.lora = NULL;
        logits_of(&s, without);
        double largest = 0;
        for (int i = 0; i < ROWS * VOCAB; i++) largest = fmax(largest, fabs((double)without[i] - (double)merged[i]));
        assert_true(largest > 0.1);
        setting_close(&s);
    }
}

// B = 0. A is uniform in [-1, 1] / sqrt(in): its mean is within 6 standard errors of 0 and its mean square within 6 of 1 / (3 in); a
// false alarm has a probability of 1e-8.
static void the_start_leaves_the_network_and_draws_a_as_peft_does(void **state) {
    (void)state;
    struct setting s;
    float with[ROWS * VOCAB], without[ROWS * VOCAB];
    setting_open(&s, &llama);
    check_ok(lora_start(s.lora, 3));
    logits_of(&s, with);
    double sum = 0, squares = 0, n = 0;
    for (int64_t k = 0; k < s.lora->n_weights; k += 2) {
        const struct weight *a = &s.lora->weights[k];
        assert_int_equal(a->rows, RANK);
        for (int64_t i = 0; i < view_count(a->stored); i++) {
            double u = (double)view_f32(a->stored, 0)[i] * sqrt((double)a->cols);
            assert_true(fabs(u) <= 1 + 1e-6);
            sum += u, squares += u * u, n++;
        }
    }
    check_near(sum / n, 0, 0, 6 * sqrt(1 / (3 * n)));
    check_near(squares / n, 1.0 / 3, 0, 6 * sqrt(4 / (45 * n)));
    lora_free(s.lora);
    s.lora = NULL;
    logits_of(&s, without);
    for (int i = 0; i < ROWS * VOCAB; i++) assert_true(with[i] == without[i]);
    setting_close(&s);
}

static void the_original_of_a_rounded_matrix_has_no_adapter(void **state) {
    (void)state;
    struct setting s;
    struct grid grid;
    struct rounding *rounding = NULL;
    float want[ROWS * VOCAB], original[ROWS * VOCAB], rounded[ROWS * VOCAB], adapted[ROWS * VOCAB];
    setting_open(&s, &llama);
    struct lora *lora = s.lora;
    lora_free(lora);
    s.lora = NULL;
    logits_of(&s, want);
    check_ok(grid_block(3, 8, &grid));
    check_ok(rounding_new(s.model, &grid, DTYPE_F32, &rounding));
    check_ok(rounding_to_nearest(rounding));
    transformer_set_form(s.model, WEIGHT_ROUNDED);
    logits_of(&s, rounded);
    check_ok(lora_new(s.model, RANK, RANK, &s.lora));
    check_ok(lora_add_named(s.lora, "all"));
    for (int64_t k = 0; k < s.lora->n_weights; k++)
        for (int64_t i = 0; i < view_count(s.lora->weights[k].stored); i++)
            view_f32(s.lora->weights[k].stored, 0)[i] = 0.25f;
    logits_of(&s, adapted);
    transformer_set_form(s.model, WEIGHT_STORED);
    logits_of(&s, original);
    assert_memory_equal(original, want, sizeof want);
    double largest = 0;
    for (int i = 0; i < ROWS * VOCAB; i++) largest = fmax(largest, fabs((double)rounded[i] - (double)adapted[i]));
    assert_true(largest > 0.1);
    rounding_free(rounding);
    setting_close(&s);
}

static void targets_are_found_by_the_ends_of_their_names(void **state) {
    (void)state;
    struct setting s;
    const struct {
        const struct transformer_config *config;
        const char *names;
        int64_t n_weights;
    } cases[] = {
        {&llama, "q_proj,v_proj", 12},       {&llama, "all", 42},          {&llama, "self_attn.q_proj", 6},
        {&llama, "layers.1.mlp.up_proj", 2}, {&llama, "o_proj,o_proj", 6}, {&phi3_tied, "qkv_proj,gate_up_proj", 8},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        setting_open(&s, cases[i].config);
        lora_free(s.lora);
        check_ok(lora_new(s.model, RANK, RANK, &s.lora));
        check_ok(lora_add_named(s.lora, cases[i].names));
        assert_int_equal(s.lora->n_weights, cases[i].n_weights);
        setting_close(&s);
    }
    static const char *const wrong[] = {"q_proj,w_proj", "", "q_proj,", "roj", "embed_tokens", "lm_head", "qkv_proj"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        setting_open(&s, &llama);
        lora_free(s.lora);
        check_ok(lora_new(s.model, RANK, RANK, &s.lora));
        check_fails(lora_add_named(s.lora, wrong[i]), STATUS_INVALID);
        assert_non_null(strstr(status_message(), "q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj"));
        setting_close(&s);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradients_of_a_and_b_are_those_of_differences),
        cmocka_unit_test(reverse_and_forward_mode_agree),
        cmocka_unit_test(recomputation_gives_the_same_bits),
        cmocka_unit_test(merged_and_unmerged_give_the_same_logits),
        cmocka_unit_test(the_start_leaves_the_network_and_draws_a_as_peft_does),
        cmocka_unit_test(the_original_of_a_rounded_matrix_has_no_adapter),
        cmocka_unit_test(targets_are_found_by_the_ends_of_their_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
