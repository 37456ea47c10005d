// Corpora cut into windows, and the program that tokenizes.
#include "tests/files.h"

#include "data/corpus.h"

// "a", "b", … "f" and a BOS.
static const char letters[] =
    "{\"added_tokens\":[{\"id\":6,\"content\":\"<s>\",\"special\":true,\"normalized\":false}],"
    "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<s>\"}},{\"Sequence\":"
    "{\"id\":\"A\"}}],"
    "\"special_tokens\":{\"<s>\":{\"ids\":[6]}}},\"decoder\":{\"type\":\"Fuse\"},"
    "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"c\":2,\"d\":3,\"e\":4,\"f\":5},\"merges\":[]}}";

static struct tokenizer *letters_tokenizer(void) {
    struct tokenizer *t = NULL;
    check_ok(tokenizer_parse(letters, sizeof letters - 1, "letters", &t));
    return t;
}

static const char *put(const char *folder, const char *name, const char *text) {
    const char *path = files_path(folder, name);
    files_put(path, text, strlen(text));
    return path;
}

static void check_tokens(const int32_t *got, int64_t n, const char *want) {
    assert_int_equal(n, strlen(want));
    for (int64_t i = 0; i < n; i++) assert_int_equal(got[i], want[i] == '^' ? 6 : want[i] - 'a');
}

static void a_text_has_one_bos_and_whole_windows(void **state) {
    (void)state;
    char *folder = files_folder();
    struct tokenizer *t = letters_tokenizer();
    struct corpus *corpus = NULL;
    int64_t n;
    const char *path = put(folder, "a.txt", "abcdefabcdef");
    check_ok(corpus_read(t, &path, 1, 7, &corpus));
    check_tokens(corpus->tokens, corpus->n_tokens, "^abcdefabcdef");
    assert_int_equal(corpus->n_bytes, 12);
    check_ok(corpus_windows(corpus, 4, &n));
    assert_int_equal(n, 3);
    check_tokens(corpus_window(corpus, 4, 0), 4, "^abc");
    check_tokens(corpus_window(corpus, 4, 2), 4, "bcde");
    check_ok(corpus_windows(corpus, 13, &n));
    assert_int_equal(n, 1);
    check_fails(corpus_windows(corpus, 14, &n), STATUS_INVALID);
    corpus_free(corpus);
    tokenizer_free(t);
    files_remove(folder);
}

static void no_window_crosses_into_the_next_file(void **state) {
    (void)state;
    char *folder = files_folder();
    struct tokenizer *t = letters_tokenizer();
    struct corpus *corpus = NULL;
    int64_t n;
    const char *paths[] = {put(folder, "a.txt", "abcde"), put(folder, "b.txt", "f"), put(folder, "c.txt", "fedcbaf")};
    check_ok(corpus_read(t, paths, 3, 0, &corpus));
    check_tokens(corpus->tokens, corpus->n_tokens, "^abcde^f^fedcbaf");
    check_ok(corpus_windows(corpus, 4, &n));
    assert_int_equal(n, 3);
    check_tokens(corpus_window(corpus, 4, 0), 4, "^abc");
    check_tokens(corpus_window(corpus, 4, 1), 4, "^fed");
    check_tokens(corpus_window(corpus, 4, 2), 4, "cbaf");
    check_fails(corpus_windows(corpus, 9, &n), STATUS_INVALID);
    corpus_free(corpus);
    tokenizer_free(t);
    files_remove(folder);
}

static void json_lines_are_documents_in_a_row(void **state) {
    (void)state;
    char *folder = files_folder();
    struct tokenizer *t = letters_tokenizer();
    struct corpus *corpus = NULL;
    const char *path =
        put(folder, "a.jsonl", "{\"text\":\"ab\",\"id\":7}\r\n\n{\"text\":\"\"}\n{\"text\":\"c\\u0064e\"}");
    check_ok(corpus_read(t, &path, 1, 0, &corpus));
    check_tokens(corpus->tokens, corpus->n_tokens, "^ab^^cde");
    corpus_free(corpus);
    tokenizer_free(t);
    files_remove(folder);
}

static void stories_have_the_known_number_of_windows(void **state) {
    (void)state;
    char model[4096], text[4096];
    struct tokenizer *t = NULL;
    struct corpus *corpus = NULL;
    int64_t n;
    check_ok(tokenizer_open(check_shared("models/stories260K", model, sizeof model), &t));
    const char *path = check_shared("data/tinystories/valid.txt", text, sizeof text);
    check_ok(corpus_read(t, &path, 1, tokenizer_vocab_size(t), &corpus));
    assert_int_equal(corpus->n_tokens, 86672);
    assert_int_equal(corpus->tokens[0], 1);
    check_ok(corpus_windows(corpus, 256, &n));
    assert_int_equal(n, 338);
    corpus_free(corpus);
    tokenizer_free(t);
}

