#include "walk/instance.h"

#include "core/base/mem.h"
#include "theory/error_law.h"
#include "theory/residual.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define INSTANCE_RNG_SEED RNG_STREAM(81)  // + level
#define INSTANCE_RNG_START RNG_STREAM(82) // y

const char *const instance_figures[FIGURES] = {"rank",           "steps",     "matrix_reads", "fractional_walk",
                                               "fractional",     "residual",  "qe_walk",      "qe",
                                               "distance2_walk", "distance2", "bias",         "repairs"};

uint64_t instance_seed(uint64_t seed, enum seed_level level, int64_t index) {
    struct rng rng = {.seed = seed, .stream = INSTANCE_RNG_SEED + (uint64_t)level};
    return (uint64_t)rng_bits(rng, 2 * (uint64_t)index) << 32 | rng_bits(rng, 2 * (uint64_t)index + 1);
}

static enum status vectors(struct instance *instance, int64_t n) {
    enum status status = STATUS_OK;
    double **const all[] = {&instance->y, &instance->x, &instance->x_walk, &instance->d, &instance->work};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        void *buffer = NULL;
        TRY(mem_buffer_new(n * (int64_t)sizeof(double), "a point", &buffer));
        *all[i] = buffer;
    }
done:
    return status;
}

enum status instance_new(const struct problem *problem, uint64_t seed, struct instance **out) {
    enum status status = STATUS_OK;
    struct instance *instance = mem_new(1, sizeof *instance);
    struct gradients_options options = {
        .law = {.n = problem->n, .alpha = problem->alpha, .scale = problem->scale},
        .basis = problem->basis,
        .distribution = problem->distribution,
        .seed = seed,
    };
    instance->problem = *problem;
    TRY(gradients_new(&options, &instance->gradients));
    TRY(vectors(instance, problem->n));
    TRY(frame_matrix_new(problem->n, problem->m, &instance->matrix));
    TRY(gradients_columns(instance->gradients, GRADIENTS_SAMPLES, 0, problem->m, instance->matrix,
                          frame_stride(problem->m)));
    TRY(frame_new(instance->matrix, problem->n, problem->m, &(struct frame_options){.backend = problem->backend},
                  &instance->frame));
    *out = instance;
    instance = NULL;
done:
    instance_free(instance);
    return status;
}

void instance_free(struct instance *instance) {
    if (!instance) return;
    frame_free(instance->frame);
    mem_buffer_free(instance->matrix);
    gradients_free(instance->gradients);
    mem_buffer_free(instance->y);
    mem_buffer_free(instance->x);
    mem_buffer_free(instance->x_walk);
    mem_buffer_free(instance->d);
    mem_buffer_free(instance->work);
    free(instance);
}

void instance_start(struct instance *instance, uint64_t seed) {
    struct rng rng = {.seed = seed, .stream = INSTANCE_RNG_START};
    for (int64_t i = 0; i < instance->problem.n; i++)
        instance->y[i] = ((double)rng_bits(rng, (uint64_t)i) + 0.5) / 4294967296.0;
}

double instance_error(struct instance *instance, const double *x) {
    for (int64_t i = 0; i < instance->problem.n; i++) instance->d[i] = x[i] - instance->y[i];
    return gradients_error(instance->gradients, instance->d, instance->work);
}

double instance_distance2(const struct instance *instance, const double *x) {
    double sum = 0;
    for (int64_t i = 0; i < instance->problem.n; i++) sum += (x[i] - instance->y[i]) * (x[i] - instance->y[i]);
    return sum;
}

// <x - y, u> for the unit vector u along P (1 - 2y).
static double bias_along(struct instance *instance, const double *x) {
    int64_t n = instance->problem.n;
    double *u = instance->d, product = 0, norm2 = 0;
    for (int64_t i = 0; i < n; i++) u[i] = 1 - 2 * instance->y[i];
    frame_project(instance->frame, u);
    for (int64_t i = 0; i < n; i++) {
        product += (x[i] - instance->y[i]) * u[i];
        norm2 += u[i] * u[i];
    }
    return norm2 > 0 ? product / sqrt(norm2) : 0;
}

enum status instance_walk(struct instance *instance, const struct walker *walker, uint64_t seed, int64_t walk,
                          double figures[FIGURES]) {
    struct walk_options options = {.engine = walker->engine,
                                   .finish = walker->finish,
                                   .step_size = walker->step_size,
                                   .seed = seed,
                                   .walk = (uint32_t)walk};
    struct walk_result result;
    enum status status = walk_round(instance->frame, instance->y, &options, instance->x, instance->x_walk, &result);
    if (status != STATUS_OK) return status;
    const double all[FIGURES] = {
        [FIGURE_RANK] = (double)result.rank,
        [FIGURE_STEPS] = (double)result.steps,
        [FIGURE_READS] = result.reads,
        [FIGURE_FRACTIONAL_WALK] = (double)result.fractional_walk,
        [FIGURE_FRACTIONAL] = (double)result.fractional,
        [FIGURE_RESIDUAL] = result.residual_walk,
        [FIGURE_QE_WALK] = instance_error(instance, instance->x_walk),
        [FIGURE_QE] = instance_error(instance, instance->x),
        [FIGURE_DISTANCE2_WALK] = instance_distance2(instance, instance->x_walk),
        [FIGURE_DISTANCE2] = instance_distance2(instance, instance->x),
        [FIGURE_BIAS] = bias_along(instance, instance->x_walk),
        [FIGURE_REPAIRS] = (double)result.repairs,
    };
    memcpy(figures, all, sizeof all);
    return STATUS_OK;
}

double instance_energy(struct instance *instance) {
    const struct frame *frame = instance->frame;
    int64_t n = instance->problem.n;
    double energy = power_law_sum(&gradients_settings(instance->gradients)->law, 1, n);
    for (int64_t k = 0; k < frame->rank; k++) {
        for (int64_t i = 0; i < n; i++) instance->d[i] = frame->q[i * frame->stride + k];
        energy -= gradients_error(instance->gradients, instance->d, instance->work);
    }
    return energy;
}

bool walker_is_constrained(const struct walker *walker) {
    return strcmp(walker->engine, "nearest") != 0 && strcmp(walker->engine, "independent") != 0;
}

enum status instance_predict(const struct problem *problem, const struct walker *walker, double *qe) {
    enum status status = STATUS_OK;
    struct power_law law = {.n = problem->n, .alpha = problem->alpha, .scale = problem->scale};
    bool closest = strcmp(walker->engine, "nearest") == 0;
    double energy = power_law_sum(&law, 1, law.n),
           share = error_law_displacement(closest ? ROUNDER_CLOSEST : ROUNDER_MARTINGALE, NULL, 0);
    int64_t m = walker_is_constrained(walker) && problem->m < problem->n ? problem->m : 0;
    if (m) TRY(residual_energy_power_law(&law, (double)m, &energy));
    *qe = error_law_predict(share * (double)problem->n, problem->n, m, energy);
done:
    return status;
}
