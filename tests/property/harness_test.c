// Tasks of lm-evaluation-harness: the texts they put together (written out here by hand from the task definitions of version 0.4.2), the
// answers they take from generated text, and log-likelihoods that share prefixes against whole sequences without a cache.
#include "tests/files.h"

#include "bench/compare.h"
#include "bench/csv_rows.h"
#include "bench/harness.h"
#include "bench/harness_tokens.h"
#include "bench/scorer.h"
#include "core/base/rng.h"
#include "data/json.h"

static const char program[] = "bench/discquant-bench";

static struct harness_docs *docs_of(enum harness_task task, const char *text, const struct harness_options *options) {
    char *folder = files_folder();
    struct harness_docs *docs = NULL;
    files_put(files_path(folder, "data"), text, strlen(text));
    check_ok(harness_read(task, files_path(folder, "data"), options, &docs));
    files_remove(folder);
    return docs;
}

static void check_request(const struct harness_doc *doc, int64_t i, const char *context, const char *continuation,
                          int64_t n) {
    assert_string_equal(doc->requests[i].context, context);
    assert_string_equal(doc->requests[i].continuation, continuation);
    assert_int_equal(doc->requests[i].n_characters, n);
}

static const struct harness_options all = {0};

static void choices_stand_behind_the_harness_s_words(void **state) {
    (void)state;
    static const char arc[] = "{\"question\": \"Why?\", \"choices\": {\"text\": [\"a\", \"é!\", \"c\"], \"label\": "
                              "[\"1\", \"2\", \"3\"]}, \"answerKey\": \"2\"}\n"
                              "{\"question\": {\"stem\": \"How?\", \"choices\": [{\"text\": \"x\", \"label\": \"A\"}, "
                              "{\"text\": \"y\", \"label\": \"B\"}]}, \"answerKey\": \"A\"}\n"
                              "{\"query\": \"Question: Who?\", \"choices\": [\"p\", \"q\"], \"gold\": 1}\n";
    struct harness_docs *docs = docs_of(HARNESS_ARC_CHALLENGE, arc, &all);
    assert_int_equal(docs->n, 3);
    check_request(&docs->docs[0], 1, "Question: Why?\nAnswer:", " é!", 2);
    assert_true(docs->docs[0].gold == 1 && docs->docs[1].gold == 0 && docs->docs[2].gold == 1);
    check_request(&docs->docs[1], 1, "Question: How?\nAnswer:", " y", 1);
    check_request(&docs->docs[2], 0, "Question: Who?\nAnswer:", " p", 1);
    harness_docs_free(docs);

    static const char hellaswag[] =
        "{\"activity_label\": \"Baking\", \"ctx_a\": \"A cook [title] stirs.\", \"ctx_b\": \"then He\", "
        "\"endings\": [\" eats [step] it  all \", \"b\"], \"label\": \"0\"}\n";
    docs = docs_of(HARNESS_HELLASWAG, hellaswag, &all);
    check_request(&docs->docs[0], 0, "Baking: A cook. stirs. Then he", " eats it all", 11);
    harness_docs_free(docs);

    static const char winogrande[] = "{\"sentence\": \"Ann saw Eve, so _ waved. \", \"option1\": \"Ann\", \"option2\": "
                                     "\"Eve\", \"answer\": \"2\"}\n";
    docs = docs_of(HARNESS_WINOGRANDE, winogrande, &all);
    check_request(&docs->docs[0], 0, "Ann saw Eve, so Ann", " waved.", 6);
    check_request(&docs->docs[0], 1, "Ann saw Eve, so Eve", " waved.", 6);
    assert_int_equal(docs->docs[0].gold, 1);
    harness_docs_free(docs);

    static const char piqa[] = "{\"goal\": \"Dry it\", \"sol1\": \"sun \", \"sol2\": \"rain\", \"label\": 0}\n";
    docs = docs_of(HARNESS_PIQA, piqa, &all);
    check_request(&docs->docs[0], 0, "Question: Dry it\nAnswer:", " sun ", 4);
    harness_docs_free(docs);
}

