// Runs that differ by their seed alone, as one.
#ifndef DQ_NOTEBOOKS_EXPORT_RUN_GROUPS_H
#define DQ_NOTEBOOKS_EXPORT_RUN_GROUPS_H

#include "notebooks-export/run_set.h"
#include "theory/student.h"

struct run_group {
    const struct run_info **runs; // borrowed from the set
    int64_t n;
};

struct run_groups {
    struct run_group *groups; // in the order of their first runs
    int64_t n;
};

// Runs that `keep` wants. Of runs with the same settings and seed the first counts.
struct run_groups *run_groups_new(const struct run_set *set, bool (*keep)(const struct run_info *run));
void run_groups_free(struct run_groups *groups); // accepts NULL

// Whether the settings `keys` (a list that ends with NULL) are the same in both runs, where both have them.
bool runs_agree_where_both_say(const struct run_info *a, const struct run_info *b, const char *const *keys);

// Over the figures `key` in the result.json of its runs.
struct student run_group_figure(const struct run_group *group, const char *key);

// "lr 0.05, steps 512": settings in which the group differs from others of `groups` with the same `same` (a list of settings that ends
// with NULL), without those and without what follows from the others among these groups. A new string; empty where it does not.
char *run_group_label(const struct run_groups *groups, const struct run_group *group, const char *const *same);

#endif
