#include "data/tokenizer_parts.h"

#include "core/base/mem.h"
#include "data/file.h"
#include "data/json.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static enum status tokenizer_load(const json_t *root, const char *name, struct tokenizer **out) {
    enum status status = STATUS_OK;
    json_t *model = NULL;
    const char *version = NULL;
    struct tokenizer *t = mem_new(1, sizeof *t);
    t->name = mem_string(name);
    TRY(json_get_string_or(root, name, "version", "1.0", &version));
    if (strcmp(version, "1.0") != 0)
        TRY(status_set(STATUS_UNSUPPORTED, "%s: version '%s' is not supported (only 1.0)", name, version));
    TRY(json_get_object(root, name, "model", &model));
    TRY(bpe_load(&t->bpe, model, name));
    TRY(normalizer_load(t, root));
    TRY(added_load(t, root));
    TRY(pre_tokenizer_load(t, root));
    TRY(post_processor_load(t, root));
    TRY(decoder_load(t, root));
    *out = t;
    t = NULL;
done:
    tokenizer_free(t);
    return status;
}

enum status tokenizer_parse(const void *bytes, int64_t n_bytes, const char *name, struct tokenizer **out) {
    enum status status = STATUS_OK;
    json_t *root = NULL;
    TRY(json_read_buffer(bytes, n_bytes, name, &root));
    TRY(tokenizer_load(root, name, out));
done:
    json_decref(root);
    return status;
}

enum status tokenizer_open(const char *path, struct tokenizer **out) {
    enum status status = STATUS_OK;
    json_t *root = NULL;
    struct stat about;
    bool folder = stat(path, &about) == 0 && S_ISDIR(about.st_mode);
    char *file = folder ? mem_format("%s/tokenizer.json", path) : mem_string(path);
    TRY(json_read_file(file, &root));
    TRY(tokenizer_load(root, file, out));
done:
    json_decref(root);
    free(file);
    return status;
}

void tokenizer_free(struct tokenizer *t) {
    if (!t) return;
    bpe_clear(&t->bpe);
    added_clear(&t->added);
    free(t->added_by_id);
    for (int i = 0; i < t->n_normal; i++) {
        free(t->normal[i].from.bytes);
        free(t->normal[i].to.bytes);
    }
    for (int i = 0; i < t->n_pre; i++) {
        pattern_free(t->pre[i].pattern);
        free(t->pre[i].literal.bytes);
    }
    for (int i = 0; i < t->n_decode; i++) {
        free(t->decode[i].from.bytes);
        free(t->decode[i].to.bytes);
    }
    buffer_free(&t->before);
    buffer_free(&t->after);
    free(t->name);
    free(t);
}

int32_t tokenizer_vocab_size(const struct tokenizer *t) { return t->vocab_size; }

int32_t tokenizer_id(const struct tokenizer *t, const char *token) {
    for (int64_t i = 0; i < t->added.n; i++)
        if (strcmp(t->added.tokens[i].content.bytes, token) == 0) return t->added.tokens[i].id;
    return vocab_find(&t->bpe.vocab, token, (int64_t)strlen(token));
}

void token_list_free(struct token_list *list) {
    mem_buffer_free(list->tokens);
    *list = (struct token_list){0};
}

// ---- the ByteLevel alphabet: printable bytes of Latin-1 stand for themselves, the other 68 follow from U+0100 on

uint32_t byte_level_point(unsigned char byte) {
    if (byte <= 0x20) return 0x100u + byte;
    if (byte <= 0x7e) return byte;
    if (byte <= 0xa0) return 0x100u + 33 + (byte - 0x7fu);
    return byte == 0xad ? 0x143 : byte;
}

int byte_level_byte(uint32_t point) {
    if ((point > 0x20 && point <= 0x7e) || (point > 0xa0 && point <= 0xff && point != 0xad)) return (int)point;
    if (point >= 0x100 && point <= 0x120) return (int)(point - 0x100);
    if (point >= 0x121 && point <= 0x142) return (int)(point - 0x121 + 0x7f);
    return point == 0x143 ? 0xad : -1;
}
