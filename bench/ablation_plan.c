#include "bench/ablation_plan.h"

#include "core/base/mem.h"
#include "data/json.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LABEL_BYTES_MAX = 64 };

const char *plan_format(struct arena *arena, const char *format, ...) {
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    char *text = arena_take(arena, (size_t)n + 1, 1);
    vsnprintf(text, (size_t)n + 1, format, again);
    va_end(again);
    return text;
}

const char *plan_text(struct arena *arena, const json_t *value) {
    if (json_is_string(value)) return plan_format(arena, "%s", json_string_value(value));
    if (!json_is_number(value)) return NULL;
    char *text = record_json_text(value, 0);
    const char *kept = plan_format(arena, "%s", text);
    free(text);
    return kept;
}

// Parts of names of files and columns.
static bool is_label(const char *text) {
    size_t n = strlen(text);
    for (size_t i = 0; i < n; i++)
        if (!isalnum((unsigned char)text[i]) && !strchr("._+=,@%-", text[i])) return false;
    return n > 0 && n <= LABEL_BYTES_MAX && text[0] != '.';
}

static enum status label_check(const char *where, const char *what, const char *text) {
    if (is_label(text)) return STATUS_OK;
    return status_set(STATUS_FORMAT,
                      "%s: %s '%s': must be 1 to %d letters, digits and '._+=,@%%-', the first no '.': it becomes part "
                      "of a file's name",
                      where, what, text, (int)LABEL_BYTES_MAX);
}

// `allowed`: "title|axes|…".
static enum status keys_check(const json_t *object, const char *where, const char *allowed) {
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)object, key, value) {
        const char *at = strstr(allowed, key);
        size_t n = strlen(key);
        while (at && n > 0 && !((at == allowed || at[-1] == '|') && (at[n] == '|' || !at[n]))) at = strstr(at + 1, key);
        if (!at || n == 0)
            return status_set(STATUS_FORMAT, "%s: \"%s\": there is no such key here; there are %s", where, key,
                              allowed);
    }
    return STATUS_OK;
}

// An object of options: scalars, arrays of scalars (given more than once), true, false or null (not given).
static enum status options_check(const json_t *options, const char *where) {
    const char *key;
    json_t *value, *element;
    size_t i;
    json_object_foreach((json_t *)options, key, value) {
        bool good = json_is_string(value) || json_is_number(value) || json_is_boolean(value) || json_is_null(value);
        if (json_is_array(value)) {
            good = json_array_size(value) > 0;
            json_array_foreach(value, i, element) good = good && (json_is_string(element) || json_is_number(element));
        }
        if (!good)
            return status_set(STATUS_FORMAT,
                              "%s: option \"%s\" is %s; must be a string, a number, true, false, null or a list of "
                              "strings and numbers",
                              where, key, json_kind(value));
    }
    return STATUS_OK;
}

// ---- axes ----

static int column_of(struct ablation *to, const char *name) {
    for (int i = 0; i < to->n_axes; i++)
        if (strcmp(to->axes[i], name) == 0) return i;
    const char **axes = arena_take(to->arena, (size_t)to->n_axes + 1, sizeof *axes);
    for (int i = 0; i < to->n_axes; i++) axes[i] = to->axes[i];
    axes[to->n_axes] = name;
    to->axes = axes;
    return to->n_axes++;
}

// ["rtn", "gptq"]: the axis' name is the option. {"paper": {"finish-from": 1}, …}: labels and their options.
static enum status axis_read(const struct plan_block *block, const json_t *value, struct ablation *to,
                             struct plan_axis *axis) {
    const char *where = plan_format(to->arena, "%s, axis '%s'", block->where, axis->name), *label;
    enum status status = label_check(block->where, "axis", axis->name);
    json_t *set;
    size_t i, n = json_is_object(value) ? json_object_size(value) : json_array_size(value);
    if (status != STATUS_OK) return status;
    if (!json_is_object(value) && !json_is_array(value))
        return status_set(STATUS_FORMAT, "%s: is %s; must be a list of values or an object of option sets", where,
                          json_kind(value));
    if (n == 0) return status_set(STATUS_FORMAT, "%s: is empty: it leaves no rows", where);
    axis->column = column_of(to, axis->name);
    axis->labels = arena_take(to->arena, n, sizeof *axis->labels);
    axis->sets = arena_take(to->arena, n, sizeof *axis->sets);
    json_object_foreach((json_t *)value, label, set) {
        if (!json_is_object(set))
            return status_set(STATUS_FORMAT, "%s: '%s' is %s, must be an object of options", where, label,
                              json_kind(set));
        TRY(options_check(set, where));
        axis->labels[axis->n_labels] = label;
        axis->sets[axis->n_labels++] = set;
    }
    if (json_is_array(value)) json_array_foreach(value, i, set) {
            label = plan_text(to->arena, set);
            if (!label)
                return status_set(STATUS_FORMAT, "%s: holds %s, must be strings and numbers", where, json_kind(set));
            json_t *made = json_pack("{s:O}", axis->name, set);
            json_array_append_new(to->held, made);
            axis->labels[axis->n_labels] = label;
            axis->sets[axis->n_labels++] = made;
        }
    for (i = 0; i < n; i++) TRY(label_check(where, "label", axis->labels[i]));
done:
    return status;
}