static void check_output(struct process process, const char *want) {
    assert_string_equal(process.err, "");
    assert_string_equal(process.out, want);
    assert_int_equal(process.code, 0);
    process_free(&process);
}

static void the_program_prints_ids_and_text(void **state) {
    (void)state;
    static const char program[] = "data/discquant-data";
    char *folder = files_folder();
    char *json = mem_string(put(folder, "tokenizer.json", letters)); // files_path forgets older names
    char *text = mem_string(put(folder, "text", "<s>fade")), *ids = mem_string(put(folder, "ids", "6 5 0 3 4\n"));
    check_output(process_call(program, "tokenize", folder, text), "6 6 5 0 3 4\n");
    check_output(process_call(program, "tokenize", "--no-special", json, text), "6 5 0 3 4\n");
    struct process count = process_call(program, "tokenize", "--count", json, text);
    assert_memory_equal(count.out, "6 tokens, 7 bytes, 0.", 21);
    process_free(&count);
    check_output(process_call(program, "tokenize", "--decode", json, ids), "<s>fade");
    check_output(process_call(program, "tokenize", "--decode", "--no-special", json, ids), "fade");
    check_output(process_call(program, "tokenize", json), "6\n"); // stdin is empty
    process_check_error(process_call(program, "tokenize", "--decode", json, text), 1, "no token id");
    process_check_error(process_call(program, "tokenize", json, text, ids), 2, "one FILE");
    process_check_error(process_call(program, "tokenize"), 2, "TOKENIZER is missing");
    process_check_error(process_run(program, "/dev/full", (const char *[]){"tokenize", json, text, NULL}), 1, "stdout");
    free(json);
    free(text);
    free(ids);
    files_remove(folder);
}

// Windows of two letters: those of the second text stand at even distances, round(share N) of them.
static void two_texts_are_mixed_by_windows(void **state) {
    (void)state;
    static const struct {
        double share;
        int64_t most;
    } cases[] = {{0, 0}, {1, 0}, {0.5, 0}, {0.25, 0}, {0.25, 4}, {0.1, 0}, {0.5, 1}, {0.5, 2}};
    char *folder = files_folder();
    struct tokenizer *t = letters_tokenizer();
    const char *a = put(folder, "a.jsonl", ""), *b = put(folder, "b.txt", "bbbbb");
    struct corpus *first = NULL, *second = NULL;
    files_put(a, "{\"text\": \"aaaaaaaaaaa\"}\n", strlen("{\"text\": \"aaaaaaaaaaa\"}\n"));
    check_ok(corpus_read(t, &a, 1, 0, &first));
    check_ok(corpus_read(t, &b, 1, 0, &second));
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        struct corpus *mixed = NULL;
        int64_t n = 0, n_second = 0, at[2] = {0, 0};
        check_ok(corpus_mix(first, second, cases[k].share, 2, cases[k].most, &mixed));
        check_ok(corpus_windows(mixed, 2, &n));
        for (int64_t i = 0; i < n; i++) {
            const int32_t *window = corpus_window(mixed, 2, i);
            bool is_second = window[1] == 1;
            const int32_t *from = corpus_window(is_second ? second : first, 2, at[is_second]++);
            assert_memory_equal(window, from, 2 * sizeof *from);
            n_second += is_second;
        }
        int64_t most = cases[k].most ? cases[k].most : INT64_MAX;
        print_message("share %g, most %lld: %lld windows, %lld of the second\n", cases[k].share,
                      (long long)cases[k].most, (long long)n, (long long)n_second);
        assert_int_equal(n_second, (int64_t)floor(cases[k].share * (double)n + 0.5));
        // One more window would be one too many for a text.
        int64_t more = (int64_t)floor(cases[k].share * (double)(n + 1) + 0.5);
        assert_true(n == most || more > 3 || n + 1 - more > 6);
        assert_true(n <= most && n_second <= 3 && n - n_second <= 6);
        // Evenly: of any first windows the share is right within one.
        for (int64_t i = 0, seen = 0; i < n; i++) {
            seen += corpus_window(mixed, 2, i)[1] == 1;
            assert_true(fabs((double)seen - cases[k].share * (double)(i + 1)) < 1);
        }
        corpus_free(mixed);
    }
    struct corpus *none = NULL;
    check_fails(corpus_mix(first, second, 0.5, 7, 0, &none), STATUS_INVALID);
    corpus_free(first);
    corpus_free(second);
    tokenizer_free(t);
    files_remove(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_text_has_one_bos_and_whole_windows),
        cmocka_unit_test(no_window_crosses_into_the_next_file),
        cmocka_unit_test(two_texts_are_mixed_by_windows),
        cmocka_unit_test(json_lines_are_documents_in_a_row),
        cmocka_unit_test(stories_have_the_known_number_of_windows),
        cmocka_unit_test(the_program_prints_ids_and_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
