// Tokens and decoded texts equal to those of the Hugging Face `tokenizers` library, for every path through a
// tokenizer.json. The expectations come from make_tokenizers.py, which also says what the files hold.
#include "tests/files.h"

#include "data/tokenizer.h"

enum { N_DECODED = 200 };

static const uint64_t FNV_START = 0xcbf29ce484222325u;

static uint64_t fnv(uint64_t h, const void *bytes, int64_t n) {
    const unsigned char *p = bytes;
    for (int64_t i = 0; i < n; i++) h = (h ^ p[i]) * 0x100000001b3u;
    return h;
}

static uint64_t fnv_size(uint64_t h, int64_t n) {
    unsigned char size[4] = {(unsigned char)n, (unsigned char)(n >> 8), (unsigned char)(n >> 16),
                             (unsigned char)(n >> 24)};
    return fnv(h, size, 4);
}

static uint64_t fnv_tokens(uint64_t h, const struct token_list *list) {
    h = fnv_size(h, list->n_tokens);
    for (int64_t i = 0; i < list->n_tokens; i++) h = fnv_size(h, list->tokens[i]);
    return h;
}

static uint64_t fnv_decoded(uint64_t h, const struct tokenizer *t, const int32_t *tokens, int64_t n) {
    for (int skip = 0; skip < 2; skip++) {
        char *text = NULL;
        int64_t n_bytes = 0;
        check_ok(tokenizer_decode(t, tokens, n, skip, &text, &n_bytes));
        h = fnv(fnv_size(h, n_bytes), text, n_bytes);
        mem_buffer_free(text);
    }
    return h;
}

// One line of strings.txt without its escapes, in place; returns the length.
static int64_t unescape(char *line) {
    char *to = line;
    for (char *at = line; *at; to++) {
        if (*at == '\\') {
            char hex[3] = {at[2], at[3], 0};
            *to = (char)strtol(hex, NULL, 16);
            at += 4;
        } else {
            *to = *at++;
        }
    }
    return to - line;
}

// Cuts the next line off; NULL at the end.
static char *line_next(char **rest) {
    if (!**rest) return NULL;
    char *line = *rest, *end = strchr(line, '\n');
    *rest = end ? end + 1 : line + strlen(line);
    if (end) *end = 0;
    return line;
}

static void tokens_print(const char *what, const struct token_list *list) {
    print_error("%s:", what);
    for (int64_t i = 0; i < list->n_tokens && i < 100; i++) print_error(" %d", (int)list->tokens[i]);
    print_error("\n");
}

static bool tokens_are(const struct token_list *list, const char *numbers) {
    int64_t n = 0;
    for (char *end; *numbers; numbers = end, n++) {
        long want = strtol(numbers, &end, 10);
        if (n >= list->n_tokens || list->tokens[n] != want) return false;
    }
    return n == list->n_tokens;
}

// Encodes and decodes one string and compares with "hash" or "hash id id …".
static bool string_is(const struct tokenizer *t, const char *text, int64_t n, const char *want) {
    struct token_list plain = {0}, special = {0};
    check_ok(tokenizer_encode(t, text, n, false, &plain));
    check_ok(tokenizer_encode(t, text, n, true, &special));
    uint64_t h = fnv_tokens(fnv_tokens(FNV_START, &plain), &special);
    h = fnv_decoded(h, t, special.tokens, special.n_tokens);
    char *shown = NULL;
    bool good = strtoull(want, &shown, 16) == h && (!*shown || tokens_are(&plain, shown));
    if (!good) {
        print_error("'%.*s' gives hash %016llx, want %s\n", (int)n, text, (unsigned long long)h, want);
        tokens_print("tokens", &plain);
    }
    token_list_free(&plain);
    token_list_free(&special);
    return good;
}

static struct tokenizer *golden_open(const char *name) {
    char path[4096], file[256];
    snprintf(file, sizeof file, "tests/golden/tokenizers/%s.json", name);
    struct tokenizer *t = NULL;
    check_ok(tokenizer_open(check_source(file, path, sizeof path), &t));
    return t;
}

static char *golden_text(const char *name) {
    char path[4096], file[256];
    snprintf(file, sizeof file, "tests/golden/tokenizers/%s.txt", name);
    char *text = files_bytes(check_source(file, path, sizeof path), NULL);
    assert_non_null(text);
    return text;
}

static void equals_hugging_face(void **state) {
    const char *name = *state;
    struct tokenizer *t = golden_open(name);
    char *strings = golden_text("strings"), *expected = golden_text(name), *line, *want;
    char *string_rest = strings, *expected_rest = expected;
    int n = 0, bad = 0;
    for (; (line = line_next(&string_rest)); n++) {
        assert_non_null(want = line_next(&expected_rest));
        int64_t n_bytes = unescape(line);
        bad += !string_is(t, line, n_bytes, want);
    }
    assert_true(n >= 2000);
    for (uint64_t which = 0; which < N_DECODED; which++) {
        int32_t ids[24];
        int64_t n_ids = (int64_t)(which % 24);
        uint64_t x = which;
        for (int64_t i = 0; i < n_ids; i++) {
            x = x * 6364136223846793005u + 1442695040888963407u;
            ids[i] = (int32_t)((x >> 33) % ((uint64_t)tokenizer_vocab_size(t) + 4));
        }
        uint64_t h = fnv_decoded(FNV_START, t, ids, n_ids);
        assert_non_null(want = line_next(&expected_rest));
        if (strtoull(want, NULL, 16) != h) print_error("random ids %d decode differently\n", (int)which), bad++;
    }
    assert_int_equal(bad, 0);
    free(strings);
    free(expected);
    tokenizer_free(t);
}

