// The paper's tables and figures, and those of its theorems, from whatever runs there are.
//
//     TRY(paper_new(set, &paper));
//     for (int64_t i = 0; i < paper->n; i++)
//         if (paper->items[i].figure) …
//     paper_free(paper);
#ifndef DQ_NOTEBOOKS_EXPORT_PAPER_H
#define DQ_NOTEBOOKS_EXPORT_PAPER_H

#include "notebooks-export/figure.h"
#include "notebooks-export/run_set.h"
#include "notebooks-export/table.h"

// A table, a figure, or what would have to run for it.
struct paper_item {
    const char *place; // "Table 1"
    const char *title;
    const char *missing; // which runs it takes, where it is neither
    struct table *table;
    struct figure *figure;
};

struct paper {
    struct paper_item *items;
    int64_t n;
};

// STATUS_INVALID where runs of roundings are of different models: one report is of one.
enum status paper_new(const struct run_set *set, struct paper **out);
void paper_free(struct paper *paper); // accepts NULL

// One function for each; they leave *out NULL where the runs for it are not there.
typedef enum status table_build(const struct run_set *set, struct table **out);
typedef enum status figure_build(const struct run_set *set, struct figure **out);

table_build table_gradients, table_methods, table_qat, table_incoherence, table_lora, table_objectives,
    table_directions;
table_build table_walks, table_theorems;
figure_build figure_first_order, figure_eigenvalues, figure_methods, figure_incoherence, figure_mix;
figure_build figure_theorem2, figure_theorem3, figure_proposition4, figure_adversarial;

#endif
