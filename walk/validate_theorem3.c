// Theorem 3 over many walks of one M and one y, for the engine that is judged and for the clamped walk beside it.
//
//     theorem3_i    <g, x - y> = 0 for the samples
//     theorem3_ii   at least half of the coordinates are integral, in a tenth of the walks or more
//     theorem3_iii  |E (x - y)(x - y)^T|_S(inf) is O(1): at most 1 in what is measured, and no larger for large n
//     clamp_spike   the clamped walk breaks that: E (x - y) is a multiple of P (1 - 2y), a spike that grows as n
//     one_run       at large n a single walk shows it: <x - y, u>^2 is below 1 on average over walks of zone and of leap, and
//                   above 20 n / 65536 for clamp, whose bias a (1 - 2y) / (1 + 2a), a = 0.583 step, makes n a^2 / 3 / (1 + 2a)^2
//
// The largest eigenvalue of R draws is above the truth by up to (1 + sqrt(n / R))^2. So three figures beside it:
//
//     null    the same figure of R Gaussian draws with covariance P diag(variances of the coordinates) P
//     split   <d, v>^2 on one half of the draws, v the top eigenvector of the other half: a lower bound of the norm on average
//     along   <d, u>^2, u along P (1 - 2y): where a biased walk has its spike
//
// Their maximum over M and y is judged, with intervals over M and walks. I/4 is not a bound for walks that keep M x = M y: for
// M = (1, 1), y = (1/2, 1/2) the covariance is that of (1, -1) / 2 times a sign, with norm 1/2.
#include "walk/validate.h"

#include "core/base/mem.h"
#include "theory/theorem3.h"

#include <cblas.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SIZES_MOST = 3, ENGINES = 2, WALKS_MOST = 500, POWER_STEPS = 100, NULLS = 4, SINGLE = 3 };
static const char *const single_engines[SINGLE] = {"zone", "leap", "clamp"};

enum {
    COLUMN_KEPT,
    COLUMN_GOOD, // share of walks with half of the coordinates integral
    COLUMN_INTEGRAL,
    COLUMN_NORM,
    COLUMN_NULL,
    COLUMN_SPLIT,
    COLUMN_ALONG,
    COLUMN_SPLIT_OF, // <d, v>^2 of each walk
    COLUMN_ALONG_OF = COLUMN_SPLIT_OF + WALKS_MOST,
    COLUMNS = COLUMN_ALONG_OF + WALKS_MOST,
};

static const char *const columns[COLUMNS] = {"kept", "good", "integral", "norm", "norm_null", "norm_split", "along"};

struct plan {
    struct study *study;
    int64_t n[SIZES_MOST], sizes, draws, walks;
    const char *engines[ENGINES];
    int engines_used;
    int64_t grid; // tasks above; after them single walks at large n:
    int64_t n_single, walks_single;
};

static struct problem problem_of(const struct plan *plan, int64_t task) {
    bool single = task >= plan->grid;
    int64_t n = single ? plan->n_single : plan->n[task / plan->draws % plan->sizes];
    return (struct problem){.n = n,
                            .m = single ? n / 512 : n / 64,
                            .alpha = 1.5,
                            .scale = 1,
                            .basis = BASIS_HADAMARD,
                            .distribution = plan->study->settings->distribution};
}

static const char *engine_of(const struct plan *plan, int64_t task) {
    if (task >= plan->grid) return single_engines[(task - plan->grid) / plan->draws];
    return plan->engines[task / plan->draws / plan->sizes];
}

