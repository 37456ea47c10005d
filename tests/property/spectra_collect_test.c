// Records of samples against the gradients themselves, entry by entry; shards, kills and batches against one run.
#include "spectra/exact.h"
#include "spectra/merge.h"
#include "spectra/samples.h"
#include "spectra/sums.h"
#include "tests/files.h"
#include "tests/small_networks.h"

#include "core/base/progress.h"
#include "core/base/rng.h"
#include "core/base/threads.h"
#include "core/nn/evaluate.h"
#include "core/nn/random_source.h"

enum { SEQ_LEN = 9, WINDOWS = 23, TOKENS = WINDOWS * SEQ_LEN + 4, BATCH = 4, DIM = 64, SKETCHES = 2 };

struct setting {
    char *folder;
    struct model model;
    struct corpus corpus;
    int32_t tokens[TOKENS];
    int64_t ends[1];
    struct groups *groups;
    struct directions *directions;
    struct settings *settings;
    struct collect_options options;
};

static void setting_open(struct setting *s, const struct transformer_config *config, enum parameter_set set) {
    *s = (struct setting){.folder = files_folder()};
    threads_set(2);
    check_ok(backend_open("cpu", &s->model.backend));
    check_ok(step_new(s->model.backend, &s->model.step));
    struct random_source random = {.seed = 5, .gain = 1, .norm_spread = 0.3};
    check_ok(transformer_new(s->model.backend, config, DTYPE_F32, random_source(&random), &s->model.transformer));
    struct rng rng = {.seed = 1, .stream = RNG_TEST};
    for (int i = 0; i < TOKENS; i++) s->tokens[i] = (int32_t)(rng_bits(rng, (uint64_t)i) % VOCAB);
    s->ends[0] = TOKENS;
    s->corpus =
        (struct corpus){.name = (char *)"text", .tokens = s->tokens, .n_tokens = TOKENS, .ends = s->ends, .n_files = 1};
    s->groups = groups_new(s->model.transformer, set, NULL, true);
    check_ok(directions_new(&s->model, s->groups, &s->directions));
    check_ok(directions_add_nearest(s->directions, 3, -1));
    check_ok(directions_add_nearest(s->directions, 5, -1));
    struct settings_options options = {.model = "m",
                                       .corpus = "c",
                                       .seq_len = SEQ_LEN,
                                       .batch = BATCH,
                                       .seed = 7,
                                       .parameters = set,
                                       .sketch = SKETCH_ROTATION,
                                       .dim = DIM,
                                       .sketches = SKETCHES};
    s->settings = collect_settings(s->model.transformer, s->groups, s->directions, &options);
    s->options = (struct collect_options){.folder = s->folder,
                                          .model = &s->model,
                                          .corpus = &s->corpus,
                                          .groups = s->groups,
                                          .directions = s->directions,
                                          .settings = s->settings,
                                          .samples = WINDOWS};
}

static void setting_close(struct setting *s) {
    settings_free(s->settings);
    directions_free(s->directions);
    groups_free(s->groups);
    transformer_free(s->model.transformer);
    step_free(s->model.step);
    backend_close(s->model.backend);
    files_remove(s->folder);
}

// FOLDER/NAME, made; the caller's to free.
static char *folder_in(const struct setting *s, const char *name) {
    char *path = mem_format("%s/%s", s->folder, name);
    assert_int_equal(mkdir(path, 0777), 0);
    return path;
}

static void check_same_files(const char *a, const char *b) {
    static const char *const names[] = {"records", "sums"};
    for (int i = 0; i < 2; i++) {
        size_t n_a, n_b;
        char *path_a = mem_format("%s/%s", a, names[i]), *path_b = mem_format("%s/%s", b, names[i]);
        char *bytes_a = files_bytes(path_a, &n_a), *bytes_b = files_bytes(path_b, &n_b);
        assert_non_null(bytes_a);
        assert_non_null(bytes_b);
        assert_int_equal(n_a, n_b);
        assert_memory_equal(bytes_a, bytes_b, n_a);
        free(bytes_a);
        free(bytes_b);
        free(path_a);
        free(path_b);
    }
}

// ---- the numbers ----

// Sums over the entries [at, at + n) of gradients of one weight.
static void check_group(const struct samples *samples, const struct sketch_rows *rows, int64_t group,
                        const struct setting *s) {
    double sum2 = 0;
    for (int64_t i = 0; i < samples->n; i++) {
        const float *g = sketch_row(rows, i, 0);
        double norm = 0;
        for (int64_t w = 0, at = 0; w < s->settings->n_weights; at += s->settings->weights[w++].elements)
            for (int64_t e = 0; e < s->settings->weights[w].elements; e++)
                if (s->settings->weights[w].group == group) norm += (double)g[at + e] * (double)g[at + e];
        check_near(samples->norms[i * s->groups->n + group], norm, 1e-5, 0);
    }
    for (int64_t w = 0, at = 0; w < s->settings->n_weights; at += s->settings->weights[w++].elements)
        for (int64_t e = 0; e < s->settings->weights[w].elements; e++) {
            double sum = 0;
            for (int64_t i = 0; i < samples->n; i++) sum += (double)sketch_row(rows, i, 0)[at + e];
            if (s->settings->weights[w].group == group) sum2 += sum * sum;
        }
    check_near(samples->squares[group], sum2, 1e-5, 0);
}

