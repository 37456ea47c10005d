#include "data/config.h"

#include "core/base/mem.h"
#include "data/file.h"
#include "data/json.h"

#include <math.h>
#include <string.h>

static const int64_t FILE_BYTES_MAX = 16 << 20;
static const int64_t POSITIONS_MAX = (int64_t)1 << 30, TOKEN_MAX = (int64_t)1 << 31;

// The file being read: what every function here needs for its messages.
struct reader {
    const char *where;
    json_t *root;
    bool phi3;
};

static enum status range_check(const struct reader *reader, const char *key, int64_t value, int64_t low, int64_t high) {
    if (value >= low && value <= high) return STATUS_OK;
    return status_set(STATUS_FORMAT, "%s: \"%s\" is %lld, must be %lld to %lld", reader->where, key, (long long)value,
                      (long long)low, (long long)high);
}

static enum status size_read(const struct reader *reader, const char *key, int64_t max, int64_t *out) {
    enum status status = STATUS_OK;
    int64_t value = 0;
    TRY(json_get_integer(reader->root, reader->where, key, &value));
    TRY(range_check(reader, key, value, 1, max));
    *out = value;
done:
    return status;
}

static enum status size_read_or(const struct reader *reader, const char *key, int64_t max, int64_t missing,
                                int64_t *out) {
    const json_t *value = json_object_get(reader->root, key);
    if (value && !json_is_null(value)) return size_read(reader, key, max, out);
    *out = missing;
    return STATUS_OK;
}

// A number in [low, high] of `object`.
static enum status number_read(const struct reader *reader, const json_t *object, const char *key, double low,
                               double high, double *out) {
    enum status status = STATUS_OK;
    double value = 0;
    TRY(json_get_number(object, reader->where, key, &value));
    if (!(value >= low && value <= high))
        TRY(status_set(STATUS_FORMAT, "%s: \"%s\" is %g, must be %g to %g", reader->where, key, value, low, high));
    *out = value;
done:
    return status;
}

static enum status unsupported(const struct reader *reader, const char *key, const char *value, const char *supported) {
    return status_set(STATUS_UNSUPPORTED, "%s: \"%s\" is %s; supported: %s", reader->where, key, value, supported);
}

// "rotated_" before the model type and the object "rotation": data/rotation.h writes both.
static enum status rotation_read(const struct reader *reader, enum rotation_kind *out) {
    enum status status = STATUS_OK;
    json_t *rotation = NULL;
    const char *transform = NULL;
    TRY(json_get_object(reader->root, reader->where, "rotation", &rotation));
    TRY(json_get_string(rotation, reader->where, "transform", &transform));
    if (strcmp(transform, "hadamard") == 0)
        *out = ROTATION_HADAMARD;
    else if (strcmp(transform, "hadamard-blocks") == 0)
        *out = ROTATION_HADAMARD_BLOCKS;
    else if (strcmp(transform, "hadamard-in") == 0)
        *out = ROTATION_HADAMARD_IN;
    else
        TRY(unsupported(reader, "transform", transform, "hadamard, hadamard-blocks, hadamard-in"));
done:
    return status;
}

static enum status architecture_read(struct reader *reader, struct transformer_config *config) {
    static const char rotated[] = "rotated_";
    enum status status = STATUS_OK;
    const char *type = NULL;
    TRY(json_get_string(reader->root, reader->where, "model_type", &type));
    if (strncmp(type, rotated, sizeof rotated - 1) == 0) {
        TRY(rotation_read(reader, &config->rotation));
        type += sizeof rotated - 1;
    }
    if (strcmp(type, "llama") == 0)
        config->architecture = ARCHITECTURE_LLAMA;
    else if (strcmp(type, "phi3") == 0)
        config->architecture = ARCHITECTURE_PHI3;
    else
        TRY(unsupported(reader, "model_type", type, "llama, phi3"));
    reader->phi3 = config->architecture == ARCHITECTURE_PHI3;
done:
    return status;
}

// Settings that Transformers has and the transformer here does not.
static enum status switches_check(const struct reader *reader) {
    enum status status = STATUS_OK;
    static const char *const biases[] = {"attention_bias", "mlp_bias"};
    for (int i = 0; i < 2; i++) {
        bool bias = false;
        TRY(json_get_bool_or(reader->root, reader->where, biases[i], false, &bias));
        if (bias) TRY(unsupported(reader, biases[i], "true", "false"));
    }
    const char *act = NULL;
    TRY(json_get_string_or(reader->root, reader->where, "hidden_act", "silu", &act));
    if (strcmp(act, "silu") != 0 && strcmp(act, "swish") != 0) TRY(unsupported(reader, "hidden_act", act, "silu"));
    json_t *quantization = NULL;
    TRY(json_get_object_or(reader->root, reader->where, "quantization_config", NULL, &quantization));
    if (quantization)
        TRY(unsupported(reader, "quantization_config", "there: the weights are quantized already", "null"));
done:
    return status;
}

