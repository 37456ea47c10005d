// Broken and hostile tokenizer files, texts and corpora. Every one is refused with the right status and one line that
// names the file and the trouble.
#include "tests/faults/hostile.h"

#include "data/corpus.h"
#include "data/tokenize.h"
#include "data/tokenizer.h"

// A sound tokenizer, whose parts the cases replace.
#define VOCAB "{\"a\":0,\"b\":1,\"ab\":2,\"<u>\":3}"
#define MODEL_WITH(more) "{\"type\":\"BPE\",\"vocab\":" VOCAB ",\"merges\":[\"a b\"]" more "}"
#define MODEL MODEL_WITH("")
#define WITH(more) "{\"model\":" MODEL "," more "}"
#define PRE(step) WITH("\"pre_tokenizer\":" step)
#define REGEX(pattern)                                                                                                 \
    PRE("{\"type\":\"Split\",\"pattern\":{\"Regex\":\"" pattern "\"},\"behavior\":\"Isolated\",\"invert\":false}")
#define ADDED(tokens) WITH("\"added_tokens\":[" tokens "]")
#define TEMPLATE(single, special)                                                                                      \
    WITH("\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":" single ",\"special_tokens\":" special "}")
#define DECODER(step) WITH("\"decoder\":" step)

static const struct tokenizer_case {
    const char *json, *says;
    enum status status;
} cases[] = {
    {"", "JSON", STATUS_FORMAT},
    {"{", "JSON", STATUS_FORMAT},
    {"[]", "object", STATUS_FORMAT},
    {"{} {}", "JSON", STATUS_FORMAT},
    {"{\"model\":\"\xff\"}", "JSON", STATUS_FORMAT},
    {"{}", "\"model\" is missing", STATUS_FORMAT},
    {"{\"model\":null}", "\"model\"", STATUS_FORMAT},
    {"{\"model\":[]}", "\"model\"", STATUS_FORMAT},
    {WITH("\"version\":\"2.0\""), "2.0", STATUS_UNSUPPORTED},
    {WITH("\"version\":1"), "version", STATUS_FORMAT},
    // the model
    {"{\"model\":{\"type\":\"Unigram\",\"vocab\":[]}}", "Unigram", STATUS_UNSUPPORTED},
    {"{\"model\":{\"type\":\"WordPiece\"}}", "WordPiece", STATUS_UNSUPPORTED},
    {"{\"model\":{\"type\":7}}", "type", STATUS_FORMAT},
    {"{\"model\":{\"type\":\"BPE\",\"merges\":[]}}", "vocab", STATUS_FORMAT},
    {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0}}}", "merges", STATUS_FORMAT},
    {"{\"model\":{\"vocab\":{},\"merges\":[]}}", "empty", STATUS_FORMAT},
    {"{\"model\":{\"vocab\":[],\"merges\":[]}}", "vocab", STATUS_FORMAT},
    {"{\"model\":{\"vocab\":{\"a\":\"0\"},\"merges\":[]}}", "'a'", STATUS_FORMAT},
    {"{\"model\":{\"vocab\":{\"a\":0.5},\"merges\":[]}}", "'a'", STATUS_FORMAT},
    {"{\"model\":{\"vocab\":{\"a\":-1},\"merges\":[]}}", "-1", STATUS_FORMAT},
    {"{\"model\":{\"vocab\":{\"a\":4294967295},\"merges\":[]}}", "4294967295", STATUS_FORMAT},
    {"{\"model\":{\"vocab\":{\"a\":99999999999999999999},\"merges\":[]}}", "JSON", STATUS_FORMAT},
    {"{\"model\":{\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]}}", "same id 0", STATUS_FORMAT},
    {"{\"model\":{\"vocab\":{\"a\":0,\"a\":1},\"merges\":[]}}", "JSON", STATUS_FORMAT},
    {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[\"a b\"]}}", "'b'", STATUS_FORMAT},
    {"{\"model\":{\"vocab\":{\"a\":0,\"b\":1},\"merges\":[\"a b\"]}}", "'ab'", STATUS_FORMAT},
    {"{\"model\":{\"vocab\":{\"a\":0,\"b\":1},\"merges\":[[\"a\",\"b\",\"c\"]]}}", "merge 0", STATUS_FORMAT},
    {"{\"model\":{\"vocab\":{\"a\":0,\"aa\":1},\"merges\":[\"a a\",[\"a\",\"a\"]]}}", "merge 1", STATUS_FORMAT},
    {"{\"model\":{\"vocab\":{\"a\":0,\"aa\":1},\"merges\":[\"a a a\"]}}", "merge 0", STATUS_FORMAT},
    {"{\"model\":{\"vocab\":{\"a\":0,\"aa\":1},\"merges\":[\"a\"]}}", "merge 0", STATUS_FORMAT},
    {"{\"model\":{\"vocab\":{\"a\":0,\"\":1},\"merges\":[[\"a\",\"\"]]}}", "merge 0", STATUS_FORMAT},
    {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[7]}}", "merge 0", STATUS_FORMAT},
    {"{\"model\":" MODEL_WITH(",\"dropout\":0.1") "}", "dropout", STATUS_UNSUPPORTED},
    {"{\"model\":" MODEL_WITH(",\"dropout\":\"no\"") "}", "dropout", STATUS_FORMAT},
    {"{\"model\":" MODEL_WITH(",\"continuing_subword_prefix\":\"##\"") "}", "##", STATUS_UNSUPPORTED},
    {"{\"model\":" MODEL_WITH(",\"end_of_word_suffix\":\"</w>\"") "}", "</w>", STATUS_UNSUPPORTED},
    {"{\"model\":" MODEL_WITH(",\"byte_fallback\":1") "}", "byte_fallback", STATUS_FORMAT},
    {"{\"model\":" MODEL_WITH(",\"unk_token\":{}") "}", "unk_token", STATUS_FORMAT},
    // added tokens
    {WITH("\"added_tokens\":{}"), "added_tokens", STATUS_FORMAT},
    {ADDED("7"), "object", STATUS_FORMAT},
    {ADDED("{\"id\":4}"), "content", STATUS_FORMAT},
    {ADDED("{\"content\":\"x\"}"), "\"id\"", STATUS_FORMAT},
    {ADDED("{\"id\":7,\"content\":\"x\"}"), "says id 7", STATUS_FORMAT},
    {ADDED("{\"id\":-4,\"content\":\"x\"}"), "says id -4", STATUS_FORMAT},
    {ADDED("{\"id\":1,\"content\":\"a\"}"), "says id 1", STATUS_FORMAT},
    {ADDED("{\"id\":4,\"content\":\"x\"},{\"id\":5,\"content\":\"x\"}"), "same text 'x'", STATUS_FORMAT},
    {ADDED("{\"id\":4,\"content\":\"x\",\"special\":\"yes\"}"), "special", STATUS_FORMAT},
    {"{\"model\":{\"vocab\":{\"a\":0,\"b\":2},\"merges\":[]},\"added_tokens\":[{\"id\":2,\"content\":\"x\"}]}",
     "another token", STATUS_FORMAT},
    {"{\"model\":" MODEL ",\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"String\":\"x\"},\"content\":\"\"},"
     "\"added_tokens\":[{\"id\":4,\"content\":\"x\",\"normalized\":true}]}",
     "normalized", STATUS_UNSUPPORTED},
    // normalizers and pre_tokenizers
    {WITH("\"normalizer\":{\"type\":\"NFC\"}"), "NFC", STATUS_UNSUPPORTED},
    {WITH("\"normalizer\":{}"), "type", STATUS_FORMAT},
    {WITH("\"normalizer\":[]"), "normalizer", STATUS_FORMAT},
    {WITH("\"normalizer\":{\"type\":\"Sequence\"}"), "normalizers", STATUS_FORMAT},
    {WITH("\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[1]}"), "object", STATUS_FORMAT},
    {WITH("\"normalizer\":{\"type\":\"Prepend\"}"), "prepend", STATUS_FORMAT},
    {WITH("\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"a+\"},\"content\":\"\"}"), "a+",
     STATUS_UNSUPPORTED},
    {WITH("\"normalizer\":{\"type\":\"Replace\",\"pattern\":{},\"content\":\"\"}"), "pattern", STATUS_FORMAT},
    {PRE("{\"type\":\"BertPreTokenizer\"}"), "BertPreTokenizer", STATUS_UNSUPPORTED},
    {PRE("{\"type\":\"Split\",\"pattern\":{\"String\":\"\"},\"behavior\":\"Isolated\",\"invert\":false}"), "empty",
     STATUS_UNSUPPORTED},
    {PRE("{\"type\":\"Split\",\"pattern\":{\"String\":\"a\"},\"behavior\":\"Sideways\",\"invert\":false}"), "Sideways",
     STATUS_FORMAT},
    {PRE("{\"type\":\"Split\",\"pattern\":{\"String\":\"a\"},\"behavior\":\"Isolated\"}"), "invert", STATUS_FORMAT},
    {PRE("{\"type\":\"Metaspace\",\"replacement\":\"__\"}"), "one character", STATUS_FORMAT},
    {PRE("{\"type\":\"Metaspace\",\"replacement\":\"\"}"), "one character", STATUS_FORMAT},
    {PRE("{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"last\"}"), "last", STATUS_FORMAT},
    {PRE("{\"type\":\"Metaspace\",\"replacement\":\"_\",\"add_prefix_space\":false}"), "contradicts", STATUS_FORMAT},
    {PRE("{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"ByteLevel\",\"add_prefix_space\":false},"
         "{\"type\":\"Digits\",\"individual_digits\":true}]}"),
     "behind ByteLevel", STATUS_UNSUPPORTED},
    // patterns
    {REGEX(""), "empty pattern", STATUS_UNSUPPORTED},
    {REGEX("a("), "does not compile", STATUS_FORMAT},
    {REGEX("[a"), "without end", STATUS_UNSUPPORTED},
    {REGEX("a\\\\"), "nothing behind it", STATUS_UNSUPPORTED},
    {REGEX("\\\\p{Nonsense}"), "does not compile", STATUS_FORMAT},
    {REGEX("\\\\p{L"), "braces", STATUS_UNSUPPORTED},
    {REGEX("\\\\w+"), "\\w", STATUS_UNSUPPORTED},
    {REGEX("[a-z&&[^b]]"), "&&", STATUS_UNSUPPORTED},
    {REGEX("[a[b]]"), "'['", STATUS_UNSUPPORTED},
    {REGEX("a{2}+"), "{2}+", STATUS_UNSUPPORTED},
    {REGEX("a{,2}"), "'{'", STATUS_UNSUPPORTED},
    {REGEX("(*NO_JIT)a"), "(*", STATUS_UNSUPPORTED},
    {REGEX("(?<n>a)"), "(?<", STATUS_UNSUPPORTED},
    // post_processors and decoders
    {WITH("\"post_processor\":{\"type\":\"RobertaProcessing\"}"), "RobertaProcessing", STATUS_UNSUPPORTED},
    {TEMPLATE("[]", "{}"), "0 times", STATUS_UNSUPPORTED},
    {TEMPLATE("[{\"Sequence\":{\"id\":\"B\"}}]", "{}"), "'B'", STATUS_UNSUPPORTED},
    {TEMPLATE("[{\"SpecialToken\":{\"id\":\"<s>\"}}]", "{}"), "<s>", STATUS_FORMAT},
    {TEMPLATE("[{\"SpecialToken\":{\"id\":\"x\"}}]", "{\"x\":{\"ids\":[4]}}"), "'x'", STATUS_FORMAT},
    {TEMPLATE("[{\"SpecialToken\":{\"id\":\"x\"}}]", "{\"x\":{\"ids\":[-1]}}"), "'x'", STATUS_FORMAT},
    {TEMPLATE("[{}]", "{}"), "neither", STATUS_FORMAT},
    {TEMPLATE("\"$A\"", "{}"), "single", STATUS_FORMAT},
    {DECODER("{\"type\":\"WordPiece\"}"), "WordPiece", STATUS_UNSUPPORTED},
    {DECODER("{\"type\":\"Strip\",\"content\":\" \",\"start\":-1,\"stop\":0}"), "negative", STATUS_FORMAT},
    {DECODER("{\"type\":\"Strip\",\"content\":\"ab\",\"start\":1,\"stop\":0}"), "one character", STATUS_FORMAT},
    {DECODER("{\"type\":\"Sequence\",\"decoders\":{}}"), "decoders", STATUS_FORMAT},
};

