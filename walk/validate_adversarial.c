// Starts and objectives made from eigenvectors of Sigma: where a vertex chosen without randomness goes wrong and a walk does
// not. Figures are QE over |d|^2 / (n - m) tr(P Sigma), the error of a displacement that knows nothing of Sigma
// (theory/error_law.h), with tr(P Sigma) of the very samples. v_k: k-th eigenvector, signs only. Starts:
//
//     generic    y uniform
//     near       y = 1/2 - 0.05 sign(v_2m): to nearest goes along v_2m
//     far        y = 1/2 - 0.4 sign(v_2m)
//
// Roundings: the walk; at random; to nearest; and vertices of {x in [0,1]^n: M x = M y} with the least <c, x>: c = 1 - 2y, the
// closest one (DiscQuant's), c random, and on the generic start c = -v_1, -v_(m/2), -v_2m. Hypotheses:
//
//     walk_is_safe         the walk's figure is below 1.2 on every start
//     vertices_are_not     some vertex is above 20 on a start or objective made for it
//     closest_is_best      on the generic start the closest vertex has about half the walk's QE: the walk buys its safety
#include "walk/validate.h"

#include "core/base/mem.h"
#include "walk/vertex.h"

enum { GENERIC, NEAR, FAR, STARTS };
enum { BY_WALK, AT_RANDOM, TO_NEAREST, CLOSEST, RANDOM_VERTEX, ROUNDINGS };
enum { OBJECTIVES = 3 };
enum {
    COLUMN_QE_WALK = STARTS * ROUNDINGS + OBJECTIVES, // on the generic start
    COLUMN_QE_CLOSEST,
    COLUMNS,
};

static const char *const columns[COLUMNS] = {
    "generic_walk", "generic_random", "generic_nearest", "generic_closest", "generic_random_vertex",
    "near_walk",    "near_random",    "near_nearest",    "near_closest",    "near_random_vertex",
    "far_walk",     "far_random",     "far_nearest",     "far_closest",     "far_random_vertex",
    "vertex_1",     "vertex_half_m",  "vertex_2m",       "qe_walk",         "qe_closest",
};

struct plan {
    struct study *study;
    int64_t n, m, draws;
};

// instance->x = a vertex with the least <c, x>.
static enum status vertex(struct instance *instance, const double *c) {
    struct vertex_result result;
    return vertex_minimise(instance->frame, instance->y, c, instance->x, &result);
}

// ---- draws ----

static void start_at(struct instance *instance, int start, double *v) {
    int64_t n = instance->problem.n;
    double far = start == NEAR ? 0.05 : 0.4;
    if (start == GENERIC) return;
    gradients_eigenvector(instance->gradients, 2 * instance->problem.m, v);
    for (int64_t i = 0; i < n; i++) instance->y[i] = 0.5 - (v[i] < 0 ? -far : far);
}

static double figure(struct instance *instance, double energy) {
    double d2 = instance_distance2(instance, instance->x), n = (double)instance->problem.n;
    return instance_error(instance, instance->x) / (d2 / (n - (double)instance->problem.m) * energy);
}

static enum status round_start(const struct plan *plan, struct instance *instance, int start, uint64_t seed,
                               double energy, double *c, double *row) {
    enum status status = STATUS_OK;
    static const char *const engines[] = {[AT_RANDOM] = "independent", [TO_NEAREST] = "nearest"};
    double figures[FIGURES], *ratios = row + start * ROUNDINGS;
    start_at(instance, start, c);
    for (int k = BY_WALK; k <= TO_NEAREST; k++) {
        struct walker walker = {.engine = k == BY_WALK ? plan->study->settings->engine : engines[k],
                                .finish = k == BY_WALK ? WALK_VERTEX : WALK_STOP};
        TRY(instance_walk(instance, &walker, seed, k, figures));
        ratios[k] = figure(instance, energy);
        if (start == GENERIC && k == BY_WALK) row[COLUMN_QE_WALK] = figures[FIGURE_QE];
    }
    for (int64_t i = 0; i < plan->n; i++) c[i] = 1 - 2 * instance->y[i];
    TRY(vertex(instance, c));
    ratios[CLOSEST] = figure(instance, energy);
    if (start == GENERIC) row[COLUMN_QE_CLOSEST] = instance_error(instance, instance->x);
    for (int64_t i = 0; i < plan->n; i++)
        c[i] = rng_normal((struct rng){.seed = seed, .stream = RNG_STREAM(84)}, (uint64_t)i);
    TRY(vertex(instance, c));
    ratios[RANDOM_VERTEX] = figure(instance, energy);
done:
    return status;
}

