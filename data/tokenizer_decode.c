// Tokens to text. The tokens' texts are a list of pieces; each decoder step makes a new list of it, and at the end the
// pieces are joined.
#include "data/tokenizer_parts.h"

#include "core/base/mem.h"
#include "data/utf8.h"

#include <string.h>

static const char WHAT[] = "a decoded text";
static const char REPLACEMENT[] = "\xef\xbf\xbd"; // U+FFFD

struct pieces {
    struct buffer text;
    struct buffer ends; // int64_t: piece i is text[ends[i - 1], ends[i])
};

static enum status piece_end(struct pieces *pieces) {
    return buffer_append(&pieces->ends, &pieces->text.n_bytes, sizeof(int64_t), WHAT);
}

static int64_t pieces_n(const struct pieces *pieces) { return pieces->ends.n_bytes / (int64_t)sizeof(int64_t); }

static struct text piece_at(const struct pieces *pieces, int64_t i) {
    const int64_t *ends = (const int64_t *)(void *)pieces->ends.bytes;
    int64_t start = i > 0 ? ends[i - 1] : 0;
    return (struct text){pieces->text.bytes + start, ends[i] - start};
}

static enum status tokens_spell(const struct tokenizer *t, const int32_t *tokens, int64_t n, bool skip_special,
                                struct pieces *out) {
    enum status status = STATUS_OK;
    for (int64_t i = 0; i < n; i++) {
        if (tokens[i] < 0 || tokens[i] >= t->vocab_size) continue;
        int32_t index = t->added_by_id[tokens[i]];
        const struct token_text *plain = tokens[i] < t->bpe.vocab.n_ids ? &t->bpe.vocab.tokens[tokens[i]] : NULL;
        struct text text = {NULL, -1};
        if (index >= 0)
            text = t->added.tokens[index].match;
        else if (plain)
            text = (struct text){t->bpe.vocab.texts + plain->at, plain->n};
        if (text.n < 0 || (index >= 0 && skip_special && t->added.tokens[index].skipped)) continue;
        TRY(buffer_append(&out->text, text.bytes, text.n, WHAT));
        TRY(piece_end(out));
    }
done:
    return status;
}

// ---- steps

// All bytes become one piece. A piece with a character outside the alphabet (an added token) is taken as it is.
static enum status step_byte_level(const struct pieces *in, struct pieces *out) {
    enum status status = STATUS_OK;
    struct buffer bytes = {0};
    TRY(buffer_reserve(&bytes, in->text.n_bytes + 1, WHAT));
    for (int64_t i = 0; i < pieces_n(in); i++) {
        struct text piece = piece_at(in, i);
        int64_t before = bytes.n_bytes, at = 0;
        for (int byte; at < piece.n; at += utf8_length(piece.bytes[at])) {
            if ((byte = byte_level_byte(utf8_point(piece.bytes + at))) < 0) break;
            bytes.bytes[bytes.n_bytes++] = (char)byte;
        }
        if (at == piece.n) continue;
        bytes.n_bytes = before;
        TRY(buffer_append(&bytes, piece.bytes, piece.n, WHAT));
    }
    for (int64_t i = 0; i < bytes.n_bytes;) {
        bool valid;
        int length = utf8_sequence(bytes.bytes + i, bytes.n_bytes - i, &valid);
        TRY(buffer_append(&out->text, valid ? bytes.bytes + i : REPLACEMENT, valid ? length : 3, WHAT));
        i += length;
    }
    TRY(piece_end(out));
done:
    buffer_free(&bytes);
    return status;
}

static int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