static void broken_tokenizers_are_refused(void **state) {
    (void)state;
    struct tokenizer *t = NULL;
    check_ok(tokenizer_parse(WITH("\"decoder\":null"), strlen(WITH("\"decoder\":null")), "t.json", &t));
    tokenizer_free(t);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        t = NULL;
        enum status status = tokenizer_parse(cases[i].json, (int64_t)strlen(cases[i].json), "t.json", &t);
        message_check(cases[i].json, status, cases[i].status, "t.json", cases[i].says);
        assert_null(t);
    }
}

// A sound file, cut off at every byte.
static void no_beginning_of_a_tokenizer_is_one(void **state) {
    (void)state;
    static const char whole[] = ADDED("{\"id\":4,\"content\":\"x\"}");
    struct tokenizer *t = NULL;
    for (size_t n = 0; n + 1 < sizeof whole - 1; n++)
        check_fails(tokenizer_parse(whole, (int64_t)n, "t.json", &t), STATUS_FORMAT);
    check_ok(tokenizer_parse(whole, sizeof whole - 1, "t.json", &t));
    tokenizer_free(t);
}

static char *put(char *to, const char *text, int times) {
    size_t n = strlen(text);
    for (int i = 0; i < times; i++, to += n) memcpy(to, text, n);
    *to = 0;
    return to;
}

