// A rounding problem whose answer is known: synthetic gradients (theory/gradients.h) as M, a start y, and the exact QE
// of what a walk makes of them.
//
//     TRY(instance_new(&problem, seed, &instance));                    // draws M [m, n], makes its frame
//     instance_start(instance, y_seed);                                // y uniform in (0, 1)
//     TRY(instance_walk(instance, &walker, walk_seed, 0, figures));   // figures [FIGURES]
#ifndef DQ_WALK_INSTANCE_H
#define DQ_WALK_INSTANCE_H

#include "theory/gradients.h"
#include "walk/walk.h"

struct problem {
    int64_t n, m;
    double alpha, scale; // eigenvalues scale k^-alpha
    enum basis basis;
    enum distribution distribution;
    struct backend *backend; // where the frame is made and walks run; NULL: the host
};

struct walker {
    const char *engine; // walk_engines
    enum walk_finish finish;
    double step_size; // 0: the engine's own
};

// What is recorded of one walk; names in instance_figures.
enum figure {
    FIGURE_RANK,
    FIGURE_STEPS,
    FIGURE_READS,           // of M
    FIGURE_FRACTIONAL_WALK, // before the final phase
    FIGURE_FRACTIONAL,
    FIGURE_RESIDUAL,       // max_k |Q (x - y)|_k before the final phase
    FIGURE_QE_WALK,        // d^T Sigma d before the final phase
    FIGURE_QE,             // at the end
    FIGURE_DISTANCE2_WALK, // |x - y|^2
    FIGURE_DISTANCE2,
    FIGURE_BIAS, // <d, u> before the final phase, u = P (1 - 2y) / |P (1 - 2y)|: 0 on average if E x = y
    FIGURE_REPAIRS,
    FIGURES
};
extern const char *const instance_figures[FIGURES];

struct instance {
    struct problem problem;
    struct gradients *gradients;
    double *matrix; // Q
    struct frame *frame;
    double *y, *x, *x_walk, *d, *work; // [n]
};

// A seed of its own for part `index` of what `seed` stands for; `level` keeps uses apart.
enum seed_level { SEED_MATRIX, SEED_START, SEED_WALK, SEED_OTHER };
uint64_t instance_seed(uint64_t seed, enum seed_level level, int64_t index);

// STATUS_INVALID for n, m, alpha or scale out of range, STATUS_NO_MEMORY.
enum status instance_new(const struct problem *problem, uint64_t seed, struct instance **out);
void instance_free(struct instance *instance); // accepts NULL

// y uniform.
void instance_start(struct instance *instance, uint64_t seed);

// Rounds y to x. A walk with another number is independent.
enum status instance_walk(struct instance *instance, const struct walker *walker, uint64_t seed, int64_t walk,
                          double figures[FIGURES]);

// (x - y)^T Sigma (x - y) and |x - y|^2.
double instance_error(struct instance *instance, const double *x);
double instance_distance2(const struct instance *instance, const double *x);

// tr(P Sigma) of these very samples: m Hadamard transforms.
double instance_energy(struct instance *instance);

// Walks with M x = M y, exactly or nearly: all but independent and nearest.
bool walker_is_constrained(const struct walker *walker);

// What theory/error_law.h predicts for QE at the end: with m constraints for an engine that keeps them, else with none.
enum status instance_predict(const struct problem *problem, const struct walker *walker, double *qe);

#endif
