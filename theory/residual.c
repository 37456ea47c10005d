// sum_k lambda_k / (lambda_k + mu) = m for mu, by Brent's method in log mu. The left side falls from the number of
// positive eigenvalues to 0. It is at most trace / mu, so mu <= trace / m; and with r positive
// eigenvalues at least r lambda_min / (lambda_min + mu), so mu >= lambda_min (r - m) / m.
#include "theory/residual.h"

#include <gsl/gsl_errno.h>
#include <gsl/gsl_roots.h>

#include <float.h>
#include <math.h>

struct spectrum {
    const double *lambda; // [n], or NULL: law
    int64_t n;
    const struct power_law *law;
    double m;
};

static double directions(const struct spectrum *s, double mu) {
    if (s->law) return power_law_directions(s->law, mu);
    double sum = 0;
    for (int64_t k = 0; k < s->n; k++) sum += s->lambda[k] / (s->lambda[k] + mu);
    return sum;
}

static double excess(double log_mu, void *context) {
    const struct spectrum *s = context;
    return directions(s, exp(log_mu)) - s->m;
}

static double solve(struct spectrum *s, double low, double high) {
    gsl_function f = {.function = excess, .params = s};
    low = log(fmax(low, DBL_MIN)) - 1e-9, high = log(high) + 1e-9; // rounding must not take the root out of the bracket
    // At the ends the sum can miss m by rounding only; the handler of GSL would end the program for that.
    if (excess(low, s) <= 0) return exp(low);
    if (excess(high, s) >= 0) return exp(high);
    gsl_root_fsolver *solver = gsl_root_fsolver_alloc(gsl_root_fsolver_brent);
    REQUIRE(solver, "no memory for a root finder");
    gsl_root_fsolver_set(solver, &f, low, high);
    double root = low;
    for (int i = 0; i < 200 && high - low > 1e-14 * fmax(1, fabs(root)); i++) {
        if (gsl_root_fsolver_iterate(solver) != GSL_SUCCESS) break;
        root = gsl_root_fsolver_root(solver);
        low = gsl_root_fsolver_x_lower(solver), high = gsl_root_fsolver_x_upper(solver);
        if (excess(root, s) == 0) break;
    }
    gsl_root_fsolver_free(solver);
    return exp(root);
}

static enum status samples_check(double m) {
    if (!(m > 0 && isfinite(m))) return status_set(STATUS_INVALID, "m = %g samples, must be > 0", m);
    return STATUS_OK;
}

static enum status lambda_check(const double *lambda, int64_t n) {
    for (int64_t k = 0; k < n; k++)
        if (!(lambda[k] >= 0 && isfinite(lambda[k])))
            return status_set(STATUS_INVALID, "eigenvalue %lld of %lld is %g, must be >= 0 and finite", (long long)k,
                              (long long)n, lambda[k]);
    return STATUS_OK;
}

enum status residual_mu(const double *lambda, int64_t n, double m, double *mu) {
    enum status status = STATUS_OK;
    TRY(samples_check(m));
    TRY(lambda_check(lambda, n));
    int64_t rank = 0;
    double smallest = INFINITY, trace = 0;
    for (int64_t k = 0; k < n; k++) {
        if (lambda[k] == 0) continue;
        rank++, trace += lambda[k];
        smallest = fmin(smallest, lambda[k]);
    }
    struct spectrum s = {.lambda = lambda, .n = n, .m = m};
    *mu = m >= (double)rank ? 0 : solve(&s, smallest * ((double)rank - m) / m, trace / m);
done:
    return status;
}

enum status residual_mu_power_law(const struct power_law *law, double m, double *mu) {
    enum status status = STATUS_OK;
    TRY(samples_check(m));
    TRY(power_law_check(law));
    double n = (double)law->n, smallest = power_law_eigenvalue(law, law->n);
    struct spectrum s = {.law = law, .m = m};
    *mu = m >= n ? 0 : solve(&s, smallest * (n - m) / m, power_law_sum(law, 1, law->n) / m);
done:
    return status;
}

enum status residual_energy(const double *lambda, int64_t n, double m, double *energy) {
    enum status status = STATUS_OK;
    double mu = 0, trace = 0;
    TRY(lambda_check(lambda, n));
    if (m != 0) TRY(residual_mu(lambda, n, m, &mu));
    for (int64_t k = 0; k < n; k++) trace += lambda[k];
    *energy = m == 0 ? trace : m * mu;
done:
    return status;
}

enum status residual_energy_power_law(const struct power_law *law, double m, double *energy) {
    enum status status = STATUS_OK;
    double mu = 0;
    TRY(power_law_check(law));
    if (m != 0) TRY(residual_mu_power_law(law, m, &mu));
    *energy = m == 0 ? power_law_sum(law, 1, law->n) : m * mu;
done:
    return status;
}

// integral_0^inf dk / (1 + mu k^alpha / scale) = (scale / mu)^(1 / alpha) (pi / alpha) / sin(pi / alpha); the sum from
// k = 1 is smaller by 1/2 (Euler and Maclaurin at k = 0).
double residual_asymptote(double alpha, double scale, double m) {
    REQUIRE(alpha > 1, "the integral needs alpha > 1");
    double angle = M_PI / alpha;
    return scale * m * pow(angle / sin(angle) / (m + 0.5), alpha);
}