static void deep_nesting_and_many_steps_are_refused(void **state) {
    (void)state;
    static char json[6000000];
    struct tokenizer *t = NULL;
    for (int depth = 10; depth <= 100000; depth *= 100) {
        char *to = put(json, "{\"model\":" MODEL ",\"normalizer\":", 1);
        to = put(to, "{\"type\":\"Sequence\",\"normalizers\":[", depth);
        to = put(to, "{\"type\":\"NFC\"}", 1);
        put(put(to, "]}", depth), "}", 1);
        enum status status = tokenizer_parse(json, (int64_t)strlen(json), "t.json", &t);
        message_check("nested", status, depth <= 1000 ? STATUS_UNSUPPORTED : STATUS_FORMAT, "t.json", NULL);
    }
    char *to = put(json, "{\"model\":" MODEL ",\"decoder\":{\"type\":\"Sequence\",\"decoders\":[", 1);
    put(put(to, "{\"type\":\"Fuse\"},", 100), "{\"type\":\"Fuse\"}]}}", 1);
    message_check("many", tokenizer_parse(json, (int64_t)strlen(json), "t.json", &t), STATUS_UNSUPPORTED, "t.json",
                  "16");
}

static struct tokenizer *tokenizer_of(const char *json) {
    struct tokenizer *t = NULL;
    check_ok(tokenizer_parse(json, (int64_t)strlen(json), "t.json", &t));
    return t;
}