static void mmlu_shows_examples_of_the_subject(void **state) {
    (void)state;
    char *folder = files_folder();
    static const char dev[] =
        "question,choice0,choice1,choice2,choice3,answer\n\" Is \"\"x\"\", y? \",1,2,3,4,3\r\nSecond,a,b,c,d,0\n";
    static const char test[] = "\"Two\nlines\",e,f,g,h,B\n";
    assert_true(mkdir(files_path(folder, "dev"), 0700) == 0 && mkdir(files_path(folder, "test"), 0700) == 0);
    files_put(files_path(folder, "dev/us_law_dev.csv"), dev, strlen(dev));
    files_put(files_path(folder, "test/us_law_test.csv"), test, strlen(test));
    struct harness_docs *docs = NULL;
    struct harness_options options = {.shots = 2};
    check_ok(harness_read(HARNESS_MMLU, folder, &options, &docs));
    assert_int_equal(docs->n, 1);
    check_request(&docs->docs[0], 3,
                  "The following are multiple choice questions (with answers) about us law.\n"
                  "Is \"x\", y?\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer: D\n\n"
                  "Second\nA. a\nB. b\nC. c\nD. d\nAnswer: A\n\n"
                  "Two\nlines\nA. e\nB. f\nC. g\nD. h\nAnswer:",
                  " D", 1);
    assert_true(docs->docs[0].gold == 1 && strcmp(docs->docs[0].group, "us_law") == 0);
    harness_docs_free(docs);
    options.shots = 3;
    assert_int_equal(harness_read(HARNESS_MMLU, folder, &options, &docs), STATUS_FORMAT);
    files_remove(folder);
}

static void pages_are_counted_before_and_shown_after_detokenization(void **state) {
    (void)state;
    static const char text[] = " \n = One @-@ two = \n \n He said \" yes \" , then 3 @,@ 000 ( or so ) .\n = = Part = "
                               "= \n x 's\n = Next = \n end\n";
    struct harness_docs *docs = docs_of(HARNESS_WIKITEXT, text, &all);
    assert_int_equal(docs->n, 2);
    assert_string_equal(docs->docs[0].requests[0].continuation,
                        " = One-two =\n\nHe said \"yes\", then 3,000 (or so) .\n== Part ==\nx's");
    // re.split(r"\s+", page): the parts, with an empty one where the page begins with a space.
    assert_int_equal(docs->docs[0].words, 28);
    assert_int_equal(docs->docs[0].bytes, 86);
    assert_string_equal(docs->docs[1].requests[0].continuation, " = Next =\nend\n");
    harness_docs_free(docs);
    char *other = harness_detokenize("a /' 7/ {  b } [c ] '  d' 20 \xc2\xb0 C N m = = = = x");
    assert_string_equal(other, "a /'[0-9]/ {b} [c]'  d' 20\xc2\xb0"
                               "C 1 m ==== x");
    free(other);
}

static void answers_are_taken_with_the_harness_s_quirks(void **state) {
    (void)state;
    // What Python's re.findall gives for the two patterns of gsm8k_cot.
    static const struct {
        const char *text, *strict, *flexible;
    } cases[] = {
        {"So. The answer is 18.", "18", "18."},
        {"The answer is 18", "1", "18"},
        {"The answer is 18. Foo 7", "18.", "7"},
        {"The answer is $18.", "[invalid]", "$18."},
        {"The answer is -1,200 ", "-1,200", "-1,200"},
        {"The answer is 5\n", "[invalid]", "5"},
        {"a 3 ..", "[invalid]", ".."},
        {"The answer is x. The answer is 4 b", "4", "4"},
        {"-", "[invalid]", "[invalid]"},
        {"", "[invalid]", "[invalid]"},
        {"5.", "[invalid]", "5."},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *strict = harness_answer_strict(cases[i].text), *flexible = harness_answer_flexible(cases[i].text);
        assert_string_equal(strict, cases[i].strict);
        assert_string_equal(flexible, cases[i].flexible);
        free(strict);
        free(flexible);
    }
    assert_true(harness_answers_agree("$1,200.", "1200") && harness_answers_agree("x #### 7", "7"));
    assert_false(harness_answers_agree("7..", "7"));
}

static void comparisons_have_mcnemar_s_p_value(void **state) {
    (void)state;
    assert_true(compare_p_value(0, 0) == 1 && compare_p_value(3, 3) == 1);
    check_near(compare_p_value(0, 5), 2.0 / 32, 1e-12, 0);
    check_near(compare_p_value(8, 2), 2.0 * (1 + 10 + 45) / 1024, 1e-12, 0);
}

static void quoted_fields_hold_anything(void **state) {
    (void)state;
    char *folder = files_folder();
    const char *path = files_path(folder, "a.csv");
    struct csv_rows *rows = NULL;
    static const char good[] = "a,\"b\"\"c\",\r\n\"x\ny\",,\"\"\n";
    files_put(path, good, strlen(good));
    check_ok(csv_rows_read(path, &rows));
    assert_true(rows->n_rows == 2 && rows->first[1] == 3 && rows->first[2] == 6);
    static const char *const want[] = {"a", "b\"c", "", "x\ny", "", ""};
    for (int i = 0; i < 6; i++) assert_string_equal(rows->fields[i], want[i]);
    csv_rows_free(rows);
    static const char *const bad[] = {"a,\"b\n", "\"a\"b,c\n"};
    for (int i = 0; i < 2; i++) {
        files_put(path, bad[i], strlen(bad[i]));
        assert_int_equal(csv_rows_read(path, &rows), STATUS_FORMAT);
    }
    files_remove(folder);
}

