// Values of command-line options, read strictly: the whole string, inside the range, or one line on stderr and exit
// status 2. `option` is how the user wrote it: "--bits".
#ifndef DQ_DATA_ARGS_H
#define DQ_DATA_ARGS_H

#include <stdint.h>

// "discquant: error: …; try --help" and exit 2.
_Noreturn void args_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

int64_t args_integer(const char *option, const char *text, int64_t min, int64_t max);

// 0 to 2^63 - 1.
uint64_t args_seed(const char *option, const char *text);

// Finite; min and max are allowed values.
double args_number(const char *option, const char *text, double min, double max);

// Index of `text` in choices, written "rtn|gptq|discquant|qat".
int args_choice(const char *option, const char *text, const char *choices);

#endif
