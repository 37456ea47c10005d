#include "data/story_corpus.h"

#include "core/base/progress.h"
#include "data/record.h"
#include "data/whole_file.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static const char *const kind_names[STORY_KINDS] = {"who_has",  "where", "where_thing", "count",
                                                    "together", "more",  "who_gave",    "heads"};
static const char *const split_names[] = {"train", "validation", "test", "calibration"};

struct line {
    char text[4 * STORY_BYTES_MAX]; // what is escaped at most doubles
    size_t n;
};

static void line_bytes(struct line *line, const char *bytes, size_t n) {
    REQUIRE(n <= sizeof line->text - line->n, "a line is too long");
    memcpy(line->text + line->n, bytes, n);
    line->n += n;
}

static void line_text(struct line *line, const char *text) { line_bytes(line, text, strlen(text)); }

static void line_integer(struct line *line, int64_t number) {
    char text[32];
    line_bytes(line, text, (size_t)snprintf(text, sizeof text, "%lld", (long long)number));
}

// A JSON string of story text, where only newlines need an escape.
static void line_string(struct line *line, const char *text, int n) {
    line_text(line, "\"");
    for (const char *end = text + n; text < end;) {
        const char *newline = memchr(text, '\n', (size_t)(end - text)), *stop = newline ? newline : end;
        line_bytes(line, text, (size_t)(stop - text));
        if (newline) line_text(line, "\\n");
        text = newline ? newline + 1 : end;
    }
    line_text(line, "\"");
}

// From the start of the story to the "A:" of its first question.
static void line_prompt(struct line *line, const char *key, const struct story *story) {
    line_text(line, "{\"");
    line_text(line, key);
    line_text(line, "\": ");
    line_string(line, story->text, story->questions[0].answer);
}

static void line_end(struct line *line, const struct story *story, int64_t document) {
    line_text(line, ", \"kind\": \"");
    line_text(line, kind_names[story->questions[0].kind]);
    line_text(line, "\", \"document\": ");
    line_integer(line, document);
    line_text(line, "}\n");
}

static void line_multiple_choice(struct line *line, const struct story_source *source, int64_t document,
                                 const struct story *story) {
    struct story_choices choices;
    story_choices(source, document, story, 0, &choices);
    line_prompt(line, "query", story);
    line_text(line, ", \"choices\": [");
    for (int i = 0; i < choices.n; i++) {
        if (i > 0) line_text(line, ", ");
        line_string(line, choices.texts[i], (int)strlen(choices.texts[i]));
    }
    line_text(line, "], \"gold\": ");
    line_integer(line, choices.gold);
    line_end(line, story, document);
}

static void line_generate(struct line *line, int64_t document, const struct story *story) {
    const struct story_question *question = &story->questions[0];
    line_prompt(line, "prompt", story);
    line_text(line, ", \"answer\": ");
    line_string(line, story->text + question->answer, question->end - question->answer);
    line_end(line, story, document);
}

static bool is_jsonl(const char *path) {
    size_t n = strlen(path);
    return n >= 6 && strcmp(path + n - 6, ".jsonl") == 0;
}

static void line_make(struct line *line, const struct story_corpus_options *options, const struct story_source *source,
                      int64_t document, const struct story *story) {
    line->n = 0;
    if (options->task == STORY_TASK_MULTIPLE_CHOICE) {
        line_multiple_choice(line, source, document, story);
    } else if (options->task == STORY_TASK_GENERATE) {
        line_generate(line, document, story);
    } else if (is_jsonl(options->out)) {
        bool alone = options->task == STORY_TASK_STORY;
        line_text(line, "{\"text\": ");
        line_string(line, story->text, alone ? story->questions[0].question - 1 : story->n_bytes - 1);
        line_text(line, "}\n");
    } else {
        line_bytes(line, story->text, (size_t)story->n_bytes);
        line_text(line, "\n");
    }
}

struct sums {
    int64_t documents, bytes, words, questions;
    double nats;
};

static void summary_print(const struct story_corpus_options *options, const struct sums *sums, FILE *out) {
    struct record *record = record_new();
    double documents = (double)sums->documents;
    record_string(record, "split", split_names[options->split]);
    record_integer(record, "seed", (int64_t)options->seed);
    record_integer(record, "start", options->start);
    record_integer(record, "documents", sums->documents);
    record_integer(record, "next", options->start + sums->documents);
    record_integer(record, "bytes", sums->bytes);
    record_integer(record, "words", sums->words);
    record_integer(record, "questions", sums->questions);
    record_number(record, "entropy_nats", sums->nats);
    record_number(record, "nats_per_document", sums->nats / documents);
    record_number(record, "nats_per_byte", sums->nats / (double)sums->bytes);
    record_number(record, "nats_per_word", sums->nats / (double)sums->words);
    char *text = record_text(record, 0);
    fprintf(out, "%s\n", text);
    free(text);
    record_free(record);
}

static bool goes_on(const struct story_corpus_options *options, const struct sums *sums) {
    if (options->documents > 0 && sums->documents >= options->documents) return false;
    return options->bytes == 0 || sums->bytes < options->bytes;
}

enum status story_corpus_write(const struct story_corpus_options *options, FILE *summary) {
    REQUIRE(options->documents > 0 || options->bytes > 0, "a corpus without end");
    enum status status = STATUS_OK;
    struct whole_file *file = NULL;
    struct story_source source = {.seed = options->seed, .split = options->split};
    struct story story;
    struct line line;
    struct sums sums = {0};
    bool by_bytes = options->documents == 0;
    struct progress *progress =
        progress_new("corpus", by_bytes ? "byte" : "document", by_bytes ? options->bytes : options->documents, 0);
    if (options->out) TRY(whole_file_open(options->out, &file));
    while (goes_on(options, &sums)) {
        int64_t document = options->start + sums.documents;
        if (document >= STORY_DOCUMENTS_MAX)
            TRY(status_set(STATUS_INVALID,
                           "--start %lld: the documents end at number %lld; start earlier or use another --seed",
                           (long long)options->start, (long long)STORY_DOCUMENTS_MAX));
        story_make(&source, document, &story);
        sums.documents++;
        sums.bytes += story.n_bytes + 1;
        sums.words += story.n_words;
        sums.questions += story.n_questions;
        sums.nats += story.nats;
        if (file) {
            line_make(&line, options, &source, document, &story);
            TRY(whole_file_write(file, line.text, line.n));
        }
        if (sums.documents % 256 == 0) progress_update(progress, by_bytes ? sums.bytes : sums.documents, NULL);
    }
    progress_update(progress, by_bytes ? sums.bytes : sums.documents, NULL);
    if (file) TRY(whole_file_commit(file));
    summary_print(options, &sums, summary);
done:
    progress_free(progress);
    whole_file_free(file);
    return status;
}
