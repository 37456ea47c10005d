// The command `discquant-data corpus`: its files, its summary, its refusals.
#include "tests/files.h"

#include "core/base/progress.h"
#include "data/story_corpus.h"
#include "data/whole_file.h"
#include "tests/story_reader.h"

#include <jansson.h>
#include <unistd.h>

static const char program[] = "data/discquant-data";

// Runs it, which must succeed; the summary.
static json_t *corpus(const char *const *args) {
    struct process process = process_run(program, NULL, args);
    if (process.code != 0) print_error("%s", process.err);
    assert_int_equal(process.code, 0);
    json_t *summary = json_loads(process.out, 0, NULL);
    assert_non_null(summary);
    process_free(&process);
    return summary;
}

#define corpus_call(...) corpus((const char *[]){"corpus", "--quiet", __VA_ARGS__, NULL})

static int64_t integer(const json_t *object, const char *key) {
    assert_true(json_is_integer(json_object_get(object, key)));
    return json_integer_value(json_object_get(object, key));
}

static double number(const json_t *object, const char *key) {
    assert_true(json_is_number(json_object_get(object, key)));
    return json_number_value(json_object_get(object, key));
}

static void ranges_put_together_are_the_same_bytes(void **state) {
    (void)state;
    char *folder = files_folder();
    json_t *whole =
        corpus_call("--seed", "7", "--start", "20", "--documents", "90", "--out", files_path(folder, "w.txt"));
    json_t *a = corpus_call("--seed", "7", "--start", "20", "--bytes", "20000", "--out", files_path(folder, "a.txt"));
    char *next = mem_format("%lld", (long long)integer(a, "next"));
    char *left = mem_format("%lld", (long long)(110 - integer(a, "next")));
    json_t *b = corpus_call("--seed=7", "--start", next, "--documents", left, "--out", files_path(folder, "b.txt"));
    char *text_a = files_bytes(files_path(folder, "a.txt"), NULL),
         *text_b = files_bytes(files_path(folder, "b.txt"), NULL);
    char *both = mem_format("%s%s", text_a, text_b);
    files_check_text(files_path(folder, "w.txt"), both);
    assert_in_range(strlen(text_a), 20000, 20000 + STORY_BYTES_MAX);
    assert_int_equal(integer(whole, "bytes"), strlen(both));
    assert_int_equal(integer(a, "bytes") + integer(b, "bytes"), strlen(both));
    check_near(number(a, "entropy_nats") + number(b, "entropy_nats"), number(whole, "entropy_nats"), 1e-12, 0);
    json_decref(whole), json_decref(a), json_decref(b);
    free(text_a), free(text_b), free(both), free(next), free(left);
    files_remove(folder);
}

static void summary_describes_the_text(void **state) {
    (void)state;
    char *folder = files_folder();
    struct story_source source = {.seed = 0, .split = STORY_VALIDATION};
    struct story story;
    json_t *summary = corpus_call("--split", "validation", "--documents", "50", "--out", files_path(folder, "x.txt"));
    char *text = files_bytes(files_path(folder, "x.txt"), NULL), *at = text;
    int64_t words = 0, questions = 0;
    double nats = 0;
    for (int64_t d = 0; d < 50; d++) {
        story_make(&source, d, &story);
        assert_memory_equal(at, story.text, (size_t)story.n_bytes);
        at += story.n_bytes;
        assert_int_equal(*at++, '\n');
        nats += story.nats;
        words += story.n_words;
        questions += story.n_questions;
    }
    assert_int_equal(*at, 0);
    assert_string_equal(json_string_value(json_object_get(summary, "split")), "validation");
    assert_int_equal(integer(summary, "documents"), 50);
    assert_int_equal(integer(summary, "next"), 50);
    assert_int_equal(integer(summary, "bytes"), at - text);
    assert_int_equal(integer(summary, "words"), words);
    assert_int_equal(integer(summary, "questions"), questions);
    check_near(number(summary, "entropy_nats"), nats, 1e-12, 0);
    check_near(number(summary, "nats_per_document"), nats / 50, 1e-12, 0);
    check_near(number(summary, "nats_per_byte"), nats / (double)(at - text), 1e-12, 0);
    check_near(number(summary, "nats_per_word"), nats / (double)words, 1e-12, 0);
    json_t *without_file = corpus_call("--split", "validation", "--documents", "50");
    assert_true(json_equal(summary, without_file));
    json_decref(summary), json_decref(without_file);
    free(text);
    files_remove(folder);
}

// Calls `check` with each line of a file as JSON and the story of its number.
static void each_line(const char *path, int n, void (*check)(const json_t *, const struct story *)) {
    char *text = files_bytes(path, NULL), *at = text;
    struct story story;
    for (int d = 0; d < n; d++) {
        char *end = strchr(at, '\n');
        assert_non_null(end);
        *end = 0;
        json_t *line = json_loads(at, JSON_REJECT_DUPLICATES, NULL);
        assert_non_null(line);
        story_make(&(struct story_source){.seed = 0, .split = STORY_TEST}, d, &story);
        check(line, &story);
        json_decref(line);
        at = end + 1;
    }
    assert_int_equal(*at, 0);
    free(text);
}

static void check_text(const json_t *line, const struct story *story) {
    const json_t *text = json_object_get(line, "text");
    assert_int_equal(json_string_length(text), story->n_bytes - 1);
    assert_memory_equal(json_string_value(text), story->text, (size_t)story->n_bytes - 1);
    assert_int_equal(json_object_size(line), 1);
}

