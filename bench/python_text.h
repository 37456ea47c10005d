// Text as Python's str treats it, where tasks of lm-evaluation-harness depend on it. UTF-8; strings returned are new.
#ifndef DQ_BENCH_PYTHON_TEXT_H
#define DQ_BENCH_PYTHON_TEXT_H

#include <stdbool.h>

// White space at the beginning of `text`: Unicode's, and U+001C to U+001F.
bool python_space_at(const char *text);
const char *python_behind_space(const char *text); // the first character that is none
const char *python_end(const char *text);          // behind the last one that is none

char *python_strip(const char *text);
char *python_replace(const char *text, const char *from, const char *to); // every occurrence, from the left

#endif