// The top eigenvector v [n] of sum d d^T over draws [count, n], by power iteration; work [count].
static void top_vector(const double *draws, int64_t count, int64_t n, double *work, double *v) {
    for (int64_t i = 0; i < n; i++) v[i] = draws[i] + draws[(count / 2) * n + i];
    for (int step = 0; step < POWER_STEPS; step++) {
        double norm = cblas_dnrm2((int)n, v, 1);
        if (!(norm > 0)) return;
        cblas_dscal((int)n, 1 / norm, v, 1);
        cblas_dgemv(CblasRowMajor, CblasNoTrans, (int)count, (int)n, 1, draws, (int)n, v, 1, 0, work, 1);
        cblas_dgemv(CblasRowMajor, CblasTrans, (int)count, (int)n, 1, draws, (int)n, work, 1, 0, v, 1);
    }
    cblas_dscal((int)n, 1 / cblas_dnrm2((int)n, v, 1), v, 1);
}

static void squares_along(const double *draws, int64_t count, int64_t n, const double *v, double *out) {
    for (int64_t r = 0; r < count; r++) {
        double product = cblas_ddot((int)n, draws + r * n, 1, v, 1);
        out[r] = product * product;
    }
}

static double mean(const double *values, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += values[i];
    return sum / (double)n;
}

static void split_halves(const double *draws, int64_t count, int64_t n, double *work, double *v, double *row) {
    int64_t half = count / 2;
    top_vector(draws, half, n, work, v);
    squares_along(draws + half * n, count - half, n, v, row + COLUMN_SPLIT_OF + half);
    top_vector(draws + half * n, count - half, n, work, v);
    squares_along(draws, half, n, v, row + COLUMN_SPLIT_OF);
    row[COLUMN_SPLIT] = mean(row + COLUMN_SPLIT_OF, count);
}

// Mean norm of Gaussian draws with the coordinates' variances, projected; `fake` [count, n].
static enum status null_norm(const struct instance *instance, const double *draws, int64_t count, uint64_t seed,
                             double *fake, double *deviations, double *out) {
    enum status status = STATUS_OK;
    int64_t n = instance->problem.n;
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        deviations[i] = 0;
        for (int64_t r = 0; r < count; r++) deviations[i] += draws[r * n + i] * draws[r * n + i] / (double)count;
        deviations[i] = sqrt(deviations[i]);
    }
    for (int64_t k = 0; k < NULLS; k++) {
        double norm = 0;
        struct rng rng = {.seed = instance_seed(seed, SEED_OTHER, k), .stream = RNG_STREAM(83)};
        for (int64_t r = 0; r < count; r++) {
            for (int64_t i = 0; i < n; i++) fake[r * n + i] = deviations[i] * rng_normal(rng, (uint64_t)(r * n + i));
            frame_project(instance->frame, fake + r * n);
        }
        TRY(theorem3_covariance(fake, count, n, &norm));
        sum += norm;
    }
    *out = sum / NULLS;
done:
    return status;
}

static enum status walk_often(const struct plan *plan, struct instance *instance, const double *samples, int64_t task,
                              uint64_t seed, double *draws, double *row) {
    enum status status = STATUS_OK;
    int64_t n = instance->problem.n;
    struct walker walker = {.engine = engine_of(plan, task), .finish = WALK_STOP};
    double figures[FIGURES];
    row[COLUMN_KEPT] = row[COLUMN_GOOD] = row[COLUMN_INTEGRAL] = 0;
    for (int64_t r = 0; r < plan->walks; r++) {
        double *d = draws + r * n;
        TRY(instance_walk(instance, &walker, seed, r, figures));
        for (int64_t i = 0; i < n; i++) d[i] = instance->x[i] - instance->y[i];
        row[COLUMN_KEPT] = fmax(row[COLUMN_KEPT], theorem3_kept(samples, instance->problem.m, n, d));
        row[COLUMN_GOOD] += theorem3_is_good(instance->x, n) / (double)plan->walks;
        row[COLUMN_INTEGRAL] += (double)theorem3_integral(instance->x, n) / (double)n / (double)plan->walks;
        row[COLUMN_ALONG_OF + r] = figures[FIGURE_BIAS] * figures[FIGURE_BIAS];
    }
done:
    return status;
}

