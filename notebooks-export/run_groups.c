#include "notebooks-export/run_groups.h"

#include "core/base/mem.h"
#include "data/record.h"

#include <stdlib.h>
#include <string.h>

// Settings that say how a run was made, not what it is.
static bool is_incidental(const char *key) {
    static const char *const keys[] = {"seed", "report_every", "checkpoint_every"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (strcmp(key, keys[i]) == 0) return true;
    return false;
}

// Settings with defaults that follow from others.
static bool is_derived(const char *key) {
    static const char *const keys[] = {"finish_from", "finish_strength", "warmup"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (strcmp(key, keys[i]) == 0) return true;
    return false;
}

static bool covers(const struct run_info *a, const struct run_info *b) {
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)a->settings, key, value) {
        if (!is_incidental(key) && !json_equal(value, json_object_get(b->settings, key))) return false;
    }
    return true;
}

static bool is_same(const struct run_info *a, const struct run_info *b) {
    return strcmp(a->program, b->program) == 0 && covers(a, b) && covers(b, a);
}

// The same settings and seed give the same bits: a run that two plans share counts once.
static bool has_seed_of(const struct run_group *group, const struct run_info *run) {
    for (int64_t i = 0; i < group->n; i++)
        if (json_equal(json_object_get(group->runs[i]->about, "seed"), json_object_get(run->about, "seed")))
            return true;
    return false;
}

struct run_groups *run_groups_new(const struct run_set *set, bool (*keep)(const struct run_info *run)) {
    struct run_groups *groups = mem_new(1, sizeof *groups);
    for (int64_t i = 0; i < set->n; i++) {
        const struct run_info *run = &set->runs[i];
        if (!keep(run)) continue;
        int64_t g = 0;
        while (g < groups->n && !is_same(groups->groups[g].runs[0], run)) g++;
        if (g == groups->n) {
            groups->groups = mem_resize(groups->groups, (size_t)++groups->n, sizeof *groups->groups);
            groups->groups[g] = (struct run_group){0};
        }
        struct run_group *group = &groups->groups[g];
        if (has_seed_of(group, run)) continue;
        group->runs = mem_resize(group->runs, (size_t)group->n + 1, sizeof(const struct run_info *));
        group->runs[group->n++] = run;
    }
    return groups;
}

void run_groups_free(struct run_groups *groups) {
    if (!groups) return;
    for (int64_t i = 0; i < groups->n; i++) free(groups->groups[i].runs);
    free(groups->groups);
    free(groups);
}

struct student run_group_figure(const struct run_group *group, const char *key) {
    double *values = mem_new((size_t)group->n, sizeof *values);
    for (int64_t i = 0; i < group->n; i++) values[i] = run_number(group->runs[i], key);
    struct student of = student_of(values, group->n);
    free(values);
    return of;
}

static bool is_in(const char *key, const char *const *list) {
    for (; *list; list++)
        if (strcmp(key, *list) == 0) return true;
    return false;
}

static bool same_value(const struct run_info *a, const struct run_info *b, const char *key) {
    const json_t *x = json_object_get(a->settings, key), *y = json_object_get(b->settings, key);
    return x == y || (x && y && json_equal(x, y));
}

static bool agree(const struct run_info *a, const struct run_info *b, const char *const *keys) {
    for (; *keys; keys++)
        if (!same_value(a, b, *keys)) return false;
    return true;
}

bool runs_agree_where_both_say(const struct run_info *a, const struct run_info *b, const char *const *keys) {
    for (; *keys; keys++)
        if (json_object_get(a->settings, *keys) && json_object_get(b->settings, *keys) && !same_value(a, b, *keys))
            return false;
    return true;
}

// Whether settings keys [n] without number `left_out` (and the marked ones) tell apart all of the runs that keys[left_out] does.
static bool follows(const struct run_info *const *runs, int64_t n_runs, const char *const *keys, const bool *dropped,
                    int n, int left_out) {
    for (int64_t a = 0; a < n_runs; a++)
        for (int64_t b = 0; b < a; b++) {
            if (same_value(runs[a], runs[b], keys[left_out])) continue;
            bool told = false;
            for (int k = 0; k < n && !told; k++)
                told = k != left_out && !dropped[k] && !same_value(runs[a], runs[b], keys[k]);
            if (!told) return false;
        }
    return true;
}

char *run_group_label(const struct run_groups *groups, const struct run_group *group, const char *const *same) {
    enum { KEYS_MOST = 64 };
    const struct run_info *own = group->runs[0];
    const struct run_info **compared = mem_new((size_t)groups->n, sizeof *compared);
    const char *keys[KEYS_MOST], *key;
    bool dropped[KEYS_MOST] = {false};
    int64_t n_compared = 0;
    int n_keys = 0;
    json_t *value;
    for (int64_t g = 0; g < groups->n; g++)
        if (agree(own, groups->groups[g].runs[0], same)) compared[n_compared++] = groups->groups[g].runs[0];
    for (int64_t r = 0; r < n_compared; r++) json_object_foreach((json_t *)compared[r]->settings, key, value) {
            bool known = is_incidental(key) || is_in(key, same), differs = false;
            for (int k = 0; k < n_keys && !known; k++) known = strcmp(keys[k], key) == 0;
            for (int64_t g = 0; g < n_compared && !differs; g++) differs = !same_value(own, compared[g], key);
            if (differs && !known && n_keys < KEYS_MOST) keys[n_keys++] = key;
        }
    // What follows from others says nothing new: warmup from steps.
    for (int derived = 1; derived >= 0; derived--)
        for (int k = n_keys - 1; k >= 0; k--)
            if (is_derived(keys[k]) == derived) dropped[k] = follows(compared, n_compared, keys, dropped, n_keys, k);
    char *label = mem_string("");
    for (int k = 0; k < n_keys; k++) {
        value = json_object_get(own->settings, keys[k]);
        if (dropped[k] || !value) continue;
        char *text = json_is_string(value) ? mem_string(json_string_value(value)) : record_json_text(value, 0);
        char *longer = mem_format("%s%s%s %s", label, label[0] ? ", " : "", keys[k], text);
        for (char *c = longer + strlen(label); *c; c++)
            if (*c == '_') *c = ' ';
        free(text);
        free(label);
        label = longer;
    }
    free(compared);
    return label;
}
