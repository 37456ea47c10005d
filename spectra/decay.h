// Laws for the eigenvalues of Sigma, and their fit to eigenvalues seen through samples and a sketch: the law goes through the
// bias of both (theory/spectrum_bias.h) before it is compared.
//
//     struct decay_frame frame = {.weights = n, .samples = samples / kappa, .dim = k, .first = 3, .last = 300};
//     TRY(decay_fit(&frame, LAW_POWER, values, &decay));     // decay.parameters[0] = alpha
#ifndef DQ_SPECTRA_DECAY_H
#define DQ_SPECTRA_DECAY_H

#include "core/base/status.h"

#include <stdbool.h>
#include <stdint.h>

enum law {
    LAW_POWER,       // k^-a: {a}
    LAW_BROKEN,      // k^-a up to rank b, then k^-c, continuous: {a, c, b}
    LAW_EXPONENTIAL, // e^(-k / l): {l}
    LAWS
};
extern const char *const law_names[LAWS + 1]; // ends with NULL

enum { LAW_PARAMETERS = 3 };

struct decay_frame {
    int64_t weights;     // how many eigenvalues Sigma has
    double samples, dim; // effective samples, dimensions of the sketch; INFINITY: no bias
    int64_t first, last; // ranks that are compared
};

struct decay {
    enum law law;
    double parameters[LAW_PARAMETERS];
    double scale;    // lambda_k = scale times the law
    double residual; // root mean square of the log residuals, ranks weighted by 1 / rank
};

// lambda_k of the fitted law.
double decay_eigenvalue(const struct decay *decay, double k);

// expected [last - first + 1]: the eigenvalues that the law would show at ranks first … last.
enum status decay_expected(const struct decay_frame *frame, const struct decay *decay, double *expected);

// values: eigenvalues seen, falling, rank k at values[k - 1]. Least squares of logarithms, weight 1 / rank, which counts every
// octave of ranks alike; the scale follows from the rest. STATUS_INVALID where no parameters within their bounds fit (a power
// law: 0.05 < alpha < 12). `near`, a decay of the same law, shortens the search; may be NULL.
enum status decay_fit(const struct decay_frame *frame, enum law law, const double *values, const struct decay *near,
                      struct decay *out);

// Root mean square of log(values / expected) with a factor of its own or (own_scale false) that of the decay.
enum status decay_residual(const struct decay_frame *frame, const struct decay *decay, const double *values,
                           bool own_scale, double *residual);

// How the expected eigenvalues of a power law at ranks 1 … last change around it: what a jackknife refits by, hundreds of times.
struct decay_tangent;
enum status decay_tangent_new(const struct decay_frame *frame, const struct decay *centre, struct decay_tangent **out);
void decay_tangent_free(struct decay_tangent *tangent); // accepts NULL

// The fit of decay_fit to other eigenvalues seen, given as logarithms [last], from about as many samples and dimensions; exact
// to second order in alpha, to first order in 1 / samples and 1 / dim. over [last], or NULL: log of value / law's expected value
// for scale 1, so that exp(over[k - 1]) is the debiased eigenvalue times k^alpha.
void decay_tangent_fit(const struct decay_tangent *tangent, double samples, double dim, const double *log_values,
                       double *over, struct decay *out);

#endif
