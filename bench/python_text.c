#include "bench/python_text.h"

#include "core/base/mem.h"
#include "data/utf8.h"

#include <stdio.h>
#include <string.h>

bool python_space_at(const char *text) { return (*text >= 0x1c && *text <= 0x1f) || utf8_is_space(utf8_point(text)); }

const char *python_behind_space(const char *text) {
    while (*text && python_space_at(text)) text += utf8_length(*text);
    return text;
}

const char *python_end(const char *text) {
    const char *end = text;
    for (const char *c = text; *c; c += utf8_length(*c))
        if (!python_space_at(c)) end = c + utf8_length(*c);
    return end;
}

char *python_strip(const char *text) {
    text = python_behind_space(text);
    return mem_string_n(text, (size_t)(python_end(text) - text));
}

char *python_replace(const char *text, const char *from, const char *to) {
    char *out = NULL;
    size_t n = 0, length = strlen(from);
    FILE *stream = open_memstream(&out, &n);
    REQUIRE(stream, "out of memory");
    for (const char *found; (found = strstr(text, from)); text = found + length) {
        fwrite(text, 1, (size_t)(found - text), stream);
        fputs(to, stream);
    }
    fputs(text, stream);
    fclose(stream);
    return out;
}
