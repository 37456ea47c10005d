// How far gradients are from beta-reasonable (paper, Section 2):
//     E <g, u>^4 <= beta (E <g, u>^2)^2   for all directions u.
// A Gaussian has 3, independent signs at most 3, one sample in p with all the weight 1/p.
//
//     TRY(beta_source_new(&rows, 0, covariance, backend, 128, &source));
//     TRY(beta_measure(source, 32, seed, &beta));             // beta.held_out.value …
//     beta_source_free(source);
//     ratio = beta_ratio(products, n);                        // of one direction u, from <g_i, u>
//
// What can be known. Over the span of the r leading eigenvectors of the second moment, with samples h_i whitened there,
//     held_out     a direction that one half of the samples proposes, judged by the other half. The only figure here that speaks
//                  of gradients that have not been seen: a lower bound of beta, up to its interval.
//     lower        the best direction found for the samples at hand: a lower bound of *their* beta, which exceeds beta;
//     upper        proven: no direction does worse on these samples (spectra/beta_certificate.h);
//     leverage     |h|^4_max / n <= beta of the samples <= |h|^2_max.
// The samples' own beta grows with r whatever the gradients are; fourth moments in r dimensions need n of the order of r^2
// (Guedon and Rudelson, "Lp-moments of random vectors via majorizing measures", Adv. Math. 2007). Where n < 4 r^2 it says
// nothing of the gradients: beta_directions_known. A sketch S cannot raise beta: <S g, u> = <g, S^T u>.
#ifndef DQ_SPECTRA_BETA_H
#define DQ_SPECTRA_BETA_H

#include "spectra/beta_certificate.h"
#include "spectra/covariance.h"

// mean x^4 / (mean x^2)^2 of n numbers, not centred. The interval is meant to hold 95 %: delete-one jackknife of the logarithm,
// normal quantiles. Simulated with 2000 numbers: 93.6 % of Gaussian ones, 86 % of Laplacian ones (truth 6), 73 % of
// Gaussian ones of log-normal size (8.2). What is missing lies above the interval: the low end is above the truth in less than 3 %.
// A fourth moment is often one sample's, which the last two fields show.
struct beta_ratio {
    double value, low, high;
    double log_se;          // standard error of log value
    double without_largest; // value without the largest number
    double largest_share;   // of the sum of fourth powers that is the largest number's
};

// NaN throughout where all numbers are 0 or n < 3.
struct beta_ratio beta_ratio(const double *products, int64_t n);

// The most directions that n samples can say something about: floor(sqrt(n) / 2).
int64_t beta_directions_known(int64_t n);

// Of samples as they are, seen as the whole distribution.
struct beta_sample {
    int64_t directions;           // r
    double lower;                 // power iteration u <- mean <h, u>^3 h, 6 starts at samples and 6 at random
    double lower_without_largest; // the same direction without its most influential sample
    double lower_largest_share;   //
    double upper;                 // proven, >= lower
    double t, least;              // of the certificate
    double leverage_low, leverage_high;
    double average; // mean of <h, u>^4 over all directions u: 3 mean |h|^4 / (r (r + 2))
};

// x [n, r], rows `stride` apart, of any covariance: beta is the same for every basis. `best` [r], NULL where it is not asked for,
// receives the direction of `lower` in the coordinates of x. STATUS_INVALID where n < r + 1 or x spans fewer than r directions.
enum status beta_of_sample(const double *x, int64_t n, int64_t r, int64_t stride, uint64_t seed,
                           struct beta_sample *out, double *best);

// The direction [r] to be judged by other samples: of the ends of the power iterations over the first r, r/2, r/4 … coordinates
// (8 at least) the one whose interval has the highest low end. The largest fourth moment itself is usually one sample's, and
// other samples do not confirm it. STATUS_INVALID as above.
enum status beta_propose(const double *x, int64_t n, int64_t r, int64_t stride, uint64_t seed, double *proposed);

struct beta_measure {
    struct beta_sample sample;
    bool known; // n >= 4 r^2: sample's figures say something of the gradients
    // Geometric mean over the two ways to propose on one half of the samples (first or second, eigenvectors too) and to
    // judge on the other. largest_share is the larger one of the two.
    struct beta_ratio held_out;
    struct beta_ratio half[2]; // judged on the first, on the second half
    struct beta_ratio leading; // of the first eigenvector
};

// Coordinates of all samples along the leading eigenvectors, of all samples and of each half.
struct beta_source;

// Uncentred. `covariance` is that of rows, of the same sketch. directions_most <= dim; fewer than that are there when
// eigenvalues beyond 1e-10 of the largest are: beta_source_directions. STATUS_INVALID with fewer than 8 samples.
enum status beta_source_new(const struct sketch_rows *rows, int64_t sketch, const struct covariance *covariance,
                            struct backend *backend, int64_t directions_most, struct beta_source **out);
void beta_source_free(struct beta_source *source); // accepts NULL
int64_t beta_source_directions(const struct beta_source *source);

// 1 <= r <= beta_source_directions. STATUS_INVALID where a half has too few samples for r.
enum status beta_measure(const struct beta_source *source, int64_t r, uint64_t seed, struct beta_measure *out);

#endif
