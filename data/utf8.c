#include "data/utf8.h"

#include <string.h>

int utf8_sequence(const char *text, int64_t n_bytes, bool *valid) {
    const unsigned char *s = (const unsigned char *)text;
    unsigned char c = s[0], low = 0x80, high = 0xbf; // range of the second byte
    int length = 0;
    *valid = false;
    if (c < 0x80) return *valid = true, 1;
    if (c >= 0xc2 && c <= 0xdf)
        length = 2;
    else if (c >= 0xe0 && c <= 0xef)
        length = 3;
    else if (c >= 0xf0 && c <= 0xf4)
        length = 4;
    else
        return 1;
    if (c == 0xe0) low = 0xa0;
    if (c == 0xed) high = 0x9f;
    if (c == 0xf0) low = 0x90;
    if (c == 0xf4) high = 0x8f;
    for (int i = 1; i < length; i++) {
        if (i >= n_bytes || s[i] < low || s[i] > high) return i;
        low = 0x80, high = 0xbf;
    }
    *valid = true;
    return length;
}

int64_t utf8_invalid_at(const char *text, int64_t n_bytes) {
    for (int64_t i = 0; i < n_bytes;) {
        uint64_t eight;
        if (i + 8 <= n_bytes && (memcpy(&eight, text + i, 8), (eight & 0x8080808080808080u) == 0)) {
            i += 8;
            continue;
        }
        bool valid;
        int length = utf8_sequence(text + i, n_bytes - i, &valid);
        if (!valid) return i;
        i += length;
    }
    return -1;
}

int utf8_put(uint32_t point, char out[4]) {
    if (point < 0x80) return out[0] = (char)point, 1;
    int length = point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
    static const unsigned char mark[5] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (int i = length - 1; i > 0; i--, point >>= 6) out[i] = (char)(0x80 | (point & 0x3f));
    out[0] = (char)(mark[length] | point);
    return length;
}

bool utf8_is_space(uint32_t point) {
    if (point < 0x80) return point == ' ' || (point >= 0x09 && point <= 0x0d);
    return point == 0x85 || point == 0xa0 || point == 0x1680 || (point >= 0x2000 && point <= 0x200a) ||
           point == 0x2028 || point == 0x2029 || point == 0x202f || point == 0x205f || point == 0x3000;
}
