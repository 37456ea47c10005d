// What an ablation leaves for people: table.csv, a line per row, and summary.md, means over seeds with Student's intervals.
#include "bench/ablation.h"

#include "core/base/mem.h"
#include "data/buffer.h"
#include "data/whole_file.h"
#include "theory/student.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool ablation_row_ended(const struct ablation *a, const struct ablation_row *row) {
    bool ended = a->runs[row->run].state >= RUN_DONE;
    for (int e = 0; e < a->n_evaluations; e++)
        ended = ended && (row->evaluations[e] < 0 || a->runs[row->evaluations[e]].state >= RUN_DONE);
    return ended;
}

const char *ablation_row_error(const struct ablation *a, const struct ablation_row *row) {
    const char *error = a->runs[row->run].error;
    for (int e = 0; e < a->n_evaluations && !error; e++)
        if (row->evaluations[e] >= 0) error = a->runs[row->evaluations[e]].error;
    return error;
}

// ---- values ----

// The value of a column, "kl" or "choice.accuracy", in a row; NULL: it has none.
static const json_t *row_value(const struct ablation *a, const struct ablation_row *row, const char *column) {
    const json_t *own = json_object_get(a->runs[row->run].result, column);
    for (int e = 0; e < a->n_evaluations && !own; e++) {
        size_t n = strlen(a->evaluations[e]);
        if (row->evaluations[e] >= 0 && strncmp(column, a->evaluations[e], n) == 0 && column[n] == '.')
            own = json_object_get(a->runs[row->evaluations[e]].result, column + n + 1);
    }
    return own;
}

