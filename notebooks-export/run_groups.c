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

static bool agree(const struct run_info *a, const struct run_info *b, const char *const *keys) {
    for (; *keys; keys++) {
        const json_t *x = json_object_get(a->settings, *keys), *y = json_object_get(b->settings, *keys);
        if (x != y && (!x || !y || !json_equal(x, y))) return false;
    }
    return true;
}

char *run_group_label(const struct run_groups *groups, const struct run_group *group, const char *const *same) {
    char *label = mem_string("");
    const struct run_info *own = group->runs[0];
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)own->settings, key, value) {
        bool differs = false;
        for (int64_t g = 0; g < groups->n && !differs; g++) {
            const struct run_info *other = groups->groups[g].runs[0];
            differs = agree(own, other, same) && !json_equal(value, json_object_get(other->settings, key));
        }
        if (!differs || is_incidental(key) || is_in(key, same)) continue;
        char *text = json_is_string(value) ? mem_string(json_string_value(value)) : record_json_text(value, 0);
        char *longer = mem_format("%s%s%s %s", label, label[0] ? ", " : "", key, text);
        for (char *c = longer + strlen(label); *c; c++)
            if (*c == '_') *c = ' ';
        free(text);
        free(label);
        label = longer;
    }
    return label;
}
