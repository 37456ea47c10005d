// Objectives of the optimizer on small random networks: their values by the definition in double, their gradients by differences; taps on
// outputs, random linear terms, latent weights.
#include "tests/check.h"
#include "tests/small_networks.h"

#include "core/base/rng.h"
#include "core/base/threads.h"
#include "core/nn/random_source.h"
#include "discquant/optimizer.h"

enum { BATCH = 3, SEQ_LEN = 13, ROWS = BATCH * SEQ_LEN, STEPS = 8, WEIGHTS_MAX = 64 };

struct setting {
    struct backend *backend;
    struct step *step;
    struct transformer *model;
    struct rounding *rounding;
    struct optimizer *optimizer;
    int32_t tokens[ROWS];
};

// The gradient alone: lambda / delta^2 = 1 is set by setting_open, so that the first moment after a step is a tenth of it.
static const struct optimizer_options bare = {
    .steps = STEPS, .batch = BATCH, .seq_len = SEQ_LEN, .rate = 0.1, .finish.from = STEPS};

static double x_at(uint64_t weight, int64_t i) {
    return 0.2 + 0.6 * (double)rng_uniform((struct rng){.seed = 4, .stream = RNG_TEST + weight}, (uint64_t)i);
}

static double along_at(uint64_t weight, int64_t i) {
    return rng_normal((struct rng){.seed = 6, .stream = RNG_TEST + weight}, (uint64_t)i);
}

// x = x_at + t along_at.
static void setting_open(struct setting *s, const struct transformer_config *config, double t,
                         const struct optimizer_options *options) {
    struct random_source random = {.seed = 5, .gain = 1, .norm_spread = 0.3};
    struct grid grid;
    *s = (struct setting){0};
    threads_set(2);
    check_ok(backend_open("cpu", &s->backend));
    check_ok(step_new(s->backend, &s->step));
    check_ok(transformer_new(s->backend, config, DTYPE_F32, random_source(&random), &s->model));
    check_ok(grid_block(3, -1, &grid));
    check_ok(rounding_new(s->model, &grid, DTYPE_F32, &s->rounding));
    for (int64_t k = 0; k < s->model->n_weights; k++) {
        struct view x = s->model->weights[k].x;
        for (int64_t i = 0; i < view_count(x); i++)
            view_f32(x, 0)[i] = (float)(x_at((uint64_t)k, i) + t * along_at((uint64_t)k, i));
    }
    struct rng rng = {.seed = 1, .stream = RNG_TEST};
    for (int i = 0; i < ROWS; i++) s->tokens[i] = (int32_t)(rng_bits(rng, (uint64_t)i) % VOCAB);
    if (!options) return;
    struct optimizer_options with = *options;
    if (with.lambda == 0 && with.strength == 0) with.lambda = s->rounding->step2;
    check_ok(optimizer_new(s->rounding, s->step, &with, &s->optimizer));
}

static void setting_close(struct setting *s) {
    optimizer_free(s->optimizer);
    rounding_free(s->rounding);
    transformer_free(s->model);
    step_free(s->step);
    backend_close(s->backend);
}

static double step_taken(struct setting *s) {
    double kl;
    check_ok(optimizer_step(s->optimizer, s->tokens, &kl));
    return s->optimizer->objective;
}

// ---- taps ----

// What a network was seen to do, on the host.
struct seen {
    struct input_tap in;
    struct output_tap out;
    struct weight *weight; // NULL: a layer
    double *x, *y;         // [ROWS, in], [ROWS, out]
    int64_t n_x, n_y;
};

static double *doubles(struct view v) {
    double *to = malloc((size_t)view_count(v) * sizeof *to), *next = to;
    for (int64_t r = 0; r < v.rows; r++)
        for (int64_t c = 0; c < v.cols; c++) *next++ = (double)view_f32(v, r)[c];
    return to;
}