// Bounds: every weight has at most 2^46 elements and a model at most 2^59, so bytes and FLOPs of a token fit int64_t.
static enum status sizes_read(const struct reader *reader, struct transformer_config *config) {
    enum status status = STATUS_OK;
    TRY(size_read(reader, "hidden_size", (int64_t)1 << 20, &config->hidden));
    TRY(size_read(reader, "intermediate_size", (int64_t)1 << 22, &config->intermediate));
    TRY(size_read(reader, "num_hidden_layers", (int64_t)1 << 12, &config->layers));
    TRY(size_read(reader, "num_attention_heads", (int64_t)1 << 14, &config->heads));
    TRY(size_read(reader, "vocab_size", (int64_t)1 << 26, &config->vocab));
    TRY(size_read(reader, "max_position_embeddings", POSITIONS_MAX, &config->max_positions));
    TRY(size_read_or(reader, "num_key_value_heads", (int64_t)1 << 14, config->heads, &config->kv_heads));
    if (config->hidden % config->heads)
        TRY(status_set(STATUS_FORMAT, "%s: \"hidden_size\" %lld is no multiple of \"num_attention_heads\" %lld",
                       reader->where, (long long)config->hidden, (long long)config->heads));
    if (config->heads % config->kv_heads)
        TRY(status_set(STATUS_FORMAT, "%s: \"num_attention_heads\" %lld is no multiple of \"num_key_value_heads\" %lld",
                       reader->where, (long long)config->heads, (long long)config->kv_heads));
    TRY(size_read_or(reader, "head_dim", 2 * ROPE_FACTORS_MAX, config->hidden / config->heads, &config->head_dim));
    TRY(range_check(reader, "head_dim", config->head_dim, 1, 2 * ROPE_FACTORS_MAX));
    if (config->head_dim % 2)
        TRY(status_set(STATUS_FORMAT, "%s: \"head_dim\" is %lld, must be even", reader->where,
                       (long long)config->head_dim));
    TRY(number_read(reader, reader->root, "rms_norm_eps", 1e-30, 1, &config->rms_eps));
    TRY(json_get_bool_or(reader->root, reader->where, "tie_word_embeddings", false, &config->tied));
    if (reader->phi3) TRY(size_read_or(reader, "sliding_window", (int64_t)1 << 40, 0, &config->window));
    if (config->window >= config->max_positions) config->window = 0;
done:
    return status;
}

static enum status token_read(const struct reader *reader, const char *key, const json_t *value, int64_t *out) {
    if (!json_is_integer(value))
        return status_set(STATUS_FORMAT, "%s: \"%s\" holds %s, must be a token number", reader->where, key,
                          json_kind(value));
    *out = (int64_t)json_integer_value(value);
    return range_check(reader, key, *out, 0, TOKEN_MAX);
}

// Numbers beyond the vocabulary occur in sound files (phi3's default 32000 beside a small vocabulary) and never match.
static enum status tokens_read(const struct reader *reader, struct transformer_config *config) {
    enum status status = STATUS_OK;
    const json_t *bos = json_object_get(reader->root, "bos_token_id"),
                 *eos = json_object_get(reader->root, "eos_token_id");
    config->bos = bos ? -1 : 1;
    if (bos && !json_is_null(bos)) TRY(token_read(reader, "bos_token_id", bos, &config->bos));
    if (!eos) {
        config->n_eos = 1;
        config->eos[0] = reader->phi3 ? 32000 : 2;
    } else if (json_is_array(eos)) {
        TRY(range_check(reader, "number of eos_token_id", (int64_t)json_array_size(eos), 0, EOS_MAX));
        config->n_eos = (int)json_array_size(eos);
        for (int i = 0; i < config->n_eos; i++)
            TRY(token_read(reader, "eos_token_id", json_array_get(eos, (size_t)i), &config->eos[i]));
    } else if (!json_is_null(eos)) {
        config->n_eos = 1;
        TRY(token_read(reader, "eos_token_id", eos, &config->eos[0]));
    }
done:
    return status;
}

