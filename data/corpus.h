// Texts as tokens, cut into windows for calibration and evaluation.
//
//     struct corpus *corpus = NULL;
//     int64_t n_windows;
//     TRY(corpus_read(tokenizer, (const char *[]){"valid.txt"}, 1, config.vocab_size, &corpus));
//     TRY(corpus_windows(corpus, 256, &n_windows));
//     const int32_t *window = corpus_window(corpus, 256, 0); // [256]
//   done:
//     corpus_free(corpus);           // accepts NULL
//
// A text file is tokenized once and as a whole, as the tokenizer does it (its BOS at the start only), and cut into
// consecutive windows of seq_len tokens that do not overlap; the tail is dropped. In a file whose name ends in .jsonl
// every line is an object, and its "text" a document that is tokenized on its own; the documents stand one behind the
// other before they are cut. No window crosses from one file into the next. Texts are taken byte for byte: line ends stay
// as they are, a byte order mark is a character.
#ifndef DQ_DATA_CORPUS_H
#define DQ_DATA_CORPUS_H

#include "core/base/status.h"
#include "data/tokenizer.h"

#include <stdint.h>

struct corpus {
    char *name;      // for messages: "valid.txt", "a.txt and 2 more"
    int32_t *tokens; // [n_tokens], file behind file
    int64_t n_tokens;
    int64_t *ends; // [n_files] one behind the last token of each file
    int64_t n_files;
    int64_t n_bytes; // of text
};

// vocab_size: rows of the model's embedding, 0 = no check. STATUS_IO: a file cannot be read. STATUS_FORMAT: it is empty,
// not UTF-8 (the message gives the byte) or not JSON lines with "text". STATUS_INVALID: a token the model does not have.
enum status corpus_read(const struct tokenizer *tokenizer, const char *const *paths, int64_t n_paths,
                        int64_t vocab_size, struct corpus **out);
void corpus_free(struct corpus *corpus);

// How many windows there are. STATUS_INVALID: none, since no file has seq_len tokens.
enum status corpus_windows(const struct corpus *corpus, int64_t seq_len, int64_t *n_windows);

// Window i, [seq_len], borrowed; 0 <= i < n_windows.
const int32_t *corpus_window(const struct corpus *corpus, int64_t seq_len, int64_t i);

// A corpus of N windows of seq_len tokens, round(share N) of them the first ones of `second`, the others those of `first`, spread evenly among each
// other; N as large as both allow, at most `most` (0 = no limit). Its windows are for this seq_len. 0 <= share <= 1. STATUS_INVALID: the texts are
// too short for one window.
enum status corpus_mix(const struct corpus *first, const struct corpus *second, double share, int64_t seq_len,
                       int64_t most, struct corpus **out);

// Windows first .. first + n - 1 in an order that `seed` decides: tokens [n, seq_len]. What is drawn with other `first` shares
// no window. STATUS_INVALID: there are not so many.
enum status corpus_draw(const struct corpus *corpus, int64_t seq_len, uint64_t seed, int64_t first, int64_t n,
                        int32_t *tokens);

// That order of the n_windows, [n_windows]; free with free().
int64_t *corpus_order(int64_t n_windows, uint64_t seed);

#endif