static enum status see_input(struct input_tap *tap, struct step *step, const struct weight *weight, struct view x) {
    (void)step, (void)weight;
    struct seen *s = (struct seen *)tap;
    free(s->x);
    s->x = doubles(x), s->n_x = view_count(x);
    return STATUS_OK;
}

static enum status see_output(struct output_tap *tap, struct step *step, struct view y) {
    (void)step;
    struct seen *s = (struct seen *)((char *)tap - offsetof(struct seen, out));
    free(s->y);
    s->y = doubles(y), s->n_y = view_count(y);
    return STATUS_OK;
}

static void seen_free(struct seen *seen, int n) {
    for (int i = 0; i < n; i++) free(seen[i].x), free(seen[i].y);
}

// Every matrix in the layers, then every layer, in `form`; returns how many.
static int see(struct setting *s, enum weight_form form, struct seen seen[WEIGHTS_MAX]) {
    struct value *hidden;
    int n = 0;
    for (int64_t k = 0; k < s->model->n_weights; k++) {
        struct weight *w = &s->model->weights[k];
        if (!w->is_linear) continue;
        seen[n] = (struct seen){.in.take = see_input, .out.take = see_output, .weight = w};
        w->tap = &seen[n].in, w->output = &seen[n].out;
        n++;
    }
    for (int64_t l = 0; l < s->model->config.layers; l++, n++) {
        seen[n] = (struct seen){.out.take = see_output};
        s->model->layers[l].output = &seen[n].out;
    }
    transformer_set_form(s->model, form);
    step_begin(s->step, (struct step_options){.seq_len = SEQ_LEN});
    check_ok(transformer_forward(s->model, s->step, view_new(s->tokens, DTYPE_I32, ROWS, 1), &hidden));
    transformer_set_form(s->model, WEIGHT_STORED);
    for (int64_t k = 0; k < s->model->n_weights; k++)
        s->model->weights[k].tap = NULL, s->model->weights[k].output = NULL;
    for (int64_t l = 0; l < s->model->config.layers; l++) s->model->layers[l].output = NULL;
    return n;
}

static void check_product(const struct transformer_config *c, const struct seen *s) {
    const struct weight *w = s->weight;
    bool turned = strstr(w->name, "q_proj") || strstr(w->name, "k_proj") || strstr(w->name, "qkv_proj");
    int64_t rotated = turned ? w->rows - (strstr(w->name, "qkv_proj") ? c->kv_heads * c->head_dim : 0) : 0;
    for (int64_t r = 0; r < ROWS; r++) {
        double want2 = 0, got2 = 0;
        for (int64_t o = 0; o < w->rows; o++) {
            double want = 0, got = s->y[r * w->rows + o];
            for (int64_t i = 0; i < w->cols; i++) want += s->x[r * w->cols + i] * (double)view_f32(w->stored, o)[i];
            if (o >= rotated) check_near(got, want, 1e-5, 1e-5);
            want2 += want * want, got2 += got * got;
            // Positions turn pairs inside of a head.
            if ((o + 1) % c->head_dim == 0 && o < rotated) {
                check_near(got2, want2, 1e-5, 1e-6);
                want2 = got2 = 0;
            }
        }
    }
}

static void a_tap_sees_the_product_of_its_matrix(void **state) {
    (void)state;
    for (int c = 0; c < 2; c++) {
        struct setting s;
        struct seen seen[WEIGHTS_MAX];
        setting_open(&s, configs[c], 0, NULL);
        int n = see(&s, WEIGHT_STORED, seen), products = 0;
        for (int i = 0; i < n; i++)
            if (seen[i].weight) check_product(configs[c], &seen[i]), products++;
        assert_int_equal(products, configs[c]->layers * (c == 0 ? 7 : 4));
        seen_free(seen, n);
        setting_close(&s);
    }
}

