// Normalizers, and replacing in general.
#include "data/tokenizer_parts.h"

#include <string.h>

static const char WHAT[] = "a normalized text";

enum status text_replace(struct buffer *out, const char *text, int64_t n, struct text from, struct text to) {
    enum status status = STATUS_OK;
    TRY(buffer_reserve(out, n, WHAT));
    for (const char *end = text + n, *at; text < end; text = at + from.n) {
        at = from.n == 1 ? memchr(text, from.bytes[0], (size_t)(end - text))
                         : memmem(text, (size_t)(end - text), from.bytes, (size_t)from.n);
        TRY(buffer_append(out, text, (at ? at : end) - text, WHAT));
        if (!at) break;
        TRY(buffer_append(out, to.bytes, to.n, WHAT));
    }
done:
    return status;
}

enum status normalize(const struct tokenizer *t, const char *text, int64_t n, struct buffer work[2], const char **out,
                      int64_t *n_out) {
    enum status status = STATUS_OK;
    for (int i = 0; i < t->n_normal; i++) {
        const struct normal_step *step = &t->normal[i];
        struct buffer *to = &work[i % 2];
        to->n_bytes = 0;
        TRY(buffer_reserve(to, 1, WHAT));
        if (step->from.n > 0) {
            TRY(text_replace(to, text, n, step->from, step->to));
        } else if (n > 0) {
            TRY(buffer_append(to, step->to.bytes, step->to.n, WHAT));
            TRY(buffer_append(to, text, n, WHAT));
        }
        text = to->bytes, n = to->n_bytes;
    }
    *out = text;
    *n_out = n;
done:
    return status;
}
