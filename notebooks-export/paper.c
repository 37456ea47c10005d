#include "notebooks-export/paper.h"

#include "core/base/mem.h"

#include <stdlib.h>
#include <string.h>

static const struct plan {
    const char *place, *title, *takes;
    table_build *table;
    figure_build *figure;
} plans[] = {
    {"Table 1", "Squared mean and mean square of per-sample gradients", "discquant-spectra spectrum", table_gradients,
     NULL},
    {"Figure 2", "Change of a token's loss and its first order", "discquant-spectra taylor", NULL, figure_first_order},
    {"Figure 3", "Eigenvalues of the covariance of per-sample gradients", "discquant-spectra spectrum", NULL,
     figure_eigenvalues},
    {"Tables 2, 3", "Methods on the same grids", "discquant, discquant-bench eval on OUT/model for scores of tasks",
     table_methods, NULL},
    {"Figures 4, 5", "Methods against bits per weight", "discquant with at least two bit rates", NULL, figure_methods},
    {"Table 4", "Training with straight-through gradients beside rounding", "discquant --method qat", table_qat, NULL},
    {"Tables 5, 6", "Methods with incoherence processing", "discquant --incoherence hadamard", table_incoherence, NULL},
    {"Figures 6, 7", "Methods with incoherence processing against bits per weight",
     "discquant --incoherence hadamard with at least two bit rates", NULL, figure_incoherence},
    {"Table 7", "Low-rank adapters on the rounded model", "discquant --lora-rank", table_lora, NULL},
    {"Figure 8", "A share of a second corpus in the calibration text", "discquant --second-calibration --second-share",
     NULL, figure_mix},
    {"Table 8", "Objectives of distillation", "discquant --objective other than kl", table_objectives, NULL},
    {"Table 9", "Random directions c beside 1 - 2y", "discquant --direction random", table_directions, NULL},
    {"Theorem 2", "Error of the walk against the number of samples", "discquant-walk validate theorem2", NULL,
     figure_theorem2},
    {"Theorem 3", "Largest eigenvalue of x - y's second moment", "discquant-walk validate theorem3", NULL,
     figure_theorem3},
    {"Proposition 4", "Norm of sampled covariances outside of their span", "discquant-walk validate proposition4", NULL,
     figure_proposition4},
    {"Choice of c", "Vertices chosen without randomness beside the walk", "discquant-walk validate adversarial", NULL,
     figure_adversarial},
    {"Theorems", "Verdicts of the studies", "discquant-walk validate", table_theorems, NULL},
    {"Theorem 2 on a network", "Walks beside other roundings, on fresh gradients", "discquant-walk round", table_walks,
     NULL},
};
enum { N_PLANS = sizeof plans / sizeof *plans };

static bool rounds_a_model(const struct run_info *run) {
    return run_is(run, "discquant") || run_is(run, "discquant-walk round") || run_is(run, "discquant-spectra taylor");
}

static enum status one_model(const struct run_set *set) {
    const struct run_info *first = NULL;
    for (int64_t i = 0; i < set->n; i++) {
        const struct run_info *run = &set->runs[i];
        const char *model = rounds_a_model(run) ? run_setting_text(run, "model") : NULL;
        if (!model) continue;
        if (!first)
            first = run;
        else if (strcmp(model, run_setting_text(first, "model")) != 0)
            return status_set(STATUS_INVALID,
                              "%s and %s round different models (%s, %s): a report is of one model, export them apart",
                              first->path, run->path, run_setting_text(first, "model"), model);
    }
    return STATUS_OK;
}

enum status paper_new(const struct run_set *set, struct paper **out) {
    enum status status = STATUS_OK;
    struct paper *paper = mem_new(1, sizeof *paper);
    paper->items = mem_new(N_PLANS, sizeof *paper->items);
    TRY(one_model(set));
    for (int64_t i = 0; i < N_PLANS; i++) {
        struct paper_item *item = &paper->items[paper->n++];
        *item = (struct paper_item){.place = plans[i].place, .title = plans[i].title};
        TRY(plans[i].table ? plans[i].table(set, &item->table) : plans[i].figure(set, &item->figure));
        if (!item->table && !item->figure) item->missing = plans[i].takes;
    }
    *out = paper;
    paper = NULL;
done:
    paper_free(paper);
    return status;
}

void paper_free(struct paper *paper) {
    if (!paper) return;
    for (int64_t i = 0; i < paper->n; i++) {
        table_free(paper->items[i].table);
        figure_free(paper->items[i].figure);
    }
    free(paper->items);
    free(paper);
}