// Behind a layer stands what was in front of it plus what o and down gave.
static void a_tap_on_a_layer_sees_the_sum_behind_it(void **state) {
    (void)state;
    for (int c = 0; c < 2; c++) {
        struct setting s;
        struct seen seen[WEIGHTS_MAX];
        setting_open(&s, configs[c], 0, NULL);
        int n = see(&s, WEIGHT_INTERPOLATED, seen), per = c == 0 ? 7 : 4;
        int64_t hidden = configs[c]->hidden, layers = configs[c]->layers;
        for (int64_t l = 0; l < layers; l++) {
            const struct seen *first = &seen[l * per], *o = &first[c == 0 ? 3 : 1], *down = &first[per - 1];
            const double *behind = seen[n - layers + l].y, *before = l ? seen[n - layers + l - 1].y : NULL;
            for (int64_t i = 0; i < ROWS * hidden; i++) {
                const float *embedded = view_f32(s.model->embedding->stored, s.tokens[i / hidden]);
                double start = before ? before[i] : (double)embedded[i % hidden];
                check_near(behind[i], start + o->y[i] + down->y[i], 1e-5, 1e-5);
            }
        }
        seen_free(seen, n);
        setting_close(&s);
    }
}

// ---- values ----

// The mean over windows and outputs of |y - t|^2 / |t|^2, of the matrices or of the layers.
static double distance(const struct seen *teacher, const struct seen *student, int n, bool layers) {
    double sum = 0;
    int outputs = 0;
    for (int i = 0; i < n; i++) {
        if (layers != !teacher[i].weight) continue;
        int64_t each = teacher[i].n_y / BATCH;
        for (int64_t b = 0; b < BATCH; b++) {
            double error = 0, norm = 0;
            for (int64_t k = b * each; k < (b + 1) * each; k++) {
                double d = student[i].y[k] - teacher[i].y[k];
                error += d * d, norm += teacher[i].y[k] * teacher[i].y[k];
            }
            sum += error / norm;
        }
        outputs++;
    }
    return sum / (outputs * BATCH);
}

// Cross entropy of the next tokens, from logits in double.
static double truth(struct setting *s) {
    double sum = 0;
    struct value *hidden;
    transformer_set_form(s->model, WEIGHT_INTERPOLATED);
    step_begin(s->step, (struct step_options){.seq_len = SEQ_LEN});
    check_ok(transformer_forward(s->model, s->step, view_new(s->tokens, DTYPE_I32, ROWS, 1), &hidden));
    transformer_set_form(s->model, WEIGHT_STORED);
    for (int64_t r = 0; r < ROWS; r++) {
        if ((r + 1) % SEQ_LEN == 0) continue;
        double z = 0, chosen = 0;
        for (int64_t v = 0; v < VOCAB; v++) {
            double logit = 0;
            for (int64_t i = 0; i < s->model->config.hidden; i++)
                logit += (double)view_f32(hidden->data, r)[i] * (double)view_f32(s->model->head->stored, v)[i];
            z += exp(logit);
            if (v == s->tokens[r + 1]) chosen = logit;
        }
        sum += log(z) - chosen;
    }
    return sum / (BATCH * (SEQ_LEN - 1));
}

static void values_are_the_definition(void **state) {
    (void)state;
    for (int c = 0; c < 2; c++) {
        struct setting s;
        struct seen teacher[WEIGHTS_MAX], student[WEIGHTS_MAX];
        setting_open(&s, configs[c], 0, NULL);
        int n = see(&s, WEIGHT_STORED, teacher);
        see(&s, WEIGHT_INTERPOLATED, student);
        double layer = distance(teacher, student, n, true), linear = distance(teacher, student, n, false);
        double cross_entropy = truth(&s);
        setting_close(&s);
        assert_true(layer > 1e-3 && linear > 1e-3);
        const struct objective of[] = {
            {.layer = 1}, {.linear = 1}, {.truth = 1}, {.layer = 2, .linear = 3, .truth = 4}};
        const double want[] = {layer, linear, cross_entropy, 2 * layer + 3 * linear + 4 * cross_entropy};
        for (int i = 0; i < 4; i++) {
            struct optimizer_options options = bare;
            options.objective = of[i];
            setting_open(&s, configs[c], 0, &options);
            check_near(step_taken(&s), want[i], 1e-5, 0);
            setting_close(&s);
        }
        seen_free(teacher, n);
        seen_free(student, n);
    }
}