// The value of "<0x41>", or -1.
static int byte_of(struct text piece) {
    if (piece.n != 6 || memcmp(piece.bytes, "<0x", 3) != 0 || piece.bytes[5] != '>') return -1;
    int high = hex_digit(piece.bytes[3]), low = hex_digit(piece.bytes[4]);
    if (piece.bytes[3] == '+' && low >= 0) return low; // the reference's number parser takes a sign
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

// A run of byte tokens: its text if that is UTF-8, else one U+FFFD per byte.
static enum status bytes_put(struct pieces *out, struct buffer *bytes) {
    enum status status = STATUS_OK;
    if (bytes->n_bytes > 0 && utf8_invalid_at(bytes->bytes, bytes->n_bytes) < 0) {
        TRY(buffer_append(&out->text, bytes->bytes, bytes->n_bytes, WHAT));
        TRY(piece_end(out));
    } else {
        for (int64_t i = 0; i < bytes->n_bytes; i++) {
            TRY(buffer_append(&out->text, REPLACEMENT, 3, WHAT));
            TRY(piece_end(out));
        }
    }
    bytes->n_bytes = 0;
done:
    return status;
}

static enum status step_byte_fallback(const struct pieces *in, struct pieces *out) {
    enum status status = STATUS_OK;
    struct buffer bytes = {0};
    for (int64_t i = 0; i < pieces_n(in); i++) {
        struct text piece = piece_at(in, i);
        int byte = byte_of(piece);
        if (byte >= 0) {
            char c = (char)byte;
            TRY(buffer_append(&bytes, &c, 1, WHAT));
            continue;
        }
        TRY(bytes_put(out, &bytes));
        TRY(buffer_append(&out->text, piece.bytes, piece.n, WHAT));
        TRY(piece_end(out));
    }
    TRY(bytes_put(out, &bytes));
done:
    buffer_free(&bytes);
    return status;
}

static enum status step_fuse(const struct pieces *in, struct pieces *out) {
    enum status status = buffer_append(&out->text, in->text.bytes, in->text.n_bytes, WHAT);
    return status == STATUS_OK ? piece_end(out) : status;
}

static bool begins_with(struct text piece, struct text with) {
    return piece.n >= with.n && memcmp(piece.bytes, with.bytes, (size_t)with.n) == 0;
}

static struct text stripped(struct text piece, const struct decode_step *step) {
    struct text c = step->from;
    for (int64_t i = 0; i < step->start && begins_with(piece, c); i++) piece.bytes += c.n, piece.n -= c.n;
    for (int64_t i = 0; i < step->stop && piece.n >= c.n; i++) {
        if (memcmp(piece.bytes + piece.n - c.n, c.bytes, (size_t)c.n) != 0) break;
        piece.n -= c.n;
    }
    return piece;
}

static enum status step_each(const struct decode_step *step, const struct pieces *in, struct pieces *out) {
    enum status status = STATUS_OK;
    for (int64_t i = 0; i < pieces_n(in); i++) {
        static char space[] = " ";
        struct text piece = piece_at(in, i), to = step->to;
        if (step->kind == DECODE_STRIP) {
            piece = stripped(piece, step);
            TRY(buffer_append(&out->text, piece.bytes, piece.n, WHAT));
        } else {
            if (step->kind == DECODE_METASPACE) to = (struct text){space, i > 0 || !step->drop_first};
            TRY(text_replace(&out->text, piece.bytes, piece.n, step->from, to));
        }
        TRY(piece_end(out));
    }
done:
    return status;
}

static enum status step_run(const struct decode_step *step, const struct pieces *in, struct pieces *out) {
    switch (step->kind) {
    case DECODE_BYTE_LEVEL: return step_byte_level(in, out);
    case DECODE_BYTE_FALLBACK: return step_byte_fallback(in, out);
    case DECODE_FUSE: return step_fuse(in, out);
    case DECODE_REPLACE:
    case DECODE_STRIP:
    case DECODE_METASPACE: return step_each(step, in, out);
    }
    REQUIRE(false, "unknown decoder step");
    return STATUS_OK;
}

// Without a decoder the reference puts a space between tokens.
static enum status joined_by_space(const struct pieces *in, struct pieces *out) {
    enum status status = STATUS_OK;
    for (int64_t i = 0; i < pieces_n(in); i++) {
        struct text piece = piece_at(in, i);
        if (i > 0) TRY(buffer_append(&out->text, " ", 1, WHAT));
        TRY(buffer_append(&out->text, piece.bytes, piece.n, WHAT));
    }
done:
    return status;
}

enum status tokenizer_decode(const struct tokenizer *t, const int32_t *tokens, int64_t n_tokens, bool skip_special,
                             char **text, int64_t *n_bytes) {
    enum status status = STATUS_OK;
    struct pieces now = {0}, next = {0}, swap;
    TRY(buffer_reserve(&now.text, 1, WHAT));
    TRY(buffer_reserve(&next.text, 1, WHAT));
    TRY(tokens_spell(t, tokens, n_tokens, skip_special, &now));
    for (int i = 0; i < t->n_decode + !t->has_decoder; i++) {
        next.text.n_bytes = next.ends.n_bytes = 0;
        if (t->has_decoder)
            TRY(step_run(&t->decode[i], &now, &next));
        else
            TRY(joined_by_space(&now, &next));
        swap = now, now = next, next = swap;
    }
    TRY(buffer_append(&now.text, "", 1, WHAT));
    *n_bytes = now.text.n_bytes - 1;
    *text = now.text.bytes;
    now.text = (struct buffer){0};
done:
    buffer_free(&now.text);
    buffer_free(&now.ends);
    buffer_free(&next.text);
    buffer_free(&next.ends);
    return status;
}