static enum status factors_read(const struct reader *reader, const json_t *object, const char *key, int64_t n,
                                double *out) {
    enum status status = STATUS_OK;
    json_t *list = NULL;
    TRY(json_get_array(object, reader->where, key, &list));
    if ((int64_t)json_array_size(list) != n)
        TRY(status_set(STATUS_FORMAT, "%s: \"%s\" has %lld factors, must have head_dim / 2 = %lld", reader->where, key,
                       (long long)json_array_size(list), (long long)n));
    for (int64_t i = 0; i < n; i++) {
        const json_t *value = json_array_get(list, (size_t)i);
        out[i] = json_number_value(value); // 0 for what is no number
        if (!(out[i] >= 1e-6 && out[i] <= 1e6))
            TRY(status_set(STATUS_FORMAT, "%s: \"%s\": factor %lld must be a number from 1e-06 to 1e+06", reader->where,
                           key, (long long)i));
    }
done:
    return status;
}

// original_max_position_embeddings stands in the rope object or at the top; 0 = nowhere.
static enum status original_read(const struct reader *reader, const json_t *object, int64_t *out) {
    enum status status = STATUS_OK;
    static const char key[] = "original_max_position_embeddings";
    int64_t value = 0;
    TRY(json_get_integer_or(object, reader->where, key, 0, &value));
    if (value == 0) TRY(json_get_integer_or(reader->root, reader->where, key, 0, &value));
    TRY(range_check(reader, key, value, 0, POSITIONS_MAX));
    *out = value;
done:
    return status;
}

static enum status llama3_read(const struct reader *reader, const json_t *object, struct rope_config *rope) {
    enum status status = STATUS_OK;
    TRY(number_read(reader, object, "factor", 1, 1e6, &rope->factor));
    TRY(number_read(reader, object, "low_freq_factor", 1e-6, 1e6, &rope->low_freq_factor));
    TRY(number_read(reader, object, "high_freq_factor", 1e-6, 1e6, &rope->high_freq_factor));
    if (rope->high_freq_factor <= rope->low_freq_factor)
        TRY(status_set(STATUS_FORMAT, "%s: \"high_freq_factor\" %g must be greater than \"low_freq_factor\" %g",
                       reader->where, rope->high_freq_factor, rope->low_freq_factor));
    TRY(original_read(reader, object, &rope->original_max_positions));
    TRY(range_check(reader, "original_max_position_embeddings", rope->original_max_positions, 1, POSITIONS_MAX));
done:
    return status;
}

// `newer`: the object is rope_parameters, whose factor goes before the ratio of the lengths.
static enum status longrope_read(const struct reader *reader, const json_t *object, bool newer,
                                 const struct transformer_config *config, struct rope_config *rope) {
    enum status status = STATUS_OK;
    static const char original_key[] = "original_max_position_embeddings", attention_key[] = "attention_factor";
    int64_t n = config->head_dim / 2, original = 0;
    TRY(factors_read(reader, object, "long_factor", n, rope->long_factor));
    TRY(factors_read(reader, object, "short_factor", n, rope->short_factor));
    rope->n_factors = (int)n;
    TRY(original_read(reader, object, &original));
    const json_t *factor = json_object_get(object, "factor");
    if (original == 0 && reader->phi3) original = 4096;
    bool given = original == 0 || (newer && factor && !json_is_null(factor));
    if (given) TRY(number_read(reader, object, "factor", 1e-6, 1e6, &rope->factor));
    if (original == 0) original = config->max_positions;
    TRY(range_check(reader, original_key, original, 2, POSITIONS_MAX));
    if (!given) rope->factor = (double)config->max_positions / (double)original;
    rope->original_max_positions = original;
    const json_t *attention = json_object_get(object, attention_key);
    if (attention && !json_is_null(attention))
        TRY(number_read(reader, object, attention_key, 1e-6, 1e6, &rope->attention_factor));
    else
        rope->attention_factor = rope->factor <= 1 ? 1 : sqrt(1 + log(rope->factor) / log((double)original));
done:
    return status;
}