// ---- gradients ----

static const struct objective objectives[] = {{.kl = 1},
                                              {.truth = 1},
                                              {.layer = 1},
                                              {.linear = 1},
                                              {.kl = 0.5, .truth = 0.25},
                                              {.kl = 0.7, .truth = 0.2, .layer = 0.4, .linear = 1.5}};
enum { OBJECTIVES = sizeof objectives / sizeof *objectives };

static double objective_at(const struct transformer_config *config, const struct optimizer_options *options, double t) {
    struct setting s;
    setting_open(&s, config, t, options);
    double value = step_taken(&s);
    setting_close(&s);
    return value;
}

// By Richardson's extrapolation of two central differences, error t^4; what is left is the rounding of fp32, 1e-7 / t.
static void gradients_are_differences(void **state) {
    (void)state;
    const double t = 0x1p-5;
    for (int k = 0; k < 2 * OBJECTIVES; k++) {
        struct optimizer_options options = bare;
        const struct transformer_config *config = configs[k % 2];
        double slope[2], inner = 0, norm = 0;
        struct setting s;
        options.objective = objectives[k / 2];
        for (int half = 0; half < 2; half++) {
            double h = half ? t / 2 : t;
            slope[half] = (objective_at(config, &options, h) - objective_at(config, &options, -h)) / (2 * h);
        }
        setting_open(&s, config, 0, &options);
        step_taken(&s);
        for (int64_t i = 0; i < s.model->n_weights; i++) {
            struct view m = s.optimizer->m[i];
            for (int64_t j = 0; j < view_count(m); j++) {
                double g = 10 * (double)view_f32(m, 0)[j];
                inner += g * along_at((uint64_t)i, j);
                norm += g * g;
            }
        }
        double want = (4 * slope[1] - slope[0]) / 3;
        print_message("objective %d, network %d: %.6g, by differences %.6g, norm %.3g\n", k / 2, k % 2, inner, want,
                      sqrt(norm));
        check_near(inner, want, 0, 2e-3 * sqrt(norm));
        setting_close(&s);
    }
}

// Compares the gradients of a step: factor 1e-3 leaves room for sums in another order.
static void check_same_gradients(const struct setting *a, const struct setting *b, bool bits) {
    for (int64_t i = 0; i < a->model->n_weights; i++) {
        struct view m = a->optimizer->m[i], n = b->optimizer->m[i];
        if (bits) assert_memory_equal(m.data, n.data, (size_t)view_count(m) * 4);
        if (!bits && m.rows) check_all_near(view_f32(m, 0), view_f32(n, 0), view_count(m), 1e-3, 1e-6);
    }
}

static void recomputation_gives_the_bits_of_kept_activations(void **state) {
    (void)state;
    for (int c = 0; c < 2; c++) {
        struct setting kept, again;
        struct optimizer_options options = bare;
        options.objective = objectives[OBJECTIVES - 1];
        setting_open(&kept, configs[c], 0, &options);
        options.recompute = true;
        setting_open(&again, configs[c], 0, &options);
        assert_true(step_taken(&kept) == step_taken(&again));
        check_same_gradients(&kept, &again, true);
        setting_close(&kept);
        setting_close(&again);
    }
}

static void passes_of_a_step_add_up(void **state) {
    (void)state;
    for (int c = 0; c < 2; c++) {
        struct setting whole, parts;
        struct optimizer_options options = bare;
        options.objective = objectives[OBJECTIVES - 1];
        setting_open(&whole, configs[c], 0, &options);
        options.micro_batch = 2;
        setting_open(&parts, configs[c], 0, &options);
        check_near(step_taken(&parts), step_taken(&whole), 1e-6, 0);
        check_same_gradients(&parts, &whole, false);
        setting_close(&whole);
        setting_close(&parts);
    }
}