// Single walks of large n: their part along u only.
static enum status draw_single(const struct plan *plan, int64_t task, double *row) {
    enum status status = STATUS_OK;
    struct problem problem = problem_of(plan, task);
    struct walker walker = {.engine = engine_of(plan, task), .finish = WALK_STOP};
    struct instance *instance = NULL;
    double figures[FIGURES];
    // All engines see the same M and y.
    uint64_t seed = instance_seed(plan->study->seed, SEED_MATRIX, plan->grid + (task - plan->grid) % plan->draws);
    TRY(instance_new(&problem, seed, &instance));
    instance_start(instance, instance_seed(seed, SEED_START, 0));
    for (int64_t r = 0; r < plan->walks_single; r++) {
        TRY(instance_walk(instance, &walker, instance_seed(seed, SEED_WALK, 0), r, figures));
        row[COLUMN_ALONG_OF + r] = figures[FIGURE_BIAS] * figures[FIGURE_BIAS];
    }
    row[COLUMN_ALONG] = mean(row + COLUMN_ALONG_OF, plan->walks_single);
done:
    instance_free(instance);
    return status;
}

static enum status draw(void *context, int64_t task, double *row) {
    enum status status = STATUS_OK;
    struct plan *plan = context;
    if (task >= plan->grid) return draw_single(plan, task, row);
    struct problem problem = problem_of(plan, task);
    struct instance *instance = NULL;
    void *buffer = NULL;
    int64_t n = problem.n, walks = plan->walks;
    // Both engines see the same M and y.
    uint64_t seed = instance_seed(plan->study->seed, SEED_MATRIX, task % (plan->draws * plan->sizes));
    TRY(instance_new(&problem, seed, &instance));
    instance_start(instance, instance_seed(seed, SEED_START, 0));
    TRY(mem_buffer_new((2 * walks * n + problem.m * n + 2 * n + walks) * (int64_t)sizeof(double), "walks", &buffer));
    double *draws = buffer, *fake = draws + walks * n, *samples = fake + walks * n, *v = samples + problem.m * n,
           *deviations = v + n, *work = deviations + n;
    gradients_rows(instance->gradients, GRADIENTS_SAMPLES, 0, problem.m, samples, n);
    TRY(walk_often(plan, instance, samples, task, instance_seed(seed, SEED_WALK, 0), draws, row));
    row[COLUMN_ALONG] = mean(row + COLUMN_ALONG_OF, walks);
    TRY(theorem3_covariance(draws, walks, n, &row[COLUMN_NORM]));
    TRY(null_norm(instance, draws, walks, seed, fake, deviations, &row[COLUMN_NULL]));
    split_halves(draws, walks, n, work, v, row);
done:
    instance_free(instance);
    mem_buffer_free(buffer);
    return status;
}

static void describe(void *context, int64_t task, struct record *line) {
    const struct plan *plan = context;
    struct problem problem = problem_of(plan, task);
    record_string(line, "engine", engine_of(plan, task));
    record_integer(line, "n", problem.n);
    record_integer(line, "m", problem.m);
    record_integer(line, "draw", task % plan->draws);
    record_integer(line, "walks", task < plan->grid ? plan->walks : plan->walks_single);
}

// Interval over draws of M, y and walks of one (engine, n), whose first row is given.
static struct interval over(const struct plan *plan, const double *rows, int64_t walks, int column) {
    double *values = mem_new((size_t)(plan->draws * walks), sizeof *values);
    for (int64_t k = 0; k < plan->draws; k++)
        memcpy(values + k * walks, rows + k * COLUMNS + column, (size_t)walks * sizeof *values);
    struct nest nest = {.levels = 2, .counts = {plan->draws, walks}, .values = values, .stride = 1};
    struct interval interval = bootstrap_mean(&nest, plan->study->seed);
    free(values);
    return interval;
}

static double most(const struct plan *plan, const double *rows, int64_t point, int column) {
    double value = -INFINITY;
    for (int64_t k = 0; k < plan->draws; k++) value = fmax(value, rows[(point * plan->draws + k) * COLUMNS + column]);
    return value;
}

