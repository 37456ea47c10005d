#include "core/base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static _Thread_local char message[1024];

// Keeps printable ASCII and well-formed UTF-8 sequences of two to four bytes; everything else becomes '?'.
static void message_clean(void) {
    unsigned char *s = (unsigned char *)message;
    while (*s) {
        int n = *s >= 0x20 && *s < 0x7F   ? 1
                : *s >= 0xC2 && *s < 0xE0 ? 2
                : (*s & 0xF0) == 0xE0     ? 3
                : *s >= 0xF0 && *s < 0xF5 ? 4
                                          : 0;
        int whole = n > 0;
        for (int i = 1; i < n && whole; i++) whole = (s[i] & 0xC0) == 0x80;
        if (n == 2 && *s == 0xC2 && whole) whole = s[1] >= 0xA0; // C1 control characters
        if (!whole) {
            *s = '?';
            n = 1;
        }
        s += n;
    }
}

enum status status_set(enum status code, const char *format, ...) {
    REQUIRE(code != STATUS_OK, "success carries no message");
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    message_clean();
    return code;
}

const char *status_message(void) { return message; }

void require_failed(const char *file, int line, const char *condition, const char *text) {
    fprintf(stderr, "%s:%d: requirement failed: %s (%s)\n", file, line, text, condition);
    abort();
}
