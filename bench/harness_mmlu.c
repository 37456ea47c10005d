// MMLU: questions with four choices, asked behind examples of the same subject.
#include "bench/harness.h"

#include "bench/csv_rows.h"
#include "bench/python_text.h"
#include "core/base/mem.h"
#include "data/file.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Hendrycks et al. 2021, Table of subjects.
static const struct {
    const char *category;
    const char *subjects[20];
} categories[] = {
    {"stem",
     {"abstract_algebra", "anatomy", "astronomy", "college_biology", "college_chemistry", "college_computer_science",
      "college_mathematics", "college_physics", "computer_security", "conceptual_physics", "electrical_engineering",
      "elementary_mathematics", "high_school_biology", "high_school_chemistry", "high_school_computer_science",
      "high_school_mathematics", "high_school_physics", "high_school_statistics", "machine_learning"}},
    {"humanities",
     {"formal_logic", "high_school_european_history", "high_school_us_history", "high_school_world_history",
      "international_law", "jurisprudence", "logical_fallacies", "moral_disputes", "moral_scenarios", "philosophy",
      "prehistory", "professional_law", "world_religions"}},
    {"social_sciences",
     {"econometrics", "high_school_geography", "high_school_government_and_politics", "high_school_macroeconomics",
      "high_school_microeconomics", "high_school_psychology", "human_sexuality", "professional_psychology",
      "public_relations", "security_studies", "sociology", "us_foreign_policy"}},
    {"other",
     {"business_ethics", "clinical_knowledge", "college_medicine", "global_facts", "human_aging", "management",
      "marketing", "medical_genetics", "miscellaneous", "nutrition", "professional_accounting", "professional_medicine",
      "virology"}},
};

const char *harness_mmlu_category(const char *subject) {
    for (size_t c = 0; c < sizeof categories / sizeof *categories; c++)
        for (size_t i = 0; categories[c].subjects[i]; i++)
            if (strcmp(categories[c].subjects[i], subject) == 0) return categories[c].category;
    return NULL;
}

enum { N_CHOICES = 4, N_FIELDS = N_CHOICES + 2 };

struct question {
    char *text; // as it is asked, with choices
    const char *choices[4];
    int64_t gold;
};

// With the row of names the answer is an index, without it a letter.
static int64_t gold_of(const char *answer, bool named) {
    if (answer[0] && answer[1]) return -1;
    int64_t gold = answer[0] - (named ? '0' : 'A');
    return gold >= 0 && gold < N_CHOICES ? gold : -1;
}

static enum status question_of(const char *path, const struct csv_rows *rows, int64_t row, bool named,
                               struct question *out) {
    char **fields = rows->fields + rows->first[row];
    if (rows->first[row + 1] - rows->first[row] != N_FIELDS || gold_of(fields[N_FIELDS - 1], named) < 0)
        return status_set(STATUS_FORMAT, "%s: row %lld is no question, four choices and an answer (%s)", path,
                          (long long)row + 1, named ? "0 to 3" : "A to D");
    char *question = python_strip(fields[0]);
    out->text =
        mem_format("%s\nA. %s\nB. %s\nC. %s\nD. %s\nAnswer:", question, fields[1], fields[2], fields[3], fields[4]);
    free(question);
    out->gold = gold_of(fields[N_FIELDS - 1], named);
    return STATUS_OK;
}

// Questions of a file, at most `most` (0 = all).
static enum status questions_read(const char *path, int64_t most, struct question **out, int64_t *n_out) {
    enum status status = STATUS_OK;
    struct csv_rows *rows = NULL;
    struct question *questions = NULL;
    int64_t n = 0;
    TRY(csv_rows_read(path, &rows));
    bool named = rows->n_rows > 0 && strcmp(rows->fields[0], "question") == 0;
    questions = mem_new((size_t)rows->n_rows, sizeof *questions);
    for (int64_t row = named; row < rows->n_rows && !(most && n == most); row++) {
        TRY(question_of(path, rows, row, named, &questions[n]));
        n++;
    }
    *out = questions;
    *n_out = n;
    questions = NULL;
done:
    for (int64_t i = 0; questions && i < n; i++) free(questions[i].text);
    free(questions);
    csv_rows_free(rows);
    return status;
}

static const char *const letters[N_CHOICES] = {"A", "B", "C", "D"};

// The line about the subject, and the examples; a new string.
static enum status examples_of(const char *folder, const char *subject, int64_t shots, char **out) {
    enum status status = STATUS_OK;
    char *path = mem_format("%s/dev/%s_dev.csv", folder, subject), *words = mem_string(subject), *text = NULL;
    struct question *examples = NULL;
    int64_t n = 0;
    for (char *c = words; *c; c++)
        if (*c == '_') *c = ' ';
    // One newline: the template that the harness makes the line with drops the last of two.
    text = mem_format("The following are multiple choice questions (with answers) about %s.\n", words);
    if (shots) TRY(questions_read(path, shots, &examples, &n));
    if (n < shots)
        TRY(status_set(STATUS_FORMAT, "%s: holds %lld examples, --shots %lld asks for more", path, (long long)n,
                       (long long)shots));
    for (int64_t i = 0; i < n; i++) {
        char *longer = mem_format("%s%s %s\n\n", text, examples[i].text, letters[examples[i].gold]);
        free(text);
        text = longer;
    }
    *out = text;
    text = NULL;
done:
    for (int64_t i = 0; i < n; i++) free(examples[i].text);
    free(examples);
    free(text);
    free(words);
    free(path);
    return status;
}

static enum status subject_read(const char *folder, const char *subject, const struct harness_options *options,
                                struct harness_docs *docs) {
    enum status status = STATUS_OK;
    char *path = mem_format("%s/test/%s_test.csv", folder, subject), *examples = NULL;
    struct question *questions = NULL;
    int64_t n = 0;
    TRY(examples_of(folder, subject, options->shots, &examples));
    TRY(questions_read(path, options->limit, &questions, &n));
    for (int64_t i = 0; i < n; i++) {
        struct harness_doc *doc = harness_doc_add(docs, N_CHOICES);
        doc->gold = questions[i].gold;
        doc->group = subject;
        for (int k = 0; k < N_CHOICES; k++)
            harness_choice(doc, k, mem_format("%s%s", examples, questions[i].text), letters[k]);
    }
done:
    for (int64_t i = 0; i < n; i++) free(questions[i].text);
    free(questions);
    free(examples);
    free(path);
    return status;
}

static const char suffix[] = "_test.csv";

static int is_test(const struct dirent *entry) {
    size_t n = strlen(entry->d_name);
    return n > sizeof suffix - 1 && strcmp(entry->d_name + n - (sizeof suffix - 1), suffix) == 0;
}

enum status harness_read_mmlu(const char *path, const struct harness_options *options, struct harness_docs *docs) {
    enum status status = STATUS_OK;
    char *tests = mem_format("%s/test", path);
    struct dirent **entries = NULL;
    int n = scandir(tests, &entries, is_test, alphasort);
    if (n <= 0) TRY(status_set(STATUS_IO, "%s: holds no SUBJECT%s", tests, suffix));
    docs->groups = mem_new((size_t)(unsigned)n, sizeof *docs->groups);
    for (int i = 0; i < n; i++)
        docs->groups[docs->n_groups++] =
            mem_string_n(entries[i]->d_name, strlen(entries[i]->d_name) - (sizeof suffix - 1));
    for (int64_t i = 0; i < docs->n_groups; i++) TRY(subject_read(path, docs->groups[i], options, docs));
done:
    for (int i = 0; i < n; i++) free(entries[i]);
    free(entries);
    free(tests);
    return status;
}
