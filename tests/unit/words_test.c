// The parts of the tokenizer against independent definitions: merging, cutting, UTF-8, what is special.
#include "tests/check.h"

#include "core/base/mem.h"
#include "core/base/rng.h"
#include "data/tokenizer.h"
#include "data/utf8.h"

#include <time.h>

enum { MERGES_MAX = 40, TOKEN_MAX = 24 };

// A random BPE over the letters a … d: token i < 4 is a letter, token 4 + k what merge k makes.
struct random_bpe {
    char tokens[4 + MERGES_MAX][TOKEN_MAX];
    int left[MERGES_MAX], right[MERGES_MAX];
    int n_merges;
    struct tokenizer *tokenizer;
};

static int token_find(const struct random_bpe *bpe, const char *text) {
    for (int i = 0; i < 4 + bpe->n_merges; i++)
        if (strcmp(bpe->tokens[i], text) == 0) return i;
    return -1;
}

static void random_bpe_make(struct random_bpe *bpe, uint64_t seed) {
    struct rng rng = {.seed = seed, .stream = RNG_TEST};
    char json[8192];
    int at = sprintf(json, "{\"model\":{\"vocab\":{\"a\":0,\"b\":1,\"c\":2,\"d\":3");
    bpe->n_merges = 0;
    for (int i = 0; i < 4; i++) sprintf(bpe->tokens[i], "%c", 'a' + i);
    for (uint64_t k = 0; k < 60 && bpe->n_merges < MERGES_MAX; k++) {
        int n = 4 + bpe->n_merges, left = (int)(rng_bits(rng, 2 * k) % (uint32_t)n),
            right = (int)(rng_bits(rng, 2 * k + 1) % (uint32_t)n);
        char made[2 * TOKEN_MAX];
        snprintf(made, sizeof made, "%s%s", bpe->tokens[left], bpe->tokens[right]);
        if (strlen(made) >= TOKEN_MAX || token_find(bpe, made) >= 0) continue;
        memcpy(bpe->tokens[n], made, strlen(made) + 1);
        at += snprintf(json + at, sizeof json - (size_t)at, ",\"%s\":%d", made, n);
        bpe->left[bpe->n_merges] = left, bpe->right[bpe->n_merges++] = right;
    }
    at += snprintf(json + at, sizeof json - (size_t)at, "},\"merges\":[");
    for (int k = 0; k < bpe->n_merges; k++)
        at += snprintf(json + at, sizeof json - (size_t)at, "%s\"%s %s\"", k ? "," : "", bpe->tokens[bpe->left[k]],
                       bpe->tokens[bpe->right[k]]);
    at += snprintf(json + at, sizeof json - (size_t)at, "]}}");
    check_ok(tokenizer_parse(json, at, "random", &bpe->tokenizer));
}

// The definition: as long as there is a pair with a merge, merge the leftmost pair of least rank.
static int merge_slowly(const struct random_bpe *bpe, const char *text, int32_t *tokens) {
    int n = 0;
    for (; text[n]; n++) tokens[n] = text[n] - 'a';
    for (;;) {
        int best = bpe->n_merges, where = -1;
        for (int i = 0; i + 1 < n; i++)
            for (int k = 0; k < best; k++)
                if (bpe->left[k] == tokens[i] && bpe->right[k] == tokens[i + 1]) best = k, where = i;
        if (where < 0) return n;
        tokens[where] = 4 + best;
        memmove(tokens + where + 1, tokens + where + 2, (size_t)(n - where - 2) * sizeof *tokens);
        n--;
    }
}

static void merging_follows_its_definition(void **state) {
    (void)state;
    for (uint64_t seed = 0; seed < 60; seed++) {
        static struct random_bpe bpe;
        random_bpe_make(&bpe, seed);
        struct rng rng = {.seed = seed, .stream = RNG_TEST + 1};
        for (uint64_t which = 0; which < 40; which++) {
            char text[400];
            int32_t want[400];
            int n = (int)(rng_bits(rng, which * 1000) % 399);
            uint32_t letters = 1 + rng_bits(rng, which * 1000 + 1) % 4;
            for (int i = 0; i < n; i++) text[i] = (char)('a' + rng_bits(rng, which * 1000 + 2 + (uint64_t)i) % letters);
            text[n] = 0;
            struct token_list list = {0};
            check_ok(tokenizer_encode(bpe.tokenizer, text, n, true, &list));
            assert_int_equal(list.n_tokens, merge_slowly(&bpe, text, want));
            assert_memory_equal(list.tokens, want, (size_t)list.n_tokens * sizeof *want);
            token_list_free(&list);
        }
        tokenizer_free(bpe.tokenizer);
    }
}

// Least CPU seconds of three for one word of n letters that cannot be cut, since "ab" and "ba" both have merges.
static double word_seconds(const struct tokenizer *t, const char *text, int64_t n) {
    double least = INFINITY;
    for (int i = 0; i < 3; i++) {
        struct token_list list = {0};
        clock_t start = clock();
        check_ok(tokenizer_encode(t, text, n, true, &list));
        double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
        assert_true(list.n_tokens < n);
        token_list_free(&list);
        if (seconds < least) least = seconds;
    }
    return least;
}