// ---- scores ----

// Sum of log p of tokens first .. n - 1 from one pass over the whole sequence.
static double whole_sequence(struct model *model, const int32_t *tokens, int64_t n, int64_t first) {
    struct step *step = model->step;
    struct value *hidden = NULL;
    struct view device_tokens, targets, losses;
    int32_t *wanted = mem_new((size_t)n, sizeof *wanted);
    double *host = mem_new((size_t)n, sizeof *host), sum = 0;
    for (int64_t i = 0; i + 1 < n; i++) wanted[i] = tokens[i + 1];
    step_begin(step, (struct step_options){.seq_len = n - 1});
    check_ok(step_take(step, DTYPE_I32, n - 1, 1, &device_tokens));
    check_ok(step_take(step, DTYPE_I32, n - 1, 1, &targets));
    check_ok(step_take(step, DTYPE_F64, n - 1, 1, &losses));
    check_ok(backend_write(model->backend, device_tokens, tokens));
    check_ok(backend_write(model->backend, targets, wanted));
    check_ok(transformer_forward(model->transformer, step, device_tokens, &hidden));
    struct transformer_loss what = {.targets = targets, .cross_entropy = losses};
    check_ok(transformer_loss(model->transformer, step, hidden, &what));
    check_ok(backend_read(model->backend, losses, host));
    check_ok(backend_sync(model->backend));
    for (int64_t i = first; i < n; i++) sum -= host[i - 1];
    free(wanted);
    free(host);
    return sum;
}

// Sequences that begin like the one before them, like nothing before them, or as the same once more.
static void shared_prefixes_do_not_change_scores(void **state) {
    (void)state;
    char path[4096];
    struct model *model = NULL;
    struct scorer *scorer = NULL;
    check_ok(model_open(check_shared("models/stories260K", path, sizeof path), "cpu", DTYPE_F32, NULL, &model));
    check_ok(scorer_new(model, &scorer));
    enum { N = 60 };
    int32_t tokens[N];
    struct rng rng = {.seed = 5};
    uint64_t at = 0;
    for (int i = 0; i < N; i++) tokens[i] = 3 + (int32_t)(500 * rng_uniform(rng, at++));
    for (int trial = 0; trial < 40; trial++) {
        int64_t keep = (int64_t)(N * rng_uniform(rng, at++)), n = 2 + (int64_t)((N - 2) * rng_uniform(rng, at++));
        int64_t first = 1 + (int64_t)((double)(n - 1) * rng_uniform(rng, at++));
        struct scored_text text = {.tokens = tokens, .n = n, .first = first};
        if (trial % 4)
            for (int64_t i = keep; i < N; i++) tokens[i] = 3 + (int32_t)(500 * rng_uniform(rng, at++));
        check_ok(scorer_loglikelihoods(scorer, &text, 1));
        // fp32: products with other numbers of rows round differently.
        check_near(text.loglikelihood, whole_sequence(model, tokens, n, first), 2e-5, 1e-4);
    }
    scorer_free(scorer);
    model_free(model);
}

static void texts_longer_than_the_model_lose_their_beginning(void **state) {
    (void)state;
    char path[4096];
    struct model *model = NULL;
    struct harness_tokens how;
    check_ok(model_open(check_shared("models/stories260K", path, sizeof path), "cpu", DTYPE_F32, NULL, &model));
    check_ok(harness_tokens_open(model, false, &how));
    char *text = mem_new(4001, 1);
    memset(text, 'x', 4000);
    text[3999] = ' '; // the space at the end goes to the continuation
    struct harness_request request = {.context = text, .continuation = (char *)"dog"};
    struct token_list cut = {0}, whole = {0};
    int64_t first = 0, positions = model->transformer->config.max_positions;
    check_ok(harness_encode_pair(&how, &request, &cut, &first));
    char *joined = mem_format("%sdog", text);
    check_ok(harness_encode(&how, joined, &whole));
    assert_int_equal(cut.n_tokens, positions + 1);
    assert_memory_equal(cut.tokens, whole.tokens + whole.n_tokens - cut.n_tokens,
                        (size_t)cut.n_tokens * sizeof *cut.tokens);
    assert_true(first > 1 && first < cut.n_tokens);
    token_list_free(&cut);
    token_list_free(&whole);
    // Nothing before it: the token that ends texts.
    struct harness_request bare = {.context = (char *)"", .continuation = (char *)" dog"};
    check_ok(harness_encode_pair(&how, &bare, &cut, &first));
    assert_true(first == 1 && cut.tokens[0] == how.prefix);
    token_list_free(&cut);
    free(joined);
    free(text);
    model_free(model);
}

