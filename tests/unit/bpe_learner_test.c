// Learning a vocabulary, and the tokenizer.json that comes of it.
#include "tests/check.h"

#include "core/base/mem.h"
#include "core/base/rng.h"
#include "data/bpe_learner.h"
#include "data/json.h"
#include "data/tokenizer.h"
#include "data/utf8.h"

static char *learn(const char *const *texts, int n, int64_t vocab_size) {
    struct bpe_learner *learner = bpe_learner_new();
    char *json = NULL;
    for (int i = 0; i < n; i++) check_ok(bpe_learner_add(learner, texts[i], (int64_t)strlen(texts[i])));
    check_ok(bpe_learner_finish(learner, vocab_size, &json));
    bpe_learner_free(learner);
    return json;
}

static struct tokenizer *tokenizer_of(const char *json) {
    struct tokenizer *tokenizer = NULL;
    check_ok(tokenizer_parse(json, (int64_t)strlen(json), "learnt", &tokenizer));
    return tokenizer;
}

static void check_tokens(const struct tokenizer *t, const char *text, const int32_t *want, int64_t n) {
    struct token_list list = {0};
    check_ok(tokenizer_encode(t, text, (int64_t)strlen(text), true, &list));
    assert_int_equal(list.n_tokens, n);
    assert_memory_equal(list.tokens, want, (size_t)n * sizeof *want);
    token_list_free(&list);
}

static void check_round_trip(const struct tokenizer *t, const char *text, int64_t n) {
    struct token_list list = {0};
    char *back = NULL;
    int64_t n_back = 0;
    check_ok(tokenizer_encode(t, text, n, true, &list));
    check_ok(tokenizer_decode(t, list.tokens, list.n_tokens, true, &back, &n_back));
    assert_int_equal(n_back, n);
    assert_memory_equal(back, text, (size_t)n);
    mem_buffer_free(back);
    token_list_free(&list);
}

// "▁aab" three times and "▁ab" once: a 7 times, b 4 times. First ▁ a (4 times, as a b, but of smaller ids), then a b (3, as
// ▁a a), then ▁a ab; ▁a b stands once only.
static void merges_are_the_ones_found_by_hand(void **state) {
    (void)state;
    char *json = learn((const char *[]){"aab aab aab ab"}, 1, 512);
    struct tokenizer *t = tokenizer_of(json);
    const char *want[] = {"▁", "a", "b", "▁a", "ab", "▁aab"};
    for (int i = 0; i < 6; i++) assert_int_equal(tokenizer_id(t, want[i]), 259 + i);
    assert_int_equal(tokenizer_vocab_size(t), 265);
    assert_int_equal(tokenizer_id(t, "<unk>"), 0);
    assert_int_equal(tokenizer_id(t, "<s>"), 1);
    assert_int_equal(tokenizer_id(t, "</s>"), 2);
    assert_int_equal(tokenizer_id(t, "<0x0A>"), 3 + 10);
    check_tokens(t, "aab ab\nba", (const int32_t[]){1, 264, 262, 261, 13, 261, 260}, 7);
    check_tokens(t, "c", (const int32_t[]){1, 259, 3 + 'c'}, 3);
    tokenizer_free(t);
    free(json);
    json = learn((const char *[]){"aab aab aab ab"}, 1, 263);
    t = tokenizer_of(json);
    assert_int_equal(tokenizer_vocab_size(t), 263);
    assert_int_equal(tokenizer_id(t, "ab"), -1);
    tokenizer_free(t);
    free(json);
}

static void only_the_counts_of_words_matter(void **state) {
    (void)state;
    char *a = learn((const char *[]){"Tom has a hat", "Ann has 12 hats.\nTom sat", "a cat that sat"}, 3, 300);
    char *b = learn((const char *[]){"a cat that sat", "Tom has a hat", "Ann has 12 hats.\nTom sat"}, 3, 300);
    assert_string_equal(a, b);
    free(a);
    free(b);
}

