// UTF-8: validity, code points, white space.
#ifndef DQ_DATA_UTF8_H
#define DQ_DATA_UTF8_H

#include <stdbool.h>
#include <stdint.h>

// Offset of the first byte that does not belong to a valid sequence, or -1 when all do. Overlong forms, surrogates and
// values above U+10FFFF are invalid.
int64_t utf8_invalid_at(const char *text, int64_t n_bytes);

// Length of the sequence that starts at `text`, n_bytes > 0. Not valid: the length of the longest start of a sequence
// found there, at least 1 ("maximal subpart" of the Unicode standard, what one U+FFFD stands for).
int utf8_sequence(const char *text, int64_t n_bytes, bool *valid);

// Writes one code point; returns its length.
int utf8_put(uint32_t point, char out[4]);

// White_Space of the Unicode standard (unchanged since 6.3: U+180E is none).
bool utf8_is_space(uint32_t point);

// For valid text only: length of the sequence that begins with this byte, and its code point.
static inline int utf8_length(char first) {
    unsigned char c = (unsigned char)first;
    return c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
}

static inline uint32_t utf8_point(const char *text) {
    const unsigned char *s = (const unsigned char *)text;
    if (s[0] < 0x80) return s[0];
    if (s[0] < 0xe0) return (uint32_t)(s[0] & 0x1f) << 6 | (s[1] & 0x3f);
    if (s[0] < 0xf0) return (uint32_t)(s[0] & 0x0f) << 12 | (uint32_t)(s[1] & 0x3f) << 6 | (s[2] & 0x3f);
    return (uint32_t)(s[0] & 0x07) << 18 | (uint32_t)(s[1] & 0x3f) << 12 | (uint32_t)(s[2] & 0x3f) << 6 | (s[3] & 0x3f);
}

#endif
