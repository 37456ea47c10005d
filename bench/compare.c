#include "bench/compare.h"

#include "bench/json_lines.h"
#include "core/base/mem.h"
#include "data/json.h"

#include <gsl/gsl_cdf.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

double compare_p_value(int64_t only_first, int64_t only_second) {
    int64_t n = only_first + only_second, fewer = only_first < only_second ? only_first : only_second;
    if (n == 0) return 1;
    return fmin(1, 2 * gsl_cdf_binomial_P((unsigned)fewer, 0.5, (unsigned)n));
}

// What a run says of its items, in their order.
struct answers {
    char *right, *right_norm; // [n]
    int64_t n, n_norm;        // n_norm: how many lines have "correct_norm"
    json_t *result;
};

static enum status answers_line(void *context, const json_t *object, const char *where, int64_t line, bool *stop) {
    enum status status = STATUS_OK;
    struct answers *a = context;
    (void)line, (void)stop;
    int64_t item;
    bool right, norm;
    TRY(json_get_integer(object, where, "item", &item));
    TRY(json_get_bool(object, where, "correct", &right));
    TRY(json_get_bool_or(object, where, "correct_norm", false, &norm));
    if (item != a->n)
        TRY(status_set(STATUS_FORMAT, "%s: item %lld stands where item %lld should", where, (long long)item,
                       (long long)a->n));
    if ((a->n & (a->n - 1)) == 0) {
        size_t room = a->n ? 2 * (size_t)a->n : 1;
        a->right = mem_resize(a->right, room, 1);
        a->right_norm = mem_resize(a->right_norm, room, 1);
    }
    a->right[a->n] = right;
    a->right_norm[a->n++] = norm;
    a->n_norm += json_object_get(object, "correct_norm") != NULL;
done:
    return status;
}

static enum status answers_read(const char *run, struct answers *a) {
    char *lines = mem_format("%s/metrics.jsonl", run), *result = mem_format("%s/result.json", run);
    enum status status = json_read_file(result, &a->result);
    if (status == STATUS_OK) status = json_lines_read(lines, answers_line, a);
    free(lines);
    free(result);
    return status;
}

static void answers_close(struct answers *a) {
    free(a->right);
    free(a->right_norm);
    json_decref(a->result);
}

static void tally(const char *a, const char *b, int64_t n, const char *suffix, struct record *record) {
    static const char *const names[] = {"right_first", "right_second", "only_first", "only_second", "p_value"};
    int64_t counts[4] = {0};
    for (int64_t i = 0; i < n; i++) {
        counts[0] += a[i];
        counts[1] += b[i];
        counts[2] += a[i] && !b[i];
        counts[3] += b[i] && !a[i];
    }
    for (int k = 0; k < 5; k++) {
        char *key = mem_format("%s%s", names[k], suffix);
        if (k < 4)
            record_integer(record, key, counts[k]);
        else
            record_number(record, key, compare_p_value(counts[2], counts[3]));
        free(key);
    }
}

static struct compare_settings {
    const char *runs[2];
    int n_runs;
} settings;

static enum status compare_run(const struct program_common *common, void *input) {
    enum status status = STATUS_OK;
    const struct compare_settings *s = input;
    (void)common;
    struct answers a = {0}, b = {0};
    struct record *record = record_new();
    const char *tasks[2];
    TRY(answers_read(s->runs[0], &a));
    TRY(answers_read(s->runs[1], &b));
    TRY(json_get_string(a.result, s->runs[0], "task", &tasks[0]));
    TRY(json_get_string(b.result, s->runs[1], "task", &tasks[1]));
    if (strcmp(tasks[0], tasks[1]) != 0 || a.n != b.n)
        TRY(status_set(STATUS_INVALID, "%s has %lld items of %s, %s %lld of %s: they must be of the same", s->runs[0],
                       (long long)a.n, tasks[0], s->runs[1], (long long)b.n, tasks[1]));
    record_string(record, "task", tasks[0]);
    record_integer(record, "items", a.n);
    tally(a.right, b.right, a.n, "", record);
    if (a.n_norm == a.n && b.n_norm == b.n) tally(a.right_norm, b.right_norm, a.n, "_norm", record);
    char *text = record_text(record, 0);
    printf("%s\n", text);
    free(text);
done:
    answers_close(&a);
    answers_close(&b);
    record_free(record);
    return status;
}

static error_t compare_parse(int key, char *arg, struct argp_state *state) {
    struct compare_settings *s = state->input;
    switch (key) {
    case ARGP_KEY_ARG:
        if (s->n_runs == 2) args_fail("'%s': two runs are compared", arg);
        s->runs[s->n_runs++] = arg;
        return 0;
    case ARGP_KEY_END:
        if (s->n_runs != 2) args_fail("give two runs of eval");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

const struct command compare_command = {
    .name = "compare",
    .doc = "Compares two runs of eval on the same items, item by item.\v"
           "p_value: McNemar's exact test, two-sided, of the items that one of them alone has right.",
    .args_doc = "RUN RUN",
    .parse = compare_parse,
    .run = compare_run,
    .settings = &settings,
};
