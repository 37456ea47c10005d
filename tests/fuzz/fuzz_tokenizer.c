// A hostile tokenizer.json and a hostile text: what stands before the first zero byte is parsed, what stands behind it
// is encoded and decoded. Begin with the seeds in tests/fuzz/seeds_tokenizer and the words in tokenizer.dict.
#include "core/base/mem.h"
#include "data/tokenizer.h"

#include <stddef.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void roundtrip(const struct tokenizer *t, const char *text, int64_t n, bool special) {
    struct token_list list = {0};
    char *decoded = NULL;
    int64_t n_decoded = 0;
    if (tokenizer_encode(t, text, n, special, &list) == STATUS_OK) {
        for (int64_t i = 0; i < list.n_tokens; i++)
            REQUIRE(list.tokens[i] >= 0 && list.tokens[i] < tokenizer_vocab_size(t), "token outside the vocabulary");
        if (tokenizer_decode(t, list.tokens, list.n_tokens, special, &decoded, &n_decoded) == STATUS_OK)
            REQUIRE(decoded[n_decoded] == 0, "no zero byte behind the text");
    }
    mem_buffer_free(decoded);
    token_list_free(&list);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const uint8_t *zero = size ? memchr(data, 0, size) : NULL;
    size_t n_json = zero ? (size_t)(zero - data) : size;
    struct tokenizer *t = NULL;
    if (tokenizer_parse(data, (int64_t)n_json, "fuzz", &t) != STATUS_OK) return 0;
    if (zero) {
        int64_t n = (int64_t)(size - n_json - 1);
        roundtrip(t, (const char *)zero + 1, n < 2000 ? n : 2000, true);
        roundtrip(t, (const char *)zero + 1, n < 2000 ? n : 2000, false);
    }
    int32_t tokens[64]; // ids of any kind, also such that have no token
    size_t n_tokens = size / 4 < 64 ? size / 4 : 64;
    memcpy(tokens, data, n_tokens * 4);
    for (size_t i = 0; i < n_tokens; i += 2) tokens[i] &= 0x1f;
    char *decoded = NULL;
    int64_t n_decoded = 0;
    if (tokenizer_decode(t, tokens, (int64_t)n_tokens, false, &decoded, &n_decoded) == STATUS_OK)
        mem_buffer_free(decoded);
    tokenizer_free(t);
    return 0;
}