// Processor time, not the clock on the wall, so that a busy machine does not matter. Four times the length takes about
// 4.4 times the steps, and a quadratic algorithm 16 times; caches cost something too.
static void a_word_of_a_megabyte_is_merged_in_n_log_n(void **state) {
    (void)state;
    static const char json[] =
        "{\"model\":{\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\"ba\":3,\"aa\":4,\"bb\":5,\"abba\":6,\"aaaa\":7,\"bbba\":8},"
        "\"merges\":[\"a b\",\"b a\",\"a a\",\"b b\",\"ab ba\",\"aa aa\",\"bb ba\"]}}";
    enum { N = 1 << 20 };
    struct rng rng = {.seed = 1, .stream = RNG_TEST};
    struct tokenizer *t = NULL;
    check_ok(tokenizer_parse(json, sizeof json - 1, "ab", &t));
    char *text = mem_new(N, 1);
    for (int i = 0; i < N; i++) text[i] = "ab"[rng_bits(rng, (uint64_t)i) & 1];
    double part = word_seconds(t, text, N / 4), whole = word_seconds(t, text, N);
    if (whole > 10 * part) print_error("%.3f s for 256 K letters, %.3f s for 1 M\n", part, whole);
    assert_true(whole <= 10 * part);
    free(text);
    tokenizer_free(t);
}

static void utf8_is_judged_as_the_standard_says(void **state) {
    (void)state;
    int64_t n_valid = 0;
    for (uint32_t point = 0; point < 0x120000; point++) { // written by hand, also where that is not allowed
        char bytes[5] = {0};
        int n = utf8_put(point, bytes);
        bool valid = utf8_invalid_at(bytes, n) < 0;
        assert_int_equal(valid, point < 0xd800 || (point > 0xdfff && point < 0x110000));
        if (!valid) continue;
        n_valid++;
        assert_int_equal(utf8_point(bytes), point);
        assert_int_equal(utf8_length(bytes[0]), n);
    }
    assert_int_equal(n_valid, 0x110000 - 0x800);
    static const struct {
        const char *text;
        int parts; // how many U+FFFD: Unicode 15, table 3-8 and its neighbours
    } broken[] = {{"\xc0\xaf", 2},     {"\xe0\x80\xbf", 3},     {"\xf0\x81\x82", 3},
                  {"\xed\xa0\x80", 3}, {"\xf4\x91\x92\x93", 4}, {"\xe1\x80\xe2\xf0\x91\x92\xf1\xbf", 4},
                  {"\xf0\x90\x8d", 1}};
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        int parts = 0;
        for (int64_t at = 0, n = (int64_t)strlen(broken[i].text); at < n; parts++) {
            bool valid;
            at += utf8_sequence(broken[i].text + at, n - at, &valid);
            assert_false(valid);
        }
        assert_int_equal(parts, broken[i].parts);
    }
}

static void white_space_is_25_characters(void **state) {
    (void)state;
    int n = 0;
    for (uint32_t point = 0; point < 0x110000; point++) n += utf8_is_space(point);
    assert_int_equal(n, 25);
    assert_false(utf8_is_space(0x180e));
    assert_true(utf8_is_space(0x85));
}

static void the_last_of_repeated_merges_counts(void **state) {
    (void)state;
    static const char json[] =
        "{\"model\":{\"vocab\":{\"a\":0,\"b\":1,\"c\":2,\"ab\":3,\"bc\":4},\"merges\":[\"a b\",\"b c\",\"a b\"]}}";
    struct tokenizer *t = NULL;
    struct token_list list = {0};
    check_ok(tokenizer_parse(json, sizeof json - 1, "repeated", &t));
    check_ok(tokenizer_encode(t, "abc", 3, true, &list));
    assert_int_equal(list.n_tokens, 2);
    assert_int_equal(list.tokens[1], 4);
    token_list_free(&list);
    tokenizer_free(t);
}

static void an_empty_text_has_only_special_tokens(void **state) {
    (void)state;
    static const char json[] = "{\"model\":{\"vocab\":{\"a\":0},\"merges\":[]},\"added_tokens\":[{\"id\":1,\"content\":"
                               "\"<s>\",\"special\":true}],"
                               "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{"
                               "\"id\":\"<s>\"}},{\"Sequence\":{\"id\":\"A\"}}],"
                               "\"special_tokens\":{\"<s>\":{\"ids\":[1,1]}}}}";
    struct tokenizer *t = NULL;
    struct token_list list = {0};
    char *text = NULL;
    int64_t n_bytes = -1;
    check_ok(tokenizer_parse(json, sizeof json - 1, "empty", &t));
    assert_int_equal(tokenizer_vocab_size(t), 2);
    assert_int_equal(tokenizer_id(t, "<s>"), 1);
    assert_int_equal(tokenizer_id(t, "b"), -1);
    check_ok(tokenizer_encode(t, "", 0, true, &list));
    assert_int_equal(list.n_tokens, 2);
    token_list_free(&list);
    check_ok(tokenizer_encode(t, NULL, 0, false, &list));
    assert_int_equal(list.n_tokens, 0);
    check_ok(tokenizer_decode(t, list.tokens, 0, false, &text, &n_bytes));
    assert_int_equal(n_bytes, 0);
    assert_string_equal(text, "");
    mem_buffer_free(text);
    token_list_free(&list);
    tokenizer_free(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merging_follows_its_definition),
        cmocka_unit_test(a_word_of_a_megabyte_is_merged_in_n_log_n),
        cmocka_unit_test(utf8_is_judged_as_the_standard_says),
        cmocka_unit_test(white_space_is_25_characters),
        cmocka_unit_test(the_last_of_repeated_merges_counts),
        cmocka_unit_test(an_empty_text_has_only_special_tokens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