static void a_pattern_that_backtracks_without_end_gives_up(void **state) {
    (void)state;
    struct tokenizer *t = tokenizer_of(REGEX("(a+)+b|(a|aa)+$x"));
    struct token_list list = {0};
    char text[5000];
    memset(text, 'a', sizeof text);
    message_check("backtracking", tokenizer_encode(t, text, sizeof text, true, &list), STATUS_UNSUPPORTED, "t.json",
                  "gives up");
    assert_null(list.tokens);
    tokenizer_free(t);
}

static void text_that_is_not_utf8_is_refused_with_its_place(void **state) {
    (void)state;
    static const struct {
        const char *text, *says;
    } texts[] = {
        {"abc\xff", "byte 3 is 0xFF"},      {"\x80", "byte 0"},          {"aaaaaaaaaaaaaaaa\xc3", "byte 16 is 0xC3"},
        {"\xc0\x80", "byte 0 is 0xC0"},     {"a\xed\xa0\x80", "byte 1"}, {"\xf4\x90\x80\x80", "byte 0"},
        {"\xe2\x96\x81\xe2\x96", "byte 3"}, {"\xf5", "byte 0"},          {"\xe0\x9f\xbf", "byte 0"},
    };
    struct tokenizer *t = tokenizer_of(WITH("\"decoder\":null"));
    struct token_list list = {0};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        enum status status = tokenizer_encode(t, texts[i].text, (int64_t)strlen(texts[i].text), true, &list);
        message_check(texts[i].says, status, STATUS_FORMAT, "UTF-8", texts[i].says);
    }
    tokenizer_free(t);
}

