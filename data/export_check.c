#include "data/export_parts.h"

#include <string.h>

struct grid_facts grid_facts_of(const struct codebook *book) {
    static const struct {
        const char *kind;
        struct grid_facts facts;
    } known[] = {
        {"block", {.fp16_scales = true}},
        {"asymmetric", {.fp16_scales = true, .zero_points = true}},
        {"nf4", {.fp16_scales = true}},
        {"q4_0", {.fp16_scales = true}},
        {"q4_1", {.fp16_scales = true, .fp16_offsets = true}},
        {"q8_0", {.fp16_scales = true}},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(known[i].kind, book->kind) == 0) return known[i].facts;
    return (struct grid_facts){0};
}

int code_shift(const struct codebook *book) { return (int)book->levels[0] + (1 << (book->bits - 1)); }

// What GPTQ and compressed-tensors ask of a grid: scale (code - zero) with fp16 scales.
static enum status integers_fit(const struct codebook *book, const char *format) {
    struct grid_facts facts = grid_facts_of(book);
    if (!codebook_is_integer(book))
        return status_set(STATUS_UNSUPPORTED,
                          "--export %s: cannot hold the grid %s: its levels are no consecutive integers", format,
                          book->kind);
    if (book->has_offset ? !facts.zero_points : !facts.fp16_scales)
        return status_set(STATUS_UNSUPPORTED, "--export %s: cannot hold the grid %s: its %s", format, book->kind,
                          book->has_offset ? "minima are no whole multiples of the scale"
                                           : "scales are no fp16 numbers");
    if (!book->has_offset && (code_shift(book) < 0 || code_shift(book) + book->n_levels > 1 << book->bits))
        return status_set(STATUS_UNSUPPORTED, "--export %s: cannot hold the grid %s: its levels leave %d bits", format,
                          book->kind, book->bits);
    return STATUS_OK;
}

enum status gptq_fits(const struct codebook *book, const char *name, int64_t rows, int64_t cols) {
    enum status status = STATUS_OK;
    TRY(integers_fit(book, "gptq"));
    if (book->bits != 2 && book->bits != 3 && book->bits != 4 && book->bits != 8)
        TRY(status_set(STATUS_UNSUPPORTED, "--export gptq: has 2, 3, 4 and 8 bits, not %d", book->bits));
    if (rows % 32 || cols % 32)
        TRY(status_set(STATUS_UNSUPPORTED,
                       "--export gptq: '%s' is %lld x %lld; the format packs multiples of 32 inputs and outputs", name,
                       (long long)rows, (long long)cols));
    if (book->group_size > 0 && cols % book->group_size)
        TRY(status_set(STATUS_UNSUPPORTED, "--export gptq: '%s' has %lld inputs, no multiple of the group size %lld",
                       name, (long long)cols, (long long)book->group_size));
done:
    return status;
}

enum status packed_fits(const struct codebook *book, const char *name, int64_t rows, int64_t cols) {
    enum status status = STATUS_OK;
    (void)rows;
    TRY(integers_fit(book, "compressed-tensors"));
    if (book->group_size > 0 && cols % book->group_size)
        TRY(status_set(STATUS_UNSUPPORTED,
                       "--export compressed-tensors: '%s' has %lld inputs, no multiple of the group size %lld", name,
                       (long long)cols, (long long)book->group_size));
done:
    return status;
}

// The shapes of the matrices that are rounded, which are those of any layer.
static int layer_shapes(const struct transformer_config *c, struct codes_shape shapes[7]) {
    int64_t q = c->heads * c->head_dim, kv = c->kv_heads * c->head_dim, wide = c->intermediate;
    int n = 0;
    if (c->architecture == ARCHITECTURE_PHI3) {
        shapes[n++] = (struct codes_shape){"qkv_proj", q + 2 * kv, c->hidden};
        shapes[n++] = (struct codes_shape){"gate_up_proj", 2 * wide, c->hidden};
    } else {
        shapes[n++] = (struct codes_shape){"q_proj", q, c->hidden};
        shapes[n++] = (struct codes_shape){"k_proj", kv, c->hidden};
        shapes[n++] = (struct codes_shape){"v_proj", kv, c->hidden};
        shapes[n++] = (struct codes_shape){"gate_proj", wide, c->hidden};
        shapes[n++] = (struct codes_shape){"up_proj", wide, c->hidden};
    }
    shapes[n++] = (struct codes_shape){"o_proj", c->hidden, q};
    shapes[n++] = (struct codes_shape){"down_proj", c->hidden, wide};
    return n;
}

enum status export_check(const struct export_set *set, const struct codebook *book, const char *model) {
    enum status status = STATUS_OK;
    struct transformer_config config;
    struct codes_shape shapes[7];
    TRY(model_folder_read_config(model, &config));
    for (int i = 0; i < EXPORT_FORMATS && config.rotation != ROTATION_NONE; i++)
        if (set->wanted[i])
            TRY(status_set(
                STATUS_UNSUPPORTED,
                "--export %s: has no place for rotated weights, which %s holds; model-hf beside it is the same "
                "model rotated back",
                export_names[i], model));
    for (int i = 0, n = layer_shapes(&config, shapes); i < n; i++) {
        const struct codes_shape *s = &shapes[i];
        if (set->wanted[EXPORT_GPTQ]) TRY(gptq_fits(book, s->name, s->rows, s->cols));
        if (set->wanted[EXPORT_COMPRESSED_TENSORS]) TRY(packed_fits(book, s->name, s->rows, s->cols));
    }
    if (set->wanted[EXPORT_GGUF]) TRY(gguf_fits(book, &config, model));
done:
    return status;
}
