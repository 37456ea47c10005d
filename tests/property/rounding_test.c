// A model on each grid: what a method leaves (x between neighbours, or latent weights) is what is evaluated, saved and given as codes.
#include "tests/check.h"

#include "core/base/rng.h"
#include "core/base/threads.h"
#include "core/nn/evaluate.h"
#include "core/nn/random_source.h"
#include "core/nn/rounding.h"

enum { SEQ_LEN = 12, WINDOWS = 3, KINDS = 9 };

// Every matrix is 256 wide, so that every grid takes it.
static const struct transformer_config wide = {.architecture = ARCHITECTURE_LLAMA,
                                               .hidden = 256,
                                               .intermediate = 256,
                                               .layers = 1,
                                               .heads = 8,
                                               .kv_heads = 4,
                                               .head_dim = 32,
                                               .vocab = 37,
                                               .max_positions = 64,
                                               .rms_eps = 1e-5,
                                               .rope = {.theta = 100},
                                               .bos = -1};

struct setting {
    struct backend *backend;
    struct step *step;
    struct transformer *model;
    struct rounding *rounding;
    int32_t tokens[WINDOWS * SEQ_LEN];
};

static void setting_open(struct setting *s, int kind) {
    *s = (struct setting){0};
    struct grid grid;
    struct random_source random = {.seed = 5, .gain = 1, .norm_spread = 0.3};
    struct rng rng = {.seed = 1, .stream = RNG_TEST};
    threads_set(2);
    check_ok(backend_open("cpu", &s->backend));
    check_ok(step_new(s->backend, &s->step));
    check_ok(transformer_new(s->backend, &wide, DTYPE_F32, random_source(&random), &s->model));
    check_ok(transformer_prepare(s->model, SEQ_LEN));
    check_ok(grid_new(&(struct grid_options){.kind = (enum grid_kind)kind}, &grid));
    check_ok(rounding_new(s->model, &grid, DTYPE_F32, &s->rounding));
    for (int i = 0; i < WINDOWS * SEQ_LEN; i++) s->tokens[i] = (int32_t)(rng_bits(rng, (uint64_t)i) % 37);
}

static void setting_close(struct setting *s) {
    rounding_free(s->rounding);
    transformer_free(s->model);
    step_free(s->step);
    backend_close(s->backend);
}

static double loss_of(struct setting *s, enum weight_form form) {
    struct evaluation *e = NULL;
    struct evaluate_options options = {.form = form};
    check_ok(evaluate(s->model, s->step, s->tokens, WINDOWS, SEQ_LEN, &options, &e));
    double loss = evaluation_mean(e, e->loss, NULL);
    evaluation_free(e);
    return loss;
}

static struct weight *next_linear(struct setting *s, int64_t *k) {
    while (*k < s->model->n_weights)
        if (s->model->weights[(*k)++].is_linear) return &s->model->weights[*k - 1];
    return NULL;
}

// Codes and scales against the values, and x against the codes; then the values become the stored weights.
static void check_result(struct setting *s, bool latent) {
    int64_t k = 0;
    for (struct weight *w; (w = next_linear(s, &k));) {
        const struct grid *grid = w->grid;
        int64_t n = w->rows * w->cols, groups = grid_groups(grid, w->cols), scale_cols = grid_scale_cols(grid, w->cols);
        float *values = malloc((size_t)n * 4), *scale = malloc((size_t)(w->rows * scale_cols) * 4);
        uint8_t *codes = malloc((size_t)n);
        check_ok(rounding_values(s->rounding, w, values));
        check_ok(rounding_scales(s->rounding, w, scale));
        check_ok(rounding_codes(s->rounding, w, codes));
        for (int64_t i = 0; i < n; i++) {
            const float *row = scale + i / w->cols * scale_cols;
            int64_t group = i % w->cols / grid_group_cols(grid, w->cols);
            float offset = grid->has_offset ? row[groups + group] : 0;
            assert_true(codes[i] < grid->n_levels);
            float value = row[group] * grid->levels[codes[i]] + offset, x = ((float *)w->x.data)[i];
            assert_memory_equal(&value, &values[i], 4);
            if (!latent) {
                struct neighbours near = grid_neighbours(grid, ((float *)w->stored.data)[i], row[group], offset);
                assert_true(value == (x > 0.5f ? near.up : near.down));
            } else {
                for (int c = 0; c < grid->n_levels; c++) {
                    float other = row[group] * grid->levels[c] + offset;
                    assert_true(fabsf(x - value) <= fabsf(x - other) * (1 + 1e-5f) + 1e-7f);
                }
            }
        }
        memcpy(w->stored.data, values, (size_t)n * 4);
        free(values);
        free(scale);
        free(codes);
    }
}

static void codes_and_scales_are_the_evaluated_and_the_saved_model(void **state) {
    (void)state;
    for (int kind = 0; kind < KINDS; kind++) {
        struct setting s;
        setting_open(&s, kind);
        check_ok(rounding_random(s.rounding, 3));
        assert_int_equal(s.rounding->form, WEIGHT_ROUNDED);
        double rounded = loss_of(&s, s.rounding->form), original = loss_of(&s, WEIGHT_STORED);
        check_result(&s, false);
        assert_true(loss_of(&s, WEIGHT_STORED) == rounded);
        assert_true(rounded != original);
        setting_close(&s);
    }
}

