#include "walk/synthetic.h"

#include "core/backend/backend.h"
#include "core/base/mem.h"
#include "core/base/progress.h"
#include "theory/error_law.h"
#include "theory/residual.h"
#include "walk/bootstrap.h"
#include "walk/sweep.h"

#include <math.h>
#include <string.h>

const char *const basis_names[] = {"identity", "hadamard", NULL};
const char *const distribution_names[] = {"gaussian", "rademacher", "heavy", NULL};
const char *const finish_names[] = {"stop", "vertex", "landing", "nearest", "vertex-nearest", NULL};

enum { COLUMN_RTN = FIGURES, COLUMN_RANDOM, COLUMNS };

struct run {
    const struct synthetic_settings *settings;
    struct backend *backend; // NULL: the host
    uint64_t seed;
};

const char *synthetic_refusal(const struct problem *problem, const struct walker *walker) {
    static const char *const whole[] = {"gsw", "independent", "nearest"};
    if (problem->m <= problem->n / 16) return NULL;
    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++)
        if (strcmp(walker->engine, whole[i]) == 0) return NULL;
    if (walker->finish != WALK_STOP && walker->finish != WALK_NEAREST) return NULL;
    return "more than n / 16 samples: the walk of Theorem 2 ends with 16 m fractional coordinates and would not begin; "
           "take "
           "fewer, --engine gsw, or --final vertex or landing";
}

static enum status replicate(void *context, int64_t task, double *row) {
    enum status status = STATUS_OK;
    struct run *run = context;
    const struct synthetic_settings *s = run->settings;
    struct instance *instance = NULL;
    double figures[FIGURES];
    struct problem problem = s->problem;
    problem.backend = run->backend;
    TRY(instance_new(&problem, instance_seed(run->seed, SEED_MATRIX, task), &instance));
    instance_start(instance, instance_seed(run->seed, SEED_START, task));
    uint64_t seed = instance_seed(run->seed, SEED_WALK, task);
    TRY(instance_walk(instance, &(struct walker){.engine = "nearest"}, seed, 1, figures));
    row[COLUMN_RTN] = figures[FIGURE_QE];
    TRY(instance_walk(instance, &(struct walker){.engine = "independent"}, seed, 2, figures));
    row[COLUMN_RANDOM] = figures[FIGURE_QE];
    TRY(instance_walk(instance, &s->walker, seed, 0, row));
done:
    instance_free(instance);
    return status;
}

static void describe_replicate(void *context, int64_t task, struct record *line) {
    (void)context;
    record_integer(line, "replicate", task);
}

static double mean_of(const double *rows, int64_t n, int column) {
    return nest_mean(&(struct nest){.levels = 1, .counts = {n}, .values = rows + column, .stride = COLUMNS});
}

static double most_of(const double *rows, int64_t n, int column) {
    double most = -INFINITY;
    for (int64_t i = 0; i < n; i++) most = fmax(most, rows[i * COLUMNS + column]);
    return most;
}

static double z_of(const double *rows, int64_t n, int column) {
    double mean = mean_of(rows, n, column), sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (rows[i * COLUMNS + column] - mean) * (rows[i * COLUMNS + column] - mean);
    return n > 1 ? mean / sqrt(sum / (double)(n - 1) / (double)n) : NAN;
}

static void describe_problem(const struct problem *p, const struct walker *r, struct record *record) {
    record_integer(record, "n", p->n);
    record_integer(record, "m", p->m);
    record_number(record, "alpha", p->alpha);
    record_number(record, "c", p->scale);
    record_string(record, "basis", basis_names[p->basis]);
    record_string(record, "distribution", distribution_names[p->distribution]);
    record_string(record, "engine", r->engine);
    record_string(record, "final", finish_names[r->finish]);
    record_number(record, "step_size", r->step_size);
}

