// Tasks as lm-evaluation-harness 0.4.2 (the paper's) asks them: what text goes to the model, what is right, what is reported.
//
//     TRY(harness_read(task, "arc_challenge.jsonl", &options, &docs));
//     for (int64_t i = 0; i < docs->n; i++) … docs->docs[i].requests …
//     harness_docs_free(docs);                                            // accepts NULL
//
// task            --data                                            fields of a line (or what they are called elsewhere)
// arc_challenge   a JSON-lines file                                 question, choices {text, label}, answerKey; or query, choices, gold
// piqa            a JSON-lines file; labels in it or in             goal, sol1, sol2, label
//                 NAME-labels.lst beside NAME.jsonl
// hellaswag       a JSON-lines file                                 activity_label, ctx_a, ctx_b, endings, label; or query, choices, gold
// winogrande      a JSON-lines file                                 sentence, option1, option2, answer; or context_options, continuation, gold
// mmlu            a folder with dev/SUBJECT_dev.csv and             question, four choices, answer (a letter, or an index with a row of
//                 test/SUBJECT_test.csv                             column names first)
// gsm8k_cot       a JSON-lines file                                 question, answer ("… #### 18")
// wikitext        the raw text of the test split                    -
#ifndef DQ_BENCH_HARNESS_H
#define DQ_BENCH_HARNESS_H

#include "core/base/status.h"

#include <stdbool.h>
#include <stdint.h>

enum harness_task {
    HARNESS_ARC_CHALLENGE,
    HARNESS_PIQA,
    HARNESS_HELLASWAG,
    HARNESS_WINOGRANDE,
    HARNESS_MMLU,
    HARNESS_GSM8K,
    HARNESS_WIKITEXT,
    N_HARNESS_TASKS
};
extern const char *const harness_task_names[N_HARNESS_TASKS];

struct harness_request {
    char *context, *continuation; // one text after the other; continuation NULL: the model is to write it
    int64_t n_characters;         // code points of a choice without its leading space
};

struct harness_doc {
    struct harness_request *requests; // one per choice; wikitext: continuation = the detokenized page
    int64_t n_requests;
    int64_t gold;         // of choices
    const char *group;    // subject of MMLU, NULL otherwise; borrowed
    char *target;         // GSM8K: the answer behind ####
    int64_t words, bytes; // wikitext: of the page as it is in the file
};

struct harness_docs {
    struct harness_doc *docs;
    int64_t n;
    char **groups; // MMLU: subjects, by name
    int64_t n_groups;
};

struct harness_options {
    int64_t limit;      // documents, of MMLU per subject; 0 = all
    int64_t shots;      // MMLU: examples from dev, 5 in the paper
    const char *prompt; // GSM8K: text that stands before "Q: …\nA:", the solved examples; may be NULL
};

// STATUS_FORMAT names file and line of what is no document of the task.
enum status harness_read(enum harness_task task, const char *path, const struct harness_options *options,
                         struct harness_docs **out);
void harness_docs_free(struct harness_docs *docs);

// ---- for the readers of single tasks ----

struct harness_doc *harness_doc_add(struct harness_docs *docs, int64_t n_requests);
bool harness_is_full(const struct harness_docs *docs, const struct harness_options *options);
// A choice behind " ", as the harness delimits targets; takes `context`, copies `choice`.
void harness_choice(struct harness_doc *doc, int64_t i, char *context, const char *choice);

typedef enum status harness_reader(const char *path, const struct harness_options *options, struct harness_docs *docs);
harness_reader harness_read_arc, harness_read_piqa, harness_read_hellaswag, harness_read_winogrande, harness_read_mmlu,
    harness_read_gsm8k, harness_read_wikitext;

// Field of the social and other sciences that MMLU's authors put a subject in; NULL where it is none of theirs.
const char *harness_mmlu_category(const char *subject);

// What a generated solution answers: the matches of "The answer is (-?[0-9.,]+)." (strict, the first) or of a number (flexible, the last),
// "[invalid]" where there is none. New strings.
char *harness_answer_strict(const char *text);
char *harness_answer_flexible(const char *text);
// Compared as the harness does: without commas, "$", what stands before "#### ", a full stop at the end; letters' case.
bool harness_answers_agree(const char *answer, const char *target);

// The page as it is shown to the model; a new string.
char *harness_detokenize(const char *page);

#endif