static void check_directions(const struct samples *samples, const struct sketch_rows *rows, const struct setting *s) {
    for (int64_t d = 0; d < s->directions->n; d++)
        for (int64_t i = 0; i < samples->n; i++) {
            double product = 0, size = 0;
            for (int64_t w = 0, at = 0; w < s->groups->n_weights; w++) {
                const struct weight *weight = &s->model.transformer->weights[w];
                int64_t n = weight->rows * weight->cols;
                if (s->groups->of[w] < 0) continue;
                const float *direction = (const float *)s->directions->views[w].data + d * n;
                for (int64_t e = 0; e < n; e++) {
                    double part = (double)sketch_row(rows, i, 0)[at + e] * (double)direction[e];
                    product += part;
                    size += fabs(part);
                }
                at += n;
            }
            check_near(samples->inner[d * samples->n + i], product, 0, 1e-5 * size);
        }
}

// The norms, the sum and the inner products are those of gradients that another sink gives entry by entry; losses are those of
// the evaluation. Tied and untied heads, linear weights and all.
static void records_are_those_of_the_gradients_themselves(void **state) {
    (void)state;
    for (int c = 0; c < 4; c++) {
        struct setting s;
        struct exact *exact = NULL;
        struct samples *samples = NULL;
        struct collected collected;
        struct evaluation *e = NULL;
        int32_t tokens[WINDOWS * SEQ_LEN];
        setting_open(&s, configs[c % 2], c / 2 ? PARAMETERS_ALL : PARAMETERS_LINEAR);
        check_ok(collect(&s.options, &collected));
        assert_int_equal(collected.samples, WINDOWS);
        check_ok(samples_open(s.folder, &samples));
        check_ok(exact_new(&s.options, &exact));
        struct sketch_rows rows = exact_rows(exact);
        assert_int_equal(rows.dim, s.groups->parameters);
        for (int64_t g = 0; g < s.groups->n; g++) check_group(samples, &rows, g, &s);
        check_directions(samples, &rows, &s);
        check_ok(corpus_draw(&s.corpus, SEQ_LEN, 7, 0, WINDOWS, tokens));
        check_ok(
            evaluate(s.model.transformer, s.model.step, tokens, WINDOWS, SEQ_LEN, &(struct evaluate_options){0}, &e));
        for (int i = 0; i < WINDOWS; i++) check_near(samples->losses[i], e->loss[i], 1e-6, 0);
        evaluation_free(e);
        exact_free(exact);
        samples_free(samples);
        setting_close(&s);
    }
}

// ---- parts of a run ----

static void collect_range(struct setting *s, const char *folder, int64_t first, int64_t samples) {
    struct collected collected;
    s->options.folder = folder;
    s->options.first = first;
    s->options.samples = samples;
    check_ok(collect(&s->options, &collected));
}

// Ranges that begin and end anywhere in a pass.
static void shards_merge_to_the_bits_of_one_run(void **state) {
    (void)state;
    struct setting s;
    int64_t first, samples;
    setting_open(&s, &phi3_tied, PARAMETERS_ALL);
    char *one = folder_in(&s, "one"), *all = folder_in(&s, "all");
    char *parts[] = {folder_in(&s, "a"), folder_in(&s, "b"), folder_in(&s, "c")};
    collect_range(&s, one, 1, 20);
    collect_range(&s, parts[0], 14, 7);
    collect_range(&s, parts[1], 1, 1);
    collect_range(&s, parts[2], 2, 12);
    check_ok(merge((const char *const *)parts, 3, all, &first, &samples));
    assert_int_equal(first, 1);
    assert_int_equal(samples, 20);
    check_same_files(one, all);
    for (int i = 0; i < 3; i++) free(parts[i]);
    free(one);
    free(all);
    setting_close(&s);
}

static enum status stop_at(void *context, int64_t done) {
    return done >= *(int64_t *)context ? status_set(STATUS_IO, "stopped") : STATUS_OK;
}