static enum status draw(void *context, int64_t task, double *row) {
    enum status status = STATUS_OK;
    struct plan *plan = context;
    struct problem problem = {.n = plan->n,
                              .m = plan->m,
                              .alpha = 1.5,
                              .scale = 1,
                              .basis = BASIS_HADAMARD,
                              .distribution = plan->study->settings->distribution};
    struct instance *instance = NULL;
    void *buffer = NULL;
    uint64_t seed = instance_seed(plan->study->seed, SEED_MATRIX, task);
    TRY(instance_new(&problem, seed, &instance));
    TRY(mem_buffer_new(plan->n * (int64_t)sizeof(double), "an objective", &buffer));
    double energy = instance_energy(instance), *c = buffer;
    const int64_t numbers[OBJECTIVES] = {1, plan->m / 2, 2 * plan->m};
    instance_start(instance, instance_seed(seed, SEED_START, 0));
    for (int k = 0; k < OBJECTIVES; k++) {
        gradients_eigenvector(instance->gradients, numbers[k], c);
        for (int64_t i = 0; i < plan->n; i++) c[i] = c[i] < 0 ? 1 : -1;
        TRY(vertex(instance, c));
        row[STARTS * ROUNDINGS + k] = figure(instance, energy);
    }
    for (int start = 0; start < STARTS; start++)
        TRY(round_start(plan, instance, start, instance_seed(seed, SEED_WALK, start), energy, c, row));
done:
    instance_free(instance);
    mem_buffer_free(buffer);
    return status;
}

static void describe(void *context, int64_t task, struct record *line) {
    const struct plan *plan = context;
    record_integer(line, "n", plan->n);
    record_integer(line, "m", plan->m);
    record_integer(line, "draw", task);
}

static struct nest nest_of(const struct plan *plan, const double *rows, int column) {
    return (struct nest){.levels = 1, .counts = {plan->draws}, .values = rows + column, .stride = COLUMNS};
}

static void judge(const struct plan *plan, const double *rows) {
    struct study *study = plan->study;
    struct interval all[COLUMNS];
    enum verdict safe = VERDICT_HOLDS;
    int worst = CLOSEST;
    for (int k = 0; k < COLUMN_QE_WALK; k++) {
        struct nest nest = nest_of(plan, rows, k);
        all[k] = bootstrap_mean(&nest, study->seed);
        study_point(study, "ratio", columns[k], (double)k, all[k]);
        record_number(run_folder_result(study->folder), columns[k], all[k].mean);
        bool made_for_it = k >= STARTS * ROUNDINGS || (k >= ROUNDINGS && k % ROUNDINGS >= CLOSEST);
        if (made_for_it && all[k].mean > all[worst].mean) worst = k;
    }
    for (int start = 0; start < STARTS; start++)
        safe = verdict_and(safe, judge_below(&all[start * ROUNDINGS + BY_WALK], 1.2));
    struct nest closest = nest_of(plan, rows, COLUMN_QE_CLOSEST), walk = nest_of(plan, rows, COLUMN_QE_WALK);
    struct interval ratio = bootstrap_ratio(&closest, &walk, study->seed);
    record_number(run_folder_result(study->folder), "closest_over_walk", ratio.mean);
    study_verdict(
        study, "walk_is_safe", safe,
        "QE over that of a displacement that knows nothing of Sigma: %s on the generic start %.2f, near %.2f, far "
        "%.2f (to nearest %.2f, %.2f, %.2f)",
        study->settings->engine, all[BY_WALK].mean, all[ROUNDINGS + BY_WALK].mean, all[2 * ROUNDINGS + BY_WALK].mean,
        all[TO_NEAREST].mean, all[ROUNDINGS + TO_NEAREST].mean, all[2 * ROUNDINGS + TO_NEAREST].mean);
    study_verdict(
        study, "vertices_are_not", judge_above(&all[worst], 20),
        "worst is %s: %.1f [%.1f, %.1f]; closest vertex near %.1f, far %.1f; objectives -v_1, -v_m/2, -v_2m: %.1f, "
        "%.1f, %.1f; random objective %.2f on the generic start",
        columns[worst], all[worst].mean, all[worst].low, all[worst].high, all[ROUNDINGS + CLOSEST].mean,
        all[2 * ROUNDINGS + CLOSEST].mean, all[STARTS * ROUNDINGS].mean, all[STARTS * ROUNDINGS + 1].mean,
        all[STARTS * ROUNDINGS + 2].mean, all[RANDOM_VERTEX].mean);
    study_verdict(study, "closest_is_best", judge_below(&ratio, 1),
                  "on the generic start the closest vertex has %.2f [%.2f, %.2f] of the walk's QE (the law: 0.5)",
                  ratio.mean, ratio.low, ratio.high);
}

enum status study_adversarial(struct study *study) {
    enum status status = STATUS_OK;
    bool quick = study->settings->quick;
    struct plan plan = {.study = study,
                        .n = study_coordinates(study, 1024, 4096),
                        .m = quick ? 16 : 32,
                        .draws = study_replicates(study, 12, 24)};
    struct sweep sweep = {.what = "adversarial",
                          .tasks = plan.draws,
                          .width = COLUMNS,
                          .columns = columns,
                          .work = draw,
                          .describe = describe,
                          .context = &plan,
                          .checkpoint_every = study->settings->checkpoint_every};
    double *rows = NULL;
    record_integer(run_folder_result(study->folder), "n", plan.n);
    record_integer(run_folder_result(study->folder), "m", plan.m);
    TRY(sweep_run(&sweep, study->folder, &rows));
    judge(&plan, rows);
done:
    mem_buffer_free(rows);
    return status;
}
