// What `discquant-data corpus` does: documents of the story language (data/story.h) as a file.
//
// FILE.txt    the documents, an empty line behind each: "…\nQ: …\nA: …\n\n"
// FILE.jsonl  a document per line: {"text": "…\nQ: …\nA: …"}
// A task takes the first question of each document, so that items are independent, and writes one JSON object per line:
//     multiple choice  {"query": "…\nQ: …\nA:", "choices": [" Tom.", …], "gold": 0, "kind": "who_has", "document": 17}
//     generate         {"prompt": "…\nQ: …\nA:", "answer": " Tom.", "kind": "who_has", "document": 17}
//     story            {"text": "…"}: the document up to its first question, a text again
// query + choice and prompt + answer are the text as documents have it, and a newline follows.
#ifndef DQ_DATA_STORY_CORPUS_H
#define DQ_DATA_STORY_CORPUS_H

#include "core/base/status.h"
#include "data/story.h"

#include <stdio.h>

enum story_task { STORY_TASK_NONE, STORY_TASK_MULTIPLE_CHOICE, STORY_TASK_GENERATE, STORY_TASK_STORY };

struct story_corpus_options {
    const char *out; // NULL: only the summary
    enum story_task task;
    uint64_t seed;
    enum story_split split;
    int64_t start;     // first document
    int64_t documents; // 0: as many as it takes
    int64_t bytes;     // stop behind the document that makes it as many bytes of text; 0: no limit
};

// Writes the file and, on `summary`, one line of JSON: split, seed, start, documents, next (the first document behind these),
// bytes and words (of the text with the empty lines, whatever is written), questions, entropy_nats (-log of the probability of
// these documents: the least total loss), nats_per_document, nats_per_byte, nats_per_word.
// STATUS_IO: the file cannot be written; there is none then. STATUS_INVALID: there are no documents behind STORY_DOCUMENTS_MAX.
enum status story_corpus_write(const struct story_corpus_options *options, FILE *summary);

#endif