// Latent weights far from the stored ones, so that no neighbour of these would do.
static void latent_weights_give_their_nearest_points(void **state) {
    (void)state;
    for (int kind = 0; kind < KINDS; kind++) {
        struct setting s;
        setting_open(&s, kind);
        int64_t k = 0;
        for (struct weight *w; (w = next_linear(&s, &k));) {
            int64_t n = w->rows * w->cols;
            float *latent = malloc((size_t)n * 4);
            for (int64_t i = 0; i < n; i++) latent[i] = -0.7f * ((float *)w->stored.data)[i];
            check_ok(rounding_set_latent(s.rounding, w, latent));
            free(latent);
        }
        assert_int_equal(s.rounding->form, WEIGHT_STRAIGHT);
        double rounded = loss_of(&s, s.rounding->form);
        check_result(&s, true);
        assert_true(loss_of(&s, WEIGHT_STORED) == rounded);
        setting_close(&s);
    }
}

static void values_on_the_grid_come_back_as_latent_weights(void **state) {
    (void)state;
    for (int kind = 0; kind < KINDS; kind++) {
        struct setting s;
        setting_open(&s, kind);
        check_ok(rounding_random(s.rounding, 4));
        int64_t k = 0;
        for (struct weight *w; (w = next_linear(&s, &k));) {
            size_t bytes = (size_t)(w->rows * w->cols) * 4;
            float *before = malloc(bytes), *latent = malloc(bytes);
            s.rounding->form = WEIGHT_ROUNDED;
            check_ok(rounding_values(s.rounding, w, before));
            memcpy(latent, before, bytes);
            check_ok(rounding_set_latent(s.rounding, w, latent));
            check_ok(rounding_values(s.rounding, w, latent));
            assert_memory_equal(before, latent, bytes);
            free(before);
            free(latent);
        }
        setting_close(&s);
    }
}

static void nearest_is_what_the_original_point_rounds_to(void **state) {
    (void)state;
    for (int kind = 0; kind < KINDS; kind++) {
        struct setting s;
        setting_open(&s, kind);
        check_ok(rounding_to_nearest(s.rounding));
        double rounded = loss_of(&s, s.rounding->form);
        int64_t k = 0;
        for (struct weight *w; (w = next_linear(&s, &k));) {
            size_t bytes = (size_t)(w->rows * w->cols) * 4;
            float *latent = memcpy(malloc(bytes), w->stored.data, bytes);
            check_ok(rounding_set_latent(s.rounding, w, latent));
            free(latent);
        }
        check_near(loss_of(&s, WEIGHT_STRAIGHT), rounded, 1e-4, 0); // ties may fall to the other side
        setting_close(&s);
    }
}

// Codes and what the format stores per group, by hand.
static void bits_per_weight_are_those_of_the_format(void **state) {
    (void)state;
    static const double want[KINDS] = {4 + 16.0 / 256, 4 + 20.0 / 256, 4.25, 4.25, 4.5, 4.5, 5, 8.5, 3.4375};
    for (int kind = 0; kind < KINDS; kind++) {
        struct setting s;
        setting_open(&s, kind);
        double matrices = 7, extra = kind == GRID_NVFP4 ? matrices * 32 / (double)s.rounding->weights : 0;
        check_near(s.rounding->bits_per_weight, want[kind] + extra, 1e-12, 0);
        setting_close(&s);
    }
}

static void a_width_that_a_grid_cannot_hold_is_refused_by_name(void **state) {
    (void)state;
    struct setting s;
    struct grid grid;
    struct rounding *rounding = NULL;
    struct transformer_config config = wide;
    struct random_source random = {.seed = 5, .gain = 1};
    setting_open(&s, GRID_BLOCK);
    config.intermediate = 144;
    struct transformer *narrow = NULL;
    check_ok(transformer_new(s.backend, &config, DTYPE_F32, random_source(&random), &narrow));
    for (int kind = GRID_Q4_0; kind <= GRID_Q3_K; kind++) {
        check_ok(grid_new(&(struct grid_options){.kind = (enum grid_kind)kind}, &grid));
        check_fails(rounding_new(narrow, &grid, DTYPE_F32, &rounding), STATUS_INVALID);
        assert_non_null(strstr(status_message(), "down_proj"));
        assert_non_null(strstr(status_message(), grid_kind_name(grid.kind)));
    }
    transformer_free(narrow);
    setting_close(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(codes_and_scales_are_the_evaluated_and_the_saved_model),
        cmocka_unit_test(latent_weights_give_their_nearest_points),
        cmocka_unit_test(values_on_the_grid_come_back_as_latent_weights),
        cmocka_unit_test(nearest_is_what_the_original_point_rounds_to),
        cmocka_unit_test(bits_per_weight_are_those_of_the_format),
        cmocka_unit_test(a_width_that_a_grid_cannot_hold_is_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