// What is judged of one engine: over its sizes.
struct norms {
    struct interval split[SIZES_MOST], along[SIZES_MOST];
    double norm[SIZES_MOST], null[SIZES_MOST], kept, good;
};

static void gather(const struct plan *plan, const double *rows, int64_t engine, struct norms *out) {
    struct study *study = plan->study;
    const char *name = plan->engines[engine];
    *out = (struct norms){.good = 1};
    for (int64_t i = 0; i < plan->sizes; i++) {
        int64_t point = engine * plan->sizes + i;
        double n = (double)plan->n[i];
        out->split[i] = over(plan, rows + point * plan->draws * COLUMNS, plan->walks, COLUMN_SPLIT_OF);
        out->along[i] = over(plan, rows + point * plan->draws * COLUMNS, plan->walks, COLUMN_ALONG_OF);
        out->norm[i] = most(plan, rows, point, COLUMN_NORM);
        out->null[i] = most(plan, rows, point, COLUMN_NULL);
        out->kept = fmax(out->kept, most(plan, rows, point, COLUMN_KEPT));
        for (int64_t k = 0; k < plan->draws; k++)
            out->good = fmin(out->good, rows[(point * plan->draws + k) * COLUMNS + COLUMN_GOOD]);
        study_point(study, "norm", name, n, (struct interval){out->norm[i], NAN, NAN});
        study_point(study, "norm_null", name, n, (struct interval){out->null[i], NAN, NAN});
        study_point(study, "norm_split", name, n, out->split[i]);
        study_point(study, "along", name, n, out->along[i]);
        char key[64];
        const double all[] = {out->norm[i], out->null[i], out->split[i].mean, out->along[i].mean};
        static const char *const keys[] = {"norm", "norm_null", "norm_split", "along"};
        for (size_t k = 0; k < sizeof all / sizeof *all; k++) {
            snprintf(key, sizeof key, "%s_%s_%lld", keys[k], name, (long long)plan->n[i]);
            record_number(run_folder_result(study->folder), key, all[k]);
        }
    }
}

static void judge(const struct plan *plan, const double *rows) {
    struct study *study = plan->study;
    struct norms own, clamp;
    int64_t last = plan->sizes - 1;
    enum verdict bounded = VERDICT_HOLDS;
    gather(plan, rows, 0, &own);
    for (int64_t i = 0; i <= last; i++) {
        bounded = verdict_and(bounded, judge_below(&own.split[i], 1));
        bounded = verdict_and(bounded, judge_below(&own.along[i], 1));
        bounded = verdict_and(bounded, own.norm[i] <= 1.25 * own.null[i] ? VERDICT_HOLDS : VERDICT_FAILS);
    }
    struct interval growth = own.split[last];
    growth.mean /= own.split[0].mean, growth.low /= own.split[0].high, growth.high /= own.split[0].low;
    bounded = verdict_and(bounded, judge_below(&growth, 2));
    study_verdict(study, "theorem3_i", own.kept < 1e-9 ? VERDICT_HOLDS : VERDICT_FAILS,
                  "|<g, x - y>| / (|g| |x - y|) at most %.1e", own.kept);
    study_verdict(study, "theorem3_ii", own.good >= THEOREM3_PROBABILITY ? VERDICT_HOLDS : VERDICT_FAILS,
                  "half of the coordinates are integral in %.0f %% of the walks (10 %% are promised)", 100 * own.good);
    study_verdict(
        study, "theorem3_iii", bounded,
        "%s, n = %lld, %lld walks: largest eigenvalue %.3f (without any structure %.3f), split halves %.3f [%.3f, "
        "%.3f], along P (1 - 2y) %.3f [%.3f, %.3f]; n = %lld: split %.3f",
        plan->engines[0], (long long)plan->n[last], (long long)plan->walks, own.norm[last], own.null[last],
        own.split[last].mean, own.split[last].low, own.split[last].high, own.along[last].mean, own.along[last].low,
        own.along[last].high, (long long)plan->n[0], own.split[0].mean);
    if (plan->engines_used < ENGINES) return;
    gather(plan, rows, 1, &clamp);
    struct interval ratio = clamp.along[last];
    ratio.mean /= clamp.along[0].mean, ratio.low /= clamp.along[0].high, ratio.high /= clamp.along[0].low;
    study_verdict(study, "clamp_spike",
                  verdict_and(judge_above(&clamp.split[last], own.split[last].high), judge_above(&ratio, 1.5)),
                  "clamped walk, n = %lld: largest eigenvalue %.3f (without any structure %.3f), along P (1 - 2y) %.3f "
                  "[%.3f, %.3f]; n = %lld: %.3f",
                  (long long)plan->n[last], clamp.norm[last], clamp.null[last], clamp.along[last].mean,
                  clamp.along[last].low, clamp.along[last].high, (long long)plan->n[0], clamp.along[0].mean);
}

