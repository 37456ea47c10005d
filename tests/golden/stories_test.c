// The pretrained stories260K model against a forward pass written independently in float64 (reference_stories.py).
#include "tests/check.h"

#include "core/base/mem.h"
#include "core/base/threads.h"
#include "core/nn/evaluate.h"
#include "core/nn/generate.h"
#include "data/corpus.h"
#include "data/json.h"
#include "data/model.h"
#include "core/nn/rounding.h"

struct stories {
    struct model *model;
    struct corpus *corpus;
    json_t *golden;
};

static void stories_open(struct stories *s) {
    char path[4096];
    const char *text = path;
    *s = (struct stories){0};
    threads_set(0);
    check_ok(model_open(check_shared("models/stories260K", path, sizeof path), "cpu", DTYPE_F32, NULL, &s->model));
    check_shared("data/tinystories/valid.txt", path, sizeof path);
    check_ok(corpus_read(s->model->tokenizer, &text, 1, 512, &s->corpus));
    check_ok(json_read_file(check_source("tests/golden/stories260k.json", path, sizeof path), &s->golden));
}

static void stories_close(struct stories *s) {
    json_decref(s->golden);
    corpus_free(s->corpus);
    model_free(s->model);
}

static double number(const json_t *object, const char *key) {
    assert_true(json_is_number(json_object_get(object, key)));
    return json_number_value(json_object_get(object, key));
}

static struct evaluation *measure(struct stories *s, int64_t seq_len, int64_t windows, enum weight_form form,
                                  bool compare) {
    struct evaluation *e = NULL;
    struct evaluate_options options = {.form = form, .reference = compare ? s->model->transformer : NULL};
    check_ok(evaluate(s->model->transformer, s->model->step, corpus_window(s->corpus, seq_len, 0), windows, seq_len,
                      &options, &e));
    return e;
}

static void loss_equals_an_independent_forward_pass(void **state) {
    (void)state;
    struct stories s;
    stories_open(&s);
    assert_int_equal(s.corpus->n_tokens, json_integer_value(json_object_get(s.golden, "tokens")));
    const int64_t lengths[] = {256, 512};
    for (int k = 0; k < 2; k++) {
        int64_t windows = 0;
        const json_t *want = json_object_get(json_object_get(s.golden, "sequences"), k ? "512" : "256");
        check_ok(corpus_windows(s.corpus, lengths[k], &windows));
        assert_int_equal(windows, json_integer_value(json_object_get(want, "windows")));
        struct evaluation *e = measure(&s, lengths[k], windows, WEIGHT_STORED, false);
        for (size_t w = 0; w < 8; w++)
            check_near(e->loss[w], json_number_value(json_array_get(json_object_get(want, "first_losses"), w)), 1e-5,
                       0);
        check_near(evaluation_mean(e, e->loss, NULL), number(want, "mean_all"), 1e-6, 0);
        evaluation_free(e);
    }
    stories_close(&s);
}

static void greedy_text_is_what_the_model_is_known_to_say(void **state) {
    (void)state;
    struct stories s;
    stories_open(&s);
    const json_t *want = json_object_get(json_object_get(s.golden, "greedy"), "tokens");
    int64_t n = (int64_t)json_array_size(want) - 1, made = 0;
    int32_t bos = (int32_t)json_integer_value(json_array_get(want, 0)), *tokens = mem_new((size_t)n, sizeof *tokens);
    check_ok(generate(s.model->transformer, s.model->step, &bos, 1, n, tokens, &made));
    assert_int_equal(made, n);
    for (int64_t i = 0; i < n; i++)
        assert_int_equal(tokens[i], json_integer_value(json_array_get(want, (size_t)i + 1)));
    char *text = NULL;
    int64_t n_bytes;
    check_ok(tokenizer_decode(s.model->tokenizer, tokens, n, true, &text, &n_bytes));
    const char *known =
        "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she saw "
        "a big, red ball. She wanted to play with it, but it was too high.";
    assert_memory_equal(text, known, strlen(known));
    mem_buffer_free(text);
    free(tokens);
    stories_close(&s);
}

// KL, perplexity, step and clipped weights of round-to-nearest at 3 and 4 bits, whole rows and groups of 32 (172 columns:
// a shorter last group).
static void round_to_nearest_equals_the_reference(void **state) {
    (void)state;
    struct stories s;
    stories_open(&s);
    const json_t *cases = json_object_get(s.golden, "rtn");
    assert_true(json_array_size(cases) >= 4);
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const json_t *want = json_array_get(cases, i);
        struct grid grid;
        struct rounding *rounding = NULL;
        check_ok(grid_block((int)number(want, "bits"), (int64_t)number(want, "group_size"), &grid));
        check_ok(rounding_new(s.model->transformer, &grid, DTYPE_F32, &rounding));
        check_ok(rounding_to_nearest(rounding));
        assert_int_equal(rounding->fixed, (int64_t)number(want, "clipped"));
        check_near(rounding->step2, number(want, "delta2"), 1e-6, 0);
        struct evaluation *e = measure(&s, 256, 60, WEIGHT_ROUNDED, true);
        check_near(evaluation_mean(e, e->kl, NULL), number(want, "kl"), 1e-5, 0);
        check_near(evaluation_mean(e, e->loss, NULL), number(want, "loss"), 1e-5, 0);
        check_near(evaluation_mean(e, e->agreement, NULL), number(want, "top1_agreement"), 0, 2.5 / (60 * 256));
        evaluation_free(e);
        rounding_free(rounding);
    }
    stories_close(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loss_equals_an_independent_forward_pass),
        cmocka_unit_test(greedy_text_is_what_the_model_is_known_to_say),
        cmocka_unit_test(round_to_nearest_equals_the_reference),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
