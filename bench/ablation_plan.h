// The JSON of a plan, checked as far as it can be without the commands it names: which keys there are, what kind of value
// they have, that names can be names of files and that no axis is empty.
#ifndef DQ_BENCH_ABLATION_PLAN_H
#define DQ_BENCH_ABLATION_PLAN_H

#include "bench/ablation.h"

enum { PLAN_AXES_MAX = 16 };

struct plan_axis {
    const char *name;
    int column; // in ablation.axes
    int n_labels;
    const char **labels;
    json_t **sets; // [n_labels] objects: options
};

// Rows: the axes' labels in every combination that is not excluded; one row where there are no axes.
struct plan_block {
    const char *name;      // "" for the plan's own axes
    const char *where;     // "PATH: row 'x'", for messages
    json_t *options;       // may be NULL
    json_t *exclude;       // array of objects, may be NULL
    const char *evaluated; // folder of the run that is evaluated: "model"; NULL: none
    struct plan_axis axes[PLAN_AXES_MAX];
    int n_axes;
};

struct plan {
    json_t *root;
    json_t *shared;      // options of all rows, overrides included; owned
    json_t *evaluations; // name -> options, overrides included; owned
    json_t *texts;       // file name -> options; may be NULL
    struct plan_block *blocks;
    int n_blocks;
};

// Fills title, about, plan, axes, over, evaluations and columns of `to` and the plan, which is freed with plan_free in any case.
enum status plan_read(const struct ablation_options *options, struct ablation *to, struct plan *plan);
void plan_free(struct plan *plan);

// A string, or a number with the fewest digits that read back as the same; NULL for anything else.
const char *plan_text(struct arena *arena, const json_t *value);

// `format`ted into the arena.
const char *plan_format(struct arena *arena, const char *format, ...) __attribute__((format(printf, 2, 3), nonnull(2)));

#endif
