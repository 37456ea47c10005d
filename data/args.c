#include "data/args.h"

#include "core/base/progress.h"
#include "core/base/status.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Noreturn void args_fail(const char *format, ...) {
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    status_set(STATUS_INVALID, "%s", text); // makes it one clean line
    progress_clear();
    fprintf(stderr, "discquant: error: %s; try --help\n", status_message());
    exit(2);
}

int64_t args_integer(const char *option, const char *text, int64_t min, int64_t max) {
    char *end = NULL;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (isspace((unsigned char)*text) || end == text || *end) args_fail("%s '%s': is no whole number", option, text);
    if (errno == ERANGE || value < min || value > max) {
        if (max == INT64_MAX) args_fail("%s %s: must be at least %lld", option, text, (long long)min);
        args_fail("%s %s: must be from %lld to %lld", option, text, (long long)min, (long long)max);
    }
    return value;
}

uint64_t args_seed(const char *option, const char *text) { return (uint64_t)args_integer(option, text, 0, INT64_MAX); }

double args_number(const char *option, const char *text, double min, double max) {
    char *end = NULL;
    double value = strtod(text, &end);
    if (isspace((unsigned char)*text) || end == text || *end) args_fail("%s '%s': is no number", option, text);
    if (!isfinite(value)) args_fail("%s %s: must be finite", option, text);
    if (value < min || value > max) {
        if (max >= HUGE_VAL) args_fail("%s %s: must be at least %g", option, text, min);
        args_fail("%s %s: must be from %g to %g", option, text, min, max);
    }
    return value;
}

int args_choice(const char *option, const char *text, const char *choices) {
    size_t n = strlen(text);
    int index = 0;
    for (const char *at = choices; at; at = strchr(at, '|'), index++) {
        at += *at == '|';
        if (n > 0 && strncmp(at, text, n) == 0 && (at[n] == '|' || !at[n])) return index;
    }
    args_fail("%s '%s': must be one of %s", option, text, choices);
}