// ---- real tokenizers on real text; the digests are in shared.txt

// A tokenizer.json out of GPT-2's vocab.json and merges.txt.
static struct tokenizer *gpt2_open(void) {
    static const char rest[] =
        "],\"unk_token\":null},\"decoder\":{\"type\":\"ByteLevel\"},"
        "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true}}";
    char path[4096];
    char *vocab = files_bytes(check_shared("tokenizers/gpt2/vocab.json", path, sizeof path), NULL);
    char *merges = files_bytes(check_shared("tokenizers/gpt2/merges.txt", path, sizeof path), NULL);
    char *json = mem_new(strlen(vocab) + 4 * strlen(merges) + sizeof rest + 100, 1);
    char *to = json + sprintf(json, "{\"model\":{\"type\":\"BPE\",\"vocab\":%s,\"merges\":[\"#version: 0.2\"", vocab);
    char *lines = merges, *line;
    while ((line = line_next(&lines))) {
        if (!*line || strncmp(line, "#version", 8) == 0) continue;
        *to++ = ',', *to++ = '"';
        for (; *line; *to++ = *line++)
            if (*line == '"' || *line == '\\') *to++ = '\\';
        *to++ = '"';
    }
    strcpy(to, rest);
    struct tokenizer *t = NULL;
    check_ok(tokenizer_parse(json, (int64_t)strlen(json), "gpt2", &t));
    free(vocab);
    free(merges);
    free(json);
    return t;
}

static void digests_check(const char *name, struct tokenizer *t) {
    char *digests = golden_text("shared"), *rest = digests, *line, path[4096];
    int n_checked = 0;
    while ((line = line_next(&rest))) {
        char who[64], file[256];
        long long n_tokens;
        unsigned long long hash;
        assert_int_equal(sscanf(line, "%63s %255s %lld %llx", who, file, &n_tokens, &hash), 4);
        if (strcmp(who, name) != 0) continue;
        size_t n_bytes = 0;
        char *text = files_bytes(check_shared(file, path, sizeof path), &n_bytes);
        struct token_list list = {0};
        check_ok(tokenizer_encode(t, text, (int64_t)n_bytes, true, &list));
        assert_int_equal(list.n_tokens, n_tokens);
        assert_true(fnv_tokens(FNV_START, &list) == hash);
        token_list_free(&list);
        free(text);
        n_checked++;
    }
    assert_true(n_checked >= 3);
    tokenizer_free(t);
    free(digests);
}

static void stories260k_equals_hugging_face_on_whole_texts(void **state) {
    (void)state;
    char path[4096];
    struct tokenizer *t = NULL;
    check_ok(tokenizer_open(check_shared("models/stories260K", path, sizeof path), &t));
    assert_int_equal(tokenizer_vocab_size(t), 512);
    assert_int_equal(tokenizer_id(t, "<s>"), 1);
    digests_check("stories260K", t);
}

static void gpt2_equals_hugging_face_on_whole_texts(void **state) {
    (void)state;
    digests_check("gpt2", gpt2_open());
}

// ---- Llama 2: SentencePiece's file (protobuf) made a tokenizer.json

struct piece {
    const char *text;
    int64_t n;
    float score;
    int type; // 1: an ordinary one
};

static uint64_t varint(const unsigned char **at) {
    uint64_t value = 0;
    for (int shift = 0;; shift += 7) {
        value |= (uint64_t)(**at & 0x7f) << shift;
        if (!(*(*at)++ & 0x80)) return value;
    }
}

// The pieces are field 1 of the file, again and again; in them text is field 1, score field 2, type field 3.
static int64_t pieces_read(const unsigned char *at, const unsigned char *end, struct piece *pieces) {
    int64_t n = 0;
    while (at < end) {
        uint64_t tag = varint(&at), size = varint(&at);
        if (tag != (1 << 3 | 2)) break; // what follows the pieces is about training
        struct piece piece = {.type = 1};
        for (const unsigned char *stop = at + size; at < stop;) {
            uint64_t field = varint(&at);
            if (field == (1 << 3 | 2)) {
                piece.n = (int64_t)varint(&at);
                piece.text = (const char *)at;
                at += piece.n;
            } else if (field == (2 << 3 | 5)) {
                memcpy(&piece.score, at, 4);
                at += 4;
            } else {
                assert_int_equal(field, 3 << 3 | 0);
                piece.type = (int)varint(&at);
            }
        }
        pieces[n++] = piece;
    }
    return n;
}

