#include "discquant/soft_rounding.h"

#include "core/base/mem.h"

#include <cblas.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const float stretch = 1.2f, shift = 0.1f;
static const double beta_first = 20, beta_last = 2, free_share = 0.2;

double soft_rounding_value(double v, double *slope) {
    double s = 1 / (1 + exp(-v)), h = 1.2 * s - 0.1;
    *slope = h > 0 && h < 1 ? 1.2 * s * (1 - s) : 0;
    return fmin(1, fmax(0, h));
}

double soft_rounding_variable(double h) { return -log(1.2 / (h + 0.1) - 1); }

// Rows are independent: each part goes through all steps on its own. [part, n] each.
struct part {
    int64_t first, rows, n;
    const float *w, *down, *up; // of its rows
    const float *h;             // [n, n] both triangles, divided by the number of tokens
    double scale;               // c times rows of X
    float *v, *m, *second, *e, *g;
};

enum { PARTS = 8, PART_LEAST = 8, PART_MOST = 64, PART_BUFFERS = 5 };

// g = e H.
static void times_hessian(const struct part *p) {
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)p->rows, (int)p->n, (int)p->n, 1, p->e, (int)p->n, p->h,
                (int)p->n, 0, p->g, (int)p->n);
}

// Error of each row with w' in e's place as w' - w.
static void row_errors(const struct part *p, double *errors) {
    times_hessian(p);
    for (int64_t r = 0; r < p->rows; r++) {
        errors[r] = 0;
        for (int64_t i = r * p->n; i < (r + 1) * p->n; i++) errors[r] += (double)p->e[i] * (double)p->g[i];
    }
}

static float nearest_x(const struct part *p, int64_t i) {
    return p->up[i] > p->down[i] && p->up[i] - p->w[i] < p->w[i] - p->down[i];
}

static double beta_of(double progress) {
    return beta_last + (beta_first - beta_last) * fmin(1, (1 - progress) / (1 - free_share));
}

static void adam_step(const struct part *p, const struct soft_rounding_options *o, int64_t step) {
    const double b1 = 0.9, b2 = 0.999, progress = (double)step / (double)o->steps;
    const float strength = progress < free_share ? 0 : (float)o->strength, beta = (float)beta_of(progress);
    const float rate = (float)(o->rate / (1 - pow(b1, (double)step + 1))),
                root = (float)(1 / (1 - pow(b2, (double)step + 1)));
    const float factor = (float)(2 / p->scale);
    for (int64_t i = 0; i < p->rows * p->n; i++) {
        float s = 1 / (1 + expf(-p->v[i])), h = stretch * s - shift;
        if (h > 0 && h < 1) {
            float from = 2 * h - 1, pull = 0;
            if (strength > 0) pull = strength * 2 * beta * powf(fabsf(from), beta - 1) * (from > 0 ? -1.0f : 1.0f);
            float d = (factor * p->g[i] * (p->up[i] - p->down[i]) + pull) * stretch * s * (1 - s);
            p->m[i] = 0.9f * p->m[i] + 0.1f * d;
            p->second[i] = 0.999f * p->second[i] + 0.001f * d * d;
        } else {
            p->m[i] *= 0.9f;
            p->second[i] *= 0.999f;
        }
        p->v[i] -= rate * p->m[i] / (sqrtf(root * p->second[i]) + 1e-8f);
    }
}

static void soft_errors(const struct part *p) {
    for (int64_t i = 0; i < p->rows * p->n; i++) {
        float h = stretch / (1 + expf(-p->v[i])) - shift;
        h = h < 0 ? 0 : h > 1 ? 1 : h;
        p->e[i] = p->down[i] + (p->up[i] - p->down[i]) * h - p->w[i];
    }
}

static void part_start(const struct part *p) {
    memset(p->m, 0, (size_t)(p->rows * p->n) * sizeof *p->m);
    memset(p->second, 0, (size_t)(p->rows * p->n) * sizeof *p->second);
    for (int64_t i = 0; i < p->rows * p->n; i++) {
        double gap = (double)p->up[i] - (double)p->down[i];
        double y = gap > 0 ? ((double)p->w[i] - (double)p->down[i]) / gap : 0;
        p->v[i] = (float)soft_rounding_variable(fmin(1, fmax(0, y)));
    }
}