// Prompt and answer, with the newline behind, are where the document begins; the interpreter finds the answer right.
static void check_item(const char *prompt, const char *answer, const struct story *story) {
    static struct reader reader;
    char *text = mem_format("%s%s\n", prompt, answer);
    assert_memory_equal(text, story->text, strlen(text));
    reader_read(&reader, text, (int)strlen(text));
    assert_int_equal(reader.n_questions, 1);
    free(text);
}

static void check_choice(const json_t *line, const struct story *story) {
    const json_t *choices = json_object_get(line, "choices");
    int64_t gold = integer(line, "gold");
    assert_in_range(gold, 0, json_array_size(choices) - 1);
    check_item(json_string_value(json_object_get(line, "query")),
               json_string_value(json_array_get(choices, (size_t)gold)), story);
}

static void check_generate(const json_t *line, const struct story *story) {
    assert_true(integer(line, "document") >= 0 && json_is_string(json_object_get(line, "kind")));
    check_item(json_string_value(json_object_get(line, "prompt")), json_string_value(json_object_get(line, "answer")),
               story);
}

static void every_format_holds_the_documents(void **state) {
    (void)state;
    char *folder = files_folder();
    char *out = mem_string(files_path(folder, "x.jsonl"));
    json_t *text = corpus_call("--split", "test", "--documents", "300", "--out", out);
    each_line(out, 300, check_text);
    json_t *choice = corpus_call("--split", "test", "--documents", "300", "--task", "multiple-choice", "--out", out);
    each_line(out, 300, check_choice);
    json_t *generate = corpus_call("--split", "test", "--documents", "300", "--task", "generate", "--out", out);
    each_line(out, 300, check_generate);
    assert_true(json_equal(text, choice) && json_equal(text, generate));
    json_decref(text), json_decref(choice), json_decref(generate);
    free(out);
    files_remove(folder);
}

#define refused(text, ...) process_check_error(process_call(program, "corpus", __VA_ARGS__), 2, text)

// What stands before the first "Q:" of the whole documents, found by search in their text.
static void stories_are_documents_up_to_their_questions(void **state) {
    (void)state;
    char *folder = files_folder(), *whole = mem_string(files_path(folder, "w.jsonl")),
         *alone = mem_string(files_path(folder, "s.jsonl"));
    json_decref(corpus_call("--split", "calibration", "--documents", "80", "--out", whole));
    json_decref(corpus_call("--split", "calibration", "--documents", "80", "--task", "story", "--out", alone));
    char *whole_text = files_bytes(whole, NULL), *alone_text = files_bytes(alone, NULL), *a = whole_text,
         *b = alone_text;
    for (int d = 0; d < 80; d++) {
        char *question = strstr(a, "\\nQ: ");
        size_t n = (size_t)(question - a);
        assert_memory_equal(a, b, n);
        assert_memory_equal(b + n, "\"}\n", 3);
        a = strchr(a, '\n') + 1;
        b += n + 3;
    }
    assert_int_equal(*a, 0);
    assert_int_equal(*b, 0);
    free(whole_text), free(alone_text), free(whole), free(alone);
    files_remove(folder);
}

static void bad_requests_are_refused(void **state) {
    (void)state;
    refused("exclude each other", "--documents", "5", "--bytes", "5");
    refused("--documents", "--documents", "0");
    refused("--start", "--start", "-1");
    refused("the documents end", "--start", "9007199254740991", "--documents", "2");
    refused("--split", "--split", "dev");
    refused("--task", "--task", "chat");
    refused("--task needs --out", "--task", "generate");
    refused(".jsonl", "--task", "generate", "--out", "x.txt");
    refused("must end in", "--out", "x.csv");
    refused("must end in", "--out", "");
    refused("takes no arguments", "x");
    process_check_error(process_call(program, "corpus", "--documents", "1", "--out", "/proc/no/such/x.txt"), 1,
                        "x.txt");
    process_check_error(process_call(program, "corpus", "--start", "9007199254740991", "--bytes", "100000"), 1,
                        "the documents end");
}

static void a_full_disk_leaves_nothing(void **state) {
    (void)state;
    char *folder = files_folder();
    char *out = mem_string(files_path(folder, "x.txt"));
    struct story_corpus_options options = {.out = out, .documents = 1500};
    FILE *summary = fopen("/dev/null", "w");
    int64_t k = 0;
    progress_set_quiet(true);
    for (;; k++) {
        whole_file_fail_at(k);
        enum status status = story_corpus_write(&options, summary);
        whole_file_fail_at(-1);
        assert_false(files_has(folder, "x.txt.part"));
        if (status == STATUS_OK) break;
        check_fails(status, STATUS_IO);
        assert_false(files_has(folder, "x.txt"));
    }
    assert_in_range(k, 4, 20); // create, two writes or more, sync, rename
    fclose(summary);
    free(out);
    files_remove(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranges_put_together_are_the_same_bytes),
        cmocka_unit_test(summary_describes_the_text),
        cmocka_unit_test(every_format_holds_the_documents),
        cmocka_unit_test(stories_are_documents_up_to_their_questions),
        cmocka_unit_test(bad_requests_are_refused),
        cmocka_unit_test(a_full_disk_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