static enum status exclude_check(const struct plan_block *block, struct arena *arena) {
    size_t i, k;
    const char *key;
    json_t *rule, *value;
    json_array_foreach(block->exclude, i, rule) {
        if (!json_is_object(rule) || json_object_size(rule) == 0)
            return status_set(STATUS_FORMAT, "%s, exclude: must hold objects, {AXIS: LABEL or [LABELS]}", block->where);
        json_object_foreach(rule, key, value) {
            const struct plan_axis *axis = NULL;
            for (int a = 0; a < block->n_axes; a++)
                if (strcmp(block->axes[a].name, key) == 0) axis = &block->axes[a];
            if (!axis) return status_set(STATUS_FORMAT, "%s, exclude: there is no axis '%s' here", block->where, key);
            for (k = 0; k < (json_is_array(value) ? json_array_size(value) : 1); k++) {
                const char *label = plan_text(arena, json_is_array(value) ? json_array_get(value, k) : value);
                bool known = false;
                for (int l = 0; label && l < axis->n_labels; l++) known |= strcmp(axis->labels[l], label) == 0;
                if (!known)
                    return status_set(STATUS_FORMAT, "%s, exclude: '%s' is no label of the axis '%s'", block->where,
                                      label ? label : json_kind(value), key);
            }
        }
    }
    return STATUS_OK;
}

static enum status block_read(const json_t *object, struct ablation *to, struct plan_block *block) {
    enum status status = STATUS_OK;
    json_t *axes = NULL, *value;
    const char *name;
    TRY(json_get_object_or(object, block->where, "axes", NULL, &axes));
    TRY(json_get_array_or(object, block->where, "exclude", NULL, &block->exclude));
    if (json_object_size(axes) > PLAN_AXES_MAX)
        TRY(status_set(STATUS_FORMAT, "%s: more than %d axes", block->where, (int)PLAN_AXES_MAX));
    json_object_foreach(axes, name, value) {
        block->axes[block->n_axes].name = name;
        TRY(axis_read(block, value, to, &block->axes[block->n_axes++]));
    }
    TRY(exclude_check(block, to->arena));
done:
    return status;
}

// "evaluate": false, or which folder of the run: the model it is by default.
static enum status evaluate_read(const json_t *object, struct plan_block *block) {
    const json_t *value = json_object_get(object, "evaluate");
    block->evaluated = json_is_false(value) ? NULL : json_is_string(value) ? json_string_value(value) : "model";
    if (value && !json_is_boolean(value) && !json_is_string(value))
        return status_set(STATUS_FORMAT, "%s: \"evaluate\" is %s; must be false or the name of a folder of the run",
                          block->where, json_kind(value));
    return block->evaluated ? label_check(block->where, "evaluate", block->evaluated) : STATUS_OK;
}

static enum status rows_read(json_t *rows, const char *path, struct ablation *to, struct plan *plan) {
    enum status status = STATUS_OK;
    size_t i;
    json_t *row;
    json_array_foreach(rows, i, row) {
        struct plan_block *block = &plan->blocks[plan->n_blocks++];
        block->where = plan_format(to->arena, "%s, row %zu", path, i + 1);
        TRY(json_get_string(row, block->where, "name", &block->name));
        TRY(label_check(block->where, "name", block->name));
        block->where = plan_format(to->arena, "%s, row '%s'", path, block->name);
        TRY(keys_check(row, block->where, "name|options|axes|exclude|evaluate"));
        TRY(json_get_object_or(row, block->where, "options", NULL, &block->options));
        TRY(options_check(block->options, block->where));
        TRY(evaluate_read(row, block));
        TRY(block_read(row, to, block));
    }
done:
    return status;
}

// ---- the rest ----

// A string, or a list of strings: *out [*n].
static enum status strings_read(const json_t *root, const char *where, const char *key, struct arena *arena,
                                const char ***out, int *n) {
    json_t *value = json_object_get(root, key);
    size_t count = json_is_array(value) ? json_array_size(value) : value ? 1 : 0;
    *out = arena_take(arena, count + 1, sizeof **out);
    for (size_t i = 0; i < count; i++) {
        const json_t *element = json_is_array(value) ? json_array_get(value, i) : value;
        if (!json_is_string(element))
            return status_set(STATUS_FORMAT, "%s: \"%s\" must be a string or a list of strings", where, key);
        (*out)[i] = json_string_value(element);
    }
    *n = (int)count;
    return STATUS_OK;
}

