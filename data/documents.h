// Texts as documents, each one tokenized on its own: what a model is trained on.
//
//     TRY(documents_each("stories.txt", visit, self));                                   // visit(self, where, text, n)
//     TRY(documents_encode(tokenizer, (const char *[]){"stories.txt"}, 1, &stream));     // <s> … <s> …
//   done:
//     document_stream_free(&stream);
//
// In a text file blank lines (white space only) separate documents; a document is what stands between, without the line
// end at its end. In a file whose name ends in .jsonl every line is an object, and its "text" a document.
#ifndef DQ_DATA_DOCUMENTS_H
#define DQ_DATA_DOCUMENTS_H

#include "core/base/status.h"
#include "data/tokenizer.h"

#include <stdint.h>

// One document, UTF-8; `where` is "PATH:LINE", the line it begins on. Both borrowed for the call.
typedef enum status document_visit(void *self, const char *where, const char *text, int64_t n_bytes);

// In the order of the file, until a visit fails. STATUS_IO: the file cannot be read. STATUS_FORMAT: it is not UTF-8 (the
// message gives the byte), not JSON lines with "text", or holds no document.
enum status documents_each(const char *path, document_visit *visit, void *self);

// Documents one behind the other, each with the tokens that the tokenizer puts around a text (BOS): the next one's BOS
// is the end of the one before. {0} is empty.
struct document_stream {
    int32_t *tokens; // [n_tokens]
    int64_t n_tokens, n_documents;
    int64_t n_bytes; // of text
};

enum status documents_encode(const struct tokenizer *tokenizer, const char *const *paths, int64_t n_paths,
                             struct document_stream *out);
void document_stream_free(struct document_stream *stream);

#endif