static void interrupted_runs_go_on_to_the_same_bits_with_any_threads(void **state) {
    (void)state;
    struct setting s;
    setting_open(&s, &llama, PARAMETERS_ALL);
    char *one = folder_in(&s, "one"), *other = folder_in(&s, "other");
    collect_range(&s, one, 2, 19);
    s.options.checkpoint_every = 1;
    s.options.saved = stop_at;
    s.options.folder = other;
    for (int64_t stop = 1; stop < 19; stop += 7) {
        struct collected collected;
        threads_set(1 + (int)(stop % 2));
        s.options.context = &stop;
        check_fails(collect(&s.options, &collected), STATUS_IO);
        s.options.resume = true;
    }
    s.options.saved = NULL;
    collect_range(&s, other, 2, 19);
    check_same_files(one, other);
    // Without resume it begins anew.
    s.options.resume = false;
    collect_range(&s, other, 2, 19);
    check_same_files(one, other);
    free(one);
    free(other);
    setting_close(&s);
}

static void runs_with_other_settings_are_not_resumed(void **state) {
    (void)state;
    struct setting s;
    struct collected collected;
    setting_open(&s, &llama, PARAMETERS_LINEAR);
    check_ok(collect(&s.options, &collected));
    s.options.resume = true;
    free(s.settings->model);
    s.settings->model = mem_string("another");
    check_fails(collect(&s.options, &collected), STATUS_FORMAT);
    assert_int_equal(unlink(files_path(s.folder, "sums")), 0);
    check_ok(collect(&s.options, &collected)); // no state: it begins anew
    setting_close(&s);
}

// ---- bad input ----

static void a_loss_that_is_not_finite_is_named_and_leaves_no_record(void **state) {
    (void)state;
    struct setting s;
    struct collected collected;
    setting_open(&s, &llama, PARAMETERS_LINEAR);
    s.options.first = 3;
    s.options.samples = 9;
    float *w = s.model.transformer->layers[1].down->stored.data;
    w[5] = NAN;
    check_fails(collect(&s.options, &collected), STATUS_INVALID);
    assert_non_null(strstr(status_message(), "loss of sample 3 is not finite"));
    struct samples *samples = NULL;
    check_fails(samples_open(s.folder, &samples), STATUS_INVALID);
    assert_non_null(strstr(status_message(), "holds 0 of 9 samples"));
    setting_close(&s);
}

static void scale(const struct weight *weight, float factor) {
    float *w = weight->stored.data;
    for (int64_t e = 0; e < weight->rows * weight->cols; e++) w[e] *= factor;
}

// Inside the MLP activations of 1e37 that the next product makes small again: the loss is finite, the gradient of that product
// is not.
static void a_gradient_that_is_not_finite_is_named(void **state) {
    (void)state;
    struct setting s;
    struct collected collected;
    setting_open(&s, &llama, PARAMETERS_LINEAR);
    const struct transformer *model = s.model.transformer;
    scale(model->layers[2].gate_up[1], 1e37f);
    scale(model->layers[2].down, 1e-37f);
    scale(model->head, 1e4f);
    check_fails(collect(&s.options, &collected), STATUS_INVALID);
    assert_non_null(strstr(status_message(), "gradient of sample 0 is not finite"));
    assert_false(files_has(s.folder, "sums"));
    setting_close(&s);
}

static void more_samples_than_the_text_has_are_refused(void **state) {
    (void)state;
    struct setting s;
    struct collected collected;
    setting_open(&s, &llama, PARAMETERS_LINEAR);
    s.options.first = 1;
    check_fails(collect(&s.options, &collected), STATUS_INVALID);
    assert_non_null(strstr(status_message(), "23 windows of 9 tokens, 24 are needed"));
    assert_false(files_has(s.folder, "records"));
    setting_close(&s);
}

// Passes of one window differ from passes of many by fp32 rounding: a share far below one, and not by chance zero.
static void noise_of_the_arithmetic_is_that_of_fp32(void **state) {
    (void)state;
    struct setting s;
    struct collected collected;
    double share = NAN;
    setting_open(&s, &llama, PARAMETERS_ALL);
    check_ok(collect(&s.options, &collected));
    check_ok(collect_noise(&s.options, 8, &share));
    assert_true(share >= 0 && share < 1e-10);
    setting_close(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(records_are_those_of_the_gradients_themselves),
        cmocka_unit_test(shards_merge_to_the_bits_of_one_run),
        cmocka_unit_test(interrupted_runs_go_on_to_the_same_bits_with_any_threads),
        cmocka_unit_test(runs_with_other_settings_are_not_resumed),
        cmocka_unit_test(a_loss_that_is_not_finite_is_named_and_leaves_no_record),
        cmocka_unit_test(a_gradient_that_is_not_finite_is_named),
        cmocka_unit_test(more_samples_than_the_text_has_are_refused),
        cmocka_unit_test(noise_of_the_arithmetic_is_that_of_fp32),
    };
    progress_set_quiet(true);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
