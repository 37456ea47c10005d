#include "theory/student.h"

#include <float.h>
#include <gsl/gsl_cdf.h>
#include <math.h>

struct student student_of(const double *values, int64_t n) {
    struct student of = {.mean = NAN, .half = NAN};
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < n; i++)
        if (!isnan(values[i])) sum += values[i], of.n++;
    if (of.n > 0) of.mean = sum / (double)of.n;
    if (of.n < 2) return of;
    for (int64_t i = 0; i < n; i++)
        if (!isnan(values[i])) squares += (values[i] - of.mean) * (values[i] - of.mean);
    double deviation = sqrt(squares / (double)(of.n - 1));
    of.half = gsl_cdf_tdist_Pinv(0.975, (double)(of.n - 1)) * deviation / sqrt((double)of.n);
    if (deviation <= 4 * DBL_EPSILON * fabs(of.mean)) of.half = 0;
    return of;
}
