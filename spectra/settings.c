#include "spectra/settings.h"

#include "core/base/mem.h"
#include "data/json.h"
#include "data/record.h"

#include <stdlib.h>
#include <string.h>

enum { FORMAT_VERSION = 1 };

// No more than a hostile file may ask memory for.
static const int64_t list_max = 1 << 20, size_max = INT64_C(1) << 40;

static void free_names(char **names, int64_t n) {
    for (int64_t i = 0; names && i < n; i++) free(names[i]);
    free(names);
}

void settings_free(struct settings *settings) {
    if (!settings) return;
    free(settings->model);
    free(settings->corpus);
    free(settings->dtype);
    free(settings->parameters);
    free(settings->sketch);
    free_names(settings->groups, settings->n_groups);
    free_names(settings->directions, settings->n_directions);
    for (int64_t i = 0; settings->weights && i < settings->n_weights; i++) free(settings->weights[i].name);
    free(settings->weights);
    free(settings);
}

// ---- writing ----

static json_t *names_json(char *const *names, int64_t n) {
    json_t *list = json_array();
    for (int64_t i = 0; i < n; i++) json_array_append_new(list, record_json_string(names[i]));
    return list;
}

static json_t *weights_json(const struct settings *settings) {
    json_t *list = json_array();
    for (int64_t i = 0; i < settings->n_weights; i++) {
        const struct settings_weight *weight = &settings->weights[i];
        json_t *entry = json_object();
        json_object_set_new(entry, "name", record_json_string(weight->name));
        json_object_set_new(entry, "elements", json_integer(weight->elements));
        json_object_set_new(entry, "group", json_integer(weight->group));
        json_array_append_new(list, entry);
    }
    return list;
}

json_t *settings_json(const struct settings *settings) {
    json_t *json = json_object();
    json_object_set_new(json, "version", json_integer(FORMAT_VERSION));
    json_object_set_new(json, "model", record_json_string(settings->model));
    json_object_set_new(json, "corpus", record_json_string(settings->corpus));
    json_object_set_new(json, "dtype", record_json_string(settings->dtype));
    json_object_set_new(json, "seq_len", json_integer(settings->seq_len));
    json_object_set_new(json, "batch", json_integer(settings->batch));
    json_object_set_new(json, "seed", json_integer((json_int_t)settings->seed));
    json_object_set_new(json, "parameters", record_json_string(settings->parameters));
    json_object_set_new(json, "sketch", record_json_string(settings->sketch));
    json_object_set_new(json, "dim", json_integer(settings->dim));
    json_object_set_new(json, "sketches", json_integer(settings->sketches));
    json_object_set_new(json, "groups", names_json(settings->groups, settings->n_groups));
    json_object_set_new(json, "weights", weights_json(settings));
    json_object_set_new(json, "directions", names_json(settings->directions, settings->n_directions));
    return json;
}

// ---- reading ----

static enum status read_string(const json_t *json, const char *where, const char *key, char **out) {
    const char *text = NULL;
    enum status status = json_get_string(json, where, key, &text);
    if (status == STATUS_OK) *out = mem_string(text);
    return status;
}

static enum status read_integer(const json_t *json, const char *where, const char *key, int64_t least, int64_t most,
                                int64_t *out) {
    int64_t value = 0;
    enum status status = json_get_integer(json, where, key, &value);
    if (status != STATUS_OK) return status;
    if (value < least || value > most)
        return status_set(STATUS_FORMAT, "%s: '%s' is %lld, %lld to %lld can be", where, key, (long long)value,
                          (long long)least, (long long)most);
    *out = value;
    return STATUS_OK;
}

static enum status read_names(const json_t *json, const char *where, const char *key, char ***names, int64_t *n) {
    json_t *list = NULL;
    enum status status = json_get_array(json, where, key, &list);
    if (status != STATUS_OK) return status;
    int64_t count = (int64_t)json_array_size(list);
    if (count > list_max) return status_set(STATUS_FORMAT, "%s: '%s' has %lld names", where, key, (long long)count);
    *names = mem_new((size_t)count + 1, sizeof **names);
    for (; *n < count; (*n)++) {
        const char *text = json_string_value(json_array_get(list, (size_t)*n));
        if (!text) return status_set(STATUS_FORMAT, "%s: '%s' must hold strings", where, key);
        (*names)[*n] = mem_string(text);
    }
    return STATUS_OK;
}

