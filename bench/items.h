// Questions with known answers, one JSON object per line (`discquant-data corpus --task …` writes such files):
//     ITEMS_CHOICE       {"query": "…\nA:", "choices": [" Tom.", " Eva."], "gold": 0, "kind": "who_has"}
//     ITEMS_EXACT_MATCH  {"prompt": "…\nA:", "answer": " Tom.", "kind": "who_has"}
// "kind" may be missing; other keys are ignored.
//
//     TRY(items_read("items.jsonl", &(struct items_options){.format = ITEMS_CHOICE, .model = model}, &items));
//     for (int64_t i = 0; i < items->n_items; i++) … items->items[i].choices …
//   done:
//     items_free(items);
//
// Which tokens of query + choice are the choice's is decided as lm-evaluation-harness does: white space at the end of the
// query counts as the choice's; query + choice is tokenized as a whole, the query alone, and the choice is what follows
// the query's tokens. Where those do not begin the whole (a merge across the border), it is what follows the part that both have.
#ifndef DQ_BENCH_ITEMS_H
#define DQ_BENCH_ITEMS_H

#include "data/model.h"
#include "data/record.h"

enum items_format { ITEMS_CHOICE, ITEMS_EXACT_MATCH };

struct item_choice {
    struct token_list tokens; // of query + choice
    int64_t first;            // of them that is the choice's, 1 <= first < n_tokens
    int64_t n_characters;     // code points of the choice without a leading space, > 0
};

struct item {
    int64_t line;
    int64_t kind; // index into items.kinds; -1 = none
    // ITEMS_CHOICE
    struct item_choice *choices; // [n_choices]
    int64_t n_choices, gold;
    // ITEMS_EXACT_MATCH
    struct token_list prompt; // at least one
    char *answer;             // without white space around it
};

struct items {
    char *path;
    struct item *items; // [n_items]
    int64_t n_items;
    char **kinds; // [n_kinds] in the order of their appearance
    int64_t n_kinds;
};

struct items_options {
    enum items_format format;
    const struct model *model; // whose tokenizer, vocabulary and positions
    int64_t limit;             // items to read; 0 = all
};

// STATUS_IO: the file cannot be read. STATUS_FORMAT: a line is not such an item, or there is none. STATUS_INVALID: an item
// has more tokens than the model has positions, or a token the model does not have. Messages begin with PATH:LINE.
enum status items_read(const char *path, const struct items_options *options, struct items **out);
void items_free(struct items *items); // accepts NULL

// "PATH:LINE" of an item, for messages and no longer than until the next call.
const char *items_where(const struct items *items, const struct item *item);

// Without white space at both ends: the part of the text, [*n].
const char *items_strip(const char *text, int64_t *n);

// Sets key = share of `right`, key_se = sqrt(p (1 - p) / (n - 1)) (0 for one item).
void items_accuracy(const struct items *items, const bool *right, const char *key, struct record *record);
// Sets key_KIND = share of `right` among the items of each kind.
void items_accuracy_by_kind(const struct items *items, const bool *right, const char *key, struct record *record);

#endif