static enum status summarize(const struct run *run, const double *rows, struct run_folder *folder) {
    enum status status = STATUS_OK;
    const struct problem *p = &run->settings->problem;
    const struct walker *r = &run->settings->walker;
    int64_t n = run->settings->replicates;
    struct record *result = run_folder_result(folder);
    struct nest nest = {.levels = 1, .counts = {n}, .values = rows + FIGURE_QE, .stride = COLUMNS};
    struct interval qe = bootstrap_mean(&nest, run->seed);
    double predicted = 0, distance2 = mean_of(rows, n, FIGURE_DISTANCE2), energy = 0, z = z_of(rows, n, FIGURE_BIAS);
    struct power_law law = {.n = p->n, .alpha = p->alpha, .scale = p->scale};
    TRY(instance_predict(p, r, &predicted));
    bool keeps = walker_is_constrained(r);
    TRY(residual_energy_power_law(&law, keeps ? (double)p->m : 0, &energy));
    describe_problem(p, r, result);
    record_integer(result, "replicates", n);
    record_number(result, "rank", mean_of(rows, n, FIGURE_RANK));
    record_number(result, "steps", mean_of(rows, n, FIGURE_STEPS));
    record_number(result, "matrix_reads", mean_of(rows, n, FIGURE_READS));
    record_number(result, "fractional_walk", mean_of(rows, n, FIGURE_FRACTIONAL_WALK));
    record_number(result, "fractional_most", most_of(rows, n, FIGURE_FRACTIONAL_WALK));
    record_number(result, "fractional", mean_of(rows, n, FIGURE_FRACTIONAL));
    record_number(result, "residual_max", most_of(rows, n, FIGURE_RESIDUAL));
    record_number(result, "repairs", mean_of(rows, n, FIGURE_REPAIRS));
    record_number(result, "distance2_walk", mean_of(rows, n, FIGURE_DISTANCE2_WALK));
    record_number(result, "distance2", distance2);
    record_number(result, "qe_walk", mean_of(rows, n, FIGURE_QE_WALK));
    record_number(result, "qe", qe.mean);
    record_number(result, "qe_ci_low", qe.low);
    record_number(result, "qe_ci_high", qe.high);
    record_number(result, "qe_predicted", predicted);
    if (!keeps || p->m < p->n)
        record_number(result, "qe_predicted_distance", error_law_predict(distance2, p->n, keeps ? p->m : 0, energy));
    record_number(result, "qe_rtn", mean_of(rows, n, COLUMN_RTN));
    record_number(result, "qe_random", mean_of(rows, n, COLUMN_RANDOM));
    record_number(result, "bias_z", z);
    record_number(result, "seconds", run_folder_seconds(folder));
    progress_say(
        "%s, n %lld, m %lld: QE %.4g (95 %%: %.4g … %.4g), predicted %.4g; to nearest %.4g, at random %.4g; bias "
        "z %.2f, %.0f of %lld fractional",
        r->engine, (long long)p->n, (long long)p->m, qe.mean, qe.low, qe.high, predicted, mean_of(rows, n, COLUMN_RTN),
        mean_of(rows, n, COLUMN_RANDOM), z, mean_of(rows, n, FIGURE_FRACTIONAL), (long long)p->n);
done:
    return status;
}

static enum status work(struct run *run, struct run_folder *folder) {
    enum status status = STATUS_OK;
    const char *columns[COLUMNS] = {[COLUMN_RTN] = "qe_rtn", [COLUMN_RANDOM] = "qe_random"};
    memcpy(columns, instance_figures, sizeof instance_figures);
    struct sweep sweep = {.what = "walking",
                          .tasks = run->settings->replicates,
                          .width = COLUMNS,
                          .columns = columns,
                          .work = replicate,
                          .describe = describe_replicate,
                          .context = run,
                          .checkpoint_every = run->settings->checkpoint_every};
    double *rows = NULL;
    TRY(sweep_run(&sweep, folder, &rows));
    TRY(summarize(run, rows, folder));
done:
    mem_buffer_free(rows);
    return status;
}

enum status synthetic_run(const struct program_common *common, const struct synthetic_settings *settings) {
    enum status status = STATUS_OK;
    struct run_folder *folder = NULL;
    struct run run = {.settings = settings, .seed = common->seed};
    struct record *about = record_new();
    describe_problem(&settings->problem, &settings->walker, about);
    record_integer(about, "replicates", settings->replicates);
    record_integer(about, "seed", (int64_t)common->seed);
    TRY(program_run_folder(common, about, &folder));
    if (run_folder_is_done(folder)) goto done;
    if (strcmp(common->device, "cpu") != 0) TRY(backend_open(common->device, &run.backend));
    status = run_folder_finish(folder, work(&run, folder));
done:
    backend_close(run.backend);
    run_folder_free(folder);
    record_free(about);
    return status;
}