static enum status read_weights(const json_t *json, const char *where, struct settings *settings) {
    json_t *list = NULL;
    enum status status = json_get_array(json, where, "weights", &list);
    if (status != STATUS_OK) return status;
    int64_t count = (int64_t)json_array_size(list);
    if (count > list_max) return status_set(STATUS_FORMAT, "%s: has %lld weights", where, (long long)count);
    settings->weights = mem_new((size_t)count + 1, sizeof *settings->weights);
    for (; settings->n_weights < count; settings->n_weights++) {
        const json_t *entry = json_array_get(list, (size_t)settings->n_weights);
        struct settings_weight *weight = &settings->weights[settings->n_weights];
        if (!json_is_object(entry)) return status_set(STATUS_FORMAT, "%s: 'weights' must hold objects", where);
        TRY(read_integer(entry, where, "elements", 1, size_max, &weight->elements));
        TRY(read_integer(entry, where, "group", 0, settings->n_groups - 1, &weight->group));
        TRY(read_string(entry, where, "name", &weight->name));
    }
done:
    return status;
}

enum status settings_read(const json_t *json, const char *where, struct settings **out) {
    enum status status = STATUS_OK;
    struct settings *settings = mem_new(1, sizeof *settings);
    int64_t version = 0, seed = 0;
    TRY(read_integer(json, where, "version", FORMAT_VERSION, FORMAT_VERSION, &version));
    TRY(read_string(json, where, "model", &settings->model));
    TRY(read_string(json, where, "corpus", &settings->corpus));
    TRY(read_string(json, where, "dtype", &settings->dtype));
    TRY(read_integer(json, where, "seq_len", 2, size_max, &settings->seq_len));
    TRY(read_integer(json, where, "batch", 1, size_max, &settings->batch));
    TRY(read_integer(json, where, "seed", 0, INT64_MAX, &seed));
    TRY(read_string(json, where, "parameters", &settings->parameters));
    TRY(read_string(json, where, "sketch", &settings->sketch));
    TRY(read_integer(json, where, "dim", 0, 1 << 24, &settings->dim));
    TRY(read_integer(json, where, "sketches", 0, 1 << 10, &settings->sketches));
    TRY(read_names(json, where, "groups", &settings->groups, &settings->n_groups));
    if (settings->n_groups < 1) TRY(status_set(STATUS_FORMAT, "%s: has no group", where));
    TRY(read_weights(json, where, settings));
    TRY(read_names(json, where, "directions", &settings->directions, &settings->n_directions));
    settings->seed = (uint64_t)seed;
    *out = settings;
    settings = NULL;
done:
    settings_free(settings);
    return status;
}

struct settings *settings_copy(const struct settings *settings) {
    struct settings *copy = NULL;
    json_t *json = settings_json(settings);
    enum status status = settings_read(json, "settings", &copy);
    json_decref(json);
    REQUIRE(status == STATUS_OK, "settings can be read back");
    return copy;
}

// ---- comparing ----

enum status settings_same(const struct settings *settings, const char *where, const struct settings *others,
                          const char *other) {
    enum status status = STATUS_OK;
    json_t *a = settings_json(settings), *b = settings_json(others);
    const char *key = NULL;
    json_t *value = NULL;
    json_object_foreach(a, key, value) {
        const json_t *twin = json_object_get(b, key);
        if (json_equal(value, twin)) continue;
        bool scalar = !json_is_array(value);
        char *mine = scalar ? record_json_text(value, 0) : mem_string("a list");
        char *theirs = scalar ? record_json_text(twin, 0) : mem_string("another");
        status = status_set(STATUS_INVALID, "%s: '%s' is %s there, but %s in %s: these samples do not belong together",
                            where, key, mine, theirs, other);
        free(mine);
        free(theirs);
        break;
    }
    json_decref(a);
    json_decref(b);
    return status;
}