// Every merge is of pieces of one word: letters or signs, with at most one ▁ before them, and no digits.
static void merges_stay_inside_words(void **state) {
    (void)state;
    const char *text =
        "2024 20 2024 -- -- --x--x \"Hi.\" \"Hi.\"\n\nHi.  Hi.  Hi. don't don't 12:30 12:30 a1 a1 \n\t\n\t ▁▁ ▁▁";
    char *json = learn(&text, 1, 400);
    json_t *root = NULL, *model = NULL, *merges = NULL, *merge;
    size_t i;
    check_ok(json_read_buffer(json, (int64_t)strlen(json), "learnt", &root));
    check_ok(json_get_object(root, "learnt", "model", &model));
    check_ok(json_get_array(model, "learnt", "merges", &merges));
    assert_true(json_array_size(merges) > 3);
    json_array_foreach(merges, i, merge) {
        const char *pair = json_string_value(merge), *right = strchr(pair, ' ') + 1;
        char piece[64];
        snprintf(piece, sizeof piece, "%.*s%s", (int)(right - 1 - pair), pair, right);
        const char *at = strncmp(piece, "▁", 3) == 0 ? piece + 3 : piece;
        assert_null(strstr(at, "▁"));
        int letters = 0, signs = 0;
        for (; *at; at++) {
            assert_true((*at < '0' || *at > '9') && *at > ' ');
            if ((*at | 32) >= 'a' && (*at | 32) <= 'z')
                letters++;
            else
                signs++;
        }
        assert_true(letters == 0 || signs == 0);
    }
    json_decref(root);
    free(json);
}

static void texts_come_back_from_their_tokens(void **state) {
    (void)state;
    char *json =
        learn((const char *[]){"Once upon a time, there was “a” cat. It was 3 years old.\nQ: How old?\nA: 3"}, 1, 320);
    struct tokenizer *t = tokenizer_of(json);
    struct rng rng = {.seed = 6, .stream = RNG_TEST};
    for (uint64_t k = 0; k < 300; k++) {
        char text[256];
        int64_t n = 0;
        for (uint64_t i = 0; i < 40; i++) {
            uint32_t bits = rng_bits(rng, 40 * k + i), point = bits % 5 ? bits / 5 % 0x7F + 1 : bits / 5 % 0xD000 + 1;
            if (point == 0x2581 || point == '<') point = 'x'; // the space of the vocabulary; <s> would be no text
            n += utf8_put(point, text + n);
        }
        check_round_trip(t, text, n);
    }
    check_round_trip(t, "", 0);
    tokenizer_free(t);
    free(json);
}

static void hostile_texts_are_learnt_from_or_refused(void **state) {
    (void)state;
    struct bpe_learner *learner = bpe_learner_new();
    char *json = NULL;
    check_ok(bpe_learner_add(learner, "", 0));
    check_fails(bpe_learner_finish(learner, 300, &json), STATUS_INVALID);
    check_fails(bpe_learner_add(learner, "ab\xFF", 3), STATUS_FORMAT);
    check_fails(bpe_learner_add(learner, "\xE2\x96", 2), STATUS_FORMAT);
    bpe_learner_free(learner);
    const char *texts[] = {"x", " ", "\n", "9", "▁", "\x7F", "<s><0x41><unk>", "\\\"/\x01"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        json = learn(&texts[i], 1, BPE_VOCAB_MIN);
        tokenizer_free(tokenizer_of(json));
        free(json);
    }
    char *word = mem_new(100001, 1); // one long word
    memset(word, 'a', 100000);
    json = learn((const char *const *)&word, 1, 280);
    struct tokenizer *t = tokenizer_of(json);
    check_round_trip(t, word, 100000);
    tokenizer_free(t);
    free(json);
    free(word);
}

static void every_allocation_may_fail(void **state) {
    (void)state;
    int64_t k = 0;
    for (bool failed = true; failed; k++) {
        enum status status = STATUS_OK;
        struct bpe_learner *learner = bpe_learner_new();
        char *json = NULL;
        int64_t before = mem_buffer_bytes();
        mem_fail_at(k);
        TRY(bpe_learner_add(learner, "a rose is a rose is a rose", 26));
        TRY(bpe_learner_finish(learner, 300, &json));
    done:
        mem_fail_at(-1);
        failed = status != STATUS_OK;
        if (failed) assert_int_equal(status, STATUS_NO_MEMORY);
        bpe_learner_free(learner);
        free(json);
        assert_int_equal(mem_buffer_bytes(), before);
    }
    assert_true(k > 10);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merges_are_the_ones_found_by_hand),
        cmocka_unit_test(only_the_counts_of_words_matter),
        cmocka_unit_test(merges_stay_inside_words),
        cmocka_unit_test(texts_come_back_from_their_tokens),
        cmocka_unit_test(hostile_texts_are_learnt_from_or_refused),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