// The same as a number, also of a ratio "kl/kl_rtn"; NaN: there is none.
static double row_number(const struct ablation *a, const struct ablation_row *row, const char *column) {
    const char *slash = strchr(column, '/');
    if (slash) {
        char *above = mem_string_n(column, (size_t)(slash - column));
        double ratio = row_number(a, row, above) / row_number(a, row, slash + 1);
        free(above);
        return ratio;
    }
    const json_t *value = row_value(a, row, column);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

// ---- text that grows ----

static void add(struct buffer *text, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void add(struct buffer *text, const char *format, ...) {
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    REQUIRE(buffer_reserve(text, (int64_t)n + 1, "a table") == STATUS_OK, "memory is there");
    vsnprintf(text->bytes + text->n_bytes, (size_t)n + 1, format, again);
    va_end(again);
    text->n_bytes += n;
}

// ---- table.csv ----

// Quoted where RFC 4180 wants it.
static void add_field(struct buffer *csv, const char *text) {
    bool plain = !text[strcspn(text, ",\"\r\n")];
    add(csv, plain ? "" : "\"");
    for (const char *c = text; *c; c++) add(csv, *c == '"' ? "\"\"" : "%c", *c);
    add(csv, plain ? "" : "\"");
}

static void add_value(struct buffer *csv, const json_t *value) {
    if (!value || json_is_null(value)) return;
    if (json_is_string(value)) {
        add_field(csv, json_string_value(value));
        return;
    }
    char *text = record_json_text(value, 0);
    add_field(csv, text);
    free(text);
}

// A key of a result, with what its evaluation is called before it.
static char *column_name(const struct ablation *a, int evaluation, const char *key) {
    if (evaluation >= 0) return mem_format("%s.%s", a->evaluations[evaluation], key);
    bool taken = strcmp(key, "row") == 0 || strcmp(key, "status") == 0 || strcmp(key, "error") == 0;
    for (int i = 0; i < a->n_axes; i++) taken |= strcmp(a->axes[i], key) == 0;
    return mem_format("%s%s", taken ? "result." : "", key);
}

// Keys of all rows' results in the order in which they first appear: of the runs, and for each evaluation. [1 + n_evaluations]
static json_t **keys_collect(const struct ablation *a) {
    json_t **keys = mem_new((size_t)a->n_evaluations + 1, sizeof *keys), *value;
    const char *key;
    for (int e = -1; e < a->n_evaluations; e++) {
        keys[e + 1] = json_object();
        for (int i = 0; i < a->n_rows; i++) {
            int run = e < 0 ? a->rows[i].run : a->rows[i].evaluations[e];
            if (run < 0 || !ablation_row_ended(a, &a->rows[i])) continue;
            json_object_foreach(a->runs[run].result, key, value) json_object_set_new(keys[e + 1], key, json_null());
        }
    }
    return keys;
}

static void csv_head(const struct ablation *a, json_t *const *keys, struct buffer *csv) {
    const char *key;
    json_t *value;
    add(csv, "row");
    for (int i = 0; i < a->n_axes; i++) {
        add(csv, ",");
        add_field(csv, a->axes[i]);
    }
    add(csv, ",status,error");
    for (int e = -1; e < a->n_evaluations; e++) json_object_foreach(keys[e + 1], key, value) {
            char *name = column_name(a, e, key);
            add(csv, ",");
            add_field(csv, name);
            free(name);
        }
    add(csv, "\n");
}

static void csv_row(const struct ablation *a, const struct ablation_row *row, json_t *const *keys, struct buffer *csv) {
    const char *key, *error = ablation_row_error(a, row);
    json_t *value;
    add_field(csv, row->name);
    for (int i = 0; i < a->n_axes; i++) {
        add(csv, ",");
        if (row->labels[i]) add_field(csv, row->labels[i]);
    }
    add(csv, ",%s,", error ? "failed" : "done");
    if (error) add_field(csv, error);
    for (int e = -1; e < a->n_evaluations; e++) {
        int run = e < 0 ? row->run : row->evaluations[e];
        json_object_foreach(keys[e + 1], key, value) {
            add(csv, ",");
            if (run >= 0) add_value(csv, json_object_get(a->runs[run].result, key));
        }
    }
    add(csv, "\n");
}

static enum status csv_write(const struct ablation *a) {
    struct buffer csv = {0};
    json_t **keys = keys_collect(a);
    char *path = mem_format("%s/table.csv", a->out);
    csv_head(a, keys, &csv);
    for (int i = 0; i < a->n_rows; i++)
        if (ablation_row_ended(a, &a->rows[i])) csv_row(a, &a->rows[i], keys, &csv);
    enum status status = whole_file_put(path, csv.bytes, (size_t)csv.n_bytes);
    for (int e = -1; e < a->n_evaluations; e++) json_decref(keys[e + 1]);
    free(keys);
    free(path);
    buffer_free(&csv);
    return status;
}

// ---- summary.md ----

static bool same_group(const struct ablation *a, const struct ablation_row *x, const struct ablation_row *y) {
    bool same = strcmp(x->block, y->block) == 0;
    for (int i = 0; i < a->n_axes && same; i++) {
        if (a->over[i]) continue;
        same = !x->labels[i] == !y->labels[i] && (!x->labels[i] || strcmp(x->labels[i], y->labels[i]) == 0);
    }
    return same;
}

// Decimals that leave `digits` significant digits of `value`, 0 to 8.
static int decimals(double value, int digits) {
    if (!(fabs(value) > 0)) return digits;
    return (int)fmin(8, fmax(0, digits - 1 - floor(log10(fabs(value)))));
}

// Mean +- half the interval, the latter with two significant digits; four digits of what has no interval.
static void add_mean(struct buffer *text, const double *values, int64_t n, int64_t n_rows) {
    struct student of = student_of(values, n);
    if (of.half > 0)
        add(text, "%.*f ± %.*f", decimals(of.half, 2), of.mean, decimals(of.half, 2), of.half);
    else
        add(text, "%.*f%s", decimals(of.mean, 4), of.mean, n > 1 ? " ± 0" : "");
    if (n != n_rows) add(text, " (n = %lld)", (long long)n);
}

static void add_cell(struct buffer *text, const struct ablation *a, const struct ablation_row *first,
                     const char *column, double *values) {
    int64_t n = 0, n_rows = 0;
    const json_t *said = NULL;
    bool differ = false;
    for (const struct ablation_row *row = first; row < a->rows + a->n_rows; row++) {
        if (!same_group(a, first, row) || !ablation_row_ended(a, row) || ablation_row_error(a, row)) continue;
        double value = row_number(a, row, column);
        const json_t *other = row_value(a, row, column);
        n_rows++;
        if (isfinite(value)) values[n++] = value;
        if (json_is_string(other)) {
            differ = differ || (said && !json_equal(said, other));
            said = other;
        }
    }
    if (n > 0)
        add_mean(text, values, n, n_rows);
    else
        add(text, "%s", said && !differ ? json_string_value(said) : "–");
}

// n: rows that are done, of how many where some are not.
static void add_count(struct buffer *text, const struct ablation *a, const struct ablation_row *first) {
    int n = 0, of = 0;
    for (const struct ablation_row *row = first; row < a->rows + a->n_rows; row++) {
        if (!same_group(a, first, row)) continue;
        n += ablation_row_ended(a, row) && !ablation_row_error(a, row);
        of++;
    }
    add(text, n == of ? " %d |" : " %d of %d |", n, of);
}

static int axes_shown(const struct ablation *a) {
    int n = 0;
    for (int i = 0; i < a->n_axes; i++) n += !a->over[i];
    return n;
}

// The row's labels on the axes that are shown. A row with a name of its own has it where the first label is missing, else behind the first.
static void add_labels(struct buffer *text, const struct ablation *a, const struct ablation_row *row) {
    const char *name = row->block;
    bool missing = false;
    for (int c = 0; c < a->n_axes; c++) missing = missing || (!a->over[c] && !row->labels[c]);
    if (axes_shown(a) == 0) add(text, " %s |", name);
    for (int c = 0; c < a->n_axes; c++) {
        const char *label = row->labels[c];
        if (a->over[c]) continue;
        add(text, " %s", label ? label : name);
        if (label && *name && !missing) add(text, ", %s", name);
        if (!label || !missing) name = "";
        add(text, " |");
    }
}

static void summary_head(const struct ablation *a, const char *const *columns, int n, struct buffer *text) {
    add(text, "# %s\n\n", a->title);
    if (*a->about) add(text, "%s\n\n", a->about);
    add(text, "|");
    if (axes_shown(a) == 0) add(text, " row |");
    for (int i = 0; i < a->n_axes; i++)
        if (!a->over[i]) add(text, " %s |", a->axes[i]);
    add(text, " n |");
    for (int k = 0; k < n; k++) add(text, " %s |", columns[k]);
    add(text, "\n|");
    for (int k = 0; k < n + 1 + (axes_shown(a) ? axes_shown(a) : 1); k++) add(text, "---|");
    add(text, "\n");
}

static void summary_foot(const struct ablation *a, struct buffer *text) {
    bool over = false;
    for (int i = 0; i < a->n_axes; i++) {
        if (a->over[i])
            add(text, "%s%s", over ? ", " : "\nMean ± half the 95 % interval (Student's t) over: ", a->axes[i]);
        over = over || a->over[i];
    }
    if (over) add(text, ".\n");
    for (int i = 0; i < a->n_rows; i++) {
        const char *error = ablation_row_error(a, &a->rows[i]);
        if (error) add(text, "\n* failed: %s: %s\n", a->rows[i].name, error);
    }
}

static void summary_make(const struct ablation *a, struct buffer *text) {
    static const char *const usual[] = {"kl", "perplexity", "top1_agreement"};
    const char *const *columns = a->n_columns ? a->columns : usual;
    int n_columns = a->n_columns ? a->n_columns : 3;
    double *values = mem_new((size_t)a->n_rows + 1, sizeof *values);
    summary_head(a, columns, n_columns, text);
    for (int i = 0; i < a->n_rows; i++) {
        bool seen = false;
        for (int k = 0; k < i && !seen; k++) seen = same_group(a, &a->rows[k], &a->rows[i]);
        if (seen) continue;
        const struct ablation_row *row = &a->rows[i];
        add(text, "|");
        add_labels(text, a, row);
        add_count(text, a, row);
        for (int k = 0; k < n_columns; k++) {
            add(text, " ");
            add_cell(text, a, row, columns[k], values);
            add(text, " |");
        }
        add(text, "\n");
    }
    summary_foot(a, text);
    free(values);
}

enum status ablation_tables(const struct ablation *ablation, char **summary) {
    enum status status = STATUS_OK;
    struct buffer text = {0};
    char *path = mem_format("%s/summary.md", ablation->out);
    TRY(csv_write(ablation));
    summary_make(ablation, &text);
    TRY(whole_file_put(path, text.bytes, (size_t)text.n_bytes));
    *summary = mem_string_n(text.bytes, (size_t)text.n_bytes);
done:
    buffer_free(&text);
    free(path);
    return status;
}