// The line of an item, beside whole sequences: choices that stand in no order of their tokens.
static void the_program_gives_every_choice_its_own_score(void **state) {
    (void)state;
    static const char item[] =
        "{\"question\": \"Who ran?\", \"choices\": {\"text\": [\"the dog\", \"a cat\", \"two old men\", "
        "\"Ben\"], \"label\": [\"A\", \"B\", \"C\", \"D\"]}, \"answerKey\": \"C\"}\n";
    char *folder = files_folder(), path[4096];
    const char *where = check_shared("models/stories260K", path, sizeof path);
    char *data = mem_format("%s/data.jsonl", folder), *out = mem_format("%s/out", folder);
    struct model *model = NULL;
    struct harness_tokens how;
    files_put(data, item, strlen(item));
    struct process process =
        process_call(program, "eval", "--model", where, "--task", "arc_challenge", "--data", data, "--out", out);
    if (process.code != 0) fail_msg("exit status %d: %s", process.code, process.err);
    process_free(&process);
    char *text = files_bytes(files_path(out, "metrics.jsonl"), NULL);
    json_t *line = json_loads(text, JSON_DISABLE_EOF_CHECK, NULL);
    struct harness_docs *docs = docs_of(HARNESS_ARC_CHALLENGE, item, &all);
    check_ok(model_open(where, "cpu", DTYPE_F32, NULL, &model));
    check_ok(harness_tokens_open(model, false, &how));
    for (int k = 0; k < 4; k++) {
        struct token_list tokens = {0};
        int64_t first = 0;
        char *key = mem_format("loglikelihood_%d", k);
        check_ok(harness_encode_pair(&how, &docs->docs[0].requests[k], &tokens, &first));
        check_near(json_number_value(json_object_get(line, key)),
                   whole_sequence(model, tokens.tokens, tokens.n_tokens, first), 2e-5, 1e-4);
        token_list_free(&tokens);
        free(key);
    }
    json_decref(line);
    harness_docs_free(docs);
    model_free(model);
    free(text);
    free(data);
    free(out);
    files_remove(folder);
}

static void items_of_a_task_that_are_none_are_named(void **state) {
    (void)state;
    char *folder = files_folder(), path[4096];
    const char *model = check_shared("models/stories260K", path, sizeof path);
    static const struct {
        const char *task, *text, *says;
    } cases[] = {
        {"arc_challenge", "{\"question\": \"a\"}\n", "answerKey"},
        {"arc_challenge",
         "{\"question\": \"a\", \"answerKey\": \"Z\", \"choices\": {\"text\": [\"a\", \"b\"], \"label\": [\"A\", "
         "\"B\"]}}\n",
         "no choice's label"},
        {"piqa", "{\"goal\": \"a\", \"sol1\": \"b\", \"sol2\": \"c\"}\n", "label"},
        {"hellaswag", "{\"activity_label\": \"a\"}\n", "ctx_a"},
        {"winogrande", "{\"sentence\": \"a\", \"option1\": \"b\", \"option2\": \"c\", \"answer\": \"1\"}\n",
         "has no _"},
        {"gsm8k_cot", "{\"question\": \"a\", \"answer\": \"12\"}\n", "####"},
        {"mmlu", "x", "test"},
        {"wikitext", "\xff", "UTF-8"},
        {"piqa", "", "holds no items"},
        {"piqa", "[1]\n", "must be an object"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        files_put(files_path(folder, "data.jsonl"), cases[i].text, strlen(cases[i].text));
        struct process process = process_call(program, "eval", "--model", model, "--task", cases[i].task, "--data",
                                              files_path(folder, "data.jsonl"));
        process_check_error(process, 1, cases[i].says);
    }
    process_check_error(
        process_call(program, "eval", "--model", model, "--task", "piqa", "--data", folder, "--shots", "3"), 2,
        "--shots");
    process_check_error(process_call(program, "compare", folder, folder), 1, "result.json");
    files_remove(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(choices_stand_behind_the_harness_s_words),
        cmocka_unit_test(mmlu_shows_examples_of_the_subject),
        cmocka_unit_test(pages_are_counted_before_and_shown_after_detokenization),
        cmocka_unit_test(answers_are_taken_with_the_harness_s_quirks),
        cmocka_unit_test(comparisons_have_mcnemar_s_p_value),
        cmocka_unit_test(quoted_fields_hold_anything),
        cmocka_unit_test(shared_prefixes_do_not_change_scores),
        cmocka_unit_test(texts_longer_than_the_model_lose_their_beginning),
        cmocka_unit_test(the_program_gives_every_choice_its_own_score),
        cmocka_unit_test(items_of_a_task_that_are_none_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