// On the rounded network the gradient is that of the interpolated one at the vertex.
static void a_finishing_step_has_the_gradient_at_the_vertex(void **state) {
    (void)state;
    struct setting finishing, vertex;
    struct optimizer_options options = bare;
    options.objective = objectives[OBJECTIVES - 1];
    setting_open(&vertex, &llama, 0, &options);
    options.finish.from = 0;
    setting_open(&finishing, &llama, 0, &options);
    for (int64_t k = 0; k < vertex.model->n_weights; k++) {
        struct view x = vertex.model->weights[k].x;
        for (int64_t i = 0; i < view_count(x); i++) view_f32(x, 0)[i] = view_f32(x, 0)[i] > 0.5f;
    }
    check_near(step_taken(&finishing), step_taken(&vertex), 1e-5, 0);
    check_same_gradients(&finishing, &vertex, false);
    setting_close(&finishing);
    setting_close(&vertex);
}

static void the_plan_is_what_a_step_takes(void **state) {
    (void)state;
    for (int k = 0; k < 2 * OBJECTIVES; k++) {
        struct setting s;
        struct optimizer_options options = bare;
        options.objective = objectives[k / 2];
        options.recompute = k % 2;
        setting_open(&s, &llama, 0, &options);
        step_peak_reset(s.step);
        step_taken(&s);
        assert_int_equal(step_peak_bytes(s.step), s.optimizer->activation_bytes);
        setting_close(&s);
    }
}

// ---- the linear term, latent weights ----

static void a_random_linear_term_is_the_stream_of_its_weight(void **state) {
    (void)state;
    struct setting s;
    struct optimizer_options options = bare;
    options.random = true, options.strength = 1, options.seed = 77, options.rate = 0.5;
    setting_open(&s, &llama, 0, &options);
    step_taken(&s);
    double sum = 0, squares = 0;
    for (int64_t k = 0; k < s.model->n_weights; k++) {
        const struct weight *w = &s.model->weights[k];
        struct rng rng = {.seed = 77, .stream = RNG_DIRECTION + (uint64_t)k};
        for (int64_t i = 0; i < view_count(w->x); i++) {
            double c = 2 * (double)rng_uniform(rng, (uint64_t)i) - 1;
            check_near(view_f32(s.optimizer->m[k], 0)[i], 0.1 * c, 1e-5, 1e-8);
            sum += c, squares += c * c;
        }
    }
    // Mean 0 and second moment 1/3, within 6 standard deviations: 1 / sqrt(3 n) and sqrt(4 / 45 n).
    double n = (double)s.rounding->weights;
    check_near(sum / n, 0, 0, 6 / sqrt(3 * n));
    check_near(squares / n, 1.0 / 3, 0, 6 * sqrt(4 / (45 * n)));
    while (s.optimizer->done < STEPS) step_taken(&s);
    for (int64_t k = 0; k < s.model->n_weights; k++) {
        const struct weight *w = &s.model->weights[k];
        struct rng rng = {.seed = 77, .stream = RNG_DIRECTION + (uint64_t)k};
        for (int64_t i = 0; i < view_count(w->x); i++)
            if (rng_uniform(rng, (uint64_t)i) != 0.5f)
                assert_true(view_f32(w->x, 0)[i] == (rng_uniform(rng, (uint64_t)i) < 0.5f ? 1 : 0));
    }
    setting_close(&s);
}

