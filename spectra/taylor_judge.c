#include "spectra/taylor_run.h"

#include "core/base/mem.h"
#include "core/base/progress.h"
#include "spectra/beta.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void taylor_put(struct taylor_run *run, const char *key, const char *name, double value) {
    char *full = mem_format("%s_%s", key, name);
    record_number(run_folder_result(run->folder), full, value);
    free(full);
}

static void put_estimate(struct taylor_run *run, const char *key, const char *name, struct estimate e) {
    char *error = mem_format("%s_se", key);
    taylor_put(run, key, name, e.value);
    taylor_put(run, error, name, e.se);
    free(error);
}

static void put_interval(struct taylor_run *run, const char *key, const char *name, double value, double low,
                         double high) {
    char *ci_low = mem_format("%s_ci_low", key), *ci_high = mem_format("%s_ci_high", key);
    taylor_put(run, key, name, value);
    taylor_put(run, ci_low, name, low);
    taylor_put(run, ci_high, name, high);
    free(ci_low);
    free(ci_high);
}

static enum status save_array(struct taylor_run *run, const char *what, const char *name, const double *values,
                              int64_t rows, int64_t cols) {
    char *full = name ? mem_format("%s_%s", what, name) : mem_string(what);
    enum status status = run_folder_array(run->folder, full, NPY_F64, values, rows, cols);
    free(full);
    return status;
}

// Means of windows: what a sample is for spectra and for the walk.
static void put_windows(struct taylor_run *run, const char *name, const double *first, const double *delta) {
    int64_t n = run->settings->samples;
    double *x = mem_new((size_t)n, sizeof *x), *y = mem_new((size_t)n, sizeof *y);
    for (int64_t i = 0; i < n * run->size; i++) {
        x[i / run->size] += first[i] / (double)run->size;
        y[i / run->size] += delta[i] / (double)run->size;
    }
    struct agreement windows;
    agreement_measure(x, y, n, 1, &windows);
    struct beta_ratio beta = beta_ratio(x, n);
    put_interval(run, "pearson_windows", name, windows.pearson.value, windows.pearson.low, windows.pearson.high);
    put_interval(run, "beta", name, beta.value, beta.low, beta.high);
    taylor_put(run, "beta_without_largest", name, beta.without_largest);
    free(x);
    free(y);
}

static enum status judge_agreement(struct taylor_run *run, const char *name, const struct taylor_numbers *at,
                                   const struct taylor_numbers *moved) {
    enum status status = STATUS_OK;
    int64_t n = run->settings->samples;
    void *buffer = NULL;
    struct agreement a;
    TRY(mem_buffer_new(n * run->size * (int64_t)sizeof(double), "loss changes", &buffer));
    double *delta = buffer;
    for (int64_t i = 0; i < n * run->size; i++) delta[i] = moved->losses[i] - at->losses[i];
    TRY(save_array(run, "delta", name, delta, n, run->size));
    TRY(save_array(run, "first_order", name, at->tangents, n, run->size));
    agreement_measure(at->tangents, delta, n, run->size, &a);
    put_interval(run, "pearson", name, a.pearson.value, a.pearson.low, a.pearson.high);
    put_estimate(run, "slope", name, a.slope);
    put_estimate(run, "slope_tls", name, a.slope_total);
    put_estimate(run, "sign_agreement", name, a.sign);
    put_estimate(run, "remainder_share", name, a.remainder);
    taylor_put(run, "delta_mean", name, a.mean_y);
    taylor_put(run, "delta_rms", name, a.rms_y);
    taylor_put(run, "first_order_mean", name, a.mean_x);
    taylor_put(run, "first_order_rms", name, a.rms_x);
    put_windows(run, name, at->tangents, delta);
    progress_clear();
    printf("%-12s pearson %.4f [%.4f, %.4f]  slope %.4f  signs %.3f  remainder %.4f\n", name, a.pearson.value,
           a.pearson.low, a.pearson.high, a.slope.value, a.sign.value, a.remainder.value);
done:
    mem_buffer_free(buffer);
    return status;
}

static enum status log_order(struct taylor_run *run, const char *name, const struct taylor_order *o) {
    enum status status = STATUS_OK;
    enum { COLUMNS = 5 };
    double table[TAYLOR_MOST * COLUMNS];
    struct record *line = record_new();
    for (int k = 0; k < o->n_t; k++) {
        double row[COLUMNS] = {o->t[k], o->plain[k], o->even[k], o->central[k], o->used[k]};
        memcpy(table + k * COLUMNS, row, sizeof row);
        record_clear(line);
        record_string(line, "name", name);
        record_number(line, "t", o->t[k]);
        record_number(line, "remainder", o->plain[k]);
        record_number(line, "remainder_even", o->even[k]);
        record_number(line, "remainder_central", o->central[k]);
        record_bool(line, "used", o->used[k]);
        TRY(run_folder_log(run->folder, line));
    }
    TRY(save_array(run, "order", name, table, o->n_t, COLUMNS));
done:
    record_free(line);
    return status;
}

static enum status judge_order(struct taylor_run *run, const char *name, const struct taylor_numbers *passes) {
    const struct taylor_settings *s = run->settings;
    const double *up[TAYLOR_MOST], *down[TAYLOR_MOST];
    double t[TAYLOR_MOST];
    struct taylor_order o;
    int points = 0;
    for (int k = 0; k < taylor_run_t(s); k++) {
        t[k] = passes[2 + 2 * k].t;
        up[k] = passes[2 + 2 * k].losses;
        down[k] = passes[3 + 2 * k].losses;
    }
    taylor_order_measure(passes[0].losses, passes[0].tangents, up, down, t, taylor_run_t(s), run->order_windows,
                         run->size, &o);
    double least = NAN, most = NAN;
    for (int k = 0; k < o.n_t; k++) {
        if (!o.used[k]) continue;
        if (!points++) most = o.t[k];
        least = o.t[k];
    }
    put_estimate(run, "order", name, o.order);
    put_estimate(run, "order_even", name, o.order_even);
    char *key = mem_format("order_points_%s", name);
    record_integer(run_folder_result(run->folder), key, points);
    free(key);
    taylor_put(run, "order_t_least", name, least);
    taylor_put(run, "order_t_most", name, most);
    taylor_put(run, "order_floor", name, o.floor);
    taylor_put(run, "central_error", name, o.central_least);
    printf("%-12s remainder of order %.4f +- %.4f over t = %g … %g, central difference within %.2g\n", name,
           o.order.value, o.order.se, most, least, o.central_least);
    return log_order(run, name, &o);
}

enum status taylor_judge(struct taylor_run *run) {
    enum status status = STATUS_OK;
    const struct taylor_settings *s = run->settings;
    struct record *result = run_folder_result(run->folder);
    record_string(result, "loss", "cross entropy of the next token, nats");
    record_integer(result, "windows", s->samples);
    record_integer(result, "tokens", s->samples * run->size);
    TRY(save_array(run, "loss", NULL, run->plan[0].losses, s->samples, run->size));
    for (int64_t d = 0; d < run->directions->n; d++) {
        const struct taylor_numbers *passes = run->plan + d * run->per_direction;
        TRY(judge_agreement(run, run->directions->names[d], &passes[0], &passes[1]));
        if (taylor_run_t(s)) TRY(judge_order(run, run->directions->names[d], passes));
    }
    record_number(result, "seconds", run_folder_seconds(run->folder));
done:
    return status;
}
