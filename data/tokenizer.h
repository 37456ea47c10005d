// Text to tokens and back, as a Hugging Face tokenizer.json says; equal, token for token, to the `tokenizers` library.
//
//     struct tokenizer *tokenizer = NULL;
//     struct token_list tokens = {0};
//     TRY(tokenizer_open("model", &tokenizer));
//     TRY(tokenizer_encode(tokenizer, text, n_bytes, true, &tokens));
//   done:
//     token_list_free(&tokens);
//     tokenizer_free(tokenizer);
//
// What is read, for the two families of models served:
//   model           BPE, with byte_fallback, fuse_unk, ignore_merges; merges as strings or pairs
//   normalizer      null, Prepend, Replace (of a string), Sequence
//   pre_tokenizer   null, Split (all behaviors), Digits, ByteLevel (last), Metaspace, Sequence
//   post_processor  null, TemplateProcessing (one sequence), ByteLevel, Sequence
//   decoder         null, ByteLevel, Replace (of a string), ByteFallback, Fuse, Strip, Metaspace, Sequence
//   added_tokens    all flags
// Anything else (Unigram, NFC, dropout, …) is STATUS_UNSUPPORTED and named; a malformed file is STATUS_FORMAT. The fields
// "truncation" and "padding" are ignored, and so is tokenizer_config.json.
//
// A tokenizer does not change after loading: threads may share one.
#ifndef DQ_DATA_TOKENIZER_H
#define DQ_DATA_TOKENIZER_H

#include "core/base/status.h"

#include <stdbool.h>
#include <stdint.h>

struct tokenizer;

// Owner of its tokens; {0} is empty.
struct token_list {
    int32_t *tokens; // [n_tokens]
    int64_t n_tokens;
};
void token_list_free(struct token_list *list);

// `path` is a tokenizer.json or a folder that holds one.
enum status tokenizer_open(const char *path, struct tokenizer **out);

// From the text of a tokenizer.json; `name` stands for it in messages.
enum status tokenizer_parse(const void *bytes, int64_t n_bytes, const char *name, struct tokenizer **out);

void tokenizer_free(struct tokenizer *tokenizer); // accepts NULL

// One more than the largest id, so that every token lies in [0, size). A model's embedding may have more rows.
int32_t tokenizer_vocab_size(const struct tokenizer *tokenizer);

// The id of a token by its text ("<s>", "▁the"), or -1.
int32_t tokenizer_id(const struct tokenizer *tokenizer, const char *token);

// The tokens of a text; with add_special also those that the post_processor puts around it (BOS).
// STATUS_FORMAT: the text is not UTF-8 (the message says at which byte), or holds what the vocabulary cannot express;
// STATUS_UNSUPPORTED: the split pattern needs more backtracking than is allowed, or one word has 2^31 bytes.
enum status tokenizer_encode(const struct tokenizer *tokenizer, const char *text, int64_t n_bytes, bool add_special,
                             struct token_list *out);

// The text of tokens, with a zero byte behind it that n_bytes does not count; free with mem_buffer_free. Bytes that are
// no UTF-8 become U+FFFD. Ids without a token (a model's padding rows) give nothing. skip_special leaves out the added
// tokens that are marked special.
enum status tokenizer_decode(const struct tokenizer *tokenizer, const int32_t *tokens, int64_t n_tokens,
                             bool skip_special, char **text, int64_t *n_bytes);

#endif
