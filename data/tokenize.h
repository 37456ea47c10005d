// What `discquant-data tokenize` does: text to token ids, or back.
#ifndef DQ_DATA_TOKENIZE_H
#define DQ_DATA_TOKENIZE_H

#include "core/base/status.h"

#include <stdbool.h>
#include <stdio.h>

struct tokenize_options {
    const char *tokenizer; // model folder or tokenizer.json
    const char *input;     // a file; NULL or "-" is stdin
    bool decode;           // the input is ids, separated by white space
    bool no_special;       // without the tokens put around a text; decoding: without special tokens
    bool count;            // only how many tokens and bytes, and the seconds it took
};

// Prints the ids on one line, separated by spaces; or, decoding, the text as it is. With `count`: "N tokens, N bytes, N s" (without
// loading the tokenizer and reading the input).
// Nothing is printed on failure.
enum status tokenize_print(const struct tokenize_options *options, FILE *out);

#endif
