// The bundled model as Hugging Face Transformers reads it (make_story_model.py), and as the language it was trained on.
#include "tests/check.h"

#include "core/base/mem.h"
#include "core/base/threads.h"
#include "core/nn/evaluate.h"
#include "core/nn/generate.h"
#include "data/json.h"
#include "data/model.h"
#include "data/story.h"

#include <dirent.h>
#include <sys/stat.h>

struct bundled {
    struct model *model;
    json_t *golden;
    const json_t *documents;
    size_t n;
};

static void bundled_open(struct bundled *b) {
    char path[4096];
    *b = (struct bundled){0};
    threads_set(0);
    check_ok(model_open(check_source("data/story-model", path, sizeof path), "cpu", DTYPE_F32, NULL, &b->model));
    check_ok(json_read_file(check_source("tests/golden/story_model.json", path, sizeof path), &b->golden));
    b->documents = json_object_get(b->golden, "documents");
    b->n = json_array_size(b->documents);
    assert_int_equal(b->n, 10);
}

static void bundled_close(struct bundled *b) {
    json_decref(b->golden);
    model_free(b->model);
}

static const char *text_of(const struct bundled *b, size_t d) {
    return json_string_value(json_object_get(json_array_get(b->documents, d), "text"));
}

static void check_tokens(const json_t *want, const int32_t *tokens, int64_t n) {
    assert_int_equal(json_array_size(want), n);
    for (int64_t i = 0; i < n; i++) assert_int_equal(tokens[i], json_integer_value(json_array_get(want, (size_t)i)));
}

static void tokens_and_losses_are_those_of_transformers(void **state) {
    (void)state;
    struct bundled b;
    bundled_open(&b);
    for (size_t d = 0; d < b.n; d++) {
        const json_t *want = json_array_get(b.documents, d);
        const char *text = text_of(&b, d);
        struct token_list list = {0};
        struct evaluation *e = NULL;
        check_ok(tokenizer_encode(b.model->tokenizer, text, (int64_t)strlen(text), true, &list));
        check_tokens(json_object_get(want, "tokens"), list.tokens, list.n_tokens);
        check_ok(evaluate(b.model->transformer, b.model->step, list.tokens, 1, list.n_tokens,
                          &(struct evaluate_options){.form = WEIGHT_STORED}, &e));
        check_near(e->loss[0], json_number_value(json_object_get(want, "loss")), 1e-5, 0);
        evaluation_free(e);
        token_list_free(&list);
    }
    bundled_close(&b);
}

static void continuations_are_those_of_transformers(void **state) {
    (void)state;
    struct bundled b;
    bundled_open(&b);
    for (size_t d = 0; d < b.n; d++) {
        const json_t *want = json_object_get(json_array_get(b.documents, d), "greedy");
        const char *text = text_of(&b, d);
        struct token_list list = {0};
        int32_t made[30];
        int64_t n = 0;
        check_ok(tokenizer_encode(b.model->tokenizer, text, strstr(text, "A:") + 2 - text, true, &list));
        check_ok(generate(b.model->transformer, b.model->step, list.tokens, list.n_tokens, 30, made, &n));
        for (int64_t i = 0; i < n; i++) // ours ends with </s>
            assert_int_equal(made[i], json_integer_value(json_array_get(want, (size_t)i)));
        assert_true(n == 30 || made[n - 1] == 2);
        token_list_free(&list);
    }
    bundled_close(&b);
}

// Its card names the command that makes the text: a generator that has changed since would need a new model.
static void the_corpus_is_still_the_one_it_was_trained_on(void **state) {
    (void)state;
    struct bundled b;
    struct story story;
    bundled_open(&b);
    for (size_t d = 0; d < b.n; d++) {
        story_make(&(struct story_source){.seed = 0, .split = STORY_VALIDATION}, (int64_t)d, &story);
        const char *text = text_of(&b, d);
        assert_int_equal(strlen(text) + 1, story.n_bytes); // .jsonl leaves out the last line end
        assert_memory_equal(text, story.text, strlen(text));
    }
    bundled_close(&b);
}

static void the_folder_is_small(void **state) {
    (void)state;
    char root[4096], path[8192];
    check_source("data/story-model", root, sizeof root);
    DIR *folder = opendir(root);
    assert_non_null(folder);
    int64_t bytes = 0;
    for (struct dirent *entry; (entry = readdir(folder));) {
        struct stat about;
        snprintf(path, sizeof path, "%s/%s", root, entry->d_name);
        assert_int_equal(stat(path, &about), 0);
        if (S_ISREG(about.st_mode)) bytes += about.st_size;
    }
    closedir(folder);
    assert_in_range(bytes, 1, 4000000);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokens_and_losses_are_those_of_transformers),
        cmocka_unit_test(continuations_are_those_of_transformers),
        cmocka_unit_test(the_corpus_is_still_the_one_it_was_trained_on),
        cmocka_unit_test(the_folder_is_small),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
