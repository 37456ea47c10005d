#include "bench/harness.h"

#include "core/base/mem.h"
#include "data/utf8.h"

#include <stdlib.h>
#include <string.h>

const char *const harness_task_names[N_HARNESS_TASKS] = {"arc_challenge", "piqa",      "hellaswag", "winogrande",
                                                         "mmlu",          "gsm8k_cot", "wikitext"};

static harness_reader *const readers[N_HARNESS_TASKS] = {
    harness_read_arc,  harness_read_piqa,  harness_read_hellaswag, harness_read_winogrande,
    harness_read_mmlu, harness_read_gsm8k, harness_read_wikitext};

bool harness_is_full(const struct harness_docs *docs, const struct harness_options *options) {
    return options->limit && docs->n >= options->limit;
}

struct harness_doc *harness_doc_add(struct harness_docs *docs, int64_t n_requests) {
    if ((docs->n & (docs->n - 1)) == 0)
        docs->docs = mem_resize(docs->docs, docs->n ? 2 * (size_t)docs->n : 1, sizeof *docs->docs);
    struct harness_doc *doc = &docs->docs[docs->n++];
    *doc =
        (struct harness_doc){.requests = mem_new((size_t)n_requests, sizeof *doc->requests), .n_requests = n_requests};
    return doc;
}

void harness_choice(struct harness_doc *doc, int64_t i, char *context, const char *choice) {
    int64_t n = 0;
    for (const char *c = choice; *c; c += utf8_length(*c)) n++;
    doc->requests[i] =
        (struct harness_request){.context = context, .continuation = mem_format(" %s", choice), .n_characters = n};
}

enum status harness_read(enum harness_task task, const char *path, const struct harness_options *options,
                         struct harness_docs **out) {
    struct harness_docs *docs = mem_new(1, sizeof *docs);
    enum status status = readers[task](path, options, docs);
    if (status == STATUS_OK && docs->n == 0) status = status_set(STATUS_FORMAT, "%s: holds no items", path);
    if (status == STATUS_OK)
        *out = docs;
    else
        harness_docs_free(docs);
    return status;
}

void harness_docs_free(struct harness_docs *docs) {
    if (!docs) return;
    for (int64_t i = 0; i < docs->n; i++) {
        struct harness_doc *doc = &docs->docs[i];
        for (int64_t k = 0; k < doc->n_requests; k++) {
            free(doc->requests[k].context);
            free(doc->requests[k].continuation);
        }
        free(doc->requests);
        free(doc->target);
    }
    for (int64_t i = 0; i < docs->n_groups; i++) free(docs->groups[i]);
    free(docs->groups);
    free(docs->docs);
    free(docs);
}