static void judge_single(const struct plan *plan, const double *rows) {
    struct study *study = plan->study;
    enum verdict verdict = VERDICT_HOLDS;
    double n = (double)plan->n_single, most[SINGLE] = {0};
    struct interval along[SINGLE];
    for (int e = 0; e < SINGLE; e++) {
        const double *own = rows + (plan->grid + e * plan->draws) * COLUMNS;
        along[e] = over(plan, own, plan->walks_single, COLUMN_ALONG_OF);
        for (int64_t k = 0; k < plan->draws * plan->walks_single; k++)
            most[e] = fmax(most[e], own[k / plan->walks_single * COLUMNS + COLUMN_ALONG_OF + k % plan->walks_single]);
        bool clamp = e == SINGLE - 1;
        verdict = verdict_and(verdict, clamp ? judge_above(&along[e], 20 * n / 65536) : judge_below(&along[e], 1));
        char key[64];
        snprintf(key, sizeof key, "one_run_%s", single_engines[e]);
        record_number(run_folder_result(study->folder), key, along[e].mean);
        study_point(study, "one_run", single_engines[e], n, along[e]);
    }
    study_verdict(
        study, "one_run", verdict,
        "n = %lld, m = %lld, %lld walks each, along P (1 - 2y): zone %.3f [%.3f, %.3f], at most %.2f; leap %.3f "
        "[%.3f, %.3f], at most %.2f; clamp %.1f [%.1f, %.1f]",
        (long long)plan->n_single, (long long)plan->n_single / 512, (long long)(plan->draws * plan->walks_single),
        along[0].mean, along[0].low, along[0].high, most[0], along[1].mean, along[1].low, along[1].high, most[1],
        along[2].mean, along[2].low, along[2].high);
}

enum status study_theorem3(struct study *study) {
    enum status status = STATUS_OK;
    bool quick = study->settings->quick;
    struct plan plan = {.study = study,
                        .n = {256, 1024, 4096},
                        .sizes = quick ? 2 : 3,
                        .draws = study_replicates(study, 2, 3),
                        .walks = quick ? 300 : 500,
                        .engines = {study->settings->engine, "clamp"},
                        .engines_used = strcmp(study->settings->engine, "clamp") == 0 ? 1 : ENGINES,
                        .n_single = quick ? 16384 : 65536,
                        .walks_single = 8};
    plan.grid = plan.engines_used * plan.sizes * plan.draws;
    struct sweep sweep = {.what = "theorem 3",
                          .tasks = plan.grid + SINGLE * plan.draws,
                          .width = COLUMNS,
                          .columns = columns,
                          .work = draw,
                          .describe = describe,
                          .context = &plan,
                          .checkpoint_every = study->settings->checkpoint_every};
    double *rows = NULL;
    TRY(sweep_run(&sweep, study->folder, &rows));
    judge(&plan, rows);
    judge_single(&plan, rows);
done:
    mem_buffer_free(rows);
    return status;
}