static enum status over_read(const json_t *root, const char *where, struct ablation *to) {
    enum status status = STATUS_OK;
    const char **names = NULL;
    int n = 0;
    TRY(strings_read(root, where, "over", to->arena, &names, &n));
    to->over = arena_take(to->arena, (size_t)to->n_axes + 1, sizeof *to->over);
    for (int i = 0; i < to->n_axes; i++) to->over[i] = !json_object_get(root, "over") && !strcmp(to->axes[i], "seed");
    for (int k = 0; k < n; k++) {
        int column = 0;
        while (column < to->n_axes && strcmp(to->axes[column], names[k]) != 0) column++;
        if (column == to->n_axes)
            TRY(status_set(STATUS_FORMAT, "%s: \"over\": there is no axis '%s'", where, names[k]));
        to->over[column] = true;
    }
done:
    return status;
}

// Objects of option sets by name: evaluations and texts.
static enum status sets_check(const json_t *sets, const char *where, const char *what) {
    enum status status = STATUS_OK;
    const char *name;
    json_t *set;
    json_object_foreach((json_t *)sets, name, set) {
        TRY(label_check(where, what, name));
        if (!json_is_object(set))
            TRY(status_set(STATUS_FORMAT, "%s: %s '%s' is %s, must be an object of options", where, what, name,
                           json_kind(set)));
        TRY(options_check(set, where));
    }
done:
    return status;
}

static enum status evaluations_read(const struct ablation_options *options, const char *where, struct ablation *to,
                                    struct plan *plan) {
    enum status status = STATUS_OK;
    json_t *given = NULL, *set;
    const char *name;
    TRY(json_get_object_or(plan->root, where, "evaluations", NULL, &given));
    TRY(sets_check(given, where, "evaluation"));
    plan->evaluations = given ? json_deep_copy(given) : json_object();
    json_array_append(to->held, plan->evaluations);
    json_object_foreach(options->evaluations, name, set) {
        json_t *known = json_object_get(plan->evaluations, name);
        if (!known) TRY(status_set(STATUS_INVALID, "--option %s.…: %s has no evaluation '%s'", name, where, name));
        json_object_update(known, set);
    }
    to->evaluations = arena_take(to->arena, json_object_size(plan->evaluations) + 1, sizeof *to->evaluations);
    json_object_foreach(plan->evaluations, name, set) to->evaluations[to->n_evaluations++] = name;
done:
    return status;
}

static enum status shared_read(const struct ablation_options *options, const char *where, struct plan *plan) {
    enum status status = STATUS_OK;
    json_t *given = NULL;
    TRY(json_get_object_or(plan->root, where, "options", NULL, &given));
    TRY(options_check(given, where));
    plan->shared = given ? json_deep_copy(given) : json_object();
    if (options->shared) json_object_update(plan->shared, options->shared);
done:
    return status;
}

enum status plan_read(const struct ablation_options *options, struct ablation *to, struct plan *plan) {
    enum status status = STATUS_OK;
    const char *where = to->plan = plan_format(to->arena, "%s", options->plan);
    json_t *rows = NULL;
    TRY(json_read_file(where, &plan->root));
    json_array_append(to->held, plan->root);
    TRY(json_get_string(plan->root, where, "title", &to->title));
    TRY(keys_check(plan->root, where, "title|paper|options|axes|exclude|evaluate|rows|evaluations|texts|over|columns"));
    TRY(json_get_string_or(plan->root, where, "paper", "", &to->about));
    TRY(shared_read(options, where, plan));
    TRY(json_get_object_or(plan->root, where, "texts", NULL, &plan->texts));
    TRY(sets_check(plan->texts, where, "text"));
    TRY(json_get_array_or(plan->root, where, "rows", NULL, &rows));
    plan->blocks = arena_take(to->arena, json_array_size(rows) + 1, sizeof *plan->blocks);
    if (json_object_get(plan->root, "axes") || json_object_get(plan->root, "exclude")) {
        struct plan_block *own = &plan->blocks[plan->n_blocks++];
        *own = (struct plan_block){.name = "", .where = where};
        TRY(evaluate_read(plan->root, own));
        TRY(block_read(plan->root, to, own));
        if (own->n_axes == 0) TRY(status_set(STATUS_FORMAT, "%s: \"axes\" is empty: it leaves no rows", where));
    }
    TRY(rows_read(rows, where, to, plan));
    if (plan->n_blocks == 0) TRY(status_set(STATUS_FORMAT, "%s: has neither \"axes\" nor \"rows\"", where));
    TRY(evaluations_read(options, where, to, plan));
    TRY(strings_read(plan->root, where, "columns", to->arena, &to->columns, &to->n_columns));
    TRY(over_read(plan->root, where, to));
done:
    return status;
}

void plan_free(struct plan *plan) {
    json_decref(plan->root);
    json_decref(plan->shared);
    json_decref(plan->evaluations);
}