// The object that holds the rope settings (NULL: none) and whether it is in the newer style.
static enum status rope_find(const struct reader *reader, json_t **out, bool *newer) {
    enum status status = STATUS_OK;
    json_t *scaling = NULL, *parameters = NULL;
    TRY(json_get_object_or(reader->root, reader->where, "rope_scaling", NULL, &scaling));
    TRY(json_get_object_or(reader->root, reader->where, "rope_parameters", NULL, &parameters));
    if (scaling && parameters)
        TRY(status_set(STATUS_FORMAT, "%s: has both \"rope_scaling\" and \"rope_parameters\"; remove one",
                       reader->where));
    const char *key;
    json_t *value;
    json_object_foreach(parameters, key, value) {
        if (json_is_object(value)) TRY(unsupported(reader, "rope_parameters", key, "one set for all layers"));
    }
    *newer = parameters != NULL;
    *out = parameters ? parameters : scaling;
done:
    return status;
}

static enum status theta_read(const struct reader *reader, json_t *object, double *out) {
    enum status status = STATUS_OK;
    static const char key[] = "rope_theta";
    json_t *inner = object ? json_object_get(object, key) : NULL, *outer = json_object_get(reader->root, key);
    double theta = 10000, other = 0;
    if (outer && !json_is_null(outer)) TRY(number_read(reader, reader->root, key, 1, 1e15, &theta));
    if (inner && !json_is_null(inner)) {
        TRY(number_read(reader, object, key, 1, 1e15, &other));
        if (outer && !json_is_null(outer) && other != theta)
            TRY(status_set(STATUS_FORMAT, "%s: two values for \"rope_theta\": %g and %g", reader->where, theta, other));
        theta = other;
    }
    *out = theta;
done:
    return status;
}

static enum status rope_read(const struct reader *reader, const struct transformer_config *config,
                             struct rope_config *rope) {
    enum status status = STATUS_OK;
    json_t *object = NULL;
    bool newer = false;
    const char *kind = NULL;
    TRY(rope_find(reader, &object, &newer));
    TRY(theta_read(reader, object, &rope->theta));
    for (int i = 0; i < 2; i++) {
        const json_t *holder = i ? object : reader->root;
        double partial = 1;
        if (holder) TRY(json_get_number_or(holder, reader->where, "partial_rotary_factor", 1, &partial));
        if (partial != 1) TRY(unsupported(reader, "partial_rotary_factor", "not 1", "1"));
    }
    if (!object || (newer && json_object_size(object) == 0)) return STATUS_OK;
    TRY(json_get_string_or(object, reader->where, "rope_type", NULL, &kind));
    if (!kind) TRY(json_get_string_or(object, reader->where, "type", newer ? "default" : NULL, &kind));
    if (!kind) TRY(status_set(STATUS_FORMAT, "%s: \"rope_scaling\" has no \"rope_type\"", reader->where));
    bool long_kind = strcmp(kind, "longrope") == 0;
    if (reader->phi3) long_kind = long_kind || strcmp(kind, "su") == 0 || strcmp(kind, "yarn") == 0;
    if (long_kind) {
        rope->kind = ROPE_LONGROPE;
        TRY(longrope_read(reader, object, newer, config, rope));
    } else if (strcmp(kind, "default") == 0) {
        rope->kind = ROPE_DEFAULT;
    } else if (strcmp(kind, "linear") == 0 && !reader->phi3) {
        rope->kind = ROPE_LINEAR;
        TRY(number_read(reader, object, "factor", 1, 1e6, &rope->factor));
    } else if (strcmp(kind, "llama3") == 0 && !reader->phi3) {
        rope->kind = ROPE_LLAMA3;
        TRY(llama3_read(reader, object, rope));
    } else {
        TRY(unsupported(reader, "rope_type", kind,
                        reader->phi3 ? "default, longrope" : "default, linear, llama3, longrope"));
    }
done:
    return status;
}

enum status config_read_buffer(const void *bytes, int64_t n_bytes, const char *where, struct transformer_config *out) {
    enum status status = STATUS_OK;
    struct reader reader = {.where = where};
    struct transformer_config config = {0};
    TRY(json_read_buffer(bytes, n_bytes, where, &reader.root));
    TRY(architecture_read(&reader, &config));
    TRY(switches_check(&reader));
    TRY(sizes_read(&reader, &config));
    TRY(tokens_read(&reader, &config));
    TRY(rope_read(&reader, &config, &config.rope));
    *out = config;
done:
    json_decref(reader.root);
    return status;
}

enum status config_read_file(const char *path, struct transformer_config *out) {
    enum status status = STATUS_OK;
    char *bytes = NULL;
    int64_t n_bytes = 0;
    TRY(file_read(path, FILE_BYTES_MAX, &bytes, &n_bytes));
    TRY(config_read_buffer(bytes, n_bytes, path, out));
done:
    mem_buffer_free(bytes);
    return status;
}