static void an_unk_token_outside_the_vocabulary_is_missed_only_when_needed(void **state) {
    (void)state;
    struct tokenizer *t = tokenizer_of("{\"model\":" MODEL_WITH(",\"unk_token\":\"<none>\"") "}");
    struct token_list list = {0};
    check_ok(tokenizer_encode(t, "abba", 4, true, &list));
    assert_int_equal(list.n_tokens, 3);
    token_list_free(&list);
    message_check("unknown", tokenizer_encode(t, "abc", 3, true, &list), STATUS_FORMAT, "t.json", "U+0063");
    tokenizer_free(t);
}

static void tokenizer_paths_that_hold_none_are_refused(void **state) {
    (void)state;
    char *folder = files_folder();
    struct tokenizer *t = NULL;
    message_check("no file", tokenizer_open(files_path(folder, "none.json"), &t), STATUS_IO, "none.json", NULL);
    message_check("empty folder", tokenizer_open(folder, &t), STATUS_IO, "tokenizer.json", NULL);
    assert_int_equal(mkdir(files_path(folder, "tokenizer.json"), 0700), 0);
    message_check("folder", tokenizer_open(folder, &t), STATUS_IO, "tokenizer.json", NULL);
    files_put(files_path(folder, "empty.json"), "", 0);
    message_check("empty file", tokenizer_open(files_path(folder, "empty.json"), &t), STATUS_FORMAT, "empty.json",
                  NULL);
    files_remove(folder);
}