static char *quoted(char *to, const char *text, int64_t n) {
    *to++ = '"';
    for (int64_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c < 0x20)
            to += sprintf(to, "\\u%04x", c);
        else if (c == '"' || c == '\\')
            *to++ = '\\', *to++ = (char)c;
        else
            *to++ = (char)c;
    }
    *to++ = '"';
    return to;
}

static int score_order(const void *a, const void *b) {
    const struct piece *x = *(const struct piece *const *)a, *y = *(const struct piece *const *)b;
    return x->score != y->score ? (x->score < y->score) - (x->score > y->score) : (x > y) - (x < y);
}

// Every way to put a piece together out of two others is a merge: pieces of higher score first, longest left part first.
static char *merges_put(char *to, const struct piece *pieces, int64_t n, const struct tokenizer *vocab) {
    const struct piece **sorted = mem_new((size_t)n, sizeof *sorted);
    int64_t n_sorted = 0;
    for (int64_t i = 0; i < n; i++)
        if (pieces[i].type == 1) sorted[n_sorted++] = &pieces[i];
    qsort(sorted, (size_t)n_sorted, sizeof *sorted, score_order);
    for (int64_t i = 0; i < n_sorted; i++) {
        const struct piece *piece = sorted[i];
        for (int64_t cut = piece->n - 1; cut > 0; cut--) {
            if (((unsigned char)piece->text[cut] & 0xc0) == 0x80) continue;
            char left[256], right[256];
            snprintf(left, sizeof left, "%.*s", (int)cut, piece->text);
            snprintf(right, sizeof right, "%.*s", (int)(piece->n - cut), piece->text + cut);
            if (tokenizer_id(vocab, left) < 0 || tokenizer_id(vocab, right) < 0) continue;
            *to++ = ',', *to++ = '[';
            to = quoted(to, left, cut);
            *to++ = ',';
            to = quoted(to, right, piece->n - cut);
            *to++ = ']';
        }
    }
    free(sorted);
    return to;
}

static void llama2_equals_hugging_face_on_whole_texts(void **state) {
    (void)state;
    static const char rest[] =
        "],\"unk_token\":\"<unk>\",\"fuse_unk\":true,\"byte_fallback\":true},"
        "\"added_tokens\":[{\"id\":1,\"content\":\"<s>\",\"special\":true,\"normalized\":false}],"
        "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":\"▁\"},"
        "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"▁\"}]},"
        "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<s>\"}},"
        "{\"Sequence\":{\"id\":\"A\"}}],\"special_tokens\":{\"<s>\":{\"ids\":[1]}}}}";
    char path[4096];
    size_t n_bytes = 0;
    char *model = files_bytes(check_shared("tokenizers/llama-2/tokenizer.model", path, sizeof path), &n_bytes);
    struct piece *pieces = mem_new(100000, sizeof *pieces);
    int64_t n = pieces_read((const unsigned char *)model, (const unsigned char *)model + n_bytes, pieces);
    assert_int_equal(n, 32000);
    char *json = mem_new(20000000, 1), *to = json + sprintf(json, "{\"model\":{\"type\":\"BPE\",\"vocab\":{"), *behind;
    for (int64_t i = 0; i < n; i++) {
        if (i > 0) *to++ = ',';
        to = quoted(to, pieces[i].text, pieces[i].n);
        to += sprintf(to, ":%d", (int)i);
    }
    struct tokenizer *vocab = NULL, *t = NULL;
    behind = to + sprintf(to, "},\"merges\":[");
    strcpy(behind, "]}}");
    check_ok(tokenizer_parse(json, (int64_t)strlen(json), "llama-2", &vocab));
    strcpy(merges_put(behind, pieces, n, vocab), rest);
    behind[0] = ' '; // the first comma
    check_ok(tokenizer_parse(json, (int64_t)strlen(json), "llama-2", &t));
    digests_check("llama-2", t);
    tokenizer_free(vocab);
    free(model);
    free(pieces);
    free(json);
}

#define SAME(name)                                                                                                     \
    { "equals_hugging_face_for_" name, equals_hugging_face, NULL, NULL, (void *)(uintptr_t)name }

int main(void) {
    const struct CMUnitTest tests[] = {
        SAME("llama3"), // ignore_merges, pattern and ByteLevel in a row
        SAME("llama3_merges"),
        SAME("gpt2"), // ByteLevel with its own pattern
        SAME("gpt2_prefix"),
        SAME("splits"), // every behavior of Split, Digits
        SAME("llama2"), // Prepend and Replace; one word per document, byte_fallback
        SAME("metaspace_first"),
        SAME("metaspace_first_split"),
        SAME("metaspace_always"),
        SAME("metaspace_never"),
        SAME("some_bytes"), // byte_fallback without all bytes: unknown tokens between them
        SAME("unknown"),    // no byte_fallback, unknown tokens side by side
        SAME("vanishing"),  // no unk_token
        cmocka_unit_test(stories260k_equals_hugging_face_on_whole_texts),
        cmocka_unit_test(gpt2_equals_hugging_face_on_whole_texts),
        cmocka_unit_test(llama2_equals_hugging_face_on_whole_texts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