// Latent weights at the original: dKL/dx = dKL/dw (up - down), and the network is round-to-nearest's.
static void latent_weights_get_the_gradient_of_the_rounded_ones(void **state) {
    (void)state;
    struct setting latent, nearest;
    struct optimizer_options options = bare;
    options.finish.from = 0;
    setting_open(&nearest, &llama, 0, &options);
    check_ok(rounding_to_nearest(nearest.rounding));
    options.latent = true;
    setting_open(&latent, &llama, 0, &options);
    for (int64_t k = 0; k < latent.model->n_weights; k++) {
        struct weight *w = &latent.model->weights[k];
        if (w->grid) memcpy(w->x.data, w->stored.data, (size_t)view_count(w->x) * 4);
    }
    check_near(step_taken(&latent), step_taken(&nearest), 1e-6, 0);
    for (int64_t k = 0; k < latent.model->n_weights; k++) {
        const struct weight *w = &latent.model->weights[k];
        if (!w->grid) continue;
        float *down = malloc((size_t)view_count(w->x) * 4), *up = malloc((size_t)view_count(w->x) * 4);
        check_ok(rounding_neighbours(latent.rounding, w, down, up));
        for (int64_t i = 0; i < view_count(w->x); i++) {
            double g = (double)view_f32(latent.optimizer->m[k], 0)[i];
            check_near(g * (double)(up[i] - down[i]), view_f32(nearest.optimizer->m[k], 0)[i], 1e-3, 1e-8);
            // AdamW's first step: the rate against the sign.
            if (fabs(g) > 1e-6)
                check_near((double)view_f32(w->x, 0)[i] - (double)view_f32(w->stored, 0)[i], g > 0 ? -0.1 : 0.1, 1e-2,
                           0);
        }
        free(down), free(up);
    }
    setting_close(&latent);
    setting_close(&nearest);
}

// ---- names ----

static void a_list_of_objectives_is_read_and_written(void **state) {
    (void)state;
    static const struct {
        const char *text, *written;
        struct objective objective;
    } good[] = {{"kl", "kl", {.kl = 1}},
                {"ground-truth", "ground-truth", {.truth = 1}},
                {"layer:0.25", "layer:0.25", {.layer = 0.25}},
                {"linear,kl", "kl:1,linear:1", {.kl = 1, .linear = 1}},
                {"kl:0.1,layer:9e-1", "kl:0.1,layer:0.9", {.kl = 0.1, .layer = 0.9}},
                {"kl:0,linear:2", "linear:2", {.linear = 2}}};
    char text[OBJECTIVE_TEXT];
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        struct objective o = {0};
        check_ok(objective_parse(good[i].text, &o));
        assert_memory_equal(&o, &good[i].objective, sizeof o);
        assert_string_equal(objective_text(&o, text), good[i].written);
    }
    assert_string_equal(objective_text(&(struct objective){0}, text), "kl");
    static const char *const bad[] = {
        "",         "KL",      "kl:", "kl:-1", "kl:nan",      "kl:inf",           "kl:1,kl:2", "kl:0",
        "layers:1", "kl:0.5;", "kl,", ",kl",   "kl:1,layer:", "layer:0,linear:0", "kl:1e999",  "l"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct objective o = {0};
        assert_int_equal(objective_parse(bad[i], &o), STATUS_INVALID);
        assert_non_null(strstr(status_message(), "--objective"));
        assert_true(o.kl == 0 && o.layer == 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_tap_sees_the_product_of_its_matrix),
        cmocka_unit_test(a_tap_on_a_layer_sees_the_sum_behind_it),
        cmocka_unit_test(values_are_the_definition),
        cmocka_unit_test(gradients_are_differences),
        cmocka_unit_test(recomputation_gives_the_bits_of_kept_activations),
        cmocka_unit_test(passes_of_a_step_add_up),
        cmocka_unit_test(a_finishing_step_has_the_gradient_at_the_vertex),
        cmocka_unit_test(the_plan_is_what_a_step_takes),
        cmocka_unit_test(a_random_linear_term_is_the_stream_of_its_weight),
        cmocka_unit_test(latent_weights_get_the_gradient_of_the_rounded_ones),
        cmocka_unit_test(a_list_of_objectives_is_read_and_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
