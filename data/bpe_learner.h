// Learns a byte-fallback BPE vocabulary from texts and gives it as a tokenizer.json of the Llama 2 kind.
//
//     struct bpe_learner *learner = bpe_learner_new();
//     TRY(bpe_learner_add(learner, text, n_bytes));                     // as often as there are documents
//     TRY(bpe_learner_finish(learner, 512, &json));                     // free(json)
//     TRY(tokenizer_parse(json, (int64_t)strlen(json), "learnt", &tokenizer));
//   done:
//     bpe_learner_free(learner);                                        // accepts NULL
//
// Ids: <unk> <s> </s>, the 256 byte tokens <0x00> …, "▁" for the space, characters from the most frequent one on, then what
// merges make, in their order. One space stands before each text. What is no character of the vocabulary (control
// characters, line ends, the rarest of the others) is spelled in bytes.
//
// Merges stay inside a word: a "▁" with the run of letters or the run of other signs behind it. A digit is a word of its
// own, so that numbers are read digit by digit; nothing crosses a line end. So a text has the same tokens whatever stands
// around its words, and no pre-tokenizer is needed. Where pairs are equally frequent, the one whose parts have the
// smaller ids is merged first: the result depends on how often each word occurs and nothing else.
#ifndef DQ_DATA_BPE_LEARNER_H
#define DQ_DATA_BPE_LEARNER_H

#include "core/base/status.h"

#include <stdint.h>

enum { BPE_VOCAB_MIN = 3 + 256 + 1, BPE_VOCAB_MAX = 1 << 20 };

struct bpe_learner;

struct bpe_learner *bpe_learner_new(void);
void bpe_learner_free(struct bpe_learner *learner);

// Counts the words of one document. STATUS_FORMAT: it is not UTF-8.
enum status bpe_learner_add(struct bpe_learner *learner, const char *text, int64_t n_bytes);

// The tokenizer.json. vocab_size from BPE_VOCAB_MIN to BPE_VOCAB_MAX; the vocabulary is smaller where no pair is left
// that occurs twice. STATUS_INVALID: there was no text.
enum status bpe_learner_finish(struct bpe_learner *learner, int64_t vocab_size, char **json);

#endif