static void broken_corpora_are_refused(void **state) {
    (void)state;
    static const struct {
        const char *name, *bytes, *says;
        enum status status;
    } files[] = {
        {"empty.txt", "", "empty", STATUS_FORMAT},
        {"latin1.txt", "ab\xe9 ab", "byte 2 is 0xE9", STATUS_FORMAT},
        {"empty.jsonl", "\n  \n", "empty", STATUS_FORMAT},
        {"text.jsonl", "{\"text\":\"ab\"}\nab\n", "text.jsonl:2", STATUS_FORMAT},
        {"list.jsonl", "[\"ab\"]\n", "list.jsonl:1", STATUS_FORMAT},
        {"key.jsonl", "{\"text\":\"ab\"}\n\n{\"content\":\"ab\"}\n", "key.jsonl:3", STATUS_FORMAT},
        {"number.jsonl", "{\"text\":1}\n", "text", STATUS_FORMAT},
        {"large.txt", "ab<u>", "model's tokenizer", STATUS_INVALID},
    };
    struct tokenizer *t = tokenizer_of(ADDED("{\"id\":3,\"content\":\"<u>\"}"));
    char *folder = files_folder();
    struct corpus *corpus = NULL;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        const char *path = files_path(folder, files[i].name);
        files_put(path, files[i].bytes, strlen(files[i].bytes));
        message_check(files[i].name, corpus_read(t, &path, 1, 3, &corpus), files[i].status, files[i].name,
                      files[i].says);
        assert_null(corpus);
    }
    const char *missing = files_path(folder, "missing.txt"), *good = files_path(folder, "good.txt");
    files_put(good, "ababa", 5);
    message_check("missing", corpus_read(t, (const char *[]){good, missing}, 2, 0, &corpus), STATUS_IO, "missing.txt",
                  NULL);
    message_check("folder", corpus_read(t, (const char *[]){folder}, 1, 0, &corpus), STATUS_IO, folder, NULL);
    check_ok(corpus_read(t, &good, 1, 0, &corpus));
    int64_t n;
    message_check("short", corpus_windows(corpus, 4, &n), STATUS_INVALID, "good.txt", "3 tokens");
    corpus_free(corpus);
    tokenizer_free(t);
    files_remove(folder);
}

static void broken_ids_are_refused(void **state) {
    (void)state;
    static const char *const inputs[] = {"1 2 x", "4", "-1", "1,2", "99999999999999999999", "1 2.0", "0x1", "+1"};
    char *folder = files_folder();
    const char *json = files_path(folder, "t.json"), *ids = files_path(folder, "ids");
    files_put(json, WITH("\"decoder\":null"), strlen(WITH("\"decoder\":null")));
    struct tokenize_options options = {.tokenizer = json, .input = ids, .decode = true};
    for (size_t i = 0; i < sizeof inputs / sizeof *inputs; i++) {
        files_put(ids, inputs[i], strlen(inputs[i]));
        message_check(inputs[i], tokenize_print(&options, stdout), STATUS_FORMAT, "ids", "no token id");
    }
    files_remove(folder);
}

// Every large allocation of an encoding and a decoding fails once.
static void running_out_of_memory_is_an_error(void **state) {
    (void)state;
    struct tokenizer *t = tokenizer_of(
        WITH("\"decoder\":{\"type\":\"ByteLevel\"},\"normalizer\":{\"type\":\"Prepend\",\"prepend\":\"b\"}"));
    int64_t before = mem_buffer_bytes();
    int n_failed = 0;
    for (bool more = true; more; n_failed += more) {
        struct token_list list = {0};
        char *text = NULL;
        int64_t n_bytes = 0;
        mem_fail_at(n_failed);
        enum status status = tokenizer_encode(t, "aabbab ab", 9, true, &list);
        if (status == STATUS_OK) status = tokenizer_decode(t, list.tokens, list.n_tokens, true, &text, &n_bytes);
        mem_fail_at(-1);
        more = status != STATUS_OK;
        if (more) assert_int_equal(status, STATUS_NO_MEMORY);
        token_list_free(&list);
        mem_buffer_free(text);
        assert_int_equal(mem_buffer_bytes(), before);
    }
    assert_true(n_failed >= 8);
    tokenizer_free(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(broken_tokenizers_are_refused),
        cmocka_unit_test(no_beginning_of_a_tokenizer_is_one),
        cmocka_unit_test(deep_nesting_and_many_steps_are_refused),
        cmocka_unit_test(a_pattern_that_backtracks_without_end_gives_up),
        cmocka_unit_test(text_that_is_not_utf8_is_refused_with_its_place),
        cmocka_unit_test(an_unk_token_outside_the_vocabulary_is_missed_only_when_needed),
        cmocka_unit_test(tokenizer_paths_that_hold_none_are_refused),
        cmocka_unit_test(broken_corpora_are_refused),
        cmocka_unit_test(broken_ids_are_refused),
        cmocka_unit_test(running_out_of_memory_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