// x of the part, and the errors of its rows: learned or nearest, the better one.
static void part_finish(const struct part *p, const double *nearest, float *x, double *errors, bool *stayed) {
    for (int64_t i = 0; i < p->rows * p->n; i++) {
        x[i] = p->v[i] > 0 && p->up[i] > p->down[i];
        p->e[i] = (x[i] > 0 ? p->up[i] : p->down[i]) - p->w[i];
    }
    row_errors(p, errors);
    for (int64_t r = 0; r < p->rows; r++) {
        stayed[r] = !(errors[r] <= nearest[r]);
        if (!stayed[r]) continue;
        errors[r] = nearest[r];
        for (int64_t i = r * p->n; i < (r + 1) * p->n; i++) x[i] = nearest_x(p, i);
    }
}

static void nearest_errors(const struct part *p, double *errors) {
    for (int64_t i = 0; i < p->rows * p->n; i++) p->e[i] = (nearest_x(p, i) > 0 ? p->up[i] : p->down[i]) - p->w[i];
    row_errors(p, errors);
}

struct job {
    struct part whole; // all rows
    int64_t part;      // rows of a part
    float *buffers;    // [PART_BUFFERS, rows, n]
    double *nearest, *errors;
    bool *stayed;
};

static struct part part_of(const struct job *job, int64_t first) {
    struct part p = job->whole;
    int64_t at = first * p.n, all = p.rows * p.n;
    p.first = first;
    p.rows = p.rows - first < job->part ? p.rows - first : job->part;
    p.w += at, p.down += at, p.up += at;
    p.v = job->buffers + at, p.m = p.v + all, p.second = p.m + all, p.e = p.second + all, p.g = p.e + all;
    return p;
}

static enum status job_open(struct job *job, const struct hessian *hessian) {
    enum status status = STATUS_OK;
    int64_t n = hessian->n, rows = job->whole.rows;
    void *h = NULL, *buffers = NULL;
    job->part = (rows + PARTS - 1) / PARTS;
    job->part = job->part < PART_LEAST ? PART_LEAST : job->part > PART_MOST ? PART_MOST : job->part;
    job->nearest = mem_new((size_t)rows, sizeof *job->nearest);
    job->errors = mem_new((size_t)rows, sizeof *job->errors);
    job->stayed = mem_new((size_t)rows, sizeof *job->stayed);
    TRY(mem_buffer_new(PART_BUFFERS * rows * n * 4, "variables of a matrix", &buffers));
    job->buffers = buffers;
    TRY(mem_buffer_new(n * n * 4, "a Gram matrix", &h));
    job->whole.h = h;
    float *to = h;
    double tokens = hessian->rows > 0 ? (double)hessian->rows : 1;
#pragma omp parallel for schedule(static, 8)
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++)
            to[i * n + j] = (float)((j <= i ? hessian->sum[i * n + j] : hessian->sum[j * n + i]) / tokens);
done:
    return status;
}

static void job_close(struct job *job) {
    mem_buffer_free((void *)job->whole.h);
    mem_buffer_free(job->buffers);
    free(job->nearest);
    free(job->errors);
    free(job->stayed);
}

enum status soft_rounding(const struct hessian *hessian, const float *w, const float *down, const float *up,
                          int64_t rows, const struct soft_rounding_options *options, float *x,
                          struct soft_rounding_result *result) {
    enum status status = STATUS_OK;
    struct job job = {.whole = {.rows = rows, .n = hessian->n, .w = w, .down = down, .up = up}};
    double tokens = (double)hessian->rows;
    TRY(job_open(&job, hessian));
    *result = (struct soft_rounding_result){0};
#pragma omp parallel for schedule(dynamic)
    for (int64_t first = 0; first < rows; first += job.part) {
        struct part p = part_of(&job, first);
        nearest_errors(&p, job.nearest + first);
    }
    for (int64_t r = 0; r < rows; r++) result->error_nearest += tokens * job.nearest[r];
    double scale = result->error_nearest / tokens / (double)(rows * hessian->n);
    job.whole.scale = scale > 0 ? scale : 1; // nothing to gain
#pragma omp parallel for schedule(dynamic)
    for (int64_t first = 0; first < rows; first += job.part) {
        struct part p = part_of(&job, first);
        part_start(&p);
        for (int64_t step = 0; step < options->steps; step++) {
            soft_errors(&p);
            times_hessian(&p);
            adam_step(&p, options, step);
        }
        part_finish(&p, job.nearest + first, x + first * p.n, job.errors + first, job.stayed + first);
    }
    for (int64_t r = 0; r < rows; r++) {
        result->error += tokens * job.errors[r];
        result->rows_nearest += job.stayed[r];
    }
done:
    job_close(&job);
    return status;
}
